/* Convolutions and products become oneDNN primitives with what follows them as post-operations. */
#include "base/memory.h"
#include "nn/executor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Weights [out][k] and bias [out] of a group, with batch norm and layer scale folded in. */
typedef struct folded {
    const float *weight;
    float *own;  /* when something was folded or the order changed */
    float *bias; /* NULL = none */
    size_t out, k;
} folded;

static void folded_free(folded *f)
{
    free(f->own);
    free(f->bias);
    *f = (folded){0};
}

static bool folds_own_weights(folded *f)
{
    if (f->own) return true;
    f->own = lk_alloc(f->out * f->k, sizeof *f->own);
    if (!f->own) return false;
    memcpy(f->own, f->weight, f->out * f->k * sizeof *f->own);
    f->weight = f->own;
    return true;
}

static lk_status fold(const lk_executor *e, lk_node anchor, folded *f)
{
    const lk_graph *graph = e->graph;
    const lk_fused *group = &e->fused[anchor];
    const lk_node_data *node = lk_at(graph, anchor);
    const lk_parameter_data *weight = &graph->parameters[node->parameters[0]];
    f->weight = weight->values;
    f->out = (size_t)weight->shape.dims[0];
    f->k = weight->elements / f->out;
    bool biased = node->parameters[1] >= 0;
    for (int i = 0; i < 2; i++)
        biased = biased || (group->fold[i] >= 0 && lk_at(graph, group->fold[i])->op == LK_OP_BATCH_NORM);
    if (biased) {
        f->bias = lk_alloc_zero(f->out, sizeof *f->bias);
        if (!f->bias) return lk_fail_memory("weights");
        if (node->parameters[1] >= 0)
            memcpy(f->bias, graph->parameters[node->parameters[1]].values, f->out * sizeof *f->bias);
    }
    for (int i = 0; i < 2 && group->fold[i] >= 0; i++) {
        const lk_node_data *by = lk_at(graph, group->fold[i]);
        const float *p[LK_MAX_PARAMETERS] = {NULL};
        for (int j = 0; j < LK_MAX_PARAMETERS; j++)
            if (by->parameters[j] >= 0) p[j] = graph->parameters[by->parameters[j]].values;
        if (!folds_own_weights(f)) return lk_fail_memory("weights");
        for (size_t o = 0; o < f->out; o++) {
            float factor = p[0][o];
            if (by->op == LK_OP_BATCH_NORM) {
                factor /= sqrtf(p[3][o] + by->eps);
                f->bias[o] = (f->bias[o] - p[2][o]) * factor + p[1][o];
            } else if (f->bias) {
                f->bias[o] *= factor;
            }
            for (size_t j = 0; j < f->k; j++) f->own[o * f->k + j] *= factor;
        }
    }
    return LK_OK;
}

/* Quantises weights to s8 by row: codes [out][k], scale [out] = max |row| / 127. */
static void quantise_rows(const folded *f, int8_t *codes, float *scales)
{
    for (size_t o = 0; o < f->out; o++) {
        const float *row = f->weight + o * f->k;
        float top = 0;
        for (size_t j = 0; j < f->k; j++) top = fabsf(row[j]) > top ? fabsf(row[j]) : top;
        scales[o] = top > 0 ? top / 127 : 1;
        for (size_t j = 0; j < f->k; j++) codes[o * f->k + j] = (int8_t)lrintf(row[j] / scales[o]);
    }
}

/* A primitive being put together. */
typedef struct product {
    lk_step *step;
    lk_fused group;
    lk_post posts[LK_MAX_POSTS];
    int post_count;
    int inputs[LK_MAX_INPUTS], input_count; /* values read */
    int output;
    bool int8;
    float in_scale;
} product;

static bool is_int(lk_type type)
{
    return type == LK_TYPE_I8 || type == LK_TYPE_U8;
}

/* Makes the output value and the list of post-operations. `dst` is the value's view. */
static lk_status begin(lk_executor *e, product *p, lk_view dst)
{
    p->output = lk_executor_value(e, dst);
    if (p->output < 0) return lk_fail_memory("plan");
    for (int i = 0; i < p->group.chain_count; i++) {
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
            *post = (lk_post){.kind = LK_POST_ADD, .value = value, .view = &v->view};
        }
        p->inputs[p->input_count++] = value;
    }
    return LK_OK;
}

