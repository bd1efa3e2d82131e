/* A page of queries and their results in one file: pictures are in it as data URIs, so it can be mailed. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THUMBNAIL = 144, QUALITY = 80 };

typedef struct text {
    char *bytes;
    size_t size, capacity;
    bool failed;
} text;

static void add_bytes(text *t, const char *bytes, size_t n)
{
    if (!lk_grow((void **)&t->bytes, &t->capacity, t->size + n, 1)) {
        t->failed = true;
        return;
    }
    memcpy(t->bytes + t->size, bytes, n);
    t->size += n;
}

static void add(text *t, const char *s)
{
    add_bytes(t, s, strlen(s));
}

/* Text of a file name or label: every character that means something in HTML is escaped. */
static void add_escaped(text *t, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '<': add(t, "&lt;"); break;
        case '>': add(t, "&gt;"); break;
        case '&': add(t, "&amp;"); break;
        case '"': add(t, "&quot;"); break;
        case '\'': add(t, "&#39;"); break;
        default: add_bytes(t, s, 1);
        }
    }
}

static void add_base64(text *t, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v =
            (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);
        char out[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                       i + 2 < n ? digits[v & 63] : '='};
        add_bytes(t, out, 4);
    }
}

/* An encoded picture as an element, with a description for those who do not see it. */
static void add_encoded(text *t, const char *type, const char *description, const uint8_t *bytes, size_t size)
{
    add(t, "<img alt=\"");
    add_escaped(t, description);
    add(t, "\" src=\"data:image/");
    add(t, type);
    add(t, ";base64,");
    add_base64(t, bytes, size);
    add(t, "\">");
}

static void add_picture(text *t, const char *path)
{
    lk_image_options options = lk_image_default_options();
    options.max_side = THUMBNAIL;
    lk_image image;
    uint8_t *bytes = NULL;
    size_t size;
    if (lk_image_load(path, &options, &image) != LK_OK ||
        lk_image_encode(&image, LK_FORMAT_WEBP, QUALITY, &bytes, &size) != LK_OK) {
        add(t, "<span class=gone>not readable any more</span>");
    } else {
        add_encoded(t, "webp", "", bytes, size);
    }
    free(bytes);
    lk_image_free(&image);
}

static const char head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
    "content=\"width=device-width\"><title>Likeness</title>"
    "<style>body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:88rem;padding:0 "
    "1rem;color:#1b1f24;background:#fafafa}"
    "h1{font-size:1.3rem}section{display:flex;gap:1.2rem;padding:1rem 0;border-top:1px solid "
    "#ddd;align-items:flex-start}"
    "figure{margin:0;width:112px}figure div{background:#fff;border:1px solid "
    "#ddd;border-radius:8px;height:112px;display:flex;"
    "align-items:center;justify-content:center;overflow:hidden}img{max-width:96px;max-height:96px}"
    ".query div{border:2px solid "
    "#2563eb}ol{display:flex;flex-wrap:wrap;gap:.8rem;list-style:none;margin:0;padding:0;flex:1}"
    "figcaption{font-size:12px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}.score{color:#57606a}"
    ".gone{font-size:11px;color:#999;text-align:center}"
    "@media(max-width:40rem){section{flex-direction:column}}</style>";

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void add_row(text *t, const cli_page_row *row)
{
    char score[64];
    add(t, "<section><figure class=query><div>");
    add_picture(t, row->query);
    add(t, "</div><figcaption title=\"");
    add_escaped(t, row->query);
    add(t, "\">");
    add_escaped(t, base_name(row->query));
    add(t, "</figcaption></figure><ol>");
    for (size_t i = 0; i < row->results->count; i++) {
        const lk_result *r = &row->results->items[i];
        add(t, "<li><figure><div>");
        add_picture(t, r->path);
        add(t, "</div><figcaption title=\"");
        add_escaped(t, r->path);
        add(t, "\">");
        add_escaped(t, r->label ? r->label : base_name(r->path));
        snprintf(score, sizeof score, "<br><span class=score>%zu. %.3f</span>", i + 1, (double)r->score);
        add(t, score);
        add(t, "</figcaption></figure></li>");
    }
    add(t, "</ol></section>\n");
}

lk_status cli_write_page(const char *path, const char *title, const cli_page_row *rows, size_t count)
{
    text t = {0};
    add(&t, head);
    add(&t, "<h1>Most similar in ");
    add_escaped(&t, title);
    add(&t, "</h1>\n");
    for (size_t i = 0; i < count; i++) add_row(&t, &rows[i]);
    lk_status s = t.failed ? lk_fail_memory(path) : lk_file_write_atomic(path, t.bytes, t.size);
    free(t.bytes);
    return s;
}

static const char match_head[] =
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
    "<title>Likeness: what two pictures share</title><style>:root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;"
    "color:#1b1f24;background:#fafafa}h1{font-size:1.3rem}img{width:100%;border:1px solid #ddd;border-radius:8px}"
    "p span{overflow-wrap:anywhere}table{border-collapse:collapse;margin-top:1rem}td,th{padding:.2rem 1rem .2rem 0;"
    "text-align:left;font-weight:400}td{font-variant-numeric:tabular-nums}th{color:#57606a}"
    "@media(prefers-color-scheme:dark){body{background:#15181c;color:#e6e8eb}th{color:#9aa4af}"
    "img{border-color:#333}}</style><h1>What two pictures share</h1>\n";

static void add_cells(text *t, const char *name, const char *value)
{
    add(t, "<tr><th>");
    add(t, name);
    add(t, "<td>");
    add(t, value);
}

lk_status cli_write_match_page(const char *path, const char *a, const char *b, const lk_picture_match *match,
                               const char *kind, const uint8_t *png, size_t size)
{
    text t = {0};
    char value[160], name[48];
    const double *m = match->transform;
    add(&t, match_head);
    add(&t, "<p>Left <span>");
    add_escaped(&t, a);
    add(&t, "</span>, right <span>");
    add_escaped(&t, b);
    add(&t, "</span>. Green lines join local features that look alike and agree on one transform, grey ones the rest."
            "</p>\n");
    snprintf(value, sizeof value, "The two pictures with a line for each of %zu pairs of features", match->count);
    add_encoded(&t, "png", value, png, size);
    add(&t, "\n<table>");
    snprintf(value, sizeof value, "%zu and %zu", match->features_a, match->features_b);
    add_cells(&t, "features", value);
    snprintf(value, sizeof value, "%zu", match->count);
    add_cells(&t, "pairs that look alike", value);
    snprintf(value, sizeof value, "%zu", match->inliers);
    snprintf(name, sizeof name, "of these agree on %s", kind);
    add_cells(&t, name, value);
    if (match->inliers) {
        snprintf(value, sizeof value, "%.4g, %.4g, %.4g<br>%.4g, %.4g, %.4g<br>%.4g, %.4g, %.4g", m[0], m[1], m[2],
                 m[3], m[4], m[5], m[6], m[7], m[8]);
        add_cells(&t, "from left to right", value);
    }
    add(&t, "</table>\n");
    lk_status s = t.failed ? lk_fail_memory(path) : lk_file_write_atomic(path, t.bytes, t.size);
    free(t.bytes);
    return s;
}
