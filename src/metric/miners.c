/* Miners of single choices and thresholds. Farness is the distance, or minus the similarity: a hard positive is far, a
 * hard negative near. */
#include "metric/miners.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct miner {
    const char *name;
    lk_status (*run)(lk_mining *m);
    bool triplets;
    lk_miner_options defaults;
} miners[LK_MINER_KINDS] = {
    [LK_MINER_ALL] = {"all", lk_mine_all, false, {.distance.kind = LK_DISTANCE_L2}},
    [LK_MINER_BATCH_HARD] = {"batch-hard", lk_mine_batch_hard, true, {.distance.kind = LK_DISTANCE_L2}},
    [LK_MINER_BATCH_EASY_HARD] = {"batch-easy-hard",
                                  lk_mine_easy_hard,
                                  false,
                                  {.distance.kind = LK_DISTANCE_L2,
                                   .positive = LK_STRATEGY_EASY,
                                   .negative = LK_STRATEGY_SEMI_HARD}},
    [LK_MINER_SEMI_HARD] = {"semi-hard", lk_mine_triplets, true, {.distance.kind = LK_DISTANCE_L2, .margin = 0.2}},
    [LK_MINER_TRIPLET_MARGIN] = {"triplet-margin",
                                 lk_mine_triplets,
                                 true,
                                 {.distance.kind = LK_DISTANCE_L2, .margin = 0.2}},
    [LK_MINER_HARD_POSITIVE] = {"hard-positive",
                                lk_mine_easy_hard,
                                false,
                                {.distance.kind = LK_DISTANCE_L2,
                                 .positive = LK_STRATEGY_HARD,
                                 .negative = LK_STRATEGY_ALL}},
    [LK_MINER_HARD_NEGATIVE] = {"hard-negative",
                                lk_mine_easy_hard,
                                false,
                                {.distance.kind = LK_DISTANCE_L2,
                                 .positive = LK_STRATEGY_ALL,
                                 .negative = LK_STRATEGY_HARD}},
    [LK_MINER_MULTI_SIMILARITY] = {"multi-similarity",
                                   lk_mine_multi_similarity,
                                   false,
                                   {.distance.kind = LK_DISTANCE_COSINE, .epsilon = 0.1}},
    [LK_MINER_DISTANCE_WEIGHTED] = {"distance-weighted",
                                    lk_mine_distance_weighted,
                                    true,
                                    {.distance.kind = LK_DISTANCE_L2, .cutoff = 0.5, .nonzero_cutoff = 1.4}},
    [LK_MINER_PAIR_MARGIN] = {"pair-margin",
                              lk_mine_pair_margin,
                              false,
                              {.distance.kind = LK_DISTANCE_L2, .positive_margin = 0.2, .negative_margin = 0.8}},
    [LK_MINER_ANGULAR] = {"angular",
                          lk_mine_angular,
                          true,
                          {.distance.kind = LK_DISTANCE_L2, .angle = 20 * M_PI / 180}},
};

lk_miner_options lk_miner_defaults(lk_miner_kind kind)
{
    lk_miner_options options = (unsigned)kind < LK_MINER_KINDS ? miners[kind].defaults : (lk_miner_options){0};
    options.kind = kind;
    return options;
}

const char *lk_miner_name(lk_miner_kind kind)
{
    return (unsigned)kind < LK_MINER_KINDS ? miners[kind].name : NULL;
}

