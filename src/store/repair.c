/* Mending what can be mended without guessing: pictures whose vectors are lost are told to be embedded anew, and what
 * is made of other things is dropped. All that the catalog has to know of it is one transaction. */
#include "store/verify.h"

#include "store/ann.h"
#include "store/blocks.h"
#include "store/features.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- pictures ---- */

typedef struct lost {
    int64_t *ids;
    size_t count, capacity;
} lost;

/* Pictures without a sound vector of their own; marks the rows of the others. */
static lk_status find_lost(lk_check *k, lost *out)
{
    sqlite3_stmt *st = lk_catalog_statement(&k->collection->catalog, LK_SQL_PLACES);
    lk_status s = LK_OK;
    int code = SQLITE_DONE;
    if (!st) return LK_IO;
    while (s == LK_OK && (code = sqlite3_step(st)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(st, 0);
        uint64_t row = (uint64_t)sqlite3_column_int64(st, 2);
        lk_held *h = lk_check_segment_of(k, (uint64_t)sqlite3_column_int64(st, 1));
        bool named = sqlite3_column_type(st, 1) != SQLITE_NULL && h && row < h->rows;
        if (named && h->flags[row] == 0 && h->ids[row] == (uint64_t)id)
            h->flags[row] = LK_ROW_USED;
        else if (lk_grow((void **)&out->ids, &out->capacity, out->count + 1, sizeof *out->ids))
            out->ids[out->count++] = id;
        else
            s = lk_fail_memory("repair");
    }
    sqlite3_reset(st);
    return s == LK_OK && code != SQLITE_DONE ? lk_catalog_fail(&k->collection->catalog, code) : s;
}

/* They keep their ids and labels. The next run of indexing finds that their files have changed. */
static lk_status give_up(lk_check *k, const lost *pictures)
{
    lk_collection *c = k->collection;
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < pictures->count; i++) {
        lk_record record;
        s = lk_collection_find_id(c, pictures->ids[i], &record);
        if (s != LK_OK) return s;
        lk_check_tell(k, "picture %" PRId64 " (%s): its vector is lost; the next `index` of it makes it anew",
                      record.id, record.path);
        lk_record_free(&record);
        sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_LOSE);
        if (!st) return LK_IO;
        sqlite3_bind_int64(st, 1, pictures->ids[i]);
        sqlite3_bind_text(st, 2, "its vector was damaged and is lost: index the picture anew", -1, SQLITE_STATIC);
        s = lk_catalog_run(&c->catalog, st);
    }
    return s;
}

/* ---- segments ---- */

static lk_status put_dead(lk_catalog *catalog, uint64_t segment, size_t row)
{
    sqlite3_stmt *st = lk_catalog_statement(catalog, LK_SQL_DEAD);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)segment);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)row);
    return lk_catalog_run(catalog, st);
}

/* Nothing sound comes after these. */
static void forget_damaged_end(lk_held *h)
{
    h->rows = h->intact_rows;
    h->bytes = h->intact_bytes;
}

static bool has_damage(const lk_held *h)
{
    for (size_t i = 0; i < h->rows; i++)
        if (h->flags[i] & LK_ROW_DAMAGED) return true;
    return false;
}

/* Rows that no picture refers to are dead; what comes after the last that is sound is cut off. */
static lk_status mend_segment(lk_check *k, const lk_held *h, const lk_segment_row *row)
{
    lk_collection *c = k->collection;
    const lk_collection_config *config = &c->manifest.config;
    size_t loose = 0;
    lk_status s = LK_OK;
    char *path = lk_collection_segment_path(c, row->number);
    if (!path) return lk_fail_memory("repair");
    for (size_t i = 0; s == LK_OK && i < h->rows; i++) {
        if (h->flags[i] & LK_ROW_USED) continue;
        loose += !(h->flags[i] & LK_ROW_DAMAGED);
        s = put_dead(&c->catalog, row->number, i);
    }
    if (loose) lk_check_tell(k, "%s: %zu vectors that belong to no picture are left out", path, loose);
    if (s == LK_OK && h->missing) {
        lk_check_tell(k, "%s: is lost, and made anew without vectors", path);
        s = lk_segment_create(path, row->number, config->dim, config->dtype);
    }
    if (s == LK_OK && h->header) {
        lk_check_tell(k, "%s: its header is written anew", path);
        s = lk_segment_mend_header(path, row->number, config->dim, config->dtype);
    }
    if (s != LK_OK || h->rows == row->rows) goto done;
    if (!h->missing) lk_check_tell(k, "%s: is cut off after %zu of %" PRIu64 " vectors", path, h->rows, row->rows);
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_SEGMENT_PUT);
    if (!st) {
        s = LK_IO;
        goto done;
    }
    sqlite3_bind_int64(st, 1, (sqlite3_int64)row->number);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)h->bytes);
    sqlite3_bind_int64(st, 3, (sqlite3_int64)h->rows);
    LK_TRY(lk_catalog_run(&c->catalog, st));
    if (!(st = lk_catalog_statement(&c->catalog, LK_SQL_DEAD_BEYOND))) {
        s = LK_IO;
        goto done;
    }
    sqlite3_bind_int64(st, 1, (sqlite3_int64)row->number);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)h->rows);
    s = lk_catalog_run(&c->catalog, st);
done:
    free(path);
    return s;
}

