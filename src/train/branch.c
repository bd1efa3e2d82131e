/* Behind the pooling: projection, batch-norm neck, loss. */
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "train/network.h"

#include <likeness/pooling.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float EPS_NECK = 1e-5f, MOMENTUM_NECK = 0.1f;

lk_status lk_net_add(lk_network *net, const char *prefix, const char *name, int rank, size_t rows, size_t columns,
                     float **values, float **gradients)
{
    size_t n = rows * (rank > 1 ? columns : 1);
    if (!*values) *values = lk_alloc_zero(n, sizeof **values);
    if (gradients) *gradients = lk_alloc_zero(n, sizeof **gradients);
    if (!*values || (gradients && !*gradients) ||
        !lk_grow((void **)&net->tensors, &net->tensor_capacity, net->tensor_count + 1, sizeof *net->tensors))
        return lk_fail_memory("parameters");
    lk_net_tensor *t = &net->tensors[net->tensor_count++];
    *t = (lk_net_tensor){.rank = rank,
                         .dims = {(int64_t)rows, (int64_t)columns},
                         .n = n,
                         .values = *values,
                         .gradients = gradients ? *gradients : NULL,
                         .index = SIZE_MAX};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    return LK_OK;
}

/* Kaiming's uniform start of a linear layer (He et al., 2015, as PyTorch takes it): within 1 / sqrt(inputs). */
static void draw(float *weight, size_t dim, size_t width, uint64_t seed)
{
    lk_random random;
    lk_random_seed(&random, seed);
    double bound = 1 / sqrt((double)width);
    for (size_t i = 0; i < dim * width; i++) weight[i] = (float)((2 * lk_random_unit(&random) - 1) * bound);
}

static lk_status make_room(lk_net_branch *b, size_t n)
{
    size_t widest = b->dim * b->width;
    if (b->loss_count > widest) widest = b->loss_count;
    b->pooled = lk_alloc_aligned(n * b->width, sizeof(float));
    b->g_pooled = lk_alloc_aligned(n * b->width, sizeof(float));
    b->projected = lk_alloc_aligned(n * b->dim, sizeof(float));
    b->g_projected = lk_alloc_aligned(n * b->dim, sizeof(float));
    b->embedding = lk_alloc_aligned(n * b->dim, sizeof(float));
    b->g_embedding = lk_alloc_aligned(n * b->dim, sizeof(float));
    b->mean = lk_alloc_zero(b->dim, sizeof(float));
    b->inverse = lk_alloc_zero(b->dim, sizeof(float));
    b->spare = lk_alloc_aligned(widest, sizeof(float));
    bool ok = b->pooled && b->g_pooled && b->projected && b->g_projected && b->embedding && b->g_embedding && b->mean &&
              b->inverse && b->spare;
    return ok ? LK_OK : lk_fail_memory("batch");
}

lk_status lk_branch_open(lk_network *net, lk_net_branch *b, const char *prefix, size_t width, size_t dim, bool neck,
                         const lk_loss_options *loss, uint64_t seed)
{
    lk_status s;
    b->width = width;
    b->dim = dim ? dim : width;
    if (dim) {
        LK_TRY(lk_net_add(net, prefix, "weight", 2, dim, width, &b->weight, &b->weight_gradient));
        LK_TRY(lk_net_add(net, prefix, "bias", 1, dim, 1, &b->bias, &b->bias_gradient));
        draw(b->weight, dim, width, seed ^ 0x68656164u);
    }
    if (neck) {
        LK_TRY(lk_net_add(net, prefix, "neck.weight", 1, b->dim, 1, &b->scale, &b->scale_gradient));
        LK_TRY(lk_net_add(net, prefix, "neck.running_mean", 1, b->dim, 1, &b->running_mean, NULL));
        LK_TRY(lk_net_add(net, prefix, "neck.running_var", 1, b->dim, 1, &b->running_variance, NULL));
        for (size_t i = 0; i < b->dim; i++) b->scale[i] = b->running_variance[i] = 1;
    }
    LK_TRY(lk_loss_new(loss, b->dim, seed ^ 0x6c6f7373u, &b->loss));
    float *weights = lk_loss_parameters(b->loss, &b->loss_count);
    if (b->loss_count) {
        const char *name = b == &net->main ? "loss.weight" : "drop_loss.weight";
        LK_TRY(lk_net_add(net, "", name, 1, b->loss_count, 1, &weights, &b->loss_gradient));
        net->tensors[net->tensor_count - 1].loss = true;
    }
    s = make_room(b, net->total);
done:
    return s;
}

