/* Convolutions, linear layers and matrix products of training, forward and backward, by oneDNN.
 *
 *     y = x * w + b:   gx = gy * w^T (full correlation),  gw = x * gy,  gb = sum of gy
 *     y = x W^T + b:   gx = gy W,                         gW = gy^T x,  gb = sum of gy over rows
 *     y = a b:         ga = gy b^T,                       gb = a^T gy
 *
 * With bf16 the factors are rounded and the results stay f32. */
#include "base/memory.h"
#include "nn/training.h"

#include <stdlib.h>
#include <string.h>

static void free_copy(struct lk_tcopy *c)
{
    for (int i = 0; i < 2; i++)
        if (c->args[i].memory) dnnl_memory_destroy(c->args[i].memory);
    if (c->reorder) dnnl_primitive_destroy(c->reorder);
    if (!c->same) free(c->data);
}

void lk_training_free_product(lk_tproduct *p)
{
    lk_dnn_op_free(&p->op);
    for (int i = 0; i < 2; i++) free_copy(&p->before[i]);
    free_copy(&p->after);
    *p = (lk_tproduct){0};
}

/* One argument: as the caller holds it (held, always f32), and as the primitive wants it. The primitive's memory is
 * number op->count afterwards; its values[] says where the caller's side is: which copy, or the argument itself. */
enum { SIDE_ITSELF = 100, SIDE_BEFORE = 200, SIDE_AFTER = 300, SIDE_FIXED = 400 };

static lk_status make_copy(lk_training *t, struct lk_tcopy *c, const_dnnl_memory_desc_t from,
                           const_dnnl_memory_desc_t to, const_dnnl_memory_desc_t own)
{
    dnnl_primitive_desc_t pd = NULL;
    lk_status s;
    c->data = lk_alloc_aligned(dnnl_memory_desc_get_size(own), 1);
    if (!c->data) return lk_fail_memory("training");
    LK_TRY(
        lk_dnn_check(dnnl_reorder_primitive_desc_create(&pd, from, t->dnn.engine, to, t->dnn.engine, NULL), "reorder"));
    LK_TRY(lk_dnn_check(dnnl_primitive_create(&c->reorder, pd), "reorder"));
    c->args[0].arg = DNNL_ARG_FROM;
    c->args[1].arg = DNNL_ARG_TO;
    LK_TRY(lk_dnn_check(dnnl_memory_create(&c->args[0].memory, from, t->dnn.engine, from == own ? c->data : NULL),
                        "reorder"));
    LK_TRY(
        lk_dnn_check(dnnl_memory_create(&c->args[1].memory, to, t->dnn.engine, to == own ? c->data : NULL), "reorder"));
done:
    if (pd) dnnl_primitive_desc_destroy(pd);
    return s;
}

static lk_status factor(lk_training *t, lk_tproduct *p, int arg, const_dnnl_memory_desc_t held,
                        const_dnnl_memory_desc_t wanted)
{
    if (dnnl_memory_desc_equal(held, wanted)) return lk_dnn_op_arg(&t->dnn, &p->op, arg, held, SIDE_ITSELF, NULL);
    struct lk_tcopy *c = &p->before[p->before_count];
    lk_status s = make_copy(t, c, held, wanted, wanted);
    if (s != LK_OK) return s;
    return lk_dnn_op_arg(&t->dnn, &p->op, arg, wanted, SIDE_BEFORE + p->before_count++, c->data);
}

/* A factor that the product `of` takes too, in the same form: converted once where both run. */
static lk_status factor_of(lk_training *t, lk_tproduct *p, int arg, const_dnnl_memory_desc_t held,
                           const_dnnl_memory_desc_t wanted, lk_tproduct *of)
{
    int number = p->before_count;
    lk_status s = factor(t, p, arg, held, wanted);
    if (s != LK_OK || p->before_count == number || of->before_count == 0) return s;
    struct lk_tcopy *c = &p->before[number], *other = &of->before[0]; /* x and gy come before the weights */
    free(c->data);
    c->data = other->data;
    c->same = other;
    s = lk_dnn_check(dnnl_memory_set_data_handle(c->args[1].memory, c->data), "reorder");
    if (s != LK_OK) return s;
    return lk_dnn_check(dnnl_memory_set_data_handle(p->op.args[p->op.count - 1].memory, c->data), "reorder");
}

