#include "engine/derive.h"

#include "base/error.h"
#include "base/file.h"

#include <stdlib.h>

lk_status lk_derived_begin(lk_searcher *like, const char *path, lk_derived *out)
{
    lk_collection_config config = lk_searcher_config(like);
    char *model = NULL, *inside = NULL;
    *out = (lk_derived){0};
    lk_status s = lk_path_absolute(path, &out->path);
    if (s == LK_OK && lk_path_exists(path)) s = lk_fail(LK_CONFLICT, "%s: is there already", path);
    LK_TRY(s);
    LK_TRY(lk_make_dirs_above(path));
    LK_TRY(lk_workplace_open(path, &out->workplace));
    model = lk_path_join(out->workplace.path, "model");
    inside = lk_path_join(out->workplace.path, "collection");
    LK_TRY(model && inside ? LK_OK : lk_fail_memory(path));
    LK_TRY(lk_embedder_save(lk_searcher_embedder(like), model));
    config.model_dir = model;
    s = lk_collection_create(inside, &config, &out->collection);
done:
    free(model);
    free(inside);
    return s;
}

lk_status lk_derived_finish(lk_derived *d)
{
    char *inside = lk_path_join(d->workplace.path, "collection");
    lk_status s = inside ? lk_collection_commit(d->collection) : lk_fail_memory(d->path);
    lk_collection_close(d->collection);
    d->collection = NULL;
    if (s == LK_OK) s = lk_file_move(inside, d->path);
    free(inside);
    return s;
}

void lk_derived_free(lk_derived *d)
{
    lk_collection_close(d->collection);
    lk_workplace_close(&d->workplace);
    free(d->path);
    *d = (lk_derived){0};
}
