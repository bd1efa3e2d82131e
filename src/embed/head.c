#include "embed/head.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "index/distance.h"
#include "models/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const lk_head_pool_names[LK_HEAD_POOLS] = {"avg", "max", "gem", "rmac", "cgd", "cls"};
const char *const lk_cgd_names[LK_CGD_KINDS] = {"avg", "max", "gem"};
static const float EPS = 1e-6f;

void lk_head_free(lk_head *head)
{
    free(head->p);
    float *all[] = {head->cgd,  head->region_weight, head->region_bias, head->weight,
                    head->bias, head->whiten_weight, head->whiten_bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
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

static lk_status read_weights(const char *directory, lk_head *head, bool projects, bool regions, bool whitens)
{
    lk_safetensors *file = NULL;
    size_t out = 0, channels = head->map.channels;
    char *path = lk_path_join(directory, "model.safetensors");
    lk_status s = path ? lk_safetensors_open(path, &file) : lk_fail_memory(directory);
    if (s != LK_OK) goto done;
    if (head->pooling.p_count > 1) {
        free(head->p);
        head->p = NULL;
        LK_TRY(read_tensor(file, LK_HEAD_PREFIX "p", head->pooling.p_count, 0, &head->p));
        for (size_t i = 0; i < head->pooling.p_count; i++)
            if (!(head->p[i] > 0)) LK_TRY(lk_fail(LK_CORRUPT, "%s: an exponent is not above 0", path));
    }
    for (size_t k = 0; k < head->pooling.branch_count; k++) out += head->pooling.branches[k].out;
    if (out) LK_TRY(read_tensor(file, LK_HEAD_PREFIX "cgd.weight", out, head->map.channels, &head->cgd));
    if (regions) {
        LK_TRY(read_tensor(file, LK_HEAD_PREFIX "region.weight", channels, channels, &head->region_weight));
        LK_TRY(read_tensor(file, LK_HEAD_PREFIX "region.bias", channels, 0, &head->region_bias));
        head->pooling.whitening = (lk_whitening){head->region_weight, head->region_bias, channels};
    }
    if (whitens) {
        LK_TRY(read_tensor(file, LK_HEAD_PREFIX "whiten.weight", head->out, head->dim, &head->whiten_weight));
        LK_TRY(read_tensor(file, LK_HEAD_PREFIX "whiten.bias", head->out, 0, &head->whiten_bias));
    }
    if (projects) LK_TRY(read_tensor(file, LK_HEAD_PREFIX "weight", head->dim, head->width, &head->weight));
    if (projects) LK_TRY(read_tensor(file, LK_HEAD_PREFIX "bias", head->dim, 0, &head->bias));
done:
    lk_safetensors_free(file);
    free(path);
    return s;
}

static int find_name(const char *name, const char *const *names, int count)
{
    for (int i = 0; name && i < count; i++)
        if (strcmp(name, names[i]) == 0) return i;
    return -1;
}

/* [{"pool": "avg", "dim": 64}, ...]; false when it is not that. */
static bool read_branches(const json_t *list, float p, lk_head_pooling *out)
{
    size_t count = json_array_size(list);
    if (count < 1 || count > LK_CGD_KINDS) return false;
    for (size_t k = 0; k < count; k++) {
        const json_t *one = json_array_get(list, k);
        int kind = find_name(json_string_value(json_object_get(one, "pool")), lk_cgd_names, LK_CGD_KINDS);
        json_int_t dim = json_integer_value(json_object_get(one, "dim"));
        if (kind < 0 || dim < 1 || dim > 65536) return false;
        out->branches[k] = (lk_cgd_branch){.kind = (lk_cgd_kind)kind, .p = p, .out = (size_t)dim};
    }
    out->branch_count = count;
    return true;
}

lk_status lk_head_open(const char *directory, lk_model *model, lk_head *out, bool *there)
{
    const json_t *config = json_object_get(lk_model_config(model), "likeness_head");
    *out = (lk_head){0};
    *there = config != NULL;
    if (!config) return LK_OK;
    lk_model_info info = lk_model_info_of(model);
    lk_shape shape = lk_graph_shape(lk_model_graph(model), lk_model_features(model));
    lk_head_pooling *how = &out->pooling;
    out->map = lk_head_map_of(&info, &shape);
    int kind = find_name(json_string_value(json_object_get(config, "pool")), lk_head_pool_names, LK_HEAD_POOLS);
    json_int_t dim = json_integer_value(json_object_get(config, "dim"));
    json_int_t levels = json_integer_value(json_object_get(config, "levels"));
    json_int_t kept = json_integer_value(json_object_get(json_object_get(config, "whiten"), "dim"));
    bool whitens = json_object_get(config, "whiten") != NULL;
    bool regions = json_is_true(json_object_get(config, "whiten_regions"));
    float p = (float)json_number_value(json_object_get(config, "p"));
    bool powers = kind == LK_HEAD_GEM || kind == LK_HEAD_CGD;
    how->pool = (lk_head_pool)kind;
    how->levels = levels ? (unsigned)levels : LK_HEAD_LEVELS;
    how->p_count = json_is_true(json_object_get(config, "p_per_channel")) ? out->map.channels : 1;
    bool sane = kind >= 0 && dim >= 0 && dim <= 65536 && (!powers || (p > 0 && p < 1000)) && levels >= 0 && levels <= 8;
    sane = sane && (!whitens || (kept > 0 && kept <= 65536)) && (!regions || kind == LK_HEAD_RMAC);
    sane = sane && (kind != LK_HEAD_CGD || read_branches(json_object_get(config, "descriptors"), p, how));
    if (!sane || lk_head_pool_check(how, &out->map) != LK_OK) {
        *out = (lk_head){0};
        return lk_fail(LK_CORRUPT, "%s/config.json: its likeness_head is not one", directory);
    }
    out->width = lk_head_pool_width(how, &out->map);
    out->dim = dim ? (size_t)dim : out->width;
    out->out = whitens ? (size_t)kept : out->dim;
    out->p = lk_alloc(1, sizeof *out->p);
    lk_status s = out->p ? LK_OK : lk_fail_memory("head");
    if (s == LK_OK) *out->p = p;
    if (s == LK_OK && (dim || how->p_count > 1 || how->branch_count || regions || whitens))
        s = read_weights(directory, out, dim > 0, regions, whitens);
    how->p = out->p;
    for (size_t k = 0, at = 0; k < how->branch_count; at += how->branches[k++].out)
        how->branches[k].weight = out->cgd ? out->cgd + at * out->map.channels : NULL;
    if (s != LK_OK) lk_head_free(out);
    return s;
}

size_t lk_head_scratch(const lk_head *head)
{
    return head->width + (head->whiten_weight ? 2 * head->dim : 0);
}

/* lk_projection_forward of one row without BLAS, which takes longer to load than a search by a picture may. */
static void project(size_t in, size_t out, const float *x, const float *weight, const float *bias, float *y)
{
    const lk_distance_kernels *kernels = lk_distance_kernels_for(lk_cpu_detect());
    kernels->rows_dot[LK_F32](x, weight, in * sizeof *weight, out, in, NULL, y);
    for (size_t o = 0; bias && o < out; o++) y[o] += bias[o];
}

lk_status lk_head_apply(const lk_head *head, const float *features, float *scratch, float *out)
{
    lk_status s;
    float *vector = head->whiten_weight ? scratch + head->width : out, *unit = vector + head->dim;
    LK_TRY(lk_head_pool_forward(&head->pooling, &head->map, 1, features, head->weight ? scratch : vector));
    if (head->weight) project(head->width, head->dim, scratch, head->weight, head->bias, vector);
    if (!head->whiten_weight) goto done;
    LK_TRY(lk_normalise_forward(1, head->dim, vector, 1e-12f, unit));
    project(head->dim, head->out, unit, head->whiten_weight, head->whiten_bias, out);
done:
    return s;
}

/* ---- pooling ---- */

lk_head_map lk_head_map_of(const lk_model_info *info, const lk_shape *features)
{
    return (lk_head_map){.channels = (size_t)info->channels,
                         .places = (size_t)info->places,
                         .leading = (size_t)info->leading,
                         .tokens = info->tokens,
                         .height = info->tokens ? 1 : (uint32_t)features->dims[2],
                         .width = (uint32_t)(info->tokens ? info->places : features->dims[3])};
}

lk_status lk_head_pool_check(const lk_head_pooling *how, const lk_head_map *map)
{
    if (how->pool == LK_HEAD_RMAC && map->tokens)
        return lk_fail(LK_UNSUPPORTED, "R-MAC wants a map of places, which transformers do not have: use gem");
    if (how->pool == LK_HEAD_CLS && !(map->tokens && map->leading))
        return lk_fail(LK_UNSUPPORTED, "this network has no class token: use gem or avg");
    return LK_OK;
}

size_t lk_head_pool_width(const lk_head_pooling *how, const lk_head_map *map)
{
    size_t width = 0;
    if (how->pool != LK_HEAD_CGD) return map->channels;
    for (size_t k = 0; k < how->branch_count; k++) width += how->branches[k].out;
    return width;
}

/* Tokens of n pictures without those in front: in [n][leading + places][channels], out [n][places][channels]; back: the
 * other way, and those in front are zeroed. */
static void move_places(const lk_head_map *map, size_t n, float *all, float *places, bool back)
{
    size_t head = map->leading * map->channels, body = map->places * map->channels;
    for (size_t i = 0; i < n; i++) {
        float *from = all + i * (head + body);
        if (back) memset(from, 0, head * sizeof *from);
        if (back)
            memcpy(from + head, places + i * body, body * sizeof *from);
        else
            memcpy(places + i * body, from + head, body * sizeof *from);
    }
}

static lk_status pool_places(const lk_head_pooling *how, const lk_head_map *map, lk_map_shape shape, const float *x,
                             float *out)
{
    switch (how->pool) {
    case LK_HEAD_AVG: return lk_average_forward(shape, x, out);
    case LK_HEAD_MAX: return lk_maximum_forward(shape, x, out);
    case LK_HEAD_GEM: return lk_gem_forward(shape, x, how->p, how->p_count, EPS, out);
    case LK_HEAD_RMAC:
        return lk_rmac_forward(shape.batch, shape.channels, map->height, map->width, how->levels, &how->whitening, x,
                               out);
    case LK_HEAD_CGD: return lk_cgd_forward(shape, how->branches, how->branch_count, x, out);
    default: return lk_fail(LK_INVALID, "there is no such pooling");
    }
}

static lk_status pool_places_back(const lk_head_pooling *how, const lk_head_map *map, lk_map_shape shape,
                                  const float *x, const float *out, const float *g, float *gx, float *grad_p,
                                  float *const *grad_weights)
{
    switch (how->pool) {
    case LK_HEAD_AVG: return lk_average_backward(shape, g, gx);
    case LK_HEAD_MAX: return lk_maximum_backward(shape, x, g, gx);
    case LK_HEAD_GEM: return lk_gem_backward(shape, x, out, g, how->p, how->p_count, EPS, gx, grad_p);
    case LK_HEAD_RMAC:
        return lk_rmac_backward(shape.batch, shape.channels, map->height, map->width, how->levels, &how->whitening, x,
                                g, gx, grad_weights ? grad_weights[0] : NULL, grad_weights ? grad_weights[1] : NULL);
    case LK_HEAD_CGD: return lk_cgd_backward(shape, how->branches, how->branch_count, x, g, gx, grad_weights);
    default: return lk_fail(LK_INVALID, "there is no such pooling");
    }
}

lk_status lk_head_pool_forward(const lk_head_pooling *how, const lk_head_map *map, size_t n, const float *features,
                               float *out)
{
    const lk_map_shape shape = {n, map->channels, map->places, map->tokens};
    size_t row = (map->leading + map->places) * map->channels;
    if (how->pool == LK_HEAD_CLS) {
        for (size_t i = 0; i < n; i++) memcpy(out + i * map->channels, features + i * row, map->channels * sizeof *out);
        return LK_OK;
    }
    if (!map->tokens || !map->leading) return pool_places(how, map, shape, features, out);
    if (n == 1) return pool_places(how, map, shape, features + map->leading * map->channels, out);
    float *places = lk_alloc_aligned(n * map->places, map->channels * sizeof *places);
    if (!places) return lk_fail_memory("places");
    move_places(map, n, (float *)(uintptr_t)features, places, false);
    lk_status s = pool_places(how, map, shape, places, out);
    free(places);
    return s;
}

lk_status lk_head_pool_backward(const lk_head_pooling *how, const lk_head_map *map, size_t n, const float *features,
                                const float *out, const float *grad_out, float *grad_features, float *grad_p,
                                float *const *grad_weights)
{
    const lk_map_shape shape = {n, map->channels, map->places, map->tokens};
    size_t row = (map->leading + map->places) * map->channels, body = n * map->places * map->channels;
    if (how->pool == LK_HEAD_CLS) {
        memset(grad_features, 0, n * row * sizeof *grad_features);
        for (size_t i = 0; i < n; i++)
            memcpy(grad_features + i * row, grad_out + i * map->channels, map->channels * sizeof *grad_out);
        return LK_OK;
    }
    if (!map->tokens || !map->leading)
        return pool_places_back(how, map, shape, features, out, grad_out, grad_features, grad_p, grad_weights);
    float *places = lk_alloc_aligned(2 * body, sizeof *places);
    if (!places) return lk_fail_memory("places");
    move_places(map, n, (float *)(uintptr_t)features, places, false);
    lk_status s = pool_places_back(how, map, shape, places, out, grad_out, places + body, grad_p, grad_weights);
    if (s == LK_OK) move_places(map, n, grad_features, places + body, true);
    free(places);
    return s;
}
