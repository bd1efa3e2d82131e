/* What is known about each kind of loss: name, published defaults, what it needs. */
#ifndef LK_METRIC_KINDS_H
#define LK_METRIC_KINDS_H

#include "metric/problem.h"

typedef struct lk_loss_traits {
    const char *name;
    lk_loss_fn run;
    bool weights;              /* compares with class weights or proxies instead of the batch */
    bool weighted;             /* understands soft pair weights */
    bool unique;               /* pairs of the tuples count once */
    bool all;                  /* looks at all pairs of the labels; tuples are weights */
    bool memory;               /* may stand inside a cross-batch memory */
    bool divisor;              /* brings its own divisor: takes the default reducer only */
    bool similarity, distance; /* which kinds of distance it is defined for */
    bool direct;               /* the cosine (L2) family alone: not raw */
    lk_loss_options defaults;
} lk_loss_traits;

/* NULL for no kind. */
const lk_loss_traits *lk_loss_traits_of(lk_loss_kind kind);

/* Whether classes have too few pictures on average for a weight vector each (docs/losses.md). */
bool lk_few_per_class(const lk_label_summary *summary);

/* LK_INVALID with a message that names the option. */
lk_status lk_loss_options_check(const lk_loss_options *options, size_t dim);

#endif
