/* Checking a collection: every byte that has a checksum, and that catalog and vectors agree. */
#include "store/verify.h"

#include "store/ann.h"
#include "store/blocks.h"
#include "store/features.h"

#include "base/error.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lk_check_tell(lk_check *k, const char *format, ...)
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

lk_status lk_check_index(lk_check *k, const lk_segment_row *segments, size_t count)
{
    lk_collection *c = k->collection;
    lk_ann_row row;
    lk_index_info info;
    lk_status s = lk_ann_row_read(&c->catalog, &row);
    if (s != LK_OK || row.number == 0) return s;
    if (!lk_ann_row_fits(&row, segments, count))
        return lk_fail(LK_CORRUPT, "%s: its approximate index is of other vectors", c->path);
    s = lk_collection_index_info(c, &info); /* it opens, and is of as many vectors of the same width */
    char *path = s == LK_OK ? lk_ann_path(c->path, row.number) : NULL;
    if (s == LK_OK) s = path ? lk_ann_type_named(row.kind)->verify(path) : lk_fail_memory(c->path);
    free(path);
    return s;
}

lk_held *lk_check_segment_of(lk_check *k, uint64_t number)
{
    for (size_t i = 0; i < k->count; i++)
        if (k->segments[i].number == number) return &k->segments[i];
    return NULL;
}

/* Whether the file is that segment. A whole header of another one is no damage of this file. */
static lk_status check_header(lk_check *k, const lk_segment_row *row, const lk_map *map, const char *path, lk_held *h)
{
    const lk_collection_config *config = &k->collection->manifest.config;
    lk_status s = lk_segment_check(map, path, row->number, config->dim, config->dtype);
    if (s == LK_OK) return s;
    lk_check_tell(k, "%s", lk_error_message());
    if (map->size < LK_SEGMENT_HEADER)
        h->missing = true;
    else if (lk_segment_header_intact(map))
        return LK_CONFLICT;
    else
        h->header = true;
    return LK_OK;
}

/* A block is as the table says, if that knows it; when it does not no further one is compared. */
static void check_entry(lk_check *k, const char *path, lk_block_table *table, size_t number, const lk_block *block,
                        lk_held *h)
{
    if (number >= table->count) return;
    const lk_block_entry *entry = &table->entries[number];
    bool same = entry->rows == block->rows;
    for (size_t i = 0; same && i < block->rows; i++)
        same = block->ids[i] >= entry->least && block->ids[i] <= entry->most;
    if (same) return;
    lk_check_tell(k, "%s: its table of blocks says something else of block %zu: delete the file that ends in .blocks",
                  path, number);
    table->count = 0;
    h->table = true;
}

/* A table that is missing costs time alone. */
static lk_status read_table(lk_check *k, const lk_segment_row *row, const lk_map *map, const char *path, lk_held *h,
                            lk_block_table *table)
{
    const lk_collection_config *config = &k->collection->manifest.config;
    lk_status s = lk_block_table_read(path, map, row->number, row->bytes, config->dim, config->dtype, table);
    if (s == LK_NO_MEMORY) return s;
    h->table = s != LK_OK && s != LK_NOT_FOUND;
    if (h->table) lk_check_tell(k, "%s: delete it, the next `index` run makes it anew", lk_error_message());
    return LK_OK;
}

