/* R-MAC: regional maxima, each normalised (and whitened), summed. */
#include <likeness/pooling.h>

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float length_floor = 1e-6f; /* added to lengths, as in the reference */

/* How many more regions than the level's number lie along the longer side: 1 to 6, whichever brings the overlap of
 * squares of the shorter side nearest to 0.4. */
static unsigned extra_regions(uint32_t shorter, uint32_t longer)
{
    unsigned best = 0;
    double nearest = INFINITY;
    for (unsigned steps = 2; steps <= 7; steps++) {
        double stride = (double)(longer - shorter) / (steps - 1), w = shorter;
        double off = fabs((w * w - w * stride) / (w * w) - 0.4);
        if (off < nearest) nearest = off, best = steps - 1;
    }
    return best;
}

/* Start of region k of `count` of side `side` along `length`. */
static uint32_t start_of(uint32_t length, uint32_t side, unsigned count, unsigned k)
{
    double half = floor(side / 2.0 - 1), stride = count == 1 ? 0 : (double)(length - side) / (count - 1);
    return (uint32_t)(floor(half + k * stride) - half);
}

lk_status lk_rmac_regions(uint32_t height, uint32_t width, unsigned levels, lk_region *regions, size_t *count)
{
    if (!height || !width || height > 1 << 20 || width > 1 << 20 || levels > 8)
        return lk_fail(LK_INVALID, "no regions of %u levels on a map of %u x %u", levels, height, width);
    uint32_t shorter = height < width ? height : width, longer = height < width ? width : height;
    unsigned more = height == width ? 0 : extra_regions(shorter, longer);
    size_t n = 0;
    if (regions) regions[n] = (lk_region){0, 0, height, width};
    n++;
    for (unsigned level = 1; level <= levels; level++) {
        uint32_t side = 2 * shorter / (level + 1);
        if (!side) continue;
        unsigned down = level + (height > width ? more : 0), across = level + (width > height ? more : 0);
        for (unsigned i = 0; i < down; i++)
            for (unsigned j = 0; j < across; j++, n++)
                if (regions)
                    regions[n] =
                        (lk_region){start_of(height, side, down, i), start_of(width, side, across, j), side, side};
    }
    *count = n;
    return LK_OK;
}

/* Everything of one region of one picture. */
typedef struct work {
    const lk_whitening *whitening;
    size_t channels, out, count;
    uint32_t width;
    lk_region *regions;
    size_t *best;                /* [channels] position of the maximum */
    double *unit, *white, *grad; /* [channels], [out], [max of both] */
    double unit_length, white_length;
    double *grad_weight, *grad_bias; /* or NULL */
} work;

static void work_free(work *w)
{
    free(w->regions);
    free(w->best);
    free(w->unit);
    free(w->grad_weight);
}

static lk_status work_new(size_t batch, size_t channels, uint32_t height, uint32_t width, unsigned levels,
                          const lk_whitening *whitening, bool train, work *w)
{
    bool white = whitening && whitening->weight;
    *w = (work){.whitening = white ? whitening : NULL,
                .channels = channels,
                .out = white ? whitening->out : channels,
                .width = width};
    if (!batch || !channels || !w->out) return lk_fail(LK_INVALID, "an empty map cannot be pooled");
    lk_status s = lk_rmac_regions(height, width, levels, NULL, &w->count);
    if (s) return s;
    size_t widest = channels > w->out ? channels : w->out;
    w->regions = lk_alloc(w->count, sizeof *w->regions);
    w->best = lk_alloc(channels, sizeof *w->best);
    w->unit = lk_alloc(channels + w->out + 2 * widest, sizeof *w->unit);
    if (train && white) w->grad_weight = lk_alloc_zero(w->out, (channels + 1) * sizeof *w->grad_weight);
    if (!w->regions || !w->best || !w->unit || (train && white && !w->grad_weight)) {
        work_free(w);
        return lk_fail_memory("regions");
    }
    w->white = w->unit + channels;
    w->grad = w->white + w->out;
    if (w->grad_weight) w->grad_bias = w->grad_weight + w->out * channels;
    return lk_rmac_regions(height, width, levels, w->regions, &w->count);
}

/* Divides by length + floor; returns the length before. */
static double normalise(double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += v[i] * v[i];
    double length = sqrt(sum), factor = 1 / (length + (double)length_floor);
    for (size_t i = 0; i < n; i++) v[i] *= factor;
    return length;
}

