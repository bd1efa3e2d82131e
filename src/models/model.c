#include "models/model.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "models/registry.h"
#include "models/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lk_model {
    lk_safetensors *weights; /* mapped as long as the graph may read it */
    lk_graph *graph;
    lk_preprocess prepare;
    json_t *config;
    char architecture[64];
    lk_model_info info;
    lk_node features, embedding;
};

/* ---- reading the directory ---- */

static lk_status read_json(const char *directory, const char *file, json_t **out)
{
    uint8_t *text = NULL;
    size_t size;
    json_error_t error;
    char *path = lk_path_join(directory, file);
    *out = NULL;
    if (!path) return lk_fail_memory(directory);
    lk_status s = lk_file_read(path, 4 << 20, &text, &size);
    if (s == LK_OK && !(*out = json_loadb((const char *)text, size, 0, &error)))
        s = lk_fail(LK_CORRUPT, "%s: line %d: %s", path, error.line, error.text);
    if (s == LK_OK && !json_is_object(*out)) s = lk_fail(LK_CORRUPT, "%s: is not a JSON object", path);
    free(text);
    free(path);
    return s;
}

static bool has(const char *directory, const char *file)
{
    char *path = lk_path_join(directory, file);
    bool yes = path && lk_path_exists(path);
    free(path);
    return yes;
}

static lk_status open_weights(const char *directory, lk_safetensors **out)
{
    static const char *const pickled[] = {"pytorch_model.bin", "model.pt", "model.pth", "model.bin",
                                          "pytorch_model.pt"};
    *out = NULL;
    if (has(directory, "model.safetensors")) {
        char *path = lk_path_join(directory, "model.safetensors");
        lk_status s = path ? lk_safetensors_open(path, out) : lk_fail_memory(directory);
        free(path);
        return s;
    }
    for (size_t i = 0; i < sizeof pickled / sizeof *pickled; i++)
        if (has(directory, pickled[i]))
            return lk_fail(
                LK_UNSUPPORTED,
                "%s/%s: is a PyTorch file, which can run programs as it is read; convert it once, in that folder: "
                "python -c "
                "\"import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load('%s', "
                "weights_only=True).items()}, 'model.safetensors')\"",
                directory, pickled[i], pickled[i]);
    if (has(directory, "model.safetensors.index.json"))
        return lk_fail(LK_UNSUPPORTED,
                       "%s: its weights are split over several files: save them as one model.safetensors", directory);
    return lk_fail(LK_NOT_FOUND, "%s: model.safetensors is missing: the model is incomplete", directory);
}

/* ---- loading ---- */

static lk_type type_of(lk_st_dtype dtype)
{
    switch (dtype) {
    case LK_ST_F32: return LK_TYPE_F32;
    case LK_ST_F16: return LK_TYPE_F16;
    case LK_ST_BF16: return LK_TYPE_BF16;
    case LK_ST_F64: return LK_TYPE_F64;
    default: return LK_TYPE_U8; /* which no parameter is read from */
    }
}

static void write_shape(char *out, size_t size, int rank, const int64_t *dims)
{
    size_t n = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? ", " : "", (long long)dims[i]);
    if (n < size) snprintf(out + n, size - n, "]");
}

/* Shapes that differ by dimensions of 1 only: a class token [C] and [1, 1, C], a linear layer [D, C] saved as a 1x1
 * convolution [D, C, 1, 1]. */
static bool same_but_ones(const lk_shape *a, const lk_tensor *b)
{
    int j = 0;
    for (int i = 0; i < a->rank; i++) {
        if (a->dims[i] == 1) continue;
        while (j < b->rank && b->dims[j] == 1) j++;
        if (j == b->rank || b->dims[j] != a->dims[i]) return false;
        j++;
    }
    while (j < b->rank && b->dims[j] == 1) j++;
    return j == b->rank;
}

/* "<tensor>#1/3": the second third of its rows. */
static void take_share(const char *name, char *plain, size_t size, int *which, int *of)
{
    const char *hash = strrchr(name, '#');
    *which = 0;
    *of = 1;
    if (hash && sscanf(hash, "#%d/%d", which, of) == 2)
        snprintf(plain, size, "%.*s", (int)(hash - name), name);
    else
        snprintf(plain, size, "%s", name);
}

