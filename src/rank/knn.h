/* What a table of neighbours is made of; shared by knn.c (finding them), knn_file.c (keeping them) and the full form of
 * the k-reciprocal re-ranker, which walks the rows. */
#ifndef LK_RANK_KNN_H
#define LK_RANK_KNN_H

#include "index/id_map.h"
#include <likeness/rank.h>

#define LK_KNN_NONE UINT32_MAX

struct lk_knn {
    size_t n, k;
    uint64_t *ids;        /* [n] */
    uint32_t *neighbours; /* [n][k] positions, nearest first; LK_KNN_NONE after the last */
    float *distances;     /* [n][k] */
    float *farthest;      /* [n]; 0 = not known */
    lk_id_map places;     /* id -> position */
};

/* An empty table with its memory; ids NULL = 0, 1, ... LK_CONFLICT when an id repeats. */
lk_status lk_knn_alloc(size_t n, size_t k, const uint64_t *ids, lk_knn **out);

/* Squared Euclidean distance, summed in f64. */
double lk_rank_distance(const float *a, const float *b, size_t dim);

#endif
