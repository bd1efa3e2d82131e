/* k-means: Lloyd's iterations after k-means++ seeding (Arthur & Vassilvitskii, 2007). */
#ifndef LK_EMBED_KMEANS_H
#define LK_EMBED_KMEANS_H

#include <likeness/context.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lk_kmeans_options {
    unsigned iterations; /* at most; 0 = 20 */
    double tolerance;    /* stops when the inertia falls by less than this share; 0 = never */
    uint64_t seed;
} lk_kmeans_options;

/* Divides x [n][dim] into k clusters. centroids [k][dim] is written; assignment [n] too unless NULL; *inertia (may be
 * NULL) is the mean squared distance to the nearest centroid at the last assignment. A cluster that loses all its
 * points takes over the point that lies farthest from its centroid. The same input gives the same bytes for any number
 * of threads. LK_INVALID when n < k or k is 0; LK_CANCELLED; LK_NO_MEMORY. */
lk_status lk_kmeans(lk_context *context, const float *x, size_t n, size_t dim, size_t k,
                    const lk_kmeans_options *options, float *centroids, uint32_t *assignment, double *inertia);

/* Nearest centroid of each row: half_norms [k] holds |c|^2 / 2. distances [n] (squared) may be NULL. Runs in the
 * calling thread; scratch [k]. Ties go to the smaller number. */
void lk_kmeans_assign(const float *x, size_t n, size_t dim, const float *centroids, const float *half_norms, size_t k,
                      float *scratch, uint32_t *assignment, float *distances);
/* half_norms [k] of centroids [k][dim]. */
void lk_kmeans_half_norms(const float *centroids, size_t k, size_t dim, float *half_norms);

#endif
