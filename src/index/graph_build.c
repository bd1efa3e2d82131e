/* Linking vertices into the graph.
 *
 * A batch of new vertices is linked in two steps. First each walks through the graph as it was before the batch and
 * chooses its links among what it met; then every older vertex that was chosen receives the links back, and chooses
 * anew where it has too many. Within a step all work is on one vertex's own links, so no locks are needed and any
 * number of threads computes the same graph. A batch is small beside the graph, so that its members hardly miss each
 * other. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Batches are at most this part of the graph before them. */
enum { BATCH_PART = 50, BATCH_MOST = 20000, BACK_CHUNK = 4096 };

struct lk_pruner {
    lk_near *near;    /* candidates, rising */
    float *occlusion; /* largest distance(vertex, candidate) / distance(chosen, candidate) */
    uint32_t *rows, *places, *distances, *chosen;
    size_t capacity;
    int16_t *query; /* [stride] */
};

typedef struct linking {
    lk_graph_index *g;
    const uint32_t *vertices; /* of the batch */
    size_t count;
    lk_pruner **pruners; /* one per worker */
    /* Links back: target << 32 | source, sorted. groups: where each target's begin, and one past the last. */
    uint64_t *back, *sorted;
    size_t back_count, *groups, group_count;
    /* Where others search meanwhile, the new links of a chunk of groups are made here and then put in place. */
    uint32_t *fresh; /* [BACK_CHUNK][link_stride]; NULL: in place */
    size_t chunk;    /* its first group */
} linking;

static bool pruner_reserve(lk_pruner *p, const lk_graph_index *g, size_t n)
{
    if (!p->query) p->query = lk_alloc_aligned(g->quantiser.stride, sizeof *p->query);
    if (!p->query) return false;
    if (p->capacity >= n) return true;
    n += n / 2 + 64;
    free(p->near), free(p->occlusion), free(p->rows), free(p->places), free(p->distances), free(p->chosen);
    p->near = lk_alloc(n, sizeof *p->near);
    p->occlusion = lk_alloc(n, sizeof *p->occlusion);
    p->rows = lk_alloc(n, sizeof *p->rows);
    p->places = lk_alloc(n, sizeof *p->places);
    p->distances = lk_alloc(n, sizeof *p->distances);
    p->chosen = lk_alloc(n, sizeof *p->chosen);
    bool ok = p->near && p->occlusion && p->rows && p->places && p->distances && p->chosen;
    p->capacity = ok ? n : 0;
    return ok;
}

void lk_graph_index_free_pruners(lk_pruner **pruners, size_t n)
{
    for (size_t i = 0; pruners && i < n; i++) {
        lk_pruner *p = pruners[i];
        if (!p) continue;
        free(p->near), free(p->occlusion), free(p->rows), free(p->places), free(p->distances), free(p->chosen);
        free(p->query);
        free(p);
    }
    free(pruners);
}

lk_pruner **lk_graph_index_pruners(size_t n)
{
    lk_pruner **pruners = lk_alloc_zero(n, sizeof *pruners);
    for (size_t i = 0; pruners && i < n; i++) {
        if ((pruners[i] = lk_alloc_zero(1, sizeof **pruners))) continue;
        lk_graph_index_free_pruners(pruners, n);
        return NULL;
    }
    return pruners;
}

static void widen(const lk_graph_index *g, uint32_t vertex, int16_t *out)
{
    const uint8_t *code = lk_graph_index_code(g, vertex);
    for (size_t i = 0; i < g->quantiser.stride; i++) out[i] = code[i];
}

/* Distances from vertex to p->rows [n]. */
static void measure(const lk_graph_index *g, lk_pruner *p, uint32_t vertex, size_t n)
{
    lk_graph_index_scratch from = {.query = p->query, .extra = g->extra ? g->extra[vertex] : 0};
    widen(g, vertex, p->query);
    lk_graph_index_distances(g, &from, p->rows, n, p->distances);
}

/* Chooses up to `most` of the candidates p->near [n], rising, into links. A candidate is passed over when one chosen
 * before is `spread` times nearer to it than the vertex is; what is then free goes by the same rule to those passed
 * over with spread 1 < s <= spread (two rounds, the first with 1). */
