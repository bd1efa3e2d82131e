#include "embed/head.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "models/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const lk_head_pool_names[4] = {"avg", "max", "gem", "rmac"};
static const float EPS = 1e-6f;

void lk_head_free(lk_head *head)
{
    free(head->weight);
    free(head->bias);
    *head = (lk_head){0};
}

/* A tensor of the model's file as floats: [rows][columns], columns 0 = a vector. */
static lk_status read_tensor(const lk_safetensors *file, const char *name, size_t rows, size_t columns, float **out)
{
    const lk_safetensor *t = lk_safetensors_find(file, name);
    if (!t) return lk_fail(LK_CORRUPT, "%s: the tensor %s is missing", lk_safetensors_path(file), name);
    if (t->rank != (columns ? 2 : 1) || t->shape[0] != rows || (columns && t->shape[1] != columns))
        return lk_fail(LK_CORRUPT, "%s: the tensor %s does not fit the head that config.json describes",
                       lk_safetensors_path(file), name);
    *out = lk_alloc_aligned((size_t)t->count, sizeof **out);
    if (!*out) return lk_fail_memory(name);
    lk_safetensor_to_f32(t, *out);
    for (size_t i = 0; i < t->count; i++)
        if (!isfinite((*out)[i]))
            return lk_fail(LK_CORRUPT, "%s: the tensor %s has values that are not finite", lk_safetensors_path(file),
                           name);
    return LK_OK;
}

static lk_status read_weights(const char *directory, lk_head *head)
{
    lk_safetensors *file = NULL;
    char *path = lk_path_join(directory, "model.safetensors");
    lk_status s = path ? lk_safetensors_open(path, &file) : lk_fail_memory(directory);
    if (s == LK_OK) s = read_tensor(file, LK_HEAD_PREFIX "weight", head->dim, head->channels, &head->weight);
    if (s == LK_OK) s = read_tensor(file, LK_HEAD_PREFIX "bias", head->dim, 0, &head->bias);
    lk_safetensors_free(file);
    free(path);
    return s;
}

lk_status lk_head_open(const char *directory, const lk_model *model, lk_head *out, bool *there)
{
    const json_t *config = json_object_get(lk_model_config(model), "likeness_head");
    *out = (lk_head){0};
    *there = config != NULL;
    if (!config) return LK_OK;
    const char *pool = json_string_value(json_object_get(config, "pool"));
    int kind = -1;
    for (int i = 0; pool && i < 4; i++)
        if (strcmp(pool, lk_head_pool_names[i]) == 0) kind = i;
    json_int_t dim = json_integer_value(json_object_get(config, "dim"));
    lk_model_info info = lk_model_info_of(model);
    out->p = (float)json_number_value(json_object_get(config, "p"));
    if (kind < 0 || dim < 0 || dim > 65536 || (kind == LK_HEAD_GEM && !(out->p > 0 && out->p < 1000)) ||
        (kind == LK_HEAD_RMAC && info.tokens))
        return lk_fail(LK_CORRUPT, "%s/config.json: its likeness_head is not one", directory);
    out->pool = (lk_head_pool)kind;
    out->channels = (size_t)info.channels;
    out->dim = dim ? (size_t)dim : out->channels;
    lk_status s = dim ? read_weights(directory, out) : LK_OK;
    if (s != LK_OK) lk_head_free(out);
    return s;
}

lk_status lk_head_pool_forward(lk_head_pool pool, float p, lk_map_shape shape, uint32_t height, uint32_t width,
                               const float *features, float *out)
{
    switch (pool) {
    case LK_HEAD_AVG: return lk_average_forward(shape, features, out);
    case LK_HEAD_MAX: return lk_maximum_forward(shape, features, out);
    case LK_HEAD_GEM: return lk_gem_forward(shape, features, &p, 1, EPS, out);
    case LK_HEAD_RMAC:
        return lk_rmac_forward(shape.batch, shape.channels, height, width, LK_HEAD_LEVELS, NULL, features, out);
    }
    return lk_fail(LK_INVALID, "there is no such pooling");
}

lk_status lk_head_apply(const lk_head *head, const lk_model_info *info, uint32_t height, uint32_t width,
                        const float *features, float *pooled, float *out)
{
    lk_map_shape shape = {1, head->channels, (size_t)info->places, info->tokens};
    const float *from = info->tokens ? features + (size_t)info->leading * head->channels : features;
    lk_status s = lk_head_pool_forward(head->pool, head->p, shape, height, width, from, head->weight ? pooled : out);
    if (s != LK_OK || !head->weight) return s;
    return lk_projection_forward(1, head->channels, head->dim, pooled, head->weight, head->bias, out);
}
