/* The head that training puts behind a backbone: pooling of the last features, then a projection. It stands in the
 * model's config.json as "likeness_head", its weights in model.safetensors. */
#ifndef LK_EMBED_HEAD_H
#define LK_EMBED_HEAD_H

#include <likeness/model.h>
#include <likeness/pooling.h>

typedef struct lk_head {
    lk_head_pool pool;
    float p;
    size_t channels, dim; /* dim = channels without a projection */
    float *weight;        /* [dim][channels] or NULL; a neck of training is folded in */
    float *bias;          /* [dim] */
} lk_head;

enum { LK_HEAD_LEVELS = 3 }; /* of R-MAC */
extern const char *const lk_head_pool_names[4];

/* Reads the head of a model's directory. *there is false, and nothing is read, when the model has none. LK_CORRUPT. */
lk_status lk_head_open(const char *directory, const lk_model *model, lk_head *out, bool *there);
void lk_head_free(lk_head *head);
/* features of one picture, [channels][height * width] or tokens [places][channels]; out [dim], not normalised. pooled
 * [channels]: scratch. */
lk_status lk_head_apply(const lk_head *head, const lk_model_info *info, uint32_t height, uint32_t width,
                        const float *features, float *pooled, float *out);
/* Pooling alone, of a batch. */
lk_status lk_head_pool_forward(lk_head_pool pool, float p, lk_map_shape shape, uint32_t height, uint32_t width,
                               const float *features, float *out);

#endif
