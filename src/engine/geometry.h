/* Geometric verification of pictures: local features from embed, matching and RANSAC from rank. */
#ifndef LK_ENGINE_GEOMETRY_H
#define LK_ENGINE_GEOMETRY_H

#include <likeness/engine.h>

/* For each of n hits the number of local features that agree with the query on one affine map; 0 when they are fewer
 * than `least`. Of several query pictures the best counts. Pictures whose file cannot be read have 0. values [n]. */
lk_status lk_geometric_scores(lk_searcher *searcher, const lk_query *query, size_t least, const lk_hit *hits, size_t n,
                              float *values);

#endif
