/* As scan_avx512.c, with two groups in a register. */
#include "index/partitioned/scan_codewords.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct sums {
    __m256i low_words, low_high, high_words, high_high;
} sums;

INLINE void add(sums *s, __m256i table, __m256i codes)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, mask));
    __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask));
    s->low_words = _mm256_add_epi16(s->low_words, low);
    s->low_high = _mm256_add_epi16(s->low_high, _mm256_srli_epi16(low, 8));
    s->high_words = _mm256_add_epi16(s->high_words, high);
    s->high_high = _mm256_add_epi16(s->high_high, _mm256_srli_epi16(high, 8));
}

INLINE __m128i fold(__m256i x)
{
    return _mm_add_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}

/* Keys of 8 vectors; bit per lane that passes. */
INLINE uint32_t keys_of(const lk_scan *scan, __m128i sum, const int16_t *corrections, float *out)
{
    __m256 correction = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)corrections)));
    __m256 key = _mm256_fmadd_ps(_mm256_set1_ps(scan->scale), _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sum)),
                                 _mm256_set1_ps(scan->bias));
    key = _mm256_fmadd_ps(_mm256_set1_ps(scan->factor), correction, key);
    _mm256_storeu_ps(out, key);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(key, _mm256_set1_ps(scan->threshold), _CMP_GE_OQ));
}

/* Bits of the 16 vectors of one half. */
INLINE uint32_t half_of(const lk_scan *scan, __m256i words, __m256i high, const int16_t *corrections, float *out)
{
    __m128i odd = fold(high), even = _mm_sub_epi16(fold(words), _mm_slli_epi16(odd, 8));
    return keys_of(scan, _mm_unpacklo_epi16(even, odd), corrections, out) |
           keys_of(scan, _mm_unpackhi_epi16(even, odd), corrections + 8, out + 8) << 8;
}

static size_t scan_codes(const lk_scan *scan, const uint8_t *codes, const int16_t *corrections, size_t n,
                         uint32_t first, float *keys, uint32_t *positions)
{
    size_t bytes = scan->groups * 16, count = 0;
    for (size_t i = 0; i < n; i += LK_SCAN_BLOCK, codes += bytes) {
        sums s = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (size_t at = 0; at < bytes; at += 32)
            add(&s, _mm256_loadu_si256((const __m256i *)(scan->tables + at)),
                _mm256_loadu_si256((const __m256i *)(codes + at)));
        float block[LK_SCAN_BLOCK];
        uint32_t pass = half_of(scan, s.low_words, s.low_high, corrections + i, block) |
                        half_of(scan, s.high_words, s.high_high, corrections + i + 16, block + 16) << 16;
        if (n - i < LK_SCAN_BLOCK) pass &= ((uint32_t)1 << (n - i)) - 1;
        for (; pass != 0; pass &= pass - 1) {
            uint32_t lane = (uint32_t)__builtin_ctz(pass);
            keys[count] = block[lane];
            positions[count++] = first + (uint32_t)i + lane;
        }
    }
    return count;
}

const lk_scan_kernels lk_scan_avx2 = {"avx2", scan_codes, nearest, tables, narrow};
