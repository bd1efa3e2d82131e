/* The trained model as a directory that lk_embedder_open reads. */
#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "base/memory.h"
#include "embed/head.h"
#include "train/files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float EPS_NECK = 1e-5f;

static const char *crop_mode(lk_fit fit)
{
    return fit == LK_FIT_TRIM ? "trim" : fit == LK_FIT_INSIDE ? "border" : "squash";
}

static const char *const filters[] = {"nearest", "box", "bilinear", "bicubic", "lanczos"};

static json_t *describe_head(const lk_network *net)
{
    const lk_head_pooling *how = &net->pooling;
    bool projects = net->main.weight || net->main.scale, cgd = how->branch_count > 0;
    double p = cgd ? (double)how->branches[0].p : net->p ? (double)net->p[0] : 3;
    json_t *head = json_pack("{s:s, s:f, s:I}", "pool", lk_head_pool_names[how->pool], "p", p, "dim",
                             (json_int_t)(projects ? net->dim : 0));
    if (!head) return NULL;
    if (how->p_count > 1) json_object_set_new(head, "p_per_channel", json_true());
    if (how->pool == LK_HEAD_RMAC) json_object_set_new(head, "levels", json_integer(how->levels));
    if (net->region) json_object_set_new(head, "whiten_regions", json_true());
    json_t *descriptors = cgd ? json_array() : NULL;
    for (size_t k = 0; k < how->branch_count; k++)
        json_array_append_new(descriptors, json_pack("{s:s, s:I}", "pool", lk_cgd_names[how->branches[k].kind], "dim",
                                                     (json_int_t)how->branches[k].out));
    if (cgd) json_object_set_new(head, "descriptors", descriptors);
    return head;
}

