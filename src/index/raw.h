/* An index as fusion (several.c) and diversification (diverse.c) see it: it finds places, and knows the vector and the
 * id of each. */
#ifndef LK_INDEX_RAW_H
#define LK_INDEX_RAW_H

#include <likeness/index.h>

typedef struct lk_raw {
    const void *with; /* handed to the functions */
    size_t dim, count;
    lk_metric metric;
    /* As lk_flat_search, but ids of hits are places. */
    lk_status (*search)(const void *with, size_t n, const float *queries, size_t k, lk_hit *hits, size_t *counts);
    lk_status (*vector)(const void *with, uint64_t place, float *out); /* [dim] */
    uint64_t (*id)(const void *with, uint64_t place);
} lk_raw;

lk_status lk_raw_search_several(const lk_raw *raw, size_t m, const float *vectors, lk_fusion fusion, size_t k,
                                lk_hit *hits, size_t *count);
lk_status lk_raw_search_diverse(const lk_raw *raw, lk_diversity how, size_t n, const float *queries, size_t k,
                                lk_hit *hits, size_t *counts);

#endif
