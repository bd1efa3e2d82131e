#include "embed/local.h"

#include "base/error.h"
#include "base/memory.h"
#include "embed/sift.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER = 6,      /* count, width, height: two bytes each */
    PLACE = 6,       /* x, y: two bytes each, sixteenths of a pixel; scale: eighths of a doubling; angle: of 256 */
    PER_PIXEL = 16,  /* places a pixel */
    PER_DOUBLING = 8 /* scales a doubling, from 1/4 pixel on */
};
#define PER_UNIT 50.0f /* codes a unit of a component */
#define TURN 6.283185307179586

void lk_local_free(lk_local *local)
{
    free(local->points);
    free(local->codes);
    *local = (lk_local){0};
}

static void put16(uint8_t *at, double value)
{
    uint16_t v = (uint16_t)fmin(fmax(value + 0.5, 0), UINT16_MAX);
    memcpy(at, &v, sizeof v);
}

static uint32_t get16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static void pack_point(const lk_sift_place *p, uint8_t *at)
{
    double angle = p->angle / TURN;
    put16(at, (double)p->x * PER_PIXEL);
    put16(at + 2, (double)p->y * PER_PIXEL);
    at[4] = (uint8_t)fmin(fmax(log2((double)p->scale * 4) * PER_DOUBLING + 0.5, 0), UINT8_MAX);
    at[5] = (uint8_t)((int)((angle - floor(angle)) * 256 + 0.5) & 255);
}

static lk_local_point unpack_point(const uint8_t *at)
{
    return (lk_local_point){(float)get16(at) / PER_PIXEL, (float)get16(at + 2) / PER_PIXEL,
                            exp2f((float)at[4] / PER_DOUBLING) / 4, (float)(at[5] * (TURN / 256))};
}

static void pack_descriptor(const float *d, uint8_t *code)
{
    for (int b = 0; b < LK_LOCAL_CODE; b++) {
        unsigned low = (unsigned)fminf(d[2 * b] * PER_UNIT + 0.5f, 15),
                 high = (unsigned)fminf(d[2 * b + 1] * PER_UNIT + 0.5f, 15);
        code[b] = (uint8_t)(low | high << 4);
    }
}

/* ---- bytes: a header, the places of all, the descriptors of all ---- */

static lk_status allocate(lk_local *local)
{
    local->points = lk_alloc(local->count, sizeof *local->points);
    local->codes = lk_alloc(local->count, LK_LOCAL_CODE);
    if (local->points && local->codes) return LK_OK;
    lk_local_free(local);
    return lk_fail_memory("local features");
}

lk_status lk_local_pack(const lk_local *local, uint8_t **bytes, size_t *size)
{
    *size = HEADER + (size_t)local->count * (PLACE + LK_LOCAL_CODE);
    uint8_t *out = *bytes = lk_alloc(*size, 1);
    if (!out) return lk_fail_memory("local features");
    put16(out, local->count);
    put16(out + 2, local->width);
    put16(out + 4, local->height);
    for (uint32_t i = 0; i < local->count; i++) {
        const lk_local_point *p = &local->points[i];
        pack_point(&(lk_sift_place){p->x, p->y, p->scale, p->angle}, out + HEADER + (size_t)i * PLACE);
    }
    memcpy(out + HEADER + (size_t)local->count * PLACE, local->codes, (size_t)local->count * LK_LOCAL_CODE);
    return LK_OK;
}

lk_status lk_local_unpack(const uint8_t *bytes, size_t size, lk_local *out)
{
    *out = (lk_local){0};
    if (size < HEADER || size != HEADER + (size_t)get16(bytes) * (PLACE + LK_LOCAL_CODE))
        return lk_fail(LK_CORRUPT, "local features of %zu bytes are none", size);
    *out = (lk_local){.count = get16(bytes), .width = get16(bytes + 2), .height = get16(bytes + 4)};
    lk_status s = allocate(out);
    if (s != LK_OK) return s;
    for (uint32_t i = 0; i < out->count; i++) out->points[i] = unpack_point(bytes + HEADER + (size_t)i * PLACE);
    memcpy(out->codes, bytes + HEADER + (size_t)out->count * PLACE, (size_t)out->count * LK_LOCAL_CODE);
    return LK_OK;
}

/* ---- describing ---- */

lk_status lk_local_describe(const lk_image *image, lk_local *out)
{
    lk_sift sift = {0};
    lk_status s;
    *out = (lk_local){0};
    LK_TRY(lk_sift_describe_picture(image, &(lk_sift_options){.max_keypoints = LK_LOCAL_MOST}, &sift));
    *out = (lk_local){.count = (uint32_t)sift.keypoints, .width = image->width, .height = image->height};
    LK_TRY(allocate(out));
    for (uint32_t i = 0; i < out->count; i++) {
        uint8_t place[PLACE];
        pack_point(&sift.places[i], place);
        out->points[i] = unpack_point(place);
        pack_descriptor(sift.descriptors + (size_t)i * LK_SIFT_DIM, out->codes + (size_t)i * LK_LOCAL_CODE);
    }
done:
    lk_sift_free(&sift);
    return s;
}

lk_status lk_local_describe_file(const char *path, lk_local *out)
{
    lk_image_options options = lk_image_default_options();
    options.max_side = LK_LOCAL_SIDE;
    options.colour = LK_COLOUR_GREY;
    lk_image image = {0};
    *out = (lk_local){0};
    lk_status s = lk_image_load(path, &options, &image);
    if (s == LK_OK) s = lk_local_describe(&image, out);
    lk_image_free(&image);
    return s;
}
