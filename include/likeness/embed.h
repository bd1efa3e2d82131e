/* An embedder turns pictures into vectors. This header knows no particular kind except the classical one, which needs
 * no pre-trained weights: SIFT local descriptors gathered into one vector over a visual vocabulary learnt from
 * pictures. */
#ifndef LIKENESS_EMBED_H
#define LIKENESS_EMBED_H

#include <likeness/context.h>
#include <likeness/image.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lk_embedder lk_embedder;

/* Reads an embedder from a directory (config.json and its data files). LK_NOT_FOUND, LK_CORRUPT, LK_UNSUPPORTED. */
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

/* Embeds n decoded pictures: out [n][dim], each row L2-normalised and finite. Several threads may call it at once on
 * one embedder; the bytes do not depend on n, on order or on threads. LK_INVALID (picture of the wrong colour),
 * LK_NO_MEMORY. */
LK_API lk_status lk_embedder_embed(const lk_embedder *embedder, const lk_image *images, size_t n, float *out);

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
