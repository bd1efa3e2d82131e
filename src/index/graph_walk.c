/* The walk through the graph towards a query. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void scratch_free(lk_graph_index_scratch *s)
{
    if (!s) return;
    free(s->visited);
    free(s->touched);
    free(s->beam);
    free(s->query);
    free(s->units);
    free(s->vector);
    free(s->rows);
    free(s->distances);
    free(s);
}

static bool grow_scratch(const lk_graph_index *g, lk_graph_index_scratch *s, size_t beam)
{
    size_t stride = g->quantiser.stride;
    if (s->capacity < g->capacity) {
        free(s->visited);
        s->capacity = g->capacity;
        s->visited = lk_alloc_zero(g->capacity / 64 + 1, sizeof *s->visited);
        s->touched_count = 0;
        if (!s->visited) return s->capacity = 0, false;
    }
    if (!lk_grow((void **)&s->beam, &s->beam_capacity, beam + 2, sizeof *s->beam)) return false;
    if (!lk_grow((void **)&s->touched, &s->touched_capacity, 1024, sizeof *s->touched)) return false;
    if (!s->query) s->query = lk_alloc_aligned(stride, sizeof *s->query);
    if (!s->units) s->units = lk_alloc_aligned(stride, sizeof *s->units);
    if (!s->vector) s->vector = lk_alloc_aligned(stride, sizeof *s->vector);
    if (!s->query || !s->units || !s->vector) return false;
    size_t rows = 3 * g->link_stride + LK_GRAPH_ENTRIES;
    if (s->rows_capacity < rows) {
        free(s->rows);
        free(s->distances);
        s->rows_capacity = rows;
        s->rows = lk_alloc(rows, sizeof *s->rows);
        s->distances = lk_alloc(rows, sizeof *s->distances);
        if (!s->rows || !s->distances) return s->rows_capacity = 0, false;
    }
    return true;
}

lk_graph_index_scratch *lk_graph_index_borrow(const lk_graph_index *g, size_t beam)
{
    lk_graph_index *store = (lk_graph_index *)g; /* the store of scratches is no part of what a graph says */
    pthread_mutex_lock(&store->mutex);
    lk_graph_index_scratch *s = store->free_scratch;
    if (s) store->free_scratch = s->next;
    pthread_mutex_unlock(&store->mutex);
    if (!s && (s = lk_alloc_zero(1, sizeof *s))) s->hidden = LK_NO_VERTEX;
    if (s && !grow_scratch(g, s, beam)) {
        scratch_free(s);
        s = NULL;
    }
    return s;
}

void lk_graph_index_give_back(const lk_graph_index *g, lk_graph_index_scratch *scratch)
{
    lk_graph_index *store = (lk_graph_index *)g;
    if (!scratch) return;
    pthread_mutex_lock(&store->mutex);
    scratch->next = store->free_scratch;
    store->free_scratch = scratch;
    pthread_mutex_unlock(&store->mutex);
}

void lk_graph_index_free_scratches(lk_graph_index *g)
{
    for (lk_graph_index_scratch *s = g->free_scratch, *next; s; s = next) {
        next = s->next;
        scratch_free(s);
    }
    g->free_scratch = NULL;
}

void lk_graph_index_aim_at_vertex(const lk_graph_index *g, lk_graph_index_scratch *s, uint32_t vertex)
{
    const uint8_t *code = lk_graph_index_code(g, vertex);
    for (size_t i = 0; i < g->quantiser.stride; i++) s->query[i] = code[i];
    s->extra = g->extra ? g->extra[vertex] : 0;
}

void lk_graph_index_distances(const lk_graph_index *g, const lk_graph_index_scratch *s, const uint32_t *rows, size_t n,
                              uint32_t *out)
{
    g->kernels->l2_u8_rows(s->query, g->codes, g->quantiser.stride, rows, n, g->quantiser.stride, out);
    if (!g->extra) return;
    for (size_t i = 0; i < n; i++) {
        float difference = g->extra[rows[i]] - s->extra, sum = (float)out[i] + difference * difference;
        out[i] = sum < 4.2e9f ? (uint32_t)sum : 4200000000u;
    }
}

bool lk_graph_index_reserve_visits(lk_graph_index_scratch *s, size_t more)
{
    return lk_grow((void **)&s->touched, &s->touched_capacity, s->touched_count + more, sizeof *s->touched);
}

void lk_graph_index_forget_visits(lk_graph_index_scratch *s)
{
    for (size_t i = 0; i < s->touched_count; i++) s->visited[s->touched[i]] = 0;
    s->touched_count = 0;
}

static void start(const lk_graph_index *g, lk_graph_index_scratch *s, size_t limit)
{
    size_t n = g->entry_count;
    lk_graph_index_distances(g, s, g->entries, n, s->distances);
    size_t best = 0;
    for (size_t i = 1; i < n; i++) best = s->distances[i] < s->distances[best] ? i : best;
    s->beam_count = 0;
    if (n == 0) return;
    if (s->hidden != LK_NO_VERTEX) lk_graph_index_visit(s, s->hidden);
    if (!lk_graph_index_visit(s, g->entries[best])) best = best ? 0 : n - 1;
    lk_graph_index_visit(s, g->entries[best]);
    lk_graph_index_prefetch_links(g, g->entries[best]);
    lk_near_insert(s->beam, &s->beam_count, limit, lk_near_of(s->distances[best], g->entries[best]));
}

void lk_graph_index_walk(const lk_graph_index *g, lk_graph_index_scratch *s, size_t limit)
{
    start(g, s, limit);
    size_t next = 0;
    s->hops = s->comparisons = 0;
    while (next < s->beam_count) {
        if (s->beam[next] & 1) {
            next++;
            continue;
        }
        const uint32_t *links = lk_graph_index_links(g, lk_near_vertex(s->beam[next]));
        s->beam[next] |= 1;
        size_t n = 0, first = next + 1;
        if (!lk_graph_index_reserve_visits(s, g->link_stride)) break;
        for (size_t i = 0; i < g->link_stride && links[i] < g->count; i++) {
            if (!lk_graph_index_visit(s, links[i])) continue;
            lk_graph_index_prefetch_code(g, links[i]);
            s->rows[n++] = links[i];
        }
        if (first < s->beam_count) lk_graph_index_prefetch_links(g, lk_near_vertex(s->beam[first]));
        lk_graph_index_distances(g, s, s->rows, n, s->distances);
        s->hops++;
        s->comparisons += n;
        next = first;
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

lk_status lk_graph_index_aim(const lk_graph_index *g, lk_graph_index_scratch *s, const float *vector)
{
    size_t dim = g->dim;
    double squares = 0;
    for (size_t i = 0; i < dim; i++) squares += (double)vector[i] * vector[i];
    if (!(squares <= (double)FLT_MAX)) return lk_fail(LK_INVALID, "a query has a component that is not finite");
    double scale = 1;
    if (g->metric != LK_L2 && squares > 0) /* only the direction counts */
        scale = sqrt((g->metric == LK_COSINE ? 1.0 : (double)g->longest) / squares);
    for (size_t i = 0; i < dim; i++) s->vector[i] = (float)(vector[i] * scale);
    lk_sq8_units(&g->quantiser, s->vector, s->units);
    for (size_t i = 0; i < g->quantiser.stride; i++) {
        float value = rintf(s->units[i]);
        s->query[i] = (int16_t)(value < LK_CODES_QUERY_MIN   ? LK_CODES_QUERY_MIN
                                : value > LK_CODES_QUERY_MAX ? LK_CODES_QUERY_MAX
                                                             : value);
    }
    s->extra = 0;
    return LK_OK;
}
