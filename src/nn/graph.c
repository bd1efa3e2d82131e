#include "nn/graph.h"
#include "base/file.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const op_names[LK_OP_COUNT] = {
    "input",           "parameter",   "conv",       "batch_norm", "layer_norm", "linear",        "matmul",
    "softmax",         "attention",   "activation", "max_pool",   "avg_pool",   "adaptive_pool", "global_avg_pool",
    "global_max_pool", "mean_tokens", "add",        "multiply",   "scale",      "scale_by",      "concat",
    "slice",           "reshape",     "transpose",  "tokens",     "dropout",    "drop_path",     "l2_normalise",
    "positions",       "embedding",   "pick_token"};

const char *lk_op_name(lk_op op)
{
    return op_names[op];
}

size_t lk_type_bytes(lk_type type)
{
    static const size_t bytes[] = {4, 2, 2, 8, 4, 8, 1, 1};
    return (size_t)type < sizeof bytes / sizeof *bytes ? bytes[type] : 0;
}

bool lk_shape_batched(const lk_shape *shape)
{
    return shape->rank > 0 && shape->dims[0] == LK_BATCH;
}

size_t lk_shape_row(const lk_shape *shape)
{
    size_t n = 1;
    for (int i = lk_shape_batched(shape); i < shape->rank; i++) n *= (size_t)shape->dims[i];
    return n;
}

const char *lk_shape_text(const lk_shape *shape)
{
    static _Thread_local char texts[4][128];
    static _Thread_local int turn;
    char *text = texts[turn = (turn + 1) % 4];
    size_t at = 0;
    at += (size_t)snprintf(text, sizeof texts[0], "[");
    for (int i = 0; i < shape->rank && at < sizeof texts[0]; i++) {
        const char *comma = i ? ", " : "";
        if (shape->dims[i] == LK_BATCH)
            at += (size_t)snprintf(text + at, sizeof texts[0] - at, "%sN", comma);
        else
            at += (size_t)snprintf(text + at, sizeof texts[0] - at, "%s%" PRId64, comma, shape->dims[i]);
    }
    if (at < sizeof texts[0]) snprintf(text + at, sizeof texts[0] - at, "]");
    return text;
}

/* Names: open addressing, the table at most half full. */

static size_t name_slot(const struct lk_names *names, const char *key)
{
    size_t at = lk_hash(key, strlen(key)).low & (names->capacity - 1);
    while (names->keys[at] && strcmp(names->keys[at], key) != 0) at = (at + 1) & (names->capacity - 1);
    return at;
}

static int64_t name_find(const struct lk_names *names, const char *key)
{
    if (!names->capacity || !key) return -1;
    size_t at = name_slot(names, key);
    return names->keys[at] ? names->values[at] : -1;
}

static bool name_put(struct lk_names *names, const char *key, int64_t value)
{
    if (names->count * 2 >= names->capacity) {
        struct lk_names bigger = {.capacity = names->capacity ? names->capacity * 2 : 64, .count = names->count};
        bigger.keys = lk_alloc_zero(bigger.capacity, sizeof *bigger.keys);
        bigger.values = lk_alloc(bigger.capacity, sizeof *bigger.values);
        if (!bigger.keys || !bigger.values) {
            free(bigger.keys);
            free(bigger.values);
            return false;
        }
        for (size_t i = 0; i < names->capacity; i++) {
            if (!names->keys[i]) continue;
            size_t at = name_slot(&bigger, names->keys[i]);
            bigger.keys[at] = names->keys[i];
            bigger.values[at] = names->values[i];
        }
        free(names->keys);
        free(names->values);
        *names = bigger;
    }
    size_t at = name_slot(names, key);
    names->keys[at] = key;
    names->values[at] = value;
    names->count++;
    return true;
}

lk_status lk_graph_new(lk_graph **out)
{
    *out = lk_alloc_zero(1, sizeof **out);
    return *out ? LK_OK : lk_fail_memory("graph");
}

void lk_graph_free(lk_graph *graph)
{
    if (!graph) return;
    for (size_t i = 0; i < graph->parameter_count; i++) free(graph->parameters[i].owned);
    free(graph->parameters);
    free(graph->nodes);
    free(graph->outputs);
    free(graph->node_names.keys);
    free(graph->node_names.values);
    free(graph->parameter_names.keys);
    free(graph->parameter_names.values);
    lk_arena_free(&graph->arena);
    free(graph);
}

lk_status lk_graph_check(const lk_graph *graph)
{
    return graph->status == LK_OK ? LK_OK : lk_fail(graph->status, "%s", graph->message);
}

lk_node lk_graph_mistake(lk_graph *graph, lk_status status, const char *format, ...)
{
    if (graph->status != LK_OK) return LK_NO_NODE;
    va_list args;
    va_start(args, format);
    vsnprintf(graph->message, sizeof graph->message, format, args);
    va_end(args);
    graph->message[lk_utf8_fit(graph->message, sizeof graph->message - 1)] = 0;
    graph->status = status;
    return LK_NO_NODE;
}

bool lk_graph_usable(lk_graph *graph, const lk_node *inputs, int count)
{
    if (graph->status != LK_OK) return false;
    for (int i = 0; i < count; i++) {
        if (inputs[i] >= 0 && (size_t)inputs[i] < graph->node_count) continue;
        lk_graph_mistake(graph, LK_INVALID, "a node was given as an input that is none of the graph's");
        return false;
    }
    return true;
}

