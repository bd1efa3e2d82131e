/* Metrics of one query from the ranks of its relevant items, and their means. Equations in likeness/eval.h. */
#include "base/error.h"
#include <likeness/eval.h>

#include <math.h>

/* Sum of gain / log2(1 + rank) over ranks 1..n of an ideal ranking that has `relevant` items. */
static double ideal_dcg(const double *gains, size_t relevant, uint32_t n)
{
    double sum = 0;
    for (size_t i = 0; i < relevant && i < n; i++) sum += (gains ? gains[i] : 1.0) / log2((double)i + 2);
    return sum;
}

lk_status lk_eval_query(const uint64_t *ranks, const double *gains, size_t found, size_t relevant,
                        const double *ideal_gains, const uint32_t *ks, size_t n_ks, lk_query_metrics *out)
{
    *out = (lk_query_metrics){0};
    if (relevant == 0) return lk_fail(LK_INVALID, "a query without relevant items has no metrics");
    if (found > relevant) return lk_fail(LK_INVALID, "%zu relevant items were found of %zu", found, relevant);
    if (n_ks > LK_EVAL_MAX_KS)
        return lk_fail(LK_INVALID, "%zu cut-offs are more than the %d possible", n_ks, LK_EVAL_MAX_KS);
    for (size_t c = 0; c < n_ks; c++)
        if (ks[c] == 0) return lk_fail(LK_INVALID, "a cut-off of 0 makes no sense");
    for (size_t i = 0; i < found; i++)
        if (ranks[i] <= (i ? ranks[i - 1] : 0)) return lk_fail(LK_INVALID, "ranks must rise and start at 1 or above");

    double precisions = 0, dcg[LK_EVAL_MAX_KS] = {0};
    for (size_t i = 0; i < found; i++) {
        precisions += (double)(i + 1) / (double)ranks[i];
        if (ranks[i] <= relevant) out->r_precision += 1;
        for (size_t c = 0; c < n_ks; c++) {
            if (ranks[i] > ks[c]) continue;
            out->precision[c] += 1;
            dcg[c] += (gains ? gains[i] : 1.0) / log2((double)ranks[i] + 1);
        }
    }
    out->average_precision = precisions / (double)relevant;
    out->r_precision /= (double)relevant;
    out->reciprocal_rank = found ? 1.0 / (double)ranks[0] : 0;
    for (size_t c = 0; c < n_ks; c++) {
        double hits = out->precision[c], ideal = ideal_dcg(ideal_gains, relevant, ks[c]);
        out->precision[c] = hits / ks[c];
        out->recall[c] = hits / (double)relevant;
        out->hit[c] = hits > 0;
        out->ndcg[c] = ideal > 0 ? dcg[c] / ideal : 0;
    }
    return LK_OK;
}

/* Applies one operation to each number of a struct whose members are all doubles. */
static void each_metric(lk_query_metrics *to, const lk_query_metrics *from, size_t n_ks, double factor)
{
    to->average_precision += factor * from->average_precision;
    to->r_precision += factor * from->r_precision;
    to->reciprocal_rank += factor * from->reciprocal_rank;
    for (size_t c = 0; c < n_ks; c++) {
        to->precision[c] += factor * from->precision[c];
        to->recall[c] += factor * from->recall[c];
        to->hit[c] += factor * from->hit[c];
        to->ndcg[c] += factor * from->ndcg[c];
    }
}

void lk_eval_mean_add(lk_eval_mean *mean, const lk_query_metrics *query, size_t n_ks)
{
    each_metric(&mean->sum, query, n_ks, 1.0);
    mean->queries++;
}

lk_query_metrics lk_eval_mean_result(const lk_eval_mean *mean, size_t n_ks)
{
    lk_query_metrics out = {0};
    if (mean->queries) each_metric(&out, &mean->sum, n_ks, 1.0 / (double)mean->queries);
    return out;
}
