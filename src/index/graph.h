/* What a graph index is made of; shared by the graph_*.c files.
 *
 * One layer of vertices, each linked to at most `degree` others chosen by the robust pruning of DiskANN (Subramanya et
 * al., 2019). A search walks from the nearest of a few entry vertices towards the query with a beam of the best seen so
 * far, over 8-bit codes, of wide vectors over codes projected to fewer components (project.h), after which the beam is
 * compared by the whole codes; what it finds is scored again with the f32 query. All metrics are walked as Euclidean
 * distance: cosine on normalised vectors, inner product with one more coordinate that makes all vectors equally long
 * (Bachrach et al., 2014). Building inserts batches into the graph as it was before the batch (as ParlayANN, Manohar et
 * al., 2024), so threads share nothing and the result does not depend on their number. */
#ifndef LK_INDEX_GRAPH_H
#define LK_INDEX_GRAPH_H

#include "base/file.h"
#include "base/threads.h"
#include "index/codes.h"
#include "index/id_map.h"
#include "index/project.h"
#include "index/quantise.h"
#include <likeness/index.h>
#include <pthread.h>
#include <string.h>

#define LK_NO_VERTEX UINT32_MAX
enum { LK_GRAPH_MAX_DEGREE = 256, LK_GRAPH_ENTRIES = 256, LK_GRAPH_PROJECT_FROM = 256, LK_GRAPH_READS = 2 };

/* A candidate as one sortable number: distance << 32 | vertex << 1 | expanded. */
typedef uint64_t lk_near;
static inline lk_near lk_near_of(uint32_t distance, uint32_t vertex)
{
    return (uint64_t)distance << 32 | (uint64_t)vertex << 1;
}
static inline uint32_t lk_near_vertex(lk_near near)
{
    return (uint32_t)near >> 1;
}
static inline uint32_t lk_near_distance(lk_near near)
{
    return (uint32_t)(near >> 32);
}

/* Puts a candidate into the rising beam of at most `limit`; returns its position, or limit when it is too far. */
static inline size_t lk_near_insert(lk_near *beam, size_t *count, size_t limit, lk_near near)
{
    size_t n = *count;
    if (n == limit && near >= beam[n - 1]) return limit;
    size_t low = 0, size = n;
    while (size > 0) {
        size_t half = size / 2;
        bool right = beam[low + half] < near;
        low = right ? low + half + 1 : low;
        size = right ? size - half - 1 : half;
    }
    size_t moved = (n < limit ? n : limit - 1) - low;
    memmove(beam + low + 1, beam + low, moved * sizeof *beam);
    beam[low] = near;
    *count = n < limit ? n + 1 : n;
    return low;
}

/* What one walk needs; borrowed from the graph's store of them. */
typedef struct lk_graph_index_scratch {
    struct lk_graph_index_scratch *next;
    size_t capacity; /* vertices that the bitmap covers */
    uint64_t *visited;
    uint32_t *touched; /* words of visited that are not 0 */
    size_t touched_count, touched_capacity;
    lk_near *beam; /* [beam_capacity + 1], rising */
    size_t beam_count, beam_capacity;
    int16_t *query;     /* [stride]: the query in the units of the codes, rounded */
    int16_t *projected; /* [projection.width]: the query in the units of the projected codes */
    float *units;       /* [stride]: the same unrounded */
    float *vector;      /* [dim] */
    bool exact;         /* query is units, and codes are vectors: distances are exact */
    uint32_t hidden;    /* a vertex that the walk acts as if it were not there, or LK_NO_VERTEX */
    double squares;     /* squared length of the query as it was given */
    float extra;        /* the query's additional coordinate, in the units of the codes */
    uint32_t *rows;     /* [rows_capacity] */
    uint32_t *distances;
    uint32_t *previews; /* [rows_capacity]: distances in the first components alone */
    bool reading;       /* this walk reads codes from the file, into: */
    uint8_t *codes;     /* [rows_capacity][width of what the walk compares] */
    uint32_t *in_order; /* [rows_capacity]: 0, 1, 2, ... */
    size_t rows_capacity;
    uint64_t hops, comparisons; /* of the last walk */
} lk_graph_index_scratch;

struct lk_graph_index {
    size_t dim, degree, build_effort;
    float spread;
    lk_metric metric;
    uint64_t seed;
    bool keep_residual;
    lk_sq8 quantiser;
    lk_projection projection; /* of the codes; width 0: there is none, as in narrow or small graphs and older files */
    const lk_code_kernels *kernels;

    size_t count, capacity; /* vertices, room for them */
    _Atomic size_t live;    /* vertices that are not removed */
    uint8_t *codes;         /* [capacity][stride] */
    int8_t *residuals;      /* [capacity][stride] or NULL */
    uint8_t *projected;     /* [capacity][projection.width]: codes projected; NULL without a projection */
    float *extra;           /* [capacity]: LK_INNER_PRODUCT only, in the units of the codes */
    float longest;          /* LK_INNER_PRODUCT: squared length that all are brought to */
    uint32_t *links;        /* [capacity][link_stride], LK_NO_VERTEX after the last */
    size_t link_stride;
    uint64_t *ids;
    uint64_t *dead; /* bitmap */
    uint32_t *entries;
    size_t entry_count;

