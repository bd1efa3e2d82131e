/* The commonest pictures, which need no libvips: PNG and JPEG of 8 bits in sRGB, grey or not, that stand upright. To
 * load libvips' hundred libraries takes longer than to decode one of them. */
#ifndef LK_IMAGE_PLAIN_H
#define LK_IMAGE_PLAIN_H

#include <stddef.h>
#include <stdint.h>

typedef struct lk_plain {
    uint32_t width, height;
    uint32_t channels; /* of its rows when decoded: 1 grey, 3 RGB, 4 RGBA (straight alpha; grey with alpha too) */
} lk_plain;

typedef struct lk_plain_source {
    const uint8_t *bytes; /* borrowed */
    size_t size;
    const char *name; /* for messages */
} lk_plain_source;

#endif
