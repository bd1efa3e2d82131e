/* The embedder that runs a network: prepares pictures, runs the graph, pools, normalises. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "embed/embedder.h"
#include "embed/head.h"
#include "embed/neural_files.h"
#include "embed/neural_pool.h"
#include "embed/neural_run.h"
#include "models/tokenizer.h"

#include <likeness/model.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 8, VERSION = 1 };

static const char *const pool_names[] = {"model", "avg", "max", "gem", "cls"};
static const char *const precision_names[] = {"f32", "bf16", "int8"};

typedef struct neural {
    lk_embedder base;
    lk_neural_options options;
    char *directory; /* the model's files */
    lk_model *model;
    lk_node output; /* embedding, or features to be pooled */
    bool has_head;  /* of our own training: pools and projects where the model's own head is asked for */
    lk_head head;
    lk_hash128 files;
    float *ranges; /* [n_ranges] of int8, NULL before they were measured */
    size_t n_ranges;
    lk_neural_run single, many; /* a query by itself; pictures in groups */
    /* The text tower, opened when first asked for. */
    pthread_mutex_t text_mutex;
    lk_model *text;
    lk_tokenizer *tokenizer;
    lk_neural_run text_run;
} neural;

static void neural_free(lk_embedder *embedder)
{
    neural *e = (neural *)embedder;
    lk_neural_run_free(&e->single);
    lk_neural_run_free(&e->many);
    lk_neural_run_free(&e->text_run);
    lk_model_free(e->model);
    lk_model_free(e->text);
    lk_tokenizer_free(e->tokenizer);
    pthread_mutex_destroy(&e->text_mutex);
    lk_head_free(&e->head);
    free(e->ranges);
    free(e->directory);
    free(e);
}

/* ---- opening ---- */

/* Name and id, from all that decides the vectors. */
static void identify(neural *e)
{
    struct {
        char kind[16];
        lk_hash128 files, ranges;
        int32_t version, pool, precision;
        float p;
    } all = {.kind = "likeness neural",
             .files = e->files,
             .version = VERSION,
             .pool = (int32_t)e->options.pool,
             .precision = (int32_t)e->options.precision};
    if (e->options.pool == LK_POOL_GEM) all.p = e->options.gem_p;
    if (e->ranges) all.ranges = lk_hash(e->ranges, e->n_ranges * sizeof *e->ranges);
    lk_hash_hex(lk_hash(&all, sizeof all), e->base.id);
    lk_model_info info = lk_model_info_of(e->model);
    char pool[32] = "own head";
    if (e->options.pool == LK_POOL_GEM)
        snprintf(pool, sizeof pool, "gem %g", (double)e->options.gem_p);
    else if (e->options.pool != LK_POOL_MODEL)
        snprintf(pool, sizeof pool, "%s", pool_names[e->options.pool]);
    snprintf(e->base.name, sizeof e->base.name, "%s, %s, %zu dimensions, %s", info.architecture, pool, e->base.dim,
             precision_names[e->options.precision]);
}

static lk_status check_options(const neural *e)
{
    lk_model_info info = lk_model_info_of(e->model);
    const lk_neural_options *o = &e->options;
    if ((unsigned)o->pool > LK_POOL_CLS || (unsigned)o->precision > LK_PRECISION_INT8 || !isfinite(o->gem_p) ||
        o->gem_p <= 0)
        return lk_fail(LK_INVALID, "%s: no such pooling, precision or exponent", e->directory);
    if (o->pool == LK_POOL_CLS && (!info.tokens || info.leading == 0))
        return lk_fail(LK_INVALID, "%s: %s has no class token to take; its poolings are model, avg, max and gem",
                       e->directory, info.architecture);
    return LK_OK;
}

lk_status lk_neural_open(const char *directory, const lk_neural_options *options, lk_embedder **out)
{
    *out = NULL;
    neural *e = lk_alloc_zero(1, sizeof *e);
    if (!e) return lk_fail_memory("model");
    e->base.kind = &lk_embedder_neural;
    e->base.batch = BATCH;
    lk_neural_run_init(&e->single);
    lk_neural_run_init(&e->many);
    lk_neural_run_init(&e->text_run);
    pthread_mutex_init(&e->text_mutex, NULL);
    if (options) e->options = *options;
    if (e->options.gem_p == 0) e->options.gem_p = 3;
    lk_status s;
    e->directory = strdup(directory);
    if (!e->directory) {
        s = lk_fail_memory(directory);
        goto done;
    }
    LK_TRY(lk_model_open(directory, LK_MODEL_VISION, &e->model));
    LK_TRY(check_options(e));
    LK_TRY(lk_neural_files_hash(directory, &e->files));
    lk_model_info info = lk_model_info_of(e->model);
    bool own = e->options.pool == LK_POOL_MODEL;
    if (own) LK_TRY(lk_head_open(directory, e->model, &e->head, &e->has_head));
    if (e->has_head) own = false;
    e->output = own ? lk_model_embedding(e->model) : lk_model_features(e->model);
    e->base.dim = (size_t)(own ? info.dim : info.channels);
    if (e->has_head) e->base.dim = e->head.out;
    e->base.decoding = lk_model_image_options(e->model);
    lk_graph_output(lk_model_graph(e->model), e->output);
    identify(e);
    *out = &e->base;
    e = NULL;
done:
    if (e) neural_free(&e->base);
    return s;
}

