/* Neighbours from a table, distances from the vectors of an exact index. */
#include "base/error.h"
#include "base/memory.h"
#include "rank/knn.h"

#include <stdlib.h>

enum { ON_STACK = 1024 };

static lk_status neighbours(void *user, uint64_t id, size_t k, lk_hit *out, size_t *count, float *farthest)
{
    const lk_indexed_source *source = user;
    return lk_knn_neighbours(source->knn, id, k, out, count, farthest);
}

static lk_status measure(const lk_indexed_source *source, uint64_t a, uint64_t b, float *scratch, float *out)
{
    size_t dim = lk_flat_dim(source->index);
    const float *x = source->query, *y = source->query;
    lk_status s = LK_OK;
    if (a != LK_RANK_QUERY) {
        s = lk_flat_vector(source->index, a, scratch);
        x = scratch;
    }
    if (s == LK_OK && b != LK_RANK_QUERY) {
        s = lk_flat_vector(source->index, b, scratch + dim);
        y = scratch + dim;
    }
    if (s == LK_OK) *out = (float)lk_rank_distance(x, y, dim);
    return s;
}

static lk_status distance(void *user, uint64_t a, uint64_t b, float *out)
{
    const lk_indexed_source *source = user;
    float few[2 * ON_STACK];
    size_t dim = lk_flat_dim(source->index);
    if (dim <= ON_STACK) return measure(source, a, b, few, out);
    float *many = lk_alloc(2 * dim, sizeof *many);
    lk_status s = many ? measure(source, a, b, many, out) : lk_fail_memory("re-ranking");
    free(many);
    return s;
}

lk_neighbour_source lk_source_of_index(lk_indexed_source *indexed)
{
    return (lk_neighbour_source){neighbours, distance, indexed};
}
