/* Vector segments: every block that is handed out must lie within the file. The first byte chooses the type of vectors
 * and whether the checksums of headers are put right, so that what they guard is reached too. */
#include "fuzz.h"
#include "store/segment.h"

enum { DIM = 3, NUMBER = 1, HEADER_SUM = 56 };

static void mend(uint8_t *header)
{
    uint64_t sum = lk_hash(header, HEADER_SUM).low;
    memcpy(header + HEADER_SUM, &sum, sizeof sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < 1 + LK_SEGMENT_HEADER) return 0;
    lk_dtype dtype = (lk_dtype)(bytes[0] % 3);
    int mending = bytes[0] & 64;
    size_t n = size - 1;
    uint8_t *copy = aligned_alloc(64, (n + 63) / 64 * 64);
    if (!copy) abort();
    memcpy(copy, bytes + 1, n);
    lk_map map = {copy, n};
    if (mending) mend(copy);
    volatile uint8_t touched = 0;
    lk_block block = {0};
    if (lk_segment_check(&map, "fuzz", NUMBER, DIM, dtype) == LK_OK) {
        for (uint64_t offset = LK_SEGMENT_HEADER; offset < n;) {
            if (mending && n - offset >= 64) mend(copy + offset);
            if (lk_segment_next(&map, "fuzz", n, DIM, dtype, &offset, &block) != LK_OK) break;
            lk_block_intact(&block);
            for (size_t i = 0; i < block.rows * 8; i++) touched ^= ((const uint8_t *)block.ids)[i];
            for (size_t i = 0; block.scales && i < block.rows * 4; i++) touched ^= ((const uint8_t *)block.scales)[i];
            for (size_t i = 0; i < block.rows * lk_dtype_bytes(dtype, DIM); i++)
                touched ^= ((const uint8_t *)block.codes)[i];
        }
    }
    (void)touched;
    free(copy);
    return 0;
}
