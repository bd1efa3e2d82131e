/* Losses that approximate one minus the average precision of each anchor over the batch.
 *
 * FastAP (Cakir et al., 2019, eq. 8): distances of an anchor fall into a soft histogram of `bins` bins over their range
 * (triangles of half-width one bin around bins + 1 edges); h, h+ count all and positives in a bin, H, H+ up to it:
 *
 *     loss_i = 1 - 1/N+ sum_b h+_b H+_b / H_b
 *
 * Smooth-AP (Brown et al., 2020, eq. 8), c = cosine, g = sigmoid(. / temperature), P(i) the class of i with i itself:
 *
 *     loss_i = 1 - 1/|P(i)| sum_{j in P(i)} (1 + sum_{k in P(i), k != j} g(c_ik - c_ij)) / (1 + sum_{k != j} g(c_ik -
 * c_ij))
 *
 * Elements: anchors with positives, plain mean, each times its weight from the tuples. All pairs of the labels take
 * part. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Adds one distance's shares to the two edges it lies between. */
static void pulse(double distance, double width, size_t edges, double *histogram)
{
    double at = distance / width, part = at - floor(at);
    size_t b = (size_t)at;
    if (b < edges) histogram[b] += 1 - part;
    if (b + 1 < edges) histogram[b + 1] += part;
}

/* Right on an edge the slope is 0, as the reference has it. */
static double pulse_slope(double distance, double width, size_t edges, const double *slope)
{
    double at = distance / width, part = at - floor(at);
    size_t b = (size_t)at;
    if (b >= edges || part == 0) return 0;
    return ((b + 1 < edges ? slope[b + 1] : 0) - slope[b]) / width;
}

/* sum_b h+_b H+_b / H_b with its slopes by h+_b (positive) and by h_b of negatives (negative). */
static double precision(const double *h_pos, const double *h_neg, size_t edges, double *by_pos, double *by_neg)
{
    double pos = 0, all = 0, sum = 0, later_rise = 0, later_fall = 0;
    for (size_t b = 0; b < edges; b++) { /* by_pos and by_neg hold H+ and H for the way back */
        by_pos[b] = pos += h_pos[b];
        by_neg[b] = all += h_pos[b] + h_neg[b];
        if (h_pos[b] * pos > 0 && all > 0) sum += h_pos[b] * pos / all;
    }
    for (size_t b = edges; b-- > 0;) {
        double direct = 0;
        if (h_pos[b] * by_pos[b] > 0 && by_neg[b] > 0) {
            direct = by_pos[b] / by_neg[b];
            later_rise += h_pos[b] / by_neg[b];
            later_fall += h_pos[b] * by_pos[b] / (by_neg[b] * by_neg[b]);
        }
        by_pos[b] = direct + later_rise - later_fall;
        by_neg[b] = -later_fall;
    }
    return sum;
}

lk_status lk_run_fast_ap(lk_problem *p, double *value)
{
    const lk_group *pos = &p->sets.positive, *neg = &p->sets.negative;
    size_t edges = (size_t)p->options->bins + 1;
    lk_status s = LK_OK;
    double range = p->matrix->distance.kind == LK_DISTANCE_L2 ? 2 : 4, width = range / p->options->bins;
    double *h_pos = lk_alloc(4 * edges + p->n, sizeof *h_pos);
    if (!h_pos) return lk_fail_memory("histogram");
    double *h_neg = h_pos + edges, *by_pos = h_neg + edges, *by_neg = by_pos + edges, *weight = by_neg + edges;
    LK_TRY(lk_tuple_weights(p->tuples, p->n, false, weight));
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++) {
        double positives = (double)(pos->at[i + 1] - pos->at[i]);
        if (positives == 0) continue;
        memset(h_pos, 0, 2 * edges * sizeof *h_pos);
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++) pulse(lk_at(p, i, pos->other[k]), width, edges, h_pos);
        for (size_t k = neg->at[i]; k < neg->at[i + 1]; k++) pulse(lk_at(p, i, neg->other[k]), width, edges, h_neg);
        double ap = precision(h_pos, h_neg, edges, by_pos, by_neg) / positives;
        if (!lk_reduce(&r, weight[i] * (1 - ap))) continue;
        double factor = -weight[i] / positives;
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++)
            *lk_slope(p, i, pos->other[k]) += factor * pulse_slope(lk_at(p, i, pos->other[k]), width, edges, by_pos);
        for (size_t k = neg->at[i]; k < neg->at[i + 1]; k++)
            *lk_slope(p, i, neg->other[k]) += factor * pulse_slope(lk_at(p, i, neg->other[k]), width, edges, by_neg);
    }
    *value = lk_reduced(p, &r);
done:
    free(h_pos);
    return s;
}

/* R+_j / R_j for one j of P(i). gate [m] keeps the sigmoids; with slope != 0 the slopes are added to row i. */
static double rank_ratio(lk_problem *p, size_t i, size_t j, const bool *mine, double *gate, double slope)
{
    double sharp = 1 / p->options->temperature, all = 1, own = 1, back = 0;
    const double *c = p->value + i * p->m;
    for (size_t k = 0; k < p->m; k++) {
        gate[k] = k == j ? 0 : lk_sigmoid(sharp * (c[k] - c[j]));
        all += gate[k];
        if (mine[k]) own += gate[k];
    }
    if (slope == 0) return own / all;
    double by_own = slope / all, by_all = -slope * own / (all * all);
    for (size_t k = 0; k < p->m; k++) {
        double by_gate = by_all + (mine[k] ? by_own : 0), by_c = by_gate * sharp * gate[k] * (1 - gate[k]);
        if (k == j) continue;
        *lk_slope(p, i, k) += by_c;
        back += by_c;
    }
    *lk_slope(p, i, j) -= back;
    return own / all;
}

lk_status lk_run_smooth_ap(lk_problem *p, double *value)
{
    const lk_group *pos = &p->sets.positive;
    lk_status s = LK_OK;
    double *gate = lk_alloc(p->m + p->n, sizeof *gate), *weight = gate ? gate + p->m : NULL;
    bool *mine = lk_alloc_zero(p->m, sizeof *mine);
    if (!gate || !mine) {
        s = lk_fail_memory("ranks");
        goto done;
    }
    LK_TRY(lk_tuple_weights(p->tuples, p->n, false, weight));
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++) {
        size_t begin = pos->at[i], positives = pos->at[i + 1] - begin;
        if (!positives) continue;
        for (size_t k = 0; k < positives; k++) mine[pos->other[begin + k]] = true;
        mine[i] = true;
        double slope = -weight[i] / (double)(positives + 1), ap = rank_ratio(p, i, i, mine, gate, slope);
        for (size_t k = 0; k < positives; k++) ap += rank_ratio(p, i, pos->other[begin + k], mine, gate, slope);
        lk_reduce(&r, weight[i] * (1 - ap / (double)(positives + 1)));
        for (size_t k = 0; k < positives; k++) mine[pos->other[begin + k]] = false;
        mine[i] = false;
    }
    *value = lk_reduced(p, &r);
done:
    free(mine);
    free(gate);
    return s;
}
