/* Whitening, learnt from the vectors that the finished model makes of the training pictures, as every later user of the
 * model would make them. */
#include "embed/whiten.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "embed/head.h"
#include "metric/by_class.h"
#include "train/files.h"

#include <jansson.h>
#include <likeness/embed.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 20000, RUN = 64, TOGETHER = 64, PARTNERS = 4 };
static const char *const kinds[] = {"none", "pca", "learnt"};

/* ---- the model's files ---- */

static lk_status read_config(const char *path, json_t **out)
{
    json_error_t error;
    *out = json_load_file(path, 0, &error);
    return *out ? LK_OK : lk_fail(LK_CORRUPT, "%s: %s", path, error.text);
}

/* Puts the description of the whitening into config.json; NULL takes it out. asked: the dimensions that were wanted, of
 * which fewer may be left; 0 = all. */
static lk_status write_config(const char *path, json_t *config, const char *kind, size_t dim, size_t asked)
{
    json_t *head = json_object_get(config, "likeness_head");
    if (kind)
        json_object_set_new(
            head, "whiten",
            json_pack("{s:s, s:I, s:I}", "kind", kind, "dim", (json_int_t)dim, "asked", (json_int_t)asked));
    else
        json_object_del(head, "whiten");
    char *text = json_dumps(config, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    lk_status s = text ? lk_file_write_atomic(path, text, strlen(text)) : lk_fail_memory("config.json");
    free(text);
    return s;
}

/* The tensors that are there, and the whitening behind them: y = weight x + bias. */
static lk_status write_weights(const char *path, const lk_pca *w, const float *bias)
{
    static const char names[2][32] = {LK_HEAD_PREFIX "whiten.weight", LK_HEAD_PREFIX "whiten.bias"};
    lk_safetensors *file = NULL;
    lk_safetensor *tensors = NULL;
    lk_status s;
    LK_TRY(lk_safetensors_open(path, &file));
    size_t n = 0, count = lk_safetensors_count(file);
    tensors = lk_alloc_zero(count + 2, sizeof *tensors);
    if (!tensors) LK_TRY(lk_fail_memory("weights"));
    for (size_t i = 0; i < count; i++) {
        const lk_safetensor *t = lk_safetensors_at(file, i);
        if (strcmp(t->name, names[0]) != 0 && strcmp(t->name, names[1]) != 0) tensors[n++] = *t;
    }
    tensors[n++] = (lk_safetensor){
        .name = names[0], .dtype = LK_ST_F32, .rank = 2, .shape = {w->out, w->in}, .data = w->components};
    tensors[n++] = (lk_safetensor){.name = names[1], .dtype = LK_ST_F32, .rank = 1, .shape = {w->out}, .data = bias};
    s = lk_safetensors_write(path, tensors, n, (const char *const[]){"format", "pt", NULL});
done:
    free(tensors);
    lk_safetensors_free(file);
    return s;
}

/* ---- vectors ---- */

typedef struct sample {
    lk_context *context;
    const lk_train_data *data;
    lk_embedder *embedder;
    size_t n, dim;
    uint32_t *rows; /* [n] of the training part, one class after the other */
    float *vectors; /* [n][dim] */
    lk_image images[TOGETHER];
    bool loaded[TOGETHER];
    size_t first;
} sample;

/* Of the rows one class after the other every so many runs, so that pairs stay together and no class of many pictures
 * is all or nothing. */
static lk_status choose_rows(sample *c)
{
    const lk_train_part *part = &c->data->training;
    lk_by_class *order = lk_alloc(part->count, sizeof *order);
    c->rows = lk_alloc(part->count, sizeof *c->rows);
    if (!order || !c->rows) {
        free(order);
        return lk_fail_memory("pictures");
    }
    for (size_t i = 0; i < part->count; i++) order[i] = (lk_by_class){part->classes[i], (uint32_t)i};
    qsort(order, part->count, sizeof *order, lk_by_class_compare);
    size_t every = (part->count + MOST - 1) / MOST;
    for (size_t i = 0; i < part->count && c->n < MOST; i++)
        if (i / RUN % every == 0) c->rows[c->n++] = order[i].row;
    free(order);
    return LK_OK;
}

static lk_status load(void *arg, size_t begin, size_t end, int worker)
{
    sample *c = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        const lk_image_options options = lk_embedder_image_options(c->embedder);
        const char *path = c->data->paths[c->data->training.pictures[c->rows[c->first + i]]];
        lk_status s = lk_image_load(path, &options, &c->images[i]);
        if (s == LK_NO_MEMORY) return s;
        c->loaded[i] = s == LK_OK; /* said while training; the picture takes no part */
    }
    return LK_OK;
}

