/* Checking a collection: every byte that has a checksum, and that catalog and vectors agree. */
#include "store/ann.h"
#include "store/collection.h"
#include "store/features.h"

#include "base/error.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the segments hold, read once: the id of each row, and whether a picture refers to it. */
typedef struct held {
    uint64_t number;
    uint64_t *ids; /* [rows] */
    uint8_t *used; /* [rows] */
    size_t rows;
} held;

typedef struct check {
    lk_collection *collection;
    lk_report_fn report;
    void *user;
    uint64_t problems;
    held *segments;
    size_t count;
} check;

static void problem(check *k, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(check *k, const char *format, ...)
{
    char text[LK_ERROR_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text[lk_utf8_fit(text, sizeof text - 1)] = 0;
    k->problems++;
    if (k->report) k->report(k->user, text);
}

/* The approximate index can be read, and belongs to these segments. */
static lk_status check_index(check *k, const lk_segment_row *segments, size_t count)
{
    lk_collection *c = k->collection;
    lk_ann_row row;
    lk_index_info info;
    lk_status s = lk_ann_row_read(&c->catalog, &row);
    if (s != LK_OK || row.number == 0) return s;
    if (!lk_ann_row_fits(&row, segments, count)) problem(k, "%s: its approximate index is of other vectors", c->path);
    s = lk_collection_index_info(c, &info); /* it opens, and is of as many vectors of the same width */
    char *path = s == LK_OK ? lk_ann_path(c->path, row.number) : NULL;
    if (s == LK_OK) s = path ? lk_ann_type_named(row.kind)->verify(path) : lk_fail_memory(c->path);
    free(path);
    if (s == LK_NO_MEMORY) return s;
    if (s != LK_OK) problem(k, "%s (`index` with --rebuild builds it anew)", lk_error_message());
    return LK_OK;
}

static lk_status check_segment(check *k, const lk_segment_row *row)
{
    lk_collection *c = k->collection;
    const lk_collection_config *config = &c->manifest.config;
    held *h = &k->segments[k->count++];
    *h = (held){.number = row->number};
    char *path = lk_collection_segment_path(c, row->number);
    if (!path) return lk_fail_memory("verification");
    lk_map map = {0};
    lk_status s = lk_map_open(path, &map);
    if (s == LK_OK) s = lk_segment_check(&map, path, row->number, config->dim, config->dtype);
    if (s != LK_OK) {
        problem(k, "%s", lk_error_message());
        s = s == LK_NO_MEMORY ? s : LK_OK;
        goto done;
    }
    h->ids = lk_alloc_zero((size_t)row->rows, sizeof *h->ids);
    h->used = lk_alloc_zero((size_t)row->rows, 1);
    if (!h->ids || !h->used) {
        s = lk_fail_memory("verification");
        goto done;
    }
    lk_block block = {0};
    for (uint64_t offset = LK_SEGMENT_HEADER; offset < row->bytes;) {
        uint64_t at = offset;
        if (lk_segment_next(&map, path, row->bytes, config->dim, config->dtype, &offset, &block) != LK_OK) {
            problem(k, "%s", lk_error_message());
            break; /* where the next block begins is not known */
        }
        if (block.first_row + block.rows > row->rows) {
            problem(k, "%s: holds more vectors than the catalog says", path);
            break;
        }
        if (!lk_block_intact(&block))
            problem(k, "%s: the vectors %zu to %zu (block at byte %" PRIu64 ") do not match their checksum", path,
                    block.first_row, block.first_row + block.rows - 1, at);
        memcpy(h->ids + block.first_row, block.ids, block.rows * sizeof *h->ids);
        h->rows = block.first_row + block.rows;
    }
    if (h->rows != row->rows) problem(k, "%s: %zu of %" PRIu64 " vectors can be reached", path, h->rows, row->rows);
done:
    lk_map_close(&map);
    free(path);
    return s;
}

/* Marks the rows that are dead, so that a picture that refers to one is found. */
static lk_status mark_dead(check *k, held *h)
{
    sqlite3_stmt *st = lk_catalog_statement(&k->collection->catalog, LK_SQL_DEAD_OF);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)h->number);
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        uint64_t row = (uint64_t)sqlite3_column_int64(st, 0);
        if (row < h->rows) h->used[row] = 1;
    }
    sqlite3_reset(st);
    return code == SQLITE_DONE ? LK_OK : lk_catalog_fail(&k->collection->catalog, code);
}