/* Once the catalog does not speak of it any more. In a new file: readers have mapped the old one, and go on in it. */
static lk_status cut_off(lk_check *k, const lk_held *h)
{
    lk_map map = {0};
    char *path = lk_collection_segment_path(k->collection, h->number);
    if (!path) return lk_fail_memory("repair");
    lk_status s = lk_map_open(path, &map);
    if (s == LK_OK && map.size > h->bytes)
        s = lk_fail_in(lk_file_write_atomic(path, map.bytes, (size_t)h->bytes), "%s: cannot be cut off", path);
    lk_map_close(&map);
    free(path);
    return s;
}

/* ---- what is made of other things ---- */

/* A table of blocks that is damaged, or knows blocks that are gone. The next writer makes it anew. */
static lk_status drop_table(lk_check *k, const lk_held *h, bool shorter)
{
    if (!h->table && !h->missing && !shorter) return LK_OK;
    char *segment = lk_collection_segment_path(k->collection, h->number);
    char *path = segment ? lk_block_table_path(segment) : NULL;
    lk_status s = path ? LK_OK : lk_fail_memory("repair");
    if (path && h->table) lk_check_tell(k, "%s: is dropped; `index` makes it anew", path);
    if (path && unlink(path) != 0 && errno != ENOENT) s = lk_fail_errno(errno, "%s: cannot be deleted", path);
    free(segment);
    free(path);
    return s;
}

static lk_status drop_index(lk_check *k)
{
    lk_segment_row *rows = NULL;
    size_t count = 0;
    lk_status s = lk_catalog_segments(&k->collection->catalog, &rows, &count);
    if (s == LK_OK) s = lk_check_index(k, rows, count);
    free(rows);
    if (s != LK_CORRUPT && s != LK_NOT_FOUND) return s == LK_UNSUPPORTED ? LK_OK : s; /* of a newer version: left */
    lk_check_tell(k, "%s: the approximate index is dropped; `index` builds it anew", lk_error_message());
    return lk_catalog_simple(&k->collection->catalog, LK_SQL_FORGET_ANN);
}

/* After all that changes which pictures have vectors. */
static lk_status mend_labels(lk_check *k)
{
    uint64_t before = k->problems;
    lk_status s = lk_check_labels(k, "they are made anew");
    return s == LK_OK && k->problems != before ? lk_catalog_make_labels(&k->collection->catalog) : s;
}

static lk_status drop_features(lk_check *k)
{
    bool damaged;
    lk_status s = lk_features_damaged(k->collection->path, &damaged);
    if (s != LK_OK || !damaged) return s;
    lk_check_tell(k, "%s/" LK_FEATURES_FILE ": is dropped; searches, or `index --local-features`, make it anew",
                  k->collection->path);
    return lk_features_remove(k->collection->path);
}

/* ---- all of it ---- */

/* In one transaction. *again: a block amid sound ones is damaged, so that the sound ones have to be written anew. */
static lk_status mend_catalog(lk_check *k, bool *again)
{
    lk_collection *c = k->collection;
    lk_segment_row *rows = NULL;
    size_t count = 0;
    lost pictures = {0};
    lk_report_fn report = k->report;
    lk_status s;
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_BEGIN));
    LK_TRY(lk_catalog_segments(&c->catalog, &rows, &count));
    k->report = NULL; /* what is wrong is told by verification; here, what is done about it */
    s = lk_check_segments(k, rows, count);
    k->report = report;
    k->problems = 0;
    LK_TRY(s);
    for (size_t i = 0; i < count; i++) forget_damaged_end(&k->segments[i]);
    LK_TRY(find_lost(k, &pictures));
    for (size_t i = 0; i < count; i++) {
        LK_TRY(mend_segment(k, &k->segments[i], &rows[i]));
        *again |= has_damage(&k->segments[i]);
    }
    LK_TRY(give_up(k, &pictures));
    LK_TRY(mend_labels(k));
    LK_TRY(drop_index(k));
    if (k->problems) LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_BUMP));
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_COMMIT));
    for (size_t i = 0; i < count; i++) {
        LK_TRY(cut_off(k, &k->segments[i]));
        LK_TRY(drop_table(k, &k->segments[i], k->segments[i].rows < rows[i].rows));
    }
    s = lk_ann_drop_orphans(c);
done:
    free(rows);
    free(pictures.ids);
    return s;
}

lk_status lk_collection_repair(const char *path, lk_report_fn report, void *user, uint64_t *repairs)
{
    lk_check k = {.report = report, .user = user};
    lk_collection *c = NULL;
    bool again = false;
    lk_status s;
    *repairs = 0;
    LK_TRY(lk_collection_open_damaged(path, &k.collection));
    k.report = NULL;
    lk_check_database(&k);
    k.report = report;
    if (k.problems) {
        s = lk_fail(LK_CORRUPT,
                    "%s: the catalog is damaged, and nothing else knows which pictures there are: restore "
                    "it from a backup, or index the pictures anew",
                    path);
        goto done;
    }
    LK_TRY(lk_collection_recover(k.collection));
    LK_TRY(mend_catalog(&k, &again));
    LK_TRY(drop_features(&k));
    *repairs = k.problems;
    lk_collection_close(k.collection);
    k.collection = NULL;
    LK_TRY(lk_collection_open(path, LK_WRITE, &c)); /* as every writer from now on */
    if (!again) goto done;
    lk_ann_row index;
    LK_TRY(lk_ann_row_read(&c->catalog, &index));
    LK_TRY(lk_collection_compact(c));
    lk_check_tell(&k, "%s: its vectors are written anew without the damaged ones%s", path,
                  index.number ? ", which its approximate index did not know: `index` builds it anew" : "");
    *repairs = k.problems;
done:
    lk_check_free(&k);
    lk_collection_close(k.collection);
    lk_collection_close(c);
    return s;
}
