/* Which of many pairs of points agree on one transform: RANSAC with local optimisation. */
#include "rank/fit.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOCAL_STEPS = 10 };
#define FLAT 1e-3 /* a triangle whose area is below this part of its longest side squared counts as a line */

lk_verify_options lk_verify_defaults(void)
{
    return (lk_verify_options){.kind = LK_AFFINE, .threshold = 3, .confidence = 0.999, .iterations = 2000, .seed = 1};
}

typedef struct ransac {
    const lk_verify_options *options;
    size_t n, sample; /* pairs; how many determine a transform */
    const lk_point *from, *to;
    uint32_t *inliers, *best_inliers; /* [n] */
    size_t best_count;
    double best[9];
} ransac;

static size_t count_inliers(const ransac *r, const double t[9], uint32_t *inliers)
{
    double limit = r->options->threshold * r->options->threshold;
    size_t count = 0;
    for (size_t i = 0; i < r->n; i++) {
        lk_point p = lk_transform_point(t, r->from[i]);
        double dx = p.x - r->to[i].x, dy = p.y - r->to[i].y;
        if (dx * dx + dy * dy <= limit) inliers[count++] = (uint32_t)i; /* never true for NaN */
    }
    return count;
}

/* Twice the signed area; 0 when the three lie nearly on a line. */
static double turn(lk_point a, lk_point b, lk_point c)
{
    double ux = b.x - a.x, uy = b.y - a.y, vx = c.x - a.x, vy = c.y - a.y, wx = c.x - b.x, wy = c.y - b.y;
    double area = ux * vy - uy * vx, longest = fmax(fmax(ux * ux + uy * uy, vx * vx + vy * vy), wx * wx + wy * wy);
    return fabs(area) > FLAT * longest ? area : 0;
}

static bool usable(const ransac *r, const uint32_t *sample)
{
    double first = 0;
    for (size_t left_out = r->sample == 3 ? 3 : 0; left_out < 4; left_out++) {
        size_t at[3], n = 0;
        for (size_t i = 0; i < r->sample; i++)
            if (i != left_out) at[n++] = sample[i];
        double sense =
            turn(r->from[at[0]], r->from[at[1]], r->from[at[2]]) * turn(r->to[at[0]], r->to[at[1]], r->to[at[2]]);
        if (sense == 0 || sense * first < 0) return false;
        first = sense > 0 ? 1 : -1;
    }
    return true;
}

static void draw(const ransac *r, lk_random *random, uint32_t *sample)
{
    for (size_t i = 0; i < r->sample; i++) {
        bool again = true;
        while (again) {
            sample[i] = (uint32_t)lk_random_below(random, r->n);
            again = false;
            for (size_t j = 0; j < i; j++) again |= sample[j] == sample[i];
        }
    }
}

/* Samples that are needed so that one of them holds inliers alone with the wanted probability. */
static double needed(const ransac *r)
{
    double good = pow((double)r->best_count / (double)r->n, (double)r->sample);
    if (good >= 1) return 1;
    if (good <= 0) return INFINITY;
    return ceil(log(1 - r->options->confidence) / log1p(-good));
}

static void adopt(ransac *r, const double t[9], size_t count)
{
    uint32_t *swap = r->best_inliers;
    r->best_inliers = r->inliers;
    r->inliers = swap;
    r->best_count = count;
    memcpy(r->best, t, sizeof r->best);
}

/* Fits to the inliers while that brings more of them; at the end once more if it loses none, because a fit to all is
 * more exact than one to a sample. */
static void optimise(ransac *r)
{
    double t[9];
    for (int step = 0; step < LOCAL_STEPS; step++) {
        if (!lk_fit_chosen(r->options->kind, r->best_count, r->best_inliers, r->from, r->to, t)) return;
        size_t count = count_inliers(r, t, r->inliers), before = r->best_count;
        if (count >= before) adopt(r, t, count);
        if (count <= before) return;
    }
}

lk_status lk_verify_matches(const lk_verify_options *options, size_t n, const lk_point *from, const lk_point *to,
                            lk_verified *out, uint8_t *inlier)
{
    lk_verify_options o = options ? *options : lk_verify_defaults();
    *out = (lk_verified){0};
    if (inlier) memset(inlier, 0, n);
    if (!(o.threshold > 0 && isfinite(o.threshold)) || !(o.confidence > 0 && o.confidence < 1) || o.iterations == 0)
        return lk_fail(LK_INVALID,
                       "verification: the threshold is above 0, the confidence between 0 and 1, at least one try");
    ransac r = {.options = &o, .n = n, .sample = o.kind == LK_AFFINE ? 3 : 4, .from = from, .to = to};
    if (n <= r.sample) return LK_OK;
    if (n > UINT32_MAX) return lk_fail(LK_INVALID, "too many pairs of points");
    r.inliers = lk_alloc(n, sizeof *r.inliers);
    r.best_inliers = lk_alloc(n, sizeof *r.best_inliers);
    lk_status s = r.inliers && r.best_inliers ? LK_OK : lk_fail_memory("verification");
    lk_random random;
    lk_random_seed(&random, o.seed);
    double limit = o.iterations;
    for (; s == LK_OK && out->iterations < limit; out->iterations++) {
        uint32_t sample[4];
        double t[9];
        draw(&r, &random, sample);
        if (!usable(&r, sample) || !lk_fit_chosen(o.kind, r.sample, sample, from, to, t)) continue;
        size_t count = count_inliers(&r, t, r.inliers);
        if (count <= r.best_count || count <= r.sample) continue;
        adopt(&r, t, count);
        optimise(&r);
        limit = fmin(limit, needed(&r));
    }
    if (r.best_count > r.sample) {
        out->inliers = r.best_count;
        memcpy(out->transform, r.best, sizeof r.best);
        for (size_t i = 0; inlier && i < r.best_count; i++) inlier[r.best_inliers[i]] = 1;
    }
    free(r.inliers);
    free(r.best_inliers);
    return s;
}
