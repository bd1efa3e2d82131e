/* Arithmetic on short runs of numbers, one table of functions per instruction set. kernels_simd.h is the one
 * definition; each table is it compiled for other instructions, so that they agree but for rounding. Everything
 * computes in f32: load widens what is stored, store narrows it again. */
#ifndef LK_NN_KERNELS_H
#define LK_NN_KERNELS_H

#include "base/cpu.h"
#include <likeness/nn.h>
#include <stddef.h>

/* As lk_type_bytes, without a call, for inner loops. */
static inline size_t lk_type_width(lk_type type)
{
    return type == LK_TYPE_BF16 || type == LK_TYPE_F16  ? 2
           : type == LK_TYPE_I8 || type == LK_TYPE_U8   ? 1
           : type == LK_TYPE_F32 || type == LK_TYPE_I32 ? 4
                                                        : lk_type_bytes(type);
}

enum { LK_RUN = 1024 }; /* callers work in pieces of at most this many numbers when they need a buffer */

/* Attention of one head: y = softmax(scale q k^T) v. Rows lie `step` elements apart. */
typedef struct lk_head {
    lk_type type; /* of q, k and v: f32 or bf16 */
    lk_type y_type;
    float y_scale;
    const void *q, *k, *v;
    void *y;
    size_t q_step, k_step, v_step, y_step;
    size_t queries, keys, width; /* width: a multiple of 16, at most LK_HEAD_WIDTH */
    float scale;
    bool causal;    /* row t of q sees rows 0..t of k */
    float *saved;   /* [queries][keys] receives the probabilities of f32; NULL = not wanted */
    float *scratch; /* lk_head_scratch floats */
} lk_head;
enum { LK_HEAD_WIDTH = 128, LK_HEAD_ROWS = 6 };
static inline size_t lk_head_scratch(size_t keys, size_t width)
{
    size_t columns = (keys + 63) / 64 * 64;
    return columns * width * 2 + LK_HEAD_ROWS * (2 * columns + 2 * width) + 64;
}

/* What follows a product of w = 16 vectors columns, at most 64: y = after(before(sums + bias) + other), rows `y_step`
 * elements apart. */
typedef struct lk_finish {
    int vectors;
    const float *bias; /* [w]; NULL = none */
    int before, after; /* lk_activation; -1 = none */
    const void *other; /* as y lies (perhaps y itself); NULL = none */
    lk_type other_type, y_type;
    float other_scale, y_scale;
    void *y;
    size_t y_step;
} lk_finish;

/* Rows of a matrix that lie in pieces: row r is `count` runs of n numbers, `distance` apart, the first at rows[r] +
 * offset. */
typedef struct lk_runs {
    const float *const *rows;
    size_t offset, count, distance, n;
} lk_runs;