bool lk_neural_same(const lk_embedder *a, const lk_embedder *b)
{
    if (a->kind != &lk_embedder_neural || b->kind != &lk_embedder_neural) return false;
    const neural *x = (const neural *)a, *y = (const neural *)b;
    return memcmp(&x->files, &y->files, sizeof x->files) == 0 && x->options.pool == y->options.pool &&
           x->options.precision == y->options.precision &&
           (x->options.pool != LK_POOL_GEM || x->options.gem_p == y->options.gem_p);
}

/* ---- pictures ---- */

/* Outputs of the graph per picture. */
static size_t output_size(const neural *e)
{
    lk_shape shape = lk_graph_shape(lk_model_graph(e->model), e->output);
    size_t size = 1;
    for (int i = 1; i < shape.rank; i++) size *= (size_t)shape.dims[i];
    return size;
}

static size_t input_size(const neural *e)
{
    lk_model_info info = lk_model_info_of(e->model);
    return (size_t)(3 * info.height * info.width);
}

/* pooled: scratch of what a head of our own pools. */
static lk_status pool_one(const neural *e, const float *from, float *pooled, float *out)
{
    lk_model_info info = lk_model_info_of(e->model);
    size_t channels = (size_t)info.channels;
    if (e->has_head) return lk_head_apply(&e->head, from, pooled, out);
    if (e->options.pool == LK_POOL_MODEL)
        memcpy(out, from, e->base.dim * sizeof *out);
    else if (e->options.pool == LK_POOL_CLS)
        memcpy(out, from, channels * sizeof *out);
    else
        lk_neural_pool(info.tokens ? from + (size_t)info.leading * channels : from, (size_t)info.places, channels,
                       !info.tokens, e->options.pool, e->options.gem_p, out);
    return LK_OK;
}

static lk_status set_ranges(const neural *e, lk_calibration **out)
{
    lk_status s = lk_calibration_new(lk_model_graph(e->model), out);
    return s == LK_OK ? lk_calibration_set(*out, e->ranges, e->n_ranges) : s;
}

/* An executor for `n` pictures. One picture takes the way of groups where that is made already. */
static lk_status take(neural *e, size_t n, lk_neural_run **run, lk_executor **out)
{
    lk_compile_options options = {.precision = e->options.precision};
    lk_calibration *calibration = NULL;
    lk_status s = LK_OK;
    *run = n > 1 || lk_neural_run_made(&e->many) ? &e->many : &e->single;
    if (options.precision == LK_PRECISION_INT8 && !lk_neural_run_made(*run)) s = set_ranges(e, &calibration);
    options.calibration = calibration;
    if (s == LK_OK) s = lk_neural_run_take(*run, lk_model_graph(e->model), &options, n, BATCH, out);
    lk_calibration_free(calibration);
    return s;
}

static lk_status embed_some(neural *e, lk_executor *executor, const lk_image *images, size_t first, size_t n,
                            size_t total, float *input, float *output, float *out)
{
    size_t in = input_size(e), raw = output_size(e);
    for (size_t i = 0; i < n; i++) {
        lk_status s = lk_model_prepare(e->model, &images[first + i], input + i * in);
        if (s != LK_OK) return s;
    }
    lk_status s = lk_executor_run(executor, (int64_t)n, (const void *const[]){input}, (float *const[]){output});
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        float *row = out + (first + i) * e->base.dim;
        s = pool_one(e, output + i * raw, input, row); /* the pictures are not needed any more */
        if (s == LK_OK) s = lk_neural_normalise(row, e->base.dim);
        if (total > 1) lk_fail_in(s, "picture %zu", first + i + 1);
    }
    return s;
}

