/* Softmax over the last dimension, and multi-head attention y = softmax(scale q k^T [+ causal mask]) v per head
 * (Vaswani et al., 2017, eq. 1).
 *
 * One head of one picture is the unit of work. Its scores are made for a few rows of q at a time, so that they stay in
 * the first-level cache; in training all of them are kept in `saved` [N][heads][T][S]. Backward, per head, with p the
 * probabilities: gv += p^T gy; gp = gy v^T; gs = scale p (gp - sum p gp) row by row; gq += gs k; gk += gs^T q. */
#include "nn/op.h"

#include <math.h>
#include <string.h>

static lk_status softmax_forward(lk_call *c)
{
    size_t width = (size_t)c->y.dims[c->y.rank - 1], rows = lk_view_elements(&c->y) / width;
    if (width > (size_t)LK_RUN * 16)
        return lk_fail(LK_UNSUPPORTED, "%s: softmax over more than %d numbers", c->node->name, LK_RUN * 16);
    float v[LK_RUN * 16];
    for (size_t r = 0; r < rows; r++) {
        lk_get(c, c->x, r * width, width, v);
        c->team->kernels->softmax(v, width, 1);
        lk_set(c, &c->y, r * width, width, v);
    }
    return LK_OK;
}

static lk_status softmax_backward(lk_call *c)
{
    size_t width = (size_t)c->y.dims[c->y.rank - 1], rows = lk_view_elements(&c->y) / width;
    for (size_t r = 0; c->gx[0] && r < rows; r++)
        c->team->kernels->softmax_gradient((const float *)c->y.data + r * width, c->gy + r * width, width, 1,
                                           c->gx[0] + r * width);
    return LK_OK;
}

const lk_operator lk_operator_softmax = {softmax_forward, softmax_backward, NULL, NULL};

/* Where one head's rows of q, k, v and y are: element offset of row 0 and the distance of rows. */
typedef struct head {
    const lk_view *view;
    size_t at, step;
} head;

typedef struct heads {
    size_t count, width, queries, keys; /* heads, width of one, T, S */
    float scale;
    bool causal;
} heads;

static heads heads_of(const lk_call *c)
{
    const lk_attention *a = &c->node->u.attention;
    heads h = {.count = (size_t)a->heads, .scale = a->scale, .causal = a->causal};
    h.width = (size_t)c->y.dims[2] / h.count;
    h.queries = (size_t)c->y.dims[1];
    h.keys = (size_t)c->x[c->node->input_count == 3 ? 1 : 0].dims[1];
    return h;
}

/* which: 0 q, 1 k, 2 v */
static head head_of(const lk_call *c, const heads *h, size_t item, int which)
{
    size_t n = item / h->count, i = item % h->count, width = h->count * h->width;
    if (c->node->input_count == 1) {
        size_t tokens = h->queries;
        return (head){&c->x[0], n * tokens * 3 * width + (size_t)which * width + i * h->width, 3 * width};
    }
    const lk_view *x = &c->x[which];
    size_t tokens = (size_t)x->dims[1];
    return (head){x, (x->dims[0] == 1 ? 0 : n) * tokens * width + i * h->width, width};
}

static void get_rows(const lk_call *c, head from, size_t rows, size_t width, float *out)
{
    for (size_t r = 0; r < rows; r++) lk_get(c, from.view, from.at + r * from.step, width, out + r * width);
}

/* Floats one thread needs: for the kernel, or for the plain way below. */
static size_t piece_floats(const heads *h)
{
    size_t plain = 2 * h->keys * h->width + 2 * h->width + h->keys + 64, kernel = lk_head_scratch(h->keys, h->width);
    return plain > kernel ? plain : kernel;
}

static bool kernel_fits(const lk_call *c, const heads *h)
{
    for (int i = 0; i < c->node->input_count; i++)
        if (c->x[i].type != c->x[0].type) return false;
    return h->width % 16 == 0 && h->width <= LK_HEAD_WIDTH &&
           (c->x[0].type == LK_TYPE_F32 || c->x[0].type == LK_TYPE_BF16);
}

/* Widths that the kernel does not do, or inputs of several types: row by row. */
static void plain_head(lk_call *c, const heads *h, size_t item, float *scratch)
{
    const lk_nn_kernels *kernels = c->team->kernels;
    size_t out_width = h->count * h->width, to = item / h->count * h->queries * out_width + item % h->count * h->width;
    float *k = scratch, *v = k + h->keys * h->width, *q = v + h->keys * h->width, *y = q + h->width,
          *scores = y + h->width;
    get_rows(c, head_of(c, h, item, 1), h->keys, h->width, k);
    get_rows(c, head_of(c, h, item, 2), h->keys, h->width, v);
    head from = head_of(c, h, item, 0);
    for (size_t t = 0; t < h->queries; t++) {
        size_t seen = h->causal ? t + 1 : h->keys;
        float *p = c->saved ? (float *)c->saved + (item * h->queries + t) * h->keys : scores;
        lk_get(c, from.view, from.at + t * from.step, h->width, q);
        for (size_t s = 0; s < seen; s++) p[s] = kernels->dot(q, k + s * h->width, h->width);
        kernels->softmax(p, seen, h->scale);
        for (size_t s = seen; s < h->keys; s++) p[s] = 0;
        memset(y, 0, h->width * sizeof *y);
        for (size_t s = 0; s < seen; s++) kernels->axpy(p[s], v + s * h->width, h->width, y);
        lk_set(c, &c->y, to + t * out_width, h->width, y);
    }
}

