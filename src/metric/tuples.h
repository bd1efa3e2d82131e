/* Tuples grouped by anchor: the form in which losses and miners walk over pairs. */
#ifndef LK_METRIC_TUPLES_H
#define LK_METRIC_TUPLES_H

#include "metric/labels.h"

#include <likeness/metric.h>

/* Others of one anchor i: other[at[i]] .. other[at[i+1]-1], with their weights (NULL: all 1). */
typedef struct lk_group {
    size_t *at; /* [n+1] */
    uint32_t *other;
    double *weight;
    size_t count;
} lk_group;

typedef struct lk_pair_sets {
    lk_group positive, negative;
} lk_pair_sets;

/* All pairs of n anchors with m references. own [n] names the reference that is the anchor itself and makes no positive
 * pair (NULL: reference i is anchor i). Weighted when the rule is soft and the labels are not single. */
lk_status lk_pair_sets_all(const lk_pair_rule *rule, const lk_labels *anchors, size_t n, const lk_labels *references,
                           size_t m, const uint32_t *own, lk_pair_sets *out);
/* The pairs of given tuples, in their order within each anchor; triplets give each of their pairs as often as it
 * occurs. LK_INVALID for indices outside n and m. */
lk_status lk_pair_sets_of(const lk_tuples *tuples, size_t n, size_t m, lk_pair_sets *out);
/* Drops repeats within each anchor. */
lk_status lk_pair_sets_unique(lk_pair_sets *sets, size_t n, size_t m);
void lk_pair_sets_free(lk_pair_sets *sets);

/* How often each embedding occurs in the tuples, divided by the most frequent one's count; all 1 without tuples.
 * anchors_only: positives and negatives are not counted. weight [n] written. */
lk_status lk_tuple_weights(const lk_tuples *tuples, size_t n, bool anchors_only, double *weight);

static inline double lk_group_weight(const lk_group *group, size_t k)
{
    return group->weight ? group->weight[k] : 1;
}

#endif
