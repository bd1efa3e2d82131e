/* Convolutions and products become oneDNN primitives with what follows them as post-operations. */
#include "base/memory.h"
#include "nn/executor.h"
#include "nn/fold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A primitive being put together. */
typedef struct product {
    lk_step *step;
    lk_node anchor;
    lk_fused group;
    lk_post posts[LK_MAX_POSTS];
    int post_count;
    int inputs[LK_MAX_INPUTS], input_count; /* values read */
    int output;
    bool int8, own; /* own: by kernels of our own */
    float in_scale;
    float unit;  /* codes come out: what 1 in the primitive is, so that it need not scale its result; 0 = numbers */
    float swish; /* factor of an x sigmoid(factor x) behind it that is not left to the primitive; 0 = none */
    /* What the pieces share: quantised weights, and vectors among the weights. */
    int8_t *codes;
    float *scales, *dst_scale, *bias;
    dnnl_memory_desc_t wanted; /* how the first piece wants the weights */
    void *packed;
    size_t packed_at;
} product;

static void product_free(product *p)
{
    free(p->codes);
    if (p->wanted) dnnl_memory_desc_destroy(p->wanted);
}

static lk_status new_step(lk_executor *e, product *p, const lk_node_data *node, int pieces)
{
    lk_status s = lk_dnn_open(&e->dnn); /* not before: a network may need none of it */
    if (s != LK_OK) return s;
    p->step = lk_executor_step(e, LK_STEP_DNN, node);
    if (p->step) p->step->dnn = lk_alloc_zero((size_t)pieces, sizeof *p->step->dnn);
    return p->step && p->step->dnn ? LK_OK : lk_fail_memory("plan");
}

static bool is_int(lk_type type)
{
    return type == LK_TYPE_I8 || type == LK_TYPE_U8;
}

/* oneDNN's primitives take twice as long over x sigmoid(x) as our kernel does. */
static float own_swish(const lk_executor *e, const product *p, lk_type type)
{
    const lk_node_data *last = p->group.chain_count == 1 ? lk_at(e->graph, p->group.chain[0]) : NULL;
    bool narrow = type == LK_TYPE_BF16 && (lk_cpu_detect() & LK_CPU_AVX512_BF16);
    if (!last || last->op != LK_OP_ACTIVATION || p->own || !(lk_cpu_detect() & LK_CPU_AVX512) ||
        !(narrow || type == LK_TYPE_F32))
        return 0;
    return last->u.activation == LK_SILU ? 1 : last->u.activation == LK_QUICK_GELU ? 1.702f : 0;
}

/* Sums and ReLU may as well be computed in units of the codes that come out, and what codes without a sign cut off is
 * what a ReLU would: two instructions less for every 16 results. */
static void use_units(product *p, const lk_view *dst)
{
    for (int i = 0; i < p->post_count; i++)
        if (p->posts[i].kind != LK_POST_SUM &&
            !(p->posts[i].kind == LK_POST_ACTIVATION && p->posts[i].activation == LK_RELU))
            return;
    p->unit = dst->scale;
    for (int i = 0; i < p->post_count; i++)
        if (p->posts[i].kind == LK_POST_SUM) p->posts[i].scale /= p->unit;
    bool last = p->post_count && p->posts[p->post_count - 1].kind == LK_POST_ACTIVATION;
    if (last && dst->type == LK_TYPE_U8) p->post_count--;
}

/* Makes the output value and the list of post-operations. `dst` is the value's view. */
static lk_status begin(lk_executor *e, product *p, lk_folded *f, lk_view dst)
{
    p->output = lk_executor_value(e, dst);
    if (p->output < 0) return lk_fail_memory("plan");
    p->swish = own_swish(e, p, dst.type);
    if (p->swish > 0 && !lk_fold_swish(f, p->swish)) return lk_fail_memory("weights");
    for (int i = 0; i < p->group.chain_count - (p->swish > 0); i++) {
        const lk_node_data *node = lk_at(e->graph, p->group.chain[i]);
        lk_post *post = &p->posts[p->post_count++];
        if (node->op == LK_OP_ACTIVATION) {
            *post = (lk_post){.kind = LK_POST_ACTIVATION, .activation = node->u.activation};
            continue;
        }
        int value;
        lk_node other = p->group.other[i];
        lk_status s = lk_executor_value_of(e, other, &value);
        if (s == LK_OK)
            s = lk_executor_want(e, value, dst.rank == 4 ? LK_LAYOUT_LAST : LK_LAYOUT_PLAIN, e->values[value].view.type,
                                 e->values[value].view.scale, &value);
        if (s != LK_OK) return s;
        lk_value *v = &e->values[value];
        bool same = v->view.type == dst.type || (is_int(v->view.type) && is_int(dst.type));
        if (same && lk_executor_may_overwrite(e, other, p->group.last)) {
            *post = (lk_post){.kind = LK_POST_SUM, .scale = is_int(v->view.type) ? v->view.scale : 1};
            e->values[p->output].same_as = v->same_as >= 0 ? v->same_as : value;
            /* codes of the other signedness are read as such */
            post->view = &v->view;
        } else {
            /* what is added from beside must be numbers: codes have a scale of their own */
            if (is_int(v->view.type)) s = lk_executor_want(e, value, LK_LAYOUT_ANY, lk_executor_type(e), 1, &value);
            if (s != LK_OK) return s;
            *post = (lk_post){.kind = LK_POST_ADD, .value = value, .view = &e->values[value].view};
        }
        p->inputs[p->input_count++] = value;
    }
    if (p->int8 && is_int(dst.type)) use_units(p, &dst);
    return LK_OK;
}

