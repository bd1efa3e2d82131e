/* Kernels over vectors stored as small codes, one table per instruction set; codes_plain.c defines what they compute.
 *
 * All results are whole numbers or sums of them: every table gives exactly the plain one's results. */
#ifndef LK_INDEX_CODES_H
#define LK_INDEX_CODES_H

#include "base/cpu.h"
#include <stddef.h>
#include <stdint.h>

/* A query in the units of 8-bit codes is clipped to this range, so that a sum of LK_CODES_MAX_DIM squared differences
 * fits into 32 bits. */
enum { LK_CODES_QUERY_MIN = -255, LK_CODES_QUERY_MAX = 510, LK_CODES_MAX_DIM = 16384 };

typedef struct lk_code_kernels {
    const char *name;

    /* Sums of squared differences between one query [dim], in the units of the codes, and the rows rows[0 .. n-1] of a
     * table of 8-bit codes whose rows lie stride bytes apart: out [n]. dim and stride are multiples of 64 and the table
     * is 64-byte aligned: pad with equal values. */
    void (*l2_u8_rows)(const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n,
                       size_t dim, uint32_t *out);

    /* Those of links [n] before the first that is not below `count`, whose bits in the bitmap `marks` are not set: out
     * [n], in order; returns how many. There must be room for 16 more than are returned. */
    size_t (*unmarked)(const uint32_t *links, size_t n, uint32_t count, const uint64_t *marks, uint32_t *out);
} lk_code_kernels;

/* The best table for these features; never NULL. */
const lk_code_kernels *lk_code_kernels_for(lk_cpu_features features);

extern const lk_code_kernels lk_codes_plain;
#if defined(__x86_64__)
extern const lk_code_kernels lk_codes_avx2, lk_codes_avx512, lk_codes_avx512_vnni;
#elif defined(__aarch64__)
extern const lk_code_kernels lk_codes_neon;
#endif

#endif
