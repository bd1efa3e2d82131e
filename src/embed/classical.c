/* The classical embedder: SIFT descriptors, a learnt vocabulary, VLAD or a bag of visual words, PCA whitening.
 *
 * Every picture gets a usable vector. Keypoints alone would leave plain shapes (a disc, a bar) without any; the grid of
 * descriptors over the content covers those. A picture of one colour has no gradient anywhere: it counts as one
 * descriptor of all zeros, so that it has a vector too, the same for every such picture. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "embed/aggregate.h"
#include "embed/embedder.h"
#include "embed/kmeans.h"
#include "embed/pca.h"
#include "embed/sift.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1u
static const char magic[8] = "LKCLASS";
enum { VOCABULARY_SAMPLE = 250000, RAW_SAMPLE_BYTES = 512 << 20 };

/* Everything that decides the vectors, in the order of the file (docs/format.md). */
typedef struct settings {
    uint32_t kind, words, dim, raw, max_side, max_keypoints, grid_side, grid_step;
} settings;

typedef struct classical {
    lk_embedder base;
    settings set;
    float *vocabulary; /* [words][LK_SIFT_DIM] */
    float *half_norms; /* [words] */
    float *idf;        /* [words]; all 1 for VLAD */
    lk_pca pca;        /* raw -> dim */
} classical;

static void classical_free(lk_embedder *embedder)
{
    classical *c = (classical *)embedder;
    free(c->vocabulary);
    free(c->half_norms);
    free(c->idf);
    lk_pca_free(&c->pca);
    free(c);
}

static size_t raw_width(const settings *set)
{
    return set->kind == LK_CLASSICAL_VLAD ? (size_t)set->words * LK_SIFT_DIM : set->words;
}

/* ---- one picture ---- */

static lk_sift_options sift_options(const settings *set)
{
    return (lk_sift_options){set->max_keypoints, set->grid_side, set->grid_step};
}

/* Descriptors of a picture, at least one. */
static lk_status describe(const classical *c, const lk_image *image, lk_sift *out)
{
    lk_sift_options options = sift_options(&c->set);
    lk_status s = lk_sift_describe(image, &options, out);
    if (s != LK_OK || out->count) return s;
    free(out->descriptors);
    out->descriptors = lk_alloc_zero(1, LK_SIFT_DIM * sizeof(float));
    if (!out->descriptors) {
        lk_sift_free(out);
        return lk_fail_memory("SIFT");
    }
    out->count = 1;
    return LK_OK;
}

/* The vector before whitening: raw [set.raw]. For words, frequencies without idf. */
static lk_status aggregate(const classical *c, const lk_sift *sift, float *raw)
{
    uint32_t *assignment = lk_alloc(sift->count, sizeof *assignment);
    float *scratch = lk_alloc(c->set.words, sizeof *scratch);
    lk_status s = assignment && scratch ? LK_OK : lk_fail_memory("visual words");
    if (s == LK_OK) {
        lk_kmeans_assign(sift->descriptors, sift->count, LK_SIFT_DIM, c->vocabulary, c->half_norms, c->set.words,
                         scratch, assignment, NULL);
        if (c->set.kind == LK_CLASSICAL_VLAD)
            lk_vlad(sift->descriptors, assignment, sift->count, c->vocabulary, c->set.words, LK_SIFT_DIM, raw);
        else
            lk_bovw_frequencies(assignment, sift->count, c->set.words, raw);
    }
    free(assignment);
    free(scratch);
    return s;
}

static lk_status embed_one(const classical *c, const lk_image *image, float *raw, float *out)
{
    lk_sift sift;
    lk_status s = describe(c, image, &sift);
    if (s != LK_OK) return s;
    s = aggregate(c, &sift, raw);
    lk_sift_free(&sift);
    if (s != LK_OK) return s;
    if (c->set.kind == LK_CLASSICAL_BOVW) lk_bovw_weight(raw, c->idf, c->set.words);
    lk_pca_apply(&c->pca, raw, out);
    lk_l2_normalise(out, c->set.dim);
    double sum = 0;
    for (size_t i = 0; i < c->set.dim; i++) sum += (double)out[i] * out[i];
    if (!isfinite(sum)) return lk_fail(LK_INVALID, "the vector is not finite");
    if (sum == 0) out[0] = 1; /* exactly the mean of the sample: any fixed direction will do */
    return LK_OK;
}

