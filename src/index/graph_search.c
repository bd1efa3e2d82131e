/* Answers from a graph: the walk, then the candidates scored again with the query as it was given.
 *
 * A batch holds the graph for some queries at a time, so that a writer gets in between, and those that wait behind the
 * writer too. What is found for one query is of one state of the graph; a batch may see several. Only the calling
 * thread takes the lock, never one of the pool: those would wait behind a writer who waits for a caller whose work they
 * are to do. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"
#include "index/raw.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Queries for which the graph is held: for each thread that works on a batch, by a batch with a filter, which belongs
 * to one state, and by one of different results, each of which lists many more than it keeps. PIECE: of them a thread
 * takes at a time. */
enum { HELD = 32, HELD_RANGES = 4, HELD_FILTERED = 256, HELD_DIVERSE = 8, PIECE = 8 };

typedef struct searching {
    const lk_graph_index *g;
    lk_context *context;
    size_t effort, k;
    double share; /* of the vectors that filter lets pass; 0 without one */
    const float *queries;
    const lk_graph_index_filter *among; /* NULL = all */
    lk_id_filter filter;                /* asked about what the walk finds; NULL = all */
    void *filter_user;
    lk_hit *hits; /* their ids are vertices with by_vertex */
    size_t *counts;
    bool by_vertex;
    bool held;   /* the caller holds the graph */
    float bound; /* of a range */
} searching;

static void hold(const lk_graph_index *g)
{
    pthread_rwlock_rdlock((pthread_rwlock_t *)&g->lock);
}

static void let_go(const lk_graph_index *g)
{
    pthread_rwlock_unlock((pthread_rwlock_t *)&g->lock);
}

/* A beam that holds as many that count as one of `effort` does when all count. */
static size_t beam_for(const lk_graph_index *g, size_t effort, size_t k)
{
    size_t beam = effort > k ? effort : k;
    if (g->dead_count > 0 && g->live > 0) beam += beam * g->dead_count / g->live + 1;
    return beam < 2 * g->count + 16 ? beam : 2 * g->count + 16;
}

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

/* Of the graph as it is now. */
static size_t beam_now(const searching *p)
{
    size_t rescored = 2 * p->k + 16; /* with a filter that was prepared the beam is what is scored again */
    if (p->among) return p->effort > rescored ? p->effort : rescored;
    size_t beam = beam_for(p->g, p->effort, p->k);
    return p->share > 0 ? (size_t)((double)beam / p->share) + 1 : beam;
}

static lk_status search_one(const searching *p, lk_graph_index_scratch *s, size_t beam, size_t q)
{
    const lk_graph_index *g = p->g;
    const float *query = p->queries + q * g->dim;
    lk_hit *hits = p->hits + q * p->k;
    size_t count = 0;
    bool lower = g->metric == LK_L2;
    lk_status status = lk_graph_index_aim(g, s, query);
    if (status != LK_OK) return status;
    if (p->among)
        lk_graph_index_walk_filtered(g, s, p->among, beam);
    else
        lk_graph_index_walk(g, s, beam);
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
    size_t beam = beam_now(p);
    lk_graph_index_scratch *s = lk_graph_index_borrow(p->g, beam);
    if (!s) status = lk_fail_memory("graph search");
    for (size_t q = begin; q < end && status == LK_OK; q++) {
        if (p->context && lk_context_cancelled(p->context))
            status = lk_fail(LK_CANCELLED, "the search was cancelled");
        else
            status = search_one(p, s, beam, q);
    }
    lk_graph_index_give_back(p->g, s);
    return status;
}

/* Works on n queries in pieces, holding the graph for `each` queries of every thread unless the caller holds it. */
static lk_status in_turns(const searching *p, size_t n, size_t each, size_t piece, lk_range_fn work)
{
    lk_pool *pool = lk_context_pool(p->context);
    size_t at_once = p->held ? n : each * (size_t)lk_pool_threads(pool);
    lk_status s = LK_OK;
    for (size_t done = 0; s == LK_OK && done < n; done += at_once) {
        searching some = *p;
        some.queries += done * p->g->dim;
        some.hits += done * p->k;
        some.counts += done;
        if (!p->held) hold(p->g);
        s = lk_parallel_for(pool, n - done < at_once ? n - done : at_once, piece, work, &some);
        if (!p->held) let_go(p->g);
    }
    return s;
}

