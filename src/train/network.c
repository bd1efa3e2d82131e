#include "train/network.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "embed/head.h"

#include <likeness/pooling.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float EPS_GEM = 1e-6f, EPS_NECK = 1e-5f, MOMENTUM_NECK = 0.1f;
enum { DEFAULT_SIDE = 128, LEAST_P = 1, MOST_P = 10 };

/* ---- tensors ---- */

static lk_status add_tensor(lk_network *net, const char *name, int rank, const int64_t *dims, float *values,
                            const float *gradients)
{
    if (!lk_grow((void **)&net->tensors, &net->tensor_capacity, net->tensor_count + 1, sizeof *net->tensors))
        return lk_fail_memory("parameters");
    lk_net_tensor *t = &net->tensors[net->tensor_count++];
    *t = (lk_net_tensor){.rank = rank, .n = 1, .values = values, .gradients = gradients, .index = SIZE_MAX};
    snprintf(t->name, sizeof t->name, "%s", name);
    for (int i = 0; i < rank; i++) t->n *= (size_t)(t->dims[i] = dims[i]);
    return LK_OK;
}

/* A zeroed pair of values and gradients of the head. */
static lk_status head_tensor(lk_network *net, const char *name, int rank, int64_t rows, int64_t columns, float **values,
                             float **gradients)
{
    size_t n = (size_t)(rows * columns);
    char full[64];
    snprintf(full, sizeof full, LK_HEAD_PREFIX "%s", name);
    *values = lk_alloc_zero(n, sizeof **values);
    if (gradients) *gradients = lk_alloc_zero(n, sizeof **gradients);
    if (!*values || (gradients && !*gradients)) return lk_fail_memory("head");
    return add_tensor(net, full, rank, (int64_t[]){rows, columns}, *values, gradients ? *gradients : NULL);
}

static bool beginning(const char *name, const char *list)
{
    for (const char *at = list; at && *at;) {
        size_t n = strcspn(at, ",");
        /* Whole parts of names: "layer1" is not the beginning of "layer10.0". */
        if (n && strncmp(name, at, n) == 0 && (name[n] == '.' || name[n] == 0 || at[n - 1] == '.')) return true;
        at += n + (at[n] == ',');
    }
    return false;
}

static lk_status backbone_tensors(lk_network *net, const char *freeze)
{
    lk_graph *graph = lk_model_graph(net->model);
    size_t frozen = 0;
    for (size_t i = 0; i < lk_graph_parameter_count(graph); i++) {
        lk_parameter p = lk_graph_parameter_at(graph, i);
        float *values;
        lk_status s = LK_OK;
        bool fixed = !p.buffer && beginning(p.name, freeze);
        if (fixed) s = lk_training_freeze(net->training, i, true);
        frozen += fixed;
        if (s == LK_OK) s = lk_graph_values_writable(graph, i, &values);
        if (s == LK_OK)
            s = add_tensor(net, p.name, p.shape.rank, p.shape.dims, values,
                           p.buffer || fixed ? NULL : lk_training_gradient(net->training, i));
        if (s != LK_OK) return s;
        net->tensors[net->tensor_count - 1].backbone = true;
    }
    if (freeze && *freeze && !frozen) return lk_fail(LK_INVALID, "--freeze %s: no parameter's name begins so", freeze);
    return LK_OK;
}