/* A vector of numbers among the weights, scales or a bias, with zeros up to `room`. */
static float *keep_vector(lk_executor *e, size_t room, size_t n, const float *values)
{
    bool fresh;
    float *data = lk_weights_next(e, room * sizeof *data, &fresh);
    if (data && fresh) memset(data, 0, room * sizeof *data);
    if (data && fresh) memcpy(data, values, n * sizeof *data);
    return data;
}

static lk_status add_scale(const lk_executor *e, lk_dnn_op *op, int arg, size_t n, float *scales)
{
    dnnl_memory_desc_t desc;
    lk_status s =
        lk_dnn_check(dnnl_memory_desc_create_with_tag(&desc, 1, (dnnl_dims_t){(int64_t)n}, dnnl_f32, dnnl_a), "scales");
    if (s != LK_OK) return s;
    s = lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_ATTR_SCALES | arg, desc, LK_DNN_FIXED, scales);
    dnnl_memory_desc_destroy(desc);
    return s;
}

/* What one thread does of an operation: some rows (of the matrix, or of one picture) and some of the outputs. */
typedef struct part {
    lk_view src, dst;      /* the part alone; dst's rows are those of the whole result */
    size_t src_at, dst_at; /* elements before it */
    size_t out_at, out;    /* outputs */
    lk_dnn_conv how;       /* of a convolution */
    lk_view others[LK_MAX_POSTS];
} part;

static bool scales_result(const product *p, const lk_view *dst)
{
    return is_int(dst->type) && !(p->unit > 0);
}

/* Attributes of a piece: post-operations and, for int8, where scales go. mask: bits of the weights' dimensions that
 * have scales. */
static lk_status attributes(const product *p, part *piece, bool rows, int mask, dnnl_primitive_attr_t *out)
{
    lk_post posts[LK_MAX_POSTS];
    memcpy(posts, p->posts, sizeof posts);
    for (int i = 0; i < p->post_count; i++) {
        if (posts[i].kind != LK_POST_ADD) continue;
        piece->others[i] = piece->dst;
        piece->others[i].type = posts[i].view->type;
        posts[i].view = &piece->others[i];
    }
    lk_status s = lk_dnn_attributes(posts, p->post_count, rows, out);
    if (s != LK_OK || !p->int8) return s;
    s = lk_dnn_check(dnnl_primitive_attr_set_scales_mask(*out, DNNL_ARG_WEIGHTS, mask), "scales");
    if (s == LK_OK && scales_result(p, &piece->dst))
        s = lk_dnn_check(dnnl_primitive_attr_set_scales_mask(*out, DNNL_ARG_DST, 0), "scales");
    return s;
}

/* Quantised weights and the vectors that every piece uses. */
static lk_status begin_weights(lk_executor *e, product *p, const lk_folded *f)
{
    if (p->int8) {
        float *scales = lk_alloc(f->out, sizeof *scales);
        p->codes = lk_alloc(f->out, f->k);
        if (!scales || !p->codes) {
            free(scales);
            return lk_fail_memory("weights");
        }
        lk_folded_codes(f, p->codes, scales);
        float unit = p->unit > 0 ? p->unit : 1;
        for (size_t o = 0; o < f->out; o++) scales[o] *= p->in_scale / unit;
        for (size_t o = 0; f->bias && o < f->out; o++) f->bias[o] /= unit;
        p->scales = keep_vector(e, f->out, f->out, scales);
        free(scales);
        p->dst_scale = keep_vector(e, 1, 1, &e->values[p->output].view.scale);
        if (!p->scales || !p->dst_scale) return lk_fail_memory("weights");
    }
    p->bias = f->bias ? keep_vector(e, f->out, f->out, f->bias) : NULL;
    if (f->bias && !p->bias) return lk_fail_memory("weights");
    /* an executor of another batch packed them: as they lie, they are taken */
    const lk_weights *w = e->weights;
    if (e->next_piece == w->count || !w->pieces[e->next_piece].layout) return LK_OK;
    return lk_dnn_check(dnnl_memory_desc_clone(&p->wanted, w->pieces[e->next_piece].layout), "weights");
}

/* Packs the piece's weights as the primitive wants them, unless an earlier piece did. plain: how f->weight lies. */
static lk_status pack(lk_executor *e, product *p, const lk_folded *f, const part *piece,
                      const_dnnl_memory_desc_t wanted, dnnl_memory_desc_t plain)
{
    bool fresh;
    if (p->packed && piece->out_at == p->packed_at) return LK_OK;
    p->packed_at = piece->out_at;
    p->packed = lk_weights_next(e, dnnl_memory_desc_get_size(wanted), &fresh);
    if (!p->packed) return lk_fail_memory("weights");
    if (fresh) {
        dnnl_memory_desc_t *layout = &e->weights->pieces[e->next_piece - 1].layout;
        lk_status s = lk_dnn_check(dnnl_memory_desc_clone(layout, wanted), "weights");
        if (s != LK_OK) return s;
    }
    size_t at = piece->out_at * f->k;
    const void *from = p->int8 ? (const void *)(p->codes + at) : f->weight + at;
    return fresh ? lk_dnn_reorder(&e->dnn, plain, from, wanted, p->packed, NULL) : LK_OK;
}

