#include "store/segment.h"

#include "base/error.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENDIAN_MARK 0x01020304u
#define VERSION 1u
#define MOST_ROWS ((uint32_t)1 << 28)

typedef struct segment_header {
    char magic[8]; /* "LKSEG" */
    uint32_t version, endian;
    uint64_t number;
    uint32_t dim, dtype;
    uint64_t zero[3];
    uint64_t sum; /* low half of XXH3-128 of the 56 bytes before */
} segment_header;
_Static_assert(sizeof(segment_header) == LK_SEGMENT_HEADER, "part of the file format");

typedef struct block_header {
    char magic[4]; /* "LKBK" */
    uint32_t rows;
    uint64_t payload; /* bytes after this header */
    uint64_t sum[2];  /* XXH3-128 of the payload: low, high */
    uint64_t zero[3];
    uint64_t header; /* low half of XXH3-128 of the 56 bytes before */
} block_header;
_Static_assert(sizeof(block_header) == 64, "part of the file format");

static const char segment_magic[8] = "LKSEG", block_magic[4] = {'L', 'K', 'B', 'K'};

static size_t padded(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

static size_t payload_bytes(size_t rows, size_t dim, lk_dtype dtype)
{
    return padded(rows * sizeof(uint64_t)) + (dtype == LK_I8 ? padded(rows * sizeof(float)) : 0) +
           padded(rows * lk_dtype_bytes(dtype, dim));
}

static segment_header make_header(uint64_t number, size_t dim, lk_dtype dtype)
{
    segment_header h = {
        .version = VERSION, .endian = ENDIAN_MARK, .number = number, .dim = (uint32_t)dim, .dtype = dtype};
    memcpy(h.magic, segment_magic, sizeof h.magic);
    h.sum = lk_hash(&h, 56).low;
    return h;
}

lk_status lk_segment_create(const char *path, uint64_t number, size_t dim, lk_dtype dtype)
{
    segment_header h = make_header(number, dim, dtype);
    return lk_file_write_atomic(path, &h, sizeof h);
}

static lk_status write_at(int fd, const char *path, const void *bytes, size_t size, uint64_t offset)
{
    const char *p = bytes;
    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lk_fail_errno(errno, "%s: cannot be written", path);
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return LK_OK;
}

lk_status lk_segment_append(const char *path, uint64_t offset, size_t dim, lk_dtype dtype, size_t rows,
                            const uint64_t *ids, const float *scales, const void *codes, uint64_t *end)
{
    size_t payload = payload_bytes(rows, dim, dtype), at = sizeof(block_header);
    uint8_t *bytes = lk_alloc_zero(sizeof(block_header) + payload, 1);
    if (!bytes) return lk_fail_memory("block of vectors");
    memcpy(bytes + at, ids, rows * sizeof *ids);
    at += padded(rows * sizeof *ids);
    if (dtype == LK_I8) {
        memcpy(bytes + at, scales, rows * sizeof *scales);
        at += padded(rows * sizeof *scales);
    }
    memcpy(bytes + at, codes, rows * lk_dtype_bytes(dtype, dim));
    lk_hash128 sum = lk_hash(bytes + sizeof(block_header), payload);
    block_header h = {.rows = (uint32_t)rows, .payload = payload, .sum = {sum.low, sum.high}};
    memcpy(h.magic, block_magic, sizeof h.magic);
    h.header = lk_hash(&h, 56).low;
    memcpy(bytes, &h, sizeof h);
    lk_status s;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        s = lk_fail_errno(errno, "%s: cannot be opened for writing", path);
        goto done;
    }
    LK_TRY(write_at(fd, path, bytes, sizeof h + payload, offset));
    if (fdatasync(fd) != 0) s = lk_fail_errno(errno, "%s: cannot be written", path);
    *end = offset + sizeof h + payload;
done:
    if (fd >= 0) close(fd);
    free(bytes);
    return s;
}

lk_status lk_segment_mend_header(const char *path, uint64_t number, size_t dim, lk_dtype dtype)
{
    segment_header h = make_header(number, dim, dtype);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return lk_fail_errno(errno, "%s: cannot be opened for writing", path);
    lk_status s = write_at(fd, path, &h, sizeof h, 0);
    if (s == LK_OK && fdatasync(fd) != 0) s = lk_fail_errno(errno, "%s: cannot be written", path);
    close(fd);
    return s;
}

