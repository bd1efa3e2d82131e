/* The walk through the graph towards a query. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Vertices expanded at once. Their links and codes come from memory together instead of one after another, which is
 * worth more than what is expanded too early costs: measured on 300,000 SIFT descriptors, 4 give 1.4 times the speed of
 * 1 at the same recall, 3 to 8 are within a few percent. */
enum { AT_ONCE = 4 };

/* The first walks of an opened file (LK_GRAPH_READS) copy the codes they compare instead of looking at them where they
 * are mapped: on a million vectors a walk touches a thousand and more pages for the first time, each of which costs as
 * much as a dozen copies, and again when the process ends. A program that stays has mapped them soon. */

/* Of vectors that were rotated at random, the first components tell nearly how far they are (as ADSampling, Gao and
 * Long, 2023): where nothing better tells, those that seem to be farther than the beam reaches by SLACK eighths are
 * passed over, and the rest of their codes, which lies in other cache lines, is not read. */
enum { PREVIEW = 128, PREVIEW_FROM = 256, SLACK = 9 };

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
    free(s->projected);
    free(s->previews);
    free(s->codes);
    free(s->in_order);
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
    if (!s->projected) s->projected = lk_alloc_aligned(g->projection.width + 1, sizeof *s->projected);
    if (!s->projected || !s->query || !s->units || !s->vector) return false;
    size_t rows = (AT_ONCE > 3 ? AT_ONCE : 3) * g->link_stride + LK_GRAPH_ENTRIES;
    if (s->rows_capacity < rows) {
        free(s->rows);
        free(s->distances);
        free(s->previews);
        free(s->codes);
        free(s->in_order);
        s->codes = NULL; /* made when a walk reads */
        s->in_order = NULL;
        s->rows_capacity = rows;
        s->rows = lk_alloc(rows, sizeof *s->rows);
        s->distances = lk_alloc(rows, sizeof *s->distances);
        s->previews = lk_alloc(rows, sizeof *s->previews);
        if (!s->rows || !s->distances || !s->previews) return s->rows_capacity = 0, false;
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
    for (size_t i = 0; i < g->projection.width; i++)
        s->projected[i] = g->projected[(size_t)vertex * g->projection.width + i];
}

static void add_extra(const lk_graph_index *g, const lk_graph_index_scratch *s, const uint32_t *rows, size_t n,
                      float scale, uint32_t *out)
{
    if (!g->extra) return;
    for (size_t i = 0; i < n; i++) {
        float difference = g->extra[rows[i]] - s->extra, sum = (float)out[i] + scale * difference * difference;
        out[i] = sum >= 0 && sum < 4.2e9f ? (uint32_t)sum : 4200000000u; /* a damaged scale may be anything */
    }
}

void lk_graph_index_distances(const lk_graph_index *g, const lk_graph_index_scratch *s, const uint32_t *rows, size_t n,
                              uint32_t *out)
{
    g->kernels->l2_u8_rows(s->query, g->codes, g->quantiser.stride, rows, n, g->quantiser.stride, out);
    add_extra(g, s, rows, n, 1, out);
}

static bool has_preview(const lk_graph_index *g)
{
    return !g->projected && g->quantiser.rotation.signs && g->quantiser.stride >= PREVIEW_FROM;
}

/* Copies codes [n] of the given rows from the file; false: they are to be looked at where they are mapped. */
static bool read_codes(const lk_graph_index *g, const lk_graph_index_scratch *s, const uint8_t *codes, size_t width,
                       const uint32_t *rows, size_t n)
{
    off_t at = codes - g->map.bytes;
    for (size_t i = 0; i < n; i++)
        if (pread(g->file, s->codes + i * width, width, at + (off_t)(rows[i] * width)) != (ssize_t)width) return false;
    return true;
}

