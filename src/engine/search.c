/* From a query to ranked pictures: embed, fuse, feedback, expand, search, re-rank. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "engine/geometry.h"
#include "engine/searcher.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHORTLIST = 200, SHORTLIST_GEOMETRIC = 100, SHORTLIST_MOST = 10000, EXPAND_K = 2 };
enum { GEOMETRIC_LEAST = 4 };
#define GEOMETRIC_WEIGHT 0.02f

typedef struct search {
    lk_searcher *searcher;
    const lk_query *query;
    lk_search_options options; /* with its defaults filled in */
    lk_searcher_view view;
    lk_searcher_filter *filter; /* NULL = all pictures, or which do is not worked out yet */
    double until;               /* when working that out is given up; 0 = never */
    size_t dim;
    float *vector;  /* [dim]: what is searched with */
    float *several; /* [several_count][dim], LK_FUSE_BEST: instead of it */
    size_t several_count;
    bool pristine;   /* it is the vector of one picture of the collection */
    float *found;    /* [n][dim]: scratch for vectors of results */
    lk_hit *hits;    /* [count] */
    float *reranked; /* [count] */
    size_t count;
} search;

static bool among(const int64_t *ids, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++)
        if ((uint64_t)ids[i] == id) return true;
    return false;
}

/* A picture that is part of the question is not part of the answer. */
static bool answers(const search *q, uint64_t id)
{
    return (int64_t)id != q->options.exclude_id && !among(q->query->ids, q->query->n_ids, id) &&
           !among(q->options.no, q->options.n_no, id);
}

static lk_status check(search *q)
{
    lk_search_options *o = &q->options;
    bool cosine = lk_flat_metric(q->view.index) == LK_COSINE;
    if (!q->query->n_images && !q->query->n_ids && !q->query->n_vectors)
        return lk_fail(LK_INVALID, "there is no query");
    size_t several = q->query->n_images + q->query->n_ids + q->query->n_vectors;
    if (o->fuse == LK_FUSE_BEST && (o->expand || o->n_yes || o->n_no || o->rerank))
        return lk_fail(LK_UNSUPPORTED, "feedback, expansion and re-ranking want one query, not the best of several");
    if (o->diverse.trade > 0 && o->rerank)
        return lk_fail(LK_UNSUPPORTED, "marginal relevance and re-ranking both decide the order: one of them");
    if (!cosine && (o->expand || o->n_yes || o->n_no || (o->rerank && o->rerank != LK_RERANK_GEOMETRIC) ||
                    (several > 1 && o->fuse != LK_FUSE_BEST)))
        return lk_fail(LK_UNSUPPORTED,
                       "several queries, feedback, expansion and re-ranking are for collections of cosine vectors");
    if (o->rerank > LK_RERANK_GEOMETRIC)
        return lk_fail(LK_INVALID, "there is no re-ranking of kind %d", (int)o->rerank);
    if (o->rerank == LK_RERANK_GEOMETRIC && !q->query->n_images && !q->query->n_ids)
        return lk_fail(LK_INVALID, "geometric re-ranking wants a picture as the query, not a vector");
    if (o->shortlist > SHORTLIST_MOST)
        return lk_fail(LK_INVALID, "a shortlist has at most %d pictures, not %zu", SHORTLIST_MOST, o->shortlist);
    if (o->k == 0) o->k = 10;
    if (o->k > lk_flat_count(q->view.index)) o->k = lk_flat_count(q->view.index);
    if (o->expand_k == 0) o->expand_k = EXPAND_K;
    if (o->expand_alpha == 0) o->expand_alpha = LK_SEARCH_EXPAND_ALPHA;
    if (o->kreciprocal.k1 == 0) o->kreciprocal = lk_search_kreciprocal();
    if (o->diffusion.k == 0) o->diffusion = lk_search_diffusion();
    if (o->superglobal.k == 0) o->superglobal = lk_superglobal_defaults();
    if (o->geometric_least == 0) o->geometric_least = GEOMETRIC_LEAST;
    if (o->geometric_weight == 0) o->geometric_weight = GEOMETRIC_WEIGHT;
    if (o->shortlist == 0) o->shortlist = o->rerank == LK_RERANK_GEOMETRIC ? SHORTLIST_GEOMETRIC : SHORTLIST;
    return LK_OK;
}

