/* A graph index as a whole: making it from vectors, and what it says of itself. */
#include "index/graph.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DEGREE = 32, BUILD_EFFORT = 128 };

/* Codes of graphs of so many vectors are projected, by the narrowest projection that leaves this share of their
 * variance. Narrower ones mislead the walk: it needs a longer beam than they save time (docs/graph.md has the three
 * sets that this was measured on). */
enum { PROJECT_VECTORS = 2048 };
#define PROJECT_KEEPING 0.875
#define HUGE_PAGE ((size_t)2 << 20)

/* Aligned and, where it is large, in huge pages: a walk jumps all over the tables. */
static void *table_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - 2 * HUGE_PAGE) return NULL;
    size_t page = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
    bytes = (bytes + page) / page * page;
    void *table = aligned_alloc(page, bytes);
    if (table && page == HUGE_PAGE) madvise(table, bytes, MADV_HUGEPAGE);
    return table;
}

/* Only the change of the pointer keeps readers waiting: nobody writes into the table meanwhile but the caller. */
static bool grow_table(lk_graph_index *g, void **table, size_t old_rows, size_t new_rows, size_t row_bytes)
{
    char *grown = table_alloc(new_rows, row_bytes);
    void *old = *table;
    if (!grown) return false;
    if (old_rows > 0) memcpy(grown, old, old_rows * row_bytes);
    memset(grown + old_rows * row_bytes, 0, (new_rows - old_rows) * row_bytes);
    pthread_rwlock_wrlock(&g->lock);
    *table = grown;
    pthread_rwlock_unlock(&g->lock);
    free(old);
    return true;
}

lk_status lk_graph_index_reserve(lk_graph_index *g, size_t rows)
{
    size_t stride = g->quantiser.stride, old = g->capacity, width = g->projection.width;
    if (rows <= old) return LK_OK;
    if (rows > (size_t)INT32_MAX) return lk_fail(LK_LIMIT, "a graph index holds at most 2^31 vectors");
    if (old > 0 && rows < old + old / 4 + 64) rows = old + old / 4 + 64;
    rows = (rows + 63) / 64 * 64;
    if (!grow_table(g, (void **)&g->codes, old, rows, stride) ||
        !grow_table(g, (void **)&g->links, old, rows, g->link_stride * sizeof *g->links) ||
        !grow_table(g, (void **)&g->ids, old, rows, sizeof *g->ids) ||
        !grow_table(g, (void **)&g->dead, old / 64, rows / 64, sizeof *g->dead) ||
        (g->keep_residual && !grow_table(g, (void **)&g->residuals, old, rows, stride)) ||
        (width > 0 && !grow_table(g, (void **)&g->projected, old, rows, width)) ||
        (g->metric == LK_INNER_PRODUCT && !grow_table(g, (void **)&g->extra, old, rows, sizeof *g->extra)))
        return lk_fail_memory("graph index");
    pthread_rwlock_wrlock(&g->lock);
    g->capacity = rows;
    pthread_rwlock_unlock(&g->lock);
    return LK_OK;
}