    uint64_t version; /* counts changes */
    /* Of vectors that were added: how many, and squared distances from older ones, whole and as projected. */
    size_t added;
    double added_whole, added_projected;
    /* Removed vertices that are still linked, and places of those that no longer are. */
    size_t dead_count;
    uint32_t *free_places;
    size_t free_count, free_capacity;

    pthread_mutex_t writer; /* held by whoever changes the graph, or needs it unchanged for long */
    pthread_rwlock_t lock;  /* readers search; the writer holds it while it changes what they read: a few dozen rows at
                               a time, or pointers to what it has made meanwhile */
    pthread_mutex_t mutex;  /* guards free_scratch */
    lk_graph_index_scratch *free_scratch;
    lk_id_map places;
    lk_map map;        /* of the file that the arrays lie in; they are then not owned */
    int file;          /* that file, or -1 */
    _Atomic int reads; /* walks that are still to read codes from it (graph_walk.c) */
};

static inline const uint8_t *lk_graph_index_code(const lk_graph_index *g, uint32_t vertex)
{
    return g->codes + (size_t)vertex * g->quantiser.stride;
}
static inline uint32_t *lk_graph_index_links(const lk_graph_index *g, uint32_t vertex)
{
    return g->links + (size_t)vertex * g->link_stride;
}
static inline bool lk_graph_index_is_dead(const lk_graph_index *g, uint32_t vertex)
{
    return g->dead[vertex / 64] >> (vertex % 64) & 1;
}

/* The projected code where there is one: what a walk compares. */
static inline void lk_graph_index_prefetch_near(const lk_graph_index *g, uint32_t vertex)
{
    size_t width = g->projected ? g->projection.width : g->quantiser.stride;
    const uint8_t *code = (g->projected ? g->projected : g->codes) + (size_t)vertex * width;
    for (size_t i = 0; i < width; i += 64) __builtin_prefetch(code + i);
}

static inline void lk_graph_index_prefetch_code(const lk_graph_index *g, uint32_t vertex)
{
    const uint8_t *code = lk_graph_index_code(g, vertex);
    for (size_t i = 0; i < g->quantiser.stride; i += 64) __builtin_prefetch(code + i);
}

static inline void lk_graph_index_prefetch_residual(const lk_graph_index *g, uint32_t vertex)
{
    if (!g->residuals) return;
    const int8_t *residual = g->residuals + (size_t)vertex * g->quantiser.stride;
    for (size_t i = 0; i < g->quantiser.stride; i += 64) __builtin_prefetch(residual + i);
}

static inline void lk_graph_index_prefetch_links(const lk_graph_index *g, uint32_t vertex)
{
    const uint32_t *links = lk_graph_index_links(g, vertex);
    for (size_t i = 0; i < g->degree; i += 16) __builtin_prefetch(links + i);
}

/* In eight sums, which need not wait for each other. */
static inline double lk_graph_index_squared_length(const float *vector, size_t dim)
{
    double sums[8] = {0}, sum = 0;
    size_t i = 0;
    for (; i + 8 <= dim; i += 8)
        for (size_t j = 0; j < 8; j++) sums[j] += (double)vector[i + j] * vector[i + j];
    for (; i < dim; i++) sum += (double)vector[i] * vector[i];
    for (size_t j = 0; j < 8; j++) sum += sums[j];
    return sum;
}

/* Bytes that the projected code of a vector of `dim` components takes at most. */
static inline size_t lk_graph_index_projected_most(size_t dim)
{
    size_t stride = (dim + 63) / 64 * 64;
    if (stride < LK_GRAPH_PROJECT_FROM || stride > LK_PROJECTION_MOST) return 0;
    return stride < 2 * LK_PROJECTION_MOST_WIDTH ? stride / 2 : LK_PROJECTION_MOST_WIDTH;
}

/* graph.c */

/* An empty graph; NULL when out of memory. */
lk_graph_index *lk_graph_index_alloc(const lk_graph_index_options *options, lk_metric metric, size_t dim);
/* Makes the tables of an opened graph its own. */
lk_status lk_graph_index_own(lk_graph_index *g);
/* What a writer changes at a time: so many rows, while readers wait. */
enum { LK_GRAPH_SLICE = 64 };
/* Room for `rows` vertices. The caller is the writer: tables are copied while searches go on in the old ones. */
lk_status lk_graph_index_reserve(lk_graph_index *g, size_t rows);
/* Makes the ids of vertices [n] findable; LK_CONFLICT when one is there already, and then none is added. The caller is
 * the writer. */
