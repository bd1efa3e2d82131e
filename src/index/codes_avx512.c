/* Code kernels for AVX-512 (F, BW, VL, DQ), for VNNI, and for VNNI with VPOPCNTDQ. */
#include "index/codes.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Sums of the lanes of four registers. */
INLINE __m128i sum4(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64(abcd, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

INLINE __m512i square_add(int vnni, __m512i sum, __m512i query, const uint8_t *codes)
{
    __m512i difference = _mm512_sub_epi16(query, _mm512_cvtepu8_epi16(_mm256_load_si256((const __m256i *)codes)));
#if defined(__AVX512VNNI__)
    if (vnni) return _mm512_dpwssd_epi32(sum, difference, difference);
#endif
    (void)vnni;
    return _mm512_add_epi32(sum, _mm512_madd_epi16(difference, difference));
}

/* Four rows at once: their loads overlap, and so do the additions. */
INLINE void l2_u8(int vnni, const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n,
                  size_t dim, uint32_t *out)
{
    size_t r = 0;
    for (; r < n; r += 4) {
        size_t last = n - 1;
        const uint8_t *a = codes + (size_t)rows[r] * stride,
                      *b = codes + (size_t)rows[r + 1 < n ? r + 1 : last] * stride,
                      *c = codes + (size_t)rows[r + 2 < n ? r + 2 : last] * stride,
                      *d = codes + (size_t)rows[r + 3 < n ? r + 3 : last] * stride;
        __m512i sa = _mm512_setzero_si512(), sb = sa, sc = sa, sd = sa;
        for (size_t i = 0; i < dim; i += 32) {
            __m512i q = _mm512_loadu_si512(query + i);
            sa = square_add(vnni, sa, q, a + i);
            sb = square_add(vnni, sb, q, b + i);
            sc = square_add(vnni, sc, q, c + i);
            sd = square_add(vnni, sd, q, d + i);
        }
        __m128i sums = sum4(sa, sb, sc, sd);
        if (r + 4 <= n)
            _mm_storeu_si128((__m128i *)(out + r), sums);
        else
            _mm_mask_storeu_epi32(out + r, (__mmask8)((1u << (n - r)) - 1), sums);
    }
}

#if defined(__AVX512VPOPCNTDQ__)
#define VNNI 1
#define TABLE lk_codes_avx512_vpopcnt
#define LABEL "avx512_vpopcnt"
#elif defined(__AVX512VNNI__)
#define VNNI 1
#define TABLE lk_codes_avx512_vnni
#define LABEL "avx512_vnni"
#else
#define VNNI 0
#define TABLE lk_codes_avx512
#define LABEL "avx512"
#endif

static void l2_u8_rows(const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n,
                       size_t dim, uint32_t *out)
{
    if (dim == 64) /* constants: the query stays in registers */
        l2_u8(VNNI, query, codes, stride, rows, n, 64, out);
    else if (dim == 128)
        l2_u8(VNNI, query, codes, stride, rows, n, 128, out);
    else
        l2_u8(VNNI, query, codes, stride, rows, n, dim, out);
}

static float l2_residual(const float *query, const uint8_t *code, const int8_t *residual, size_t dim)
{
    const __m512 part = _mm512_set1_ps(1.0f / 256);
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < dim; i += 16) {
        __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(code + i))));
        if (residual) {
            __m512i rest = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(residual + i)));
            value = _mm512_add_ps(value, _mm512_mul_ps(_mm512_cvtepi32_ps(rest), part));
        }
        __m512 difference = _mm512_sub_ps(_mm512_loadu_ps(query + i), value);
        sum = _mm512_add_ps(sum, _mm512_mul_ps(difference, difference));
    }
    float sums[16];
    _mm512_storeu_ps(sums, sum);
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

/* Sums of x and its partners where the bit of `upper` is not set, differences partner - x where it is. */
INLINE __m512 butterfly(__m512 x, __m512 partners, __mmask16 upper)
{
    return _mm512_mask_sub_ps(_mm512_add_ps(partners, x), upper, partners, x);
}

static void hadamard(float *x, size_t n)
{
    if (n < 16) {
        lk_plain_hadamard(x, n);
        return;
    }
    for (size_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_loadu_ps(x + i);
        v = butterfly(v, _mm512_permute_ps(v, 0xb1), 0xaaaa);
        v = butterfly(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
        v = butterfly(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
        v = butterfly(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00);
        _mm512_storeu_ps(x + i, v);
    }
    for (size_t half = 16; half < n; half *= 2) {
        for (size_t i = 0; i < n; i += 2 * half) {
            for (size_t j = i; j < i + half; j += 16) {
                __m512 a = _mm512_loadu_ps(x + j), b = _mm512_loadu_ps(x + j + half);
                _mm512_storeu_ps(x + j, _mm512_add_ps(a, b));
                _mm512_storeu_ps(x + j + half, _mm512_sub_ps(a, b));
            }
        }
    }
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf((float)n));
    for (size_t i = 0; i < n; i += 16) _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_loadu_ps(x + i), scale));
}

