/* Pooling heads: from the feature map of a network to one vector, forward and backward, as functions over plain arrays.
 *
 * A map is x [batch][channels][positions]; where a region matters, positions = height * width, rows first. Tokens of a
 * transformer are x [batch][positions][channels]. Arrays must not overlap. A backward function writes (does not add to)
 * every gradient whose pointer is not NULL. All return LK_INVALID when a size is 0 or an option makes no sense, and
 * LK_NO_MEMORY where they need room of their own. */
#ifndef LIKENESS_POOLING_H
#define LIKENESS_POOLING_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lk_map_shape {
    size_t batch, channels, positions;
    bool tokens; /* positions before channels; take a class token out first by passing x + channels, batch 1 */
} lk_map_shape;

/* What a model's head pools with. Of transformers the places are the patches, without the tokens in front of them. */
typedef enum lk_head_pool {
    LK_HEAD_AVG,
    LK_HEAD_MAX,
    LK_HEAD_GEM,
    LK_HEAD_RMAC, /* maps alone */
    LK_HEAD_CGD,  /* several descriptors, each projected */
    LK_HEAD_CLS,  /* the class token of a transformer */
    LK_HEAD_POOLS
} lk_head_pool;

/* Average over positions (SPoC, Babenko & Lempitsky, 2015, without the centre prior). out [batch][channels]. */
LK_API lk_status lk_average_forward(lk_map_shape shape, const float *x, float *out);
LK_API lk_status lk_average_backward(lk_map_shape shape, const float *grad_out, float *grad_x);

/* Maximum over positions (MAC, Tolias et al., 2016). Of equal maxima the first gets the gradient. out
 * [batch][channels]. */
LK_API lk_status lk_maximum_forward(lk_map_shape shape, const float *x, float *out);
LK_API lk_status lk_maximum_backward(lk_map_shape shape, const float *x, const float *grad_out, float *grad_x);

/* Generalised mean (Radenovic et al., 2018, eq. 3): (mean over positions of max(x, eps)^p)^(1/p).
 * p        [p_count], all > 0; p_count is 1 or channels. 1 is the average of what is positive, large p approaches the
 *          maximum; 3 is usual, eps 1e-6.
 * out      [batch][channels]
 * grad_p   [p_count] */
LK_API lk_status lk_gem_forward(lk_map_shape shape, const float *x, const float *p, size_t p_count, float eps,
                                float *out);
LK_API lk_status lk_gem_backward(lk_map_shape shape, const float *x, const float *out, const float *grad_out,
                                 const float *p, size_t p_count, float eps, float *grad_x, float *grad_p);

/* A rectangle of a map, in positions. */
typedef struct lk_region {
    uint32_t top, left, height, width;
} lk_region;

/* The regions of R-MAC (Tolias et al., 2016, section 4): the whole map, then for level l = 1..levels squares of side
 * 2 min(height, width) / (l + 1) laid evenly, with as many more along the longer side as brings neighbours to 40 %
 * overlap. regions may be NULL to ask for the number; *count receives it. At most 8 levels. */
LK_API lk_status lk_rmac_regions(uint32_t height, uint32_t width, unsigned levels, lk_region *regions, size_t *count);

/* Whitening within R-MAC: y = weight . v + bias for each region's unit vector v, then normalised. */
typedef struct lk_whitening {
    const float *weight; /* [out][channels]; NULL = none, and then out = channels */
    const float *bias;   /* [out] or NULL */
    size_t out;
} lk_whitening;

/* R-MAC: the sum over the regions of the L2-normalised maxima (lengths are raised by 1e-6, as the reference does); with
 * whitening each is whitened and normalised again. x [batch][channels][height*width]; out [batch][whitening.out or
 * channels], not normalised. whitening NULL = none. */
LK_API lk_status lk_rmac_forward(size_t batch, size_t channels, uint32_t height, uint32_t width, unsigned levels,
                                 const lk_whitening *whitening, const float *x, float *out);
