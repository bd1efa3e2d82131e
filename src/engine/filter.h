/* The searcher's memory of filters; see engine/searcher.h for how a search uses one. */
#ifndef LK_ENGINE_FILTER_H
#define LK_ENGINE_FILTER_H

#include "engine/searcher.h"
#include "store/select.h"

#include <pthread.h>

enum { LK_FILTER_CACHE = 8 };

enum { LK_FILTER_IDLE = 4 };

/* For many threads at a time. Each works a set out with a reader of the collection of its own, so that nobody waits for
 * somebody else's long filter. */
typedef struct lk_filter_cache {
    const lk_collection *collection; /* that the readers are of; only what never changes in it is read */
    pthread_mutex_t mutex;           /* guards what follows; held for moments */
    lk_collection *idle[LK_FILTER_IDLE];
    size_t idle_count;
    lk_searcher_filter *items[LK_FILTER_CACHE];
    size_t next;
    uint64_t tried[LK_FILTER_CACHE]; /* hashes of predicates that could not be had quickly */
    size_t next_tried;
    uint64_t version; /* of the collection that they were made from */
} lk_filter_cache;

void lk_filter_cache_init(lk_filter_cache *cache);
void lk_filter_cache_free(lk_filter_cache *cache);
/* quickly: *out is NULL when that takes long, unless the same was asked for before. */
lk_status lk_filter_cache_get(lk_filter_cache *cache, const char *where, bool quickly, const lk_select_limits *limits,
                              lk_searcher_filter **out);
/* Those of the hits whose pictures satisfy the predicate. */
lk_status lk_filter_cache_among(lk_filter_cache *cache, const char *where, size_t n, const lk_hit *hits,
                                const lk_select_limits *limits, lk_id_set **out);

#endif