/* An argument that begins inside of a value's memory. */
static lk_status arg_at(const lk_executor *e, lk_dnn_op *op, int arg, const_dnnl_memory_desc_t desc, int value,
                        size_t offset)
{
    lk_status s = lk_dnn_op_arg(&e->dnn, op, arg, desc, value, NULL);
    if (s == LK_OK) op->offsets[op->count - 1] = offset;
    return s;
}

/* Makes the primitive of a piece and gives it its arguments. */
static lk_status add_piece(lk_executor *e, product *p, const lk_folded *f, part *piece, dnnl_primitive_desc_t pd,
                           dnnl_memory_desc_t plain, int source, const_dnnl_memory_desc_t source_desc, bool rows)
{
    lk_dnn_op *op = &p->step->dnn[p->step->dnn_count++];
    lk_status s;
    const_dnnl_memory_desc_t wanted = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const_dnnl_memory_desc_t bias = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1);
    size_t bytes = lk_type_bytes(piece->dst.type);
    if (p->swish > 0)
        op->swish = (struct lk_dnn_swish){
            .type = piece->dst.type, .unit = -0.69314718f / p->swish, .numbers = lk_view_elements(&piece->dst)};
    LK_TRY(pack(e, p, f, piece, wanted, plain));
    LK_TRY(lk_dnn_op_create(&e->dnn, op, pd, p->step->node->name));
    LK_TRY(arg_at(e, op, DNNL_ARG_SRC, source_desc, source, piece->src_at * lk_type_bytes(piece->src.type)));
    LK_TRY(lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_WEIGHTS, wanted, LK_DNN_FIXED, p->packed));
    if (f->bias) LK_TRY(lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_BIAS, bias, LK_DNN_FIXED, p->bias + piece->out_at));
    LK_TRY(arg_at(e, op, DNNL_ARG_DST, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0), p->output,
                  piece->dst_at * bytes));
    for (int i = 0; i < p->post_count; i++) {
        if (p->posts[i].kind != LK_POST_ADD) continue;
        dnnl_memory_desc_t desc;
        LK_TRY(rows ? lk_dnn_desc_rows(&piece->others[i], &desc) : lk_dnn_desc(&piece->others[i], false, &desc));
        s = arg_at(e, op, DNNL_ARG_ATTR_MULTIPLE_POST_OP(i) | DNNL_ARG_SRC_1, desc, p->posts[i].value,
                   piece->dst_at * lk_type_bytes(piece->others[i].type));
        dnnl_memory_desc_destroy(desc);
        if (s != LK_OK) goto done;
    }
    if (p->int8) {
        LK_TRY(add_scale(e, op, DNNL_ARG_WEIGHTS, piece->out, p->scales + piece->out_at));
        if (scales_result(p, &piece->dst)) LK_TRY(add_scale(e, op, DNNL_ARG_DST, 1, p->dst_scale));
    }
done:
    return s;
}

/* What the step reads and writes. */
static void finish(lk_executor *e, product *p, int source, lk_node last)
{
    p->inputs[p->input_count++] = source;
    memcpy(p->step->inputs, p->inputs, sizeof p->inputs);
    p->step->input_count = p->input_count;
    p->step->output = p->output;
    e->value_of[last] = p->output;
}

/* Into how many pieces an operation of this many multiplications goes. */
static int piece_count(const lk_executor *e, double products)
{
    return products < 2e5 ? 1 : e->team.threads;
}

/* What is activated after a piece should still be in the second-level cache then. */
static int64_t rounds(const product *p, const lk_view *dst, int threads)
{
    enum { NEAR = 256 << 10 };
    size_t each = lk_view_bytes(dst) / (size_t)dst->dims[0] / (size_t)threads;
    return p->swish > 0 && each > NEAR ? (int64_t)((each + NEAR - 1) / NEAR) : 1;
}

/* View of a group's result. */
static lk_view result_view(const lk_executor *e, lk_node last, bool channels_last)
{
    const lk_node_data *node = lk_at(e->graph, last);
    lk_view v = {.type = e->types[last], .scale = e->scales[last], .rank = node->shape.rank};
    memcpy(v.dims, node->shape.dims, sizeof v.dims);
    if (lk_shape_batched(&node->shape)) v.dims[0] = e->options.batch;
    if (channels_last) v.block = v.dims[1];
    return v;
}

/* Descriptions of what a primitive is made from; plain: how the weights lie before they are packed. */
typedef struct described {
    dnnl_memory_desc_t src, weights, plain, bias, out;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t pd;
} described;

static void described_free(described *d)
{
    dnnl_memory_desc_t all[] = {d->src, d->weights, d->plain, d->bias, d->out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]) dnnl_memory_desc_destroy(all[i]);
    if (d->attr) dnnl_primitive_attr_destroy(d->attr);
    if (d->pd) dnnl_primitive_desc_destroy(d->pd);
}

