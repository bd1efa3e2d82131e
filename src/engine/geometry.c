#include "engine/geometry.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "embed/sift.h"
#include "engine/local_features.h"
#include "engine/searcher.h"
#include "rank/match.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEYPOINTS = 500, /* of pictures that are matched */
    CHUNK = 64       /* pictures whose features are in memory at once */
};
#define RATIO 0.8f
#define RERANK_RATIO 0.9f /* a cheap check of size and direction follows: more pairs may come in */
#define THRESHOLD 0.02    /* of the longer side */

/* Which features of a and b look alike, and which of those agree on a transform. points and inlier may be NULL. */
typedef struct agreement {
    lk_match *matches;
    lk_point *from, *to;
    uint8_t *inlier;
    size_t count;
    lk_verified found;
} agreement;

static void agreement_free(agreement *a)
{
    free(a->matches);
    free(a->from);
    free(a->to);
    free(a->inlier);
}

static lk_status agree(const lk_sift *a, const lk_sift *b, lk_transform_kind kind, double side, agreement *out)
{
    *out = (agreement){.matches = lk_alloc(a->keypoints, sizeof *out->matches),
                       .from = lk_alloc(a->keypoints, sizeof *out->from),
                       .to = lk_alloc(a->keypoints, sizeof *out->to),
                       .inlier = lk_alloc_zero(a->keypoints, 1)};
    lk_status s = out->matches && out->from && out->to && out->inlier ? LK_OK : lk_fail_memory("matches");
    if (s != LK_OK) return s;
    s = lk_match_descriptors(LK_SIFT_DIM, a->keypoints, a->descriptors, b->keypoints, b->descriptors, RATIO, 1,
                             out->matches, &out->count);
    for (size_t i = 0; s == LK_OK && i < out->count; i++) {
        const lk_sift_place *p = &a->places[out->matches[i].a], *q = &b->places[out->matches[i].b];
        out->from[i] = (lk_point){(double)p->x, (double)p->y};
        out->to[i] = (lk_point){(double)q->x, (double)q->y};
    }
    lk_verify_options options = lk_verify_defaults();
    options.kind = kind;
    options.threshold = fmax(THRESHOLD * side, 1);
    if (s == LK_OK) s = lk_verify_matches(&options, out->count, out->from, out->to, &out->found, out->inlier);
    return s;
}

/* ---- re-ranking ---- */

typedef struct scoring {
    const lk_local *pictures, *queries; /* [n], [count] */
    float *values;                      /* [n] */
    size_t count, least;
} scoring;

static lk_feature feature(const lk_local_point *p)
{
    return (lk_feature){p->x, p->y, p->scale, p->angle};
}

static lk_status compare(const lk_local *a, const lk_local *b, size_t *inliers)
{
    lk_match *matches = lk_alloc(a->count, sizeof *matches);
    lk_feature *from = lk_alloc(a->count, sizeof *from), *to = lk_alloc(a->count, sizeof *to);
    lk_verified found = {0};
    size_t n = 0;
    lk_status s = matches && from && to ? LK_OK : lk_fail_memory("matches");
    if (s == LK_OK) s = lk_match_codes(a->count, a->codes, b->count, b->codes, RERANK_RATIO, matches, &n);
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        from[i] = feature(&a->points[matches[i].a]);
        to[i] = feature(&b->points[matches[i].b]);
    }
    double side = b->width > b->height ? b->width : b->height;
    if (s == LK_OK) s = lk_verify_features(fmax(THRESHOLD * side, 1), n, from, to, &found, NULL);
    *inliers = found.inliers;
    free(matches);
    free(from);
    free(to);
    return s;
}

static lk_status score_some(void *arg, size_t begin, size_t end, int worker)
{
    scoring *c = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        c->values[i] = 0;
        for (size_t j = 0; j < c->count; j++) {
            size_t inliers;
            lk_status s = compare(&c->queries[j], &c->pictures[i], &inliers);
            if (s != LK_OK) return s;
            if (inliers >= c->least && (float)inliers > c->values[i]) c->values[i] = (float)inliers;
        }
    }
    return LK_OK;
}

static lk_status score_chunk(lk_searcher *searcher, const lk_local *queries, size_t count, size_t least,
                             const lk_hit *hits, size_t n, float *values)
{
    int64_t ids[CHUNK];
    lk_local pictures[CHUNK];
    for (size_t i = 0; i < n; i++) ids[i] = (int64_t)hits[i].id;
    lk_status s = lk_local_features_of(searcher, ids, n, pictures);
    scoring c = {pictures, queries, values, count, least};
    if (s == LK_OK) s = lk_parallel_for(lk_context_pool(lk_searcher_context(searcher)), n, 1, score_some, &c);
    for (size_t i = 0; i < n; i++) lk_local_free(&pictures[i]);
    return s;
}

lk_status lk_geometric_scores(lk_searcher *searcher, const lk_query *query, size_t least, const lk_hit *hits, size_t n,
                              float *values)
{
    size_t count = query->n_images + query->n_ids;
    lk_local *queries = lk_alloc_zero(count, sizeof *queries);
    if (!queries) return lk_fail_memory("re-ranking");
    const lk_image *images = query->details ? query->details : query->images;
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < query->n_images; i++) s = lk_local_describe(&images[i], &queries[i]);
    if (s == LK_OK) s = lk_local_features_of(searcher, query->ids, query->n_ids, queries + query->n_images);
    for (size_t first = 0; s == LK_OK && first < n; first += CHUNK)
        s = score_chunk(searcher, queries, count, least, hits + first, n - first < CHUNK ? n - first : CHUNK,
                        values + first);
    for (size_t i = 0; i < count; i++) lk_local_free(&queries[i]);
    free(queries);
    return s;
}

