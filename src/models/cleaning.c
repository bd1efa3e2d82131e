#include "models/cleaning.h"

#include "base/error.h"
#include "base/file.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

typedef struct lk_cleaning_step step;

/* ---- reading ---- */

static lk_status not_known(const char *name, const char *what)
{
    return lk_fail(LK_UNSUPPORTED, "%s: cleans texts in a way that is not known here (%.*s)", name,
                   lk_utf8_fit(what, 64), what);
}

/* The characters of a class "[...]" of a regular expression that lists ASCII: escapes and ranges, no negation. *pattern
 * moves behind it. NULL when it is anything else. */
static char *read_class(const char **pattern)
{
    bool in[128] = {false};
    const char *p = *pattern + 1;
    char *set = calloc(129, 1), *end = set;
    if (!set || *p == '^') goto bad;
    for (int last = -1; *p != ']'; p++) {
        bool escaped = *p == '\\';
        if (escaped) p++;
        uint8_t c = (uint8_t)*p;
        if (c == 0 || c >= 128 || (escaped && g_ascii_isalnum((char)c)) || (!escaped && c == '[')) goto bad;
        if (!escaped && c == '-' && last >= 0 && p[1] != ']') {
            p++;
            if (*p == '\\') p++;
            uint8_t to = (uint8_t)*p;
            if (to == 0 || to >= 128 || to < last) goto bad;
            for (int i = last; i <= to; i++) in[i] = true;
            last = -1;
            continue;
        }
        in[c] = true;
        last = c;
    }
    for (int i = 1; i < 128; i++)
        if (in[i]) *end++ = (char)i;
    *pattern = p + 1;
    return set;
bad:
    free(set);
    return NULL;
}

/* A pattern of one element: a class, \s or a character, perhaps once or more (+) or twice or more ({2,}). */
static lk_status read_pattern(const json_t *pattern, const char *name, step *out)
{
    const char *p = json_string_value(json_object_get(pattern, "Regex")), *whole = p,
               *plain = json_string_value(json_object_get(pattern, "String"));
    out->least = 1;
    if (plain && strlen(plain) == 1) {
        out->set = strdup(plain);
        return out->set ? LK_OK : lk_fail_memory(name);
    }
    if (!p || !*p) return not_known(name, plain ? plain : "a pattern");
    if (*p == '[') {
        out->set = read_class(&p);
    } else if (strncmp(p, "\\s", 2) == 0) {
        out->spaces = true;
        p += 2;
    } else if (*p == ' ') {
        out->set = strdup(" ");
        p++;
    }
    if (!out->set && !out->spaces) return not_known(name, whole);
    if (strcmp(p, "+") == 0 || strcmp(p, "{2,}") == 0) {
        out->run = true;
        out->least = *p == '+' ? 1 : 2;
        p += strlen(p);
    }
    return *p ? not_known(name, whole) : LK_OK;
}

static lk_status read_step(lk_cleaning *c, const json_t *item, const char *name)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    if (!type) return lk_fail(LK_CORRUPT, "%s: a step of its normalizer has no type", name);
    if (c->count == LK_CLEANING_STEPS) return lk_fail(LK_LIMIT, "%s: cleans texts in too many steps", name);
    step *s = &c->steps[c->count++];
    if (strcmp(type, "Lowercase") == 0) {
        s->kind = LK_CLEAN_LOWER;
    } else if (strcmp(type, "NFC") == 0) {
        s->kind = LK_CLEAN_COMPOSE;
    } else if (strcmp(type, "NFKC") == 0) {
        s->kind = LK_CLEAN_COMPOSE_COMPATIBLE;
    } else if (strcmp(type, "Strip") == 0) {
        s->kind = LK_CLEAN_STRIP;
        s->left = json_is_true(json_object_get(item, "strip_left"));
        s->right = json_is_true(json_object_get(item, "strip_right"));
    } else if (strcmp(type, "Replace") == 0) {
        const char *with = json_string_value(json_object_get(item, "content"));
        s->kind = LK_CLEAN_REPLACE;
        s->with = strdup(with ? with : "");
        if (!s->with) return lk_fail_memory(name);
        return read_pattern(json_object_get(item, "pattern"), name, s);
    } else if (strcmp(type, "Precompiled") == 0) {
        return lk_fail(LK_UNSUPPORTED,
                       "%s: holds a table of characters (Precompiled), which is read from a spiece.model only: put the "
                       "model's spiece.model beside it",
                       name);
    } else {
        return not_known(name, type);
    }
    return LK_OK;
}

