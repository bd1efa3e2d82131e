/* likeness bench codes: what each kind of codes costs and how well it finds. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/bench.h"
#include "index/topk.h"

#include <likeness/codes.h>
#include <likeness/vectors.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { K = 10, SHORTLIST = 100, MOST_QUERIES = 100 };

static int run(int argc, char **argv);
const cli_command cli_bench_codes = {"bench codes", "--base FILE --queries FILE [--metric l2|ip|cosine] [--rows N]",
                                     "Code vectors in every way: bytes, error, recall of codes alone, speed", run};

typedef struct bench {
    const char *base, *queries, *metric_name;
    uint64_t n, seed;
    bool json;
    cli_common common;
    lk_metric metric;
    lk_context *context;
    size_t dim, query_count;
    float *vectors, *query_rows, *scores, *bounds;
    lk_flat *flat;
    lk_hit *truth, *room; /* [queries][K]; of a shortlist */
    size_t *counts;
    json_t *results;
} bench;

static lk_status prepare(bench *b)
{
    uint64_t *ids = NULL;
    lk_status s;
    LK_TRY(cli_bench_read(b->base, LK_VECTORS_BASE, b->n, 0, &b->vectors, &b->n, &b->dim));
    LK_TRY(cli_bench_read_queries(b->queries, MOST_QUERIES, b->dim, &b->query_rows, &b->query_count));
    if (b->n < K) {
        s = lk_fail(LK_INVALID, "%s: holds too few vectors", b->base);
        goto done;
    }
    ids = lk_alloc((size_t)b->n, sizeof *ids);
    b->truth = lk_alloc(b->query_count * K, sizeof *b->truth);
    b->room = lk_alloc(lk_topk_capacity(SHORTLIST), sizeof *b->room);
    b->counts = lk_alloc(b->query_count, sizeof *b->counts);
    b->scores = lk_alloc((size_t)b->n, sizeof *b->scores);
    b->bounds = lk_alloc((size_t)b->n, sizeof *b->bounds);
    if (!ids || !b->truth || !b->room || !b->counts || !b->scores || !b->bounds) {
        s = lk_fail_memory("benchmark");
        goto done;
    }
    for (uint64_t i = 0; i < b->n; i++) ids[i] = i;
    LK_TRY(lk_flat_new(b->dim, b->metric, LK_F32, &b->flat));
    LK_TRY(lk_flat_add(b->flat, (size_t)b->n, ids, b->vectors));
    s = lk_flat_search(b->flat, b->context, b->query_count, b->query_rows, K, NULL, NULL, b->truth, b->counts);
done:
    free(ids);
    return s;
}

/* How many of a query's ten best are among the first ten by the codes, and among the first hundred. */
static void count_found(bench *b, size_t q, size_t *first, size_t *listed)
{
    lk_topk best;
    lk_topk_init(&best, b->room, SHORTLIST);
    for (size_t i = 0; i < b->n; i++) lk_topk_push(&best, b->metric == LK_L2 ? -b->scores[i] : b->scores[i], i);
    size_t count = lk_topk_finish(&best);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < K; j++) {
            bool same = b->truth[q * K + j].id == b->room[i].id;
            *listed += same;
            *first += same && i < K;
        }
}

