/* A copy of a collection with augmented vectors. It is a collection like any other: nothing that reads collections
 * needs to know. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/derive.h"
#include "engine/searcher.h"

#include <stdlib.h>

enum { COMMIT_EVERY = 4096 };

typedef struct copying {
    lk_collection *into;
    const uint64_t *ids; /* [n], rising */
    const float *vectors;
    size_t n, dim, put;
} copying;

static lk_status copy_record(void *user, const lk_record *record)
{
    copying *c = user;
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->ids[middle] < (uint64_t)record->id)
            low = middle + 1;
        else
            high = middle;
    }
    const float *vector = low < c->n && c->ids[low] == (uint64_t)record->id ? c->vectors + low * c->dim : NULL;
    lk_record copy = *record;
    copy.id = 0;
    if (copy.state == LK_PICTURE_INDEXED && !vector) return LK_OK; /* younger than the view */
    lk_status s = lk_collection_put(c->into, &copy, copy.state == LK_PICTURE_INDEXED ? vector : NULL, NULL);
    if (s == LK_OK && ++c->put % COMMIT_EVERY == 0) s = lk_collection_commit(c->into);
    return s;
}

lk_status lk_augment_collection(lk_searcher *searcher, lk_expansion kind, float alpha, size_t k, const char *path)
{
    lk_searcher_view v = lk_searcher_use(searcher);
    copying c = {.n = lk_flat_count(v.index), .dim = lk_flat_dim(v.index)};
    lk_derived into = {0};
    uint64_t *ids = NULL;
    float *vectors = NULL, *augmented = NULL;
    lk_status s = LK_OK;
    if (lk_searcher_config(searcher).metric != LK_COSINE)
        s = lk_fail(LK_UNSUPPORTED, "augmentation is for collections of cosine vectors");
    else if (c.n == 0)
        s = lk_fail(LK_INVALID, "the collection is empty: index some pictures first");
    else if (lk_path_exists(path))
        s = lk_fail(LK_CONFLICT, "%s: is there already", path);
    if (s != LK_OK) goto done;
    LK_TRY(lk_searcher_vectors(v.index, &ids, &vectors));
    augmented = lk_alloc(c.n * c.dim, sizeof *augmented);
    if (!augmented) {
        s = lk_fail_memory("augmentation");
        goto done;
    }
    LK_TRY(lk_augment(lk_searcher_context(searcher), kind, alpha, k, c.n, c.dim, vectors, augmented));
    LK_TRY(lk_derived_begin(searcher, path, &into));
    c.into = into.collection;
    c.ids = ids;
    c.vectors = augmented;
    LK_TRY(lk_searcher_each(searcher, copy_record, &c));
    s = lk_derived_finish(&into);
done:
    lk_derived_free(&into);
    lk_searcher_give_back(&v);
    free(ids);
    free(vectors);
    free(augmented);
    return s;
}
