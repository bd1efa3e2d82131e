/* An exact index over the mapped segments of one commit, with the approximate one over its first rows if there is one.
 */
#include "store/snapshot.h"
#include "store/blocks.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

void lk_snapshot_free(lk_snapshot *snapshot)
{
    if (!snapshot) return;
    if (snapshot->ann) snapshot->type->free(snapshot->ann);
    lk_flat_free(snapshot->tail);
    free(snapshot->starts);
    lk_flat_free(snapshot->index);
    for (size_t i = 0; i < snapshot->count; i++) lk_map_close(&snapshot->maps[i]);
    free(snapshot->maps);
    free(snapshot);
}

const lk_flat *lk_snapshot_index(const lk_snapshot *snapshot)
{
    return snapshot->index;
}

bool lk_snapshot_is_approximate(const lk_snapshot *snapshot)
{
    return snapshot->ann != NULL;
}

uint64_t lk_snapshot_stamp(const lk_snapshot *snapshot)
{
    return snapshot->stamp;
}

/* A segment only grows, and the number of dead rows too, until a compaction begins new ones. */
static uint64_t stamp_of(const lk_segment_row *segments, size_t count, const lk_flat *index)
{
    uint64_t words[2] = {lk_hash(segments, count * sizeof *segments).low, index->rows - index->live};
    return lk_hash(words, sizeof words).low;
}

/* Bitmap of the live rows of a segment, or NULL in *out when all are live. */
static lk_status read_live(lk_collection *c, const lk_segment_row *segment, uint8_t **out)
{
    *out = NULL;
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_DEAD_OF);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)segment->number);
    lk_status s = LK_OK;
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        uint64_t row = (uint64_t)sqlite3_column_int64(st, 0);
        if (!*out) {
            *out = lk_alloc((size_t)segment->rows / 8 + 1, 1);
            if (!*out) {
                s = lk_fail_memory("snapshot");
                break;
            }
            memset(*out, 0xff, (size_t)segment->rows / 8 + 1);
        }
        if (row < segment->rows) (*out)[row / 8] &= (uint8_t) ~(1u << (row % 8));
    }
    if (s == LK_OK && code != SQLITE_DONE) s = lk_catalog_fail(&c->catalog, code);
    sqlite3_reset(st);
    return s;
}

/* The bits of one block, moved to begin at bit 0 as lk_flat_attach wants them. */
static void cut_bits(const uint8_t *live, size_t first, size_t rows, uint8_t *out)
{
    memset(out, 0, rows / 8 + 1);
    for (size_t i = 0; i < rows; i++)
        if (live[(first + i) / 8] >> ((first + i) % 8) & 1) out[i / 8] |= (uint8_t)(1u << (i % 8));
}

static lk_status attach_block(lk_flat *flat, const lk_block *block, const uint8_t *bits, const lk_block_entry *known)
{
    lk_status s = lk_flat_attach(flat, block->rows, block->ids, block->codes, block->scales, bits);
    if (s == LK_OK && known) lk_flat_bound_ids(flat, known->least, known->most);
    return s;
}

static lk_status attach_segment(lk_collection *c, lk_snapshot *snapshot, const lk_segment_row *segment)
{
    const lk_collection_config *config = &c->manifest.config;
    uint8_t *live = NULL, *bits = NULL;
    lk_block_table table = {0};
    lk_map *map = &snapshot->maps[snapshot->count];
    char *path = lk_collection_segment_path(c, segment->number);
    if (!path) return lk_fail_memory("snapshot");
    lk_status s;
    LK_TRY(lk_map_open(path, map));
    snapshot->count++;
    LK_TRY(lk_segment_check(map, path, segment->number, config->dim, config->dtype));
    LK_TRY(read_live(c, segment, &live));
    if (live && !(bits = lk_alloc((size_t)segment->rows / 8 + 1, 1))) {
        s = lk_fail_memory("snapshot");
        goto done;
    }
    /* A table that is missing or damaged costs time and no results; `verify` says what is wrong with it. */
    if (lk_block_table_read(path, map, segment->number, segment->bytes, config->dim, config->dtype, &table) != LK_OK)
        table = (lk_block_table){0};
    lk_block block = {0};
    uint64_t offset = LK_SEGMENT_HEADER;
    for (size_t i = 0; offset < segment->bytes; i++) {
        const lk_block_entry *known = i < table.count ? &table.entries[i] : NULL;
        if (known)
            lk_segment_skip(map, (size_t)known->rows, config->dim, config->dtype, &offset, &block);
        else
            LK_TRY(lk_segment_next(map, path, segment->bytes, config->dim, config->dtype, &offset, &block));
        if (block.first_row + block.rows > segment->rows) {
            s = lk_fail(LK_CORRUPT, "%s: holds more vectors than the catalog says", path);
            goto done;
        }
        if (bits) cut_bits(live, block.first_row, block.rows, bits);
        if (snapshot->tail && snapshot->index->rows >= snapshot->covered)
            LK_TRY(attach_block(snapshot->tail, &block, bits, known));
        LK_TRY(attach_block(snapshot->index, &block, bits, known));
    }
done:
    lk_block_table_free(&table);
    free(live);
    free(bits);
    free(path);
    return s;
}

