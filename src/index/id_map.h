/* Where a vector of a given id lies: a hash table from 64-bit ids to 64-bit places. */
#ifndef LK_INDEX_ID_MAP_H
#define LK_INDEX_ID_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lk_id_map {
    struct lk_id_slot *slots; /* zero-initialise the struct before first use */
    size_t capacity, count;
} lk_id_map;

#define LK_NO_PLACE UINT64_MAX /* may not be stored */

/* Room for `more` further ids; false when out of memory. */
bool lk_id_map_reserve(lk_id_map *map, size_t more);
/* The same in a copy, so that others may go on reading the map: *out takes its place, or stays empty where the map has
 * the room. false when out of memory. */
bool lk_id_map_bigger(const lk_id_map *map, size_t more, lk_id_map *out);
/* Puts id at place, over an earlier place. Precondition: reserved. */
void lk_id_map_put(lk_id_map *map, uint64_t id, uint64_t place);
/* LK_NO_PLACE when it is not there. */
uint64_t lk_id_map_get(const lk_id_map *map, uint64_t id);
void lk_id_map_remove(lk_id_map *map, uint64_t id);
void lk_id_map_free(lk_id_map *map);

#endif
