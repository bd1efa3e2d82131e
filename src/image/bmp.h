/* Windows bitmaps, decoded here because the only loader libvips has for them (ImageMagick) is not fit for strangers' bytes. */
#ifndef LK_IMAGE_BMP_H
#define LK_IMAGE_BMP_H

#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>

/* Reads width and height of the header. LK_CORRUPT, LK_UNSUPPORTED. */
lk_status lk_bmp_size(const uint8_t *bytes, size_t size, const char *name, uint32_t *width, uint32_t *height);

/* Uncompressed pictures of 1, 4, 8, 24 and 32 bits a pixel and 32-bit ones with the usual BGRA masks, as RGB without
 * padding: *rgb [height][width][3], malloc'ed. LK_CORRUPT when pixels are missing, LK_UNSUPPORTED (run-length coding). */
lk_status lk_bmp_decode(const uint8_t *bytes, size_t size, const char *name, uint8_t **rgb);

#endif
