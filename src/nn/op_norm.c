/* Normalisations: batch norm, layer norm, division by the length. */
#include "nn/op.h"

#include <math.h>
#include <string.h>

/* Batch norm (Ioffe & Szegedy, 2015): y = (x - m) r w + b with r = 1/sqrt(v + eps), per channel; m and v of the batch
 * in training (v without Bessel's correction; the running variance takes it with), the running ones otherwise. saved:
 * m, r [C]; scratch: factor and offset [C]. Backward with n elements per channel and xh = (x - m) r: gw += sum gy xh,
 * gb += sum gy, gx += w r (gy - sum gy / n - xh sum(gy xh) / n), without the two means when the running statistics were
 * used. In training together with other processes the sums are those of all of them. */

static size_t channels_of(lk_grid g)
{
    return g.blocks * g.block;
}

static void batch_norm_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    lk_grid g = lk_grid_of(&c->y);
    const float *factor = c->scratch, *offset = c->scratch + channels_of(g);
    float v[LK_RUN];
    for (size_t item = begin; item < end; item++) {
        size_t channel = item / g.positions % g.blocks * g.block;
        for (size_t j = 0; j < g.block; j += LK_RUN) {
            size_t n = g.block - j < LK_RUN ? g.block - j : LK_RUN;
            lk_get(c, c->x, item * g.block + j, n, v);
            c->team->kernels->affine(v, factor + channel + j, offset + channel + j, 1, n, v);
            lk_set(c, &c->y, item * g.block + j, n, v);
        }
    }
}

/* Items are groups of channels: each is summed by one thread in one order. f32, channels last. */
enum { GROUP = 64 };

static size_t group_width(size_t channels, size_t group)
{
    return channels - group * GROUP < GROUP ? channels - group * GROUP : GROUP;
}

/* Behind factor and offset in the scratch: two sums [C] in f64. */
static double *sums_of(const lk_call *c)
{
    return (double *)(void *)(c->scratch + 2 * channels_of(lk_grid_of(&c->y)));
}

/* Rows behind a mean: those of all processes that train together. */
static size_t rows_of(const lk_call *c, lk_grid g)
{
    return g.batch * g.positions * (c->together ? (size_t)c->together->processes : 1);
}

/* Sums of the columns [first, first + n): of the values, or of their squared distances to the mean. */
static void sum_columns(lk_call *c, size_t first, size_t n, bool squares)
{
    lk_grid g = lk_grid_of(&c->y);
    const float *mean = (const float *)c->saved + first;
    c->team->kernels->column_sums((const float *)c->x->data + first, g.batch * g.positions, channels_of(g), n,
                                  squares ? mean : NULL, sums_of(c) + first);
}

/* From these sums to means, or to rstd and the running statistics. */
static void take_sums(lk_call *c, size_t first, size_t n, bool squares)
{
    lk_grid g = lk_grid_of(&c->y);
    size_t rows = rows_of(c, g);
    const double *sum = sums_of(c) + first;
    float *mean = (float *)c->saved + first, *rstd = mean + channels_of(g);
    for (size_t i = 0; i < n; i++) {
        if (!squares) {
            mean[i] = (float)(sum[i] / (double)rows);
            continue;
        }
        rstd[i] = (float)(1 / sqrt(sum[i] / (double)rows + (double)c->node->eps));
        if (!c->statistics[0]) continue;
        float m = c->node->momentum, *running = c->statistics[0] + first, *variance = c->statistics[1] + first;
        running[i] += m * (mean[i] - running[i]);
        variance[i] += m * ((float)(sum[i] / (double)(rows > 1 ? rows - 1 : 1)) - variance[i]);
    }
}

static void batch_statistics_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t channels = channels_of(lk_grid_of(&c->y));
    for (size_t group = begin; group < end; group++)
        for (int squares = 0; squares < 2; squares++) {
            sum_columns(c, group * GROUP, group_width(channels, group), squares);
            take_sums(c, group * GROUP, group_width(channels, group), squares);
        }
}

static void means_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t channels = channels_of(lk_grid_of(&c->y));
    for (size_t group = begin; group < end; group++) sum_columns(c, group * GROUP, group_width(channels, group), false);
}

static void squares_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t channels = channels_of(lk_grid_of(&c->y));
    for (size_t group = begin; group < end; group++) sum_columns(c, group * GROUP, group_width(channels, group), true);
}

static lk_status batch_statistics(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    size_t channels = channels_of(g), groups = (channels + GROUP - 1) / GROUP, cost = GROUP * g.batch * g.positions;
    lk_status s = LK_OK;
    if (!c->together) {
        lk_team_for(c->team, groups, cost, batch_statistics_piece, c);
        return LK_OK;
    }
    for (int squares = 0; squares < 2 && s == LK_OK; squares++) {
        lk_team_for(c->team, groups, cost, squares ? squares_piece : means_piece, c);
        s = c->together->sum(c->together->user, sums_of(c), channels);
        take_sums(c, 0, channels, squares);
    }
    return s;
}