static lk_status vector_of(const search *q, int64_t id, float *out)
{
    lk_status s = lk_flat_vector(q->view.index, (uint64_t)id, out);
    return s == LK_NOT_FOUND ? lk_fail(s, "no picture with a vector has the id %lld", (long long)id) : s;
}

/* One vector out of everything that is looked for. */
static lk_status make_vector(search *q)
{
    const lk_query *in = q->query;
    size_t n = in->n_images + in->n_ids + in->n_vectors, at = 0;
    float *all = n <= SIZE_MAX / q->dim ? lk_alloc(n * q->dim, sizeof *all) : NULL;
    if (!all) return lk_fail_memory("query");
    lk_status s = LK_OK;
    if (in->n_images) {
        if (lk_embedder_dim(lk_searcher_embedder(q->searcher)) != q->dim)
            s = lk_fail(LK_CONFLICT, "the model of the collection does not fit its vectors");
        else
            s = lk_embedder_embed(lk_searcher_embedder(q->searcher), in->images, in->n_images, all);
    }
    at = in->n_images;
    for (size_t i = 0; s == LK_OK && i < in->n_ids; i++) s = vector_of(q, in->ids[i], all + at++ * q->dim);
    if (s == LK_OK && in->n_vectors) memcpy(all + at * q->dim, in->vectors, in->n_vectors * q->dim * sizeof *all);
    if (s == LK_OK && n > 1 && q->options.fuse == LK_FUSE_BEST) {
        q->several = all;
        q->several_count = n;
        return s;
    }
    const lk_search_options *o = &q->options;
    /* What follows weighs the query against vectors of unit length; a vector that was given may have any. */
    bool weighed = o->expand || o->n_yes || o->n_no || (o->rerank && o->rerank != LK_RERANK_GEOMETRIC);
    if (s == LK_OK && (n > 1 || (in->n_vectors && weighed)))
        s = lk_fuse_queries(n, q->dim, all, q->vector);
    else if (s == LK_OK)
        memcpy(q->vector, all, q->dim * sizeof *all);
    q->pristine = n == 1 && in->n_ids == 1;
    free(all);
    return s;
}

static lk_status take_feedback(search *q)
{
    const lk_search_options *o = &q->options;
    if (!o->n_yes && !o->n_no) return LK_OK;
    float *marked = lk_alloc((o->n_yes + o->n_no) * q->dim, sizeof *marked);
    if (!marked) return lk_fail_memory("feedback");
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < o->n_yes; i++) s = vector_of(q, o->yes[i], marked + i * q->dim);
    for (size_t i = 0; s == LK_OK && i < o->n_no; i++) s = vector_of(q, o->no[i], marked + (o->n_yes + i) * q->dim);
    if (s == LK_OK)
        s = lk_feedback(lk_rocchio_defaults(), q->dim, q->vector, o->n_yes, marked, o->n_no, marked + o->n_yes * q->dim,
                        q->vector);
    q->pristine = false;
    free(marked);
    return s;
}

static lk_status find_one(const search *q, const float *vector, size_t asked, lk_hit *hits, size_t *found)
{
    const lk_search_options *o = &q->options;
    const lk_id_set *set = q->filter ? lk_searcher_filter_set(q->filter) : NULL;
    lk_context *context = lk_searcher_context(q->searcher);
    return o->range ? lk_snapshot_range(q->view.snapshot, context, o->exact, vector, o->bound, asked, set, hits, found)
                    : lk_snapshot_search(q->view.snapshot, context, o->exact, vector, asked, set, hits, found);
}

typedef struct fused {
    lk_hit hit;
    bool lower; /* is better */
} fused;

static int by_id_then_score(const void *a, const void *b)
{
    const fused *x = a, *y = b;
    if (x->hit.id != y->hit.id) return x->hit.id < y->hit.id ? -1 : 1;
    if (x->hit.score == y->hit.score) return 0;
    return (x->hit.score < y->hit.score) == x->lower ? -1 : 1;
}

