#include "train/hierarchy.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char BETWEEN = '\x01'; /* within keys */

static bool has_column(lk_source_list *list, const char *column)
{
    for (size_t i = 0; i < lk_sources_count(list); i++) {
        const lk_source *source = lk_sources_at(list, i);
        json_t *labels = source->labels ? json_loads(source->labels, 0, NULL) : NULL;
        bool yes = json_object_get(labels, column) != NULL;
        json_decref(labels);
        if (yes) return true;
    }
    return false;
}

static lk_status add_column(lk_level_source *out, const char *name, size_t n)
{
    if (out->count == LK_LEVELS_MOST) return lk_fail(LK_INVALID, "more than %d levels of labels", LK_LEVELS_MOST);
    if (n == 0 || n >= sizeof out->columns[0])
        return lk_fail(LK_INVALID, "the name of a column of levels is empty or too long");
    snprintf(out->columns[out->count++], sizeof out->columns[0], "%.*s", (int)n, name);
    return LK_OK;
}

lk_status lk_levels_find(const char *asked, bool folder, lk_source_list *list, lk_level_source *out)
{
    lk_status s = LK_OK;
    *out = (lk_level_source){0};
    if (asked && strcmp(asked, "folders") == 0) {
        out->folders = true;
        return folder ? LK_OK : lk_fail(LK_INVALID, "levels by folders want a folder, not a CSV: name its columns");
    }
    if (asked && folder) return lk_fail(LK_INVALID, "of a folder the levels can be \"folders\" alone: %s", asked);
    if (folder) return LK_OK;
    for (const char *at = asked; s == LK_OK && at && *at;) {
        size_t n = strcspn(at, ",");
        s = add_column(out, at, n);
        if (s == LK_OK && !has_column(list, out->columns[out->count - 1]))
            s = lk_fail(LK_INVALID, "the CSV has no column %s to take levels from", out->columns[out->count - 1]);
        at += n + (at[n] == ',');
    }
    if (s != LK_OK || asked) return s;
    if (has_column(list, "levels")) return add_column(out, "levels", 6);
    for (int k = 1; s == LK_OK && k <= LK_LEVELS_MOST; k++) {
        char name[16];
        int n = snprintf(name, sizeof name, "level%d", k);
        if (!has_column(list, name)) break;
        s = add_column(out, name, (size_t)n);
    }
    return s;
}

typedef struct joined {
    char *key, *name;
    size_t n, levels;
} joined;

static lk_status append(joined *to, const char *text, size_t n)
{
    while (n && *text == ' ') text++, n--;
    while (n && text[n - 1] == ' ') n--;
    if (n == 0) return LK_OK;
    if (to->levels == LK_LEVELS_MOST) return lk_fail(LK_LIMIT, "more than %d levels of labels", LK_LEVELS_MOST);
    if (to->levels++) {
        to->key[to->n] = BETWEEN;
        to->name[to->n++] = '/';
    }
    memcpy(to->key + to->n, text, n);
    memcpy(to->name + to->n, text, n);
    to->n += n;
    return LK_OK;
}

/* A label as text; whole numbers in a CSV became numbers. */
static const char *text_of(const json_t *value, char number[32])
{
    if (json_is_string(value)) return json_string_value(value);
    snprintf(number, 32, "%lld", (long long)json_integer_value(value));
    return json_is_integer(value) ? number : "";
}

lk_status lk_levels_read(const lk_level_source *source, const json_t *labels, const char *folder, lk_arena *arena,
                         const char **key, const char **name, size_t *levels)
{
    const char *texts[LK_LEVELS_MOST];
    char numbers[LK_LEVELS_MOST][32];
    size_t count = source->folders ? 1 : source->count, room = 1;
    lk_status s = LK_OK;
    bool parted = count == 1;
    for (size_t k = 0; k < count; k++) {
        texts[k] = source->folders ? folder : text_of(json_object_get(labels, source->columns[k]), numbers[k]);
        room += strlen(texts[k]) + 1;
    }
    joined to = {.key = lk_arena_alloc(arena, room), .name = lk_arena_alloc(arena, room)};
    if (!to.key || !to.name) return lk_fail_memory("labels");
    for (size_t k = 0; k < count && s == LK_OK; k++) {
        size_t before = to.levels;
        const char *at = texts[k];
        do {
            size_t n = parted ? strcspn(at, "/") : strlen(at);
            s = append(&to, at, n);
            at += n + (at[n] != 0);
        } while (*at && s == LK_OK);
        if (to.levels == before) break; /* what is finer than an empty column belongs to nothing */
    }
    to.key[to.n] = to.name[to.n] = 0;
    *key = to.key;
    *name = to.name;
    *levels = to.levels;
    return s;
}

typedef struct keyed {
    const char *key;
    size_t row;
} keyed;

static int compare(const void *a, const void *b)
{
    const keyed *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->row > y->row) - (x->row < y->row);
}

/* Length of the first `level + 1` levels of a key, 0 when it has fewer. */
static size_t prefix(const char *key, size_t level)
{
    const char *at = key;
    if (!*key) return 0;
    for (size_t k = 0;; k++) {
        at = strchrnul(at, BETWEEN);
        if (k == level) return (size_t)(at - key);
        if (!*at) return 0;
        at++;
    }
}

lk_status lk_levels_number(const char *const *keys, size_t count, size_t levels, int32_t *classes)
{
    keyed *order = lk_alloc(count, sizeof *order);
    if (!order) return lk_fail_memory("labels");
    for (size_t i = 0; i < count; i++) order[i] = (keyed){keys[i], i};
    qsort(order, count, sizeof *order, compare);
    for (size_t level = 0; level < levels; level++) {
        int32_t next = 0;
        size_t last = 0; /* length of the previous prefix; pictures of one prefix stand together */
        for (size_t i = 0; i < count; i++) {
            const char *key = order[i].key;
            size_t n = prefix(key, level);
            int32_t *class = &classes[order[i].row * levels + level];
            bool same = i && n && n == last && strncmp(key, order[i - 1].key, n) == 0;
            *class = n == 0 ? -1 - (int32_t)order[i].row : same ? next - 1 : next++;
            last = n;
        }
    }
    free(order);
    return LK_OK;
}
