/* likeness bench mixed: searches while vectors come and go. A graph index of the base is searched without pause by
 * readers, while one writer adds and removes at a given rate; an hour of that is divided into intervals, after each of
 * which everything stands still and recall is measured against looking at all live vectors. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "cli/bench.h"

#include <likeness/vectors.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { K = 10, MOST_READERS = 64, MOST_QUERIES = 300 };

static int run(int argc, char **argv);
const cli_command cli_bench_mixed = {
    "bench mixed", "--base FILE --queries FILE [--add N] [--remove N] [--seconds N] [--speed X] [options]",
    "Search a graph index while vectors are added and removed: latency and recall over time", run};

typedef struct bench {
    const char *base, *queries, *metric_name;
    uint64_t n, add, remove, seconds, speed, intervals, readers, effort, seed;
    bool json;
    cli_common common;
    lk_metric metric;
    lk_context *context;
    size_t dim, query_count, total; /* base and all that is added */
    float *vectors, *query_rows;    /* [total][dim] */
    uint64_t *ids;
    uint8_t *live;
    lk_graph_index *graph;
    lk_random random;
    size_t next; /* row that is added next */
    atomic_bool stop;
    atomic_int failed; /* lk_status of a thread */
} bench;

typedef struct reader {
    bench *b;
    pthread_t thread;
    size_t first;
    float *latencies; /* seconds */
    size_t count, capacity;
} reader;

/* ---- vectors ---- */

/* What is added lies between a vector of the base and one of its ten nearest, in whole numbers if the base is. */
static lk_status make_rows(void *arg, size_t begin, size_t end, int worker)
{
    bench *b = arg;
    (void)worker;
    bool whole = true;
    for (size_t c = 0; c < 100 * b->dim && c < b->n * b->dim; c++) whole &= b->vectors[c] == rintf(b->vectors[c]);
    for (size_t i = begin; i < end; i++) {
        lk_random random;
        lk_hit hits[K + 1];
        size_t count;
        lk_random_seed(&random, b->seed * 1000003 + i);
        const float *seed = b->vectors + lk_random_below(&random, b->n) * b->dim;
        lk_status s = lk_graph_index_search(b->graph, NULL, 16, 1, seed, K + 1, NULL, NULL, hits, &count);
        if (s != LK_OK) return s;
        const float *near = b->vectors + hits[lk_random_below(&random, count)].id * b->dim;
        float share = (float)(0.2 + 0.6 * lk_random_unit(&random)), *out = b->vectors + (b->n + i) * b->dim;
        for (size_t c = 0; c < b->dim; c++) {
            out[c] = seed[c] + share * (near[c] - seed[c]);
            if (whole) out[c] = rintf(out[c]);
        }
    }
    return LK_OK;
}

static lk_status prepare(bench *b)
{
    uint64_t n;
    size_t added = (size_t)(b->add * b->seconds);
    lk_status s;
    LK_TRY(cli_bench_read(b->base, LK_VECTORS_BASE, b->n, added, &b->vectors, &n, &b->dim));
    LK_TRY(cli_bench_read_queries(b->queries, MOST_QUERIES, b->dim, &b->query_rows, &b->query_count));
    b->n = n;
    b->total = (size_t)n + added;
    b->next = (size_t)n;
    b->ids = lk_alloc(b->total, sizeof *b->ids);
    b->live = lk_alloc_zero(b->total / 8 + 1, 1);
    if (!b->ids || !b->live) {
        s = lk_fail_memory("benchmark");
        goto done;
    }
    for (size_t i = 0; i < b->total; i++) b->ids[i] = i;
    for (size_t i = 0; i < n; i++) b->live[i / 8] |= (uint8_t)(1u << i % 8);
    lk_random_seed(&b->random, b->seed);
    LK_TRY(lk_graph_index_build(b->context, NULL, b->metric, b->dim, (size_t)n, NULL, b->vectors, &b->graph));
    s = lk_parallel_for(lk_context_pool(b->context), added, 256, make_rows, b);
done:
    return s;
}

/* ---- readers ---- */

static void note_failure(bench *b, lk_status s)
{
    fprintf(stderr, "likeness: bench mixed: %s\n", lk_error_message());
    atomic_store(&b->failed, (int)s);
    atomic_store(&b->stop, true);
}