void lk_branch_free(lk_net_branch *b)
{
    float *all[] = {
        b->weight,       b->weight_gradient,  b->bias,        b->bias_gradient, b->scale,  b->scale_gradient,
        b->running_mean, b->running_variance, b->mean,        b->inverse,       b->pooled, b->projected,
        b->embedding,    b->g_pooled,         b->g_projected, b->g_embedding,   b->spare,  b->loss_gradient};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    lk_loss_free(b->loss);
    *b = (lk_net_branch){0};
}

lk_status lk_branch_forward(lk_net_branch *b, size_t n, bool train)
{
    lk_status s = LK_OK;
    size_t dim = b->dim;
    if (b->weight)
        LK_TRY(lk_projection_forward(n, b->width, dim, b->pooled, b->weight, b->bias, b->projected));
    else
        memcpy(b->projected, b->pooled, n * dim * sizeof(float));
    if (b->scale && train)
        s = lk_neck_forward(n, dim, b->projected, b->scale, NULL, EPS_NECK, MOMENTUM_NECK, b->running_mean,
                            b->running_variance, b->mean, b->inverse, b->embedding);
    else if (b->scale)
        s = lk_neck_apply(n, dim, b->projected, b->scale, NULL, EPS_NECK, b->running_mean, b->running_variance,
                          b->embedding);
    else
        memcpy(b->embedding, b->projected, n * dim * sizeof(float));
done:
    return s;
}

static void add_to(float *sum, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) sum[i] += values[i];
}

static lk_status loss_backward(lk_net_branch *b, size_t n, const lk_net_lesson *l, double *value)
{
    lk_tuples tuples = {0};
    lk_status s;
    bool mine = l->miner->kind != LK_MINER_ALL;
    if (mine) LK_TRY(lk_mine(l->miner, b->embedding, n, b->dim, l->labels, l->seed, &tuples));
    LK_TRY(lk_loss_forward_backward(b->loss, b->embedding, n, b->dim, l->labels, mine ? &tuples : NULL, value,
                                    b->g_embedding, b->loss_count ? b->spare : NULL));
    for (size_t i = 0; i < b->loss_count; i++) b->loss_gradient[i] += l->share * b->spare[i];
    for (size_t i = 0; l->share != 1 && i < n * b->dim; i++) b->g_embedding[i] *= l->share;
done:
    lk_tuples_free(&tuples);
    return s;
}

lk_status lk_branch_backward(lk_net_branch *b, size_t n, const lk_net_lesson *lesson, double *value)
{
    lk_status s;
    size_t dim = b->dim;
    LK_TRY(loss_backward(b, n, lesson, value));
    if (b->scale) {
        LK_TRY(lk_neck_backward(n, dim, b->projected, b->scale, b->mean, b->inverse, b->g_embedding, b->g_projected,
                                b->spare, NULL));
        add_to(b->scale_gradient, b->spare, dim);
    } else {
        memcpy(b->g_projected, b->g_embedding, n * dim * sizeof(float));
    }
    if (b->weight) {
        LK_TRY(lk_projection_backward(n, b->width, dim, b->pooled, b->weight, b->g_projected, b->g_pooled, b->spare,
                                      NULL));
        add_to(b->weight_gradient, b->spare, dim * b->width);
        for (size_t i = 0; i < n; i++) add_to(b->bias_gradient, b->g_projected + i * dim, dim);
    } else {
        memcpy(b->g_pooled, b->g_projected, n * dim * sizeof(float));
    }
done:
    return s;
}

void lk_branch_clear(lk_net_branch *b)
{
    if (b->weight) memset(b->weight_gradient, 0, b->dim * b->width * sizeof(float));
    if (b->bias) memset(b->bias_gradient, 0, b->dim * sizeof(float));
    if (b->scale) memset(b->scale_gradient, 0, b->dim * sizeof(float));
    if (b->loss_gradient) memset(b->loss_gradient, 0, b->loss_count * sizeof(float));
}
