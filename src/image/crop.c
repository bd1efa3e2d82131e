#include "base/error.h"
#include "base/memory.h"
#include <likeness/image.h>

#include <stdlib.h>
#include <string.h>

enum { EVEN = 48 }; /* summed difference of colours that still counts as the same ground */

static void shown(const lk_image *image, uint32_t x, uint32_t y, int out[3])
{
    const uint8_t *p = image->pixels + ((size_t)y * image->width + x) * image->channels;
    for (uint32_t k = 0; k < 3; k++) out[k] = p[image->channels < 3 ? 0 : k];
    for (int k = 0; image->channels == 4 && k < 3; k++) out[k] = (out[k] * p[3] + 255 * (255 - p[3])) / 255;
}

static bool is_ground(const lk_image *image, uint32_t x, uint32_t y, const uint8_t ground[3])
{
    int c[3];
    shown(image, x, y, c);
    return abs(c[0] - ground[0]) + abs(c[1] - ground[1]) + abs(c[2] - ground[2]) <= EVEN;
}

static bool even_row(const lk_image *image, uint32_t y, const uint8_t ground[3])
{
    for (uint32_t x = 0; x < image->width; x++)
        if (!is_ground(image, x, y, ground)) return false;
    return true;
}

static bool even_column(const lk_image *image, uint32_t x, const uint32_t box[4], const uint8_t ground[3])
{
    for (uint32_t y = box[1]; y < box[1] + box[3]; y++)
        if (!is_ground(image, x, y, ground)) return false;
    return true;
}

void lk_image_content(const lk_image *image, uint32_t box[4], uint8_t ground[3])
{
    uint32_t w = image->width, h = image->height;
    const uint32_t corners[4][2] = {{0, 0}, {w - 1, 0}, {0, h - 1}, {w - 1, h - 1}};
    int best = -1;
    for (int k = 0; k < 4; k++) {
        int colour[3], alike = 0;
        uint8_t candidate[3];
        shown(image, corners[k][0], corners[k][1], colour);
        for (int i = 0; i < 3; i++) candidate[i] = (uint8_t)colour[i];
        for (int i = 0; i < 4; i++) alike += is_ground(image, corners[i][0], corners[i][1], candidate);
        if (alike <= best) continue;
        best = alike;
        memcpy(ground, candidate, sizeof candidate);
    }
    box[0] = box[1] = 0;
    box[2] = w;
    box[3] = h;
    while (box[3] && even_row(image, box[1], ground)) box[1]++, box[3]--;
    if (box[3] == 0) { /* nothing but ground */
        box[1] = 0;
        box[3] = h;
        return;
    }
    while (even_row(image, box[1] + box[3] - 1, ground)) box[3]--;
    while (even_column(image, box[0], box, ground)) box[0]++, box[2]--;
    while (even_column(image, box[0] + box[2] - 1, box, ground)) box[2]--;
}

lk_status lk_image_crop(const lk_image *image, uint32_t left, uint32_t top, uint32_t width, uint32_t height,
                        lk_image *out)
{
    lk_image in = *image; /* out may be the same struct */
    *out = (lk_image){0};
    if (width == 0 || height == 0 || left > in.width || width > in.width - left || top > in.height ||
        height > in.height - top)
        return lk_fail(LK_INVALID, "the rectangle %u,%u,%u,%u does not lie inside the picture of %ux%u pixels", left,
                       top, width, height, in.width, in.height);
    size_t row = (size_t)width * in.channels;
    uint8_t *pixels = lk_alloc(height, row);
    if (!pixels) return lk_fail_memory("cut-out");
    for (uint32_t y = 0; y < height; y++)
        memcpy(pixels + y * row, in.pixels + ((size_t)(top + y) * in.width + left) * in.channels, row);
    *out = (lk_image){.pixels = pixels,
                      .width = width,
                      .height = height,
                      .channels = in.channels,
                      .source_width = width,
                      .source_height = height};
    return LK_OK;
}