static lk_status result(lk_training *t, lk_tproduct *p, int arg, const_dnnl_memory_desc_t held,
                        const_dnnl_memory_desc_t wanted)
{
    size_t bytes = dnnl_memory_desc_get_size(held);
    if (bytes > t->result_bytes) t->result_bytes = bytes;
    if (dnnl_memory_desc_equal(held, wanted)) return lk_dnn_op_arg(&t->dnn, &p->op, arg, held, SIDE_ITSELF, NULL);
    p->has_after = true;
    lk_status s = make_copy(t, &p->after, wanted, held, wanted);
    return s == LK_OK ? lk_dnn_op_arg(&t->dnn, &p->op, arg, wanted, SIDE_AFTER, p->after.data) : s;
}

static lk_status note_scratch(lk_training *t, lk_tproduct *p, const_dnnl_primitive_desc_t pd, const char *name)
{
    lk_status s = lk_dnn_op_create(&t->dnn, &p->op, pd, name);
    if (p->op.scratch > t->scratch_bytes) t->scratch_bytes = p->op.scratch;
    return s;
}

/* Runs a product. pointers [n] belong to args [n]; scratch goes to the training's. */
static lk_status run(lk_training *t, lk_tproduct *p, const char *name, int n, const int *args, void *const *pointers)
{
    lk_status s = LK_OK;
    for (int k = 0; s == LK_OK && k < p->op.count; k++) {
        dnnl_memory_t memory = p->op.args[k].memory;
        void *data = t->scratch;
        if (p->op.values[k] == LK_DNN_FIXED) continue;
        for (int i = 0; i < n; i++)
            if (args[i] == p->op.args[k].arg) data = pointers[i];
        int side = p->op.values[k];
        if (side >= SIDE_BEFORE && side < SIDE_AFTER) {
            struct lk_tcopy *c = &p->before[side - SIDE_BEFORE];
            if (c->ready) continue;
            s = lk_dnn_check(dnnl_memory_set_data_handle(c->args[0].memory, data), name);
            if (s == LK_OK) s = lk_dnn_check(dnnl_primitive_execute(c->reorder, t->dnn.stream, 2, c->args), name);
        } else if (side == SIDE_AFTER) {
            s = lk_dnn_check(dnnl_memory_set_data_handle(p->after.args[1].memory, data), name);
        } else {
            s = lk_dnn_check(dnnl_memory_set_data_handle(memory, data), name);
        }
    }
    if (s == LK_OK) s = lk_dnn_op_run(&t->dnn, &p->op, name);
    if (s == LK_OK && p->has_after)
        s = lk_dnn_check(dnnl_primitive_execute(p->after.reorder, t->dnn.stream, 2, p->after.args), name);
    return s;
}

/* Convolution --------------------------------------------------------------------------------------------------------
 */

typedef struct conv_descs {
    dnnl_memory_desc_t x, w, b, y;     /* as we hold them */
    dnnl_memory_desc_t wx, ww, wy, ry; /* as they are multiplied: bf16 or f32, weights in any layout; ry: f32 result */
} conv_descs;

static void free_descs(dnnl_memory_desc_t *all, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (all[i]) dnnl_memory_desc_destroy(all[i]);
}