static void *read_on(void *arg)
{
    reader *r = arg;
    bench *b = r->b;
    for (size_t i = r->first; !atomic_load(&b->stop); i++) {
        lk_hit hits[K];
        size_t count;
        double start = lk_now();
        lk_status s = lk_graph_index_search(b->graph, NULL, (size_t)b->effort, 1,
                                            b->query_rows + i % b->query_count * b->dim, K, NULL, NULL, hits, &count);
        double seconds = lk_now() - start;
        if (s == LK_OK && !lk_grow((void **)&r->latencies, &r->capacity, r->count + 1, sizeof *r->latencies))
            s = lk_fail_memory("latencies");
        if (s != LK_OK) {
            note_failure(b, s);
            break;
        }
        r->latencies[r->count++] = (float)seconds;
    }
    return NULL;
}

/* ---- the writer ---- */

static lk_status remove_some(bench *b, size_t n)
{
    if (n > lk_graph_index_count(b->graph))
        return lk_fail(LK_INVALID, "there are not so many vectors to remove: a lower --remove is wanted");
    for (size_t i = 0; i < n; i++) {
        uint64_t id;
        do id = lk_random_below(&b->random, b->next);
        while (!(b->live[id / 8] >> id % 8 & 1));
        lk_status s = lk_graph_index_remove(b->graph, id);
        if (s != LK_OK) return s;
        b->live[id / 8] &= (uint8_t) ~(1u << id % 8);
    }
    return LK_OK;
}

static lk_status add_some(bench *b, size_t n)
{
    lk_status s = lk_graph_index_add(b->graph, NULL, n, b->ids + b->next, b->vectors + b->next * b->dim);
    for (size_t i = 0; s == LK_OK && i < n; i++, b->next++) b->live[b->next / 8] |= (uint8_t)(1u << b->next % 8);
    return s;
}

static void wait_until(double moment)
{
    double left = moment - lk_now();
    if (left <= 0) return;
    struct timespec t = {(time_t)left, (long)((left - floor(left)) * 1e9)};
    nanosleep(&t, NULL);
}

/* One interval's changes, evenly over its time: every 20 ms what is due. Returns what share of the time it was busy. */
static lk_status write_on(bench *b, size_t add, size_t remove, double seconds, double *busy)
{
    const double tick = 0.02;
    size_t added = 0, removed = 0;
    double start = lk_now(), worked = 0;
    lk_status s = LK_OK;
    for (size_t i = 1; s == LK_OK && (added < add || removed < remove) && !atomic_load(&b->stop); i++) {
        double due = tick * (double)i / seconds, begin = lk_now();
        if (due > 1) due = 1;
        size_t a = (size_t)(due * (double)add) - added, r = (size_t)(due * (double)remove) - removed;
        if (a) s = add_some(b, a);
        if (s == LK_OK) s = remove_some(b, r);
        added += a;
        removed += r;
        worked += lk_now() - begin;
        wait_until(start + tick * (double)i);
    }
    wait_until(start + seconds);
    *busy = worked / (lk_now() - start);
    return s;
}

/* ---- what came of it ---- */

/* Share of the true ten best among the live vectors. */
static lk_status measure_recall(bench *b, double *recall)
{
    lk_flat *flat = NULL;
    size_t n = b->query_count, same = 0, all = 0;
    lk_hit *found = lk_alloc(n * K, sizeof *found), *truth = lk_alloc(n * K, sizeof *truth);
    size_t *counts = lk_alloc(2 * n, sizeof *counts);
    lk_status s = found && truth && counts ? LK_OK : lk_fail_memory("truth");
    if (s != LK_OK) goto done;
    LK_TRY(lk_flat_new(b->dim, b->metric, LK_F32, &flat));
    LK_TRY(lk_flat_attach(flat, b->next, b->ids, b->vectors, NULL, b->live));
    LK_TRY(lk_flat_search(flat, b->context, n, b->query_rows, K, NULL, NULL, truth, counts));
    LK_TRY(lk_graph_index_search(b->graph, b->context, (size_t)b->effort, n, b->query_rows, K, NULL, NULL, found,
                                 counts + n));
    for (size_t q = 0; q < n; q++) {
        all += counts[q];
        for (size_t i = 0; i < counts[q]; i++)
            for (size_t j = 0; j < counts[n + q]; j++) same += truth[q * K + i].id == found[q * K + j].id;
    }
    *recall = all ? (double)same / (double)all : 1;
done:
    lk_flat_free(flat);
    free(found);
    free(truth);
    free(counts);
    return s;
}

