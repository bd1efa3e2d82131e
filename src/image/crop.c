#include "base/error.h"
#include "base/memory.h"
#include <likeness/image.h>

#include <string.h>

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