static lk_status check_pictures(check *k)
{
    sqlite3_stmt *st = lk_catalog_statement(&k->collection->catalog, LK_SQL_PLACES);
    if (!st) return LK_IO;
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(st, 0);
        uint64_t number = (uint64_t)sqlite3_column_int64(st, 1), row = (uint64_t)sqlite3_column_int64(st, 2);
        held *h = NULL;
        for (size_t i = 0; i < k->count; i++)
            if (k->segments[i].number == number) h = &k->segments[i];
        if (sqlite3_column_type(st, 1) == SQLITE_NULL || !h || row >= h->rows)
            problem(k, "picture %" PRId64 " has no vector that can be read", id);
        else if (h->ids[row] != (uint64_t)id)
            problem(k, "picture %" PRId64 " refers to the vector of picture %" PRIu64, id, h->ids[row]);
        else if (h->used[row])
            problem(k, "picture %" PRId64 " refers to a vector that is dead or used twice", id);
        else
            h->used[row] = 1;
    }
    sqlite3_reset(st);
    if (code != SQLITE_DONE) return lk_catalog_fail(&k->collection->catalog, code);
    for (size_t i = 0; i < k->count; i++) {
        size_t loose = 0;
        for (size_t row = 0; row < k->segments[i].rows; row++) loose += !k->segments[i].used[row];
        if (loose)
            problem(k, "segment %" PRIu64 ": %zu vectors belong to no picture and would be found",
                    k->segments[i].number, loose);
    }
    return LK_OK;
}

/* SQLite's own check; each line that is not "ok" is a problem. */
static lk_status check_database(check *k)
{
    lk_catalog *catalog = &k->collection->catalog;
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(catalog->db, "PRAGMA integrity_check", -1, &st, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(st);
        const char *text = code == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : NULL;
        if (text && strcmp(text, "ok") != 0) problem(k, "%s: %s", catalog->path, text);
    }
    sqlite3_finalize(st);
    if (code != SQLITE_DONE) problem(k, "%s: %s", catalog->path, sqlite3_errmsg(catalog->db));
    return LK_OK;
}

lk_status lk_collection_verify(lk_collection *c, lk_report_fn report, void *user, uint64_t *problems)
{
    check k = {.collection = c, .report = report, .user = user};
    lk_segment_row *rows = NULL;
    size_t count = 0;
    *problems = 0;
    lk_status s = check_database(&k);
    if (s == LK_OK && k.problems == 0) { /* a damaged catalog can only mislead the rest */
        LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_READ));
        s = lk_catalog_segments(&c->catalog, &rows, &count);
        k.segments = lk_alloc_zero(count, sizeof *k.segments);
        if (s == LK_OK && !k.segments) s = lk_fail_memory("verification");
        /* Which segments MANIFEST names is not compared: a writer killed between its commit and the manifest's
         * replacement leaves an older list, which costs nothing and is made anew by the next. */
        for (size_t i = 0; s == LK_OK && i < count; i++) s = check_segment(&k, &rows[i]);
        for (size_t i = 0; s == LK_OK && i < k.count; i++) s = mark_dead(&k, &k.segments[i]);
        if (s == LK_OK) s = check_pictures(&k);
        if (s == LK_OK) s = check_index(&k, rows, count);
        lk_catalog_simple(&c->catalog, LK_SQL_COMMIT);
    }
    if (s == LK_OK) s = lk_features_verify(c->path, report, user, &k.problems);
    *problems = k.problems;
done:
    for (size_t i = 0; i < k.count; i++) {
        free(k.segments[i].ids);
        free(k.segments[i].used);
    }
    free(k.segments);
    free(rows);
    return s;
}