static lk_status write_config(const char *directory, const lk_network *net)
{
    const lk_preprocess *how = lk_model_preparation(net->model);
    json_t *config = json_deep_copy(lk_model_config(net->model));
    /* Reading rounds size / share down: the half keeps it from losing one. */
    double share = how->fit == LK_FIT_SQUASH ? 1 : how->size[0] / (how->resize[0] + 0.5);
    json_t *prepare =
        json_pack("{s:[i,i,i], s:f, s:s, s:s, s:[f,f,f], s:[f,f,f]}", "input_size", 3, (int)how->size[0],
                  (int)how->size[1], "crop_pct", share, "crop_mode", crop_mode(how->fit), "interpolation",
                  filters[how->filter], "mean", (double)how->mean[0], (double)how->mean[1], (double)how->mean[2], "std",
                  (double)how->std[0], (double)how->std[1], (double)how->std[2]);
    json_t *head = describe_head(net);
    char *text = NULL, *path = lk_path_join(directory, "config.json");
    lk_status s = config && prepare && head && path ? LK_OK : lk_fail_memory("config.json");
    if (s == LK_OK) {
        json_object_set(config, "pretrained_cfg", prepare);
        json_object_set(config, "likeness_head", head);
        text = json_dumps(config, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
        s = text ? lk_file_write_atomic(path, text, strlen(text)) : lk_fail_memory("config.json");
    }
    json_decref(config);
    json_decref(prepare);
    json_decref(head);
    free(text);
    free(path);
    return s;
}

/* Projection and neck as one affine map: y = k (W x + b - mean), k = scale / sqrt(variance + eps). */
static lk_status fold_head(const lk_net_branch *branch, float **weight, float **bias)
{
    size_t dim = branch->dim, width = branch->width;
    *weight = lk_alloc_zero(dim * width, sizeof(float));
    *bias = lk_alloc_zero(dim, sizeof(float));
    if (!*weight || !*bias) return lk_fail_memory("head");
    for (size_t i = 0; i < dim; i++) {
        double k =
            branch->scale ? (double)branch->scale[i] / sqrt((double)branch->running_variance[i] + (double)EPS_NECK) : 1;
        double shift = branch->scale ? (double)branch->running_mean[i] : 0;
        for (size_t c = 0; branch->weight && c < width; c++)
            (*weight)[i * width + c] = (float)(k * (double)branch->weight[i * width + c]);
        if (!branch->weight) (*weight)[i * width + i] = (float)k;
        (*bias)[i] = (float)(k * ((branch->bias ? (double)branch->bias[i] : 0) - shift));
    }
    return LK_OK;
}

/* Matrices as f16; vectors (norms, biases) are few and stay. */
static lk_status halve(lk_safetensor *t, uint16_t **owned)
{
    size_t n = 1;
    for (uint32_t k = 0; k < t->rank; k++) n *= (size_t)t->shape[k];
    *owned = NULL;
    if (t->rank < 2) return LK_OK;
    *owned = lk_alloc(n, sizeof **owned);
    if (!*owned) return lk_fail_memory("weights");
    for (size_t i = 0; i < n; i++) (*owned)[i] = lk_float_to_half(((const float *)t->data)[i]);
    t->data = *owned;
    t->dtype = LK_ST_F16;
    return LK_OK;
}

static lk_status write_weights(const char *directory, const lk_network *net, bool half)
{
    size_t n = 0, most = net->tensor_count + 6;
    float *weight = NULL, *bias = NULL;
    lk_safetensor *tensors = lk_alloc_zero(most, sizeof *tensors);
    uint16_t **halves = lk_alloc_zero(most, sizeof *halves);
    char *path = lk_path_join(directory, "model.safetensors");
    lk_status s = tensors && halves && path ? LK_OK : lk_fail_memory("weights");
    if (s != LK_OK) goto done;
    for (size_t i = 0; i < net->tensor_count; i++) {
        const lk_net_tensor *t = &net->tensors[i];
        if (!t->backbone) continue;
        tensors[n] = (lk_safetensor){.name = t->name, .dtype = LK_ST_F32, .rank = (uint32_t)t->rank, .data = t->values};
        for (int k = 0; k < t->rank; k++) tensors[n].shape[k] = (uint64_t)t->dims[k];
        n++;
    }
    if (net->pooling.p_count > 1)
        tensors[n++] = (lk_safetensor){
            .name = LK_HEAD_PREFIX "p", .dtype = LK_ST_F32, .rank = 1, .shape = {net->pooling.p_count}, .data = net->p};
    if (net->region) {
        size_t channels = net->map.channels;
        tensors[n++] = (lk_safetensor){.name = LK_HEAD_PREFIX "region.weight",
                                       .dtype = LK_ST_F32,
                                       .rank = 2,
                                       .shape = {channels, channels},
                                       .data = net->region};
        tensors[n++] = (lk_safetensor){.name = LK_HEAD_PREFIX "region.bias",
                                       .dtype = LK_ST_F32,
                                       .rank = 1,
                                       .shape = {channels},
                                       .data = net->region_bias};
    }
    if (net->cgd)
        tensors[n++] = (lk_safetensor){.name = LK_HEAD_PREFIX "cgd.weight",
                                       .dtype = LK_ST_F32,
                                       .rank = 2,
                                       .shape = {net->main.width, net->map.channels},
                                       .data = net->cgd};
    if (net->main.weight || net->main.scale) {
        LK_TRY(fold_head(&net->main, &weight, &bias));
        tensors[n++] = (lk_safetensor){.name = LK_HEAD_PREFIX "weight",
                                       .dtype = LK_ST_F32,
                                       .rank = 2,
                                       .shape = {net->dim, net->main.width},
                                       .data = weight};
        tensors[n++] = (lk_safetensor){
            .name = LK_HEAD_PREFIX "bias", .dtype = LK_ST_F32, .rank = 1, .shape = {net->dim}, .data = bias};
    }
    for (size_t i = 0; half && i < n; i++) LK_TRY(halve(&tensors[i], &halves[i]));
    s = lk_safetensors_write(path, tensors, n, (const char *const[]){"format", "pt", NULL});
done:
    for (size_t i = 0; halves && i < most; i++) free(halves[i]);
    free(halves);
    free(tensors);
    free(weight);
    free(bias);
    free(path);
    return s;
}

lk_status lk_train_export(const char *directory, const lk_network *net, bool half)
{
    lk_status s = write_config(directory, net);
    return s == LK_OK ? write_weights(directory, net, half) : s;
}
