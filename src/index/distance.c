/* Chooses the table of distance kernels. */
#include "index/distance.h"

const lk_distance_kernels *lk_distance_kernels_for(lk_cpu_features features)
{
#if defined(__x86_64__)
    if ((features & LK_CPU_AVX512) && (features & LK_CPU_AVX512_VNNI)) return &lk_distance_avx512_vnni;
    if (features & LK_CPU_AVX512) return &lk_distance_avx512;
    if (features & LK_CPU_AVX2) return &lk_distance_avx2;
#elif defined(__aarch64__)
    if ((features & LK_CPU_NEON) && (features & LK_CPU_NEON_DOTPROD)) return &lk_distance_neon_dotprod;
    if (features & LK_CPU_NEON) return &lk_distance_neon;
#endif
    (void)features;
    return &lk_distance_plain;
}
