/* Decoding through libvips. Order matters for safety: sniff the bytes, open the header with the loader of exactly that
 * format, check the size, and only then let pixels be decoded. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "image/bmp.h"
#include "image/format.h"
#include "image/vips.h"
#include <likeness/image.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

lk_image_options lk_image_default_options(void)
{
    return (lk_image_options){.colour = LK_COLOUR_RGB,
                              .background = {255, 255, 255},
                              .max_bytes = (uint64_t)64 << 20,
                              .max_pixels = 100000000};
}

void lk_image_free(lk_image *image)
{
    if (!image) return;
    free(image->pixels);
    *image = (lk_image){0};
}

static lk_status check_pixels(const char *name, double width, double height, uint64_t limit)
{
    if (limit == 0 || width * height <= (double)limit) return LK_OK;
    return lk_fail(LK_LIMIT, "%s: %.0f x %.0f pixels are over the limit of %.1f megapixels: shrink the picture or raise the limit",
                   name, width, height, (double)limit / 1e6);
}

/* The header alone; pixels are decoded when somebody asks for them. */
static VipsImage *open_header(lk_picture_format format, const void *bytes, size_t size)
{
    static const char *const loaders[] = {[LK_PICTURE_JPEG] = "jpegload_buffer", [LK_PICTURE_PNG] = "pngload_buffer",
                                          [LK_PICTURE_GIF] = "gifload_buffer",   [LK_PICTURE_WEBP] = "webpload_buffer",
                                          [LK_PICTURE_TIFF] = "tiffload_buffer", [LK_PICTURE_SVG] = "svgload_buffer",
                                          [LK_PICTURE_HEIF] = "heifload_buffer"};
    VipsImage *image = NULL;
    VipsBlob *blob = vips_blob_new(NULL, bytes, size); /* NULL: the bytes stay the caller's */
    int failed = vips_call(loaders[format], blob, &image, "access", VIPS_ACCESS_SEQUENTIAL, NULL);
    vips_area_unref(VIPS_AREA(blob));
    return failed ? NULL : image;
}

/* An opened picture: upright size in the file, and how far its longer side goes. */
typedef struct source {
    const void *bytes;
    size_t size;
    const char *name;
    lk_picture_format format;
    uint32_t width, height;
    bool managed; /* carries an ICC profile, or colours (CMYK, Lab) that only a profile can turn into sRGB */
} source;

static lk_status read_header(source *in, const lk_image_options *options)
{
    lk_status s;
    if (in->format == LK_PICTURE_BMP) {
        s = lk_bmp_size(in->bytes, in->size, in->name, &in->width, &in->height);
        return s == LK_OK ? check_pixels(in->name, in->width, in->height, options->max_pixels) : s;
    }
    VipsImage *header = open_header(in->format, in->bytes, in->size);
    if (!header) return lk_vips_fail(LK_CORRUPT, in->name);
    bool turned = vips_image_get_orientation(header) >= 5;
    int width = vips_image_get_width(header), height = vips_image_get_page_height(header);
    VipsInterpretation colours = vips_image_guess_interpretation(header);
    in->managed = vips_image_get_typeof(header, VIPS_META_ICC_NAME) != 0 || colours == VIPS_INTERPRETATION_CMYK;
    g_object_unref(header);
    in->width = (uint32_t)(turned ? height : width);
    in->height = (uint32_t)(turned ? width : height);
    /* A drawing has no pixels of its own: what counts is the size at which it is rendered. */
    double scale = 1;
    if (in->format == LK_PICTURE_SVG && options->max_side) scale = (double)options->max_side / fmax(width, height);
    return check_pixels(in->name, ceil(width * scale), ceil(height * scale), options->max_pixels);
}

/* Upright, in sRGB, at most max_side. */
static lk_status decode(const source *in, const lk_image_options *options, VipsImage **out)
{
    int side = options->max_side ? (int)options->max_side : VIPS_MAX_COORD;
    VipsSize size = in->format == LK_PICTURE_SVG && options->max_side ? VIPS_SIZE_BOTH : VIPS_SIZE_DOWN;
    int failed;
    if (in->format == LK_PICTURE_BMP) {
        uint8_t *rgb;
        lk_status s = lk_bmp_decode(in->bytes, in->size, in->name, &rgb);
        if (s != LK_OK) return s;
        VipsImage *whole = vips_image_new_from_memory_copy(rgb, (size_t)in->width * in->height * 3, (int)in->width,
                                                           (int)in->height, 3, VIPS_FORMAT_UCHAR);
        free(rgb);
        failed = !whole || vips_thumbnail_image(whole, out, side, "height", side, "size", size, NULL);
        if (whole) g_object_unref(whole);
    } else if (in->managed) {
        failed = vips_thumbnail_buffer((void *)in->bytes, in->size, out, side, "height", side, "size", size,
                                       "export_profile", "srgb", "fail_on", VIPS_FAIL_ON_TRUNCATED, NULL);
    } else { /* building a colour transform costs more than decoding a small picture: only where there is a profile */
        failed = vips_thumbnail_buffer((void *)in->bytes, in->size, out, side, "height", side, "size", size, "fail_on",
                                       VIPS_FAIL_ON_TRUNCATED, NULL);
    }
    return failed ? lk_vips_fail(LK_CORRUPT, in->name) : LK_OK;
}

