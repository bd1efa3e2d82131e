/* A collection opened for searching. */
#include "engine/searcher.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/filter.h"
#include "engine/local_features.h"
#include <likeness/engine.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A snapshot with the number of searches that use it; the searcher itself counts as one. */
typedef struct view {
    lk_snapshot *snapshot;
    atomic_int users;
    pthread_mutex_t mutex; /* guards the two below */
    bool looked;           /* for a table of neighbours */
    lk_knn *neighbours;
} view;

struct lk_searcher {
    lk_context *context;
    lk_embedder *embedder;
    lk_collection *collection; /* guarded by catalog: SQLite's handle is for one thread at a time */
    pthread_mutex_t catalog;
    lk_filter_cache filters;
    view *present; /* guarded by swap */
    pthread_mutex_t swap;
    uint64_t version; /* of the present view; guarded by catalog */
    lk_feature_store features;
};

static lk_status view_new(lk_collection *collection, view **out)
{
    view *v = lk_alloc_zero(1, sizeof *v);
    *out = NULL;
    if (!v) return lk_fail_memory("snapshot");
    lk_status s = lk_collection_snapshot(collection, &v->snapshot);
    if (s != LK_OK) {
        free(v);
        return s;
    }
    pthread_mutex_init(&v->mutex, NULL);
    atomic_store(&v->users, 1);
    *out = v;
    return LK_OK;
}

static void view_release(view *v)
{
    if (!v || atomic_fetch_sub(&v->users, 1) != 1) return;
    lk_snapshot_free(v->snapshot);
    lk_knn_free(v->neighbours);
    pthread_mutex_destroy(&v->mutex);
    free(v);
}

static view *view_use(lk_searcher *searcher)
{
    pthread_mutex_lock(&searcher->swap);
    view *v = searcher->present;
    atomic_fetch_add(&v->users, 1);
    pthread_mutex_unlock(&searcher->swap);
    return v;
}

lk_status lk_searcher_open(lk_context *context, const char *path, lk_searcher **out)
{
    *out = NULL;
    lk_searcher *searcher = lk_alloc_zero(1, sizeof *searcher);
    if (!searcher) return lk_fail_memory("searcher");
    searcher->context = context;
    pthread_mutex_init(&searcher->catalog, NULL);
    pthread_mutex_init(&searcher->swap, NULL);
    pthread_mutex_init(&searcher->features.mutex, NULL);
    lk_filter_cache_init(&searcher->filters);
    lk_status s;
    LK_TRY(lk_collection_open(path, LK_READ, &searcher->collection));
    searcher->filters.collection = searcher->collection;
    LK_TRY(lk_fail_in(lk_embedder_open(lk_collection_model_dir(searcher->collection), &searcher->embedder),
                      "%s: its model", path));
    lk_collection_config config = lk_collection_config_of(searcher->collection);
    if (strcmp(config.embedder_id, lk_embedder_id(searcher->embedder)) != 0) {
        s = lk_fail(LK_CONFLICT,
                    "%s: the model in it (%s) is not the one that made its vectors (%s): index the pictures anew", path,
                    lk_embedder_id(searcher->embedder), config.embedder_id);
        goto done;
    }
    LK_TRY(lk_collection_version(searcher->collection, &searcher->version));
    LK_TRY(view_new(searcher->collection, &searcher->present));
    *out = searcher;
    searcher = NULL;
done:
    lk_searcher_free(searcher);
    return s;
}

void lk_searcher_free(lk_searcher *searcher)
{
    if (!searcher) return;
    view_release(searcher->present);
    lk_embedder_free(searcher->embedder);
    lk_filter_cache_free(&searcher->filters);
    lk_collection_close(searcher->collection);
    pthread_mutex_destroy(&searcher->catalog);
    pthread_mutex_destroy(&searcher->swap);
    lk_features_close(searcher->features.features);
    pthread_mutex_destroy(&searcher->features.mutex);
    free(searcher);
}

lk_status lk_searcher_refresh(lk_searcher *searcher)
{
    view *fresh = NULL, *old = NULL;
    uint64_t version;
    pthread_mutex_lock(&searcher->catalog);
    lk_status s = lk_collection_version(searcher->collection, &version);
    if (s == LK_OK && version != searcher->version) s = view_new(searcher->collection, &fresh);
    if (fresh) { /* before another refresh can be ahead of this one */
        searcher->version = version;
        pthread_mutex_lock(&searcher->swap);
        old = searcher->present;
        searcher->present = fresh;
        pthread_mutex_unlock(&searcher->swap);
    }
    pthread_mutex_unlock(&searcher->catalog);
    view_release(old);
    return s;
}

const lk_embedder *lk_searcher_embedder(const lk_searcher *searcher)
{
    return searcher->embedder;
}

lk_collection_config lk_searcher_config(const lk_searcher *searcher)
{
    return lk_collection_config_of(searcher->collection);
}

