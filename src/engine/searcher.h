/* What the rest of the engine may do with a searcher beyond the public interface. */
#ifndef LK_ENGINE_SEARCHER_H
#define LK_ENGINE_SEARCHER_H

#include <likeness/engine.h>

#define LK_NEIGHBOURS_FILE "neighbours.knn" /* in the folder of the collection; what it belongs to is in it */

/* Calls fn with the present index, which stays as it is meanwhile. */
lk_status lk_searcher_with_index(lk_searcher *searcher, lk_status (*fn)(void *user, const lk_flat *index), void *user);
/* lk_collection_each under the searcher's lock. */
lk_status lk_searcher_each(lk_searcher *searcher, lk_record_fn fn, void *user);

/* What a search may use; it stays as it is until it is given back. */
typedef struct lk_searcher_view {
    const lk_flat *index;
    const lk_snapshot *snapshot;
    struct view *held;
} lk_searcher_view;
lk_searcher_view lk_searcher_use(lk_searcher *searcher);
void lk_searcher_give_back(lk_searcher_view *view);
/* The table of neighbours that belongs to a view, read when it is first asked for; NULL when there is none. */
lk_knn *lk_searcher_view_neighbours(lk_searcher *searcher, lk_searcher_view *view);

/* The pictures that satisfy a predicate. What was asked for lately is remembered until the collection changes. To be
 * given back. quickly: *out is NULL when every picture would have to be looked at, unless the same was asked for
 * lately. until: a time (lk_now) at which it is given up with LK_LIMIT; 0 = never. LK_INVALID, LK_LIMIT, LK_NO_MEMORY,
 * LK_CANCELLED. */
typedef struct lk_searcher_filter lk_searcher_filter;
lk_status lk_searcher_select(lk_searcher *searcher, const char *where, bool quickly, double until,
                             lk_searcher_filter **out);
/* Keeps those of the hits whose pictures satisfy the predicate. */
lk_status lk_searcher_select_among(lk_searcher *searcher, const char *where, double until, lk_hit *hits, size_t *count);
const lk_id_set *lk_searcher_filter_set(const lk_searcher_filter *filter);
void lk_searcher_drop_filter(lk_searcher_filter *filter); /* NULL allowed */

/* What lk_search says of options that do not go together, or not with the collection or the number of queries, without
 * a look at these: LK_INVALID, LK_UNSUPPORTED. */
lk_status lk_search_check(lk_searcher *searcher, const lk_query *query, const lk_search_options *options);
/* lk_search without the catalog: hits [options->k], best first. */
lk_status lk_search_hits(lk_searcher *searcher, const lk_query *query, const lk_search_options *options, lk_hit *hits,
                         size_t *count);

/* All vectors of an index, decoded, in order of id: ids [count], vectors [count][dim], freed by the caller. */
lk_status lk_searcher_vectors(const lk_flat *index, uint64_t **ids, float **vectors);

/* What searches re-rank with unless they say otherwise: the best on the validation split of the logo corpus
 * (docs/ranking.md). */
lk_kreciprocal_options lk_search_kreciprocal(void);
lk_diffusion_options lk_search_diffusion(void);
#define LK_SEARCH_EXPAND_ALPHA 10.0f

lk_context *lk_searcher_context(const lk_searcher *searcher);
const char *lk_searcher_path(const lk_searcher *searcher);

/* Fills in what the catalog knows of each hit, the first k. reranked [count] or NULL. A picture removed since the view
 * was taken is left out. */
lk_status lk_searcher_describe(lk_searcher *searcher, const lk_hit *hits, const float *reranked, size_t count, size_t k,
                               lk_results *out);

#endif