/* Runs one more step of the chain; frees the step before. */
#define STEP(call)                                                                                                     \
    do {                                                                                                               \
        VipsImage *next = NULL;                                                                                        \
        if (call) {                                                                                                    \
            s = lk_vips_fail(LK_CORRUPT, in->name);                                                                    \
            goto done;                                                                                                 \
        }                                                                                                              \
        g_object_unref(image);                                                                                         \
        image = next;                                                                                                  \
    } while (0)

static lk_status convert(const source *in, VipsImage *image, const lk_image_options *options, lk_image *out)
{
    lk_status s = LK_OK;
    void *pixels = NULL;
    bool grey = options->colour == LK_COLOUR_GREY, keep_alpha = options->colour == LK_COLOUR_RGBA;
    if (vips_image_hasalpha(image) && !keep_alpha) {
        const uint8_t *b = options->background;
        double colour[3] = {b[0], b[1], b[2]};
        if (vips_image_get_bands(image) < 4) STEP(vips_colourspace(image, &next, VIPS_INTERPRETATION_sRGB, NULL));
        VipsArrayDouble *background = vips_array_double_new(colour, 3);
        int failed;
        VipsImage *flat = NULL;
        failed = vips_flatten(image, &flat, "background", background, NULL);
        vips_area_unref(VIPS_AREA(background));
        if (failed) {
            s = lk_vips_fail(LK_CORRUPT, in->name);
            goto done;
        }
        g_object_unref(image);
        image = flat;
    }
    STEP(vips_colourspace(image, &next, grey ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB, NULL));
    STEP(vips_cast(image, &next, VIPS_FORMAT_UCHAR, NULL));
    if (keep_alpha && !vips_image_hasalpha(image)) STEP(vips_addalpha(image, &next, NULL));
    int bands = grey ? 1 : keep_alpha ? 4 : 3;
    if (vips_image_get_bands(image) > bands) STEP(vips_extract_band(image, &next, 0, "n", bands, NULL));
    if (vips_image_get_bands(image) != bands) {
        s = lk_fail(LK_UNSUPPORTED, "%s: has %d channels, which cannot be read as colour", in->name,
                    vips_image_get_bands(image));
        goto done;
    }
    size_t size;
    pixels = vips_image_write_to_memory(image, &size); /* here everything above really runs */
    if (!pixels) {
        s = lk_vips_fail(LK_CORRUPT, in->name);
        goto done;
    }
    *out = (lk_image){.width = (uint32_t)vips_image_get_width(image),
                      .height = (uint32_t)vips_image_get_height(image),
                      .channels = (uint32_t)bands,
                      .source_width = in->width,
                      .source_height = in->height};
    out->pixels = lk_alloc(size, 1); /* g_malloc's memory is not ours to hand to free() */
    if (!out->pixels) {
        s = lk_fail_memory(in->name);
        goto done;
    }
    memcpy(out->pixels, pixels, size);
done:
    g_free(pixels);
    g_object_unref(image);
    if (s != LK_OK) *out = (lk_image){0};
    return s;
}

lk_status lk_image_load_memory(const void *bytes, size_t size, const char *name, const lk_image_options *options,
                               lk_image *out)
{
    *out = (lk_image){0};
    lk_image_options defaults = lk_image_default_options();
    if (!options) options = &defaults;
    lk_status s = lk_vips_start();
    if (s != LK_OK) return s;
    if (size == 0) return lk_fail(LK_CORRUPT, "%s: the file is empty", name);
    if (options->max_bytes && size > options->max_bytes)
        return lk_fail(LK_LIMIT, "%s: %zu bytes are over the limit of %llu: shrink the picture or raise the limit", name, size,
                       (unsigned long long)options->max_bytes);
    source in = {.bytes = bytes, .size = size, .name = name};
    const char *format_name;
    in.format = lk_picture_sniff(bytes, size, &format_name);
    if (in.format == LK_PICTURE_UNKNOWN)
        return lk_fail(LK_CORRUPT, "%s: is not a picture (JPEG, PNG, WebP, GIF, TIFF, BMP, SVG, AVIF and HEIF are read)", name);
    if (in.format == LK_PICTURE_FORBIDDEN)
        return lk_fail(LK_UNSUPPORTED, "%s: a %s file is not read: convert it to PNG or JPEG", name, format_name);
    s = read_header(&in, options);
    if (s != LK_OK) return s;
    VipsImage *image = NULL;
    s = decode(&in, options, &image);
    if (s != LK_OK) return s;
    return convert(&in, image, options, out);
}

lk_status lk_image_load(const char *path, const lk_image_options *options, lk_image *out)
{
    *out = (lk_image){0};
    lk_image_options defaults = lk_image_default_options();
    if (!options) options = &defaults;
    uint8_t *bytes;
    size_t size;
    lk_status s = lk_file_read(path, options->max_bytes, &bytes, &size);
    if (s != LK_OK) return s;
    s = lk_image_load_memory(bytes, size, path, options, out);
    free(bytes);
    return s;
}
