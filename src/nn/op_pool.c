/* Pooling over windows, bins and everything. Values are taken block by block (see lk_view), so that channels are next
 * to each other in every layout. Backward passes run over (row, block) pairs: no two threads write the same gradient.
 */
#include "nn/op.h"

#include <math.h>
#include <string.h>

typedef struct window {
    int64_t y0, y1, x0, x1; /* inside the picture */
    float weight;           /* of each value in an average */
} window;

static window window_at(const lk_call *c, int64_t oy, int64_t ox)
{
    int64_t h = c->x->dims[2], w = c->x->dims[3];
    window v;
    if (c->node->op == LK_OP_ADAPTIVE_POOL) {
        int64_t oh = c->y.dims[2], ow = c->y.dims[3];
        v = (window){oy * h / oh, ((oy + 1) * h + oh - 1) / oh, ox * w / ow, ((ox + 1) * w + ow - 1) / ow, 0};
        v.weight = 1.0f / (float)((v.y1 - v.y0) * (v.x1 - v.x0));
        return v;
    }
    const lk_pool2d *p = &c->node->u.pool;
    v.y0 = oy * p->stride[0] - p->pad[0];
    v.x0 = ox * p->stride[1] - p->pad[1];
    /* Counted padding ends where the padded picture does (a last window of ceil_mode may reach further). */
    int64_t y1 = v.y0 + p->kernel[0], x1 = v.x0 + p->kernel[1];
    if (y1 > h + p->pad[2]) y1 = h + p->pad[2];
    if (x1 > w + p->pad[3]) x1 = w + p->pad[3];
    int64_t padded = (y1 - v.y0) * (x1 - v.x0);
    v.y0 = v.y0 < 0 ? 0 : v.y0;
    v.x0 = v.x0 < 0 ? 0 : v.x0;
    v.y1 = y1 > h ? h : y1;
    v.x1 = x1 > w ? w : x1;
    v.weight = 1.0f / (float)(p->count_pad ? padded : (v.y1 - v.y0) * (v.x1 - v.x0));
    return v;
}

enum { MAX_TAPS = 16 };

static void pool_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    lk_grid gx = lk_grid_of(c->x), gy = lk_grid_of(&c->y);
    const lk_nn_kernels *k = c->team->kernels;
    int64_t w = c->x->dims[3], oh = c->y.dims[2], ow = c->y.dims[3];
    bool max = c->node->op == LK_OP_MAX_POOL;
    float v[LK_RUN], total[LK_RUN];
    int64_t lines = (int64_t)begin / ow, oy = lines % oh, ox = (int64_t)begin % ow;
    size_t plane = (size_t)(lines / oh);
    for (size_t item = begin; item < end; item++, ox++) {
        if (ox == ow) {
            ox = 0;
            oy = oy + 1 < oh ? oy + 1 : 0;
            plane += oy == 0;
        }
        window at = window_at(c, oy, ox);
        size_t values = (size_t)((at.y1 - at.y0) * (at.x1 - at.x0));
        if (max && values <= MAX_TAPS && gy.block <= LK_RUN) {
            const void *taps[MAX_TAPS];
            size_t count = 0, line = gx.block * lk_type_width(c->x->type);
            for (int64_t y = at.y0; y < at.y1; y++) {
                const char *tap = lk_view_at(c->x, (plane * gx.positions + (size_t)(y * w + at.x0)) * gx.block);
                for (int64_t x = at.x0; x < at.x1; x++, tap += line) taps[count++] = tap;
            }
            if (lk_type_width(c->x->type) == 1 && c->x->type == c->y.type && c->x->scale == c->y.scale) {
                k->max_codes(c->x->type, taps, count, gy.block, lk_view_at(&c->y, item * gy.block));
                continue;
            }
            k->max_taps(c->x->type, c->x->scale, taps, count, gy.block, total);
            lk_set(c, &c->y, item * gy.block, gy.block, total);
            continue;
        }
        for (size_t j = 0; j < gy.block; j += LK_RUN) {
            size_t n = gy.block - j < LK_RUN ? gy.block - j : LK_RUN;
            for (size_t i = 0; i < n; i++) total[i] = max ? -INFINITY : 0;
            for (int64_t y = at.y0; y < at.y1; y++) {
                for (int64_t x = at.x0; x < at.x1; x++) {
                    lk_get(c, c->x, (plane * gx.positions + (size_t)(y * w + x)) * gx.block + j, n, v);
                    if (max)
                        k->max(v, total, n, total);
                    else
                        k->add(total, v, n, total);
                }
            }
            if (!max) k->scale(at.weight, total, n, total);
            lk_set(c, &c->y, item * gy.block + j, n, total);
        }
    }
}

