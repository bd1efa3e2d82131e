/* Groups of pictures that are nearly the same: every picture's range is searched for, and what lies in one range is of
 * one group, as is what is of a group with it. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "engine/searcher.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST = 256,  /* looked for in a range at first; one that holds more is searched again for four times as many */
    BATCH = 256, /* ranges of an exact search that share one pass over the vectors */
    BATCH_HITS = 1 << 20, /* fewer ranges share one where more is looked for in each */
    PIECE = 16
};

typedef struct finding {
    lk_searcher *searcher;
    lk_searcher_view view;
    const lk_id_set *set; /* or NULL */
    float bound;
    bool exact;
    size_t n, dim;
    uint64_t *ids;  /* [n], rising */
    float *vectors; /* [n][dim] */
    uint32_t *parents;
    uint8_t *skipped;      /* [n]: does not take part, or equals another that does: one range serves both */
    pthread_mutex_t mutex; /* guards parents */
    size_t done;
} finding;

static size_t number_of(const finding *f, uint64_t id)
{
    size_t low = 0, high = f->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (f->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < f->n && f->ids[low] == id ? low : f->n;
}

static uint32_t root_of(finding *f, uint32_t i)
{
    while (f->parents[i] != i) i = f->parents[i] = f->parents[f->parents[i]];
    return i;
}

/* The smallest of a group is its root, so that the order in which pairs come does not matter. */
static void join(finding *f, size_t a, size_t b)
{
    uint32_t x = root_of(f, (uint32_t)a), y = root_of(f, (uint32_t)b);
    if (x < y)
        f->parents[y] = x;
    else
        f->parents[x] = y;
}

static void join_hits(finding *f, size_t i, const lk_hit *hits, size_t count)
{
    pthread_mutex_lock(&f->mutex);
    for (size_t h = 0; h < count; h++) {
        size_t other = number_of(f, hits[h].id);
        if (other < f->n && other != i) join(f, i, other);
    }
    pthread_mutex_unlock(&f->mutex);
}

/* ---- equal vectors ---- */

typedef struct digest {
    uint64_t hash;
    uint32_t number;
} digest;

static int by_hash(const void *a, const void *b)
{
    const digest *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static bool is_zero(const finding *f, size_t i)
{
    for (size_t c = 0; c < f->dim; c++)
        if (f->vectors[i * f->dim + c] != 0) return false;
    return true;
}

/* Joins pictures whose vectors are the same bytes and leaves all but one of them out of the search: many copies of one
 * picture would each find all the others. A vector of zeros has no direction that another could be near to. */
static lk_status join_equal(finding *f)
{
    size_t count = 0, bytes = f->dim * sizeof *f->vectors;
    digest *all = lk_alloc(f->n, sizeof *all);
    if (!all) return lk_fail_memory("duplicates");
    for (uint32_t i = 0; i < f->n; i++) {
        if (f->set && !lk_id_set_has((void *)f->set, f->ids[i]))
            f->skipped[i] = 1;
        else if (lk_flat_metric(f->view.index) == LK_L2 || !is_zero(f, i))
            all[count++] = (digest){lk_hash(f->vectors + i * f->dim, bytes).low, i};
    }
    qsort(all, count, sizeof *all, by_hash);
    for (size_t i = 1; i < count; i++) {
        uint32_t a = all[i - 1].number, b = all[i].number;
        if (all[i].hash != all[i - 1].hash || memcmp(f->vectors + a * f->dim, f->vectors + b * f->dim, bytes) != 0)
            continue;
        join(f, a, b);
        f->skipped[b] = 1;
    }
    free(all);
    return LK_OK;
}

/* ---- ranges ---- */

/* Through the approximate index, each picture by itself. */
static lk_status search_some(void *arg, size_t begin, size_t end, int worker)
{
    finding *f = arg;
    lk_hit *hits = NULL;
    size_t room = 0;
    lk_context *context = lk_searcher_context(f->searcher);
    lk_status s = LK_OK;
    (void)worker;
    for (size_t i = begin; s == LK_OK && i < end; i++) {
        size_t count = 0;
        if (f->skipped[i]) continue;
        if (lk_context_cancelled(context)) s = lk_fail(LK_CANCELLED, "the search for duplicates was stopped");
        /* Of what the index finds some may lie outside by the exact score: a list that was full there need not be
         * full here. */
        for (size_t most = MOST; s == LK_OK; most *= 4) {
            if (most > f->n) most = f->n;
            if (!lk_grow((void **)&hits, &room, most, sizeof *hits)) s = lk_fail_memory("duplicates");
            if (s == LK_OK)
                s = lk_snapshot_range(f->view.snapshot, NULL, false, f->vectors + i * f->dim, f->bound, most, f->set,
                                      hits, &count);
            if (most == f->n || count <= most / 2) break;
        }
        if (s == LK_OK) join_hits(f, i, hits, count);
    }
    free(hits);
    if (s != LK_OK) return s;
    pthread_mutex_lock(&f->mutex);
    f->done += end - begin;
    lk_report_progress(context, "comparing", f->done, f->n);
    pthread_mutex_unlock(&f->mutex);
    return LK_OK;
}

/* Against every vector, many at once: the pictures todo [*n], of which those stay there whose range holds more than
 * `most`. */
static lk_status search_for_most(finding *f, size_t most, uint32_t *todo, size_t *n)
{
    size_t batch = BATCH_HITS / most ? BATCH_HITS / most : 1, left = 0;
    if (batch > BATCH) batch = BATCH;
    lk_hit *hits = lk_alloc(batch * most, sizeof *hits);
    float *queries = lk_alloc(batch * f->dim, sizeof *queries);
    lk_status s = hits && queries ? LK_OK : lk_fail_memory("duplicates");
    for (size_t first = 0; s == LK_OK && first < *n; first += batch) {
        size_t counts[BATCH], some = *n - first < batch ? *n - first : batch;
        for (size_t i = 0; i < some; i++)
            memcpy(queries + i * f->dim, f->vectors + todo[first + i] * f->dim, f->dim * sizeof *queries);
        s = lk_flat_range(f->view.index, lk_searcher_context(f->searcher), some, queries, f->bound, most,
                          f->set ? lk_id_set_has : NULL, (void *)f->set, hits, counts);
        for (size_t i = 0; s == LK_OK && i < some; i++) {
            if (counts[i] == most && most < f->n)
                todo[left++] = todo[first + i];
            else
                join_hits(f, todo[first + i], hits + i * most, counts[i]);
        }
        f->done = f->n - *n + first + some;
        lk_report_progress(lk_searcher_context(f->searcher), "comparing", f->done, f->n);
    }
    *n = left;
    free(hits);
    free(queries);
    return s;
}

static lk_status search_exactly(finding *f)
{
    size_t n = 0;
    uint32_t *todo = lk_alloc(f->n, sizeof *todo);
    lk_status s = todo ? LK_OK : lk_fail_memory("duplicates");
    for (uint32_t i = 0; s == LK_OK && i < f->n; i++)
        if (!f->skipped[i]) todo[n++] = i;
    for (size_t most = MOST; s == LK_OK && n; most *= 4) s = search_for_most(f, most < f->n ? most : f->n, todo, &n);
    free(todo);
    return s;
}

/* ---- groups ---- */

typedef struct member {
    uint32_t root, number, size; /* of its group */
} member;

static int by_root(const void *a, const void *b)
{
    const member *x = a, *y = b;
    if (x->root != y->root) return x->root < y->root ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int largest_first(const void *a, const void *b)
{
    const member *x = a, *y = b;
    if (x->size != y->size) return x->size > y->size ? -1 : 1;
    return by_root(a, b);
}

static int best_first(const void *a, const void *b)
{
    const lk_hit *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static float score_between(lk_metric metric, size_t dim, const float *a, const float *b)
{
    double dot = 0, l2 = 0;
    for (size_t c = 0; c < dim; c++) {
        dot += (double)a[c] * b[c];
        l2 += ((double)a[c] - b[c]) * ((double)a[c] - b[c]);
    }
    return (float)(metric == LK_L2 ? l2 : dot > 1 ? 1 : dot);
}

/* Members [n] of one group: the first, and the others by their score with it. */
static lk_status describe_group(const finding *f, const member *members, size_t n, lk_results *out)
{
    lk_metric metric = lk_flat_metric(f->view.index);
    lk_hit *hits = lk_alloc(n, sizeof *hits);
    if (!hits) return lk_fail_memory("duplicates");
    for (size_t i = 0; i < n; i++) {
        float score = score_between(metric, f->dim, f->vectors + members[0].number * f->dim,
                                    f->vectors + members[i].number * f->dim);
        hits[i] = (lk_hit){f->ids[members[i].number], metric == LK_L2 ? -score : score};
    }
    if (n > 1) qsort(hits + 1, n - 1, sizeof *hits, best_first);
    for (size_t i = 0; i < n; i++) hits[i].score = metric == LK_L2 ? 0 - hits[i].score : hits[i].score;
    lk_status s = lk_searcher_describe(f->searcher, hits, NULL, n, n, out);
    free(hits);
    return s;
}

static lk_status list_groups(finding *f, lk_duplicates *out)
{
    size_t kept = 0, listed = 0;
    member *all = lk_alloc(f->n, sizeof *all);
    if (!all) return lk_fail_memory("duplicates");
    for (uint32_t i = 0; i < f->n; i++) all[i] = (member){root_of(f, i), i, 0};
    for (size_t i = 0; i < f->n; i++) all[all[i].root].size++; /* they are still in order of their numbers */
    for (size_t i = 0; i < f->n; i++) all[i].size = all[all[i].root].size;
    for (size_t i = 0; i < f->n; i++)
        if (all[i].size > 1) all[kept++] = all[i];
    qsort(all, kept, sizeof *all, largest_first);
    for (size_t i = 0; i < kept; i++) out->count += all[i].number == all[i].root;
    out->groups = lk_alloc_zero(out->count, sizeof *out->groups);
    lk_status s = out->groups ? LK_OK : lk_fail_memory("duplicates");
    for (size_t i = 0, g = 0; s == LK_OK && i < kept; i += all[i].size) {
        s = describe_group(f, all + i, all[i].size, &out->groups[g]);
        if (s == LK_OK && out->groups[g].count > 1) /* pictures may have been removed since the view was taken */
            out->pictures += out->groups[g++].count;
        else
            lk_results_free(&out->groups[g]);
        listed = g;
    }
    if (s == LK_OK) out->count = listed;
    free(all);
    return s;
}

void lk_duplicates_free(lk_duplicates *duplicates)
{
    for (size_t i = 0; duplicates->groups && i < duplicates->count; i++) lk_results_free(&duplicates->groups[i]);
    free(duplicates->groups);
    *duplicates = (lk_duplicates){0};
}

lk_status lk_find_duplicates(lk_searcher *searcher, float within, bool exact, const char *where, lk_duplicates *out)
{
    *out = (lk_duplicates){0};
    finding f = {.searcher = searcher, .view = lk_searcher_use(searcher), .exact = exact};
    lk_searcher_filter *filter = NULL;
    lk_metric metric = lk_flat_metric(f.view.index);
    pthread_mutex_init(&f.mutex, NULL);
    f.n = lk_flat_count(f.view.index);
    f.dim = lk_flat_dim(f.view.index);
    f.bound = metric == LK_L2 ? within : 1 - within;
    lk_status s = LK_OK;
    if (!(within >= 0) || !isfinite(within))
        s = lk_fail(LK_INVALID, "duplicates cannot be %g apart", (double)within);
    else if (metric == LK_INNER_PRODUCT)
        s = lk_fail(LK_UNSUPPORTED, "inner products are no distances");
    else if (f.n > UINT32_MAX)
        s = lk_fail(LK_LIMIT, "%zu pictures are too many", f.n);
    if (s != LK_OK || f.n == 0) goto done;
    if (where) LK_TRY(lk_searcher_select(searcher, where, false, 0, &filter));
    f.set = filter ? lk_searcher_filter_set(filter) : NULL;
    LK_TRY(lk_searcher_vectors(f.view.index, &f.ids, &f.vectors));
    f.parents = lk_alloc(f.n, sizeof *f.parents);
    f.skipped = lk_alloc_zero(f.n, sizeof *f.skipped);
    if (!f.parents || !f.skipped) {
        s = lk_fail_memory("duplicates");
        goto done;
    }
    for (uint32_t i = 0; i < f.n; i++) f.parents[i] = i;
    LK_TRY(join_equal(&f));
    if (exact || !lk_snapshot_is_approximate(f.view.snapshot))
        LK_TRY(search_exactly(&f));
    else
        LK_TRY(lk_parallel_for(lk_context_pool(lk_searcher_context(searcher)), f.n, PIECE, search_some, &f));
    s = list_groups(&f, out);
done:
    if (s != LK_OK) lk_duplicates_free(out);
    lk_searcher_drop_filter(filter);
    lk_searcher_give_back(&f.view);
    pthread_mutex_destroy(&f.mutex);
    free(f.ids);
    free(f.vectors);
    free(f.parents);
    free(f.skipped);
    return s;
}
