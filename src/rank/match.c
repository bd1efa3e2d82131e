/* Pairs of local descriptors that look alike. */
#include "rank/match.h"

#include "base/error.h"
#include "base/memory.h"
#include "index/codes.h"
#include "index/distance.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

lk_status lk_match_descriptors(size_t dim, size_t n_a, const float *a, size_t n_b, const float *b, float ratio,
                               int mutual, lk_match *out, size_t *count)
{
    *count = 0;
    if (n_a == 0 || n_b == 0) return LK_OK;
    if (n_a > UINT32_MAX || n_b > UINT32_MAX) return lk_fail(LK_INVALID, "too many local descriptors");
    const lk_distance_kernels *kernels = lk_distance_kernels_for(lk_cpu_detect());
    float *distances = lk_alloc(n_b, sizeof *distances), *least = lk_alloc(n_b, sizeof *least);
    uint32_t *nearest = lk_alloc_zero(n_b, sizeof *nearest); /* of each b the nearest a, at the distance `least` */
    lk_status s = distances && least && nearest ? LK_OK : lk_fail_memory("matches");
    for (size_t j = 0; s == LK_OK && j < n_b; j++) least[j] = INFINITY;
    for (size_t i = 0; s == LK_OK && i < n_a; i++) {
        float first = INFINITY, second = INFINITY;
        size_t at = 0;
        kernels->rows_l2[LK_F32](a + i * dim, b, dim * sizeof(float), n_b, dim, NULL, distances);
        for (size_t j = 0; j < n_b; j++) {
            float d = distances[j];
            if (d < least[j]) {
                least[j] = d;
                nearest[j] = (uint32_t)i;
            }
            if (d < first) {
                second = first;
                first = d;
                at = j;
            } else if (d < second) {
                second = d;
            }
        }
        bool clear = n_b > 1 ? first < ratio * ratio * second : ratio >= 1;
        if (clear) out[(*count)++] = (lk_match){(uint32_t)i, (uint32_t)at, first};
    }
    if (s == LK_OK && mutual) {
        size_t kept = 0;
        for (size_t m = 0; m < *count; m++)
            if (nearest[out[m].b] == out[m].a) out[kept++] = out[m];
        *count = kept;
    }
    free(distances);
    free(least);
    free(nearest);
    return s;
}

/* One over the length of each code. */
static void inverse_lengths(const lk_code_kernels *kernels, size_t n, const uint8_t *codes, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *code = codes + i * LK_MATCH_CODE;
        int8_t plain[2 * LK_MATCH_CODE];
        lk_match_unpack(code, plain);
        int32_t square = kernels->dot_u4(plain, code, 2 * LK_MATCH_CODE);
        out[i] = square ? 1 / sqrtf((float)square) : 0;
    }
}

void lk_match_unpack(const uint8_t code[LK_MATCH_CODE], int8_t out[2 * LK_MATCH_CODE])
{
    for (int b = 0; b < LK_MATCH_CODE; b++) {
        out[2 * b] = code[b] & 15;
        out[2 * b + 1] = (int8_t)(code[b] >> 4);
    }
}

lk_status lk_match_codes(size_t n_a, const uint8_t *a, size_t n_b, const uint8_t *b, float ratio, lk_match *out,
                         size_t *count)
{
    *count = 0;
    if (n_a == 0 || n_b < 2) return LK_OK;
    const lk_code_kernels *kernels = lk_code_kernels_for(lk_cpu_detect());
    float *scratch = lk_alloc(n_a + 3 * n_b, sizeof *scratch);
    uint32_t *nearest = lk_alloc_zero(n_b, sizeof *nearest); /* of each b the most similar a, by `most` */
    lk_status s = scratch && nearest ? LK_OK : lk_fail_memory("matches");
    if (s != LK_OK) goto done;
    float *of_a = scratch, *of_b = scratch + n_a, *most = of_b + n_b, *similar = most + n_b;
    inverse_lengths(kernels, n_a, a, of_a);
    inverse_lengths(kernels, n_b, b, of_b);
    for (size_t j = 0; j < n_b; j++) most[j] = -1;
    for (size_t i = 0; i < n_a; i++) {
        int8_t query[2 * LK_MATCH_CODE];
        float first = -1, second = -1;
        size_t at = 0;
        lk_match_unpack(a + i * LK_MATCH_CODE, query);
        for (size_t j = 0; j < n_b; j++)
            similar[j] = (float)kernels->dot_u4(query, b + j * LK_MATCH_CODE, 2 * LK_MATCH_CODE) * of_b[j] * of_a[i];
        for (size_t j = 0; j < n_b; j++) {
            float x = similar[j];
            if (x > most[j]) {
                most[j] = x;
                nearest[j] = (uint32_t)i;
            }
            if (x > first) {
                second = first;
                first = x;
                at = j;
            } else if (x > second) {
                second = x;
            }
        }
        if (2 - 2 * first < ratio * ratio * (2 - 2 * second))
            out[(*count)++] = (lk_match){(uint32_t)i, (uint32_t)at, 2 - 2 * first};
    }
    size_t kept = 0;
    for (size_t m = 0; m < *count; m++)
        if (nearest[out[m].b] == out[m].a) out[kept++] = out[m];
    *count = kept;
done:
    free(scratch);
    free(nearest);
    return s;
}