size_t lk_searcher_count(lk_searcher *searcher)
{
    view *v = view_use(searcher);
    size_t count = lk_flat_count(lk_snapshot_index(v->snapshot));
    view_release(v);
    return count;
}

/* ---- results ---- */

void lk_results_free(lk_results *results)
{
    for (size_t i = 0; results && i < results->count; i++) {
        free(results->items[i].path);
        free(results->items[i].label);
        free(results->items[i].labels);
    }
    if (results) {
        free(results->items);
        *results = (lk_results){0};
    }
}

static lk_status append(lk_results *results, const lk_record *record, float score)
{
    lk_result item = {.id = record->id,
                      .path = strdup(record->path),
                      .label = record->label ? strdup(record->label) : NULL,
                      .labels = strdup(record->labels ? record->labels : "{}"),
                      .width = record->width,
                      .height = record->height,
                      .score = score,
                      .reranked = NAN};
    results->items[results->count++] = item;
    if (!item.path || !item.labels || (record->label && !item.label)) return lk_fail_memory("results");
    return LK_OK;
}

lk_status lk_searcher_describe(lk_searcher *searcher, const lk_hit *hits, const float *reranked, size_t count, size_t k,
                               lk_results *out)
{
    *out = (lk_results){.items = lk_alloc_zero(count, sizeof *out->items),
                        .metric = lk_collection_config_of(searcher->collection).metric};
    if (!out->items) return lk_fail_memory("results");
    lk_status s = LK_OK;
    pthread_mutex_lock(&searcher->catalog);
    for (size_t i = 0; s == LK_OK && i < count && out->count < k; i++) {
        lk_record record;
        s = lk_collection_find_id(searcher->collection, (int64_t)hits[i].id, &record);
        if (s == LK_NOT_FOUND) {
            s = LK_OK;
            continue;
        }
        if (s != LK_OK) break;
        s = append(out, &record, hits[i].score);
        if (s == LK_OK && reranked) out->items[out->count - 1].reranked = reranked[i];
        lk_record_free(&record);
    }
    pthread_mutex_unlock(&searcher->catalog);
    if (s != LK_OK) lk_results_free(out);
    return s;
}

lk_status lk_searcher_record(lk_searcher *searcher, int64_t id, lk_record *out)
{
    pthread_mutex_lock(&searcher->catalog);
    lk_status s = lk_collection_find_id(searcher->collection, id, out);
    pthread_mutex_unlock(&searcher->catalog);
    return s;
}

lk_status lk_searcher_select(lk_searcher *searcher, const char *where, bool quickly, double until,
                             lk_searcher_filter **out)
{
    return lk_filter_cache_get(&searcher->filters, where, quickly, &(lk_select_limits){searcher->context, until}, out);
}

lk_status lk_searcher_select_among(lk_searcher *searcher, const char *where, double until, lk_hit *hits, size_t *count)
{
    lk_id_set *set = NULL;
    size_t kept = 0;
    lk_status s = lk_filter_cache_among(&searcher->filters, where, *count, hits,
                                        &(lk_select_limits){searcher->context, until}, &set);
    for (size_t i = 0; s == LK_OK && i < *count; i++)
        if (lk_id_set_has(set, hits[i].id)) hits[kept++] = hits[i];
    if (s == LK_OK) *count = kept;
    lk_id_set_free(set);
    return s;
}

lk_status lk_searcher_find(lk_searcher *searcher, const char *path, lk_record *out)
{
    pthread_mutex_lock(&searcher->catalog);
    lk_status s = lk_collection_find_path(searcher->collection, path, out);
    pthread_mutex_unlock(&searcher->catalog);
    return s;
}

typedef struct page {
    lk_results *results;
    size_t room;
} page;

static lk_status page_record(void *user, const lk_record *record)
{
    page *p = user;
    if (record->state != LK_PICTURE_INDEXED) return LK_OK;
    if (p->results->count == p->room) return LK_CANCELLED; /* full: ends the walk */
    return append(p->results, record, 0);
}

lk_status lk_searcher_page(lk_searcher *searcher, int64_t after, size_t n, lk_results *out)
{
    *out = (lk_results){.items = lk_alloc_zero(n, sizeof *out->items)};
    if (!out->items) return lk_fail_memory("results");
    page p = {out, n};
    pthread_mutex_lock(&searcher->catalog);
    lk_status s = lk_collection_each(searcher->collection, after, page_record, &p);
    pthread_mutex_unlock(&searcher->catalog);
    if (s == LK_CANCELLED) s = LK_OK;
    if (s != LK_OK) lk_results_free(out);
    return s;
}

/* ---- for the rest of the engine ---- */

lk_searcher_view lk_searcher_use(lk_searcher *searcher)
{
    view *v = view_use(searcher);
    return (lk_searcher_view){lk_snapshot_index(v->snapshot), v->snapshot, v};
}

void lk_searcher_give_back(lk_searcher_view *v)
{
    view_release(v->held);
    *v = (lk_searcher_view){0};
}

