/* From a graph to steps: fuse, choose types and layouts, lower every node, plan memory, bind addresses. */
#include "base/memory.h"
#include "nn/executor.h"

#include <stdlib.h>
#include <string.h>

void *lk_weights_next(lk_executor *e, size_t bytes, bool *fresh)
{
    lk_weights *w = e->weights;
    *fresh = e->next_piece == w->count;
    if (!*fresh) {
        const struct lk_piece *piece = &w->pieces[e->next_piece++];
        return piece->bytes == bytes ? piece->data : NULL;
    }
    if (!lk_grow((void **)&w->pieces, &w->capacity, w->count + 1, sizeof *w->pieces)) return NULL;
    void *data = lk_alloc_aligned(bytes ? bytes : 1, 1);
    if (!data) return NULL;
    w->pieces[w->count++] = (struct lk_piece){data, bytes, NULL};
    e->next_piece++;
    return data;
}

static void free_piece(struct lk_piece *piece)
{
    free(piece->data);
    if (piece->layout) dnnl_memory_desc_destroy(piece->layout);
}

void lk_weights_rewind(lk_executor *e, size_t first)
{
    lk_weights *w = e->weights;
    if (w->owners == 1)
        while (w->count > first) free_piece(&w->pieces[--w->count]);
    e->next_piece = first;
}

int lk_executor_value(lk_executor *e, lk_view view)
{
    if (!lk_grow((void **)&e->values, &e->value_capacity, e->value_count + 1, sizeof *e->values)) return -1;
    if (!(view.scale > 0)) view.scale = 1;
    e->values[e->value_count] =
        (lk_value){.view = view, .bytes = lk_view_bytes(&view), .first = -1, .last = -1, .same_as = -1};
    return (int)e->value_count++;
}

lk_step *lk_executor_step(lk_executor *e, lk_step_kind kind, const lk_node_data *node)
{
    if (!lk_grow((void **)&e->steps, &e->step_capacity, e->step_count + 1, sizeof *e->steps)) return NULL;
    lk_step *step = &e->steps[e->step_count++];
    *step = (lk_step){.kind = kind, .node = node};
    return step;
}

lk_type lk_executor_type(const lk_executor *e)
{
    if (e->options.precision == LK_PRECISION_F32) return LK_TYPE_F32;
    return lk_cpu_detect() & LK_CPU_AVX512_BF16 ? LK_TYPE_BF16 : LK_TYPE_F32;
}

static int root_of(const lk_executor *e, int value)
{
    return e->values[value].same_as >= 0 ? e->values[value].same_as : value;
}

static bool is_plain(const lk_view *v)
{
    return v->rank != 4 || !v->block || v->block == 1 || v->dims[2] * v->dims[3] == 1;
}

static bool is_last(const lk_view *v)
{
    return v->rank != 4 || v->block == v->dims[1] || v->dims[2] * v->dims[3] == 1;
}

lk_status lk_executor_want(lk_executor *e, int value, lk_layout layout, lk_type type, float scale, int *out)
{
    lk_view from = e->values[value].view, to = from;
    bool fits = layout == LK_LAYOUT_ANY || (layout == LK_LAYOUT_PLAIN ? is_plain(&from) : is_last(&from));
    to.block = from.rank != 4 || layout == LK_LAYOUT_ANY ? from.block : layout == LK_LAYOUT_PLAIN ? 0 : from.dims[1];
    to.type = type;
    to.scale = scale > 0 ? scale : 1;
    bool alike = from.type == type && (lk_type_bytes(type) > 1 || from.scale == to.scale);
    if (fits && alike && from.block == to.block) {
        *out = value;
        return LK_OK;
    }
    int made = lk_executor_value(e, to);
    if (made < 0) return lk_fail_memory("plan");
    if (fits && alike) { /* one position: both layouts are the same bytes */
        e->values[made].same_as = root_of(e, value);
        e->values[made].constant = e->values[value].constant;
        e->values[made].view.data = e->values[value].view.data;
        *out = made;
        return LK_OK;
    }
    lk_step *step = lk_executor_step(e, LK_STEP_COPY, NULL);
    if (!step) return lk_fail_memory("plan");
    int64_t a[LK_MAX_DIMS], b[LK_MAX_DIMS];
    lk_view_strides(&from, a);
    lk_view_strides(&to, b);
    static const int last_order[4] = {0, 2, 3, 1};
    step->copy.rank = from.rank;
    for (int i = 0; i < from.rank; i++) {
        int d = from.rank == 4 && to.block > 1 ? last_order[i] : i;
        step->copy.dims[i] = from.dims[d];
        step->copy.from[i] = a[d];
        step->copy.to[i] = b[d];
    }
    step->inputs[0] = value;
    step->input_count = 1;
    step->output = *out = made;
    e->reorders++;
    return LK_OK;
}

