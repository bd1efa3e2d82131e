/* Losses that set one positive against all negatives of its anchor by a softmax:
 *
 *     log(1 + sum_n exp(s * (c_an - f(c_ap))))      c = cosine, inner product, or minus the distance
 *
 *     N-tuple ((N+1)-tuplet, Sohn, 2016, eq. 5)             f(c) = c
 *     NT-Xent (Chen et al., 2020, eq. 1; InfoNCE, van den Oord et al., 2018)   f(c) = c, s = 1 / temperature
 *     tuplet margin (Yu & Tao, 2019, eq. 9)                 f(c) = cos(arccos c - m)
 *     N-pairs (Sohn, 2016, eq. 7): one pair per class; the positives of the other pairs are the negatives
 *
 * Elements: positive pairs, plain mean. Weighted: negatives within the sum, pairs in front. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* sin(arccos c) is kept above this where it divides, so that a perfect positive has a finite slope. */
static const double flattest = 1e-6;

/* cos(arccos c - m) and its slope. */
static double rotated(double c, double m, double *slope)
{
    c = fmin(1, fmax(-1, c));
    double sine = sqrt(1 - c * c);
    *slope = cos(m) - c * sin(m) / fmax(sine, flattest);
    return c * cos(m) + sine * sin(m);
}

lk_status lk_run_tuplet(lk_problem *p, double *value)
{
    const lk_loss_options *o = p->options;
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    double scale = o->kind == LK_LOSS_NT_XENT ? 1 / o->temperature : o->scale;
    double margin = o->kind == LK_LOSS_TUPLET_MARGIN ? o->margin : 0;
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    *value = 0;
    if (!pos->count || !neg->count) return LK_OK;
    double *share = lk_alloc(lk_group_widest(neg, p->n), sizeof *share);
    if (!share) return lk_fail_memory("negatives");
    for (size_t i = 0; i < p->n; i++) {
        size_t negatives = neg->at[i + 1] - neg->at[i];
        const uint32_t *other = neg->other + neg->at[i];
        for (size_t k = 0; k < negatives; k++) share[k] = -p->side * scale * lk_at(p, i, other[k]);
        double all = lk_log_sum_exp(share, neg->weight ? neg->weight + neg->at[i] : NULL, negatives, 0), pull = 0;
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++) {
            double turn = 1, c = -p->side * lk_at(p, i, pos->other[k]), weight = lk_group_weight(pos, k);
            if (margin != 0) c = rotated(c, margin, &turn);
            double excess = all - scale * c;
            if (!lk_reduce(&r, negatives ? weight * lk_softplus(excess) : 0) || !negatives) continue;
            double slope = weight * scale * lk_sigmoid(excess);
            *lk_slope(p, i, pos->other[k]) += p->side * turn * slope;
            pull += slope;
        }
        for (size_t k = 0; k < negatives; k++) *lk_slope(p, i, other[k]) -= p->side * pull * share[k];
    }
    free(share);
    *value = lk_reduced(p, &r);
    return LK_OK;
}

typedef struct pair {
    int32_t label;
    uint32_t order, anchor, positive;
} pair;

static int by_label(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->label != y->label) return x->label < y->label ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

lk_status lk_gather_n_pairs(const lk_problem *p, const float *embeddings, size_t dim, lk_gathered *out)
{
    size_t all = p->sets.positive.count, kept = 0;
    *out = (lk_gathered){0};
    if (!p->labels || p->labels->kind != LK_LABELS_SINGLE)
        return lk_fail(LK_INVALID, "the N-pairs loss takes one class per picture");
    pair *pairs = lk_alloc(all, sizeof *pairs);
    if (!pairs) return lk_fail_memory("pairs");
    for (size_t i = 0, k = 0; i < p->n && !p->tuples; i++)
        for (; k < p->sets.positive.at[i + 1]; k++) pairs[k] = (pair){0, 0, (uint32_t)i, p->sets.positive.other[k]};
    for (size_t k = 0; p->tuples && k < all; k++)
        pairs[k] = (pair){0, 0, p->tuples->anchor_positive[k], p->tuples->positive[k]};
    for (size_t k = 0; k < all; k++) {
        pairs[k].order = (uint32_t)k;
        pairs[k].label = p->labels->classes[pairs[k].anchor];
    }
    qsort(pairs, all, sizeof *pairs, by_label);
    for (size_t k = 0; k < all; k++) /* the first of each class */
        if (!k || pairs[k].label != pairs[k - 1].label) pairs[kept++] = pairs[k];
    out->count = kept;
    out->index = lk_alloc(2 * kept, sizeof *out->index);
    out->rows = lk_alloc(2 * kept, dim * sizeof *out->rows);
    for (size_t k = 0; out->index && k < kept; k++) {
        out->index[k] = pairs[k].anchor;
        out->index[kept + k] = pairs[k].positive;
    }
    free(pairs);
    if (!out->index || !out->rows) return lk_fail_memory("pairs");
    for (size_t k = 0; k < 2 * kept; k++)
        memcpy(out->rows + k * dim, embeddings + out->index[k] * dim, dim * sizeof *out->rows);
    return LK_OK;
}

/* Row i of the matrix is the anchor of pair i, column j the positive of pair j. */
lk_status lk_run_n_pairs(lk_problem *p, double *value)
{
    double *share = lk_alloc(p->n, sizeof *share);
    if (!share) return lk_fail_memory("pairs");
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++) {
        for (size_t j = 0; j < p->n; j++) share[j] = -p->side * lk_at(p, i, j);
        double own = share[i], all = lk_log_sum_exp(share, NULL, p->n, 0);
        if (!lk_reduce(&r, all - own)) continue;
        share[i] -= 1;
        for (size_t j = 0; j < p->n; j++) *lk_slope(p, i, j) -= p->side * share[j];
    }
    *value = lk_reduced(p, &r);
    free(share);
    return LK_OK;
}
