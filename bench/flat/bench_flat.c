/* Our side of bench/flat: holds the data in every storage type and times what it is told to, so that run.py can take
 * turns between it and its peer.
 *
 *     bench_flat VECTORS.f32 ROWS DIM QUERIES.f32 QUERIES K
 *
 * prints "ready CPU", then answers one line for each line of input, with one thread:
 *     time STORE BATCH FIRST COUNT    seconds for COUNT queries from FIRST on, BATCH at a time; STORE is f32, f16, i8
 * or mapped (f32 in a mapped file) ids STORE BATCH FIRST COUNT     ids found, K per query, query after query read
 * seconds to read as many bytes as the f32 vectors take, once peak                            floating-point operations
 * per second of fused multiply-adds on registers */
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "index/distance.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STORES = 4 };
static const char *const store_names[STORES] = {"f32", "f16", "i8", "mapped"};

typedef struct bench {
    lk_map vectors, queries;
    size_t rows, dim, query_count, k;
    uint64_t *ids;
    lk_flat *stores[STORES];
    lk_hit *hits;
    size_t *counts;
    uint64_t *plain; /* as many bytes as the vectors, to read */
} bench;

static lk_status open_bench(bench *b, char **argv)
{
    static const lk_dtype dtypes[STORES] = {LK_F32, LK_F16, LK_I8, LK_F32};
    lk_status s = LK_OK;
    b->rows = strtoull(argv[2], NULL, 10);
    b->dim = strtoull(argv[3], NULL, 10);
    b->query_count = strtoull(argv[5], NULL, 10);
    b->k = strtoull(argv[6], NULL, 10);
    LK_TRY(lk_map_open(argv[1], &b->vectors));
    LK_TRY(lk_map_open(argv[4], &b->queries));
    if (b->vectors.size != b->rows * b->dim * 4 || b->queries.size != b->query_count * b->dim * 4)
        return lk_fail(LK_INVALID, "the files are not as long as rows, dim and queries say");
    size_t bytes = (b->vectors.size + ((size_t)2 << 20) - 1) >> 21 << 21;
    b->ids = lk_alloc(b->rows, sizeof *b->ids);
    b->hits = lk_alloc(b->query_count * b->k, sizeof *b->hits);
    b->counts = lk_alloc(b->query_count, sizeof *b->counts);
    b->plain = aligned_alloc((size_t)2 << 20, bytes);
    if (!b->ids || !b->hits || !b->counts || !b->plain) return lk_fail_memory("benchmark");
    madvise(b->plain, bytes, MADV_HUGEPAGE);
    memset(b->plain, 1, bytes);
    for (size_t i = 0; i < b->rows; i++) b->ids[i] = i;
    for (int i = 0; i < STORES; i++) {
        LK_TRY(lk_flat_new(b->dim, LK_INNER_PRODUCT, dtypes[i], &b->stores[i]));
        if (i < STORES - 1)
            LK_TRY(lk_flat_add(b->stores[i], b->rows, b->ids, (const float *)b->vectors.bytes));
        else
            LK_TRY(lk_flat_attach(b->stores[i], b->rows, b->ids, b->vectors.bytes, NULL, NULL));
    }
done:
    return s;
}

static void close_bench(bench *b)
{
    for (int i = 0; i < STORES; i++) lk_flat_free(b->stores[i]);
    free(b->ids);
    free(b->hits);
    free(b->counts);
    free(b->plain);
    lk_map_close(&b->vectors);
    lk_map_close(&b->queries);
}

static lk_status search(bench *b, int store, size_t batch, size_t first, size_t count)
{
    for (size_t q = first; q < first + count; q += batch) {
        size_t n = first + count - q < batch ? first + count - q : batch;
        lk_status s = lk_flat_search(b->stores[store], NULL, n, (const float *)b->queries.bytes + q * b->dim, b->k,
                                     NULL, NULL, b->hits + q * b->k, b->counts + q);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

/* The compiler makes a loop of vector loads and additions of it, for what the processor has. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#endif
static uint64_t
sum_of(const uint64_t *words, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += words[i];
    return sum;
}

static double time_read(const bench *b)
{
    double start = lk_now();
    volatile uint64_t sum = sum_of(b->plain, b->vectors.size / sizeof *b->plain);
    (void)sum;
    return lk_now() - start;
}

/* Sixteen independent accumulators hide the latency of a fused multiply-add; nothing is loaded. Vectors wider than the
 * processor's are split by the compiler. */
typedef float wide __attribute__((vector_size(64)));
enum { CHAINS = 16, ROUNDS = 10000000 };

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "arch=haswell", "default"), noinline))
#endif
static double
measure_peak(void)
{
    wide sums[CHAINS], factor, term;
    for (int lane = 0; lane < 16; lane++) factor[lane] = 0.5f, term[lane] = 1;
    for (int c = 0; c < CHAINS; c++) sums[c] = term * (float)c;
    double start = lk_now();
    for (int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) sums[c] = sums[c] * factor + term;
    }
    double seconds = lk_now() - start;
    volatile float keep = 0; /* the sums must be used */
    for (int c = 0; c < CHAINS; c++) keep += sums[c][0];
    (void)keep;
    return 2.0 * 16 * CHAINS * ROUNDS / seconds;
}

static lk_status answer(bench *b, const char *line)
{
    char verb[8], store[8];
    size_t batch, first, count;
    if (strncmp(line, "read", 4) == 0) {
        printf("%.9f\n", time_read(b));
        return LK_OK;
    }
    if (strncmp(line, "peak", 4) == 0) {
        printf("%.9g\n", measure_peak());
        return LK_OK;
    }
    if (sscanf(line, "%7s %7s %zu %zu %zu", verb, store, &batch, &first, &count) != 5 || batch == 0 || count == 0 ||
        first + count > b->query_count)
        return lk_fail(LK_INVALID, "what is %s", line);
    int which = 0;
    while (which < STORES && strcmp(store_names[which], store) != 0) which++;
    if (which == STORES) return lk_fail(LK_INVALID, "there is no store %s", store);
    double start = lk_now();
    lk_status s = search(b, which, batch, first, count);
    double seconds = lk_now() - start;
    if (s != LK_OK) return s;
    if (strcmp(verb, "time") == 0)
        printf("%.9f\n", seconds);
    else
        for (size_t i = first * b->k; i < (first + count) * b->k; i++)
            printf("%" PRIu64 "%c", b->hits[i].id, i + 1 < (first + count) * b->k ? ' ' : '\n');
    return LK_OK;
}

int main(int argc, char **argv)
{
    bench b = {0};
    char line[256];
    if (argc != 7) {
        fprintf(stderr, "usage: bench_flat VECTORS.f32 ROWS DIM QUERIES.f32 QUERIES K\n");
        return 2;
    }
    lk_status s = open_bench(&b, argv);
    if (s == LK_OK) printf("ready %s\n", lk_distance_kernels_for(lk_cpu_detect())->name);
    fflush(stdout);
    while (s == LK_OK && fgets(line, sizeof line, stdin)) {
        s = answer(&b, line);
        fflush(stdout);
    }
    if (s != LK_OK) fprintf(stderr, "bench_flat: %s: %s\n", lk_status_name(s), lk_error_message());
    close_bench(&b);
    return s == LK_OK ? 0 : 1;
}
