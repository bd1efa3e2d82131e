#include "engine/local_features.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "engine/searcher.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

_Static_assert(LK_FEATURES_NEWEST == (int)LK_LOCAL_VERSION, "a version of the features is a version of their store");

enum { BATCH = 256 }; /* pictures that are stored at once by lk_searcher_build_local_features */

/* The open store with its mutex held, or NULL. */
static lk_features *borrow(lk_searcher *searcher)
{
    lk_feature_store *store = lk_searcher_feature_store(searcher);
    pthread_mutex_lock(&store->mutex);
    if (!store->looked && lk_features_open(lk_searcher_path(searcher), LK_LOCAL_VERSION, &store->features) != LK_OK)
        lk_log(lk_searcher_context(searcher), LK_LOG_WARN, "local features are not kept: %s", lk_error_message());
    store->looked = true;
    if (store->features) return store->features;
    pthread_mutex_unlock(&store->mutex);
    return NULL;
}

static void give_back(lk_searcher *searcher)
{
    pthread_mutex_unlock(&lk_searcher_feature_store(searcher)->mutex);
}

typedef struct loading {
    lk_searcher *searcher;
    const int64_t *ids;
    lk_local *out;         /* [n]; NULL: only what is missing is wanted, for the store */
    lk_features_row *rows; /* [n]: what was computed; bytes NULL where it was there, or cannot be read */
    atomic_size_t unreadable;
} loading;

/* Whether the store has it (and, if wanted, what). */
static bool stored(loading *l, size_t i, const lk_record *record)
{
    lk_features *features = borrow(l->searcher);
    uint8_t *bytes = NULL;
    size_t size;
    if (!features) return false;
    bool found = l->out ? lk_features_get(features, record->id, record->hash, &bytes, &size) == LK_OK
                        : lk_features_has(features, record->id, record->hash);
    give_back(l->searcher);
    if (found && l->out) found = lk_local_unpack(bytes, size, &l->out[i]) == LK_OK;
    free(bytes);
    return found;
}

/* Whether the file is still the one that was indexed: what is kept is kept under the hash of that. */
static bool unchanged(const lk_record *record)
{
    struct stat st;
    return stat(record->path, &st) == 0 && (uint64_t)st.st_size == record->size &&
           (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec == record->mtime_ns;
}

static lk_status load_some(void *arg, size_t begin, size_t end, int worker)
{
    loading *l = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        lk_record record;
        lk_local local = {0};
        if (lk_context_cancelled(lk_searcher_context(l->searcher)))
            return lk_fail(LK_CANCELLED, "the search was stopped");
        if (lk_searcher_record(l->searcher, l->ids[i], &record) != LK_OK) continue;
        lk_status s = LK_OK;
        if (record.state == LK_PICTURE_INDEXED && !stored(l, i, &record)) {
            s = lk_local_describe_file(record.path, &local);
            uint8_t *bytes = NULL;
            lk_features_row *row = &l->rows[i];
            *row = (lk_features_row){record.id, {record.hash[0], record.hash[1]}, NULL, 0};
            if (s == LK_OK && unchanged(&record)) s = lk_local_pack(&local, &bytes, &row->size);
            row->bytes = bytes;
            if (!bytes) atomic_fetch_add(&l->unreadable, 1);
        }
        lk_record_free(&record);
        if (l->out && local.count)
            l->out[i] = local;
        else
            lk_local_free(&local);
        if (s == LK_NO_MEMORY) return s;
    }
    return LK_OK;
}

/* Moves the rows that hold something to the front. */
static size_t computed(lk_features_row *rows, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (rows[i].bytes) rows[count++] = rows[i];
    return count;
}

static void free_rows(lk_features_row *rows, size_t n)
{
    for (size_t i = 0; rows && i < n; i++) free((void *)rows[i].bytes);
    free(rows);
}

/* rows of l receive what has to be computed. */
static lk_status load(loading *l, size_t n)
{
    l->rows = lk_alloc_zero(n, sizeof *l->rows);
    if (!l->rows) return lk_fail_memory("local features");
    return lk_parallel_for(lk_context_pool(lk_searcher_context(l->searcher)), n, 1, load_some, l);
}

