/* A register holds four groups' tables, one a lane, and the codes of 32 vectors in these groups. Sums are kept in 16
 * bits: a whole register is added to one sum of 16-bit words (low byte + 256 high byte), its high bytes to another; the
 * first less 256 times the second are the low bytes' sums. */
#include "index/partitioned/scan_codewords.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct sums {
    __m512i low_words, low_high, high_words, high_high; /* of vectors 0-15 (low halves of bytes) and 16-31 */
} sums;

INLINE void add(sums *s, __m512i table, __m512i codes)
{
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, mask));
    __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask));
    s->low_words = _mm512_add_epi16(s->low_words, low);
    s->low_high = _mm512_add_epi16(s->low_high, _mm512_srli_epi16(low, 8));
    s->high_words = _mm512_add_epi16(s->high_words, high);
    s->high_high = _mm512_add_epi16(s->high_high, _mm512_srli_epi16(high, 8));
}

INLINE __m128i fold(__m512i x)
{
    __m256i half = _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The sums of 16 vectors in order. */
INLINE __m256i finish(__m512i words, __m512i high)
{
    __m128i odd = fold(high), even = _mm_sub_epi16(fold(words), _mm_slli_epi16(odd, 8));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(even, odd)), _mm_unpackhi_epi16(even, odd),
                                   1);
}

INLINE size_t emit(const lk_scan *scan, __m256i sum, const int16_t *corrections, uint32_t valid, uint32_t position,
                   float *keys, uint32_t *positions)
{
    const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 correction = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)corrections)));
    __m512 key = _mm512_fmadd_ps(_mm512_set1_ps(scan->scale), _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(sum)),
                                 _mm512_set1_ps(scan->bias));
    key = _mm512_fmadd_ps(_mm512_set1_ps(scan->factor), correction, key);
    __mmask16 pass = _mm512_mask_cmp_ps_mask((__mmask16)valid, key, _mm512_set1_ps(scan->threshold), _CMP_GE_OQ);
    if (pass == 0) return 0;
    /* Compressing into a register and storing it whole is much faster than compressing into memory. */
    _mm512_storeu_ps(keys, _mm512_maskz_compress_ps(pass, key));
    _mm512_storeu_si512(positions,
                        _mm512_maskz_compress_epi32(pass, _mm512_add_epi32(order, _mm512_set1_epi32((int)position))));
    return (size_t)__builtin_popcount(pass);
}

/* `blocks` (constant) blocks, of which `n` vectors count. */
INLINE size_t scan_blocks(const lk_scan *scan, int blocks, const uint8_t *codes, const int16_t *corrections, size_t n,
                          uint32_t position, float *keys, uint32_t *positions)
{
    size_t bytes = scan->groups * 16, count = 0;
    sums s[2];
    for (int b = 0; b < blocks; b++)
        s[b] = (sums){_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t i = 0; i < bytes; i += 64) {
        __m512i table = _mm512_loadu_si512(scan->tables + i);
        for (int b = 0; b < blocks; b++) /* the blocks after these; past the last it does no harm */
            _mm_prefetch((const char *)codes + (size_t)(blocks + b) * bytes + i, _MM_HINT_T0);
        for (int b = 0; b < blocks; b++) add(&s[b], table, _mm512_loadu_si512(codes + (size_t)b * bytes + i));
    }
    for (int b = 0; b < blocks; b++) {
        size_t begin = (size_t)b * LK_SCAN_BLOCK, left = n - begin;
        uint32_t valid = left >= LK_SCAN_BLOCK ? UINT32_MAX : ((uint32_t)1 << left) - 1;
        count += emit(scan, finish(s[b].low_words, s[b].low_high), corrections + begin, valid & 0xffff,
                      position + (uint32_t)begin, keys + count, positions + count);
        count += emit(scan, finish(s[b].high_words, s[b].high_high), corrections + begin + 16, valid >> 16,
                      position + (uint32_t)begin + 16, keys + count, positions + count);
    }
    return count;
}

static size_t scan_codes(const lk_scan *scan, const uint8_t *codes, const int16_t *corrections, size_t n,
                         uint32_t first, float *keys, uint32_t *positions)
{
    size_t bytes = scan->groups * 16, count = 0, i = 0;
    for (; i + LK_SCAN_BLOCK < n; i += 2 * LK_SCAN_BLOCK)
        count += scan_blocks(scan, 2, codes + i / LK_SCAN_BLOCK * bytes, corrections + i, n - i, first + (uint32_t)i,
                             keys + count, positions + count);
    if (i < n)
        count += scan_blocks(scan, 1, codes + i / LK_SCAN_BLOCK * bytes, corrections + i, n - i, first + (uint32_t)i,
                             keys + count, positions + count);
    return count;
}

const lk_scan_kernels lk_scan_avx512 = {"avx512", scan_codes, nearest, tables, narrow};
