/* oneDNN, wrapped: one primitive ready to run, its memories, and the packing of weights. */
#ifndef LK_NN_DNN_H
#define LK_NN_DNN_H

#include "nn/op.h"

#include <oneapi/dnnl/dnnl.h>

/* LK_OK, or a failure that says what was being made (LK_NO_MEMORY, LK_UNSUPPORTED). */
lk_status lk_dnn_check(dnnl_status_t status, const char *what);

typedef struct lk_dnn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
} lk_dnn;
/* Loads oneDNN, the first time in a process; nothing when it is open. */
lk_status lk_dnn_open(lk_dnn *dnn);
void lk_dnn_close(lk_dnn *dnn);

enum { LK_DNN_ARGS = 10, LK_MAX_POSTS = 6 };

/* What follows a product within the same primitive. */
typedef struct lk_post {
    enum { LK_POST_ACTIVATION, LK_POST_SUM, LK_POST_ADD, LK_POST_MULTIPLY } kind;
    lk_activation activation;
    int value;           /* LK_POST_ADD, LK_POST_MULTIPLY: whose memory; LK_POST_SUM adds to what dst holds */
    const lk_view *view; /* of that value */
    float scale;         /* LK_POST_SUM: of the codes in dst */
} lk_post;

/* A primitive and its arguments. Memories are made empty; lk_dnn_op_bind gives each its address. */
typedef struct lk_dnn_op {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[LK_DNN_ARGS];
    int values[LK_DNN_ARGS];     /* number of the value whose memory it is; LK_DNN_FIXED, LK_DNN_SCRATCH */
    size_t offsets[LK_DNN_ARGS]; /* bytes into that memory; 0 unless set afterwards */
    int count;
    size_t scratch; /* bytes */
    /* x sigmoid(factor x) of the result x / unit, by a kernel of our own afterwards; nothing when numbers is 0 */
    struct lk_dnn_swish {
        lk_type type;
        float unit; /* -ln(2) / factor */
        void *data;
        size_t numbers;
    } swish;
} lk_dnn_op;
enum { LK_DNN_FIXED = -1, LK_DNN_SCRATCH = -2 };

void lk_dnn_op_free(lk_dnn_op *op);
/* Takes over nothing: the descriptor may be destroyed afterwards. data may be NULL and bound later. */
lk_status lk_dnn_op_arg(const lk_dnn *dnn, lk_dnn_op *op, int arg, const_dnnl_memory_desc_t desc, int value,
                        void *data);
lk_status lk_dnn_op_create(const lk_dnn *dnn, lk_dnn_op *op, const_dnnl_primitive_desc_t desc, const char *what);
lk_status lk_dnn_op_run(const lk_dnn *dnn, lk_dnn_op *op, const char *what);

dnnl_data_type_t lk_dnn_type(lk_type type);
/* Descriptor of a view: pictures as [N, C, H, W] channels last (or plain), the rest as it is; any: oneDNN chooses. */
lk_status lk_dnn_desc(const lk_view *view, bool any, dnnl_memory_desc_t *out);
/* The same memory as a matrix of rows x last dimension. */
lk_status lk_dnn_desc_rows(const lk_view *view, dnnl_memory_desc_t *out);
/* Attributes with post-operations and memory for scratch given by the caller. weight_scales: per output channel (int8).
 */
lk_status lk_dnn_attributes(const lk_post *posts, int count, bool rows, dnnl_primitive_attr_t *out);
/* Whether an activation may be a post-operation, and under which name. */
bool lk_dnn_activation(lk_activation kind, dnnl_alg_kind_t *alg, float *alpha, float *beta);

/* Copies `from` (described by from_desc) into memory of another description. */
lk_status lk_dnn_reorder(const lk_dnn *dnn, const_dnnl_memory_desc_t from_desc, const void *from,
                         const_dnnl_memory_desc_t to_desc, void *to, dnnl_primitive_attr_t attributes);

/* Convolution's strides, dilations (as oneDNN counts them) and padding. */
typedef struct lk_dnn_conv {
    dnnl_dims_t strides, dilates, pad_before, pad_after;
} lk_dnn_conv;
lk_dnn_conv lk_dnn_conv_of(const lk_conv *conv);
/* Descriptor of weights [out, in/groups, kh, kw], split by groups where there are any; plain order or chosen by oneDNN.
 */
lk_status lk_dnn_conv_weights(const lk_conv *conv, int64_t in, dnnl_data_type_t type, bool any,
                              dnnl_memory_desc_t *out);

#endif