lk_status lk_graph_index_place_ids(lk_graph_index *g, const uint32_t *vertices, size_t n);
void lk_graph_index_forget_ids(lk_graph_index *g, const uint32_t *vertices, size_t n);
/* The same for all that are not removed, in an empty map. */
lk_status lk_graph_index_place_live_ids(lk_graph_index *g);
/* LK_INVALID when a component is not finite. */
lk_status lk_graph_index_check_vectors(size_t n, size_t dim, const float *vectors);
/* Writes codes and ids: vector order[i] (NULL: i) becomes vertex vertices[i] (NULL: i), which no search can meet yet.
 */
lk_status lk_graph_index_encode(lk_graph_index *g, lk_pool *pool, size_t n, const float *vectors, const uint64_t *ids,
                                const uint32_t *order, const uint32_t *vertices);
/* Live vertices spread over the graph: the first ones. The caller is the writer. */
lk_status lk_graph_index_choose_entries(lk_graph_index *g);

/* graph_walk.c */

/* A scratch for walks with beams of at most `beam`; NULL when out of memory. Must be given back. */
lk_graph_index_scratch *lk_graph_index_borrow(const lk_graph_index *g, size_t beam);
void lk_graph_index_give_back(const lk_graph_index *g, lk_graph_index_scratch *scratch);
void lk_graph_index_free_scratches(lk_graph_index *g);
/* Makes the query that a walk goes towards: a vector from outside, or a vertex. */
lk_status lk_graph_index_aim(const lk_graph_index *g, lk_graph_index_scratch *scratch, const float *vector);
void lk_graph_index_aim_at_vertex(const lk_graph_index *g, lk_graph_index_scratch *scratch, uint32_t vertex);
/* Distances from the query to rows [n]. */
void lk_graph_index_distances(const lk_graph_index *g, const lk_graph_index_scratch *scratch, const uint32_t *rows,
                              size_t n, uint32_t *out);
/* Marks a vertex; false when it was marked before. Precondition: room (lk_graph_index_reserve_visits). */
static inline bool lk_graph_index_visit(lk_graph_index_scratch *s, uint32_t vertex)
{
    uint64_t bit = (uint64_t)1 << (vertex % 64), word = s->visited[vertex / 64];
    if (word & bit) return false;
    if (word == 0) s->touched[s->touched_count++] = vertex / 64;
    s->visited[vertex / 64] = word | bit;
    return true;
}
bool lk_graph_index_reserve_visits(lk_graph_index_scratch *scratch, size_t more);
void lk_graph_index_forget_visits(lk_graph_index_scratch *scratch);
/* Leaves the `beam` nearest vertices found in scratch->beam, nearest first. */
void lk_graph_index_walk(const lk_graph_index *g, lk_graph_index_scratch *scratch, size_t beam);

/* graph_filter.c */

/* Which vertices may be found. */
struct lk_graph_index_filter {
    uint64_t *pass; /* bitmap over the vertices */
    size_t vertices, count;
    uint64_t version; /* of the graph that it was made for */
};
/* lk_graph_index_filter_new by a caller that holds the lock. */
lk_status lk_graph_index_filter_make(const lk_graph_index *g, lk_context *context, lk_id_filter fn, void *user,
                                     lk_graph_index_filter **out);
/* Leaves the nearest vertices that pass in scratch->beam: by looking at each where they are few, else by a walk among
 * them. */
void lk_graph_index_walk_filtered(const lk_graph_index *g, lk_graph_index_scratch *scratch,
                                  const lk_graph_index_filter *filter, size_t beam);

/* graph_file.c */
uint64_t lk_graph_index_file_bytes(const lk_graph_index *g);

/* graph_build.c */

/* Links vertices [n], whose codes and ids are there, into the graph and makes them live: batch by batch, so that after
 * a failure (LK_NO_MEMORY, LK_CANCELLED) some may be. Searches go on meanwhile, unless nobody else knows the graph yet
 * (alone): then links are written in place. */
lk_status lk_graph_index_link(lk_graph_index *g, lk_context *context, const uint32_t *vertices, size_t n, bool alone);
/* Work space for choosing links, one for each of n threads; NULL when out of memory. */
typedef struct lk_pruner lk_pruner;
lk_pruner **lk_graph_index_pruners(size_t n);
void lk_graph_index_free_pruners(lk_pruner **pruners, size_t n);
/* Chooses a vertex's links [link_stride] among candidates [n], each there once. links may be the graph's own. */
lk_status lk_graph_index_choose_among(const lk_graph_index *g, lk_pruner *pruner, uint32_t vertex,
                                      const uint32_t *candidates, size_t n, uint32_t *links);
/* While a whole graph is built, rows of links are longer than the degree, so that choosing anew is rare. This chooses
 * for the last time where there are too many and closes the gaps. */
lk_status lk_graph_index_trim(lk_graph_index *g, lk_pool *pool);

/* graph_update.c */

/* lk_graph_index_consolidate for the writer. */
lk_status lk_graph_index_repair(lk_graph_index *g, lk_context *context);

#endif
