#include "engine/geometry.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "embed/sift.h"
#include "engine/searcher.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE = 512, /* pictures are compared at this longer side */
    KEYPOINTS = 500,
    CHANCE = 6 /* so many features agree on some affine map in pictures that have nothing in common */
};
#define RATIO 0.8f
#define THRESHOLD 0.02 /* of the longer side */

/* Rec. 709 luma of the sRGB values, transparent pixels on white. */
static lk_status make_grey(const lk_image *in, lk_image *out)
{
    size_t pixels = (size_t)in->width * in->height, step = in->channels;
    *out = (lk_image){.pixels = lk_alloc(pixels, 1), .width = in->width, .height = in->height, .channels = 1};
    if (!out->pixels) return lk_fail_memory("picture");
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *p = in->pixels + i * step;
        double grey = step == 1 ? p[0] : 0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2];
        if (step == 4) grey = 255 + (grey - 255) * p[3] / 255;
        out->pixels[i] = (uint8_t)(grey + 0.5);
    }
    return LK_OK;
}

static lk_status describe(const lk_image *image, lk_sift *out)
{
    lk_image grey;
    *out = (lk_sift){0};
    lk_status s = make_grey(image, &grey);
    if (s == LK_OK) s = lk_sift_describe(&grey, &(lk_sift_options){.max_keypoints = KEYPOINTS}, out);
    lk_image_free(&grey);
    return s;
}

static lk_status describe_file(const char *path, lk_sift *out)
{
    lk_image_options options = lk_image_default_options();
    options.max_side = SIDE;
    options.colour = LK_COLOUR_GREY;
    lk_image image = {0};
    *out = (lk_sift){0};
    lk_status s = lk_image_load(path, &options, &image);
    if (s == LK_OK) s = lk_sift_describe(&image, &(lk_sift_options){.max_keypoints = KEYPOINTS}, out);
    lk_image_free(&image);
    return s;
}

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

static double reach(const lk_sift *sift)
{
    float far = 0;
    for (size_t i = 0; i < sift->keypoints; i++) far = fmaxf(far, fmaxf(sift->places[i].x, sift->places[i].y));
    return (double)far;
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
    lk_searcher *searcher;
    const lk_hit *hits;
    float *values;
    lk_sift *queries;
    size_t count;
} scoring;

static lk_status score_some(void *arg, size_t begin, size_t end, int worker)
{
    scoring *c = arg;
    (void)worker;
    lk_status s = LK_OK;
    for (size_t i = begin; s == LK_OK && i < end; i++) {
        lk_record record;
        lk_sift sift = {0};
        c->values[i] = 0;
        if (lk_context_cancelled(lk_searcher_context(c->searcher)))
            return lk_fail(LK_CANCELLED, "the search was stopped");
        if (lk_searcher_record(c->searcher, (int64_t)c->hits[i].id, &record) != LK_OK) continue;
        bool readable = describe_file(record.path, &sift) == LK_OK;
        lk_record_free(&record);
        for (size_t j = 0; readable && s == LK_OK && j < c->count; j++) {
            agreement a;
            s = agree(&c->queries[j], &sift, LK_AFFINE, reach(&sift), &a);
            if (a.found.inliers > CHANCE && (float)a.found.inliers > c->values[i])
                c->values[i] = (float)a.found.inliers;
            agreement_free(&a);
        }
        lk_sift_free(&sift);
    }
    return s;
}

lk_status lk_geometric_scores(lk_searcher *searcher, const lk_query *query, const lk_hit *hits, size_t n, float *values)
{
    scoring c = {.searcher = searcher,
                 .hits = hits,
                 .values = values,
                 .queries = lk_alloc_zero(query->n_images + query->n_ids, sizeof *c.queries)};
    if (!c.queries) return lk_fail_memory("re-ranking");
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < query->n_images; i++) s = describe(&query->images[i], &c.queries[c.count++]);
    for (size_t i = 0; s == LK_OK && i < query->n_ids; i++) {
        lk_record record;
        s = lk_searcher_record(searcher, query->ids[i], &record);
        if (s != LK_OK) break;
        s = describe_file(record.path, &c.queries[c.count++]);
        lk_record_free(&record);
    }
    if (s == LK_OK) s = lk_parallel_for(lk_context_pool(lk_searcher_context(searcher)), n, 1, score_some, &c);
    for (size_t i = 0; i < c.count; i++) lk_sift_free(&c.queries[i]);
    free(c.queries);
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
    LK_TRY(describe(a, &left));
    LK_TRY(describe(b, &right));
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