static size_t window_cost(const lk_call *c)
{
    lk_grid gx = lk_grid_of(c->x), gy = lk_grid_of(&c->y);
    size_t values = gx.positions / gy.positions;
    if (c->node->op != LK_OP_ADAPTIVE_POOL) values = (size_t)(c->node->u.pool.kernel[0] * c->node->u.pool.kernel[1]);
    return (values + 1) * gy.block;
}

static lk_status pool_forward(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    lk_team_for(c->team, g.batch * g.blocks * g.positions, window_cost(c), pool_piece, c);
    return LK_OK;
}

/* The gradient of a maximum goes to the first value that is the largest, as PyTorch counts: rows first. */
static void max_gradient(lk_call *c, window at, size_t plane, size_t item)
{
    lk_grid gx = lk_grid_of(c->x), gy = lk_grid_of(&c->y);
    const float *x[MAX_TAPS];
    float *to[MAX_TAPS];
    size_t count = 0;
    for (int64_t y = at.y0; y < at.y1; y++)
        for (int64_t q = at.x0; q < at.x1; q++, count++) {
            size_t i = (plane * gx.positions + (size_t)(y * c->x->dims[3] + q)) * gx.block;
            x[count] = (const float *)c->x->data + i;
            to[count] = c->gx[0] + i;
        }
    c->team->kernels->max_gradient(x, to, count, gy.block, c->gy + item * gy.block);
}

/* The same for windows of any size, channel after channel. */
static void max_gradient_large(lk_call *c, window at, size_t plane, size_t item)
{
    lk_grid gx = lk_grid_of(c->x), gy = lk_grid_of(&c->y);
    const float *x = c->x->data;
    for (size_t j = 0; j < gy.block; j++) {
        size_t where = SIZE_MAX;
        for (int64_t y = at.y0; y < at.y1; y++)
            for (int64_t q = at.x0; q < at.x1; q++) {
                size_t i = (plane * gx.positions + (size_t)(y * c->x->dims[3] + q)) * gx.block + j;
                if (where == SIZE_MAX || x[i] > x[where] || x[i] != x[i]) where = i;
            }
        c->gx[0][where] += c->gy[item * gy.block + j];
    }
}

/* Items are (row, block) planes. */
static void pool_gradient_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    lk_grid gx = lk_grid_of(c->x), gy = lk_grid_of(&c->y);
    int64_t w = c->x->dims[3], ow = c->y.dims[3];
    size_t size = gx.positions * gx.block;
    for (size_t item = begin * gy.positions; item < end * gy.positions; item++) {
        size_t plane = item / gy.positions, o = item % gy.positions;
        window at = window_at(c, (int64_t)o / ow, (int64_t)o % ow);
        if (c->write[0] && o == 0) memset(c->gx[0] + plane * size, 0, size * sizeof(float));
        if (c->node->op == LK_OP_MAX_POOL) {
            bool small = (at.y1 - at.y0) * (at.x1 - at.x0) <= MAX_TAPS;
            (small ? max_gradient : max_gradient_large)(c, at, plane, item);
            continue;
        }
        for (int64_t y = at.y0; y < at.y1; y++)
            for (int64_t x = at.x0; x < at.x1; x++)
                c->team->kernels->axpy(at.weight, c->gy + item * gy.block, gy.block,
                                       c->gx[0] + (plane * gx.positions + (size_t)(y * w + x)) * gx.block);
    }
}

static lk_status pool_backward(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    if (c->gx[0]) lk_team_for(c->team, g.batch * g.blocks, window_cost(c) * g.positions, pool_gradient_piece, c);
    return LK_OK;
}

const lk_operator lk_operator_max_pool = {pool_forward, pool_backward, NULL, NULL};
const lk_operator lk_operator_avg_pool = {pool_forward, pool_backward, NULL, NULL};
const lk_operator lk_operator_adaptive_pool = {pool_forward, pool_backward, NULL, NULL};

/* Mean or maximum over all positions of a row (pictures: over H*W, tokens: over T) -> [N, C]. */

enum { GLOBAL_RUN = 64, SHARES = 4 };