static lk_status classical_embed(const lk_embedder *embedder, const lk_image *images, size_t n, float *out)
{
    const classical *c = (const classical *)embedder;
    float *raw = lk_alloc(c->set.raw, sizeof *raw);
    if (!raw) return lk_fail_memory("vector");
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < n; i++) s = embed_one(c, &images[i], raw, out + i * c->set.dim);
    free(raw);
    return s;
}

/* ---- files ---- */

/* Gives the parts their memory; settings must be set. */
static lk_status allocate(classical *c)
{
    const settings *set = &c->set;
    openblas_set_num_threads(1); /* pictures are embedded side by side: BLAS threads would only wait for one another */
    c->vocabulary = lk_alloc((size_t)set->words * LK_SIFT_DIM, sizeof(float));
    c->half_norms = lk_alloc(set->words, sizeof(float));
    c->idf = lk_alloc(set->words, sizeof(float));
    if (!c->vocabulary || !c->half_norms || !c->idf) return lk_fail_memory("vocabulary");
    for (size_t i = 0; i < set->words; i++) c->idf[i] = 1;
    return LK_OK;
}

/* What follows once settings and weights are there. */
static void complete(classical *c, const void *payload, size_t size)
{
    const settings *set = &c->set;
    c->base.kind = &lk_embedder_classical;
    c->base.dim = set->dim;
    c->base.decoding = lk_image_default_options();
    c->base.decoding.max_side = set->max_side;
    c->base.decoding.colour = LK_COLOUR_GREY;
    snprintf(c->base.name, sizeof c->base.name, "%s, %u words, %u dimensions",
             set->kind == LK_CLASSICAL_VLAD ? "VLAD of SIFT" : "bag of visual words of SIFT", set->words, set->dim);
    lk_hash_hex(lk_hash(payload, size), c->base.id);
    lk_kmeans_half_norms(c->vocabulary, set->words, LK_SIFT_DIM, c->half_norms);
}

/* settings, vocabulary, idf, mean, components. */
static lk_status serialise(const classical *c, uint8_t **out, size_t *size)
{
    const settings *set = &c->set;
    const struct {
        const void *from;
        size_t bytes;
    } parts[] = {{set, sizeof *set},
                 {c->vocabulary, (size_t)set->words * LK_SIFT_DIM * sizeof(float)},
                 {c->idf, set->words * sizeof(float)},
                 {c->pca.mean, set->raw * sizeof(float)},
                 {c->pca.components, (size_t)set->dim * set->raw * sizeof(float)}};
    *size = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) *size += parts[i].bytes;
    uint8_t *to = *out = lk_alloc(*size, 1);
    if (!to) return lk_fail_memory("model");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memcpy(to, parts[i].from, parts[i].bytes);
        to += parts[i].bytes;
    }
    return LK_OK;
}

static lk_status classical_save(const lk_embedder *embedder, const char *directory)
{
    const classical *c = (const classical *)embedder;
    uint8_t *payload = NULL;
    size_t size;
    char *data = lk_path_join(directory, "classical.bin"), *config = lk_path_join(directory, "config.json"),
         *text = NULL;
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:I}", "kind", "classical", "id", c->base.id, "aggregation",
                  c->set.kind == LK_CLASSICAL_VLAD ? "vlad" : "bovw", "words", (json_int_t)c->set.words, "name",
                  c->base.name, "dim", (json_int_t)c->set.dim, "max_side", (json_int_t)c->set.max_side);
    lk_status s =
        data && config && object && (text = json_dumps(object, JSON_INDENT(2))) ? LK_OK : lk_fail_memory("model");
    if (s == LK_OK) s = serialise(c, &payload, &size);
    if (s == LK_OK) s = lk_blob_write(data, magic, VERSION, payload, size);
    if (s == LK_OK) s = lk_file_write_atomic(config, text, strlen(text));
    json_decref(object);
    free(text);
    free(payload);
    free(data);
    free(config);
    return s;
}

