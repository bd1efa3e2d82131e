/* Neural networks: a graph of operators built once by plain calls, compiled for inference or for training, run many
 * times.
 *
 *     lk_graph_new(&g);
 *     x = lk_graph_input(g, "image", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, 3, 224, 224});
 *     x = lk_graph_conv(g, "conv1", x, &(lk_conv){.out = 64, .kernel = {7, 7}, .stride = {2, 2}, .pad = {3, 3, 3, 3}});
 *     x = lk_graph_batch_norm(g, "bn1", x, 1e-5f, 0.1f);         // reads bn1.weight, bn1.bias, bn1.running_mean, ...
 *     x = lk_graph_activation(g, "act1", x, LK_RELU);
 *     lk_graph_output(g, x);
 *     lk_graph_check(g);                                         // the first mistake of all the calls above
 *     lk_graph_load(g, "conv1.weight", &tensor);                 // for every parameter
 *     lk_graph_compile(g, &(lk_compile_options){.batch = 16, .precision = LK_PRECISION_BF16}, &e);
 *     lk_executor_run(e, n, inputs, outputs);
 *
 * Shapes: dimension 0 of an activation is the batch (LK_BATCH); pictures are [N, C, H, W], tokens [N, T, C]. Values are
 * handed in and out in this order, row after row, whatever order the executor keeps inside.
 * Names: an operator with parameters takes the prefix of their names in published files ("layer1.0.conv1" reads
 * "layer1.0.conv1.weight"); every node can be found by its name. NULL gives a node a name of its own ("add_17").
 * Mistakes while building (shapes that do not fit, a name used twice) are kept: the call returns LK_NO_NODE, later
 * calls do nothing, and lk_graph_check returns the first one with a message that names the node. */
#ifndef LIKENESS_NN_H
#define LIKENESS_NN_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LK_MAX_DIMS = 6, LK_BATCH = -1 };

typedef enum lk_type {
    LK_TYPE_F32,
    LK_TYPE_BF16,
    LK_TYPE_F16,
    LK_TYPE_F64,
    LK_TYPE_I32,
    LK_TYPE_I64,
    LK_TYPE_I8,
    LK_TYPE_U8
} lk_type;
LK_API size_t lk_type_bytes(lk_type type);

/* A tensor somewhere in memory, borrowed: rows after rows without gaps, no alignment asked. */
typedef struct lk_tensor {
    lk_type type;
    int rank; /* 0..LK_MAX_DIMS; 0 is one number */
    int64_t dims[LK_MAX_DIMS];
    const void *data;
} lk_tensor;

typedef struct lk_graph lk_graph;
typedef int32_t lk_node;
#define LK_NO_NODE ((lk_node)-1)

LK_API lk_status lk_graph_new(lk_graph **out);
LK_API void lk_graph_free(lk_graph *graph); /* after every executor and training made from it */
/* LK_OK, or the first mistake made while building. */
LK_API lk_status lk_graph_check(const lk_graph *graph);

/* Nodes ---------------------------------------------------------------------------------------------------------- */

/* LK_TYPE_F32, or LK_TYPE_I32 for the ids of lk_graph_embedding. dims[0] must be LK_BATCH. */
LK_API lk_node lk_graph_input(lk_graph *graph, const char *name, lk_type type, int rank, const int64_t *dims);
/* A learnt tensor as a node (class token, position embedding). Asking again for a name gives the same node, so weights
 * may be shared; the shape must then be the same. */
LK_API lk_node lk_graph_parameter(lk_graph *graph, const char *name, int rank, const int64_t *dims);
/* Makes a node a result of the graph; outputs are numbered in the order of these calls. */
LK_API void lk_graph_output(lk_graph *graph, lk_node node);

typedef struct lk_conv {
    int64_t out;         /* channels */
    int64_t kernel[2];   /* height, width */
    int64_t stride[2];   /* 0 = 1 */
    int64_t dilation[2]; /* distance of taps; 0 = 1 */
    int64_t pad[4];      /* top, left, bottom, right */
    int64_t groups;      /* 0 = 1; the number of input channels makes it depthwise */
    bool no_bias;        /* no parameter <name>.bias */
    float deviation;     /* of the weights that lk_graph_initialise draws; 0 = He's over the outputs of a group */
} lk_conv;
/* Convolution. <name>.weight [out, in/groups, kh, kw], <name>.bias [out]. */
LK_API lk_node lk_graph_conv(lk_graph *graph, const char *name, lk_node x, const lk_conv *conv);
/* Padding of TensorFlow's "same": total = max((ceil(in/stride)-1)*stride + (kernel-1)*dilation + 1 - in, 0), the
 * smaller half first. Fills pad from the height and width of x. */
