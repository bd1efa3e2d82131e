/* Contrastive loss (Hadsell, Chopra, LeCun, 2006, eq. 4 with margins on both sides and without the square):
 *
 *     mean over positive pairs of max(0, d_ap - m+)  +  mean over negative pairs of max(0, m- - d_an)
 *
 * where the means run over the pairs above zero; similarities change sides. Elements: pairs. Weighted. */
#include "metric/problem.h"

/* outward 1: being far costs; -1: being near costs. */
static double half(lk_problem *p, const lk_group *group, double outward, double margin)
{
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN_NONZERO);
    double sign = outward * p->side;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = group->at[i]; k < group->at[i + 1]; k++) {
            double over = sign * (lk_at(p, i, group->other[k]) - margin);
            lk_reduce(&r, over > 0 ? lk_group_weight(group, k) * over : 0);
        }
    double factor = lk_reduction_factor(&r);
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = group->at[i]; k < group->at[i + 1]; k++)
            if (sign * (lk_at(p, i, group->other[k]) - margin) > 0)
                *lk_slope(p, i, group->other[k]) += factor * sign * lk_group_weight(group, k);
    return r.sum * factor;
}

lk_status lk_run_contrastive(lk_problem *p, double *value)
{
    *value = half(p, &p->sets.positive, 1, p->options->positive_margin) +
             half(p, &p->sets.negative, -1, p->options->negative_margin);
    return LK_OK;
}