/* Vectors of all rows; pictures that cannot be read are taken out of them. */
static lk_status embed(sample *c)
{
    size_t kept = 0;
    lk_status s = LK_OK;
    c->dim = lk_embedder_dim(c->embedder);
    c->vectors = lk_alloc(c->n, c->dim * sizeof *c->vectors);
    if (!c->vectors) return lk_fail_memory("vectors");
    for (c->first = 0; s == LK_OK && c->first < c->n; c->first += TOGETHER) {
        size_t n = c->n - c->first < TOGETHER ? c->n - c->first : TOGETHER, there = 0;
        if (lk_context_cancelled(c->context)) return lk_fail(LK_CANCELLED, "stopped while learning the whitening");
        s = lk_parallel_for(lk_context_pool(c->context), n, 1, load, c);
        for (size_t i = 0; i < n; i++) {
            if (!c->loaded[i]) continue;
            c->rows[kept + there] = c->rows[c->first + i];
            if (there != i) {
                c->images[there] = c->images[i];
                c->images[i] = (lk_image){0};
            }
            there++;
        }
        if (s == LK_OK && there) s = lk_embedder_embed(c->embedder, c->images, there, c->vectors + kept * c->dim);
        for (size_t i = 0; i < n; i++) lk_image_free(&c->images[i]);
        kept += there;
        lk_report_progress(c->context, "whitening", c->first + n, c->n);
    }
    c->n = kept;
    return s;
}

/* Each picture with the few that come next in its class. */
static lk_status make_pairs(const sample *c, lk_pair **out, size_t *count)
{
    const int32_t *classes = c->data->training.classes;
    lk_pair *pairs = lk_alloc(c->n * PARTNERS + 1, sizeof *pairs);
    size_t n = 0;
    if (!pairs) return lk_fail_memory("pairs");
    for (size_t i = 0; i < c->n; i++)
        for (size_t j = i + 1; j < c->n && j <= i + PARTNERS && classes[c->rows[j]] == classes[c->rows[i]]; j++)
            pairs[n++] = (lk_pair){(uint32_t)i, (uint32_t)j};
    *out = pairs;
    *count = n;
    return LK_OK;
}

static lk_status fit(sample *c, const lk_train_options *options, lk_pca *out)
{
    size_t dim = options->whiten_dim ? options->whiten_dim : c->dim, count = 0;
    lk_pair *pairs = NULL;
    if (options->whiten == LK_WHITEN_PCA) return lk_pca_fit(c->context, c->vectors, c->n, c->dim, dim, 0, out);
    lk_status s = make_pairs(c, &pairs, &count);
    if (s == LK_OK) s = lk_whiten_pairs(c->vectors, c->n, c->dim, pairs, count, dim, out);
    free(pairs);
    return s;
}

lk_status lk_train_whiten(lk_context *context, const lk_train_data *data, const lk_train_options *options,
                          const char *directory)
{
    sample c = {.context = context, .data = data};
    lk_pca whitening = {0};
    json_t *config = NULL;
    float *bias = NULL;
    char *path = lk_path_join(directory, "config.json"), *weights = lk_path_join(directory, "model.safetensors");
    lk_status s = path && weights ? LK_OK : lk_fail_memory("whitening");
    if (s != LK_OK) goto done;
    LK_TRY(read_config(path, &config));
    const json_t *there = json_object_get(json_object_get(config, "likeness_head"), "whiten");
    const char *kind = json_string_value(json_object_get(there, "kind"));
    if (kind && strcmp(kind, kinds[options->whiten]) == 0 &&
        json_integer_value(json_object_get(there, "asked")) == (json_int_t)options->whiten_dim)
        goto done;
    if (there) LK_TRY(write_config(path, config, NULL, 0, 0)); /* learnt anew, from vectors that are not whitened */
    LK_TRY(lk_embedder_open(directory, &c.embedder));
    LK_TRY(choose_rows(&c));
    LK_TRY(embed(&c));
    LK_TRY(fit(&c, options, &whitening));
    bias = lk_alloc_zero(whitening.out, sizeof *bias);
    if (!bias) LK_TRY(lk_fail_memory("whitening"));
    for (size_t i = 0; i < whitening.out; i++) {
        double sum = 0;
        for (size_t k = 0; k < whitening.in; k++)
            sum += (double)whitening.components[i * whitening.in + k] * (double)whitening.mean[k];
        bias[i] = (float)-sum;
    }
    LK_TRY(write_weights(weights, &whitening, bias));
    LK_TRY(write_config(path, config, kinds[options->whiten], whitening.out, options->whiten_dim));
    lk_log(context, LK_LOG_INFO, "whitened to %zu dimensions, learnt from %zu training pictures", whitening.out, c.n);
done:
    lk_pca_free(&whitening);
    lk_embedder_free(c.embedder);
    free(c.rows);
    free(c.vectors);
    free(bias);
    free(path);
    free(weights);
    json_decref(config);
    return s;
}
