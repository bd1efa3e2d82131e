/* likeness bench ann: builds an index of vectors in a file and measures what it finds and how fast. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/threads.h"
#include "cli/bench.h"
#include "index/auto.h"

#include <inttypes.h>
#include <likeness/vectors.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PASSES = 3 }; /* each point is the fastest of so many passes over the queries */

static int run(int argc, char **argv);
const cli_command cli_bench_ann = {
    "bench ann",
    "--base FILE --queries FILE [--truth FILE] [--metric l2|ip|cosine] [--type auto|flat|graph|partitioned] [--threads "
    "N]",
    "Build an index, sweep its effort and print recall, speed, latency, build time and size", run};

typedef struct bench {
    const char *base, *queries, *truth, *metric_name, *type_name, *file, *opened, *efforts_text, *recall_text,
        *pass_text;
    uint64_t n, query_most, k, seed, memory, search_threads;
    bool json, mapped;
    cli_common common;
    lk_metric metric;
    const lk_ann_type *type;
    lk_context *context;
    lk_pool *pool; /* of the searches */
    size_t dim, query_count;
    float *query_rows;
    int32_t *best; /* [query_count][k]: the truth */
    lk_hit *hits;
    size_t *counts;
    double *latencies;
    void *index;
    double build_seconds;
    double pass; /* share of the vectors that may be found; 0 = all */
    lk_graph_index_filter *among;
    double recall, tuned_recall; /* wanted, and measured on vectors of the base; 0 = none */
    unsigned efforts[LK_ANN_MAX_EFFORTS];
    size_t effort_count;
} bench;

/* ---- input ---- */

static lk_status read_truth(bench *b)
{
    lk_vector_reader *reader;
    lk_status s = lk_vector_reader_open(b->truth, LK_VECTORS_NEIGHBOURS, &reader);
    if (s != LK_OK) return s;
    size_t width = lk_vector_reader_dim(reader);
    int32_t *row = lk_alloc(width, sizeof *row);
    if (lk_vector_reader_rows(reader) < b->query_count || width < b->k)
        s = lk_fail(LK_INVALID, "%s: %llu rows of %zu neighbours where %zu of at least %llu are wanted", b->truth,
                    (unsigned long long)lk_vector_reader_rows(reader), width, b->query_count, (unsigned long long)b->k);
    else if (!row)
        s = lk_fail_memory(b->truth);
    for (size_t q = 0; s == LK_OK && q < b->query_count; q++) {
        s = lk_vector_reader_read_i32(reader, q, 1, row);
        for (size_t i = 0; s == LK_OK && i < b->k; i++) b->best[q * b->k + i] = row[i];
    }
    free(row);
    lk_vector_reader_free(reader);
    return s;
}

