/* The graph index behind the common face of index/ann.h. */
#include "base/error.h"
#include "index/ann.h"
#include "index/graph.h"

#include <math.h>
#include <stdio.h>

/* Bytes of a finished index of this degree, as lk_graph_index_bytes counts them; fewer when a narrow projection does.
 */
static uint64_t expected_bytes(const lk_ann_input *input, size_t degree, bool exact)
{
    uint64_t stride = (input->dim + 63) / 64 * 64, slots = 64;
    while (slots / 4 * 3 < input->n) slots *= 2;
    uint64_t row = stride * (exact ? 1 : 2) + lk_graph_index_projected_most(input->dim) + degree * 4 + 8 +
                   (input->metric == LK_INNER_PRODUCT ? 4 : 0);
    return input->n * row + input->n / 8 + slots * 16 + 64 * row;
}

static lk_status build(lk_context *context, const lk_ann_input *input, void **out)
{
    static const size_t degrees[] = {32, 24, 16, 12};
    lk_graph_index_options options = {.seed = input->seed};
    bool whole = true;
    for (size_t i = 0; whole && i < input->n * input->dim; i++)
        whole = input->vectors[i] == rintf(input->vectors[i]) && fabsf(input->vectors[i]) <= 255;
    whole = whole && input->metric != LK_COSINE;
    /* Less memory: first fewer links, then no second byte per component. */
    for (size_t i = 0; i < 8; i++) {
        options.degree = degrees[i % 4];
        options.refine = whole || i >= 4 ? -1 : 1;
        if (input->memory_limit == 0 ||
            expected_bytes(input, options.degree, options.refine < 0) <= input->memory_limit)
            return lk_graph_index_build(context, &options, input->metric, input->dim, input->n, input->ids,
                                        input->vectors, (lk_graph_index **)out);
    }
    return lk_fail(LK_LIMIT, "a graph of %zu vectors of %zu components needs %llu bytes, not %zu", input->n, input->dim,
                   (unsigned long long)expected_bytes(input, degrees[3], true), input->memory_limit);
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

static lk_status range(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                       float bound, size_t most, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    return lk_graph_index_range(index, context, effort, n, queries, bound, most, filter, filter_user, hits, counts);
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
    const lk_graph_index *g = index;
    *out = (lk_ann_size){.dim = g->dim,
                         .vectors = g->count,
                         .resident = lk_graph_index_bytes(index),
                         .disk = lk_graph_index_file_bytes(index)};
}

static lk_status save(const void *index, const char *path)
{
    return lk_graph_index_save(index, path);
}

static lk_status open_file(const char *path, void **out)
{
    return lk_graph_index_open(path, 0, (lk_graph_index **)out);
}

static lk_status verify(const char *path)
{
    lk_graph_index *index;
    lk_status s = lk_graph_index_open(path, LK_GRAPH_VERIFY, &index);
    if (s == LK_OK) lk_graph_index_free(index);
    return s;
}

static void describe(const void *index, char *text, size_t size_of_text)
{
    const lk_graph_index *g = index;
    int length = snprintf(text, size_of_text, "degree %zu, 8-bit codes%s%s", g->degree,
                          g->quantiser.exact ? " (exact)" : "", g->residuals ? ", 8-bit residuals" : "");
    if (g->projected && (size_t)length < size_of_text)
        snprintf(text + length, size_of_text - (size_t)length, ", %zu projected components", g->projection.width);
}

const lk_ann_type lk_ann_graph = {
    .name = "graph",
    .build = build,
    .free = graph_free,
    .search = search,
    .range = range,
    .efforts = efforts,
    .size = size,
    .save = save,
    .open = open_file,
    .verify = verify,
    .describe = describe,
};
