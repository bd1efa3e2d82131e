#include "train/network.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"

#include <likeness/pooling.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float LEAST_P = 1, MOST_P = 10; /* of a learnt exponent */
enum { DEFAULT_SIDE = 128 };

/* ---- tensors ---- */

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
        if (s == LK_OK) s = lk_net_add(net, "", p.name, 1, p.elements, 1, &values, NULL);
        if (s != LK_OK) return s;
        lk_net_tensor *t = &net->tensors[net->tensor_count - 1];
        t->rank = p.shape.rank;
        memcpy(t->dims, p.shape.dims, sizeof t->dims);
        t->gradients = p.buffer || fixed ? NULL : lk_training_gradient(net->training, i);
        t->backbone = t->parted = true;
    }
    if (freeze && *freeze && !frozen) return lk_fail(LK_INVALID, "--freeze %s: no parameter's name begins so", freeze);
    return LK_OK;
}

/* Pooling with what it learns. */
static lk_status start_pooling(lk_network *net, const lk_head_options *head, uint64_t seed)
{
    lk_status s = LK_OK;
    lk_head_pooling *how = &net->pooling;
    size_t channels = net->map.channels, count = 0, at = 0;
    how->pool = head->pool;
    how->levels = head->levels ? head->levels : LK_HEAD_LEVELS;
    how->p_count = head->pool == LK_HEAD_GEM && head->p_per_channel ? channels : 1;
    net->learns_p = head->pool == LK_HEAD_GEM && !head->fixed_p;
    LK_TRY(lk_head_pool_check(how, &net->map));
    float p = head->p > 0 ? head->p : 3;
    if (head->pool == LK_HEAD_GEM) {
        LK_TRY(
            lk_net_add(net, LK_HEAD_PREFIX, "p", 1, how->p_count, 1, &net->p, net->learns_p ? &net->p_gradient : NULL));
        net->tensors[net->tensor_count - 1].parted = true;
        for (size_t i = 0; i < how->p_count; i++) net->p[i] = p;
        how->p = net->p;
    }
    if (head->pool == LK_HEAD_RMAC && head->whiten_regions) {
        LK_TRY(lk_net_add(net, LK_HEAD_PREFIX, "region.weight", 2, channels, channels, &net->region,
                          &net->region_gradient));
        net->tensors[net->tensor_count - 1].parted = true;
        LK_TRY(lk_net_add(net, LK_HEAD_PREFIX, "region.bias", 1, channels, 1, &net->region_bias,
                          &net->region_bias_gradient));
        net->tensors[net->tensor_count - 1].parted = true;
        for (size_t c = 0; c < channels; c++) net->region[c * channels + c] = 1;
        how->whitening = (lk_whitening){net->region, net->region_bias, channels};
    }
    if (head->pool != LK_HEAD_CGD) goto done;
    size_t dim = head->dim ? head->dim : channels;
    bool all = true;
    for (int k = 0; k < LK_CGD_KINDS; k++) all = all && !head->descriptors[k];
    for (int k = 0; k < LK_CGD_KINDS; k++) count += all || head->descriptors[k];
    if (dim < count) LK_TRY(lk_fail(LK_INVALID, "%zu descriptors do not fit into %zu dimensions", count, dim));
    LK_TRY(lk_net_add(net, LK_HEAD_PREFIX, "cgd.weight", 2, dim, channels, &net->cgd, &net->cgd_gradient));
    net->tensors[net->tensor_count - 1].parted = true;
    for (int k = 0; k < LK_CGD_KINDS; k++) {
        if (!all && !head->descriptors[k]) continue;
        size_t out = dim / count + (how->branch_count < dim % count);
        how->branches[how->branch_count++] =
            (lk_cgd_branch){.kind = (lk_cgd_kind)k, .p = p, .weight = net->cgd + at * channels, .out = out};
        at += out;
    }
    lk_random random;
    lk_random_seed(&random, seed ^ 0x636764u);
    double bound = 1 / sqrt((double)channels); /* as a projection */
    for (size_t i = 0; i < dim * channels; i++) net->cgd[i] = (float)((2 * lk_random_unit(&random) - 1) * bound);
done:
    return s;
}