bool lk_executor_may_overwrite(const lk_executor *e, lk_node node, int position)
{
    lk_node m = e->memory_of[node];
    lk_op op = lk_at(e->graph, m)->op;
    return !e->options.no_reuse && e->last_read[m] == position && e->readers[m] == 1 && !e->pinned[m] &&
           op != LK_OP_INPUT && op != LK_OP_PARAMETER && op != LK_OP_POSITIONS;
}

/* A parameter, or positions made from one: f32, in the weights. */
static lk_status constant_value(lk_executor *e, lk_node at, int *out)
{
    const lk_node_data *node = lk_at(e->graph, at);
    const lk_node_data *from = node->op == LK_OP_POSITIONS ? lk_input_of(e->graph, node, 0) : node;
    const float *values = e->graph->parameters[from->parameters[0]].values;
    lk_view view = {.type = LK_TYPE_F32, .rank = node->shape.rank};
    memcpy(view.dims, node->shape.dims, sizeof view.dims);
    size_t elements = lk_shape_row(&node->shape);
    bool fresh;
    float *data = lk_weights_next(e, elements * sizeof *data, &fresh);
    *out = data ? lk_executor_value(e, view) : -1;
    if (*out < 0) return lk_fail_memory("weights");
    if (fresh && node->op == LK_OP_PARAMETER) memcpy(data, values, elements * sizeof *data);
    if (fresh && node->op == LK_OP_POSITIONS) {
        lk_status s = lk_resize_positions(&node->u.positions, (size_t)node->shape.dims[2], values, data);
        if (s != LK_OK) return s;
    }
    e->values[*out].constant = true;
    e->values[*out].view.data = data;
    return LK_OK;
}

lk_status lk_executor_value_of(lk_executor *e, lk_node node, int *out)
{
    while (e->fused[node].same_as >= 0) node = e->fused[node].same_as;
    lk_op op = lk_at(e->graph, node)->op;
    if (e->value_of[node] < 0 && (op == LK_OP_PARAMETER || op == LK_OP_POSITIONS)) {
        lk_status s = constant_value(e, node, &e->value_of[node]);
        if (s != LK_OK) return s;
    }
    *out = e->value_of[node];
    return LK_OK;
}

/* What an operator of our own wants of its inputs. */
static lk_layout wanted_layout(const lk_node_data *node, const lk_executor *e, const int *inputs)
{
    bool last = false; /* whether any picture among the inputs lies channels last */
    for (int i = 0; i < node->input_count; i++) {
        const lk_view *x = &e->values[inputs[i]].view;
        last = last || (x->rank == 4 && is_last(x) && !is_plain(x));
    }
    switch (node->op) {
    case LK_OP_BATCH_NORM:
    case LK_OP_MAX_POOL:
    case LK_OP_AVG_POOL:
    case LK_OP_ADAPTIVE_POOL:
    case LK_OP_GLOBAL_AVG:
    case LK_OP_GLOBAL_MAX:
    case LK_OP_TOKENS:
    case LK_OP_LAYER_NORM:
    case LK_OP_SCALE: return LK_LAYOUT_LAST;
    case LK_OP_ADD:
    case LK_OP_MULTIPLY:
    case LK_OP_CONCAT: return last ? LK_LAYOUT_LAST : LK_LAYOUT_PLAIN;
    case LK_OP_SOFTMAX:
    case LK_OP_L2_NORMALISE:
    case LK_OP_RESHAPE:
    case LK_OP_ATTENTION: return LK_LAYOUT_PLAIN;
    default: return LK_LAYOUT_ANY;
    }
}

