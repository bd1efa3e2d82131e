/* Search among a part of the vectors.
 *
 * The walk keeps a beam of vertices that pass and looks through those that do not: the links of a link that fails are
 * taken in its place, as in ACORN (Patel et al., 2024), so that the passing vertices stay connected without a graph of
 * their own. Below a few thousand passing vertices comparing all of them is faster, and exact. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <stdatomic.h>
#include <stdlib.h>

/* A walk takes about as long as comparing this many vectors per unit of its beam. */
enum { COMPARISONS_PER_BEAM = 200, APPROACH_BEAM = 16, BLOCK = 64 };

static lk_status filter_alloc(const lk_graph_index *g, lk_graph_index_filter **out)
{
    lk_graph_index_filter *f = lk_alloc_zero(1, sizeof *f);
    if (f) f->pass = lk_alloc_zero(g->count / 64 + 1, sizeof *f->pass);
    *out = f;
    if (!f || !f->pass) {
        lk_graph_index_filter_free(f);
        *out = NULL;
        return lk_fail_memory("filter");
    }
    f->vertices = g->count;
    f->version = g->version;
    return LK_OK;
}

typedef struct asking {
    const lk_graph_index *g;
    lk_id_filter fn;
    void *user;
    uint64_t *pass;
    atomic_size_t count;
} asking;

/* [begin, end) are words of the bitmap. */
static lk_status ask_some(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    asking *a = arg;
    size_t count = 0;
    for (size_t v = begin * 64; v < end * 64 && v < a->g->count; v++) {
        if (lk_graph_index_is_dead(a->g, (uint32_t)v) || !a->fn(a->user, a->g->ids[v])) continue;
        a->pass[v / 64] |= (uint64_t)1 << (v % 64);
        count++;
    }
    atomic_fetch_add(&a->count, count);
    return LK_OK;
}

lk_status lk_graph_index_filter_make(const lk_graph_index *g, lk_context *context, lk_id_filter fn, void *user,
                                     lk_graph_index_filter **out)
{
    lk_status s = filter_alloc(g, out);
    if (s == LK_OK) {
        asking a = {.g = g, .fn = fn, .user = user, .pass = (*out)->pass};
        s = lk_parallel_for(lk_context_pool(context), g->count / 64 + 1, 256, ask_some, &a);
        (*out)->count = a.count;
    }
    if (s != LK_OK) {
        lk_graph_index_filter_free(*out);
        *out = NULL;
    }
    return s;
}

lk_status lk_graph_index_filter_new(const lk_graph_index *g, lk_context *context, lk_id_filter fn, void *user,
                                    lk_graph_index_filter **out)
{
    pthread_rwlock_t *lock = (pthread_rwlock_t *)&g->lock;
    pthread_rwlock_rdlock(lock);
    lk_status s = lk_graph_index_filter_make(g, context, fn, user, out);
    pthread_rwlock_unlock(lock);
    return s;
}

