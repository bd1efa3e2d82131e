/* What is trained: backbone, head and loss as one, with the list of all their tensors. */
#ifndef LK_TRAIN_NETWORK_H
#define LK_TRAIN_NETWORK_H

#include "models/model.h"

#include <likeness/train.h>

/* A tensor that is trained, or a running statistic (gradients NULL). */
typedef struct lk_net_tensor {
    char name[200];
    int rank;
    int64_t dims[LK_MAX_DIMS];
    size_t n;
    float *values;
    const float *gradients;
    bool backbone, loss;
    size_t index; /* in the optimiser; SIZE_MAX = not there */
} lk_net_tensor;

typedef struct lk_network {
    lk_model *model;
    lk_model_info info;
    lk_training *training;
    lk_loss *loss;
    lk_optimiser *optimiser;
    lk_head_options head;
    size_t batch, channels, dim;
    uint32_t height, width; /* of the last features */
    int threads;

    lk_net_tensor *tensors;
    size_t tensor_count, tensor_capacity;

    /* The head: gradients add up over the batches of one step. */
    float p, p_gradient;
    float *weight, *weight_gradient, *bias, *bias_gradient; /* projection [dim][channels], [dim] */
    float *scale, *scale_gradient;                          /* neck [dim] */
    float *running_mean, *running_variance, *mean, *inverse;
    float *loss_gradient;
    size_t loss_count;

    /* Values of a batch. */
    float *features, *pooled, *projected, *embedding; /* [batch][...] */
    float *g_features, *g_pooled, *g_projected, *g_embedding;
    float *spare; /* as large as the largest gradient of the head or the loss */
} lk_network;

/* Builds everything and draws what is not loaded from options->seed. loss: with its classes filled in. */
lk_status lk_network_open(const lk_train_options *options, const lk_loss_options *loss, int threads, lk_network *out);
/* The second half: the optimiser over all tensors that are not frozen. */
lk_status lk_network_add_optimiser(lk_network *net, const lk_train_options *options);
void lk_network_free(lk_network *net);

/* input [batch][3][h][w] -> net->embedding [batch][dim], not normalised. */
lk_status lk_network_forward(lk_network *net, bool train, const float *input);
/* Loss of the batch at net->embedding, and everything's gradients times `share`. */
lk_status lk_network_backward(lk_network *net, const lk_labels *labels, const lk_miner_options *miner, uint64_t seed,
                              float share, double *value);
/* One step of the optimiser; clears the gradients. */
lk_status lk_network_step(lk_network *net, double rate);
/* Puts the moving averages in the place of the values, which *kept (NULL without averages) holds until
 * lk_network_restore. */
lk_status lk_network_average(lk_network *net, float **kept);
void lk_network_restore(lk_network *net, float *kept);

/* Side of the pictures it sees. */
static inline uint32_t lk_network_side(const lk_network *net)
{
    return (uint32_t)net->info.height;
}

#endif
