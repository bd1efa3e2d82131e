/* What the rest of the engine may do with a searcher beyond the public interface. */
#ifndef LK_ENGINE_SEARCHER_H
#define LK_ENGINE_SEARCHER_H

#include <likeness/engine.h>

/* Calls fn with the present index, which stays as it is meanwhile. */
lk_status lk_searcher_with_index(lk_searcher *searcher, lk_status (*fn)(void *user, const lk_flat *index), void *user);
/* lk_collection_each under the searcher's lock. */
lk_status lk_searcher_each(lk_searcher *searcher, lk_record_fn fn, void *user);

#endif
