/* Gathering what to index: folders, globs, CSV files, lists. */
#include "base/arena.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "engine/csv.h"
#include "image/format.h"
#include <likeness/engine.h>

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <glob.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* An entry and when it was added, so that sorting can keep the later of two. */
typedef struct entry {
    lk_source source;
    size_t added;
} entry;

struct lk_source_list {
    lk_arena arena; /* all strings */
    entry *items;
    size_t count, capacity;
    bool sorted;
};

lk_status lk_sources_new(lk_source_list **out)
{
    *out = lk_alloc_zero(1, sizeof **out);
    return *out ? LK_OK : lk_fail_memory("list of pictures");
}

void lk_sources_free(lk_source_list *list)
{
    if (!list) return;
    lk_arena_free(&list->arena);
    free(list->items);
    free(list);
}

static int compare(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = strcmp(x->source.path, y->source.path);
    return order ? order : (x->added > y->added) - (x->added < y->added);
}

/* Sorts and drops repeats. */
static void settle(lk_source_list *list)
{
    if (list->sorted || list->count == 0) return;
    size_t kept = 0;
    qsort(list->items, list->count, sizeof *list->items, compare);
    for (size_t i = 0; i < list->count; i++) {
        if (kept && strcmp(list->items[kept - 1].source.path, list->items[i].source.path) == 0) {
            if (list->items[i].source.labels) list->items[kept - 1].source.labels = list->items[i].source.labels;
            continue;
        }
        list->items[kept++] = list->items[i];
    }
    list->count = kept;
    list->sorted = true;
}

size_t lk_sources_count(lk_source_list *list)
{
    settle(list);
    return list->count;
}

const lk_source *lk_sources_at(lk_source_list *list, size_t index)
{
    settle(list);
    return &list->items[index].source;
}

lk_status lk_sources_add_path(lk_source_list *list, const char *path, const char *labels)
{
    char *absolute;
    lk_status s = lk_path_absolute(path, &absolute);
    if (s != LK_OK) return s;
    lk_source source = {.path = lk_arena_strdup(&list->arena, absolute),
                        .labels = labels ? lk_arena_strdup(&list->arena, labels) : NULL};
    free(absolute);
    if (!source.path || (labels && !source.labels) ||
        !lk_grow((void **)&list->items, &list->capacity, list->count + 1, sizeof *list->items))
        return lk_fail_memory("list of pictures");
    list->items[list->count] = (entry){source, list->count};
    list->count++;
    list->sorted = false;
    return LK_OK;
}

/* Whether the first bytes are those of a picture. */
static bool begins_as_picture(const char *path)
{
    uint8_t head[4096];
    const char *name;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : read(fd, head, sizeof head);
    if (fd >= 0) close(fd);
    lk_picture_format format = n > 0 ? lk_picture_sniff(head, (size_t)n, &name) : LK_PICTURE_UNKNOWN;
    return format != LK_PICTURE_UNKNOWN && format != LK_PICTURE_FORBIDDEN;
}

/* Whether a name promises a picture; a name without an ending promises nothing, and the bytes are asked. Only folders
 * are sifted so: files that are named are always tried. */
static bool is_picture(const char *name, const char *path)
{
    static const char *const endings[] = {"jpg", "jpeg", "jpe", "jfif", "png",  "webp", "gif",
                                          "tif", "tiff", "bmp", "svg",  "avif", "heic", "heif"};
    const char *dot = strrchr(name, '.');
    if (!dot) return begins_as_picture(path);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot + 1, endings[i]) == 0) return true;
    return false;
}

static bool is_collection(const char *folder)
{
    char *manifest = lk_path_join(folder, "MANIFEST"), *catalog = lk_path_join(folder, "catalog.db");
    bool yes = manifest && catalog && lk_path_exists(manifest) && lk_path_exists(catalog);
    free(manifest);
    free(catalog);
    return yes;
}

static lk_status walk(lk_source_list *list, const char *folder)
{
    char *roots[] = {(char *)folder, NULL};
    /* A link is followed when it is what was named, not when it is met on the way. */
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
    if (!tree) return lk_fail_errno(errno, "%s: cannot be read", folder);
    lk_status s = LK_OK;
    FTSENT *node;
    while (s == LK_OK && (errno = 0, node = fts_read(tree))) {
        bool hidden = node->fts_level > 0 && node->fts_name[0] == '.';
        struct stat st;
        switch (node->fts_info) {
        case FTS_D:
            /* A collection may lie among its pictures: its thumbnails are not pictures of the user's. */
            if (hidden || is_collection(node->fts_path)) fts_set(tree, node, FTS_SKIP);
            break;
        case FTS_SL: /* a link to a file counts, one to a folder might run in circles */
            if (stat(node->fts_path, &st) != 0 || S_ISDIR(st.st_mode)) break;
            __attribute__((fallthrough));
        case FTS_F:
            if (!hidden && is_picture(node->fts_name, node->fts_path))
                s = lk_sources_add_path(list, node->fts_path, NULL);
            break;
        case FTS_DNR: /* below what was named, such as lost+found: ingestion counts it and says so */
            s = node->fts_level > 0 ? lk_sources_add_path(list, node->fts_path, NULL)
                                    : lk_fail_errno(node->fts_errno, "%s: the folder cannot be read", node->fts_path);
            break;
        default: break;
        }
    }
    if (s == LK_OK && errno) s = lk_fail_errno(errno, "%s: cannot be read", folder);
    fts_close(tree);
    return s;
}