static int rising(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

typedef struct row {
    double minutes, seconds, qps, p50, p99, p999, most, recall, busy;
    size_t vectors, searches;
} row;

static lk_status summarise(bench *b, reader *readers, row *out)
{
    size_t n = 0;
    for (uint64_t i = 0; i < b->readers; i++) n += readers[i].count;
    float *all = lk_alloc(n, sizeof *all);
    if (!all) return lk_fail_memory("latencies");
    out->searches = n;
    n = 0;
    for (uint64_t i = 0; i < b->readers; i++) {
        memcpy(all + n, readers[i].latencies, readers[i].count * sizeof *all);
        n += readers[i].count;
    }
    qsort(all, n, sizeof *all, rising);
    out->qps = (double)n / out->seconds;
    out->p50 = n ? (double)all[n / 2] : 0;
    out->p99 = n ? (double)all[n - 1 - n / 100] : 0;
    out->p999 = n ? (double)all[n - 1 - n / 1000] : 0;
    out->most = n ? (double)all[n - 1] : 0;
    free(all);
    out->vectors = lk_graph_index_count(b->graph);
    return measure_recall(b, &out->recall);
}

/* Readers for `seconds`, and with add or remove the writer beside them. */
static lk_status interval(bench *b, size_t add, size_t remove, double seconds, row *out)
{
    reader readers[MOST_READERS] = {0};
    uint64_t started = 0;
    lk_status s = LK_OK;
    atomic_store(&b->stop, false);
    double start = lk_now();
    for (; s == LK_OK && started < b->readers; started += s == LK_OK) {
        readers[started] = (reader){.b = b, .first = (size_t)started * 37};
        if (pthread_create(&readers[started].thread, NULL, read_on, &readers[started]) != 0)
            s = lk_fail(LK_NO_MEMORY, "a thread cannot be started");
    }
    if (s == LK_OK && (add || remove))
        s = write_on(b, add, remove, seconds, &out->busy);
    else if (s == LK_OK)
        wait_until(start + seconds);
    out->seconds = lk_now() - start;
    atomic_store(&b->stop, true);
    for (uint64_t i = 0; i < started; i++) pthread_join(readers[i].thread, NULL);
    if (s == LK_OK && atomic_load(&b->failed)) s = (lk_status)atomic_load(&b->failed);
    if (s == LK_OK) s = summarise(b, readers, out);
    for (uint64_t i = 0; i < started; i++) free(readers[i].latencies);
    return s;
}

static void report(bench *b, const row *r, json_t *rows)
{
    if (rows) {
        json_array_append_new(rows, json_pack("{s:f, s:f, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "minutes",
                                              r->minutes, "seconds", r->seconds, "vectors", (json_int_t)r->vectors,
                                              "searches", (json_int_t)r->searches, "qps", r->qps, "p50_seconds", r->p50,
                                              "p99_seconds", r->p99, "p999_seconds", r->p999, "max_seconds", r->most,
                                              "recall", r->recall, "writer_busy", r->busy));
        return;
    }
    printf("%8.1f %9.1f %9zu %10.0f %9.0f %9.0f %9.0f %9.0f %8.4f %6.0f%%\n", r->minutes, r->seconds, r->vectors,
           r->qps, 1e6 * r->p50, 1e6 * r->p99, 1e6 * r->p999, 1e6 * r->most, r->recall, 100 * r->busy);
    fflush(stdout);
    (void)b;
}

static lk_status measure(bench *b)
{
    json_t *rows = b->json ? json_array() : NULL;
    const double still = 2;
    lk_status s = prepare(b);
    if (s == LK_OK && !b->json)
        printf("%llu x %zu, then %llu added and %llu removed a second for %llu s, %llu times as fast; %llu reader%s, "
               "effort %llu\n\n%8s %9s %9s %10s %9s %9s %9s %9s %8s %7s\n",
               (unsigned long long)b->n, b->dim, (unsigned long long)b->add, (unsigned long long)b->remove,
               (unsigned long long)b->seconds, (unsigned long long)b->speed, (unsigned long long)b->readers,
               b->readers == 1 ? "" : "s", (unsigned long long)b->effort, "minutes", "seconds", "vectors", "queries/s",
               "p50 us", "p99 us", "p99.9 us", "max us", "recall", "writer");
    size_t add = (size_t)(b->add * b->seconds / b->intervals), remove = (size_t)(b->remove * b->seconds / b->intervals);
    for (uint64_t i = 0; s == LK_OK && i <= b->intervals + 1; i++) {
        bool quiet = i == 0 || i > b->intervals; /* readers alone, before and after */
        row r = {.minutes =
                     (double)(i > b->intervals ? b->intervals : i) * (double)b->seconds / (double)b->intervals / 60};
        s = quiet ? interval(b, 0, 0, still, &r)
                  : interval(b, add, remove, (double)b->seconds / (double)b->intervals / (double)b->speed, &r);
        if (s == LK_OK) report(b, &r, rows);
        if (s == LK_OK && lk_context_cancelled(b->context)) s = lk_fail(LK_CANCELLED, "stopped");
    }
    if (rows && s == LK_OK)
        cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "vectors", (json_int_t)b->n, "add",
                                 (json_int_t)b->add, "remove", (json_int_t)b->remove, "seconds", (json_int_t)b->seconds,
                                 "speed", (json_int_t)b->speed, "intervals", rows));
    else
        json_decref(rows);
    return s;
}

