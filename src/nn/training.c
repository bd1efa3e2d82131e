/* Training: forward keeps every value, backward walks the nodes the other way round and adds up gradients. */
#include "nn/training.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool is_last(const lk_view *v)
{
    return v->rank != 4 || v->block == v->dims[1];
}

/* Whether an operator must have pictures channels last (1), in plain order (0), or takes both (-1). */
static int wants_last(const lk_training *t, const lk_node_data *node)
{
    switch (node->op) {
    case LK_OP_CONV:
    case LK_OP_BATCH_NORM:
    case LK_OP_MAX_POOL:
    case LK_OP_AVG_POOL:
    case LK_OP_ADAPTIVE_POOL:
    case LK_OP_GLOBAL_AVG:
    case LK_OP_GLOBAL_MAX:
    case LK_OP_TOKENS:
    case LK_OP_LAYER_NORM:
    case LK_OP_SCALE: return 1;
    case LK_OP_SOFTMAX:
    case LK_OP_L2_NORMALISE:
    case LK_OP_RESHAPE:
    case LK_OP_MATMUL: return 0;
    case LK_OP_ADD:
    case LK_OP_MULTIPLY:
    case LK_OP_CONCAT:
        for (int i = 0; i < node->input_count; i++) {
            const lk_view *x = &t->nodes[node->inputs[i]].y;
            if (x->rank == 4 && x->block && lk_shape_batched(&lk_input_of(t->graph, node, i)->shape)) return 1;
        }
        return 0;
    default: return -1;
    }
}

static lk_status allocate(float **out, size_t elements)
{
    *out = lk_alloc_aligned(elements ? elements : 1, sizeof **out);
    if (!*out) return lk_fail_memory("training");
    memset(*out, 0, elements * sizeof **out);
    return LK_OK;
}

/* Inputs in the layout that the operator wants: the node's own memory, or a copy with a gradient of its own. */
static lk_status prepare_inputs(lk_training *t, lk_tnode *n)
{
    const lk_node_data *node = n->call.node;
    int last = wants_last(t, node);
    for (int i = 0; i < node->input_count; i++) {
        lk_view *x = &n->x[i];
        *x = t->nodes[node->inputs[i]].y;
        if (x->rank != 4 || last < 0 || is_last(x) == (last == 1)) continue;
        lk_view from = *x;
        x->block = last ? x->dims[1] : 0;
        size_t elements = lk_view_elements(x);
        lk_status s = allocate(&n->copies[i], 2 * elements);
        if (s != LK_OK) return s;
        x->data = n->copies[i];
        n->how[i].rank = from.rank;
        memcpy(n->how[i].dims, from.dims, sizeof from.dims);
        lk_view_strides(&from, n->how[i].from);
        lk_view_strides(x, n->how[i].to);
    }
    return LK_OK;
}

static lk_view output_view(const lk_training *t, const lk_tnode *n)
{
    const lk_node_data *node = n->call.node;
    lk_view y = {.type = LK_TYPE_F32, .scale = 1, .rank = node->shape.rank};
    memcpy(y.dims, node->shape.dims, sizeof y.dims);
    if (lk_shape_batched(&node->shape)) y.dims[0] = t->options.batch;
    if (node->op == LK_OP_INPUT) {
        y.type = node->type;
        if (y.rank == 4) y.block = y.dims[1]; /* turned on the way in */
    } else if (y.rank == 4 && node->op != LK_OP_PARAMETER && node->op != LK_OP_RESHAPE && node->op != LK_OP_TRANSPOSE) {
        for (int i = 0; i < node->input_count; i++)
            if (n->x[i].rank == 4 && n->x[i].block) y.block = y.dims[1];
    }
    return y;
}

