/* Principal components with whitening (Jegou & Chum, 2012: it undoes the over-counting of words that occur together).
 */
#ifndef LK_EMBED_PCA_H
#define LK_EMBED_PCA_H

#include <likeness/context.h>
#include <stddef.h>

typedef struct lk_pca {
    size_t in, out;
    float *mean;       /* [in] */
    float *components; /* [out][in]: rows are eigenvectors of the covariance over the square root of their eigenvalue,
                          so that the projections of the sample have unit variance */
} lk_pca;

/* Fits to x [n][in], which is centred in place (its contents are spent). At most `out` components are kept, fewer when
 * the sample does not determine so many (rank, n - 1): look at result->out. `ridge` times the mean kept eigenvalue is
 * added to each eigenvalue before the root is taken: 0 whitens fully, a large one only rotates. The sign of a component
 * makes its largest entry positive. The same bytes for any number of threads. LK_INVALID when n < 2 or nothing varies;
 * LK_NO_MEMORY. */
lk_status lk_pca_fit(lk_context *context, float *x, size_t n, size_t in, size_t out, double ridge, lk_pca *result);
/* y [out] = components (x - mean). */
void lk_pca_apply(const lk_pca *pca, const float *x, float *y);
void lk_pca_free(lk_pca *pca);

#endif