lk_status lk_miner_kind_of(const char *name, lk_miner_kind *kind)
{
    char names[256] = "";
    for (int k = 0; k < LK_MINER_KINDS; k++) {
        if (strcmp(name, miners[k].name) == 0) {
            *kind = (lk_miner_kind)k;
            return LK_OK;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", k ? ", " : "", miners[k].name);
    }
    return lk_fail(LK_NOT_FOUND, "no miner is named '%s'; there are %s", name, names);
}

/* ---- Building tuples ------------------------------------------------------------------------------------------------
 */

lk_status lk_mining_positive(lk_mining *m, size_t anchor, size_t other)
{
    lk_tuples *t = m->out;
    size_t room = m->positive_room;
    if (!lk_grow((void **)&t->anchor_positive, &room, t->positives + 1, sizeof(uint32_t)) ||
        !lk_grow((void **)&t->positive, &m->positive_room, t->positives + 1, sizeof(uint32_t)))
        return lk_fail_memory("pairs");
    t->anchor_positive[t->positives] = (uint32_t)anchor;
    t->positive[t->positives++] = (uint32_t)other;
    return LK_OK;
}

lk_status lk_mining_negative(lk_mining *m, size_t anchor, size_t other)
{
    lk_tuples *t = m->out;
    size_t room = m->negative_room;
    if (!lk_grow((void **)&t->anchor_negative, &room, t->negatives + 1, sizeof(uint32_t)) ||
        !lk_grow((void **)&t->negative, &m->negative_room, t->negatives + 1, sizeof(uint32_t)))
        return lk_fail_memory("pairs");
    t->anchor_negative[t->negatives] = (uint32_t)anchor;
    t->negative[t->negatives++] = (uint32_t)other;
    return LK_OK;
}

lk_status lk_mining_triplet(lk_mining *m, size_t anchor, size_t positive, size_t negative)
{
    lk_tuples *t = m->out;
    if (t->positives >= INT32_MAX) return lk_fail(LK_LIMIT, "more than 2^31 triplets: mine a smaller batch");
    if (!lk_grow((void **)&t->negative, &m->negative_room, t->negatives + 1, sizeof(uint32_t)))
        return lk_fail_memory("triplets");
    lk_status s = lk_mining_positive(m, anchor, positive);
    if (s) return s;
    t->negative[t->negatives++] = (uint32_t)negative;
    return LK_OK;
}

/* ---- The miners
 * ------------------------------------------------------------------------------------------------------- */

lk_status lk_mine_all(lk_mining *m)
{
    lk_status s = LK_OK;
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    for (size_t i = 0; i < m->n; i++) {
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++) LK_TRY(lk_mining_positive(m, i, pos->other[k]));
        for (size_t k = neg->at[i]; k < neg->at[i + 1]; k++) LK_TRY(lk_mining_negative(m, i, neg->other[k]));
    }
done:
    return s;
}

static const size_t none = SIZE_MAX;

/* Of the anchor's others with lower < farness < upper the farthest or nearest; the first of equals; `none`. */
static size_t pick(const lk_mining *m, const lk_group *group, size_t i, bool farthest, double lower, double upper)
{
    size_t best = none;
    for (size_t k = group->at[i]; k < group->at[i + 1]; k++) {
        double f = lk_farness(m, i, group->other[k]);
        if (!(f > lower && f < upper)) continue;
        if (best == none || (farthest ? f > lk_farness(m, i, best) : f < lk_farness(m, i, best)))
            best = group->other[k];
    }
    return best;
}

/* The chosen positive and negative of an anchor; `none` where there is none or the strategy is "all". */
static void choose(const lk_mining *m, size_t i, lk_strategy by_positive, lk_strategy by_negative, size_t *positive,
                   size_t *negative)
{
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    *positive = *negative = none;
    if (by_negative == LK_STRATEGY_HARD || by_negative == LK_STRATEGY_EASY)
        *negative = pick(m, neg, i, by_negative == LK_STRATEGY_EASY, -INFINITY, INFINITY);
    if (by_positive == LK_STRATEGY_HARD || by_positive == LK_STRATEGY_EASY)
        *positive = pick(m, pos, i, by_positive == LK_STRATEGY_HARD, -INFINITY, INFINITY);
    if (by_positive == LK_STRATEGY_SEMI_HARD && *negative != none)
        *positive = pick(m, pos, i, true, -INFINITY, lk_farness(m, i, *negative));
    if (by_negative == LK_STRATEGY_SEMI_HARD && *positive != none)
        *negative = pick(m, neg, i, false, lk_farness(m, i, *positive), INFINITY);
}

