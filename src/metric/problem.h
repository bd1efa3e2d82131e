/* What a loss is given and where it leaves its slopes: one evaluation of one loss at one batch. */
#ifndef LK_METRIC_PROBLEM_H
#define LK_METRIC_PROBLEM_H

#include "metric/matrix.h"
#include "metric/tuples.h"

#include <math.h>

typedef struct lk_problem {
    const lk_loss_options *options;
    size_t n, m; /* embeddings; references: the embeddings themselves, a memory, or class weights */
    const lk_labels *labels, *reference_labels; /* NULL where the loss does without */
    const lk_tuples *tuples;                    /* as the caller gave them, NULL = all */
    const uint32_t *own;                        /* [n] reference that is the anchor itself; NULL = the same number */
    lk_pair_sets sets;                          /* filled for pair losses */
    const lk_matrix *matrix;
    const double *value; /* = matrix->value [n][m] */
    double side;         /* 1 for distances, -1 for similarities: side * (x - y) > 0 when x is farther than y */
    const float *parameters;
    double *slope;           /* [n][m], zero at the start: d loss / d value */
    double *norm_slope;      /* [n], zero at the start: d loss / d length of the embedding */
    double *parameter_slope; /* [beta count], margin loss only */
    double curriculum;       /* curricular margin: state in, new state out */
} lk_problem;

/* Each leaves the loss in *value and its slopes in the problem. */
typedef lk_status (*lk_loss_fn)(lk_problem *problem, double *value);
lk_status lk_run_contrastive(lk_problem *problem, double *value);
lk_status lk_run_triplet(lk_problem *problem, double *value);
lk_status lk_run_tuplet(lk_problem *problem, double *value);
lk_status lk_run_n_pairs(lk_problem *problem, double *value);
lk_status lk_run_margin_softmax(lk_problem *problem, double *value);
lk_status lk_run_proxy_nca(lk_problem *problem, double *value);
lk_status lk_run_proxy_anchor(lk_problem *problem, double *value);
lk_status lk_run_multi_similarity(lk_problem *problem, double *value);
lk_status lk_run_circle(lk_problem *problem, double *value);
lk_status lk_run_lifted(lk_problem *problem, double *value);
lk_status lk_run_generalised_lifted(lk_problem *problem, double *value);
lk_status lk_run_supcon(lk_problem *problem, double *value);
lk_status lk_run_fast_ap(lk_problem *problem, double *value);
lk_status lk_run_smooth_ap(lk_problem *problem, double *value);
lk_status lk_run_angular(lk_problem *problem, double *value);
lk_status lk_run_margin(lk_problem *problem, double *value);

/* Rows that a loss picks out of the batch to compare with one another: rows [0, count) with rows [count, 2 count). */
typedef struct lk_gathered {
    size_t count;
    uint32_t *index; /* [2 count] rows of the batch */
    float *rows;     /* [2 count][dim] */
} lk_gathered;
/* One positive pair per class. Both arrays are to be freed, on failure too. */
lk_status lk_gather_n_pairs(const lk_problem *problem, const float *embeddings, size_t dim, lk_gathered *out);

/* Elements on their way to one number. Slopes are gathered as if the elements were summed; the factor that
 * lk_reduced returns then scales them all. */
typedef struct lk_reduction {
    lk_reducer kind; /* not LK_REDUCE_DEFAULT */
    double sum;
    size_t count;
} lk_reduction;

/* Whether the element takes part, so that its slopes are to be added. */
static inline bool lk_reduce(lk_reduction *r, double element)
{
    if (r->kind == LK_REDUCE_MEAN_NONZERO && !(element > 0)) return false;
    r->sum += element;
    r->count++;
    return true;
}
static inline double lk_reduction_factor(const lk_reduction *r)
{
    return r->kind == LK_REDUCE_SUM ? 1 : r->count ? 1 / (double)r->count : 0;
}
static inline lk_reduction lk_reduction_of(const lk_problem *p, lk_reducer usual)
{
    return (lk_reduction){.kind = p->options->reducer == LK_REDUCE_DEFAULT ? usual : p->options->reducer};
}
/* Scales every slope by the factor and returns the reduced value. */
double lk_reduced(lk_problem *problem, const lk_reduction *reduction);

/* log(1 + e^x) and its slope, without overflow. */
static inline double lk_softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}
static inline double lk_sigmoid(double x)
{
    double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/* log of (floor + sum of w[k] e^x[k]); replaces x[k] by its share w[k] e^x[k] / (that sum), which is the slope of the
 * result. floor 0 or 1; w NULL = 1. Of no terms it is 0. */
double lk_log_sum_exp(double *x, const double *w, size_t count, double floor);

static inline double lk_at(const lk_problem *p, size_t i, size_t j)
{
    return p->value[i * p->m + j];
}
static inline double *lk_slope(lk_problem *p, size_t i, size_t j)
{
    return p->slope + i * p->m + j;
}

/* Calls one(p, anchor, positive, negative, weight, user) for every triplet: the given ones, or each positive with each
 * negative of every anchor. Inlined, so that `one` is too. */
typedef void (*lk_triplet_fn)(lk_problem *p, size_t anchor, size_t positive, size_t negative, double weight,
                              void *user);
static inline __attribute__((always_inline)) void lk_each_triplet(lk_problem *p, lk_triplet_fn one, void *user)
{
    const lk_tuples *t = p->tuples;
    if (t && t->triplets) {
        for (size_t i = 0; i < t->positives; i++)
            one(p, t->anchor_positive[i], t->positive[i], t->negative[i], 1, user);
        return;
    }
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++)
            for (size_t l = neg->at[i]; l < neg->at[i + 1]; l++)
                one(p, i, pos->other[k], neg->other[l], lk_group_weight(pos, k) * lk_group_weight(neg, l), user);
}

/* Largest number of positives or negatives of one anchor. */
size_t lk_group_widest(const lk_group *group, size_t n);

#endif
