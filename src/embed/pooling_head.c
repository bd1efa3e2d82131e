/* What follows pooling: projection, batch-norm neck, normalisation; and CGD, which is made of these. */
#include <likeness/pooling.h>

#include "base/error.h"
#include "base/memory.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

lk_status lk_projection_forward(size_t n, size_t in_dim, size_t out_dim, const float *x, const float *weight,
                                const float *bias, float *out)
{
    if (!n || !in_dim || !out_dim) return lk_fail(LK_INVALID, "a projection of %zu x %zu to %zu", n, in_dim, out_dim);
    openblas_set_num_threads(1);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)out_dim, (blasint)in_dim, 1, x,
                (blasint)in_dim, weight, (blasint)in_dim, 0, out, (blasint)out_dim);
    for (size_t i = 0; bias && i < n; i++)
        for (size_t o = 0; o < out_dim; o++) out[i * out_dim + o] += bias[o];
    return LK_OK;
}

lk_status lk_projection_backward(size_t n, size_t in_dim, size_t out_dim, const float *x, const float *weight,
                                 const float *grad_out, float *grad_x, float *grad_weight, float *grad_bias)
{
    if (!n || !in_dim || !out_dim) return lk_fail(LK_INVALID, "a projection of %zu x %zu to %zu", n, in_dim, out_dim);
    openblas_set_num_threads(1);
    if (grad_x)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)n, (blasint)in_dim, (blasint)out_dim, 1,
                    grad_out, (blasint)out_dim, weight, (blasint)in_dim, 0, grad_x, (blasint)in_dim);
    if (grad_weight)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)out_dim, (blasint)in_dim, (blasint)n, 1, grad_out,
                    (blasint)out_dim, x, (blasint)in_dim, 0, grad_weight, (blasint)in_dim);
    for (size_t o = 0; grad_bias && o < out_dim; o++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += (double)grad_out[i * out_dim + o];
        grad_bias[o] = (float)sum;
    }
    return LK_OK;
}

lk_status lk_neck_forward(size_t n, size_t dim, const float *x, const float *scale, const float *shift, float eps,
                          float momentum, float *running_mean, float *running_variance, float *mean, float *inverse,
                          float *out)
{
    if (n < 2 || !dim) return lk_fail(LK_INVALID, "batch normalisation of %zu rows: needs two at least", n);
    for (size_t k = 0; k < dim; k++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < n; i++) sum += (double)x[i * dim + k];
        double m = sum / (double)n;
        for (size_t i = 0; i < n; i++) squares += ((double)x[i * dim + k] - m) * ((double)x[i * dim + k] - m);
        double variance = squares / (double)n, factor = 1 / sqrt(variance + (double)eps);
        mean[k] = (float)m;
        inverse[k] = (float)factor;
        for (size_t i = 0; i < n; i++)
            out[i * dim + k] = (float)(((double)x[i * dim + k] - m) * factor) * scale[k] + (shift ? shift[k] : 0);
        if (running_mean) running_mean[k] += momentum * ((float)m - running_mean[k]);
        if (running_variance)
            running_variance[k] += momentum * ((float)(squares / (double)(n - 1)) - running_variance[k]);
    }
    return LK_OK;
}

/* With y = (x - mean) inverse and g = grad_out scale: grad_x = inverse (g - mean of g - y mean of (g y)). */
lk_status lk_neck_backward(size_t n, size_t dim, const float *x, const float *scale, const float *mean,
                           const float *inverse, const float *grad_out, float *grad_x, float *grad_scale,
                           float *grad_shift)
{
    if (n < 2 || !dim) return lk_fail(LK_INVALID, "batch normalisation of %zu rows: needs two at least", n);
    for (size_t k = 0; k < dim; k++) {
        double sum = 0, with_y = 0, m = (double)mean[k], factor = (double)inverse[k];
        for (size_t i = 0; i < n; i++) {
            double g = (double)grad_out[i * dim + k];
            sum += g;
            with_y += g * ((double)x[i * dim + k] - m) * factor;
        }
        if (grad_scale) grad_scale[k] = (float)with_y;
        if (grad_shift) grad_shift[k] = (float)sum;
        for (size_t i = 0; grad_x && i < n; i++) {
            double y = ((double)x[i * dim + k] - m) * factor;
            double g = (double)grad_out[i * dim + k] - sum / (double)n - y * with_y / (double)n;
            grad_x[i * dim + k] = (float)(factor * (double)scale[k] * g);
        }
    }
    return LK_OK;
}

