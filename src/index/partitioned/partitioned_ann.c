#include "index/partitioned/partitioned_ann.h"

#include "base/error.h"
#include "index/partitioned/partitioned.h"

#include <stdio.h>

static lk_status build(lk_context *context, const lk_ann_input *input, void **out)
{
    lk_partitioned_options options = {.seed = input->seed, .memory = input->memory_limit};
    return lk_partitioned_build_memory(context, input->n, input->dim, input->vectors, input->ids, input->metric,
                                       &options, (lk_partitioned **)out);
}

static void partitioned_free(void *index)
{
    lk_partitioned_free(index);
}

static lk_status search(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                        size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    lk_partitioned_effort how = {.probes = effort};
    return lk_partitioned_search(index, context, how, n, queries, k, filter, filter_user, hits, counts);
}

static lk_status range(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                       float bound, size_t most, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    lk_partitioned_effort how = {.probes = effort};
    return lk_partitioned_range(index, context, how, n, queries, bound, most, filter, filter_user, hits, counts);
}

/* Doubling by quarters from one cell to all of them. */
static size_t efforts(const void *index, size_t k, unsigned *out)
{
    size_t cells = lk_partitioned_partitions(index), count = 0;
    (void)k;
    for (size_t effort = 1; effort < cells && count < LK_ANN_MAX_EFFORTS; effort += effort / 4 + 1)
        out[count++] = (unsigned)effort;
    if (count == 0) out[count++] = 1;
    return count;
}

static void size(const void *index, lk_ann_size *out)
{
    *out = (lk_ann_size){.dim = lk_partitioned_dim(index),
                         .vectors = lk_partitioned_count(index),
                         .resident = lk_partitioned_bytes(index),
                         .disk = lk_partitioned_bytes(index)};
}

static lk_status save(const void *index, const char *path)
{
    return lk_partitioned_save(index, path);
}

static lk_status open_file(const char *path, void **out)
{
    return lk_partitioned_open(path, (lk_partitioned **)out);
}

static lk_status verify(const char *path)
{
    lk_partitioned *index;
    lk_status s = lk_partitioned_open(path, &index);
    if (s != LK_OK) return s;
    s = lk_partitioned_verify(index);
    lk_partitioned_free(index);
    return s == LK_OK ? s : lk_fail_in(s, "%s", path);
}

static void describe(const void *index, char *text, size_t size_of_text)
{
    static const char *const finer[] = {"int8", "f16", "f32", "no"};
    const lk_partitioned *p = index;
    snprintf(text, size_of_text, "%u partitions, %u codes of 4 bits, %s copies", p->header->partitions,
             p->header->groups, finer[p->header->refine]);
}

const lk_ann_type lk_ann_partitioned = {
    .name = "partitioned",
    .build = build,
    .free = partitioned_free,
    .search = search,
    .range = range,
    .efforts = efforts,
    .size = size,
    .save = save,
    .open = open_file,
    .verify = verify,
    .describe = describe,
};
