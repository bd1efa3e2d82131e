/* Pairs of local descriptors that look alike. */
#include "base/error.h"
#include "base/memory.h"
#include "index/distance.h"
#include <likeness/rank.h>

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
