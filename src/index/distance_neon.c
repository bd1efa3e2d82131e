/* Distance kernels for AArch64 Advanced SIMD. Compiled twice: as it is, and with the dot-product extension, where only
 * the int8 product differs. */
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef float32x4_t vec;
#define LANES 4
#define ROWS 4
#define SUMS 4
#define SCREEN_REGISTERS 4
#define SCREEN_ROWS_1 8
#define SCREEN_ROWS_2 8
#define SCREEN_ROWS_3 8
#define SCREEN_ROWS_4 6

static inline vec vec_zero(void)
{
    return vdupq_n_f32(0);
}
static inline vec vec_set1(float a)
{
    return vdupq_n_f32(a);
}
static inline vec vec_add(vec a, vec b)
{
    return vaddq_f32(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return vsubq_f32(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return vmulq_f32(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return vfmaq_f32(c, a, b);
}
static inline vec vec_fnma(vec a, vec b, vec c)
{
    return vfmsq_f32(c, a, b);
}
static inline float vec_sum(vec a)
{
    return vaddvq_f32(a);
}
static inline void vec_store(float *out, vec a)
{
    vst1q_f32(out, a);
}
static inline unsigned vec_ge(vec a, vec b)
{
    const uint32_t bits[LANES] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcgeq_f32(a, b), vld1q_u32(bits)));
}
/* Loads go through bytes or memcpy because rows may be unaligned, which typed pointers may not be. */
static inline vec vec_broadcast(const char *p)
{
    float value;
    memcpy(&value, p, sizeof value);
    return vdupq_n_f32(value);
}

static inline vec vec_f32(const char *p)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p));
}
static inline vec vec_f16(const char *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p)));
}
static inline vec vec_i8(const char *p)
{
    int32_t codes;
    memcpy(&codes, p, sizeof codes);
    int8x8_t narrow = vreinterpret_s8_s32(vdup_n_s32(codes));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(narrow))));
}

static inline vec vec_f32_part(const char *p, size_t count)
{
    char last[4 * LANES] = {0};
    memcpy(last, p, 4 * count);
    return vec_f32(last);
}
static inline vec vec_f16_part(const char *p, size_t count)
{
    char last[2 * LANES] = {0};
    memcpy(last, p, 2 * count);
    return vec_f16(last);
}
static inline vec vec_i8_part(const char *p, size_t count)
{
    char last[LANES] = {0};
    memcpy(last, p, count);
    return vec_i8(last);
}

/* 16 codes; fewer, and zeros, at the end of a row. */
static inline int8x16_t codes_16(const int8_t *p, size_t count)
{
    int8_t last[16] = {0};
    if (count < 16) p = memcpy(last, p, count);
    return vld1q_s8(p);
}

#if defined(__ARM_FEATURE_DOTPROD)
static int32_t dot_i8(const int8_t *a, const int8_t *b, size_t n)
{
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t i = 0; i < n; i += 16) sum = vdotq_s32(sum, codes_16(a + i, n - i), codes_16(b + i, n - i));
    return vaddvq_s32(sum);
}
#else
static int32_t dot_i8(const int8_t *a, const int8_t *b, size_t n)
{
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t i = 0; i < n; i += 16) {
        int8x16_t x = codes_16(a + i, n - i), y = codes_16(b + i, n - i);
        sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(x), vget_low_s8(y)));
        sum = vpadalq_s16(sum, vmull_high_s8(x, y));
    }
    return vaddvq_s32(sum);
}
#endif

static uint32_t l2_i8(const int8_t *a, const int8_t *b, size_t n)
{
    uint32x4_t sum = vdupq_n_u32(0);
    for (size_t i = 0; i < n; i += 16) {
        /* The difference of two codes needs 9 bits, its magnitude 8: 255 at most. */
        uint8x16_t difference = vreinterpretq_u8_s8(vabdq_s8(codes_16(a + i, n - i), codes_16(b + i, n - i)));
        sum = vpadalq_u16(sum, vmull_u8(vget_low_u8(difference), vget_low_u8(difference)));
        sum = vpadalq_u16(sum, vmull_high_u8(difference, difference));
    }
    return vaddvq_u32(sum);
}

#include "index/distance_simd.h"

#if defined(__ARM_FEATURE_DOTPROD)
const lk_distance_kernels lk_distance_neon_dotprod = DISTANCE_TABLE("neon_dotprod", dot_i8);
#else
const lk_distance_kernels lk_distance_neon = DISTANCE_TABLE("neon", dot_i8);
#endif
