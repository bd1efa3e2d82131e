/* Static quantisation after training: ranges of activations are measured on samples; convolutions and linear layers
 * then multiply codes of 8 bits (Jacob et al., 2018, without zero points: u8 where nothing was negative, s8 elsewhere;
 * weights s8 with a scale per output channel). */
#include "base/memory.h"
#include "nn/executor.h"

#include <math.h>
#include <stdlib.h>

struct lk_calibration {
    const lk_graph *graph;
    float *ranges; /* [node][2]: smallest and largest value seen; 0, 0 before */
    lk_executor *executor;
    int64_t batch;
    float *buffer;
    size_t buffer_rows; /* elements of the largest row */
};

static bool measured(const lk_graph *graph, lk_node node)
{
    const lk_node_data *n = lk_at(graph, node);
    return lk_shape_batched(&n->shape) && !(n->op == LK_OP_INPUT && n->type != LK_TYPE_F32);
}

lk_status lk_calibration_new(const lk_graph *graph, lk_calibration **out)
{
    lk_calibration *c = lk_alloc_zero(1, sizeof *c);
    if (!c) return lk_fail_memory("calibration");
    c->graph = graph;
    c->ranges = lk_alloc_zero(graph->node_count + 1, 2 * sizeof *c->ranges);
    if (!c->ranges) {
        free(c);
        return lk_fail_memory("calibration");
    }
    *out = c;
    return LK_OK;
}

void lk_calibration_free(lk_calibration *c)
{
    if (!c) return;
    lk_executor_free(c->executor);
    free(c->buffer);
    free(c->ranges);
    free(c);
}

/* An executor in f32 that keeps every value. */
static lk_status prepare(lk_calibration *c, int64_t batch)
{
    if (c->executor && c->batch >= batch) return LK_OK;
    size_t n = c->graph->node_count;
    lk_node *keep = lk_alloc(n + 1, sizeof *keep);
    if (!keep) return lk_fail_memory("calibration");
    int count = 0;
    c->buffer_rows = 0;
    for (lk_node i = 0; i < (lk_node)n; i++) {
        if (!measured(c->graph, i)) continue;
        keep[count++] = i;
        size_t row = lk_shape_row(&lk_at(c->graph, i)->shape);
        if (row > c->buffer_rows) c->buffer_rows = row;
    }
    lk_executor_free(c->executor);
    c->executor = NULL;
    free(c->buffer);
    c->buffer = lk_alloc(c->buffer_rows * (size_t)batch, sizeof *c->buffer);
    lk_compile_options options = {.batch = batch, .keep = keep, .keep_count = count, .no_fusion = true};
    lk_status s = c->buffer ? lk_graph_compile(c->graph, &options, &c->executor) : lk_fail_memory("calibration");
    c->batch = batch;
    free(keep);
    return s;
}

lk_status lk_calibration_add(lk_calibration *c, int64_t batch, const void *const *inputs)
{
    lk_status s = prepare(c, batch);
    if (s == LK_OK) s = lk_executor_run(c->executor, batch, inputs, NULL);
    for (lk_node i = 0; s == LK_OK && i < (lk_node)c->graph->node_count; i++) {
        if (!measured(c->graph, i)) continue;
        s = lk_executor_read(c->executor, i, c->buffer);
        size_t n = lk_shape_row(&lk_at(c->graph, i)->shape) * (size_t)batch;
        float *range = c->ranges + 2 * i;
        for (size_t k = 0; s == LK_OK && k < n; k++) {
            if (!isfinite(c->buffer[k])) continue; /* that picture will be reported when it is embedded */
            range[0] = c->buffer[k] < range[0] ? c->buffer[k] : range[0];
            range[1] = c->buffer[k] > range[1] ? c->buffer[k] : range[1];
        }
    }
    return s;
}

size_t lk_calibration_count(const lk_calibration *c)
{
    return 2 * c->graph->node_count;
}

void lk_calibration_values(const lk_calibration *c, float *out)
{
    for (size_t i = 0; i < lk_calibration_count(c); i++) out[i] = c->ranges[i];
}

lk_status lk_calibration_set(lk_calibration *c, const float *values, size_t count)
{
    if (count != lk_calibration_count(c))
        return lk_fail(LK_INVALID, "%zu ranges were given where the network has %zu", count, lk_calibration_count(c));
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i])) return lk_fail(LK_INVALID, "a range of activations is not finite");
    for (size_t i = 0; i < count; i++) c->ranges[i] = values[i];
    return LK_OK;
}

