/* Answers from a graph: the walk, then the candidates scored again with the query as it was given. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct searching {
    const lk_graph_index *g;
    lk_context *context;
    size_t beam, k;
    const float *queries;
    lk_id_filter filter;
    void *filter_user;
    lk_hit *hits;
    size_t *counts;
} searching;

/* Squared distance between the unrounded query and a stored vector, in the units of the codes. */
static float exact_distance(const lk_graph_index *g, const float *units, uint32_t vertex)
{
    const uint8_t *code = lk_graph_index_code(g, vertex);
    size_t stride = g->quantiser.stride;
    float sums[16] = {0};
    if (g->residuals) {
        const int8_t *residual = g->residuals + (size_t)vertex * stride;
        for (size_t i = 0; i < stride; i += 16)
            for (size_t j = 0; j < 16; j++) {
                float difference = units[i + j] - ((float)code[i + j] + (float)residual[i + j] * (1.0f / 256));
                sums[j] += difference * difference;
            }
    } else {
        for (size_t i = 0; i < stride; i += 16)
            for (size_t j = 0; j < 16; j++) {
                float difference = units[i + j] - (float)code[i + j];
                sums[j] += difference * difference;
            }
    }
    float sum = 0;
    for (size_t j = 0; j < 16; j++) sum += sums[j];
    return sum;
}

/* The score that a caller sees, from the squared distance in the units of the codes. */
static float score_of(const lk_graph_index *g, const lk_graph_index_scratch *s, uint32_t vertex, float distance,
                      double query_squares)
{
    double step = g->quantiser.step, squared = (double)distance * step * step;
    if (g->metric == LK_L2) return (float)squared;
    if (g->metric == LK_COSINE) return (float)(1 - squared / 2);
    /* The walk's query was brought to the length of the longest vector. */
    double extra = (double)g->extra[vertex] * step, own = (double)g->longest - extra * extra;
    (void)s;
    double dot = ((double)g->longest + own - squared) / 2;
    return (float)(dot * sqrt(query_squares / (double)g->longest));
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
    double squares = 0;
    lk_status status = lk_graph_index_aim(g, s, query);
    if (status != LK_OK) return status;
    for (size_t i = 0; i < g->dim; i++) squares += (double)query[i] * query[i];
    lk_graph_index_walk(g, s, p->beam);
    size_t rescored = p->beam;
    if (rescored > 2 * p->k + 16) rescored = 2 * p->k + 16;
    for (size_t i = 0; i < s->beam_count && i < rescored; i++) {
        uint32_t vertex = lk_near_vertex(s->beam[i]);
        if (lk_graph_index_is_dead(g, vertex)) continue;
        lk_hit hit = {g->ids[vertex], 0};
        if (p->filter && !p->filter(p->filter_user, hit.id)) continue;
        hit.score = score_of(g, s, vertex, exact_distance(g, s->units, vertex), squares);
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

lk_status lk_graph_index_search(const lk_graph_index *g, lk_context *context, size_t effort, size_t n,
                                const float *queries, size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits,
                                size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "0 results were asked for");
    searching p = {g, context, effort > k ? effort : k, k, queries, filter, filter_user, hits, counts};
    pthread_rwlock_rdlock((pthread_rwlock_t *)&g->lock);
    lk_status s = lk_parallel_for(lk_context_pool(context), n, 16, search_some, &p);
    pthread_rwlock_unlock((pthread_rwlock_t *)&g->lock);
    return s;
}
