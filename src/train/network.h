/* What is trained: backbone, pooling, branches and losses as one, with the list of all their tensors. */
#ifndef LK_TRAIN_NETWORK_H
#define LK_TRAIN_NETWORK_H

#include "embed/head.h"
#include "models/model.h"
#include "train/processes.h"

/* A tensor that is trained, or a running statistic (gradients NULL). */
typedef struct lk_net_tensor {
    char name[200];
    int rank;
    int64_t dims[LK_MAX_DIMS];
    size_t n;
    float *values;
    float *gradients;
    bool backbone, loss;
    bool parted;  /* the gradient is of this process' pictures alone */
    size_t index; /* in the optimiser; SIZE_MAX = not there */
} lk_net_tensor;

/* From what was pooled to a loss: projection, neck, loss. The head itself, and the branch of Batch DropBlock. Several
 * processes compute it for the whole batch, each all of it: it is small beside the backbone, and so everything that
 * belongs to it is the same everywhere without being exchanged. */
typedef struct lk_net_branch {
    size_t width, dim; /* of what is pooled; of the embedding */
    /* Gradients add up over the batches of one step. */
    float *weight, *weight_gradient, *bias, *bias_gradient; /* projection [dim][width], [dim]; NULL = none */
    float *scale, *scale_gradient;                          /* neck [dim]; NULL = none */
    float *running_mean, *running_variance, *mean, *inverse;
    lk_loss *loss;
    float *loss_gradient;
    size_t loss_count;
    /* Values of the whole batch [total][...]. */
    float *pooled, *projected, *embedding, *g_pooled, *g_projected, *g_embedding;
    float *spare; /* as large as the largest gradient */
} lk_net_branch;

/* The classifier beside CGD; weight NULL = none. */
typedef struct lk_net_auxiliary {
    lk_auxiliary_options options;
    size_t classes;
    lk_head_pooling pooling; /* of the first descriptor */
    float p;
    float *weight, *weight_gradient, *bias, *bias_gradient;            /* [classes][channels], [classes] */
    float *pooled, *g_pooled, *logits, *g_logits, *g_features, *spare; /* of this process' pictures */
} lk_net_auxiliary;

typedef struct lk_network {
    lk_model *model;
    lk_model_info info;
    lk_training *training;
    lk_optimiser *optimiser;
    lk_processes *processes;
    lk_together together;
    lk_head_map map;
    size_t batch, total; /* pictures of this process; of all */
    size_t dim;          /* of the embedding */
    int threads;

    lk_net_tensor *tensors;
    size_t tensor_count, tensor_capacity;

    lk_head_pooling pooling; /* shows p and cgd */
    bool learns_p;
    float *p, *p_gradient;           /* [pooling.p_count] */
    float *cgd, *cgd_gradient;       /* [dim][channels], the descriptors' one after the other; NULL = none */
    float *region, *region_gradient; /* R-MAC's whitening [channels][channels], [channels]; NULL = none */
    float *region_bias, *region_bias_gradient;
    lk_net_branch main, drop; /* drop: loss NULL = none */
    float drop_share;
    lk_net_auxiliary auxiliary;

    float *features, *g_features; /* [batch][...] of this process */
    float *dropped, *g_dropped, *mask;
    float *spare_p, *spare_pool; /* of the exponents; of CGD's or R-MAC's weights */
} lk_network;

/* Builds everything and draws what is not loaded from options->seed. loss: with its classes filled in; classes: of the
 * training pictures. options->batch: of all processes. */
lk_status lk_network_open(const lk_train_options *options, const lk_loss_options *loss, size_t classes, int threads,
                          lk_network *out);
/* The second half: the optimiser over all tensors that are not frozen. */
lk_status lk_network_add_optimiser(lk_network *net, const lk_train_options *options);
void lk_network_free(lk_network *net);

/* input [batch][3][h][w] -> net->main.embedding, not normalised: with train of the whole batch [total][dim], else of
 * this process' pictures [batch][dim]. seed: of the batch, with train. */
lk_status lk_network_forward(lk_network *net, bool train, uint64_t seed, const float *input);
/* What backward is told. */
typedef struct lk_net_lesson {
    const lk_labels *labels; /* of the whole batch */
    const int32_t *classes;  /* [total] 0 .. classes-1, for the classifier beside CGD alone */
    const lk_miner_options *miner;
    uint64_t seed; /* of the batch */
    float share;   /* of the gradients */
} lk_net_lesson;
/* Loss of the batch at the embeddings of forward, and everything's gradients times the share. */
lk_status lk_network_backward(lk_network *net, const lk_net_lesson *lesson, double *value);
/* One step of the optimiser; clears the gradients. */
lk_status lk_network_step(lk_network *net, double rate);
/* Puts the moving averages in the place of the values, which *kept (NULL without averages) holds until
 * lk_network_restore. */
lk_status lk_network_average(lk_network *net, float **kept);
void lk_network_restore(lk_network *net, float *kept);
/* The first process' tensors and states for all. */
lk_status lk_network_share(lk_network *net);

/* ---- branch.c ---- */

/* A tensor of a name, with room for its values and gradients (NULL = none), zeroed. */
lk_status lk_net_add(lk_network *net, const char *prefix, const char *name, int rank, size_t rows, size_t columns,
                     float **values, float **gradients);
/* Projection where dim > 0, neck, loss. prefix: of the tensors' names. */
lk_status lk_branch_open(lk_network *net, lk_net_branch *branch, const char *prefix, size_t width, size_t dim,
                         bool neck, const lk_loss_options *loss, uint64_t seed);
void lk_branch_free(lk_net_branch *branch);
/* branch->pooled [n][width] -> branch->embedding [n][dim]. */
lk_status lk_branch_forward(lk_net_branch *branch, size_t n, bool train);
/* Adds to the gradients of the branch and fills g_pooled. */
lk_status lk_branch_backward(lk_net_branch *branch, size_t n, const lk_net_lesson *lesson, double *value);
void lk_branch_clear(lk_net_branch *branch);

/* ---- auxiliary.c ---- */

/* After the pooling. classes: of the training pictures. */
lk_status lk_auxiliary_open(lk_network *net, const lk_auxiliary_options *options, size_t classes, uint64_t seed);
void lk_auxiliary_free(lk_net_auxiliary *auxiliary);
/* Adds its loss to *value and its gradients to those of its weights and of the features. */
lk_status lk_auxiliary_backward(lk_network *net, const lk_net_lesson *lesson, double *value);
void lk_auxiliary_clear(lk_network *net);

/* Side of the pictures it sees. */
static inline uint32_t lk_network_side(const lk_network *net)
{
    return (uint32_t)net->info.height;
}

#endif
