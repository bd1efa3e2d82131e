#include "image/png.h"

#include "base/error.h"
#include "base/memory.h"
#include "late/late.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_SIDE = 65535,    /* of what is longer libvips adds the pixels up in more than 24 bits */
    MOST_CHUNK = 50 << 20 /* bytes that libpng may allocate for one; libvips' too */
};

/* All that outlives a longjmp. */
typedef struct reading {
    const uint8_t *at, *end;
    png_structp png;
    png_infop info;
    uint8_t *rows; /* one, or all of an interlaced picture */
    jmp_buf failed;
    char why[200];
} reading;

static uint32_t big32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Channels by colour type; 0: there is no such type, or not with so many bits, or it has 16. */
static uint32_t channels_of(uint8_t type, uint8_t bits)
{
    bool few = bits == 1 || bits == 2 || bits == 4;
    if (bits != 8 && !(few && (type == PNG_COLOR_TYPE_GRAY || type == PNG_COLOR_TYPE_PALETTE))) return 0;
    switch (type) {
    case PNG_COLOR_TYPE_GRAY: return 1;
    case PNG_COLOR_TYPE_RGB:
    case PNG_COLOR_TYPE_PALETTE: return 3;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
    case PNG_COLOR_TYPE_RGB_ALPHA: return 4;
    default: return 0;
    }
}

bool lk_png_plain(const uint8_t *bytes, size_t size, lk_plain *out)
{
    enum { SIGNATURE = 8, AROUND = 12 }; /* length, type and checksum of a chunk */
    *out = (lk_plain){0};
    for (size_t at = SIGNATURE; size >= AROUND && at <= size - AROUND;) {
        uint32_t length = big32(bytes + at);
        const char *type = (const char *)bytes + at + 4;
        const uint8_t *data = bytes + at + 8;
        if (memcmp(type, "IDAT", 4) == 0) return out->channels > 0;
        if (length > size - AROUND - at) return false;
        if ((memcmp(type, "IHDR", 4) == 0) != (at == SIGNATURE)) return false;
        if (at == SIGNATURE) {
            if (length != 13) return false;
            *out = (lk_plain){big32(data), big32(data + 4), channels_of(data[9], data[8])};
            if (out->channels == 0 || out->width - 1 >= MOST_SIDE || out->height - 1 >= MOST_SIDE) return false;
        } else if (memcmp(type, "tRNS", 4) == 0) {
            out->channels = 4;
        } else if (memcmp(type, "iCCP", 4) == 0 || memcmp(type, "eXIf", 4) == 0) {
            return false;
        } else if (!(type[0] & 0x20) && memcmp(type, "PLTE", 4) != 0) { /* a capital: the picture cannot do without */
            return false;
        }
        at += AROUND + length;
    }
    return false;
}

static _Noreturn void fail(png_structp png, png_const_charp text)
{
    reading *r = png_get_error_ptr(png);
    snprintf(r->why, sizeof r->why, "%s", text);
    longjmp(r->failed, 1);
}

static void ignore(png_structp png, png_const_charp text)
{
    (void)png, (void)text;
}

static void take(png_structp png, png_bytep to, size_t size)
{
    reading *r = png_get_io_ptr(png);
    if (size > (size_t)(r->end - r->at)) fail(png, "the file ends before its last row of pixels");
    memcpy(to, r->at, size);
    r->at += size;
}

lk_status lk_png_start(void)
{
    const char *missing = lk_late_try("libpng");
    return missing ? lk_fail(LK_UNSUPPORTED, "%s", missing) : LK_OK;
}

/* Expands what is less than 8 bits, palettes and transparent colours. */
static void set_up(reading *r, const lk_plain *header)
{
    r->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, fail, ignore);
    r->info = r->png ? png_create_info_struct(r->png) : NULL;
    if (!r->info) {
        strcpy(r->why, "out of memory");
        longjmp(r->failed, 1);
    }
    png_set_read_fn(r->png, r, take);
    png_set_user_limits(r->png, MOST_SIDE, MOST_SIDE);
    png_set_chunk_malloc_max(r->png, MOST_CHUNK);
    png_set_chunk_cache_max(r->png, 1);
    /* Texts, which unpack to any size, gamma and all else that changes no pixel are skipped. */
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
#ifdef PNG_IGNORE_ADLER32
    png_set_option(r->png, PNG_IGNORE_ADLER32, PNG_OPTION_ON); /* as libvips does; chunks have checksums of their own */
#endif
    png_read_info(r->png, r->info);
    int type = png_get_color_type(r->png, r->info);
    bool transparent = png_get_valid(r->png, r->info, PNG_INFO_tRNS) != 0;
    png_set_expand(r->png);
    if (header->channels >= 3) png_set_gray_to_rgb(r->png);
    /* A tRNS chunk that libpng does not accept. */
    if (header->channels == 4 && !(type & PNG_COLOR_MASK_ALPHA) && !transparent)
        png_set_add_alpha(r->png, 255, PNG_FILLER_AFTER);
}

static bool decode(reading *r, const lk_plain *header, lk_shrink *to)
{
    if (setjmp(r->failed)) return false;
    set_up(r, header);
    int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    size_t stride = (size_t)header->width * header->channels;
    if (png_get_image_width(r->png, r->info) != header->width ||
        png_get_image_height(r->png, r->info) != header->height || png_get_rowbytes(r->png, r->info) != stride)
        fail(r->png, "the header contradicts itself");
    r->rows = lk_alloc(passes > 1 ? header->height : 1, stride);
    if (!r->rows) fail(r->png, "out of memory");
    for (int pass = 1; pass < passes; pass++) /* all but the last */
        for (uint32_t y = 0; y < header->height; y++) png_read_row(r->png, r->rows + y * stride, NULL);
    for (uint32_t y = 0; y < header->height; y++) {
        uint8_t *row = r->rows + (passes > 1 ? y * stride : 0);
        png_read_row(r->png, row, NULL);
        lk_shrink_row(to, row);
    }
    return true;
}

lk_status lk_png_decode(const lk_plain_source *source, const lk_plain *header, lk_shrink *to)
{
    reading r = {.at = source->bytes, .end = source->bytes + source->size};
    lk_status s = lk_png_start();
    if (s != LK_OK) return s;
    if (!decode(&r, header, to)) {
        bool memory = strcasestr(r.why, "out of memory") != NULL;
        s = lk_fail(memory ? LK_NO_MEMORY : LK_CORRUPT, "%s: cannot be decoded as PNG: %s", source->name, r.why);
    }
    png_destroy_read_struct(&r.png, &r.info, NULL);
    free(r.rows);
    return s;
}
