/* PNG and JPEG without libvips: whether a picture is plain, its rows, and their shrinking. */
#include "fuzz.h"
#include "image/jpeg.h"
#include "image/png.h"

/* Checksums that fit, or no change would get past them. */
static void mend_checksums(uint8_t *png, size_t size)
{
    for (size_t at = 8; size >= 12 && at <= size - 12;) {
        size_t length = (size_t)png[at] << 24 | (size_t)png[at + 1] << 16 | (size_t)png[at + 2] << 8 | png[at + 3];
        if (length > size - 12 - at) return;
        uint32_t crc = 0xffffffff;
        for (size_t i = at + 4; i < at + 8 + length; i++) {
            crc ^= png[i];
            for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
        for (int i = 0; i < 4; i++) png[at + 8 + length + (size_t)i] = (uint8_t)(~crc >> (24 - 8 * i));
        at += 12 + length;
    }
}

static void decode(const uint8_t *bytes, size_t size, bool png, uint32_t shrink, uint32_t channels)
{
    static const uint8_t background[3] = {1, 2, 3};
    lk_plain header;
    if (!(png ? lk_png_plain(bytes, size, &header) : lk_jpeg_plain(bytes, size, &header))) return;
    if ((uint64_t)header.width * header.height > 1 << 16) return;
    if (header.width == 0 || header.height == 0) abort();
    if (channels == 1 && header.channels > 1) channels = 3;
    uint32_t shorter = header.width < header.height ? header.width : header.height;
    uint32_t denominator = png ? 1 : lk_jpeg_shrink(shrink, shorter);
    uint32_t width = header.width / denominator, height = header.height / denominator;
    lk_image out = {.width = (width - 1) / shrink + 1, .height = (height - 1) / shrink + 1, .channels = channels};
    size_t n = (size_t)out.width * out.height * channels;
    out.pixels = malloc(n);
    lk_shrink *rows = lk_shrink_new(width, height, header.channels, background, &out);
    if (!out.pixels || !rows) abort();
    lk_plain_source source = {bytes, size, "fuzz"};
    lk_status s = png ? lk_png_decode(&source, &header, rows) : lk_jpeg_decode(&source, &header, denominator, rows);
    volatile uint8_t touched = 0;
    for (size_t i = 0; s == LK_OK && i < n; i++) touched ^= out.pixels[i];
    (void)touched;
    lk_shrink_free(rows);
    free(out.pixels);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    bool png = size > 8 && bytes[0] == 0x89; /* as lk_picture_sniff tells them */
    uint8_t *own = malloc(size + 1);
    if (!own) abort();
    memcpy(own, bytes, size);
    if (png) mend_checksums(own, size);
    decode(own, size, png, 1, 1);
    decode(own, size, png, 3, 3);
    decode(own, size, png, 17, 4);
    free(own);
    return 0;
}