/* A model of our own that is trained on goes on with its projection (the neck is folded in) and its exponent. */
static lk_status take_head(lk_network *net, const char *directory, bool keep_p)
{
    lk_head head;
    bool there;
    lk_net_branch *b = &net->main;
    lk_status s = lk_head_open(directory, net->model, &head, &there);
    if (s != LK_OK || !there) return s;
    bool same = head.pooling.pool == net->pooling.pool && head.pooling.branch_count == net->pooling.branch_count;
    size_t exponents = net->pooling.p_count;
    if (same && net->p && !keep_p &&
        head.pooling.p_count > exponents) { /* from one a channel to one of all: their mean */
        double sum = 0;
        for (size_t i = 0; i < head.pooling.p_count; i++) sum += head.p[i];
        net->p[0] = (float)(sum / (double)head.pooling.p_count);
    } else if (same && net->p && !keep_p) {
        for (size_t i = 0; i < exponents; i++) net->p[i] = head.p[head.pooling.p_count > 1 ? i : 0];
    }
    for (size_t k = 0; same && k < net->pooling.branch_count; k++)
        same = head.pooling.branches[k].kind == net->pooling.branches[k].kind &&
               head.pooling.branches[k].out == net->pooling.branches[k].out;
    for (size_t k = 0; same && !keep_p && k < net->pooling.branch_count; k++)
        net->pooling.branches[k].p = head.pooling.branches[k].p;
    if (same && net->region && head.region_weight) {
        memcpy(net->region, head.region_weight, net->map.channels * net->map.channels * sizeof(float));
        memcpy(net->region_bias, head.region_bias, net->map.channels * sizeof(float));
    }
    if (same && net->cgd) memcpy(net->cgd, head.cgd, head.width * net->map.channels * sizeof(float));
    if (head.weight && b->weight && head.dim == b->dim && head.width == b->width) {
        memcpy(b->weight, head.weight, b->dim * b->width * sizeof(float));
        memcpy(b->bias, head.bias, b->dim * sizeof(float));
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
    size_t map = net->batch * net->map.channels * (net->map.places + net->map.leading);
    size_t mask = (size_t)net->map.height * net->map.width;
    net->features = lk_alloc_aligned(map, sizeof(float));
    net->g_features = lk_alloc_zero(map, sizeof(float));
    net->spare_p = lk_alloc(net->pooling.p_count, sizeof(float));
    size_t pool = net->cgd ? net->main.width : net->region ? net->map.channels + 1 : 0;
    net->spare_pool = lk_alloc(pool * net->map.channels + 1, sizeof(float));
    bool ok = net->features && net->g_features && net->spare_p && net->spare_pool;
    if (net->drop.loss) {
        net->dropped = lk_alloc_zero(map, sizeof(float));
        net->g_dropped = lk_alloc_zero(map, sizeof(float));
        net->mask = lk_alloc(mask, sizeof(float));
        ok = ok && net->dropped && net->g_dropped && net->mask;
    }
    return ok ? LK_OK : lk_fail_memory("batch");
}

static lk_status sum_for_norms(void *user, double *values, size_t n)
{
    return lk_processes_sum_f64(user, values, n);
}

/* Batch DropBlock needs rows and columns: those of a map, or of patches that fill a square. */
static lk_status lay_out_places(lk_network *net)
{
    uint32_t side = (uint32_t)lround(sqrt((double)net->map.places));
    if (!net->map.tokens) return LK_OK;
    if ((size_t)side * side != net->map.places)
        return lk_fail(LK_UNSUPPORTED, "the %zu patches of this network fill no square to drop a block of",
                       net->map.places);
    net->map.height = net->map.width = side;
    return LK_OK;
}

static lk_status open_head(lk_network *net, const lk_train_options *options, const lk_loss_options *loss,
                           size_t classes)
{
    const lk_head_options *head = &options->head;
    lk_status s;
    LK_TRY(start_pooling(net, head, options->seed));
    size_t width = lk_head_pool_width(&net->pooling, &net->map);
    net->dim = head->pool == LK_HEAD_CGD ? width : head->dim ? head->dim : width;
    LK_TRY(lk_branch_open(net, &net->main, LK_HEAD_PREFIX, width, head->pool == LK_HEAD_CGD ? 0 : head->dim, head->neck,
                          loss, options->seed));
    if (options->auxiliary.weight > 0) LK_TRY(lk_auxiliary_open(net, &options->auxiliary, classes, options->seed));
    net->drop_share = head->drop_block;
    if (net->drop_share > 0) {
        LK_TRY(lay_out_places(net));
        LK_TRY(lk_branch_open(net, &net->drop, "likeness_drop.", net->map.channels, head->dim, head->neck, loss,
                              options->seed + 1));
    }
done:
    return s;
}

lk_status lk_network_open(const lk_train_options *options, const lk_loss_options *loss, size_t classes, int threads,
                          lk_network *net)
{
    lk_status s;
    size_t processes = (size_t)lk_processes_count(options->processes);
    *net = (lk_network){.batch = options->batch / processes,
                        .total = options->batch,
                        .threads = threads,
                        .processes = options->processes};
    net->together = (lk_together){(int)processes, sum_for_norms, options->processes};
    LK_TRY(open_backbone(net, options));
    lk_shape shape = lk_graph_shape(lk_model_graph(net->model), lk_model_features(net->model));
    net->map = lk_head_map_of(&net->info, &shape);
    const lk_training_options how = {.batch = (int64_t)net->batch,
                                     .threads = threads,
                                     .bf16 = options->bf16,
                                     .seed = options->seed + 0x9e3779b9u * (unsigned)lk_processes_rank(net->processes),
                                     .together = processes > 1 ? &net->together : NULL};
    LK_TRY(lk_graph_compile_training(lk_model_graph(net->model), &how, &net->training));
    LK_TRY(backbone_tensors(net, options->freeze));
    LK_TRY(open_head(net, options, loss, classes));
    if (options->backbone && is_model(options->backbone))
        LK_TRY(take_head(net, options->backbone, options->head.p > 0));
    s = make_room(net);
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
    float *all[] = {net->p,
                    net->p_gradient,
                    net->cgd,
                    net->cgd_gradient,
                    net->features,
                    net->g_features,
                    net->dropped,
                    net->g_dropped,
                    net->mask,
                    net->spare_p,
                    net->spare_pool,
                    net->region,
                    net->region_gradient,
                    net->region_bias,
                    net->region_bias_gradient};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    lk_branch_free(&net->main);
    lk_branch_free(&net->drop);
    lk_auxiliary_free(&net->auxiliary);
    lk_optimiser_free(net->optimiser);
    lk_training_free(net->training);
    lk_model_free(net->model);
    free(net->tensors);
    *net = (lk_network){0};
}

/* ---- forward ---- */

static const lk_head_pooling maximum = {.pool = LK_HEAD_MAX};

/* out = x where the mask is 1; tokens in front of the places are left out. */
static lk_status drop_block(const lk_network *net, const float *x, float *out)
{
    const lk_head_map *m = &net->map;
    if (!m->tokens) {
        const lk_map_shape whole = {net->batch, m->channels, m->places, false};
        return lk_drop_block_apply(whole, net->mask, x, out);
    }
    const lk_map_shape one = {1, m->channels, m->places, true};
    size_t row = (m->leading + m->places) * m->channels, head = m->leading * m->channels;
    for (size_t i = 0; i < net->batch; i++) {
        lk_status s = lk_drop_block_apply(one, net->mask, x + i * row + head, out + i * row + head);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

/* Where this process' rows begin in arrays of the whole batch. */
static size_t own_rows(const lk_network *net, size_t width)
{
    return (size_t)lk_processes_rank(net->processes) * net->batch * width;
}

static lk_status forward_drop(lk_network *net, uint64_t seed)
{
    lk_net_branch *b = &net->drop;
    lk_status s;
    LK_TRY(lk_drop_block_mask(net->map.height, net->map.width, net->drop_share, 1, seed, net->mask));
    LK_TRY(drop_block(net, net->features, net->dropped));
    LK_TRY(lk_head_pool_forward(&maximum, &net->map, net->batch, net->dropped, b->pooled + own_rows(net, b->width)));
    LK_TRY(lk_processes_gather(net->processes, b->pooled, net->batch * b->width));
    s = lk_branch_forward(b, net->total, true);
done:
    return s;
}

lk_status lk_network_forward(lk_network *net, bool train, uint64_t seed, const float *input)
{
    lk_status s;
    lk_net_branch *b = &net->main;
    LK_TRY(lk_training_forward(net->training, train, (const void *const[]){input}, (float *const[]){net->features}));
    LK_TRY(lk_head_pool_forward(&net->pooling, &net->map, net->batch, net->features,
                                b->pooled + (train ? own_rows(net, b->width) : 0)));
    if (train) LK_TRY(lk_processes_gather(net->processes, b->pooled, net->batch * b->width));
    LK_TRY(lk_branch_forward(b, train ? net->total : net->batch, train));
    if (train && net->drop.loss) s = forward_drop(net, seed);
done:
    return s;
}

/* ---- backward ---- */

static void add_to(float *sum, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) sum[i] += values[i];
}

static lk_status pool_backward(lk_network *net)
{
    const lk_net_branch *b = &net->main;
    float *weights[LK_CGD_KINDS] = {NULL};
    size_t at = own_rows(net, b->width), row = 0, channels = net->map.channels;
    for (size_t k = 0; k < net->pooling.branch_count; row += net->pooling.branches[k++].out)
        weights[k] = net->spare_pool + row * channels;
    if (net->region) {
        weights[0] = net->spare_pool;
        weights[1] = net->spare_pool + channels * channels;
    }
    lk_status s = lk_head_pool_backward(&net->pooling, &net->map, net->batch, net->features, b->pooled + at,
                                        b->g_pooled + at, net->g_features, net->learns_p ? net->spare_p : NULL,
                                        net->cgd || net->region ? weights : NULL);
    if (s != LK_OK) return s;
    if (net->learns_p) add_to(net->p_gradient, net->spare_p, net->pooling.p_count);
    if (net->cgd) add_to(net->cgd_gradient, net->spare_pool, b->width * channels);
    if (net->region) add_to(net->region_gradient, weights[0], channels * channels);
    if (net->region) add_to(net->region_bias_gradient, weights[1], channels);
    return LK_OK;
}

static lk_status backward_drop(lk_network *net, const lk_net_lesson *lesson, double *value)
{
    lk_net_branch *b = &net->drop;
    size_t at = own_rows(net, b->width), n = net->batch * net->map.channels * (net->map.places + net->map.leading);
    double own;
    lk_status s;
    LK_TRY(lk_branch_backward(b, net->total, lesson, &own));
    *value += own;
    LK_TRY(lk_head_pool_backward(&maximum, &net->map, net->batch, net->dropped, b->pooled + at, b->g_pooled + at,
                                 net->g_dropped, NULL, NULL));
    LK_TRY(drop_block(net, net->g_dropped, net->dropped)); /* the values are not needed any more */
    add_to(net->g_features, net->dropped, n);
done:
    return s;
}

lk_status lk_network_backward(lk_network *net, const lk_net_lesson *lesson, double *value)
{
    lk_status s;
    LK_TRY(lk_branch_backward(&net->main, net->total, lesson, value));
    LK_TRY(pool_backward(net));
    if (net->drop.loss) LK_TRY(backward_drop(net, lesson, value));
    if (net->auxiliary.weight) LK_TRY(lk_auxiliary_backward(net, lesson, value));
    s = lk_training_backward(net->training, (const float *const[]){net->g_features}, NULL);
done:
    return s;
}

lk_status lk_network_step(lk_network *net, double rate)
{
    lk_status s = LK_OK;
    for (size_t i = 0; i < net->tensor_count && s == LK_OK; i++) {
        lk_net_tensor *t = &net->tensors[i];
        if (t->parted && t->gradients) s = lk_processes_sum(net->processes, t->gradients, t->n);
    }
    if (s == LK_OK) s = lk_optimiser_step(net->optimiser, rate, NULL);
    for (size_t i = 0; net->learns_p && i < net->pooling.p_count; i++)
        net->p[i] = fminf(fmaxf(net->p[i], LEAST_P), MOST_P);
    lk_training_zero_gradients(net->training);
    if (net->learns_p) memset(net->p_gradient, 0, net->pooling.p_count * sizeof(float));
    if (net->cgd) memset(net->cgd_gradient, 0, net->main.width * net->map.channels * sizeof(float));
    if (net->region) memset(net->region_gradient, 0, net->map.channels * net->map.channels * sizeof(float));
    if (net->region) memset(net->region_bias_gradient, 0, net->map.channels * sizeof(float));
    lk_branch_clear(&net->main);
    lk_branch_clear(&net->drop);
    lk_auxiliary_clear(net);
    return s;
}

static lk_status share_optimiser(lk_network *net)
{
    size_t size = lk_optimiser_state_size(net->optimiser);
    uint8_t *bytes = lk_alloc(size + 1, 1);
    if (!bytes) return lk_fail_memory("optimiser");
    lk_optimiser_state_save(net->optimiser, bytes);
    lk_status s = lk_processes_share(net->processes, bytes, size);
    if (s == LK_OK) s = lk_optimiser_state_load(net->optimiser, bytes, size);
    free(bytes);
    return s;
}

static lk_status share_loss(lk_network *net, lk_loss *loss)
{
    size_t size = loss ? lk_loss_state_size(loss) : 0;
    uint8_t *bytes = lk_alloc(size + 1, 1);
    if (!bytes) return lk_fail_memory("loss");
    if (size) lk_loss_state_save(loss, bytes);
    lk_status s = lk_processes_share(net->processes, bytes, size);
    if (s == LK_OK && size) s = lk_loss_state_restore(loss, bytes, size);
    free(bytes);
    return s;
}

lk_status lk_network_share(lk_network *net)
{
    lk_status s = LK_OK;
    if (lk_processes_count(net->processes) == 1) return LK_OK;
    for (size_t i = 0; i < net->tensor_count; i++)
        LK_TRY(lk_processes_share(net->processes, net->tensors[i].values, net->tensors[i].n * sizeof(float)));
    LK_TRY(share_optimiser(net));
    LK_TRY(share_loss(net, net->main.loss));
    s = share_loss(net, net->drop.loss);
done:
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