lk_status lk_mine_batch_hard(lk_mining *m)
{
    lk_status s = LK_OK;
    for (size_t i = 0; i < m->n; i++) {
        size_t positive, negative;
        choose(m, i, LK_STRATEGY_HARD, LK_STRATEGY_HARD, &positive, &negative);
        if (positive != none && negative != none) LK_TRY(lk_mining_triplet(m, i, positive, negative));
    }
done:
    return s;
}

lk_status lk_mine_easy_hard(lk_mining *m)
{
    lk_status s = LK_OK;
    const lk_miner_options *o = m->options;
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    bool all_positives = o->positive == LK_STRATEGY_ALL, all_negatives = o->negative == LK_STRATEGY_ALL;
    for (size_t i = 0; i < m->n; i++) {
        size_t positive, negative;
        choose(m, i, o->positive, o->negative, &positive, &negative);
        if (!all_positives && !all_negatives && (positive == none || negative == none)) continue;
        for (size_t k = pos->at[i]; all_positives && k < pos->at[i + 1]; k++)
            LK_TRY(lk_mining_positive(m, i, pos->other[k]));
        for (size_t k = neg->at[i]; all_negatives && k < neg->at[i + 1]; k++)
            LK_TRY(lk_mining_negative(m, i, neg->other[k]));
        if (positive != none) LK_TRY(lk_mining_positive(m, i, positive));
        if (negative != none) LK_TRY(lk_mining_negative(m, i, negative));
    }
done:
    return s;
}

/* Hermans et al. (2017) call them moderate; Schroff et al. (2015), section 3.2: semi-hard. */
lk_status lk_mine_triplets(lk_mining *m)
{
    lk_status s = LK_OK;
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    bool semi = m->options->kind == LK_MINER_SEMI_HARD;
    for (size_t i = 0; i < m->n; i++)
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++)
            for (size_t l = neg->at[i]; l < neg->at[i + 1]; l++) {
                double gap = lk_farness(m, i, neg->other[l]) - lk_farness(m, i, pos->other[k]);
                if (gap <= m->options->margin && (!semi || gap > 0))
                    LK_TRY(lk_mining_triplet(m, i, pos->other[k], neg->other[l]));
            }
done:
    return s;
}

/* Wang et al. (2019), eq. 11 and 12: a positive counts when it is farther than the nearest negative, a negative when it
 * is nearer than the farthest positive, both within epsilon. Nothing when the batch lacks one kind of pairs. */
lk_status lk_mine_multi_similarity(lk_mining *m)
{
    lk_status s = LK_OK;
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    if (!pos->count || !neg->count) return LK_OK;
    for (size_t i = 0; i < m->n; i++) {
        size_t far = pick(m, pos, i, true, -INFINITY, INFINITY), near = pick(m, neg, i, false, -INFINITY, INFINITY);
        if (far == none || near == none) continue;
        double farthest = lk_farness(m, i, far), nearest = lk_farness(m, i, near);
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++)
            if (lk_farness(m, i, pos->other[k]) + m->options->epsilon > nearest)
                LK_TRY(lk_mining_positive(m, i, pos->other[k]));
        for (size_t k = neg->at[i]; k < neg->at[i + 1]; k++)
            if (lk_farness(m, i, neg->other[k]) - m->options->epsilon < farthest)
                LK_TRY(lk_mining_negative(m, i, neg->other[k]));
    }
done:
    return s;
}

