/* The kernels that are the same for every SIMD instruction set, written once over a vector type. Included by one source
 * file per instruction set, after it has defined
 *
 *     LANES                     f32 components in a register
 *     ROWS, SUMS                rows scored at once by rows_*, partial sums per row: ROWS * SUMS accumulators must fit
 * into the registers and cover the latency of a fused multiply-add SCREEN_REGISTERS          most registers of queries
 * screened at once, 2 or 4 SCREEN_ROWS_1 .. _4       rows screened at once for that many registers: the product is the
 * number of accumulators vec                       the register, and vec_zero vec_set1 vec_add vec_sub vec_mul vec_fma
 * (a*b+c) vec_fnma (c-a*b) vec_sum (over lanes) vec_store vec_ge (bit per lane, NaN false) vec_broadcast one f32 from
 * any address, in every lane vec_f32 vec_f16 vec_i8    load LANES stored components as f32 from any address
 *     vec_f32_part ...          the same for the first `count` < LANES components, zeros after them; reads no further
 *
 * Everything is inlined with constant row counts and types, so that the arrays of accumulators become registers. */
#include "index/distance.h"

#include <float.h>

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(lk_dtype dtype, const char *row, size_t i)
{
    return dtype == LK_F32 ? vec_f32(row + 4 * i) : dtype == LK_F16 ? vec_f16(row + 2 * i) : vec_i8(row + i);
}

INLINE vec load_part(lk_dtype dtype, const char *row, size_t i, size_t count)
{
    return dtype == LK_F32   ? vec_f32_part(row + 4 * i, count)
           : dtype == LK_F16 ? vec_f16_part(row + 2 * i, count)
                             : vec_i8_part(row + i, count);
}

/* sum + query . value, or sum + |query - scale value|^2. */
INLINE vec step(int l2, lk_dtype dtype, vec query, vec value, vec scale, vec sum)
{
    if (!l2) return vec_fma(query, value, sum);
    vec difference = dtype == LK_I8 ? vec_fnma(scale, value, query) : vec_sub(query, value);
    return vec_fma(difference, difference, sum);
}

/* Scores `count` (constant) rows. The sums of a row are formed in the same order whatever count is. */
INLINE void score_rows(int l2, lk_dtype dtype, int count, const float *query, const char *rows, size_t stride,
                       size_t dim, size_t ahead, const float *scales, float *out)
{
    vec sums[ROWS][SUMS], scale[ROWS];
    size_t width = dtype == LK_F32 ? 4 : dtype == LK_F16 ? 2 : 1, i = 0;
    for (int r = 0; r < count; r++) {
        scale[r] = dtype == LK_I8 && l2 ? vec_set1(scales[r]) : vec_zero();
        for (int s = 0; s < SUMS; s++) sums[r][s] = vec_zero();
    }
    for (; i + SUMS * LANES <= dim; i += SUMS * LANES) {
        for (int r = 0; r < count; r++) {
            /* Far enough ahead that the line has come from memory when it is needed; past the last row it does no harm.
             */
            for (size_t line = 0; ahead != 0 && line < SUMS * LANES * width; line += 64)
                __builtin_prefetch(rows + (size_t)r * stride + i * width + line + ahead);
        }
        for (int s = 0; s < SUMS; s++) {
            vec q = vec_f32((const char *)(query + i + (size_t)s * LANES));
            for (int r = 0; r < count; r++)
                sums[r][s] = step(l2, dtype, q, load(dtype, rows + (size_t)r * stride, i + (size_t)s * LANES), scale[r],
                                  sums[r][s]);
        }
    }
    for (int s = 0; i + LANES <= dim; i += LANES, s++) {
        vec q = vec_f32((const char *)(query + i));
        for (int r = 0; r < count; r++) {
            vec value = load(dtype, rows + (size_t)r * stride, i);
            /* s would have to be constant to index registers. */
            if (s == 0)
                sums[r][0] = step(l2, dtype, q, value, scale[r], sums[r][0]);
            else if (s == 1)
                sums[r][1 % SUMS] = step(l2, dtype, q, value, scale[r], sums[r][1 % SUMS]);
            else
                sums[r][2 % SUMS] = step(l2, dtype, q, value, scale[r], sums[r][2 % SUMS]);
        }
    }
    if (i < dim) {
        vec q = vec_f32_part((const char *)(query + i), dim - i);
        for (int r = 0; r < count; r++)
            sums[r][SUMS - 1] = step(l2, dtype, q, load_part(dtype, rows + (size_t)r * stride, i, dim - i), scale[r],
                                     sums[r][SUMS - 1]);
    }
    for (int r = 0; r < count; r++) {
        vec total = sums[r][0];
        if (SUMS == 2) total = vec_add(sums[r][0], sums[r][1]);
        if (SUMS == 4) total = vec_add(vec_add(sums[r][0], sums[r][1]), vec_add(sums[r][2 % SUMS], sums[r][3 % SUMS]));
        float score = vec_sum(total);
        out[r] = dtype == LK_I8 && !l2 ? score * scales[r] : score;
    }
}