static lk_status rows_piece(lk_executor *e, product *p, const lk_folded *f, part *piece, int source)
{
    described d = {NULL};
    lk_status s;
    dnnl_dims_t dims = {(int64_t)f->k, (int64_t)piece->out}, bias_dims = {1, (int64_t)piece->out};
    dnnl_data_type_t type = p->int8 ? dnnl_s8 : lk_dnn_type(piece->src.type);
    LK_TRY(lk_dnn_desc_rows(&piece->src, &d.src));
    LK_TRY(lk_dnn_desc_rows(&piece->dst, &d.out));
    LK_TRY(lk_dnn_check(p->wanted ? dnnl_memory_desc_clone(&d.weights, p->wanted)
                                  : dnnl_memory_desc_create_with_tag(&d.weights, 2, dims, type, dnnl_format_tag_any),
                        "weights"));
    LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_tag(&d.plain, 2, dims, p->int8 ? dnnl_s8 : dnnl_f32, dnnl_ba),
                        "weights"));
    LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_tag(&d.bias, 2, bias_dims, dnnl_f32, dnnl_ab), "bias"));
    LK_TRY(attributes(p, piece, true, 2, &d.attr));
    LK_TRY(lk_dnn_check(dnnl_matmul_primitive_desc_create(&d.pd, e->dnn.engine, d.src, d.weights,
                                                          f->bias ? d.bias : NULL, d.out, d.attr),
                        p->step->node->name));
    if (!p->wanted)
        LK_TRY(lk_dnn_check(
            dnnl_memory_desc_clone(&p->wanted, dnnl_primitive_desc_query_md(d.pd, dnnl_query_weights_md, 0)),
            "weights"));
    LK_TRY(add_piece(e, p, f, piece, d.pd, d.plain, source, d.src, true));
done:
    described_free(&d);
    return s;
}

/* Not every combination of types has a primitive (depthwise convolutions that give codes have none): what is refused
 * runs again with a result that is no code, then with an input that is none, then in f32. Readers convert. */
static lk_status lower_or_widen(lk_executor *e, lk_node anchor, lk_status (*lower)(lk_executor *, lk_node))
{
    lk_node last = e->fused[anchor].last;
    lk_type wide = lk_executor_type(e);
    lk_status s;
    int constant; /* those that are read stay, whatever is taken back */
    for (int i = 0; i < e->fused[anchor].chain_count; i++)
        if (e->fused[anchor].other[i] >= 0 &&
            (s = lk_executor_value_of(e, e->fused[anchor].other[i], &constant)) != LK_OK)
            return s;
    if ((s = lk_executor_value_of(e, lk_at(e->graph, anchor)->inputs[0], &constant)) != LK_OK) return s;
    for (;;) {
        size_t steps = e->step_count, pieces = e->next_piece;
        int reorders = e->reorders;
        s = lower(e, anchor);
        if (s != LK_UNSUPPORTED) return s;
        if (is_int(e->types[last])) {
            e->types[last] = wide;
            e->scales[last] = 1;
        } else if (is_int(e->in_types[anchor])) {
            e->in_types[anchor] = wide;
            e->in_scales[anchor] = 1;
        } else if (e->in_types[anchor] == LK_TYPE_BF16) {
            e->in_types[anchor] = e->types[last] = LK_TYPE_F32;
        } else {
            return s;
        }
        while (e->step_count > steps) lk_step_free(&e->steps[--e->step_count]);
        lk_weights_rewind(e, pieces);
        e->reorders = reorders;
    }
}

/* Whether our kernels can do what follows a product: before, sum, after. */
static bool own_finish(const lk_executor *e, const product *p, int *sum_count)
{
    int sums = 0, activations = 0;
    for (int i = 0; i < p->group.chain_count; i++)
        (lk_at(e->graph, p->group.chain[i])->op == LK_OP_ACTIVATION ? activations++ : sums++);
    bool order = activations < 2 || (activations == 2 && sums == 1 && p->group.chain_count == 3 &&
                                     lk_at(e->graph, p->group.chain[1])->op != LK_OP_ACTIVATION);
    *sum_count = sums;
    return order && sums < 2;
}

static bool own_product(const lk_executor *e, const product *p, const lk_folded *f, const lk_view *x,
                        const lk_view *dst)
{
    int sums;
    bool order = own_finish(e, p, &sums), single = dst->rank == 2 && sums == 0;
    bool many = dst->rank > 2 || !(lk_cpu_detect() & LK_CPU_AVX512); /* without it oneDNN's sums depend on the rows */
    return order && (single || many) && lk_product_fits(e, x->type, f->k, f->out, single);
}

