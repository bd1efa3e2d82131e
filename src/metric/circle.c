/* Circle loss (Sun et al., 2020, eq. 6 with the pair-wise weights of eq. 5), c = cosine, relaxation m, scale g:
 *
 *     loss_i = log(1 + sum_p exp(-g a_p (c_ip - (1 - m)))  *  sum_n exp(g a_n (c_in - m)))
 *     a_p = max(0, 1 + m - c_ip),  a_n = max(0, c_in + m),  both held constant in the gradient
 *
 * Elements: anchors with both kinds of pairs, averaged over those above zero. Weighted: within the sums. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

lk_status lk_run_circle(lk_problem *p, double *value)
{
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    double m = p->options->margin, g = p->options->scale;
    double *share = lk_alloc(lk_group_widest(pos, p->n) + lk_group_widest(neg, p->n), sizeof *share);
    if (!share) return lk_fail_memory("pairs");
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN_NONZERO);
    for (size_t i = 0; i < p->n; i++) {
        size_t p0 = pos->at[i], positives = pos->at[i + 1] - p0, n0 = neg->at[i], negatives = neg->at[i + 1] - n0;
        double *other = share + positives;
        for (size_t k = 0; k < positives; k++) {
            double c = lk_at(p, i, pos->other[p0 + k]);
            share[k] = -g * fmax(0, 1 + m - c) * (c - (1 - m));
        }
        for (size_t k = 0; k < negatives; k++) {
            double c = lk_at(p, i, neg->other[n0 + k]);
            other[k] = g * fmax(0, c + m) * (c - m);
        }
        double both = lk_log_sum_exp(share, pos->weight ? pos->weight + p0 : NULL, positives, 0) +
                      lk_log_sum_exp(other, neg->weight ? neg->weight + n0 : NULL, negatives, 0);
        if (!lk_reduce(&r, positives && negatives ? lk_softplus(both) : 0) || !positives || !negatives) continue;
        double slope = g * lk_sigmoid(both);
        for (size_t k = 0; k < positives; k++) {
            double c = lk_at(p, i, pos->other[p0 + k]);
            *lk_slope(p, i, pos->other[p0 + k]) -= slope * share[k] * fmax(0, 1 + m - c);
        }
        for (size_t k = 0; k < negatives; k++) {
            double c = lk_at(p, i, neg->other[n0 + k]);
            *lk_slope(p, i, neg->other[n0 + k]) += slope * other[k] * fmax(0, c + m);
        }
    }
    free(share);
    *value = lk_reduced(p, &r);
    return LK_OK;
}