/* Bytes between what is scored and what is fetched from memory. Measured on one core: from 2 to 8 KiB makes no
 * difference, less is slower. */
enum { PREFETCH_AHEAD = 4096 };

INLINE void score_all(int l2, lk_dtype dtype, const float *query, const void *rows, size_t stride, size_t n, size_t dim,
                      const float *scales, float *out)
{
    const char *row = rows;
    size_t r = 0;
    for (; r + ROWS <= n; r += ROWS)
        score_rows(l2, dtype, ROWS, query, row + r * stride, stride, dim, PREFETCH_AHEAD, scales ? scales + r : NULL,
                   out + r);
    for (; r < n; r++)
        score_rows(l2, dtype, 1, query, row + r * stride, stride, dim, 0, scales ? scales + r : NULL, out + r);
}

static void dot_rows_f32(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                         float *out)
{
    score_all(0, LK_F32, query, rows, stride, n, dim, scales, out);
}
static void dot_rows_f16(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                         float *out)
{
    score_all(0, LK_F16, query, rows, stride, n, dim, scales, out);
}
static void dot_rows_i8(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                        float *out)
{
    score_all(0, LK_I8, query, rows, stride, n, dim, scales, out);
}
static void l2_rows_f32(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                        float *out)
{
    score_all(1, LK_F32, query, rows, stride, n, dim, scales, out);
}
static void l2_rows_f16(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                        float *out)
{
    score_all(1, LK_F16, query, rows, stride, n, dim, scales, out);
}
static void l2_rows_i8(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                       float *out)
{
    score_all(1, LK_I8, query, rows, stride, n, dim, scales, out);
}

static void decode_f16(const uint16_t *codes, size_t n, float *out)
{
    const char *from = (const char *)codes;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        __builtin_prefetch(from + 2 * i + PREFETCH_AHEAD);
        vec_store(out + i, vec_f16(from + 2 * i));
    }
    if (i < n) {
        float last[LANES];
        vec_store(last, vec_f16_part(from + 2 * i, n - i));
        for (size_t j = 0; i + j < n; j++) out[i + j] = last[j];
    }
}

static void decode_i8(const int8_t *codes, float scale, size_t n, float *out)
{
    const char *from = (const char *)codes;
    vec factor = vec_set1(scale);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        __builtin_prefetch(from + i + PREFETCH_AHEAD);
        vec_store(out + i, vec_mul(factor, vec_i8(from + i)));
    }
    for (; i < n; i++) out[i] = scale * (float)codes[i];
}

/* The inner part of a matrix product of packed queries and rows, count x registers accumulators wide. Each component of
 * a row is broadcast once and multiplied with all queries, so that rows need no packing, and the sums end up one query
 * per lane, ready to be compared. */