/* Which vectors may be found: drawn by their number. */
static int passes(void *user, uint64_t id)
{
    const bench *b = user;
    uint64_t x = (id + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
    return (double)(x >> 11) * 0x1p-53 < b->pass;
}

static lk_id_filter filter_of(const bench *b)
{
    return b->pass > 0 ? passes : NULL;
}

/* Without a file of neighbours the exact index finds them. */
static lk_status find_truth(bench *b, size_t n, const float *vectors)
{
    const lk_ann_type *flat = lk_ann_type_named("flat");
    lk_ann_input input = {.n = n, .dim = b->dim, .metric = b->metric, .vectors = vectors};
    void *index;
    lk_status s = flat->build(b->context, &input, &index);
    if (s != LK_OK) return s;
    s = flat->search(index, b->context, 1, b->query_count, b->query_rows, b->k, filter_of(b), b, b->hits, b->counts);
    for (size_t q = 0; s == LK_OK && q < b->query_count; q++)
        for (size_t i = 0; i < b->k; i++)
            b->best[q * b->k + i] = i < b->counts[q] ? (int32_t)b->hits[q * b->k + i].id : -1;
    flat->free(index);
    return s;
}

static lk_status allocate(bench *b)
{
    b->best = lk_alloc(b->query_count * b->k, sizeof *b->best);
    b->hits = lk_alloc(b->query_count * b->k, sizeof *b->hits);
    b->counts = lk_alloc(b->query_count, sizeof *b->counts);
    b->latencies = lk_alloc(b->query_count, sizeof *b->latencies);
    return b->best && b->hits && b->counts && b->latencies ? LK_OK : lk_fail_memory("benchmark");
}

/* ---- building ---- */

/* With a file to build in and the truth known, vectors are read from their file as they are wanted: they need not fit
 * into memory, and --memory holds for the build. */
static bool streams(const bench *b)
{
    return b->file && b->truth && b->recall == 0 && strcmp(b->type->name, "partitioned") == 0;
}

static lk_status read_rows(void *user, uint64_t first, size_t n, float *out)
{
    return lk_vector_reader_read(user, first, n, out);
}

static lk_status build_from_file(bench *b)
{
    lk_vector_reader *reader;
    lk_partitioned *index = NULL;
    lk_partitioned_options options = {.seed = b->seed, .memory = (size_t)b->memory << 20};
    lk_status s = lk_vector_reader_open(b->base, LK_VECTORS_BASE, &reader);
    if (s != LK_OK) return s;
    lk_rows rows = {.read = read_rows, .user = reader, .n = b->n, .dim = b->dim};
    s = lk_partitioned_build(b->context, &rows, b->metric, &options, b->file, &index);
    lk_vector_reader_free(reader);
    lk_partitioned_free(index);
    return s == LK_OK ? b->type->open(b->file, &b->index) : s;
}

static lk_status build_from_memory(bench *b, const float *vectors)
{
    lk_ann_input input = {.n = (size_t)b->n,
                          .dim = b->dim,
                          .metric = b->metric,
                          .vectors = vectors,
                          .memory_limit = (size_t)b->memory << 20,
                          .seed = b->seed};
    double start = lk_now();
    lk_status s = b->type->build(b->context, &input, &b->index);
    b->build_seconds = lk_now() - start;
    if (s == LK_OK && b->recall > 0) {
        b->effort_count = 1;
        s = lk_ann_tune(b->context, b->type, b->index, &input, (size_t)b->k, (size_t)b->k, b->recall, 0, b->efforts,
                        &b->tuned_recall);
    }
    if (s != LK_OK || !b->file) return s;
    s = b->type->save ? b->type->save(b->index, b->file)
                      : lk_fail(LK_UNSUPPORTED, "a %s index has no file of its own", b->type->name);
    b->type->free(b->index);
    b->index = NULL;
    return s == LK_OK ? b->type->open(b->file, &b->index) : s;
}

static lk_status open_index(bench *b)
{
    if (strcmp(b->type->name, "graph") == 0 && !b->mapped)
        return lk_graph_index_open(b->opened, LK_GRAPH_COPY, (lk_graph_index **)&b->index);
    return b->type->open ? b->type->open(b->opened, &b->index)
                         : lk_fail(LK_UNSUPPORTED, "a %s index has no file of its own", b->type->name);
}

static lk_status measure_base(bench *b)
{
    lk_vector_reader *reader;
    lk_status s = lk_vector_reader_open(b->base, LK_VECTORS_BASE, &reader);
    if (s != LK_OK) return s;
    uint64_t rows = lk_vector_reader_rows(reader);
    b->n = b->n && b->n < rows ? b->n : rows;
    b->dim = lk_vector_reader_dim(reader);
    lk_vector_reader_free(reader);
    return b->k > b->n || b->n > INT32_MAX
               ? lk_fail(LK_INVALID, "%s: %" PRIu64 " vectors for %" PRIu64 " results", b->base, b->n, b->k)
               : LK_OK;
}

static lk_status prepare(bench *b)
{
    lk_status s;
    float *vectors = NULL;
    uint64_t n;
    size_t dim;
    LK_TRY(measure_base(b));
    LK_TRY(cli_bench_read_queries(b->queries, b->query_most, b->dim, &b->query_rows, &b->query_count));
    LK_TRY(allocate(b));
    if (!b->truth || !(b->opened || streams(b)))
        LK_TRY(cli_bench_read(b->base, LK_VECTORS_BASE, b->n, 0, &vectors, &n, &dim));
    LK_TRY(b->truth ? read_truth(b) : find_truth(b, (size_t)b->n, vectors));
    if (b->opened) {
        s = open_index(b);
    } else if (streams(b)) {
        double start = lk_now();
        s = build_from_file(b);
        b->build_seconds = lk_now() - start;
    } else {
        s = build_from_memory(b, vectors);
    }
done:
    free(vectors); /* what is searched is the index alone */
    return s;
}

/* ---- measuring ---- */

typedef struct point {
    unsigned effort;
    double recall, qps, mean, p50, p99; /* seconds */
} point;

typedef struct pass {
    bench *b;
    unsigned effort;
} pass;

/* Each query by itself, on the thread that got it. */
static lk_status search_range(void *arg, size_t begin, size_t end, int worker)
{
    pass *p = arg;
    bench *b = p->b;
    (void)worker;
    for (size_t q = begin; q < end; q++) {
        double start = lk_now();
        const float *query = b->query_rows + q * b->dim;
        lk_hit *hits = b->hits + q * b->k;
        lk_status s =
            b->among ? lk_graph_index_search_filtered(b->index, NULL, p->effort, 1, query, b->k, b->among, hits,
                                                      b->counts + q)
                     : b->type->search(b->index, NULL, p->effort, 1, query, b->k, filter_of(b), b, hits, b->counts + q);
        if (s != LK_OK) return s;
        b->latencies[q] = lk_now() - start;
    }
    return LK_OK;
}

static double recall_of(const bench *b)
{
    size_t found = 0;
    for (size_t q = 0; q < b->query_count; q++)
        for (size_t i = 0; i < b->counts[q]; i++)
            for (size_t j = 0; j < b->k; j++) found += b->hits[q * b->k + i].id == (uint64_t)b->best[q * b->k + j];
    return (double)found / (double)(b->query_count * b->k);
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static lk_status measure(bench *b, unsigned effort, point *out)
{
    pass p = {b, effort};
    *out = (point){.effort = effort, .mean = HUGE_VAL};
    for (int i = 0; i < PASSES; i++) {
        double start = lk_now(), sum = 0;
        lk_status s = lk_parallel_for(b->pool, b->query_count, 8, search_range, &p);
        if (s != LK_OK) return s;
        double seconds = lk_now() - start;
        for (size_t q = 0; q < b->query_count; q++) sum += b->latencies[q];
        if (sum / (double)b->query_count >= out->mean) continue;
        out->qps = (double)b->query_count / seconds;
        out->mean = sum / (double)b->query_count;
        qsort(b->latencies, b->query_count, sizeof *b->latencies, rising);
        out->p50 = b->latencies[(b->query_count - 1) / 2];
        out->p99 = b->latencies[(b->query_count * 99 - 1) / 100];
    }
    out->recall = recall_of(b);
    return LK_OK;
}

/* ---- output ---- */

static void report_head(const bench *b, json_t **json)
{
    char text[256];
    lk_ann_size size;
    b->type->describe(b->index, text, sizeof text);
    b->type->size(b->index, &size);
    double per = 1 / (double)b->n;
    if (b->json) {
        *json = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:i, s:f, s:I, s:I, s:[]}", "type", b->type->name,
                          "index", text, "vectors", (json_int_t)b->n, "dim", (json_int_t)b->dim, "queries",
                          (json_int_t)b->query_count, "k", (json_int_t)b->k, "metric", b->metric_name, "threads",
                          (int)b->search_threads, "build_seconds", b->build_seconds, "memory_bytes",
                          (json_int_t)size.resident, "disk_bytes", (json_int_t)size.disk, "points");
        if (b->recall > 0) json_object_set_new(*json, "tuned_recall", json_real(b->tuned_recall));
        return;
    }
    printf("%" PRIu64 " x %zu, %zu queries, %s, %d thread%s\n%s: %s\nbuilt in %.1f s; in memory %.1f MiB (%.1f bytes a "
           "vector), on disk "
           "%.1f MiB\n\n%8s %10s %10s %10s %10s %10s\n",
           b->n, b->dim, b->query_count, b->metric_name, (int)b->search_threads, b->search_threads == 1 ? "" : "s",
           b->type->name, text, b->build_seconds, (double)size.resident / 1048576, (double)size.resident * per,
           (double)size.disk / 1048576, "effort", "recall", "queries/s", "mean us", "median us", "p99 us");
}

