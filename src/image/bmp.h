/* Windows bitmaps. libvips can read them only through ImageMagick, which sniffs for a hundred other formats and is not
 * fit for strangers' bytes; the format is small enough to be decoded here, strictly. */
#ifndef LK_IMAGE_BMP_H
#define LK_IMAGE_BMP_H

#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>

/* Width and height that the header announces. LK_CORRUPT, LK_UNSUPPORTED. */
lk_status lk_bmp_size(const uint8_t *bytes, size_t size, const char *name, uint32_t *width, uint32_t *height);

/* Uncompressed pictures of 1, 4, 8, 24 and 32 bits a pixel, and 32-bit ones with masks in the usual order (BGRA, alpha
 * kept when the header names it). *pixels [height][width][*channels], malloc'ed; *channels is 3, or 4 with alpha.
 * LK_CORRUPT when rows are missing, LK_UNSUPPORTED (run-length coding, 16 bits). */
lk_status lk_bmp_decode(const uint8_t *bytes, size_t size, const char *name, uint8_t **pixels, uint32_t *channels);

#endif
