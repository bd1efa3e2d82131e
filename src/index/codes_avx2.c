/* Code kernels for AVX2. */
#include "index/codes.h"

#include <immintrin.h>

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
    if (dim == 128)
        l2_u8(query, codes, stride, rows, n, 128, out);
    else
        l2_u8(query, codes, stride, rows, n, dim, out);
}

static size_t unmarked(const uint32_t *links, size_t n, uint32_t count, const uint64_t *marks, uint32_t *out)
{
    size_t found = 0;
    for (size_t i = 0; i < n && links[i] < count; i++) {
        out[found] = links[i];
        found += !(marks[links[i] / 64] >> (links[i] % 64) & 1);
    }
    return found;
}

const lk_code_kernels lk_codes_avx2 = {.name = "avx2", .l2_u8_rows = l2_u8_rows, .unmarked = unmarked};
