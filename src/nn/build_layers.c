/* Makes nodes that compute: shapes are inferred and checked here, so that nothing later meets sizes that do not fit. */
#include "nn/graph.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define USABLE(...)                                                                                                    \
    do {                                                                                                               \
        const lk_node used_[] = {__VA_ARGS__};                                                                         \
        if (!lk_graph_usable(graph, used_, (int)(sizeof used_ / sizeof *used_))) return LK_NO_NODE;                    \
    } while (0)

static const char *shown(const char *name, lk_op op)
{
    return name ? name : lk_op_name(op);
}

/* Wants a node of this rank with a batch. */
static bool wants(lk_graph *graph, const char *name, lk_op op, lk_node x, int rank)
{
    const lk_shape *shape = &lk_at(graph, x)->shape;
    if (shape->rank == rank && lk_shape_batched(shape)) return true;
    lk_graph_mistake(graph, LK_INVALID, "%s: %s wants %s, not %s %s", shown(name, op), lk_op_name(op),
                     rank == 4 ? "pictures [N, C, H, W]" : "tokens [N, T, C]", lk_at(graph, x)->name,
                     lk_shape_text(shape));
    return false;
}

static bool parameters(lk_graph *graph, lk_node_data *data, const char *name)
{
    if (name) return true;
    lk_graph_mistake(graph, LK_INVALID, "%s needs a name for its parameters", lk_op_name(data->op));
    return false;
}

lk_node lk_graph_input(lk_graph *graph, const char *name, lk_type type, int rank, const int64_t *dims)
{
    if (graph->status != LK_OK) return LK_NO_NODE;
    lk_node_data data = {.op = LK_OP_INPUT, .type = type, .shape = {.rank = rank}, .parameters = {-1, -1, -1, -1}};
    if ((type != LK_TYPE_F32 && type != LK_TYPE_I32) || rank < 2 || rank > LK_MAX_DIMS || dims[0] != LK_BATCH)
        return lk_graph_mistake(graph, LK_INVALID, "input %s: must be f32 or i32 with the batch first",
                                name ? name : "");
    memcpy(data.shape.dims, dims, sizeof *dims * (size_t)rank);
    lk_node node = lk_graph_put(graph, name, data, NULL, 0);
    if (node < 0) return node;
    if (graph->input_count == LK_MAX_INPUTS)
        return lk_graph_mistake(graph, LK_LIMIT, "%s: a graph has at most %d inputs", lk_at(graph, node)->name,
                                LK_MAX_INPUTS);
    graph->inputs[graph->input_count++] = node;
    return node;
}

lk_node lk_graph_parameter(lk_graph *graph, const char *name, int rank, const int64_t *dims)
{
    if (graph->status != LK_OK) return LK_NO_NODE;
    if (rank < 1 || rank > LK_MAX_DIMS) return lk_graph_mistake(graph, LK_INVALID, "parameter %s: rank %d", name, rank);
    int64_t index = lk_graph_need(graph, name, "", rank, dims, 0, rank > 1 ? 0.02f : 0);
    if (index < 0) return LK_NO_NODE;
    lk_node known = lk_graph_find(graph, name);
    if (known >= 0 && lk_at(graph, known)->op == LK_OP_PARAMETER) return known;
    lk_node_data data = {
        .op = LK_OP_PARAMETER, .shape = graph->parameters[index].shape, .parameters = {index, -1, -1, -1}};
    return lk_graph_put(graph, name, data, NULL, 0);
}

static int64_t one_if_0(int64_t n)
{
    return n ? n : 1;
}

/* Outputs along one dimension, 0 when the window does not fit. */
static int64_t windows(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad0, int64_t pad1,
                       bool ceil)
{
    int64_t span = dilation * (kernel - 1) + 1, room = in + pad0 + pad1 - span;
    if (room < 0) return 0;
    int64_t n = room / stride + 1;
    /* As PyTorch: a further window counts when it begins inside the picture or its leading padding. */
    if (ceil && room % stride && n * stride < in + pad0) n++;
    return n;
}

