/* Softmax over the cosines between an embedding and one weight vector per class, with a margin on its own class:
 *
 *     loss_i = -log softmax(s * logit_i)[y_i],   logit_ic = cos t_ic for c != y_i, and for its own class
 *
 *     normalised softmax (Wang et al., 2017; Zhai & Wu, 2019)   cos t,  s = 1 / temperature
 *     CosFace (Wang et al., 2018, eq. 4)              cos t - m
 *     ArcFace (Deng et al., 2019, eq. 3)              cos(t + m), beyond t = pi - m: cos t - m sin m
 *     sub-center ArcFace (Deng et al., 2020)          as ArcFace, cos t being the largest over the class's K centers
 *     SphereFace (Liu et al., 2017, eq. 7)            (-1)^k cos(m t) - 2 k, k = floor(m t / pi); s is times |x_i|
 *     curricular margin (Huang et al., 2020, eq. 5)   as ArcFace; other classes with cos t_ic > cos(t_iy + m) become
 *                                                     cos t_ic (h + cos t_ic), h the running mean of cos t_iy
 *
 * Elements: embeddings, plain mean, each times its weight from the tuples. */
#include "metric/problem.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

static const double flattest = 1e-6; /* see tuplet.c */

/* cos(t + m) with the monotone continuation, and its slope by cos t. */
static double additive(double c, double m, double *slope)
{
    c = fmin(1, fmax(-1, c));
    if (acos(c) > M_PI - m) {
        *slope = 1;
        return c - m * sin(m);
    }
    double sine = sqrt(1 - c * c);
    *slope = cos(m) + c * sin(m) / fmax(sine, flattest);
    return c * cos(m) - sine * sin(m);
}

/* (-1)^k cos(m t) - 2 k. cos(m t) is the Chebyshev polynomial T_m of cos t, whose slope is m U_{m-1}. */
static double multiplied(double c, unsigned m, double *slope)
{
    c = fmin(1, fmax(-1, c));
    double t0 = 1, t1 = c, u0 = 1, u1 = 2 * c; /* T_k, T_k+1, U_k, U_k+1 for k = 0 */
    for (unsigned k = 1; k < m; k++) {
        double t2 = 2 * c * t1 - t0, u2 = 2 * c * u1 - u0;
        t0 = t1, t1 = t2, u0 = u1, u1 = u2;
    }
    double k = floor(acos(c) * m / M_PI), sign = fmod(k, 2) == 0 ? 1 : -1;
    *slope = sign * m * u0;
    return sign * t1 - 2 * k;
}

static double own_logit(const lk_loss_options *o, double c, double *slope)
{
    *slope = 1;
    switch (o->kind) {
    case LK_LOSS_COSFACE: return c - o->margin;
    case LK_LOSS_SPHEREFACE: return multiplied(c, (unsigned)o->margin, slope);
    case LK_LOSS_NORMALISED_SOFTMAX: return c;
    default: return additive(c, o->margin, slope);
    }
}

/* Running mean of the target cosine (momentum 0.01 as published). */
static void advance_curriculum(lk_problem *p)
{
    double sum = 0;
    for (size_t i = 0; i < p->n; i++) sum += fmin(1, fmax(-1, lk_at(p, i, (size_t)p->labels->classes[i])));
    if (p->n) p->curriculum = 0.01 * sum / (double)p->n + 0.99 * p->curriculum;
}

/* logit[c], its slope by the cosine, and which column (sub-center) that cosine is. */
static void logits(const lk_problem *p, size_t i, double *logit, double *turn, size_t *column)
{
    const lk_loss_options *o = p->options;
    size_t centers = o->kind == LK_LOSS_SUBCENTER_ARCFACE ? o->subcenters : 1, own = (size_t)p->labels->classes[i];
    for (size_t c = 0; c < o->classes; c++) {
        size_t best = c * centers;
        for (size_t k = best + 1; k < (c + 1) * centers; k++)
            if (lk_at(p, i, k) > lk_at(p, i, best)) best = k;
        column[c] = best;
        logit[c] = lk_at(p, i, best);
        turn[c] = 1;
    }
    double target = logit[own], modified = own_logit(o, target, &turn[own]);
    logit[own] = modified;
    if (o->kind != LK_LOSS_CURRICULAR) return;
    target = fmin(1, fmax(-1, target));
    double threshold = target * cos(o->margin) - sqrt(1 - target * target) * sin(o->margin);
    for (size_t c = 0; c < o->classes; c++) {
        if (c == own || !(logit[c] > threshold)) continue;
        turn[c] = p->curriculum + 2 * logit[c];
        logit[c] *= p->curriculum + logit[c];
    }
}

lk_status lk_run_margin_softmax(lk_problem *p, double *value)
{
    const lk_loss_options *o = p->options;
    bool by_length = o->kind == LK_LOSS_SPHEREFACE;
    double scale = o->kind == LK_LOSS_NORMALISED_SOFTMAX ? 1 / o->temperature : o->scale;
    lk_status s = LK_OK;
    double *logit = lk_alloc(3 * (size_t)o->classes + p->n, sizeof *logit);
    size_t *column = lk_alloc(o->classes, sizeof *column);
    if (!logit || !column) {
        s = lk_fail_memory("logits");
        goto done;
    }
    double *turn = logit + o->classes, *share = turn + o->classes, *weight = share + o->classes;
    LK_TRY(lk_tuple_weights(p->tuples, p->n, false, weight));
    if (o->kind == LK_LOSS_CURRICULAR) advance_curriculum(p);
    lk_reduction r = lk_reduction_of(p, LK_REDUCE_MEAN);
    for (size_t i = 0; i < p->n; i++) {
        size_t own = (size_t)p->labels->classes[i];
        double factor = by_length ? scale * p->matrix->x_norm[i] : scale;
        logits(p, i, logit, turn, column);
        for (size_t c = 0; c < o->classes; c++) share[c] = factor * logit[c];
        double target = share[own], loss = lk_log_sum_exp(share, NULL, o->classes, 0) - target;
        if (!lk_reduce(&r, weight[i] * loss)) continue;
        share[own] -= 1;
        for (size_t c = 0; c < o->classes; c++) {
            *lk_slope(p, i, column[c]) += weight[i] * factor * share[c] * turn[c];
            if (by_length) p->norm_slope[i] += weight[i] * scale * share[c] * logit[c];
        }
    }
    *value = lk_reduced(p, &r);
done:
    free(column);
    free(logit);
    return s;
}
