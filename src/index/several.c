/* One search by several vectors.
 *
 * Mean and sum need one search: products are linear in the query, and with c the mean of the vectors q
 *     mean |q - x|^2 = |c - x|^2 + mean |q|^2 - |c|^2,
 * so that the mean ranks as the scores' mean does. For the best of the scores every vector is searched for: what is
 * among the k best by its best score is among the k best of that vector. */
#include "base/error.h"
#include "base/memory.h"
#include "index/raw.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct ranked {
    lk_hit hit;
    uint64_t place;
    bool lower; /* is better */
} ranked;

static bool better(const ranked *a, const ranked *b)
{
    return a->lower ? a->hit.score < b->hit.score : a->hit.score > b->hit.score;
}

static int by_place(const void *x, const void *y)
{
    const ranked *a = x, *b = y;
    if (a->place != b->place) return a->place < b->place ? -1 : 1;
    return better(a, b) ? -1 : better(b, a);
}

static int by_score(const void *x, const void *y)
{
    const ranked *a = x, *b = y;
    if (better(a, b) || better(b, a)) return better(a, b) ? -1 : 1;
    return a->hit.id < b->hit.id ? -1 : a->hit.id > b->hit.id;
}

/* Writes the k best of all [n], each place once. */
static size_t write_best(const lk_raw *raw, ranked *all, size_t n, size_t k, lk_hit *hits)
{
    size_t kept = 0;
    qsort(all, n, sizeof *all, by_place);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || all[i].place != all[i - 1].place) all[kept++] = all[i];
    for (size_t i = 0; i < kept; i++) all[i].hit.id = raw->id(raw->with, all[i].place);
    qsort(all, kept, sizeof *all, by_score);
    if (kept > k) kept = k;
    for (size_t i = 0; i < kept; i++) hits[i] = all[i].hit;
    return kept;
}

static lk_status search_best(const lk_raw *raw, size_t m, const float *vectors, size_t k, lk_hit *hits, size_t *count)
{
    size_t each = k < raw->count ? k : raw->count, n = 0;
    lk_hit *found = lk_alloc(m * each, sizeof *found);
    ranked *all = lk_alloc(m * each, sizeof *all);
    size_t *counts = lk_alloc(m, sizeof *counts);
    lk_status s = found && all && counts ? LK_OK : lk_fail_memory("search");
    if (s == LK_OK) s = raw->search(raw->with, m, vectors, each, found, counts);
    for (size_t q = 0; s == LK_OK && q < m; q++)
        for (size_t i = 0; i < counts[q]; i++)
            all[n++] = (ranked){found[q * each + i], found[q * each + i].id, raw->metric == LK_L2};
    if (s == LK_OK) *count = write_best(raw, all, n, k, hits);
    free(found);
    free(all);
    free(counts);
    return s;
}

/* The mean of the vectors, normalised first for LK_COSINE; what its score s becomes is factor * s + addend. */
static void mean_of(const lk_raw *raw, size_t m, const float *vectors, float *mean, double *factor, double *addend)
{
    double own = 0, all = 0;
    for (size_t c = 0; c < raw->dim; c++) mean[c] = 0;
    for (size_t q = 0; q < m; q++) {
        const float *v = vectors + q * raw->dim;
        double squares = 0;
        for (size_t c = 0; c < raw->dim; c++) squares += (double)v[c] * v[c];
        double scale = raw->metric == LK_COSINE && squares > 0 ? 1 / sqrt(squares) : 1;
        all += squares / (double)m;
        for (size_t c = 0; c < raw->dim; c++) mean[c] += (float)(v[c] * scale / (double)m);
    }
    for (size_t c = 0; c < raw->dim; c++) own += (double)mean[c] * mean[c];
    *factor = raw->metric == LK_COSINE ? sqrt(own) : 1; /* the index divides by the length */
    *addend = raw->metric == LK_L2 ? all - own : 0;
}

static lk_status search_mean(const lk_raw *raw, size_t m, const float *vectors, bool sum, size_t k, lk_hit *hits,
                             size_t *count)
{
    double factor, addend, times = sum ? (double)m : 1;
    float *mean = lk_alloc(raw->dim, sizeof *mean);
    if (!mean) return lk_fail_memory("search");
    mean_of(raw, m, vectors, mean, &factor, &addend);
    lk_status s = raw->search(raw->with, 1, mean, k, hits, count);
    for (size_t i = 0; s == LK_OK && i < *count; i++) {
        hits[i].score = (float)(times * (factor * hits[i].score + addend));
        hits[i].id = raw->id(raw->with, hits[i].id);
    }
    free(mean);
    return s;
}

lk_status lk_raw_search_several(const lk_raw *raw, size_t m, const float *vectors, lk_fusion fusion, size_t k,
                                lk_hit *hits, size_t *count)
{
    *count = 0;
    if (k == 0 || m == 0) return lk_fail(LK_INVALID, "a search by %zu vectors for %zu results makes no sense", m, k);
    if (fusion != LK_FUSE_MEAN && fusion != LK_FUSE_SUM && fusion != LK_FUSE_BEST)
        return lk_fail(LK_INVALID, "there is no fusion of kind %d", (int)fusion);
    for (size_t i = 0; i < m * raw->dim; i++)
        if (!isfinite(vectors[i]))
            return lk_fail(LK_INVALID, "component %zu of vector %zu is not a finite number", i % raw->dim,
                           i / raw->dim);
    if (raw->count == 0) return LK_OK;
    return fusion == LK_FUSE_BEST ? search_best(raw, m, vectors, k, hits, count)
                                  : search_mean(raw, m, vectors, fusion == LK_FUSE_SUM, k, hits, count);
}
