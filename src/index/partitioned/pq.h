/* Product quantisation (Jegou, Douze & Schmid, 2011): a vector is cut into groups of neighbouring components, and each
 * group is replaced by the nearest of 16 codewords, a code of 4 bits. */
#ifndef LK_INDEX_PARTITIONED_PQ_H
#define LK_INDEX_PARTITIONED_PQ_H

#include "index/partitioned/scan.h"
#include <likeness/context.h>

typedef struct lk_pq {
    size_t dim;
    size_t groups;          /* with codes; components are divided among them as evenly as possible */
    size_t padded;          /* rounded up to a multiple of LK_SCAN_GROUPS */
    const float *codewords; /* [dim][16]: component c of codeword j of its group is [c * 16 + j]; borrowed or owned */
    const lk_scan_kernels *kernels;
} lk_pq;

/* First component of group g; of group `groups`: dim. */
static inline size_t lk_pq_start(const lk_pq *pq, size_t g)
{
    return g * pq->dim / pq->groups;
}
/* Bytes of a block of 32 codes. */
static inline size_t lk_pq_block(const lk_pq *pq)
{
    return pq->padded * 16;
}

/* A quantiser over given codewords [dim][16]. 1 <= groups <= dim. */
lk_pq lk_pq_of(size_t dim, size_t groups, const float *codewords);

/* Learns codewords [dim][16] from x [n][dim], n >= 1, by k-means in each group. The same input gives the same bytes for
 * any number of threads. LK_NO_MEMORY, LK_CANCELLED. */
lk_status lk_pq_train(lk_context *context, const float *x, size_t n, size_t dim, size_t groups, uint64_t seed,
                      float *codewords);

/* Codes of x [n][dim], one byte each: codes [n][groups]. */
void lk_pq_encode(const lk_pq *pq, const float *x, size_t n, uint8_t *codes);

/* Changes codes [groups] of a vector so that the error along `direction` [dim] counts eta times as much as that across
 * it (Guo et al., 2020, "Accelerating large-scale inference with anisotropic vector quantization", eq. 2, by coordinate
 * descent): products with queries near that direction become more exact. target [dim] is what the codes stand for.
 * eta >= 1. */
void lk_pq_bend(const lk_pq *pq, const float *target, const float *direction, float eta, uint8_t *codes);

/* out [dim]. */
void lk_pq_decode(const lk_pq *pq, const uint8_t *codes, float *out);

/* Puts codes [groups] into lane `lane` of a block [lk_pq_block] that was zero. */
void lk_pq_pack(const lk_pq *pq, const uint8_t *codes, size_t lane, uint8_t *block);

/* Prepares sums for the inner product with query [dim]: tables [padded][16]; afterwards
 *     query . decoded = *scale * sum + *bias   up to rounding of the tables.
 * scratch [groups][16]. */
void lk_pq_tables(const lk_pq *pq, const float *query, float *scratch, uint8_t *tables, float *scale, float *bias);

#endif
