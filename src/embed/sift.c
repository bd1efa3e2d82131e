#include "embed/sift.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <vl/dsift.h>
#include <vl/imopv.h>
#include <vl/sift.h>

enum {
    SMALLEST = 16,       /* pictures are enlarged to this side: below it the scale space has no room */
    MARGIN = 16,         /* pixels of background around the content, so that shapes at its edge have both their sides */
    BACKGROUND_STEP = 24 /* grey levels that set content off from the background */
};
#define GRID_CONTRAST                                                                                                  \
    0.005f        /* patches below this gradient norm (of pictures in [0, 1]) are empty: VLFeat's own threshold */
#define PEAK 2.0  /* of 255: weaker extrema are noise */
#define EDGE 10.0 /* Lowe's ratio of principal curvatures */
static const int grid_bins[] = {4, 8, 12}; /* pixels per histogram bin: patches are four bins wide */

void lk_root_sift(float d[LK_SIFT_DIM])
{
    float sum = 0;
    for (int i = 0; i < LK_SIFT_DIM; i++)
        sum += d[i] = d[i] > 0 ? d[i] : 0; /* VLFeat rounds to -0 and, at no gradient, NaN */
    if (!(sum > 0)) return;
    for (int i = 0; i < LK_SIFT_DIM; i++) d[i] = sqrtf(d[i] / sum);
}

void lk_sift_free(lk_sift *sift)
{
    free(sift->descriptors);
    free(sift->places);
    *sift = (lk_sift){0};
}

/* ---- canvases ---- */

typedef struct canvas {
    float *pixels;
    int width, height;
} canvas;

/* Resamples the rectangle of a grey picture to width x height by area averages (or the nearest pixel when enlarging),
 * with a margin filled with `background`. Values are divided by `scale`. */
static lk_status make_canvas(const lk_image *grey, const uint32_t box[4], int width, int height, int margin,
                             float background, float scale, canvas *out)
{
    *out = (canvas){.width = width + 2 * margin, .height = height + 2 * margin};
    out->pixels = lk_alloc((size_t)out->width * (size_t)out->height, sizeof(float));
    if (!out->pixels) return lk_fail_memory("picture");
    for (size_t i = 0; i < (size_t)out->width * (size_t)out->height; i++) out->pixels[i] = background / scale;
    double step_x = (double)box[2] / width, step_y = (double)box[3] / height;
    for (int y = 0; y < height; y++) {
        double top = box[1] + y * step_y, bottom = top + step_y;
        for (int x = 0; x < width; x++) {
            double left = box[0] + x * step_x, right = left + step_x, sum = 0, weight = 0;
            for (uint32_t v = (uint32_t)top; v < bottom && v < box[1] + box[3]; v++) {
                double covered_y = fmin(bottom, v + 1.0) - fmax(top, v);
                for (uint32_t u = (uint32_t)left; u < right && u < box[0] + box[2]; u++) {
                    double covered = covered_y * (fmin(right, u + 1.0) - fmax(left, u));
                    sum += covered * grey->pixels[(size_t)v * grey->width + u];
                    weight += covered;
                }
            }
            float value = weight > 0 ? (float)(sum / weight) : background;
            out->pixels[(size_t)(y + margin) * (size_t)out->width + (size_t)(x + margin)] = value / scale;
        }
    }
    return LK_OK;
}

/* The rectangle {left, top, width, height} that differs from the background, which is the median of the picture's rim;
 * the whole picture when nothing differs. Drawings of one thing come with margins of all widths: this makes them alike.
 */
static float find_content(const lk_image *grey, uint32_t box[4])
{
    uint32_t w = grey->width, h = grey->height, histogram[256] = {0}, rim = 0, seen = 0;
    int background = 255;
    for (uint32_t y = 0; y < h; y++) {
        for (uint32_t x = 0; x < w; x += y == 0 || y == h - 1 || w == 1 ? 1 : w - 1) {
            histogram[grey->pixels[(size_t)y * w + x]]++;
            rim++;
        }
    }
    for (int i = 0; i < 256; i++) {
        seen += histogram[i];
        if (2 * seen >= rim) {
            background = i;
            break;
        }
    }
    uint32_t left = w, right = 0, top = h, bottom = 0;
    for (uint32_t y = 0; y < h; y++) {
        for (uint32_t x = 0; x < w; x++) {
            if (abs(grey->pixels[(size_t)y * w + x] - background) < BACKGROUND_STEP) continue;
            if (x < left) left = x;
            if (x >= right) right = x + 1;
            if (y < top) top = y;
            if (y >= bottom) bottom = y + 1;
        }
    }
    if (left >= right) left = top = 0, right = w, bottom = h;
    box[0] = left;
    box[1] = top;
    box[2] = right - left;
    box[3] = bottom - top;
    return (float)background;
}