static bool sensible(const settings *set)
{
    return set->kind <= LK_CLASSICAL_VLAD && set->words >= 1 && set->words <= 1 << 16 && set->raw == raw_width(set) &&
           set->dim >= 1 && set->dim <= set->raw && set->dim <= 65536 && set->max_side >= 16 && set->max_side <= 8192 &&
           set->max_keypoints <= 1 << 20 && set->grid_side <= 4096 && (set->grid_side == 0 || set->grid_step >= 1);
}

static lk_status parse(const char *path, const uint8_t *payload, size_t size, classical *c)
{
    if (size < sizeof c->set) return lk_fail(LK_CORRUPT, "%s: is too short", path);
    memcpy(&c->set, payload, sizeof c->set);
    const settings *set = &c->set;
    if (!sensible(set)) return lk_fail(LK_CORRUPT, "%s: its settings make no sense", path);
    size_t floats = (size_t)set->words * (LK_SIFT_DIM + 1) + set->raw + (size_t)set->dim * set->raw;
    if (size - sizeof *set != floats * sizeof(float))
        return lk_fail(LK_CORRUPT, "%s: holds %zu bytes where %zu are needed", path, size,
                       sizeof *set + floats * sizeof(float));
    lk_status s = allocate(c);
    if (s != LK_OK) return s;
    c->pca = (lk_pca){.in = set->raw,
                      .out = set->dim,
                      .mean = lk_alloc(set->raw, sizeof(float)),
                      .components = lk_alloc((size_t)set->dim * set->raw, sizeof(float))};
    if (!c->pca.mean || !c->pca.components) return lk_fail_memory(path);
    const uint8_t *p = payload + sizeof *set;
    struct {
        float *to;
        size_t count;
    } parts[] = {{c->vocabulary, (size_t)set->words * LK_SIFT_DIM},
                 {c->idf, set->words},
                 {c->pca.mean, set->raw},
                 {c->pca.components, (size_t)set->dim * set->raw}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memcpy(parts[i].to, p, parts[i].count * sizeof(float));
        p += parts[i].count * sizeof(float);
        for (size_t j = 0; j < parts[i].count; j++)
            if (!isfinite(parts[i].to[j]))
                return lk_fail(LK_CORRUPT, "%s: holds a weight that is not a finite number", path);
    }
    complete(c, payload, size);
    return LK_OK;
}

static lk_status classical_open(const char *directory, json_t *config, lk_embedder **out)
{
    (void)config; /* for people; everything that counts is in classical.bin under one checksum */
    uint8_t *payload = NULL;
    size_t size;
    char *path = lk_path_join(directory, "classical.bin");
    classical *c = lk_alloc_zero(1, sizeof *c);
    lk_status s = path && c ? LK_OK : lk_fail_memory("model");
    if (s == LK_OK) s = lk_blob_read(path, magic, VERSION, &payload, &size);
    if (s == LK_OK) s = parse(path, payload, size, c);
    free(payload);
    free(path);
    if (s == LK_OK)
        *out = &c->base;
    else if (c)
        classical_free(&c->base);
    return s;
}

const lk_embedder_kind lk_embedder_classical = {.name = "classical",
                                                .open = classical_open,
                                                .save = classical_save,
                                                .embed = classical_embed,
                                                .free = classical_free};

/* ---- learning ---- */

typedef struct training {
    lk_context *context;
    classical *model;
    lk_picture_fn picture;
    void *user;
    size_t count, sample;  /* pictures there are; pictures looked at */
    size_t per_picture;    /* descriptors taken of each for the vocabulary */
    float *descriptors;    /* [sample][per_picture][LK_SIFT_DIM] */
    size_t *taken;         /* [sample] */
    float *raw;            /* [sample][set.raw] */
    uint8_t *usable;       /* [sample] */
    _Atomic uint64_t done; /* for the progress alone */
} training;

static lk_status describe_sample(training *t, size_t i, lk_sift *sift)
{
    lk_image image;
    lk_image_options decoding = lk_image_default_options();
    decoding.max_side = t->model->set.max_side;
    decoding.colour = LK_COLOUR_GREY;
    if (lk_context_cancelled(t->context)) return lk_fail(LK_CANCELLED, "learning the vocabulary was stopped");
    lk_status s = t->picture(t->user, i * t->count / t->sample, &decoding, &image);
    if (s != LK_OK) return s;
    s = describe(t->model, &image, sift);
    lk_image_free(&image);
    return s;
}

