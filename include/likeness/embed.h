/* An embedder turns pictures into vectors. There are two kinds: the classical one needs no pre-trained weights (SIFT
 * local descriptors gathered into one vector over a visual vocabulary learnt from pictures); the neural one runs a
 * model's directory as it was downloaded (model.h). */
#ifndef LIKENESS_EMBED_H
#define LIKENESS_EMBED_H

#include <likeness/context.h>
#include <likeness/image.h>
#include <likeness/nn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lk_embedder lk_embedder;

/* Reads an embedder from a directory: one that lk_embedder_save wrote, or a model as it was downloaded, with the
 * pooling and precision that lk_neural_open has by default. LK_NOT_FOUND, LK_CORRUPT, LK_UNSUPPORTED. */
LK_API lk_status lk_embedder_open(const char *directory, lk_embedder **out);
/* Writes it to a directory, which is created; files are replaced atomically. LK_IO. */
LK_API lk_status lk_embedder_save(const lk_embedder *embedder, const char *directory);
LK_API void lk_embedder_free(lk_embedder *embedder);

/* Width of its vectors. */
LK_API size_t lk_embedder_dim(const lk_embedder *embedder);
/* Short description for people ("VLAD, 64 words, 256 dimensions"). Owned by the embedder. */
LK_API const char *lk_embedder_name(const lk_embedder *embedder);
/* 32 hexadecimal digits that change whenever the vectors would: the hash of parameters and weights. Two embedders with
 * the same id give the same vectors. Owned by the embedder. */
LK_API const char *lk_embedder_id(const lk_embedder *embedder);
/* How pictures must be decoded for it (size, colour). Limits are left at their defaults. */
LK_API lk_image_options lk_embedder_image_options(const lk_embedder *embedder);

/* Gets ready to embed one picture at a time (a network is compiled for this processor), as the first call of
 * lk_embedder_embed would: for a time when there is nothing better to do. Errors as there. */
LK_API lk_status lk_embedder_prepare(const lk_embedder *embedder);

/* Embeds n decoded pictures: out [n][dim], each row L2-normalised and finite. Several threads may call it at once on
 * one embedder; the bytes do not depend on n, on order or on threads. LK_INVALID (picture of the wrong colour),
 * LK_CORRUPT (a picture yields NaN, infinity or nothing but zeros: the message gives its number; no row is to be used),
 * LK_NO_MEMORY, LK_UNSUPPORTED (this processor lacks the precision, or oneDNN is missing). */
LK_API lk_status lk_embedder_embed(const lk_embedder *embedder, const lk_image *images, size_t n, float *out);
/* How many pictures a call had best be given when many are to be embedded, at least 1. */
LK_API size_t lk_embedder_batch(const lk_embedder *embedder);

/* Whether texts can be embedded into the same space (CLIP and SigLIP with the model's own head and a known tokenizer).
 */
LK_API bool lk_embedder_has_text(const lk_embedder *embedder);
/* Embeds n UTF-8 texts: out [n][dim] as for pictures. What does not fit into the model's length is cut off. Several
 * threads may call it at once. LK_UNSUPPORTED (pictures alone), LK_INVALID (not UTF-8), LK_LIMIT (above 64 KiB),
 * LK_NOT_FOUND or LK_CORRUPT (the files of the text tower, which are read when they are first needed). */
LK_API lk_status lk_embedder_embed_text(const lk_embedder *embedder, const char *const *texts, size_t n, float *out);

/* What of a network becomes the vector. */
typedef enum lk_pooling {
    LK_POOL_MODEL, /* the model's own head, without the classifier */
    LK_POOL_AVG,   /* average of the last features over the places of the picture */
    LK_POOL_MAX,   /* maximum */
    LK_POOL_GEM,   /* generalised mean (Radenovic et al., 2018), exponent 3 unless said otherwise */
    LK_POOL_CLS    /* class token of the last features: transformers that have one */
} lk_pooling;

typedef struct lk_neural_options {
    lk_pooling pool;
    float gem_p; /* exponent of LK_POOL_GEM; 0 = 3 */
    lk_precision precision;
} lk_neural_options;

/* Opens a model's directory (see lk_model_open for what may be wrong with it). options NULL = {0}. With
 * LK_PRECISION_INT8 lk_neural_calibrate must follow. LK_INVALID (a pooling that this model cannot have). */
LK_API lk_status lk_neural_open(const char *directory, const lk_neural_options *options, lk_embedder **out);
/* Measures on n pictures the ranges that int8 arithmetic needs; some tens are enough. Before the first embedding; the
 * id changes. LK_INVALID when the embedder is no int8 one or has its ranges already. */
LK_API lk_status lk_neural_calibrate(lk_embedder *embedder, const lk_image *images, size_t n);
LK_API bool lk_neural_needs_calibration(const lk_embedder *embedder);
/* Whether both run the same files with the same pooling and precision, whatever ranges int8 has. */
LK_API bool lk_neural_same(const lk_embedder *a, const lk_embedder *b);

typedef enum lk_classical_kind {
    LK_CLASSICAL_BOVW, /* bag of visual words, tf-idf (Sivic & Zisserman, 2003) */
    LK_CLASSICAL_VLAD  /* VLAD (Jegou et al., 2010), intra-normalised (Arandjelovic & Zisserman, 2013) */
} lk_classical_kind;

typedef struct lk_classical_options {
    lk_classical_kind kind;
    uint32_t words;    /* vocabulary size: k of k-means; 0 = the kind's default */
    uint32_t dim;      /* width after PCA whitening; 0 = the kind's default. Lowered, with a log line, when the sample
                          is too small to estimate that many components. */
    uint32_t max_side; /* pictures are shrunk to this longer side before detection; 0 = default */
    uint32_t max_keypoints; /* the strongest are kept; 0 = default */
    uint32_t sample_images; /* how many pictures the vocabulary is learnt from at most; 0 = default */
    uint64_t seed;
} lk_classical_options;

/* Hands out picture number `index` of the training sample, decoded with the given options. Called from several threads
 * at once, each index a fixed number of times, in no order. Return a status other than LK_OK to leave the picture out.
 */
typedef lk_status (*lk_picture_fn)(void *user, size_t index, const lk_image_options *options, lk_image *out);

/* Learns vocabulary, idf weights and whitening from `count` pictures, of which at most sample_images evenly spread ones
 * are used. The same pictures, options and seed give the same embedder whatever the number of threads.
 * LK_INVALID (options), LK_NOT_FOUND when no picture could be used, LK_CANCELLED. options NULL = VLAD with defaults. */
LK_API lk_status lk_classical_train(lk_context *context, const lk_classical_options *options, size_t count,
                                    lk_picture_fn picture, void *user, lk_embedder **out);

#ifdef __cplusplus
}
#endif
#endif
