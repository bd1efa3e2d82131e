#include "metric/matrix.h"

#include "base/error.h"
#include "base/memory.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool lk_is_similarity(lk_distance_kind kind)
{
    return kind == LK_DISTANCE_COSINE || kind == LK_DISTANCE_INNER_PRODUCT;
}

/* out [n][dim] = x in f64, divided by its length unless raw. */
static lk_status prepare(const float *x, size_t n, size_t dim, bool raw, double *out, double *norm)
{
    for (size_t i = 0; i < n; i++) {
        double squares = 0;
        for (size_t k = 0; k < dim; k++) squares += (double)x[i * dim + k] * x[i * dim + k];
        if (!isfinite(squares)) return lk_fail(LK_INVALID, "embedding %zu is not finite", i);
        norm[i] = sqrt(squares);
        double factor = raw ? 1 : 1 / fmax(norm[i], LK_SHORTEST);
        for (size_t k = 0; k < dim; k++) out[i * dim + k] = factor * x[i * dim + k];
    }
    return LK_OK;
}

static double squared_length(const double *x, size_t dim)
{
    double sum = 0;
    for (size_t k = 0; k < dim; k++) sum += x[k] * x[k];
    return sum;
}

static void mirror(double *a, size_t n)
{
    enum { BLOCK = 32 };
    for (size_t i0 = 0; i0 < n; i0 += BLOCK)
        for (size_t j0 = 0; j0 <= i0; j0 += BLOCK)
            for (size_t i = i0; i < n && i < i0 + BLOCK; i++)
                for (size_t j = j0; j < i && j < j0 + BLOCK; j++) a[i * n + j] = a[j * n + i];
}

/* Inner products to squared or plain Euclidean distances: |x|^2 + |r|^2 - 2 x.r loses what is small beside the lengths,
 * so near pairs are computed from their differences. */
static lk_status to_distances(const lk_matrix *s)
{
    double *lengths = lk_alloc(s->n + s->m, sizeof *lengths);
    if (!lengths) return lk_fail_memory("lengths");
    double *other = lengths + s->n;
    for (size_t i = 0; i < s->n; i++) lengths[i] = squared_length(s->x + i * s->dim, s->dim);
    for (size_t j = 0; j < s->m; j++) other[j] = s->self ? lengths[j] : squared_length(s->r + j * s->dim, s->dim);
    bool root = s->distance.kind == LK_DISTANCE_L2;
    for (size_t i = 0; i < s->n; i++) {
        double *row = s->value + i * s->m;
        for (size_t j = 0; j < s->m; j++) row[j] = lengths[i] + other[j] - 2 * row[j];
        for (size_t j = 0; j < s->m; j++) {
            if (row[j] > 1e-6 * (lengths[i] + other[j])) continue;
            double sum = 0;
            const double *a = s->x + i * s->dim, *b = s->r + j * s->dim;
            for (size_t k = 0; k < s->dim; k++) sum += (a[k] - b[k]) * (a[k] - b[k]);
            row[j] = sum;
        }
        for (size_t j = 0; root && j < s->m; j++) row[j] = sqrt(row[j]);
    }
    free(lengths);
    return LK_OK;
}

lk_status lk_matrix_new(lk_distance distance, const float *x, size_t n, const float *references, size_t m, size_t dim,
                        lk_matrix *out)
{
    lk_status s = LK_OK;
    bool self = !references;
    if (self) m = n;
    if (distance.kind == LK_DISTANCE_COSINE) distance.raw = false;
    *out = (lk_matrix){.distance = distance, .n = n, .m = m, .dim = dim, .self = self};
    out->x = lk_alloc_aligned(n, dim * sizeof *out->x);
    out->x_norm = lk_alloc(n, sizeof *out->x_norm);
    out->value = n && m > SIZE_MAX / n ? NULL : lk_alloc_aligned(n * m, sizeof *out->value);
    out->r = self ? out->x : lk_alloc_aligned(m, dim * sizeof *out->r);
    out->r_norm = self ? out->x_norm : lk_alloc(m, sizeof *out->r_norm);
    if (!out->x || !out->x_norm || !out->value || !out->r || !out->r_norm) {
        s = lk_fail_memory("distance matrix");
        goto done;
    }
    LK_TRY(prepare(x, n, dim, distance.raw, out->x, out->x_norm));
    if (!self) LK_TRY(prepare(references, m, dim, distance.raw, out->r, out->r_norm));
    if (!n || !m) goto done;
    openblas_set_num_threads(1); /* the same bytes whatever the machine */
    blasint rows = (blasint)n, columns = (blasint)m, width = (blasint)dim;
    if (self) {
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, rows, width, 1, out->x, width, 0, out->value, rows);
        mirror(out->value, n);
    } else {
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, width, 1, out->x, width, out->r, width, 0,
                    out->value, columns);
    }
    if (!lk_is_similarity(distance.kind)) LK_TRY(to_distances(out));
done:
    if (s) lk_matrix_free(out);
    return s;
}

void lk_matrix_free(lk_matrix *matrix)
{
    if (!matrix->self) {
        free(matrix->r);
        free(matrix->r_norm);
    }
    free(matrix->x_unit);
    free(matrix->r_unit);
    free(matrix->x);
    free(matrix->x_norm);
    free(matrix->value);
    *matrix = (lk_matrix){0};
}

/* From the gradient at normalised rows y = x / |x| to the one at x: (g - y (y.g)) / |x|, plus the direct slope of |x|.
 */