/* Kaiming's uniform start of a linear layer (He et al., 2015, as PyTorch takes it): within 1 / sqrt(inputs). */
static lk_status start_head(lk_network *net, uint64_t seed)
{
    lk_status s = LK_OK;
    int64_t dim = (int64_t)net->dim, channels = (int64_t)net->channels;
    lk_random random;
    lk_random_seed(&random, seed ^ 0x68656164u);
    if (net->head.pool == LK_HEAD_GEM) {
        net->p = net->head.p > 0 ? net->head.p : 3;
        LK_TRY(add_tensor(net, LK_HEAD_PREFIX "p", 1, (int64_t[]){1}, &net->p,
                          net->head.fixed_p ? NULL : &net->p_gradient));
    }
    if (net->head.dim) {
        LK_TRY(head_tensor(net, "weight", 2, dim, channels, &net->weight, &net->weight_gradient));
        LK_TRY(head_tensor(net, "bias", 1, dim, 1, &net->bias, &net->bias_gradient));
        double bound = 1 / sqrt((double)channels);
        for (int64_t i = 0; i < dim * channels; i++)
            net->weight[i] = (float)((2 * lk_random_unit(&random) - 1) * bound);
    }
    if (net->head.neck) {
        LK_TRY(head_tensor(net, "neck.weight", 1, dim, 1, &net->scale, &net->scale_gradient));
        LK_TRY(head_tensor(net, "neck.running_mean", 1, dim, 1, &net->running_mean, NULL));
        LK_TRY(head_tensor(net, "neck.running_var", 1, dim, 1, &net->running_variance, NULL));
        for (int64_t i = 0; i < dim; i++) net->scale[i] = net->running_variance[i] = 1;
    }
done:
    return s;
}

/* A model of our own that is trained on goes on with its projection (the neck is folded in) and its exponent. */
static lk_status take_head(lk_network *net, const char *directory)
{
    lk_head head;
    bool there;
    lk_status s = lk_head_open(directory, net->model, &head, &there);
    if (s != LK_OK || !there) return s;
    if (head.pool == net->head.pool && head.pool == LK_HEAD_GEM && net->head.p <= 0) net->p = head.p;
    if (head.weight && net->weight && head.dim == net->dim && head.channels == net->channels) {
        memcpy(net->weight, head.weight, net->dim * net->channels * sizeof(float));
        memcpy(net->bias, head.bias, net->dim * sizeof(float));
    }
    lk_head_free(&head);
    return LK_OK;
}

/* ---- opening ---- */

static bool is_model(const char *name)
{
    char *config = lk_path_join(name, "config.json");
    bool yes = config && lk_path_exists(config);
    free(config);
    return yes;
}

static lk_status open_backbone(lk_network *net, const lk_train_options *options)
{
    const char *name = options->backbone ? options->backbone : "resnet18";
    uint32_t side = options->size;
    lk_status s;
    if (is_model(name))
        s = lk_model_open_at(name, side, &net->model);
    else
        s = lk_model_new(name, side ? side : DEFAULT_SIDE, side ? side : DEFAULT_SIDE, &net->model);
    if (s != LK_OK) return s;
    net->info = lk_model_info_of(net->model);
    lk_graph *graph = lk_model_graph(net->model);
    if (net->info.height != net->info.width)
        return lk_fail(LK_UNSUPPORTED, "%s: sees pictures that are not square", name);
    lk_graph_output(graph, lk_model_features(net->model));
    s = lk_graph_initialise(graph, options->seed);
    /* Parameters that were mapped from a file become our own before the training looks at them. */
    for (size_t i = 0; s == LK_OK && i < lk_graph_parameter_count(graph); i++) {
        float *values;
        s = lk_graph_values_writable(graph, i, &values);
    }
    return s;
}

static lk_status make_room(lk_network *net)
{
    size_t n = net->batch, leading = (size_t)net->info.leading;
    size_t map = n * net->channels * ((size_t)net->info.places + leading), widest = net->dim * net->channels;
    if (net->loss_count > widest) widest = net->loss_count;
    for (size_t i = 0; i < net->tensor_count; i++)
        if (net->tensors[i].n > widest) widest = net->tensors[i].n;
    net->features = lk_alloc_aligned(map, sizeof(float));
    net->g_features = lk_alloc_zero(map, sizeof(float));
    net->pooled = lk_alloc_aligned(n * net->channels, sizeof(float));
    net->g_pooled = lk_alloc_aligned(n * net->channels, sizeof(float));
    net->projected = lk_alloc_aligned(n * net->dim, sizeof(float));
    net->g_projected = lk_alloc_aligned(n * net->dim, sizeof(float));
    net->embedding = lk_alloc_aligned(n * net->dim, sizeof(float));
    net->g_embedding = lk_alloc_aligned(n * net->dim, sizeof(float));
    net->mean = lk_alloc_zero(net->dim, sizeof(float));
    net->inverse = lk_alloc_zero(net->dim, sizeof(float));
    net->spare = lk_alloc_aligned(widest, sizeof(float));
    bool ok = net->features && net->g_features && net->pooled && net->g_pooled && net->projected && net->g_projected &&
              net->embedding && net->g_embedding && net->mean && net->inverse && net->spare;
    return ok ? LK_OK : lk_fail_memory("batch");
}