/* Parameters of an operator of our own, in the weights (the graph's may change or go). */
static lk_status copy_parameters(lk_executor *e, lk_step *step)
{
    for (int i = 0; i < LK_MAX_PARAMETERS; i++) {
        if (step->node->parameters[i] < 0 || step->node->op == LK_OP_PARAMETER) continue;
        const lk_parameter_data *p = &e->graph->parameters[step->node->parameters[i]];
        bool fresh;
        float *data = lk_weights_next(e, p->elements * sizeof *data, &fresh);
        if (!data) return lk_fail_memory("weights");
        if (fresh) memcpy(data, p->values, p->elements * sizeof *data);
        step->call.p[i] = data;
    }
    return LK_OK;
}

static bool elementwise(lk_op op)
{
    return op == LK_OP_ACTIVATION || op == LK_OP_ADD || op == LK_OP_MULTIPLY || op == LK_OP_SCALE ||
           op == LK_OP_SCALE_BY || op == LK_OP_BATCH_NORM;
}

static lk_status lower_operator(lk_executor *e, lk_node at)
{
    const lk_node_data *node = lk_at(e->graph, at);
    int inputs[LK_MAX_INPUTS] = {0}, over = -1;
    lk_status s;
    if (node->input_count > LK_MAX_INPUTS)
        return lk_fail(LK_LIMIT, "%s: more than %d inputs", node->name, LK_MAX_INPUTS);
    lk_view y = {.type = e->types[at], .scale = e->scales[at], .rank = node->shape.rank};
    memcpy(y.dims, node->shape.dims, sizeof y.dims);
    if (lk_shape_batched(&node->shape)) y.dims[0] = e->options.batch;
    for (int i = 0; i < node->input_count; i++)
        if ((s = lk_executor_value_of(e, node->inputs[i], &inputs[i])) != LK_OK) return s;
    lk_layout layout = wanted_layout(node, e, inputs);
    for (int i = 0; i < node->input_count; i++) {
        lk_view x = e->values[inputs[i]].view;
        s = lk_executor_want(e, inputs[i], layout, x.type, x.scale, &inputs[i]);
        if (s != LK_OK) return s;
        x = e->values[inputs[i]].view;
        if (y.rank == 4 && x.rank == 4 && x.block) y.block = y.dims[1];
        bool alike = x.type == y.type && x.scale == y.scale && lk_view_bytes(&x) == lk_view_bytes(&y);
        if (over < 0 && elementwise(node->op) && alike && lk_executor_may_overwrite(e, node->inputs[i], at))
            over = inputs[i];
    }
    const lk_view *x = &e->values[inputs[0]].view;
    if (node->op == LK_OP_TRANSPOSE || node->op == LK_OP_RESHAPE) y.block = 0;
    int output = lk_executor_value(e, y);
    if (output < 0) return lk_fail_memory("plan");
    e->value_of[at] = output;
    x = &e->values[inputs[0]].view;
    bool moves = node->op == LK_OP_RESHAPE || node->op == LK_OP_TOKENS;
    if (moves && x->type == y.type && x->scale == e->values[output].view.scale && !e->values[inputs[0]].constant) {
        e->values[output].same_as = root_of(e, inputs[0]);
        return LK_OK;
    }
    if (over >= 0) e->values[output].same_as = root_of(e, over);
    lk_step *step = lk_executor_step(e, LK_STEP_OPERATOR, node);
    if (!step) return lk_fail_memory("plan");
    memcpy(step->inputs, inputs, sizeof *inputs * (size_t)node->input_count);
    step->input_count = node->input_count;
    step->output = output;
    step->operator= lk_operator_of(node->op);
    return copy_parameters(e, step);
}

static lk_status lower_input(lk_executor *e, lk_node at)
{
    const lk_node_data *node = lk_at(e->graph, at);
    lk_view view = {.type = node->type, .rank = node->shape.rank};
    memcpy(view.dims, node->shape.dims, sizeof view.dims);
    view.dims[0] = e->options.batch;
    e->value_of[at] = lk_executor_value(e, view);
    return e->value_of[at] < 0 ? lk_fail_memory("plan") : LK_OK;
}

