/* k-reciprocal re-ranking of a shortlist. The pool is {query} + collection, of which only what is asked for exists
 * here: position 0 is the query, 1 .. count the shortlist, and items met in lists of neighbours are appended. The lists
 * of the collection do not know a query from outside; where it is near enough it is put into them. */
#include "rank/kreciprocal.h"

#include "base/arena.h"
#include "base/error.h"
#include "base/memory.h"
#include "index/id_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct item {
    uint64_t id;
    float to_query; /* distance; NAN = not known yet */
    bool listed, encoded;
    lk_nearest list; /* if listed */
    lk_sparse row;   /* V, if encoded */
} item;

typedef struct local {
    lk_kreciprocal_options options;
    const lk_shortlist *list;
    const lk_neighbour_source *source;
    uint32_t width; /* of lists: max(k1 + 1, k2) */
    item *items;    /* [count], by position */
    size_t count, capacity;
    lk_id_map places;
    lk_arena arena;
    lk_hit *hits; /* [width]: what the source answers */
    lk_pool_view pool;
    lk_encoder *encoder;
    float last; /* the largest distance of the shortlist */
} local;

static lk_status place(local *l, uint64_t id, uint32_t *out)
{
    uint64_t found = l->places.count ? lk_id_map_get(&l->places, id) : LK_NO_PLACE;
    if (found != LK_NO_PLACE) {
        *out = (uint32_t)found;
        return LK_OK;
    }
    if (l->count >= UINT32_MAX - 1 || !lk_id_map_reserve(&l->places, 1) ||
        !lk_grow((void **)&l->items, &l->capacity, l->count + 1, sizeof *l->items))
        return lk_fail_memory("re-ranking");
    l->items[l->count] = (item){.id = id, .to_query = NAN};
    lk_id_map_put(&l->places, id, l->count);
    *out = (uint32_t)l->count++;
    return LK_OK;
}

/* Distance to the query: known for the shortlist, else asked for; without anyone to ask, infinite: such an item does
 * not count the query among its neighbours. */
static lk_status to_query(local *l, uint32_t at, float *out)
{
    if (isnan(l->items[at].to_query)) {
        float d = INFINITY;
        lk_status s =
            l->source->distance ? l->source->distance(l->source->user, l->items[at].id, LK_RANK_QUERY, &d) : LK_OK;
        if (s != LK_OK) return s;
        l->items[at].to_query = d;
    }
    *out = l->items[at].to_query;
    return LK_OK;
}

/* The query goes before whatever is as far as it, being first in the pool. */
static uint32_t insert_query(uint32_t *items, float *distances, uint32_t count, uint32_t most, float d)
{
    uint32_t at = 0;
    while (at < count && distances[at] < d) at++;
    if (at >= most) return count;
    uint32_t moved = count < most ? count - at : count - at - 1;
    memmove(items + at + 1, items + at, moved * sizeof *items);
    memmove(distances + at + 1, distances + at, moved * sizeof *distances);
    items[at] = 0;
    distances[at] = d;
    return count < most ? count + 1 : count;
}

static lk_status list_item(local *l, uint32_t at)
{
    size_t found = 0;
    float farthest = 0, d;
    lk_status s = l->source->neighbours(l->source->user, l->items[at].id, l->width, l->hits, &found, &farthest);
    if (s != LK_OK && s != LK_NOT_FOUND) return s;
    if (s == LK_NOT_FOUND || found == 0) {
        l->hits[0] = (lk_hit){l->items[at].id, 0};
        found = 1;
    }
    uint32_t *items = lk_arena_alloc(&l->arena, l->width * sizeof *items), count = (uint32_t)found;
    float *distances = lk_arena_alloc(&l->arena, l->width * sizeof *distances);
    if (!items || !distances) return lk_fail_memory("re-ranking");
    for (uint32_t i = 0; i < count; i++) {
        s = place(l, l->hits[i].id, &items[i]);
        if (s != LK_OK) return s;
        distances[i] = l->hits[i].score;
    }
    s = to_query(l, at, &d);
    if (s != LK_OK) return s;
    if (isfinite(d) && l->list->self == LK_RANK_QUERY) {
        count = insert_query(items, distances, count, l->width, d);
        if (farthest > 0 && d > farthest) farthest = d;
    }
    if (!(farthest > 0)) farthest = distances[count - 1] > l->last ? distances[count - 1] : l->last;
    l->items[at].list = (lk_nearest){items, distances, count, farthest};
    l->items[at].listed = true;
    return LK_OK;
}

