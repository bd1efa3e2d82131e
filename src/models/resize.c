#include "models/resize.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef float pixel __attribute__((vector_size(16))); /* R, G, B, unused */

static double box(double x)
{
    return x > -0.5 && x <= 0.5;
}

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* Keys (1981) with a = -0.5. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static double sinc(double x)
{
    return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x);
}

static double lanczos(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static const struct {
    double (*at)(double x);
    double support;
} filters[] = {[LK_FILTER_NEAREST] = {box, 0},
               [LK_FILTER_BOX] = {box, 0.5},
               [LK_FILTER_BILINEAR] = {bilinear, 1},
               [LK_FILTER_BICUBIC] = {bicubic, 2},
               [LK_FILTER_LANCZOS] = {lanczos, 3}};

/* Weights of the source samples of each wanted one: `taps` places each, `first` the first source, `count` how many. */
typedef struct weights {
    uint32_t taps;
    uint32_t *first, *count; /* [wanted] */
    float *weight;           /* [wanted][taps] */
} weights;

static void weights_free(weights *w)
{
    free(w->first);
    free(w->count);
    free(w->weight);
}

/* For samples begin .. begin+wanted of `size` made from `source`: the filter, stretched by the shrinking factor, is
 * laid around each sample's centre and its values at the source's centres are scaled to the sum 1. */
static lk_status weights_new(lk_filter filter, uint32_t source, uint32_t size, uint32_t begin, uint32_t wanted,
                             weights *out)
{
    double scale = (double)source / size, stretch = scale > 1 ? scale : 1, support = filters[filter].support * stretch;
    uint32_t taps = (uint32_t)ceil(support) * 2 + 1;
    *out = (weights){taps, lk_alloc(wanted, sizeof(uint32_t)), lk_alloc(wanted, sizeof(uint32_t)),
                     lk_alloc_zero((size_t)wanted * taps, sizeof(float))};
    double *values = lk_alloc(taps, sizeof *values);
    if (!out->first || !out->count || !out->weight || !values) {
        free(values);
        return lk_fail_memory("resizing");
    }
    double stepped =
        scale * 0.5; /* the nearest pixel is found by adding up, as Pillow does: it matters when centres tie */
    for (uint32_t i = 0; i < begin; i++) stepped += scale;
    for (uint32_t i = 0; i < wanted; i++, stepped += scale) {
        double centre = (begin + i + 0.5) * scale, sum = 0;
        double low = floor(centre - support + 0.5), high = floor(centre + support + 0.5);
        uint32_t first = low > 0 ? (uint32_t)low : 0, end = high < source ? (uint32_t)high : source;
        if (filter == LK_FILTER_NEAREST) {
            first = (uint32_t)stepped < source ? (uint32_t)stepped : source - 1;
            end = first + 1;
        }
        out->first[i] = first;
        out->count[i] = end - first;
        for (uint32_t k = first; k < end; k++) {
            values[k - first] = filter == LK_FILTER_NEAREST ? 1 : filters[filter].at((k - centre + 0.5) / stretch);
            sum += values[k - first];
        }
        for (uint32_t k = 0; k < end - first; k++)
            out->weight[(size_t)i * taps + k] = (float)(sum != 0 ? values[k] / sum : values[k]);
    }
    free(values);
    return LK_OK;
}

static uint8_t round_to_byte(float x)
{
    return x <= 0 ? 0 : x >= 255 ? 255 : (uint8_t)(x + 0.5f);
}

static void unpack_row(const uint8_t *row, uint32_t width, pixel *out)
{
    for (uint32_t x = 0; x < width; x++) out[x] = (pixel){row[3 * x], row[3 * x + 1], row[3 * x + 2], 0};
}

static void resample_row(const pixel *row, const weights *w, uint32_t wanted, uint8_t *out)
{
    for (uint32_t x = 0; x < wanted; x++) {
        const pixel *p = row + w->first[x];
        const float *f = w->weight + (size_t)x * w->taps;
        pixel sum = {0, 0, 0, 0};
        for (uint32_t k = 0; k < w->count[x]; k++) sum += p[k] * f[k];
        for (int c = 0; c < 3; c++) out[3 * x + c] = round_to_byte(sum[c]);
    }
}

/* One row of the result from rows of `values` bytes each. */
static void blend_rows(const uint8_t *rows, size_t values, const float *weight, uint32_t count, float *sum,
                       uint8_t *out)
{
    for (size_t i = 0; i < values; i++) sum[i] = 0.5f;
    for (uint32_t k = 0; k < count; k++) {
        const uint8_t *row = rows + k * values;
        float f = weight[k];
        for (size_t i = 0; i < values; i++) sum[i] += f * (float)row[i];
    }
    for (size_t i = 0; i < values; i++) {
        float x = sum[i] < 0 ? 0 : sum[i] > 255 ? 255 : sum[i];
        out[i] = (uint8_t)(int32_t)x;
    }
}

lk_status lk_resize_rgb(const uint8_t *pixels, uint32_t width, uint32_t height, lk_filter filter,
                        const lk_resize_window *window, uint8_t *out)
{
    if (!width || !height || !window->part_width || !window->part_height || window->part_width > window->width ||
        window->left > window->width - window->part_width || window->part_height > window->height ||
        window->top > window->height - window->part_height)
        return lk_fail(LK_INVALID, "a part of %ux%u does not lie in a picture of %ux%u", window->part_width,
                       window->part_height, window->width, window->height);
    weights across = {0}, down = {0};
    pixel *row = NULL;
    uint8_t *narrow = NULL;
    float *sum = NULL;
    size_t values = (size_t)window->part_width * 3;
    lk_status s;
    LK_TRY(weights_new(filter, width, window->width, window->left, window->part_width, &across));
    LK_TRY(weights_new(filter, height, window->height, window->top, window->part_height, &down));
    uint32_t last = window->part_height - 1, begin = down.first[0], end = down.first[last] + down.count[last];
    row = lk_alloc_aligned(width, sizeof *row);
    narrow = lk_alloc(end - begin, values);
    sum = lk_alloc(values, sizeof *sum);
    if (!row || !narrow || !sum) {
        s = lk_fail_memory("resizing");
        goto done;
    }
    for (uint32_t y = begin; y < end; y++) {
        unpack_row(pixels + (size_t)y * width * 3, width, row);
        resample_row(row, &across, window->part_width, narrow + (y - begin) * values);
    }
    for (uint32_t y = 0; y < window->part_height; y++)
        blend_rows(narrow + (down.first[y] - begin) * values, values, down.weight + (size_t)y * down.taps,
                   down.count[y], sum, out + y * values);
done:
    weights_free(&across);
    weights_free(&down);
    free(row);
    free(narrow);
    free(sum);
    return s;
}
