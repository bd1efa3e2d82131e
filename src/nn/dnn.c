#include "nn/dnn.h"

#include "late/late.h"

#include <string.h>

lk_status lk_dnn_check(dnnl_status_t status, const char *what)
{
    switch (status) {
    case dnnl_success: return LK_OK;
    case dnnl_out_of_memory: return lk_fail_memory(what);
    case dnnl_unimplemented: return lk_fail(LK_UNSUPPORTED, "%s: oneDNN has no such operation on this processor", what);
    default: return lk_fail(LK_INVALID, "%s: oneDNN refused it (status %d)", what, (int)status);
    }
}

lk_status lk_dnn_open(lk_dnn *dnn)
{
    if (dnn->stream) return LK_OK;
    const char *missing = lk_late_try("libdnnl");
    if (missing) return lk_fail(LK_UNSUPPORTED, "%s", missing);
    lk_status s = lk_dnn_check(dnnl_engine_create(&dnn->engine, dnnl_cpu, 0), "engine");
    if (s == LK_OK)
        s = lk_dnn_check(dnnl_stream_create(&dnn->stream, dnn->engine, dnnl_stream_default_flags), "stream");
    if (s != LK_OK) lk_dnn_close(dnn);
    return s;
}

void lk_dnn_close(lk_dnn *dnn)
{
    if (dnn->stream) dnnl_stream_destroy(dnn->stream);
    if (dnn->engine) dnnl_engine_destroy(dnn->engine);
    *dnn = (lk_dnn){0};
}

void lk_dnn_op_free(lk_dnn_op *op)
{
    for (int i = 0; i < op->count; i++) dnnl_memory_destroy(op->args[i].memory);
    if (op->primitive) dnnl_primitive_destroy(op->primitive);
    *op = (lk_dnn_op){0};
}

lk_status lk_dnn_op_arg(const lk_dnn *dnn, lk_dnn_op *op, int arg, const_dnnl_memory_desc_t desc, int value, void *data)
{
    dnnl_memory_t memory;
    if (op->count == LK_DNN_ARGS) return lk_fail(LK_LIMIT, "too many arguments of a primitive");
    lk_status s = lk_dnn_check(dnnl_memory_create(&memory, desc, dnn->engine, data), "memory");
    if (s != LK_OK) return s;
    op->args[op->count] = (dnnl_exec_arg_t){arg, memory};
    op->values[op->count++] = value;
    return LK_OK;
}

lk_status lk_dnn_op_create(const lk_dnn *dnn, lk_dnn_op *op, const_dnnl_primitive_desc_t desc, const char *what)
{
    lk_status s = lk_dnn_check(dnnl_primitive_create(&op->primitive, desc), what);
    if (s != LK_OK) return s;
    const_dnnl_memory_desc_t scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    op->scratch = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    return op->scratch ? lk_dnn_op_arg(dnn, op, DNNL_ARG_SCRATCHPAD, scratch, LK_DNN_SCRATCH, NULL) : LK_OK;
}

lk_status lk_dnn_op_run(const lk_dnn *dnn, lk_dnn_op *op, const char *what)
{
    return lk_dnn_check(dnnl_primitive_execute(op->primitive, dnn->stream, op->count, op->args), what);
}

dnnl_data_type_t lk_dnn_type(lk_type type)
{
    switch (type) {
    case LK_TYPE_BF16: return dnnl_bf16;
    case LK_TYPE_I8: return dnnl_s8;
    case LK_TYPE_U8: return dnnl_u8;
    case LK_TYPE_I32: return dnnl_s32;
    default: return dnnl_f32;
    }
}

lk_status lk_dnn_desc(const lk_view *view, bool any, dnnl_memory_desc_t *out)
{
    dnnl_dims_t dims, strides;
    int64_t own[LK_MAX_DIMS];
    lk_view_strides(view, own);
    for (int i = 0; i < view->rank; i++) {
        dims[i] = view->dims[i];
        strides[i] = own[i];
    }
    dnnl_data_type_t type = lk_dnn_type(view->type);
    return lk_dnn_check(any ? dnnl_memory_desc_create_with_tag(out, view->rank, dims, type, dnnl_format_tag_any)
                            : dnnl_memory_desc_create_with_strides(out, view->rank, dims, type, strides),
                        "memory descriptor");
}

lk_status lk_dnn_desc_rows(const lk_view *view, dnnl_memory_desc_t *out)
{
    int64_t width = view->dims[view->rank - 1];
    dnnl_dims_t dims = {(int64_t)lk_view_elements(view) / width, width};
    return lk_dnn_check(dnnl_memory_desc_create_with_tag(out, 2, dims, lk_dnn_type(view->type), dnnl_ab),
                        "memory descriptor");
}

