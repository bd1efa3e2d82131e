/* Normalisations of rows: layer norm, division by the length. Batch norm: op_batch_norm.c. */
#include "nn/op.h"

#include <math.h>
#include <string.h>

/* Rows of width C: tokens, or the channels of a position of pictures that lie channels last. */
static size_t row_count(const lk_view *y, size_t *width)
{
    lk_grid g = lk_grid_of(y);
    *width = g.block;
    return g.batch * g.positions;
}

/* Layer norm (Ba et al., 2016): y = (x - m) r w + b per row, r = 1/sqrt(v + eps). saved: m, r per row.
 * Backward: gw += sum gy xh, gb += sum gy over rows; with h = gy w: gx += r (h - mean h - xh mean(h xh)). */

static void layer_norm_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t width, rows = row_count(&c->y, &width);
    const lk_nn_kernels *k = c->team->kernels;
    float v[LK_RUN * 4], *saved = c->saved;
    bool direct = c->x->type == LK_TYPE_F32 && c->y.type == LK_TYPE_F32;
    for (size_t r = begin; r < end; r++) {
        float mean, rstd;
        const float *x = v;
        if (direct)
            x = (const float *)c->x->data + r * width;
        else
            lk_get(c, c->x, r * width, width, v);
        k->moments(x, width, c->node->eps, &mean, &rstd);
        if (saved) {
            saved[r] = mean;
            saved[rows + r] = rstd;
        }
        k->normalise(x, width, mean, rstd, c->p[0], c->p[1], direct ? (float *)c->y.data + r * width : v);
        if (!direct) lk_set(c, &c->y, r * width, width, v);
    }
}

static lk_status layer_norm_forward(lk_call *c)
{
    size_t width, rows = row_count(&c->y, &width);
    if (width > LK_RUN * 4)
        return lk_fail(LK_UNSUPPORTED, "%s: rows of %zu numbers are longer than %d", c->node->name, width, LK_RUN * 4);
    lk_team_for(c->team, rows, 8 * width, layer_norm_piece, c);
    return LK_OK;
}

static void layer_norm_gradient_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t width, rows = row_count(&c->y, &width);
    const float *saved = c->saved;
    for (size_t r = begin; r < end; r++) {
        const float *x = (const float *)c->x->data + r * width, *gy = c->gy + r * width;
        float mean = saved[r], rstd = saved[rows + r], *gx = c->gx[0] + r * width;
        double sum = 0, product = 0;
        for (size_t j = 0; j < width; j++) {
            double h = (double)(gy[j] * c->p[0][j]);
            sum += h;
            product += h * (double)((x[j] - mean) * rstd);
        }
        float a = (float)(sum / (double)width), b = (float)(product / (double)width);
        for (size_t j = 0; j < width; j++) gx[j] += rstd * (gy[j] * c->p[0][j] - a - (x[j] - mean) * rstd * b);
    }
}

/* Items are columns, so that every sum over rows has one order. */
static void layer_norm_weights_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t width, rows = row_count(&c->y, &width);
    const float *saved = c->saved;
    for (size_t r = 0; r < rows; r++) {
        const float *x = (const float *)c->x->data + r * width, *gy = c->gy + r * width;
        float mean = saved[r], rstd = saved[rows + r];
        for (size_t j = begin; j < end; j++) {
            if (c->gp[0]) c->gp[0][j] += gy[j] * (x[j] - mean) * rstd;
            if (c->gp[1]) c->gp[1][j] += gy[j];
        }
    }
}

static lk_status layer_norm_backward(lk_call *c)
{
    size_t width, rows = row_count(&c->y, &width);
    if (c->gx[0]) lk_team_for(c->team, rows, 16 * width, layer_norm_gradient_piece, c);
    if (c->gp[0] || c->gp[1]) lk_team_for(c->team, width, 4 * rows, layer_norm_weights_piece, c);
    return LK_OK;
}

static size_t layer_norm_saved(const lk_call *c)
{
    size_t width;
    return 2 * sizeof(float) * row_count(&c->y, &width);
}

const lk_operator lk_operator_layer_norm = {layer_norm_forward, layer_norm_backward, layer_norm_saved, NULL};

/* y = x / max(|x|, eps) per row. saved: 1/max(|x|, eps) per row, negative where eps was the larger.
 * Backward: gx += r (gy - y (y . gy)), without the second term where eps was the larger. */

static lk_status l2_forward(lk_call *c)
{
    size_t width, rows = row_count(&c->y, &width);
    const lk_nn_kernels *k = c->team->kernels;
    float v[LK_RUN], *saved = c->saved;
    for (size_t r = 0; r < rows; r++) {
        double square = 0;
        for (size_t i = 0; i < width; i += LK_RUN) {
            size_t n = width - i < LK_RUN ? width - i : LK_RUN;
            lk_get(c, c->x, r * width + i, n, v);
            square += (double)k->dot(v, v, n);
        }
        double length = sqrt(square), least = (double)c->node->eps;
        float inverse = (float)(1 / (length > least ? length : least));
        if (saved) saved[r] = length > least ? inverse : -inverse;
        for (size_t i = 0; i < width; i += LK_RUN) {
            size_t n = width - i < LK_RUN ? width - i : LK_RUN;
            lk_get(c, c->x, r * width + i, n, v);
            k->scale(inverse, v, n, v);
            lk_set(c, &c->y, r * width + i, n, v);
        }
    }
    return LK_OK;
}

static lk_status l2_backward(lk_call *c)
{
    size_t width, rows = row_count(&c->y, &width);
    const float *saved = c->saved;
    if (!c->gx[0]) return LK_OK;
    for (size_t r = 0; r < rows; r++) {
        const float *y = (const float *)c->y.data + r * width, *gy = c->gy + r * width;
        float along = saved[r] > 0 ? c->team->kernels->dot(y, gy, width) : 0, inverse = fabsf(saved[r]);
        for (size_t j = 0; j < width; j++) c->gx[0][r * width + j] += inverse * (gy[j] - y[j] * along);
    }
    return LK_OK;
}

static size_t l2_saved(const lk_call *c)
{
    size_t width;
    return sizeof(float) * row_count(&c->y, &width);
}

const lk_operator lk_operator_l2_normalise = {l2_forward, l2_backward, l2_saved, NULL};
