/* Results that are not all of one kind: near-identical ones left out, and maximal marginal relevance. */
#include "base/error.h"
#include "base/memory.h"
#include "index/distance.h"
#include "index/raw.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A score that is better when higher. */
static float key_of(lk_metric metric, float score)
{
    return metric == LK_L2 ? -score : score;
}

typedef struct choosing {
    const lk_distance_kernels *kernels;
    lk_metric metric;
    size_t dim, n;
    lk_diversity how;
    const float *vectors;
    bool *out;    /* [n]: chosen, or too near to one that was */
    float *worst; /* [n]: greatest key with a chosen one */
    float *keys;  /* [n]: scratch */
} choosing;

/* Takes up that `one` was chosen. */
static void compare_with(choosing *c, size_t one)
{
    const float *v = c->vectors + one * c->dim;
    size_t row = c->dim * sizeof *v;
    c->out[one] = true;
    if (c->how.apart > 0) {
        lk_rows_fn fn = c->metric == LK_COSINE ? c->kernels->rows_dot[LK_F32] : c->kernels->rows_l2[LK_F32];
        fn(v, c->vectors, row, c->n, c->dim, NULL, c->keys);
        for (size_t i = 0; i < c->n; i++)
            c->out[i] |= (c->metric == LK_COSINE ? 1 - c->keys[i] : c->keys[i]) < c->how.apart;
    }
    if (c->how.trade > 0) {
        lk_rows_fn fn = c->metric == LK_L2 ? c->kernels->rows_l2[LK_F32] : c->kernels->rows_dot[LK_F32];
        fn(v, c->vectors, row, c->n, c->dim, NULL, c->keys);
        for (size_t i = 0; i < c->n; i++) c->worst[i] = fmaxf(c->worst[i], key_of(c->metric, c->keys[i]));
    }
}

static size_t choose(choosing *c, const lk_hit *hits, size_t k, size_t *chosen)
{
    size_t count = 0;
    for (size_t i = 0; i < c->n; i++) c->worst[i] = -FLT_MAX;
    while (count < k) {
        size_t best = c->n;
        float most = -INFINITY;
        for (size_t i = 0; i < c->n; i++) {
            if (c->out[i]) continue;
            float key = key_of(c->metric, hits[i].score);
            if (c->how.trade > 0 && count > 0) key = (1 - c->how.trade) * key - c->how.trade * c->worst[i];
            if (best < c->n && key <= most) continue;
            best = i;
            most = key;
            if (c->how.trade == 0) break; /* they come best first */
        }
        if (best == c->n) break;
        chosen[count++] = best;
        compare_with(c, best);
    }
    return count;
}

lk_status lk_diversify(lk_metric metric, size_t dim, lk_diversity how, size_t n, const lk_hit *hits,
                       const float *vectors, size_t k, size_t *chosen, size_t *count)
{
    *count = 0;
    if (!(how.apart >= 0) || !isfinite(how.apart) || !(how.trade >= 0 && how.trade <= 1))
        return lk_fail(LK_INVALID, "results cannot be %g apart with a trade of %g", (double)how.apart,
                       (double)how.trade);
    choosing c = {.kernels = lk_distance_kernels_for(lk_cpu_detect()),
                  .metric = metric,
                  .dim = dim,
                  .n = n,
                  .how = how,
                  .vectors = vectors,
                  .out = lk_alloc_zero(n, sizeof *c.out),
                  .worst = lk_alloc(n, sizeof *c.worst),
                  .keys = lk_alloc_aligned(n, sizeof *c.keys)};
    lk_status s = c.out && c.worst && c.keys ? LK_OK : lk_fail_memory("diversification");
    if (s == LK_OK) *count = choose(&c, hits, k, chosen);
    free(c.out);
    free(c.worst);
    free(c.keys);
    return s;
}

/* Finds `pool` and keeps up to k of them; *more: a greater pool could give more. */
static lk_status search_pool(const lk_raw *raw, lk_diversity how, const float *query, size_t pool, size_t k,
                             lk_hit *hits, size_t *count, bool *more)
{
    size_t found = 0;
    lk_hit *places = lk_alloc(pool, sizeof *places);
    float *vectors = lk_alloc_aligned(pool * raw->dim, sizeof *vectors);
    size_t *chosen = lk_alloc(k, sizeof *chosen);
    lk_status s = places && vectors && chosen ? LK_OK : lk_fail_memory("search");
    if (s == LK_OK) s = raw->search(raw->with, 1, query, pool, places, &found);
    for (size_t i = 0; s == LK_OK && i < found; i++) s = raw->vector(raw->with, places[i].id, vectors + i * raw->dim);
    if (s == LK_OK) s = lk_diversify(raw->metric, raw->dim, how, found, places, vectors, k, chosen, count);
    for (size_t i = 0; s == LK_OK && i < *count; i++)
        hits[i] = (lk_hit){raw->id(raw->with, places[chosen[i]].id), places[chosen[i]].score};
    *more = s == LK_OK && *count < k && found == pool && pool < raw->count;
    free(places);
    free(vectors);
    free(chosen);
    return s;
}

lk_status lk_raw_search_diverse(const lk_raw *raw, lk_diversity how, size_t n, const float *queries, size_t k,
                                lk_hit *hits, size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "0 results were asked for");
    lk_status s = LK_OK;
    for (size_t q = 0; s == LK_OK && q < n; q++) {
        bool more = raw->count > 0;
        size_t pool = 4 * k + 16;
        for (counts[q] = 0; s == LK_OK && more; pool *= 4) {
            if (pool > raw->count) pool = raw->count;
            s = search_pool(raw, how, queries + q * raw->dim, pool, k, hits + q * k, &counts[q], &more);
        }
    }
    return s;
}
