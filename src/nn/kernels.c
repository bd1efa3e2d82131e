#include "nn/kernels.h"

const lk_nn_kernels *lk_nn_kernels_for(lk_cpu_features features)
{
#if defined(__x86_64__)
    if ((features & LK_CPU_AVX512) && (features & LK_CPU_AVX512_BF16)) return &lk_nn_avx512_bf16;
    if (features & LK_CPU_AVX512) return &lk_nn_avx512;
    if (features & LK_CPU_AVX2) return &lk_nn_avx2;
#endif
    (void)features;
    return &lk_nn_plain;
}