/* Bits are tested in words of 32, sixteen links at once. */
static size_t unmarked(const uint32_t *links, size_t n, uint32_t count, const uint64_t *marks, uint32_t *out)
{
    const __m512i limit = _mm512_set1_epi32((int)count), one = _mm512_set1_epi32(1), low = _mm512_set1_epi32(31);
    size_t found = 0;
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 there = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        __m512i link = _mm512_maskz_loadu_epi32(there, links + i);
        __mmask16 valid = _mm512_mask_cmplt_epu32_mask(there, link, limit);
        unsigned gap = ~(unsigned)valid & 0xffff; /* nothing counts from the first that is not valid */
        valid = (__mmask16)(valid & ((gap & -gap) - 1));
        __m512i words =
            _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), valid, _mm512_srli_epi32(link, 5), marks, 4);
        __m512i bit = _mm512_sllv_epi32(one, _mm512_and_si512(link, low));
        __mmask16 fresh = _mm512_mask_testn_epi32_mask(valid, words, bit);
        _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(fresh, link));
        found += (size_t)__builtin_popcount(fresh);
        if (valid != 0xffff) break;
    }
    return found;
}

INLINE __mmask64 first(size_t count)
{
    return count >= 64 ? ~(__mmask64)0 : (((__mmask64)1 << count) - 1);
}

/* sum + products of 64 unsigned and 64 signed bytes. */
INLINE __m512i multiply_add(__m512i sum, __m512i code, __m512i query)
{
#if VNNI
    return _mm512_dpbusd_epi32(sum, code, query);
#else
    __m512i low = _mm512_madd_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(code)),
                                    _mm512_cvtepi8_epi16(_mm512_castsi512_si256(query)));
    __m512i high = _mm512_madd_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(code, 1)),
                                     _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(query, 1)));
    return _mm512_add_epi32(sum, _mm512_add_epi32(low, high));
#endif
}

static int32_t dot_u8(const int8_t *query, const uint8_t *code, size_t n)
{
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 64) {
        __mmask64 part = first(n - i);
        sum = multiply_add(sum, _mm512_maskz_loadu_epi8(part, code + i), _mm512_maskz_loadu_epi8(part, query + i));
    }
    return _mm512_reduce_add_epi32(sum);
}

/* 32 bytes of two codes each, spread to a byte per code. */
static int32_t dot_u4(const int8_t *query, const uint8_t *code, size_t n)
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 64) {
        __mmask64 part = first(n - i);
        __mmask32 bytes = (__mmask32)first((n - i + 1) / 2);
        __m512i wide = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(bytes, code + i / 2));
        __m512i c = _mm512_and_si512(_mm512_or_si512(wide, _mm512_slli_epi16(wide, 4)), low);
        sum = multiply_add(sum, c, _mm512_maskz_loadu_epi8(part, query + i));
    }
    return _mm512_reduce_add_epi32(sum);
}

/* The code is the mask. */
static int32_t dot_b1(const int8_t *query, const uint8_t *code, size_t n)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 64) {
        __mmask64 bits = 0;
        size_t bytes = n - i >= 64 ? 8 : (n - i + 7) / 8;
        memcpy(&bits, code + i / 8, bytes);
        sum = multiply_add(sum, ones, _mm512_maskz_loadu_epi8(bits & first(n - i), query + i));
    }
    return _mm512_reduce_add_epi32(sum);
}

INLINE __m512i count_bits(__m512i x)
{
#if defined(__AVX512VPOPCNTDQ__)
    return _mm512_popcnt_epi64(x);
#else
    const __m512i low = _mm512_set1_epi8(15),
                  table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    __m512i counts = _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(x, low)),
                                     _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), low)));
    return _mm512_sad_epu8(counts, _mm512_setzero_si512());
#endif
}

static uint64_t hamming(const uint8_t *a, const uint8_t *b, size_t n)
{
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 64) {
        __mmask64 part = first(n - i);
        __m512i x = _mm512_xor_si512(_mm512_maskz_loadu_epi8(part, a + i), _mm512_maskz_loadu_epi8(part, b + i));
        sum = _mm512_add_epi64(sum, count_bits(x));
    }
    return (uint64_t)_mm512_reduce_add_epi64(sum);
}

INLINE __m512 load_bf16(__mmask16 part, const uint16_t *row)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(part, row)), 16));
}

static float dot_bf16(const float *query, const uint16_t *row, size_t n)
{
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 part = (__mmask16)first(n - i);
        sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(part, query + i), load_bf16(part, row + i), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

static float l2_bf16(const float *query, const uint16_t *row, size_t n)
{
    __m512 sum = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 part = (__mmask16)first(n - i);
        __m512 difference = _mm512_sub_ps(_mm512_maskz_loadu_ps(part, query + i), load_bf16(part, row + i));
        sum = _mm512_fmadd_ps(difference, difference, sum);
    }
    return _mm512_reduce_add_ps(sum);
}

const lk_code_kernels TABLE = {
    .name = LABEL,
    .l2_u8_rows = l2_u8_rows,
    .l2_residual = l2_residual,
    .hadamard = hadamard,
    .unmarked = unmarked,
    .dot_u8 = dot_u8,
    .dot_u4 = dot_u4,
    .dot_b1 = dot_b1,
    .hamming = hamming,
    .dot_bf16 = dot_bf16,
    .l2_bf16 = l2_bf16,
};
