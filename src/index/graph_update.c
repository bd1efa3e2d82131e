/* Vectors that come and go.
 *
 * A removed vertex stays as a stepping stone until consolidation: then every vertex that links to removed ones chooses
 * anew among its other links and those of the removed ones (as FreshDiskANN, Singh et al., 2021), and their places are
 * free for new vectors. One writer works at a time. Whatever takes long it works out beside what searches read, and
 * holds the lock only while it puts a few rows or a pointer in place. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Adding consolidates first when more than 1 in this many vertices is a removed one. */
enum { DEAD_PART = 8, REPAIR_CHUNK = 4096 };

/* A projection is given up when of the vectors added, so many at least, it leaves less than this share of their squared
 * distances from older ones. It was trained to leave 7/8. */
enum { ADDED_LEAST = 64, ADDED_MOST = 4096 };
#define ADDED_KEPT 0.75

static lk_status refuse_mapped(const lk_graph_index *g)
{
    if (g->map.bytes) return lk_fail(LK_UNSUPPORTED, "the graph index was opened for searching only");
    return LK_OK;
}

/* Vectors longer than any before: all additional coordinates grow. */
static lk_status grow_longest(lk_graph_index *g, size_t n, const float *vectors)
{
    double longest = g->longest, step = g->quantiser.step;
    for (size_t r = 0; r < n; r++) {
        double squares = 0;
        for (size_t i = 0; i < g->dim; i++) squares += (double)vectors[r * g->dim + i] * vectors[r * g->dim + i];
        if (squares > longest) longest = squares;
    }
    if (longest <= (double)g->longest) return LK_OK;
    longest *= 1.1; /* the next one may be a little longer still */
    float *extra = lk_alloc_aligned(g->capacity, sizeof *extra), *old = g->extra;
    if (!extra) return lk_fail_memory("graph index");
    for (size_t v = 0; v < g->capacity; v++) {
        double had = old[v] * step;
        extra[v] = v < g->count ? (float)(sqrt(had * had + longest - (double)g->longest) / step) : 0;
    }
    pthread_rwlock_wrlock(&g->lock);
    g->extra = extra;
    g->longest = (float)longest;
    pthread_rwlock_unlock(&g->lock);
    free(old);
    return LK_OK;
}

/* Vertices for n new vectors: free places first, then new ones. */
static lk_status take_places(lk_graph_index *g, size_t n, uint32_t *vertices)
{
    size_t reused = n < g->free_count ? n : g->free_count;
    lk_status s = lk_graph_index_reserve(g, g->count + n - reused);
    if (s != LK_OK) return s;
    for (size_t i = 0; i < reused; i++) vertices[i] = g->free_places[g->free_count - 1 - i];
    for (size_t i = reused; i < n; i++) vertices[i] = (uint32_t)(g->count + i - reused);
    return LK_OK;
}

/* After a failure in the middle of linking: what is not live gives up its id; its place is free. */
static void drop_unlinked(lk_graph_index *g, const uint32_t *vertices, size_t n, size_t linked, size_t reused)
{
    lk_graph_index_forget_ids(g, vertices + linked, n - linked);
    size_t freed = linked < reused ? linked : reused;
    g->free_count -= freed;
}

/* Vectors that vary in other directions than those that the projection was trained on look all alike to the walk. Then
 * whole codes are compared from now on. Precondition: vertices [n] are encoded. */
static lk_status give_up_misfit(lk_graph_index *g, const uint32_t *vertices, size_t n)
{
    size_t stride = g->quantiser.stride, width = g->projection.width;
    lk_graph_index_scratch *s = g->projected && g->entry_count > 0 ? lk_graph_index_borrow(g, 1) : NULL;
    if (!g->projected || g->entry_count == 0) return LK_OK;
    if (!s) return lk_fail_memory("graph index");
    if (g->added > ADDED_MOST) { /* what came long ago counts less */
        g->added /= 2;
        g->added_whole /= 2;
        g->added_projected /= 2;
    }
    for (size_t i = 0; i < n; i++, g->added++) {
        const uint32_t *older = &g->entries[g->added % g->entry_count];
        uint32_t whole, projected;
        lk_graph_index_aim_at_vertex(g, s, vertices[i]);
        g->kernels->l2_u8_rows(s->query, g->codes, stride, older, 1, stride, &whole);
        g->kernels->l2_u8_rows(s->projected, g->projected, width, older, 1, width, &projected);
        g->added_whole += whole;
        g->added_projected += projected;
    }
    lk_graph_index_give_back(g, s);
    double expected = g->added_whole * (double)g->projection.grid[width + 1];
    if (g->added < ADDED_LEAST || g->added_projected >= ADDED_KEPT * expected) return LK_OK;
    pthread_rwlock_wrlock(&g->lock);
    free(g->projected);
    g->projected = NULL;
    lk_projection_free(&g->projection);
    pthread_rwlock_unlock(&g->lock);
    return LK_OK;
}

