#include "embed/pca.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 128 };    /* of the Gram or covariance matrix made at once */
#define NEGLIGIBLE 1e-6 /* eigenvalues below this share of the largest are rounding errors */

/* The symmetric product whose eigenvectors are wanted: x xT of side n when the sample is smaller than the vectors are
 * wide (the Gram trick: the same eigenvalues, from a smaller matrix), else xT x of side `in`. */
typedef struct product {
    const float *x;
    size_t n, in, side;
    float *out; /* [side][side] */
    bool gram;
} product;

static lk_status product_rows(void *arg, size_t begin, size_t end, int worker)
{
    product *p = arg;
    (void)worker;
    blasint rows = (blasint)(end - begin), side = (blasint)p->side;
    float *out = p->out + begin * p->side;
    if (p->gram)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, side, (blasint)p->in, 1, p->x + begin * p->in,
                    (blasint)p->in, p->x, (blasint)p->in, 0, out, side);
    else
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, side, (blasint)p->n, 1, p->x + begin, (blasint)p->in,
                    p->x, (blasint)p->in, 0, out, side);
    return LK_OK;
}

static void centre(float *x, size_t n, size_t in, float *mean)
{
    for (size_t j = 0; j < in; j++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += x[i * in + j];
        mean[j] = (float)(sum / (double)n);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < in; j++) x[i * in + j] -= mean[j];
}

/* Largest `wanted` eigenpairs of a symmetric matrix: values descending, vectors [wanted][side]. */
static lk_status eigen(const float *matrix, size_t side, size_t wanted, double *values, double *vectors)
{
    double *full = lk_alloc(side * side, sizeof *full), *found = lk_alloc(side, sizeof *found);
    double *columns = lk_alloc(side * wanted, sizeof *columns);
    lapack_int *support = lk_alloc(2 * wanted, sizeof *support), count = 0;
    lk_status s = full && found && columns && support ? LK_OK : lk_fail_memory("principal components");
    if (s == LK_OK) {
        for (size_t i = 0; i < side * side; i++) full[i] = matrix[i];
        int failed = LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'U', (lapack_int)side, full, (lapack_int)side, 0, 0,
                                    (lapack_int)(side - wanted + 1), (lapack_int)side, 0, &count, found, columns,
                                    (lapack_int)side, support);
        if (failed || (size_t)count != wanted)
            s = lk_fail(LK_INVALID, "the principal components could not be computed (LAPACK code %d)", failed);
    }
    for (size_t c = 0; s == LK_OK && c < wanted; c++) { /* LAPACK counts upwards */
        values[c] = found[wanted - 1 - c];
        memcpy(vectors + c * side, columns + (wanted - 1 - c) * side, side * sizeof *vectors);
    }
    free(full);
    free(found);
    free(columns);
    free(support);
    return s;
}

/* Turns an eigenpair into a row of the result. */
static void make_component(const product *p, double value, double ridge, const double *vector, float *out)
{
    double *sum = NULL, largest = 0, scale = sqrt((double)(p->n - 1) / (value + ridge));
    if (p->gram) { /* the covariance's eigenvector is xT u / sqrt(value) */
        scale /= sqrt(value);
        sum = calloc(p->in, sizeof *sum);
        for (size_t i = 0; sum && i < p->n; i++)
            for (size_t j = 0; j < p->in; j++) sum[j] += vector[i] * p->x[i * p->in + j];
        if (sum) vector = sum;
    }
    for (size_t j = 0; j < p->in; j++)
        if (fabs(vector[j]) > fabs(largest)) largest = vector[j];
    if (largest < 0) scale = -scale;
    for (size_t j = 0; j < p->in; j++) out[j] = (float)(vector[j] * scale);
    free(sum);
}

typedef struct finishing {
    const product *p;
    const double *values, *vectors;
    double ridge;
    float *components;
} finishing;

static lk_status finish_rows(void *arg, size_t begin, size_t end, int worker)
{
    finishing *f = arg;
    (void)worker;
    for (size_t c = begin; c < end; c++)
        make_component(f->p, f->values[c], f->ridge, f->vectors + c * f->p->side, f->components + c * f->p->in);
    return LK_OK;
}

lk_status lk_pca_fit(lk_context *context, float *x, size_t n, size_t in, size_t out, double ridge, lk_pca *result)
{
    *result = (lk_pca){0};
    if (n < 2 || in == 0 || out == 0)
        return lk_fail(LK_INVALID, "principal components need at least two samples, not %zu", n);
    openblas_set_num_threads(
        1); /* rows are divided by our own threads, so that the result is the same for any number */
    product p = {.x = x, .n = n, .in = in, .gram = n < in, .side = n < in ? n : in};
    if (out > p.side) out = p.side;
    double *values = lk_alloc(out, sizeof *values), *vectors = lk_alloc(out * p.side, sizeof *vectors);
    result->mean = lk_alloc(in, sizeof *result->mean);
    p.out = lk_alloc(p.side * p.side, sizeof *p.out);
    lk_status s = values && vectors && result->mean && p.out ? LK_OK : lk_fail_memory("principal components");
    if (s != LK_OK) goto done;
    centre(x, n, in, result->mean);
    LK_TRY(lk_parallel_for(lk_context_pool(context), p.side, ROWS, product_rows, &p));
    LK_TRY(eigen(p.out, p.side, out, values, vectors));
    while (out > 0 && !(values[out - 1] > NEGLIGIBLE * values[0])) out--;
    if (out == 0 || !(values[0] > 0)) {
        s = lk_fail(LK_INVALID, "all %zu samples are the same: there is nothing to learn from them", n);
        goto done;
    }
    result->in = in;
    result->out = out;
    result->components = lk_alloc(out * in, sizeof *result->components);
    if (!result->components) {
        s = lk_fail_memory("principal components");
        goto done;
    }
    double mean = 0;
    for (size_t c = 0; c < out; c++) mean += values[c] / (double)out;
    finishing f = {&p, values, vectors, ridge * mean, result->components};
    s = lk_parallel_for(lk_context_pool(context), out, 1, finish_rows, &f);
done:
    free(values);
    free(vectors);
    free(p.out);
    if (s != LK_OK) lk_pca_free(result);
    return s;
}

void lk_pca_apply(const lk_pca *pca, const float *x, float *y)
{
    /* (x - mean) first and then the product: the mean's own projection would otherwise be subtracted with its rounding.
     */
    for (size_t c = 0; c < pca->out; c++) {
        const float *row = pca->components + c * pca->in;
        double sum = 0;
        for (size_t first = 0; first < pca->in; first += 256) { /* f32 within a piece, so that it is vectorised */
            size_t end = first + 256 < pca->in ? first + 256 : pca->in;
            float part[8] = {0};
            size_t j = first;
            for (; j + 8 <= end; j += 8)
                for (int l = 0; l < 8; l++)
                    part[l] += row[j + (size_t)l] * (x[j + (size_t)l] - pca->mean[j + (size_t)l]);
            for (; j < end; j++) part[0] += row[j] * (x[j] - pca->mean[j]);
            for (int l = 0; l < 8; l++) sum += part[l];
        }
        y[c] = (float)sum;
    }
}

void lk_pca_free(lk_pca *pca)
{
    free(pca->mean);
    free(pca->components);
    *pca = (lk_pca){0};
}
