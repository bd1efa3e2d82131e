/* Softmax cross-entropy with temperature and smoothed labels (Szegedy et al., 2016, section 7):
 *
 *     z = logits / T,   target_c = (1 - e) [c = y] + e / C,   loss = mean over the rows of -sum_c target_c log
 * softmax(z)_c
 *
 * Its slope by a logit is (softmax(z)_c - target_c) / (n T). */
#include "metric/problem.h"

#include "base/error.h"

#include <likeness/metric.h>

lk_status lk_cross_entropy(const float *logits, size_t n, size_t classes, const int32_t *labels, double temperature,
                           double smoothing, double *value, float *grad_logits)
{
    double sum = 0;
    if (!n || !classes || !(temperature > 0) || !(smoothing >= 0 && smoothing < 1))
        return lk_fail(LK_INVALID, "cross-entropy of %zu rows and %zu classes, temperature %g, smoothing %g", n,
                       classes, temperature, smoothing);
    for (size_t i = 0; i < n; i++) {
        const float *row = logits + i * classes;
        double most = (double)row[0], total = 0, mean = 0, each = smoothing / (double)classes;
        if (labels[i] < 0 || (size_t)labels[i] >= classes)
            return lk_fail(LK_INVALID, "class %d of picture %zu: there are %zu", labels[i], i, classes);
        for (size_t c = 1; c < classes; c++) most = fmax(most, (double)row[c]);
        for (size_t c = 0; c < classes; c++) {
            total += exp(((double)row[c] - most) / temperature);
            mean += (double)row[c] - most;
        }
        double own = (double)row[labels[i]] - most, whole = log(total);
        mean /= (double)classes;
        sum += whole - ((1 - smoothing) * own + smoothing * mean) / temperature;
        for (size_t c = 0; grad_logits && c < classes; c++) {
            double share = exp(((double)row[c] - most) / temperature) / total;
            double target = each + ((int32_t)c == labels[i] ? 1 - smoothing : 0);
            grad_logits[i * classes + c] = (float)((share - target) / ((double)n * temperature));
        }
    }
    *value = sum / (double)n;
    return LK_OK;
}
