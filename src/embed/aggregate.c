#include "embed/aggregate.h"

#include <math.h>
#include <string.h>

void lk_l2_normalise(float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    if (!(sum > 0)) return;
    float factor = (float)(1 / sqrt(sum));
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

void lk_vlad(const float *descriptors, const uint32_t *assignment, size_t n, const float *words, size_t k, size_t dim,
             float *out)
{
    memset(out, 0, k * dim * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        float *sum = out + assignment[i] * dim;
        const float *d = descriptors + i * dim, *word = words + assignment[i] * dim;
        for (size_t j = 0; j < dim; j++) sum[j] += d[j] - word[j];
    }
    for (size_t w = 0; w < k; w++) lk_l2_normalise(out + w * dim, dim);
    for (size_t i = 0; i < k * dim; i++) out[i] = copysignf(sqrtf(fabsf(out[i])), out[i]);
    lk_l2_normalise(out, k * dim);
}

void lk_bovw_frequencies(const uint32_t *assignment, size_t n, size_t k, float *out)
{
    memset(out, 0, k * sizeof *out);
    for (size_t i = 0; i < n; i++) out[assignment[i]] += 1.0f / (float)n;
}

void lk_bovw_weight(float *frequencies, const float *idf, size_t k)
{
    for (size_t i = 0; i < k; i++) frequencies[i] *= idf[i];
    lk_l2_normalise(frequencies, k);
}

void lk_bovw_idf(const uint32_t *documents_with, size_t documents, size_t k, float *idf)
{
    for (size_t i = 0; i < k; i++) idf[i] = documents_with[i] ? (float)log((double)documents / documents_with[i]) : 0;
}