typedef struct lk_nn_kernels {
    const char *name;
    /* dst [n] = src [n], times scale for the integers. */
    void (*load)(lk_type type, float scale, const void *src, size_t n, float *dst);
    /* The other way: bf16 and integers round to nearest even, integers saturate. */
    void (*store)(lk_type type, float scale, const float *src, size_t n, void *dst);

    /* to [n][3] = three planes of n stored numbers. */
    void (*interleave)(lk_type type, const void *const planes[3], size_t n, void *to);

    void (*activate)(lk_activation kind, float *x, size_t n);
    /* t = unit t / (1 + 2^t) for n stored numbers, f32 or bf16, in place: x sigmoid(factor x) of x = unit t where
     * unit = -ln(2) / factor. */
    void (*swish)(lk_type type, float unit, void *t, size_t n);
    /* gx += gy * f'(x) */
    void (*activate_gradient)(lk_activation kind, const float *x, const float *gy, size_t n, float *gx);
    /* x = exp(x * scale - max) / sum, in place. */
    void (*softmax)(float *x, size_t n, float scale);
    /* gx += scale * y * (gy - y.gy) */
    void (*softmax_gradient)(const float *y, const float *gy, size_t n, float scale, float *gx);
    void (*attention)(const lk_head *head);
    /* Mean, and 1/sqrt(variance + eps), two passes. */
    void (*moments)(const float *x, size_t n, float eps, float *mean, float *rstd);
    /* y = (x - mean) * rstd * weight + bias */
    void (*normalise)(const float *x, size_t n, float mean, float rstd, const float *weight, const float *bias,
                      float *y);

    /* y [n] = sum (largest) of `count` rows of n stored numbers, `step` elements apart; or at the addresses in taps. */
    void (*sum_rows)(lk_type type, float scale, const void *rows, size_t count, size_t step, size_t n, float *y);
    void (*max_taps)(lk_type type, float scale, const void *const *taps, size_t count, size_t n, float *y);
    /* The largest codes themselves: u8 or s8. */
    void (*max_codes)(lk_type type, const void *const *taps, size_t count, size_t n, void *y);
    /* y = x * gate for `rows` rows of n stored numbers that lie one after another; gate [n] f32. */
    void (*gate_rows)(lk_type type, float scale, const void *x, const float *gate, size_t rows, size_t n,
                      lk_type y_type, float y_scale, void *y);

    /* Winograd F(4x4, 3x3): a tile of 6x6 positions, each an address of `channels` numbers (a multiple of 16), to 36
     * rows `step` apart; and 36 rows back to 4x4 positions plus bias, NULL = not wanted. */
    void (*winograd_in)(const float *const taps[36], size_t channels, float *out, size_t step);
    void (*winograd_out)(const float *in, size_t step, size_t channels, const float *bias, float *const out[16]);
    /* y [rows][w] = (more: +=) a [rows][n] b [n][w] for w = 16 vectors, at most 64; every sum runs over n in order. */
    void (*product)(const float *a, size_t a_step, size_t rows, const float *b, size_t n, int vectors, bool more,
                    float *y, size_t y_step);
    void (*product_runs)(const lk_runs *a, size_t rows, const float *b, int vectors, bool more, float *y,
                         size_t y_step);
    void (*finish)(const lk_finish *finish, const float *sums, size_t rows); /* sums [rows][64] */
    /* The same of bf16 by F(2x2, 3x3): tiles of 4x4 positions (channels a multiple of 32) to 16 rows; back to 2x2
     * positions (of f32 or bf16) plus bias; and products, b [n / 2][w] holding two neighbours of n in one word. NULL
     * without bf16 instructions. */
    void (*winograd2_in)(const uint16_t *const taps[16], size_t channels, uint16_t *out, size_t step);
    void (*winograd2_out)(const float *in, size_t step, size_t channels, const float *bias, bool relu, lk_type type,
                          void *const out[4]);
    void (*product_bf16)(const uint16_t *a, size_t a_step, size_t rows, const uint16_t *b, size_t n, int vectors,
                         bool more, float *y, size_t y_step);

    /* Down the columns of [rows][n]: sums of x - shift and of its squares; of gy and of gy (x - mean) rstd; and
     * gx = (write) or += a gy + b x + c. gate: a ReLU lies behind a x + b, a and then b [n]; or NULL. */
    void (*column_moments)(const float *x, size_t rows, size_t n, const float *shift, double *sum, double *square);
    void (*column_products)(const float *x, const float *gy, size_t rows, size_t n, const float *mean,
                            const float *rstd, const float *gate, double *sum, double *product);
    void (*column_update)(const float *x, const float *gy, size_t rows, size_t n, const float *a, const float *b,
                          const float *c, const float *gate, bool write, float *gx);
    /* y [rows][n] = x * a [n] + b [n] for every row; relu: or 0 where that is below. */
    void (*affine)(const float *x, const float *a, const float *b, size_t rows, size_t n, bool relu, float *y);
    void (*gate)(const float *y, size_t n, float *g); /* g = 0 where y is not above 0 */
    /* gy [n] is added to the gradient of the first tap that is the largest. */
    void (*max_gradient)(const float *const *x, float *const *gx, size_t taps, size_t n, const float *gy);

    float (*sum)(const float *x, size_t n);
    float (*dot)(const float *a, const float *b, size_t n);
    void (*add)(const float *a, const float *b, size_t n, float *y);          /* y = a + b */
    void (*multiply)(const float *a, const float *b, size_t n, float *y);     /* y = a * b */
    void (*multiply_add)(const float *a, const float *b, size_t n, float *y); /* y += a * b */
    void (*axpy)(float a, const float *x, size_t n, float *y);                /* y += a x */
    void (*scale)(float a, const float *x, size_t n, float *y);               /* y = a x */
    void (*max)(const float *a, const float *b, size_t n, float *y);          /* y = max(a, b), NaN stays */
} lk_nn_kernels;

/* The best table for these features; never NULL. */
const lk_nn_kernels *lk_nn_kernels_for(lk_cpu_features features);

extern const lk_nn_kernels lk_nn_plain;
#if defined(__x86_64__)
extern const lk_nn_kernels lk_nn_avx2, lk_nn_avx512, lk_nn_avx512_bf16;
#endif

#endif
