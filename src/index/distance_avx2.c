/* Distance kernels for AVX2 with FMA and F16C. */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef __m256 vec;
#define LANES 8
#define ROWS 2
#define SUMS 4
#define SCREEN_REGISTERS 2
#define SCREEN_ROWS_1 8
#define SCREEN_ROWS_2 6

static inline vec vec_zero(void)
{
    return _mm256_setzero_ps();
}
static inline vec vec_set1(float a)
{
    return _mm256_set1_ps(a);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vec vec_fnma(vec a, vec b, vec c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
static inline float vec_sum(vec a)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
static inline void vec_store(float *out, vec a)
{
    _mm256_storeu_ps(out, a);
}
static inline unsigned vec_ge(vec a, vec b)
{
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}
static inline vec vec_broadcast(const char *p)
{
    float value; /* at any address */
    memcpy(&value, p, sizeof value);
    return vec_set1(value);
}

static inline vec vec_f32(const char *p)
{
    return _mm256_loadu_ps((const float *)p);
}
static inline vec vec_f16(const char *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vec vec_i8(const char *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

static inline vec vec_f32_part(const char *p, size_t count)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps((const float *)p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), lane));
}
/* Narrower types have no masked load: their last components go through a buffer. */
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

/* 16 codes widened to 16 bits; fewer at the end of a row. */
static inline __m256i widen(const int8_t *p, size_t count)
{
    int8_t last[16] = {0};
    if (count < 16) p = memcpy(last, p, count);
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}

static inline uint32_t sum_i32(__m256i a)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)_mm_cvtsi128_si32(half);
}

static int32_t dot_i8(const int8_t *a, const int8_t *b, size_t n)
{
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 16)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(widen(a + i, n - i), widen(b + i, n - i)));
    return (int32_t)sum_i32(sum);
}

static uint32_t l2_i8(const int8_t *a, const int8_t *b, size_t n)
{
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 16) {
        __m256i difference = _mm256_sub_epi16(widen(a + i, n - i), widen(b + i, n - i));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(difference, difference));
    }
    return sum_i32(sum);
}

#include "index/distance_simd.h"

const lk_distance_kernels lk_distance_avx2 = DISTANCE_TABLE("avx2", dot_i8);