/* Type and scale of codes for what a node gives; false when nothing was seen. */
static bool codes_for(const lk_calibration *c, lk_node node, lk_type *type, float *scale)
{
    const float *range = c->ranges + 2 * node;
    float top = fmaxf(-range[0], range[1]);
    if (!(top > 0)) return false;
    *type = range[0] < 0 ? LK_TYPE_I8 : LK_TYPE_U8;
    *scale = top / (range[0] < 0 ? 127 : 255);
    return true;
}

static lk_node resolved(const lk_executor *e, lk_node node)
{
    while (e->fused[node].same_as >= 0) node = e->fused[node].same_as;
    return node;
}

/* Depthwise convolutions gain nothing from codes; products of a few rows (squeeze and excitation, the head) are no
 * work. */
static bool worth_codes(const lk_node_data *node)
{
    if (node->op == LK_OP_CONV) return node->u.conv.groups == 1;
    return node->op == LK_OP_LINEAR && node->shape.rank == 3;
}

/* How the readers of a node stand to codes. */
typedef struct reading {
    bool wanted;  /* one multiplies them, or adds them into codes */
    bool refused; /* one needs more than 8 bits */
    int count;
    bool averaged; /* one takes the mean over all positions */
    lk_node pool;  /* the last that is a max pool of codes */
} reading;

static void note_readers(const lk_executor *e, lk_node reader, reading *readings, const bool *codes)
{
    const lk_node_data *node = lk_at(e->graph, reader);
    lk_node anchor = e->fused[reader].anchor;
    for (int i = 0; i < node->input_count; i++) {
        lk_node from = resolved(e, node->inputs[i]);
        if (anchor >= 0 && e->fused[from].anchor == anchor && from != e->fused[anchor].last)
            continue; /* within a group */
        readings[from].count++;
        if (reader == anchor && e->in_types[anchor] != lk_executor_type(e))
            readings[from].wanted = true;
        else if (anchor >= 0 && reader != anchor && node->op == LK_OP_ADD && codes[e->fused[anchor].last])
            readings[from].wanted = true;
        else if (node->op == LK_OP_MAX_POOL && codes[reader]) {
            readings[from].wanted = true;
            readings[from].pool = reader;
        } else if (node->op == LK_OP_GLOBAL_AVG)
            readings[from].averaged = true;
        else
            readings[from].refused = true;
    }
}

/* Whether the group that ends here multiplies codes and adds what its block began with. Were the sum not of codes, what
 * it adds could not be either, back to the last change of size; the mean evens out what codes lose. */
static bool adds_codes(const lk_executor *e, lk_node last)
{
    lk_node anchor = e->fused[last].anchor;
    if (anchor < 0 || e->in_types[anchor] == lk_executor_type(e)) return false;
    for (int i = 0; i < e->fused[anchor].chain_count; i++)
        if (e->fused[anchor].other[i] >= 0) return true;
    return false;
}

lk_status lk_calibration_apply(const lk_calibration *c, lk_executor *e)
{
    const lk_graph *g = e->graph;
    if (c->graph != g) return lk_fail(LK_INVALID, "the ranges are those of another graph");
    size_t n = g->node_count;
    reading *readings = lk_alloc_zero(n + 1, sizeof *readings);
    bool *codes = lk_alloc_zero(n + 1, sizeof *codes);
    if (!readings || !codes) {
        free(readings);
        free(codes);
        return lk_fail_memory("calibration");
    }
    for (lk_node i = 0; i < (lk_node)n; i++)
        if (worth_codes(lk_at(g, i)))
            codes_for(c, resolved(e, lk_at(g, i)->inputs[0]), &e->in_types[i], &e->in_scales[i]);
    /* Backwards, so that the readers of a value are decided before it. A group is read where it ends. */
    for (lk_node i = (lk_node)n - 1; i >= 0; i--) {
        lk_node anchor = e->fused[i].anchor;
        bool ends = anchor < 0 || e->fused[anchor].last == i;
        lk_op op = lk_at(g, i)->op;
        bool plain = op != LK_OP_INPUT && op != LK_OP_PARAMETER && op != LK_OP_POSITIONS && op != LK_OP_RESHAPE &&
                     op != LK_OP_TOKENS && e->fused[i].same_as < 0;
        bool wanted = readings[i].wanted || (readings[i].averaged && adds_codes(e, i));
        if (ends && plain && !e->pinned[i] && wanted && !readings[i].refused)
            codes[i] = codes_for(c, i, &e->types[i], &e->scales[i]);
        /* What only a max pool reads takes its codes: whatever they cut off is never the largest. */
        if (codes[i] && readings[i].count == 1 && readings[i].pool) {
            e->types[i] = e->types[readings[i].pool];
            e->scales[i] = e->scales[readings[i].pool];
        }
        if (e->fused[i].same_as < 0) note_readers(e, i, readings, codes);
    }
    free(readings);
    free(codes);
    return LK_OK;
}
