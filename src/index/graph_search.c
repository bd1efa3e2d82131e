/* Answers from a graph: the walk, then the candidates scored again with the query as it was given. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"
#include "index/raw.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct searching {
    const lk_graph_index *g;
    lk_context *context;
    size_t beam, k;
    const float *queries;
    const lk_graph_index_filter *among; /* NULL = all */
    lk_id_filter filter;                /* asked about what the walk finds; NULL = all */
    void *filter_user;
    lk_hit *hits; /* their ids are vertices with by_vertex */
    size_t *counts;
    bool by_vertex;
    float bound; /* of a range */
} searching;

/* Squared distance between the unrounded query and a stored vector, in the units of the codes. */
static float exact_distance(const lk_graph_index *g, const float *units, uint32_t vertex)
{
    size_t stride = g->quantiser.stride;
    const int8_t *residual = g->residuals ? g->residuals + (size_t)vertex * stride : NULL;
    return g->kernels->l2_residual(units, lk_graph_index_code(g, vertex), residual, stride);
}

/* The score that a caller sees, from the squared distance in the units of the codes. */
static float score_of(const lk_graph_index *g, uint32_t vertex, float distance, double query_squares)
{
    double step = g->quantiser.step, squared = (double)distance * step * step;
    if (g->metric == LK_L2) return (float)squared;
    if (g->metric == LK_COSINE) return (float)(1 - squared / 2);
    if (!(g->longest > 0)) return 0; /* nothing but zeros */
    /* The walk's query was brought to the length of the longest vector. */
    double extra = (double)g->extra[vertex] * step, own = (double)g->longest - extra * extra;
    double dot = ((double)g->longest + own - squared) / 2;
    return (float)(dot * sqrt(query_squares / (double)g->longest));
}

/* A distance of codes from which on no vector is nearer than one whose codes are at `distance`: rounding both sides
 * moves a component's difference by e with a variance of 1/6, hence a distance by 2 sqrt(distance / 6) or so around its
 * mean. This is more than five times what two of them differ by. */
static double surely_farther(const lk_graph_index *g, uint32_t distance)
{
    return distance + (double)g->dim / 3 + 16 * sqrt(distance / 6.0);
}

static bool before(const lk_hit *a, const lk_hit *b, bool lower_is_better)
{
    if (a->score != b->score) return lower_is_better ? a->score < b->score : a->score > b->score;
    return a->id < b->id;
}

static lk_status search_one(const searching *p, lk_graph_index_scratch *s, size_t q)
{
    const lk_graph_index *g = p->g;
    const float *query = p->queries + q * g->dim;
    lk_hit *hits = p->hits + q * p->k;
    size_t count = 0;
    bool lower = g->metric == LK_L2;
    lk_status status = lk_graph_index_aim(g, s, query);
    if (status != LK_OK) return status;
    if (p->among)
        lk_graph_index_walk_filtered(g, s, p->among, p->beam);
    else
        lk_graph_index_walk(g, s, p->beam);
    size_t rescored = 0, most = s->exact ? p->k : 2 * p->k + 16;
    double enough = HUGE_VAL;
    for (size_t i = 0; i < s->beam_count && rescored < most; i++) {
        if ((double)lk_near_distance(s->beam[i]) > enough) break;
        if (!s->exact && i + 1 < s->beam_count) lk_graph_index_prefetch_residual(g, lk_near_vertex(s->beam[i + 1]));
        uint32_t vertex = lk_near_vertex(s->beam[i]);
        if (lk_graph_index_is_dead(g, vertex)) continue;
        lk_hit hit = {g->ids[vertex], 0};
        if (p->filter && !p->filter(p->filter_user, hit.id)) continue;
        if (++rescored == p->k) enough = surely_farther(g, lk_near_distance(s->beam[i]));
        if (p->by_vertex) hit.id = vertex;
        float distance = s->exact ? (float)lk_near_distance(s->beam[i]) : exact_distance(g, s->units, vertex);
        hit.score = score_of(g, vertex, distance, s->squares);
        if (count == p->k && !before(&hit, &hits[count - 1], lower)) continue;
        size_t at = count < p->k ? count++ : count - 1;
        for (; at > 0 && before(&hit, &hits[at - 1], lower); at--) hits[at] = hits[at - 1];
        hits[at] = hit;
    }
    p->counts[q] = count;
    return LK_OK;
}