lk_status lk_graph_index_add(lk_graph_index *g, lk_context *context, size_t n, const uint64_t *ids,
                             const float *vectors)
{
    lk_status s = refuse_mapped(g);
    if (s != LK_OK || n == 0) return s;
    if ((s = lk_graph_index_check_vectors(n, g->dim, vectors)) != LK_OK) return s;
    uint32_t *vertices = lk_alloc(n, sizeof *vertices);
    if (!vertices) return lk_fail_memory("graph index");
    pthread_mutex_lock(&g->writer);
    if (g->dead_count > 64 && g->dead_count > g->count / DEAD_PART) LK_TRY(lk_graph_index_repair(g, context));
    size_t reused = n < g->free_count ? n : g->free_count, live = g->live;
    LK_TRY(take_places(g, n, vertices));
    if (g->extra) LK_TRY(grow_longest(g, n, vectors));
    LK_TRY(lk_graph_index_encode(g, lk_context_pool(context), n, vectors, ids, NULL, vertices));
    LK_TRY(give_up_misfit(g, vertices, n));
    LK_TRY(lk_graph_index_place_ids(g, vertices, n));
    s = lk_graph_index_link(g, context, vertices, n, false);
    if (s == LK_OK)
        g->free_count -= reused;
    else
        drop_unlinked(g, vertices, n, g->live - live, reused);
done:
    pthread_mutex_unlock(&g->writer);
    free(vertices);
    return s;
}

/* The caller is the writer. */
static lk_status remove_one(lk_graph_index *g, uint64_t id)
{
    uint64_t place = g->places.count ? lk_id_map_get(&g->places, id) : LK_NO_PLACE;
    if (place == LK_NO_PLACE) return lk_fail(LK_NOT_FOUND, "there is no vector of id %llu", (unsigned long long)id);
    pthread_rwlock_wrlock(&g->lock);
    lk_id_map_remove(&g->places, id);
    g->dead[place / 64] |= (uint64_t)1 << (place % 64);
    g->dead_count++;
    g->live--;
    g->version++;
    pthread_rwlock_unlock(&g->lock);
    return LK_OK;
}

lk_status lk_graph_index_remove(lk_graph_index *g, uint64_t id)
{
    lk_status s = refuse_mapped(g);
    if (s != LK_OK) return s;
    pthread_mutex_lock(&g->writer);
    s = remove_one(g, id);
    pthread_mutex_unlock(&g->writer);
    return s;
}

lk_status lk_graph_index_update(lk_graph_index *g, lk_context *context, size_t n, const uint64_t *ids,
                                const float *vectors)
{
    lk_status s = refuse_mapped(g);
    if (s != LK_OK) return s;
    if ((s = lk_graph_index_check_vectors(n, g->dim, vectors)) != LK_OK) return s;
    pthread_mutex_lock(&g->writer);
    for (size_t i = 0; i < n; i++)
        if (g->places.count && lk_id_map_get(&g->places, ids[i]) != LK_NO_PLACE) remove_one(g, ids[i]);
    pthread_mutex_unlock(&g->writer);
    return lk_graph_index_add(g, context, n, ids, vectors);
}

typedef struct repair {
    lk_graph_index *g;
    size_t first;    /* vertex of the chunk */
    uint32_t *links; /* [REPAIR_CHUNK][link_stride]: the new links */
    uint8_t *changed;
    lk_pruner **pruners;
} repair;

/* Live links of a vertex and, in place of the removed ones, their live links; each once. */
static size_t gather(const lk_graph_index *g, lk_graph_index_scratch *s, uint32_t vertex, uint32_t *out)
{
    const uint32_t *links = lk_graph_index_links(g, vertex);
    size_t n = 0;
    lk_graph_index_visit(s, vertex);
    for (size_t i = 0; i < g->link_stride && links[i] != LK_NO_VERTEX; i++)
        if (!lk_graph_index_is_dead(g, links[i]) && lk_graph_index_visit(s, links[i])) out[n++] = links[i];
    for (size_t i = 0; i < g->link_stride && links[i] != LK_NO_VERTEX; i++) {
        if (!lk_graph_index_is_dead(g, links[i])) continue;
        const uint32_t *further = lk_graph_index_links(g, links[i]);
        for (size_t j = 0; j < g->link_stride && further[j] != LK_NO_VERTEX; j++)
            if (!lk_graph_index_is_dead(g, further[j]) && lk_graph_index_visit(s, further[j])) out[n++] = further[j];
    }
    lk_graph_index_forget_visits(s);
    return n;
}

