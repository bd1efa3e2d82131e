#include "store/ann.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "index/auto.h"
#include "index/flat.h"
#include "store/collection.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STALE_SHARE = 5, /* one row in so many new or dead, and the index is built anew */
    TUNING_K = 10    /* results that the effort is measured with */
};
#define DEFAULT_RECALL 0.98

/* ---- the catalog's row ---- */

lk_status lk_ann_row_read(lk_catalog *catalog, lk_ann_row *out)
{
    *out = (lk_ann_row){0};
    if (catalog->schema < 2) return LK_OK; /* written before there were indexes */
    sqlite3_stmt *st = lk_catalog_statement(catalog, catalog->schema < 3 ? LK_SQL_ANN_2 : LK_SQL_ANN);
    if (!st) return LK_IO;
    int code = sqlite3_step(st);
    if (code == SQLITE_ROW) {
        out->number = (uint64_t)sqlite3_column_int64(st, 0);
        const char *kind = (const char *)sqlite3_column_text(st, 1);
        snprintf(out->kind, sizeof out->kind, "%s", kind ? kind : "");
        out->rows = (uint64_t)sqlite3_column_int64(st, 2);
        out->segment = (uint64_t)sqlite3_column_int64(st, 3);
        out->segment_rows = (uint64_t)sqlite3_column_int64(st, 4);
        out->vectors = (uint64_t)sqlite3_column_int64(st, 5);
        out->effort = (unsigned)sqlite3_column_int64(st, 6);
        out->recall = sqlite3_column_double(st, 7);
        const char *why = catalog->schema >= 3 ? (const char *)sqlite3_column_text(st, 8) : NULL;
        snprintf(out->why, sizeof out->why, "%s", why ? why : "");
    }
    lk_status s = code == SQLITE_ROW || code == SQLITE_DONE ? LK_OK : lk_catalog_fail(catalog, code);
    sqlite3_reset(st);
    return s;
}

/* Inside an open transaction. row NULL: there is none any more. */
static lk_status write_row(lk_catalog *catalog, const lk_ann_row *row)
{
    lk_status s = lk_catalog_simple(catalog, LK_SQL_FORGET_ANN);
    if (s != LK_OK || !row) return s;
    sqlite3_stmt *st = lk_catalog_statement(catalog, LK_SQL_ANN_PUT);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)row->number);
    sqlite3_bind_text(st, 2, row->kind, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 3, (sqlite3_int64)row->rows);
    sqlite3_bind_int64(st, 4, (sqlite3_int64)row->segment);
    sqlite3_bind_int64(st, 5, (sqlite3_int64)row->segment_rows);
    sqlite3_bind_int64(st, 6, (sqlite3_int64)row->vectors);
    sqlite3_bind_int64(st, 7, row->effort);
    sqlite3_bind_double(st, 8, row->recall);
    sqlite3_bind_text(st, 9, row->why, -1, SQLITE_STATIC);
    return lk_catalog_run(catalog, st);
}

bool lk_ann_row_fits(const lk_ann_row *row, const lk_segment_row *segments, size_t count)
{
    uint64_t rows = 0;
    for (size_t i = 0; i < count && segments[i].number < row->segment; i++) rows += segments[i].rows;
    for (size_t i = 0; i < count; i++)
        if (segments[i].number == row->segment)
            return segments[i].rows >= row->segment_rows && rows + row->segment_rows == row->rows;
    return false;
}

char *lk_ann_path(const char *collection_path, uint64_t number)
{
    char *path = NULL;
    return asprintf(&path, "%s/index/%04llu.ann", collection_path, (unsigned long long)number) < 0 ? NULL : path;
}

lk_status lk_ann_open(const char *path, const lk_ann_row *row, size_t dim, void **out)
{
    const lk_ann_type *type = lk_ann_type_named(row->kind);
    lk_ann_size size;
    *out = NULL;
    if (!type || !type->open) return lk_fail(LK_UNSUPPORTED, "%s: is of an unknown kind, %s", path, row->kind);
    lk_status s = type->open(path, out);
    if (s != LK_OK) return s;
    type->size(*out, &size);
    if (size.dim == dim && size.vectors == row->vectors) return LK_OK;
    type->free(*out);
    *out = NULL;
    return lk_fail(LK_CORRUPT, "%s: is the index of other vectors than the catalog says", path);
}

/* Also what a killed writer left half written ("0007.ann.123-0.tmp"). */
static void drop_other_files(lk_collection *c, uint64_t number)
{
    char *folder = lk_path_join(c->path, "index");
    DIR *dir = folder ? opendir(folder) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        unsigned long long found = 0;
        int end = 0;
        if (sscanf(e->d_name, "%llu.ann%n", &found, &end) != 1 || !end) continue;
        if (e->d_name[end] || found != number) unlinkat(dirfd(dir), e->d_name, 0); /* readers that mapped it keep it */
    }
    if (dir) closedir(dir);
    free(folder);
}

