/* What the builders of all architectures share. A builder turns a config.json into a graph whose parameters carry the
 * names of the published weights; registry.c says which builder a config asks for. */
#ifndef LK_MODELS_BUILD_H
#define LK_MODELS_BUILD_H

#include "nn/safetensors.h"

#include <jansson.h>
#include <likeness/nn.h>
#include <stdbool.h>

typedef struct lk_builder {
    lk_graph *graph;
    const json_t *config; /* config.json */
    const lk_safetensors
        *weights;       /* for what only the weights tell (grid of the positions); NULL = as the config says */
    const char *folder; /* for messages */
    const char *prefix; /* before every name: "vit." where a classifier was saved around the model */
    int64_t size[2];    /* height and width of the input */
    char names[8][160]; /* see lk_name */
    unsigned next;
    lk_status status; /* first failure that is no mistake of the graph */

    /* What the builder leaves: */
    lk_node input;     /* [N, 3, h, w], or ids [N, T] */
    lk_node features;  /* [N, C, h, w], or tokens [N, T, C] */
    int64_t leading;   /* tokens of features that stand for no place in the picture */
    lk_node embedding; /* [N, D]: the model's own head without the classifier */
    int64_t length;    /* T of a text tower */
} lk_builder;

/* b->prefix and the formatted rest, in a buffer that stays until eight more names were made. */
const char *lk_name(lk_builder *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Remembers a failure and returns LK_NO_NODE. */
lk_node lk_build_fail(lk_builder *b, lk_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Members of a JSON object; a member of the wrong type or outside [least, most] is a failure. */
int64_t lk_build_int(lk_builder *b, const json_t *from, const char *key, int64_t otherwise, int64_t least,
                     int64_t most);
float lk_build_float(lk_builder *b, const json_t *from, const char *key, double otherwise);
bool lk_build_flag(const json_t *from, const char *key, bool otherwise);
/* Fills `count` numbers from an array member, if there is one. */
void lk_build_ints(lk_builder *b, const json_t *from, const char *key, int64_t *values, int count, int64_t most);
/* transformers' hidden_act. */
lk_activation lk_build_activation(lk_builder *b, const json_t *from, const char *key, lk_activation otherwise);

/* picture input of b->size. */
lk_node lk_build_picture(lk_builder *b);

/* Shape of a tensor of the weights (b->prefix is put before); rank 0 when there is none. */
lk_shape lk_build_stored(lk_builder *b, const char *name);

/* A stack of transformer blocks with norms in front (Vaswani et al., 2017; Dosovitskiy et al., 2021). Names are of the
 * parts of a block, after "<blocks><number>."; NULL where a part does not exist. */
typedef struct lk_transformer {
    const char *blocks; /* "blocks.", "encoder.layer." */
    const char *norm1, *qkv, *q, *k, *v, *proj, *scale1, *norm2, *fc1, *fc2, *scale2;
    int64_t depth, heads, width, mlp;
    float eps;
    lk_activation activation;
    bool no_qkv_bias, causal;
} lk_transformer;
lk_node lk_build_transformer(lk_builder *b, lk_node x, const lk_transformer *t);

/* x plus a learnt position per token. name [1, prefix + grid, width]; the grid is that of the weights (square) and is
 * resized to `to` when it differs. */
lk_node lk_build_positions(lk_builder *b, lk_node x, const char *name, int64_t leading, const int64_t from[2],
                           const int64_t to[2], int64_t width, bool antialias);

/* One row of the registry. */
typedef void (*lk_build_fn)(lk_builder *b, const void *variant);

void lk_build_resnet(lk_builder *b, const void *variant);
void lk_build_efficientnet(lk_builder *b, const void *variant);
void lk_build_convnext(lk_builder *b, const void *variant);
void lk_build_convnext_hf(lk_builder *b, const void *variant);
void lk_build_vit(lk_builder *b, const void *variant);
void lk_build_vit_hf(lk_builder *b, const void *variant);
void lk_build_clip_vision(lk_builder *b, const void *variant);
void lk_build_clip_text(lk_builder *b, const void *variant);

typedef struct lk_resnet_variant {
    bool basic; /* two 3x3 convolutions a block instead of 1x1, 3x3, 1x1 */
    bool squeeze;
    int64_t layers[4], groups, base_width;
} lk_resnet_variant;

typedef struct lk_efficientnet_variant {
    enum { LK_EFFICIENTNET, LK_EFFICIENTNET_V2_S, LK_MOBILENET_V3_SMALL, LK_MOBILENET_V3_LARGE } kind;
    float width, depth; /* multipliers */
    bool tf;            /* TensorFlow's padding and batch-norm epsilon */
} lk_efficientnet_variant;

typedef struct lk_convnext_variant {
    int64_t depths[4], widths[4];
} lk_convnext_variant;

typedef struct lk_vit_variant {
    int64_t patch, width, depth, heads, image; /* image: side that the positions are for, when the weights do not say */
    bool layer_scale;
    int64_t registers;
} lk_vit_variant;

typedef enum lk_hf_vit { LK_HF_VIT, LK_HF_DINOV2, LK_HF_DINOV2_REGISTERS } lk_hf_vit;
typedef enum lk_contrastive { LK_CLIP, LK_SIGLIP } lk_contrastive;

#endif