LK_API void lk_graph_same_padding(const lk_graph *graph, lk_node x, lk_conv *conv);

/* Batch normalisation (Ioffe & Szegedy, 2015) over channels (dimension 1). <name>.weight .bias .running_mean
 * .running_var, each [C]. momentum is the weight of the new batch in the running statistics (training only). */
LK_API lk_node lk_graph_batch_norm(lk_graph *graph, const char *name, lk_node x, float eps, float momentum);
/* Layer normalisation (Ba et al., 2016) over the last dimension; of pictures [N, C, H, W] over the channels of each
 * position (ConvNeXt's LayerNorm2d). <name>.weight, .bias [C]. */
LK_API lk_node lk_graph_layer_norm(lk_graph *graph, const char *name, lk_node x, float eps);

/* y = x W^T + b over the last dimension. <name>.weight [out, in], <name>.bias [out] unless no_bias. */
LK_API lk_node lk_graph_linear(lk_graph *graph, const char *name, lk_node x, int64_t out, bool no_bias);
/* The same with parameters that were made by lk_graph_parameter: weight [out, in]; bias [out] or LK_NO_NODE. */
LK_API lk_node lk_graph_linear_with(lk_graph *graph, const char *name, lk_node x, lk_node weight, lk_node bias);
/* a [..., m, k] times b [..., k, n] (or [..., n, k] with transpose_b); leading dimensions equal, or b is a parameter of
 * rank 2. */
LK_API lk_node lk_graph_matmul(lk_graph *graph, const char *name, lk_node a, lk_node b, bool transpose_b);

/* Over the last dimension. */
LK_API lk_node lk_graph_softmax(lk_graph *graph, const char *name, lk_node x);

typedef struct lk_attention {
    int64_t heads;
    float scale; /* of q.k; 0 = 1/sqrt(width of a head) */
    bool causal; /* token i sees tokens 0..i */
} lk_attention;
/* Multi-head attention softmax(scale q k^T) v (Vaswani et al., 2017, eq. 1), heads side by side in the last dimension.
 * q [N, T, C], k and v [N, S, C]. q may be a parameter-made node [1, T, C], used for each picture (attention pooling).
 */
LK_API lk_node lk_graph_attention(lk_graph *graph, const char *name, lk_node q, lk_node k, lk_node v,
                                  const lk_attention *attention);
/* The same with q, k, v side by side in one tensor [N, T, 3C], as timm's "qkv" gives them. */
LK_API lk_node lk_graph_attention_qkv(lk_graph *graph, const char *name, lk_node qkv, const lk_attention *attention);

typedef enum lk_activation {
    LK_RELU,
    LK_RELU6,
    LK_GELU,       /* x/2 (1 + erf(x/sqrt 2)) */
    LK_GELU_TANH,  /* its approximation by tanh */
    LK_QUICK_GELU, /* x sigmoid(1.702 x) */
    LK_SILU,       /* x sigmoid(x) */
    LK_SIGMOID,
    LK_HARD_SWISH,   /* x relu6(x+3)/6 */
    LK_HARD_SIGMOID, /* relu6(x+3)/6 */
    LK_TANH
} lk_activation;
LK_API lk_node lk_graph_activation(lk_graph *graph, const char *name, lk_node x, lk_activation kind);

typedef struct lk_pool2d {
    int64_t kernel[2], stride[2]; /* height, width; stride 0 = kernel */
    int64_t pad[4];               /* top, left, bottom, right */
    bool ceil_mode;               /* a last window that begins inside the picture but ends outside counts */
    bool count_pad;               /* averages count padding as zeros */
} lk_pool2d;
LK_API lk_node lk_graph_max_pool(lk_graph *graph, const char *name, lk_node x, const lk_pool2d *pool);
LK_API lk_node lk_graph_avg_pool(lk_graph *graph, const char *name, lk_node x, const lk_pool2d *pool);
/* [N, C, H, W] -> [N, C]. */
LK_API lk_node lk_graph_global_avg_pool(lk_graph *graph, const char *name, lk_node x);
LK_API lk_node lk_graph_global_max_pool(lk_graph *graph, const char *name, lk_node x);
/* Average over bins floor(i H/h) .. ceil((i+1) H/h), as PyTorch's AdaptiveAvgPool2d. */
LK_API lk_node lk_graph_adaptive_avg_pool(lk_graph *graph, const char *name, lk_node x, int64_t height, int64_t width);
/* Mean over dimension 1 of [N, T, C] -> [N, C]. */
LK_API lk_node lk_graph_mean_tokens(lk_graph *graph, const char *name, lk_node x);

