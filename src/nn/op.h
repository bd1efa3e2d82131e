/* An operator: what it computes forward and backward, told the same way for every kind of node. */
#ifndef LK_NN_OP_H
#define LK_NN_OP_H

#include "nn/graph.h"
#include "nn/team.h"

/* A value in memory. Pictures [N, C, H, W] lie in blocks of channels: element (n, c, p) with p = y*W + x is at
 * ((n * blocks + c / block) * H*W + p) * block + c % block. A block of all channels is "channels last", of one is the
 * plain order; channels that fill up the last block are zero. Everything else lies row after row (block 0). */
typedef struct lk_view {
    lk_type type;
    float scale; /* of integers: value = scale * code; otherwise 1 */
    int rank;
    int64_t dims[LK_MAX_DIMS]; /* batch in numbers */
    int64_t block;
    void *data;
} lk_view;

/* A view as batch x blocks x positions x block: every layout above, and tokens or rows with block = the last dimension.
 */
typedef struct lk_grid {
    size_t batch, blocks, positions, block;
} lk_grid;
lk_grid lk_grid_of(const lk_view *view);
size_t lk_view_elements(const lk_view *view); /* filled-up channels included */
size_t lk_view_bytes(const lk_view *view);
static inline size_t lk_grid_row(lk_grid g)
{
    return g.blocks * g.positions * g.block;
}
static inline void *lk_view_at(const lk_view *view, size_t element)
{
    return (char *)view->data + element * lk_type_width(view->type);
}

typedef struct lk_call {
    const lk_team *team;
    const lk_node_data *node;
    const lk_view *x; /* one per input of the node */
    lk_view y;
    const float *p[LK_MAX_PARAMETERS]; /* parameters; vectors over channels are filled up with zeros to whole blocks */
    bool train;                        /* batch statistics, dropout */
    uint64_t seed;                     /* of this step's dropout */
    void *saved;                 /* what forward leaves for backward; size from lk_operator.saved; NULL in inference */
    float *scratch;              /* size from lk_operator.scratch */
    const lk_together *together; /* training with other processes; NULL = alone */

    bool relu; /* training: batch norm and sums compute the ReLU behind them too, y is its value */

    /* Backward: all values f32. gx and gp are added to, gx set where `write` says so; NULL where nobody asks. */
    const float *gy;
    float *gx[LK_MAX_INPUTS];
    bool write[LK_MAX_INPUTS];
    float *gp[LK_MAX_PARAMETERS];
    float *statistics[2]; /* batch norm in training: running mean and variance to update, NULL = keep */
} lk_call;

typedef struct lk_operator {
    lk_status (*forward)(lk_call *call);
    lk_status (*backward)(lk_call *call);
    size_t (*saved)(const lk_call *call);   /* bytes; NULL = none */
    size_t (*scratch)(const lk_call *call); /* floats, for forward and backward; NULL = none */
} lk_operator;

/* Whether a sum is of f32 that lie alike, of one shape: then it may compute a ReLU behind it too. */
bool lk_add_alike(const lk_call *call);

/* NULL functions where an operator has none of its own (inputs, parameters; convolution and products go to oneDNN). */
const lk_operator *lk_operator_of(lk_op op);

extern const lk_operator lk_operator_activation, lk_operator_add, lk_operator_multiply, lk_operator_scale,
    lk_operator_scale_by, lk_operator_dropout, lk_operator_drop_path, lk_operator_batch_norm, lk_operator_layer_norm,
    lk_operator_l2_normalise, lk_operator_max_pool, lk_operator_avg_pool, lk_operator_adaptive_pool,
    lk_operator_global_avg, lk_operator_global_max, lk_operator_softmax, lk_operator_attention, lk_operator_concat,
    lk_operator_slice, lk_operator_copy, lk_operator_transpose, lk_operator_positions, lk_operator_embedding,
    lk_operator_pick_token;

/* Reads or writes n numbers of a view from element `at` on. */
static inline void lk_get(const lk_call *call, const lk_view *view, size_t at, size_t n, float *out)
{
    call->team->kernels->load(view->type, view->scale, lk_view_at(view, at), n, out);
}
static inline void lk_set(const lk_call *call, const lk_view *view, size_t at, size_t n, const float *values)
{
    call->team->kernels->store(view->type, view->scale, values, n, lk_view_at(view, at));
}

/* Copies dims[rank] elements with strides (in elements) of both sides; the innermost dimension is last. add: dst += src
 * (f32 only). */
typedef struct lk_strided {
    int rank;
    int64_t dims[LK_MAX_DIMS + 1], from[LK_MAX_DIMS + 1], to[LK_MAX_DIMS + 1];
} lk_strided;
void lk_copy_strided(const lk_team *team, const lk_strided *how, const lk_view *src, size_t src_at, const lk_view *dst,
                     size_t dst_at, bool add);
/* Strides of a view's dimensions in elements; false for blocks that are neither all channels nor one. */
bool lk_view_strides(const lk_view *view, int64_t strides[LK_MAX_DIMS]);

/* Position embedding, resized: positions [prefix + fh*fw][width] -> out. LK_NO_MEMORY. */
lk_status lk_resize_positions(const lk_positions *how, size_t width, const float *positions, float *out);

#endif