/* Distances as the walk compares them: of the projected codes where there are any. */
static void near_distances(const lk_graph_index *g, const lk_graph_index_scratch *s, const uint32_t *rows, size_t n,
                           uint32_t *out)
{
    size_t width = g->projected ? g->projection.width : g->quantiser.stride;
    const uint8_t *codes = g->projected ? g->projected : g->codes;
    const int16_t *query = g->projected ? s->projected : s->query;
    if (s->reading && read_codes(g, s, codes, width, rows, n))
        g->kernels->l2_u8_rows(query, s->codes, width, s->in_order, n, width, out);
    else
        g->kernels->l2_u8_rows(query, codes, width, rows, n, width, out);
    add_extra(g, s, rows, n, g->projected ? g->projection.grid[width + 1] : 1, out);
}

static void start_reading(const lk_graph_index *g, lk_graph_index_scratch *s)
{
    lk_graph_index *counted = (lk_graph_index *)g; /* how its file is read is no part of what a graph says */
    size_t width = g->projected ? g->projection.width : g->quantiser.stride;
    s->reading = false;
    if (g->file < 0 || has_preview(g) || atomic_load_explicit(&g->reads, memory_order_relaxed) <= 0 ||
        atomic_fetch_sub(&counted->reads, 1) <= 0)
        return;
    if (!s->codes) s->codes = lk_alloc_aligned(s->rows_capacity, width);
    if (!s->in_order) s->in_order = lk_alloc(s->rows_capacity, sizeof *s->in_order);
    if (!s->codes || !s->in_order) return; /* it can be done without */
    for (size_t i = 0; i < s->rows_capacity; i++) s->in_order[i] = (uint32_t)i;
    s->reading = true;
}

/* near_distances of s->rows [n] into s->distances, without those that the preview shows to be too far for a beam of
 * `limit`; returns how many are left. */
static size_t distances_within(const lk_graph_index *g, lk_graph_index_scratch *s, size_t n, size_t limit)
{
    size_t stride = g->quantiser.stride, left = n;
    if (!has_preview(g)) {
        near_distances(g, s, s->rows, n, s->distances);
        return n;
    }
    g->kernels->l2_u8_rows(s->query, g->codes, stride, s->rows, n, PREVIEW, s->previews);
    if (s->beam_count == limit) {
        uint64_t most = (uint64_t)lk_near_distance(s->beam[limit - 1]) * PREVIEW * SLACK / (8 * g->dim);
        left = 0;
        for (size_t i = 0; i < n; i++) {
            uint32_t vertex = s->rows[i], preview = s->previews[i];
            s->rows[left] = vertex;
            s->previews[left] = preview;
            left += preview <= most;
        }
    }
    for (size_t i = 0; i < left; i++)
        for (size_t at = PREVIEW; at < stride; at += 64) __builtin_prefetch(lk_graph_index_code(g, s->rows[i]) + at);
    g->kernels->l2_u8_rows(s->query + PREVIEW, g->codes + PREVIEW, stride, s->rows, left, stride - PREVIEW,
                           s->distances);
    for (size_t i = 0; i < left; i++) s->distances[i] += s->previews[i];
    add_extra(g, s, s->rows, left, 1, s->distances);
    return left;
}

