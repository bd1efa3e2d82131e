#include "embed/whiten.h"

#include "base/error.h"
#include "base/memory.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 256 }; /* whose products are added at once */

/* sum [dim][dim], lower half, += rows^T rows; rows [count][dim]. */
static void add_products(const double *rows, size_t count, size_t dim, double *sum)
{
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (blasint)dim, (blasint)count, 1, rows, (blasint)dim, 1, sum,
                (blasint)dim);
}

static void scatter_of_pairs(const float *x, size_t dim, const lk_pair *pairs, size_t count, double *rows, double *sum)
{
    for (size_t first = 0; first < count; first += ROWS) {
        size_t n = count - first < ROWS ? count - first : ROWS;
        for (size_t i = 0; i < n; i++) {
            const float *q = x + pairs[first + i].query * dim, *p = x + pairs[first + i].positive * dim;
            for (size_t k = 0; k < dim; k++) rows[i * dim + k] = (double)q[k] - (double)p[k];
        }
        add_products(rows, n, dim, sum);
    }
    for (size_t i = 0; i < dim * dim; i++) sum[i] /= (double)count;
}

static void scatter_of_rows(const float *x, size_t n, size_t dim, const double *mean, double *rows, double *sum)
{
    for (size_t first = 0; first < n; first += ROWS) {
        size_t count = n - first < ROWS ? n - first : ROWS;
        for (size_t i = 0; i < count; i++)
            for (size_t k = 0; k < dim; k++) rows[i * dim + k] = (double)x[(first + i) * dim + k] - mean[k];
        add_products(rows, count, dim, sum);
    }
}

static void mirror(double *a, size_t dim)
{
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < i; j++) a[j * dim + i] = a[i * dim + j];
}

/* S in its lower half becomes the inverse of its Cholesky factor, zero above the diagonal. kept [dim][dim]: scratch. */
static lk_status invert_factor(double *s, double *kept, size_t dim)
{
    double added = 0;
    memcpy(kept, s, dim * dim * sizeof *s);
    while (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'L', (lapack_int)dim, s, (lapack_int)dim) != 0) {
        added = added == 0 ? 1e-10 : 10 * added; /* as the reference does */
        if (!(added < 1)) return lk_fail(LK_INVALID, "the pairs' differences are not finite");
        memcpy(s, kept, dim * dim * sizeof *s);
        for (size_t k = 0; k < dim; k++) s[k * dim + k] += added;
    }
    if (LAPACKE_dtrtri(LAPACK_ROW_MAJOR, 'L', 'N', (lapack_int)dim, s, (lapack_int)dim) != 0)
        return lk_fail(LK_INVALID, "the pairs' differences cannot be whitened");
    for (size_t i = 0; i < dim; i++) memset(s + i * dim + i + 1, 0, (dim - i - 1) * sizeof *s);
    return LK_OK;
}

/* scatter = factor scatter factor^T; room [dim][dim]. */
static void turn(const double *factor, double *scatter, double *room, size_t dim)
{
    blasint d = (blasint)dim;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, d, d, d, 1, factor, d, scatter, d, 0, room, d);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, d, d, d, 1, room, d, factor, d, 0, scatter, d);
}

/* Rows of the result: eigenvectors (rows of vectors, the largest last) times the factor. */
static void make_components(const double *vectors, const double *factor, size_t dim, size_t out, double *row,
                            float *components)
{
    for (size_t c = 0; c < out; c++) {
        double largest = 0;
        cblas_dgemv(CblasRowMajor, CblasTrans, (blasint)dim, (blasint)dim, 1, factor, (blasint)dim,
                    vectors + (dim - 1 - c) * dim, 1, 0, row, 1);
        for (size_t k = 0; k < dim; k++)
            if (fabs(row[k]) > fabs(largest)) largest = row[k];
        for (size_t k = 0; k < dim; k++) components[c * dim + k] = (float)(largest < 0 ? -row[k] : row[k]);
    }
}

lk_status lk_whiten_pairs(const float *x, size_t n, size_t in, const lk_pair *pairs, size_t count, size_t out,
                          lk_pca *result)
{
    *result = (lk_pca){0};
    if (!n || !in || !count || !out || out > in)
        return lk_fail(LK_INVALID, "whitening of %zu to %zu dimensions from %zu pairs", in, out, count);
    size_t square = in * in;
    double *room = lk_alloc_zero(3 * square + (ROWS + 2) * in, sizeof *room);
    lk_status s = LK_OK;
    *result = (lk_pca){.in = in,
                       .out = out,
                       .mean = lk_alloc(in, sizeof *result->mean),
                       .components = lk_alloc(out * in, sizeof *result->components)};
    if (!room || !result->mean || !result->components) {
        s = lk_fail_memory("whitening");
        goto done;
    }
    double *factor = room, *scatter = room + square, *spare = scatter + square, *rows = spare + square;
    double *mean = rows + ROWS * in, *row = mean + in;
    openblas_set_num_threads(1); /* the same bytes whatever the machine */
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < in; k++) mean[k] += (double)x[pairs[i].query * in + k];
    for (size_t k = 0; k < in; k++) result->mean[k] = (float)(mean[k] /= (double)count);
    scatter_of_pairs(x, in, pairs, count, rows, factor);
    LK_TRY(invert_factor(factor, spare, in));
    scatter_of_rows(x, n, in, mean, rows, scatter);
    mirror(scatter, in);
    turn(factor, scatter, spare, in);
    /* Row-major lower is column-major upper; eigenvectors come as columns there, rows here. */
    if (LAPACKE_dsyev(LAPACK_COL_MAJOR, 'V', 'U', (lapack_int)in, scatter, (lapack_int)in, row) != 0 ||
        !(row[in - 1] > 0))
        LK_TRY(lk_fail(LK_INVALID, "all %zu vectors are the same: there is nothing to learn from them", n));
    make_components(scatter, factor, in, out, row, result->components);
done:
    free(room);
    if (s != LK_OK) lk_pca_free(result);
    return s;
}
