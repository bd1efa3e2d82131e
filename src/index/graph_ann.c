/* The graph index behind the common face of index/ann.h. */
#include "index/ann.h"
#include "index/graph.h"

#include <stdio.h>

static lk_status build(lk_context *context, const lk_ann_input *input, void **out)
{
    lk_graph_index_options options = {.seed = input->seed};
    return lk_graph_index_build(context, &options, input->metric, input->dim, input->n, input->ids, input->vectors,
                                (lk_graph_index **)out);
}

static void graph_free(void *index)
{
    lk_graph_index_free(index);
}

static lk_status search(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                        size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    return lk_graph_index_search(index, context, effort, n, queries, k, filter, filter_user, hits, counts);
}

static size_t efforts(const void *index, size_t k, unsigned *out)
{
    (void)index;
    size_t count = 0;
    for (unsigned effort = (unsigned)k; effort <= 40 * k && count < LK_ANN_MAX_EFFORTS; effort += effort / 4 + 1)
        out[count++] = effort;
    return count;
}

static void size(const void *index, lk_ann_size *out)
{
    *out = (lk_ann_size){.resident = lk_graph_index_bytes(index), .disk = lk_graph_index_file_bytes(index)};
}

static lk_status save(const void *index, const char *path)
{
    return lk_graph_index_save(index, path);
}

static lk_status open_file(const char *path, void **out)
{
    return lk_graph_index_open(path, 0, (lk_graph_index **)out);
}

static void describe(const void *index, char *text, size_t size_of_text)
{
    const lk_graph_index *g = index;
    snprintf(text, size_of_text, "degree %zu, 8-bit codes%s%s", g->degree, g->quantiser.exact ? " (exact)" : "",
             g->residuals ? ", 8-bit residuals" : "");
}

const lk_ann_type lk_ann_graph = {
    .name = "graph",
    .build = build,
    .free = graph_free,
    .search = search,
    .efforts = efforts,
    .size = size,
    .save = save,
    .open = open_file,
    .describe = describe,
};
