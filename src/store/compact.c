/* Rewriting the segments without dead rows. The old ones stay untouched until the catalog has switched to the new ones
 * in one transaction; a crash before that leaves orphans, one after it leaves old files, and the next writer deletes
 * either. */
#include "store/collection.h"
#include "store/features.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The new segments as they grow, a block of rows at a time. */
typedef struct rewriter {
    lk_collection *collection;
    lk_segment_row *done; /* finished new segments and the present one, [count] */
    size_t count, capacity;
    uint64_t next_number;
    uint64_t *ids;
    float *scales;
    uint8_t *codes;
    size_t rows; /* gathered */
} rewriter;

static lk_status begin_segment(rewriter *w)
{
    lk_collection *c = w->collection;
    if (w->count && w->done[w->count - 1].bytes < LK_SEGMENT_BYTES) return LK_OK;
    if (!lk_grow((void **)&w->done, &w->capacity, w->count + 1, sizeof *w->done)) return lk_fail_memory("compaction");
    lk_segment_row fresh = {.number = w->next_number++, .bytes = LK_SEGMENT_HEADER};
    char *path = lk_collection_segment_path(c, fresh.number);
    if (!path) return lk_fail_memory("compaction");
    lk_status s = lk_segment_create(path, fresh.number, c->manifest.config.dim, c->manifest.config.dtype);
    free(path);
    if (s == LK_OK) w->done[w->count++] = fresh;
    return s;
}

static lk_status write_rows(rewriter *w)
{
    lk_collection *c = w->collection;
    if (w->rows == 0) return LK_OK;
    lk_status s = begin_segment(w);
    if (s != LK_OK) return s;
    lk_segment_row *segment = &w->done[w->count - 1];
    char *path = lk_collection_segment_path(c, segment->number);
    if (!path) return lk_fail_memory("compaction");
    s = lk_segment_append(path, segment->bytes, c->manifest.config.dim, c->manifest.config.dtype, w->rows, w->ids,
                          w->scales, w->codes, &segment->bytes);
    free(path);
    for (size_t i = 0; s == LK_OK && i < w->rows; i++) {
        sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_MOVE);
        if (!st) return LK_IO;
        sqlite3_bind_int64(st, 1, (sqlite3_int64)w->ids[i]);
        sqlite3_bind_int64(st, 2, (sqlite3_int64)segment->number);
        sqlite3_bind_int64(st, 3, (sqlite3_int64)(segment->rows + i));
        s = lk_catalog_run(&c->catalog, st);
    }
    segment->rows += w->rows;
    w->rows = 0;
    return s;
}

static lk_status read_dead(lk_collection *c, const lk_segment_row *segment, uint8_t *dead)
{
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_DEAD_OF);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)segment->number);
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        uint64_t row = (uint64_t)sqlite3_column_int64(st, 0);
        if (row < segment->rows) dead[row] = 1;
    }
    sqlite3_reset(st);
    return code == SQLITE_DONE ? LK_OK : lk_catalog_fail(&c->catalog, code);
}

static lk_status copy_segment(rewriter *w, const lk_segment_row *segment)
{
    lk_collection *c = w->collection;
    const lk_collection_config *config = &c->manifest.config;
    size_t width = lk_dtype_bytes(config->dtype, config->dim);
    lk_map map = {0};
    uint8_t *dead = lk_alloc_zero((size_t)segment->rows, 1);
    char *path = lk_collection_segment_path(c, segment->number);
    lk_status s = path && dead ? LK_OK : lk_fail_memory("compaction");
    if (s != LK_OK) goto done;
    LK_TRY(read_dead(c, segment, dead));
    LK_TRY(lk_map_open(path, &map));
    LK_TRY(lk_segment_check(&map, path, segment->number, config->dim, config->dtype));
    lk_block block = {0};
    for (uint64_t offset = LK_SEGMENT_HEADER; offset < segment->bytes;) {
        LK_TRY(lk_segment_next(&map, path, segment->bytes, config->dim, config->dtype, &offset, &block));
        bool wanted = false;
        for (size_t i = 0; i < block.rows; i++)
            wanted |= block.first_row + i < segment->rows && !dead[block.first_row + i];
        if (!wanted) continue;          /* whole or not */
        if (!lk_block_intact(&block)) { /* copying it would give damaged vectors a fresh checksum */
            s = lk_fail(LK_CORRUPT,
                        "%s: a block does not match its checksum: `verify --repair` says which pictures to index anew",
                        path);
            goto done;
        }
        for (size_t i = 0; i < block.rows; i++) {
            if (block.first_row + i >= segment->rows || dead[block.first_row + i]) continue;
            w->ids[w->rows] = block.ids[i];
            if (block.scales) w->scales[w->rows] = block.scales[i];
            memcpy(w->codes + w->rows * width, (const uint8_t *)block.codes + i * width, width);
            if (++w->rows == LK_BLOCK_ROWS) LK_TRY(write_rows(w));
        }
    }
done:
    lk_map_close(&map);
    free(path);
    free(dead);
    return s;
}