static void report_point(const bench *b, json_t *json, const point *p)
{
    if (b->json)
        json_array_append_new(json_object_get(json, "points"),
                              json_pack("{s:I, s:f, s:f, s:f, s:f, s:f}", "effort", (json_int_t)p->effort, "recall",
                                        p->recall, "qps", p->qps, "mean_seconds", p->mean, "median_seconds", p->p50,
                                        "p99_seconds", p->p99));
    else
        printf("%8u %10.4f %10.0f %10.1f %10.1f %10.1f\n", p->effort, p->recall, p->qps, 1e6 * p->mean, 1e6 * p->p50,
               1e6 * p->p99);
    fflush(stdout);
}

static int read_efforts(bench *b)
{
    const char *text = b->efforts_text;
    for (b->effort_count = 0; b->effort_count < LK_ANN_MAX_EFFORTS;) {
        char *end;
        unsigned long effort = strtoul(text, &end, 10);
        if (end == text || effort == 0 || effort > UINT32_MAX) break;
        b->efforts[b->effort_count++] = (unsigned)effort;
        if (*end == 0) return EXIT_DONE;
        if (*end != ',') break;
        text = end + 1;
    }
    return cli_usage(&cli_bench_ann, "--efforts %s: up to %d numbers with commas between are wanted", b->efforts_text,
                     LK_ANN_MAX_EFFORTS);
}