/* ---- two pictures ---- */

void lk_picture_match_free(lk_picture_match *match)
{
    free(match->pairs);
    *match = (lk_picture_match){0};
}

lk_status lk_match_pictures(const lk_image *a, const lk_image *b, lk_transform_kind kind, lk_picture_match *out)
{
    lk_sift left = {0}, right = {0};
    agreement both = {0};
    *out = (lk_picture_match){0};
    lk_status s;
    LK_TRY(lk_sift_describe_picture(a, &(lk_sift_options){.max_keypoints = KEYPOINTS}, &left));
    LK_TRY(lk_sift_describe_picture(b, &(lk_sift_options){.max_keypoints = KEYPOINTS}, &right));
    LK_TRY(agree(&left, &right, kind, b->width > b->height ? b->width : b->height, &both));
    out->pairs = lk_alloc(both.count, sizeof *out->pairs);
    if (!out->pairs) {
        s = lk_fail_memory("matches");
        goto done;
    }
    out->inliers = both.found.inliers;
    out->features_a = left.keypoints;
    out->features_b = right.keypoints;
    memcpy(out->transform, both.found.transform, sizeof out->transform);
    for (uint8_t pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < both.count; i++)
            if (both.inlier[i] == pass) out->pairs[out->count++] = (lk_picture_pair){both.from[i], both.to[i], pass};
done:
    agreement_free(&both);
    lk_sift_free(&left);
    lk_sift_free(&right);
    return s;
}

/* ---- drawing ---- */

/* Puts a picture of any channels on white into an RGB canvas. */
static void paste(lk_image *canvas, const lk_image *in, uint32_t left)
{
    for (uint32_t y = 0; y < in->height; y++) {
        for (uint32_t x = 0; x < in->width; x++) {
            const uint8_t *p = in->pixels + ((size_t)y * in->width + x) * in->channels;
            uint8_t *out = canvas->pixels + ((size_t)y * canvas->width + left + x) * 3;
            unsigned opaque = in->channels == 4 ? p[3] : 255;
            for (unsigned c = 0; c < 3; c++)
                out[c] = (uint8_t)((p[in->channels == 1 ? 0 : c] * opaque + 255 * (255 - opaque)) / 255);
        }
    }
}

static void blend(lk_image *canvas, double x, double y, const uint8_t colour[3], double share)
{
    if (x < 0 || y < 0 || x >= canvas->width || y >= canvas->height) return;
    uint8_t *p = canvas->pixels + ((size_t)y * canvas->width + (size_t)x) * 3;
    for (int c = 0; c < 3; c++) p[c] = (uint8_t)(p[c] + (colour[c] - p[c]) * share);
}

/* Every step along the longer axis paints the two pixels that the line passes between. */
static void line(lk_image *canvas, lk_point a, lk_point b, const uint8_t colour[3], double share)
{
    double dx = b.x - a.x, dy = b.y - a.y;
    bool steep = fabs(dy) > fabs(dx);
    int steps = (int)ceil(fmax(fabs(dx), fabs(dy)));
    for (int i = 0; i <= steps; i++) {
        double t = steps ? (double)i / steps : 0, x = a.x + t * dx, y = a.y + t * dy;
        double whole = floor(steep ? x : y), part = (steep ? x : y) - whole;
        blend(canvas, steep ? whole : x, steep ? y : whole, colour, share * (1 - part));
        blend(canvas, steep ? whole + 1 : x, steep ? y : whole + 1, colour, share * part);
    }
}

static void dot(lk_image *canvas, lk_point at, const uint8_t colour[3], double share)
{
    for (int y = -2; y <= 2; y++)
        for (int x = -2; x <= 2; x++)
            if (x * x + y * y <= 5) blend(canvas, at.x + x, at.y + y, colour, share);
}

lk_status lk_draw_match(const lk_image *a, const lk_image *b, const lk_picture_match *match, lk_image *out)
{
    static const uint8_t green[3] = {22, 163, 74}, grey[3] = {140, 140, 140};
    uint32_t gap = 8, width = a->width + gap + b->width, height = a->height > b->height ? a->height : b->height;
    *out = (lk_image){.pixels = lk_alloc((size_t)width * 3, height), .width = width, .height = height, .channels = 3};
    if (!out->pixels) return lk_fail_memory("picture");
    out->source_width = width;
    out->source_height = height;
    memset(out->pixels, 255, (size_t)width * height * 3);
    paste(out, a, 0);
    paste(out, b, a->width + gap);
    for (size_t i = 0; i < match->count; i++) {
        const lk_picture_pair *p = &match->pairs[i];
        lk_point to = {p->b.x + a->width + gap, p->b.y};
        const uint8_t *colour = p->inlier ? green : grey;
        double share = p->inlier ? 0.9 : 0.35;
        line(out, p->a, to, colour, share);
        dot(out, p->a, colour, share);
        dot(out, to, colour, share);
    }
    return LK_OK;
}