LK_API lk_status lk_rmac_backward(size_t batch, size_t channels, uint32_t height, uint32_t width, unsigned levels,
                                  const lk_whitening *whitening, const float *x, const float *grad_out, float *grad_x,
                                  float *grad_weight, float *grad_bias);

typedef enum lk_cgd_kind { LK_CGD_AVERAGE, LK_CGD_MAXIMUM, LK_CGD_GEM, LK_CGD_KINDS } lk_cgd_kind;

/* One global descriptor of a combination: pooled, projected, normalised. */
typedef struct lk_cgd_branch {
    lk_cgd_kind kind;
    float p;             /* GeM */
    const float *weight; /* [out][channels] */
    size_t out;
} lk_cgd_branch;

/* Combination of multiple global descriptors (Jun et al., 2019, fig. 1): out [batch][sum of branches' out] holds
 * normalised(weight_k . pool_k(x)) one after the other, and is then normalised as a whole. GeM's eps is 1e-6.
 * grad_weights [branches] pointers to [out_k][channels]; NULL = not wanted. */
LK_API lk_status lk_cgd_forward(lk_map_shape shape, const lk_cgd_branch *branches, size_t count, const float *x,
                                float *out);
LK_API lk_status lk_cgd_backward(lk_map_shape shape, const lk_cgd_branch *branches, size_t count, const float *x,
                                 const float *grad_out, float *grad_x, float *const *grad_weights);

/* Batch DropBlock (Dai et al., 2019): one rectangle, the same for the whole batch, is set to 0 in a training branch.
 * height_share, width_share in (0, 1]: its size, rounded, at least one position. The mask [height*width] is 0 inside
 * and 1 outside, drawn from seed. */
LK_API lk_status lk_drop_block_mask(uint32_t height, uint32_t width, float height_share, float width_share,
                                    uint64_t seed, float *mask);
/* out = x * mask for every channel: forward with x, backward with the gradient. */
LK_API lk_status lk_drop_block_apply(lk_map_shape shape, const float *mask, const float *x, float *out);

/* out [n][out_dim] = x [n][in_dim] . weight^T [out_dim][in_dim] + bias [out_dim] (NULL = none). */
LK_API lk_status lk_projection_forward(size_t n, size_t in_dim, size_t out_dim, const float *x, const float *weight,
                                       const float *bias, float *out);
LK_API lk_status lk_projection_backward(size_t n, size_t in_dim, size_t out_dim, const float *x, const float *weight,
                                        const float *grad_out, float *grad_x, float *grad_weight, float *grad_bias);

/* Batch-norm neck (Luo et al., 2019): batch normalisation of vectors, usually without shift.
 * scale [dim], shift [dim] or NULL; eps 1e-5 is usual.
 * mean, inverse [dim]: of the batch and 1 / sqrt(variance + eps) (biased variance); written forward, read backward.
 * running_mean, running_variance [dim] or NULL: moved by momentum toward the batch's (variance unbiased, as PyTorch
 * does). n must be at least 2 to train. */
LK_API lk_status lk_neck_forward(size_t n, size_t dim, const float *x, const float *scale, const float *shift,
                                 float eps, float momentum, float *running_mean, float *running_variance, float *mean,
                                 float *inverse, float *out);
LK_API lk_status lk_neck_backward(size_t n, size_t dim, const float *x, const float *scale, const float *mean,
                                  const float *inverse, const float *grad_out, float *grad_x, float *grad_scale,
                                  float *grad_shift);
/* The same with the running statistics, for use. */
LK_API lk_status lk_neck_apply(size_t n, size_t dim, const float *x, const float *scale, const float *shift, float eps,
                               const float *running_mean, const float *running_variance, float *out);

/* Rows divided by max(|x|, eps). The gradient of a row not longer than eps is grad_out / eps without the projection;
 * with eps 0 a zero row stays zero and gets no gradient. */
LK_API lk_status lk_normalise_forward(size_t n, size_t dim, const float *x, float eps, float *out);
LK_API lk_status lk_normalise_backward(size_t n, size_t dim, const float *x, float eps, const float *grad_out,
                                       float *grad_x);

#ifdef __cplusplus
}
#endif
#endif