static int run(int argc, char **argv)
{
    bench b = {.metric_name = "l2",
               .add = 200,
               .remove = 50,
               .seconds = 3600,
               .speed = 1,
               .intervals = 6,
               .readers = 1,
               .effort = 40,
               .seed = 1};
    const cli_option options[] = {
        {.name = "--base", .value = "FILE", .help = "vectors that are there at the start", .text = &b.base},
        {.name = "--queries", .value = "FILE", .help = "vectors to search for", .text = &b.queries},
        {.name = "--metric", .value = "NAME", .help = "l2 (default), ip or cosine", .text = &b.metric_name},
        {.name = "--rows",
         .letter = 'n',
         .value = "N",
         .help = "the first N vectors only",
         .number = &b.n,
         .least = 1,
         .most = UINT32_MAX},
        {.name = "--add", .value = "N", .help = "added a second (default 200)", .number = &b.add, .most = 1000000},
        {.name = "--remove",
         .value = "N",
         .help = "removed a second (default 50)",
         .number = &b.remove,
         .most = 1000000},
        {.name = "--seconds",
         .value = "N",
         .help = "of the rates' time (default 3600)",
         .number = &b.seconds,
         .least = 1,
         .most = 1000000},
        {.name = "--speed",
         .value = "X",
         .help = "seconds of that time in a second (default 1)",
         .number = &b.speed,
         .least = 1,
         .most = 10000},
        {.name = "--intervals",
         .value = "N",
         .help = "reports over the time (default 6)",
         .number = &b.intervals,
         .least = 1,
         .most = 1000},
        {.name = "--readers",
         .value = "N",
         .help = "threads that search without pause (default 1)",
         .number = &b.readers,
         .least = 1,
         .most = MOST_READERS},
        {.name = "--effort",
         .value = "N",
         .help = "of a search (default 40)",
         .number = &b.effort,
         .least = 1,
         .most = 100000},
        {.name = "--seed", .value = "N", .help = "of what is added (default 1)", .number = &b.seed, .most = UINT64_MAX},
        {.name = "--json", .help = "print JSON", .flag = &b.json},
        CLI_COMMON_OPTIONS(b.common),
    };
    int count, status = cli_parse(&cli_bench_mixed, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    status = cli_bench_check(&cli_bench_mixed, count, argv, b.base, b.queries, b.metric_name, &b.metric);
    if (status != EXIT_DONE) return status;
    b.context = cli_context(&b.common);
    if (!b.context) return EXIT_FAILED;
    lk_status s = measure(&b);
    lk_graph_index_free(b.graph);
    free(b.vectors);
    free(b.query_rows);
    free(b.ids);
    free(b.live);
    cli_context_free(b.context);
    return s == LK_OK ? EXIT_DONE : cli_fail("bench mixed");
}
