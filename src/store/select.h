/* Walking through a set of ids. */
#ifndef LK_STORE_SELECT_H
#define LK_STORE_SELECT_H

#include <likeness/collection.h>

/* Moves *id to the first member at or after it; false when there is none. */
bool lk_id_set_next(const lk_id_set *set, uint64_t *id);

#endif
