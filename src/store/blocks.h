/* The table of a segment's blocks, a file beside it: how many rows each has and between which ids these lie. With it a
 * snapshot is made, and a picture found, without reading a block. It says nothing that the blocks do not say: without
 * it their headers are read one after another, so it may lag behind, and whoever deletes it loses time alone. */
#ifndef LK_STORE_BLOCKS_H
#define LK_STORE_BLOCKS_H

#include "store/segment.h"

typedef struct lk_block_entry {
    uint64_t least, most; /* of its ids */
    uint64_t rows;
} lk_block_entry;

/* The first `count` blocks of a segment. Zero-initialised it says nothing of any. */
typedef struct lk_block_table {
    lk_block_entry *entries;
    size_t count;
} lk_block_table;

/* "…/000001.seg" -> malloc'ed "…/000001.blocks" */
char *lk_block_table_path(const char *segment_path);

/* Reads the table of a mapped segment. What it says of the places of blocks fits the first `committed` bytes; entries
 * of later ones are left out. LK_NOT_FOUND; LK_CORRUPT when it is damaged or of another segment; LK_UNSUPPORTED. */
lk_status lk_block_table_read(const char *segment_path, const lk_map *map, uint64_t number, uint64_t committed,
                              size_t dim, lk_dtype dtype, lk_block_table *out);
void lk_block_table_free(lk_block_table *table);

/* Brings the table of a segment up to date when at least `least` of its committed blocks are not in it, or when it is
 * damaged. *missing, if not NULL, is how many are not in it afterwards. LK_CORRUPT when a block's header is damaged,
 * and as reading and writing. */
lk_status lk_block_table_update(const char *segment_path, uint64_t number, uint64_t committed, size_t dim,
                                lk_dtype dtype, size_t least, size_t *missing);

#endif
