/* Angular loss (Wang et al., 2017, eq. 8), t = tan(angle)^2, all embeddings normalised:
 *
 *     loss_ap = log(1 + sum_n exp(4 t (a + p).n - 2 (1 + t) a.p))     n: every embedding of another class than a
 *
 * Elements: positive pairs, plain mean. The reference takes n as it is, without normalising; the paper's derivation
 * supposes all three normalised, and so do we. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

lk_status lk_run_angular(lk_problem *p, double *value)
{
    const lk_group *pos = &p->sets.positive;
    *value = 0;
    if (!pos->count || !p->sets.negative.count) return LK_OK;
    if (!p->labels) return lk_fail(LK_INVALID, "the angular loss needs labels");
    double t = tan(p->options->margin) * tan(p->options->margin);
    double *share = lk_alloc(p->m, sizeof *share);
    size_t *row = lk_alloc(p->m, sizeof *row);
    if (!share || !row) {
        free(share);
        free(row);
        return lk_fail_memory("negatives");
    }
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++) {
        size_t count = 0;
        for (size_t j = 0; j < p->m && pos->at[i + 1] > pos->at[i]; j++)
            if (lk_relate(&p->options->rule, p->labels, i, p->reference_labels, j).negative > 0) row[count++] = j;
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++) {
            size_t positive = pos->other[k];
            bool self = p->matrix->self;
            double near = 2 * (1 + t) * lk_at(p, i, positive), sum = 0;
            for (size_t l = 0; l < count; l++) {
                double pn = self ? lk_at(p, positive, row[l]) : lk_matrix_reference_dot(p->matrix, positive, row[l]);
                share[l] = 4 * t * (lk_at(p, i, row[l]) + pn) - near;
            }
            if (!lk_reduce(&r, lk_log_sum_exp(share, NULL, count, 1))) continue;
            for (size_t l = 0; l < count; l++) {
                *lk_slope(p, i, row[l]) += 4 * t * share[l];
                if (self) *lk_slope(p, positive, row[l]) += 4 * t * share[l];
                sum += share[l];
            }
            *lk_slope(p, i, positive) -= 2 * (1 + t) * sum;
        }
    }
    free(share);
    free(row);
    *value = lk_reduced(p, &r);
    return LK_OK;
}