static lk_status read_normalizer(lk_cleaning *c, const json_t *normalizer, const char *name)
{
    const char *type = json_string_value(json_object_get(normalizer, "type"));
    size_t i;
    json_t *item;
    if (!normalizer || json_is_null(normalizer)) return LK_OK;
    if (!type || strcmp(type, "Sequence") != 0) return read_step(c, normalizer, name);
    json_array_foreach(json_object_get(normalizer, "normalizers"), i, item)
    {
        lk_status s = read_step(c, item, name);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

static lk_status read_prefix(lk_cleaning *c, const json_t *pre, const char *name)
{
    const char *type = json_string_value(json_object_get(pre, "type")),
               *with = json_string_value(json_object_get(pre, "replacement")),
               *scheme = json_string_value(json_object_get(pre, "prepend_scheme"));
    if (!type || strcmp(type, "Metaspace") != 0 || !with || strcmp(with, SPACE) != 0)
        return lk_fail(LK_UNSUPPORTED, "%s: splits texts otherwise than at U+2581 (%.*s)", name,
                       type ? lk_utf8_fit(type, 32) : 32, type ? type : "no pre_tokenizer");
    const json_t *older = json_object_get(pre, "add_prefix_space");
    if (!scheme) scheme = json_is_false(older) ? "never" : "always";
    c->prefix = strcmp(scheme, "never") == 0   ? LK_PREFIX_NEVER
                : strcmp(scheme, "first") == 0 ? LK_PREFIX_FIRST
                                               : LK_PREFIX_ALWAYS;
    return LK_OK;
}

lk_status lk_cleaning_parse(const json_t *root, const char *name, lk_cleaning *out)
{
    *out = (lk_cleaning){0};
    lk_status s = read_normalizer(out, json_object_get(root, "normalizer"), name);
    if (s == LK_OK) s = read_prefix(out, json_object_get(root, "pre_tokenizer"), name);
    if (s != LK_OK) lk_cleaning_free(out);
    return s;
}

void lk_cleaning_free(lk_cleaning *c)
{
    for (int i = 0; i < c->count; i++) {
        free((void *)c->steps[i].set);
        free((void *)c->steps[i].with);
    }
    *c = (lk_cleaning){0};
}

/* ---- cleaning ---- */

typedef bool (*space_fn)(uint32_t c);

/* The part without white space at its ends. */
static void strip(const char **text, size_t *size, bool left, bool right, space_fn is_space)
{
    const char *begin = *text, *end = begin + *size;
    while (left && begin < end && is_space(g_utf8_get_char(begin))) begin = g_utf8_next_char(begin);
    while (right && begin < end) {
        const char *last = g_utf8_prev_char(end);
        if (!is_space(g_utf8_get_char(last))) break;
        end = last;
    }
    *text = begin;
    *size = (size_t)(end - begin);
}

static bool matches(const step *s, uint32_t c)
{
    return s->spaces ? lk_is_space(c) : c < 128 && c && strchr(s->set, (int)c);
}

static lk_status replace(const step *how, const char *text, size_t size, lk_text *out)
{
    const char *end = text + size;
    lk_status s = LK_OK;
    for (const char *p = text, *next; s == LK_OK && p < end; p = next) {
        int count = 0;
        for (next = p; next < end && (count == 0 || how->run) && matches(how, g_utf8_get_char(next)); count++)
            next = g_utf8_next_char(next);
        if (count >= how->least) {
            s = lk_text_add(out, how->with, strlen(how->with));
            continue;
        }
        if (next == p) next = g_utf8_next_char(p);
        s = lk_text_add(out, p, (size_t)(next - p));
    }
    return s;
}

static lk_status run_step(const step *how, const char *text, size_t size, lk_text *out)
{
    char *composed;
    lk_status s;
    switch (how->kind) {
    case LK_CLEAN_LOWER: return lk_text_add_lower(out, text, size, false);
    case LK_CLEAN_COMPOSE:
    case LK_CLEAN_COMPOSE_COMPATIBLE:
        composed =
            g_utf8_normalize(text, (gssize)size, how->kind == LK_CLEAN_COMPOSE ? G_NORMALIZE_NFC : G_NORMALIZE_NFKC);
        s = composed ? lk_text_add(out, composed, strlen(composed)) : lk_fail(LK_INVALID, "a text is not UTF-8");
        g_free(composed);
        return s;
    case LK_CLEAN_STRIP: strip(&text, &size, how->left, how->right, lk_is_space); break;
    case LK_CLEAN_REPLACE: return replace(how, text, size, out);
    }
    return lk_text_add(out, text, size);
}

lk_status lk_cleaning_run(const lk_cleaning *c, const char *text, size_t size, bool first, lk_text *out)
{
    static const step spaces = {.kind = LK_CLEAN_REPLACE, .set = " ", .with = SPACE, .least = 1};
    lk_text now = {0}, next = {0};
    lk_status s = lk_text_add(&now, text, size);
    for (int i = 0; s == LK_OK && now.size && i <= c->count; i++) { /* the last step is the spaces */
        next.size = 0;
        s = run_step(i < c->count ? &c->steps[i] : &spaces, now.bytes, now.size, &next);
        if (next.bytes) next.bytes[next.size] = 0;
        lk_text swap = now;
        now = next;
        next = swap;
    }
    bool prefix = c->prefix == LK_PREFIX_ALWAYS || (c->prefix == LK_PREFIX_FIRST && first);
    bool there = now.size >= 3 && memcmp(now.bytes, SPACE, 3) == 0;
    if (s == LK_OK && prefix && now.size && !there) s = lk_text_add(out, SPACE, 3);
    if (s == LK_OK) s = lk_text_add(out, now.bytes, now.size);
    lk_text_free(&now);
    lk_text_free(&next);
    return s;
}

lk_status lk_siglip_clean(const char *text, size_t size, bool lower, lk_text *out)
{
    lk_text lowered = {0};
    lk_status s = lower ? lk_text_add_lower(&lowered, text, size, true) : lk_text_add(&lowered, text, size);
    const char *p = lowered.bytes, *end = p + lowered.size;
    size_t begin = out->size;
    bool space = false; /* one is waiting */
    for (; s == LK_OK && p < end; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);
        if (c < 128 && g_ascii_ispunct((char)c)) continue;
        if (lk_is_python_space(c)) {
            space = out->size > begin;
            continue;
        }
        if (space) s = lk_text_add(out, " ", 1);
        space = false;
        if (s == LK_OK) s = lk_text_add_character(out, c);
    }
    lk_text_free(&lowered);
    return s;
}