static lk_status add_scale(lk_executor *e, lk_dnn_op *op, int arg, size_t n, const float *scales)
{
    bool fresh;
    float *data = lk_weights_next(e, n * sizeof *data, &fresh);
    if (!data) return lk_fail_memory("weights");
    if (fresh) memcpy(data, scales, n * sizeof *data);
    dnnl_memory_desc_t desc;
    lk_status s =
        lk_dnn_check(dnnl_memory_desc_create_with_tag(&desc, 1, (dnnl_dims_t){(int64_t)n}, dnnl_f32, dnnl_a), "scales");
    if (s != LK_OK) return s;
    s = lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_ATTR_SCALES | arg, desc, LK_DNN_FIXED, data);
    dnnl_memory_desc_destroy(desc);
    return s;
}

/* Attributes of p: post-operations and, for int8, where scales go. mask: bits of the weights' dimensions that have
 * scales. */
static lk_status attributes(const product *p, bool rows, int mask, bool scaled_dst, dnnl_primitive_attr_t *out)
{
    lk_status s = lk_dnn_attributes(p->posts, p->post_count, rows, out);
    if (s != LK_OK || !p->int8) return s;
    s = lk_dnn_check(dnnl_primitive_attr_set_scales_mask(*out, DNNL_ARG_SRC, 0), "scales");
    if (s == LK_OK) s = lk_dnn_check(dnnl_primitive_attr_set_scales_mask(*out, DNNL_ARG_WEIGHTS, mask), "scales");
    if (s == LK_OK && scaled_dst)
        s = lk_dnn_check(dnnl_primitive_attr_set_scales_mask(*out, DNNL_ARG_DST, 0), "scales");
    return s;
}

/* Packs the weights as the primitive wants them and gives the step its arguments. plain: how f->weight lies. */
static lk_status finish(lk_executor *e, product *p, folded *f, dnnl_primitive_desc_t pd, dnnl_memory_desc_t plain,
                        int source, const_dnnl_memory_desc_t source_desc, bool rows, lk_node last)
{
    lk_dnn_op *op = &p->step->dnn;
    const lk_node_data *node = p->step->node;
    lk_status s;
    bool fresh;
    int8_t *codes = NULL;
    float *scales = NULL;
    const_dnnl_memory_desc_t wanted = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const_dnnl_memory_desc_t bias = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1);
    void *packed = lk_weights_next(e, dnnl_memory_desc_get_size(wanted), &fresh);
    if (!packed) return lk_fail_memory("weights");
    if (p->int8) {
        codes = lk_alloc(f->out, f->k);
        scales = lk_alloc(f->out, sizeof *scales);
        if (!codes || !scales) {
            s = lk_fail_memory("weights");
            goto done;
        }
        quantise_rows(f, codes, scales);
    }
    if (fresh) LK_TRY(lk_dnn_reorder(&e->dnn, plain, p->int8 ? (const void *)codes : f->weight, wanted, packed, NULL));
    LK_TRY(lk_dnn_op_create(&e->dnn, op, pd, node->name));
    LK_TRY(lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_SRC, source_desc, source, NULL));
    LK_TRY(lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_WEIGHTS, wanted, LK_DNN_FIXED, packed));
    if (f->bias) {
        float *data = lk_weights_next(e, f->out * sizeof *data, &fresh);
        if (!data) {
            s = lk_fail_memory("weights");
            goto done;
        }
        if (fresh) memcpy(data, f->bias, f->out * sizeof *data);
        LK_TRY(lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_BIAS, bias, LK_DNN_FIXED, data));
    }
    LK_TRY(lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_DST, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0), p->output,
                         NULL));
    for (int i = 0; i < p->post_count; i++) {
        if (p->posts[i].kind != LK_POST_ADD) continue;
        dnnl_memory_desc_t desc;
        LK_TRY(rows ? lk_dnn_desc_rows(p->posts[i].view, &desc) : lk_dnn_desc(p->posts[i].view, false, &desc));
        s = lk_dnn_op_arg(&e->dnn, op, DNNL_ARG_ATTR_MULTIPLE_POST_OP(i) | DNNL_ARG_SRC_1, desc, p->posts[i].value,
                          NULL);
        dnnl_memory_desc_destroy(desc);
        if (s != LK_OK) goto done;
    }
    if (p->int8) {
        LK_TRY(add_scale(e, op, DNNL_ARG_SRC, 1, &p->in_scale));
        LK_TRY(add_scale(e, op, DNNL_ARG_WEIGHTS, f->out, scales));
        if (is_int(e->values[p->output].view.type))
            LK_TRY(add_scale(e, op, DNNL_ARG_DST, 1, &e->values[p->output].view.scale));
    }
    p->inputs[p->input_count++] = source;
    memcpy(p->step->inputs, p->inputs, sizeof p->inputs);
    p->step->input_count = p->input_count;
    p->step->output = p->output;
    e->value_of[last] = p->output;
