#include "embed/embedder.h"

#include "base/error.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

static const lk_embedder_kind *const kinds[] = {&lk_embedder_classical, &lk_embedder_neural};

lk_status lk_embedder_open(const char *directory, lk_embedder **out)
{
    *out = NULL;
    uint8_t *text = NULL;
    size_t size;
    json_t *config = NULL;
    char *path = lk_path_join(directory, "config.json");
    if (!path) return lk_fail_memory(directory);
    json_error_t error;
    lk_status s = lk_file_read(path, 1 << 20, &text, &size);
    if (s == LK_NOT_FOUND) lk_fail(s, "%s: is not a model (it has no config.json)", directory);
    if (s != LK_OK) goto done;
    config = json_loadb((const char *)text, size, 0, &error);
    if (!config) {
        s = lk_fail(LK_CORRUPT, "%s: line %d: %s", path, error.line, error.text);
        goto done;
    }
    const char *kind = json_string_value(json_object_get(config, "kind"));
    if (!kind) {
        s = lk_neural_open(directory, NULL, out); /* as it was downloaded */
        goto done;
    }
    s = lk_fail(LK_UNSUPPORTED, "%s: the model kind %s is not known to this version", path, kind);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, kind) == 0) s = kinds[i]->open(directory, config, out);
done:
    json_decref(config);
    free(text);
    free(path);
    return s;
}

lk_status lk_embedder_save(const lk_embedder *embedder, const char *directory)
{
    lk_status s = lk_make_dirs(directory);
    return s == LK_OK ? embedder->kind->save(embedder, directory) : s;
}

void lk_embedder_free(lk_embedder *embedder)
{
    if (embedder) embedder->kind->free(embedder);
}

size_t lk_embedder_dim(const lk_embedder *embedder)
{
    return embedder->dim;
}

const char *lk_embedder_name(const lk_embedder *embedder)
{
    return embedder->name;
}

const char *lk_embedder_id(const lk_embedder *embedder)
{
    return embedder->id;
}

lk_image_options lk_embedder_image_options(const lk_embedder *embedder)
{
    return embedder->decoding;
}

lk_status lk_embedder_embed(const lk_embedder *embedder, const lk_image *images, size_t n, float *out)
{
    return embedder->kind->embed(embedder, images, n, out);
}

lk_status lk_embedder_prepare(const lk_embedder *embedder)
{
    return embedder->kind->prepare ? embedder->kind->prepare(embedder) : LK_OK;
}

size_t lk_embedder_batch(const lk_embedder *embedder)
{
    return embedder->batch ? embedder->batch : 1;
}

bool lk_embedder_has_text(const lk_embedder *embedder)
{
    return embedder->kind->has_text && embedder->kind->has_text(embedder);
}

lk_status lk_embedder_embed_text(const lk_embedder *embedder, const char *const *texts, size_t n, float *out)
{
    if (!lk_embedder_has_text(embedder))
        return lk_fail(LK_UNSUPPORTED,
                       "%s: texts cannot be embedded: that wants a model such as CLIP with its own head",
                       embedder->name);
    return embedder->kind->embed_text(embedder, texts, n, out);
}
