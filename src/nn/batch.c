/* The executor that callers see. A large batch is run in parts: activations of a few pictures stay in the caches, and
 * several threads run parts of their own instead of meeting after every operator. A row's bytes do not depend on its
 * batch, so neither do they depend on the parts. */
#include "base/memory.h"
#include "nn/executor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static lk_status check_options(const lk_graph *graph, const lk_compile_options *options)
{
    if (options->batch < 0 || options->batch > 65536 || options->threads < 0)
        return lk_fail(LK_INVALID, "a batch of %lld on %d threads makes no sense", (long long)options->batch,
                       options->threads);
    if (graph->output_count == 0) return lk_fail(LK_INVALID, "the graph has no output");
    for (int i = 0; i < options->keep_count; i++)
        if (options->keep[i] < 0 || (size_t)options->keep[i] >= graph->node_count)
            return lk_fail(LK_INVALID, "keep names a node that is none of the graph's");
    if (options->precision == LK_PRECISION_BF16 && !(lk_cpu_detect() & LK_CPU_AVX512_BF16))
        return lk_fail(LK_UNSUPPORTED, "this processor has no bf16 arithmetic (it has %s): use f32",
                       lk_cpu_names(lk_cpu_detect()));
    if (options->precision == LK_PRECISION_INT8 && !(lk_cpu_detect() & LK_CPU_AVX512_VNNI))
        return lk_fail(LK_UNSUPPORTED, "this processor has no int8 arithmetic (it has %s): use f32",
                       lk_cpu_names(lk_cpu_detect()));
    if (options->precision == LK_PRECISION_INT8 && !options->calibration)
        return lk_fail(LK_INVALID, "int8 needs ranges: calibrate on samples first");
    return LK_OK;
}

/* Rows of one part: as many as keep the largest value within PART_BYTES, a divisor of the batch, at most PART_ROWS. All
 * at once where values are kept. */
enum { PART_ROWS = 8, PART_BYTES = 8 << 20, MAX_PARTS = 64 };

static int64_t part_rows(const lk_graph *graph, const lk_compile_options *options)
{
    size_t largest = 1, width = options->precision == LK_PRECISION_F32    ? 4
                                : options->precision == LK_PRECISION_INT8 ? 1
                                                                          : 2;
    int64_t threads = options->threads > 0 ? options->threads : 1;
    /* fewer rows than threads: the threads share every operator */
    if (options->keep_count || options->batch < threads) return options->batch;
    for (size_t i = 0; i < graph->node_count; i++) {
        const lk_shape *shape = &graph->nodes[i].shape;
        if (lk_shape_batched(shape) && lk_shape_row(shape) * width > largest) largest = lk_shape_row(shape) * width;
    }
    int64_t most = (int64_t)(PART_BYTES / largest);
    if (most > PART_ROWS) most = PART_ROWS;
    if (most > options->batch / threads) most = options->batch / threads;
    for (int64_t rows = most; rows > 1; rows--)
        if (options->batch % rows == 0) return rows;
    return 1;
}

static size_t output_row(const lk_executor *e, size_t output)
{
    return lk_shape_row(&lk_at(e->graph, e->graph->outputs[output])->shape);
}

/* An executor of parts; like: as for lk_executor_make. */
static lk_status make_parts(const lk_graph *graph, const lk_compile_options *options, int64_t rows,
                            const lk_executor *like, lk_executor **out)
{
    lk_status s;
    lk_executor *e = lk_alloc_zero(1, sizeof *e);
    if (!e) return lk_fail_memory("executor");
    e->graph = graph;
    e->options = *options;
    e->options.keep = NULL;
    e->options.calibration = NULL;
    e->team = lk_team_of(options->threads);
    int64_t count = options->batch / rows;
    if (count > e->team.threads) count = e->team.threads;
    if (count > MAX_PARTS) count = MAX_PARTS;
    lk_compile_options part = *options;
    part.batch = rows;
    part.threads = 1;
    e->parts = lk_alloc_zero((size_t)count, sizeof *e->parts);
    e->results = lk_alloc_zero(graph->output_count, sizeof *e->results);
    if (!e->parts || !e->results) {
        s = lk_fail_memory("executor");
        goto done;
    }
    for (; e->part_count < count; e->part_count++)
        LK_TRY(lk_executor_make(graph, &part, e->part_count ? e->parts[0] : like, &e->parts[e->part_count]));
    for (size_t i = 0; i < graph->output_count; i++) {
        e->results[i] = lk_alloc((size_t)options->batch * output_row(e, i), sizeof(float));
        if (!e->results[i]) {
            s = lk_fail_memory("executor");
            goto done;
        }
    }
    *out = e;
    return LK_OK;
done:
    lk_executor_free(e);
    return s;
}

static lk_status make(const lk_graph *graph, const lk_compile_options *options, const lk_executor *like,
                      lk_executor **out)
{
    int64_t rows = part_rows(graph, options);
    return rows < options->batch ? make_parts(graph, options, rows, like, out)
                                 : lk_executor_make(graph, options, like, out);
}

lk_status lk_graph_compile(const lk_graph *graph, const lk_compile_options *options, lk_executor **out)
{
    lk_compile_options o = *options;
    if (o.batch == 0) o.batch = 1;
    lk_status s = lk_graph_check(graph);
    if (s == LK_OK) s = lk_graph_check_loaded(graph);
    if (s == LK_OK) s = check_options(graph, &o);
    return s == LK_OK ? make(graph, &o, NULL, out) : s;
}