static lk_status load_one(lk_model *m, const lk_parameter *p)
{
    char name[192], stored_text[128], wanted_text[128];
    int which, of;
    take_share(p->name, name, sizeof name, &which, &of);
    const char *path = lk_safetensors_path(m->weights);
    const lk_safetensor *t = lk_safetensors_find(m->weights, name);
    if (!t) return lk_fail(LK_NOT_FOUND, "%s: the tensor %s is missing, which %s needs", path, name, m->architecture);
    lk_tensor tensor = {.type = type_of(t->dtype), .rank = (int)t->rank, .data = t->data};
    if (tensor.type == LK_TYPE_U8)
        return lk_fail(LK_UNSUPPORTED, "%s: the tensor %s: weights of type %s are not read", path, name,
                       lk_st_dtype_name(t->dtype));
    for (uint32_t i = 0; i < t->rank && i < LK_MAX_DIMS; i++) tensor.dims[i] = (int64_t)t->shape[i];
    if (t->rank > 0 && tensor.dims[0] % of == 0) tensor.dims[0] /= of;
    tensor.data = (const uint8_t *)t->data + t->count / (uint64_t)of * (uint64_t)which * lk_st_dtype_bytes(t->dtype);
    if (t->rank > LK_MAX_DIMS || !same_but_ones(&p->shape, &tensor)) {
        tensor.dims[0] = t->rank ? (int64_t)t->shape[0] : 0;
        write_shape(stored_text, sizeof stored_text, t->rank > LK_MAX_DIMS ? LK_MAX_DIMS : (int)t->rank, tensor.dims);
        write_shape(wanted_text, sizeof wanted_text, p->shape.rank, p->shape.dims);
        return lk_fail(LK_CORRUPT, "%s: the tensor %s has the shape %s; %s wants %s", path, name, stored_text,
                       m->architecture, wanted_text);
    }
    tensor.rank = p->shape.rank;
    memcpy(tensor.dims, p->shape.dims, sizeof tensor.dims);
    return lk_fail_in(lk_graph_load_borrowed(m->graph, p->name, &tensor), "%s", path);
}

static bool begins(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);
    return n >= k && strcmp(name + n - k, suffix) == 0;
}

/* What published files carry besides: classifiers, counters, what was used in training alone, the other tower. */
static bool may_be_left_out(const char *name, const lk_registry_row *row, lk_model_part part)
{
    static const char *const heads[] = {"fc.",     "head.",       "head_dist.", "classifier.",           LK_HEAD_PREFIX,
                                        "pooler.", "logit_scale", "logit_bias", "embeddings.mask_token", "mask_token"};
    static const char *const other[][2] = {[LK_MODEL_VISION] = {"text_model.", "text_projection"},
                                           [LK_MODEL_TEXT] = {"vision_model.", "visual_projection"}};
    if (ends(name, ".num_batches_tracked") || ends(name, ".position_ids")) return true;
    for (size_t i = 0; row->text && i < 2; i++)
        if (begins(name, other[part][i])) return true;
    if (row->wrapper && begins(name, row->wrapper)) name += strlen(row->wrapper);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (begins(name, heads[i])) return true;
    return false;
}

/* A tensor that the graph does not know means that the architecture is another one than config.json says. */
static lk_status check_extra(const lk_model *m, const lk_registry_row *row, lk_model_part part)
{
    for (size_t i = 0; i < lk_safetensors_count(m->weights); i++) {
        char third[200];
        const char *name = lk_safetensors_at(m->weights, i)->name;
        snprintf(third, sizeof third, "%.180s#0/3", name);
        if (lk_graph_parameter_index(m->graph, name) < 0 && lk_graph_parameter_index(m->graph, third) < 0 &&
            !may_be_left_out(name, row, part))
            return lk_fail(
                LK_CORRUPT,
                "%s: the tensor %s has no place in %s: config.json names another architecture, or other sizes",
                lk_safetensors_path(m->weights), name, m->architecture);
    }
    return LK_OK;
}

/* The square root of a negative variance is no number, and a ReLU behind it would hide that. */
static lk_status check_variance(const lk_model *m, const lk_parameter *p, const float *values)
{
    for (uint64_t i = 0; ends(p->name, "running_var") && i < p->elements; i++)
        if (values[i] < 0)
            return lk_fail(LK_CORRUPT, "%s: the tensor %s holds a negative variance", lk_safetensors_path(m->weights),
                           p->name);
    return LK_OK;
}

static lk_status load_all(lk_model *m, const lk_registry_row *row, lk_model_part part)
{
    size_t count = lk_graph_parameter_count(m->graph);
    for (size_t i = 0; i < count; i++) {
        lk_parameter p = lk_graph_parameter_at(m->graph, i);
        lk_status s = load_one(m, &p);
        if (s == LK_OK) s = check_variance(m, &p, lk_graph_values(m->graph, i));
        if (s != LK_OK) return s;
    }
    return check_extra(m, row, part);
}

