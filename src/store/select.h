/* Walking through a set of ids, and making one without looking at every picture. */
#ifndef LK_STORE_SELECT_H
#define LK_STORE_SELECT_H

#include <likeness/collection.h>

/* Moves *id to the first member at or after it; false when there is none. */
bool lk_id_set_next(const lk_id_set *set, uint64_t *id);

/* When working a set out is given up: with LK_CANCELLED once the context is cancelled, with LK_LIMIT after `until`. */
typedef struct lk_select_limits {
    lk_context *context; /* NULL: cannot be cancelled */
    double until;        /* lk_now; 0 = takes as long as it takes */
} lk_select_limits;

/* lk_collection_select with limits; NULL = none. */
lk_status lk_collection_select_limited(lk_collection *collection, const char *predicate, const lk_select_limits *limits,
                                       lk_id_set **out);
/* The same that gives up after a few milliseconds: *out is then NULL. */
lk_status lk_collection_select_quickly(lk_collection *collection, const char *predicate, const lk_select_limits *limits,
                                       lk_id_set **out);
/* lk_collection_select among the pictures of these hits. */
lk_status lk_collection_select_among(lk_collection *collection, const char *predicate, size_t n, const lk_hit *hits,
                                     const lk_select_limits *limits, lk_id_set **out);

#endif
