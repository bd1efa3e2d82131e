/* Drawings (SVG), rendered with librsvg. Not through libvips' loader: that one scales a drawing without size or viewBox
 * wrongly (small in a corner), rounds its size before scaling, and parses it once for the size and once for the pixels.
 */
#ifndef LK_IMAGE_SVG_H
#define LK_IMAGE_SVG_H

#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lk_drawing {
    uint8_t *rgba; /* owned, malloc'ed; [height][width][4], straight alpha, sRGB */
    uint32_t width, height;
    uint32_t source_width,
        source_height; /* what the drawing says of itself, in CSS pixels (96 to the inch), at least 1 */
} lk_drawing;

/* Loads and starts what drawings need, once; any thread. lk_svg_render does it by itself. LK_UNSUPPORTED when librsvg
 * is missing. */
lk_status lk_svg_start(void);

/* Renders with the longer side exactly max_side; 0 renders at the drawing's own size. A drawing without a size takes
 * that of its viewBox, and without one that of what it draws. Nothing outside the bytes is read: no files, no network,
 * no external entities. LK_CORRUPT, LK_LIMIT (more than max_pixels, 0 = no limit, rendered or in embedded pictures;
 * longer than 32767), LK_UNSUPPORTED (embedded pictures that are not JPEG, PNG, GIF or WebP; librsvg is missing). */
lk_status lk_svg_render(const uint8_t *bytes, size_t size, const char *name, uint32_t max_side, uint64_t max_pixels,
                        lk_drawing *out);

/* After lk_svg_start. Checks the pictures embedded in a drawing (data: URLs), which librsvg would decode without any
 * limit on their pixels: a drawing of 350 bytes can take 3 GB. Statuses as above. */
lk_status lk_svg_check_embedded(const uint8_t *bytes, size_t size, const char *name, uint64_t max_pixels);

#endif
