#include "image/format.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

static bool starts(const unsigned char *bytes, size_t size, const char *magic, size_t n)
{
    return size >= n && memcmp(bytes, magic, n) == 0;
}

/* An SVG is text: skip what XML allows before the root element (byte order mark, declaration, comments, a DOCTYPE), then
 * look for <svg, with or without a namespace prefix. */
static bool is_svg(const unsigned char *bytes, size_t size)
{
    const char *p = (const char *)bytes, *end = p + (size < 65536 ? size : 65536);
    if (starts(bytes, size, "\xef\xbb\xbf", 3)) p += 3;
    while (p < end) {
        while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')) p++;
        if (p >= end || *p != '<') return false;
        const char *stop = NULL;
        if (end - p > 4 && memcmp(p, "<!--", 4) == 0) {
            stop = memmem(p, (size_t)(end - p), "-->", 3);
            if (!stop) return false;
            p = stop + 3;
        } else if (end - p > 2 && (p[1] == '?' || p[1] == '!')) {
            const char *subset = memchr(p, '[', (size_t)(end - p));
            stop = memchr(p, '>', (size_t)(end - p));
            if (p[1] == '!' && subset && stop && subset < stop) { /* a DOCTYPE with entities in brackets */
                stop = memchr(subset, ']', (size_t)(end - subset));
                stop = stop ? memchr(stop, '>', (size_t)(end - stop)) : NULL;
            }
            if (!stop) return false;
            p = stop + 1;
        } else {
            const char *name = p + 1;
            const char *colon = memchr(name, ':', (size_t)(end - name) < 32 ? (size_t)(end - name) : 32);
            if (end - name > 3 && strncasecmp(name, "svg", 3) == 0) return true;
            return colon && end - colon > 4 && strncasecmp(colon + 1, "svg", 3) == 0;
        }
    }
    return false;
}

lk_picture_format lk_picture_sniff(const void *data, size_t size, const char **name)
{
    const unsigned char *b = data;
    static const struct {
        const char *magic;
        size_t n;
        lk_picture_format format;
        const char *name;
    } known[] = {
        {"\xff\xd8\xff", 3, LK_PICTURE_JPEG, "JPEG"},        {"\x89PNG\r\n\x1a\n", 8, LK_PICTURE_PNG, "PNG"},
        {"GIF87a", 6, LK_PICTURE_GIF, "GIF"},                {"GIF89a", 6, LK_PICTURE_GIF, "GIF"},
        {"II*\0", 4, LK_PICTURE_TIFF, "TIFF"},               {"MM\0*", 4, LK_PICTURE_TIFF, "TIFF"},
        {"II+\0", 4, LK_PICTURE_TIFF, "TIFF"},               {"MM\0+", 4, LK_PICTURE_TIFF, "TIFF"},
        {"BM", 2, LK_PICTURE_BMP, "BMP"},                    {"%PDF", 4, LK_PICTURE_FORBIDDEN, "PDF"},
        {"%!PS", 4, LK_PICTURE_FORBIDDEN, "PostScript"},     {"8BPS", 4, LK_PICTURE_FORBIDDEN, "Photoshop"},
        {"\x1f\x8b", 2, LK_PICTURE_FORBIDDEN, "compressed"}, {"\0\0\1\0", 4, LK_PICTURE_FORBIDDEN, "icon (ICO)"},
        {"\xff\x0a", 2, LK_PICTURE_FORBIDDEN, "JPEG XL"},    {"\0\0\0\x0cJXL ", 8, LK_PICTURE_FORBIDDEN, "JPEG XL"},
        {"\0\0\0\x0cjP  ", 8, LK_PICTURE_FORBIDDEN, "JPEG 2000"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!starts(b, size, known[i].magic, known[i].n)) continue;
        *name = known[i].name;
        return known[i].format;
    }
    if (size >= 12 && memcmp(b, "RIFF", 4) == 0 && memcmp(b + 8, "WEBP", 4) == 0) {
        *name = "WebP";
        return LK_PICTURE_WEBP;
    }
    if (size >= 12 && memcmp(b + 4, "ftyp", 4) == 0) {
        static const char brands[][5] = {"heic", "heix", "hevc", "heim", "heis", "mif1", "msf1", "avif", "avis"};
        for (size_t i = 0; i < sizeof brands / sizeof *brands; i++) {
            if (memcmp(b + 8, brands[i], 4) != 0) continue;
            *name = brands[i][0] == 'a' ? "AVIF" : "HEIF";
            return LK_PICTURE_HEIF;
        }
        *name = "video";
        return LK_PICTURE_FORBIDDEN;
    }
    if (is_svg(b, size)) {
        *name = "SVG";
        return LK_PICTURE_SVG;
    }
    *name = "unknown";
    return LK_PICTURE_UNKNOWN;
}
