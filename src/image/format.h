/* Which picture format bytes are, told by the bytes alone. */
#ifndef LK_IMAGE_FORMAT_H
#define LK_IMAGE_FORMAT_H

#include <stddef.h>

typedef enum lk_picture_format {
    LK_PICTURE_UNKNOWN,
    LK_PICTURE_JPEG,
    LK_PICTURE_PNG,
    LK_PICTURE_GIF,
    LK_PICTURE_WEBP,
    LK_PICTURE_TIFF,
    LK_PICTURE_HEIF, /* HEIC and AVIF */
    LK_PICTURE_BMP,
    LK_PICTURE_SVG,
    LK_PICTURE_FORBIDDEN /* known, and not decoded on purpose */
} lk_picture_format;

/* *format_name receives what to call it in a message ("JPEG", "PDF"); a static string. */
lk_picture_format lk_picture_sniff(const void *bytes, size_t size, const char **format_name);

#endif