lk_status lk_neck_apply(size_t n, size_t dim, const float *x, const float *scale, const float *shift, float eps,
                        const float *running_mean, const float *running_variance, float *out)
{
    if (!n || !dim) return lk_fail(LK_INVALID, "batch normalisation of nothing");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < dim; k++)
            out[i * dim + k] = (x[i * dim + k] - running_mean[k]) / sqrtf(running_variance[k] + eps) * scale[k] +
                               (shift ? shift[k] : 0);
    return LK_OK;
}

static double length_of(const float *x, size_t dim)
{
    double sum = 0;
    for (size_t k = 0; k < dim; k++) sum += (double)x[k] * (double)x[k];
    return sqrt(sum);
}

lk_status lk_normalise_forward(size_t n, size_t dim, const float *x, float eps, float *out)
{
    if (!n || !dim || eps < 0) return lk_fail(LK_INVALID, "normalisation of %zu x %zu", n, dim);
    for (size_t i = 0; i < n; i++) {
        double length = fmax(length_of(x + i * dim, dim), (double)eps), factor = length > 0 ? 1 / length : 0;
        for (size_t k = 0; k < dim; k++) out[i * dim + k] = (float)(factor * (double)x[i * dim + k]);
    }
    return LK_OK;
}

lk_status lk_normalise_backward(size_t n, size_t dim, const float *x, float eps, const float *grad_out, float *grad_x)
{
    if (!n || !dim || eps < 0) return lk_fail(LK_INVALID, "normalisation of %zu x %zu", n, dim);
    for (size_t i = 0; i < n; i++) {
        const float *xi = x + i * dim, *g = grad_out + i * dim;
        double length = length_of(xi, dim), factor = fmax(length, (double)eps), along = 0;
        factor = factor > 0 ? 1 / factor : 0;
        for (size_t k = 0; length > (double)eps && k < dim; k++)
            along += (double)g[k] * (double)xi[k] * factor * factor;
        for (size_t k = 0; k < dim; k++) grad_x[i * dim + k] = (float)(factor * ((double)g[k] - along * (double)xi[k]));
    }
    return LK_OK;
}

/* ---- CGD
 * ------------------------------------------------------------------------------------------------------------- */

static const float floor_of_gem = 1e-6f, shortest = 1e-12f;

static lk_status pool(lk_map_shape shape, const lk_cgd_branch *branch, const float *x, float *out)
{
    switch (branch->kind) {
    case LK_CGD_AVERAGE: return lk_average_forward(shape, x, out);
    case LK_CGD_MAXIMUM: return lk_maximum_forward(shape, x, out);
    case LK_CGD_GEM: return lk_gem_forward(shape, x, &branch->p, 1, floor_of_gem, out);
    default: break;
    }
    return lk_fail(LK_INVALID, "no kind of pooling has number %d", branch->kind);
}

static lk_status pool_back(lk_map_shape shape, const lk_cgd_branch *branch, const float *x, const float *out,
                           const float *grad_out, float *grad_x)
{
    switch (branch->kind) {
    case LK_CGD_AVERAGE: return lk_average_backward(shape, grad_out, grad_x);
    case LK_CGD_MAXIMUM: return lk_maximum_backward(shape, x, grad_out, grad_x);
    case LK_CGD_GEM: return lk_gem_backward(shape, x, out, grad_out, &branch->p, 1, floor_of_gem, grad_x, NULL);
    default: break;
    }
    return lk_fail(LK_INVALID, "no kind of pooling has number %d", branch->kind);
}

static lk_status width_of(const lk_cgd_branch *branches, size_t count, size_t *width, size_t *widest)
{
    *width = *widest = 0;
    for (size_t k = 0; k < count; k++) {
        if (!branches[k].out || !branches[k].weight) return lk_fail(LK_INVALID, "descriptor %zu has no projection", k);
        *width += branches[k].out;
        if (branches[k].out > *widest) *widest = branches[k].out;
    }
    return count ? LK_OK : lk_fail(LK_INVALID, "a combination of no descriptors");
}