static lk_status nearest(void *user, uint32_t at, lk_nearest *out)
{
    local *l = user;
    lk_status s = l->items[at].listed ? LK_OK : list_item(l, at);
    *out = l->items[at].list;
    return s;
}

static lk_status distance(void *user, uint32_t a, uint32_t b, float *out)
{
    local *l = user;
    if (a == 0 || b == 0) {
        lk_status s = to_query(l, a ? a : b, out);
        if (s == LK_OK && !isfinite(*out)) *out = l->last;
        return s;
    }
    if (l->source->distance) return l->source->distance(l->source->user, l->items[a].id, l->items[b].id, out);
    lk_nearest list;
    lk_status s = nearest(l, a, &list);
    if (s == LK_OK) *out = list.count ? list.distances[list.count - 1] : 0;
    return s;
}

/* The list of the query: itself, then the head of the shortlist. */
static lk_status list_query(local *l)
{
    uint32_t count = l->list->count < l->width - 1 ? (uint32_t)l->list->count + 1 : l->width;
    uint32_t *items = lk_arena_alloc(&l->arena, count * sizeof *items);
    float *distances = lk_arena_alloc(&l->arena, count * sizeof *distances);
    if (!items || !distances) return lk_fail_memory("re-ranking");
    float farthest = l->list->farthest;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = i;
        distances[i] = i ? l->list->distances[i - 1] : 0;
    }
    l->items[0].list = (lk_nearest){items, distances, count, farthest};
    l->items[0].listed = true;
    if (farthest > 0) return LK_OK;
    lk_nearest best; /* what lies near the best result lies nearly as far from everything as the query does */
    lk_status s = nearest(l, 1, &best);
    l->items[0].list.farthest = s == LK_OK ? best.farthest : 0;
    return s;
}

static lk_status start(local *l)
{
    uint32_t at;
    lk_status s = place(l, l->list->self, &at);
    if (s != LK_OK) return s;
    l->items[0].to_query = 0;
    for (size_t i = 0; i < l->list->count; i++) {
        float d = l->list->distances[i];
        if (!isfinite(d) || (i && d < l->list->distances[i - 1]))
            return lk_fail(LK_INVALID, "the distances of a shortlist are finite and never fall");
        s = place(l, l->list->ids[i], &at);
        if (s != LK_OK) return s;
        if (at != i + 1)
            return lk_fail(LK_INVALID, "the id %llu appears twice in the shortlist",
                           (unsigned long long)l->list->ids[i]);
        l->items[at].to_query = d;
        l->last = d;
    }
    return list_query(l);
}

static lk_status row_of(local *l, uint32_t at, lk_sparse *out)
{
    if (!l->items[at].encoded) {
        lk_sparse found;
        lk_status s = lk_encode(l->encoder, at, &found);
        if (s != LK_OK) return s;
        uint32_t *items = lk_arena_alloc(&l->arena, found.count * sizeof *items);
        float *weights = lk_arena_alloc(&l->arena, found.count * sizeof *weights);
        if (!items || !weights) return lk_fail_memory("re-ranking");
        memcpy(items, found.items, found.count * sizeof *items);
        memcpy(weights, found.weights, found.count * sizeof *weights);
        l->items[at].row = (lk_sparse){items, weights, found.count};
        l->items[at].encoded = true;
    }
    *out = l->items[at].row;
    return LK_OK;
}

