/* Lifted structure (Oh Song et al., 2016, eq. 4), D = distance, margins m+ (0) and m- (1):
 *
 *     loss_ap = max(0, log sum over negatives n of a or of p of exp(m- - D)  +  D_ap - m+)^2 / 2
 *
 * Elements: positive pairs, plain mean. With a cross-batch memory the negatives are those of a alone.
 *
 * Generalised lifted structure (Hermans et al., 2017, eq. 6):
 *
 *     loss_i = max(0, log sum_p exp(D_ip - m+)  +  log sum_n exp(m- - D_in))
 *
 * Elements: anchors, plain mean; the logarithm of an empty sum counts as 0. Weighted: within the sums. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

/* Adds the exponents of the negatives of `anchor`; returns the new count. */
static size_t negatives_of(const lk_problem *p, size_t anchor, double *share, size_t count)
{
    const lk_group *neg = &p->sets.negative;
    for (size_t k = neg->at[anchor]; k < neg->at[anchor + 1]; k++)
        share[count++] = p->side * (p->options->negative_margin - lk_at(p, anchor, neg->other[k]));
    return count;
}

static size_t push_away(lk_problem *p, size_t anchor, const double *share, size_t count, double slope)
{
    const lk_group *neg = &p->sets.negative;
    for (size_t k = neg->at[anchor]; k < neg->at[anchor + 1]; k++)
        *lk_slope(p, anchor, neg->other[k]) -= p->side * slope * share[count++];
    return count;
}

lk_status lk_run_lifted(lk_problem *p, double *value)
{
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    *value = 0;
    if (!pos->count || !neg->count) return LK_OK;
    double *share = lk_alloc(2 * lk_group_widest(neg, p->n), sizeof *share);
    if (!share) return lk_fail_memory("negatives");
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++) {
            size_t other = pos->other[k], count = negatives_of(p, i, share, 0);
            bool both = p->matrix->self && other != i;
            if (both) count = negatives_of(p, other, share, count);
            double over = p->side * (lk_at(p, i, other) - p->options->positive_margin);
            over = fmax(0, over + lk_log_sum_exp(share, NULL, count, 0));
            if (!lk_reduce(&r, over * over / 2)) continue;
            *lk_slope(p, i, other) += p->side * over;
            size_t at = push_away(p, i, share, 0, over);
            if (both) push_away(p, other, share, at, over);
        }
    free(share);
    *value = lk_reduced(p, &r);
    return LK_OK;
}

lk_status lk_run_generalised_lifted(lk_problem *p, double *value)
{
    const lk_loss_options *o = p->options;
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    double *share = lk_alloc(lk_group_widest(pos, p->n) + lk_group_widest(neg, p->n), sizeof *share);
    if (!share) return lk_fail_memory("pairs");
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++) {
        size_t p0 = pos->at[i], positives = pos->at[i + 1] - p0, n0 = neg->at[i];
        for (size_t k = 0; k < positives; k++)
            share[k] = p->side * (lk_at(p, i, pos->other[p0 + k]) - o->positive_margin);
        double *other = share + positives;
        size_t negatives = negatives_of(p, i, other, 0);
        double over = lk_log_sum_exp(share, pos->weight ? pos->weight + p0 : NULL, positives, 0) +
                      lk_log_sum_exp(other, neg->weight ? neg->weight + n0 : NULL, negatives, 0);
        if (!lk_reduce(&r, fmax(0, over)) || !(over > 0)) continue;
        for (size_t k = 0; k < positives; k++) *lk_slope(p, i, pos->other[p0 + k]) += p->side * share[k];
        push_away(p, i, other, 0, 1);
    }
    free(share);
    *value = lk_reduced(p, &r);
    return LK_OK;
}
