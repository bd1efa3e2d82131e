/* Inside of a graph: nodes in the order of their making (so every input comes before its user) and parameters. */
#ifndef LK_NN_GRAPH_H
#define LK_NN_GRAPH_H

#include "base/arena.h"
#include "base/error.h"
#include <likeness/nn.h>

/* 1e16 in the bits of an f32: weights and activations up to it can be multiplied and summed a million times without
 * overflow; what is larger comes from a broken file, and would end as infinity, then NaN, then (behind a ReLU) zero. */
#define LK_LARGEST_BITS 0x5a0e1bcau

typedef enum lk_op {
    LK_OP_INPUT,
    LK_OP_PARAMETER,
    LK_OP_CONV,
    LK_OP_BATCH_NORM,
    LK_OP_LAYER_NORM,
    LK_OP_LINEAR,
    LK_OP_MATMUL,
    LK_OP_SOFTMAX,
    LK_OP_ATTENTION,
    LK_OP_ACTIVATION,
    LK_OP_MAX_POOL,
    LK_OP_AVG_POOL,
    LK_OP_ADAPTIVE_POOL,
    LK_OP_GLOBAL_AVG,
    LK_OP_GLOBAL_MAX,
    LK_OP_MEAN_TOKENS,
    LK_OP_ADD,
    LK_OP_MULTIPLY,
    LK_OP_SCALE,
    LK_OP_SCALE_BY,
    LK_OP_CONCAT,
    LK_OP_SLICE,
    LK_OP_RESHAPE,
    LK_OP_TRANSPOSE,
    LK_OP_TOKENS,
    LK_OP_DROPOUT,
    LK_OP_DROP_PATH,
    LK_OP_L2_NORMALISE,
    LK_OP_POSITIONS,
    LK_OP_EMBEDDING,
    LK_OP_PICK_TOKEN,
    LK_OP_COUNT
} lk_op;
const char *lk_op_name(lk_op op);

enum { LK_MAX_PARAMETERS = 4, LK_MAX_INPUTS = 16, LK_MAX_OUTPUTS = 16 };

typedef struct lk_node_data {
    lk_op op;
    const char *name;
    int input_count;
    const lk_node *inputs;
    lk_shape shape;
    lk_type type;                          /* of LK_OP_INPUT */
    int64_t parameters[LK_MAX_PARAMETERS]; /* indices: weight, bias, running_mean, running_var; -1 = none */
    float eps, momentum, factor;           /* norms; LK_OP_SCALE_BY; dropout: probability in factor */
    int64_t vocabulary;                    /* of LK_OP_EMBEDDING */
    union {
        lk_conv conv;
        lk_pool2d pool;
        lk_attention attention; /* scale filled in */
        lk_activation activation;
        lk_positions positions;
        bool transpose_b;
        int order[LK_MAX_DIMS];
        struct {
            int axis;
            int64_t begin, end;
        } part; /* slice; concat uses axis */
        int32_t token;
    } u;
} lk_node_data;

typedef struct lk_parameter_data {
    const char *name;
    lk_shape shape;
    size_t elements;
    bool buffer;
    float init;          /* of what lk_graph_initialise fills: mean */
    float deviation;     /* 0 = constant */
    float *owned;        /* f32 */
    const float *values; /* owned, or borrowed; NULL before loading */
} lk_parameter_data;

struct lk_graph {
    lk_arena arena;
    lk_node_data *nodes;
    size_t node_count, node_capacity;
    lk_parameter_data *parameters;
    size_t parameter_count, parameter_capacity;
    lk_node *outputs;
    size_t output_count, output_capacity;
    lk_node inputs[LK_MAX_INPUTS];
    size_t input_count;
    struct lk_names {
        const char **keys;
        int64_t *values;
        size_t count, capacity;
    } node_names, parameter_names;
    lk_status status; /* of the first mistake */
    char message[LK_ERROR_SIZE];
};

/* Elements of one row of the batch (of everything, for a parameter). */
size_t lk_shape_row(const lk_shape *shape);
bool lk_shape_batched(const lk_shape *shape);
/* "[N, 3, 224, 224]" in a buffer of the calling thread (a few are in turn). */
const char *lk_shape_text(const lk_shape *shape);

/* Adds a node whose data are filled but for name and inputs; the name is made unique when NULL. */
lk_node lk_graph_put(lk_graph *graph, const char *name, lk_node_data data, const lk_node *inputs, int count);
/* Keeps the mistake (the first) and returns LK_NO_NODE. */
lk_node lk_graph_mistake(lk_graph *graph, lk_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Whether building may go on with these inputs. */
bool lk_graph_usable(lk_graph *graph, const lk_node *inputs, int count);
/* Index of parameter <prefix><suffix>, made when new; -1 after a mistake. */
int64_t lk_graph_need(lk_graph *graph, const char *prefix, const char *suffix, int rank, const int64_t *dims,
                      float init, float deviation);

static inline const lk_node_data *lk_at(const lk_graph *graph, lk_node node)
{
    return &graph->nodes[node];
}
/* Input number i of a node. */
static inline const lk_node_data *lk_input_of(const lk_graph *graph, const lk_node_data *node, int i)
{
    return &graph->nodes[node->inputs[i]];
}

#endif
