#include "embed/neural_pool.h"

#include "base/error.h"

#include <math.h>

static const float EPS = 1e-6f;

void lk_neural_pool(const float *x, size_t places, size_t channels, bool map, lk_pooling pool, float p, float *out)
{
    size_t step = map ? 1 : channels;
    for (size_t c = 0; c < channels; c++) {
        const float *from = x + (map ? c * places : c);
        double sum = 0;
        float most = from[0];
        for (size_t i = 0; i < places; i++) {
            float value = from[i * step];
            if (pool == LK_POOL_MAX)
                most = value > most || isnan(value) ? value : most;
            else if (pool == LK_POOL_GEM)
                sum += pow(value < EPS ? (double)EPS : (double)value, (double)p);
            else
                sum += (double)value;
        }
        if (pool == LK_POOL_MAX)
            out[c] = most;
        else if (pool == LK_POOL_GEM)
            out[c] = (float)pow(sum / (double)places, 1 / (double)p);
        else
            out[c] = (float)(sum / (double)places);
    }
}

lk_status lk_neural_normalise(float *vector, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (double)vector[i] * (double)vector[i];
    if (!isfinite(sum)) return lk_fail(LK_CORRUPT, "the network yields NaN or infinity for it");
    if (sum == 0) return lk_fail(LK_CORRUPT, "the network yields nothing but zeros for it");
    double scale = 1 / sqrt(sum);
    for (size_t i = 0; i < dim; i++) vector[i] = (float)((double)vector[i] * scale);
    return LK_OK;
}
