/* k-reciprocal re-ranking of a whole research set. What the published program keeps as n x n matrices is kept sparse: a
 * list of k1 + 1 neighbours, and the few dozen weights that are not zero, an item. */
#include "rank/kreciprocal.h"

#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "rank/knn.h"

#include <cblas.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ENCODE_GRAIN = 64, QUERY_GRAIN = 16 };

typedef struct full {
    lk_context *context;
    lk_kreciprocal_options options;
    lk_pool_view pool;
    size_t n, queries, dim, first, width; /* rows have the items first .. first + width - 1 */
    const float *vectors;
    float *norms; /* [n]: squared lengths */
    lk_knn *knn;
    lk_arena *arenas;              /* [threads]: the rows below */
    lk_sparse *encoded, *expanded; /* [n]: V and W */
    size_t *starts;                /* [n + 1]: W by columns, of the items that rows are made of */
    uint32_t *rows;                /* [starts[n]], less first */
    float *weights;                /* [starts[n]] */
    lk_rank_row_fn row;
    void *user;
    atomic_size_t done;
} full;

static lk_status nearest(void *user, uint32_t item, lk_nearest *out)
{
    const full *f = user;
    size_t k = f->knn->k;
    *out =
        (lk_nearest){f->knn->neighbours + item * k, f->knn->distances + item * k, (uint32_t)k, f->knn->farthest[item]};
    return LK_OK;
}

static lk_status distance(void *user, uint32_t a, uint32_t b, float *out)
{
    const full *f = user;
    *out = (float)lk_rank_distance(f->vectors + a * f->dim, f->vectors + b * f->dim, f->dim);
    return LK_OK;
}

static lk_status keep(lk_arena *arena, const lk_sparse *from, lk_sparse *to)
{
    *to = (lk_sparse){lk_arena_alloc(arena, from->count * sizeof *to->items),
                      lk_arena_alloc(arena, from->count * sizeof *to->weights), from->count};
    if (!to->items || !to->weights) return lk_fail_memory("re-ranking");
    memcpy(to->items, from->items, from->count * sizeof *to->items);
    memcpy(to->weights, from->weights, from->count * sizeof *to->weights);
    return LK_OK;
}

static lk_status encode_some(void *arg, size_t begin, size_t end, int worker)
{
    full *f = arg;
    lk_encoder *encoder;
    lk_sparse found;
    lk_status s = lk_encoder_new(&f->pool, &encoder);
    for (size_t i = begin; s == LK_OK && i < end; i++) {
        s = lk_encode(encoder, (uint32_t)i, &found);
        if (s == LK_OK) s = keep(&f->arenas[worker], &found, &f->encoded[i]);
    }
    lk_encoder_free(encoder);
    return s;
}

