/* A collection opened for searching. */
#include "engine/searcher.h"
#include "base/error.h"
#include "base/memory.h"
#include <likeness/engine.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A snapshot with the number of searches that use it; the searcher itself counts as one. */
typedef struct view {
    lk_snapshot *snapshot;
    atomic_int users;
} view;

struct lk_searcher {
    lk_context *context;
    lk_embedder *embedder;
    lk_collection *collection; /* guarded by catalog: SQLite's handle is for one thread at a time */
    pthread_mutex_t catalog;
    view *present; /* guarded by swap */
    pthread_mutex_t swap;
    uint64_t version; /* of the present view; guarded by catalog */
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
    atomic_store(&v->users, 1);
    *out = v;
    return LK_OK;
}

static void view_release(view *v)
{
    if (!v || atomic_fetch_sub(&v->users, 1) != 1) return;
    lk_snapshot_free(v->snapshot);
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
    lk_status s;
    LK_TRY(lk_collection_open(path, LK_READ, &searcher->collection));
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
    lk_collection_close(searcher->collection);
    pthread_mutex_destroy(&searcher->catalog);
    pthread_mutex_destroy(&searcher->swap);
    free(searcher);
}

lk_status lk_searcher_refresh(lk_searcher *searcher)
{
    view *fresh = NULL;
    uint64_t version;
    pthread_mutex_lock(&searcher->catalog);
    lk_status s = lk_collection_version(searcher->collection, &version);
    if (s == LK_OK && version != searcher->version) {
        s = view_new(searcher->collection, &fresh);
        if (s == LK_OK) searcher->version = version;
    }
    pthread_mutex_unlock(&searcher->catalog);
    if (!fresh) return s;
    pthread_mutex_lock(&searcher->swap);
    view *old = searcher->present;
    searcher->present = fresh;
    pthread_mutex_unlock(&searcher->swap);
    view_release(old);
    return LK_OK;
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
                      .score = score};
    results->items[results->count++] = item;
    if (!item.path || !item.labels || (record->label && !item.label)) return lk_fail_memory("results");
    return LK_OK;
}

/* Fills in what the catalog knows of each hit. A picture removed since the snapshot was taken is left out. */
static lk_status describe(lk_searcher *searcher, const lk_hit *hits, size_t count, int64_t exclude, size_t k,
                          lk_results *out)
{
    *out = (lk_results){.items = lk_alloc_zero(count, sizeof *out->items),
                        .metric = lk_collection_config_of(searcher->collection).metric};
    if (!out->items) return lk_fail_memory("results");
    lk_status s = LK_OK;
    pthread_mutex_lock(&searcher->catalog);
    for (size_t i = 0; s == LK_OK && i < count && out->count < k; i++) {
        lk_record record;
        if ((int64_t)hits[i].id == exclude) continue;
        s = lk_collection_find_id(searcher->collection, (int64_t)hits[i].id, &record);
        if (s == LK_NOT_FOUND) {
            s = LK_OK;
            continue;
        }
        if (s != LK_OK) break;
        s = append(out, &record, hits[i].score);
        lk_record_free(&record);
    }
    pthread_mutex_unlock(&searcher->catalog);
    if (s != LK_OK) lk_results_free(out);
    return s;
}

static lk_status search_view(lk_searcher *searcher, view *v, const float *vector, const lk_search_options *options,
                             lk_results *out)
{
    const lk_flat *index = lk_snapshot_index(v->snapshot);
    size_t k = options && options->k ? options->k : 10, all = lk_flat_count(index), count = 0;
    int64_t exclude = options ? options->exclude_id : 0;
    size_t wanted = k < all ? k + (exclude != 0) : all;
    *out = (lk_results){.metric = lk_flat_metric(index)};
    if (wanted == 0) return LK_OK;
    lk_hit *hits = lk_alloc(wanted, sizeof *hits);
    if (!hits) return lk_fail_memory("results");
    lk_status s = lk_flat_search(index, searcher->context, 1, vector, wanted, NULL, NULL, hits, &count);
    if (s == LK_OK) s = describe(searcher, hits, count, exclude, k, out);
    free(hits);
    return s;
}

lk_status lk_search_vector(lk_searcher *searcher, const float *vector, const lk_search_options *options,
                           lk_results *out)
{
    *out = (lk_results){0};
    view *v = view_use(searcher);
    lk_status s = search_view(searcher, v, vector, options, out);
    view_release(v);
    return s;
}

lk_status lk_search_image(lk_searcher *searcher, const lk_image *image, const lk_search_options *options,
                          lk_results *out)
{
    *out = (lk_results){0};
    float *vector = lk_alloc(lk_embedder_dim(searcher->embedder), sizeof *vector);
    if (!vector) return lk_fail_memory("query");
    lk_status s = lk_embedder_embed(searcher->embedder, image, 1, vector);
    if (s == LK_OK) s = lk_search_vector(searcher, vector, options, out);
    free(vector);
    return s;
}

lk_status lk_search_text(lk_searcher *searcher, const char *text, const lk_search_options *options, lk_results *out)
{
    *out = (lk_results){0};
    float *vector = lk_alloc(lk_embedder_dim(searcher->embedder), sizeof *vector);
    if (!vector) return lk_fail_memory("query");
    lk_status s = lk_embedder_embed_text(searcher->embedder, &text, 1, vector);
    if (s == LK_OK) s = lk_search_vector(searcher, vector, options, out);
    free(vector);
    return s;
}

lk_status lk_search_id(lk_searcher *searcher, int64_t id, const lk_search_options *options, lk_results *out)
{
    *out = (lk_results){0};
    view *v = view_use(searcher);
    const lk_flat *index = lk_snapshot_index(v->snapshot);
    lk_search_options without = options ? *options : (lk_search_options){0};
    without.exclude_id = id;
    float *vector = lk_alloc(lk_flat_dim(index), sizeof *vector);
    lk_status s = vector ? lk_flat_vector(index, (uint64_t)id, vector) : lk_fail_memory("query");
    if (s == LK_NOT_FOUND) lk_fail(s, "no picture with a vector has the id %lld", (long long)id);
    if (s == LK_OK) s = search_view(searcher, v, vector, &without, out);
    view_release(v);
    free(vector);
    return s;
}

lk_status lk_searcher_record(lk_searcher *searcher, int64_t id, lk_record *out)
{
    pthread_mutex_lock(&searcher->catalog);
    lk_status s = lk_collection_find_id(searcher->collection, id, out);
    pthread_mutex_unlock(&searcher->catalog);
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

/* ---- for the evaluation ---- */

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