lk_status lk_executor_clone(const lk_executor *executor, lk_executor **out)
{
    return make(executor->graph, &executor->options, executor->parts ? executor->parts[0] : executor, out);
}

void lk_executor_free(lk_executor *e)
{
    if (!e) return;
    for (int i = 0; i < e->part_count; i++) lk_executor_free_one(e->parts[i]);
    for (size_t i = 0; e->results && i < e->graph->output_count; i++) free(e->results[i]);
    free(e->parts);
    free(e->results);
    lk_executor_free_one(e);
}

typedef struct parts_job {
    lk_executor *e;
    int64_t batch, rows;
    const void *const *inputs;
    lk_status status[MAX_PARTS];
    char message[MAX_PARTS][LK_ERROR_SIZE];
} parts_job;

/* Part number `part` runs its share of the batch, piece after piece. */
static lk_status run_share(parts_job *job, int64_t part)
{
    const lk_graph *graph = job->e->graph;
    int64_t pieces = (job->batch + job->rows - 1) / job->rows, count = job->e->part_count;
    lk_status s = LK_OK;
    for (int64_t piece = pieces * part / count; s == LK_OK && piece < pieces * (part + 1) / count; piece++) {
        int64_t row = piece * job->rows, n = job->batch - row < job->rows ? job->batch - row : job->rows;
        const void *inputs[LK_MAX_INPUTS];
        float *outputs[LK_MAX_OUTPUTS];
        for (size_t i = 0; i < graph->input_count; i++) {
            const lk_node_data *node = lk_at(graph, graph->inputs[i]);
            inputs[i] =
                (const char *)job->inputs[i] + (size_t)row * lk_shape_row(&node->shape) * lk_type_bytes(node->type);
        }
        for (size_t i = 0; i < graph->output_count; i++)
            outputs[i] = job->e->results[i] + (size_t)row * output_row(job->e, i);
        s = lk_executor_run_one(job->e->parts[part], n, inputs, outputs);
    }
    return s;
}

static void run_shares(void *arg, size_t begin, size_t end)
{
    parts_job *job = arg;
    for (size_t part = begin; part < end; part++) {
        job->status[part] = run_share(job, (int64_t)part);
        if (job->status[part] != LK_OK) strcpy(job->message[part], lk_error_message());
    }
}

static lk_status run_parts(lk_executor *e, int64_t batch, const void *const *inputs, float *const *outputs)
{
    parts_job *job = lk_alloc_zero(1, sizeof *job);
    lk_status s = LK_OK;
    if (!job) return lk_fail_memory("batch");
    job->e = e;
    job->batch = batch;
    job->rows = e->parts[0]->options.batch;
    job->inputs = inputs;
    lk_team_for(&e->team, (size_t)e->part_count, 1u << 20, run_shares, job);
    for (int i = 0; s == LK_OK && i < e->part_count; i++)
        if (job->status[i] != LK_OK) s = lk_fail(job->status[i], "%s", job->message[i]);
    e->ran = s == LK_OK ? batch : 0;
    for (size_t i = 0; s == LK_OK && outputs && i < e->graph->output_count; i++)
        if (outputs[i]) memcpy(outputs[i], e->results[i], (size_t)batch * output_row(e, i) * sizeof(float));
    free(job);
    return s;
}

lk_status lk_executor_run(lk_executor *e, int64_t batch, const void *const *inputs, float *const *outputs)
{
    if (batch < 1 || batch > e->options.batch)
        return lk_fail(LK_INVALID, "a batch of %" PRId64 " rows does not fit an executor of %" PRId64, batch,
                       e->options.batch);
    return e->parts ? run_parts(e, batch, inputs, outputs) : lk_executor_run_one(e, batch, inputs, outputs);
}

lk_status lk_executor_read(const lk_executor *e, lk_node node, float *out)
{
    const lk_executor *one = e->parts ? e->parts[0] : e;
    if (node < 0 || (size_t)node >= e->graph->node_count || one->value_of[node] < 0 || !one->pinned[node])
        return lk_fail(LK_INVALID, "%s is neither an output nor kept",
                       node < 0 || (size_t)node >= e->graph->node_count ? "no node" : lk_at(e->graph, node)->name);
    if (e->ran < 1) return lk_fail(LK_INVALID, "nothing was run");
    if (!e->parts) return lk_executor_read_one(e, node, out);
    for (size_t i = 0; i < e->graph->output_count; i++) {
        if (e->graph->outputs[i] != node) continue;
        memcpy(out, e->results[i], (size_t)e->ran * output_row(e, i) * sizeof(float));
        return LK_OK;
    }
    return lk_fail(LK_INVALID, "%s is neither an output nor kept", lk_at(e->graph, node)->name);
}

lk_executor_stats lk_executor_stats_of(const lk_executor *e)
{
    const lk_executor *one = e->parts ? e->parts[0] : e;
    size_t times = e->parts ? (size_t)e->part_count : 1;
    lk_executor_stats stats = {.activation_bytes = one->memory_bytes * times,
                               .scratch_bytes = one->scratch_bytes * times,
                               .unplanned_bytes = one->unplanned_bytes * times,
                               .steps = (int)one->step_count,
                               .reorders = one->reorders};
    for (size_t i = 0; i < one->weights->count; i++) stats.weight_bytes += one->weights->pieces[i].bytes;
    return stats;
}
