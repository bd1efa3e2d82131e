/* SuperGlobal's refinement of global descriptors; include/likeness/rank.h says what it computes. */
#include "base/error.h"
#include "base/memory.h"
#include "index/distance.h"
#include "index/topk.h"

#include <likeness/rank.h>
#include <stdlib.h>
#include <string.h>

lk_superglobal_options lk_superglobal_defaults(void)
{
    return (lk_superglobal_options){.k = 9, .beta = 0.15f};
}

typedef struct refinement {
    const lk_distance_kernels *kernels;
    size_t dim, count, take; /* take: k + 1, or all */
    float beta;
    const float *vectors;
    float *refined; /* [count][dim] */
    float *scores;  /* [count]: scratch */
    lk_hit *hits;
} refinement;

static void best(refinement *r, size_t *found)
{
    lk_topk top;
    lk_topk_init(&top, r->hits, r->take);
    for (size_t i = 0; i < r->count; i++) lk_topk_push(&top, r->scores[i], i);
    *found = lk_topk_finish(&top);
}

/* The most similar one counts 1: it is the item itself, unless there are doubles. */
static void refine(refinement *r, size_t item)
{
    size_t found;
    float *out = r->refined + item * r->dim, total = 0;
    r->kernels->rows_dot[LK_F32](r->vectors + item * r->dim, r->vectors, r->dim * sizeof(float), r->count, r->dim, NULL,
                                 r->scores);
    best(r, &found);
    memset(out, 0, r->dim * sizeof *out);
    for (size_t i = 0; i < found; i++) {
        float weight = i == 0 ? 1 : r->beta * r->hits[i].score;
        const float *x = r->vectors + r->hits[i].id * r->dim;
        for (size_t d = 0; d < r->dim; d++) out[d] += weight * x[d];
        total += weight;
    }
    for (size_t d = 0; d < r->dim; d++) out[d] /= total;
}

lk_status lk_superglobal_rerank(const lk_superglobal_options *options, size_t dim, const float *query, size_t count,
                                const float *vectors, float *out)
{
    lk_superglobal_options o = options ? *options : lk_superglobal_defaults();
    if (count == 0) return LK_OK;
    refinement r = {.kernels = lk_distance_kernels_for(lk_cpu_detect()),
                    .dim = dim,
                    .count = count,
                    .beta = o.beta,
                    .vectors = vectors};
    r.take = (size_t)o.k + 1 < count ? (size_t)o.k + 1 : count;
    float *fresh = lk_alloc(dim, sizeof *fresh);
    r.refined = lk_alloc(count * dim, sizeof *r.refined);
    r.scores = lk_alloc(count, sizeof *r.scores);
    r.hits = lk_alloc(lk_topk_capacity(r.take), sizeof *r.hits);
    lk_status s = fresh && r.refined && r.scores && r.hits ? LK_OK : lk_fail_memory("SuperGlobal");
    if (s == LK_OK) {
        size_t found, stride = dim * sizeof(float);
        for (size_t i = 0; i < count; i++) refine(&r, i);
        r.kernels->rows_dot[LK_F32](query, r.refined, stride, count, dim, NULL, r.scores);
        memcpy(out, r.scores, count * sizeof *out);
        best(&r, &found);
        for (size_t d = 0; found && d < dim; d++) {
            fresh[d] = r.refined[r.hits[0].id * dim + d];
            for (size_t i = 1; i < found; i++) {
                float x = r.refined[r.hits[i].id * dim + d];
                fresh[d] = x > fresh[d] ? x : fresh[d];
            }
        }
        r.kernels->rows_dot[LK_F32](fresh, r.refined, stride, count, dim, NULL, r.scores);
        for (size_t i = 0; i < count; i++) out[i] = (out[i] + r.scores[i]) / 2;
    }
    free(fresh);
    free(r.refined);
    free(r.scores);
    free(r.hits);
    return s;
}
