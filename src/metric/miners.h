/* One run of one miner: what it sees and where its tuples go. */
#ifndef LK_METRIC_MINERS_H
#define LK_METRIC_MINERS_H

#include "metric/matrix.h"
#include "metric/tuples.h"

typedef struct lk_mining {
    const lk_miner_options *options;
    size_t n, dim;
    uint64_t seed;
    lk_matrix matrix;
    double side; /* 1 for distances, -1 for similarities */
    lk_pair_sets sets;
    lk_tuples *out;
    size_t positive_room, negative_room;
} lk_mining;

static inline double lk_farness(const lk_mining *m, size_t i, size_t j)
{
    return m->side * m->matrix.value[i * m->n + j];
}

lk_status lk_mining_positive(lk_mining *m, size_t anchor, size_t other);
lk_status lk_mining_negative(lk_mining *m, size_t anchor, size_t other);
/* LK_LIMIT beyond 2^31. */
lk_status lk_mining_triplet(lk_mining *m, size_t anchor, size_t positive, size_t negative);

lk_status lk_mine_all(lk_mining *m);
lk_status lk_mine_batch_hard(lk_mining *m);
lk_status lk_mine_easy_hard(lk_mining *m);
lk_status lk_mine_triplets(lk_mining *m);
lk_status lk_mine_multi_similarity(lk_mining *m);
lk_status lk_mine_pair_margin(lk_mining *m);
lk_status lk_mine_distance_weighted(lk_mining *m);
lk_status lk_mine_angular(lk_mining *m);

#endif
