/* Opening pictures made of pixels through libvips' loaders. */
#ifndef LK_IMAGE_RASTER_H
#define LK_IMAGE_RASTER_H

#include "image/format.h"

#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>
#include <vips/vips.h>

typedef struct lk_raster_source {
    const void *bytes; /* borrowed, also by the opened picture */
    size_t size;
    const char *name, *format_name;
    lk_picture_format format; /* JPEG, PNG, GIF, WEBP, TIFF or HEIF */
} lk_raster_source;

typedef struct lk_raster {
    VipsImage *image;       /* first page; pixels are decoded when somebody asks for them, from top to bottom */
    uint32_t width, height; /* of the picture in the file as it is stored; image may be smaller */
    int orientation;        /* EXIF, 1 to 8: how to turn it upright */
} lk_raster;

/* Reads the header and no pixels. LK_CORRUPT, LK_UNSUPPORTED. */
lk_status lk_raster_open(const lk_raster_source *source, lk_raster *out);

/* Says that the picture will be made `shrink` times smaller. Where the format can, raster->image is opened again so
 * that it is decoded smaller, but at least twice as large as that. On failure the raster is closed. */
lk_status lk_raster_preshrink(const lk_raster_source *source, double shrink, lk_raster *raster);

void lk_raster_close(lk_raster *raster);

#endif
