/* What the processor can do, asked once. Kernels are chosen by these bits; LIKENESS_CPU=avx512|avx2|neon|plain in the
 * environment lowers them (for tests and for comparing variants). */
#ifndef LK_BASE_CPU_H
#define LK_BASE_CPU_H

typedef enum lk_cpu_features {
    LK_CPU_PLAIN = 0,
    LK_CPU_AVX2 = 1 << 0,   /* with FMA and F16C */
    LK_CPU_AVX512 = 1 << 1, /* F, BW, VL, DQ */
    LK_CPU_AVX512_VNNI = 1 << 2,
    LK_CPU_AVX512_BF16 = 1 << 3,
    LK_CPU_AVX512_FP16 = 1 << 4,
    LK_CPU_AVX512_VPOPCNT = 1 << 5,
    LK_CPU_NEON = 1 << 6,
    LK_CPU_NEON_DOTPROD = 1 << 7
} lk_cpu_features;

lk_cpu_features lk_cpu_detect(void);
/* "avx2 avx512 ...", in a buffer of the calling thread. */
const char *lk_cpu_names(lk_cpu_features features);
/* Processors this process may run on (affinity and cgroup quota considered), at least 1. */
int lk_cpu_count(void);

#endif
