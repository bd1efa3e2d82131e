/* A collection that is made of another and comes into being when it is complete. */
#ifndef LK_ENGINE_DERIVE_H
#define LK_ENGINE_DERIVE_H

#include "base/workplace.h"
#include <likeness/engine.h>

typedef struct lk_derived {
    lk_workplace workplace;
    char *path;
    lk_collection *collection; /* empty, of the shape and with the model of the other */
} lk_derived;

/* LK_CONFLICT when something is at `path` already. */
lk_status lk_derived_begin(lk_searcher *like, const char *path, lk_derived *out);
/* Commits and moves it to its place. */
lk_status lk_derived_finish(lk_derived *derived);
/* To be called in the end, after whatever went wrong too: what was not finished leaves nothing behind. A zeroed one is
 * allowed. */
void lk_derived_free(lk_derived *derived);

#endif
