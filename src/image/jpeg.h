/* JPEG through libjpeg alone, with the pixels that libvips gives. */
#ifndef LK_IMAGE_JPEG_H
#define LK_IMAGE_JPEG_H

#include "image/plain.h"
#include "image/shrink.h"

#include <likeness/status.h>
#include <stdbool.h>

/* Whether the segments before the pixels are those of a plain picture: baseline or progressive of 8 bits, one or three
 * components, no ICC profile, and nothing in Exif that turns it. Needs no library. False also where the bytes end first
 * or anything is odd: then libvips says what is wrong. */
bool lk_jpeg_plain(const uint8_t *bytes, size_t size, lk_plain *out);

/* Loads libjpeg; lk_jpeg_decode does it by itself. LK_UNSUPPORTED when it is missing. */
lk_status lk_jpeg_start(void);

/* By how much the blocks of a JPEG are shrunk while they are decoded when it is to become `shrink` times smaller: 1, 2,
 * 4 or 8, so that of its shorter side a pixel is left at least. */
uint32_t lk_jpeg_shrink(double shrink, uint32_t shorter);

/* Hands all rows of a plain picture to `to`, each `denominator` (1, 2, 4, 8) times narrower and as many times fewer;
 * rounded up, so that there may be one pixel and row more than width / denominator.
 * LK_CORRUPT, LK_LIMIT (more scans than anybody writes), LK_NO_MEMORY, LK_UNSUPPORTED. */
lk_status lk_jpeg_decode(const lk_plain_source *source, const lk_plain *header, uint32_t denominator, lk_shrink *to);

#endif