static lk_status measure(bench *b, lk_codes_kind kind, int bits)
{
    lk_coder *coder = NULL;
    uint8_t *codes = NULL;
    size_t first = 0, listed = 0, outside = 0, n = (size_t)b->n;
    double seconds = 0, error = 0, size = 0, start;
    lk_status s;
    LK_TRY(lk_coder_new(kind, bits, b->metric, n, b->dim, b->vectors, b->seed, &coder));
    if (!(codes = lk_alloc(n, lk_coder_bytes(coder)))) {
        s = lk_fail_memory("codes");
        goto done;
    }
    start = lk_now();
    LK_TRY(lk_coder_encode(coder, n, b->vectors, codes));
    double encoding = lk_now() - start;
    for (size_t q = 0; q < b->query_count; q++) {
        const float *query = b->query_rows + q * b->dim;
        start = lk_now();
        LK_TRY(lk_coder_scores(coder, query, q, n, codes, b->scores, b->bounds));
        seconds += lk_now() - start;
        count_found(b, q, &first, &listed);
        for (size_t j = 0; j < K; j++) { /* the error where it matters */
            uint64_t id = b->truth[q * K + j].id;
            double off = fabs((double)b->scores[id] - (double)b->truth[q * K + j].score);
            error += off;
            size += fabs((double)b->truth[q * K + j].score);
            outside += off > (double)b->bounds[id];
        }
    }
    double all = (double)(b->query_count * K), rate = (double)(n * b->query_count) / seconds / 1e6;
    const char *name = kind == LK_CODES_SCALAR ? "scalar" : "rabitq";
    if (b->json)
        json_array_append_new(b->results,
                              json_pack("{s:s, s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "codes", name, "bits", bits,
                                        "bytes", (json_int_t)lk_coder_bytes(coder), "error", error / size, "outside",
                                        (double)outside / all, "recall10", (double)first / all, "recall100",
                                        (double)listed / all, "Mscores", rate, "kencoded", (double)n / encoding / 1e3));
    else
        printf("%-8s %4d %7zu %9.4f %9.4f %8.4f %8.4f %10.1f %10.2f\n", name, bits, lk_coder_bytes(coder), error / size,
               (double)outside / all, (double)first / all, (double)listed / all, rate, (double)n / encoding / 1e3);
    fflush(stdout);
done:
    lk_coder_free(coder);
    free(codes);
    return s;
}

static lk_status measure_all(bench *b)
{
    static const struct {
        lk_codes_kind kind;
        int bits;
    } all[] = {{LK_CODES_SCALAR, 8}, {LK_CODES_SCALAR, 4}, {LK_CODES_RABITQ, 8}, {LK_CODES_RABITQ, 4},
               {LK_CODES_RABITQ, 3}, {LK_CODES_RABITQ, 2}, {LK_CODES_RABITQ, 1}};
    lk_status s = prepare(b);
    if (s == LK_OK && b->json) b->results = json_array();
    if (s == LK_OK && !b->json)
        printf("%llu x %zu, %zu queries, %s, one thread; error and share outside of the bound are those of the ten "
               "best\n\n%-8s %4s %7s %9s %9s %8s %8s %10s %10s\n",
               (unsigned long long)b->n, b->dim, b->query_count, b->metric_name, "codes", "bits", "bytes", "error",
               "outside", "10@10", "10@100", "M scores/s", "k coded/s");
    for (size_t i = 0; s == LK_OK && i < sizeof all / sizeof *all; i++) s = measure(b, all[i].kind, all[i].bits);
    if (s == LK_OK && b->json)
        cli_print_json(
            json_pack("{s:I, s:I, s:O}", "vectors", (json_int_t)b->n, "dim", (json_int_t)b->dim, "codes", b->results));
    json_decref(b->results);
    return s;
}

static int run(int argc, char **argv)
{
    bench b = {.metric_name = "l2", .n = 10000};
    const cli_option options[] = {
        {.name = "--base", .value = "FILE", .help = "vectors to code", .text = &b.base},
        {.name = "--queries", .value = "FILE", .help = "vectors to search for, the first 100", .text = &b.queries},
        {.name = "--metric", .value = "NAME", .help = "l2 (default), ip or cosine", .text = &b.metric_name},
        {.name = "--rows",
         .letter = 'n',
         .value = "N",
         .help = "the first N vectors (default 10000: 8-bit RaBitQ takes 2 ms to code one)",
         .number = &b.n,
         .least = K,
         .most = UINT32_MAX},
        {.name = "--seed", .value = "N", .help = "of the rotation", .number = &b.seed, .most = UINT64_MAX},
        {.name = "--json", .help = "print JSON", .flag = &b.json},
        CLI_COMMON_OPTIONS(b.common),
    };
    int count, status = cli_parse(&cli_bench_codes, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    status = cli_bench_check(&cli_bench_codes, count, argv, b.base, b.queries, b.metric_name, &b.metric);
    if (status != EXIT_DONE) return status;
    b.context = cli_context(&b.common);
    if (!b.context) return EXIT_FAILED;
    lk_status s = measure_all(&b);
    lk_flat_free(b.flat);
    free(b.vectors);
    free(b.query_rows);
    free(b.scores);
    free(b.bounds);
    free(b.truth);
    free(b.room);
    free(b.counts);
    cli_context_free(b.context);
    return s == LK_OK ? EXIT_DONE : cli_fail("bench codes");
}