/* ---- collecting ---- */

typedef struct found {
    float descriptor[LK_SIFT_DIM];
    lk_sift_place place;
    float strength;
} found;

typedef struct collector {
    found *items;
    size_t count, capacity;
} collector;

static found *collect(collector *all)
{
    if (!lk_grow((void **)&all->items, &all->capacity, all->count + 1, sizeof *all->items)) return NULL;
    return &all->items[all->count++];
}

static int stronger(const void *a, const void *b)
{
    const found *x = a, *y = b;
    if (x->strength != y->strength) return x->strength > y->strength ? -1 : 1;
    if (x->place.y != y->place.y) return x->place.y < y->place.y ? -1 : 1; /* a fixed order, so that runs agree */
    if (x->place.x != y->place.x) return x->place.x < y->place.x ? -1 : 1;
    return (x->place.angle > y->place.angle) - (x->place.angle < y->place.angle);
}

static lk_status find_keypoints(const lk_image *grey, size_t most, collector *all)
{
    uint32_t longer = grey->width > grey->height ? grey->width : grey->height;
    uint32_t shorter = grey->width < grey->height ? grey->width : grey->height,
             whole[4] = {0, 0, grey->width, grey->height};
    double grow = shorter < SMALLEST ? (double)SMALLEST / shorter : 1;
    if (longer * grow > 4096) return LK_OK; /* a line: it has no corners to find */
    canvas c;
    lk_status s = make_canvas(grey, whole, (int)(grey->width * grow), (int)(grey->height * grow), 0, 255, 1, &c);
    if (s != LK_OK) return s;
    VlSiftFilt *filter = vl_sift_new(c.width, c.height, -1, 3, 0);
    if (!filter) {
        free(c.pixels);
        return lk_fail_memory("SIFT");
    }
    vl_sift_set_peak_thresh(filter, PEAK);
    vl_sift_set_edge_thresh(filter, EDGE);
    int more = vl_sift_process_first_octave(filter, c.pixels);
    for (; s == LK_OK && more == VL_ERR_OK; more = vl_sift_process_next_octave(filter)) {
        vl_sift_detect(filter);
        const VlSiftKeypoint *points = vl_sift_get_keypoints(filter);
        for (int i = 0; s == LK_OK && i < vl_sift_get_nkeypoints(filter); i++) {
            const VlSiftKeypoint *k = &points[i];
            double angles[4];
            int n = vl_sift_calc_keypoint_orientations(filter, angles, k);
            /* The response of the scale space at the keypoint; VLFeat does not keep it with the point. */
            vl_size octave_width = (vl_size)vl_sift_get_octave_width(filter),
                    octave_height = (vl_size)vl_sift_get_octave_height(filter);
            float strength = fabsf(filter->dog[octave_width * octave_height * (vl_size)(k->is - filter->s_min) +
                                               (vl_size)k->iy * octave_width + (vl_size)k->ix]);
            for (int a = 0; a < n; a++) {
                found *item = collect(all);
                if (!item) {
                    s = lk_fail_memory("SIFT");
                    break;
                }
                /* At the rim of the scale space VLFeat returns without writing anything. */
                memset(item->descriptor, 0, sizeof item->descriptor);
                vl_sift_calc_keypoint_descriptor(filter, item->descriptor, k, angles[a]);
                item->place = (lk_sift_place){(float)(k->x / grow), (float)(k->y / grow), (float)(k->sigma / grow),
                                              (float)angles[a]};
                item->strength = strength;
            }
        }
    }
    vl_sift_delete(filter);
    free(c.pixels);
    if (all->count > 1) qsort(all->items, all->count, sizeof *all->items, stronger);
    if (all->count > most) all->count = most;
    return s;
}