lk_node lk_graph_conv(lk_graph *graph, const char *name, lk_node x, const lk_conv *conv)
{
    USABLE(x);
    lk_node_data data = {.op = LK_OP_CONV, .shape = lk_at(graph, x)->shape, .parameters = {-1, -1, -1, -1}};
    if (!parameters(graph, &data, name) || !wants(graph, name, data.op, x, 4)) return LK_NO_NODE;
    lk_conv c = *conv;
    c.groups = one_if_0(c.groups);
    int64_t *dims = data.shape.dims, in = dims[1];
    bool sane = c.out > 0 && c.groups > 0;
    for (int i = 0; i < 2; i++) {
        c.stride[i] = one_if_0(c.stride[i]);
        c.dilation[i] = one_if_0(c.dilation[i]);
        sane = sane && c.kernel[i] > 0 && c.stride[i] > 0 && c.dilation[i] > 0 && c.pad[i] >= 0 && c.pad[i + 2] >= 0;
    }
    if (!sane) return lk_graph_mistake(graph, LK_INVALID, "%s: sizes of a convolution must be positive", name);
    if (in % c.groups || c.out % c.groups)
        return lk_graph_mistake(graph, LK_INVALID,
                                "%s: %" PRId64 " channels of %s and %" PRId64 " outputs do not split into %" PRId64
                                " groups",
                                name, in, lk_at(graph, x)->name, c.out, c.groups);
    dims[1] = c.out;
    for (int i = 0; i < 2; i++) {
        int64_t n = windows(dims[2 + i], c.kernel[i], c.stride[i], c.dilation[i], c.pad[i], c.pad[2 + i], false);
        if (!n)
            return lk_graph_mistake(
                graph, LK_INVALID, "%s: a kernel of %" PRId64 " (dilated %" PRId64 ") does not fit into %s %s", name,
                c.kernel[i], c.dilation[i], lk_at(graph, x)->name, lk_shape_text(&lk_at(graph, x)->shape));
        dims[2 + i] = n;
    }
    data.u.conv = c;
    /* He et al., 2015, over the outputs, as timm starts EfficientNet, and with torchvision residual networks. */
    float he = sqrtf(2.0f * (float)c.groups / (float)(c.out * c.kernel[0] * c.kernel[1]));
    float deviation = c.deviation > 0 ? c.deviation : he;
    data.parameters[0] = lk_graph_need(graph, name, ".weight", 4,
                                       (int64_t[]){c.out, in / c.groups, c.kernel[0], c.kernel[1]}, 0, deviation);
    if (!c.no_bias) data.parameters[1] = lk_graph_need(graph, name, ".bias", 1, &c.out, 0, 0);
    return lk_graph_put(graph, name, data, &x, 1);
}

void lk_graph_same_padding(const lk_graph *graph, lk_node x, lk_conv *conv)
{
    lk_shape shape = lk_graph_shape(graph, x);
    if (shape.rank != 4) return; /* lk_graph_conv says so */
    for (int i = 0; i < 2; i++) {
        int64_t stride = one_if_0(conv->stride[i]), in = shape.dims[2 + i];
        int64_t total =
            ((in + stride - 1) / stride - 1) * stride + (conv->kernel[i] - 1) * one_if_0(conv->dilation[i]) + 1 - in;
        if (total < 0) total = 0;
        conv->pad[i] = total / 2;
        conv->pad[2 + i] = total - total / 2;
    }
}