static lk_status search_all(size_t n, const searching *p)
{
    return in_turns(p, n, HELD, PIECE, search_some);
}

static bool is_stale(const lk_graph_index *g, const lk_graph_index_filter *filter)
{
    return filter->version != g->version || filter->vertices != g->count;
}

/* Makes a filter where there is none or it is of another state. The caller holds the graph. */
static lk_status renew(const lk_graph_index *g, lk_context *context, lk_id_filter filter, void *user,
                       lk_graph_index_filter **among)
{
    if (!filter || (*among && !is_stale(g, *among))) return LK_OK;
    lk_graph_index_filter_free(*among);
    *among = NULL;
    return lk_graph_index_filter_make(g, context, filter, user, among);
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
    hold(g);
    double share = share_passing(g, filter, user);
    let_go(g);
    if (share >= 0.25) {
        searching p = {.g = g,
                       .context = context,
                       .effort = effort,
                       .k = k,
                       .share = share,
                       .queries = queries,
                       .filter = filter,
                       .filter_user = user,
                       .hits = hits,
                       .counts = counts};
        return search_all(n, &p);
    }
    lk_graph_index_filter *among = NULL;
    lk_status s = LK_OK;
    for (size_t done = 0; s == LK_OK && done < n; done += HELD_FILTERED) {
        hold(g); /* from the filter to the last query: a busy writer could make one filter after the other stale */
        s = renew(g, context, filter, user, &among);
        searching p = {.g = g,
                       .context = context,
                       .effort = effort,
                       .k = k,
                       .queries = queries + done * g->dim,
                       .among = among,
                       .hits = hits + done * k,
                       .counts = counts + done,
                       .held = true};
        if (s == LK_OK) s = search_all(n - done < HELD_FILTERED ? n - done : HELD_FILTERED, &p);
        let_go(g);
    }
    lk_graph_index_filter_free(among);
    return s;
}

lk_status lk_graph_index_search(const lk_graph_index *g, lk_context *context, size_t effort, size_t n,
                                const float *queries, size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits,
                                size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "0 results were asked for");
    if (filter) return search_by_function(g, context, effort, n, queries, k, filter, filter_user, hits, counts);
    searching p = {
        .g = g, .context = context, .effort = effort, .k = k, .queries = queries, .hits = hits, .counts = counts};
    return search_all(n, &p);
}

lk_status lk_graph_index_search_filtered(const lk_graph_index *g, lk_context *context, size_t effort, size_t n,
                                         const float *queries, size_t k, const lk_graph_index_filter *filter,
                                         lk_hit *hits, size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "0 results were asked for");
    searching p = {.g = g,
                   .context = context,
                   .effort = effort,
                   .k = k,
                   .queries = queries,
                   .among = filter,
                   .hits = hits,
                   .counts = counts,
                   .held = true};
    hold(g); /* for all: between them the filter could become that of another graph */
    lk_status s = is_stale(g, filter) ? lk_fail(LK_CONFLICT, "the graph index has changed since the filter was made")
                                      : search_all(n, &p);
    let_go(g);
    return s;
}

/* ---- ranges ---- */

static bool within(const lk_graph_index *g, float score, float bound)
{
    return g->metric == LK_L2 ? score <= bound : score >= bound;
}

/* Everything in the beam, scored, that is within the bound, best first. Returns whether there may be more beyond the
 * beam: whether its last is within. What a walk over projected codes leaves out may lie before its last: there until a
 * third of the beam lies outside. */
