/* Chooses the table of code kernels. */
#include "index/codes.h"

const lk_code_kernels *lk_code_kernels_for(lk_cpu_features features)
{
#if defined(__x86_64__)
    if ((features & LK_CPU_AVX512) && (features & LK_CPU_AVX512_VNNI))
        return features & LK_CPU_AVX512_VPOPCNT ? &lk_codes_avx512_vpopcnt : &lk_codes_avx512_vnni;
    if (features & LK_CPU_AVX512) return &lk_codes_avx512;
    if (features & LK_CPU_AVX2) return &lk_codes_avx2;
#elif defined(__aarch64__)
    if (features & LK_CPU_NEON) return &lk_codes_neon;
#endif
    (void)features;
    return &lk_codes_plain;
}
