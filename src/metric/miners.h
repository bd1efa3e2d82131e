/* One run of one miner: what it sees and where its tuples go. */
#ifndef LK_METRIC_MINERS_H
#define LK_METRIC_MINERS_H

#include "metric/matrix.h"
#include "metric/tuples.h"

typedef struct lk_mining {
    const lk_miner_options *options;
    size_t n, m, dim; /* embeddings; references, which are the embeddings when matrix.self */
    uint64_t seed;
    lk_matrix matrix;
    double side; /* 1 for distances, -1 for similarities */
    lk_pair_sets sets;
    lk_tuples *out;
    size_t positive_room, negative_room;
} lk_mining;

static inline double lk_farness(const lk_mining *m, size_t i, size_t j)
{
    return m->side * m->matrix.value[i * m->m + j];
}

/* lk_mine against references of their own: references [m][dim], NULL = the embeddings; own as in lk_pair_sets_all. */
lk_status lk_mine_between(const lk_miner_options *options, const float *embeddings, size_t n, const lk_labels *labels,
                          const float *references, size_t m, const lk_labels *reference_labels, const uint32_t *own,
                          size_t dim, uint64_t seed, lk_tuples *out);

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