/* Elementwise with broadcasting as NumPy does it: ranks equal, dimensions equal or 1 in one of them. [N, C] also fits
 * [N, C, H, W] as [N, C, 1, 1] (squeeze and excitation), and a parameter of smaller rank is lined up at the end. */
LK_API lk_node lk_graph_add(lk_graph *graph, const char *name, lk_node a, lk_node b);
LK_API lk_node lk_graph_multiply(lk_graph *graph, const char *name, lk_node a, lk_node b);
/* x times a learnt vector over the channels (last dimension; dimension 1 of pictures): layer scale. `parameter` is the
 * full name ("blocks.0.ls1.gamma"), its shape [C]. */
LK_API lk_node lk_graph_scale(lk_graph *graph, const char *name, lk_node x, const char *parameter);
/* x times a constant. */
LK_API lk_node lk_graph_scale_by(lk_graph *graph, const char *name, lk_node x, float factor);

/* Along `axis`, all other dimensions equal; a parameter-made node of batch 1 is repeated over the batch (class token).
 */
LK_API lk_node lk_graph_concat(lk_graph *graph, const char *name, const lk_node *nodes, int count, int axis);
/* [begin, end) along `axis`, not the batch. */
LK_API lk_node lk_graph_slice(lk_graph *graph, const char *name, lk_node x, int axis, int64_t begin, int64_t end);
/* One dimension may be 0: what is left. dims[0] stays the batch. */
LK_API lk_node lk_graph_reshape(lk_graph *graph, const char *name, lk_node x, int rank, const int64_t *dims);
/* Dimension i of the result is dimension order[i] of x; order[0] must be 0. */
LK_API lk_node lk_graph_transpose(lk_graph *graph, const char *name, lk_node x, const int *order);
/* [N, C, H, W] -> [N, H*W, C]: a transpose for whoever reads it, free inside. */
LK_API lk_node lk_graph_tokens(lk_graph *graph, const char *name, lk_node x);

/* Nothing in inference. Elements are dropped with probability p, the rest is scaled by 1/(1-p) (Srivastava et al.,
 * 2014); drop_path drops whole pictures of the batch (stochastic depth, Huang et al., 2016). */
LK_API lk_node lk_graph_dropout(lk_graph *graph, const char *name, lk_node x, float p);
LK_API lk_node lk_graph_drop_path(lk_graph *graph, const char *name, lk_node x, float p);

/* x / max(|x|, eps) over the last dimension (1e-12 as in PyTorch's normalize). */
LK_API lk_node lk_graph_l2_normalise(lk_graph *graph, const char *name, lk_node x, float eps);

typedef struct lk_positions {
    int64_t prefix;  /* leading tokens that are kept as they are (class token, registers) */
    int64_t from[2]; /* grid of the parameter: height, width */
    int64_t to[2];   /* grid wanted */
    bool antialias;  /* timm: true; DINOv2 of transformers: false */
    double scale[2]; /* 0 = from/to; DINOv2's original code passes 1/((to+0.1)/from) */
} lk_positions;
/* Position embedding [1, prefix + fh*fw, C] resized bicubically (a = -0.75, or -0.5 with antialias, half-pixel centres)
 * to [1, prefix + th*tw, C]. Inference does it once, when compiling. */
LK_API lk_node lk_graph_interpolate_positions(lk_graph *graph, const char *name, lk_node positions,
                                              const lk_positions *how);

/* ids [N, T] of LK_TYPE_I32 -> [N, T, dim]. <name>.weight [vocabulary, dim]. Running refuses ids outside. */
LK_API lk_node lk_graph_embedding(lk_graph *graph, const char *name, lk_node ids, int64_t vocabulary, int64_t dim);
/* x [N, T, C] at the first token whose id is `id`; id < 0: at the first of the largest ids. -> [N, C] (CLIP's end of
 * text; a row without that id gives its first token, as argmax of all zeros does). */
