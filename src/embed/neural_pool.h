/* From a network's last features to one vector. */
#ifndef LK_EMBED_NEURAL_POOL_H
#define LK_EMBED_NEURAL_POOL_H

#include <likeness/embed.h>

/* x: tokens [places][channels], or with `map` a feature map [channels][places]; out [channels]. LK_POOL_AVG,
 * LK_POOL_MAX or LK_POOL_GEM: (mean of max(x, 1e-6)^p)^(1/p). */
void lk_neural_pool(const float *x, size_t places, size_t channels, bool map, lk_pooling pool, float p, float *out);

/* Divides by the L2 norm. LK_CORRUPT when a component is not finite or all are zero. */
lk_status lk_neural_normalise(float *vector, size_t dim);

#endif