/* From the gradient at y = v / (|v| + f) to that at v: (g - (g.y) v / |v|) / (|v| + f). */
static void normalise_back(const double *y, double length, double *g, size_t n)
{
    double along = 0, whole = length + (double)length_floor;
    for (size_t i = 0; i < n; i++) along += g[i] * y[i];
    for (size_t i = 0; i < n; i++) g[i] = (g[i] - (length > 0 ? along * y[i] * whole / length : 0)) / whole;
}

/* The region's vector: w->unit, or w->white when whitened. */
static const double *describe(work *w, const float *x, size_t plane, lk_region r)
{
    for (size_t c = 0; c < w->channels; c++) {
        const float *map = x + c * plane;
        size_t best = (size_t)r.top * w->width + r.left;
        for (uint32_t i = r.top; i < r.top + r.height; i++)
            for (uint32_t j = r.left; j < r.left + r.width; j++)
                if (map[(size_t)i * w->width + j] > map[best]) best = (size_t)i * w->width + j;
        w->best[c] = best;
        w->unit[c] = (double)map[best];
    }
    w->unit_length = normalise(w->unit, w->channels);
    if (!w->whitening) return w->unit;
    for (size_t o = 0; o < w->out; o++) {
        double sum = w->whitening->bias ? (double)w->whitening->bias[o] : 0;
        for (size_t c = 0; c < w->channels; c++) sum += (double)w->whitening->weight[o * w->channels + c] * w->unit[c];
        w->white[o] = sum;
    }
    w->white_length = normalise(w->white, w->out);
    return w->white;
}

lk_status lk_rmac_forward(size_t batch, size_t channels, uint32_t height, uint32_t width, unsigned levels,
                          const lk_whitening *whitening, const float *x, float *out)
{
    work w;
    lk_status s = work_new(batch, channels, height, width, levels, whitening, false, &w);
    if (s) return s;
    size_t plane = (size_t)height * width;
    for (size_t b = 0; b < batch; b++) {
        double *sum = w.grad;
        memset(sum, 0, w.out * sizeof *sum);
        for (size_t r = 0; r < w.count; r++) {
            const double *v = describe(&w, x + b * channels * plane, plane, w.regions[r]);
            for (size_t o = 0; o < w.out; o++) sum[o] += v[o];
        }
        for (size_t o = 0; o < w.out; o++) out[b * w.out + o] = (float)sum[o];
    }
    work_free(&w);
    return LK_OK;
}

/* Adds what one region of one picture contributes. */
static void region_back(work *w, const float *grad_out, size_t plane, float *grad_x)
{
    size_t widest = w->channels > w->out ? w->channels : w->out;
    double *g = w->grad, *inner = w->grad + widest;
    for (size_t o = 0; o < w->out; o++) g[o] = (double)grad_out[o];
    if (w->whitening) {
        normalise_back(w->white, w->white_length, g, w->out);
        memset(inner, 0, w->channels * sizeof *inner);
        for (size_t o = 0; o < w->out; o++) {
            w->grad_bias[o] += g[o];
            for (size_t c = 0; c < w->channels; c++) {
                w->grad_weight[o * w->channels + c] += g[o] * w->unit[c];
                inner[c] += g[o] * (double)w->whitening->weight[o * w->channels + c];
            }
        }
        g = inner;
    }
    normalise_back(w->unit, w->unit_length, g, w->channels);
    for (size_t c = 0; grad_x && c < w->channels; c++) grad_x[c * plane + w->best[c]] += (float)g[c];
}

lk_status lk_rmac_backward(size_t batch, size_t channels, uint32_t height, uint32_t width, unsigned levels,
                           const lk_whitening *whitening, const float *x, const float *grad_out, float *grad_x,
                           float *grad_weight, float *grad_bias)
{
    work w;
    lk_status s = work_new(batch, channels, height, width, levels, whitening, true, &w);
    if (s) return s;
    size_t plane = (size_t)height * width;
    if (grad_x) memset(grad_x, 0, batch * channels * plane * sizeof *grad_x);
    for (size_t b = 0; b < batch; b++)
        for (size_t r = 0; r < w.count; r++) {
            describe(&w, x + b * channels * plane, plane, w.regions[r]);
            region_back(&w, grad_out + b * w.out, plane, grad_x ? grad_x + b * channels * plane : NULL);
        }
    for (size_t i = 0; w.whitening && grad_weight && i < w.out * channels; i++)
        grad_weight[i] = (float)w.grad_weight[i];
    for (size_t o = 0; w.whitening && grad_bias && o < w.out; o++) grad_bias[o] = (float)w.grad_bias[o];
    work_free(&w);
    return LK_OK;
}
