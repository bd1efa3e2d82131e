/* Supervised contrastive loss (Khosla et al., 2020, eq. 2), z = cosine / temperature:
 *
 *     loss_i = -1/|P(i)| sum over p in P(i) of (z_ip - log sum over all pairs j of i of exp z_ij)
 *
 * Elements: anchors with positives, averaged over those above zero; nothing when the batch has no negative or no
 * positive pair at all. Weighted: positives by their share of the mean, all within the sum. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

lk_status lk_run_supcon(lk_problem *p, double *value)
{
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    double scale = 1 / p->options->temperature;
    *value = 0;
    if (!pos->count || !neg->count) return LK_OK;
    size_t widest = lk_group_widest(pos, p->n) + lk_group_widest(neg, p->n);
    double *share = lk_alloc(2 * widest, sizeof *share), *weight = share ? share + widest : NULL;
    if (!share) return lk_fail_memory("pairs");
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN_NONZERO);
    for (size_t i = 0; i < p->n; i++) {
        size_t p0 = pos->at[i], positives = pos->at[i + 1] - p0, n0 = neg->at[i], all = positives;
        double mean = 0, total = 0;
        for (size_t k = 0; k < positives; k++) {
            share[k] = -p->side * scale * lk_at(p, i, pos->other[p0 + k]);
            weight[k] = lk_group_weight(pos, p0 + k);
            mean += weight[k] * share[k];
            total += weight[k];
        }
        for (size_t k = n0; k < neg->at[i + 1]; k++, all++) {
            share[all] = -p->side * scale * lk_at(p, i, neg->other[k]);
            weight[all] = lk_group_weight(neg, k);
        }
        double loss = total > 0 ? lk_log_sum_exp(share, weight, all, 0) - mean / total : 0;
        if (!lk_reduce(&r, loss) || !(total > 0)) continue;
        for (size_t k = 0; k < positives; k++)
            *lk_slope(p, i, pos->other[p0 + k]) -= p->side * scale * (share[k] - weight[k] / total);
        for (size_t k = positives; k < all; k++)
            *lk_slope(p, i, neg->other[n0 + k - positives]) -= p->side * scale * share[k];
    }
    free(share);
    *value = lk_reduced(p, &r);
    return LK_OK;
}
