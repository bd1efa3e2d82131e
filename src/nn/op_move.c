/* Operators that move values: concatenation, slices, other shapes and orders, and resized position embeddings. */
#include "base/memory.h"
#include "nn/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A view of a gradient: as the value, f32. */
static lk_view gradient_view(const lk_view *value, float *gradient)
{
    lk_view view = *value;
    view.type = LK_TYPE_F32;
    view.scale = 1;
    view.data = gradient;
    return view;
}

/* Concatenation and slices: part of the larger tensor is the smaller one. */

static lk_strided part_of(const lk_view *small, const lk_view *large, bool to_large)
{
    lk_strided how = {.rank = large->rank};
    int64_t a[LK_MAX_DIMS], b[LK_MAX_DIMS];
    lk_view_strides(small, a);
    lk_view_strides(large, b);
    /* channels-last pictures: go through the dimensions in the order in which they lie */
    static const int last_order[4] = {0, 2, 3, 1};
    for (int i = 0; i < large->rank; i++) {
        int d = large->rank == 4 && large->block > 1 ? last_order[i] : i;
        how.dims[i] = d == 0 ? large->dims[0] : small->dims[d];
        how.from[i] = to_large ? a[d] : b[d];
        how.to[i] = to_large ? b[d] : a[d];
        if (d == 0 && small->dims[0] == 1 && large->dims[0] != 1) how.from[i] = 0; /* repeated over the batch */
    }
    return how;
}

static int64_t axis_stride(const lk_view *view, int axis)
{
    int64_t strides[LK_MAX_DIMS];
    lk_view_strides(view, strides);
    return strides[axis];
}

static lk_status concat_forward(lk_call *c)
{
    int axis = c->node->u.part.axis;
    int64_t at = 0, stride = axis_stride(&c->y, axis);
    for (int i = 0; i < c->node->input_count; i++) {
        lk_strided how = part_of(&c->x[i], &c->y, true);
        lk_copy_strided(c->team, &how, &c->x[i], 0, &c->y, (size_t)(at * stride), false);
        at += c->x[i].dims[axis];
    }
    return LK_OK;
}

static lk_status concat_backward(lk_call *c)
{
    int axis = c->node->u.part.axis;
    int64_t at = 0, stride = axis_stride(&c->y, axis);
    lk_view gy = gradient_view(&c->y, (float *)c->gy);
    for (int i = 0; i < c->node->input_count; i++) {
        if (c->gx[i]) {
            lk_view gx = gradient_view(&c->x[i], c->gx[i]);
            /* rows of a repeated input are added one after another */
            bool repeated = gx.dims[0] == 1 && gy.dims[0] != 1;
            lk_view row = gy;
            if (repeated) row.dims[0] = 1;
            lk_strided how = part_of(&gx, &row, false);
            for (int64_t n = 0; n < (repeated ? gy.dims[0] : 1); n++)
                lk_copy_strided(c->team, &how, &gy, (size_t)(at * stride + n * axis_stride(&gy, 0)), &gx, 0, true);
        }
        at += c->x[i].dims[axis];
    }
    return LK_OK;
}

const lk_operator lk_operator_concat = {concat_forward, concat_backward, NULL, NULL};

static lk_status slice_forward(lk_call *c)
{
    lk_strided how = part_of(&c->y, c->x, false);
    size_t at = (size_t)(c->node->u.part.begin * axis_stride(c->x, c->node->u.part.axis));
    lk_copy_strided(c->team, &how, c->x, at, &c->y, 0, false);
    return LK_OK;
}

static lk_status slice_backward(lk_call *c)
{
    if (!c->gx[0]) return LK_OK;
    lk_view gy = gradient_view(&c->y, (float *)c->gy), gx = gradient_view(c->x, c->gx[0]);
    lk_strided how = part_of(&gy, &gx, true);
    size_t at = (size_t)(c->node->u.part.begin * axis_stride(c->x, c->node->u.part.axis));
    lk_copy_strided(c->team, &how, &gy, 0, &gx, at, true);
    return LK_OK;
}

const lk_operator lk_operator_slice = {slice_forward, slice_backward, NULL, NULL};

/* Reshape and tokens: the values lie in the same order (whoever compiles sees to it), only the shape is another. */

static lk_status copy_forward(lk_call *c)
{
    lk_strided how = {.rank = 1, .dims = {(int64_t)lk_view_elements(&c->y)}, .from = {1}, .to = {1}};
    if (c->y.data != c->x->data) lk_copy_strided(c->team, &how, c->x, 0, &c->y, 0, false);
    return LK_OK;
}

static lk_status copy_backward(lk_call *c)
{
    if (c->gx[0]) c->team->kernels->add(c->gx[0], c->gy, lk_view_elements(&c->y), c->gx[0]);
    return LK_OK;
}

const lk_operator lk_operator_copy = {copy_forward, copy_backward, NULL, NULL};

/* Strides of x by the dimensions of y. */
static lk_strided transposed(const lk_call *c, bool backward)
{
    lk_strided how = {.rank = c->y.rank};
    int64_t sx[LK_MAX_DIMS], sy[LK_MAX_DIMS];
    lk_view_strides(c->x, sx);
    lk_view_strides(&c->y, sy);
    for (int i = 0; i < how.rank; i++) {
        how.dims[i] = c->y.dims[i];
        how.from[i] = backward ? sy[i] : sx[c->node->u.order[i]];
        how.to[i] = backward ? sx[c->node->u.order[i]] : sy[i];
    }
    return how;
}