lk_status lk_network_open(const lk_train_options *options, const lk_loss_options *loss, int threads, lk_network *net)
{
    lk_status s;
    *net = (lk_network){.head = options->head, .batch = options->batch, .threads = threads};
    LK_TRY(open_backbone(net, options));
    lk_shape shape = lk_graph_shape(lk_model_graph(net->model), lk_model_features(net->model));
    net->channels = (size_t)net->info.channels;
    net->dim = net->head.dim ? net->head.dim : net->channels;
    net->height = net->info.tokens ? 1 : (uint32_t)shape.dims[2];
    net->width = net->info.tokens ? (uint32_t)net->info.places : (uint32_t)shape.dims[3];
    if (net->head.pool == LK_HEAD_RMAC && net->info.tokens) {
        s = lk_fail(LK_UNSUPPORTED, "R-MAC wants a map of places, which transformers do not have: use gem");
        goto done;
    }
    const lk_training_options how = {
        .batch = (int64_t)options->batch, .threads = threads, .bf16 = options->bf16, .seed = options->seed};
    LK_TRY(lk_graph_compile_training(lk_model_graph(net->model), &how, &net->training));
    LK_TRY(backbone_tensors(net, options->freeze));
    LK_TRY(start_head(net, options->seed));
    if (options->backbone && is_model(options->backbone)) LK_TRY(take_head(net, options->backbone));
    LK_TRY(lk_loss_new(loss, net->dim, options->seed ^ 0x6c6f7373u, &net->loss));
    float *weights = lk_loss_parameters(net->loss, &net->loss_count);
    if (weights && net->loss_count) {
        net->loss_gradient = lk_alloc_zero(net->loss_count, sizeof(float));
        if (!net->loss_gradient) s = lk_fail_memory("loss");
        if (s == LK_OK)
            s = add_tensor(net, "loss.weight", 1, (int64_t[]){(int64_t)net->loss_count}, weights, net->loss_gradient);
        if (s == LK_OK) net->tensors[net->tensor_count - 1].loss = true;
    }
    if (s == LK_OK) s = make_room(net);
done:
    if (s != LK_OK) lk_network_free(net);
    return s;
}

/* The part of a name that says which block it is in: "layer1.0", "blocks.3", "conv1". */
static size_t block_length(const char *name)
{
    const char *dot = strchr(name, '.');
    if (!dot) return strlen(name);
    size_t digits = strspn(dot + 1, "0123456789");
    return (size_t)(dot - name) + (digits ? 1 + digits : 0);
}

lk_status lk_network_add_optimiser(lk_network *net, const lk_train_options *options)
{
    size_t blocks = 0, block = 0;
    lk_optimiser_options how = options->optimiser;
    how.threads = net->threads;
    lk_status s = lk_optimiser_new(&how, &net->optimiser);
    const char *last = NULL;
    for (int pass = 0; pass < 2; pass++) {
        block = 0;
        last = NULL;
        for (size_t i = 0; s == LK_OK && i < net->tensor_count; i++) {
            lk_net_tensor *t = &net->tensors[i];
            size_t n = block_length(t->name);
            if (t->backbone && (!last || block_length(last) != n || strncmp(last, t->name, n) != 0)) block++;
            if (t->backbone) last = t->name;
            if (pass == 0 || !t->gradients) continue;
            /* The block next to the head has one step less than full rate, and so on down. */
            double rate = t->loss       ? options->loss_rate
                          : t->backbone ? pow(options->layer_decay, (double)(blocks + 1 - block))
                                        : 1;
            double decay = t->rank > 1 && !t->loss ? 1 : 0;
            s = lk_optimiser_add(net->optimiser, t->values, t->gradients, t->n, rate, decay, &t->index);
        }
        blocks = block;
    }
    return s;
}

