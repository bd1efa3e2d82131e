/* Resampling of 8-bit RGB with a filter that widens as the picture shrinks (antialiased), as Pillow and torchvision do.
 */
#ifndef LK_MODELS_RESIZE_H
#define LK_MODELS_RESIZE_H

#include <likeness/status.h>
#include <stdint.h>

typedef enum lk_filter {
    LK_FILTER_NEAREST,
    LK_FILTER_BOX,
    LK_FILTER_BILINEAR,
    LK_FILTER_BICUBIC,
    LK_FILTER_LANCZOS
} lk_filter;

/* A part of a picture that was resized to width x height. */
typedef struct lk_resize_window {
    uint32_t width, height; /* of the whole resized picture */
    uint32_t left, top;     /* of the part */
    uint32_t part_width, part_height;
} lk_resize_window;

/* pixels [height][width][3] -> out [part_height][part_width][3]. Bicubic has a = -0.5; Lanczos 3 lobes; nearest takes
 * the pixel under the centre. Columns first, then rows, rounded to 8 bits in between and at the end. Only what the part
 * needs is computed. LK_INVALID (empty sizes, part outside), LK_NO_MEMORY. */
lk_status lk_resize_rgb(const uint8_t *pixels, uint32_t width, uint32_t height, lk_filter filter,
                        const lk_resize_window *window, uint8_t *out);

#endif