lk_status lk_graph_index_own(lk_graph_index *g)
{
    size_t rows = g->count, stride = g->quantiser.stride;
    uint32_t *entries = lk_alloc(g->entry_count, sizeof *entries);
    struct {
        void **table;
        size_t row;
    } tables[] = {{(void **)&g->codes, stride},
                  {(void **)&g->residuals, g->residuals ? stride : 0},
                  {(void **)&g->projected, g->projection.width},
                  {(void **)&g->extra, g->extra ? sizeof *g->extra : 0},
                  {(void **)&g->links, g->link_stride * sizeof *g->links},
                  {(void **)&g->ids, sizeof *g->ids}};
    enum { N = sizeof tables / sizeof *tables };
    void *owned[N + 1] = {0};
    size_t capacity = (rows + 63) / 64 * 64;
    bool ok = entries && (owned[N] = table_alloc(capacity / 64, sizeof *g->dead));
    for (size_t i = 0; ok && i < N; i++) {
        if (tables[i].row == 0) continue;
        ok = (owned[i] = table_alloc(capacity, tables[i].row)) != NULL;
        if (ok) memcpy(owned[i], *tables[i].table, rows * tables[i].row);
    }
    if (!ok) {
        free(entries);
        for (size_t i = 0; i <= N; i++) free(owned[i]);
        return lk_fail_memory("graph index");
    }
    memcpy(entries, g->entries, g->entry_count * sizeof *entries);
    memcpy(owned[N], g->dead, capacity / 8);
    for (size_t i = 0; i < N; i++) *tables[i].table = owned[i];
    g->dead = owned[N];
    g->entries = entries;
    g->capacity = capacity;
    lk_map_close(&g->map);
    g->map = (lk_map){0};
    if (g->file >= 0) close(g->file);
    g->file = -1;
    return lk_graph_index_place_live_ids(g);
}

static lk_status check_options(const lk_graph_index_options *o, lk_metric metric, size_t dim, size_t n)
{
    if (n == 0) return lk_fail(LK_INVALID, "a graph index needs at least one vector");
    if (dim == 0 || dim > LK_CODES_MAX_DIM)
        return lk_fail(LK_INVALID, "a graph index cannot be %zu wide: 1 to %d is possible", dim, LK_CODES_MAX_DIM);
    if ((int)metric < LK_COSINE || metric > LK_L2) return lk_fail(LK_INVALID, "there is no metric %d", (int)metric);
    if (o->degree != 0 && (o->degree < 4 || o->degree > LK_GRAPH_MAX_DEGREE))
        return lk_fail(LK_INVALID, "a degree of %zu is not possible: 4 to %d", o->degree, LK_GRAPH_MAX_DEGREE);
    if (o->spread != 0 && !(o->spread >= 1 && o->spread <= 4))
        return lk_fail(LK_INVALID, "a spread of %g is not possible: 1 to 4", (double)o->spread);
    return LK_OK;
}

lk_graph_index *lk_graph_index_alloc(const lk_graph_index_options *o, lk_metric metric, size_t dim)
{
    lk_graph_index *g = lk_alloc_zero(1, sizeof *g);
    if (!g) return NULL;
    g->file = -1;
    g->dim = dim;
    g->metric = metric;
    g->degree = o->degree ? o->degree : DEGREE;
    g->build_effort = o->build_effort ? o->build_effort : BUILD_EFFORT;
    g->spread = o->spread != 0 ? o->spread : 1.2f;
    g->seed = o->seed;
    g->link_stride = g->degree + g->degree / 2;
    g->kernels = lk_code_kernels_for(lk_cpu_detect());
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
#ifdef __GLIBC__ /* a stream of searches must not keep the writer out */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(&g->lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    pthread_mutex_init(&g->mutex, NULL);
    pthread_mutex_init(&g->writer, NULL);
    return g;
}

void lk_graph_index_free(lk_graph_index *g)
{
    if (!g) return;
    lk_graph_index_free_scratches(g);
    if (g->file >= 0) close(g->file);
    if (g->map.bytes) {
        lk_map_close(&g->map);
    } else {
        free(g->codes);
        free(g->residuals);
        free(g->projected);
        free(g->extra);
        free(g->links);
        free(g->ids);
        free(g->dead);
        free(g->entries);
    }
    free(g->free_places);
    lk_sq8_free(&g->quantiser);
    lk_projection_free(&g->projection);
    lk_id_map_free(&g->places);
    pthread_rwlock_destroy(&g->lock);
    pthread_mutex_destroy(&g->mutex);
    pthread_mutex_destroy(&g->writer);
    free(g);
}