void lk_network_free(lk_network *net)
{
    float *all[] = {net->weight,   net->weight_gradient, net->bias,          net->bias_gradient,
                    net->scale,    net->scale_gradient,  net->running_mean,  net->running_variance,
                    net->mean,     net->inverse,         net->loss_gradient, net->features,
                    net->pooled,   net->projected,       net->embedding,     net->g_features,
                    net->g_pooled, net->g_projected,     net->g_embedding,   net->spare};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    lk_optimiser_free(net->optimiser);
    lk_loss_free(net->loss);
    lk_training_free(net->training);
    lk_model_free(net->model);
    free(net->tensors);
    *net = (lk_network){0};
}

/* ---- forward ---- */

static lk_map_shape shape_of(const lk_network *net, size_t batch)
{
    return (lk_map_shape){batch, net->channels, (size_t)net->info.places, net->info.tokens};
}

static lk_status pool_forward(lk_network *net)
{
    if (!net->info.tokens)
        return lk_head_pool_forward(net->head.pool, net->p, shape_of(net, net->batch), net->height, net->width,
                                    net->features, net->pooled);
    lk_status s = LK_OK;
    size_t leading = (size_t)net->info.leading, row = ((size_t)net->info.places + leading) * net->channels;
    for (size_t i = 0; s == LK_OK && i < net->batch; i++)
        s = lk_head_pool_forward(net->head.pool, net->p, shape_of(net, 1), net->height, net->width,
                                 net->features + i * row + leading * net->channels, net->pooled + i * net->channels);
    return s;
}

lk_status lk_network_forward(lk_network *net, bool train, const float *input)
{
    lk_status s;
    size_t n = net->batch;
    LK_TRY(lk_training_forward(net->training, train, (const void *const[]){input}, (float *const[]){net->features}));
    LK_TRY(pool_forward(net));
    if (net->weight)
        LK_TRY(lk_projection_forward(n, net->channels, net->dim, net->pooled, net->weight, net->bias, net->projected));
    else
        memcpy(net->projected, net->pooled, n * net->dim * sizeof(float));
    if (net->scale && train)
        s = lk_neck_forward(n, net->dim, net->projected, net->scale, NULL, EPS_NECK, MOMENTUM_NECK, net->running_mean,
                            net->running_variance, net->mean, net->inverse, net->embedding);
    else if (net->scale)
        s = lk_neck_apply(n, net->dim, net->projected, net->scale, NULL, EPS_NECK, net->running_mean,
                          net->running_variance, net->embedding);
    else
        memcpy(net->embedding, net->projected, n * net->dim * sizeof(float));
done:
    return s;
}

/* ---- backward ---- */

static void add_to(float *sum, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) sum[i] += values[i];
}

static lk_status pool_backward_at(lk_network *net, size_t batch, const float *x, const float *pooled, const float *g,
                                  float *g_x)
{
    float g_p = 0;
    lk_status s;
    switch (net->head.pool) {
    case LK_HEAD_AVG: return lk_average_backward(shape_of(net, batch), g, g_x);
    case LK_HEAD_MAX: return lk_maximum_backward(shape_of(net, batch), x, g, g_x);
    case LK_HEAD_GEM:
        s = lk_gem_backward(shape_of(net, batch), x, pooled, g, &net->p, 1, EPS_GEM, g_x, &g_p);
        net->p_gradient += g_p;
        return s;
    case LK_HEAD_RMAC:
        return lk_rmac_backward(batch, net->channels, net->height, net->width, LK_HEAD_LEVELS, NULL, x, g, g_x, NULL,
                                NULL);
    }
    return lk_fail(LK_INVALID, "there is no such pooling");
}

static lk_status pool_backward(lk_network *net)
{
    if (!net->info.tokens)
        return pool_backward_at(net, net->batch, net->features, net->pooled, net->g_pooled, net->g_features);
    lk_status s = LK_OK;
    size_t leading = (size_t)net->info.leading, row = ((size_t)net->info.places + leading) * net->channels;
    for (size_t i = 0; s == LK_OK && i < net->batch; i++) {
        size_t at = i * row + leading * net->channels, c = i * net->channels;
        s = pool_backward_at(net, 1, net->features + at, net->pooled + c, net->g_pooled + c, net->g_features + at);
    }
    return s;
}

