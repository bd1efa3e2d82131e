/* Code kernels for NEON. */
#include "index/codes.h"

#include <arm_neon.h>

static void l2_u8_rows(const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n,
                       size_t dim, uint32_t *out)
{
    for (size_t r = 0; r < n; r++) {
        const uint8_t *row = codes + (size_t)rows[r] * stride;
        int32x4_t low = vdupq_n_s32(0), high = low;
        for (size_t i = 0; i < dim; i += 8) {
            int16x8_t code = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(row + i)));
            int16x8_t difference = vsubq_s16(vld1q_s16(query + i), code);
            low = vmlal_s16(low, vget_low_s16(difference), vget_low_s16(difference));
            high = vmlal_high_s16(high, difference, difference);
        }
        out[r] = (uint32_t)vaddvq_s32(vaddq_s32(low, high));
    }
}

static int32_t dot_u8(const int8_t *query, const uint8_t *code, size_t n)
{
    int32x4_t sum = vdupq_n_s32(0);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        int16x8_t q = vmovl_s8(vld1_s8(query + i)), c = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(code + i)));
        sum = vmlal_s16(sum, vget_low_s16(q), vget_low_s16(c));
        sum = vmlal_high_s16(sum, q, c);
    }
    return vaddvq_s32(sum) + lk_plain_dot_u8(query + i, code + i, n - i);
}

static int32_t dot_u4(const int8_t *query, const uint8_t *code, size_t n)
{
    int32x4_t sum = vdupq_n_s32(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        uint8x8_t pair = vld1_u8(code + i / 2);
        int8x8x2_t q = vld2_s8(query + i); /* even and odd components */
        int16x8_t low = vmull_s8(q.val[0], vreinterpret_s8_u8(vand_u8(pair, vdup_n_u8(15))));
        int16x8_t high = vmull_s8(q.val[1], vreinterpret_s8_u8(vshr_n_u8(pair, 4)));
        sum = vpadalq_s16(vpadalq_s16(sum, low), high);
    }
    return vaddvq_s32(sum) + lk_plain_dot_u4(query + i, code + i / 2, n - i);
}

static int32_t dot_b1(const int8_t *query, const uint8_t *code, size_t n)
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bit = vld1q_u8(bits);
    int32x4_t sum = vdupq_n_s32(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        uint8x16_t both = vcombine_u8(vdup_n_u8(code[i / 8]), vdup_n_u8(code[i / 8 + 1]));
        int8x16_t q = vandq_s8(vld1q_s8(query + i), vreinterpretq_s8_u8(vtstq_u8(both, bit)));
        sum = vpadalq_s16(sum, vpaddlq_s8(q));
    }
    return vaddvq_s32(sum) + lk_plain_dot_b1(query + i, code + i / 8, n - i);
}

static uint64_t hamming(const uint8_t *a, const uint8_t *b, size_t n)
{
    uint64x2_t sum = vdupq_n_u64(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        sum = vpadalq_u32(sum, vpaddlq_u16(vpaddlq_u8(vcntq_u8(veorq_u8(vld1q_u8(a + i), vld1q_u8(b + i))))));
    return vaddvq_u64(sum) + lk_plain_hamming(a + i, b + i, n - i);
}

static inline float32x4_t load_bf16(const uint16_t *row)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(row), 16));
}

static float dot_bf16(const float *query, const uint16_t *row, size_t n)
{
    float32x4_t sum = vdupq_n_f32(0);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) sum = vfmaq_f32(sum, vld1q_f32(query + i), load_bf16(row + i));
    return vaddvq_f32(sum) + lk_plain_dot_bf16(query + i, row + i, n - i);
}

static float l2_bf16(const float *query, const uint16_t *row, size_t n)
{
    float32x4_t sum = vdupq_n_f32(0);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t difference = vsubq_f32(vld1q_f32(query + i), load_bf16(row + i));
        sum = vfmaq_f32(sum, difference, difference);
    }
    return vaddvq_f32(sum) + lk_plain_l2_bf16(query + i, row + i, n - i);
}

const lk_code_kernels lk_codes_neon = {
    .name = "neon",
    .l2_u8_rows = l2_u8_rows,
    .l2_residual = lk_plain_l2_residual,
    .hadamard = lk_plain_hadamard,
    .unmarked = lk_plain_unmarked,
    .dot_u8 = dot_u8,
    .dot_u4 = dot_u4,
    .dot_b1 = dot_b1,
    .hamming = hamming,
    .dot_bf16 = dot_bf16,
    .l2_bf16 = l2_bf16,
};