lk_context *lk_searcher_context(const lk_searcher *searcher)
{
    return searcher->context;
}

lk_feature_store *lk_searcher_feature_store(lk_searcher *searcher)
{
    return &searcher->features;
}

const char *lk_searcher_path(const lk_searcher *searcher)
{
    return lk_collection_path(searcher->collection);
}

static void look_for_neighbours(lk_searcher *searcher, view *v)
{
    char *path = lk_path_join(lk_searcher_path(searcher), LK_NEIGHBOURS_FILE);
    uint64_t stamp = 0;
    lk_status s = path ? lk_knn_open(path, &v->neighbours, &stamp) : LK_NO_MEMORY;
    if (s != LK_OK && s != LK_NOT_FOUND)
        lk_log(searcher->context, LK_LOG_WARN, "the table of neighbours is not used: %s", lk_error_message());
    if (s == LK_OK && stamp != lk_snapshot_stamp(v->snapshot)) {
        lk_log(searcher->context, LK_LOG_WARN,
               "%s: the pictures have changed since; `likeness neighbours` makes it anew", path);
        lk_knn_free(v->neighbours);
        v->neighbours = NULL;
    }
    free(path);
}

lk_knn *lk_searcher_view_neighbours(lk_searcher *searcher, lk_searcher_view *v)
{
    pthread_mutex_lock(&v->held->mutex);
    if (!v->held->looked) look_for_neighbours(searcher, v->held);
    v->held->looked = true;
    lk_knn *found = v->held->neighbours;
    pthread_mutex_unlock(&v->held->mutex);
    return found;
}

bool lk_searcher_has_neighbours(lk_searcher *searcher)
{
    lk_searcher_view v = lk_searcher_use(searcher);
    bool has = lk_searcher_view_neighbours(searcher, &v) != NULL;
    lk_searcher_give_back(&v);
    return has;
}

/* All vectors of an index, in order of id, so that equally near ones go by id in the table too. */
static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

lk_status lk_searcher_vectors(const lk_flat *index, uint64_t **ids, float **vectors)
{
    size_t n = lk_flat_count(index), dim = lk_flat_dim(index);
    *ids = lk_alloc(n, sizeof **ids);
    *vectors = dim <= SIZE_MAX / (n + 1) ? lk_alloc(n * dim, sizeof **vectors) : NULL;
    lk_status s = *ids && *vectors ? LK_OK : lk_fail_memory("vectors");
    if (s == LK_OK) {
        lk_flat_ids(index, *ids);
        qsort(*ids, n, sizeof **ids, by_id);
    }
    for (size_t i = 0; s == LK_OK && i < n; i++) s = lk_flat_vector(index, (*ids)[i], *vectors + i * dim);
    if (s == LK_OK) return LK_OK;
    free(*ids);
    free(*vectors);
    *ids = NULL;
    *vectors = NULL;
    return s;
}

lk_status lk_searcher_build_neighbours(lk_searcher *searcher, size_t k)
{
    uint64_t *ids = NULL;
    float *vectors = NULL;
    lk_knn *knn = NULL;
    char *path = lk_path_join(lk_searcher_path(searcher), LK_NEIGHBOURS_FILE);
    lk_searcher_view v = lk_searcher_use(searcher);
    size_t n = lk_flat_count(v.index);
    lk_status s = LK_OK;
    if (!path)
        s = lk_fail_memory("neighbours");
    else if (n == 0)
        s = lk_fail(LK_INVALID, "the collection is empty: index some pictures first");
    else if (lk_flat_metric(v.index) != LK_COSINE)
        s = lk_fail(LK_UNSUPPORTED, "tables of neighbours are for collections of cosine vectors");
    if (s != LK_OK) goto done;
    LK_TRY(lk_searcher_vectors(v.index, &ids, &vectors));
    LK_TRY(lk_knn_new(searcher->context, n, lk_flat_dim(v.index), ids, vectors, k ? k : 50, &knn));
    LK_TRY(lk_knn_save(knn, path, lk_snapshot_stamp(v.snapshot)));
    pthread_mutex_lock(&v.held->mutex);
    v.held->looked = v.held->neighbours != NULL; /* searches that run may use the old one: it is of the same vectors */
    pthread_mutex_unlock(&v.held->mutex);
done:
    lk_searcher_give_back(&v);
    lk_knn_free(knn);
    free(ids);
    free(vectors);
    free(path);
    return s;
}

lk_status lk_searcher_with_index(lk_searcher *searcher, lk_status (*fn)(void *user, const lk_flat *index), void *user)
{
    view *v = view_use(searcher);
    lk_status s = fn(user, lk_snapshot_index(v->snapshot));
    view_release(v);
    return s;
}

lk_status lk_searcher_each(lk_searcher *searcher, lk_record_fn fn, void *user)
{
    pthread_mutex_lock(&searcher->catalog);
    lk_status s = lk_collection_each(searcher->collection, 0, fn, user);
    pthread_mutex_unlock(&searcher->catalog);
    return s;
}
