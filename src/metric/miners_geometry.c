/* Miners that reason about geometry on the unit sphere. */
#include "metric/miners.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>

/* Distance-weighted sampling (Wu et al., 2017, section 4.1). Distances d between random points of the unit sphere in
 * `dim` dimensions have the density q(d) ~ d^(dim-2) (1 - d^2/4)^((dim-3)/2); a negative is drawn with weight 1/q, so
 * that every distance is equally likely. Nearer ones count as `cutoff` (their weight would swamp all), farther ones
 * than `nonzero_cutoff` are never drawn (no loss). weight [count of the anchor's negatives]; returns their sum. */
static double weigh(const lk_mining *m, size_t i, double *weight)
{
    const lk_group *neg = &m->sets.negative;
    const lk_miner_options *o = m->options;
    size_t begin = neg->at[i], count = neg->at[i + 1] - begin;
    double dim = (double)m->dim, most = -INFINITY, sum = 0;
    for (size_t k = 0; k < count; k++) {
        double d = fmax(lk_farness(m, i, neg->other[begin + k]), o->cutoff);
        double w = (2 - dim) * log(d) - (dim - 3) / 2 * log(1 - d * d / 4);
        weight[k] = d < o->nonzero_cutoff && isfinite(w) ? w : -INFINITY;
        most = fmax(most, weight[k]);
    }
    for (size_t k = 0; k < count; k++) sum += weight[k] = most > -INFINITY ? exp(weight[k] - most) : 0;
    return sum;
}

/* As many triplets per anchor as its class has pictures, positives uniform. */
lk_status lk_mine_distance_weighted(lk_mining *m)
{
    lk_status s = LK_OK;
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    double *weight = lk_alloc(m->m, sizeof *weight);
    if (!weight) return lk_fail_memory("weights");
    lk_random random;
    lk_random_seed(&random, m->seed);
    for (size_t i = 0; i < m->n; i++) {
        size_t positives = pos->at[i + 1] - pos->at[i], negatives = neg->at[i + 1] - neg->at[i];
        if (!positives || !negatives) continue;
        double sum = weigh(m, i, weight);
        for (size_t draw = 0; sum > 0 && draw < positives + 1; draw++) {
            size_t positive = pos->other[pos->at[i] + lk_random_below(&random, positives)], k = 0, last = 0;
            double at = lk_random_unit(&random) * sum;
            for (; k < negatives; k++) { /* last: the latest that may be drawn, for when rounding runs past the end */
                if (weight[k] > 0) last = k;
                if ((at -= weight[k]) < 0) break;
            }
            LK_TRY(lk_mining_triplet(m, i, positive, neg->other[neg->at[i] + (k < negatives ? k : last)]));
        }
    }
done:
    free(weight);
    return s;
}

/* Triplets whose angle at the negative exceeds the bound (Wang et al., 2017, eq. 5): tan = |a - p| / (2 |n - c|), c the
 * midpoint of a and p; |n - c|^2 = (|n-a|^2 + |n-p|^2) / 2 - |a-p|^2 / 4. */
lk_status lk_mine_angular(lk_mining *m)
{
    lk_status s = LK_OK;
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    for (size_t i = 0; i < m->n; i++)
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++) {
            size_t positive = pos->other[k];
            double ap = lk_farness(m, i, positive);
            for (size_t l = neg->at[i]; l < neg->at[i + 1]; l++) {
                double an = lk_farness(m, i, neg->other[l]), pn = lk_farness(m, positive, neg->other[l]);
                double nc = sqrt(fmax(0, (an * an + pn * pn) / 2 - ap * ap / 4));
                if (atan2(ap, 2 * nc) > m->options->angle) LK_TRY(lk_mining_triplet(m, i, positive, neg->other[l]));
            }
        }
done:
    return s;
}