static lk_status make_node(lk_training *t, lk_node at)
{
    lk_tnode *n = &t->nodes[at];
    const lk_node_data *node = lk_at(t->graph, at);
    lk_status s;
    n->call.node = node;
    n->call.team = &t->team;
    n->call.together = t->options.together;
    n->call.x = n->x;
    if (node->input_count > LK_MAX_INPUTS)
        return lk_fail(LK_LIMIT, "%s: more than %d inputs", node->name, LK_MAX_INPUTS);
    if ((s = prepare_inputs(t, n)) != LK_OK) return s;
    n->y = output_view(t, n);
    n->wanted = node->op == LK_OP_INPUT && node->type == LK_TYPE_F32;
    for (int i = 0; i < LK_MAX_PARAMETERS; i++)
        n->wanted = n->wanted || (node->parameters[i] >= 0 && !t->graph->parameters[node->parameters[i]].buffer);
    for (int i = 0; i < node->input_count; i++) n->wanted = n->wanted || t->nodes[node->inputs[i]].wanted;
    if (node->op == LK_OP_PARAMETER) return LK_OK; /* shows the graph's memory */
    n->owned = true;
    float *data = NULL;
    if (n->through < 0 && (s = allocate(&data, lk_view_elements(&n->y))) != LK_OK) return s;
    n->y.data = data;
    n->call.y = n->y;
    if (n->within) t->nodes[node->inputs[0]].call.y.data = data;
    if (lk_is_product(node->op)) return lk_training_make_products(t, at);
    const lk_operator *op = lk_operator_of(node->op);
    if (op->saved) {
        n->call.saved = lk_alloc_aligned(op->saved(&n->call), 1);
        if (!n->call.saved) return lk_fail_memory("training");
    }
    size_t need = op->scratch ? op->scratch(&n->call) * sizeof(float) : 0;
    if (need > t->scratch_bytes) t->scratch_bytes = need;
    return LK_OK;
}

/* Ways to touch less memory
 * --------------------------------------------------------------------------------------------
 */

/* The only reader of a node that is no output; LK_NO_NODE when there are none or several. */
static lk_node only_reader(const lk_graph *g, lk_node at)
{
    lk_node reader = LK_NO_NODE;
    for (size_t i = 0; i < g->output_count; i++)
        if (g->outputs[i] == at) return LK_NO_NODE;
    for (lk_node i = at + 1; i < (lk_node)g->node_count; i++)
        for (int k = 0; k < lk_at(g, i)->input_count; k++) {
            if (lk_at(g, i)->inputs[k] != at) continue;
            if (reader >= 0) return LK_NO_NODE;
            reader = i;
        }
    return reader;
}

static bool alike(const lk_graph *g, lk_node sum)
{
    const lk_shape *a = &lk_input_of(g, lk_at(g, sum), 0)->shape, *b = &lk_input_of(g, lk_at(g, sum), 1)->shape;
    return a->rank == b->rank && lk_shape_batched(a) &&
           memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0;
}

/* Batch norms, and sums of two alike, compute a ReLU that alone reads them. */
static void find_through(lk_training *t)
{
    const lk_graph *g = t->graph;
    for (lk_node i = 0; i < (lk_node)g->node_count; i++) t->nodes[i].through = LK_NO_NODE;
    for (lk_node i = 0; i < (lk_node)g->node_count; i++) {
        lk_op op = lk_at(g, i)->op;
        if (op != LK_OP_BATCH_NORM && !(op == LK_OP_ADD && alike(g, i))) continue;
        lk_node reader = only_reader(g, i);
        if (reader < 0 || lk_at(g, reader)->op != LK_OP_ACTIVATION) continue;
        if (lk_at(g, reader)->u.activation != LK_RELU) continue;
        t->nodes[i].through = reader;
        t->nodes[reader].within = true;
        t->nodes[i].call.relu = true;
    }
}

/* Whose gradient is also that of node `at`, as it stands: a sum passes its own on to what it alone reads. Only to those
 * that do not change it. */
