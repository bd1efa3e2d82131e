#include "store/manifest.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1u
static const char magic[8] = "LKMANIF";
static const char *const metrics[] = {"cosine", "ip", "l2"}, *const dtypes[] = {"f32", "f16", "i8"};

static int position(const char *text, const char *const *names)
{
    for (int i = 0; i < 3; i++)
        if (text && strcmp(text, names[i]) == 0) return i;
    return -1;
}

static lk_status parse(const char *path, json_t *root, lk_manifest *out)
{
    const char *metric, *dtype, *id, *name, *created;
    json_int_t dim;
    json_t *segments;
    if (json_unpack(root, "{s:I, s:s, s:s, s:s, s:s, s:s, s:o}", "dim", &dim, "metric", &metric, "dtype", &dtype,
                    "embedder_id", &id, "embedder_name", &name, "created", &created, "segments", &segments) != 0 ||
        position(metric, metrics) < 0 || position(dtype, dtypes) < 0 || dim < 1 || dim > 65536 ||
        !json_is_array(segments))
        return lk_fail(LK_CORRUPT, "%s: a member is missing or makes no sense", path);
    out->config = (lk_collection_config){.dim = (size_t)dim,
                                         .metric = (lk_metric)position(metric, metrics),
                                         .dtype = (lk_dtype)position(dtype, dtypes),
                                         .embedder_id = strdup(id),
                                         .embedder_name = strdup(name)};
    out->created = strdup(created);
    out->segments = lk_alloc(json_array_size(segments), sizeof *out->segments);
    if (!out->config.embedder_id || !out->config.embedder_name || !out->created || !out->segments)
        return lk_fail_memory(path);
    size_t i;
    json_t *item;
    json_array_foreach(segments, i, item)
    {
        json_int_t number, bytes, rows;
        if (json_unpack(item, "{s:I, s:I, s:I}", "number", &number, "bytes", &bytes, "rows", &rows) != 0)
            return lk_fail(LK_CORRUPT, "%s: segment %zu of the list is damaged", path, i);
        out->segments[out->segment_count++] = (lk_segment_row){(uint64_t)number, (uint64_t)bytes, (uint64_t)rows};
    }
    return LK_OK;
}

lk_status lk_manifest_read(const char *path, lk_manifest *out)
{
    *out = (lk_manifest){0};
    uint8_t *text;
    size_t size;
    lk_status s = lk_blob_read(path, magic, VERSION, &text, &size);
    if (s != LK_OK) return s;
    json_error_t error;
    json_t *root = json_loadb((const char *)text, size, 0, &error);
    s = root ? parse(path, root, out) : lk_fail(LK_CORRUPT, "%s: %s", path, error.text);
    json_decref(root);
    free(text);
    if (s != LK_OK) lk_manifest_free(out);
    return s;
}

lk_status lk_manifest_write(const char *path, const lk_manifest *m)
{
    json_t *segments = json_array();
    for (size_t i = 0; i < m->segment_count; i++)
        json_array_append_new(segments,
                              json_pack("{s:I, s:I, s:I}", "number", (json_int_t)m->segments[i].number, "bytes",
                                        (json_int_t)m->segments[i].bytes, "rows", (json_int_t)m->segments[i].rows));
    json_t *root =
        json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:o}", "dim", (json_int_t)m->config.dim, "metric",
                  metrics[m->config.metric], "dtype", dtypes[m->config.dtype], "embedder_id", m->config.embedder_id,
                  "embedder_name", m->config.embedder_name, "created", m->created, "segments", segments);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    lk_status s = text ? lk_blob_write(path, magic, VERSION, text, strlen(text)) : lk_fail_memory(path);
    free(text);
    json_decref(root);
    return s;
}

void lk_manifest_free(lk_manifest *m)
{
    free((char *)m->config.embedder_id);
    free((char *)m->config.embedder_name);
    free(m->created);
    free(m->segments);
    *m = (lk_manifest){0};
}
