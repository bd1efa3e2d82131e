/* The searcher's memory of filters; see engine/searcher.h for how a search uses one. */
#ifndef LK_ENGINE_FILTER_H
#define LK_ENGINE_FILTER_H

#include "engine/searcher.h"

#include <stdatomic.h>

enum { LK_FILTER_CACHE = 8 };

/* Zero-initialise. For one thread at a time; what it hands out may be used and dropped from any. */
typedef struct lk_filter_cache {
    lk_searcher_filter *items[LK_FILTER_CACHE];
    size_t next;
    uint64_t tried[LK_FILTER_CACHE]; /* hashes of predicates that could not be had quickly */
    size_t next_tried;
    uint64_t version; /* of the collection that they were made from */
} lk_filter_cache;

/* quickly: *out is NULL when that takes long, unless the same was asked for before. */
lk_status lk_filter_cache_get(lk_filter_cache *cache, lk_collection *collection, const char *where, bool quickly,
                              lk_searcher_filter **out);
void lk_filter_cache_clear(lk_filter_cache *cache);

#endif
