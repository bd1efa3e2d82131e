#include "base/error.h"
#include "base/memory.h"
#include "image/vips.h"
#include <likeness/image.h>

#include <string.h>

/* The picture's pixels, borrowed, as libvips sees them. NULL on failure. */
static VipsImage *wrap(const lk_image *image)
{
    VipsImage *whole =
        vips_image_new_from_memory(image->pixels, (size_t)image->width * image->height * image->channels,
                                   (int)image->width, (int)image->height, (int)image->channels, VIPS_FORMAT_UCHAR);
    VipsImage *named = NULL;
    if (!whole) return NULL;
    VipsInterpretation is = image->channels == 1 ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB;
    vips_copy(whole, &named, "interpretation", is, NULL);
    g_object_unref(whole);
    return named;
}

static int save(VipsImage *image, lk_image_format format, int quality, void **buffer, size_t *size)
{
    if (format == LK_FORMAT_PNG) return vips_pngsave_buffer(image, buffer, size, "strip", TRUE, NULL);
    if (format == LK_FORMAT_WEBP) return vips_webpsave_buffer(image, buffer, size, "Q", quality, "strip", TRUE, NULL);
    /* JPEG has no alpha: white shows through, as when decoding. */
    double white = 255;
    VipsArrayDouble *background = vips_array_double_new(&white, 1);
    int failed = vips_jpegsave_buffer(image, buffer, size, "Q", quality, "strip", TRUE, "background", background, NULL);
    vips_area_unref(VIPS_AREA(background));
    return failed;
}

lk_status lk_image_encode(const lk_image *image, lk_image_format format, int quality, uint8_t **bytes, size_t *size)
{
    static const char *const names[] = {"JPEG", "PNG", "WebP"};
    *bytes = NULL;
    *size = 0;
    lk_status s = lk_vips_start();
    if (s != LK_OK) return s;
    bool drawn = image->pixels && image->width && image->height;
    if (!drawn || (image->channels != 1 && image->channels != 3 && image->channels != 4))
        return lk_fail(LK_INVALID, "an empty picture, or one of %u channels, cannot be encoded", image->channels);
    if (format > LK_FORMAT_WEBP || (format != LK_FORMAT_PNG && (quality < 1 || quality > 100)))
        return lk_fail(LK_INVALID, "pictures cannot be encoded with format %d and quality %d (1 to 100)", (int)format,
                       quality);
    void *buffer = NULL;
    size_t length = 0;
    VipsImage *in = wrap(image);
    if (!in || save(in, format, quality, &buffer, &length) != 0) {
        s = lk_vips_fail("the picture", "encoded", names[format]);
        goto done;
    }
    *bytes = lk_alloc(length, 1); /* what GLib allocates is not the caller's to free() */
    if (!*bytes) {
        s = lk_fail_memory("encoded picture");
        goto done;
    }
    memcpy(*bytes, buffer, length);
    *size = length;
done:
    g_free(buffer);
    if (in) g_object_unref(in);
    return s;
}
