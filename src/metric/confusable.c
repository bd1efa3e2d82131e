/* Classes that are easily taken for one another: neighbours of their centroids, found by our own exact index. */
#include "base/error.h"
#include "base/memory.h"

#include <likeness/index.h>
#include <likeness/metric.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sum of the normalised embeddings of each class; count [classes] of pictures. */
static lk_status centroids(const float *embeddings, size_t n, size_t dim, const int32_t *labels, uint32_t classes,
                           float *centre, size_t *count)
{
    for (size_t i = 0; i < n; i++) {
        if (labels[i] < 0 || (uint32_t)labels[i] >= classes)
            return lk_fail(LK_INVALID, "label %d of picture %zu is not one of the %u classes", labels[i], i, classes);
        const float *x = embeddings + i * dim;
        double squares = 0;
        for (size_t k = 0; k < dim; k++) squares += (double)x[k] * (double)x[k];
        if (!isfinite(squares)) return lk_fail(LK_INVALID, "embedding %zu is not finite", i);
        float factor = squares > 0 ? (float)(1 / sqrt(squares)) : 0;
        float *sum = centre + (size_t)labels[i] * dim;
        for (size_t k = 0; k < dim; k++) sum[k] += factor * x[k];
        count[labels[i]]++;
    }
    return LK_OK;
}

lk_status lk_confusable_classes(const float *embeddings, size_t n, size_t dim, const int32_t *labels, uint32_t classes,
                                size_t count, uint32_t *out)
{
    lk_status s = LK_OK;
    lk_flat *index = NULL;
    lk_hit *hits = NULL;
    if (!classes || !count || count > classes)
        return lk_fail(LK_INVALID, "%zu confusable ones of %u classes", count, classes);
    float *centre = lk_alloc_zero((size_t)classes * dim, sizeof *centre);
    size_t *pictures = lk_alloc_zero(classes, sizeof *pictures);
    hits = lk_alloc(count + 1, sizeof *hits);
    if (!centre || !pictures || !hits) {
        s = lk_fail_memory("centroids");
        goto done;
    }
    LK_TRY(centroids(embeddings, n, dim, labels, classes, centre, pictures));
    LK_TRY(lk_flat_new(dim, LK_COSINE, LK_F32, &index));
    for (uint64_t c = 0; c < classes; c++)
        if (pictures[c]) LK_TRY(lk_flat_add(index, 1, &c, centre + c * dim));
    for (size_t c = 0; c < classes; c++) {
        size_t found = 0, kept = 0;
        if (pictures[c]) LK_TRY(lk_flat_search(index, NULL, 1, centre + c * dim, count + 1, NULL, NULL, hits, &found));
        for (size_t k = 0; k < found && kept < count; k++)
            if (hits[k].id != c) out[c * count + kept++] = (uint32_t)hits[k].id;
        while (kept < count) out[c * count + kept++] = UINT32_MAX;
    }
done:
    lk_flat_free(index);
    free(hits);
    free(pictures);
    free(centre);
    return s;
}
