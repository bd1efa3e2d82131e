/* Distance kernels: one table of function pointers per instruction set, all computing what distance_plain.c defines.
 *
 * Any index may use them: pairs for a graph, rows for a scan, screen for batches of queries. Pointers may be unaligned.
 * A score by rows_* is bit for bit the score by the pair kernel of the same table, however the rows are grouped;
 * between tables scores differ by rounding only (each sums in another order). */
#ifndef LK_INDEX_DISTANCE_H
#define LK_INDEX_DISTANCE_H

#include "base/cpu.h"
#include <likeness/index.h>
#include <stddef.h>
#include <stdint.h>

/* Scores one f32 query [dim] against n rows that lie stride bytes apart: out [n]. scales [n] is read for LK_I8 only,
 * where a row's component is scale * code; the product is then scale * (query . code), summed in f32. */
typedef void (*lk_rows_fn)(const float *query, const void *rows, size_t stride, size_t n, size_t dim,
                           const float *scales, float *out);

/* How a batch is screened. Up to `width` queries are packed component by component, packed [dim][width], and multiplied
 * with n rows of f32 that lie stride bytes apart. Bit q of masks[r] says that
 *     bias[r] + packed[.][q] . rows[r]  >=  thresholds[q]
 * in f32, summed one component after another; NaN never passes. width is a multiple of screen_lanes, at most
 * screen_width. Returns whether any bit is set; masks [n] is written in any case. */
enum { LK_SCREEN_WIDTH = 64 };
typedef int (*lk_screen_fn)(const float *packed, size_t width, const void *rows, size_t stride, size_t n, size_t dim,
                            const float *bias, const float *thresholds, uint64_t *masks);

typedef struct lk_distance_kernels {
    const char *name;
    size_t screen_lanes; /* queries in one vector register */
    size_t screen_width; /* most queries screened at once, at most LK_SCREEN_WIDTH */

    /* Indexed by lk_dtype. */
    lk_rows_fn rows_dot[3]; /* inner products */
    lk_rows_fn rows_l2[3];  /* sums of squared differences, computed as such */

    /* int8 with int8: exact for n <= 65536. */
    int32_t (*dot_i8)(const int8_t *a, const int8_t *b, size_t n);
    uint32_t (*l2_i8)(const int8_t *a, const int8_t *b, size_t n);

    /* Decodes n components to f32: exactly for f16; scale * code, rounded once, for int8. */
    void (*decode_f16)(const uint16_t *codes, size_t n, float *out);
    void (*decode_i8)(const int8_t *codes, float scale, size_t n, float *out);

    lk_screen_fn screen;

    /* Writes the positions i with scores[i] >= threshold in rising order to out [n]; returns how many. NaN never
     * passes. */
    size_t (*select)(const float *scores, size_t n, float threshold, uint32_t *out);
} lk_distance_kernels;

/* The best table for these features. Tests ask for each; callers pass lk_cpu_detect(). Never NULL. */
const lk_distance_kernels *lk_distance_kernels_for(lk_cpu_features features);

/* lk_vectors_decode with a given table. */
void lk_decode_rows(const lk_distance_kernels *kernels, lk_dtype dtype, size_t dim, size_t n, const void *codes,
                    const float *scales, float *out);

/* Two f32 vectors. */
static inline float lk_dot_f32(const lk_distance_kernels *kernels, const float *a, const float *b, size_t n)
{
    float score;
    kernels->rows_dot[LK_F32](a, b, 0, 1, n, NULL, &score);
    return score;
}
static inline float lk_l2_f32(const lk_distance_kernels *kernels, const float *a, const float *b, size_t n)
{
    float score;
    kernels->rows_l2[LK_F32](a, b, 0, 1, n, NULL, &score);
    return score;
}

extern const lk_distance_kernels lk_distance_plain;
#if defined(__x86_64__)
extern const lk_distance_kernels lk_distance_avx2, lk_distance_avx512, lk_distance_avx512_vnni;
#elif defined(__aarch64__)
extern const lk_distance_kernels lk_distance_neon, lk_distance_neon_dotprod;
#endif

#endif