/* ---- building ---- */

static void fill_info(lk_model *m, const lk_registry_row *row, const lk_builder *b, bool text)
{
    lk_shape features = lk_graph_shape(m->graph, b->features), embedding = lk_graph_shape(m->graph, b->embedding);
    lk_model_info *info = &m->info;
    *info = (lk_model_info){.architecture = m->architecture,
                            .family = row->about.family,
                            .height = text ? 0 : b->size[0],
                            .width = text ? 0 : b->size[1],
                            .length = b->length,
                            .dim = embedding.dims[1],
                            .leading = b->leading,
                            .tokens = features.rank == 3,
                            .text = row->text != NULL};
    info->channels = info->tokens ? features.dims[2] : features.dims[1];
    info->places = info->tokens ? features.dims[1] - b->leading : features.dims[2] * features.dims[3];
    for (size_t i = 0; i < lk_graph_parameter_count(m->graph); i++)
        info->parameters += lk_graph_parameter_at(m->graph, i).elements;
    if (m->weights) {
        size_t size;
        lk_safetensors_bytes(m->weights, &size);
        info->weight_bytes = size;
    }
    m->features = b->features;
    m->embedding = b->embedding;
}

static lk_status build(lk_model *m, const lk_registry_row *row, const json_t *config, const char *folder, bool text)
{
    lk_status s = lk_graph_new(&m->graph);
    if (s != LK_OK) return s;
    lk_builder b = {.graph = m->graph,
                    .config = config,
                    .weights = m->weights,
                    .folder = folder,
                    .prefix = "",
                    .size = {m->prepare.size[0], m->prepare.size[1]},
                    .input = LK_NO_NODE,
                    .features = LK_NO_NODE,
                    .embedding = LK_NO_NODE};
    /* A classifier was saved around the model when any name begins with the wrapper's. */
    for (size_t i = 0; row->wrapper && m->weights && i < lk_safetensors_count(m->weights); i++)
        if (begins(lk_safetensors_at(m->weights, i)->name, row->wrapper)) b.prefix = row->wrapper;
    (text ? row->text : row->vision)(&b, row->variant);
    if (b.status != LK_OK) return b.status;
    s = lk_graph_check(m->graph);
    if (s != LK_OK) return lk_fail_in(s, "%s: config.json", folder);
    fill_info(m, row, &b, text);
    m->info.tokenizer = row->text && lk_tokenizer_exists(folder);
    return LK_OK;
}

static lk_status open_model(const char *directory, lk_model_part part, uint32_t side, lk_model **out)
{
    json_t *config = NULL, *preprocessor = NULL;
    lk_status s = LK_OK;
    *out = NULL;
    lk_model *m = lk_alloc_zero(1, sizeof *m);
    if (!m) return lk_fail_memory("model");
    if (!has(directory, "config.json")) {
        s = lk_fail(LK_NOT_FOUND, "%s: is not a model (it has no config.json)", directory);
        goto done;
    }
    LK_TRY(read_json(directory, "config.json", &config));
    const lk_registry_row *row = lk_registry_find(config);
    const char *name = lk_registry_name(config);
    if (!row) {
        s = name ? lk_fail(
                       LK_UNSUPPORTED,
                       "%s/config.json: the architecture %.*s is not known; `likeness model list` shows those that are",
                       directory, lk_utf8_fit(name, 64), name)
                 : lk_fail(LK_UNSUPPORTED, "%s/config.json: names no architecture (architecture, or model_type)",
                           directory);
        goto done;
    }
    if (part == LK_MODEL_TEXT && !row->text) {
        s = lk_fail(LK_UNSUPPORTED, "%s: %s knows pictures alone; texts want a model such as CLIP", directory,
                    row->about.name);
        goto done;
    }
    snprintf(m->architecture, sizeof m->architecture, "%s", row->about.name);
    if (has(directory, "preprocessor_config.json"))
        LK_TRY(read_json(directory, "preprocessor_config.json", &preprocessor));
    if (part == LK_MODEL_VISION) LK_TRY(lk_preprocess_parse(config, preprocessor, directory, &m->prepare));
    for (int i = 0; side && i < 2; i++) {
        m->prepare.resize[i] = (uint32_t)((uint64_t)m->prepare.resize[i] * side / m->prepare.size[i]);
        m->prepare.size[i] = side;
    }
    LK_TRY(open_weights(directory, &m->weights));
    LK_TRY(build(m, row, config, directory, part == LK_MODEL_TEXT));
    LK_TRY(load_all(m, row, part));
    m->config = json_incref(config);
    *out = m;
    m = NULL;
done:
    json_decref(config);
    json_decref(preprocessor);
    lk_model_free(m);
    return s;
}

