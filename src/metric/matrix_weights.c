/* The matrix between a batch and class weights: most of the time of a softmax or proxy loss is its three products, so
 * they are f32, with sums in f64 over pieces short enough that what f32 rounds away stays below 5e-7. */
#include "metric/matrix.h"

#include "base/error.h"
#include "base/memory.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LANES = 8,     /* sums side by side, which the compiler turns into vectors */
    PIECE = 128,   /* terms that f32 adds up */
    LEAST_DIM = 64 /* below, roundings of single components do not average out, and f64 costs little */
};
static const double close = 0.5; /* cosines from here on are computed in f64 */

static double dot(const float *a, const float *b, size_t dim)
{
    double sums[LANES] = {0}, sum = 0;
    size_t k = 0;
    for (; k + LANES <= dim; k += LANES)
        for (size_t l = 0; l < LANES; l++) sums[l] += (double)a[k + l] * (double)b[k + l];
    for (; k < dim; k++) sum += (double)a[k] * (double)b[k];
    for (size_t l = 0; l < LANES; l++) sum += sums[l];
    return sum;
}

/* |a p - b q|^2 */
static double squared_difference(const float *a, double p, const float *b, double q, size_t dim)
{
    double sums[LANES] = {0}, sum = 0;
    size_t k = 0;
    for (; k + LANES <= dim; k += LANES)
        for (size_t l = 0; l < LANES; l++) {
            double d = (double)a[k + l] * p - (double)b[k + l] * q;
            sums[l] += d * d;
        }
    for (; k < dim; k++) sum += ((double)a[k] * p - (double)b[k] * q) * ((double)a[k] * p - (double)b[k] * q);
    for (size_t l = 0; l < LANES; l++) sum += sums[l];
    return sum;
}

static double factor_of(const lk_matrix *s, double norm)
{
    return s->distance.raw ? 1 : 1 / fmax(norm, LK_SHORTEST);
}

static lk_status prepare(const lk_matrix *s, const float *x, size_t n, float *unit, double *norm)
{
    for (size_t i = 0; i < n; i++) {
        const float *row = x + i * s->dim;
        norm[i] = sqrt(dot(row, row, s->dim));
        if (!isfinite(norm[i])) return lk_fail(LK_INVALID, "embedding %zu is not finite", i);
        double factor = factor_of(s, norm[i]);
        for (size_t k = 0; k < s->dim; k++) unit[i * s->dim + k] = (float)(factor * (double)row[k]);
    }
    return LK_OK;
}

/* Inner products to entries, close ones anew. */
static void finish_row(lk_matrix *s, size_t i)
{
    bool similar = lk_is_similarity(s->distance.kind);
    double *row = s->value + i * s->m, p = factor_of(s, s->x_norm[i]), length = p * s->x_norm[i];
    for (size_t j = 0; j < s->m; j++) {
        double q = factor_of(s, s->r_norm[j]), other = q * s->r_norm[j];
        bool near = !(fabs(row[j]) <= close * length * other); /* or beyond what f32 holds */
        const float *a = s->x_given + i * s->dim, *b = s->r_given + j * s->dim;
        if (similar) {
            if (near) row[j] = p * q * dot(a, b, s->dim);
            continue;
        }
        row[j] = near ? squared_difference(a, p, b, q, s->dim) : length * length + other * other - 2 * row[j];
    }
}

static lk_status multiply(lk_matrix *s)
{
    float *part = lk_alloc_aligned(s->n * s->m, sizeof *part);
    if (!part) return lk_fail_memory("distance matrix");
    for (size_t at = 0; at < s->dim; at += PIECE) {
        size_t width = s->dim - at < PIECE ? s->dim - at : PIECE;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)s->n, (blasint)s->m, (blasint)width, 1,
                    s->x_unit + at, (blasint)s->dim, s->r_unit + at, (blasint)s->dim, 0, part, (blasint)s->m);
        if (at == 0)
            for (size_t i = 0; i < s->n * s->m; i++) s->value[i] = (double)part[i];
        else
            for (size_t i = 0; i < s->n * s->m; i++) s->value[i] += (double)part[i];
    }
    free(part);
    for (size_t i = 0; i < s->n; i++) finish_row(s, i);
    return LK_OK;
}