static lk_status read_blocks(lk_check *k, const lk_segment_row *row, const lk_map *map, const char *path, lk_held *h,
                             lk_block_table *table)
{
    const lk_collection_config *config = &k->collection->manifest.config;
    uint64_t length = row->bytes < map->size ? row->bytes : map->size;
    h->ids = lk_alloc_zero((size_t)row->rows, sizeof *h->ids);
    h->flags = lk_alloc_zero((size_t)row->rows, 1);
    if (!h->ids || !h->flags) return lk_fail_memory("verification");
    if (length < row->bytes)
        lk_check_tell(k, "%s: is cut short: %zu bytes, where %" PRIu64 " were written", path, map->size, row->bytes);
    lk_block block = {0};
    size_t number = 0;
    for (uint64_t offset = LK_SEGMENT_HEADER; offset < length; number++) {
        uint64_t at = offset;
        if (lk_segment_next(map, path, length, config->dim, config->dtype, &offset, &block) != LK_OK) {
            lk_check_tell(k, "%s", lk_error_message());
            break; /* where the next block begins is not known */
        }
        if (block.first_row + block.rows > row->rows) {
            lk_check_tell(k, "%s: holds more vectors than the catalog says", path);
            break;
        }
        check_entry(k, path, table, number, &block, h);
        memcpy(h->ids + block.first_row, block.ids, block.rows * sizeof *h->ids);
        h->rows = block.first_row + block.rows;
        h->bytes = offset;
        if (lk_block_intact(&block)) {
            h->intact_rows = h->rows;
            h->intact_bytes = h->bytes;
            continue;
        }
        memset(h->flags + block.first_row, LK_ROW_DAMAGED, block.rows);
        lk_check_tell(k, "%s: the vectors %zu to %zu (block at byte %" PRIu64 ") do not match their checksum", path,
                      block.first_row, h->rows - 1, at);
    }
    if (h->rows != row->rows)
        lk_check_tell(k, "%s: %zu of %" PRIu64 " vectors can be reached", path, h->rows, row->rows);
    return LK_OK;
}

static lk_status check_segment(lk_check *k, const lk_segment_row *row)
{
    lk_collection *c = k->collection;
    lk_held *h = &k->segments[k->count++];
    *h = (lk_held){.number = row->number, .bytes = LK_SEGMENT_HEADER, .intact_bytes = LK_SEGMENT_HEADER};
    char *path = lk_collection_segment_path(c, row->number);
    if (!path) return lk_fail_memory("verification");
    lk_map map = {0};
    lk_block_table table = {0};
    lk_status s = lk_map_open(path, &map);
    if (s == LK_NOT_FOUND) {
        lk_check_tell(k, "%s", lk_error_message());
        h->missing = true;
        s = LK_OK;
    } else if (s == LK_OK) {
        s = check_header(k, row, &map, path, h);
        if (s == LK_OK && !h->missing) s = read_table(k, row, &map, path, h, &table);
        if (s == LK_OK && !h->missing) s = read_blocks(k, row, &map, path, h, &table);
    }
    lk_block_table_free(&table);
    lk_map_close(&map);
    free(path);
    return s;
}

/* Marks the rows that are dead, so that a picture that refers to one is found. */
static lk_status mark_dead(lk_check *k, lk_held *h)
{
    sqlite3_stmt *st = lk_catalog_statement(&k->collection->catalog, LK_SQL_DEAD_OF);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)h->number);
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        uint64_t row = (uint64_t)sqlite3_column_int64(st, 0);
        if (row < h->rows) h->flags[row] |= LK_ROW_USED;
    }
    sqlite3_reset(st);
    return code == SQLITE_DONE ? LK_OK : lk_catalog_fail(&k->collection->catalog, code);
}

lk_status lk_check_segments(lk_check *k, const lk_segment_row *rows, size_t count)
{
    k->segments = lk_alloc_zero(count, sizeof *k->segments);
    if (!k->segments) return lk_fail_memory("verification");
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < count; i++) s = check_segment(k, &rows[i]);
    for (size_t i = 0; s == LK_OK && i < k->count; i++) s = mark_dead(k, &k->segments[i]);
    return s;
}

void lk_check_free(lk_check *k)
{
    for (size_t i = 0; i < k->count; i++) {
        free(k->segments[i].ids);
        free(k->segments[i].flags);
    }
    free(k->segments);
    k->segments = NULL;
    k->count = 0;
}