lk_node lk_graph_batch_norm(lk_graph *graph, const char *name, lk_node x, float eps, float momentum)
{
    USABLE(x);
    lk_node_data data = {.op = LK_OP_BATCH_NORM, .shape = lk_at(graph, x)->shape, .eps = eps, .momentum = momentum};
    if (!parameters(graph, &data, name)) return LK_NO_NODE;
    if (!lk_shape_batched(&data.shape) || (data.shape.rank != 4 && data.shape.rank != 2))
        return lk_graph_mistake(graph, LK_INVALID, "%s: batch_norm wants [N, C, H, W] or [N, C], not %s %s", name,
                                lk_at(graph, x)->name, lk_shape_text(&data.shape));
    static const char *const suffix[] = {".weight", ".bias", ".running_mean", ".running_var"};
    for (int i = 0; i < 4; i++) {
        data.parameters[i] = lk_graph_need(graph, name, suffix[i], 1, &data.shape.dims[1], i == 0 || i == 3, 0);
        if (i >= 2 && data.parameters[i] >= 0) graph->parameters[data.parameters[i]].buffer = true;
    }
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_layer_norm(lk_graph *graph, const char *name, lk_node x, float eps)
{
    USABLE(x);
    lk_node_data data = {
        .op = LK_OP_LAYER_NORM, .shape = lk_at(graph, x)->shape, .eps = eps, .parameters = {-1, -1, -1, -1}};
    if (!parameters(graph, &data, name)) return LK_NO_NODE;
    const int64_t *width = &data.shape.dims[data.shape.rank == 4 ? 1 : data.shape.rank - 1];
    data.parameters[0] = lk_graph_need(graph, name, ".weight", 1, width, 1, 0);
    data.parameters[1] = lk_graph_need(graph, name, ".bias", 1, width, 0, 0);
    return lk_graph_put(graph, name, data, &x, 1);
}

static lk_node put_linear(lk_graph *graph, const char *name, lk_node x, int64_t out, int64_t weight, int64_t bias)
{
    lk_node_data data = {.op = LK_OP_LINEAR, .shape = lk_at(graph, x)->shape, .parameters = {weight, bias, -1, -1}};
    if (weight < 0) return LK_NO_NODE;
    data.shape.dims[data.shape.rank - 1] = out;
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_linear(lk_graph *graph, const char *name, lk_node x, int64_t out, bool no_bias)
{
    USABLE(x);
    if (!name) return lk_graph_mistake(graph, LK_INVALID, "linear needs a name for its parameters");
    const lk_shape *shape = &lk_at(graph, x)->shape;
    if (shape->rank < 2 || shape->rank == 4)
        return lk_graph_mistake(graph, LK_INVALID, "%s: linear wants [N, C] or [N, T, C], not %s %s", name,
                                lk_at(graph, x)->name, lk_shape_text(shape));
    int64_t dims[2] = {out, shape->dims[shape->rank - 1]};
    int64_t weight = lk_graph_need(graph, name, ".weight", 2, dims, 0, 0.02f);
    int64_t bias = no_bias ? -1 : lk_graph_need(graph, name, ".bias", 1, &out, 0, 0);
    return put_linear(graph, name, x, out, weight, bias);
}

lk_node lk_graph_linear_with(lk_graph *graph, const char *name, lk_node x, lk_node weight, lk_node bias)
{
    USABLE(x, weight);
    if (bias >= 0) USABLE(bias);
    const lk_node_data *xs = lk_at(graph, x), *w = lk_at(graph, weight), *b = bias >= 0 ? lk_at(graph, bias) : NULL;
    if (w->op != LK_OP_PARAMETER || (b && b->op != LK_OP_PARAMETER))
        return lk_graph_mistake(graph, LK_INVALID, "%s: weight and bias must be parameters", shown(name, LK_OP_LINEAR));
    if (w->shape.rank != 2 || xs->shape.rank < 2 || xs->shape.rank == 4 ||
        xs->shape.dims[xs->shape.rank - 1] != w->shape.dims[1])
        return lk_graph_mistake(graph, LK_INVALID, "%s: weight %s %s does not fit %s %s", shown(name, LK_OP_LINEAR),
                                w->name, lk_shape_text(&w->shape), xs->name, lk_shape_text(&xs->shape));
    if (b && (b->shape.rank != 1 || b->shape.dims[0] != w->shape.dims[0]))
        return lk_graph_mistake(graph, LK_INVALID, "%s: bias %s %s does not fit weight %s", shown(name, LK_OP_LINEAR),
                                b->name, lk_shape_text(&b->shape), lk_shape_text(&w->shape));
    return put_linear(graph, name, x, w->shape.dims[0], w->parameters[0], b ? b->parameters[0] : -1);
}

lk_node lk_graph_matmul(lk_graph *graph, const char *name, lk_node a, lk_node b, bool transpose_b)
{
    USABLE(a, b);
    const lk_shape *as = &lk_at(graph, a)->shape, *bs = &lk_at(graph, b)->shape;
    lk_node_data data = {
        .op = LK_OP_MATMUL, .shape = *as, .parameters = {-1, -1, -1, -1}, .u.transpose_b = transpose_b};
    bool shared = lk_at(graph, b)->op == LK_OP_PARAMETER && bs->rank == 2;
    bool fits =
        as->rank >= 2 && lk_shape_batched(as) && bs->rank >= 2 && (shared || (bs->rank == as->rank && as->rank >= 3));
    for (int i = 0; fits && !shared && i < as->rank - 2; i++) fits = as->dims[i] == bs->dims[i];
    if (fits) fits = as->dims[as->rank - 1] == bs->dims[transpose_b ? bs->rank - 1 : bs->rank - 2];
    if (!fits)
        return lk_graph_mistake(graph, LK_INVALID, "%s: %s %s and %s %s do not multiply", shown(name, data.op),
                                lk_at(graph, a)->name, lk_shape_text(as), lk_at(graph, b)->name, lk_shape_text(bs));
    data.shape.dims[as->rank - 1] = bs->dims[transpose_b ? bs->rank - 2 : bs->rank - 1];
    lk_node inputs[] = {a, b};
    return lk_graph_put(graph, name, data, inputs, 2);
}

static lk_node put_attention(lk_graph *graph, const char *name, const lk_node *inputs, int count, int64_t width,
                             lk_shape shape, const lk_attention *attention)
{
    lk_node_data data = {
        .op = LK_OP_ATTENTION, .shape = shape, .parameters = {-1, -1, -1, -1}, .u.attention = *attention};
    if (attention->heads < 1 || width % attention->heads)
        return lk_graph_mistake(graph, LK_INVALID, "%s: a width of %" PRId64 " does not split into %" PRId64 " heads",
                                shown(name, data.op), width, attention->heads);
    if (!(attention->scale > 0)) data.u.attention.scale = 1.0f / sqrtf((float)(width / attention->heads));
    data.shape.dims[0] = LK_BATCH;
    data.shape.dims[2] = width;
    return lk_graph_put(graph, name, data, inputs, count);
}

lk_node lk_graph_attention(lk_graph *graph, const char *name, lk_node q, lk_node k, lk_node v,
                           const lk_attention *attention)
{
    USABLE(q, k, v);
    if (!wants(graph, name, LK_OP_ATTENTION, k, 3) || !wants(graph, name, LK_OP_ATTENTION, v, 3)) return LK_NO_NODE;
    const lk_shape *qs = &lk_at(graph, q)->shape, *ks = &lk_at(graph, k)->shape, *vs = &lk_at(graph, v)->shape;
    if (qs->rank != 3 || (!lk_shape_batched(qs) && qs->dims[0] != 1) || qs->dims[2] != ks->dims[2] ||
        ks->dims[2] != vs->dims[2] || ks->dims[1] != vs->dims[1] || (attention->causal && qs->dims[1] != ks->dims[1]))
        return lk_graph_mistake(graph, LK_INVALID, "%s: q %s, k %s and v %s do not fit", shown(name, LK_OP_ATTENTION),
                                lk_shape_text(qs), lk_shape_text(ks), lk_shape_text(vs));
    lk_node inputs[] = {q, k, v};
    return put_attention(graph, name, inputs, 3, ks->dims[2], *qs, attention);
}

lk_node lk_graph_attention_qkv(lk_graph *graph, const char *name, lk_node qkv, const lk_attention *attention)
{
    USABLE(qkv);
    if (!wants(graph, name, LK_OP_ATTENTION, qkv, 3)) return LK_NO_NODE;
    const lk_shape *shape = &lk_at(graph, qkv)->shape;
    if (shape->dims[2] % 3)
        return lk_graph_mistake(graph, LK_INVALID, "%s: the width of %s is not three times anything",
                                shown(name, LK_OP_ATTENTION), lk_shape_text(shape));
    return put_attention(graph, name, &qkv, 1, shape->dims[2] / 3, *shape, attention);
}

static lk_node pool(lk_graph *graph, const char *name, lk_op op, lk_node x, const lk_pool2d *pool)
{
    USABLE(x);
    if (!wants(graph, name, op, x, 4)) return LK_NO_NODE;
    lk_node_data data = {.op = op, .shape = lk_at(graph, x)->shape, .parameters = {-1, -1, -1, -1}, .u.pool = *pool};
    lk_pool2d *p = &data.u.pool;
    for (int i = 0; i < 2; i++) {
        if (!p->stride[i]) p->stride[i] = p->kernel[i];
        if (p->kernel[i] < 1 || p->stride[i] < 1 || p->pad[i] < 0 || p->pad[i + 2] < 0 ||
            p->pad[i] * 2 > p->kernel[i] || p->pad[i + 2] >= p->kernel[i])
            return lk_graph_mistake(graph, LK_INVALID, "%s: sizes of the pooling make no sense", shown(name, op));
        int64_t in = data.shape.dims[2 + i];
        data.shape.dims[2 + i] = windows(in, p->kernel[i], p->stride[i], 1, p->pad[i], p->pad[2 + i], p->ceil_mode);
        if (!data.shape.dims[2 + i])
            return lk_graph_mistake(graph, LK_INVALID, "%s: windows of %" PRId64 " do not fit into %s %s",
                                    shown(name, op), p->kernel[i], lk_at(graph, x)->name,
                                    lk_shape_text(&lk_at(graph, x)->shape));
    }
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_max_pool(lk_graph *graph, const char *name, lk_node x, const lk_pool2d *how)
{
    return pool(graph, name, LK_OP_MAX_POOL, x, how);
}

lk_node lk_graph_avg_pool(lk_graph *graph, const char *name, lk_node x, const lk_pool2d *how)
{
    return pool(graph, name, LK_OP_AVG_POOL, x, how);
}

static lk_node global(lk_graph *graph, const char *name, lk_op op, lk_node x)
{
    USABLE(x);
    if (!wants(graph, name, op, x, 4)) return LK_NO_NODE;
    lk_node_data data = {
        .op = op, .shape = {2, {LK_BATCH, lk_at(graph, x)->shape.dims[1]}}, .parameters = {-1, -1, -1, -1}};
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_global_avg_pool(lk_graph *graph, const char *name, lk_node x)
{
    return global(graph, name, LK_OP_GLOBAL_AVG, x);
}

lk_node lk_graph_global_max_pool(lk_graph *graph, const char *name, lk_node x)
{
    return global(graph, name, LK_OP_GLOBAL_MAX, x);
}

lk_node lk_graph_adaptive_avg_pool(lk_graph *graph, const char *name, lk_node x, int64_t height, int64_t width)
{
    USABLE(x);
    if (!wants(graph, name, LK_OP_ADAPTIVE_POOL, x, 4)) return LK_NO_NODE;
    lk_node_data data = {.op = LK_OP_ADAPTIVE_POOL, .shape = lk_at(graph, x)->shape, .parameters = {-1, -1, -1, -1}};
    data.shape.dims[2] = height;
    data.shape.dims[3] = width;
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_mean_tokens(lk_graph *graph, const char *name, lk_node x)
{
    USABLE(x);
    if (!wants(graph, name, LK_OP_MEAN_TOKENS, x, 3)) return LK_NO_NODE;
    lk_node_data data = {.op = LK_OP_MEAN_TOKENS,
                         .shape = {2, {LK_BATCH, lk_at(graph, x)->shape.dims[2]}},
                         .parameters = {-1, -1, -1, -1}};
    return lk_graph_put(graph, name, data, &x, 1);
}

lk_node lk_graph_embedding(lk_graph *graph, const char *name, lk_node ids, int64_t vocabulary, int64_t dim)
{
    USABLE(ids);
    const lk_node_data *from = lk_at(graph, ids);
    lk_node_data data = {
        .op = LK_OP_EMBEDDING, .shape = from->shape, .parameters = {-1, -1, -1, -1}, .vocabulary = vocabulary};
    if (!parameters(graph, &data, name)) return LK_NO_NODE;
    if (from->op != LK_OP_INPUT || from->type != LK_TYPE_I32 || from->shape.rank != 2)
        return lk_graph_mistake(graph, LK_INVALID, "%s: embedding wants an input of ids [N, T], not %s %s", name,
                                from->name, lk_shape_text(&from->shape));
    data.shape.rank = 3;
    data.shape.dims[2] = dim;
    data.parameters[0] = lk_graph_need(graph, name, ".weight", 2, (int64_t[]){vocabulary, dim}, 0, 0.02f);
    return lk_graph_put(graph, name, data, &ids, 1);
}

lk_node lk_graph_pick_token(lk_graph *graph, const char *name, lk_node x, lk_node ids, int32_t id)
{
    USABLE(x, ids);
    if (!wants(graph, name, LK_OP_PICK_TOKEN, x, 3)) return LK_NO_NODE;
    const lk_node_data *from = lk_at(graph, ids);
    const lk_shape *shape = &lk_at(graph, x)->shape;
    if (from->op != LK_OP_INPUT || from->type != LK_TYPE_I32 || from->shape.rank != 2 ||
        from->shape.dims[1] != shape->dims[1])
        return lk_graph_mistake(graph, LK_INVALID, "%s: %s %s are not the ids of %s %s", shown(name, LK_OP_PICK_TOKEN),
                                from->name, lk_shape_text(&from->shape), lk_at(graph, x)->name, lk_shape_text(shape));
    lk_node_data data = {.op = LK_OP_PICK_TOKEN,
                         .shape = {2, {LK_BATCH, shape->dims[2]}},
                         .parameters = {-1, -1, -1, -1},
                         .u.token = id};
    lk_node inputs[] = {x, ids};
    return lk_graph_put(graph, name, data, inputs, 2);
}