static lk_status lower(lk_executor *e)
{
    for (lk_node i = 0; i < (lk_node)e->graph->node_count; i++) {
        const lk_node_data *node = lk_at(e->graph, i);
        lk_status s = LK_OK;
        lk_node anchor = e->fused[i].anchor;
        if (e->fused[i].same_as >= 0 || node->op == LK_OP_PARAMETER || node->op == LK_OP_POSITIONS) continue;
        if (anchor >= 0 && e->fused[anchor].last != i) continue;
        if (node->op == LK_OP_INPUT)
            s = lower_input(e, i);
        else if (anchor >= 0)
            s = lk_at(e->graph, anchor)->op == LK_OP_CONV ? lk_lower_conv(e, anchor) : lk_lower_linear(e, anchor);
        else if (node->op == LK_OP_MATMUL)
            s = lk_lower_matmul(e, i);
        else
            s = lower_operator(e, i);
        if (s != LK_OK) return lk_fail_in(s, "%s", node->name);
    }
    return LK_OK;
}

/* Where the node's value is made or its group runs. */
static int position(const lk_executor *e, lk_node node)
{
    lk_node anchor = e->fused[node].anchor;
    return anchor >= 0 ? e->fused[anchor].last : node;
}

static void analyse(lk_executor *e)
{
    const lk_graph *g = e->graph;
    for (lk_node i = 0; i < (lk_node)g->node_count; i++) {
        const lk_node_data *node = lk_at(g, i);
        bool shows = e->fused[i].same_as >= 0 || node->op == LK_OP_RESHAPE || node->op == LK_OP_TOKENS;
        e->memory_of[i] = shows ? e->memory_of[node->inputs[0]] : i;
        e->last_read[i] = -1;
        e->value_of[i] = -1;
        e->types[i] = e->in_types[i] = lk_executor_type(e);
        e->scales[i] = e->in_scales[i] = 1;
        for (int k = 0; k < node->input_count; k++) {
            lk_node m = e->memory_of[node->inputs[k]];
            int at = position(e, i);
            if (at > e->last_read[m]) e->last_read[m] = at;
        }
    }
    /* readers counts the reads at the last position alone: a value read twice by one operator is not overwritten */
    for (lk_node i = 0; i < (lk_node)g->node_count; i++) {
        const lk_node_data *node = lk_at(g, i);
        if (e->memory_of[i] != i) continue;
        for (int k = 0; k < node->input_count; k++) {
            lk_node m = e->memory_of[node->inputs[k]];
            bool inner = e->fused[i].anchor >= 0 && e->fused[m].anchor == e->fused[i].anchor;
            if (!inner && position(e, i) == e->last_read[m]) e->readers[m]++;
        }
    }
    for (size_t i = 0; i < g->output_count; i++) e->pinned[e->memory_of[g->outputs[i]]] = true;
    for (int i = 0; i < e->options.keep_count; i++) e->pinned[e->memory_of[e->options.keep[i]]] = true;
    for (size_t i = 0; i < g->output_count; i++) e->types[g->outputs[i]] = LK_TYPE_F32;
}

static lk_status analysis_memory(lk_executor *e)
{
    size_t n = e->graph->node_count + 1;
    e->fused = lk_alloc_zero(n, sizeof *e->fused);
    e->value_of = lk_alloc(n, sizeof *e->value_of);
    e->memory_of = lk_alloc(n, sizeof *e->memory_of);
    e->last_read = lk_alloc(n, sizeof *e->last_read);
    e->readers = lk_alloc_zero(n, sizeof *e->readers);
    e->pinned = lk_alloc_zero(n, sizeof *e->pinned);
    e->types = lk_alloc(n, sizeof *e->types);
    e->in_types = lk_alloc(n, sizeof *e->in_types);
    e->scales = lk_alloc(n, sizeof *e->scales);
    e->in_scales = lk_alloc(n, sizeof *e->in_scales);
    bool all = e->fused && e->value_of && e->memory_of && e->last_read && e->readers && e->pinned && e->types &&
               e->in_types && e->scales && e->in_scales;
    return all ? LK_OK : lk_fail_memory("plan");
}