done:
    free(codes);
    free(scales);
    return s;
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

/* y [rows][out] = x [rows][k] W^T: a linear layer, or a convolution that was made one. */
static lk_status lower_rows(lk_executor *e, lk_node anchor, int source, lk_view dst, folded *f)
{
    product p = {.group = e->fused[anchor],
                 .int8 = is_int(e->values[source].view.type),
                 .in_scale = e->values[source].view.scale};
    dnnl_memory_desc_t src = NULL, weights = NULL, plain = NULL, bias = NULL, out = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    lk_status s;
    LK_TRY(begin(e, &p, dst));
    lk_view x = e->values[source].view;
    LK_TRY(lk_dnn_desc_rows(&x, &src));
    lk_view rows = dst; /* pictures, channels last, are rows of channels too */
    if (dst.rank == 4)
        rows = (lk_view){
            .type = dst.type, .rank = 2, .dims = {(int64_t)lk_view_elements(&dst) / dst.dims[1], dst.dims[1]}};
    LK_TRY(lk_dnn_desc_rows(&rows, &out));
    lk_view others[LK_MAX_POSTS];
    for (int i = 0; i < p.post_count; i++) {
        if (p.posts[i].kind != LK_POST_ADD || p.posts[i].view->rank != 4) continue;
        others[i] = rows;
        others[i].type = p.posts[i].view->type;
        p.posts[i].view = &others[i];
    }
    dnnl_dims_t dims = {(int64_t)f->k, (int64_t)f->out}, bias_dims = {1, (int64_t)f->out};
    dnnl_data_type_t type = p.int8 ? dnnl_s8 : lk_dnn_type(x.type);
    LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_tag(&weights, 2, dims, type, dnnl_format_tag_any), "weights"));
    LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_tag(&plain, 2, dims, p.int8 ? dnnl_s8 : dnnl_f32, dnnl_ba),
                        "weights"));
    LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_tag(&bias, 2, bias_dims, dnnl_f32, dnnl_ab), "bias"));
    LK_TRY(attributes(&p, true, 2, is_int(dst.type), &attr));
    p.step = lk_executor_step(e, LK_STEP_DNN, lk_at(e->graph, anchor));
    if (!p.step) {
        s = lk_fail_memory("plan");
        goto done;
    }
    LK_TRY(lk_dnn_check(
        dnnl_matmul_primitive_desc_create(&pd, e->dnn.engine, src, weights, f->bias ? bias : NULL, out, attr),
        p.step->node->name));
    LK_TRY(finish(e, &p, f, pd, plain, source, src, true, p.group.last));
done:
    if (src) dnnl_memory_desc_destroy(src);
    if (weights) dnnl_memory_desc_destroy(weights);
    if (plain) dnnl_memory_desc_destroy(plain);
    if (bias) dnnl_memory_desc_destroy(bias);
    if (out) dnnl_memory_desc_destroy(out);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return s;
}

/* Not every combination of types has a primitive (depthwise convolutions that give codes have none): what is refused
 * runs again with a result that is no code, then with an input that is none, then in f32. Readers convert. */
static lk_status lower_or_widen(lk_executor *e, lk_node anchor, lk_status (*lower)(lk_executor *, lk_node))
{
    lk_node last = e->fused[anchor].last;
    lk_type wide = lk_executor_type(e);
    for (;;) {
        size_t steps = e->step_count;
        int reorders = e->reorders;
        lk_status s = lower(e, anchor);
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
        while (e->step_count > steps) lk_dnn_op_free(&e->steps[--e->step_count].dnn);
        e->reorders = reorders;
    }
}