bool lk_dnn_activation(lk_activation kind, dnnl_alg_kind_t *alg, float *alpha, float *beta)
{
    *alpha = *beta = 0;
    switch (kind) {
    case LK_RELU: *alg = dnnl_eltwise_relu; return true;
    case LK_RELU6:
        *alg = dnnl_eltwise_clip;
        *beta = 6;
        return true;
    case LK_GELU: *alg = dnnl_eltwise_gelu_erf; return true;
    case LK_GELU_TANH: *alg = dnnl_eltwise_gelu_tanh; return true;
    case LK_QUICK_GELU:
        *alg = dnnl_eltwise_swish;
        *alpha = 1.702f;
        return true;
    case LK_SILU:
        *alg = dnnl_eltwise_swish;
        *alpha = 1;
        return true;
    case LK_SIGMOID: *alg = dnnl_eltwise_logistic; return true;
    case LK_HARD_SWISH:
        *alg = dnnl_eltwise_hardswish;
        *alpha = 1.0f / 6;
        *beta = 0.5f;
        return true;
    case LK_HARD_SIGMOID:
        *alg = dnnl_eltwise_hardsigmoid;
        *alpha = 1.0f / 6;
        *beta = 0.5f;
        return true;
    case LK_TANH: *alg = dnnl_eltwise_tanh; return true;
    }
    return false;
}

static lk_status append(dnnl_post_ops_t ops, const lk_post *post, bool rows)
{
    dnnl_alg_kind_t alg = dnnl_alg_kind_undef;
    float alpha, beta;
    lk_status s;
    if (post->kind == LK_POST_ACTIVATION) {
        lk_dnn_activation(post->activation, &alg, &alpha, &beta);
        return lk_dnn_check(dnnl_post_ops_append_eltwise(ops, alg, alpha, beta), "activation");
    }
    if (post->kind == LK_POST_SUM) {
        lk_type type = post->view->type;
        bool codes = type == LK_TYPE_I8 || type == LK_TYPE_U8; /* perhaps of the other signedness than dst */
        return lk_dnn_check(
            dnnl_post_ops_append_sum(ops, post->scale, 0, codes ? lk_dnn_type(type) : dnnl_data_type_undef), "sum");
    }
    dnnl_memory_desc_t desc;
    s = rows ? lk_dnn_desc_rows(post->view, &desc) : lk_dnn_desc(post->view, false, &desc);
    if (s != LK_OK) return s;
    s = lk_dnn_check(
        dnnl_post_ops_append_binary(ops, post->kind == LK_POST_ADD ? dnnl_binary_add : dnnl_binary_mul, desc), "sum");
    dnnl_memory_desc_destroy(desc);
    return s;
}

lk_status lk_dnn_attributes(const lk_post *posts, int count, bool rows, dnnl_primitive_attr_t *out)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    lk_status s;
    LK_TRY(lk_dnn_check(dnnl_primitive_attr_create(&attr), "attributes"));
    LK_TRY(lk_dnn_check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "attributes"));
    LK_TRY(lk_dnn_check(dnnl_post_ops_create(&ops), "attributes"));
    for (int i = 0; i < count; i++) LK_TRY(append(ops, &posts[i], rows));
    LK_TRY(lk_dnn_check(dnnl_primitive_attr_set_post_ops(attr, ops), "attributes"));
    *out = attr;
    attr = NULL;
done:
    if (ops) dnnl_post_ops_destroy(ops);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return s;
}

lk_status lk_dnn_reorder(const lk_dnn *dnn, const_dnnl_memory_desc_t from_desc, const void *from,
                         const_dnnl_memory_desc_t to_desc, void *to, dnnl_primitive_attr_t attributes)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t a = NULL, b = NULL;
    lk_status s;
    LK_TRY(lk_dnn_check(
        dnnl_reorder_primitive_desc_create(&pd, from_desc, dnn->engine, to_desc, dnn->engine, attributes), "reorder"));
    LK_TRY(lk_dnn_check(dnnl_primitive_create(&primitive, pd), "reorder"));
    LK_TRY(lk_dnn_check(dnnl_memory_create(&a, from_desc, dnn->engine, (void *)from), "reorder"));
    LK_TRY(lk_dnn_check(dnnl_memory_create(&b, to_desc, dnn->engine, to), "reorder"));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, a}, {DNNL_ARG_TO, b}};
    LK_TRY(lk_dnn_check(dnnl_primitive_execute(primitive, dnn->stream, 2, args), "reorder"));
    LK_TRY(lk_dnn_check(dnnl_stream_wait(dnn->stream), "reorder"));
done:
    if (a) dnnl_memory_destroy(a);
    if (b) dnnl_memory_destroy(b);
    if (primitive) dnnl_primitive_destroy(primitive);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return s;
}

lk_dnn_conv lk_dnn_conv_of(const lk_conv *conv)
{
    lk_dnn_conv c = {0};
    for (int i = 0; i < 2; i++) {
        c.strides[i] = conv->stride[i];
        c.dilates[i] = conv->dilation[i] - 1;
        c.pad_before[i] = conv->pad[i];
        c.pad_after[i] = conv->pad[2 + i];
    }
    return c;
}

lk_status lk_dnn_conv_weights(const lk_conv *conv, int64_t in, dnnl_data_type_t type, bool any, dnnl_memory_desc_t *out)
{
    int64_t g = conv->groups;
    dnnl_dims_t grouped = {g, conv->out / g, in / g, conv->kernel[0], conv->kernel[1]};
    dnnl_dims_t plain = {conv->out, in, conv->kernel[0], conv->kernel[1]};
    dnnl_format_tag_t tag = any ? dnnl_format_tag_any : g > 1 ? dnnl_goihw : dnnl_oihw;
    return lk_dnn_check(dnnl_memory_desc_create_with_tag(out, g > 1 ? 5 : 4, g > 1 ? grouped : plain, type, tag),
                        "weights descriptor");
}
