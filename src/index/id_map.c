#include "index/id_map.h"

#include "base/memory.h"

#include <stdlib.h>

typedef struct lk_id_slot {
    uint64_t id, place; /* place LK_NO_PLACE = empty */
} lk_id_slot;

/* Ids often count up from 1: the multiplication spreads them, the shift brings the well-mixed high bits down. */
static size_t home(const lk_id_map *map, uint64_t id)
{
    id = (id ^ (id >> 32)) * 0x9e3779b97f4a7c15u;
    return (size_t)(id ^ (id >> 32)) & (map->capacity - 1);
}

static size_t find(const lk_id_map *map, uint64_t id)
{
    size_t i = home(map, id);
    while (map->slots[i].place != LK_NO_PLACE && map->slots[i].id != id) i = (i + 1) & (map->capacity - 1);
    return i;
}

bool lk_id_map_bigger(const lk_id_map *map, size_t more, lk_id_map *out)
{
    *out = (lk_id_map){0};
    if (more > SIZE_MAX / 4 - map->count) return false;
    size_t need = map->count + more, capacity = map->capacity ? map->capacity : 64;
    while (capacity / 4 * 3 < need) capacity *= 2;
    if (capacity == map->capacity) return true;
    *out = (lk_id_map){.slots = lk_alloc(capacity, sizeof *out->slots), .capacity = capacity};
    if (!out->slots) return false;
    for (size_t i = 0; i < capacity; i++) out->slots[i].place = LK_NO_PLACE;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].place != LK_NO_PLACE) lk_id_map_put(out, map->slots[i].id, map->slots[i].place);
    return true;
}

bool lk_id_map_reserve(lk_id_map *map, size_t more)
{
    lk_id_map bigger;
    if (!lk_id_map_bigger(map, more, &bigger)) return false;
    if (!bigger.slots) return true;
    free(map->slots);
    *map = bigger;
    return true;
}

void lk_id_map_put(lk_id_map *map, uint64_t id, uint64_t place)
{
    size_t i = find(map, id);
    if (map->slots[i].place == LK_NO_PLACE) map->count++;
    map->slots[i] = (lk_id_slot){.id = id, .place = place};
}

uint64_t lk_id_map_get(const lk_id_map *map, uint64_t id)
{
    return map->count ? map->slots[find(map, id)].place : LK_NO_PLACE;
}

void lk_id_map_remove(lk_id_map *map, uint64_t id)
{
    if (!map->count) return;
    size_t mask = map->capacity - 1, hole = find(map, id);
    if (map->slots[hole].place == LK_NO_PLACE) return;
    /* Close the gap: whatever follows without a break and may lie at the hole moves there, so that no marker of a
     * removed slot is needed. */
    for (size_t i = (hole + 1) & mask; map->slots[i].place != LK_NO_PLACE; i = (i + 1) & mask) {
        size_t from_home = (i - home(map, map->slots[i].id)) & mask, from_hole = (i - hole) & mask;
        if (from_home < from_hole) continue;
        map->slots[hole] = map->slots[i];
        hole = i;
    }
    map->slots[hole].place = LK_NO_PLACE;
    map->count--;
}

void lk_id_map_free(lk_id_map *map)
{
    free(map->slots);
    *map = (lk_id_map){0};
}
