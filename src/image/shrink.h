/* Making pictures smaller while they are decoded, row by row, as vips_resize does: averages of whole pixels down to
 * between two and four times the size wanted, then Lanczos-3. Memory: as many of the averaged rows as the filter is
 * high, 25 at most. */
#ifndef LK_IMAGE_SHRINK_H
#define LK_IMAGE_SHRINK_H

#include <likeness/image.h>
#include <stddef.h>

typedef struct lk_shrink lk_shrink;

/* width, height, channels: of the rows to come; channels 1, 3 or 4 (straight alpha).
 * out   its pixels, width, height (no larger) and channels are set; borrowed until the end. Grey becomes RGB, what has
 *       no alpha opaque RGBA, and RGBA lies on the background when it is to become RGB.
 * Of the same size, rows come out as they are. NULL: no memory. Freed with lk_shrink_free (NULL allowed). */
lk_shrink *lk_shrink_new(uint32_t width, uint32_t height, uint32_t channels, const uint8_t background[3],
                         const lk_image *out);
/* The next row; the picture is complete after `height` of them, and what comes then is ignored. */
void lk_shrink_row(lk_shrink *s, const uint8_t *row);
void lk_shrink_free(lk_shrink *s);

/* RGBA onto a background, as RGB; to may be where from is. */
void lk_flatten(const uint8_t *from, uint8_t *to, size_t count, const uint8_t background[3]);

#endif
