/* The definition of the scan, and the choice of the best. */
#include "index/partitioned/scan.h"

#include <math.h>

#include "index/partitioned/scan_codewords.h"

static size_t scan_codes(const lk_scan *scan, const uint8_t *codes, const int16_t *corrections, size_t n,
                         uint32_t first, float *keys, uint32_t *positions)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *block = codes + i / LK_SCAN_BLOCK * scan->groups * 16;
        size_t lane = i % LK_SCAN_BLOCK;
        uint32_t sum = 0;
        for (size_t g = 0; g < scan->groups; g++)
            sum += scan->tables[g * 16 + (block[g * 16 + lane % 16] >> (lane / 16 * 4) & 15)];
        float key = fmaf(scan->factor, corrections[i], fmaf(scan->scale, (float)sum, scan->bias));
        if (!(key >= scan->threshold)) continue;
        keys[count] = key;
        positions[count++] = first + (uint32_t)i;
    }
    return count;
}

const lk_scan_kernels lk_scan_plain = {"plain", scan_codes, nearest, tables, narrow};

const lk_scan_kernels *lk_scan_kernels_for(lk_cpu_features features)
{
#if defined(__x86_64__)
    if (features & LK_CPU_AVX512) return &lk_scan_avx512;
    if (features & LK_CPU_AVX2) return &lk_scan_avx2;
#elif defined(__aarch64__)
    if (features & LK_CPU_NEON) return &lk_scan_neon;
#endif
    (void)features;
    return &lk_scan_plain;
}
