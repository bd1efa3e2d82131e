/* One network at one precision, timed: bench_embed DIRECTORY f32|bf16|int8 BATCH THREADS, driven by run.py over a pipe.
 * new:ARCHITECTURE instead of a directory: weights at random, pictures of 224 x 224.
 *
 *     time SECONDS    -> "<wall seconds> <processor seconds> <pictures>" of whole runs that together take that long
 *     embed FILE      -> "ok"; FILE holds BATCH pictures [3][h][w] f32 and receives BATCH embeddings
 *     profile         -> seconds of every step of the best of ten runs, then "end"
 *
 * For int8 the ranges come from random pictures, as the peers' do. */
#include "nn/executor.h"
#include <likeness/likeness.h>
#include <likeness/model.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(const char *what)
{
    fprintf(stderr, "bench_embed: %s: %s\n", what, lk_error_message());
    exit(1);
}

typedef struct bench {
    lk_model *model;
    lk_executor *executor;
    int64_t batch;
    size_t picture, dim;
    float *in, *out;
} bench;

static void run(bench *b)
{
    if (lk_executor_run(b->executor, b->batch, (const void *[]){b->in}, (float *[]){b->out}) != LK_OK) stop("run");
}

/* Normal by the sum of four uniform numbers: enough for timing and ranges. */
static void fill(float *x, size_t n)
{
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            state = state * 1664525u + 1013904223u;
            sum += (float)(state >> 8) * 0x1p-24f - 0.5f;
        }
        x[i] = sum * 1.732f;
    }
}

static void profile(bench *b)
{
    lk_executor *e = b->executor->parts ? b->executor->parts[0] : b->executor;
    double *best = calloc(e->step_count, sizeof *best);
    for (int round = 0; round < 10; round++) {
        lk_executor_fill(e, e->options.batch, (const void *[]){b->in});
        for (size_t i = 0; i < e->step_count; i++) {
            double t = seconds(CLOCK_THREAD_CPUTIME_ID);
            lk_executor_run_step(e, i);
            t = seconds(CLOCK_THREAD_CPUTIME_ID) - t;
            if (round == 0 || t < best[i]) best[i] = t;
        }
    }
    for (size_t i = 0; i < e->step_count; i++) {
        const lk_step *step = &e->steps[i];
        static const char *const kinds[] = {"own", "dnn", "copy", "winograd", "product", "conv"};
        const lk_value *y = &e->values[step->output];
        printf("%9.1f us %-8s %-14s %-36s", best[i] * 1e6, kinds[step->kind],
               step->node ? lk_op_name(step->node->op) : "", step->node ? step->node->name : "");
        printf(" type %d [", (int)y->view.type);
        for (int d = 0; d < y->view.rank; d++) printf(" %ld", (long)y->view.dims[d]);
        printf(" ]\n");
    }
    printf("end\n");
    free(best);
}

static void answer(bench *b, char *line)
{
    double wanted;
    char path[4096];
    if (sscanf(line, "time %lf", &wanted) == 1) {
        double wall = seconds(CLOCK_MONOTONIC), busy = seconds(CLOCK_PROCESS_CPUTIME_ID), start = wall;
        long pictures = 0;
        do {
            run(b);
            pictures += (long)b->batch;
        } while (seconds(CLOCK_MONOTONIC) - start < wanted);
        printf("%.9f %.9f %ld\n", seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - busy, pictures);
    } else if (sscanf(line, "embed %4095s", path) == 1) {
        FILE *f = fopen(path, "rb");
        if (!f || fread(b->in, sizeof(float), (size_t)b->batch * b->picture, f) != (size_t)b->batch * b->picture)
            stop(path);
        fclose(f);
        run(b);
        f = fopen(path, "wb");
        if (!f || fwrite(b->out, sizeof(float), (size_t)b->batch * b->dim, f) != (size_t)b->batch * b->dim) stop(path);
        fclose(f);
        printf("ok\n");
    } else if (strncmp(line, "memory", 6) == 0) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        lk_executor_stats s = lk_executor_stats_of(b->executor);
        printf("%ld %zu %zu %zu\n", usage.ru_maxrss, s.weight_bytes, s.activation_bytes, s.unplanned_bytes);
    } else {
        profile(b);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    bench b = {0};
    if (argc != 5) {
        fprintf(stderr, "usage: bench_embed DIRECTORY f32|bf16|int8 BATCH THREADS\n");
        return 2;
    }
    lk_compile_options options = {.batch = atoll(argv[3]), .threads = atoi(argv[4])};
    options.precision = strcmp(argv[2], "int8") == 0   ? LK_PRECISION_INT8
                        : strcmp(argv[2], "bf16") == 0 ? LK_PRECISION_BF16
                                                       : LK_PRECISION_F32;
    bool fresh = strncmp(argv[1], "new:", 4) == 0;
    if (fresh ? lk_model_new(argv[1] + 4, 224, 224, &b.model) != LK_OK ||
                    lk_graph_initialise(lk_model_graph(b.model), 1) != LK_OK
              : lk_model_open(argv[1], LK_MODEL_VISION, &b.model) != LK_OK)
        stop(argv[1]);
    lk_model_info info = lk_model_info_of(b.model);
    lk_graph *graph = lk_model_graph(b.model);
    lk_graph_output(graph, lk_model_embedding(b.model));
    b.batch = options.batch;
    b.picture = (size_t)(3 * info.height * info.width);
    b.dim = (size_t)info.dim;
    b.in = malloc((size_t)b.batch * b.picture * sizeof *b.in);
    b.out = malloc((size_t)b.batch * b.dim * sizeof *b.out);
    if (!b.in || !b.out) stop("memory");
    fill(b.in, (size_t)b.batch * b.picture);
    lk_calibration *calibration = NULL;
    if (options.precision == LK_PRECISION_INT8 && (lk_calibration_new(graph, &calibration) != LK_OK ||
                                                   lk_calibration_add(calibration, 1, (const void *[]){b.in}) != LK_OK))
        stop("calibration");
    options.calibration = calibration;
    if (lk_graph_compile(graph, &options, &b.executor) != LK_OK) stop("compile");
    lk_calibration_free(calibration);
    run(&b);
    printf("ready\n");
    fflush(stdout);
    char line[4200];
    while (fgets(line, sizeof line, stdin)) answer(&b, line);
    lk_executor_free(b.executor);
    lk_model_free(b.model);
    free(b.in);
    free(b.out);
    return 0;
}
