/* The classifier that is trained beside a combination of descriptors (Jun et al., 2019, section 3.2): softmax
 * cross-entropy with temperature and smoothed labels over W f + b, f being the first descriptor as it was pooled. Each
 * process computes the rows of its own pictures. */
#include "train/network.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <likeness/pooling.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

lk_status lk_auxiliary_open(lk_network *net, const lk_auxiliary_options *options, size_t classes, uint64_t seed)
{
    static const lk_head_pool pools[LK_CGD_KINDS] = {LK_HEAD_AVG, LK_HEAD_MAX, LK_HEAD_GEM};
    lk_net_auxiliary *a = &net->auxiliary;
    size_t channels = net->map.channels, n = net->batch, map = n * channels * (net->map.places + net->map.leading);
    lk_status s;
    a->options = *options;
    a->classes = classes;
    a->pooling = (lk_head_pooling){.pool = pools[net->pooling.branches[0].kind], .p_count = 1};
    a->p = net->pooling.branches[0].p;
    a->pooling.p = &a->p;
    LK_TRY(lk_net_add(net, "auxiliary.", "weight", 2, classes, channels, &a->weight, &a->weight_gradient));
    net->tensors[net->tensor_count - 1].parted = true;
    LK_TRY(lk_net_add(net, "auxiliary.", "bias", 1, classes, 1, &a->bias, &a->bias_gradient));
    net->tensors[net->tensor_count - 1].parted = true;
    lk_random random;
    lk_random_seed(&random, seed ^ 0x617578u);
    double bound = 1 / sqrt((double)channels); /* as a projection */
    for (size_t i = 0; i < classes * channels; i++) a->weight[i] = (float)((2 * lk_random_unit(&random) - 1) * bound);
    a->pooled = lk_alloc(n * channels, sizeof(float));
    a->g_pooled = lk_alloc(n * channels, sizeof(float));
    a->logits = lk_alloc(n * classes, sizeof(float));
    a->g_logits = lk_alloc(n * classes, sizeof(float));
    a->g_features = lk_alloc(map, sizeof(float));
    a->spare = lk_alloc(classes * (channels + 1), sizeof(float));
    if (!a->pooled || !a->g_pooled || !a->logits || !a->g_logits || !a->g_features || !a->spare)
        s = lk_fail_memory("classifier");
done:
    return s;
}

void lk_auxiliary_free(lk_net_auxiliary *a)
{
    float *all[] = {a->weight,   a->weight_gradient, a->bias,     a->bias_gradient, a->pooled,
                    a->g_pooled, a->logits,          a->g_logits, a->g_features,    a->spare};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    *a = (lk_net_auxiliary){0};
}

lk_status lk_auxiliary_backward(lk_network *net, const lk_net_lesson *lesson, double *value)
{
    lk_net_auxiliary *a = &net->auxiliary;
    size_t channels = net->map.channels, n = net->batch, classes = a->classes, weights = classes * channels;
    const int32_t *labels = lesson->classes + (size_t)lk_processes_rank(net->processes) * n;
    double own, part = (double)n / (double)net->total; /* of the mean over the whole batch */
    float share = (float)(a->options.weight * part) * lesson->share;
    lk_status s;
    LK_TRY(lk_head_pool_forward(&a->pooling, &net->map, n, net->features, a->pooled));
    LK_TRY(lk_projection_forward(n, channels, classes, a->pooled, a->weight, a->bias, a->logits));
    LK_TRY(lk_cross_entropy(a->logits, n, classes, labels, a->options.temperature, a->options.smoothing, &own,
                            a->g_logits));
    own *= part;
    LK_TRY(lk_processes_sum_f64(net->processes, &own, 1));
    *value += a->options.weight * own;
    for (size_t i = 0; i < n * classes; i++) a->g_logits[i] *= share;
    LK_TRY(lk_projection_backward(n, channels, classes, a->pooled, a->weight, a->g_logits, a->g_pooled, a->spare,
                                  a->spare + weights));
    for (size_t i = 0; i < weights; i++) a->weight_gradient[i] += a->spare[i];
    for (size_t i = 0; i < classes; i++) a->bias_gradient[i] += a->spare[weights + i];
    LK_TRY(lk_head_pool_backward(&a->pooling, &net->map, n, net->features, a->pooled, a->g_pooled, a->g_features, NULL,
                                 NULL));
    for (size_t i = 0; i < n * channels * (net->map.places + net->map.leading); i++)
        net->g_features[i] += a->g_features[i];
done:
    return s;
}

void lk_auxiliary_clear(lk_network *net)
{
    lk_net_auxiliary *a = &net->auxiliary;
    if (!a->weight) return;
    memset(a->weight_gradient, 0, a->classes * net->map.channels * sizeof(float));
    memset(a->bias_gradient, 0, a->classes * sizeof(float));
}