static lk_node shared_with(const lk_training *t, lk_node at)
{
    const lk_node_data *node = lk_at(t->graph, at);
    if (t->nodes[at].through >= 0) return t->nodes[at].through;
    if (node->op != LK_OP_BATCH_NORM && node->op != LK_OP_CONV) return LK_NO_NODE;
    lk_node reader = only_reader(t->graph, at);
    if (reader < 0 || lk_at(t->graph, reader)->op != LK_OP_ADD || !alike(t->graph, reader)) return LK_NO_NODE;
    const lk_tnode *sum = &t->nodes[reader];
    return sum->copies[0] || sum->copies[1] || !lk_add_alike(&sum->call) ? LK_NO_NODE : reader;
}

static lk_status allocate_gradients(lk_training *t)
{
    for (lk_node i = (lk_node)t->graph->node_count - 1; i >= 0; i--) {
        lk_tnode *n = &t->nodes[i];
        if (!n->owned || !n->wanted) continue;
        lk_node with = shared_with(t, i);
        n->shares = with >= 0;
        if (n->shares) {
            n->gradient = t->nodes[with].gradient;
            continue;
        }
        lk_status s = allocate(&n->gradient, lk_view_elements(&n->y));
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

static bool can_write(const lk_tnode *n, int input)
{
    if (n->copies[input]) return false;
    switch (n->call.node->op) {
    case LK_OP_CONV:
    case LK_OP_BATCH_NORM:
    case LK_OP_ACTIVATION:
    case LK_OP_MAX_POOL: return true;
    case LK_OP_ADD: return lk_add_alike(&n->call);
    default: return false;
    }
}

/* A gradient that is written before anyone adds to it need not be cleared: the node's last reader, which comes first on
 * the way back, writes, and all others add. */
static void find_direct(lk_training *t)
{
    for (lk_node i = (lk_node)t->graph->node_count - 1; i >= 0; i--) {
        lk_tnode *n = &t->nodes[i];
        for (int k = 0; k < n->call.node->input_count; k++) {
            lk_tnode *from = &t->nodes[n->call.node->inputs[k]];
            if (from->call.seed) continue; /* seen: a later reader comes first on the way back */
            from->call.seed = 1;
            from->direct = n->call.write[k] = !n->within && !from->shares && can_write(n, k);
        }
    }
    for (size_t i = 0; i < t->graph->output_count; i++) {
        lk_node at = t->graph->outputs[i];
        t->nodes[at].direct = false;
        for (lk_node r = at + 1; r < (lk_node)t->graph->node_count; r++)
            for (int k = 0; k < lk_at(t->graph, r)->input_count; k++)
                if (lk_at(t->graph, r)->inputs[k] == at) t->nodes[r].call.write[k] = false;
    }
}

/* Which gradients each call adds to. Nothing is computed that reaches only frozen parameters and inputs not asked for.
 */
static void bind_gradients(lk_training *t, float *const *input_grads)
{
    const lk_graph *g = t->graph;
    for (size_t i = 0; i < g->node_count; i++) {
        lk_tnode *n = &t->nodes[i];
        const lk_node_data *node = n->call.node;
        n->needed = false;
        for (size_t k = 0; input_grads && k < g->input_count; k++)
            n->needed = n->needed || (g->inputs[k] == (lk_node)i && input_grads[k] && n->gradient);
        for (int k = 0; k < LK_MAX_PARAMETERS; k++) {
            float *gradient = node->parameters[k] >= 0 ? t->gradients[node->parameters[k]] : NULL;
            if (node->op == LK_OP_PARAMETER && k == 0) n->gradient = gradient;
            n->call.gp[k] = node->op == LK_OP_PARAMETER ? NULL : gradient;
            n->needed = n->needed || gradient;
        }
        for (int k = 0; k < node->input_count; k++) {
            lk_tnode *from = &t->nodes[node->inputs[k]];
            n->needed = n->needed || from->needed;
            n->call.gx[k] = from->needed ? from->gradient : NULL;
            if (n->copies[k] && n->call.gx[k]) n->call.gx[k] = n->copies[k] + lk_view_elements(&n->x[k]);
        }
        n->call.scratch = (float *)t->scratch;
    }
}

/* Parameters may have been loaded anew since the last step. */
static lk_status bind_parameters(lk_training *t)
{
    lk_graph *g = t->graph;
    for (size_t i = 0; i < g->parameter_count; i++) {
        float *values;
        lk_status s = lk_graph_values_writable(g, i, &values);
        if (s != LK_OK) return s;
    }
    for (size_t i = 0; i < g->node_count; i++) {
        lk_tnode *n = &t->nodes[i];
        const lk_node_data *node = n->call.node;
        if (node->op == LK_OP_PARAMETER) n->y.data = g->parameters[node->parameters[0]].owned;
        for (int k = 0; k < LK_MAX_PARAMETERS; k++)
            n->call.p[k] = node->parameters[k] >= 0 ? g->parameters[node->parameters[k]].owned : NULL;
        for (int k = 0; k < node->input_count; k++)
            if (!n->copies[k]) n->x[k].data = t->nodes[node->inputs[k]].y.data;
    }
    return LK_OK;
}

lk_status lk_graph_compile_training(lk_graph *graph, const lk_training_options *options, lk_training **out)
{
    lk_status s = lk_graph_check(graph);
    if (s == LK_OK) s = lk_graph_check_loaded(graph);
    if (s != LK_OK) return s;
    if (options->batch < 1 || options->threads < 0 || graph->output_count == 0)
        return lk_fail(LK_INVALID, "training needs a batch, and a graph with an output");
    if (options->bf16 && !(lk_cpu_detect() & LK_CPU_AVX512_BF16))
        return lk_fail(LK_UNSUPPORTED, "this processor has no bf16 arithmetic (it has %s): use f32",
                       lk_cpu_names(lk_cpu_detect()));
    lk_training *t = lk_alloc_zero(1, sizeof *t);
    if (!t) return lk_fail_memory("training");
    t->graph = graph;
    t->options = *options;
    t->team = lk_team_of(options->threads);
    int before = lk_team_enter(t->team.threads);
    t->nodes = lk_alloc_zero(graph->node_count + 1, sizeof *t->nodes);
    t->gradients = lk_alloc_zero(graph->parameter_count + 1, sizeof *t->gradients);
    t->frozen = lk_alloc_zero(graph->parameter_count + 1, sizeof *t->frozen);
    if (!t->nodes || !t->gradients || !t->frozen) {
        s = lk_fail_memory("training");
        goto done;
    }
    for (size_t i = 0; i < graph->parameter_count; i++)
        if (!graph->parameters[i].buffer) LK_TRY(allocate(&t->gradients[i], graph->parameters[i].elements));
    LK_TRY(lk_dnn_open(&t->dnn));
    find_through(t);
    size_t widest = 0; /* convolutions leave the gradient of their bias behind the scratch */
    for (lk_node i = 0; i < (lk_node)graph->node_count; i++) {
        LK_TRY(make_node(t, i));
        const lk_node_data *node = lk_at(graph, i);
        if (node->op == LK_OP_CONV && (size_t)node->u.conv.out > widest) widest = (size_t)node->u.conv.out;
    }
    t->scratch_bytes = (t->scratch_bytes + 63) / 64 * 64;
    t->scratch = lk_alloc_aligned(t->scratch_bytes + widest * sizeof(float) + 64, 1);
    LK_TRY(allocate(&t->result, t->result_bytes / sizeof(float) + 1));
    if (!t->scratch) {
        s = lk_fail_memory("training");
        goto done;
    }
    LK_TRY(allocate_gradients(t));
    find_direct(t);
    bind_gradients(t, NULL);
    *out = t;
    t = NULL;
done:
    lk_team_enter(before);
    lk_training_free(t);
    return s;
}

void lk_training_free(lk_training *t)
{
    if (!t) return;
    for (size_t i = 0; t->nodes && i < t->graph->node_count; i++) {
        lk_tnode *n = &t->nodes[i];
        if (n->owned) {
            free(n->y.data);
            if (!n->shares) free(n->gradient);
        }
        for (int k = 0; k < LK_MAX_INPUTS; k++) free(n->copies[k]);
        free(n->call.saved);
        lk_training_free_product(&n->forward);
        lk_training_free_product(&n->to_input[0]);
        lk_training_free_product(&n->to_input[1]);
        lk_training_free_product(&n->to_weight);
    }
    for (size_t i = 0; t->gradients && i < t->graph->parameter_count; i++) free(t->gradients[i]);
    lk_dnn_close(&t->dnn);
    free(t->nodes);
    free(t->gradients);
    free(t->frozen);
    free(t->scratch);
    free(t->result);
    free(t);
}

/* Copies between [batch, ...] as callers have it and a value; back: out of the value. add: values += theirs. */
static void exchange(const lk_training *t, const lk_view *view, float *inside, float *theirs, bool back, bool add)
{
    lk_view a = *view, b = *view;
    a.data = inside;
    b.data = theirs;
    b.block = 0;
    lk_strided how = {.rank = a.rank};
    memcpy(how.dims, a.dims, sizeof a.dims);
    lk_view_strides(back ? &a : &b, how.from);
    lk_view_strides(back ? &b : &a, how.to);
    lk_copy_strided(&t->team, &how, back ? &a : &b, 0, back ? &b : &a, 0, add);
}

static lk_status forward_node(lk_training *t, lk_node at, bool train)
{
    lk_tnode *n = &t->nodes[at];
    const lk_node_data *node = n->call.node;
    if (node->op == LK_OP_INPUT || node->op == LK_OP_PARAMETER || n->within) return LK_OK;
    for (int k = 0; k < node->input_count; k++)
        if (n->copies[k]) lk_copy_strided(&t->team, &n->how[k], &t->nodes[node->inputs[k]].y, 0, &n->x[k], 0, false);
    if (lk_is_product(node->op)) return lk_training_forward_product(t, at);
    bool frozen = node->op == LK_OP_BATCH_NORM && t->frozen[node->parameters[0]];
    n->call.train = train && !frozen;
    n->call.seed = t->options.seed * 0x9e3779b97f4a7c15u + t->step * 0x2545f4914f6cdd1du + (uint64_t)at;
    if (node->op == LK_OP_BATCH_NORM)
        for (int i = 0; i < 2; i++)
            n->call.statistics[i] = n->call.train ? t->graph->parameters[node->parameters[2 + i]].owned : NULL;
    return lk_operator_of(node->op)->forward(&n->call);
}

lk_status lk_training_forward(lk_training *t, bool train, const void *const *inputs, float *const *outputs)
{
    lk_graph *g = t->graph;
    lk_status s = bind_parameters(t);
    if (s != LK_OK) return s;
    int before = lk_team_enter(t->team.threads);
    t->step += train;
    for (size_t i = 0; i < g->input_count; i++) {
        const lk_view *view = &t->nodes[g->inputs[i]].y;
        if (view->type == LK_TYPE_I32)
            memcpy(view->data, inputs[i], lk_view_bytes(view));
        else
            exchange(t, view, view->data, (float *)inputs[i], false, false);
    }
    for (lk_node i = 0; s == LK_OK && i < (lk_node)g->node_count; i++) s = forward_node(t, i, train);
    t->ran = s == LK_OK;
    t->trained = train;
    for (size_t i = 0; s == LK_OK && outputs && i < g->output_count; i++)
        if (outputs[i]) s = lk_training_read(t, g->outputs[i], outputs[i]);
    lk_team_enter(before);
    return s;
}

lk_status lk_training_read(const lk_training *t, lk_node node, float *out)
{
    if (node < 0 || (size_t)node >= t->graph->node_count || t->nodes[node].y.type != LK_TYPE_F32)
        return lk_fail(LK_INVALID, "no node of the graph, or one of ids");
    if (!t->ran) return lk_fail(LK_INVALID, "nothing was run");
    if (t->nodes[node].through >= 0)
        return lk_fail(LK_UNSUPPORTED, "%s is computed as one with %s behind it", lk_at(t->graph, node)->name,
                       lk_at(t->graph, t->nodes[node].through)->name);
    exchange(t, &t->nodes[node].y, t->nodes[node].y.data, out, true, false);
    return LK_OK;
}

static lk_status backward_node(lk_training *t, lk_node at)
{
    lk_tnode *n = &t->nodes[at];
    const lk_node_data *node = n->call.node;
    if (node->op == LK_OP_INPUT || node->op == LK_OP_PARAMETER || n->within || !n->needed) return LK_OK;
    n->call.gy = n->gradient;
    for (int k = 0; k < node->input_count; k++)
        if (n->copies[k] && n->call.gx[k]) memset(n->call.gx[k], 0, lk_view_bytes(&n->x[k]));
    lk_status s =
        lk_is_product(node->op) ? lk_training_backward_product(t, at) : lk_operator_of(node->op)->backward(&n->call);
    for (int k = 0; s == LK_OK && k < node->input_count; k++) {
        if (!n->copies[k] || !n->call.gx[k]) continue;
        lk_strided how = n->how[k];
        memcpy(how.from, n->how[k].to, sizeof how.from);
        memcpy(how.to, n->how[k].from, sizeof how.to);
        lk_view from = n->x[k], to = t->nodes[node->inputs[k]].y;
        from.data = n->call.gx[k];
        to.data = t->nodes[node->inputs[k]].gradient;
        lk_copy_strided(&t->team, &how, &from, 0, &to, 0, true);
    }
    return s;
}

lk_status lk_training_backward(lk_training *t, const float *const *output_grads, float *const *input_grads)
{
    lk_graph *g = t->graph;
    lk_status s = LK_OK;
    if (!t->ran) return lk_fail(LK_INVALID, "backward comes after forward");
    int before = lk_team_enter(t->team.threads);
    bind_gradients(t, input_grads);
    for (size_t i = 0; i < g->node_count; i++) {
        lk_tnode *n = &t->nodes[i];
        if (n->owned && n->needed && n->gradient && !n->direct && !n->shares)
            memset(n->gradient, 0, lk_view_bytes(&n->y));
    }
    for (size_t i = 0; i < g->output_count; i++) {
        lk_tnode *n = &t->nodes[g->outputs[i]];
        if (output_grads[i] && n->gradient) exchange(t, &n->y, n->gradient, (float *)output_grads[i], false, true);
    }
    for (lk_node i = (lk_node)g->node_count - 1; s == LK_OK && i >= 0; i--) s = backward_node(t, i);
    for (size_t i = 0; s == LK_OK && input_grads && i < g->input_count; i++) {
        lk_tnode *n = &t->nodes[g->inputs[i]];
        if (input_grads[i] && n->gradient) exchange(t, &n->y, n->gradient, input_grads[i], true, false);
    }
    lk_team_enter(before);
    return s;
}

float *lk_training_gradient(lk_training *t, size_t index)
{
    return t->frozen[index] ? NULL : t->gradients[index];
}

void lk_training_zero_gradients(lk_training *t)
{
    for (size_t i = 0; i < t->graph->parameter_count; i++)
        if (t->gradients[i]) memset(t->gradients[i], 0, t->graph->parameters[i].elements * sizeof(float));
}

lk_status lk_training_freeze(lk_training *t, size_t index, bool frozen)
{
    if (index >= t->graph->parameter_count) return lk_fail(LK_INVALID, "the graph has no parameter %zu", index);
    if (t->graph->parameters[index].buffer)
        return lk_fail(LK_INVALID, "%s is a statistic, not trained anyway", t->graph->parameters[index].name);
    lk_status s = LK_OK;
    if (frozen) {
        free(t->gradients[index]);
        t->gradients[index] = NULL;
    } else if (!t->gradients[index]) {
        s = allocate(&t->gradients[index], t->graph->parameters[index].elements);
    }
    t->frozen[index] = frozen;
    bind_gradients(t, NULL);
    return s;
}
