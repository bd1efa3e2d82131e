#include "image/format.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* How far into a file the root element of an SVG is looked for. */
#define PROLOGUE 65536

typedef struct magic {
    const char *bytes;
    uint8_t size;
    lk_picture_format format;
    const char *name;
} magic;

static const magic magics[] = {
    {"\xff\xd8\xff", 3, LK_PICTURE_JPEG, "JPEG"},
    {"\x89PNG\r\n\x1a\n", 8, LK_PICTURE_PNG, "PNG"},
    {"GIF87a", 6, LK_PICTURE_GIF, "GIF"},
    {"GIF89a", 6, LK_PICTURE_GIF, "GIF"},
    {"II*\0", 4, LK_PICTURE_TIFF, "TIFF"},
    {"MM\0*", 4, LK_PICTURE_TIFF, "TIFF"},
    {"II+\0", 4, LK_PICTURE_TIFF, "TIFF"}, /* BigTIFF */
    {"MM\0+", 4, LK_PICTURE_TIFF, "TIFF"},
    /* Well known, so that the message can say what the file is. */
    {"%PDF", 4, LK_PICTURE_FORBIDDEN, "PDF"},
    {"%!PS", 4, LK_PICTURE_FORBIDDEN, "PostScript"},
    {"8BPS", 4, LK_PICTURE_FORBIDDEN, "Photoshop"},
    {"\0\0\1\0", 4, LK_PICTURE_FORBIDDEN, "Windows icon"},
    {"\xff\x0a", 2, LK_PICTURE_FORBIDDEN, "JPEG XL"},
    {"\0\0\0\x0cJXL ", 8, LK_PICTURE_FORBIDDEN, "JPEG XL"},
    {"\0\0\0\x0cjP  ", 8, LK_PICTURE_FORBIDDEN, "JPEG 2000"},
    /* A compressed SVG (.svgz) can be a thousand times larger than its file: not worth the danger. */
    {"\x1f\x8b", 2, LK_PICTURE_FORBIDDEN, "gzip-compressed"},
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Past the end of `<!DOCTYPE ...>`, whose brackets hold declarations with '>' of their own; NULL when it does not end.
 */
static const char *skip_doctype(const char *p, const char *end)
{
    bool bracket = false;
    char quote = 0;
    for (; p < end; p++) {
        if (quote) {
            if (*p == quote) quote = 0;
        } else if (*p == '"' || (*p == '\'' && !bracket)) { /* within brackets comments may hold an apostrophe */
            quote = *p;
        } else if (*p == '[') {
            bracket = true;
        } else if (*p == ']') {
            bracket = false;
        } else if (*p == '>' && !bracket) {
            return p + 1;
        }
    }
    return NULL;
}

/* Past a piece that ends in `mark`; NULL when it does not end. */
static const char *skip_to(const char *p, const char *end, const char *mark)
{
    const char *found = memmem(p, (size_t)(end - p), mark, strlen(mark));
    return found ? found + strlen(mark) : NULL;
}

/* Is the root element <svg> or <prefix:svg>? Before it XML allows a byte order mark, a declaration, comments,
 * processing instructions and a DOCTYPE. Text in UTF-16 is not looked into: nobody draws logos in it. */
static bool is_svg(const char *p, size_t size)
{
    const char *end = p + (size < PROLOGUE ? size : PROLOGUE);
    if (size >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3;
    for (;;) {
        while (p < end && is_space(*p)) p++;
        if (end - p < 5 || *p != '<') return false;
        if (memcmp(p, "<!--", 4) == 0)
            p = skip_to(p + 4, end, "-->");
        else if (p[1] == '?')
            p = skip_to(p + 2, end, "?>");
        else if (p[1] == '!')
            p = skip_doctype(p, end);
        else
            break;
        if (!p) return false;
    }
    const char *name = ++p;
    for (; p < end && !is_space(*p) && *p != '>' && *p != '/'; p++)
        if (*p == ':') name = p + 1;
    return p < end && p - name == 3 && memcmp(name, "svg", 3) == 0;
}

/* HEIC, AVIF and films share one container; the brand tells them apart. */
static lk_picture_format container(const char *brand, const char **format_name)
{
    static const char brands[][5] = {"avif", "avis", "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"};
    for (size_t i = 0; i < sizeof brands / sizeof *brands; i++) {
        if (memcmp(brand, brands[i], 4) != 0) continue;
        *format_name = i < 2 ? "AVIF" : "HEIF";
        return LK_PICTURE_HEIF;
    }
    *format_name = "video";
    return LK_PICTURE_FORBIDDEN;
}

lk_picture_format lk_picture_sniff(const void *data, size_t size, const char **format_name)
{
    const char *b = data;
    *format_name = "unknown";
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        if (size < magics[i].size || memcmp(b, magics[i].bytes, magics[i].size) != 0) continue;
        *format_name = magics[i].name;
        return magics[i].format;
    }
    if (size >= 12 && memcmp(b, "RIFF", 4) == 0 && memcmp(b + 8, "WEBP", 4) == 0) {
        *format_name = "WebP";
        return LK_PICTURE_WEBP;
    }
    if (size >= 12 && memcmp(b + 4, "ftyp", 4) == 0) return container(b + 8, format_name);
    /* "BM" alone also begins words: the size of the second header must be one that exists. */
    if (size >= 18 && memcmp(b, "BM", 2) == 0 && (b[14] == 12 || b[14] >= 40) && b[15] == 0 && b[16] == 0 &&
        b[17] == 0) {
        *format_name = "BMP";
        return LK_PICTURE_BMP;
    }
    if (is_svg(b, size)) {
        *format_name = "SVG";
        return LK_PICTURE_SVG;
    }
    return LK_PICTURE_UNKNOWN;
}
