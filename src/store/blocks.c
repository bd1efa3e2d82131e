#include "store/blocks.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 1u
static const char magic[8] = "LKBLOCKS";

/* The payload: this and then the entries. */
typedef struct table_header {
    uint64_t number; /* of the segment */
    uint32_t dim, dtype;
    uint64_t count;
    uint64_t last; /* checksum in the header of the last block: ties the table to these vectors */
} table_header;
_Static_assert(sizeof(table_header) == 32 && sizeof(lk_block_entry) == 24, "part of the file format");

char *lk_block_table_path(const char *segment_path)
{
    size_t stem = strlen(segment_path) - strlen(".seg");
    char *out = lk_alloc(stem + sizeof ".blocks", 1);
    if (!out) return NULL;
    memcpy(out, segment_path, stem);
    strcpy(out + stem, ".blocks");
    return out;
}

void lk_block_table_free(lk_block_table *table)
{
    free(table->entries);
    *table = (lk_block_table){0};
}

/* Reads the file; what it says of blocks is not yet compared with the segment. */
static lk_status load(const char *path, uint64_t number, size_t dim, lk_dtype dtype, table_header *h,
                      lk_block_table *out)
{
    uint8_t *bytes;
    size_t size;
    lk_status s = lk_blob_read(path, magic, VERSION, &bytes, &size);
    if (s != LK_OK) return s;
    if (size >= sizeof *h) memcpy(h, bytes, sizeof *h);
    if (size < sizeof *h || h->count != (size - sizeof *h) / sizeof(lk_block_entry) ||
        (size - sizeof *h) % sizeof(lk_block_entry) != 0 || h->number != number || h->dim != dim ||
        h->dtype != (uint32_t)dtype)
        s = lk_fail(LK_CORRUPT, "%s: is the table of another segment", path);
    out->entries = s == LK_OK ? lk_alloc(h->count, sizeof *out->entries) : NULL;
    if (s == LK_OK && !out->entries) s = lk_fail_memory(path);
    if (s == LK_OK) {
        out->count = h->count;
        memcpy(out->entries, bytes + sizeof *h, h->count * sizeof *out->entries);
    }
    free(bytes);
    return s;
}

lk_status lk_block_table_read(const char *segment_path, const lk_map *map, uint64_t number, uint64_t committed,
                              size_t dim, lk_dtype dtype, lk_block_table *out)
{
    table_header h = {0};
    *out = (lk_block_table){0};
    char *path = lk_block_table_path(segment_path);
    if (!path) return lk_fail_memory(segment_path);
    lk_status s = load(path, number, dim, dtype, &h, out);
    uint64_t offset = LK_SEGMENT_HEADER, last = LK_SEGMENT_HEADER;
    size_t within = 0;
    for (size_t i = 0; s == LK_OK && i < out->count; i++) {
        uint64_t bytes = lk_segment_block_bytes(out->entries[i].rows, dim, dtype);
        if (bytes == 0 || bytes > map->size - offset || out->entries[i].least > out->entries[i].most) {
            /* Blocks that came after this mapping are no damage: a writer is at work. */
            s = lk_fail(offset >= committed ? LK_NOT_FOUND : LK_CORRUPT, "%s: does not fit its segment", path);
            break;
        }
        last = offset;
        offset += bytes;
        within += offset <= committed;
    }
    if (s == LK_OK && out->count && lk_segment_block_sum(map, last) != h.last)
        s = lk_fail(LK_CORRUPT, "%s: is the table of other vectors", path);
    out->count = within;
    if (s != LK_OK) lk_block_table_free(out);
    free(path);
    return s;
}

static lk_status save(const char *segment_path, const lk_map *map, uint64_t number, size_t dim, lk_dtype dtype,
                      const lk_block_table *table, uint64_t last)
{
    size_t size = sizeof(table_header) + table->count * sizeof *table->entries;
    char *path = lk_block_table_path(segment_path);
    uint8_t *bytes = lk_alloc(size, 1);
    table_header h = {.number = number,
                      .dim = (uint32_t)dim,
                      .dtype = (uint32_t)dtype,
                      .count = table->count,
                      .last = lk_segment_block_sum(map, last)};
    lk_status s = path && bytes ? LK_OK : lk_fail_memory(segment_path);
    if (s == LK_OK) {
        memcpy(bytes, &h, sizeof h);
        memcpy(bytes + sizeof h, table->entries, table->count * sizeof *table->entries);
        s = lk_blob_write(path, magic, VERSION, bytes, size);
    }
    free(path);
    free(bytes);
    return s;
}

static lk_block_entry describe(const lk_block *block)
{
    lk_block_entry entry = {.least = UINT64_MAX, .rows = block->rows};
    for (size_t i = 0; i < block->rows; i++) {
        if (block->ids[i] < entry.least) entry.least = block->ids[i];
        if (block->ids[i] > entry.most) entry.most = block->ids[i];
    }
    return entry;
}

lk_status lk_block_table_update(const char *segment_path, uint64_t number, uint64_t committed, size_t dim,
                                lk_dtype dtype, size_t least, size_t *missing)
{
    lk_map map = {0};
    lk_block_table table = {0};
    lk_block block = {0};
    uint64_t offset = LK_SEGMENT_HEADER, last = 0;
    size_t fresh = 0, capacity;
    lk_status s;
    LK_TRY(lk_map_open(segment_path, &map));
    LK_TRY(lk_segment_check(&map, segment_path, number, dim, dtype));
    s = lk_block_table_read(segment_path, &map, number, committed, dim, dtype, &table);
    if (s != LK_OK && s != LK_NOT_FOUND && s != LK_CORRUPT) goto done;
    if (s == LK_CORRUPT) least = 0;
    s = LK_OK;
    for (size_t i = 0; i < table.count; i++) offset += lk_segment_block_bytes(table.entries[i].rows, dim, dtype);
    capacity = table.count;
    while (offset < committed) {
        last = offset;
        LK_TRY(lk_segment_next(&map, segment_path, committed, dim, dtype, &offset, &block));
        if (!lk_grow((void **)&table.entries, &capacity, table.count + 1, sizeof *table.entries)) {
            s = lk_fail_memory(segment_path);
            goto done;
        }
        table.entries[table.count++] = describe(&block);
        fresh++;
    }
    if (fresh > 0 && fresh >= least) {
        s = save(segment_path, &map, number, dim, dtype, &table, last);
        if (s == LK_OK) fresh = 0;
    }
    if (missing) *missing = fresh;
done:
    lk_block_table_free(&table);
    lk_map_close(&map);
    return s;
}
