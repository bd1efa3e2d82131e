/* Fast scan (Andre, Kermarrec & Le Scouarnec, 2015, "Cache locality is not enough"): sums of table entries picked by
 * 4-bit codes, with the tables in vector registers. One table of functions per instruction set, all computing what
 * scan_plain.c defines, bit for bit.
 *
 * Codes lie in blocks of 32 vectors: for each group 16 bytes, byte j holding the code of vector j in its low half and
 * that of vector j + 16 in its high half. The number of groups is a multiple of 4. */
#ifndef LK_INDEX_PARTITIONED_SCAN_H
#define LK_INDEX_PARTITIONED_SCAN_H

#include "base/cpu.h"
#include <stddef.h>
#include <stdint.h>

enum { LK_SCAN_BLOCK = 32, LK_SCAN_CODEWORDS = 16, LK_SCAN_GROUPS = 4 };

typedef struct lk_scan {
    const uint8_t *tables; /* [groups][16]; no choice of entries sums to more than 65535 */
    size_t groups;
    float scale, bias, factor; /* key = factor * correction + (scale * sum + bias), each sum rounded once (fma) */
    float threshold;
} lk_scan;

typedef struct lk_scan_kernels {
    const char *name;

    /* Keys of n vectors whose codes begin at a block; corrections [n rounded up to 32]. Those with key >= threshold are
     * appended in order: keys[] and positions[] (first + i), which have room for n rounded up to 32. Returns how many.
     */
    size_t (*scan)(const lk_scan *scan, const uint8_t *codes, const int16_t *corrections, size_t n, uint32_t first,
                   float *keys, uint32_t *positions);

    /* For each of n rows x + i * stride of `components` the nearest of 16 codewords [components][16]: out[i *
     * out_stride]. Near ties may go either way. */
    void (*nearest)(const float *x, size_t stride, size_t n, size_t components, const float *codewords, uint8_t *out,
                    size_t out_stride);

    /* The tables of a query [dim] whose components are divided among `groups` as lk_pq_start says, with codewords
     * [dim][16]: tables [groups][16], each entry query . codeword less the group's least, in steps of *scale; *bias is
     * the sum of the least. scratch [groups][16]. No choice of entries sums to more than 65535. */
    void (*tables)(const float *query, size_t dim, size_t groups, const float *codewords, float *scratch,
                   uint8_t *tables, float *scale, float *bias);

    /* Keeps the best of n candidates, in order: all if n <= wanted, else at least `wanted` and an eighth more at most.
     * *threshold becomes what all of those kept reach, if that is more than it was. Returns how many are kept. */
    size_t (*narrow)(float *keys, uint32_t *positions, size_t n, size_t wanted, float *threshold);
} lk_scan_kernels;

/* The best table for these features; never NULL. */
const lk_scan_kernels *lk_scan_kernels_for(lk_cpu_features features);

extern const lk_scan_kernels lk_scan_plain;
#if defined(__x86_64__)
extern const lk_scan_kernels lk_scan_avx2, lk_scan_avx512;
#elif defined(__aarch64__)
extern const lk_scan_kernels lk_scan_neon;
#endif

#endif
