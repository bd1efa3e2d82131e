/* Cutting out and encoding. */
#include "base/error.h"
#include "base/memory.h"
#include "image/vips.h"
#include <likeness/image.h>

#include <stdlib.h>
#include <string.h>

lk_status lk_image_crop(const lk_image *image, uint32_t left, uint32_t top, uint32_t width, uint32_t height, lk_image *out)
{
    *out = (lk_image){0};
    if (width == 0 || height == 0 || left > image->width || width > image->width - left || top > image->height ||
        height > image->height - top)
        return lk_fail(LK_INVALID, "the rectangle %u,%u,%u,%u does not lie inside the picture of %u x %u pixels", left, top,
                       width, height, image->width, image->height);
    size_t pixel = image->channels;
    out->pixels = lk_alloc((size_t)width * height, pixel);
    if (!out->pixels) return lk_fail_memory("cut-out");
    for (uint32_t y = 0; y < height; y++)
        memcpy(out->pixels + (size_t)y * width * pixel,
               image->pixels + ((size_t)(top + y) * image->width + left) * pixel, width * pixel);
    out->width = out->source_width = width;
    out->height = out->source_height = height;
    out->channels = image->channels;
    return LK_OK;
}

lk_status lk_image_encode(const lk_image *image, lk_image_format format, int quality, uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    lk_status s = lk_vips_start();
    if (s != LK_OK) return s;
    if (!image->pixels || quality < 1 || quality > 100)
        return lk_fail(LK_INVALID, "a picture and a quality from 1 to 100 are needed to encode");
    VipsImage *in = vips_image_new_from_memory(image->pixels, (size_t)image->width * image->height * image->channels,
                                               (int)image->width, (int)image->height, (int)image->channels,
                                               VIPS_FORMAT_UCHAR);
    VipsImage *named = NULL;
    void *buffer = NULL;
    int failed = !in || vips_copy(in, &named, "interpretation",
                                  image->channels == 1 ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB, NULL);
    if (!failed) {
        switch (format) {
        case LK_FORMAT_JPEG: failed = vips_jpegsave_buffer(named, &buffer, size, "Q", quality, NULL); break;
        case LK_FORMAT_PNG: failed = vips_pngsave_buffer(named, &buffer, size, NULL); break;
        case LK_FORMAT_WEBP: failed = vips_webpsave_buffer(named, &buffer, size, "Q", quality, NULL); break;
        }
    }
    if (!failed && buffer) {
        *bytes = lk_alloc(*size, 1);
        if (*bytes)
            memcpy(*bytes, buffer, *size);
        else
            s = lk_fail_memory("encoded picture");
    } else {
        s = lk_vips_fail(LK_INVALID, "encoding");
    }
    g_free(buffer);
    if (named) g_object_unref(named);
    if (in) g_object_unref(in);
    return s;
}