static lk_status lower_product(lk_executor *e, product *p, const lk_folded *f, lk_node anchor, int source,
                               const lk_conv *windows)
{
    lk_type type = e->values[source].view.type;
    size_t in = (size_t)e->values[source].view.dims[1];
    lk_step *step = lk_executor_step(e, windows ? LK_STEP_CONV : LK_STEP_PRODUCT, lk_at(e->graph, anchor));
    bool fresh;
    size_t bytes = windows ? lk_conv_bytes(windows, in) : lk_product_bytes(type, f->k, f->out);
    void *weights = lk_weights_next(e, bytes, &fresh);
    const float *bias = f->bias ? keep_vector(e, (f->out + 63) / 64 * 64, f->out, f->bias) : NULL;
    if (!step || !weights || (f->bias && !bias)) return lk_fail_memory("weights");
    if (fresh && windows) lk_conv_weights(windows, f->weight, f->factor, in, weights);
    if (fresh && !windows) lk_product_weights(e->team.kernels, type, f->weight, f->k, f->out, weights);
    step->product = (lk_product){.weights = weights, .bias = bias, .k = f->k, .out = f->out, .before = -1, .after = -1};
    step->inputs[0] = source;
    step->input_count = 1;
    for (int i = 0; i < p->post_count; i++) {
        if (p->posts[i].kind != LK_POST_ACTIVATION) {
            step->product.other = step->input_count;
            step->inputs[step->input_count++] = p->inputs[0]; /* a group has one sum */
        } else if (step->product.other) {
            step->product.after = (int)p->posts[i].activation;
        } else {
            step->product.before = (int)p->posts[i].activation;
        }
    }
    step->output = e->value_of[p->group.last] = p->output;
    return LK_OK;
}

/* y [rows][out] = x [rows][k] W^T: a linear layer, or a convolution that was made one. */
static lk_status lower_rows(lk_executor *e, lk_node anchor, int source, lk_view dst, lk_folded *f)
{
    product p = {.group = e->fused[anchor],
                 .int8 = is_int(e->values[source].view.type),
                 .in_scale = e->values[source].view.scale};
    lk_status s;
    lk_view x = e->values[source].view;
    LK_TRY(lk_folded_apply(f));
    p.own = own_product(e, &p, f, &x, &dst);
    LK_TRY(begin(e, &p, f, dst));
    x = e->values[source].view;
    if (p.own) {
        s = lower_product(e, &p, f, anchor, source, NULL);
        goto done;
    }
    int64_t rows = (int64_t)lk_view_elements(&dst) / (int64_t)f->out;
    int count = piece_count(e, (double)rows * (double)f->out * (double)f->k);
    if (count > rows) count = (int)rows;
    LK_TRY(begin_weights(e, &p, f));
    LK_TRY(new_step(e, &p, lk_at(e->graph, anchor), count));
    for (int i = 0; i < count; i++) {
        int64_t first = rows * i / count, some = rows * (i + 1) / count - first;
        part piece = {.src = {.type = x.type, .scale = x.scale, .rank = 2, .dims = {some, (int64_t)f->k}},
                      .dst = {.type = dst.type, .scale = dst.scale, .rank = 2, .dims = {some, (int64_t)f->out}},
                      .src_at = (size_t)first * f->k,
                      .dst_at = (size_t)first * f->out,
                      .out = f->out};
        LK_TRY(rows_piece(e, &p, f, &piece, source));
    }
    finish(e, &p, source, p.group.last);
done:
    product_free(&p);
    return s;
}

static lk_status lower_linear(lk_executor *e, lk_node anchor)
{
    const lk_node_data *node = lk_at(e->graph, anchor);
    lk_node from = node->inputs[0];
    lk_folded f = {0};
    int source;
    lk_status s;
    LK_TRY(lk_executor_value_of(e, from, &source));
    LK_TRY(lk_executor_want(e, source, LK_LAYOUT_PLAIN, e->in_types[anchor], e->in_scales[anchor], &source));
    LK_TRY(lk_fold(e, anchor, &f));
    LK_TRY(lower_rows(e, anchor, source, result_view(e, e->fused[anchor].last, false), &f));
done:
    lk_folded_free(&f);
    return s;
}

/* A convolution whose windows lie side by side (patch embedding, ConvNeXt's downsampling) is a product: the windows are
 * gathered as rows. Channels-last input gathers (ky, kx, c), plain input (c, ky, kx). */
static bool side_by_side(const lk_conv *c)
{
    return c->groups == 1 && c->kernel[0] == c->stride[0] && c->kernel[1] == c->stride[1] &&
           c->kernel[0] * c->kernel[1] > 1 && c->dilation[0] == 1 && c->dilation[1] == 1 && !c->pad[0] && !c->pad[1] &&
           !c->pad[2] && !c->pad[3];
}

