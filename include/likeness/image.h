/* Decoding of pictures into 8-bit sRGB, safely: limits first, untrusted loaders blocked. */
#ifndef LIKENESS_IMAGE_H
#define LIKENESS_IMAGE_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Pixels: rows of width*channels bytes without padding, sRGB, upright (EXIF orientation applied). */
typedef struct lk_image {
    uint8_t *pixels; /* owned; [height][width][channels] */
    uint32_t width, height;
    uint32_t channels;                    /* 1 grey, 3 RGB, 4 RGBA (straight alpha) */
    uint32_t source_width, source_height; /* of the upright picture in the file, before shrinking */
} lk_image;

typedef enum lk_image_colour { LK_COLOUR_RGB, LK_COLOUR_GREY, LK_COLOUR_RGBA } lk_image_colour;

typedef struct lk_image_options {
    uint32_t max_side;      /* shrink on load so that the longer side is at most this; 0 = keep. Vector pictures (SVG)
                               are rendered at exactly this longer side, small ones up too. */
    lk_image_colour colour; /* what to return; grey is Rec. 709 luma of the sRGB values as libvips computes it */
    uint8_t background[3];  /* colour under transparent pixels (ignored for LK_COLOUR_RGBA) */
    uint64_t max_bytes;     /* refuse larger files; */
    uint64_t max_pixels;    /* refuse pictures whose header announces more than this many pixels, before decoding */
} lk_image_options;

/* Loads and starts the decoders, which takes some tens of milliseconds once in a process. The first picture does that
 * by itself; this is for a thread or process that has nothing better to do. path: a picture to come, for drawings (SVG)
 * and the common PNG and JPEG need less; NULL: all. LK_UNSUPPORTED. */
LK_API lk_status lk_image_prepare(const char *path);

/* max_side 0, RGB on white, 64 MiB, 100 megapixels. */
LK_API lk_image_options lk_image_default_options(void);

/* Decodes the first frame or page of a JPEG, PNG, WebP, GIF, TIFF, BMP, SVG, AVIF or HEIF file. The format is told by
 * the bytes, never by the name. Applies EXIF orientation; converts ICC profiles, CMYK, 16-bit and grey to the asked
 * colour. options NULL = defaults.
 * LK_NOT_FOUND, LK_IO (unreadable), LK_CORRUPT (not a picture, truncated beyond use), LK_LIMIT (bytes, pixels, scans),
 * LK_UNSUPPORTED (a format that is recognised but not allowed; a missing library). The message names the file, or the
 * library. */
LK_API lk_status lk_image_load(const char *path, const lk_image_options *options, lk_image *out);

/* The same from memory; `name` stands in messages for the file's name ("upload"). bytes is borrowed for the call. */
LK_API lk_status lk_image_load_memory(const void *bytes, size_t size, const char *name, const lk_image_options *options,
                                      lk_image *out);

/* Frees the pixels and zeroes the struct. NULL and an empty image are allowed. */
LK_API void lk_image_free(lk_image *image);

/* Copies the rectangle (left, top, width, height, in pixels of `image`) into *out (freed by the caller with
 * lk_image_free). LK_INVALID when it does not lie inside the picture or is empty. */
LK_API lk_status lk_image_crop(const lk_image *image, uint32_t left, uint32_t top, uint32_t width, uint32_t height,
                               lk_image *out);

/* What is left of a picture when the even border around it is cut off: box receives left, top, width, height; ground
 * the border's colour (the commonest of the corners). Transparent pixels count as white. A picture of one colour, or
 * without an even border, keeps its whole size. Not for an empty picture. */
LK_API void lk_image_content(const lk_image *image, uint32_t box[4], uint8_t ground[3]);

typedef enum lk_image_format { LK_FORMAT_JPEG, LK_FORMAT_PNG, LK_FORMAT_WEBP } lk_image_format;

/* Encodes a picture (thumbnails, reports). quality 1..100, ignored for PNG. *bytes is allocated with malloc; the caller
 * frees it. */
LK_API lk_status lk_image_encode(const lk_image *image, lk_image_format format, int quality, uint8_t **bytes,
                                 size_t *size);

#ifdef __cplusplus
}
#endif
#endif
