/* Triplet loss (Weinberger & Saul, 2009; Schroff et al., 2015, eq. 1), with the soft margin of Hermans et al. (2017):
 *
 *     hinge        max(0, d_ap - d_an + m)
 *     smooth       log(1 + exp(d_ap - d_an + m))
 *     soft margin  log(1 + exp(d_ap - d_an))
 *
 * Elements: triplets, averaged over those above zero. swap (Balntas et al., 2016): d_an becomes the harder of d_an and
 * d_pn. Weighted: a triplet by the product of its pairs' weights. */
#include "metric/problem.h"

#include "base/error.h"

static inline void one(lk_problem *p, size_t a, size_t positive, size_t negative, double weight, void *user)
{
    lk_reduction *r = user;
    const lk_loss_options *o = p->options;
    double an = lk_at(p, a, negative), share = 1; /* of the slope of the negative distance that goes to a-n */
    if (o->swap) {
        double pn = lk_at(p, positive, negative), nearer = p->side * (an - pn);
        share = nearer < 0 ? 1 : nearer > 0 ? 0 : 0.5;
        if (nearer > 0) an = pn;
    }
    double violation = p->side * (lk_at(p, a, positive) - an);
    if (o->form != LK_TRIPLET_SOFT_MARGIN) violation += o->margin;
    bool hinge = o->form == LK_TRIPLET_HINGE;
    double loss = hinge ? fmax(violation, 0) : lk_softplus(violation);
    if (!lk_reduce(r, weight * loss)) return;
    double slope = weight * p->side * (hinge ? violation > 0 : lk_sigmoid(violation));
    *lk_slope(p, a, positive) += slope;
    *lk_slope(p, a, negative) -= share * slope;
    if (share < 1) *lk_slope(p, positive, negative) -= (1 - share) * slope;
}

lk_status lk_run_triplet(lk_problem *p, double *value)
{
    if (p->options->swap && !p->matrix->self)
        return lk_fail(LK_UNSUPPORTED, "triplets cannot be swapped with a cross-batch memory");
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN_NONZERO);
    lk_each_triplet(p, one, &r);
    *value = lk_reduced(p, &r);
    return LK_OK;
}
