/* Code kernels for AVX2. */
#include "index/codes.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE __m256i square_add(__m256i sum, __m256i query, const uint8_t *codes)
{
    __m256i difference = _mm256_sub_epi16(query, _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)codes)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(difference, difference));
}

INLINE void l2_u8(const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n, size_t dim,
                  uint32_t *out)
{
    for (size_t r = 0; r < n; r += 4) {
        const uint8_t *row[4];
        for (size_t j = 0; j < 4; j++) row[j] = codes + (size_t)rows[r + j < n ? r + j : n - 1] * stride;
        __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
        for (size_t i = 0; i < dim; i += 16) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(query + i));
            a = square_add(a, q, row[0] + i);
            b = square_add(b, q, row[1] + i);
            c = square_add(c, q, row[2] + i);
            d = square_add(d, q, row[3] + i);
        }
        __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        if (r + 4 <= n) {
            _mm_storeu_si128((__m128i *)(out + r), four);
        } else {
            uint32_t last[4];
            _mm_storeu_si128((__m128i *)last, four);
            for (size_t j = 0; r + j < n; j++) out[r + j] = last[j];
        }
    }
}

static void l2_u8_rows(const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n,
                       size_t dim, uint32_t *out)
{
    if (dim == 64)
        l2_u8(query, codes, stride, rows, n, 64, out);
    else if (dim == 128)
        l2_u8(query, codes, stride, rows, n, 128, out);
    else
        l2_u8(query, codes, stride, rows, n, dim, out);
}

INLINE __m256 square_rest(__m256 sum, const float *query, const uint8_t *code, const int8_t *residual)
{
    __m256 value = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)code)));
    if (residual) {
        __m256i rest = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)residual));
        value = _mm256_add_ps(value, _mm256_mul_ps(_mm256_cvtepi32_ps(rest), _mm256_set1_ps(1.0f / 256)));
    }
    __m256 difference = _mm256_sub_ps(_mm256_loadu_ps(query), value);
    return _mm256_add_ps(sum, _mm256_mul_ps(difference, difference));
}

static float l2_residual(const float *query, const uint8_t *code, const int8_t *residual, size_t dim)
{
    __m256 low = _mm256_setzero_ps(), high = low;
    for (size_t i = 0; i < dim; i += 16) {
        low = square_rest(low, query + i, code + i, residual ? residual + i : NULL);
        high = square_rest(high, query + i + 8, code + i + 8, residual ? residual + i + 8 : NULL);
    }
    float sums[8];
    _mm256_storeu_ps(sums, _mm256_add_ps(low, high));
    for (size_t half = 4; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

static void hadamard(float *x, size_t n)
{
    if (n < 8) {
        lk_plain_hadamard(x, n);
        return;
    }
    for (size_t i = 0; i < n; i += 8) { /* of each pair the sum below, the difference above */
        __m256 v = _mm256_loadu_ps(x + i), p = _mm256_permute_ps(v, 0xb1);
        v = _mm256_blend_ps(_mm256_add_ps(p, v), _mm256_sub_ps(p, v), 0xaa);
        p = _mm256_permute_ps(v, 0x4e);
        v = _mm256_blend_ps(_mm256_add_ps(p, v), _mm256_sub_ps(p, v), 0xcc);
        p = _mm256_permute2f128_ps(v, v, 1);
        v = _mm256_blend_ps(_mm256_add_ps(p, v), _mm256_sub_ps(p, v), 0xf0);
        _mm256_storeu_ps(x + i, v);
    }
    for (size_t half = 8; half < n; half *= 2) {
        for (size_t i = 0; i < n; i += 2 * half) {
            for (size_t j = i; j < i + half; j += 8) {
                __m256 a = _mm256_loadu_ps(x + j), b = _mm256_loadu_ps(x + j + half);
                _mm256_storeu_ps(x + j, _mm256_add_ps(a, b));
                _mm256_storeu_ps(x + j + half, _mm256_sub_ps(a, b));
            }
        }
    }
    const __m256 scale = _mm256_set1_ps(1.0f / sqrtf((float)n));
    for (size_t i = 0; i < n; i += 8) _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), scale));
}

