/* Queries made of several vectors: expansion by neighbours, database-side augmentation, several pictures, feedback.
 * Sums are kept in f64. */
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "rank/knn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static lk_status check_kind(lk_expansion kind, float alpha)
{
    if (kind != LK_EXPAND_AVERAGE && kind != LK_EXPAND_RANK && kind != LK_EXPAND_ALPHA)
        return lk_fail(LK_INVALID, "there is no query expansion of kind %d", (int)kind);
    if (kind == LK_EXPAND_ALPHA && !(alpha >= 0 && isfinite(alpha)))
        return lk_fail(LK_INVALID, "alpha of the query expansion is a number from 0 up, not %g", (double)alpha);
    return LK_OK;
}

static double weight(lk_expansion kind, float alpha, size_t i, size_t n, float similarity)
{
    if (kind == LK_EXPAND_AVERAGE) return 1;
    if (kind == LK_EXPAND_RANK) return (double)(n - i) / (double)n;
    return pow(similarity > 0 ? (double)similarity : 0, (double)alpha);
}

static void add(double *sum, size_t dim, double factor, const float *x)
{
    if (factor == 0) return;
    for (size_t d = 0; d < dim; d++) sum[d] += factor * (double)x[d];
}

/* false when the length is zero; out is then untouched. */
static bool normalise(const double *sum, size_t dim, float *out)
{
    double square = 0;
    for (size_t d = 0; d < dim; d++) square += sum[d] * sum[d];
    if (!(square > 0) || !isfinite(square)) return false;
    double scale = 1 / sqrt(square);
    for (size_t d = 0; d < dim; d++) out[d] = (float)(sum[d] * scale);
    return true;
}

lk_status lk_expand_query(lk_expansion kind, float alpha, size_t dim, const float *query, size_t n,
                          const float *neighbours, const float *similarities, float *out)
{
    lk_status s = check_kind(kind, alpha);
    if (s != LK_OK) return s;
    double *sum = lk_alloc_zero(dim, sizeof *sum);
    if (!sum) return lk_fail_memory("query expansion");
    add(sum, dim, 1, query);
    for (size_t i = 0; i < n; i++)
        add(sum, dim, weight(kind, alpha, i, n, similarities ? similarities[i] : 0), neighbours + i * dim);
    if (!normalise(sum, dim, out) && out != query) memcpy(out, query, dim * sizeof *out);
    free(sum);
    return LK_OK;
}

typedef struct augmentation {
    lk_expansion kind;
    float alpha;
    size_t dim, k;
    const float *vectors;
    float *out;
    const lk_knn *knn;
} augmentation;

static lk_status augment_some(void *arg, size_t begin, size_t end, int worker)
{
    const augmentation *a = arg;
    (void)worker;
    double *sum = lk_alloc(a->dim, sizeof *sum);
    if (!sum) return lk_fail_memory("augmentation");
    for (size_t i = begin; i < end; i++) {
        const uint32_t *near = a->knn->neighbours + i * a->knn->k;
        size_t others = 0, wanted = a->knn->k - 1;
        memset(sum, 0, a->dim * sizeof *sum);
        add(sum, a->dim, 1, a->vectors + i * a->dim);
        for (size_t j = 0; j < a->knn->k && others < wanted; j++) {
            if (near[j] == i) continue;
            float similarity = 1 - a->knn->distances[i * a->knn->k + j] / 2;
            add(sum, a->dim, weight(a->kind, a->alpha, others++, wanted, similarity), a->vectors + near[j] * a->dim);
        }
        if (!normalise(sum, a->dim, a->out + i * a->dim))
            memcpy(a->out + i * a->dim, a->vectors + i * a->dim, a->dim * sizeof *a->out);
    }
    free(sum);
    return LK_OK;
}

lk_status lk_augment(lk_context *context, lk_expansion kind, float alpha, size_t k, size_t n, size_t dim,
                     const float *vectors, float *out)
{
    lk_status s = check_kind(kind, alpha);
    if (s != LK_OK) return s;
    if (k == 0) return lk_fail(LK_INVALID, "augmentation wants at least one neighbour");
    lk_knn *knn;
    s = lk_knn_new(context, n, dim, NULL, vectors, k < n ? k + 1 : n, &knn);
    if (s != LK_OK) return s;
    augmentation a = {kind, alpha, dim, k, vectors, out, knn};
    s = lk_parallel_for(lk_context_pool(context), n, 64, augment_some, &a);
    lk_knn_free(knn);
    return s;
}

lk_status lk_fuse_queries(size_t n, size_t dim, const float *vectors, float *out)
{
    if (n == 0) return lk_fail(LK_INVALID, "there is no query");
    double *sum = lk_alloc_zero(dim, sizeof *sum);
    if (!sum) return lk_fail_memory("query");
    for (size_t i = 0; i < n; i++) {
        double square = 0;
        for (size_t d = 0; d < dim; d++) square += (double)vectors[i * dim + d] * vectors[i * dim + d];
        if (square > 0) add(sum, dim, 1 / sqrt(square), vectors + i * dim);
    }
    lk_status s = normalise(sum, dim, out) ? LK_OK : lk_fail(LK_INVALID, "the mean of the queries is zero");
    free(sum);
    return s;
}

lk_rocchio lk_rocchio_defaults(void)
{
    return (lk_rocchio){1, 0.75f, 0.15f};
}

lk_status lk_feedback(lk_rocchio weights, size_t dim, const float *query, size_t n_yes, const float *yes, size_t n_no,
                      const float *no, float *out)
{
    double *sum = lk_alloc_zero(dim, sizeof *sum);
    if (!sum) return lk_fail_memory("feedback");
    add(sum, dim, (double)weights.alpha, query);
    for (size_t i = 0; i < n_yes; i++) add(sum, dim, (double)weights.beta / (double)n_yes, yes + i * dim);
    for (size_t i = 0; i < n_no; i++) add(sum, dim, -(double)weights.gamma / (double)n_no, no + i * dim);
    lk_status s = normalise(sum, dim, out) ? LK_OK : lk_fail(LK_INVALID, "the query after feedback is zero");
    free(sum);
    return s;
}