typedef struct encoding {
    lk_graph_index *g;
    const float *vectors;
    const uint64_t *ids;
    const uint32_t *order;    /* vector of the i-th; NULL: the i-th */
    const uint32_t *vertices; /* vertex of the i-th; NULL: the i-th */
} encoding;

static lk_status project_rows(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    encoding *e = arg;
    lk_graph_index *g = e->g;
    size_t stride = g->quantiser.stride, width = g->projection.width;
    int16_t *query = lk_alloc_aligned(stride, sizeof *query), *projected = lk_alloc(width, sizeof *projected);
    lk_status s = query && projected ? LK_OK : lk_fail_memory("graph index");
    for (size_t i = begin; s == LK_OK && i < end; i++) {
        size_t vertex = e->vertices ? e->vertices[i] : i;
        const uint8_t *code = g->codes + vertex * stride;
        uint8_t *to = g->projected + vertex * width;
        for (size_t j = 0; j < stride; j++) query[j] = code[j];
        lk_projection_query(&g->projection, g->kernels, query, projected);
        for (size_t j = 0; j < width; j++)
            to[j] = (uint8_t)(projected[j] < 0 ? 0 : projected[j] > 255 ? 255 : projected[j]);
    }
    free(query);
    free(projected);
    return s;
}

static lk_status encode_rows(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    encoding *e = arg;
    lk_graph_index *g = e->g;
    size_t dim = g->dim, stride = g->quantiser.stride;
    float *units = lk_alloc_aligned(2 * stride, sizeof *units), *vector = units + stride;
    if (!units) return lk_fail_memory("graph index");
    for (size_t i = begin; i < end; i++) {
        size_t from = e->order ? e->order[i] : i, vertex = e->vertices ? e->vertices[i] : i;
        const float *given = e->vectors + from * dim;
        double squares = lk_graph_index_squared_length(given, dim), scale = 1;
        if (g->metric == LK_COSINE && squares > 0) scale = 1 / sqrt(squares);
        for (size_t j = 0; j < dim; j++) vector[j] = (float)(given[j] * scale);
        lk_sq8_units(&g->quantiser, vector, units);
        lk_sq8_encode(&g->quantiser, units, g->codes + vertex * stride,
                      g->residuals ? g->residuals + vertex * stride : NULL);
        if (g->extra) {
            double rest = (double)g->longest - squares;
            g->extra[vertex] = rest > 0 ? (float)sqrt(rest) / g->quantiser.step : 0;
        }
        g->ids[vertex] = e->ids ? e->ids[from] : from;
    }
    free(units);
    return LK_OK;
}

/* Trains the quantiser on the vectors as they will be coded. */
static lk_status train(lk_graph_index *g, size_t n, const float *vectors)
{
    size_t dim = g->dim;
    if (g->metric != LK_COSINE) {
        for (size_t r = 0; g->metric == LK_INNER_PRODUCT && r < n; r++) {
            float squares = (float)lk_graph_index_squared_length(vectors + r * dim, dim);
            if (squares > g->longest) g->longest = squares;
        }
        return lk_sq8_train(&g->quantiser, n, dim, vectors, g->seed);
    }
    size_t rows = n < 20000 ? n : 20000;
    float *sample = lk_alloc(rows * dim, sizeof *sample);
    if (!sample) return lk_fail_memory("training of a quantiser");
    for (size_t r = 0; r < rows; r++) {
        const float *row = vectors + r * n / rows * dim;
        double squares = lk_graph_index_squared_length(row, dim), scale = squares > 0 ? 1 / sqrt(squares) : 1;
        for (size_t i = 0; i < dim; i++) sample[r * dim + i] = (float)(row[i] * scale);
    }
    lk_status s = lk_sq8_train(&g->quantiser, rows, dim, sample, g->seed);
    free(sample);
    return s;
}

lk_status lk_graph_index_check_vectors(size_t n, size_t dim, const float *vectors)
{
    for (size_t r = 0; r < n; r++)
        if (!(lk_graph_index_squared_length(vectors + r * dim, dim) <= (double)FLT_MAX / 4))
            return lk_fail(LK_INVALID, "vector %zu has a component that is not finite, or is too long", r);
    return LK_OK;
}