LK_API lk_node lk_graph_pick_token(lk_graph *graph, const char *name, lk_node x, lk_node ids, int32_t id);

/* What was built -------------------------------------------------------------------------------------------------- */

typedef struct lk_shape {
    int rank;
    int64_t dims[LK_MAX_DIMS]; /* LK_BATCH first in activations */
} lk_shape;

LK_API int lk_graph_node_count(const lk_graph *graph);
LK_API lk_node lk_graph_find(const lk_graph *graph, const char *name); /* LK_NO_NODE when there is none */
LK_API const char *lk_graph_node_name(const lk_graph *graph, lk_node node);
LK_API lk_shape lk_graph_shape(const lk_graph *graph, lk_node node); /* rank 0 for LK_NO_NODE */
LK_API int lk_graph_output_count(const lk_graph *graph);
LK_API lk_node lk_graph_output_at(const lk_graph *graph, int index);

/* Parameters ------------------------------------------------------------------------------------------------------ */

typedef struct lk_parameter {
    const char *name; /* owned by the graph */
    lk_shape shape;
    bool buffer; /* a running statistic: no gradient */
    bool loaded;
    size_t elements;
} lk_parameter;

LK_API size_t lk_graph_parameter_count(const lk_graph *graph);
LK_API lk_parameter lk_graph_parameter_at(const lk_graph *graph, size_t index);
/* Index of a parameter, or -1. */
LK_API int64_t lk_graph_parameter_index(const lk_graph *graph, const char *name);
/* Copies a tensor of any float type into a parameter. LK_NOT_FOUND (no such parameter), LK_INVALID (shape: the message
 * has both), LK_UNSUPPORTED (not floats), LK_CORRUPT (NaN, infinity, above 1e16; the message names the tensor). */
LK_API lk_status lk_graph_load(lk_graph *graph, const char *name, const lk_tensor *tensor);
/* The same without copying when it is f32: tensor->data must outlive the graph (a mapped file). Training copies first.
 */
LK_API lk_status lk_graph_load_borrowed(lk_graph *graph, const char *name, const lk_tensor *tensor);
/* LK_NOT_FOUND with the name of the first parameter that was never loaded. */
LK_API lk_status lk_graph_check_loaded(const lk_graph *graph);
/* The parameter's values, f32; NULL before loading. Owned by the graph. */
LK_API const float *lk_graph_values(const lk_graph *graph, size_t index);
/* The same for changing; copies what was borrowed. LK_INVALID before loading. */
LK_API lk_status lk_graph_values_writable(lk_graph *graph, size_t index, float **values);
/* Random starting values for what was not loaded yet: convolutions He-normal over the outputs (He et al., 2015), linear
 * and embedding weights normal with deviation 0.02, norms 1 and 0. The same seed gives the same values. */
LK_API lk_status lk_graph_initialise(lk_graph *graph, uint64_t seed);

/* Inference ------------------------------------------------------------------------------------------------------- */

typedef enum lk_precision {
    LK_PRECISION_F32,
    LK_PRECISION_BF16, /* weights and activations bf16, sums f32 */
    LK_PRECISION_INT8  /* convolutions and linear layers u8/s8 after lk_calibration; the rest bf16 or f32 */
} lk_precision;

/* Ranges of activations seen on samples, for LK_PRECISION_INT8. */
typedef struct lk_calibration lk_calibration;

typedef struct lk_compile_options {
    int64_t batch; /* most rows of one run; 0 = 1 */
    lk_precision precision;
    int threads;                       /* 0 = 1 */
    const lk_calibration *calibration; /* needed for LK_PRECISION_INT8; borrowed for the call */
    const lk_node *keep;               /* nodes that are read besides the outputs (feature maps) */
    int keep_count;
    bool no_reuse;  /* every value gets memory of its own (for tests of the planner) */
    bool no_fusion; /* every operator by itself (for tests of the fusing) */
} lk_compile_options;

typedef struct lk_executor lk_executor;

/* Folds, fuses, packs the weights and plans memory. The graph must outlive the executor; later changes of parameters
 * are not seen. LK_UNSUPPORTED: bf16 or int8 on a processor without instructions for it (the message says so). */
