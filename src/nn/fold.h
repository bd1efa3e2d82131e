/* Weights as a group of the graph multiplies them: batch norm, layer scale and factors folded in. */
#ifndef LK_NN_FOLD_H
#define LK_NN_FOLD_H

#include "nn/executor.h"

/* Weights [out][k] and bias [out] of a group. */
typedef struct lk_folded {
    const float *weight;
    float *factor; /* [out]: the weights are still to be multiplied with it; NULL = no more */
    float *own;    /* when something was folded or the order changed */
    float *bias;   /* NULL = none */
    size_t out, k;
} lk_folded;

/* Leaves the factor, for whoever multiplies while he packs; the others call lk_folded_apply. */
lk_status lk_fold(const lk_executor *e, lk_node anchor, lk_folded *f);
void lk_folded_free(lk_folded *f);
/* Makes the weights a copy that may be changed, with the factor in it; false when out of memory. */
bool lk_folded_own(lk_folded *f);
lk_status lk_folded_apply(lk_folded *f);
/* Our kernel of x sigmoid(factor x) is given -factor log2(e) x, which the weights make for nothing; false when out of
 * memory. */
bool lk_fold_swish(lk_folded *f, float factor);
/* Quantises weights to s8 by row: codes [out][k], scales [out] = max |row| / 127. */
void lk_folded_codes(const lk_folded *f, int8_t *codes, float *scales);

#endif