static lk_status batch_norm_forward(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    size_t channels = channels_of(g), rows = g.batch * g.positions;
    float *factor = c->scratch, *offset = factor + channels, *mean = c->saved, *rstd = mean ? mean + channels : NULL;
    if (c->train) {
        if (rows_of(c, g) == 1)
            return lk_fail(LK_INVALID, "%s: one value per channel has no variance to train with", c->node->name);
        lk_status s = batch_statistics(c);
        if (s != LK_OK) return s;
    }
    for (size_t i = 0; i < channels; i++) {
        float m = c->train ? mean[i] : c->p[2][i], r = c->train ? rstd[i] : 1 / sqrtf(c->p[3][i] + c->node->eps);
        factor[i] = r * c->p[0][i];
        offset[i] = c->p[1][i] - m * factor[i];
        if (mean) {
            mean[i] = m;
            rstd[i] = r;
        }
    }
    lk_team_for(c->team, rows * g.blocks, g.block, batch_norm_piece, c);
    return LK_OK;
}

static void sum_products(lk_call *c, size_t first, size_t n)
{
    lk_grid g = lk_grid_of(&c->y);
    size_t channels = channels_of(g);
    const float *mean = (const float *)c->saved + first;
    double *sum = sums_of(c) + first;
    c->team->kernels->column_products((const float *)c->x->data + first, c->gy + first, g.batch * g.positions, channels,
                                      n, mean, mean + channels, sum, sum + channels);
    for (size_t i = 0; i < n; i++) { /* of these rows alone: whoever trains together adds gradients up */
        if (c->gp[0]) c->gp[0][first + i] += (float)sum[channels + i];
        if (c->gp[1]) c->gp[1][first + i] += (float)sum[i];
    }
}

/* gx += w r (gy - s - xh p) is a gy + b x + c with a = w r, b = -w r^2 p, c = -a s - b m. */
static void spread_gradient(lk_call *c, size_t first, size_t n)
{
    lk_grid g = lk_grid_of(&c->y);
    size_t channels = channels_of(g);
    const float *mean = (const float *)c->saved + first, *rstd = mean + channels, *weight = c->p[0] + first;
    const double *sum = sums_of(c) + first, *product = sum + channels;
    float a[GROUP], b[GROUP], d[GROUP];
    for (size_t i = 0; i < n; i++) {
        double scale = (double)weight[i] * (double)rstd[i], share = c->train ? 1 / (double)rows_of(c, g) : 0;
        double slope = -scale * (double)rstd[i] * product[i] * share;
        a[i] = (float)scale;
        b[i] = (float)slope;
        d[i] = (float)(-scale * sum[i] * share - slope * (double)mean[i]);
    }
    c->team->kernels->column_update((const float *)c->x->data + first, c->gy + first, g.batch * g.positions, channels,
                                    n, a, b, d, c->gx[0] + first);
}

static void products_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t channels = channels_of(lk_grid_of(&c->y));
    for (size_t group = begin; group < end; group++) sum_products(c, group * GROUP, group_width(channels, group));
}

static void spread_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    size_t channels = channels_of(lk_grid_of(&c->y));
    for (size_t group = begin; group < end; group++) spread_gradient(c, group * GROUP, group_width(channels, group));
}

static void batch_norm_gradient_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    for (size_t group = begin; group < end; group++) { /* one after the other: the group's columns are in the cache */
        products_piece(c, group, group + 1);
        if (c->gx[0]) spread_piece(c, group, group + 1);
    }
}

static lk_status batch_norm_backward(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    size_t channels = channels_of(g), groups = (channels + GROUP - 1) / GROUP;
    size_t cost = 8 * GROUP * g.batch * g.positions;
    if (!c->together || !c->train) {
        lk_team_for(c->team, groups, cost, batch_norm_gradient_piece, c);
        return LK_OK;
    }
    lk_team_for(c->team, groups, cost / 2, products_piece, c);
    lk_status s = c->together->sum(c->together->user, sums_of(c), 2 * channels);
    if (s == LK_OK && c->gx[0]) lk_team_for(c->team, groups, cost / 2, spread_piece, c);
    return s;
}

static size_t batch_norm_saved(const lk_call *c)
{
    return 2 * sizeof(float) * channels_of(lk_grid_of(&c->y));
}

static size_t batch_norm_scratch(const lk_call *c)
{
    return 2 * channels_of(lk_grid_of(&c->y)) + 2 * channels_of(lk_grid_of(&c->y)) * sizeof(double) / sizeof(float);
}

const lk_operator lk_operator_batch_norm = {batch_norm_forward, batch_norm_backward, batch_norm_saved,
                                            batch_norm_scratch};

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