LK_API lk_status lk_graph_compile(const lk_graph *graph, const lk_compile_options *options, lk_executor **out);
LK_API void lk_executor_free(lk_executor *executor);
/* Another executor of the same weights for another thread; only activations are new. */
LK_API lk_status lk_executor_clone(const lk_executor *executor, lk_executor **out);

/* Runs on `batch` rows (1..options.batch; fewer cost no less than all). inputs: one pointer per input of the graph, in
 * order of their making, [batch, ...] of the input's type. outputs: one per output, f32 [batch, ...], NULL = not
 * wanted. The values of a row do not depend on `batch`, on the row's place, or on the number of threads. A row whose
 * input holds NaN or infinity, or whose sums pass 1e16 on the way, gives NaN, also where a ReLU would hide it. One
 * thread at a time per executor. LK_INVALID (batch, an id outside of its embedding). */
LK_API lk_status lk_executor_run(lk_executor *executor, int64_t batch, const void *const *inputs,
                                 float *const *outputs);
/* After a run: the values of a node that is an output or in `keep`, as f32 [batch, ...] in the order of its shape. */
LK_API lk_status lk_executor_read(const lk_executor *executor, lk_node node, float *out);

typedef struct lk_executor_stats {
    size_t weight_bytes, activation_bytes, scratch_bytes;
    size_t unplanned_bytes; /* what activations would take without reuse */
    int steps;              /* operators run, after fusing */
    int reorders;           /* of these, changes of layout */
} lk_executor_stats;
LK_API lk_executor_stats lk_executor_stats_of(const lk_executor *executor);

LK_API lk_status lk_calibration_new(const lk_graph *graph, lk_calibration **out);
LK_API void lk_calibration_free(lk_calibration *calibration);
/* Runs the graph in f32 on samples (as for lk_executor_run) and widens the ranges. */
LK_API lk_status lk_calibration_add(lk_calibration *calibration, int64_t batch, const void *const *inputs);
/* The ranges as numbers, to keep: out [count]. */
LK_API size_t lk_calibration_count(const lk_calibration *calibration);
LK_API void lk_calibration_values(const lk_calibration *calibration, float *out);
/* Takes kept ranges. LK_INVALID when the count is that of another graph, or a number is not finite. */
LK_API lk_status lk_calibration_set(lk_calibration *calibration, const float *values, size_t count);

/* Training -------------------------------------------------------------------------------------------------------- */

/* Processes that train one network, each on its part of a batch. Batch normalisation then takes the statistics of the
 * whole batch; gradients of parameters stay those of the part, for the caller to add up. */
typedef struct lk_together {
    int processes;
    /* Replaces n values by their sums over all processes, which call it in the same order. */
    lk_status (*sum)(void *user, double *values, size_t n);
    void *user;
} lk_together;

typedef struct lk_training_options {
    int64_t batch;               /* rows of every step */
    int threads;                 /* 0 = 1 */
    bool bf16;                   /* convolutions and linear layers multiply in bf16 and sum in f32; values stay f32 */
    uint64_t seed;               /* of dropout */
    const lk_together *together; /* borrowed; NULL = alone */
} lk_training_options;

typedef struct lk_training lk_training;

/* Plans forward and backward. Parameters stay in the graph: the training reads and an optimiser writes them there. */
LK_API lk_status lk_graph_compile_training(lk_graph *graph, const lk_training_options *options, lk_training **out);
LK_API void lk_training_free(lk_training *training);
/* train: batch statistics, dropout, running statistics updated; false: as in inference, but backward still works. */
LK_API lk_status lk_training_forward(lk_training *training, bool train, const void *const *inputs,
                                     float *const *outputs);
/* Values of any node after forward, f32 [batch, ...]. LK_UNSUPPORTED for a batch norm or sum that is computed as one
 * with the ReLU behind it. */
LK_API lk_status lk_training_read(const lk_training *training, lk_node node, float *out);
/* Adds to the gradients of the parameters what output_grads (one per output, f32 [batch, ...], NULL = zero) give.
 * input_grads: one per input, NULL = not wanted; may be NULL. */
LK_API lk_status lk_training_backward(lk_training *training, const float *const *output_grads,
                                      float *const *input_grads);