/* What only compiling needs; types stay for clones. */
static void free_analysis(lk_executor *e)
{
    free(e->memory_of);
    free(e->last_read);
    free(e->readers);
    e->memory_of = NULL;
    e->last_read = e->readers = NULL;
}

static void lifetimes(lk_executor *e)
{
    for (size_t i = 0; i < e->step_count; i++) {
        const lk_step *step = &e->steps[i];
        e->values[step->output].first = (int)i;
        if (e->values[step->output].last < (int)i) e->values[step->output].last = (int)i;
        for (int k = 0; k < step->input_count; k++) e->values[step->inputs[k]].last = (int)i;
    }
    for (lk_node i = 0; i < (lk_node)e->graph->node_count; i++) {
        lk_node at = i;
        while (e->fused[at].same_as >= 0) at = e->fused[at].same_as;
        if (e->pinned[e->memory_of[i]] && e->value_of[at] >= 0) e->values[e->value_of[at]].pinned = true;
        e->value_of[i] = e->value_of[at];
    }
    for (lk_node i = 0; i < (lk_node)e->graph->node_count; i++)
        e->pinned[i] = e->pinned[e->memory_of[i]] && e->value_of[i] >= 0;
}

static void *value_data(const lk_executor *e, int value)
{
    const lk_value *v = &e->values[value];
    return v->constant ? v->view.data : e->memory + v->offset;
}

static size_t scratch_room(const lk_dnn_op *op)
{
    return (op->scratch + 127) / 128 * 128;
}

static lk_status bind_primitive(lk_executor *e, lk_dnn_op *op, size_t scratch, const char *name)
{
    for (int i = 0; i < op->count; i++) {
        int value = op->values[i];
        if (value == LK_DNN_FIXED) continue;
        char *data = value == LK_DNN_SCRATCH ? e->scratch + scratch : e->values[value].view.data;
        lk_status s = lk_dnn_check(dnnl_memory_set_data_handle(op->args[i].memory, data + op->offsets[i]), name);
        if (s != LK_OK) return s;
        if (op->args[i].arg == DNNL_ARG_DST) op->swish.data = data + op->offsets[i];
    }
    return LK_OK;
}

/* Gives every step its addresses, and the executor memory and scratch. */
static lk_status bind(lk_executor *e)
{
    e->memory = lk_alloc_aligned(e->memory_bytes + 64, 1);
    if (!e->memory) return lk_fail_memory("activations");
    memset(e->memory, 0, e->memory_bytes + 64);
    for (size_t i = 0; i < e->value_count; i++) e->values[i].view.data = value_data(e, (int)i);
    for (size_t i = 0; i < e->step_count; i++) {
        lk_step *step = &e->steps[i];
        size_t need = 0;
        for (int k = 0; k < step->dnn_count; k++) need += scratch_room(&step->dnn[k]);
        for (int k = 0; k < step->input_count; k++) step->views[k] = e->values[step->inputs[k]].view;
        if (step->kind == LK_STEP_WINOGRAD || step->kind == LK_STEP_PRODUCT || step->kind == LK_STEP_CONV) {
            step->call.y = e->values[step->output].view;
            need = step->kind == LK_STEP_PRODUCT ? lk_product_scratch(e)
                   : step->kind == LK_STEP_CONV  ? lk_conv_scratch(e, step)
                                                 : lk_winograd_scratch(e, step);
        }
        if (step->kind == LK_STEP_OPERATOR) {
            step->call.team = &e->team;
            step->call.node = step->node;
            step->call.x = step->views;
            step->call.y = e->values[step->output].view;
            if (step->operator->scratch) need = step->operator->scratch(&step->call) * sizeof(float);
        }
        if (need > e->scratch_bytes) e->scratch_bytes = need;
    }
    e->scratch = lk_alloc_aligned(e->scratch_bytes + 64, 1);
    if (!e->scratch) return lk_fail_memory("scratch");
    for (size_t i = 0; i < e->step_count; i++) {
        lk_step *step = &e->steps[i];
        step->call.scratch = (float *)e->scratch;
        size_t scratch = 0;
        for (int k = 0; k < step->dnn_count; k++) {
            lk_status s = bind_primitive(e, &step->dnn[k], scratch, step->node->name);
            if (s != LK_OK) return s;
            scratch += scratch_room(&step->dnn[k]);
        }
    }
    return LK_OK;
}