static size_t choose(const lk_graph_index *g, lk_pruner *p, size_t n, size_t most, uint32_t *links)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) p->occlusion[i] = 0;
    for (int round = 0; round < 2 && count < most; round++) {
        float bar = round == 0 ? 1.0f : g->spread;
        for (size_t i = 0; i < n && count < most; i++) {
            if (p->occlusion[i] > bar) continue;
            uint32_t vertex = lk_near_vertex(p->near[i]);
            links[count++] = vertex;
            p->occlusion[i] = INFINITY;
            size_t rest = 0;
            for (size_t j = i + 1; j < n; j++) {
                if (p->occlusion[j] > g->spread) continue;
                p->places[rest] = (uint32_t)j;
                p->rows[rest++] = lk_near_vertex(p->near[j]);
            }
            if (rest == 0 || count == most) continue;
            measure(g, p, vertex, rest);
            for (size_t r = 0; r < rest; r++) {
                size_t j = p->places[r];
                float distance = (float)lk_near_distance(p->near[j]);
                float ratio = p->distances[r] == 0 ? INFINITY : distance / (float)p->distances[r];
                if (ratio > p->occlusion[j]) p->occlusion[j] = ratio;
            }
        }
    }
    return count;
}

static void put_links(lk_graph_index *g, uint32_t vertex, const uint32_t *links, size_t n)
{
    uint32_t *to = lk_graph_index_links(g, vertex);
    memcpy(to, links, n * sizeof *to);
    for (size_t i = n; i < g->link_stride; i++) to[i] = LK_NO_VERTEX;
}

static lk_status link_forward(void *arg, size_t begin, size_t end, int worker)
{
    linking *l = arg;
    lk_graph_index *g = l->g;
    lk_pruner *p = l->pruners[worker];
    /* No beam is longer than the graph, whatever a damaged file says. */
    size_t effort = g->build_effort < g->count + 1 ? g->build_effort : g->count + 1;
    lk_graph_index_scratch *s = lk_graph_index_borrow(g, effort);
    lk_status status = LK_OK;
    if (!s || !pruner_reserve(p, g, effort + 1)) {
        status = lk_fail_memory("graph building");
        goto done;
    }
    for (size_t i = begin; i < end; i++) {
        uint32_t vertex = l->vertices[i];
        lk_graph_index_aim_at_vertex(g, s, vertex);
        lk_graph_index_walk(g, s, effort);
        size_t n = 0;
        for (size_t j = 0; j < s->beam_count; j++)
            if (!lk_graph_index_is_dead(g, lk_near_vertex(s->beam[j]))) p->near[n++] = s->beam[j] & ~(lk_near)1;
        n = choose(g, p, n, g->degree, p->chosen);
        put_links(g, vertex, p->chosen, n);
    }
done:
    lk_graph_index_give_back(g, s);
    return status;
}

static int compare_near(const void *a, const void *b)
{
    lk_near x = *(const lk_near *)a, y = *(const lk_near *)b;
    return (x > y) - (x < y);
}

/* Chooses a vertex's links among p->rows [n]. */
static void choose_rows(const lk_graph_index *g, lk_pruner *p, uint32_t vertex, size_t n, uint32_t *links)
{
    measure(g, p, vertex, n);
    for (size_t i = 0; i < n; i++) p->near[i] = lk_near_of(p->distances[i], p->rows[i]);
    qsort(p->near, n, sizeof *p->near, compare_near);
    n = choose(g, p, n, g->degree, p->chosen);
    memcpy(links, p->chosen, n * sizeof *links);
    for (size_t i = n; i < g->link_stride; i++) links[i] = LK_NO_VERTEX;
}

lk_status lk_graph_index_choose_among(const lk_graph_index *g, lk_pruner *p, uint32_t vertex,
                                      const uint32_t *candidates, size_t n, uint32_t *links)
{
    if (!pruner_reserve(p, g, n)) return lk_fail_memory("graph building");
    memcpy(p->rows, candidates, n * sizeof *p->rows);
    choose_rows(g, p, vertex, n, links);
    return LK_OK;
}

