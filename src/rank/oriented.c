/* Which of many pairs of oriented features agree on one affine map. A single pair has a place, a size and a direction
 * on both sides, which is a whole similarity: so there are as many hypotheses as pairs, and all are tried. The best few
 * are refined to affine maps by fitting to those who agree. */
#include "rank/fit.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REFINED = 4, STEPS = 8, LEAST = 3 };
#define LOOSE 2.0       /* hypotheses of one pair are so much less exact than fits to many */
#define TURN_LIMIT 0.6  /* radians by which a pair may turn otherwise than the hypothesis */
#define SCALE_LIMIT 1.0 /* doublings by which it may grow otherwise */
#define MOST_SCALE 10.0
#define PI 3.141592653589793

/* A pair as a similarity: how much it grows (doublings) and turns. */
typedef struct pair {
    double grow, turn;
} pair;

typedef struct voting {
    size_t n;
    double threshold;
    lk_point *p, *q; /* [n]: the places */
    pair *pairs;     /* [n] */
    uint32_t *inliers, *best;
    size_t best_count;
    double transform[9];
} voting;

static bool like(const pair *a, const pair *b)
{
    double turn = fabs(a->turn - b->turn);
    return fmin(turn, fabs(2 * PI - turn)) <= TURN_LIMIT && fabs(a->grow - b->grow) <= SCALE_LIMIT;
}

static void similarity_of(const voting *v, size_t i, double t[9])
{
    double scale = exp2(v->pairs[i].grow), c = scale * cos(v->pairs[i].turn), s = scale * sin(v->pairs[i].turn);
    lk_point p = v->p[i], q = v->q[i];
    const double out[9] = {c, -s, q.x - c * p.x + s * p.y, s, c, q.y - s * p.x - c * p.y, 0, 0, 1};
    memcpy(t, out, sizeof out);
}

/* Pairs that the transform puts within `limit` and that grow and turn like pair `like_pair`. inliers may be NULL. */
static size_t agreeing(const voting *v, const double t[9], double limit, size_t like_pair, uint32_t *inliers)
{
    size_t count = 0;
    for (size_t j = 0; j < v->n; j++) {
        double dx = t[0] * v->p[j].x + t[1] * v->p[j].y + t[2] - v->q[j].x,
               dy = t[3] * v->p[j].x + t[4] * v->p[j].y + t[5] - v->q[j].y;
        if (!(dx * dx + dy * dy <= limit * limit) || !like(&v->pairs[j], &v->pairs[like_pair])) continue;
        if (inliers) inliers[count] = (uint32_t)j;
        count++;
    }
    return count;
}

/* A map that neither mirrors nor flattens. */
static bool plausible(const double t[9])
{
    double det = t[0] * t[4] - t[1] * t[3], square = t[0] * t[0] + t[1] * t[1] + t[3] * t[3] + t[4] * t[4];
    return det > 0 && det > 0.19 * square && square < 2 * MOST_SCALE * MOST_SCALE &&
           square * MOST_SCALE * MOST_SCALE > 2;
}

static void refine(voting *v, size_t hypothesis)
{
    double t[9];
    size_t before = 0;
    similarity_of(v, hypothesis, t);
    size_t count = agreeing(v, t, LOOSE * v->threshold, hypothesis, v->inliers);
    for (int step = 0; step < STEPS && count > LEAST; step++) {
        if (!lk_fit_chosen(LK_AFFINE, count, v->inliers, v->p, v->q, t) || !plausible(t)) return;
        count = agreeing(v, t, v->threshold, hypothesis, v->inliers);
        if (count > LEAST && count > v->best_count) {
            v->best_count = count;
            memcpy(v->best, v->inliers, count * sizeof *v->best);
            memcpy(v->transform, t, sizeof t);
        }
        if (count <= before) return;
        before = count;
    }
}

/* The hypotheses that most pairs agree with, best first; of equal ones the first. Returns how many. */
static size_t elect(const voting *v, size_t chosen[REFINED])
{
    size_t votes[REFINED] = {0}, kept = 0;
    for (size_t i = 0; i < v->n; i++) {
        double t[9];
        if (fabs(v->pairs[i].grow) > log2(MOST_SCALE)) continue;
        similarity_of(v, i, t);
        size_t count = agreeing(v, t, LOOSE * v->threshold, i, NULL), at = kept;
        if (count <= LEAST) continue;
        while (at > 0 && votes[at - 1] < count) at--;
        if (at == REFINED) continue;
        size_t moved = (kept < REFINED ? kept : REFINED - 1) - at;
        memmove(votes + at + 1, votes + at, moved * sizeof *votes);
        memmove(chosen + at + 1, chosen + at, moved * sizeof *chosen);
        votes[at] = count;
        chosen[at] = i;
        if (kept < REFINED) kept++;
    }
    return kept;
}

lk_status lk_verify_features(double threshold, size_t n, const lk_feature *from, const lk_feature *to, lk_verified *out,
                             uint8_t *inlier)
{
    *out = (lk_verified){0};
    if (inlier) memset(inlier, 0, n);
    if (!(threshold > 0 && isfinite(threshold)))
        return lk_fail(LK_INVALID, "verification: the threshold is a number above 0");
    if (n > UINT32_MAX) return lk_fail(LK_INVALID, "too many pairs of features");
    if (n <= LEAST) return LK_OK;
    voting v = {.n = n,
                .threshold = threshold,
                .p = lk_alloc(n, sizeof *v.p),
                .q = lk_alloc(n, sizeof *v.q),
                .pairs = lk_alloc(n, sizeof *v.pairs),
                .inliers = lk_alloc(n, sizeof *v.inliers),
                .best = lk_alloc(n, sizeof *v.best)};
    lk_status s = v.p && v.q && v.pairs && v.inliers && v.best ? LK_OK : lk_fail_memory("verification");
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        v.p[i] = (lk_point){(double)from[i].x, (double)from[i].y};
        v.q[i] = (lk_point){(double)to[i].x, (double)to[i].y};
        v.pairs[i] = (pair){log2((double)to[i].scale / (double)from[i].scale),
                            remainder((double)to[i].angle - (double)from[i].angle, 2 * PI)};
    }
    size_t chosen[REFINED], hypotheses = s == LK_OK ? elect(&v, chosen) : 0;
    for (size_t h = 0; h < hypotheses; h++) refine(&v, chosen[h]);
    out->iterations = (uint32_t)n;
    if (v.best_count) {
        out->inliers = v.best_count;
        memcpy(out->transform, v.transform, sizeof out->transform);
        for (size_t i = 0; inlier && i < v.best_count; i++) inlier[v.best[i]] = 1;
    }
    free(v.p);
    free(v.q);
    free(v.pairs);
    free(v.inliers);
    free(v.best);
    return s;
}