lk_status lk_local_features_of(lk_searcher *searcher, const int64_t *ids, size_t n, lk_local *out)
{
    loading l = {.searcher = searcher, .ids = ids, .out = out};
    memset(out, 0, n * sizeof *out);
    lk_status s = load(&l, n);
    size_t count = l.rows ? computed(l.rows, n) : 0;
    lk_features *features = count ? borrow(searcher) : NULL;
    if (features) { /* what cannot be kept is computed again by the next */
        char message[LK_ERROR_SIZE];
        strcpy(message, lk_error_message());
        if (lk_features_put(features, l.rows, count) != LK_OK)
            lk_log(lk_searcher_context(searcher), LK_LOG_DEBUG, "local features are not kept: %s", lk_error_message());
        give_back(searcher);
        if (s != LK_OK) lk_fail(s, "%s", message);
    }
    free_rows(l.rows, count);
    return s;
}

/* Computes what is missing of n pictures and keeps it; *full when there is no room for all of it. */
static lk_status build_some(lk_searcher *searcher, const int64_t *ids, size_t n, size_t *unreadable, bool *full)
{
    loading l = {.searcher = searcher, .ids = ids};
    size_t added = 0;
    lk_status s = load(&l, n);
    size_t count = l.rows ? computed(l.rows, n) : 0;
    lk_features *features = count ? borrow(searcher) : NULL;
    if (features) {
        lk_status kept = lk_features_add(features, l.rows, count, &added);
        if (s == LK_OK) s = kept;
        give_back(searcher);
        *full = added < count;
    }
    *unreadable += l.unreadable;
    free_rows(l.rows, count);
    return s;
}

/* What all would take, by what those take that are there: in whole MiB, and one for what is rounded. */
static unsigned long long wanted_mib(uint64_t size, uint64_t kept, uint64_t all)
{
    return kept ? (unsigned long long)((double)size / (double)kept * (double)all / 1048576 * 1.05) + 1 : 0;
}

lk_status lk_searcher_build_local_features(lk_searcher *searcher, uint64_t limit, uint64_t *pictures)
{
    lk_searcher_view view = lk_searcher_use(searcher);
    lk_context *context = lk_searcher_context(searcher);
    size_t n = lk_flat_count(view.index), done = 0, unreadable = 0;
    bool full = false;
    uint64_t size = 0;
    int64_t *ids = lk_alloc(n, sizeof *ids);
    lk_status s = ids ? LK_OK : lk_fail_memory("local features");
    *pictures = 0;
    if (s != LK_OK) goto done;
    lk_flat_ids(view.index, (uint64_t *)ids);
    LK_TRY(lk_features_prune(lk_searcher_path(searcher)));
    lk_features *features = borrow(searcher);
    if (!features) {
        s = lk_fail(LK_IO, "%s: local features cannot be kept there", lk_searcher_path(searcher));
        goto done;
    }
    s = limit ? lk_features_set_limit(features, limit) : LK_OK;
    limit = lk_features_limit(features);
    give_back(searcher);
    for (; s == LK_OK && !full && done < n; done += BATCH) {
        size_t some = n - done < BATCH ? n - done : BATCH;
        s = build_some(searcher, ids + done, some, &unreadable, &full);
        lk_report_progress(context, "local features", done + some, n);
    }
    if (s != LK_OK || !(features = borrow(searcher))) goto done;
    *pictures = lk_features_count(features);
    size = lk_features_size(features);
    give_back(searcher);
    if (full && *pictures + unreadable < n)
        lk_log(context, LK_LOG_WARN,
               "local features: those of %zu of %zu pictures are not kept, because %llu MiB are the limit, and are "
               "computed when they are asked for; about %llu MiB would hold all",
               n - (size_t)*pictures - unreadable, n, (unsigned long long)(limit >> 20),
               wanted_mib(size, *pictures, n));
done:
    lk_searcher_give_back(&view);
    free(ids);
    return s;
}
