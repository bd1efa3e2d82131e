#include "image/jpeg.h"

#include "base/error.h"
#include "base/memory.h"
#include "late/late.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h> /* wants size_t and FILE */

#include <jerror.h>

enum {
    MOST_SCANS = 100,   /* progressive pictures have about ten; each goes over all blocks, whatever it says of them */
    MOST_WARNINGS = 100 /* libvips' */
};

/* All that outlives a longjmp. */
typedef struct reading {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    uint8_t *row;
    lk_status status;
    jmp_buf failed;
    char why[JMSG_LENGTH_MAX];
} reading;

static uint32_t number(const uint8_t *p, size_t size, bool big)
{
    uint32_t n = 0;
    for (size_t i = 0; i < size; i++) n |= (uint32_t)p[i] << 8 * (big ? size - 1 - i : i);
    return n;
}

/* Whether an Exif segment surely turns nothing: its first directory (TIFF 6.0, section 2) is whole, and names no
 * orientation (tag 0x0112) or the upright one. */
static bool stands_upright(const uint8_t *exif, size_t size)
{
    enum { HEAD = 6, DIRECTORY_AT = 4, ENTRY = 12 };
    if (size < HEAD + 8 || memcmp(exif, "Exif\0", HEAD) != 0) return false;
    const uint8_t *tiff = exif + HEAD;
    size -= HEAD;
    bool big = memcmp(tiff, "MM\0*", 4) == 0;
    if (!big && memcmp(tiff, "II*", 4) != 0) return false;
    size_t at = number(tiff + DIRECTORY_AT, 4, big);
    if (at > size - 2) return false;
    size_t entries = number(tiff + at, 2, big);
    at += 2;
    if (entries > (size - at) / ENTRY) return false;
    for (const uint8_t *entry = tiff + at; entries; entries--, entry += ENTRY) {
        if (number(entry, 2, big) != 0x0112) continue;
        bool one_short = number(entry + 2, 2, big) == 3 && number(entry + 4, 4, big) == 1;
        if (!one_short || number(entry + 8, 2, big) != 1) return false;
    }
    return true;
}

bool lk_jpeg_plain(const uint8_t *bytes, size_t size, lk_plain *out)
{
    *out = (lk_plain){0};
    for (size_t at = 2; size >= 4 && at <= size - 4;) {
        if (bytes[at] != 0xff) return false;
        uint8_t marker = bytes[at + 1];
        if (marker == 0xff) { /* filling */
            at++;
            continue;
        }
        size_t length = number(bytes + at + 2, 2, true);
        const uint8_t *data = bytes + at + 4;
        if (length < 2 || length > size - at - 2) return false;
        size_t n = length - 2;
        if (marker >= 0xc0 && marker <= 0xc2) { /* a frame: baseline, extended or progressive, in Huffman codes */
            if (out->channels || n < 6 || data[0] != 8 || (data[5] != 1 && data[5] != 3)) return false;
            *out = (lk_plain){number(data + 3, 2, true), number(data + 1, 2, true), data[5]};
            if (out->width == 0 || out->height == 0) return false;
        } else if (marker == 0xda) { /* the first scan */
            return out->channels > 0;
        } else if (marker == 0xe1) {
            if (n >= 4 && memcmp(data, "Exif", 4) == 0 && !stands_upright(data, n)) return false;
        } else if (marker == 0xe2) {
            if (n >= 11 && memcmp(data, "ICC_PROFILE", 11) == 0) return false;
        } else if (marker != 0xc4 && marker != 0xdb && marker != 0xdd && marker < 0xe0) {
            return false; /* not tables, restarts, nor what programs say: a frame of another kind, or no marker at all
                           */
        }
        at += 2 + length;
    }
    return false;
}

static _Noreturn void fail(j_common_ptr jpeg)
{
    reading *r = jpeg->client_data;
    jpeg->err->format_message(jpeg, r->why);
    r->status = jpeg->err->msg_code == JERR_OUT_OF_MEMORY ? LK_NO_MEMORY : LK_CORRUPT;
    longjmp(r->failed, 1);
}

