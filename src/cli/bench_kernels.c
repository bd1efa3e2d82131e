/* likeness bench kernels: how fast each variant of each kernel is on this processor. */
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "cli/bench.h"
#include "index/codes.h"
#include "index/distance.h"
#include "index/partitioned/pq.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_bench_kernels = {"bench kernels", "[--dim N] [--rows N] [--json]",
                                       "Time every variant of the distance kernels on one thread", run};

enum { DTYPES = 3, LEAST_MILLISECONDS = 20, TAKES = 3 };

typedef struct bench {
    uint64_t dim, rows;
    bool json;
    json_t *results;
    float *query, *vectors, *scores, *keys;
    void *codes[DTYPES];
    float *scales;
    uint8_t *bytes, *blocks, *tables;
    int16_t *wide_query, *corrections;
    uint32_t *numbers, *positions, *sums;
    uint64_t *masks;
} bench;

/* What is timed, with what it needs. */
typedef struct timed {
    bench *b;
    const lk_distance_kernels *distance;
    const lk_code_kernels *code;
    const lk_scan_kernels *scan;
    int dtype;
} timed;

typedef void (*timed_fn)(const timed *t);

static volatile float keep; /* results must be used */

static void rows_dot(const timed *t)
{
    const bench *b = t->b;
    t->distance->rows_dot[t->dtype](b->query, b->codes[t->dtype], lk_dtype_bytes((lk_dtype)t->dtype, b->dim), b->rows,
                                    b->dim, b->scales, b->scores);
    keep = b->scores[0];
}

static void rows_l2(const timed *t)
{
    const bench *b = t->b;
    t->distance->rows_l2[t->dtype](b->query, b->codes[t->dtype], lk_dtype_bytes((lk_dtype)t->dtype, b->dim), b->rows,
                                   b->dim, b->scales, b->scores);
    keep = b->scores[0];
}

static void pairs_dot(const timed *t)
{
    const bench *b = t->b;
    const int8_t *rows = b->codes[LK_I8];
    int64_t sum = 0;
    for (size_t i = 0; i < b->rows; i++) sum += t->distance->dot_i8(rows, rows + i * b->dim, b->dim);
    keep = (float)sum;
}

static void pairs_l2(const timed *t)
{
    const bench *b = t->b;
    const int8_t *rows = b->codes[LK_I8];
    uint64_t sum = 0;
    for (size_t i = 0; i < b->rows; i++) sum += t->distance->l2_i8(rows, rows + i * b->dim, b->dim);
    keep = (float)sum;
}

static void rows_u8(const timed *t)
{
    const bench *b = t->b;
    size_t padded = (b->dim + 63) / 64 * 64;
    t->code->l2_u8_rows(b->wide_query, b->bytes, padded, b->numbers, b->rows, padded, b->sums);
    keep = (float)b->sums[0];
}

static void scan(const timed *t)
{
    const bench *b = t->b;
    size_t groups = ((b->dim + 1) / 2 + 3) / 4 * 4;
    lk_scan what = {.tables = b->tables, .groups = groups, .scale = 1, .factor = 1, .threshold = FLT_MAX};
    keep = (float)t->scan->scan(&what, b->blocks, b->corrections, b->rows, 0, b->keys, b->positions);
}

static void screen(const timed *t)
{
    const bench *b = t->b;
    keep = (float)t->distance->screen(b->vectors, t->distance->screen_width, b->codes[LK_F32], b->dim * 4, b->rows,
                                      b->dim, b->scores, b->scores, b->masks);
}

/* Seconds of one call, the fastest of some takes. */
static double seconds_of(timed_fn fn, const timed *t)
{
    double best = DBL_MAX;
    fn(t);
    for (int take = 0; take < TAKES; take++) {
        size_t calls = 0;
        double start = lk_now(), now;
        do {
            fn(t);
            calls++;
            now = lk_now();
        } while (now - start < 1e-3 * LEAST_MILLISECONDS);
        best = (now - start) / (double)calls < best ? (now - start) / (double)calls : best;
    }
    return best;
}