static lk_status head_backward(lk_network *net)
{
    lk_status s;
    size_t n = net->batch, dim = net->dim;
    if (net->scale) {
        LK_TRY(lk_neck_backward(n, dim, net->projected, net->scale, net->mean, net->inverse, net->g_embedding,
                                net->g_projected, net->spare, NULL));
        add_to(net->scale_gradient, net->spare, dim);
    } else {
        memcpy(net->g_projected, net->g_embedding, n * dim * sizeof(float));
    }
    if (net->weight) {
        LK_TRY(lk_projection_backward(n, net->channels, dim, net->pooled, net->weight, net->g_projected, net->g_pooled,
                                      net->spare, NULL));
        add_to(net->weight_gradient, net->spare, dim * net->channels);
        for (size_t i = 0; i < n; i++) add_to(net->bias_gradient, net->g_projected + i * dim, dim);
    } else {
        memcpy(net->g_pooled, net->g_projected, n * dim * sizeof(float));
    }
    s = pool_backward(net);
done:
    return s;
}

lk_status lk_network_backward(lk_network *net, const lk_labels *labels, const lk_miner_options *miner, uint64_t seed,
                              float share, double *value)
{
    lk_tuples tuples = {0};
    lk_status s;
    size_t n = net->batch, dim = net->dim;
    bool mine = miner->kind != LK_MINER_ALL;
    if (mine) LK_TRY(lk_mine(miner, net->embedding, n, dim, labels, seed, &tuples));
    LK_TRY(lk_loss_forward_backward(net->loss, net->embedding, n, dim, labels, mine ? &tuples : NULL, value,
                                    net->g_embedding, net->loss_count ? net->spare : NULL));
    for (size_t i = 0; i < net->loss_count; i++) net->loss_gradient[i] += share * net->spare[i];
    for (size_t i = 0; share != 1 && i < n * dim; i++) net->g_embedding[i] *= share;
    LK_TRY(head_backward(net));
    s = lk_training_backward(net->training, (const float *const[]){net->g_features}, NULL);
done:
    lk_tuples_free(&tuples);
    return s;
}

lk_status lk_network_step(lk_network *net, double rate)
{
    lk_status s = lk_optimiser_step(net->optimiser, rate, NULL);
    if (net->p > 0) net->p = fminf(fmaxf(net->p, LEAST_P), MOST_P);
    lk_training_zero_gradients(net->training);
    net->p_gradient = 0;
    if (net->weight) memset(net->weight_gradient, 0, net->dim * net->channels * sizeof(float));
    if (net->bias) memset(net->bias_gradient, 0, net->dim * sizeof(float));
    if (net->scale) memset(net->scale_gradient, 0, net->dim * sizeof(float));
    if (net->loss_gradient) memset(net->loss_gradient, 0, net->loss_count * sizeof(float));
    return s;
}

lk_status lk_network_average(lk_network *net, float **kept)
{
    size_t total = 0;
    *kept = NULL;
    for (size_t i = 0; i < net->tensor_count; i++) total += net->tensors[i].n;
    if (net->tensor_count == 0) return LK_OK;
    float *copy = NULL;
    for (size_t i = 0, at = 0; i < net->tensor_count; i++) {
        lk_net_tensor *t = &net->tensors[i];
        const float *average = t->index == SIZE_MAX ? NULL : lk_optimiser_average(net->optimiser, t->index);
        if (!average) continue;
        if (!copy && !(copy = lk_alloc(total, sizeof *copy))) return lk_fail_memory("moving average");
        memcpy(copy + at, t->values, t->n * sizeof *copy);
        memcpy(t->values, average, t->n * sizeof *copy);
        at += t->n;
    }
    *kept = copy;
    return LK_OK;
}

void lk_network_restore(lk_network *net, float *kept)
{
    for (size_t i = 0, at = 0; kept && i < net->tensor_count; i++) {
        lk_net_tensor *t = &net->tensors[i];
        if (t->index == SIZE_MAX) continue;
        memcpy(t->values, kept + at, t->n * sizeof *kept);
        at += t->n;
    }
    free(kept);
}