static lk_status conv_forward(lk_training *t, lk_tnode *n, const conv_descs *d, const lk_dnn_conv *how, bool bias)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *name = n->call.node->name;
    lk_status s;
    LK_TRY(lk_dnn_attributes(NULL, 0, false, &attr));
    LK_TRY(
        lk_dnn_check(dnnl_convolution_forward_primitive_desc_create(
                         &pd, t->dnn.engine, dnnl_forward_training, dnnl_convolution_direct, d->wx, d->ww,
                         bias ? d->b : NULL, d->y, how->strides, how->dilates, how->pad_before, how->pad_after, attr),
                     name));
    LK_TRY(note_scratch(t, &n->forward, pd, name));
    LK_TRY(factor(t, &n->forward, DNNL_ARG_SRC, d->x, d->wx));
    LK_TRY(factor(t, &n->forward, DNNL_ARG_WEIGHTS, d->w, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0)));
    if (bias) LK_TRY(lk_dnn_op_arg(&t->dnn, &n->forward.op, DNNL_ARG_BIAS, d->b, SIDE_ITSELF, NULL));
    LK_TRY(lk_dnn_op_arg(&t->dnn, &n->forward.op, DNNL_ARG_DST, d->y, SIDE_ITSELF, NULL));
    /* Backward passes are made from this one's descriptor. */
    if (n->wanted) {
        dnnl_primitive_desc_t back = NULL;
        dnnl_primitive_attr_t attr_back = NULL;
        s = lk_dnn_attributes(NULL, 0, false, &attr_back);
        lk_tproduct *p = &n->to_input[0];
        if (s == LK_OK)
            s = lk_dnn_check(dnnl_convolution_backward_data_primitive_desc_create(
                                 &back, t->dnn.engine, dnnl_convolution_direct, d->x, d->ww, d->wy, how->strides,
                                 how->dilates, how->pad_before, how->pad_after, pd, attr_back),
                             name);
        if (s == LK_OK) s = note_scratch(t, p, back, name);
        if (s == LK_OK) s = factor(t, p, DNNL_ARG_DIFF_DST, d->y, d->wy);
        if (s == LK_OK)
            s = factor(t, p, DNNL_ARG_WEIGHTS, d->w, dnnl_primitive_desc_query_md(back, dnnl_query_weights_md, 0));
        if (s == LK_OK) s = result(t, p, DNNL_ARG_DIFF_SRC, d->x, d->x);
        if (back) dnnl_primitive_desc_destroy(back);
        back = NULL;
        p = &n->to_weight;
        dnnl_memory_desc_t any = NULL;
        if (s == LK_OK) s = lk_dnn_conv_weights(&n->call.node->u.conv, n->x[0].dims[1], dnnl_f32, true, &any);
        if (s == LK_OK)
            s = lk_dnn_check(dnnl_convolution_backward_weights_primitive_desc_create(
                                 &back, t->dnn.engine, dnnl_convolution_direct, d->wx, any, bias ? d->b : NULL, d->wy,
                                 how->strides, how->dilates, how->pad_before, how->pad_after, pd, attr_back),
                             name);
        if (s == LK_OK) s = note_scratch(t, p, back, name);
        if (s == LK_OK) s = factor_of(t, p, DNNL_ARG_SRC, d->x, d->wx, &n->forward);
        for (int i = 0; i < p->before_count; i++) p->before[i].ready = p->before[i].same != NULL;
        if (s == LK_OK) s = factor_of(t, p, DNNL_ARG_DIFF_DST, d->y, d->wy, &n->to_input[0]);
        if (s == LK_OK)
            s = result(t, p, DNNL_ARG_DIFF_WEIGHTS, d->w,
                       dnnl_primitive_desc_query_md(back, dnnl_query_diff_weights_md, 0));
        if (s == LK_OK && bias) s = lk_dnn_op_arg(&t->dnn, &p->op, DNNL_ARG_DIFF_BIAS, d->b, SIDE_ITSELF, NULL);
        if (any) dnnl_memory_desc_destroy(any);
        if (back) dnnl_primitive_desc_destroy(back);
        if (attr_back) dnnl_primitive_attr_destroy(attr_back);
    }
done:
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return s;
}

static lk_status make_conv(lk_training *t, lk_tnode *n)
{
    const lk_conv *c = &n->call.node->u.conv;
    conv_descs d = {0};
    lk_dnn_conv how = lk_dnn_conv_of(c);
    lk_view x = n->x[0], y = n->y;
    dnnl_data_type_t type = t->options.bf16 ? dnnl_bf16 : dnnl_f32;
    lk_status s;
    LK_TRY(lk_dnn_desc(&x, false, &d.x));
    LK_TRY(lk_dnn_desc(&y, false, &d.y));
    LK_TRY(lk_dnn_conv_weights(c, x.dims[1], dnnl_f32, false, &d.w));
    LK_TRY(lk_dnn_check(dnnl_memory_desc_create_with_tag(&d.b, 1, (dnnl_dims_t){c->out}, dnnl_f32, dnnl_a), "bias"));
    x.type = y.type = t->options.bf16 ? LK_TYPE_BF16 : LK_TYPE_F32;
    LK_TRY(lk_dnn_desc(&x, false, &d.wx));
    LK_TRY(lk_dnn_desc(&y, false, &d.wy));
    LK_TRY(lk_dnn_conv_weights(c, x.dims[1], type, true, &d.ww));
    LK_TRY(conv_forward(t, n, &d, &how, !c->no_bias));
done:
    free_descs(&d.x, sizeof d / sizeof d.x);
    return s;
}

/* Matrices -----------------------------------------------------------------------------------------------------------
 */

/* A matrix (batch of matrices) in memory: dims and strides of oneDNN's order [batch...][rows][columns]. */
typedef struct matrix {
    int rank;
    dnnl_dims_t dims, strides;
} matrix;

static matrix turned(matrix m)
{
    int a = m.rank - 2, b = m.rank - 1;
    dnnl_dim_t dim = m.dims[a], stride = m.strides[a];
    m.dims[a] = m.dims[b];
    m.strides[a] = m.strides[b];
    m.dims[b] = dim;
    m.strides[b] = stride;
    return m;
}

