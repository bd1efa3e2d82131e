/* Local features of pictures of a collection, from its store of them where they are there. */
#ifndef LK_ENGINE_LOCAL_FEATURES_H
#define LK_ENGINE_LOCAL_FEATURES_H

#include "embed/local.h"
#include "store/features.h"
#include <likeness/engine.h>

#include <pthread.h>

/* The searcher's handle of the store, opened when it is first asked for. */
typedef struct lk_feature_store {
    pthread_mutex_t mutex;
    bool looked;
    lk_features *features; /* NULL when there can be none */
} lk_feature_store;

lk_feature_store *lk_searcher_feature_store(lk_searcher *searcher);

/* Features of n pictures, computed where they are not stored, and then stored. out [n]; a picture that cannot be read
 * has none (count 0). Free each with lk_local_free, also on failure. LK_NO_MEMORY, LK_CANCELLED. */
lk_status lk_local_features_of(lk_searcher *searcher, const int64_t *ids, size_t n, lk_local *out);

#endif
