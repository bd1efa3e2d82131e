/* Kernels over vectors stored as small codes, one table per instruction set; codes_plain.c defines what they compute.
 *
 * Whole numbers come out exactly as from the plain table, at every length; only sums over bf16 may differ by rounding.
 * A cosine is an inner product of vectors that were normalised before they were coded. The squared distance between a
 * query and a code follows from their inner product and squared lengths; that of two 1-bit codes is their Hamming
 * distance. */
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

    /* Squared distance of a query in the units of the codes, unrounded, and a code with its residual (quantise.h; NULL:
     * none): query, code and residual [dim], dim a multiple of 16. Summed in 16 lanes, so that all variants give the
     * same. */
    float (*l2_residual)(const float *query, const uint8_t *code, const int8_t *residual, size_t dim);

    /* Orthonormal Hadamard transform of x [n] in place, n a power of two. All variants give the same. */
    void (*hadamard)(float *x, size_t n);

    /* Those of links [n] before the first that is not below `count`, whose bits in the bitmap `marks` are not set: out
     * [n], in order; returns how many. There must be room for 16 more than are returned. */
    size_t (*unmarked)(const uint32_t *links, size_t n, uint32_t count, const uint64_t *marks, uint32_t *out);

    /* Inner products of an int8 query [n] with codes of 8 bits, 4 bits (component i in the low half of byte i/2 where i
     * is even, in the high half where it is odd) and 1 bit (component i at bit i%8 of byte i/8); any n up to 65536.
     * Bits behind the last component are not counted. */
    int32_t (*dot_u8)(const int8_t *query, const uint8_t *code, size_t n);
    int32_t (*dot_u4)(const int8_t *query, const uint8_t *code, size_t n);
    int32_t (*dot_b1)(const int8_t *query, const uint8_t *code, size_t n);
    /* Bits that differ in the first n bytes. */
    uint64_t (*hamming)(const uint8_t *a, const uint8_t *b, size_t n);
    /* f32 query [n] and bf16 row [n]: the upper halves of f32. */
    float (*dot_bf16)(const float *query, const uint16_t *row, size_t n);
    float (*l2_bf16)(const float *query, const uint16_t *row, size_t n);
} lk_code_kernels;

/* The best table for these features; never NULL. */
const lk_code_kernels *lk_code_kernels_for(lk_cpu_features features);

/* The plain kernels: other tables use them for what is left behind the last whole register, and where they have none.
 */
float lk_plain_l2_residual(const float *query, const uint8_t *code, const int8_t *residual, size_t dim);
void lk_plain_hadamard(float *x, size_t n);
size_t lk_plain_unmarked(const uint32_t *links, size_t n, uint32_t count, const uint64_t *marks, uint32_t *out);
int32_t lk_plain_dot_u8(const int8_t *query, const uint8_t *code, size_t n);
int32_t lk_plain_dot_u4(const int8_t *query, const uint8_t *code, size_t n);
int32_t lk_plain_dot_b1(const int8_t *query, const uint8_t *code, size_t n);
uint64_t lk_plain_hamming(const uint8_t *a, const uint8_t *b, size_t n);
float lk_plain_dot_bf16(const float *query, const uint16_t *row, size_t n);
float lk_plain_l2_bf16(const float *query, const uint16_t *row, size_t n);

extern const lk_code_kernels lk_codes_plain;
#if defined(__x86_64__)
extern const lk_code_kernels lk_codes_avx2, lk_codes_avx512, lk_codes_avx512_vnni, lk_codes_avx512_vpopcnt;
#elif defined(__aarch64__)
extern const lk_code_kernels lk_codes_neon;
#endif

#endif