static lk_status neural_embed(const lk_embedder *embedder, const lk_image *images, size_t n, float *out)
{
    neural *e = (neural *)embedder; /* what changes is guarded inside of run */
    lk_executor *executor = NULL;
    lk_neural_run *run = NULL;
    float *input = NULL, *output = NULL;
    lk_status s = LK_OK;
    if (n == 0) return LK_OK;
    if (lk_neural_needs_calibration(embedder))
        return lk_fail(LK_INVALID, "%s: its int8 ranges were never measured (lk_neural_calibrate)", e->directory);
    LK_TRY(take(e, n, &run, &executor));
    size_t batch = (size_t)run->batch;
    size_t pooled = e->has_head ? lk_head_scratch(&e->head) : 0;
    input = lk_alloc_aligned(batch * input_size(e) + pooled, sizeof *input);
    output = lk_alloc_aligned(batch * output_size(e), sizeof *output);
    if (!input || !output) {
        s = lk_fail_memory("pictures");
        goto done;
    }
    for (size_t i = 0; s == LK_OK && i < n; i += batch)
        s = embed_some(e, executor, images, i, n - i < batch ? n - i : batch, n, input, output, out);
done:
    lk_neural_run_give(run, executor);
    free(input);
    free(output);
    return s;
}

static lk_status neural_prepare(const lk_embedder *embedder)
{
    lk_neural_run *run;
    lk_executor *executor = NULL;
    if (lk_neural_needs_calibration(embedder)) return LK_OK; /* whoever embeds is told */
    lk_status s = take((neural *)embedder, 1, &run, &executor);
    lk_neural_run_give(run, executor);
    return s;
}

/* ---- int8 ---- */

bool lk_neural_needs_calibration(const lk_embedder *embedder)
{
    const neural *e = (const neural *)embedder;
    return embedder->kind == &lk_embedder_neural && e->options.precision == LK_PRECISION_INT8 && !e->ranges;
}

lk_status lk_neural_calibrate(lk_embedder *embedder, const lk_image *images, size_t n)
{
    neural *e = (neural *)embedder;
    if (!lk_neural_needs_calibration(embedder) || n == 0)
        return lk_fail(LK_INVALID, "nothing is to be calibrated, or there are no pictures to do it with");
    lk_calibration *calibration = NULL;
    float *ranges = NULL, *input = lk_alloc_aligned(input_size(e), sizeof *input);
    lk_status s = input ? LK_OK : lk_fail_memory("pictures");
    if (s == LK_OK) s = lk_calibration_new(lk_model_graph(e->model), &calibration);
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        s = lk_model_prepare(e->model, &images[i], input);
        if (s == LK_OK) s = lk_calibration_add(calibration, 1, (const void *const[]){input});
    }
    if (s == LK_OK) {
        e->n_ranges = lk_calibration_count(calibration);
        ranges = lk_alloc(e->n_ranges, sizeof *ranges);
        if (!ranges) s = lk_fail_memory("ranges");
    }
    if (s == LK_OK) {
        lk_calibration_values(calibration, ranges);
        e->ranges = ranges;
        identify(e);
    }
    lk_calibration_free(calibration);
    free(input);
    return s;
}

/* ---- texts ---- */

static bool neural_has_text(const lk_embedder *embedder)
{
    const neural *e = (const neural *)embedder;
    return e->options.pool == LK_POOL_MODEL && lk_model_info_of(e->model).text && lk_tokenizer_exists(e->directory);
}

static lk_status open_text(neural *e)
{
    lk_status s = LK_OK;
    pthread_mutex_lock(&e->text_mutex);
    if (!e->tokenizer) s = lk_tokenizer_open(e->directory, &e->tokenizer);
    if (s == LK_OK && !e->text) {
        s = lk_model_open(e->directory, LK_MODEL_TEXT, &e->text);
        if (s == LK_OK) {
            lk_graph_output(lk_model_graph(e->text), lk_model_embedding(e->text));
            if ((size_t)lk_model_info_of(e->text).dim != e->base.dim)
                s = lk_fail(LK_CORRUPT, "%s: texts have %lld dimensions, pictures %zu", e->directory,
                            (long long)lk_model_info_of(e->text).dim, e->base.dim);
        }
    }
    pthread_mutex_unlock(&e->text_mutex);
    return s;
}

