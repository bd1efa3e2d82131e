/* Verifying and repairing all of a collection: what the store knows of, the model, and the table of neighbours. */
#include "base/error.h"
#include "base/file.h"
#include "engine/searcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void tell(lk_report_fn report, void *user, uint64_t *count, const char *text)
{
    ++*count;
    if (report) report(user, text);
}

static lk_status read_neighbours(const char *path)
{
    lk_knn *knn = NULL;
    uint64_t stamp;
    lk_status s = lk_knn_open(path, &knn, &stamp);
    lk_knn_free(knn);
    return s == LK_NOT_FOUND ? LK_OK : s;
}

lk_status lk_verify(const char *path, lk_report_fn report, void *user, uint64_t *problems)
{
    lk_collection *collection = NULL;
    lk_embedder *embedder = NULL;
    char *neighbours = lk_path_join(path, LK_NEIGHBOURS_FILE);
    *problems = 0;
    lk_status s = neighbours ? LK_OK : lk_fail_memory(path);
    if (s == LK_OK) s = lk_collection_open(path, LK_READ, &collection);
    if (s == LK_OK) s = lk_collection_verify(collection, report, user, problems);
    if (s != LK_OK) goto done;
    s = read_neighbours(neighbours);
    if (s == LK_NO_MEMORY) goto done;
    if (s != LK_OK) tell(report, user, problems, lk_error_message());
    s = lk_embedder_open(lk_collection_model_dir(collection), &embedder); /* it has checksums of its own */
    if (s == LK_NO_MEMORY) goto done;
    if (s != LK_OK) tell(report, user, problems, lk_error_message());
    s = LK_OK;
done:
    free(neighbours);
    lk_embedder_free(embedder);
    lk_collection_close(collection);
    return s;
}

lk_status lk_repair(const char *path, lk_report_fn report, void *user, uint64_t *repairs)
{
    char *neighbours = NULL;
    lk_status s = lk_collection_repair(path, report, user, repairs);
    if (s != LK_OK) return s;
    if (!(neighbours = lk_path_join(path, LK_NEIGHBOURS_FILE))) return lk_fail_memory(path);
    s = read_neighbours(neighbours);
    if (s == LK_CORRUPT) {
        s = unlink(neighbours) == 0 ? LK_OK : lk_fail_errno(errno, "%s: cannot be removed", neighbours);
        char *text = NULL;
        if (s == LK_OK && asprintf(&text, "%s: is dropped; `likeness neighbours` makes it anew", neighbours) >= 0) {
            tell(report, user, repairs, text);
            free(text);
        }
    } else if (s != LK_NO_MEMORY) {
        s = LK_OK; /* verification says what is the matter */
    }
    free(neighbours);
    return s;
}
