/* Distance kernels for AVX-512 (F, BW, VL, DQ), and for VNNI where only the int8 product differs. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef __m512 vec;
#define LANES 16
#define ROWS 4
#define SUMS 4
#define SCREEN_REGISTERS 4
#define SCREEN_ROWS_1 16
#define SCREEN_ROWS_2 12
#define SCREEN_ROWS_3 8
#define SCREEN_ROWS_4 6

static inline vec vec_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vec vec_set1(float a)
{
    return _mm512_set1_ps(a);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec vec_fnma(vec a, vec b, vec c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
static inline float vec_sum(vec a)
{
    return _mm512_reduce_add_ps(a);
}
static inline void vec_store(float *out, vec a)
{
    _mm512_storeu_ps(out, a);
}
static inline unsigned vec_ge(vec a, vec b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline vec vec_broadcast(const char *p)
{
    float value; /* at any address */
    memcpy(&value, p, sizeof value);
    return vec_set1(value);
}

static inline vec vec_f32(const char *p)
{
    return _mm512_loadu_ps(p);
}
static inline vec vec_f16(const char *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vec vec_i8(const char *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

static inline __mmask16 first(size_t count)
{
    return (__mmask16)((1u << count) - 1);
}
static inline vec vec_f32_part(const char *p, size_t count)
{
    return _mm512_maskz_loadu_ps(first(count), p);
}
static inline vec vec_f16_part(const char *p, size_t count)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p));
}
static inline vec vec_i8_part(const char *p, size_t count)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(count), p)));
}

/* 32 codes widened to 16 bits; fewer at the end of a row. */
static inline __m512i widen(const int8_t *p, size_t count)
{
    __m256i codes = count >= 32 ? _mm256_loadu_si256((const __m256i *)p)
                                : _mm256_maskz_loadu_epi8((__mmask32)((1u << count) - 1), p);
    return _mm512_cvtepi8_epi16(codes);
}

/* Modulo 2^32: sums of up to 2^32 - 1 exist, and gcc's _mm512_reduce_add_epi32 adds in int, where that is undefined. */
static inline uint32_t sum_u32(__m512i v)
{
    uint32_t lanes[16], sum = 0;
    _mm512_storeu_si512(lanes, v);
    for (int i = 0; i < 16; i++) sum += lanes[i];
    return sum;
}

static int32_t dot_i8(const int8_t *a, const int8_t *b, size_t n)
{
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 32)
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(widen(a + i, n - i), widen(b + i, n - i)));
    return (int32_t)sum_u32(sum);
}

static uint32_t l2_i8(const int8_t *a, const int8_t *b, size_t n)
{
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 32) {
        __m512i difference = _mm512_sub_epi16(widen(a + i, n - i), widen(b + i, n - i));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(difference, difference));
    }
    return sum_u32(sum);
}

/* VPDPBUSD multiplies unsigned by signed bytes. a + 128 is unsigned, and a . b = (a + 128) . b - 128 sum(b); the sum of
 * b comes from the same instruction with ones. Sums wrap modulo 2^32, so the difference is exact. */
static __attribute__((target("avx512vnni"))) int32_t dot_i8_vnni(const int8_t *a, const int8_t *b, size_t n)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512(), total = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 64) {
        __mmask64 part = n - i >= 64 ? ~(__mmask64)0 : (((__mmask64)1 << (n - i)) - 1);
        __m512i x = _mm512_xor_si512(_mm512_maskz_loadu_epi8(part, a + i), flip),
                y = _mm512_maskz_loadu_epi8(part, b + i);
        sum = _mm512_dpbusd_epi32(sum, x, y);
        total = _mm512_dpbusd_epi32(total, ones, y);
    }
    return (int32_t)(sum_u32(sum) - 128u * sum_u32(total));
}

#include "index/distance_simd.h"

const lk_distance_kernels lk_distance_avx512 = DISTANCE_TABLE("avx512", dot_i8);
const lk_distance_kernels lk_distance_avx512_vnni = DISTANCE_TABLE("avx512_vnni", dot_i8_vnni);