static int by_score_then_id(const void *a, const void *b)
{
    const fused *x = a, *y = b;
    if (x->hit.score != y->hit.score) return (x->hit.score < y->hit.score) == x->lower ? -1 : 1;
    return x->hit.id < y->hit.id ? -1 : x->hit.id > y->hit.id;
}

/* Each vector is searched for; a picture's score is the best of its scores. */
static lk_status find_best(const search *q, size_t asked, lk_hit *hits, size_t *found)
{
    size_t n = 0, kept = 0;
    fused *all = lk_alloc(q->several_count * asked, sizeof *all);
    if (!all) return lk_fail_memory("results");
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < q->several_count; i++) {
        size_t count = 0;
        s = find_one(q, q->several + i * q->dim, asked, hits, &count);
        for (size_t j = 0; s == LK_OK && j < count; j++)
            all[n++] = (fused){hits[j], lk_flat_metric(q->view.index) == LK_L2};
    }
    qsort(all, n, sizeof *all, by_id_then_score);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || all[i].hit.id != all[i - 1].hit.id) all[kept++] = all[i];
    qsort(all, kept, sizeof *all, by_score_then_id);
    *found = kept < asked ? kept : asked;
    for (size_t i = 0; s == LK_OK && i < *found; i++) hits[i] = all[i].hit;
    free(all);
    return s;
}

/* Where it takes long to say which pictures satisfy the predicate: the best of all are found first, and these are asked
 * about. With a predicate that many satisfy that is enough; *found is 0 when it is not. */
static lk_status find_and_ask(search *q, size_t asked, lk_hit *hits, size_t *found)
{
    enum { LISTED = 32, LISTED_MOST = 1024 }; /* pictures listed for each wanted; SQLite looks each of them up */
    size_t listed = LISTED * asked, count = 0;
    *found = 0;
    if (q->options.range || q->several || listed > LISTED_MOST || listed > lk_flat_count(q->view.index) / 2)
        return LK_OK;
    lk_hit *list = lk_alloc(listed, sizeof *list);
    lk_status s = list ? find_one(q, q->vector, listed, list, &count) : lk_fail_memory("results");
    if (s == LK_OK) s = lk_searcher_select_among(q->searcher, q->options.where, q->until, list, &count);
    if (s == LK_OK && count >= asked) {
        memcpy(hits, list, asked * sizeof *hits);
        *found = asked;
    }
    free(list);
    return s;
}

static lk_status find(search *q, size_t k)
{
    size_t all = lk_flat_count(q->view.index), asked = k + q->query->n_ids + q->options.n_no + 1, found = 0;
    if (asked > all) asked = all;
    q->count = 0;
    free(q->hits);
    q->hits = lk_alloc(asked, sizeof *q->hits);
    if (!q->hits) return lk_fail_memory("results");
    if (asked == 0) return LK_OK;
    lk_status s = LK_OK;
    if (q->options.where && !q->filter) {
        s = find_and_ask(q, asked, q->hits, &found);
        if (s == LK_OK && !found) s = lk_searcher_select(q->searcher, q->options.where, false, q->until, &q->filter);
    }
    if (s == LK_OK && !found)
        s = q->several ? find_best(q, asked, q->hits, &found) : find_one(q, q->vector, asked, q->hits, &found);
    for (size_t i = 0; s == LK_OK && i < found && q->count < k; i++)
        if (answers(q, q->hits[i].id)) q->hits[q->count++] = q->hits[i];
    return s;
}