static void through_norm(const lk_matrix *s, const double *y, const double *norm, const double *norm_slope, double *g,
                         size_t rows, float *out)
{
    for (size_t i = 0; i < rows; i++) {
        const double *yi = y + i * s->dim;
        double *gi = g + i * s->dim;
        if (!s->distance.raw) {
            double along = 0, factor = norm[i] < LK_SHORTEST ? 0 : 1 / norm[i];
            for (size_t k = 0; k < s->dim; k++) along += yi[k] * gi[k];
            for (size_t k = 0; k < s->dim; k++) gi[k] = factor * (gi[k] - yi[k] * along);
        }
        if (norm_slope && norm[i] >= LK_SHORTEST) {
            double factor = norm_slope[i] / (s->distance.raw ? norm[i] : 1);
            for (size_t k = 0; k < s->dim; k++) gi[k] += factor * yi[k];
        }
        for (size_t k = 0; k < s->dim; k++) out[i * s->dim + k] = (float)gi[k];
    }
}

/* Distances: d |x-r|^2 / dx = 2 (x-r), d |x-r| / dx = (x-r) / |x-r|. The factor of (x-r) replaces the slope. */
static void to_pulls(const lk_matrix *s, double *slope)
{
    size_t count = s->n * s->m;
    if (s->distance.kind == LK_DISTANCE_SQUARED_L2)
        for (size_t i = 0; i < count; i++) slope[i] *= 2;
    else
        for (size_t i = 0; i < count; i++) slope[i] = s->value[i] > 0 ? slope[i] / s->value[i] : 0;
}

/* g [rows][dim] += the product where most of pull is 0, as after mining. */
static void gather_sparse(const lk_matrix *s, const double *pull, bool transposed, double sign, const double *other,
                          double *g)
{
    for (size_t i = 0; i < s->n; i++)
        for (size_t j = 0; j < s->m; j++) {
            double factor = sign * pull[i * s->m + j];
            if (factor == 0) continue;
            const double *from = other + (transposed ? i : j) * s->dim;
            double *to = g + (transposed ? j : i) * s->dim;
            for (size_t k = 0; k < s->dim; k++) to[k] += factor * from[k];
        }
}

/* g [rows][dim] = sign * pull . other, plus, for distances, each row's own part. transposed: the rows are the columns
 * of pull. */
static void gather(const lk_matrix *s, const double *pull, bool transposed, const double *own, const double *other,
                   double *g)
{
    bool similar = lk_is_similarity(s->distance.kind);
    size_t rows = transposed ? s->m : s->n, inner = transposed ? s->n : s->m, filled = 0;
    for (size_t i = 0; i < s->n * s->m; i++) filled += pull[i] != 0;
    if (filled < s->n * s->m / 16) {
        memset(g, 0, rows * s->dim * sizeof *g);
        gather_sparse(s, pull, transposed, similar ? 1 : -1, other, g);
    } else {
        cblas_dgemm(CblasRowMajor, transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, (blasint)rows, (blasint)s->dim,
                    (blasint)inner, similar ? 1 : -1, pull, (blasint)s->m, other, (blasint)s->dim, 0, g,
                    (blasint)s->dim);
    }
    if (similar) return;
    for (size_t i = 0; i < rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < inner; j++) sum += transposed ? pull[j * s->m + i] : pull[i * s->m + j];
        for (size_t k = 0; k < s->dim; k++) g[i * s->dim + k] += sum * own[i * s->dim + k];
    }
}

lk_status lk_matrix_backward(const lk_matrix *s, double *slope, const double *norm_slope, float *grad_x, float *grad_r)
{
    if (!s->n || (!grad_x && !grad_r)) return LK_OK;
    if (s->m == 0) {
        if (grad_x) memset(grad_x, 0, s->n * s->dim * sizeof *grad_x);
        return LK_OK;
    }
    if (s->x_unit) return lk_matrix_backward_weights(s, slope, norm_slope, grad_x, grad_r);
    double *g = lk_alloc_aligned(s->n > s->m ? s->n : s->m, s->dim * sizeof *g);
    if (!g) return lk_fail_memory("gradient");
    openblas_set_num_threads(1);
    if (!lk_is_similarity(s->distance.kind)) to_pulls(s, slope);
    if (s->self) { /* entry (i, j) pulls on both rows */
        enum { BLOCK = 32 };
        for (size_t i0 = 0; i0 < s->n; i0 += BLOCK)
            for (size_t j0 = 0; j0 <= i0; j0 += BLOCK)
                for (size_t i = i0; i < s->n && i < i0 + BLOCK; i++)
                    for (size_t j = j0; j <= i && j < j0 + BLOCK; j++) {
                        double both = slope[i * s->n + j] + slope[j * s->n + i];
                        slope[i * s->n + j] = slope[j * s->n + i] = both;
                    }
    }
    if (grad_x) {
        gather(s, slope, false, s->x, s->r, g);
        through_norm(s, s->x, s->x_norm, norm_slope, g, s->n, grad_x);
    }
    if (grad_r && !s->self) {
        gather(s, slope, true, s->r, s->x, g);
        through_norm(s, s->r, s->r_norm, NULL, g, s->m, grad_r);
    }
    free(g);
    return LK_OK;
}

double lk_matrix_reference_dot(const lk_matrix *matrix, size_t i, size_t j)
{
    const double *a = matrix->r + i * matrix->dim, *b = matrix->r + j * matrix->dim;
    double sum = 0;
    for (size_t k = 0; k < matrix->dim; k++) sum += a[k] * b[k];
    return sum;
}