static matrix rows_matrix(int64_t rows, int64_t columns)
{
    return (matrix){2, {rows, columns}, {columns, 1}};
}

static matrix view_matrix(const lk_view *v)
{
    matrix m = {.rank = v->rank};
    int64_t strides[LK_MAX_DIMS];
    lk_view_strides(v, strides);
    for (int i = 0; i < v->rank; i++) {
        m.dims[i] = v->dims[i];
        m.strides[i] = strides[i];
    }
    return m;
}

static lk_status matrix_desc(matrix m, dnnl_data_type_t type, dnnl_memory_desc_t *out)
{
    return lk_dnn_check(dnnl_memory_desc_create_with_strides(out, m.rank, m.dims, type, m.strides), "matrix");
}

/* c = a b, or c += a b. */
static lk_status make_matmul(lk_training *t, lk_tproduct *p, matrix a, matrix b, matrix c, bool add, const char *name)
{
    dnnl_memory_desc_t d[5] = {NULL};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    lk_view none = {.type = LK_TYPE_F32};
    lk_post sum = {.kind = LK_POST_SUM, .scale = 1, .view = &none};
    dnnl_data_type_t type = t->options.bf16 ? dnnl_bf16 : dnnl_f32;
    lk_status s;
    LK_TRY(matrix_desc(a, dnnl_f32, &d[0]));
    LK_TRY(matrix_desc(b, dnnl_f32, &d[1]));
    LK_TRY(matrix_desc(c, dnnl_f32, &d[2]));
    LK_TRY(matrix_desc(a, type, &d[3]));
    LK_TRY(matrix_desc(b, type, &d[4]));
    LK_TRY(lk_dnn_attributes(&sum, add, true, &attr));
    LK_TRY(lk_dnn_check(dnnl_matmul_primitive_desc_create(&pd, t->dnn.engine, d[3], d[4], NULL, d[2], attr), name));
    LK_TRY(note_scratch(t, p, pd, name));
    LK_TRY(factor(t, p, DNNL_ARG_SRC, d[0], d[3]));
    LK_TRY(factor(t, p, DNNL_ARG_WEIGHTS, d[1], d[4]));
    LK_TRY(lk_dnn_op_arg(&t->dnn, &p->op, DNNL_ARG_DST, d[2], SIDE_ITSELF, NULL));
done:
    free_descs(d, 5);
    if (attr) dnnl_primitive_attr_destroy(attr);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return s;
}

lk_status lk_training_make_products(lk_training *t, lk_node at)
{
    lk_tnode *n = &t->nodes[at];
    const lk_node_data *node = n->call.node;
    if (node->op == LK_OP_CONV) return make_conv(t, n);
    matrix a, b, y;
    if (node->op == LK_OP_LINEAR) {
        const lk_shape *w = &t->graph->parameters[node->parameters[0]].shape;
        int64_t rows = (int64_t)lk_view_elements(&n->x[0]) / w->dims[1];
        a = rows_matrix(rows, w->dims[1]);
        b = turned(rows_matrix(w->dims[0], w->dims[1]));
        y = rows_matrix(rows, w->dims[0]);
    } else {
        a = view_matrix(&n->x[0]);
        b = view_matrix(&n->x[1]);
        y = view_matrix(&n->y);
        if (b.rank != a.rank) { /* a shared matrix: all rows of a at once */
            a = rows_matrix((int64_t)lk_view_elements(&n->x[0]) / a.dims[a.rank - 1], a.dims[a.rank - 1]);
            y = rows_matrix(a.dims[0], y.dims[y.rank - 1]);
        }
        if (node->u.transpose_b) b = turned(b);
    }
    lk_status s = make_matmul(t, &n->forward, a, b, y, false, node->name);
    if (s != LK_OK || !n->wanted) return s;
    s = make_matmul(t, &n->to_input[0], y, turned(b), a, true, node->name);
    /* The gradient of b lies as b does: for a turned b it is computed turned. */
    lk_tproduct *to_b = node->op == LK_OP_LINEAR ? &n->to_weight : &n->to_input[1];
    bool turn = node->op == LK_OP_LINEAR || node->u.transpose_b;
    if (s == LK_OK)
        s = turn ? make_matmul(t, to_b, turned(y), a, turned(b), true, node->name)
                 : make_matmul(t, to_b, turned(a), y, b, true, node->name);
    return s;
}

/* Running -------------------------------------------------------------------------------------------------------------
 */