/* What calibration chose for an executor of the same graph. */
static void take_types(lk_executor *e, const lk_executor *like)
{
    size_t n = e->graph->node_count;
    memcpy(e->types, like->types, n * sizeof *e->types);
    memcpy(e->in_types, like->in_types, n * sizeof *e->in_types);
    memcpy(e->scales, like->scales, n * sizeof *e->scales);
    memcpy(e->in_scales, like->in_scales, n * sizeof *e->in_scales);
}

lk_status lk_executor_make(const lk_graph *graph, const lk_compile_options *options, const lk_executor *like,
                           lk_executor **out)
{
    lk_status s;
    lk_executor *e = lk_alloc_zero(1, sizeof *e);
    if (!e) return lk_fail_memory("executor");
    int before = lk_team_enter(1); /* a primitive is run by one thread; there are several where there are threads */
    e->graph = graph;
    e->options = *options;
    e->options.keep = NULL;
    e->team = lk_team_of(options->threads);
    if (e->options.batch == 0) e->options.batch = 1;
    e->options.calibration = NULL; /* borrowed for this call */
    e->weights = like ? like->weights : lk_alloc_zero(1, sizeof *e->weights);
    lk_node *keep = lk_alloc((size_t)options->keep_count + 1, sizeof *keep);
    if (!e->weights || !keep) {
        free(keep);
        s = lk_fail_memory("executor");
        goto done;
    }
    e->weights->owners++;
    e->spoilt = lk_alloc_zero((size_t)e->options.batch, sizeof *e->spoilt);
    if (!e->spoilt) {
        free(keep);
        s = lk_fail_memory("executor");
        goto done;
    }
    if (options->keep_count) memcpy(keep, options->keep, sizeof *keep * (size_t)options->keep_count);
    e->options.keep = keep;
    LK_TRY(analysis_memory(e));
    /* Layers that oneDNN refuses in other types run in f32, which may be by our own kernels: that it is missing is no
     * such refusal. */
    if (options->precision != LK_PRECISION_F32) LK_TRY(lk_dnn_open(&e->dnn));
    lk_fuse(graph, keep, options->keep_count, !options->no_fusion, e->fused);
    analyse(e);
    if (like)
        take_types(e, like);
    else if (options->precision == LK_PRECISION_INT8)
        LK_TRY(lk_calibration_apply(options->calibration, e));
    LK_TRY(lower(e));
    lifetimes(e);
    LK_TRY(lk_plan_memory(e));
    LK_TRY(bind(e));
    free_analysis(e);
    *out = e;
    e = NULL;
done:
    lk_executor_free_one(e);
    lk_team_enter(before);
    return s;
}

void lk_step_free(lk_step *step)
{
    for (int k = 0; k < step->dnn_count; k++) lk_dnn_op_free(&step->dnn[k]);
    free(step->dnn);
}

void lk_executor_free_one(lk_executor *e)
{
    if (!e) return;
    for (size_t i = 0; i < e->step_count; i++) lk_step_free(&e->steps[i]);
    lk_dnn_close(&e->dnn);
    if (e->weights && --e->weights->owners == 0) {
        for (size_t i = 0; i < e->weights->count; i++) free_piece(&e->weights->pieces[i]);
        free(e->weights->pieces);
        free(e->weights);
    }
    free_analysis(e);
    free(e->types);
    free(e->in_types);
    free(e->scales);
    free(e->in_scales);
    free(e->fused);
    free(e->value_of);
    free(e->pinned);
    free(e->spoilt);
    free(e->values);
    free(e->steps);
    free(e->memory);
    free(e->scratch);
    free((void *)e->options.keep);
    free(e);
}