static void let_pass(lk_graph_index_filter *f, uint64_t vertex)
{
    uint64_t bit = (uint64_t)1 << (vertex % 64);
    f->count += !(f->pass[vertex / 64] & bit);
    f->pass[vertex / 64] |= bit;
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* An opened index has no table of places: its ids are looked up in the list that is asked for. */
static lk_status pass_by_search(const lk_graph_index *g, lk_graph_index_filter *f, size_t n, const uint64_t *ids)
{
    uint64_t *sorted = lk_alloc(n, sizeof *sorted);
    if (!sorted) return lk_fail_memory("filter");
    memcpy(sorted, ids, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_ids);
    for (size_t v = 0; v < g->count; v++)
        if (!lk_graph_index_is_dead(g, (uint32_t)v) && bsearch(&g->ids[v], sorted, n, sizeof *sorted, compare_ids))
            let_pass(f, v);
    free(sorted);
    return LK_OK;
}

lk_status lk_graph_index_filter_ids(const lk_graph_index *g, size_t n, const uint64_t *ids, lk_graph_index_filter **out)
{
    pthread_rwlock_t *lock = (pthread_rwlock_t *)&g->lock;
    pthread_rwlock_rdlock(lock);
    lk_status s = filter_alloc(g, out);
    if (s == LK_OK && g->places.capacity > 0) {
        for (size_t i = 0; i < n; i++) {
            uint64_t place = lk_id_map_get(&g->places, ids[i]);
            if (place != LK_NO_PLACE && !lk_graph_index_is_dead(g, (uint32_t)place) && place < g->count)
                let_pass(*out, place);
        }
    } else if (s == LK_OK && n > 0) {
        s = pass_by_search(g, *out, n, ids);
    }
    pthread_rwlock_unlock(lock);
    if (s != LK_OK) {
        lk_graph_index_filter_free(*out);
        *out = NULL;
    }
    return s;
}

size_t lk_graph_index_filter_count(const lk_graph_index_filter *f)
{
    return f->count;
}

void lk_graph_index_filter_free(lk_graph_index_filter *f)
{
    if (!f) return;
    free(f->pass);
    free(f);
}

static inline bool passes(const lk_graph_index_filter *f, uint32_t vertex)
{
    return f->pass[vertex / 64] >> (vertex % 64) & 1;
}

static void keep_rows(const lk_graph_index *g, lk_graph_index_scratch *s, size_t n, size_t limit)
{
    lk_graph_index_distances(g, s, s->rows, n, s->distances);
    for (size_t i = 0; i < n; i++)
        lk_near_insert(s->beam, &s->beam_count, limit, lk_near_of(s->distances[i], s->rows[i]));
}

static void compare_all(const lk_graph_index *g, lk_graph_index_scratch *s, const lk_graph_index_filter *f,
                        size_t limit)
{
    size_t n = 0;
    s->beam_count = 0;
    for (size_t word = 0; word < f->vertices / 64 + 1; word++) {
        for (uint64_t bits = f->pass[word]; bits != 0; bits &= bits - 1) {
            s->rows[n] = (uint32_t)(word * 64 + (size_t)__builtin_ctzll(bits));
            lk_graph_index_prefetch_code(g, s->rows[n++]);
            if (n < BLOCK) continue;
            keep_rows(g, s, n, limit);
            n = 0;
        }
    }
    if (n > 0) keep_rows(g, s, n, limit);
}

/* Puts passing vertices one or two links from vertex into rows [n]: at most twice the degree; returns how many then. */
static size_t reach(const lk_graph_index *g, lk_graph_index_scratch *s, const lk_graph_index_filter *f, uint32_t vertex,
                    size_t n)
{
    uint32_t bridges[2 * LK_GRAPH_MAX_DEGREE];
    const uint32_t *links = lk_graph_index_links(g, vertex);
    size_t bridge_count = 0, enough = n + g->degree;
    for (size_t i = 0; i < g->link_stride && links[i] < g->count; i++) {
        if (!lk_graph_index_visit(s, links[i])) continue;
        if (passes(f, links[i])) {
            lk_graph_index_prefetch_code(g, links[i]);
            s->rows[n++] = links[i];
        } else {
            lk_graph_index_prefetch_links(g, links[i]);
            bridges[bridge_count++] = links[i];
        }
    }
    for (size_t b = 0; b < bridge_count && n < enough; b++) {
        const uint32_t *further = lk_graph_index_links(g, bridges[b]);
        for (size_t i = 0; i < g->link_stride && further[i] < g->count && n < enough; i++) {
            if (!passes(f, further[i]) || !lk_graph_index_visit(s, further[i])) continue;
            lk_graph_index_prefetch_code(g, further[i]);
            s->rows[n++] = further[i];
        }
    }
    return n;
}

/* From where an ordinary walk arrives, whether that passes or not. */
static bool approach(const lk_graph_index *g, lk_graph_index_scratch *s, const lk_graph_index_filter *f, size_t limit)
{
    lk_near seeds[APPROACH_BEAM];
    lk_graph_index_walk(g, s, APPROACH_BEAM);
    size_t seed_count = s->beam_count;
    memcpy(seeds, s->beam, seed_count * sizeof *seeds);
    s->beam_count = 0;
    if (!lk_graph_index_reserve_visits(s, APPROACH_BEAM * (2 * g->link_stride + 2))) return false;
    for (size_t i = 0; i < seed_count; i++) {
        uint32_t vertex = lk_near_vertex(seeds[i]);
        size_t n = 0;
        if (lk_graph_index_visit(s, vertex) && passes(f, vertex)) s->rows[n++] = vertex;
        n = reach(g, s, f, vertex, n);
        keep_rows(g, s, n, limit);
    }
    return true;
}

void lk_graph_index_walk_filtered(const lk_graph_index *g, lk_graph_index_scratch *s, const lk_graph_index_filter *f,
                                  size_t limit)
{
    if (f->count <= COMPARISONS_PER_BEAM * limit) {
        compare_all(g, s, f, limit);
        return;
    }
    bool ok = approach(g, s, f, limit);
    for (size_t next = 0; ok && next < s->beam_count;) {
        if (s->beam[next] & 1) {
            next++;
            continue;
        }
        if (!lk_graph_index_reserve_visits(s, 2 * g->link_stride + 2)) break;
        uint32_t vertex = lk_near_vertex(s->beam[next]);
        s->beam[next] |= 1;
        size_t n = reach(g, s, f, vertex, 0);
        lk_graph_index_distances(g, s, s->rows, n, s->distances);
        next++;
        for (size_t i = 0; i < n; i++) {
            size_t at = lk_near_insert(s->beam, &s->beam_count, limit, lk_near_of(s->distances[i], s->rows[i]));
            if (at < next) {
                next = at;
                lk_graph_index_prefetch_links(g, s->rows[i]);
            }
        }
    }
    lk_graph_index_forget_visits(s);
}