lk_status lk_mine_pair_margin(lk_mining *m)
{
    lk_status s = LK_OK;
    const lk_group *pos = &m->sets.positive, *neg = &m->sets.negative;
    for (size_t i = 0; i < m->n; i++) {
        for (size_t k = pos->at[i]; k < pos->at[i + 1]; k++)
            if (m->side * (m->matrix.value[i * m->m + pos->other[k]] - m->options->positive_margin) > 0)
                LK_TRY(lk_mining_positive(m, i, pos->other[k]));
        for (size_t k = neg->at[i]; k < neg->at[i + 1]; k++)
            if (m->side * (m->matrix.value[i * m->m + neg->other[k]] - m->options->negative_margin) < 0)
                LK_TRY(lk_mining_negative(m, i, neg->other[k]));
    }
done:
    return s;
}

/* ---- One call
 * --------------------------------------------------------------------------------------------------------- */

static lk_status check(const lk_miner_options *o, const lk_labels *labels, size_t n)
{
    if ((unsigned)o->kind >= LK_MINER_KINDS) return lk_fail(LK_INVALID, "no kind of miner has number %d", o->kind);
    const char *name = miners[o->kind].name;
    if (!labels) return lk_fail(LK_INVALID, "%s: needs labels", name);
    if (o->rule.soft) return lk_fail(LK_INVALID, "%s: does not understand soft pairs; give a threshold", name);
    bool euclidean = o->distance.kind == LK_DISTANCE_DEFAULT || o->distance.kind == LK_DISTANCE_L2;
    if ((unsigned)o->distance.kind > LK_DISTANCE_INNER_PRODUCT ||
        ((o->kind == LK_MINER_DISTANCE_WEIGHTED || o->kind == LK_MINER_ANGULAR) && (!euclidean || o->distance.raw)))
        return lk_fail(LK_INVALID, "%s: is not defined for this distance", name);
    bool easy_hard = miners[o->kind].run == lk_mine_easy_hard;
    if (easy_hard && o->positive == LK_STRATEGY_SEMI_HARD && o->negative == LK_STRATEGY_SEMI_HARD)
        return lk_fail(LK_INVALID, "%s: positives and negatives cannot both be semi-hard", name);
    if (easy_hard && ((o->positive == LK_STRATEGY_ALL && o->negative == LK_STRATEGY_SEMI_HARD) ||
                      (o->negative == LK_STRATEGY_ALL && o->positive == LK_STRATEGY_SEMI_HARD)))
        return lk_fail(LK_INVALID, "%s: semi-hard needs one pair of the other kind to compare with, not all", name);
    return lk_labels_check(labels, n);
}

lk_status lk_mine_between(const lk_miner_options *options, const float *embeddings, size_t n, const lk_labels *labels,
                          const float *references, size_t m, const lk_labels *reference_labels, const uint32_t *own,
                          size_t dim, uint64_t seed, lk_tuples *out)
{
    *out = (lk_tuples){0};
    lk_status s = check(options, labels, n);
    if (s) return s;
    if (references && options->kind == LK_MINER_ANGULAR)
        return lk_fail(LK_UNSUPPORTED, "the angular miner compares the pictures of one batch alone");
    out->triplets = miners[options->kind].triplets;
    lk_mining g = {.options = options, .n = n, .m = m, .dim = dim, .seed = seed, .out = out};
    lk_distance distance = options->distance;
    if (distance.kind == LK_DISTANCE_DEFAULT) distance.kind = miners[options->kind].defaults.distance.kind;
    LK_TRY(lk_pair_sets_all(&options->rule, labels, n, reference_labels, m, own, &g.sets));
    LK_TRY(lk_matrix_new(distance, embeddings, n, references, m, dim, &g.matrix));
    g.side = lk_is_similarity(distance.kind) ? -1 : 1;
    LK_TRY(miners[options->kind].run(&g));
done:
    lk_pair_sets_free(&g.sets);
    lk_matrix_free(&g.matrix);
    if (s) lk_tuples_free(out);
    return s;
}

lk_status lk_mine(const lk_miner_options *options, const float *embeddings, size_t n, size_t dim,
                  const lk_labels *labels, uint64_t seed, lk_tuples *out)
{
    return lk_mine_between(options, embeddings, n, labels, NULL, n, labels, NULL, dim, seed, out);
}
