/* PNG through libpng alone, with the pixels that libvips gives (it ignores gamma and chromaticities too). */
#ifndef LK_IMAGE_PNG_H
#define LK_IMAGE_PNG_H

#include "image/plain.h"
#include "image/shrink.h"

#include <likeness/status.h>
#include <stdbool.h>

/* Whether the chunks before the pixels are those of a plain picture: not of 16 bits, without ICC profile and Exif, and
 * in order. Needs no library. False also where the bytes end first: then libvips says what is wrong. */
bool lk_png_plain(const uint8_t *bytes, size_t size, lk_plain *out);

/* Loads libpng; lk_png_decode does it by itself. LK_UNSUPPORTED when it is missing. */
lk_status lk_png_start(void);

/* Hands all rows of a plain picture to `to`. LK_CORRUPT, LK_NO_MEMORY, LK_UNSUPPORTED. An interlaced one is in memory
 * as a whole. */
lk_status lk_png_decode(const lk_plain_source *source, const lk_plain *header, lk_shrink *to);

#endif
