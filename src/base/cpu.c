#include "base/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <stdbool.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static unsigned ask_processor(void)
{
    unsigned f = LK_CPU_PLAIN;
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned a, b, c = 0, d; /* cpuid for F16C and FP16, whose names not every compiler knows in cpu_supports */
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c) f |= LK_CPU_AVX2;
    if ((f & LK_CPU_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
        f |= LK_CPU_AVX512;
        if (__builtin_cpu_supports("avx512vnni")) f |= LK_CPU_AVX512_VNNI;
        if (__builtin_cpu_supports("avx512bf16")) f |= LK_CPU_AVX512_BF16;
        if (__builtin_cpu_supports("avx512vpopcntdq")) f |= LK_CPU_AVX512_VPOPCNT;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 23)) f |= LK_CPU_AVX512_FP16;
    }
#elif defined(__aarch64__)
    f |= LK_CPU_NEON;
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) f |= LK_CPU_NEON_DOTPROD;
#endif
    return f;
}

lk_cpu_features lk_cpu_detect(void)
{
    /* The processor is asked once: CPUID traps in virtual machines, which takes tens of microseconds. Threads that come
     * first together ask it each and find the same. The environment is read anew: tests change it between calls. */
    enum { ASKED = 1 << 30 };
    static _Atomic unsigned known;
    unsigned f = known;
    if (!f) known = f = ask_processor() | ASKED;
    f &= ~(unsigned)ASKED;
    const char *limit = getenv("LIKENESS_CPU");
    if (limit && strcmp(limit, "plain") == 0) f = LK_CPU_PLAIN;
    if (limit && strcmp(limit, "avx2") == 0) f &= LK_CPU_AVX2;
    if (limit && strcmp(limit, "neon") == 0) f &= LK_CPU_NEON;
    return (lk_cpu_features)f;
}

const char *lk_cpu_names(lk_cpu_features features)
{
    static const struct {
        unsigned bit;
        const char *name;
    } all[] = {{LK_CPU_AVX2, "avx2"},
               {LK_CPU_AVX512, "avx512"},
               {LK_CPU_AVX512_VNNI, "avx512_vnni"},
               {LK_CPU_AVX512_BF16, "avx512_bf16"},
               {LK_CPU_AVX512_FP16, "avx512_fp16"},
               {LK_CPU_AVX512_VPOPCNT, "avx512_vpopcntdq"},
               {LK_CPU_NEON, "neon"},
               {LK_CPU_NEON_DOTPROD, "neon_dotprod"}};
    static _Thread_local char text[160];
    text[0] = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!((unsigned)features & all[i].bit)) continue;
        if (text[0]) strcat(text, " ");
        strcat(text, all[i].name);
    }
    return text[0] ? text : "plain";
}

/* The quota of cgroup v2 ("max 100000" or "200000 100000"): containers often have fewer processors than they see. */
static int quota_processors(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return 0;
    long quota = 0, period = 0;
    int n = fscanf(f, "%ld %ld", &quota, &period); /* "max" does not scan: n is 0 */
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

int lk_cpu_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int quota = quota_processors();
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}
