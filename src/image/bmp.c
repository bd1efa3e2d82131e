/* Layout: file header (14 bytes), then the core header (12) or the info header and its successors (40 and more), the
 * palette, and rows padded to 4 bytes, bottom row first unless the height is negative. */
#include "image/bmp.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdlib.h>

typedef struct bmp {
    uint32_t width, height, bits, palette_entries;
    const uint8_t *palette, *pixels;
    size_t palette_entry, stride;
    bool top_down, alpha;
} bmp;

static uint32_t u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const uint8_t *p)
{
    return u16(p) | u16(p + 2) << 16;
}

static lk_status parse(const uint8_t *b, size_t size, const char *name, bmp *out)
{
    if (size < 26) return lk_fail(LK_CORRUPT, "%s: cannot be decoded as BMP: the header is cut short", name);
    uint32_t offset = u32(b + 10), header = u32(b + 14), compression = 0, colours = 0;
    if (header == 12) {
        *out = (bmp){.width = u16(b + 18), .height = u16(b + 20), .bits = u16(b + 24), .palette_entry = 3};
    } else if (header >= 40 && header <= 1024 && size >= 14 + (size_t)header) {
        uint32_t height = u32(b + 22);
        *out = (bmp){.width = u32(b + 18), .height = height, .bits = u16(b + 28), .palette_entry = 4};
        if (height > 0x7fffffff) {
            out->top_down = true;
            out->height = 0 - height;
        }
        compression = u32(b + 30);
        colours = u32(b + 46);
    } else {
        return lk_fail(LK_CORRUPT, "%s: cannot be decoded as BMP: the header is damaged", name);
    }
    if (out->width == 0 || out->height == 0 || out->width > 0x7fffffff || out->height > 0x7fffffff)
        return lk_fail(LK_CORRUPT, "%s: cannot be decoded as BMP: the header announces %ux%u pixels", name, out->width,
                       out->height);
    bool plain = compression == 0;
    if (compression == 3 && out->bits == 32 && size >= 70) { /* bit fields: only the order that everyone writes */
        plain = u32(b + 54) == 0xff0000 && u32(b + 58) == 0xff00 && u32(b + 62) == 0xff;
        out->alpha = header >= 56 && u32(b + 66) == 0xff000000;
    }
    bool depth = out->bits == 1 || out->bits == 4 || out->bits == 8 || out->bits == 24 || out->bits == 32;
    if (!plain || !depth)
        return lk_fail(LK_UNSUPPORTED, "%s: a BMP of %u bits a pixel with compression %u is not read: save it as PNG",
                       name, out->bits, compression);
    out->stride = ((size_t)out->width * out->bits + 31) / 32 * 4;
    out->palette = b + 14 + header;
    if (out->bits <= 8) out->palette_entries = colours && colours <= 1u << out->bits ? colours : 1u << out->bits;
    size_t palette_end = 14 + (size_t)header + out->palette_entries * out->palette_entry;
    if (palette_end > size || offset < 14 + header || offset > size)
        return lk_fail(LK_CORRUPT, "%s: cannot be decoded as BMP: the header points outside the file", name);
    out->pixels = b + offset;
    return LK_OK;
}

lk_status lk_bmp_size(const uint8_t *bytes, size_t size, const char *name, uint32_t *width, uint32_t *height)
{
    bmp picture;
    lk_status s = parse(bytes, size, name, &picture);
    if (s != LK_OK) return s;
    *width = picture.width;
    *height = picture.height;
    return LK_OK;
}

/* One row as RGB or RGBA. */
static void decode_row(const bmp *p, const uint8_t *row, uint8_t *to)
{
    for (uint32_t x = 0; x < p->width; x++) {
        const uint8_t *from;
        if (p->bits >= 24) {
            from = row + (size_t)x * (p->bits / 8);
        } else {
            uint32_t per_byte = 8 / p->bits, shift = 8 - p->bits * (x % per_byte + 1);
            uint32_t entry = row[x / per_byte] >> shift & ((1u << p->bits) - 1);
            if (entry >= p->palette_entries) entry = 0;
            from = p->palette + entry * p->palette_entry;
        }
        *to++ = from[2];
        *to++ = from[1];
        *to++ = from[0];
        if (p->alpha) *to++ = from[3];
    }
}

lk_status lk_bmp_decode(const uint8_t *bytes, size_t size, const char *name, uint8_t **pixels, uint32_t *channels)
{
    *pixels = NULL;
    bmp p;
    lk_status s = parse(bytes, size, name, &p);
    if (s != LK_OK) return s;
    size_t left = size - (size_t)(p.pixels - bytes);
    if (left / p.stride < p.height)
        return lk_fail(LK_CORRUPT, "%s: cannot be decoded as BMP: the file ends before its last row of pixels", name);
    *channels = p.alpha ? 4 : 3;
    size_t row = (size_t)p.width * *channels;
    uint8_t *out = lk_alloc(p.height, row);
    if (!out) return lk_fail_memory(name);
    for (uint32_t y = 0; y < p.height; y++)
        decode_row(&p, p.pixels + (size_t)(p.top_down ? y : p.height - 1 - y) * p.stride, out + y * row);
    *pixels = out;
    return LK_OK;
}