void lk_graph_index_forget_ids(lk_graph_index *g, const uint32_t *vertices, size_t n)
{
    for (size_t at = 0; at < n; at += LK_GRAPH_SLICE) {
        pthread_rwlock_wrlock(&g->lock);
        for (size_t i = at; i < n && i < at + LK_GRAPH_SLICE; i++) lk_id_map_remove(&g->places, g->ids[vertices[i]]);
        pthread_rwlock_unlock(&g->lock);
    }
}

lk_status lk_graph_index_place_ids(lk_graph_index *g, const uint32_t *vertices, size_t n)
{
    lk_id_map bigger, old = g->places;
    if (!lk_id_map_bigger(&old, n, &bigger)) return lk_fail_memory("graph index");
    if (bigger.slots) {
        pthread_rwlock_wrlock(&g->lock);
        g->places = bigger;
        pthread_rwlock_unlock(&g->lock);
        lk_id_map_free(&old);
    }
    for (size_t at = 0; at < n; at += LK_GRAPH_SLICE) {
        size_t i = at, end = n - at < LK_GRAPH_SLICE ? n : at + LK_GRAPH_SLICE;
        pthread_rwlock_wrlock(&g->lock);
        for (; i < end && lk_id_map_get(&g->places, g->ids[vertices[i]]) == LK_NO_PLACE; i++)
            lk_id_map_put(&g->places, g->ids[vertices[i]], vertices[i]);
        pthread_rwlock_unlock(&g->lock);
        if (i == end) continue;
        lk_graph_index_forget_ids(g, vertices, i);
        return lk_fail(LK_CONFLICT, "id %llu is there already", (unsigned long long)g->ids[vertices[i]]);
    }
    return LK_OK;
}

lk_status lk_graph_index_place_live_ids(lk_graph_index *g)
{
    if (!lk_id_map_reserve(&g->places, g->live)) return lk_fail_memory("graph index");
    for (size_t v = 0; v < g->count; v++)
        if (!lk_graph_index_is_dead(g, (uint32_t)v)) lk_id_map_put(&g->places, g->ids[v], v);
    return LK_OK;
}

static uint32_t *shuffled(size_t n, uint64_t seed)
{
    uint32_t *order = lk_alloc(n, sizeof *order);
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; order && i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; order && i > 1; i--) {
        size_t j = (size_t)lk_random_below(&random, i);
        uint32_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
    return order;
}

lk_status lk_graph_index_choose_entries(lk_graph_index *g)
{
    size_t n = (size_t)(2 * sqrt((double)g->live)) + 1;
    if (n > LK_GRAPH_ENTRIES) n = LK_GRAPH_ENTRIES;
    if (n > g->live) n = g->live;
    uint32_t *entries = lk_alloc(n, sizeof *entries);
    if (!entries) return lk_fail_memory("graph index");
    size_t count = 0;
    for (uint32_t v = 0; v < g->count && count < n; v++)
        if (!lk_graph_index_is_dead(g, v)) entries[count++] = v;
    uint32_t *old = g->entries;
    pthread_rwlock_wrlock(&g->lock);
    g->entries = entries;
    g->entry_count = count;
    pthread_rwlock_unlock(&g->lock);
    free(old);
    return LK_OK;
}

lk_status lk_graph_index_encode(lk_graph_index *g, lk_pool *pool, size_t n, const float *vectors, const uint64_t *ids,
                                const uint32_t *order, const uint32_t *vertices)
{
    encoding e = {g, vectors, ids, order, vertices};
    lk_status s = lk_parallel_for(pool, n, 1024, encode_rows, &e);
    return s == LK_OK && g->projected ? lk_parallel_for(pool, n, 256, project_rows, &e) : s;
}