bool lk_segment_header_intact(const lk_map *map)
{
    segment_header h;
    if (map->size < sizeof h) return false;
    memcpy(&h, map->bytes, sizeof h);
    return memcmp(h.magic, segment_magic, sizeof h.magic) == 0 && h.sum == lk_hash(&h, 56).low;
}

lk_status lk_segment_check(const lk_map *map, const char *path, uint64_t number, size_t dim, lk_dtype dtype)
{
    segment_header h;
    if (map->size < sizeof h) return lk_fail(LK_CORRUPT, "%s: is cut short (%zu bytes)", path, map->size);
    memcpy(&h, map->bytes, sizeof h);
    if (memcmp(h.magic, segment_magic, sizeof h.magic) != 0)
        return lk_fail(LK_CORRUPT, "%s: is not a vector segment", path);
    if (h.endian != ENDIAN_MARK)
        return lk_fail(LK_UNSUPPORTED, "%s: was written on a machine with another byte order", path);
    if (h.sum != lk_hash(&h, 56).low) return lk_fail(LK_CORRUPT, "%s: the header's checksum does not match", path);
    if (h.version > VERSION)
        return lk_fail(LK_UNSUPPORTED, "%s: has format version %u; this program knows up to %u: use a newer one", path,
                       h.version, VERSION);
    if (h.number != number || h.dim != dim || h.dtype != (uint32_t)dtype)
        return lk_fail(LK_CORRUPT, "%s: holds another segment or vectors of another shape than the catalog says", path);
    return LK_OK;
}

uint64_t lk_segment_block_bytes(uint64_t rows, size_t dim, lk_dtype dtype)
{
    return rows == 0 || rows > MOST_ROWS ? 0 : sizeof(block_header) + payload_bytes(rows, dim, dtype);
}

void lk_segment_skip(const lk_map *map, size_t rows, size_t dim, lk_dtype dtype, uint64_t *offset, lk_block *block)
{
    const uint8_t *p = map->bytes + *offset + sizeof(block_header);
    *block = (lk_block){.first_row = block->first_row + block->rows,
                        .rows = rows,
                        .payload = p,
                        .payload_bytes = payload_bytes(rows, dim, dtype)};
    block->ids = (const uint64_t *)(const void *)p;
    p += padded(rows * sizeof(uint64_t));
    if (dtype == LK_I8) {
        block->scales = (const float *)(const void *)p;
        p += padded(rows * sizeof(float));
    }
    block->codes = p;
    *offset += sizeof(block_header) + block->payload_bytes;
}

uint64_t lk_segment_block_sum(const lk_map *map, uint64_t offset)
{
    block_header h;
    memcpy(&h, map->bytes + offset, sizeof h);
    return h.header;
}

lk_status lk_segment_next(const lk_map *map, const char *path, uint64_t committed, size_t dim, lk_dtype dtype,
                          uint64_t *offset, lk_block *block)
{
    block_header h;
    if (committed > map->size)
        return lk_fail(LK_CORRUPT, "%s: is cut short: %zu bytes, where %llu were written", path, map->size,
                       (unsigned long long)committed);
    if (committed - *offset < sizeof h) return lk_fail(LK_CORRUPT, "%s: a block is cut short", path);
    memcpy(&h, map->bytes + *offset, sizeof h);
    if (memcmp(h.magic, block_magic, sizeof h.magic) != 0 || h.header != lk_hash(&h, 56).low || h.rows == 0 ||
        h.rows > MOST_ROWS || h.payload != payload_bytes(h.rows, dim, dtype) ||
        h.payload > committed - *offset - sizeof h)
        return lk_fail(LK_CORRUPT, "%s: the block at byte %llu is damaged", path, (unsigned long long)*offset);
    lk_segment_skip(map, h.rows, dim, dtype, offset, block);
    memcpy(block->sum, h.sum, sizeof h.sum);
    return LK_OK;
}

bool lk_block_intact(const lk_block *block)
{
    lk_hash128 sum = lk_hash(block->payload, block->payload_bytes);
    return sum.low == block->sum[0] && sum.high == block->sum[1];
}
