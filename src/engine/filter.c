/* Filters of a searcher: sets of pictures by predicate, remembered while they hold. */
#include "engine/filter.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "store/select.h"

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

void lk_filter_cache_clear(lk_filter_cache *cache)
{
    for (size_t i = 0; i < LK_FILTER_CACHE; i++) {
        lk_searcher_drop_filter(cache->items[i]);
        cache->items[i] = NULL;
    }
}

/* *out stays NULL when it was to be quick and that is not possible. */
static lk_status make(lk_collection *collection, const char *where, bool quickly, lk_searcher_filter **out)
{
    *out = NULL;
    lk_id_set *set;
    lk_status s =
        quickly ? lk_collection_select_quickly(collection, where, &set) : lk_collection_select(collection, where, &set);
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

lk_status lk_filter_cache_get(lk_filter_cache *cache, lk_collection *collection, const char *where, bool quickly,
                              lk_searcher_filter **out)
{
    *out = NULL;
    uint64_t version;
    lk_status s = lk_collection_version(collection, &version);
    if (s != LK_OK) return s;
    if (version != cache->version) lk_filter_cache_clear(cache);
    cache->version = version;
    for (size_t i = 0; i < LK_FILTER_CACHE && !*out; i++)
        if (cache->items[i] && strcmp(cache->items[i]->where, where) == 0) *out = cache->items[i];
    if (!*out) {
        uint64_t hash = lk_hash(where, strlen(where)).low;
        /* What is asked for again may be asked for often: then all of it is worth having. */
        bool again = false;
        for (size_t i = 0; i < LK_FILTER_CACHE; i++) again |= cache->tried[i] == hash;
        s = make(collection, where, quickly && !again, out);
        if (s == LK_OK && !*out) cache->tried[cache->next_tried++ % LK_FILTER_CACHE] = hash;
        if (s != LK_OK || !*out) return s;
        lk_searcher_filter **place = &cache->items[cache->next++ % LK_FILTER_CACHE];
        lk_searcher_drop_filter(*place);
        *place = *out;
    }
    atomic_fetch_add(&(*out)->users, 1);
    return LK_OK;
}