static lk_status lower_patches(lk_executor *e, lk_node anchor, int source, lk_folded *f)
{
    const lk_conv *c = &lk_at(e->graph, anchor)->u.conv;
    lk_view dst = result_view(e, e->fused[anchor].last, true), x = e->values[source].view;
    int64_t kh = c->kernel[0], kw = c->kernel[1], in = x.dims[1], h = x.dims[2], w = x.dims[3];
    int64_t oh = dst.dims[2], ow = dst.dims[3], k = kh * kw * in;
    lk_view rows = {
        .type = e->in_types[anchor], .scale = e->in_scales[anchor], .rank = 2, .dims = {e->options.batch * oh * ow, k}};
    int gathered = lk_executor_value(e, rows);
    lk_step *step = gathered < 0 ? NULL : lk_executor_step(e, LK_STEP_COPY, lk_at(e->graph, anchor));
    if (!step) return lk_fail_memory("plan");
    if (x.block > 1) {
        step->copy = (lk_strided){.rank = 5,
                                  .dims = {e->options.batch, oh, ow, kh, kw * in},
                                  .from = {h * w * in, kh * w * in, kw * in, w * in, 1},
                                  .to = {oh * ow * k, ow * k, k, kw * in, 1}};
        if (!lk_folded_own(f)) return lk_fail_memory("weights");
        float *turned = lk_alloc(f->out * f->k, sizeof *turned);
        if (!turned) return lk_fail_memory("weights");
        for (size_t o = 0; o < f->out; o++)
            for (int64_t i = 0; i < in; i++)
                for (int64_t j = 0; j < kh * kw; j++)
                    turned[o * f->k + (size_t)(j * in + i)] = f->own[o * f->k + (size_t)(i * kh * kw + j)];
        free(f->own);
        f->weight = f->own = turned;
    } else {
        step->copy = (lk_strided){.rank = 6,
                                  .dims = {e->options.batch, oh, ow, in, kh, kw},
                                  .from = {in * h * w, kh * w, kw, h * w, w, 1},
                                  .to = {oh * ow * k, ow * k, k, kh * kw, kw, 1}};
    }
    step->inputs[0] = source;
    step->input_count = 1;
    step->output = gathered;
    return lower_rows(e, anchor, gathered, dst, f);
}

static lk_status lower_winograd(lk_executor *e, product *p, lk_folded *f, const lk_node_data *node, int source)
{
    lk_status s = lk_folded_apply(f);
    if (s != LK_OK) return s;
    lk_step *step = lk_executor_step(e, LK_STEP_WINOGRAD, node);
    size_t in = f->k / 9;
    bool fresh, fresh_bias;
    lk_type type = e->values[source].view.type;
    void *weights = lk_weights_next(e, lk_winograd_bytes(type, in, f->out), &fresh);
    float *bias = lk_weights_next(e, f->out * sizeof(float), &fresh_bias);
    if (!step || !weights || !bias) return lk_fail_memory("weights");
    if (fresh) lk_winograd_weights(e->team.kernels, type, f->weight, in, f->out, weights);
    for (size_t i = 0; fresh_bias && i < f->out; i++) bias[i] = f->bias ? f->bias[i] : 0;
    step->winograd = (lk_winograd){.weights = weights, .bias = bias, .post_count = p->post_count};
    memcpy(step->winograd.posts, p->posts, sizeof p->posts);
    step->inputs[0] = source;
    step->input_count = 1;
    for (int i = 0; i < p->post_count; i++) {
        if (p->posts[i].kind == LK_POST_ACTIVATION) continue;
        step->winograd.posts[i].value = step->input_count; /* number of the view */
        step->inputs[step->input_count++] = p->inputs[0];  /* a group has one sum */
    }
    step->output = e->value_of[p->group.last] = p->output;
    return LK_OK;
}

lk_status lk_lower_linear(lk_executor *e, lk_node anchor)
{
    return lower_or_widen(e, anchor, lower_linear);
}

/* Where nothing says how the weights lie, oneDNN chooses. */
static lk_status describe_conv(lk_executor *e, product *p, const lk_folded *f, const lk_conv *c, part *piece,
                               described *d)
{
    lk_status s;
    dnnl_data_type_t type = p->int8 ? dnnl_s8 : lk_dnn_type(piece->src.type);
    LK_TRY(lk_dnn_desc(&piece->src, false, &d->src));
    LK_TRY(lk_dnn_desc(&piece->dst, false, &d->out));
    if (p->wanted)
        LK_TRY(lk_dnn_check(dnnl_memory_desc_clone(&d->weights, p->wanted), "weights"));
    else
        LK_TRY(lk_dnn_conv_weights(c, piece->src.dims[1], type, true, &d->weights));
    LK_TRY(lk_dnn_conv_weights(c, piece->src.dims[1], p->int8 ? dnnl_s8 : dnnl_f32, false, &d->plain));
    LK_TRY(
        lk_dnn_check(dnnl_memory_desc_create_with_tag(&d->bias, 1, (dnnl_dims_t){c->out}, dnnl_f32, dnnl_a), "bias"));
    LK_TRY(attributes(p, piece, false, c->groups > 1 ? 3 : 1, &d->attr));
    LK_TRY(lk_dnn_check(dnnl_convolution_forward_primitive_desc_create(
                            &d->pd, e->dnn.engine, dnnl_forward_inference, dnnl_convolution_direct, d->src, d->weights,
                            f->bias ? d->bias : NULL, d->out, piece->how.strides, piece->how.dilates,
                            piece->how.pad_before, piece->how.pad_after, d->attr),
                        lk_at(e->graph, p->anchor)->name));
    if (!p->wanted)
        LK_TRY(lk_dnn_check(
            dnnl_memory_desc_clone(&p->wanted, dnnl_primitive_desc_query_md(d->pd, dnnl_query_weights_md, 0)),
            "weights"));
done:
    return s;
}

