/* What every kind of embedder provides. A new kind adds a file with such a table and a line in embedder.c. */
#ifndef LK_EMBED_EMBEDDER_H
#define LK_EMBED_EMBEDDER_H

#include <jansson.h>
#include <likeness/embed.h>

typedef struct lk_embedder_kind {
    const char *name; /* "classical": the member `kind` of config.json */
    /* Reads the data files of a directory whose config.json has been parsed. */
    lk_status (*open)(const char *directory, json_t *config, lk_embedder **out);
    lk_status (*save)(const lk_embedder *embedder, const char *directory);
    lk_status (*embed)(const lk_embedder *embedder, const lk_image *images, size_t n, float *out);
    lk_status (*prepare)(const lk_embedder *embedder); /* NULL = nothing to do */
    lk_status (*embed_text)(const lk_embedder *embedder, const char *const *texts, size_t n,
                            float *out);           /* NULL = none */
    bool (*has_text)(const lk_embedder *embedder); /* NULL = none */
    void (*free)(lk_embedder *embedder);
} lk_embedder_kind;

/* The common part; each kind's struct begins with it. */
struct lk_embedder {
    const lk_embedder_kind *kind;
    size_t dim;
    size_t batch; /* 0 = 1 */
    lk_image_options decoding;
    char id[33];
    char name[160]; /* for people */
};

extern const lk_embedder_kind lk_embedder_classical, lk_embedder_neural;

#endif