/* The catalog's side of the switch, inside the open transaction. */
static lk_status switch_catalog(rewriter *w)
{
    lk_catalog *catalog = &w->collection->catalog;
    lk_status s;
    LK_TRY(lk_catalog_simple(catalog, LK_SQL_FORGET_SEGMENTS));
    LK_TRY(lk_catalog_simple(catalog, LK_SQL_FORGET_DEAD));
    LK_TRY(lk_catalog_simple(catalog, LK_SQL_FORGET_ANN)); /* it names rows, which have moved */
    LK_TRY(lk_catalog_simple(catalog, LK_SQL_FORGET_VALUES));
    for (size_t i = 0; i < w->count; i++) {
        sqlite3_stmt *st = lk_catalog_statement(catalog, LK_SQL_SEGMENT_PUT);
        if (!st) return LK_IO;
        sqlite3_bind_int64(st, 1, (sqlite3_int64)w->done[i].number);
        sqlite3_bind_int64(st, 2, (sqlite3_int64)w->done[i].bytes);
        sqlite3_bind_int64(st, 3, (sqlite3_int64)w->done[i].rows);
        LK_TRY(lk_catalog_run(catalog, st));
    }
    LK_TRY(lk_catalog_simple(catalog, LK_SQL_BUMP));
    LK_TRY(lk_catalog_simple(catalog, LK_SQL_COMMIT));
done:
    return s;
}

lk_status lk_collection_compact(lk_collection *c)
{
    lk_status s = lk_collection_for_writing(c);
    if (s == LK_OK && c->in_batch) s = lk_collection_commit(c);
    if (s != LK_OK) return s;
    const lk_collection_config *config = &c->manifest.config;
    lk_segment_row *old = NULL;
    size_t count = 0;
    bool begun = false, switched = false;
    rewriter w = {.collection = c,
                  .ids = lk_alloc(LK_BLOCK_ROWS, sizeof *w.ids),
                  .scales = lk_alloc(LK_BLOCK_ROWS, sizeof *w.scales),
                  .codes = lk_alloc(LK_BLOCK_ROWS, lk_dtype_bytes(config->dtype, config->dim))};
    if (!w.ids || !w.scales || !w.codes) {
        s = lk_fail_memory("compaction");
        goto done;
    }
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_BEGIN));
    begun = true;
    LK_TRY(lk_catalog_segments(&c->catalog, &old, &count));
    w.next_number = c->current.number + 1;
    for (size_t i = 0; i < count; i++) LK_TRY(copy_segment(&w, &old[i]));
    LK_TRY(write_rows(&w));
    /* An empty segment keeps the count of numbers going when nothing is left: a reader that has just read a number from
     * the catalog must never find another segment under it. */
    if (count && !w.count) LK_TRY(begin_segment(&w));
    LK_TRY(switch_catalog(&w));
    switched = true;
    c->current = w.count ? w.done[w.count - 1] : (lk_segment_row){0};
    s = lk_collection_write_manifest(c);
    lk_collection_drop_orphans(c);
    if (s == LK_OK) lk_collection_table_blocks(c, 1);
    if (s == LK_OK) lk_features_prune(c->path); /* what it cannot drop costs room alone; `verify` says what is wrong */
done:
    if (begun && !switched) {
        char message[LK_ERROR_SIZE];
        strcpy(message, lk_error_message());
        if (sqlite3_get_autocommit(c->catalog.db) == 0) lk_catalog_simple(&c->catalog, LK_SQL_ROLLBACK);
        lk_collection_drop_orphans(c);
        lk_fail(s, "%s", message);
    }
    free(w.ids);
    free(w.scales);
    free(w.codes);
    free(w.done);
    free(old);
    return s;
}