static int choose(bench *b)
{
    b->type = lk_ann_type_named(b->type_name);
    if (!b->type)
        return cli_usage(&cli_bench_ann, "--type %s: auto, flat, graph or partitioned is wanted", b->type_name);
    if (b->recall_text) {
        char *end;
        b->recall = strtod(b->recall_text, &end);
        if (*end || !(b->recall > 0 && b->recall <= 1))
            return cli_usage(&cli_bench_ann, "--recall %s: a number above 0 and up to 1 is wanted", b->recall_text);
        if (b->opened || b->efforts_text)
            return cli_usage(&cli_bench_ann, "--recall tunes an index that is built here, and chooses the effort");
    }
    if (b->pass_text) {
        char *end;
        b->pass = strtod(b->pass_text, &end);
        if (*end || !(b->pass > 0 && b->pass <= 1))
            return cli_usage(&cli_bench_ann, "--pass %s: a share above 0 and up to 1 is wanted", b->pass_text);
        if (b->truth) return cli_usage(&cli_bench_ann, "--pass: the truth among the vectors that pass is found here");
    }
    return b->efforts_text ? read_efforts(b) : EXIT_DONE;
}

static lk_status sweep(bench *b)
{
    json_t *json = NULL;
    lk_status s = prepare(b);
    if (s != LK_OK) return s;
    if (b->pass > 0 && b->type == &lk_ann_graph) /* worked out once, as for a label that is asked for often */
        s = lk_graph_index_filter_new(b->index, b->context, passes, b, &b->among);
    if (s != LK_OK) return s;
    if (b->effort_count == 0) b->effort_count = b->type->efforts(b->index, (size_t)b->k, b->efforts);
    report_head(b, &json);
    for (size_t i = 0; i < b->effort_count; i++) {
        point p;
        if (lk_context_cancelled(b->context)) s = lk_fail(LK_CANCELLED, "stopped");
        if (s == LK_OK) s = measure(b, b->efforts[i], &p);
        if (s != LK_OK) break;
        report_point(b, json, &p);
        if (p.recall > 0.998 && !b->efforts_text && b->recall == 0) break; /* more effort finds nothing more */
    }
    if (json && s == LK_OK)
        cli_print_json(json);
    else
        json_decref(json);
    return s;
}