lk_status lk_model_open(const char *directory, lk_model_part part, lk_model **out)
{
    return open_model(directory, part, 0, out);
}

lk_status lk_model_open_at(const char *directory, uint32_t side, lk_model **out)
{
    return open_model(directory, LK_MODEL_VISION, side, out);
}

/* {"architecture": name}, or the file of that name. */
static lk_status make_config(const char *architecture, json_t **out)
{
    if (ends(architecture, ".json")) {
        lk_status s = read_json("", architecture, out);
        if (s == LK_OK && !json_is_string(json_object_get(*out, "architecture")))
            s = lk_fail(LK_INVALID, "%s: names no architecture", architecture);
        return s;
    }
    *out = json_pack("{s:s}", "architecture", architecture);
    return *out ? LK_OK : lk_fail(LK_INVALID, "the name of the architecture is not text");
}

lk_status lk_model_new(const char *architecture, int64_t height, int64_t width, lk_model **out)
{
    *out = NULL;
    if (height < 1 || width < 1 || height > 4096 || width > 4096)
        return lk_fail(LK_INVALID, "pictures of %lldx%lld make no sense", (long long)width, (long long)height);
    lk_model *m = lk_alloc_zero(1, sizeof *m);
    json_t *config = NULL;
    lk_status s = m ? LK_OK : lk_fail_memory("model");
    if (s != LK_OK) goto done;
    LK_TRY(make_config(architecture, &config));
    const lk_registry_row *row = lk_registry_find(config);
    if (!row) {
        s = lk_fail(LK_UNSUPPORTED, "the architecture %.*s is not known; `likeness model list` shows those that are",
                    lk_utf8_fit(architecture, 64), architecture);
        goto done;
    }
    snprintf(m->architecture, sizeof m->architecture, "%s", row->about.name);
    /* The usual preparation: shorter side to 8/7, middle cut out, ImageNet's mean and deviation. */
    m->prepare = (lk_preprocess){.fit = LK_FIT_COVER,
                                 .resize = {(uint32_t)(height * 8 / 7), (uint32_t)(width * 8 / 7)},
                                 .filter = LK_FILTER_BICUBIC,
                                 .size = {(uint32_t)height, (uint32_t)width},
                                 .scale = 1.0f / 255,
                                 .mean = {0.485f, 0.456f, 0.406f},
                                 .std = {0.229f, 0.224f, 0.225f}};
    LK_TRY(build(m, row, config, architecture, false));
    m->config = json_incref(config);
    *out = m;
    m = NULL;
done:
    json_decref(config);
    lk_model_free(m);
    return s;
}

void lk_model_free(lk_model *model)
{
    if (!model) return;
    lk_graph_free(model->graph);
    lk_safetensors_free(model->weights);
    json_decref(model->config);
    free(model);
}

const json_t *lk_model_config(const lk_model *model)
{
    return model->config;
}

lk_preprocess *lk_model_preparation(lk_model *model)
{
    return &model->prepare;
}

lk_model_info lk_model_info_of(const lk_model *model)
{
    return model->info;
}

lk_graph *lk_model_graph(lk_model *model)
{
    return model->graph;
}

lk_node lk_model_features(const lk_model *model)
{
    return model->features;
}

lk_node lk_model_embedding(const lk_model *model)
{
    return model->embedding;
}

lk_status lk_model_prepare(const lk_model *model, const lk_image *image, float *out)
{
    return lk_preprocess_run(&model->prepare, image, out);
}

lk_image_options lk_model_image_options(const lk_model *model)
{
    /* Pictures up to six times the size wanted are decoded whole, so that every pixel is the reference's; larger ones
     * are shrunk while decoding, which saves most of their cost. */
    lk_image_options options = lk_image_default_options();
    uint32_t side =
        model->prepare.resize[0] > model->prepare.resize[1] ? model->prepare.resize[0] : model->prepare.resize[1];
    options.max_side = model->prepare.fit == LK_FIT_NONE ? 0 : (model->prepare.fit == LK_FIT_TRIM ? 3 : 6) * side;
    return options;
}
