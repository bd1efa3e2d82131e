/* From a decoded picture in any colour, size and orientation to the bytes that were asked for. */
#ifndef LK_IMAGE_CONVERT_H
#define LK_IMAGE_CONVERT_H

#include <likeness/image.h>
#include <vips/vips.h>

typedef struct lk_conversion {
    const char *name, *format_name; /* for messages */
    lk_image_colour colour;
    const uint8_t *background;
    uint32_t width, height; /* to become, before it is turned */
    int orientation;        /* EXIF, 1 to 8 */
} lk_conversion;

/* Consumes image (also on failure). Fills out's pixels, width, height and channels. LK_CORRUPT (found while decoding),
 * LK_UNSUPPORTED (colours without meaning), LK_NO_MEMORY. */
lk_status lk_convert(VipsImage *image, const lk_conversion *to, lk_image *out);

#endif
