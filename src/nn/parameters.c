/* The values of parameters: loaded, borrowed, or made at random. Always f32. */
#include "base/memory.h"
#include "base/random.h"
#include "nn/convert.h"
#include "nn/graph.h"

#include <stdlib.h>
#include <string.h>

static lk_status find(lk_graph *graph, const char *name, const lk_tensor *tensor, lk_parameter_data **out)
{
    int64_t index = lk_graph_parameter_index(graph, name);
    if (index < 0) return lk_fail(LK_NOT_FOUND, "the network has no parameter %s", name);
    lk_parameter_data *p = &graph->parameters[index];
    lk_shape given = {.rank = tensor->rank};
    memcpy(given.dims, tensor->dims, sizeof given.dims);
    if (given.rank != p->shape.rank || memcmp(given.dims, p->shape.dims, sizeof *given.dims * (size_t)given.rank) != 0)
        return lk_fail(LK_INVALID, "tensor %s is %s where %s is wanted", name, lk_shape_text(&given),
                       lk_shape_text(&p->shape));
    if (tensor->type != LK_TYPE_F32 && tensor->type != LK_TYPE_BF16 && tensor->type != LK_TYPE_F16 &&
        tensor->type != LK_TYPE_F64)
        return lk_fail(LK_UNSUPPORTED, "tensor %s is not of floating-point numbers", name);
    *out = p;
    return LK_OK;
}

/* NaN and infinity, told by their exponent: vectorises, unlike isfinite with a branch. */
/* Finite, and small enough that no sum of products overflows (see LK_LARGEST_BITS). */
static lk_status check_values(const char *name, const float *values, size_t n)
{
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, 4);
        bits &= 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    if (top >= 0x7f800000u) return lk_fail(LK_CORRUPT, "tensor %s has values that are not finite", name);
    if (top > LK_LARGEST_BITS) return lk_fail(LK_CORRUPT, "tensor %s has values above 1e16", name);
    return LK_OK;
}

static lk_status own(lk_parameter_data *p)
{
    if (p->owned) return LK_OK;
    p->owned = lk_alloc_aligned(p->elements, sizeof *p->owned);
    if (!p->owned) return lk_fail_memory("parameters");
    if (p->values) memcpy(p->owned, p->values, p->elements * sizeof *p->owned);
    return LK_OK;
}

lk_status lk_graph_load(lk_graph *graph, const char *name, const lk_tensor *tensor)
{
    lk_parameter_data *p = NULL;
    lk_status s = find(graph, name, tensor, &p);
    if (s == LK_OK) s = own(p);
    if (s != LK_OK) return s;
    lk_floats_from(tensor->type, tensor->data, p->elements, p->owned);
    s = check_values(name, p->owned, p->elements);
    p->values = s == LK_OK ? p->owned : NULL;
    return s;
}

lk_status lk_graph_load_borrowed(lk_graph *graph, const char *name, const lk_tensor *tensor)
{
    lk_parameter_data *p = NULL;
    lk_status s = find(graph, name, tensor, &p);
    if (s != LK_OK) return s;
    if (tensor->type != LK_TYPE_F32 || (uintptr_t)tensor->data % sizeof(float))
        return lk_graph_load(graph, name, tensor);
    s = check_values(name, tensor->data, p->elements);
    if (s != LK_OK) return s;
    free(p->owned);
    p->owned = NULL;
    p->values = tensor->data;
    return LK_OK;
}

lk_status lk_graph_check_loaded(const lk_graph *graph)
{
    for (size_t i = 0; i < graph->parameter_count; i++)
        if (!graph->parameters[i].values)
            return lk_fail(LK_NOT_FOUND, "tensor %s %s is missing", graph->parameters[i].name,
                           lk_shape_text(&graph->parameters[i].shape));
    return LK_OK;
}

const float *lk_graph_values(const lk_graph *graph, size_t index)
{
    return graph->parameters[index].values;
}

lk_status lk_graph_values_writable(lk_graph *graph, size_t index, float **values)
{
    lk_parameter_data *p = &graph->parameters[index];
    if (!p->values) return lk_fail(LK_INVALID, "parameter %s has no values yet", p->name);
    lk_status s = own(p);
    if (s != LK_OK) return s;
    p->values = *values = p->owned;
    return LK_OK;
}

lk_status lk_graph_initialise(lk_graph *graph, uint64_t seed)
{
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < graph->parameter_count; i++) {
        lk_parameter_data *p = &graph->parameters[i];
        /* Drawn for every parameter, loaded or not: loading one does not change the start of the others. */
        lk_random own_random;
        lk_random_seed(&own_random, lk_random_u64(&random));
        if (p->values) continue;
        lk_status s = own(p);
        if (s != LK_OK) return s;
        for (size_t k = 0; k < p->elements; k++)
            p->owned[k] = p->deviation > 0 ? (float)lk_random_normal(&own_random) * p->deviation : p->init;
        p->values = p->owned;
    }
    return LK_OK;
}
