/* Cells: the centroids that vectors are divided among, found by fast scan over 4-bit codes of the centroids themselves
 * and then exactly. A search asks for the best few, building for the nearest one of each row. */
#ifndef LK_INDEX_PARTITIONED_CELLS_H
#define LK_INDEX_PARTITIONED_CELLS_H

#include "index/distance.h"
#include "index/partitioned/pq.h"
#include <likeness/index.h>

/* The best `wanted` of what scans found, and room for one more chunk. */
typedef struct lk_candidates {
    float *keys; /* [capacity] */
    uint32_t *positions;
    size_t count, wanted, capacity;
    float threshold; /* what a further one must reach; -FLT_MAX at the start */
} lk_candidates;

size_t lk_candidates_capacity(size_t wanted);
/* Keeps about the best `wanted` (see lk_scan_kernels.narrow). */
void lk_candidates_tighten(lk_candidates *candidates, const lk_scan_kernels *kernels);
/* Scans n vectors from a block on, with the candidates' threshold. accept may be NULL. */
typedef int (*lk_candidate_filter)(void *user, uint32_t position);
void lk_candidates_scan(lk_candidates *candidates, const lk_scan_kernels *kernels, lk_scan *scan, const uint8_t *codes,
                        const int16_t *corrections, size_t n, uint32_t first, lk_candidate_filter accept, void *user);

/* All borrowed. */
typedef struct lk_cells {
    size_t count, dim;
    int by_distance; /* key: minus the squared distance, else the inner product */
    const lk_distance_kernels *kernels;
    const float *centroids; /* [count][dim] */
    lk_pq pq;
    const uint8_t *codes;       /* blocks of 32 centroids */
    const int16_t *corrections; /* [count rounded up to 32] */
    float middle, step;
} lk_cells;

/* Writes codes and corrections [of lk_cells_blocks(count) blocks, zero] for centroids and codewords that are set.
 * scratch [2 * dim + count] floats. */
void lk_cells_encode(lk_cells *cells, float *scratch, uint8_t *codes, int16_t *corrections);
static inline size_t lk_cells_blocks(size_t count)
{
    return (count + LK_SCAN_BLOCK - 1) / LK_SCAN_BLOCK;
}

/* Scratch of one thread. */
typedef struct lk_cells_scratch {
    lk_candidates candidates;
    float *products;
    uint8_t *tables;
    uint64_t *order;
} lk_cells_scratch;
/* Divides memory for finding up to `best` cells; with memory NULL only says how many bytes that takes. */
size_t lk_cells_carve(const lk_cells *cells, size_t best, char *memory, lk_cells_scratch *scratch);

/* The `best` cells for a query [dim], best first: numbers and keys [best]. Returns how many (fewer when there are
 * fewer). Nearly always the right ones: a few more are scored exactly than are wanted. */
size_t lk_cells_find(const lk_cells *cells, lk_cells_scratch *scratch, const float *query, size_t best,
                     uint32_t *numbers, float *keys);

/* Learns `count` centroids [count][dim] from x [n][dim], n >= count, by k-means whose assignments are found by scan:
 * for thousands of cells this is several times faster than by products of matrices, and hardly worse. The same input
 * gives the same bytes for any number of threads. */
lk_status lk_cells_learn(lk_context *context, const float *x, size_t n, size_t dim, size_t count, uint64_t seed,
                         float *centroids);

#endif