static lk_status neural_embed_text(const lk_embedder *embedder, const char *const *texts, size_t n, float *out)
{
    neural *e = (neural *)embedder;
    lk_executor *executor = NULL;
    int32_t *ids = NULL;
    lk_status s;
    LK_TRY(open_text(e));
    size_t length = (size_t)lk_model_info_of(e->text).length, count;
    /* Texts are few, and f32 costs little for them; bf16 vectors of pictures fit f32 vectors of texts. */
    LK_TRY(lk_neural_run_take(&e->text_run, lk_model_graph(e->text), &(lk_compile_options){0}, 1, 1, &executor));
    ids = lk_alloc(length, sizeof *ids);
    if (!ids) s = lk_fail_memory("text");
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        float *row = out + i * e->base.dim;
        s = lk_tokenizer_encode(e->tokenizer, texts[i], length, ids, &count);
        if (s != LK_OK) break;
        for (size_t j = count; j < length; j++) ids[j] = lk_tokenizer_pad(e->tokenizer);
        s = lk_executor_run(executor, 1, (const void *const[]){ids}, (float *const[]){row});
        if (s == LK_OK) s = lk_neural_normalise(row, e->base.dim);
        s = lk_fail_in(s, "%s: text %zu", e->directory, i + 1);
    }
done:
    lk_neural_run_give(&e->text_run, executor);
    free(ids);
    return s;
}

/* ---- in a folder of our own ---- */

static lk_status neural_save(const lk_embedder *embedder, const char *directory)
{
    const neural *e = (const neural *)embedder;
    char *network = lk_path_join(directory, "network"), *path = lk_path_join(directory, "config.json"), *text = NULL;
    json_t *ranges = json_array(), *config = NULL;
    lk_status s;
    if (!network || !path || !ranges) {
        s = lk_fail_memory(directory);
        goto done;
    }
    if (lk_neural_needs_calibration(embedder)) {
        s = lk_fail(LK_INVALID, "%s: its int8 ranges were never measured", e->directory);
        goto done;
    }
    LK_TRY(lk_neural_files_bring(e->directory, network));
    for (size_t i = 0; i < e->n_ranges; i++) json_array_append_new(ranges, json_real((double)e->ranges[i]));
    config = json_pack("{s:s, s:i, s:s, s:f, s:s, s:O}", "kind", "neural", "version", VERSION, "pool",
                       pool_names[e->options.pool], "gem_p", (double)e->options.gem_p, "precision",
                       precision_names[e->options.precision], "ranges", ranges);
    text = config ? json_dumps(config, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    s = text ? lk_file_write_atomic(path, text, strlen(text)) : lk_fail_memory(directory);
done:
    free(text);
    json_decref(config);
    json_decref(ranges);
    free(network);
    free(path);
    return s;
}

static int find_name(const json_t *config, const char *key, const char *const *names, int count)
{
    const char *name = json_string_value(json_object_get(config, key));
    for (int i = 0; name && i < count; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

static lk_status read_ranges(neural *e, const json_t *list, const char *directory)
{
    size_t i;
    json_t *value;
    e->n_ranges = json_array_size(list);
    if (e->n_ranges == 0) return lk_fail(LK_CORRUPT, "%s/config.json: has no ranges for int8", directory);
    e->ranges = lk_alloc(e->n_ranges, sizeof *e->ranges);
    if (!e->ranges) return lk_fail_memory(directory);
    json_array_foreach(list, i, value)
    {
        e->ranges[i] = (float)json_number_value(value);
        if (!json_is_number(value) || !isfinite(e->ranges[i]))
            return lk_fail(LK_CORRUPT, "%s/config.json: range %zu is not a number", directory, i);
    }
    identify(e);
    return LK_OK;
}

static lk_status neural_open(const char *directory, json_t *config, lk_embedder **out)
{
    int pool = find_name(config, "pool", pool_names, 5), precision = find_name(config, "precision", precision_names, 3);
    json_int_t version = json_integer_value(json_object_get(config, "version"));
    *out = NULL;
    if (version > VERSION)
        return lk_fail(LK_UNSUPPORTED, "%s/config.json: was written by a newer version of Likeness", directory);
    if (version < 1 || pool < 0 || precision < 0)
        return lk_fail(LK_CORRUPT, "%s/config.json: its version, pool or precision is not one", directory);
    const lk_neural_options options = {.pool = (lk_pooling)pool,
                                       .gem_p = (float)json_number_value(json_object_get(config, "gem_p")),
                                       .precision = (lk_precision)precision};
    char *network = lk_path_join(directory, "network");
    if (!network) return lk_fail_memory(directory);
    lk_status s = lk_neural_open(network, &options, out);
    free(network);
    if (s == LK_OK && precision == LK_PRECISION_INT8)
        s = read_ranges((neural *)*out, json_object_get(config, "ranges"), directory);
    if (s != LK_OK) {
        lk_embedder_free(*out);
        *out = NULL;
    }
    return s;
}

const lk_embedder_kind lk_embedder_neural = {.name = "neural",
                                             .open = neural_open,
                                             .save = neural_save,
                                             .embed = neural_embed,
                                             .prepare = neural_prepare,
                                             .embed_text = neural_embed_text,
                                             .has_text = neural_has_text,
                                             .free = neural_free};
