/* Whitening learnt from pairs that belong together (Mikolajczyk & Matas, 2007; Radenovic et al., 2018, section 3.4):
 * the first half makes what differs within pairs white, the second turns to the principal components of what is left.
 */
#ifndef LK_EMBED_WHITEN_H
#define LK_EMBED_WHITEN_H

#include "embed/pca.h"

#include <stdint.h>

/* Two rows that belong together. */
typedef struct lk_pair {
    uint32_t query, positive;
} lk_pair;

/* With m the mean of the pairs' queries, S the mean of (q - p)(q - p)^T over the pairs, S = L L^T, and V the
 * eigenvectors of the scatter of L^-1 (x - m) over all rows, largest first: result = V^T L^-1 and m, in the form of
 * principal components. Where S is not positive definite, as little as makes it so is added to its diagonal.
 * x [n][in]; the first `out` (1 to in) components are kept, the sign of each as lk_pca_fit has it. Sums are f64.
 * LK_INVALID without pairs or when nothing varies, LK_NO_MEMORY. */
lk_status lk_whiten_pairs(const float *x, size_t n, size_t in, const lk_pair *pairs, size_t count, size_t out,
                          lk_pca *result);

#endif