/* A vector over positions that is mostly zero: sums [room], the positions that are not zero in `items`. */
typedef struct accumulator {
    float *sums;
    size_t room;
    uint32_t *items;
    size_t count, capacity;
} accumulator;

static bool make_room(accumulator *a, size_t count)
{
    if (count <= a->room) return true;
    size_t room = count * 2;
    float *grown = realloc(a->sums, room * sizeof *grown);
    if (!grown) return false;
    memset(grown + a->room, 0, (room - a->room) * sizeof *grown);
    a->sums = grown;
    a->room = room;
    return true;
}

static void clear(accumulator *a)
{
    for (size_t i = 0; i < a->count; i++) a->sums[a->items[i]] = 0;
    a->count = 0;
}

/* k2 W_at into an empty accumulator; *rows says how many rows were added. */
static lk_status gather(local *l, uint32_t at, accumulator *a, uint32_t *rows)
{
    lk_nearest list;
    lk_status s = nearest(l, at, &list);
    *rows = list.count < l->options.k2 ? list.count : l->options.k2;
    for (uint32_t m = 0; s == LK_OK && m < *rows; m++) {
        lk_sparse v = {0};
        s = row_of(l, list.items[m], &v);
        if (s != LK_OK) return s;
        if (!make_room(a, l->count) || !lk_grow((void **)&a->items, &a->capacity, a->count + v.count, sizeof *a->items))
            return lk_fail_memory("re-ranking");
        for (uint32_t j = 0; j < v.count; j++) {
            if (a->sums[v.items[j]] == 0) a->items[a->count++] = v.items[j];
            a->sums[v.items[j]] += v.weights[j];
        }
    }
    return s;
}

static lk_status rank(local *l, accumulator *query, accumulator *other, float *out)
{
    uint32_t query_rows, rows;
    lk_status s = gather(l, 0, query, &query_rows);
    if (s != LK_OK) return s;
    for (size_t i = 0; i < query->count; i++) query->sums[query->items[i]] /= (float)query_rows;
    float farthest = l->items[0].list.farthest, lambda = l->options.lambda;
    for (size_t i = 0; i < l->list->count; i++) {
        s = gather(l, (uint32_t)i + 1, other, &rows);
        if (s != LK_OK) return s;
        if (!make_room(query, l->count)) return lk_fail_memory("re-ranking");
        double common = 0;
        for (size_t j = 0; j < other->count; j++) {
            float a = query->sums[other->items[j]], b = other->sums[other->items[j]] / (float)rows;
            common += (double)(a < b ? a : b);
        }
        clear(other);
        out[i] = (1 - lambda) * (float)(1 - common / (2 - common)) +
                 (farthest > 0 ? lambda * l->list->distances[i] / farthest : 0);
    }
    return LK_OK;
}

lk_status lk_kreciprocal_rerank(const lk_kreciprocal_options *options, const lk_shortlist *list,
                                const lk_neighbour_source *source, float *out)
{
    local l = {.options = options ? *options : lk_kreciprocal_defaults(), .list = list, .source = source};
    accumulator query = {0}, other = {0};
    lk_status s = lk_kreciprocal_check(&l.options);
    if (s != LK_OK || list->count == 0) return s;
    l.width = l.options.k1 + 1 > l.options.k2 ? l.options.k1 + 1 : l.options.k2;
    l.pool = (lk_pool_view){nearest, distance, &l, l.options.k1, l.options.k2, lk_half_even(l.options.k1)};
    l.hits = lk_alloc(l.width, sizeof *l.hits);
    if (!l.hits) return lk_fail_memory("re-ranking");
    LK_TRY(start(&l));
    LK_TRY(lk_encoder_new(&l.pool, &l.encoder));
    LK_TRY(rank(&l, &query, &other, out));
done:
    free(query.sums);
    free(query.items);
    free(other.sums);
    free(other.items);
    lk_encoder_free(l.encoder);
    lk_arena_free(&l.arena);
    lk_id_map_free(&l.places);
    free(l.items);
    free(l.hits);
    return s;
}