INLINE uint64_t screen_rows(int count, int registers, const float *packed, const char *rows, size_t stride, size_t dim,
                            const float *bias, const float *thresholds, uint64_t *masks)
{
    vec sums[16][4], query[4];
    size_t width = (size_t)registers * LANES;
    for (int r = 0; r < count; r++)
        for (int v = 0; v < registers; v++) sums[r][v] = vec_set1(bias[r]);
    for (size_t block = 0; block < dim; block += 16) {
        size_t end = block + 16 < dim ? block + 16 : dim;
        for (int r = 0; r < count; r++) /* one line of each row of the next group */
            __builtin_prefetch(rows + (size_t)(r + count) * stride + block * sizeof(float));
        for (size_t i = block; i < end; i++) {
            for (int v = 0; v < registers; v++)
                query[v] = vec_f32((const char *)(packed + i * width + (size_t)v * LANES));
            for (int r = 0; r < count; r++) {
                vec value = vec_broadcast(rows + (size_t)r * stride + i * sizeof(float));
                for (int v = 0; v < registers; v++) sums[r][v] = vec_fma(query[v], value, sums[r][v]);
            }
        }
    }
    uint64_t any = 0;
    for (int v = 0; v < registers; v++) query[v] = vec_f32((const char *)(thresholds + (size_t)v * LANES));
    for (int r = 0; r < count; r++) {
        uint64_t mask = 0;
        for (int v = 0; v < registers; v++) mask |= (uint64_t)vec_ge(sums[r][v], query[v]) << (v * LANES);
        masks[r] = mask;
        any |= mask;
    }
    return any;
}

INLINE int screen_all(int group, int registers, const float *packed, const char *rows, size_t stride, size_t n,
                      size_t dim, const float *bias, const float *thresholds, uint64_t *masks)
{
    uint64_t any = 0;
    size_t r = 0;
    for (; r + (size_t)group <= n; r += (size_t)group)
        any |= screen_rows(group, registers, packed, rows + r * stride, stride, dim, bias + r, thresholds, masks + r);
    for (; r < n; r++)
        any |= screen_rows(1, registers, packed, rows + r * stride, stride, dim, bias + r, thresholds, masks + r);
    return any != 0;
}

static int screen(const float *packed, size_t width, const void *rows, size_t stride, size_t n, size_t dim,
                  const float *bias, const float *thresholds, uint64_t *masks)
{
    switch (width / LANES) {
    case 1: return screen_all(SCREEN_ROWS_1, 1, packed, rows, stride, n, dim, bias, thresholds, masks);
#if SCREEN_REGISTERS == 4
    case 3: return screen_all(SCREEN_ROWS_3, 3, packed, rows, stride, n, dim, bias, thresholds, masks);
    case 4: return screen_all(SCREEN_ROWS_4, 4, packed, rows, stride, n, dim, bias, thresholds, masks);
#endif
    default: return screen_all(SCREEN_ROWS_2, 2, packed, rows, stride, n, dim, bias, thresholds, masks);
    }
}

static size_t select_scores(const float *scores, size_t n, float threshold, uint32_t *out)
{
    vec limit = vec_set1(threshold);
    size_t i = 0, count = 0;
    for (; i + LANES <= n; i += LANES) {
        for (unsigned mask = vec_ge(vec_f32((const char *)(scores + i)), limit); mask != 0; mask &= mask - 1)
            out[count++] = (uint32_t)(i + (size_t)__builtin_ctz(mask));
    }
    for (; i < n; i++)
        if (scores[i] >= threshold) out[count++] = (uint32_t)i;
    return count;
}

#define DISTANCE_TABLE(label, dot_i8_kernel)                                                                           \
    {                                                                                                                  \
        .name = label, .screen_lanes = LANES, .screen_width = SCREEN_REGISTERS * LANES,                                \
        .rows_dot = {[LK_F32] = dot_rows_f32, [LK_F16] = dot_rows_f16, [LK_I8] = dot_rows_i8},                         \
        .rows_l2 = {[LK_F32] = l2_rows_f32, [LK_F16] = l2_rows_f16, [LK_I8] = l2_rows_i8}, .dot_i8 = dot_i8_kernel,    \
        .l2_i8 = l2_i8, .decode_f16 = decode_f16, .decode_i8 = decode_i8, .screen = screen, .select = select_scores,   \
    }