static int run(int argc, char **argv)
{
    bench b = {.metric_name = "l2", .type_name = "auto", .k = 10};
    const cli_option options[] = {
        {.name = "--base",
         .value = "FILE",
         .help = "vectors to search (.npy, .fvecs, .bvecs, .fbin, .u8bin, HDF5 ...)",
         .text = &b.base},
        {.name = "--queries", .value = "FILE", .help = "vectors to search for", .text = &b.queries},
        {.name = "--truth",
         .value = "FILE",
         .help = "ids of the best per query (default: found exactly first)",
         .text = &b.truth},
        {.name = "--metric", .value = "NAME", .help = "l2 (default), ip or cosine", .text = &b.metric_name},
        {.name = "--type", .value = "NAME", .help = "auto (default), flat, graph or partitioned", .text = &b.type_name},
        {.name = "--file", .value = "FILE", .help = "save the index there and search the mapped file", .text = &b.file},
        {.name = "--open",
         .value = "FILE",
         .help = "search the index in that file instead of building one",
         .text = &b.opened},
        {.name = "--mapped",
         .help = "with --open: a graph is not copied into memory, as collections have it",
         .flag = &b.mapped},
        {.name = "--search-threads",
         .value = "N",
         .help = "threads that search, each its own queries (default: as --threads)",
         .number = &b.search_threads,
         .least = 1,
         .most = 1024},
        {.name = "--efforts",
         .value = "LIST",
         .help = "search efforts to measure (default: a sweep)",
         .text = &b.efforts_text},
        {.name = "--recall",
         .value = "R",
         .help = "only the effort that reaches this recall on vectors of the base",
         .text = &b.recall_text},
        {.name = "--pass",
         .value = "SHARE",
         .help = "only this share of the vectors, drawn at random, may be found",
         .text = &b.pass_text},
        {.name = "--rows",
         .letter = 'n',
         .value = "N",
         .help = "the first N vectors only",
         .number = &b.n,
         .least = 1,
         .most = UINT64_MAX},
        {.name = "--query-rows",
         .value = "N",
         .help = "the first N queries only",
         .number = &b.query_most,
         .least = 1,
         .most = UINT64_MAX},
        {.name = "--results",
         .letter = 'k',
         .value = "N",
         .help = "results per query (default 10)",
         .number = &b.k,
         .least = 1,
         .most = 10000},
        {.name = "--memory",
         .value = "MIB",
         .help = "most the index may take (default: no limit)",
         .number = &b.memory,
         .least = 1,
         .most = 1u << 30},
        {.name = "--seed",
         .value = "N",
         .help = "seed of the build (default 0)",
         .number = &b.seed,
         .least = 0,
         .most = UINT64_MAX},
        {.name = "--json", .help = "print JSON", .flag = &b.json},
        CLI_COMMON_OPTIONS(b.common),
    };
    int count, status = cli_parse(&cli_bench_ann, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    status = cli_bench_check(&cli_bench_ann, count, argv, b.base, b.queries, b.metric_name, &b.metric);
    if (status == EXIT_DONE) status = choose(&b);
    if (status != EXIT_DONE) return status;
    b.context = cli_context(&b.common);
    if (!b.context) return EXIT_FAILED;
    if (b.search_threads == 0) b.search_threads = (uint64_t)lk_context_threads(b.context);
    lk_status s = lk_pool_new((int)b.search_threads, &b.pool);
    if (s == LK_OK) s = sweep(&b);
    lk_graph_index_filter_free(b.among);
    if (b.index) b.type->free(b.index);
    lk_pool_free(b.pool);
    free(b.query_rows);
    free(b.best);
    free(b.hits);
    free(b.counts);
    free(b.latencies);
    cli_context_free(b.context);
    return s == LK_OK ? EXIT_DONE : cli_fail("bench ann");
}
