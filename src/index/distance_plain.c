/* The definition of every kernel, in plain C. Four partial sums keep the rounding error of long vectors small and let
 * the compiler overlap additions; nothing here depends on an instruction set. */
#include "base/half.h"
#include "index/distance.h"

static inline float component(lk_dtype dtype, const void *row, size_t i)
{
    switch (dtype) {
    case LK_F32: {
        float value; /* rows may be unaligned */
        memcpy(&value, (const char *)row + 4 * i, sizeof value);
        return value;
    }
    case LK_F16: {
        uint16_t value;
        memcpy(&value, (const char *)row + 2 * i, sizeof value);
        return lk_half_to_float(value);
    }
    default: return (float)((const int8_t *)row)[i];
    }
}

static inline __attribute__((always_inline)) void dot(lk_dtype dtype, const float *query, const void *rows,
                                                      size_t stride, size_t n, size_t dim, const float *scales,
                                                      float *out)
{
    for (size_t r = 0; r < n; r++) {
        const char *row = (const char *)rows + r * stride;
        float sum[4] = {0};
        for (size_t i = 0; i < dim; i++) sum[i % 4] += query[i] * component(dtype, row, i);
        float total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        out[r] = dtype == LK_I8 ? total * scales[r] : total;
    }
}

static inline __attribute__((always_inline)) void l2(lk_dtype dtype, const float *query, const void *rows,
                                                     size_t stride, size_t n, size_t dim, const float *scales,
                                                     float *out)
{
    for (size_t r = 0; r < n; r++) {
        const char *row = (const char *)rows + r * stride;
        float sum[4] = {0};
        for (size_t i = 0; i < dim; i++) {
            float value = component(dtype, row, i);
            if (dtype == LK_I8) value *= scales[r];
            float difference = query[i] - value;
            sum[i % 4] += difference * difference;
        }
        out[r] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
}

static void dot_rows_f32(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                         float *out)
{
    dot(LK_F32, query, rows, stride, n, dim, scales, out);
}
static void dot_rows_f16(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                         float *out)
{
    dot(LK_F16, query, rows, stride, n, dim, scales, out);
}
static void dot_rows_i8(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                        float *out)
{
    dot(LK_I8, query, rows, stride, n, dim, scales, out);
}
static void l2_rows_f32(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                        float *out)
{
    l2(LK_F32, query, rows, stride, n, dim, scales, out);
}
static void l2_rows_f16(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                        float *out)
{
    l2(LK_F16, query, rows, stride, n, dim, scales, out);
}
static void l2_rows_i8(const float *query, const void *rows, size_t stride, size_t n, size_t dim, const float *scales,
                       float *out)
{
    l2(LK_I8, query, rows, stride, n, dim, scales, out);
}

static int32_t dot_i8(const int8_t *a, const int8_t *b, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static uint32_t l2_i8(const int8_t *a, const int8_t *b, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t difference = a[i] - b[i];
        sum += (uint32_t)(difference * difference);
    }
    return sum;
}

static void decode_f16(const uint16_t *codes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = component(LK_F16, codes, i);
}

static void decode_i8(const int8_t *codes, float scale, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = scale * (float)codes[i];
}

static int screen(const float *packed, size_t width, const void *rows, size_t stride, size_t n, size_t dim,
                  const float *bias, const float *thresholds, uint64_t *masks)
{
    uint64_t any = 0;
    for (size_t r = 0; r < n; r++) {
        const char *row = (const char *)rows + r * stride;
        float sums[LK_SCREEN_WIDTH];
        for (size_t q = 0; q < width; q++) sums[q] = bias[r];
        for (size_t i = 0; i < dim; i++) {
            float value = component(LK_F32, row, i);
            for (size_t q = 0; q < width; q++) sums[q] += packed[i * width + q] * value;
        }
        uint64_t mask = 0;
        for (size_t q = 0; q < width; q++) mask |= (uint64_t)(sums[q] >= thresholds[q]) << q;
        masks[r] = mask;
        any |= mask;
    }
    return any != 0;
}

static size_t select_scores(const float *scores, size_t n, float threshold, uint32_t *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        out[count] = (uint32_t)i;
        count += scores[i] >= threshold;
    }
    return count;
}

const lk_distance_kernels lk_distance_plain = {
    .name = "plain",
    .screen_lanes = 4,
    .screen_width = 16,
    .rows_dot = {[LK_F32] = dot_rows_f32, [LK_F16] = dot_rows_f16, [LK_I8] = dot_rows_i8},
    .rows_l2 = {[LK_F32] = l2_rows_f32, [LK_F16] = l2_rows_f16, [LK_I8] = l2_rows_i8},
    .dot_i8 = dot_i8,
    .l2_i8 = l2_i8,
    .decode_f16 = decode_f16,
    .decode_i8 = decode_i8,
    .screen = screen,
    .select = select_scores,
};