/* Vectors of the first n hits into q->found. */
static lk_status fetch(search *q, size_t n)
{
    free(q->found);
    q->found = lk_alloc(n * q->dim, sizeof *q->found);
    if (!q->found) return lk_fail_memory("results");
    for (size_t i = 0; i < n; i++) {
        lk_status s = lk_flat_vector(q->view.index, q->hits[i].id, q->found + i * q->dim);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

static lk_status expand(search *q)
{
    const lk_search_options *o = &q->options;
    if (!o->expand) return LK_OK;
    lk_status s = find(q, o->expand_k);
    if (s == LK_OK) s = fetch(q, q->count);
    float *similarities = s == LK_OK ? lk_alloc(q->count, sizeof *similarities) : NULL;
    if (s == LK_OK && !similarities) s = lk_fail_memory("query expansion");
    for (size_t i = 0; s == LK_OK && i < q->count; i++) similarities[i] = q->hits[i].score;
    if (s == LK_OK)
        s = lk_expand_query(o->expand, o->expand_alpha, q->dim, q->vector, q->count, q->found, similarities, q->vector);
    q->pristine = false;
    free(similarities);
    return s;
}

/* ---- re-ranking ---- */

/* The shortlist as a collection of its own, when there is no table. */
static lk_status shortlist_table(search *q, size_t n, size_t k, lk_knn **out)
{
    lk_status s = fetch(q, n);
    uint64_t *ids = s == LK_OK ? lk_alloc(n, sizeof *ids) : NULL;
    if (s == LK_OK && !ids) s = lk_fail_memory("re-ranking");
    for (size_t i = 0; s == LK_OK && i < n; i++) ids[i] = q->hits[i].id;
    if (s == LK_OK) s = lk_knn_new(NULL, n, q->dim, ids, q->found, k, out); /* small: no threads, no progress */
    free(ids);
    return s;
}

static lk_status by_neighbours(search *q, size_t n, float *out)
{
    uint64_t *ids = lk_alloc(n, sizeof *ids);
    float *distances = lk_alloc(n, sizeof *distances);
    lk_knn *own = NULL;
    lk_status s = ids && distances ? LK_OK : lk_fail_memory("re-ranking");
    if (s != LK_OK) goto done;
    bool kreciprocal = q->options.rerank == LK_RERANK_KRECIPROCAL;
    const lk_kreciprocal_options *o = &q->options.kreciprocal;
    size_t k = !kreciprocal ? q->options.diffusion.k : o->k1 + 1 > o->k2 ? o->k1 + 1 : o->k2;
    for (size_t i = 0; i < n; i++) {
        ids[i] = q->hits[i].id;
        distances[i] = fmaxf(2 - 2 * q->hits[i].score, 0);
    }
    lk_indexed_source indexed = {lk_searcher_view_neighbours(q->searcher, &q->view), q->view.index, q->vector};
    lk_neighbour_source source = lk_source_of_index(&indexed);
    lk_shortlist list = {n, ids, distances, 0, q->pristine ? (uint64_t)q->query->ids[0] : LK_RANK_QUERY};
    if (!indexed.knn) {
        LK_TRY(shortlist_table(q, n, k, &own));
        source = (lk_neighbour_source){lk_knn_neighbours, NULL, own};
        list.farthest = distances[n - 1];
        list.self = LK_RANK_QUERY; /* it is not in the shortlist */
    }
    s = kreciprocal ? lk_kreciprocal_rerank(o, &list, &source, out)
                    : lk_diffusion_rerank(&q->options.diffusion, &list, &source, out);
done:
    lk_knn_free(own);
    free(ids);
    free(distances);
    return s;
}

typedef struct placed {
    float key; /* lower is better */
    size_t at;
} placed;

static int better(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at); /* as it was */
}

/* Sorts the first n hits by what the re-ranker says. */
static lk_status reorder(search *q, size_t n, const float *values, bool lower_is_better)
{
    placed *order = lk_alloc(n, sizeof *order);
    lk_hit *hits = lk_alloc(n, sizeof *hits);
    lk_status s = order && hits ? LK_OK : lk_fail_memory("re-ranking");
    for (size_t i = 0; s == LK_OK && i < n; i++) order[i] = (placed){lower_is_better ? values[i] : -values[i], i};
    if (s == LK_OK) {
        qsort(order, n, sizeof *order, better);
        memcpy(hits, q->hits, n * sizeof *hits);
        for (size_t i = 0; i < n; i++) {
            q->hits[i] = hits[order[i].at];
            q->reranked[i] = values[order[i].at];
        }
    }
    free(order);
    free(hits);
    return s;
}

static lk_status rerank(search *q)
{
    size_t n = q->count < q->options.shortlist ? q->count : q->options.shortlist;
    if (!q->options.rerank || n == 0) return LK_OK;
    float *values = lk_alloc(n, sizeof *values);
    q->reranked = lk_alloc(q->count, sizeof *q->reranked);
    lk_status s = values && q->reranked ? LK_OK : lk_fail_memory("re-ranking");
    if (s != LK_OK) goto done;
    for (size_t i = 0; i < q->count; i++) q->reranked[i] = NAN;
    switch (q->options.rerank) {
    case LK_RERANK_GEOMETRIC:
        s = lk_geometric_scores(q->searcher, q->query, q->options.geometric_least, q->hits, n, values);
        if (lk_flat_metric(q->view.index) != LK_COSINE) break; /* a distance has no scale to add to */
        for (size_t i = 0; s == LK_OK && i < n; i++)
            values[i] = q->hits[i].score + q->options.geometric_weight * values[i];
        break;
    case LK_RERANK_SUPERGLOBAL:
        LK_TRY(fetch(q, n));
        s = lk_superglobal_rerank(&q->options.superglobal, q->dim, q->vector, n, q->found, values);
        break;
    default: s = by_neighbours(q, n, values);
    }
    if (s == LK_OK) s = reorder(q, n, values, q->options.rerank == LK_RERANK_KRECIPROCAL);
done:
    free(values);
    return s;
}

/* How long a list may become in which results that differ are looked for: never too short for what else it is for. */
static size_t longest_list(const lk_search_options *o)
{
    if (!o->diverse_among) return SIZE_MAX;
    size_t least = o->rerank && o->shortlist > o->k ? o->shortlist : o->k;
    return o->diverse_among > least ? o->diverse_among : least;
}

/* Keeps k results that differ; *enough: there are so many, or no more can come from a longer list of `asked`. */
static lk_status diversify(search *q, size_t asked, size_t k, bool *enough)
{
    size_t kept = 0, listed = q->count;
    size_t *chosen = lk_alloc(k, sizeof *chosen);
    lk_status s = chosen ? fetch(q, q->count) : lk_fail_memory("results");
    if (s == LK_OK)
        s = lk_diversify(lk_flat_metric(q->view.index), q->dim, q->options.diverse, q->count, q->hits, q->found, k,
                         chosen, &kept);
    lk_hit *hits = s == LK_OK ? lk_alloc(kept, sizeof *hits) : NULL;
    float *reranked = s == LK_OK && q->reranked ? lk_alloc(kept, sizeof *reranked) : NULL;
    if (s == LK_OK && (!hits || (q->reranked && !reranked))) s = lk_fail_memory("results");
    for (size_t i = 0; s == LK_OK && i < kept; i++) {
        hits[i] = q->hits[chosen[i]];
        if (reranked) reranked[i] = q->reranked[chosen[i]];
    }
    if (s == LK_OK) {
        free(q->hits);
        free(q->reranked);
        q->hits = hits;
        q->reranked = reranked;
        q->count = kept;
        hits = NULL;
        reranked = NULL;
    }
    *enough = kept >= k || listed < asked;
    free(hits);
    free(reranked);
    free(chosen);
    return s;
}

/* Finds, re-ranks and diversifies; where too few are left the list is begun anew, four times as long, up to the limit:
 * among copies without end no length would do, and each costs a search of its own, or one for each of several queries.
 * With these the limit is asked for at once, if there is one. */
static lk_status find_results(search *q)
{
    const lk_search_options *o = &q->options;
    bool differ = o->diverse.apart > 0 || o->diverse.trade > 0, enough = !differ;
    size_t asked = o->rerank && o->shortlist > o->k ? o->shortlist : differ ? 4 * o->k + 16 : o->k;
    size_t longest = longest_list(o);
    lk_status s;
    do {
        if (differ && asked >= longest) asked = longest;
        free(q->reranked);
        q->reranked = NULL;
        s = find(q, asked);
        if (s == LK_OK) s = rerank(q);
        if (s == LK_OK && differ) s = diversify(q, asked, o->k, &enough);
        enough = enough || asked == longest;
        asked = q->several && o->diverse_among ? longest : asked * 4;
    } while (s == LK_OK && !enough);
    return s;
}

/* Everything but the catalog's part. */
static lk_status rank_pictures(search *q)
{
    lk_status s = check(q);
    if (s != LK_OK) return s;
    q->dim = lk_flat_dim(q->view.index);
    q->vector = lk_alloc(q->dim, sizeof *q->vector);
    if (!q->vector) return lk_fail_memory("query");
    if (q->options.where) LK_TRY(lk_searcher_select(q->searcher, q->options.where, true, q->until, &q->filter));
    LK_TRY(make_vector(q));
    LK_TRY(take_feedback(q));
    LK_TRY(expand(q));
    LK_TRY(find_results(q));
done:
    return s;
}

static void end_search(search *q)
{
    lk_searcher_drop_filter(q->filter);
    lk_searcher_give_back(&q->view);
    free(q->vector);
    free(q->several);
    free(q->found);
    free(q->hits);
    free(q->reranked);
}

static search begin_search(lk_searcher *searcher, const lk_query *query, const lk_search_options *options)
{
    return (search){.searcher = searcher,
                    .query = query,
                    .options = options ? *options : (lk_search_options){0},
                    .until = options && options->where_seconds > 0 ? lk_now() + options->where_seconds : 0,
                    .view = lk_searcher_use(searcher)};
}

lk_status lk_search_check(lk_searcher *searcher, const lk_query *query, const lk_search_options *options)
{
    search q = begin_search(searcher, query, options);
    lk_status s = check(&q);
    end_search(&q);
    return s;
}

lk_status lk_search(lk_searcher *searcher, const lk_query *query, const lk_search_options *options, lk_results *out)
{
    *out = (lk_results){0};
    search q = begin_search(searcher, query, options);
    lk_status s = rank_pictures(&q);
    if (s == LK_OK) s = lk_searcher_describe(searcher, q.hits, q.reranked, q.count, q.options.k, out);
    if (s == LK_OK) out->rerank = q.options.rerank;
    end_search(&q);
    return s;
}

lk_status lk_search_hits(lk_searcher *searcher, const lk_query *query, const lk_search_options *options, lk_hit *hits,
                         size_t *count)
{
    *count = 0;
    search q = begin_search(searcher, query, options);
    lk_status s = rank_pictures(&q);
    if (s == LK_OK) {
        *count = q.count < q.options.k ? q.count : q.options.k;
        memcpy(hits, q.hits, *count * sizeof *hits);
    }
    end_search(&q);
    return s;
}

lk_status lk_search_vector(lk_searcher *searcher, const float *vector, const lk_search_options *options,
                           lk_results *out)
{
    return lk_search(searcher, &(lk_query){.vectors = vector, .n_vectors = 1}, options, out);
}

lk_status lk_search_image(lk_searcher *searcher, const lk_image *image, const lk_search_options *options,
                          lk_results *out)
{
    return lk_search(searcher, &(lk_query){.images = image, .n_images = 1}, options, out);
}

lk_status lk_search_text(lk_searcher *searcher, const char *text, const lk_search_options *options, lk_results *out)
{
    *out = (lk_results){0};
    float *vector = lk_alloc(lk_embedder_dim(lk_searcher_embedder(searcher)), sizeof *vector);
    if (!vector) return lk_fail_memory("query");
    lk_status s = lk_embedder_embed_text(lk_searcher_embedder(searcher), &text, 1, vector);
    if (s == LK_OK) s = lk_search_vector(searcher, vector, options, out);
    free(vector);
    return s;
}

lk_status lk_search_id(lk_searcher *searcher, int64_t id, const lk_search_options *options, lk_results *out)
{
    return lk_search(searcher, &(lk_query){.ids = &id, .n_ids = 1}, options, out);
}