static lk_status lay_grid(const lk_image *grey, const lk_sift_options *options, collector *all)
{
    uint32_t box[4];
    float background = find_content(grey, box);
    double longer = box[2] > box[3] ? box[2] : box[3], scale = options->grid_side / longer;
    int width = (int)(box[2] * scale + 0.5), height = (int)(box[3] * scale + 0.5);
    if (width < 1) width = 1;
    if (height < 1) height = 1;
    canvas c;
    lk_status s = make_canvas(grey, box, width, height, MARGIN, background, 255, &c);
    if (s != LK_OK) return s;
    float *smooth = lk_alloc((size_t)c.width * (size_t)c.height, sizeof *smooth);
    if (!smooth) s = lk_fail_memory("SIFT");
    for (size_t b = 0; s == LK_OK && b < sizeof grid_bins / sizeof *grid_bins; b++) {
        int bin = grid_bins[b];
        if (c.width < 4 * bin || c.height < 4 * bin) continue;
        /* The blur that a keypoint of this size would have been described under (3 pixels of a bin per sigma). */
        double sigma = sqrt(bin * bin / 9.0 - 0.25);
        vl_imsmooth_f(smooth, (vl_size)c.width, c.pixels, (vl_size)c.width, (vl_size)c.height, (vl_size)c.width, sigma,
                      sigma);
        VlDsiftFilter *filter = vl_dsift_new_basic(c.width, c.height, (int)options->grid_step, bin);
        if (!filter) {
            s = lk_fail_memory("SIFT");
            break;
        }
        vl_dsift_set_flat_window(filter, VL_TRUE);
        vl_dsift_process(filter, smooth);
        const float *descriptors = vl_dsift_get_descriptors(filter);
        const VlDsiftKeypoint *points = vl_dsift_get_keypoints(filter);
        for (int i = 0; i < vl_dsift_get_keypoint_num(filter); i++) {
            if (points[i].norm < GRID_CONTRAST) continue;
            found *item = collect(all);
            if (!item) {
                s = lk_fail_memory("SIFT");
                break;
            }
            memcpy(item->descriptor, descriptors + (size_t)i * LK_SIFT_DIM, sizeof item->descriptor);
        }
        vl_dsift_delete(filter);
    }
    free(smooth);
    free(c.pixels);
    return s;
}

lk_status lk_sift_describe(const lk_image *grey, const lk_sift_options *options, lk_sift *out)
{
    *out = (lk_sift){0};
    if (!grey->pixels || grey->channels != 1)
        return lk_fail(LK_INVALID, "SIFT wants a grey picture, not one of %u channels", grey->channels);
    collector all = {0};
    lk_status s = LK_OK;
    if (options->max_keypoints) LK_TRY(find_keypoints(grey, options->max_keypoints, &all));
    out->keypoints = all.count;
    if (options->grid_side) LK_TRY(lay_grid(grey, options, &all));
    out->count = all.count;
    out->descriptors = lk_alloc(all.count, sizeof all.items->descriptor);
    out->places = lk_alloc(out->keypoints, sizeof *out->places);
    if (!out->descriptors || !out->places) {
        s = lk_fail_memory("SIFT");
        goto done;
    }
    for (size_t i = 0; i < all.count; i++) {
        memcpy(out->descriptors + i * LK_SIFT_DIM, all.items[i].descriptor, sizeof all.items[i].descriptor);
        lk_root_sift(out->descriptors + i * LK_SIFT_DIM);
        if (i < out->keypoints) out->places[i] = all.items[i].place;
    }
done:
    free(all.items);
    if (s != LK_OK) lk_sift_free(out);
    return s;
}

lk_status lk_sift_describe_picture(const lk_image *in, const lk_sift_options *options, lk_sift *out)
{
    *out = (lk_sift){0};
    if (in->channels == 1) return lk_sift_describe(in, options, out);
    size_t pixels = (size_t)in->width * in->height, step = in->channels;
    lk_image grey = {.pixels = lk_alloc(pixels, 1), .width = in->width, .height = in->height, .channels = 1};
    if (!grey.pixels) return lk_fail_memory("picture");
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *p = in->pixels + i * step;
        double luma = 0.2126 * p[0] + 0.7152 * p[1] + 0.0722 * p[2];
        if (step == 4) luma = 255 + (luma - 255) * p[3] / 255;
        grey.pixels[i] = (uint8_t)(luma + 0.5);
    }
    lk_status s = lk_sift_describe(&grey, options, out);
    lk_image_free(&grey);
    return s;
}