/* Codes all vectors in random order as vertices 0 .. n-1: then the first of them are good entries. */
static lk_status fill(lk_graph_index *g, lk_pool *pool, size_t n, const uint64_t *ids, const float *vectors,
                      uint32_t *vertices)
{
    uint32_t *order = shuffled(n, g->seed);
    if (!order) return lk_fail_memory("graph index");
    lk_status s = lk_graph_index_encode(g, pool, n, vectors, ids, order, NULL);
    for (size_t i = 0; i < n; i++) vertices[i] = (uint32_t)i;
    if (s == LK_OK) s = lk_graph_index_place_ids(g, vertices, n);
    free(order);
    return s;
}

/* Wide codes are projected where a projection leaves enough of them. */
static lk_status project(lk_graph_index *g, lk_pool *pool, size_t n)
{
    encoding e = {.g = g};
    size_t stride = g->quantiser.stride;
    if (lk_graph_index_projected_most(g->dim) == 0 || n < PROJECT_VECTORS) return LK_OK;
    lk_status s = lk_projection_train(&g->projection, g->kernels, pool, n, g->codes, stride, PROJECT_KEEPING, g->seed);
    if (s != LK_OK || g->projection.width == 0) return s;
    g->projected = table_alloc(g->capacity, g->projection.width);
    return g->projected ? lk_parallel_for(pool, n, 256, project_rows, &e) : lk_fail_memory("graph index");
}

lk_status lk_graph_index_build(lk_context *context, const lk_graph_index_options *options, lk_metric metric, size_t dim,
                               size_t n, const uint64_t *ids, const float *vectors, lk_graph_index **out)
{
    static const lk_graph_index_options defaults = {0};
    lk_pool *pool = lk_context_pool(context);
    uint32_t *vertices = NULL;
    *out = NULL;
    if (!options) options = &defaults;
    lk_status s = check_options(options, metric, dim, n);
    if (s != LK_OK) return s;
    lk_graph_index *g = lk_graph_index_alloc(options, metric, dim);
    if (!g) return lk_fail_memory("graph index");
    LK_TRY(lk_graph_index_check_vectors(n, dim, vectors));
    LK_TRY(train(g, n, vectors));
    g->keep_residual = options->refine > 0 || (options->refine == 0 && !g->quantiser.exact);
    LK_TRY(lk_graph_index_reserve(g, n));
    if (!(vertices = lk_alloc(n, sizeof *vertices))) {
        s = lk_fail_memory("graph index");
        goto done;
    }
    LK_TRY(fill(g, pool, n, ids, vectors, vertices));
    LK_TRY(project(g, pool, n));
    LK_TRY(lk_graph_index_link(g, context, vertices, n, true));
    LK_TRY(lk_graph_index_trim(g, pool));
    *out = g;
    g = NULL;
done:
    free(vertices);
    lk_graph_index_free(g);
    return s;
}

size_t lk_graph_index_count(const lk_graph_index *g)
{
    return g->live; /* without the lock, which a search holds while it asks its filter */
}

size_t lk_graph_index_dim(const lk_graph_index *g)
{
    return g->dim;
}

lk_metric lk_graph_index_metric(const lk_graph_index *g)
{
    return g->metric;
}

uint64_t lk_graph_index_bytes(const lk_graph_index *g)
{
    pthread_rwlock_t *lock = (pthread_rwlock_t *)&g->lock;
    pthread_rwlock_rdlock(lock);
    size_t row = g->quantiser.stride * (g->residuals ? 2 : 1) + g->projection.width +
                 (g->extra ? sizeof *g->extra : 0) + g->link_stride * sizeof *g->links + sizeof *g->ids;
    uint64_t bytes =
        (uint64_t)g->capacity * row + g->capacity / 8 + g->entry_count * sizeof *g->entries + g->places.capacity * 16;
    pthread_rwlock_unlock(lock);
    return bytes;
}
