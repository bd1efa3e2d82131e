/* Margin loss (Wu et al., 2017, eq. 6), beta the boundary (fixed, or learnt for all or per class), d = distance:
 *
 *     (sum over triplets of max(0, d_ap - beta + m) + max(0, beta - d_an + m)) / (terms above zero)  +  nu beta
 *
 * With beta per class, nu beta is summed over the triplets' anchors and divided by the same count. */
#include "metric/problem.h"

typedef struct totals {
    double sum, regulariser;
    size_t active;
} totals;

static inline void one(lk_problem *p, size_t a, size_t positive, size_t negative, double weight, void *user)
{
    totals *t = user;
    (void)weight;
    const lk_loss_options *o = p->options;
    size_t b = o->beta_per_class ? (size_t)p->labels->classes[a] : 0;
    double beta = p->parameters ? (double)p->parameters[b] : o->beta;
    double far = p->side * (lk_at(p, a, positive) - beta) + o->margin;
    double near = p->side * (beta - lk_at(p, a, negative)) + o->margin;
    if (far > 0) {
        t->sum += far;
        t->active++;
        *lk_slope(p, a, positive) += p->side;
        p->parameter_slope[b] -= p->side;
    }
    if (near > 0) {
        t->sum += near;
        t->active++;
        *lk_slope(p, a, negative) -= p->side;
        p->parameter_slope[b] += p->side;
    }
    if (o->beta_per_class && o->learn_beta) {
        t->regulariser += beta * o->nu;
        p->parameter_slope[b] += o->nu;
    }
}

lk_status lk_run_margin(lk_problem *p, double *value)
{
    const lk_loss_options *o = p->options;
    totals t = {0};
    lk_each_triplet(p, one, &t);
    size_t betas = o->beta_per_class ? o->classes : 1;
    double factor = t.active ? 1 / (double)t.active : 0;
    bool any = p->tuples && p->tuples->triplets ? p->tuples->positives > 0 : false;
    for (size_t i = 0; i < p->n && !any; i++)
        any =
            p->sets.positive.at[i + 1] > p->sets.positive.at[i] && p->sets.negative.at[i + 1] > p->sets.negative.at[i];
    *value = factor * (t.sum + t.regulariser);
    for (size_t i = 0; i < p->n * p->m; i++) p->slope[i] *= factor;
    for (size_t b = 0; b < betas; b++) p->parameter_slope[b] *= factor;
    if (any && o->learn_beta && !o->beta_per_class) {
        *value += o->nu * (double)p->parameters[0];
        p->parameter_slope[0] += o->nu;
    }
    return LK_OK;
}
