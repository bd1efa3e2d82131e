/* The head that training puts behind a backbone: pooling of the last features, then a projection. It stands in the
 * model's config.json as "likeness_head", its weights in model.safetensors. */
#ifndef LK_EMBED_HEAD_H
#define LK_EMBED_HEAD_H

#include <likeness/model.h>
#include <likeness/pooling.h>

/* The last features of a network, as a head sees them. */
typedef struct lk_head_map {
    size_t channels, places, leading; /* leading: tokens that are no places */
    bool tokens;                      /* [leading + places][channels] a picture; else [channels][height * width] */
    uint32_t height, width;           /* of a map */
} lk_head_map;
/* height and width: of the features' node where they are a map. */
lk_head_map lk_head_map_of(const lk_model_info *info, const lk_shape *features);

/* How a head pools; the arrays are borrowed. */
typedef struct lk_head_pooling {
    lk_head_pool pool;
    const float *p;         /* GeM: [p_count] exponents */
    size_t p_count;         /* 1, or the channels */
    unsigned levels;        /* R-MAC */
    lk_whitening whitening; /* R-MAC: of regions, square; weight NULL = none */
    lk_cgd_branch branches[LK_CGD_KINDS];
    size_t branch_count; /* CGD */
} lk_head_pooling;

/* LK_UNSUPPORTED: R-MAC of tokens, a class token where there is none. */
lk_status lk_head_pool_check(const lk_head_pooling *how, const lk_head_map *map);
/* Numbers that come out of it for one picture. */
size_t lk_head_pool_width(const lk_head_pooling *how, const lk_head_map *map);
/* Features of n pictures -> out [n][width]. */
lk_status lk_head_pool_forward(const lk_head_pooling *how, const lk_head_map *map, size_t n, const float *features,
                               float *out);
/* out: what forward gave; grad_features written. grad_p [p_count] and grad_weights (CGD: one per branch,
 * [out][channels]; R-MAC: of the whitening's weight and bias) written; NULL = not wanted. */
lk_status lk_head_pool_backward(const lk_head_pooling *how, const lk_head_map *map, size_t n, const float *features,
                                const float *out, const float *grad_out, float *grad_features, float *grad_p,
                                float *const *grad_weights);

/* The head of a model's directory. */
typedef struct lk_head {
    lk_head_pooling pooling;
    lk_head_map map;
    size_t width, dim;                  /* of what is pooled; behind the projection: width without one */
    size_t out;                         /* of the result: dim without whitening */
    float *p, *cgd;                     /* of pooling: [p_count]; [sum of the branches' out][channels] */
    float *region_weight, *region_bias; /* of pooling: [channels][channels], [channels] */
    float *weight;                      /* [dim][width] or NULL; a neck of training is folded in */
    float *bias;                        /* [dim] */
    float *whiten_weight, *whiten_bias; /* [out][dim], [out]; NULL = none */
} lk_head;

enum { LK_HEAD_LEVELS = 3 }; /* of R-MAC, unless said otherwise */
extern const char *const lk_head_pool_names[LK_HEAD_POOLS];
extern const char *const lk_cgd_names[LK_CGD_KINDS];

/* Reads the head of a model's directory. *there is false, and nothing is read, when the model has none. LK_CORRUPT. */
lk_status lk_head_open(const char *directory, lk_model *model, lk_head *out, bool *there);
void lk_head_free(lk_head *head);
/* Features of one picture; out [out], not normalised. scratch [lk_head_scratch]. */
lk_status lk_head_apply(const lk_head *head, const float *features, float *scratch, float *out);
size_t lk_head_scratch(const lk_head *head);

#endif