static lk_status lower_linear(lk_executor *e, lk_node anchor)
{
    const lk_node_data *node = lk_at(e->graph, anchor);
    lk_node from = node->inputs[0];
    folded f = {0};
    int source;
    lk_status s;
    LK_TRY(lk_executor_value_of(e, from, &source));
    LK_TRY(lk_executor_want(e, source, LK_LAYOUT_PLAIN, e->in_types[anchor], e->in_scales[anchor], &source));
    LK_TRY(fold(e, anchor, &f));
    LK_TRY(lower_rows(e, anchor, source, result_view(e, e->fused[anchor].last, false), &f));
done:
    folded_free(&f);
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

static lk_status lower_patches(lk_executor *e, lk_node anchor, int source, folded *f)
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
        if (!folds_own_weights(f)) return lk_fail_memory("weights");
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

static lk_status lower_winograd(lk_executor *e, product *p, const folded *f, const lk_node_data *node, int source)
{
    lk_step *step = lk_executor_step(e, LK_STEP_WINOGRAD, node);
    size_t in = f->k / 9;
    bool fresh, fresh_bias;
    float *weights = lk_weights_next(e, 36 * in * f->out * sizeof(float), &fresh);
    float *bias = lk_weights_next(e, f->out * sizeof(float), &fresh_bias);
    if (!step || !weights || !bias) return lk_fail_memory("weights");
    if (fresh) lk_winograd_weights(f->weight, in, f->out, weights);
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

static lk_status lower_conv(lk_executor *e, lk_node anchor)
{
    const lk_node_data *node = lk_at(e->graph, anchor);
    const lk_conv *c = &node->u.conv;
    lk_node last = e->fused[anchor].last;
    folded f = {0};
    dnnl_memory_desc_t src = NULL, weights = NULL, plain = NULL, bias = NULL, out = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    product p = {.group = e->fused[anchor]};
    int source;
    lk_status s;
    LK_TRY(lk_executor_value_of(e, node->inputs[0], &source));
    LK_TRY(fold(e, anchor, &f));
    bool patches = side_by_side(c);
    if (patches &&
        (e->values[source].view.block == 0 || e->values[source].view.block == e->values[source].view.dims[1])) {
        s = lower_patches(e, anchor, source, &f);
        goto done;
    }
    LK_TRY(lk_executor_want(e, source, LK_LAYOUT_LAST, e->in_types[anchor], e->in_scales[anchor], &source));
    lk_view x = e->values[source].view, dst = result_view(e, last, true);
    p.int8 = is_int(x.type);
    p.in_scale = x.scale;
    LK_TRY(begin(e, &p, dst));
    if (lk_winograd_fits(e, c, &x)) {
        s = lower_winograd(e, &p, &f, node, source);
        goto done;
    }
    dnnl_data_type_t type = p.int8 ? dnnl_s8 : lk_dnn_type(x.type);
    LK_TRY(lk_dnn_desc(&x, false, &src));
    LK_TRY(lk_dnn_desc(&dst, false, &out));
    LK_TRY(lk_dnn_conv_weights(c, x.dims[1], type, true, &weights));
    LK_TRY(lk_dnn_conv_weights(c, x.dims[1], p.int8 ? dnnl_s8 : dnnl_f32, false, &plain));
    LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_tag(&bias, 1, (dnnl_dims_t){c->out}, dnnl_f32, dnnl_a), "bias"));
    LK_TRY(attributes(&p, false, c->groups > 1 ? 3 : 1, is_int(dst.type), &attr));
    p.step = lk_executor_step(e, LK_STEP_DNN, node);
    if (!p.step) {
        s = lk_fail_memory("plan");
        goto done;
    }
    lk_dnn_conv how = lk_dnn_conv_of(c);
    LK_TRY(lk_dnn_check(dnnl_convolution_forward_primitive_desc_create(
                            &pd, e->dnn.engine, dnnl_forward_inference, dnnl_convolution_direct, src, weights,
                            f.bias ? bias : NULL, out, how.strides, how.dilates, how.pad_before, how.pad_after, attr),
                        node->name));
    LK_TRY(finish(e, &p, &f, pd, plain, source, src, false, last));
done:
    folded_free(&f);
    if (src) dnnl_memory_desc_destroy(src);
    if (weights) dnnl_memory_desc_destroy(weights);
    if (plain) dnnl_memory_desc_destroy(plain);
    if (bias) dnnl_memory_desc_destroy(bias);
    if (out) dnnl_memory_desc_destroy(out);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (pd) dnnl_primitive_desc_destroy(pd);
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
    lk_step *step = values[2] < 0 ? NULL : lk_executor_step(e, LK_STEP_DNN, node);
    if (!step) {
        s = lk_fail_memory("plan");
        goto done;
    }
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
    LK_TRY(lk_dnn_op_create(&e->dnn, &step->dnn, pd, node->name));
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    for (int i = 0; i < 3; i++) LK_TRY(lk_dnn_op_arg(&e->dnn, &step->dnn, args[i], descs[i], values[i], NULL));
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