/* One branch: pooled [batch][channels], projected [batch][out], normalised into columns at.. of joined [batch][width].
 */
static lk_status branch_forward(lk_map_shape shape, const lk_cgd_branch *branch, const float *x, float *pooled,
                                float *projected, float *unit, float *joined, size_t width, size_t at)
{
    lk_status s = LK_OK;
    LK_TRY(pool(shape, branch, x, pooled));
    LK_TRY(lk_projection_forward(shape.batch, shape.channels, branch->out, pooled, branch->weight, NULL, projected));
    LK_TRY(lk_normalise_forward(shape.batch, branch->out, projected, shortest, unit));
    for (size_t b = 0; b < shape.batch; b++)
        memcpy(joined + b * width + at, unit + b * branch->out, branch->out * sizeof *joined);
done:
    return s;
}

lk_status lk_cgd_forward(lk_map_shape shape, const lk_cgd_branch *branches, size_t count, const float *x, float *out)
{
    size_t width, widest;
    lk_status s = width_of(branches, count, &width, &widest);
    if (s) return s;
    float *pooled = lk_alloc(shape.batch, (shape.channels + 2 * widest + width) * sizeof *pooled);
    if (!pooled) return lk_fail_memory("descriptors");
    float *projected = pooled + shape.batch * shape.channels, *unit = projected + shape.batch * widest;
    float *joined = unit + shape.batch * widest;
    size_t at = 0;
    for (size_t k = 0; k < count; at += branches[k++].out)
        LK_TRY(branch_forward(shape, &branches[k], x, pooled, projected, unit, joined, width, at));
    LK_TRY(lk_normalise_forward(shape.batch, width, joined, shortest, out));
done:
    free(pooled);
    return s;
}

lk_status lk_cgd_backward(lk_map_shape shape, const lk_cgd_branch *branches, size_t count, const float *x,
                          const float *grad_out, float *grad_x, float *const *grad_weights)
{
    size_t width, widest, map = shape.batch * shape.channels * shape.positions, at = 0;
    lk_status s = width_of(branches, count, &width, &widest);
    if (s) return s;
    float *pooled = lk_alloc(shape.batch, (2 * shape.channels + 3 * widest + 2 * width) * sizeof *pooled);
    float *part = lk_alloc(map, sizeof *part);
    if (!pooled || !part) {
        s = lk_fail_memory("descriptors");
        goto done;
    }
    float *grad_pooled = pooled + shape.batch * shape.channels, *projected = grad_pooled + shape.batch * shape.channels;
    float *unit = projected + shape.batch * widest, *grad_unit = unit + shape.batch * widest;
    float *joined = grad_unit + shape.batch * widest, *grad_joined = joined + shape.batch * width;
    for (size_t k = 0; k < count; at += branches[k++].out)
        LK_TRY(branch_forward(shape, &branches[k], x, pooled, projected, unit, joined, width, at));
    LK_TRY(lk_normalise_backward(shape.batch, width, joined, shortest, grad_out, grad_joined));
    if (grad_x) memset(grad_x, 0, map * sizeof *grad_x);
    at = 0;
    for (size_t k = 0; k < count; at += branches[k++].out) {
        const lk_cgd_branch *branch = &branches[k];
        LK_TRY(pool(shape, branch, x, pooled));
        LK_TRY(
            lk_projection_forward(shape.batch, shape.channels, branch->out, pooled, branch->weight, NULL, projected));
        for (size_t b = 0; b < shape.batch; b++)
            memcpy(unit + b * branch->out, grad_joined + b * width + at, branch->out * sizeof *unit);
        LK_TRY(lk_normalise_backward(shape.batch, branch->out, projected, shortest, unit, grad_unit));
        LK_TRY(lk_projection_backward(shape.batch, shape.channels, branch->out, pooled, branch->weight, grad_unit,
                                      grad_pooled, grad_weights ? grad_weights[k] : NULL, NULL));
        if (!grad_x) continue;
        LK_TRY(pool_back(shape, branch, x, pooled, grad_pooled, part));
        for (size_t i = 0; i < map; i++) grad_x[i] += part[i];
    }
done:
    free(part);
    free(pooled);
    return s;
}