static lk_status add_existing(lk_source_list *list, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return walk(list, path);
    return lk_sources_add_path(list, path, NULL);
}

lk_status lk_sources_add(lk_source_list *list, const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0) return add_existing(list, path);
    if (!strpbrk(path, "*?[{")) return lk_fail(LK_NOT_FOUND, "%s: no such file or folder", path);
    glob_t found;
    int failed = glob(path, GLOB_BRACE | GLOB_TILDE, NULL, &found);
    if (failed == GLOB_NOMATCH) return lk_fail(LK_NOT_FOUND, "%s: no file matches this pattern", path);
    if (failed) return lk_fail(LK_IO, "%s: the pattern could not be followed", path);
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < found.gl_pathc; i++) s = add_existing(list, found.gl_pathv[i]);
    globfree(&found);
    return s;
}

/* Whole numbers become JSON numbers, so that they can be compared as such; everything else, and every label, stays
 * text. */
static json_t *column_value(const char *column, const char *text)
{
    size_t n = strlen(text), digits = strspn(text[0] == '-' ? text + 1 : text, "0123456789");
    bool whole = n > 0 && n <= 15 && digits > 0 && digits == n - (text[0] == '-');
    bool canonical = text[text[0] == '-'] != '0' || strcmp(text, "0") == 0; /* 007 is a name, not a number */
    if (whole && canonical && strcmp(column, "label") != 0) return json_integer(atoll(text));
    return json_string(text);
}

lk_status lk_sources_label_by_folder(lk_source_list *list)
{
    settle(list); /* of two entries with one path the one that has labels keeps them */
    for (size_t i = 0; i < list->count; i++) {
        lk_source *source = &list->items[i].source;
        const char *end = strrchr(source->path, '/'), *start = end;
        while (start > source->path && start[-1] != '/') start--;
        if (source->labels || start == end || !lk_utf8_valid(source->path))
            continue; /* that one is passed over later */
        json_t *labels = json_pack("{s:s%}", "label", start, (size_t)(end - start));
        char *text = labels ? json_dumps(labels, JSON_COMPACT) : NULL;
        if (text) source->labels = lk_arena_strdup(&list->arena, text);
        free(text);
        json_decref(labels);
        if (!source->labels) return lk_fail_memory("labels");
    }
    return LK_OK;
}

lk_status lk_sources_add_csv(lk_source_list *list, const char *csv_path)
{
    lk_csv csv;
    lk_status s = lk_csv_open(csv_path, &csv);
    if (s != LK_OK) return s;
    char *folder = NULL, *joined = NULL, *text = NULL;
    char **columns = NULL;
    size_t count = 0;
    json_t *labels = NULL;
    bool more;
    LK_TRY(lk_csv_next(&csv, &more));
    size_t path_column = more ? lk_csv_column(&csv, "path") : SIZE_MAX;
    if (path_column == SIZE_MAX) {
        s = lk_fail(LK_CORRUPT, "%s: the first line must name the columns, one of them `path`", csv_path);
        goto done;
    }
    count = csv.count;
    columns = lk_alloc_zero(count, sizeof *columns);
    folder = strdup(csv_path);
    if (!columns || !folder) goto memory;
    for (size_t i = 0; i < count; i++)
        if (!(columns[i] = strdup(csv.fields[i]))) goto memory;
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder ? 1 : 0] = 0;
    else
        strcpy(folder, ".");
    for (;;) {
        LK_TRY(lk_csv_next(&csv, &more));
        if (!more) break;
        if (csv.fields[path_column][0] == 0) {
            s = lk_fail(LK_CORRUPT, "%s: line %zu: the path is empty", csv_path, csv.row_line);
            goto done;
        }
        labels = json_object();
        for (size_t i = 0; i < count; i++) {
            if (i == path_column || csv.fields[i][0] == 0) continue;
            if (json_object_set_new(labels, columns[i], column_value(columns[i], csv.fields[i])) != 0) {
                s = lk_fail(LK_CORRUPT, "%s: line %zu: the column %s is not UTF-8 text", csv_path, csv.row_line,
                            columns[i]);
                goto done;
            }
        }
        text = json_dumps(labels, JSON_COMPACT);
        joined = lk_path_join(folder, csv.fields[path_column]);
        if (!text || !joined) goto memory;
        LK_TRY(lk_sources_add_path(list, joined, text));
        free(text);
        free(joined);
        json_decref(labels);
        text = joined = NULL;
        labels = NULL;
    }
    goto done;
memory:
    s = lk_fail_memory(csv_path);
done:
    json_decref(labels);
    free(text);
    free(joined);
    free(folder);
    for (size_t i = 0; columns && i < count; i++) free(columns[i]);
    free(columns);
    lk_csv_close(&csv);
    return s;
}
