/* The encoding that both forms of the k-reciprocal re-ranker share (include/likeness/rank.h has the equations).
 * Items are positions here. The full form knows every list beforehand; the local form looks a list up when it is first
 * asked for, and learns of new items by it. */
#ifndef LK_RANK_KRECIPROCAL_H
#define LK_RANK_KRECIPROCAL_H

#include <likeness/rank.h>
#include <stdbool.h>

/* N(i, .): nearest first. */
typedef struct lk_nearest {
    const uint32_t *items;
    const float *distances;
    uint32_t count;
    float farthest;
} lk_nearest;

typedef struct lk_pool_view {
    /* The list of an item. It stays valid while the pool lives. */
    lk_status (*nearest)(void *user, uint32_t item, lk_nearest *out);
    /* d of two items, the second of which is not in the list of the first. */
    lk_status (*distance)(void *user, uint32_t a, uint32_t b, float *out);
    void *user;
    uint32_t k1, k2, half; /* half: k1 / 2, rounded half to even */
} lk_pool_view;

/* A row of V or W: positions in rising order with their weights. */
typedef struct lk_sparse {
    uint32_t *items;
    float *weights;
    uint32_t count;
} lk_sparse;

typedef struct lk_encoder lk_encoder; /* scratch of one thread */
lk_status lk_encoder_new(const lk_pool_view *pool, lk_encoder **out);
void lk_encoder_free(lk_encoder *encoder);

/* V_i. *out points into the encoder until its next call. */
lk_status lk_encode(lk_encoder *encoder, uint32_t item, lk_sparse *out);

lk_status lk_kreciprocal_check(const lk_kreciprocal_options *options);
uint32_t lk_half_even(uint32_t k);

#endif
