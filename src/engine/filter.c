/* Filters of a searcher: sets of pictures by predicate, remembered while they hold. */
#include "engine/filter.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "store/collection.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct lk_searcher_filter {
    char *where;
    lk_id_set *set;
    atomic_int users; /* the cache counts as one */
};

const lk_id_set *lk_searcher_filter_set(const lk_searcher_filter *filter)
{
    return filter->set;
}

void lk_searcher_drop_filter(lk_searcher_filter *filter)
{
    if (!filter || atomic_fetch_sub(&filter->users, 1) != 1) return;
    lk_id_set_free(filter->set);
    free(filter->where);
    free(filter);
}

static void clear(lk_filter_cache *cache)
{
    for (size_t i = 0; i < LK_FILTER_CACHE; i++) {
        lk_searcher_drop_filter(cache->items[i]);
        cache->items[i] = NULL;
    }
}

void lk_filter_cache_init(lk_filter_cache *cache)
{
    *cache = (lk_filter_cache){0};
    pthread_mutex_init(&cache->mutex, NULL);
}

void lk_filter_cache_free(lk_filter_cache *cache)
{
    clear(cache);
    for (size_t i = 0; i < cache->idle_count; i++) lk_collection_close(cache->idle[i]);
    pthread_mutex_destroy(&cache->mutex);
}

/* ---- readers ---- */

static lk_status borrow(lk_filter_cache *cache, lk_collection **out)
{
    *out = NULL;
    pthread_mutex_lock(&cache->mutex);
    if (cache->idle_count) *out = cache->idle[--cache->idle_count];
    pthread_mutex_unlock(&cache->mutex);
    return *out ? LK_OK : lk_collection_open_again(cache->collection, out);
}

static void give_back(lk_filter_cache *cache, lk_collection *reader)
{
    pthread_mutex_lock(&cache->mutex);
    if (cache->idle_count < LK_FILTER_IDLE) {
        cache->idle[cache->idle_count++] = reader;
        reader = NULL;
    }
    pthread_mutex_unlock(&cache->mutex);
    lk_collection_close(reader);
}

/* ---- sets ---- */

/* *out stays NULL when it was to be quick and that is not possible. */
static lk_status make(lk_collection *collection, const char *where, bool quickly, const lk_select_limits *limits,
                      lk_searcher_filter **out)
{
    *out = NULL;
    lk_id_set *set;
    lk_status s = quickly ? lk_collection_select_quickly(collection, where, limits, &set)
                          : lk_collection_select_limited(collection, where, limits, &set);
    if (s != LK_OK || !set) return s;
    lk_searcher_filter *filter = lk_alloc_zero(1, sizeof *filter);
    char *copy = strdup(where);
    if (!filter || !copy) {
        free(filter);
        free(copy);
        lk_id_set_free(set);
        return lk_fail_memory("filter");
    }
    filter->where = copy;
    filter->set = set;
    atomic_store(&filter->users, 1);
    *out = filter;
    return LK_OK;
}

/* What is remembered of a predicate, to be dropped; or NULL. *again: it could not be had quickly before. */
static lk_searcher_filter *remembered(lk_filter_cache *cache, const char *where, uint64_t hash, uint64_t version,
                                      bool *again)
{
    lk_searcher_filter *found = NULL;
    *again = false;
    pthread_mutex_lock(&cache->mutex);
    if (version > cache->version) { /* another thread may have seen a later one already */
        clear(cache);
        cache->version = version;
    }
    for (size_t i = 0; i < LK_FILTER_CACHE && !found; i++)
        if (cache->items[i] && strcmp(cache->items[i]->where, where) == 0) found = cache->items[i];
    if (found) atomic_fetch_add(&found->users, 1);
    for (size_t i = 0; i < LK_FILTER_CACHE; i++) *again |= cache->tried[i] == hash;
    pthread_mutex_unlock(&cache->mutex);
    return found;
}

static void remember(lk_filter_cache *cache, lk_searcher_filter *filter, uint64_t hash, uint64_t version)
{
    lk_searcher_filter *dropped = NULL;
    pthread_mutex_lock(&cache->mutex);
    if (!filter) {
        cache->tried[cache->next_tried++ % LK_FILTER_CACHE] = hash;
    } else if (version == cache->version) { /* else the collection has changed while it was made */
        lk_searcher_filter **place = &cache->items[cache->next++ % LK_FILTER_CACHE];
        dropped = *place;
        *place = filter;
        atomic_fetch_add(&filter->users, 1);
    }
    pthread_mutex_unlock(&cache->mutex);
    lk_searcher_drop_filter(dropped);
}

lk_status lk_filter_cache_get(lk_filter_cache *cache, const char *where, bool quickly, const lk_select_limits *limits,
                              lk_searcher_filter **out)
{
    lk_collection *reader;
    uint64_t version, hash = lk_hash(where, strlen(where)).low;
    bool again;
    *out = NULL;
    lk_status s = borrow(cache, &reader);
    if (s != LK_OK) return s;
    LK_TRY(lk_collection_version(reader, &version));
    *out = remembered(cache, where, hash, version, &again);
    if (*out) goto done;
    /* What is asked for again may be asked for often: then all of it is worth having. */
    LK_TRY(make(reader, where, quickly && !again, limits, out));
    remember(cache, *out, hash, version);
done:
    give_back(cache, reader);
    return s;
}

lk_status lk_filter_cache_among(lk_filter_cache *cache, const char *where, size_t n, const lk_hit *hits,
                                const lk_select_limits *limits, lk_id_set **out)
{
    lk_collection *reader;
    *out = NULL;
    lk_status s = borrow(cache, &reader);
    if (s != LK_OK) return s;
    s = lk_collection_select_among(reader, where, n, hits, limits, out);
    give_back(cache, reader);
    return s;
}
