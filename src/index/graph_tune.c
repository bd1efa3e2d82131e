/* How much effort a wished recall takes. */
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "index/graph.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { MOST_EFFORT = 4096, BLOCK = 64 };

typedef struct tuning {
    const lk_graph_index *g;
    const float *queries;     /* or NULL: */
    const uint32_t *vertices; /* the vectors that are searched for */
    size_t k, effort;
    uint32_t *bounds; /* [n]: distance of the k-th best */
    size_t *wanted;   /* [n]: how many there are, k at most */
    atomic_size_t found;
} tuning;

static lk_status aim(const tuning *t, lk_graph_index_scratch *s, size_t q)
{
    if (t->queries) return lk_graph_index_aim(t->g, s, t->queries + q * t->g->dim);
    lk_graph_index_aim_at_vertex(t->g, s, t->vertices[q]);
    s->hidden = t->vertices[q];
    return LK_OK;
}

/* The distance within which the k best lie, by comparing all. */
static void bound_one(const tuning *t, lk_graph_index_scratch *s, size_t q)
{
    const lk_graph_index *g = t->g;
    size_t n = 0;
    s->beam_count = 0;
    for (size_t v = 0; v <= g->count; v++) {
        if (n == BLOCK || (v == g->count && n > 0)) {
            lk_graph_index_distances(g, s, s->rows, n, s->distances);
            for (size_t i = 0; i < n; i++)
                lk_near_insert(s->beam, &s->beam_count, t->k, lk_near_of(s->distances[i], s->rows[i]));
            n = 0;
        }
        if (v < g->count && v != s->hidden && !lk_graph_index_is_dead(g, (uint32_t)v)) s->rows[n++] = (uint32_t)v;
    }
    t->wanted[q] = s->beam_count;
    t->bounds[q] = s->beam_count ? lk_near_distance(s->beam[s->beam_count - 1]) : 0;
}

static lk_status bound_some(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    tuning *t = arg;
    lk_status status = LK_OK;
    lk_graph_index_scratch *s = lk_graph_index_borrow(t->g, t->k);
    if (!s) return lk_fail_memory("tuning");
    for (size_t q = begin; q < end && (status = aim(t, s, q)) == LK_OK; q++) bound_one(t, s, q);
    s->hidden = LK_NO_VERTEX;
    lk_graph_index_give_back(t->g, s);
    return status;
}

static lk_status search_some(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    tuning *t = arg;
    lk_status status = LK_OK;
    lk_graph_index_scratch *s = lk_graph_index_borrow(t->g, t->effort);
    if (!s) return lk_fail_memory("tuning");
    for (size_t q = begin; q < end && (status = aim(t, s, q)) == LK_OK; q++) {
        size_t found = 0;
        lk_graph_index_walk(t->g, s, t->effort);
        for (size_t i = 0; i < s->beam_count && found < t->wanted[q]; i++)
            found += lk_near_distance(s->beam[i]) <= t->bounds[q] &&
                     !lk_graph_index_is_dead(t->g, lk_near_vertex(s->beam[i]));
        atomic_fetch_add(&t->found, found);
    }
    s->hidden = LK_NO_VERTEX;
    lk_graph_index_give_back(t->g, s);
    return status;
}

static lk_status recall_at(tuning *t, lk_pool *pool, size_t n, size_t effort, double *out)
{
    size_t wanted = 0;
    t->effort = effort;
    atomic_store(&t->found, 0);
    lk_status s = lk_parallel_for(pool, n, 8, search_some, t);
    for (size_t q = 0; q < n; q++) wanted += t->wanted[q];
    *out = wanted ? (double)atomic_load(&t->found) / (double)wanted : 1;
    return s;
}

/* Doubles the effort until it is enough, then halves the interval. */
static lk_status find_effort(tuning *t, lk_pool *pool, size_t n, double recall, size_t *effort)
{
    size_t low = t->k - 1, high = t->k;
    double reached;
    lk_status s = recall_at(t, pool, n, high, &reached);
    while (s == LK_OK && reached < recall && high < MOST_EFFORT) {
        low = high;
        high = high * 2 < MOST_EFFORT ? high * 2 : MOST_EFFORT;
        s = recall_at(t, pool, n, high, &reached);
    }
    *effort = high;
    if (s != LK_OK) return s;
    if (reached < recall)
        return lk_fail(LK_LIMIT, "an effort of %zu finds %.4f, not %.4f of the best %zu", high, reached, recall, t->k);
    while (s == LK_OK && high - low > 1 + low / 32) {
        size_t middle = low + (high - low) / 2;
        s = recall_at(t, pool, n, middle, &reached);
        if (reached < recall)
            low = middle;
        else
            high = middle;
    }
    *effort = high;
    return s;
}

lk_status lk_graph_index_tune(const lk_graph_index *g, lk_context *context, size_t n, const float *queries, size_t k,
                              double recall, size_t *effort)
{
    lk_pool *pool = lk_context_pool(context);
    lk_status s = LK_OK;
    if (k == 0 || k > MOST_EFFORT || n == 0 || !(recall >= 0 && recall <= 1))
        return lk_fail(LK_INVALID, "an index is tuned for 1 to %d results, a recall from 0 to 1 and at least 1 query",
                       MOST_EFFORT);
    pthread_mutex_lock((pthread_mutex_t *)&g->writer);
    if (!queries && n > g->live) n = g->live;
    uint32_t *vertices = lk_alloc(n, sizeof *vertices);
    tuning t = {.g = g, .queries = queries, .vertices = vertices, .k = k};
    t.bounds = lk_alloc(n, sizeof *t.bounds);
    t.wanted = lk_alloc(n, sizeof *t.wanted);
    if (!vertices || !t.bounds || !t.wanted) {
        s = lk_fail_memory("tuning");
        goto done;
    }
    lk_random random;
    lk_random_seed(&random, g->seed + 1);
    for (size_t q = 0; !queries && q < n;) {
        uint32_t vertex = (uint32_t)lk_random_below(&random, g->count);
        if (!lk_graph_index_is_dead(g, vertex)) vertices[q++] = vertex;
    }
    LK_TRY(lk_parallel_for(pool, n, 1, bound_some, &t));
    LK_TRY(find_effort(&t, pool, n, recall, effort));
done:
    pthread_mutex_unlock((pthread_mutex_t *)&g->writer);
    free(vertices);
    free(t.bounds);
    free(t.wanted);
    return s;
}