static lk_status conv_piece(lk_executor *e, product *p, const lk_folded *f, const lk_conv *c, part *piece, int source)
{
    described d = {NULL};
    lk_status s = describe_conv(e, p, f, c, piece, &d);
    if (s == LK_OK) s = add_piece(e, p, f, piece, d.pd, d.plain, source, d.src, false);
    described_free(&d);
    return s;
}

static bool pointwise(const lk_conv *c)
{
    return c->groups == 1 && c->kernel[0] == 1 && c->kernel[1] == 1 && c->stride[0] == 1 && c->stride[1] == 1 &&
           !c->pad[0] && !c->pad[1] && !c->pad[2] && !c->pad[3];
}

/* Rows `first` and `count - 1` more of the result's picture n, and of the input what they look at. */
static part picture_rows(const lk_conv *c, const lk_view *x, const lk_view *dst, int64_t n, int64_t first,
                         int64_t count)
{
    part p = {.src = *x, .dst = *dst, .how = lk_dnn_conv_of(c), .out = (size_t)c->out};
    int64_t top = first * c->stride[0] - c->pad[0];
    int64_t end = (first + count - 1) * c->stride[0] - c->pad[0] + c->dilation[0] * (c->kernel[0] - 1) + 1;
    int64_t from = top < 0 ? 0 : top, to = end > x->dims[2] ? x->dims[2] : end;
    p.how.pad_before[0] = from - top;
    p.how.pad_after[0] = end - to;
    p.src.dims[0] = p.dst.dims[0] = 1;
    p.src.dims[2] = to - from;
    p.dst.dims[2] = count;
    p.src_at = (size_t)((n * x->dims[2] + from) * x->dims[3] * x->dims[1]);
    p.dst_at = (size_t)((n * dst->dims[2] + first) * dst->dims[3] * dst->dims[1]);
    return p;
}

/* Piece i of `each` of picture n. */
static part conv_part(const lk_conv *c, const lk_view *x, const lk_view *dst, int64_t n, int64_t i, int64_t each)
{
    int64_t first = dst->dims[2] * i / each, end = dst->dims[2] * (i + 1) / each;
    return picture_rows(c, x, dst, n, first, end - first);
}

/* The name of the implementation that oneDNN takes for a piece; empty when it has none. */
static void conv_way(lk_executor *e, product *p, const lk_folded *f, const lk_conv *c, part piece, char name[64])
{
    described d = {NULL};
    const char *way = NULL;
    *name = 0;
    if (describe_conv(e, p, f, c, &piece, &d) == LK_OK &&
        dnnl_primitive_desc_query(d.pd, dnnl_query_impl_info_str, 0, (void *)&way) == dnnl_success && way)
        snprintf(name, 64, "%s", way);
    described_free(&d);
}

/* Whether pieces are done the way the whole picture is: another implementation sums in another order, so that vectors
 * would depend on the threads, and some pieces have none but the slow reference. */
static bool pieces_are_alike(lk_executor *e, product *p, const lk_folded *f, const lk_conv *c, const part *whole,
                             const lk_view *x, const lk_view *dst, int64_t each)
{
    char way[64], other[64];
    conv_way(e, p, f, c, *whole, way);
    for (int64_t i = 0; i < each; i++) {
        conv_way(e, p, f, c, conv_part(c, x, dst, 0, i, each), other);
        if (strcmp(way, other) != 0) return false;
    }
    return true;
}

/* In one piece, or every picture in as many as there are threads for it. */
static lk_status conv_pieces(lk_executor *e, product *p, lk_folded *f, const lk_conv *c, lk_view x, lk_view dst,
                             int source)
{
    lk_status s;
    int64_t n = x.dims[0];
    int threads = piece_count(e, (double)lk_view_elements(&dst) * (double)f->k);
    int64_t each = (threads > n ? threads / n : 1) * rounds(p, &dst, threads);
    part one = picture_rows(c, &x, &dst, 0, 0, dst.dims[2]);
    if (pointwise(c) && each > 1) { /* positions are alike: they can be cut anywhere */
        x.dims[2] *= x.dims[3];
        dst.dims[2] *= dst.dims[3];
        x.dims[3] = dst.dims[3] = 1;
    }
    if (each > dst.dims[2]) each = dst.dims[2];
    bool whole = threads == 1 && each == 1;
    LK_TRY(lk_folded_apply(f));
    LK_TRY(begin_weights(e, p, f));
    LK_TRY(lk_dnn_open(&e->dnn));
    if (!p->wanted) {
        /* Asked with the layout that it chose, oneDNN may take another implementation than when it could choose: all
         * executors that share these weights shall ask with it. */
        described d = {NULL};
        s = describe_conv(e, p, f, c, &one, &d);
        described_free(&d);
        if (s != LK_OK) goto done;
    }
    while (each > 1 && !pieces_are_alike(e, p, f, c, &one, &x, &dst, each)) each--;
    LK_TRY(new_step(e, p, lk_at(e->graph, p->anchor), whole ? 1 : (int)(n * each)));
    if (whole) {
        part all = {.src = x, .dst = dst, .out = f->out, .how = lk_dnn_conv_of(c)};
        return conv_piece(e, p, f, c, &all, source);
    }
    for (int64_t i = 0; i < n * each; i++) {
        part some = conv_part(c, &x, &dst, i / each, i % each, each);
        LK_TRY(conv_piece(e, p, f, c, &some, source));
    }
done:
    return s;
}

