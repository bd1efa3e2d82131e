/* Checks of labels, and what a pair of labels means to a loss. */
#ifndef LK_METRIC_LABELS_H
#define LK_METRIC_LABELS_H

#include <likeness/metric.h>

lk_status lk_labels_check(const lk_labels *labels, size_t n);
/* Single labels, all in [0, classes)? */
lk_status lk_labels_check_classes(const lk_labels *labels, size_t n, uint32_t classes);

/* Weight of a pair as a positive and as a negative one: 0 or 1 unless the rule is soft. */
typedef struct lk_relation {
    double positive, negative;
} lk_relation;
lk_relation lk_relate(const lk_pair_rule *rule, const lk_labels *a, size_t i, const lk_labels *b, size_t j);

#endif