static bool fatal(lk_status s)
{
    return s == LK_CANCELLED || s == LK_NO_MEMORY;
}

static lk_status gather_descriptors(void *arg, size_t begin, size_t end, int worker)
{
    training *t = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        lk_sift sift;
        lk_status s = describe_sample(t, i, &sift);
        if (fatal(s)) return s;
        lk_report_progress(t->context, "looking at a sample", ++t->done, t->sample);
        if (s != LK_OK) continue; /* left out: indexing will name it */
        size_t n = sift.count < t->per_picture ? sift.count : t->per_picture;
        for (size_t j = 0; j < n; j++)
            memcpy(t->descriptors + (i * t->per_picture + j) * LK_SIFT_DIM,
                   sift.descriptors + j * sift.count / n * LK_SIFT_DIM, LK_SIFT_DIM * sizeof(float));
        t->taken[i] = n;
        lk_sift_free(&sift);
    }
    return LK_OK;
}

static lk_status gather_vectors(void *arg, size_t begin, size_t end, int worker)
{
    training *t = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        lk_sift sift;
        lk_status s = describe_sample(t, i, &sift);
        if (s == LK_OK) {
            s = aggregate(t->model, &sift, t->raw + i * t->model->set.raw);
            lk_sift_free(&sift);
        }
        if (fatal(s)) return s;
        t->usable[i] = s == LK_OK;
        lk_report_progress(t->context, "learning the whitening", ++t->done, t->sample);
    }
    return LK_OK;
}

/* Moves what was gathered together and clusters it. */
static lk_status learn_vocabulary(training *t, uint64_t seed)
{
    classical *c = t->model;
    size_t row = LK_SIFT_DIM, n = 0;
    for (size_t i = 0; i < t->sample; i++) {
        memmove(t->descriptors + n * row, t->descriptors + i * t->per_picture * row, t->taken[i] * row * sizeof(float));
        n += t->taken[i];
    }
    if (n == 0) return lk_fail(LK_NOT_FOUND, "none of the %zu pictures of the sample can be read", t->sample);
    if (n < c->set.words) {
        lk_log(t->context, LK_LOG_WARN, "the sample has only %zu descriptors: the vocabulary has as many words, not %u",
               n, c->set.words);
        c->set.words = (uint32_t)n;
    }
    c->set.raw = (uint32_t)raw_width(&c->set);
    lk_status s = allocate(c);
    if (s != LK_OK) return s;
    lk_kmeans_options options = {.iterations = 20, .tolerance = 1e-4, .seed = seed};
    s = lk_kmeans(t->context, t->descriptors, n, LK_SIFT_DIM, c->set.words, &options, c->vocabulary, NULL, NULL);
    if (s == LK_OK) lk_kmeans_half_norms(c->vocabulary, c->set.words, LK_SIFT_DIM, c->half_norms);
    return s;
}

static lk_status learn_whitening(training *t)
{
    classical *c = t->model;
    size_t raw = c->set.raw, n = 0;
    for (size_t i = 0; i < t->sample; i++) {
        if (!t->usable[i]) continue;
        memmove(t->raw + n * raw, t->raw + i * raw, raw * sizeof(float));
        n++;
    }
    if (c->set.kind == LK_CLASSICAL_BOVW) {
        uint32_t *with = lk_alloc_zero(raw, sizeof *with);
        if (!with) return lk_fail_memory("visual words");
        for (size_t i = 0; i < n; i++)
            for (size_t w = 0; w < raw; w++) with[w] += t->raw[i * raw + w] > 0;
        lk_bovw_idf(with, n, raw, c->idf);
        free(with);
        for (size_t i = 0; i < n; i++) lk_bovw_weight(t->raw + i * raw, c->idf, raw);
    }
    size_t wanted = c->set.dim;
    lk_status s = LK_INVALID;
    /* Eigenvalues of few pictures say little: fully whitened, a sample of 50 would make all 50 equally unlike. The
     * fewer pictures a dimension has, the less is whitened. */
    double ridge = 4 * (double)wanted / (double)n;
    if (n >= 2) s = lk_pca_fit(t->context, t->raw, n, raw, wanted, ridge, &c->pca);
    if (s == LK_INVALID) {
        /* One picture, or only equal ones: nothing to whiten. The first components as they are still give vectors. */
        size_t keep = wanted < raw ? wanted : raw;
        c->pca = (lk_pca){raw, keep, lk_alloc_zero(raw, sizeof(float)), lk_alloc_zero(keep * raw, sizeof(float))};
        if (!c->pca.mean || !c->pca.components) return lk_fail_memory("whitening");
        for (size_t i = 0; i < keep; i++) c->pca.components[i * raw + i * (raw / keep)] = 1;
        s = LK_OK;
    }
    if (s != LK_OK) return s;
    if (c->pca.out < wanted)
        lk_log(t->context, LK_LOG_WARN, "%zu pictures determine %zu dimensions, not %zu", n, c->pca.out, wanted);
    c->set.dim = (uint32_t)c->pca.out;
    return LK_OK;
}

