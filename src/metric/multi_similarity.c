/* Multi-similarity loss (Wang et al., 2019, eq. 18), c = cosine:
 *
 *     loss_i = 1/a log(1 + sum_p exp(-a (c_ip - b)))  +  1/b' log(1 + sum_n exp(b' (c_in - b)))
 *
 * with alpha a, beta b', base b. Elements: anchors, plain mean (those without pairs count as 0). Weighted: within the
 * sums. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

static double half(lk_problem *p, size_t i, const lk_group *group, double toward, double sharpness, double *share)
{
    size_t begin = group->at[i], count = group->at[i + 1] - begin;
    for (size_t k = 0; k < count; k++)
        share[k] = sharpness * toward * (lk_at(p, i, group->other[begin + k]) - p->options->base);
    double term = lk_log_sum_exp(share, group->weight ? group->weight + begin : NULL, count, 1) / sharpness;
    for (size_t k = 0; k < count; k++) *lk_slope(p, i, group->other[begin + k]) += toward * share[k];
    return term;
}

lk_status lk_run_multi_similarity(lk_problem *p, double *value)
{
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    size_t a = lk_group_widest(pos, p->n), b = lk_group_widest(neg, p->n);
    double *share = lk_alloc(a > b ? a : b, sizeof *share);
    if (!share) return lk_fail_memory("pairs");
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++)
        lk_reduce(&r, half(p, i, pos, p->side, p->options->alpha, share) +
                          half(p, i, neg, -p->side, p->options->beta, share));
    free(share);
    *value = lk_reduced(p, &r);
    return LK_OK;
}