/* A few odd bytes are forgiven, and nothing is printed. */
static void warn(j_common_ptr jpeg, int level)
{
    if (level < 0 && ++jpeg->err->num_warnings >= MOST_WARNINGS) fail(jpeg);
}

static void nothing(j_decompress_ptr jpeg)
{
    (void)jpeg;
}

/* All bytes are there from the beginning. */
static boolean refuse_more(j_decompress_ptr jpeg)
{
    ERREXIT(jpeg, JERR_INPUT_EOF);
    return FALSE;
}

static void skip(j_decompress_ptr jpeg, long count)
{
    if (count <= 0) return;
    if ((size_t)count > jpeg->src->bytes_in_buffer) refuse_more(jpeg);
    jpeg->src->next_input_byte += count;
    jpeg->src->bytes_in_buffer -= (size_t)count;
}

static void count_scans(j_common_ptr common)
{
    reading *r = common->client_data;
    if (r->jpeg.input_scan_number <= MOST_SCANS) return;
    snprintf(r->why, sizeof r->why, "it has more than %d scans", MOST_SCANS);
    r->status = LK_LIMIT;
    longjmp(r->failed, 1);
}

lk_status lk_jpeg_start(void)
{
    const char *missing = lk_late_try("libjpeg");
    return missing ? lk_fail(LK_UNSUPPORTED, "%s", missing) : LK_OK;
}

/* A factor of two is left to a proper filter, because that is a plain average of pixels: so pictures come out alike
 * whatever format or size they arrive in. */
uint32_t lk_jpeg_shrink(double shrink, uint32_t shorter)
{
    uint32_t by = shrink >= 16 ? 8 : shrink >= 8 ? 4 : shrink >= 4 ? 2 : 1;
    while (by > shorter) by /= 2;
    return by;
}

static bool decode(reading *r, const lk_plain *header, uint32_t denominator, lk_shrink *to)
{
    j_decompress_ptr jpeg = &r->jpeg;
    if (setjmp(r->failed)) return false;
    jpeg_create_decompress(jpeg); /* clears all but err and client_data */
    jpeg->src = &r->source;
    jpeg->progress = &r->progress;
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->image_width != header->width || jpeg->image_height != header->height ||
        (uint32_t)jpeg->num_components != header->channels)
        ERREXIT(jpeg, JERR_BAD_LENGTH);
    jpeg->scale_num = 1;
    jpeg->scale_denom = denominator;
    jpeg->out_color_space = header->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(jpeg);
    r->row = lk_alloc(jpeg->output_width, header->channels);
    if (!r->row) ERREXIT1(jpeg, JERR_OUT_OF_MEMORY, 0);
    while (jpeg->output_scanline < jpeg->output_height) {
        jpeg_read_scanlines(jpeg, &r->row, 1);
        lk_shrink_row(to, r->row);
    }
    return true;
}

lk_status lk_jpeg_decode(const lk_plain_source *source, const lk_plain *header, uint32_t denominator, lk_shrink *to)
{
    reading r = {.source = {.next_input_byte = source->bytes,
                            .bytes_in_buffer = source->size,
                            .init_source = nothing,
                            .fill_input_buffer = refuse_more,
                            .skip_input_data = skip,
                            .resync_to_restart = jpeg_resync_to_restart,
                            .term_source = nothing},
                 .progress.progress_monitor = count_scans};
    lk_status s = lk_jpeg_start();
    if (s != LK_OK) return s;
    r.jpeg.err = jpeg_std_error(&r.errors);
    r.jpeg.client_data = &r;
    r.errors.error_exit = fail;
    r.errors.emit_message = warn;
    if (!decode(&r, header, denominator, to))
        s = lk_fail(r.status, "%s: cannot be decoded as JPEG: %s", source->name, r.why);
    jpeg_destroy_decompress(&r.jpeg);
    free(r.row);
    return s;
}