INLINE int32_t sum_lanes(__m256i a)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

/* 16 components; products of 8 bits each do not fit into the 16 bits of VPMADDUBSW, so both are widened. */
static int32_t dot_u8(const int8_t *query, const uint8_t *code, size_t n)
{
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i q = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(query + i)));
        __m256i c = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(code + i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(q, c));
    }
    return sum_lanes(sum) + lk_plain_dot_u8(query + i, code + i, n - i);
}

/* 16 bytes of two codes each, spread to a byte per code: products are at most 15 * 128, so pairs fit into 16 bits. */
static int32_t dot_u4(const int8_t *query, const uint8_t *code, size_t n)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(code + i / 2)));
        __m256i c = _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), low);
        __m256i pairs = _mm256_maddubs_epi16(c, _mm256_loadu_si256((const __m256i *)(query + i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    return sum_lanes(sum) + lk_plain_dot_u4(query + i, code + i / 2, n - i);
}

/* Every bit becomes a byte of ones or zeros that masks the query. */
static int32_t dot_b1(const int8_t *query, const uint8_t *code, size_t n)
{
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303),
                  bit = _mm256_set1_epi64x((long long)0x8040201008040201), ones = _mm256_set1_epi16(1),
                  bytes = _mm256_set1_epi8(1);
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        int32_t bits;
        memcpy(&bits, code + i / 8, sizeof bits);
        __m256i mask = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), bit);
        mask = _mm256_cmpeq_epi8(mask, bit);
        __m256i q = _mm256_and_si256(mask, _mm256_loadu_si256((const __m256i *)(query + i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, q), ones));
    }
    return sum_lanes(sum) + lk_plain_dot_b1(query + i, code + i / 8, n - i);
}

/* Bits of each half byte from a table (Mula). */
static uint64_t hamming(const uint8_t *a, const uint8_t *b, size_t n)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4),
                  low = _mm256_set1_epi8(15);
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i x = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(a + i)),
                                     _mm256_loadu_si256((const __m256i *)(b + i)));
        __m256i count = _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, low)),
                                        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(count, _mm256_setzero_si256()));
    }
    uint64_t parts[4];
    _mm256_storeu_si256((__m256i *)parts, sum);
    return parts[0] + parts[1] + parts[2] + parts[3] + lk_plain_hamming(a + i, b + i, n - i);
}

INLINE float sum_floats(__m256 a)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE __m256 load_bf16(const uint16_t *row)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)row));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static float dot_bf16(const float *query, const uint16_t *row, size_t n)
{
    __m256 sum = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= n; i += 8) sum = _mm256_fmadd_ps(_mm256_loadu_ps(query + i), load_bf16(row + i), sum);
    return sum_floats(sum) + lk_plain_dot_bf16(query + i, row + i, n - i);
}

static float l2_bf16(const float *query, const uint16_t *row, size_t n)
{
    __m256 sum = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 difference = _mm256_sub_ps(_mm256_loadu_ps(query + i), load_bf16(row + i));
        sum = _mm256_fmadd_ps(difference, difference, sum);
    }
    return sum_floats(sum) + lk_plain_l2_bf16(query + i, row + i, n - i);
}

const lk_code_kernels lk_codes_avx2 = {
    .name = "avx2",
    .l2_u8_rows = l2_u8_rows,
    .l2_residual = l2_residual,
    .hadamard = hadamard,
    .unmarked = lk_plain_unmarked,
    .dot_u8 = dot_u8,
    .dot_u4 = dot_u4,
    .dot_b1 = dot_b1,
    .hamming = hamming,
    .dot_bf16 = dot_bf16,
    .l2_bf16 = l2_bf16,
};