lk_status lk_ann_drop_orphans(lk_collection *c)
{
    lk_ann_row row;
    lk_status s = lk_ann_row_read(&c->catalog, &row);
    if (s == LK_OK) drop_other_files(c, row.number);
    return s;
}

/* ---- building ---- */

/* The live rows of a flat index as one array. ids are row numbers counted over all parts, dead rows too. */
typedef struct gathered {
    float *vectors;
    uint64_t *rows;
    size_t n;
} gathered;

static void free_gathered(gathered *g)
{
    free(g->vectors);
    free(g->rows);
}

static lk_status gather(const lk_flat *flat, gathered *out)
{
    size_t dim = flat->dim, row = 0;
    *out = (gathered){.vectors = lk_alloc_aligned(flat->live * dim, sizeof(float)),
                      .rows = lk_alloc(flat->live, sizeof(uint64_t))};
    if (!out->vectors || !out->rows)
        return lk_fail(LK_NO_MEMORY, "out of memory: building an index of %zu vectors of width %zu takes %zu MiB",
                       flat->live, dim, flat->live * dim * sizeof(float) >> 20);
    for (size_t p = 0; p < flat->part_count; p++) {
        const lk_flat_part *part = &flat->parts[p];
        for (size_t r = 0; r < part->count; r++, row++) {
            if (!lk_flat_is_live(part, r)) continue;
            lk_decode_rows(flat->kernels, flat->dtype, dim, 1, part->codes + r * flat->row_bytes,
                           part->scales ? part->scales + r : NULL, out->vectors + out->n * dim);
            out->rows[out->n++] = row;
        }
    }
    return LK_OK;
}

static lk_status replace_row(lk_collection *c, const lk_ann_row *row)
{
    lk_status s = lk_catalog_simple(&c->catalog, LK_SQL_BEGIN);
    if (s != LK_OK) return s;
    LK_TRY(write_row(&c->catalog, row));
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_BUMP));
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_COMMIT));
    drop_other_files(c, row ? row->number : 0);
done:
    if (s != LK_OK && sqlite3_get_autocommit(c->catalog.db) == 0) {
        char message[LK_ERROR_SIZE];
        strcpy(message, lk_error_message());
        lk_catalog_simple(&c->catalog, LK_SQL_ROLLBACK);
        lk_fail(s, "%s", message);
    }
    return s;
}

static lk_status build_kind(lk_context *context, lk_collection *c, const lk_ann_type *type,
                            const lk_index_options *options, const lk_flat *flat, lk_ann_row *row)
{
    gathered g = {0};
    void *index = NULL;
    char *folder = lk_path_join(c->path, "index"), *path = lk_ann_path(c->path, row->number);
    lk_status s = folder && path ? lk_make_dirs(folder) : lk_fail_memory("index");
    if (s != LK_OK) goto done;
    LK_TRY(gather(flat, &g));
    lk_ann_input input = {.n = g.n,
                          .dim = flat->dim,
                          .metric = flat->metric,
                          .vectors = g.vectors,
                          .ids = g.rows,
                          .memory_limit = options->memory_limit,
                          .seed = options->seed};
    LK_TRY(lk_fail_in(type->build(context, &input, &index), "%s: its %s index", c->path, type->name));
    LK_TRY(lk_ann_tune(context, type, index, &input, TUNING_K, LK_ANN_ASKED * TUNING_K,
                       options->recall > 0 ? options->recall : DEFAULT_RECALL, 0, &row->effort, &row->recall));
    LK_TRY(type->save(index, path));
    LK_TRY(lk_folder_sync(c->path)); /* the folder of indexes may be new */
    snprintf(row->kind, sizeof row->kind, "%s", type->name);
    row->vectors = g.n;
    s = replace_row(c, row);
done:
    if (index) type->free(index);
    free_gathered(&g);
    free(folder);
    free(path);
    return s;
}

/* What serves a collection of so many vectors best: *out NULL = the exact index, which lies in mapped files. */
static lk_status choose(const lk_flat *flat, uint64_t memory, const lk_ann_type **out, char *why, size_t size)
{
    lk_status s = lk_ann_choose(flat->live, flat->dim, false, memory, lk_ann_machine(), out, why, size);
    if (s == LK_OK && strcmp((*out)->name, "flat") == 0) *out = NULL;
    return s;
}

static bool is_fresh(const lk_ann_row *row, const char *kind, const lk_flat *flat)
{
    uint64_t later = flat->rows - row->rows, in_it = flat->live > later ? flat->live - later : 0;
    uint64_t died = row->vectors > in_it ? row->vectors - in_it : 0; /* at least */
    return row->number && strcmp(row->kind, kind) == 0 && (later + died) * STALE_SHARE <= flat->live;
}

/* An index of another format, or a damaged one, is as good as none. */
static bool can_be_opened(const lk_collection *c, const lk_ann_row *row)
{
    void *index = NULL;
    char *path = lk_ann_path(c->path, row->number);
    lk_status s = path ? lk_ann_open(path, row, c->manifest.config.dim, &index) : lk_fail_memory("index");
    if (s == LK_OK) lk_ann_type_named(row->kind)->free(index);
    free(path);
    return s == LK_OK;
}