static void attention_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    heads h = heads_of(c);
    size_t out_width = h.count * h.width;
    /* `begin` is different for every piece, so that each has scratch of its own */
    float *scratch = c->scratch + begin * piece_floats(&h);
    bool kernel = kernel_fits(c, &h);
    for (size_t item = begin; item < end; item++) {
        if (!kernel) {
            plain_head(c, &h, item, scratch);
            continue;
        }
        head q = head_of(c, &h, item, 0), k = head_of(c, &h, item, 1), v = head_of(c, &h, item, 2);
        size_t to = item / h.count * h.queries * out_width + item % h.count * h.width;
        lk_head job = {.type = c->x[0].type,
                       .y_type = c->y.type,
                       .y_scale = c->y.scale,
                       .q = lk_view_at(q.view, q.at),
                       .k = lk_view_at(k.view, k.at),
                       .v = lk_view_at(v.view, v.at),
                       .y = lk_view_at(&c->y, to),
                       .q_step = q.step,
                       .k_step = k.step,
                       .v_step = v.step,
                       .y_step = out_width,
                       .queries = h.queries,
                       .keys = h.keys,
                       .width = h.width,
                       .scale = h.scale,
                       .causal = h.causal,
                       .saved = c->saved ? (float *)c->saved + item * h.queries * h.keys : NULL,
                       .scratch = scratch};
        c->team->kernels->attention(&job);
    }
}

static lk_status attention_forward(lk_call *c)
{
    heads h = heads_of(c);
    lk_team_for(c->team, (size_t)c->y.dims[0] * h.count, 4 * h.queries * h.keys * h.width, attention_piece, c);
    return LK_OK;
}

static void attention_gradient_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    heads h = heads_of(c);
    const lk_nn_kernels *kernels = c->team->kernels;
    size_t out_width = h.count * h.width;
    int last = c->node->input_count == 3;
    for (size_t item = begin; item < end; item++) {
        head q = head_of(c, &h, item, 0), k = head_of(c, &h, item, 1), v = head_of(c, &h, item, 2);
        const float *qd = (const float *)q.view->data + q.at, *kd = (const float *)k.view->data + k.at,
                    *vd = (const float *)v.view->data + v.at;
        float *gq = c->gx[0] ? c->gx[0] + q.at : NULL, *gk = c->gx[last] ? c->gx[last] + k.at : NULL,
              *gv = c->gx[2 * last] ? c->gx[2 * last] + v.at : NULL;
        float *gs = c->scratch + begin * piece_floats(&h), *gp = gs + h.keys;
        const float *gy = c->gy + item / h.count * h.queries * out_width + item % h.count * h.width;
        for (size_t t = 0; t < h.queries; t++, gy += out_width) {
            const float *p = (const float *)c->saved + (item * h.queries + t) * h.keys;
            size_t seen = h.causal ? t + 1 : h.keys;
            for (size_t s = 0; s < seen; s++) {
                gp[s] = kernels->dot(gy, vd + s * v.step, h.width);
                if (gv) kernels->axpy(p[s], gy, h.width, gv + s * v.step);
            }
            memset(gs, 0, seen * sizeof *gs);
            kernels->softmax_gradient(p, gp, seen, h.scale, gs);
            for (size_t s = 0; s < seen; s++) {
                if (gq) kernels->axpy(gs[s], kd + s * k.step, h.width, gq + t * q.step);
                if (gk) kernels->axpy(gs[s], qd + t * q.step, h.width, gk + s * k.step);
            }
        }
    }
}

static lk_status attention_backward(lk_call *c)
{
    heads h = heads_of(c);
    /* A shared q collects from every picture: one after another. */
    lk_team alone = {.threads = 1, .kernels = c->team->kernels};
    bool shared = c->node->input_count == 3 && c->x[0].dims[0] == 1;
    lk_team_for(shared ? &alone : c->team, (size_t)c->y.dims[0] * h.count, 8 * h.queries * h.keys * h.width,
                attention_gradient_piece, c);
    return LK_OK;
}

static size_t attention_saved(const lk_call *c)
{
    heads h = heads_of(c);
    return sizeof(float) * (size_t)c->y.dims[0] * h.count * h.queries * h.keys;
}

static size_t attention_scratch(const lk_call *c)
{
    heads h = heads_of(c);
    return (size_t)c->y.dims[0] * h.count * piece_floats(&h);
}

const lk_operator lk_operator_attention = {attention_forward, attention_backward, attention_saved, attention_scratch};