static lk_status search_some(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    const searching *p = arg;
    lk_status status = LK_OK;
    lk_graph_index_scratch *s = lk_graph_index_borrow(p->g, p->beam);
    if (!s) return lk_fail_memory("graph search");
    for (size_t q = begin; q < end && status == LK_OK; q++) {
        if (p->context && lk_context_cancelled(p->context))
            status = lk_fail(LK_CANCELLED, "the search was cancelled");
        else
            status = search_one(p, s, q);
    }
    lk_graph_index_give_back(p->g, s);
    return status;
}

/* A beam that holds as many that count as one of `effort` does when all count. */
static size_t beam_for(const lk_graph_index *g, size_t effort, size_t k)
{
    size_t beam = effort > k ? effort : k;
    if (g->dead_count > 0 && g->live > 0) beam += beam * g->dead_count / g->live + 1;
    return beam < 2 * g->count + 16 ? beam : 2 * g->count + 16;
}

/* The caller holds the lock. */
static lk_status search_all(size_t n, searching *p)
{
    return lk_parallel_for(lk_context_pool(p->context), n, 16, search_some, p);
}

/* Share of a sample of vectors that passes. */
static double share_passing(const lk_graph_index *g, lk_id_filter filter, void *user)
{
    enum { SAMPLE = 200 };
    size_t asked = 0, passed = 0;
    for (size_t i = 0; i < SAMPLE; i++) {
        size_t v = i * g->count / SAMPLE;
        if (lk_graph_index_is_dead(g, (uint32_t)v)) continue;
        asked++;
        passed += filter(user, g->ids[v]) != 0;
    }
    return asked ? (double)passed / (double)asked : 0;
}

static lk_status search_by_function(const lk_graph_index *g, lk_context *context, size_t effort, size_t n,
                                    const float *queries, size_t k, lk_id_filter filter, void *user, lk_hit *hits,
                                    size_t *counts)
{
    pthread_rwlock_t *lock = (pthread_rwlock_t *)&g->lock;
    pthread_rwlock_rdlock(lock);
    double share = share_passing(g, filter, user);
    if (share >= 0.25) {
        size_t beam = beam_for(g, effort, k);
        beam = (size_t)((double)beam / share) + 1;
        searching p = {g, context, beam, k, queries, NULL, filter, user, hits, counts};
        lk_status s = search_all(n, &p);
        pthread_rwlock_unlock(lock);
        return s;
    }
    pthread_rwlock_unlock(lock);
    /* The graph may change between making the filter and using it: then once more. */
    for (;;) {
        lk_graph_index_filter *among;
        lk_status s = lk_graph_index_filter_new(g, context, filter, user, &among);
        if (s != LK_OK) return s;
        s = lk_graph_index_search_filtered(g, context, effort, n, queries, k, among, hits, counts);
        lk_graph_index_filter_free(among);
        if (s != LK_CONFLICT) return s;
    }
}

lk_status lk_graph_index_search(const lk_graph_index *g, lk_context *context, size_t effort, size_t n,
                                const float *queries, size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits,
                                size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "0 results were asked for");
    if (filter) return search_by_function(g, context, effort, n, queries, k, filter, filter_user, hits, counts);
    pthread_rwlock_rdlock((pthread_rwlock_t *)&g->lock);
    searching p = {g, context, beam_for(g, effort, k), k, queries, NULL, NULL, NULL, hits, counts};
    lk_status s = search_all(n, &p);
    pthread_rwlock_unlock((pthread_rwlock_t *)&g->lock);
    return s;
}