/* Gradient of parameter `index` (see lk_graph_parameter_index), f32; NULL for buffers and what is frozen. */
LK_API float *lk_training_gradient(lk_training *training, size_t index);
LK_API void lk_training_zero_gradients(lk_training *training);
/* A frozen parameter gets no gradient, and batch norms whose weight is frozen keep their running statistics. */
LK_API lk_status lk_training_freeze(lk_training *training, size_t index, bool frozen);

/* Optimisers ------------------------------------------------------------------------------------------------------ */

typedef enum lk_optimiser_kind {
    LK_SGD,   /* PyTorch's SGD: weight decay added to the gradient, buf = momentum*buf + g (dampening 0) */
    LK_ADAMW, /* Loshchilov & Hutter, 2019 */
    LK_LAMB   /* You et al., 2020, alg. 2: trust ratio |w| / |update|, 1 where either is 0; bias correction on */
} lk_optimiser_kind;

typedef struct lk_optimiser_options {
    lk_optimiser_kind kind;
    double rate;
    double momentum;          /* SGD */
    bool nesterov;            /* SGD */
    double beta1, beta2, eps; /* AdamW, LAMB; 0 = 0.9, 0.999, 1e-8 (LAMB 1e-6) */
    double weight_decay;
    double clip_norm;  /* gradients are scaled so that their norm over everything is at most this; 0 = off */
    double clip_value; /* each gradient is clamped to this first; 0 = off */
    double ema;        /* decay of an exponential moving average of the parameters; 0 = none */
    int threads;       /* 0 = 1; the result is the same with any number */
} lk_optimiser_options;

typedef struct lk_optimiser lk_optimiser;

LK_API lk_status lk_optimiser_new(const lk_optimiser_options *options, lk_optimiser **out);
LK_API void lk_optimiser_free(lk_optimiser *optimiser);
/* Adds a tensor of n values: rate_scale times the rate, decay_scale times the weight decay. values and gradients are
 * borrowed; *index (may be NULL) numbers it. */
LK_API lk_status lk_optimiser_add(lk_optimiser *optimiser, float *values, const float *gradients, size_t n,
                                  double rate_scale, double decay_scale, size_t *index);
/* One step at rate (what a schedule gives; the option's rate when < 0). *norm (may be NULL): the norm of the gradients
 * before clipping. LK_CORRUPT when a gradient is not finite; then nothing changed. */
LK_API lk_status lk_optimiser_step(lk_optimiser *optimiser, double rate, double *norm);
/* The moving average of tensor `index`; NULL without ema. */
LK_API const float *lk_optimiser_average(const lk_optimiser *optimiser, size_t index);
/* State for checkpoints: bytes to write, and back. The tensors added must be the same. */
LK_API size_t lk_optimiser_state_size(const lk_optimiser *optimiser);
LK_API void lk_optimiser_state_save(const lk_optimiser *optimiser, void *bytes);
LK_API lk_status lk_optimiser_state_load(lk_optimiser *optimiser, const void *bytes, size_t size);

typedef enum lk_schedule_kind {
    LK_RATE_CONSTANT,
    LK_RATE_COSINE,   /* half a cosine from rate to final (Loshchilov & Hutter, 2017, without restarts) */
    LK_RATE_STEP,     /* times gamma every `step` steps */
    LK_RATE_ONE_CYCLE /* Smith & Topin, 2018, as PyTorch's OneCycleLR with cosine: rate/div -> rate ->
                         rate/div/final_div */
} lk_schedule_kind;

typedef struct lk_schedule {
    lk_schedule_kind kind;
    double rate;           /* highest */
    double final_rate;     /* LK_RATE_COSINE */
    uint64_t steps;        /* of the whole training */
    uint64_t warmup;       /* first steps rise linearly: rate * (i+1)/(warmup+1) (not LK_RATE_ONE_CYCLE) */
    uint64_t step;         /* LK_RATE_STEP */
    double gamma;          /* LK_RATE_STEP */
    double up;             /* LK_RATE_ONE_CYCLE: share of rising steps; 0 = 0.3 */
    double div, final_div; /* LK_RATE_ONE_CYCLE; 0 = 25, 1e4 */
} lk_schedule;
/* Rate of step i, counted from 0. */
LK_API double lk_schedule_rate(const lk_schedule *schedule, uint64_t i);

#ifdef __cplusplus
}
#endif
#endif