/* Chooses vertex's links anew among those it has and `more` others; out [link_stride] may be where it has them. */
static lk_status choose_again(const lk_graph_index *g, lk_pruner *p, uint32_t vertex, const uint64_t *more,
                              size_t more_count, uint32_t *out)
{
    const uint32_t *links = lk_graph_index_links(g, vertex);
    size_t n = 0;
    if (!pruner_reserve(p, g, g->link_stride + more_count)) return lk_fail_memory("graph building");
    for (; n < g->link_stride && links[n] != LK_NO_VERTEX; n++) p->rows[n] = links[n];
    for (size_t i = 0; i < more_count; i++) p->rows[n++] = (uint32_t)more[i];
    choose_rows(g, p, vertex, n, out);
    return LK_OK;
}

/* [begin, end) are groups of the chunk. */
static lk_status link_back(void *arg, size_t begin, size_t end, int worker)
{
    linking *l = arg;
    lk_graph_index *g = l->g;
    for (size_t at = begin; at < end; at++) {
        size_t group = l->chunk + at;
        const uint64_t *back = l->back + l->groups[group];
        size_t n = l->groups[group + 1] - l->groups[group], have = 0;
        uint32_t vertex = (uint32_t)(back[0] >> 32), *links = lk_graph_index_links(g, vertex);
        uint32_t *out = l->fresh ? l->fresh + at * g->link_stride : links;
        while (have < g->link_stride && links[have] != LK_NO_VERTEX) have++;
        if (have + n <= g->link_stride) {
            if (l->fresh) memcpy(out, links, g->link_stride * sizeof *out);
            for (size_t i = 0; i < n; i++) out[have + i] = (uint32_t)back[i];
            continue;
        }
        lk_status s = choose_again(g, l->pruners[worker], vertex, back, n, out);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

static void publish(const linking *l, size_t n)
{
    lk_graph_index *g = l->g;
    for (size_t at = 0; at < n; at += LK_GRAPH_SLICE) {
        pthread_rwlock_wrlock(&g->lock);
        for (size_t i = at; i < n && i < at + LK_GRAPH_SLICE; i++)
            memcpy(lk_graph_index_links(g, (uint32_t)(l->back[l->groups[l->chunk + i]] >> 32)),
                   l->fresh + i * g->link_stride, g->link_stride * sizeof *l->fresh);
        pthread_rwlock_unlock(&g->lock);
    }
}

static lk_status link_all_back(linking *l, lk_pool *pool)
{
    size_t most = l->fresh ? BACK_CHUNK : l->group_count;
    for (l->chunk = 0; l->chunk < l->group_count; l->chunk += most) {
        size_t n = l->group_count - l->chunk < most ? l->group_count - l->chunk : most;
        lk_status s = lk_parallel_for(pool, n, 64, link_back, l);
        if (s != LK_OK) return s;
        if (l->fresh) publish(l, n);
    }
    return LK_OK;
}

/* The vertices of the batch, whose own links are there, count from now on. */
static void make_live(linking *l)
{
    lk_graph_index *g = l->g;
    pthread_rwlock_wrlock(&g->lock);
    for (size_t i = 0; i < l->count; i++) {
        uint32_t vertex = l->vertices[i];
        g->dead[vertex / 64] &= ~((uint64_t)1 << (vertex % 64));
        if (vertex >= g->count) g->count = vertex + 1;
    }
    g->live += l->count;
    g->version++;
    pthread_rwlock_unlock(&g->lock);
}

/* Sorts l->back by target, keeping the order of sources, by counting 11 bits at a time. */
static void sort_back(linking *l)
{
    uint64_t *from = l->back, *to = l->sorted;
    for (int shift = 32; shift < 64 && l->g->capacity >> (shift - 32) != 0; shift += 11) {
        size_t starts[2048] = {0}, sum = 0;
        for (size_t i = 0; i < l->back_count; i++) starts[from[i] >> shift & 2047]++;
        for (size_t b = 0; b < 2048; b++) {
            size_t here = starts[b];
            starts[b] = sum;
            sum += here;
        }
        for (size_t i = 0; i < l->back_count; i++) to[starts[from[i] >> shift & 2047]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    l->back = from;
    l->sorted = to;
}

/* Who else links to each vertex of the batch: the older vertices that it links to. */
static void collect_back(linking *l)
{
    lk_graph_index *g = l->g;
    l->back_count = 0;
    for (size_t i = 0; i < l->count; i++) {
        uint32_t vertex = l->vertices[i];
        const uint32_t *links = lk_graph_index_links(g, vertex);
        for (size_t j = 0; j < g->link_stride && links[j] != LK_NO_VERTEX; j++)
            l->back[l->back_count++] = (uint64_t)links[j] << 32 | vertex;
    }
    sort_back(l);
    l->group_count = 0;
    for (size_t i = 0; i < l->back_count; i++)
        if (i == 0 || l->back[i] >> 32 != l->back[i - 1] >> 32) l->groups[l->group_count++] = i;
    l->groups[l->group_count] = l->back_count;
}

static lk_status link_batch(linking *l, lk_pool *pool)
{
    lk_graph_index *g = l->g;
    lk_status s = lk_parallel_for(pool, l->count, 16, link_forward, l);
    if (s != LK_OK) return s;
    collect_back(l);
    make_live(l); /* before anything links to them, because a walk passes over links beyond the count */
    LK_TRY(link_all_back(l, pool));
    if (g->entry_count < LK_GRAPH_ENTRIES) s = lk_graph_index_choose_entries(g);
done:
    return s;
}

lk_status lk_graph_index_link(lk_graph_index *g, lk_context *context, const uint32_t *vertices, size_t n, bool alone)
{
    lk_status s = LK_OK;
    lk_pool *pool = lk_context_pool(context);
    size_t threads = pool ? (size_t)lk_pool_threads(pool) : 1;
    size_t most = n < BATCH_MOST ? n : BATCH_MOST;
    linking l = {.g = g};
    l.pruners = lk_graph_index_pruners(threads);
    l.back = lk_alloc(most * g->degree, sizeof *l.back);
    l.sorted = lk_alloc(most * g->degree, sizeof *l.sorted);
    l.groups = lk_alloc(most * g->degree + 1, sizeof *l.groups);
    if (!alone) l.fresh = lk_alloc(BACK_CHUNK * g->link_stride, sizeof *l.fresh);
    if (!l.pruners || !l.back || !l.sorted || !l.groups || (!alone && !l.fresh)) {
        s = lk_fail_memory("graph building");
        goto done;
    }
    for (size_t at = 0; at < n;) {
        size_t batch = g->live / BATCH_PART + 1;
        if (batch > most) batch = most;
        if (batch > n - at) batch = n - at;
        l.vertices = vertices + at;
        l.count = batch;
        at += batch;
        if (context && lk_context_cancelled(context)) {
            s = lk_fail(LK_CANCELLED, "graph building was cancelled");
            goto done;
        }
        LK_TRY(link_batch(&l, pool));
    }
done:
    lk_graph_index_free_pruners(l.pruners, threads);
    free(l.back);
    free(l.sorted);
    free(l.groups);
    free(l.fresh);
    return s;
}

static lk_status trim(void *arg, size_t begin, size_t end, int worker)
{
    linking *l = arg;
    for (size_t v = begin; v < end; v++) {
        uint32_t *links = lk_graph_index_links(l->g, (uint32_t)v);
        if (links[l->g->degree] == LK_NO_VERTEX) continue;
        lk_status s = choose_again(l->g, l->pruners[worker], (uint32_t)v, NULL, 0, links);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

lk_status lk_graph_index_trim(lk_graph_index *g, lk_pool *pool)
{
    size_t threads = pool ? (size_t)lk_pool_threads(pool) : 1;
    linking l = {.g = g, .pruners = lk_graph_index_pruners(threads)};
    if (!l.pruners) return lk_fail_memory("graph building");
    lk_status s = lk_parallel_for(pool, g->count, 256, trim, &l);
    lk_graph_index_free_pruners(l.pruners, threads);
    if (s != LK_OK) return s;
    for (size_t v = 0; v < g->count; v++)
        memmove(g->links + v * g->degree, g->links + v * g->link_stride, g->degree * sizeof *g->links);
    g->link_stride = g->degree;
    return LK_OK;
}