static bool collect_within(const searching *p, lk_graph_index_scratch *s, lk_hit *hits, size_t *count)
{
    const lk_graph_index *g = p->g;
    bool last = false, lower = g->metric == LK_L2;
    size_t inside = 0;
    *count = 0;
    for (size_t i = 0; i < s->beam_count; i++) {
        uint32_t vertex = lk_near_vertex(s->beam[i]);
        lk_hit hit = {g->ids[vertex], score_of(g, vertex, exact_distance(g, s->units, vertex), s->squares)};
        last = within(g, hit.score, p->bound);
        inside += last;
        if (!last || lk_graph_index_is_dead(g, vertex)) continue;
        if (*count == p->k && !before(&hit, &hits[*count - 1], lower)) continue;
        size_t at = *count < p->k ? (*count)++ : *count - 1;
        for (; at > 0 && before(&hit, &hits[at - 1], lower); at--) hits[at] = hits[at - 1];
        hits[at] = hit;
    }
    return g->projected ? 3 * inside > 2 * s->beam_count : last;
}

static lk_status range_one(const searching *p, size_t q)
{
    const lk_graph_index *g = p->g;
    const float *query = p->queries + q * g->dim;
    /* A beam that ends outside of the bound has seen its edge; one that does not is doubled. */
    for (size_t beam = beam_for(g, p->effort, 32);; beam *= 2) {
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
    lk_status s = LK_OK;
    for (size_t q = begin; s == LK_OK && q < end; q++)
        s = p->context && lk_context_cancelled(p->context) ? lk_fail(LK_CANCELLED, "the search was cancelled")
                                                           : range_one(p, q);
    return s;
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
    size_t at_once = filter ? HELD_FILTERED : n;
    for (size_t done = 0; s == LK_OK && done < n; done += at_once) {
        size_t some = n - done < at_once ? n - done : at_once;
        if (filter) hold(g);
        s = renew(g, context, filter, filter_user, &among);
        searching p = {.g = g,
                       .context = context,
                       .effort = effort,
                       .k = most,
                       .queries = queries + done * g->dim,
                       .among = among,
                       .hits = hits + done * most,
                       .counts = counts + done,
                       .held = filter != NULL,
                       .bound = bound};
        if (s == LK_OK) s = in_turns(&p, some, HELD_RANGES, 1, range_some);
        if (filter) let_go(g);
    }
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
    searching p = {.g = raw->g,
                   .context = raw->context,
                   .effort = raw->effort,
                   .k = k,
                   .queries = queries,
                   .among = raw->among,
                   .hits = hits,
                   .counts = counts,
                   .by_vertex = true,
                   .held = true};
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

/* Holds the graph; to be let go. The filter is kept, for the next time too. */
static lk_status begin_raw(graph_raw *with, lk_id_filter filter, void *user, lk_raw *out)
{
    const lk_graph_index *g = with->g;
    hold(g);
    *out = (lk_raw){.with = with,
                    .dim = g->dim,
                    .count = g->live,
                    .metric = g->metric,
                    .search = raw_search,
                    .vector = raw_vector,
                    .id = raw_id};
    return renew(g, with->context, filter, user, &with->among);
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
    let_go(g);
    lk_graph_index_filter_free(with.among);
    return s;
}

lk_status lk_graph_index_search_diverse(const lk_graph_index *g, lk_context *context, size_t effort, lk_diversity how,
                                        size_t n, const float *queries, size_t k, lk_id_filter filter,
                                        void *filter_user, lk_hit *hits, size_t *counts)
{
    graph_raw with = {.g = g, .context = context, .effort = effort};
    lk_raw raw;
    lk_status s = LK_OK;
    size_t done = 0;
    do { /* once also for no queries: what is wrong is said then too */
        size_t some = n - done < HELD_DIVERSE ? n - done : HELD_DIVERSE;
        s = begin_raw(&with, filter, filter_user, &raw);
        if (s == LK_OK)
            s = lk_raw_search_diverse(&raw, how, some, queries + done * g->dim, k, hits + done * k, counts + done);
        let_go(g);
        done += some;
    } while (s == LK_OK && done < n);
    lk_graph_index_filter_free(with.among);
    return s;
}