static lk_status check_pictures(lk_check *k)
{
    sqlite3_stmt *st = lk_catalog_statement(&k->collection->catalog, LK_SQL_PLACES);
    if (!st) return LK_IO;
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(st, 0);
        uint64_t number = (uint64_t)sqlite3_column_int64(st, 1), row = (uint64_t)sqlite3_column_int64(st, 2);
        lk_held *h = lk_check_segment_of(k, number);
        if (sqlite3_column_type(st, 1) == SQLITE_NULL || !h || row >= h->rows || h->flags[row] & LK_ROW_DAMAGED)
            lk_check_tell(k, "picture %" PRId64 " has no vector that can be read", id);
        else if (h->ids[row] != (uint64_t)id)
            lk_check_tell(k, "picture %" PRId64 " refers to the vector of picture %" PRIu64, id, h->ids[row]);
        else if (h->flags[row] & LK_ROW_USED)
            lk_check_tell(k, "picture %" PRId64 " refers to a vector that is dead or used twice", id);
        else
            h->flags[row] |= LK_ROW_USED;
    }
    sqlite3_reset(st);
    if (code != SQLITE_DONE) return lk_catalog_fail(&k->collection->catalog, code);
    for (size_t i = 0; i < k->count; i++) {
        size_t loose = 0;
        for (size_t row = 0; row < k->segments[i].rows; row++) loose += !k->segments[i].flags[row];
        if (loose)
            lk_check_tell(k, "segment %" PRIu64 ": %zu vectors belong to no picture and would be found",
                          k->segments[i].number, loose);
    }
    return LK_OK;
}

void lk_check_database(lk_check *k)
{
    lk_catalog *catalog = &k->collection->catalog;
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(catalog->db, "PRAGMA integrity_check", -1, &st, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(st);
        const char *text = code == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : NULL;
        if (text && strcmp(text, "ok") != 0) lk_check_tell(k, "%s: %s", catalog->path, text);
    }
    if (code != SQLITE_DONE) lk_check_tell(k, "%s: %s", catalog->path, sqlite3_errmsg(catalog->db));
    sqlite3_finalize(st);
}

lk_status lk_check_labels(lk_check *k, const char *remedy)
{
    lk_catalog *catalog = &k->collection->catalog;
    uint64_t lacking, surplus;
    lk_status s = lk_catalog_compare_labels(catalog, &lacking, &surplus);
    if (s == LK_OK && (lacking || surplus))
        lk_check_tell(k,
                      "%s: its tables of labels lack %" PRIu64 " labels of pictures and have %" PRIu64
                      " that no picture has: %s",
                      catalog->path, lacking, surplus, remedy);
    return s;
}

lk_status lk_collection_verify(lk_collection *c, lk_report_fn report, void *user, uint64_t *problems)
{
    lk_check k = {.collection = c, .report = report, .user = user};
    lk_segment_row *rows = NULL;
    size_t count = 0;
    lk_status s = LK_OK;
    *problems = 0;
    lk_check_database(&k);
    if (k.problems == 0) { /* a damaged catalog can only mislead the rest */
        LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_READ));
        s = lk_catalog_segments(&c->catalog, &rows, &count);
        /* Which segments MANIFEST names is not compared: a writer killed between its commit and the manifest's
         * replacement leaves an older list, which costs nothing and is made anew by the next. */
        if (s == LK_OK) s = lk_check_segments(&k, rows, count);
        if (s == LK_OK) s = check_pictures(&k);
        if (s == LK_OK) s = lk_check_labels(&k, "filters find the wrong pictures");
        if (s == LK_CONFLICT) s = LK_OK; /* told */
        if (s == LK_OK) {
            s = lk_check_index(&k, rows, count);
            if (s != LK_OK && s != LK_NO_MEMORY) {
                lk_check_tell(&k, "%s (`index` with --rebuild builds it anew)", lk_error_message());
                s = LK_OK;
            }
        }
        lk_catalog_simple(&c->catalog, LK_SQL_COMMIT);
    }
    if (s == LK_OK) s = lk_features_verify(c->path, report, user, &k.problems);
    *problems = k.problems;
done:
    lk_check_free(&k);
    free(rows);
    return s;
}