typedef struct bias_job {
    const lk_tnode *node;
    const float *rows;
    float *bias;
    size_t count, width;
    bool gradient;
} bias_job;

/* Forward: items are rows. Backward: items are columns, so that every sum has one order. */
static void bias_piece(void *arg, size_t begin, size_t end)
{
    const bias_job *j = arg;
    const lk_nn_kernels *k = j->node->call.team->kernels;
    if (j->gradient) {
        for (size_t r = 0; r < j->count; r++)
            k->add(j->bias + begin, j->rows + r * j->width + begin, end - begin, j->bias + begin);
        return;
    }
    for (size_t r = begin; r < end; r++)
        k->add(j->rows + r * j->width, j->bias, j->width, (float *)j->rows + r * j->width);
}

static void bias(const lk_tnode *n, const float *rows, float *values, bool gradient)
{
    size_t width = (size_t)n->y.dims[n->y.rank - 1];
    bias_job job = {n, rows, values, lk_view_elements(&n->y) / width, width, gradient};
    lk_team_for(n->call.team, gradient ? width : job.count, gradient ? job.count : width, bias_piece, &job);
}

lk_status lk_training_forward_product(lk_training *t, lk_node at)
{
    lk_tnode *n = &t->nodes[at];
    const char *name = n->call.node->name;
    if (n->call.node->op == LK_OP_MATMUL) {
        static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
        return run(t, &n->forward, name, 3, args, (void *[]){n->x[0].data, n->x[1].data, n->y.data});
    }
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
    lk_status s = run(t, &n->forward, name, 4, args,
                      (void *[]){n->x[0].data, (void *)n->call.p[0], n->y.data, (void *)n->call.p[1]});
    if (s == LK_OK && n->call.node->op == LK_OP_LINEAR && n->call.p[1])
        bias(n, n->y.data, (float *)n->call.p[1], false);
    return s;
}

static lk_status conv_backward(lk_training *t, lk_tnode *n, float *gx, float *gw, float *gb)
{
    const lk_nn_kernels *k = t->team.kernels;
    const char *name = n->call.node->name;
    lk_status s = LK_OK;
    if (gx) {
        /* The first to write a gradient writes it; others add theirs. */
        lk_tnode *from = &t->nodes[n->call.node->inputs[0]];
        bool write = n->call.write[0] && gx == from->gradient;
        static const int args[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
        s = run(t, &n->to_input[0], name, 3, args,
                (void *[]){n->gradient, (void *)n->call.p[0], write ? gx : t->result});
        if (!write) k->add(gx, t->result, lk_view_elements(&n->x[0]), gx);
    }
    if (s == LK_OK && gw) {
        const lk_graph *g = t->graph;
        size_t weights = g->parameters[n->call.node->parameters[0]].elements, out = (size_t)n->y.dims[1];
        float *bias_result = (float *)(t->scratch + t->scratch_bytes);
        for (int i = 0; i < n->to_weight.before_count; i++) {
            struct lk_tcopy *c = &n->to_weight.before[i];
            if (c->same == &n->to_input[0].before[0]) c->ready = gx != NULL;
        }
        static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS};
        s = run(t, &n->to_weight, name, 4, args, (void *[]){n->x[0].data, n->gradient, t->result, bias_result});
        k->add(gw, t->result, weights, gw);
        if (gb) k->add(gb, bias_result, out, gb);
    }
    return s;
}

lk_status lk_training_backward_product(lk_training *t, lk_node at)
{
    lk_tnode *n = &t->nodes[at];
    lk_call *c = &n->call;
    const char *name = c->node->name;
    lk_status s = LK_OK;
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    if (c->node->op == LK_OP_CONV) return conv_backward(t, n, c->gx[0], c->gp[0], c->gp[1]);
    bool linear = c->node->op == LK_OP_LINEAR;
    void *b = linear ? (void *)c->p[0] : n->x[1].data, *gb = linear ? c->gp[0] : c->gx[1];
    if (c->gx[0]) s = run(t, &n->to_input[0], name, 3, args, (void *[]){n->gradient, b, c->gx[0]});
    if (s != LK_OK || !gb) return s;
    bool turn = linear || c->node->u.transpose_b;
    void *first = turn ? (void *)n->gradient : n->x[0].data, *second = turn ? n->x[0].data : (void *)n->gradient;
    s = run(t, linear ? &n->to_weight : &n->to_input[1], name, 3, args, (void *[]){first, second, gb});
    if (s == LK_OK && linear && c->gp[1]) bias(n, n->gradient, c->gp[1], true);
    return s;
}