lk_status lk_graph_index_search_filtered(const lk_graph_index *g, lk_context *context, size_t effort, size_t n,
                                         const float *queries, size_t k, const lk_graph_index_filter *filter,
                                         lk_hit *hits, size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "0 results were asked for");
    pthread_rwlock_rdlock((pthread_rwlock_t *)&g->lock);
    lk_status s;
    if (filter->version != g->version || filter->vertices != g->count) {
        s = lk_fail(LK_CONFLICT, "the graph index has changed since the filter was made");
    } else {
        size_t beam = effort > 2 * k + 16 ? effort : 2 * k + 16; /* the beam is what is scored again */
        searching p = {g, context, beam, k, queries, filter, NULL, NULL, hits, counts};
        s = search_all(n, &p);
    }
    pthread_rwlock_unlock((pthread_rwlock_t *)&g->lock);
    return s;
}

/* ---- ranges ---- */

static bool within(const lk_graph_index *g, float score, float bound)
{
    return g->metric == LK_L2 ? score <= bound : score >= bound;
}

/* Everything in the beam, scored, that is within the bound, best first. Returns whether the last of the beam is. */
static bool collect_within(const searching *p, lk_graph_index_scratch *s, lk_hit *hits, size_t *count)
{
    const lk_graph_index *g = p->g;
    bool last = false, lower = g->metric == LK_L2;
    *count = 0;
    for (size_t i = 0; i < s->beam_count; i++) {
        uint32_t vertex = lk_near_vertex(s->beam[i]);
        lk_hit hit = {g->ids[vertex], score_of(g, vertex, exact_distance(g, s->units, vertex), s->squares)};
        last = within(g, hit.score, p->bound);
        if (!last || lk_graph_index_is_dead(g, vertex)) continue;
        if (*count == p->k && !before(&hit, &hits[*count - 1], lower)) continue;
        size_t at = *count < p->k ? (*count)++ : *count - 1;
        for (; at > 0 && before(&hit, &hits[at - 1], lower); at--) hits[at] = hits[at - 1];
        hits[at] = hit;
    }
    return last;
}

static lk_status range_one(const searching *p, size_t q)
{
    const lk_graph_index *g = p->g;
    const float *query = p->queries + q * g->dim;
    /* A beam that ends outside of the bound has seen its edge; one that does not is doubled. */
    for (size_t beam = p->beam;; beam *= 2) {
        lk_graph_index_scratch *s = lk_graph_index_borrow(g, beam);
        if (!s) return lk_fail_memory("graph search");
        lk_status status = lk_graph_index_aim(g, s, query);
        if (status == LK_OK && p->among)
            lk_graph_index_walk_filtered(g, s, p->among, beam);
        else if (status == LK_OK)
            lk_graph_index_walk(g, s, beam);
        bool more = status == LK_OK && collect_within(p, s, p->hits + q * p->k, &p->counts[q]) && s->beam_count == beam;
        lk_graph_index_give_back(g, s);
        if (!more || beam >= 2 * p->k || beam >= 2 * g->count) return status;
    }
}

