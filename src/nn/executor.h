/* Inside of an executor: values with places in memory, and steps that run one after another. */
#ifndef LK_NN_EXECUTOR_H
#define LK_NN_EXECUTOR_H

#include "nn/dnn.h"
#include "nn/fuse.h"

typedef struct lk_value {
    lk_view view; /* data NULL until memory is planned */
    size_t bytes;
    bool constant;   /* in the weights */
    bool pinned;     /* read after the run: never overwritten */
    int first, last; /* steps that write and last read it; -1 before */
    int same_as;     /* shares the memory of an earlier value; -1 */
    size_t offset;
} lk_value;

typedef enum lk_step_kind {
    LK_STEP_OPERATOR,
    LK_STEP_DNN,
    LK_STEP_COPY,
    LK_STEP_WINOGRAD,
    LK_STEP_PRODUCT,
    LK_STEP_CONV
} lk_step_kind;

/* A 3x3 convolution by Winograd's way, and what follows it (others: number in step->views). Weights
 * [36][out/64][in][64] f32, or [16][out/64][in/2][64][2] bf16. */
typedef struct lk_winograd {
    const void *weights;
    const float *bias;
    lk_post posts[LK_MAX_POSTS];
    int post_count;
} lk_winograd;

/* A product by kernels of our own: y = after(before(x W^T + bias) + other). Weights in panels of 64 outputs, the last
 * of as many sixteens as there are outputs for. Of a convolution the rows of x are its windows. */
typedef struct lk_product {
    const void *weights;
    const float *bias; /* filled up to whole panels; NULL = none */
    size_t k, out;
    int before, after, other; /* activations, -1 = none; number in step->views, 0 = none */
} lk_product;

typedef struct lk_step {
    lk_step_kind kind;
    const lk_node_data *node; /* for messages */
    int inputs[LK_MAX_INPUTS], input_count, output;
    /* LK_STEP_OPERATOR */
    lk_call call;
    lk_view views[LK_MAX_INPUTS];
    const lk_operator *operator;
    size_t scratch; /* bytes */
    /* LK_STEP_DNN: primitives that do not depend on each other, one for each thread that there is work for */
    lk_dnn_op *dnn;
    int dnn_count;
    lk_winograd winograd; /* LK_STEP_WINOGRAD */
    lk_product product;   /* LK_STEP_PRODUCT, LK_STEP_CONV */
    /* LK_STEP_COPY: the same elements in another layout or type */
    lk_strided copy;
} lk_step;

/* Packed weights, shared by the executors cloned from one: pieces in the order in which compiling asks for them. */
typedef struct lk_weights {
    _Atomic int owners;
    struct lk_piece {
        void *data;
        size_t bytes;
        dnnl_memory_desc_t layout; /* of what is packed for a primitive; NULL = numbers in a row */
    } * pieces;
    size_t count, capacity;
} lk_weights;

struct lk_executor {
    const lk_graph *graph;
    lk_compile_options options; /* keep is a copy */
    lk_team team;
    lk_dnn dnn;
    lk_weights *weights;
    size_t next_piece; /* while compiling */
    lk_fused *fused;   /* while compiling */
    int *value_of;     /* [node_count]: -1 = none */
    /* While compiling, per node: */
    lk_node *memory_of; /* the node whose memory it shows (itself, but for reshapes and the like) */
    int *last_read;     /* of that memory: where its last reader runs */
    int *readers;       /* of that memory */
    bool *pinned;       /* read after the run */
    lk_type *types;     /* how the value is stored */
    float *scales;      /* of integers */
    lk_type *in_types;  /* of convolutions and linear layers: what they multiply */
    float *in_scales;
    lk_value *values;
    size_t value_count, value_capacity;
    lk_step *steps;
    size_t step_count, step_capacity;
    char *memory; /* activations */
    size_t memory_bytes, unplanned_bytes;
    char *scratch;
    size_t scratch_bytes;
    int reorders;
    int64_t ran;  /* rows of the last run */
    bool *spoilt; /* [batch]: rows of the last run in which something was no number */

    /* A large batch is run in small parts, each by an executor of its own (batch.c); then nothing above but graph,
     * options and team is used. */
    lk_executor **parts;
    int part_count;
    float **results; /* per output of the graph: [batch, ...] */
};

/* The next piece of the weights; *fresh says whether it must be filled. NULL when out of memory, or should the executor
 * that this one shares with have asked for another size here (pieces go by shapes and types alone, so it has not). */
void *lk_weights_next(lk_executor *e, size_t bytes, bool *fresh);
/* Takes back the pieces from number `first` on: what asked for them is compiled anew. Those of other executors stay. */
void lk_weights_rewind(lk_executor *e, size_t first);