static settings choose(const lk_classical_options *o)
{
    bool vlad = !o || o->kind == LK_CLASSICAL_VLAD;
    settings set = {.kind = vlad ? LK_CLASSICAL_VLAD : LK_CLASSICAL_BOVW,
                    .words = o && o->words ? o->words
                             : vlad        ? 64
                                           : 2048,
                    .dim = o && o->dim ? o->dim : 256,
                    .max_side = o && o->max_side ? o->max_side : 256,
                    .max_keypoints = o && o->max_keypoints ? o->max_keypoints : 300,
                    .grid_side = 112,
                    .grid_step = 8};
    set.raw = (uint32_t)raw_width(&set);
    return set;
}

lk_status lk_classical_train(lk_context *context, const lk_classical_options *options, size_t count,
                             lk_picture_fn picture, void *user, lk_embedder **out)
{
    *out = NULL;
    if (count == 0) return lk_fail(LK_NOT_FOUND, "there are no pictures to learn a vocabulary from");
    settings set = choose(options);
    if (set.dim > set.raw) set.dim = set.raw;
    if ((options && (unsigned)options->kind > LK_CLASSICAL_VLAD) || !sensible(&set))
        return lk_fail(LK_INVALID, "a vocabulary of %u words, %u dimensions and pictures of %u pixels cannot be made",
                       set.words, set.dim, set.max_side);
    size_t sample = options && options->sample_images ? options->sample_images : 3000;
    if (sample > RAW_SAMPLE_BYTES / (set.raw * sizeof(float))) sample = RAW_SAMPLE_BYTES / (set.raw * sizeof(float));
    if (sample > count) sample = count;
    classical *c = lk_alloc_zero(1, sizeof *c);
    if (!c) return lk_fail_memory("model");
    c->set = set;
    training t = {.context = context,
                  .model = c,
                  .picture = picture,
                  .user = user,
                  .count = count,
                  .sample = sample,
                  .per_picture = VOCABULARY_SAMPLE / sample + 1 < 2000 ? VOCABULARY_SAMPLE / sample + 1 : 2000};
    uint8_t *payload = NULL;
    size_t size;
    lk_pool *pool = lk_context_pool(context);
    t.descriptors = lk_alloc(sample * t.per_picture, LK_SIFT_DIM * sizeof(float));
    t.taken = lk_alloc_zero(sample, sizeof *t.taken);
    t.usable = lk_alloc_zero(sample, 1);
    lk_status s = t.descriptors && t.taken && t.usable ? LK_OK : lk_fail_memory("sample");
    if (s != LK_OK) goto done;
    LK_TRY(lk_parallel_for(pool, sample, 1, gather_descriptors, &t));
    LK_TRY(learn_vocabulary(&t, options ? options->seed : 0));
    free(t.descriptors);
    t.descriptors = NULL;
    t.raw = lk_alloc(sample, c->set.raw * sizeof(float));
    if (!t.raw) {
        s = lk_fail_memory("sample");
        goto done;
    }
    t.done = 0;
    LK_TRY(lk_parallel_for(pool, sample, 1, gather_vectors, &t));
    LK_TRY(learn_whitening(&t));
    LK_TRY(serialise(c, &payload, &size));
    complete(c, payload, size);
    *out = &c->base;
    c = NULL;
done:
    free(payload);
    free(t.descriptors);
    free(t.taken);
    free(t.usable);
    free(t.raw);
    if (c) classical_free(&c->base);
    return s;
}
