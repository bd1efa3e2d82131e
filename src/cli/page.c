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
        add(t, "<img alt=\"\" src=\"data:image/webp;base64,");
        add_base64(t, bytes, size);
        add(t, "\">");
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