static int rising(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* W_i: the mean of the rows of V of its k2 nearest. */
static lk_status expand_some(void *arg, size_t begin, size_t end, int worker)
{
    full *f = arg;
    uint32_t k2 = f->knn->k < f->options.k2 ? (uint32_t)f->knn->k : f->options.k2;
    size_t most = k2 * (size_t)(f->options.k1 + 1) * (f->pool.half + 2);
    double *sums = lk_alloc_zero(f->n, sizeof *sums);
    uint32_t *items = lk_alloc(most, sizeof *items);
    float *weights = lk_alloc(most, sizeof *weights);
    lk_status s = sums && items && weights ? LK_OK : lk_fail_memory("re-ranking");
    for (size_t i = begin; s == LK_OK && i < end; i++) {
        uint32_t count = 0;
        for (uint32_t m = 0; m < k2; m++) {
            const lk_sparse *v = &f->encoded[f->knn->neighbours[i * f->knn->k + m]];
            for (uint32_t j = 0; j < v->count; j++) {
                if (sums[v->items[j]] == 0) items[count++] = v->items[j];
                sums[v->items[j]] += (double)v->weights[j];
            }
        }
        if (count) qsort(items, count, sizeof *items, rising);
        for (uint32_t j = 0; j < count; j++) {
            weights[j] = (float)(sums[items[j]] / k2);
            sums[items[j]] = 0;
        }
        s = keep(&f->arenas[worker], &(lk_sparse){items, weights, count}, &f->expanded[i]);
    }
    free(sums);
    free(items);
    free(weights);
    return s;
}

static lk_status turn_to_columns(full *f)
{
    f->starts = lk_alloc_zero(f->n + 1, sizeof *f->starts);
    if (!f->starts) return lk_fail_memory("re-ranking");
    for (size_t i = f->first; i < f->first + f->width; i++)
        for (uint32_t j = 0; j < f->expanded[i].count; j++) f->starts[f->expanded[i].items[j] + 1]++;
    for (size_t c = 0; c < f->n; c++) f->starts[c + 1] += f->starts[c];
    f->rows = lk_alloc(f->starts[f->n], sizeof *f->rows);
    f->weights = lk_alloc(f->starts[f->n], sizeof *f->weights);
    size_t *next = lk_alloc(f->n, sizeof *next);
    if (!f->rows || !f->weights || !next) {
        free(next);
        return lk_fail_memory("re-ranking");
    }
    memcpy(next, f->starts, f->n * sizeof *next);
    for (size_t i = f->first; i < f->first + f->width; i++) {
        const lk_sparse *w = &f->expanded[i];
        for (uint32_t j = 0; j < w->count; j++) {
            size_t at = next[w->items[j]]++;
            f->rows[at] = (uint32_t)(i - f->first);
            f->weights[at] = w->weights[j];
        }
    }
    free(next);
    return LK_OK;
}

/* Turns inner products with query q into the final distances, in place. shared [width] is all zero before and after. */
static void finish_row(const full *f, size_t q, float *row, float *shared)
{
    const lk_sparse *w = &f->expanded[q];
    float scale = f->knn->farthest[q] > 0 ? f->options.lambda / f->knn->farthest[q] : 0, other = 1 - f->options.lambda;
    for (uint32_t j = 0; j < w->count; j++) {
        float weight = w->weights[j];
        for (size_t at = f->starts[w->items[j]]; at < f->starts[w->items[j] + 1]; at++)
            shared[f->rows[at]] += f->weights[at] < weight ? f->weights[at] : weight;
    }
    const float *norms = f->norms + f->first;
    for (size_t g = 0; g < f->width; g++) {
        float d = f->norms[q] + norms[g] - 2 * row[g], common = shared[g];
        row[g] = other * (1 - common / (2 - common)) + scale * (d > 0 ? d : 0);
        shared[g] = 0;
    }
}

static lk_status rank_some(void *arg, size_t begin, size_t end, int worker)
{
    full *f = arg;
    (void)worker;
    size_t count = end - begin;
    float *rows = lk_alloc(count * f->width, sizeof *rows), *shared = lk_alloc_zero(f->width, sizeof *shared);
    lk_status s = rows && shared ? LK_OK : lk_fail_memory("re-ranking");
    if (s == LK_OK && lk_context_cancelled(f->context)) s = lk_fail(LK_CANCELLED, "the re-ranking was stopped");
    if (s == LK_OK)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)count, (blasint)f->width, (blasint)f->dim, 1,
                    f->vectors + begin * f->dim, (blasint)f->dim, f->vectors + f->first * f->dim, (blasint)f->dim, 0,
                    rows, (blasint)f->width);
    for (size_t i = 0; s == LK_OK && i < count; i++) {
        finish_row(f, begin + i, rows + i * f->width, shared);
        s = f->row(f->user, begin + i, rows + i * f->width);
    }
    if (s == LK_OK) lk_report_progress(f->context, "re-ranking", atomic_fetch_add(&f->done, count) + count, f->queries);
    free(rows);
    free(shared);
    return s;
}

lk_status lk_kreciprocal_full(lk_context *context, const lk_kreciprocal_options *options, size_t n, size_t queries,
                              size_t dim, const float *vectors, lk_rank_row_fn row, void *user)
{
    full f = {.context = context,
              .options = options ? *options : lk_kreciprocal_defaults(),
              .n = n,
              .queries = queries,
              .dim = dim,
              .first = queries < n ? queries : 0,
              .vectors = vectors,
              .row = row,
              .user = user};
    f.width = n - f.first;
    f.pool = (lk_pool_view){nearest, distance, &f, f.options.k1, f.options.k2, lk_half_even(f.options.k1)};
    lk_status s = lk_kreciprocal_check(&f.options);
    if (s != LK_OK) return s;
    if (queries == 0 || queries > n)
        return lk_fail(LK_INVALID, "%zu queries of %zu vectors are not possible", queries, n);
    size_t k = f.options.k1 + 1 > f.options.k2 ? f.options.k1 + 1 : f.options.k2;
    int threads = context ? lk_context_threads(context) : 1;
    LK_TRY(lk_knn_new(context, n, dim, NULL, vectors, k, &f.knn));
    f.arenas = lk_alloc_zero((size_t)threads, sizeof *f.arenas);
    f.encoded = lk_alloc_zero(n, sizeof *f.encoded);
    f.expanded = lk_alloc_zero(n, sizeof *f.expanded);
    f.norms = lk_alloc(n, sizeof *f.norms);
    if (!f.arenas || !f.encoded || !f.expanded || !f.norms) {
        s = lk_fail_memory("re-ranking");
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t d = 0; d < dim; d++) sum += (double)vectors[i * dim + d] * vectors[i * dim + d];
        f.norms[i] = (float)sum;
    }
    LK_TRY(lk_parallel_for(lk_context_pool(context), n, ENCODE_GRAIN, encode_some, &f));
    LK_TRY(lk_parallel_for(lk_context_pool(context), n, 16 * ENCODE_GRAIN, expand_some, &f));
    LK_TRY(turn_to_columns(&f));
    LK_TRY(lk_parallel_for(lk_context_pool(context), queries, QUERY_GRAIN, rank_some, &f));
done:
    for (int t = 0; f.arenas && t < threads; t++) lk_arena_free(&f.arenas[t]);
    free(f.arenas);
    free(f.encoded);
    free(f.expanded);
    free(f.norms);
    free(f.starts);
    free(f.rows);
    free(f.weights);
    lk_knn_free(f.knn);
    return s;
}