lk_status lk_matrix_new_weights(lk_distance distance, const float *x, size_t n, const float *references, size_t m,
                                size_t dim, lk_matrix *out)
{
    lk_status s = LK_OK;
    /* The slope of plain L2 grows without bound where rows meet, and with it the error of f32. */
    if (dim < LEAST_DIM || !n || distance.kind == LK_DISTANCE_L2)
        return lk_matrix_new(distance, x, n, references, m, dim, out);
    if (distance.kind == LK_DISTANCE_COSINE) distance.raw = false;
    *out = (lk_matrix){.distance = distance, .n = n, .m = m, .dim = dim, .x_given = x, .r_given = references};
    out->x_unit = lk_alloc_aligned(n, dim * sizeof *out->x_unit);
    out->r_unit = lk_alloc_aligned(m, dim * sizeof *out->r_unit);
    out->x_norm = lk_alloc(n, sizeof *out->x_norm);
    out->r_norm = lk_alloc(m, sizeof *out->r_norm);
    out->value = m > SIZE_MAX / n ? NULL : lk_alloc_aligned(n * m, sizeof *out->value);
    if (!out->x_unit || !out->r_unit || !out->x_norm || !out->r_norm || !out->value) {
        s = lk_fail_memory("distance matrix");
        goto done;
    }
    LK_TRY(prepare(out, x, n, out->x_unit, out->x_norm));
    LK_TRY(prepare(out, references, m, out->r_unit, out->r_norm));
    openblas_set_num_threads(1); /* the same bytes whatever the machine */
    s = multiply(out);
done:
    if (s) lk_matrix_free(out);
    return s;
}

/* g [rows][dim] = pull (or its transpose) . other. */
static void gather(const lk_matrix *s, const float *pull, bool transposed, const float *other, float *g)
{
    size_t rows = transposed ? s->m : s->n, inner = transposed ? s->n : s->m;
    cblas_sgemm(CblasRowMajor, transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, (blasint)rows, (blasint)s->dim,
                (blasint)inner, 1, pull, (blasint)s->m, other, (blasint)s->dim, 0, g, (blasint)s->dim);
}

/* From the gradient g [rows][dim] at y = x / |x| to the one at x, as through_norm of matrix.c; for distances with each
 * row's own part, sums [rows], whose other part g is to be taken off. */
static void through_norm(const lk_matrix *s, const float *y, const double *norm, const double *sums,
                         const double *norm_slope, size_t rows, float *g)
{
    bool similar = lk_is_similarity(s->distance.kind);
    for (size_t i = 0; i < rows; i++) {
        const float *yi = y + i * s->dim;
        float *gi = g + i * s->dim;
        double factor = 1, own = 0;
        if (!similar) own = sums[i];
        double sign = similar ? 1 : -1;
        if (!s->distance.raw) {
            /* the own part points along y, so it drops out, but for what is shorter than the shortest */
            factor = norm[i] < LK_SHORTEST ? 0 : 1 / norm[i];
            own = -sign * dot(yi, gi, s->dim);
        }
        double along = factor * own;
        if (norm_slope && norm[i] >= LK_SHORTEST) along += norm_slope[i] / (s->distance.raw ? norm[i] : 1);
        factor *= sign;
        for (size_t k = 0; k < s->dim; k++) gi[k] = (float)(factor * (double)gi[k] + along * (double)yi[k]);
    }
}

lk_status lk_matrix_backward_weights(const lk_matrix *s, double *slope, const double *norm_slope, float *grad_x,
                                     float *grad_r)
{
    size_t count = s->n * s->m;
    float *pull = lk_alloc_aligned(count, sizeof *pull);
    double *sums = lk_alloc_zero(s->n + s->m, sizeof *sums);
    if (!pull || !sums) {
        free(pull);
        free(sums);
        return lk_fail_memory("gradient");
    }
    openblas_set_num_threads(1);
    if (!lk_is_similarity(s->distance.kind)) {
        for (size_t i = 0; i < s->n; i++)
            for (size_t j = 0; j < s->m; j++) {
                slope[i * s->m + j] *= 2;
                sums[i] += slope[i * s->m + j];
                sums[s->n + j] += slope[i * s->m + j];
            }
    }
    for (size_t i = 0; i < count; i++) pull[i] = (float)slope[i];
    if (grad_x) {
        gather(s, pull, false, s->r_unit, grad_x);
        through_norm(s, s->x_unit, s->x_norm, sums, norm_slope, s->n, grad_x);
    }
    if (grad_r) {
        gather(s, pull, true, s->x_unit, grad_r);
        through_norm(s, s->r_unit, s->r_norm, sums + s->n, NULL, s->m, grad_r);
    }
    free(sums);
    free(pull);
    return LK_OK;
}