static lk_status lower_conv(lk_executor *e, lk_node anchor)
{
    enum { FEW = 64 };
    const lk_node_data *node = lk_at(e->graph, anchor);
    const lk_conv *c = &node->u.conv;
    lk_node last = e->fused[anchor].last;
    lk_folded f = {0};
    product p = {.group = e->fused[anchor], .anchor = anchor};
    int source;
    lk_status s;
    LK_TRY(lk_executor_value_of(e, node->inputs[0], &source));
    LK_TRY(lk_fold(e, anchor, &f));
    bool patches = side_by_side(c);
    if (patches &&
        (e->values[source].view.block == 0 || e->values[source].view.block == e->values[source].view.dims[1])) {
        s = lower_patches(e, anchor, source, &f);
        goto done;
    }
    LK_TRY(lk_executor_want(e, source, LK_LAYOUT_LAST, e->in_types[anchor], e->in_scales[anchor], &source));
    lk_view x = e->values[source].view, dst = result_view(e, last, true);
    /* Few positions: oneDNN waits for the weights, which our kernels fetch ahead. Without AVX-512 its sums depend on
     * how many positions there are, so on how threads share them. */
    bool few = dst.dims[2] * dst.dims[3] <= FEW, depends = !(lk_cpu_detect() & LK_CPU_AVX512);
    if (pointwise(c) && (x.type == LK_TYPE_BF16 ? few : depends) && own_product(e, &p, &f, &x, &dst)) {
        s = lower_rows(e, anchor, source, dst, &f);
        goto done;
    }
    p.int8 = is_int(x.type);
    p.in_scale = x.scale;
    int sums;
    bool winograd = lk_winograd_fits(e, c, &x, &dst);
    p.own = winograd || (lk_conv_fits(c, &x, &dst) && own_finish(e, &p, &sums) && !own_swish(e, &p, dst.type));
    LK_TRY(begin(e, &p, &f, dst));
    if (p.own) {
        s = winograd ? lower_winograd(e, &p, &f, node, source) : lower_product(e, &p, &f, anchor, source, c);
        goto done;
    }
    LK_TRY(conv_pieces(e, &p, &f, c, x, dst, source));
    finish(e, &p, source, last);
done:
    lk_folded_free(&f);
    product_free(&p);
    return s;
}

lk_status lk_lower_conv(lk_executor *e, lk_node anchor)
{
    return lower_or_widen(e, anchor, lower_conv);
}

/* Batches of products of activations, or activations times a parameter [k][n]. */
lk_status lk_lower_matmul(lk_executor *e, lk_node at)
{
    const lk_node_data *node = lk_at(e->graph, at);
    dnnl_memory_desc_t descs[3] = {NULL};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    lk_view dst = result_view(e, at, false);
    int values[3];
    lk_status s;
    for (int i = 0; i < 2; i++) {
        LK_TRY(lk_executor_value_of(e, node->inputs[i], &values[i]));
        LK_TRY(lk_executor_want(e, values[i], LK_LAYOUT_PLAIN, lk_executor_type(e), 1, &values[i]));
    }
    values[2] = lk_executor_value(e, dst);
    product p = {0};
    s = values[2] < 0 ? lk_fail_memory("plan") : new_step(e, &p, node, 1);
    if (s != LK_OK) goto done;
    lk_step *step = p.step;
    step->dnn_count = 1;
    for (int i = 0; i < 3; i++) {
        const lk_view *v = i == 2 ? &dst : &e->values[values[i]].view;
        dnnl_dims_t dims, strides;
        int rank = dst.rank, shift = rank - v->rank;
        int64_t n = 1;
        for (int d = rank - 1; d >= 0; d--) {
            dims[d] = d < shift ? 1 : v->dims[d - shift];
            strides[d] = n;
            n *= dims[d];
        }
        if (i == 1 && node->u.transpose_b) {
            int64_t t = dims[rank - 1];
            dims[rank - 1] = dims[rank - 2];
            dims[rank - 2] = t;
            t = strides[rank - 1];
            strides[rank - 1] = strides[rank - 2];
            strides[rank - 2] = t;
        }
        LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_strides(&descs[i], rank, dims, lk_dnn_type(v->type), strides),
                            node->name));
    }
    LK_TRY(lk_dnn_attributes(NULL, 0, true, &attr));
    LK_TRY(lk_dnn_check(dnnl_matmul_primitive_desc_create(&pd, e->dnn.engine, descs[0], descs[1], NULL, descs[2], attr),
                        node->name));
    LK_TRY(lk_dnn_op_create(&e->dnn, step->dnn, pd, node->name));
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    for (int i = 0; i < 3; i++) LK_TRY(lk_dnn_op_arg(&e->dnn, step->dnn, args[i], descs[i], values[i], NULL));
    step->inputs[0] = values[0];
    step->inputs[1] = values[1];
    step->input_count = 2;
    step->output = e->value_of[at] = values[2];
done:
    for (int i = 0; i < 3; i++)
        if (descs[i]) dnnl_memory_desc_destroy(descs[i]);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return s;
}