static void report(const timed *t, const char *kernel, const char *variant, timed_fn fn, double bytes,
                   double comparisons)
{
    bench *b = t->b;
    double seconds = seconds_of(fn, t), rows = (double)b->rows;
    if (b->json)
        json_array_append_new(b->results, json_pack("{s:s, s:s, s:f, s:f}", "kernel", kernel, "variant", variant,
                                                    "GBps", bytes * rows / seconds / 1e9, "Gcomparisons",
                                                    comparisons * rows / seconds / 1e9));
    else
        printf("%-24s %-12s %9.2f %12.4f\n", kernel, variant, bytes * rows / seconds / 1e9,
               comparisons * rows / seconds / 1e9);
    fflush(stdout);
}

static lk_status fill(bench *b)
{
    size_t n = b->rows * b->dim, padded = (b->dim + 63) / 64 * 64, groups = ((b->dim + 1) / 2 + 3) / 4 * 4;
    size_t block_rows = (b->rows + 31) / 32 * 32, queries = b->dim * LK_SCREEN_WIDTH;
    lk_random random;
    lk_random_seed(&random, 1);
    b->query = lk_alloc_aligned(b->dim, sizeof *b->query);
    b->vectors = lk_alloc_aligned(n > queries ? n : queries, sizeof *b->vectors);
    b->scores = lk_alloc_aligned(b->rows + LK_SCREEN_WIDTH, sizeof *b->scores);
    b->keys = lk_alloc_aligned(block_rows + 32, sizeof *b->keys);
    b->positions = lk_alloc_aligned(block_rows + 32, sizeof *b->positions);
    b->scales = lk_alloc_aligned(b->rows, sizeof *b->scales);
    b->bytes = lk_alloc_aligned(b->rows, padded);
    b->wide_query = lk_alloc_aligned(padded, sizeof *b->wide_query);
    b->blocks = lk_alloc_aligned(block_rows, groups / 2);
    b->tables = lk_alloc_aligned(groups, 16);
    b->corrections = lk_alloc_aligned(block_rows, sizeof *b->corrections);
    b->numbers = lk_alloc_aligned(b->rows, sizeof *b->numbers);
    b->sums = lk_alloc_aligned(b->rows, sizeof *b->sums);
    b->masks = lk_alloc_aligned(b->rows, sizeof *b->masks);
    if (!b->query || !b->vectors || !b->scores || !b->keys || !b->positions || !b->scales || !b->bytes ||
        !b->wide_query || !b->blocks || !b->tables || !b->corrections || !b->numbers || !b->sums || !b->masks)
        return lk_fail_memory("benchmark");
    for (size_t i = 0; i < (n > queries ? n : queries); i++) b->vectors[i] = (float)lk_random_unit(&random) - 0.5f;
    for (size_t i = 0; i < b->dim; i++) b->query[i] = (float)lk_random_unit(&random) - 0.5f;
    for (size_t i = 0; i < padded; i++) b->wide_query[i] = (int16_t)lk_random_below(&random, 256);
    for (size_t i = 0; i < b->rows * padded; i++) b->bytes[i] = (uint8_t)lk_random_u64(&random);
    for (size_t i = 0; i < block_rows * groups / 2; i++) b->blocks[i] = (uint8_t)lk_random_u64(&random);
    for (size_t i = 0; i < groups * 16; i++) b->tables[i] = (uint8_t)lk_random_u64(&random);
    memset(b->corrections, 0, block_rows * sizeof *b->corrections);
    for (size_t i = 0; i < b->rows; i++) b->numbers[i] = (uint32_t)i;
    for (size_t i = 0; i < b->rows + LK_SCREEN_WIDTH; i++) b->scores[i] = FLT_MAX;
    for (int d = 0; d < DTYPES; d++) {
        b->codes[d] = lk_alloc_aligned(b->rows, lk_dtype_bytes((lk_dtype)d, b->dim));
        if (!b->codes[d]) return lk_fail_memory("benchmark");
        lk_status s = lk_vectors_encode((lk_dtype)d, b->dim, b->rows, b->vectors, 0, b->codes[d], b->scales);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

static void drop(bench *b)
{
    void *all[] = {b->query, b->vectors,    b->scores,        b->keys,          b->positions,   b->scales,
                   b->bytes, b->wide_query, b->blocks,        b->tables,        b->corrections, b->numbers,
                   b->sums,  b->masks,      b->codes[LK_F32], b->codes[LK_F16], b->codes[LK_I8]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void time_distance(bench *b, const lk_distance_kernels *kernels)
{
    static const char *const dots[DTYPES] = {"dot f32 x f32", "dot f32 x f16", "dot f32 x int8"};
    static const char *const l2s[DTYPES] = {"l2 f32 x f32", "l2 f32 x f16", "l2 f32 x int8"};
    timed t = {.b = b, .distance = kernels};
    for (t.dtype = 0; t.dtype < DTYPES; t.dtype++) {
        double bytes = (double)lk_dtype_bytes((lk_dtype)t.dtype, b->dim);
        report(&t, dots[t.dtype], kernels->name, rows_dot, bytes, 1);
        report(&t, l2s[t.dtype], kernels->name, rows_l2, bytes, 1);
    }
    report(&t, "dot int8 x int8", kernels->name, pairs_dot, (double)b->dim, 1);
    report(&t, "l2 int8 x int8", kernels->name, pairs_l2, (double)b->dim, 1);
    report(&t, "dot f32, many queries", kernels->name, screen, 4.0 * (double)b->dim, (double)kernels->screen_width);
}

static void time_all(bench *b)
{
    /* From plain upwards; a step that chooses the table before it again adds nothing. */
    static const lk_cpu_features steps[] = {LK_CPU_PLAIN,       LK_CPU_AVX2, LK_CPU_AVX512,
                                            LK_CPU_AVX512_VNNI, LK_CPU_NEON, LK_CPU_NEON_DOTPROD};
    lk_cpu_features have = lk_cpu_detect(), asked = LK_CPU_PLAIN;
    const lk_distance_kernels *distance = NULL;
    const lk_code_kernels *code = NULL;
    const lk_scan_kernels *scans = NULL;
    double codes = (double)(((b->dim + 1) / 2 + 3) / 4 * 2) + 2;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if ((have & steps[i]) != steps[i]) continue;
        asked |= steps[i];
        timed t = {.b = b, .code = lk_code_kernels_for(asked), .scan = lk_scan_kernels_for(asked)};
        if (lk_distance_kernels_for(asked) != distance) time_distance(b, distance = lk_distance_kernels_for(asked));
        if (t.code != code) report(&t, "l2 u8 rows", t.code->name, rows_u8, (double)((b->dim + 63) / 64 * 64), 1);
        if (t.scan != scans) report(&t, "scan of 4-bit codes", t.scan->name, scan, codes, 1);
        code = t.code;
        scans = t.scan;
    }
}

static int run(int argc, char **argv)
{
    bench b = {.dim = 128, .rows = 1024};
    const cli_option options[] = {
        {.name = "--dim",
         .value = "N",
         .help = "components of a vector (default 128)",
         .number = &b.dim,
         .least = 1,
         .most = 16384},
        {.name = "--rows",
         .value = "N",
         .help = "vectors (default 1024, which stay in the cache)",
         .number = &b.rows,
         .least = 1,
         .most = 1u << 24},
        {.name = "--json", .help = "print JSON", .flag = &b.json},
    };
    int count, status = cli_parse(&cli_bench_kernels, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 0) return cli_usage(&cli_bench_kernels, "%s: what is that for?", argv[0]);
    lk_status s = fill(&b);
    if (s == LK_OK && b.json) b.results = json_array();
    if (s == LK_OK && !b.json)
        printf("%llu x %llu, one thread, this processor has %s\n\n%-24s %-12s %9s %12s\n", (unsigned long long)b.rows,
               (unsigned long long)b.dim, lk_cpu_names(lk_cpu_detect()), "kernel", "variant", "GB/s", "G compared/s");
    if (s == LK_OK) time_all(&b);
    if (b.results)
        status = cli_print_json(
            json_pack("{s:I, s:I, s:o}", "rows", (json_int_t)b.rows, "dim", (json_int_t)b.dim, "kernels", b.results));
    drop(&b);
    return s == LK_OK ? status : cli_fail("bench kernels");
}