/* Compiles for exactly this batch. like: an executor whose weights and types are taken over; NULL = none. */
lk_status lk_executor_make(const lk_graph *graph, const lk_compile_options *options, const lk_executor *like,
                           lk_executor **out);
void lk_executor_free_one(lk_executor *e);
/* Runs and reads an executor without parts. */
lk_status lk_executor_run_one(lk_executor *e, int64_t batch, const void *const *inputs, float *const *outputs);
lk_status lk_executor_read_one(const lk_executor *e, lk_node node, float *out);

/* lk_executor_run_one in pieces, for whoever times them: copies the inputs in, runs one step. */
void lk_executor_fill(lk_executor *e, int64_t batch, const void *const *inputs);
lk_status lk_executor_run_step(lk_executor *e, size_t index);

/* Looks at all inputs, and at some of what a step gave; rows with NaN or infinity are spoilt, and an output of
 * [batch][row] becomes NaN for them (spot.c). */
void lk_spot_inputs(lk_executor *e, int64_t batch);
void lk_spot_step(lk_executor *e, const lk_step *step, int64_t batch);
void lk_spot_output(const lk_executor *e, int64_t batch, size_t row, float *output);

/* Makes a value; returns its number, -1 when out of memory. */
int lk_executor_value(lk_executor *e, lk_view view);
lk_step *lk_executor_step(lk_executor *e, lk_step_kind kind, const lk_node_data *node);
void lk_step_free(lk_step *step);

/* Value of a node, made into the layout and type that an operator wants (a copy is inserted where it differs). */
typedef enum lk_layout { LK_LAYOUT_ANY, LK_LAYOUT_PLAIN, LK_LAYOUT_LAST } lk_layout;
lk_status lk_executor_want(lk_executor *e, int value, lk_layout layout, lk_type type, float scale, int *out);

/* Whether the operator that runs at `position` may write its result over the value of `node`: nobody reads it later. */
bool lk_executor_may_overwrite(const lk_executor *e, lk_node node, int position);
/* Value of a node; parameters become constants on first asking. */
lk_status lk_executor_value_of(lk_executor *e, lk_node node, int *out);

/* Turns a group of the graph (see fuse.h) into one primitive. */
lk_status lk_lower_conv(lk_executor *e, lk_node anchor);
/* Whether a convolution goes Winograd's way: by its shape alone, so that the bytes do not depend on the batch. */
bool lk_winograd_fits(const lk_executor *e, const lk_conv *conv, const lk_view *x, const lk_view *y);
/* Weights [out][in][3][3] to what a step multiplies, and how many bytes that takes. */
size_t lk_winograd_bytes(lk_type type, size_t in, size_t out);
void lk_winograd_weights(const lk_nn_kernels *kernels, lk_type type, const float *weights, size_t in, size_t out,
                         void *packed);
size_t lk_winograd_scratch(const lk_executor *e, const lk_step *step);
void lk_winograd_run(lk_executor *e, lk_step *step);

/* Whether our own kernels take a product of this type: by its shape alone, but for the rows. single: a row per picture,
 * not many. */
bool lk_product_fits(const lk_executor *e, lk_type type, size_t k, size_t out, bool single);
/* Weights [out][k] into panels, and the bytes that takes. */
size_t lk_product_bytes(lk_type type, size_t k, size_t out);
void lk_product_weights(const lk_nn_kernels *kernels, lk_type type, const float *weights, size_t k, size_t out,
                        void *packed);
size_t lk_product_scratch(const lk_executor *e);
void lk_product_run(lk_executor *e, lk_step *step);
/* What follows `rows` rows of a panel's sums [rows][64], from row `first` and output `at` on. */
void lk_product_finish(const lk_executor *e, const lk_step *step, size_t first, size_t rows, size_t at,
                       const float *sums);

/* The same for convolutions (conv.c). */
bool lk_conv_fits(const lk_conv *conv, const lk_view *x, const lk_view *y);
size_t lk_conv_bytes(const lk_conv *conv, size_t in);
/* factor [out]: the weights are multiplied with it; NULL = not. */
void lk_conv_weights(const lk_conv *conv, const float *weights, const float *factor, size_t in, float *packed);
size_t lk_conv_scratch(const lk_executor *e, lk_step *step);
void lk_conv_run(lk_executor *e, lk_step *step);

lk_status lk_lower_linear(lk_executor *e, lk_node anchor);
lk_status lk_lower_matmul(lk_executor *e, lk_node node);

/* Type that activations have between operators. */
lk_type lk_executor_type(const lk_executor *e);

/* Chooses which values are integers, and their scales (calibrate.c). */
lk_status lk_calibration_apply(const lk_calibration *calibration, lk_executor *e);

/* Gives every value an offset: those whose lives do not meet share memory. */
lk_status lk_plan_memory(lk_executor *e);

#endif
