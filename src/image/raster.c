#include "image/raster.h"

#include "base/error.h"
#include "image/jpeg.h"
#include "image/vips.h"

#include <math.h>

/* shorter: the shorter side, when something is shrunk: libvips would make a picture without pixels of it, and end the
 * program when these are asked for. */
static VipsImage *load(const lk_raster_source *in, double shrink, uint32_t shorter)
{
    VipsImage *image = NULL;
    VipsBlob *blob = vips_blob_new(NULL, in->bytes, in->size); /* NULL: the bytes stay the caller's */
    int failed = -1;
#define COMMON "access", VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_TRUNCATED, NULL
    switch (in->format) {
    case LK_PICTURE_JPEG:
        failed = vips_call("jpegload_buffer", blob, &image, "shrink", (int)lk_jpeg_shrink(shrink, shorter), COMMON);
        break;
    case LK_PICTURE_WEBP:
        failed = vips_call("webpload_buffer", blob, &image, "scale",
                           shrink >= 4 ? fmin(1, fmax(2 / shrink, 1.0 / shorter)) : 1.0, COMMON);
        break;
    case LK_PICTURE_PNG: failed = vips_call("pngload_buffer", blob, &image, COMMON); break;
    case LK_PICTURE_GIF: failed = vips_call("gifload_buffer", blob, &image, COMMON); break;
    case LK_PICTURE_TIFF: failed = vips_call("tiffload_buffer", blob, &image, COMMON); break;
    case LK_PICTURE_HEIF:
        lk_vips_with_heif();
        failed = vips_call("heifload_buffer", blob, &image, COMMON);
        break;
    default: break;
    }
#undef COMMON
    vips_area_unref(VIPS_AREA(blob));
    return failed ? NULL : image;
}

lk_status lk_raster_open(const lk_raster_source *source, lk_raster *out)
{
    *out = (lk_raster){.image = load(source, 1, 1)};
    if (!out->image) return lk_vips_fail(source->name, "decoded", source->format_name);
    out->width = (uint32_t)vips_image_get_width(out->image);
    out->height = (uint32_t)vips_image_get_height(out->image);
    out->orientation = vips_image_get_orientation(out->image);
    int channels = vips_image_get_bands(out->image);
    if (channels > 5) { /* CMYK and alpha is the most that a picture for people has */
        lk_raster_close(out);
        return lk_fail(LK_UNSUPPORTED, "%s: has %d channels, which is not a picture in grey, RGB or CMYK", source->name,
                       channels);
    }
    return LK_OK;
}

lk_status lk_raster_preshrink(const lk_raster_source *source, double shrink, lk_raster *raster)
{
    if ((source->format != LK_PICTURE_JPEG && source->format != LK_PICTURE_WEBP) || shrink < 4) return LK_OK;
    g_object_unref(raster->image);
    raster->image = load(source, shrink, raster->width < raster->height ? raster->width : raster->height);
    return raster->image ? LK_OK : lk_vips_fail(source->name, "decoded", source->format_name);
}

void lk_raster_close(lk_raster *raster)
{
    if (raster->image) g_object_unref(raster->image);
    *raster = (lk_raster){0};
}