lk_node lk_graph_put(lk_graph *graph, const char *name, lk_node_data data, const lk_node *inputs, int count)
{
    if (graph->status != LK_OK) return LK_NO_NODE;
    char own[64];
    if (!name) {
        snprintf(own, sizeof own, "%s_%zu", op_names[data.op], graph->node_count);
        name = own;
    }
    if (name_find(&graph->node_names, name) >= 0)
        return lk_graph_mistake(graph, LK_CONFLICT, "two nodes are named %s", name);
    for (int i = 0; i < data.shape.rank; i++)
        if (data.shape.dims[i] < 1 && !(i == 0 && data.shape.dims[0] == LK_BATCH))
            return lk_graph_mistake(graph, LK_INVALID, "%s: would give an empty tensor %s", name,
                                    lk_shape_text(&data.shape));
    data.name = lk_arena_strdup(&graph->arena, name);
    lk_node *list = lk_arena_alloc(&graph->arena, sizeof *list * (size_t)(count ? count : 1));
    if (!data.name || !list ||
        !lk_grow((void **)&graph->nodes, &graph->node_capacity, graph->node_count + 1, sizeof *graph->nodes) ||
        !name_put(&graph->node_names, data.name, (int64_t)graph->node_count))
        return lk_graph_mistake(graph, LK_NO_MEMORY, "out of memory (graph)");
    for (int i = 0; i < count; i++) list[i] = inputs[i];
    data.inputs = list;
    data.input_count = count;
    graph->nodes[graph->node_count] = data;
    return (lk_node)graph->node_count++;
}

int64_t lk_graph_need(lk_graph *graph, const char *prefix, const char *suffix, int rank, const int64_t *dims,
                      float init, float deviation)
{
    if (graph->status != LK_OK) return -1;
    size_t size = strlen(prefix) + strlen(suffix) + 1;
    char *name = lk_arena_alloc(&graph->arena, size);
    if (!name) return lk_graph_mistake(graph, LK_NO_MEMORY, "out of memory (graph)");
    snprintf(name, size, "%s%s", prefix, suffix);
    lk_parameter_data p = {.name = name, .shape = {.rank = rank}, .elements = 1, .init = init, .deviation = deviation};
    for (int i = 0; i < rank; i++) {
        p.shape.dims[i] = dims[i];
        if (dims[i] < 1)
            return lk_graph_mistake(graph, LK_INVALID, "parameter %s would be empty: %s", name,
                                    lk_shape_text(&p.shape));
        p.elements *= (size_t)dims[i];
    }
    int64_t known = name_find(&graph->parameter_names, name);
    if (known >= 0) {
        const lk_shape *shape = &graph->parameters[known].shape;
        if (shape->rank != rank || memcmp(shape->dims, p.shape.dims, sizeof *dims * (size_t)rank) != 0)
            return lk_graph_mistake(graph, LK_CONFLICT, "parameter %s is used as %s and as %s", name,
                                    lk_shape_text(shape), lk_shape_text(&p.shape));
        return known;
    }
    if (!lk_grow((void **)&graph->parameters, &graph->parameter_capacity, graph->parameter_count + 1,
                 sizeof *graph->parameters) ||
        !name_put(&graph->parameter_names, name, (int64_t)graph->parameter_count))
        return lk_graph_mistake(graph, LK_NO_MEMORY, "out of memory (graph)");
    graph->parameters[graph->parameter_count] = p;
    return (int64_t)graph->parameter_count++;
}

void lk_graph_output(lk_graph *graph, lk_node node)
{
    if (!lk_graph_usable(graph, &node, 1)) return;
    if (!lk_shape_batched(&lk_at(graph, node)->shape)) {
        lk_graph_mistake(graph, LK_INVALID, "%s: %s has no batch dimension and cannot be an output",
                         lk_at(graph, node)->name, lk_shape_text(&lk_at(graph, node)->shape));
        return;
    }
    if (graph->output_count == LK_MAX_OUTPUTS) {
        lk_graph_mistake(graph, LK_LIMIT, "%s: a graph has at most %d outputs", lk_at(graph, node)->name,
                         LK_MAX_OUTPUTS);
        return;
    }
    if (!lk_grow((void **)&graph->outputs, &graph->output_capacity, graph->output_count + 1, sizeof *graph->outputs)) {
        lk_graph_mistake(graph, LK_NO_MEMORY, "out of memory (graph)");
        return;
    }
    graph->outputs[graph->output_count++] = node;
}

int lk_graph_node_count(const lk_graph *graph)
{
    return (int)graph->node_count;
}

lk_node lk_graph_find(const lk_graph *graph, const char *name)
{
    return (lk_node)name_find(&graph->node_names, name);
}

const char *lk_graph_node_name(const lk_graph *graph, lk_node node)
{
    return node >= 0 && (size_t)node < graph->node_count ? lk_at(graph, node)->name : NULL;
}

lk_shape lk_graph_shape(const lk_graph *graph, lk_node node)
{
    return node >= 0 && (size_t)node < graph->node_count ? lk_at(graph, node)->shape : (lk_shape){0};
}

int lk_graph_output_count(const lk_graph *graph)
{
    return (int)graph->output_count;
}

lk_node lk_graph_output_at(const lk_graph *graph, int index)
{
    return index >= 0 && (size_t)index < graph->output_count ? graph->outputs[index] : LK_NO_NODE;
}

size_t lk_graph_parameter_count(const lk_graph *graph)
{
    return graph->parameter_count;
}

lk_parameter lk_graph_parameter_at(const lk_graph *graph, size_t index)
{
    const lk_parameter_data *p = &graph->parameters[index];
    return (lk_parameter){p->name, p->shape, p->buffer, p->values != NULL, p->elements};
}

int64_t lk_graph_parameter_index(const lk_graph *graph, const char *name)
{
    return name_find(&graph->parameter_names, name);
}
