/* Looking up embeddings by id, and picking one token of each row. Ids are inputs: row after row, i32. */
#include "nn/op.h"

#include <inttypes.h>
#include <string.h>

static lk_status embedding_forward(lk_call *c)
{
    const int32_t *ids = c->x->data;
    size_t n = (size_t)(c->x->dims[0] * c->x->dims[1]), width = (size_t)c->y.dims[2];
    int64_t vocabulary = c->node->vocabulary;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return lk_fail(LK_INVALID, "%s: id %" PRId32 " is not in a vocabulary of %" PRId64, c->node->name, ids[i],
                           vocabulary);
        lk_set(c, &c->y, i * width, width, c->p[0] + (size_t)ids[i] * width);
    }
    return LK_OK;
}

static lk_status embedding_backward(lk_call *c)
{
    const int32_t *ids = c->x->data;
    size_t n = (size_t)(c->x->dims[0] * c->x->dims[1]), width = (size_t)c->y.dims[2];
    if (!c->gp[0]) return LK_OK;
    for (size_t i = 0; i < n; i++)
        c->team->kernels->axpy(1, c->gy + i * width, width, c->gp[0] + (size_t)ids[i] * width);
    return LK_OK;
}

const lk_operator lk_operator_embedding = {embedding_forward, embedding_backward, NULL, NULL};

static size_t picked(const lk_call *c, size_t row)
{
    const int32_t *ids = (const int32_t *)c->x[1].data + row * (size_t)c->x[1].dims[1];
    size_t n = (size_t)c->x[1].dims[1], best = 0;
    if (c->node->u.token >= 0) {
        for (size_t i = 0; i < n; i++)
            if (ids[i] == c->node->u.token) return i;
        return 0;
    }
    for (size_t i = 1; i < n; i++)
        if (ids[i] > ids[best]) best = i;
    return best;
}

static lk_status pick_token_forward(lk_call *c)
{
    size_t width = (size_t)c->y.dims[1], bytes = width * lk_type_bytes(c->y.type);
    for (size_t row = 0; row < (size_t)c->y.dims[0]; row++)
        memcpy(lk_view_at(&c->y, row * width), lk_view_at(c->x, (row * (size_t)c->x->dims[1] + picked(c, row)) * width),
               bytes);
    return LK_OK;
}

static lk_status pick_token_backward(lk_call *c)
{
    size_t width = (size_t)c->y.dims[1];
    if (!c->gx[0]) return LK_OK;
    for (size_t row = 0; row < (size_t)c->y.dims[0]; row++)
        c->team->kernels->axpy(1, c->gy + row * width, width,
                               c->gx[0] + (row * (size_t)c->x->dims[1] + picked(c, row)) * width);
    return LK_OK;
}

const lk_operator lk_operator_pick_token = {pick_token_forward, pick_token_backward, NULL, NULL};
