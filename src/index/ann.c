/* The kinds by name, and the exact index behind the common face. */
#include "index/ann.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "index/auto.h"
#include "index/partitioned/partitioned_ann.h"

static lk_status flat_build(lk_context *context, const lk_ann_input *input, void **out)
{
    (void)context;
    *out = NULL;
    uint64_t bytes = (uint64_t)input->n * (input->dim * sizeof(float) + sizeof(uint64_t));
    if (input->memory_limit && bytes > input->memory_limit)
        return lk_fail(LK_LIMIT, "an exact index of %zu vectors takes %llu MiB; %llu were allowed", input->n,
                       (unsigned long long)(bytes >> 20), (unsigned long long)(input->memory_limit >> 20));
    lk_flat *index = NULL;
    uint64_t *ids = NULL;
    lk_status s;
    LK_TRY(lk_flat_new(input->dim, input->metric, LK_F32, &index));
    if (!input->ids) {
        ids = lk_alloc(input->n, sizeof *ids);
        if (!ids) {
            s = lk_fail_memory("ids");
            goto done;
        }
        for (size_t i = 0; i < input->n; i++) ids[i] = i;
    }
    LK_TRY(lk_flat_add(index, input->n, input->ids ? input->ids : ids, input->vectors));
    *out = index;
    index = NULL;
done:
    free(ids);
    lk_flat_free(index);
    return s;
}

static void flat_free(void *index)
{
    lk_flat_free(index);
}

static lk_status flat_search(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                             size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    (void)effort;
    return lk_flat_search(index, context, n, queries, k, filter, filter_user, hits, counts);
}

static lk_status flat_range(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                            float bound, size_t most, lk_id_filter filter, void *filter_user, lk_hit *hits,
                            size_t *counts)
{
    (void)effort;
    return lk_flat_range(index, context, n, queries, bound, most, filter, filter_user, hits, counts);
}

static size_t flat_efforts(const void *index, size_t k, unsigned *out)
{
    (void)index, (void)k;
    out[0] = 1;
    return 1;
}

static void flat_size(const void *index, lk_ann_size *out)
{
    uint64_t bytes = (uint64_t)lk_flat_count(index) * (lk_flat_dim(index) * sizeof(float) + sizeof(uint64_t));
    *out = (lk_ann_size){.dim = lk_flat_dim(index), .vectors = lk_flat_count(index), .resident = bytes};
}

static void flat_describe(const void *index, char *text, size_t size)
{
    (void)index;
    snprintf(text, size, "exact, f32");
}

const lk_ann_type lk_ann_flat = {
    .name = "flat",
    .build = flat_build,
    .free = flat_free,
    .search = flat_search,
    .range = flat_range,
    .efforts = flat_efforts,
    .size = flat_size,
    .describe = flat_describe,
};

const lk_ann_type *lk_ann_type_named(const char *name)
{
    static const lk_ann_type *const kinds[] = {&lk_ann_auto, &lk_ann_flat, &lk_ann_graph, &lk_ann_partitioned};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, name) == 0) return kinds[i];
    return NULL;
}