static lk_status repair_some(void *arg, size_t begin, size_t end, int worker)
{
    repair *r = arg;
    lk_graph_index *g = r->g;
    lk_status status = LK_OK;
    lk_graph_index_scratch *s = lk_graph_index_borrow(g, 1);
    uint32_t *candidates = lk_alloc(g->link_stride * (g->link_stride + 1), sizeof *candidates);
    if (!s || !candidates) {
        status = lk_fail_memory("graph repair");
        goto done;
    }
    for (size_t i = begin; i < end && status == LK_OK; i++) {
        uint32_t vertex = (uint32_t)(r->first + i);
        const uint32_t *links = lk_graph_index_links(g, vertex);
        bool broken = false;
        r->changed[i] = 0;
        if (lk_graph_index_is_dead(g, vertex)) continue;
        for (size_t j = 0; j < g->link_stride && links[j] != LK_NO_VERTEX; j++)
            broken = broken || lk_graph_index_is_dead(g, links[j]);
        if (!broken) continue;
        if (!lk_graph_index_reserve_visits(s, g->link_stride * (g->link_stride + 1))) {
            status = lk_fail_memory("graph repair");
            break;
        }
        size_t n = gather(g, s, vertex, candidates);
        r->changed[i] = 1;
        status =
            lk_graph_index_choose_among(g, r->pruners[worker], vertex, candidates, n, r->links + i * g->link_stride);
    }
done:
    lk_graph_index_give_back(g, s);
    free(candidates);
    return status;
}

/* Puts the new links of a chunk of n vertices in place. */
static void publish(const repair *r, size_t n)
{
    lk_graph_index *g = r->g;
    size_t written = 0;
    for (size_t i = 0; i < n; i++) {
        if (!r->changed[i]) continue;
        if (written % LK_GRAPH_SLICE == 0) pthread_rwlock_wrlock(&g->lock);
        memcpy(lk_graph_index_links(g, (uint32_t)(r->first + i)), r->links + i * g->link_stride,
               g->link_stride * sizeof *r->links);
        if (++written % LK_GRAPH_SLICE == 0) pthread_rwlock_unlock(&g->lock);
    }
    if (written % LK_GRAPH_SLICE != 0) pthread_rwlock_unlock(&g->lock);
}

static lk_status repair_all(repair *r, lk_context *context)
{
    lk_graph_index *g = r->g;
    for (r->first = 0; r->first < g->count; r->first += REPAIR_CHUNK) {
        size_t n = g->count - r->first < REPAIR_CHUNK ? g->count - r->first : REPAIR_CHUNK;
        if (context && lk_context_cancelled(context)) return lk_fail(LK_CANCELLED, "graph repair was cancelled");
        lk_status s = lk_parallel_for(lk_context_pool(context), n, 64, repair_some, r);
        if (s != LK_OK) return s;
        publish(r, n);
    }
    return LK_OK;
}

/* Every removed vertex is out of all links: its place is free. */
static lk_status free_dead(lk_graph_index *g)
{
    if (!lk_grow((void **)&g->free_places, &g->free_capacity, g->free_count + g->dead_count, sizeof *g->free_places))
        return lk_fail_memory("graph repair");
    lk_status s = lk_graph_index_choose_entries(g);
    if (s != LK_OK) return s;
    g->free_count = 0;
    for (uint32_t v = (uint32_t)g->count; v-- > 0;)
        if (lk_graph_index_is_dead(g, v)) g->free_places[g->free_count++] = v;
    pthread_rwlock_wrlock(&g->lock);
    g->dead_count = 0;
    pthread_rwlock_unlock(&g->lock);
    return LK_OK;
}

lk_status lk_graph_index_repair(lk_graph_index *g, lk_context *context)
{
    lk_status s = LK_OK;
    lk_pool *pool = lk_context_pool(context);
    size_t threads = pool ? (size_t)lk_pool_threads(pool) : 1;
    if (g->dead_count == 0) return LK_OK;
    repair r = {.g = g};
    r.links = lk_alloc(REPAIR_CHUNK * g->link_stride, sizeof *r.links);
    r.changed = lk_alloc(REPAIR_CHUNK, 1);
    r.pruners = lk_graph_index_pruners(threads);
    if (!r.links || !r.changed || !r.pruners) {
        s = lk_fail_memory("graph repair");
        goto done;
    }
    LK_TRY(repair_all(&r, context));
    LK_TRY(free_dead(g));
done:
    free(r.links);
    free(r.changed);
    lk_graph_index_free_pruners(r.pruners, threads);
    return s;
}

lk_status lk_graph_index_consolidate(lk_graph_index *g, lk_context *context)
{
    lk_status s = refuse_mapped(g);
    if (s != LK_OK) return s;
    pthread_mutex_lock(&g->writer);
    s = lk_graph_index_repair(g, context);
    pthread_mutex_unlock(&g->writer);
    return s;
}
