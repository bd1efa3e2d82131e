/* Makes nodes that go element by element or only move values. Shapes are inferred and checked here. */
#include "nn/graph.h"

#include <inttypes.h>
#include <string.h>

static const char *shown(const char *name, lk_op op)
{
    return name ? name : lk_op_name(op);
}

/* A node with one input whose shape it keeps. */
static lk_node same_shape(lk_graph *graph, const char *name, lk_node x, lk_node_data data)
{
    if (!lk_graph_usable(graph, &x, 1)) return LK_NO_NODE;
    data.shape = lk_at(graph, x)->shape;
    for (int i = 0; i < LK_MAX_PARAMETERS; i++) data.parameters[i] = -1;
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_softmax(lk_graph *graph, const char *name, lk_node x)
{
    return same_shape(graph, name, x, (lk_node_data){.op = LK_OP_SOFTMAX});
}

lk_node lk_graph_activation(lk_graph *graph, const char *name, lk_node x, lk_activation kind)
{
    return same_shape(graph, name, x, (lk_node_data){.op = LK_OP_ACTIVATION, .u.activation = kind});
}

lk_node lk_graph_l2_normalise(lk_graph *graph, const char *name, lk_node x, float eps)
{
    return same_shape(graph, name, x, (lk_node_data){.op = LK_OP_L2_NORMALISE, .eps = eps});
}

lk_node lk_graph_scale_by(lk_graph *graph, const char *name, lk_node x, float factor)
{
    return same_shape(graph, name, x, (lk_node_data){.op = LK_OP_SCALE_BY, .factor = factor});
}

static lk_node drop(lk_graph *graph, const char *name, lk_node x, lk_op op, float p)
{
    if (!(p >= 0 && p < 1))
        return lk_graph_mistake(graph, LK_INVALID, "%s: a probability of %g is not in [0, 1)", shown(name, op),
                                (double)p);
    return same_shape(graph, name, x, (lk_node_data){.op = op, .factor = p});
}

lk_node lk_graph_dropout(lk_graph *graph, const char *name, lk_node x, float p)
{
    return drop(graph, name, x, LK_OP_DROPOUT, p);
}

lk_node lk_graph_drop_path(lk_graph *graph, const char *name, lk_node x, float p)
{
    return drop(graph, name, x, LK_OP_DROP_PATH, p);
}

lk_node lk_graph_scale(lk_graph *graph, const char *name, lk_node x, const char *parameter)
{
    if (!lk_graph_usable(graph, &x, 1)) return LK_NO_NODE;
    lk_node_data data = {.op = LK_OP_SCALE, .shape = lk_at(graph, x)->shape, .parameters = {-1, -1, -1, -1}};
    data.parameters[0] =
        lk_graph_need(graph, parameter, "", 1, &data.shape.dims[data.shape.rank == 4 ? 1 : data.shape.rank - 1], 1, 0);
    return lk_graph_put(graph, name, data, &x, 1);
}

static lk_node binary(lk_graph *graph, const char *name, lk_op op, lk_node a, lk_node b)
{
    lk_node inputs[] = {a, b};
    if (!lk_graph_usable(graph, inputs, 2)) return LK_NO_NODE;
    lk_shape as = lk_at(graph, a)->shape, bs = lk_at(graph, b)->shape;
    lk_node_data data = {.op = op, .parameters = {-1, -1, -1, -1}};
    /* Lines up what has fewer dimensions: a gate [N, C] with the channels, a parameter at the end. */
    lk_shape *shorter = as.rank < bs.rank ? &as : &bs;
    const lk_shape *longer = as.rank < bs.rank ? &bs : &as;
    if (shorter->rank == 2 && longer->rank == 4 && lk_shape_batched(shorter)) {
        shorter->rank = 4;
        shorter->dims[2] = shorter->dims[3] = 1;
    } else if (shorter->rank < longer->rank && !lk_shape_batched(shorter)) {
        int shift = longer->rank - shorter->rank;
        memmove(shorter->dims + shift, shorter->dims, sizeof *shorter->dims * (size_t)shorter->rank);
        for (int i = 0; i < shift; i++) shorter->dims[i] = 1;
        shorter->rank = longer->rank;
    }
    bool fits = as.rank == bs.rank;
    data.shape = as;
    for (int i = 0; fits && i < as.rank; i++) {
        fits = as.dims[i] == bs.dims[i] || as.dims[i] == 1 || bs.dims[i] == 1;
        if (as.dims[i] == 1) data.shape.dims[i] = bs.dims[i];
    }
    if (!fits)
        return lk_graph_mistake(graph, LK_INVALID, "%s: %s %s and %s %s do not broadcast", shown(name, op),
                                lk_at(graph, a)->name, lk_shape_text(&lk_at(graph, a)->shape), lk_at(graph, b)->name,
                                lk_shape_text(&lk_at(graph, b)->shape));
    return lk_graph_put(graph, name, data, inputs, 2);
}

lk_node lk_graph_add(lk_graph *graph, const char *name, lk_node a, lk_node b)
{
    return binary(graph, name, LK_OP_ADD, a, b);
}

lk_node lk_graph_multiply(lk_graph *graph, const char *name, lk_node a, lk_node b)
{
    return binary(graph, name, LK_OP_MULTIPLY, a, b);
}

lk_node lk_graph_concat(lk_graph *graph, const char *name, const lk_node *nodes, int count, int axis)
{
    if (!lk_graph_usable(graph, nodes, count)) return LK_NO_NODE;
    lk_node_data data = {.op = LK_OP_CONCAT, .parameters = {-1, -1, -1, -1}, .u.part.axis = axis};
    if (count < 1) return lk_graph_mistake(graph, LK_INVALID, "%s: nothing to concatenate", shown(name, data.op));
    data.shape = lk_at(graph, nodes[0])->shape;
    if (axis < 1 || axis >= data.shape.rank)
        return lk_graph_mistake(graph, LK_INVALID, "%s: no axis %d in %s", shown(name, data.op), axis,
                                lk_shape_text(&data.shape));
    for (int n = 1; n < count; n++) {
        const lk_shape *shape = &lk_at(graph, nodes[n])->shape;
        bool fits = shape->rank == data.shape.rank;
        for (int i = 1; fits && i < shape->rank; i++) fits = i == axis || shape->dims[i] == data.shape.dims[i];
        /* a parameter of one row is repeated over the batch */
        if (fits && shape->dims[0] != data.shape.dims[0]) {
            fits = shape->dims[0] == 1 || data.shape.dims[0] == 1;
            if (shape->dims[0] == LK_BATCH) data.shape.dims[0] = LK_BATCH;
        }
        if (!fits)
            return lk_graph_mistake(graph, LK_INVALID, "%s: %s %s does not fit beside %s", shown(name, data.op),
                                    lk_at(graph, nodes[n])->name, lk_shape_text(shape), lk_shape_text(&data.shape));
        data.shape.dims[axis] += shape->dims[axis];
    }
    return lk_graph_put(graph, name, data, nodes, count);
}

lk_node lk_graph_slice(lk_graph *graph, const char *name, lk_node x, int axis, int64_t begin, int64_t end)
{
    if (!lk_graph_usable(graph, &x, 1)) return LK_NO_NODE;
    lk_node_data data = {.op = LK_OP_SLICE,
                         .shape = lk_at(graph, x)->shape,
                         .parameters = {-1, -1, -1, -1},
                         .u.part = {axis, begin, end}};
    if (axis < 1 || axis >= data.shape.rank || begin < 0 || end <= begin || end > data.shape.dims[axis])
        return lk_graph_mistake(graph, LK_INVALID, "%s: %s %s has no part %" PRId64 "..%" PRId64 " along axis %d",
                                shown(name, data.op), lk_at(graph, x)->name, lk_shape_text(&data.shape), begin, end,
                                axis);
    data.shape.dims[axis] = end - begin;
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_reshape(lk_graph *graph, const char *name, lk_node x, int rank, const int64_t *dims)
{
    if (!lk_graph_usable(graph, &x, 1)) return LK_NO_NODE;
    const lk_shape *from = &lk_at(graph, x)->shape;
    lk_node_data data = {.op = LK_OP_RESHAPE, .shape = {.rank = rank}, .parameters = {-1, -1, -1, -1}};
    if (rank < 1 || rank > LK_MAX_DIMS || dims[0] != from->dims[0])
        return lk_graph_mistake(graph, LK_INVALID, "%s: the first dimension of %s must stay", shown(name, data.op),
                                lk_shape_text(from));
    int64_t row = 1, rest = -1;
    data.shape.dims[0] = dims[0];
    for (int i = 1; i < rank; i++) {
        data.shape.dims[i] = dims[i];
        if (dims[i] == 0)
            rest = i;
        else
            row *= dims[i];
    }
    int64_t have = (int64_t)lk_shape_row(from) / (lk_shape_batched(from) ? 1 : from->dims[0]);
    if (rest > 0 && row > 0 && have % row == 0) {
        data.shape.dims[rest] = have / row;
        row = have;
    }
    if (row != have)
        return lk_graph_mistake(graph, LK_INVALID, "%s: %s %s cannot become %s", shown(name, data.op),
                                lk_at(graph, x)->name, lk_shape_text(from), lk_shape_text(&data.shape));
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_transpose(lk_graph *graph, const char *name, lk_node x, const int *order)
{
    if (!lk_graph_usable(graph, &x, 1)) return LK_NO_NODE;
    const lk_shape *from = &lk_at(graph, x)->shape;
    lk_node_data data = {.op = LK_OP_TRANSPOSE, .shape = {.rank = from->rank}, .parameters = {-1, -1, -1, -1}};
    unsigned seen = 0;
    for (int i = 0; i < from->rank; i++) {
        if (order[i] < 0 || order[i] >= from->rank || (i == 0 && order[i] != 0) || (seen >> order[i] & 1))
            return lk_graph_mistake(graph, LK_INVALID, "%s: not an order of the dimensions of %s with the batch first",
                                    shown(name, data.op), lk_shape_text(from));
        seen |= 1u << order[i];
        data.u.order[i] = order[i];
        data.shape.dims[i] = from->dims[order[i]];
    }
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_tokens(lk_graph *graph, const char *name, lk_node x)
{
    if (!lk_graph_usable(graph, &x, 1)) return LK_NO_NODE;
    const lk_shape *from = &lk_at(graph, x)->shape;
    if (from->rank != 4)
        return lk_graph_mistake(graph, LK_INVALID, "%s: tokens wants pictures [N, C, H, W], not %s %s",
                                shown(name, LK_OP_TOKENS), lk_at(graph, x)->name, lk_shape_text(from));
    lk_node_data data = {.op = LK_OP_TOKENS,
                         .shape = {3, {from->dims[0], from->dims[2] * from->dims[3], from->dims[1]}},
                         .parameters = {-1, -1, -1, -1}};
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_interpolate_positions(lk_graph *graph, const char *name, lk_node positions, const lk_positions *how)
{
    if (!lk_graph_usable(graph, &positions, 1)) return LK_NO_NODE;
    const lk_node_data *from = lk_at(graph, positions);
    lk_node_data data = {
        .op = LK_OP_POSITIONS, .shape = from->shape, .parameters = {-1, -1, -1, -1}, .u.positions = *how};
    bool sane = how->prefix >= 0;
    for (int i = 0; i < 2; i++) sane = sane && how->from[i] > 0 && how->to[i] > 0;
    if (!sane || from->op != LK_OP_PARAMETER || from->shape.rank != 3 || from->shape.dims[0] != 1 ||
        from->shape.dims[1] != how->prefix + how->from[0] * how->from[1])
        return lk_graph_mistake(
            graph, LK_INVALID, "%s: %s %s is not an embedding of %" PRId64 " + %" PRId64 " x %" PRId64 " positions",
            shown(name, data.op), from->name, lk_shape_text(&from->shape), how->prefix, how->from[0], how->from[1]);
    data.shape.dims[1] = how->prefix + how->to[0] * how->to[1];
    return lk_graph_put(graph, name, data, &positions, 1);
}