/* Opens the approximate index if there is one that fits. One that cannot be opened costs time and no results: searches
 * are exact then, and `verify` says what is wrong with it. */
static lk_status open_ann(lk_collection *c, lk_snapshot *snapshot, const lk_segment_row *segments, size_t count)
{
    const lk_collection_config *config = &c->manifest.config;
    lk_ann_row row;
    lk_status s = lk_ann_row_read(&c->catalog, &row);
    if (s != LK_OK || row.number == 0 || !lk_ann_row_fits(&row, segments, count)) return s;
    snapshot->type = lk_ann_type_named(row.kind);
    char *path = lk_ann_path(c->path, row.number);
    if (!path) return lk_fail_memory("snapshot");
    if (lk_ann_open(path, &row, config->dim, &snapshot->ann) != LK_OK) snapshot->ann = NULL;
    free(path);
    if (!snapshot->ann) return LK_OK;
    snapshot->covered = row.rows;
    snapshot->effort = row.effort;
    return lk_flat_new(config->dim, config->metric, config->dtype, &snapshot->tail);
}

/* Where each part begins, and whether rows that the approximate index holds have died. */
static lk_status number_rows(lk_snapshot *snapshot)
{
    const lk_flat *flat = snapshot->index;
    snapshot->starts = lk_alloc(flat->part_count + 1, sizeof *snapshot->starts);
    if (!snapshot->starts) return lk_fail_memory("snapshot");
    size_t rows = 0;
    for (size_t p = 0; p < flat->part_count; p++) {
        snapshot->starts[p] = rows;
        if (rows < snapshot->covered) snapshot->covered_dead += flat->parts[p].dead;
        rows += flat->parts[p].count;
    }
    snapshot->starts[flat->part_count] = rows;
    return LK_OK;
}

static lk_status build(lk_collection *c, lk_snapshot **out)
{
    const lk_collection_config *config = &c->manifest.config;
    lk_segment_row *segments = NULL;
    size_t count = 0;
    lk_snapshot *snapshot = lk_alloc_zero(1, sizeof *snapshot);
    if (!snapshot) return lk_fail_memory("snapshot");
    lk_status s;
    LK_TRY(lk_catalog_segments(&c->catalog, &segments, &count));
    snapshot->maps = lk_alloc_zero(count, sizeof *snapshot->maps);
    if (!snapshot->maps) {
        s = lk_fail_memory("snapshot");
        goto done;
    }
    LK_TRY(lk_flat_new(config->dim, config->metric, config->dtype, &snapshot->index));
    LK_TRY(open_ann(c, snapshot, segments, count));
    for (size_t i = 0; i < count; i++) LK_TRY(attach_segment(c, snapshot, &segments[i]));
    snapshot->stamp = stamp_of(segments, count, snapshot->index);
    if (snapshot->ann) LK_TRY(number_rows(snapshot));
    *out = snapshot;
    snapshot = NULL;
done:
    lk_snapshot_free(snapshot);
    free(segments);
    return s;
}

lk_status lk_collection_snapshot(lk_collection *c, lk_snapshot **out)
{
    *out = NULL;
    if (c->in_batch) return lk_fail(LK_INVALID, "%s: commit or roll back before taking a snapshot", c->path);
    lk_status s = LK_OK;
    /* One read transaction makes segments and dead rows agree. A compaction may delete a segment between our reading
     * its name and opening it: the catalog then names others, so look again. */
    for (int attempt = 0; attempt < 10; attempt++) {
        s = lk_catalog_simple(&c->catalog, LK_SQL_READ);
        if (s != LK_OK) return s;
        s = build(c, out);
        lk_status ended = lk_catalog_simple(&c->catalog, LK_SQL_COMMIT);
        if (s == LK_OK && ended != LK_OK) {
            lk_snapshot_free(*out);
            *out = NULL;
            s = ended;
        }
        if (s != LK_NOT_FOUND) return s;
    }
    lk_fail_in(s, "%s: a segment is missing; `verify` says what is lost", c->path);
    return LK_CORRUPT;
}
