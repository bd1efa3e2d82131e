/* Inside of a training: every value of the graph is kept for the backward pass, f32, pictures channels last. */
#ifndef LK_NN_TRAINING_H
#define LK_NN_TRAINING_H

#include "nn/dnn.h"

/* A product in one direction: arguments are converted into what the primitive wants (bf16, oneDNN's layout of weights)
 * before it, and its result out of it after. */
typedef struct lk_tproduct {
    lk_dnn_op op;
    struct lk_tcopy {
        dnnl_primitive_t reorder;
        dnnl_exec_arg_t args[2];
        void *data;            /* of the converted side; owned unless of another product */
        struct lk_tcopy *same; /* that of the other product; NULL = none */
        bool ready;            /* it has converted these values before */
    } before[2], after;
    int before_count;
    bool has_after;
} lk_tproduct;

typedef struct lk_tnode {
    lk_view y;       /* the value */
    float *gradient; /* as y; NULL when nobody needs it */
    bool owned;      /* y.data and gradient are its own (not a parameter's) */
    bool wanted;     /* a gradient must reach this node: a parameter or an input lies behind it */
    bool needed;     /* one does in this step */
    bool direct;     /* its gradient is first written, not added to: no need to clear it */
    bool shares;     /* its gradient is that of its only reader */
    lk_node through; /* the ReLU behind that it computes too, whose value it makes; LK_NO_NODE */
    bool within;     /* it is such a ReLU */
    lk_call call;
    lk_view x[LK_MAX_INPUTS];     /* inputs as the operator wants them: the node's memory, or a copy */
    float *copies[LK_MAX_INPUTS]; /* value of the copy, then its gradient; NULL = none */
    lk_strided how[LK_MAX_INPUTS];
    lk_tproduct forward, to_input[2], to_weight; /* matmul uses to_input for both sides */
} lk_tnode;

struct lk_training {
    lk_graph *graph;
    lk_training_options options;
    lk_team team;
    lk_dnn dnn;
    lk_tnode *nodes;
    float **gradients; /* per parameter; NULL for buffers and what is frozen */
    bool *frozen;
    char *scratch;
    size_t scratch_bytes;
    float *result; /* of products whose result is added to something */
    size_t result_bytes;
    uint64_t step;
    bool ran, trained;
};

/* Products of training (training_products.c). Memories are bound by lk_training_bind_product before each use. */
lk_status lk_training_make_products(lk_training *t, lk_node at);
lk_status lk_training_forward_product(lk_training *t, lk_node at);
lk_status lk_training_backward_product(lk_training *t, lk_node at);
void lk_training_free_product(lk_tproduct *product);

static inline bool lk_is_product(lk_op op)
{
    return op == LK_OP_CONV || op == LK_OP_LINEAR || op == LK_OP_MATMUL;
}

#endif