/* Largest values; items are runs of channels: (row, block, run). */
static void global_max_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    lk_grid g = lk_grid_of(c->x);
    const lk_nn_kernels *k = c->team->kernels;
    size_t channels = (size_t)c->y.dims[1], runs = (g.block + GLOBAL_RUN - 1) / GLOBAL_RUN;
    float v[GLOBAL_RUN], total[GLOBAL_RUN];
    for (size_t item = begin; item < end; item++) {
        size_t plane = item / runs, j = item % runs * GLOBAL_RUN, row = plane / g.blocks;
        size_t first = plane % g.blocks * g.block, n = g.block - j < GLOBAL_RUN ? g.block - j : GLOBAL_RUN;
        if (first + j >= channels) continue;
        if (n > channels - first - j) n = channels - first - j;
        for (size_t p = 0; p < g.positions; p++) {
            lk_get(c, c->x, (plane * g.positions + p) * g.block + j, n, p ? v : total);
            if (p) k->max(v, total, n, total);
        }
        lk_set(c, &c->y, row * channels + first + j, n, total);
    }
}

/* Sums of a share of the positions each: items are (row, block, share). The thread that sums positions is mostly the
 * one that made them, and multiplies them with a gate afterwards; by channels they would all travel between the
 * threads' caches, twice. The number of shares is fixed, so that the sums do not depend on the threads. */
static void global_sum_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    lk_grid g = lk_grid_of(c->x);
    for (size_t item = begin; item < end; item++) {
        size_t share = item % SHARES, first = g.positions * share / SHARES;
        c->team->kernels->sum_rows(
            c->x->type, c->x->scale, lk_view_at(c->x, (item / SHARES * g.positions + first) * g.block),
            g.positions * (share + 1) / SHARES - first, g.block, g.block, c->scratch + item * g.block);
    }
}

static lk_status global_forward(lk_call *c)
{
    lk_grid g = lk_grid_of(c->x);
    const lk_nn_kernels *k = c->team->kernels;
    size_t channels = (size_t)c->y.dims[1], runs = (g.block + GLOBAL_RUN - 1) / GLOBAL_RUN;
    if (c->node->op == LK_OP_GLOBAL_MAX) {
        lk_team_for(c->team, g.batch * g.blocks * runs, g.positions * GLOBAL_RUN, global_max_piece, c);
        return LK_OK;
    }
    lk_team_for(c->team, g.batch * g.blocks * SHARES, g.positions * g.block / SHARES + 1, global_sum_piece, c);
    for (size_t plane = 0; plane < g.batch * g.blocks; plane++) {
        float *total = c->scratch + plane * SHARES * g.block;
        size_t row = plane / g.blocks, first = plane % g.blocks * g.block;
        size_t n = channels - first < g.block ? channels - first : g.block;
        for (size_t share = 1; share < SHARES; share++) k->add(total, total + share * g.block, n, total);
        k->scale(1.0f / (float)g.positions, total, n, total);
        lk_set(c, &c->y, row * channels + first, n, total);
    }
    return LK_OK;
}

static size_t global_scratch(const lk_call *c)
{
    lk_grid g = lk_grid_of(c->x);
    return g.batch * g.blocks * g.block * SHARES;
}

static lk_status global_backward(lk_call *c)
{
    lk_grid g = lk_grid_of(c->x);
    size_t channels = (size_t)c->y.dims[1];
    const float *x = c->x->data;
    if (!c->gx[0]) return LK_OK;
    for (size_t item = 0; item < g.batch * g.blocks; item++) {
        size_t row = item / g.blocks, first = item % g.blocks * g.block;
        for (size_t j = 0; j < g.block && first + j < channels; j++) {
            float gy = c->gy[row * channels + first + j];
            size_t base = item * g.positions * g.block + j, best = 0;
            if (c->node->op == LK_OP_GLOBAL_MAX) {
                for (size_t p = 1; p < g.positions; p++)
                    if (x[base + p * g.block] > x[base + best * g.block]) best = p;
                c->gx[0][base + best * g.block] += gy;
                continue;
            }
            for (size_t p = 0; p < g.positions; p++) c->gx[0][base + p * g.block] += gy / (float)g.positions;
        }
    }
    return LK_OK;
}

const lk_operator lk_operator_global_avg = {global_forward, global_backward, NULL, global_scratch};
const lk_operator lk_operator_global_max = {global_forward, global_backward, NULL, NULL};
