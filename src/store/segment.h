/* Vector segments: append-only files of checksummed blocks, laid out so that a search runs over the mapped bytes.
 *
 * The layout is in docs/format.md. What lies beyond the length that the catalog calls committed does not exist. */
#ifndef LK_STORE_SEGMENT_H
#define LK_STORE_SEGMENT_H

#include "base/file.h"
#include <likeness/index.h>

/* The rows of one block, pointing into the mapping. */
typedef struct lk_block {
    size_t first_row; /* of the segment */
    size_t rows;
    const uint64_t *ids;
    const float *scales; /* LK_I8 only */
    const void *codes;
    const uint8_t *payload; /* what the checksum covers */
    size_t payload_bytes;
    uint64_t sum[2];
} lk_block;

enum { LK_SEGMENT_HEADER = 64 };
#define LK_SEGMENT_BYTES ((uint64_t)256 << 20) /* a segment is not begun anew before it is this long */

/* Creates the file with its header and makes both durable. LK_IO. */
lk_status lk_segment_create(const char *path, uint64_t number, size_t dim, lk_dtype dtype);

/* Appends one block at `offset` (the end of what is committed or written since) and fsyncs; *end receives the new end.
 * On failure the file may be longer than before, which means nothing. scales is NULL unless dtype is LK_I8. */
lk_status lk_segment_append(const char *path, uint64_t offset, size_t dim, lk_dtype dtype, size_t rows,
                            const uint64_t *ids, const float *scales, const void *codes, uint64_t *end);

/* Checks the header of a mapped segment. LK_CORRUPT, LK_UNSUPPORTED. */
lk_status lk_segment_check(const lk_map *map, const char *path, uint64_t number, size_t dim, lk_dtype dtype);

/* Whether a mapped segment has a header that is as it was written, whatever it says. */
bool lk_segment_header_intact(const lk_map *map);
/* Writes the header of a file anew, in place. LK_IO. */
lk_status lk_segment_mend_header(const char *path, uint64_t number, size_t dim, lk_dtype dtype);

/* Reads the block at *offset (start with LK_SEGMENT_HEADER) of the first `committed` bytes and moves *offset behind it;
 * first_row counts on from the block before (start with a zeroed block). Only the block's header is checked.
 * LK_CORRUPT. */
lk_status lk_segment_next(const lk_map *map, const char *path, uint64_t committed, size_t dim, lk_dtype dtype,
                          uint64_t *offset, lk_block *block);

/* What a block of so many rows takes, its header included; 0 when there is no such block. */
uint64_t lk_segment_block_bytes(uint64_t rows, size_t dim, lk_dtype dtype);
/* As lk_segment_next where the number of rows is known and the block lies within the mapping: nothing of it is read, so
 * that its sum is not there. */
void lk_segment_skip(const lk_map *map, size_t rows, size_t dim, lk_dtype dtype, uint64_t *offset, lk_block *block);
/* The checksum in the header of the block at offset, which is not checked. */
uint64_t lk_segment_block_sum(const lk_map *map, uint64_t offset);

/* Whether the block's bytes are those that were written. */
bool lk_block_intact(const lk_block *block);

#endif