/* The beam of a walk over projected codes, by the distances of whole codes. */
static void compare_whole(const lk_graph_index *g, lk_graph_index_scratch *s)
{
    size_t n = s->beam_count;
    if (!g->projected) return;
    for (size_t done = 0; done < n;) {
        size_t part = n - done < s->rows_capacity ? n - done : s->rows_capacity, at = done;
        for (size_t i = 0; i < part; i++) s->rows[i] = lk_near_vertex(s->beam[done + i]);
        lk_graph_index_distances(g, s, s->rows, part, s->distances);
        for (size_t i = 0; i < part; i++) lk_near_insert(s->beam, &at, n, lk_near_of(s->distances[i], s->rows[i]) | 1);
        done += part;
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
    near_distances(g, s, g->entries, n, s->distances);
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

/* Adds the links of a vertex that were not met before to rows [n]. */
static size_t meet(const lk_graph_index *g, lk_graph_index_scratch *s, uint32_t vertex, size_t n)
{
    bool preview = has_preview(g);
    uint32_t *rows = s->rows + n;
    size_t more =
        g->kernels->unmarked(lk_graph_index_links(g, vertex), g->link_stride, (uint32_t)g->count, s->visited, rows);
    for (size_t i = 0; i < more; i++) {
        lk_graph_index_visit(s, rows[i]);
        if (preview)
            for (size_t at = 0; at < PREVIEW; at += 64) __builtin_prefetch(lk_graph_index_code(g, rows[i]) + at);
        else
            lk_graph_index_prefetch_near(g, rows[i]);
    }
    return n + more;
}

/* The nearest vertices of the beam that are not expanded, from position `from` on, into out [most]; marks them
 * expanded. Returns how many. */
static inline size_t take_nearest(lk_graph_index_scratch *s, size_t from, size_t most, uint32_t *out)
{
    size_t n = 0;
    for (size_t i = from; i < s->beam_count && n < most; i++) {
        if (s->beam[i] & 1) continue;
        s->beam[i] |= 1;
        out[n++] = lk_near_vertex(s->beam[i]);
    }
    return n;
}

void lk_graph_index_walk(const lk_graph_index *g, lk_graph_index_scratch *s, size_t limit)
{
    size_t next = 0, count;
    uint32_t nearest[AT_ONCE];
    start_reading(g, s);
    start(g, s, limit);
    s->hops = s->comparisons = 0;
    while ((count = take_nearest(s, next, AT_ONCE, nearest)) > 0) {
        size_t n = 0;
        if (!lk_graph_index_reserve_visits(s, AT_ONCE * g->link_stride)) break;
        for (size_t i = 0; i < count; i++) n = meet(g, s, nearest[i], n);
        /* What is expanded mostly stays in the beam, and is compared whole in the end. */
        for (size_t i = 0; g->projected && i < count; i++) lk_graph_index_prefetch_code(g, nearest[i]);
        s->hops += count;
        s->comparisons += n;
        n = distances_within(g, s, n, limit);
        while (next < s->beam_count && s->beam[next] & 1) next++;
        for (size_t i = next; i < s->beam_count && i < next + AT_ONCE; i++)
            lk_graph_index_prefetch_links(g, lk_near_vertex(s->beam[i]));
        for (size_t i = 0; i < n; i++) {
            size_t at = lk_near_insert(s->beam, &s->beam_count, limit, lk_near_of(s->distances[i], s->rows[i]));
            if (at > next + AT_ONCE) continue;
            if (at < next) next = at;
            lk_graph_index_prefetch_links(g, s->rows[i]);
        }
    }
    lk_graph_index_forget_visits(s);
    compare_whole(g, s);
}

lk_status lk_graph_index_aim(const lk_graph_index *g, lk_graph_index_scratch *s, const float *vector)
{
    size_t dim = g->dim;
    double squares = lk_graph_index_squared_length(vector, dim);
    if (!(squares <= (double)FLT_MAX)) return lk_fail(LK_INVALID, "a query has a component that is not finite");
    double scale = 1;
    if (g->metric != LK_L2 && squares > 0) /* only the direction counts */
        scale = sqrt((g->metric == LK_COSINE ? 1.0 : (double)g->longest) / squares);
    for (size_t i = 0; i < dim; i++) s->vector[i] = (float)(vector[i] * scale);
    lk_sq8_units(&g->quantiser, s->vector, s->units);
    for (size_t i = 0; i < g->quantiser.stride; i++) {
        float value = s->units[i];
        value = value > LK_CODES_QUERY_MIN ? value : LK_CODES_QUERY_MIN; /* also when a damaged file made it NaN */
        value = value < LK_CODES_QUERY_MAX ? value : LK_CODES_QUERY_MAX;
        s->query[i] = (int16_t)((value + 0x1.8p23f) - 0x1.8p23f); /* rintf, in a form that is vectorised */
    }
    bool exact = g->quantiser.exact && !g->extra && !g->residuals;
    for (size_t i = 0; exact && i < g->quantiser.stride; i++) exact = (float)s->query[i] == s->units[i];
    if (g->projected) lk_projection_query(&g->projection, g->kernels, s->query, s->projected);
    s->squares = squares;
    s->exact = exact;
    s->extra = 0;
    return LK_OK;
}