static lk_status transpose_forward(lk_call *c)
{
    lk_strided how = transposed(c, false);
    lk_copy_strided(c->team, &how, c->x, 0, &c->y, 0, false);
    return LK_OK;
}

static lk_status transpose_backward(lk_call *c)
{
    if (!c->gx[0]) return LK_OK;
    lk_strided how = transposed(c, true);
    lk_view gy = gradient_view(&c->y, (float *)c->gy), gx = gradient_view(c->x, c->gx[0]);
    lk_copy_strided(c->team, &how, &gy, 0, &gx, 0, true);
    return LK_OK;
}

const lk_operator lk_operator_transpose = {transpose_forward, transpose_backward, NULL, NULL};

/* Position embeddings. Keys' cubic convolution (1981): near(d) for |d| < 1, far(d) for |d| < 2. ---------------------
 */

static double cubic(double d, double a)
{
    d = fabs(d);
    if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    if (d < 2) return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
    return 0;
}

/* weights [to][from]: how much each old position along one axis gives to each new one. */
static void axis_weights(int64_t from, int64_t to, double scale, bool antialias, float *weights)
{
    if (!(scale > 0)) scale = (double)from / (double)to;
    memset(weights, 0, sizeof *weights * (size_t)(from * to));
    for (int64_t i = 0; i < to; i++) {
        float *w = weights + i * from;
        if (!antialias) {
            double at = scale * ((double)i + 0.5) - 0.5;
            int64_t base = (int64_t)floor(at);
            for (int64_t j = base - 1; j <= base + 2; j++) /* beyond the edge its last value goes on */
                w[j < 0 ? 0 : j >= from ? from - 1 : j] += (float)cubic(at - (double)j, -0.75);
            continue;
        }
        double wide = scale > 1 ? scale : 1, centre = scale * ((double)i + 0.5), total = 0;
        int64_t first = (int64_t)(centre - 2 * wide + 0.5), last = (int64_t)(centre + 2 * wide + 0.5);
        first = first < 0 ? 0 : first;
        last = last > from ? from : last;
        for (int64_t j = first; j < last; j++) total += cubic(((double)j - centre + 0.5) / wide, -0.5);
        for (int64_t j = first; j < last; j++) w[j] = (float)(cubic(((double)j - centre + 0.5) / wide, -0.5) / total);
    }
}

/* Applies the separable weights, forward (from -> to) or its transpose (to -> from, added). */
static lk_status resize(const lk_positions *how, size_t width, const float *in, float *out, bool backward)
{
    int64_t fh = how->from[0], fw = how->from[1], th = how->to[0], tw = how->to[1];
    size_t prefix = (size_t)how->prefix * width;
    float *wy = lk_alloc((size_t)(th * fh), sizeof *wy), *wx = lk_alloc((size_t)(tw * fw), sizeof *wx);
    float *half = lk_alloc_zero((size_t)(th * fw), width * sizeof *half); /* [th][fw][width] */
    if (!wy || !wx || !half) {
        free(wy);
        free(wx);
        free(half);
        return lk_fail_memory("positions");
    }
    axis_weights(fh, th, how->scale[0], how->antialias, wy);
    axis_weights(fw, tw, how->scale[1], how->antialias, wx);
    for (size_t i = 0; i < prefix; i++) out[i] = backward ? out[i] + in[i] : in[i];
    in += prefix;
    out += prefix;
    for (int pass = 0; pass < 2; pass++) {
        /* forward: rows, then columns; backward the other way round */
        if ((pass == 0) != backward) {
            for (int64_t y = 0; y < th; y++)
                for (int64_t v = 0; v < fh; v++)
                    for (size_t i = 0; wy[y * fh + v] != 0 && i < (size_t)fw * width; i++) {
                        size_t a = (size_t)(y * fw) * width + i, b = (size_t)(v * fw) * width + i;
                        if (backward)
                            out[b] += wy[y * fh + v] * half[a];
                        else
                            half[a] += wy[y * fh + v] * in[b];
                    }
            continue;
        }
        if (!backward) memset(out, 0, sizeof *out * (size_t)(th * tw) * width);
        for (int64_t y = 0; y < th; y++)
            for (int64_t x = 0; x < tw; x++)
                for (int64_t u = 0; u < fw; u++)
                    for (size_t i = 0; wx[x * fw + u] != 0 && i < width; i++) {
                        size_t a = (size_t)(y * fw + u) * width + i, b = (size_t)(y * tw + x) * width + i;
                        if (backward)
                            half[a] += wx[x * fw + u] * in[b];
                        else
                            out[b] += wx[x * fw + u] * half[a];
                    }
    }
    free(wy);
    free(wx);
    free(half);
    return LK_OK;
}

lk_status lk_resize_positions(const lk_positions *how, size_t width, const float *positions, float *out)
{
    return resize(how, width, positions, out, false);
}

static lk_status positions_forward(lk_call *c)
{
    return resize(&c->node->u.positions, (size_t)c->y.dims[2], c->x->data, c->y.data, false);
}

static lk_status positions_backward(lk_call *c)
{
    return c->gx[0] ? resize(&c->node->u.positions, (size_t)c->y.dims[2], c->gy, c->gx[0], true) : LK_OK;
}

const lk_operator lk_operator_positions = {positions_forward, positions_backward, NULL, NULL};