lk_status lk_collection_build_index(lk_context *context, lk_collection *c, const lk_index_options *options)
{
    static const lk_index_options defaults = {0};
    if (!options) options = &defaults;
    lk_ann_row row;
    lk_status s = lk_collection_for_writing(c);
    if (s == LK_OK) s = lk_ann_row_read(&c->catalog, &row);
    if (s != LK_OK) return s;
    const char *kind = options->kind ? options->kind : row.number ? row.kind : "auto";
    bool automatic = strcmp(kind, "auto") == 0, exact = strcmp(kind, "flat") == 0;
    const lk_ann_type *type = automatic || exact ? NULL : lk_ann_type_named(kind);
    if (!automatic && !exact && !type)
        return lk_fail(LK_INVALID, "there is no kind of index named %s: auto, flat, graph or partitioned", kind);
    if (c->in_batch) s = lk_collection_commit(c);
    if (s == LK_OK) lk_collection_table_blocks(c, 1);
    lk_snapshot *snapshot = NULL;
    lk_segment_row *segments = NULL;
    size_t count = 0;
    uint64_t version;
    LK_TRY(s);
    LK_TRY(lk_collection_snapshot(c, &snapshot));
    LK_TRY(lk_collection_version(c, &version));
    LK_TRY(lk_catalog_segments(&c->catalog, &segments, &count));
    const lk_flat *flat = lk_snapshot_index(snapshot);
    char why[sizeof row.why] = "";
    if (automatic) LK_TRY(lk_fail_in(choose(flat, options->memory_limit, &type, why, sizeof why), "%s", c->path));
    if (flat->live == 0) type = NULL;
    if (!type) {
        if (row.number) s = replace_row(c, NULL);
        goto done;
    }
    bool fits = row.number && lk_ann_row_fits(&row, segments, count);
    if (!options->always && fits && is_fresh(&row, type->name, flat)) {
        if (can_be_opened(c, &row)) goto done;
        lk_log(context, LK_LOG_WARN, "the index is built anew: %s", lk_error_message());
    }
    lk_log(context, LK_LOG_INFO, "building the %s index of %zu vectors", type->name, flat->live);
    /* Every number serves once, also when an index was given up in between: a reader that has just read a number must
     * never find another index under it. */
    lk_ann_row fresh = {.number = version + 1,
                        .rows = flat->rows,
                        .segment = segments[count - 1].number,
                        .segment_rows = segments[count - 1].rows};
    memcpy(fresh.why, why, sizeof why);
    s = build_kind(context, c, type, options, flat, &fresh);
done:
    lk_snapshot_free(snapshot);
    free(segments);
    return s;
}

/* What there is to tell when every search is exact. */
static lk_status tell_flat(lk_collection *c, lk_index_info *out)
{
    lk_collection_stats stats;
    const lk_ann_type *type;
    lk_status s = lk_collection_stats_of(c, &stats);
    if (s != LK_OK || lk_ann_choose(stats.indexed, c->manifest.config.dim, false, 0, lk_ann_machine(), &type, out->why,
                                    sizeof out->why) != LK_OK)
        return s;
    if (strcmp(type->name, "flat") != 0) out->why[0] = 0;
    return LK_OK;
}

static lk_status tell(lk_collection *c, const lk_ann_row *row, lk_index_info *out)
{
    const lk_ann_type *type = lk_ann_type_named(row->kind);
    char *path = lk_ann_path(c->path, row->number);
    void *index = NULL;
    lk_status s = path ? lk_ann_open(path, row, c->manifest.config.dim, &index) : lk_fail_memory("index");
    if (s == LK_OK) {
        lk_ann_size size;
        type->size(index, &size);
        *out = (lk_index_info){.kind = type->name,
                               .vectors = row->vectors,
                               .bytes = size.disk,
                               .resident = size.resident,
                               .effort = row->effort,
                               .recall = row->recall};
        memcpy(out->why, row->why, sizeof out->why);
        type->describe(index, out->description, sizeof out->description);
        type->free(index);
    }
    free(path);
    return s;
}

lk_status lk_collection_index_info(lk_collection *c, lk_index_info *out)
{
    lk_ann_row row;
    lk_status s = LK_OK;
    /* A writer may replace the index between our reading its number and opening it: then there is another number. */
    for (uint64_t before = 0;; before = row.number) {
        *out = (lk_index_info){.kind = "flat", .recall = 1};
        lk_status known = lk_ann_row_read(&c->catalog, &row);
        if (known != LK_OK) return known;
        if (row.number == 0) return tell_flat(c, out);
        if (s == LK_NOT_FOUND && row.number == before) return s;
        s = tell(c, &row, out);
        if (s != LK_NOT_FOUND) return s;
    }
}