static lk_status range_some(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    const searching *p = arg;
    for (size_t q = begin; q < end; q++) {
        lk_status s = p->context && lk_context_cancelled(p->context) ? lk_fail(LK_CANCELLED, "the search was cancelled")
                                                                     : range_one(p, q);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

lk_status lk_graph_index_range(const lk_graph_index *g, lk_context *context, size_t effort, size_t n,
                               const float *queries, float bound, size_t most, lk_id_filter filter, void *filter_user,
                               lk_hit *hits, size_t *counts)
{
    lk_status s = LK_OK;
    lk_graph_index_filter *among = NULL;
    if (most == 0) return lk_fail(LK_INVALID, "0 results were asked for");
    if (isnan(bound)) return lk_fail(LK_INVALID, "the bound of a range is not a number");
    memset(counts, 0, n * sizeof *counts);
    pthread_rwlock_rdlock((pthread_rwlock_t *)&g->lock);
    if (filter) s = lk_graph_index_filter_make(g, context, filter, filter_user, &among);
    searching p = {.g = g,
                   .context = context,
                   .beam = beam_for(g, effort, 32),
                   .k = most,
                   .queries = queries,
                   .among = among,
                   .hits = hits,
                   .counts = counts,
                   .bound = bound};
    if (s == LK_OK) s = lk_parallel_for(lk_context_pool(context), n, 4, range_some, &p);
    pthread_rwlock_unlock((pthread_rwlock_t *)&g->lock);
    lk_graph_index_filter_free(among);
    return s;
}

/* ---- several vectors, different results ---- */

typedef struct graph_raw {
    const lk_graph_index *g;
    lk_context *context;
    size_t effort;
    lk_graph_index_filter *among; /* NULL = all */
} graph_raw;

/* The caller holds the lock. */
static lk_status raw_search(const void *with, size_t n, const float *queries, size_t k, lk_hit *hits, size_t *counts)
{
    const graph_raw *raw = with;
    size_t filtered = raw->effort > 2 * k + 16 ? raw->effort : 2 * k + 16;
    searching p = {.g = raw->g,
                   .context = raw->context,
                   .beam = raw->among ? filtered : beam_for(raw->g, raw->effort, k),
                   .k = k,
                   .queries = queries,
                   .among = raw->among,
                   .hits = hits,
                   .counts = counts,
                   .by_vertex = true};
    return search_all(n, &p);
}

static lk_status raw_vector(const void *with, uint64_t place, float *out)
{
    const lk_graph_index *g = ((const graph_raw *)with)->g;
    const int8_t *residual = g->residuals ? g->residuals + place * g->quantiser.stride : NULL;
    lk_sq8_decode(&g->quantiser, lk_graph_index_code(g, (uint32_t)place), residual, out);
    return LK_OK;
}

static uint64_t raw_id(const void *with, uint64_t place)
{
    return ((const graph_raw *)with)->g->ids[place];
}

/* Takes the lock; end_raw gives it back. */
static lk_status begin_raw(graph_raw *with, lk_id_filter filter, void *user, lk_raw *out)
{
    const lk_graph_index *g = with->g;
    pthread_rwlock_rdlock((pthread_rwlock_t *)&g->lock);
    *out = (lk_raw){.with = with,
                    .dim = g->dim,
                    .count = g->live,
                    .metric = g->metric,
                    .search = raw_search,
                    .vector = raw_vector,
                    .id = raw_id};
    return filter ? lk_graph_index_filter_make(g, with->context, filter, user, &with->among) : LK_OK;
}

static void end_raw(graph_raw *with)
{
    pthread_rwlock_unlock((pthread_rwlock_t *)&with->g->lock);
    lk_graph_index_filter_free(with->among);
}

lk_status lk_graph_index_search_several(const lk_graph_index *g, lk_context *context, size_t effort, size_t m,
                                        const float *vectors, lk_fusion fusion, size_t k, lk_id_filter filter,
                                        void *filter_user, lk_hit *hits, size_t *count)
{
    graph_raw with = {.g = g, .context = context, .effort = effort};
    lk_raw raw;
    lk_status s = begin_raw(&with, filter, filter_user, &raw);
    *count = 0;
    if (s == LK_OK) s = lk_raw_search_several(&raw, m, vectors, fusion, k, hits, count);
    end_raw(&with);
    return s;
}

lk_status lk_graph_index_search_diverse(const lk_graph_index *g, lk_context *context, size_t effort, lk_diversity how,
                                        size_t n, const float *queries, size_t k, lk_id_filter filter,
                                        void *filter_user, lk_hit *hits, size_t *counts)
{
    graph_raw with = {.g = g, .context = context, .effort = effort};
    lk_raw raw;
    lk_status s = begin_raw(&with, filter, filter_user, &raw);
    if (s == LK_OK) s = lk_raw_search_diverse(&raw, how, n, queries, k, hits, counts);
    end_raw(&with);
    return s;
}
