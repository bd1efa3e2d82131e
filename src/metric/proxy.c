/* Losses against one learnt proxy per class.
 *
 *     Proxy-NCA (Movshovitz-Attias et al., 2017, with the softmax over all proxies)
 *         loss_i = -log softmax(-s d(x_i, proxy))[y_i],  d squared L2
 *         Elements: embeddings, plain mean, each times its weight from the tuples (anchors).
 *
 *     Proxy-anchor (Kim et al., 2020, eq. 4), c = cosine
 *         1/|P+| sum over proxies with positives of log(1 + sum_{x in class} exp(-a (c - m)))
 *       + 1/|P|  sum over all proxies            of log(1 + sum_{x not in class} exp(a (c + m)))
 *         A weight w from the tuples lowers an exponent by 1 - w. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

lk_status lk_run_proxy_nca(lk_problem *p, double *value)
{
    lk_status s = LK_OK;
    double *share = lk_alloc(p->m + p->n, sizeof *share);
    if (!share) return lk_fail_memory("proxies");
    double *weight = share + p->m, factor = -p->side * p->options->scale;
    LK_TRY(lk_tuple_weights(p->tuples, p->n, true, weight));
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++) {
        size_t own = (size_t)p->labels->classes[i];
        for (size_t c = 0; c < p->m; c++) share[c] = factor * lk_at(p, i, c);
        double target = share[own], loss = lk_log_sum_exp(share, NULL, p->m, 0) - target;
        if (!lk_reduce(&r, weight[i] * loss)) continue;
        share[own] -= 1;
        for (size_t c = 0; c < p->m; c++) *lk_slope(p, i, c) += weight[i] * factor * share[c];
    }
    *value = lk_reduced(p, &r);
done:
    free(share);
    return s;
}

/* One of the two sums for one proxy; returns its term. `row` [n] lists the embeddings it runs over. */
static double proxy_term(lk_problem *p, size_t proxy, bool positive, const double *weight, double *share, size_t *row,
                         double divisor)
{
    const lk_loss_options *o = p->options;
    double toward = positive ? p->side : -p->side; /* slope of the exponent by the entry, before alpha */
    double margin = positive ? o->margin : -o->margin;
    size_t count = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (((size_t)p->labels->classes[i] == proxy) != positive) continue;
        row[count] = i;
        share[count++] = o->alpha * toward * (lk_at(p, i, proxy) - margin) + weight[i] - 1;
    }
    double term = lk_log_sum_exp(share, NULL, count, 1);
    for (size_t k = 0; k < count; k++) *lk_slope(p, row[k], proxy) += o->alpha * toward * share[k] / divisor;
    return term / divisor;
}

lk_status lk_run_proxy_anchor(lk_problem *p, double *value)
{
    lk_status s = LK_OK;
    double *share = lk_alloc(2 * p->n, sizeof *share), *weight = share ? share + p->n : NULL;
    size_t *row = lk_alloc(p->n, sizeof *row);
    bool *present = lk_alloc_zero(p->m, sizeof *present);
    if (!share || !row || !present) {
        s = lk_fail_memory("proxies");
        goto done;
    }
    LK_TRY(lk_tuple_weights(p->tuples, p->n, false, weight));
    size_t used = 0;
    for (size_t i = 0; i < p->n; i++) {
        bool *seen = &present[p->labels->classes[i]];
        used += !*seen;
        *seen = true;
    }
    *value = 0;
    for (size_t c = 0; c < p->m && p->n; c++) {
        if (present[c]) *value += proxy_term(p, c, true, weight, share, row, (double)used);
        *value += proxy_term(p, c, false, weight, share, row, (double)p->m);
    }
done:
    free(present);
    free(row);
    free(share);
    return s;
}
