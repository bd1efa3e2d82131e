/* How certain a mean is, and a difference of means. Sources in likeness/eval.h. */
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include <likeness/eval.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Quantile of sorted values, linear between neighbours. */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t low = (size_t)at;
    return low + 1 < n ? sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low]) : sorted[n - 1];
}

/* Inverse of the standard normal distribution by bisection of erfc: called a few times, so precision before speed. */
static double normal_quantile(double p)
{
    double low = -40, high = 40;
    for (int i = 0; i < 200 && low < high; i++) {
        double middle = (low + high) / 2;
        if (erfc(-middle / sqrt(2)) / 2 < p)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

/* Mean and standard error of a column. */
static void moments(const double *values, size_t rows, size_t stride, double *mean, double *error)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < rows; i++) sum += values[i * stride];
    *mean = sum / (double)rows;
    for (size_t i = 0; i < rows; i++) {
        double d = values[i * stride] - *mean;
        squares += d * d;
    }
    *error = rows > 1 ? sqrt(squares / (double)(rows - 1) / (double)rows) : 0;
}

typedef struct resampling {
    const double *values;
    size_t rows, columns;
    uint64_t seed;
    uint32_t resamples;
    double *means; /* [columns][resamples] */
} resampling;

static lk_status resample(void *arg, size_t begin, size_t end, int worker)
{
    resampling *r = arg;
    (void)worker;
    double *sum = lk_alloc(r->columns, sizeof *sum);
    if (!sum) return lk_fail_memory("resamples");
    for (size_t b = begin; b < end; b++) {
        lk_random random; /* one stream a resample: the result does not depend on which thread does it */
        lk_random_seed(&random, r->seed + 0xd1342543de82ef95u * (b + 1));
        memset(sum, 0, r->columns * sizeof *sum);
        for (size_t i = 0; i < r->rows; i++) {
            const double *row = r->values + lk_random_below(&random, r->rows) * r->columns;
            for (size_t c = 0; c < r->columns; c++) sum[c] += row[c];
        }
        for (size_t c = 0; c < r->columns; c++) r->means[c * r->resamples + b] = sum[c] / (double)r->rows;
    }
    free(sum);
    return LK_OK;
}

static lk_status check(size_t n, double level, uint32_t resamples)
{
    if (n == 0) return lk_fail(LK_INVALID, "no query has anything to find: there is nothing to take the mean of");
    if (!(level > 0 && level < 1)) return lk_fail(LK_INVALID, "a confidence of %g: it must lie between 0 and 1", level);
    if (resamples == 0) return lk_fail(LK_INVALID, "0 resamples make no interval");
    return LK_OK;
}

lk_status lk_eval_intervals(lk_context *context, const double *values, size_t rows, size_t columns, double level,
                            uint32_t resamples, uint64_t seed, lk_interval *out)
{
    lk_status s = check(rows, level, resamples);
    if (s != LK_OK) return s;
    double z = normal_quantile((1 + level) / 2);
    for (size_t c = 0; c < columns; c++) {
        double error;
        moments(values + c, rows, columns, &out[c].mean, &error);
        out[c].low = out[c].mean - z * error;
        out[c].high = out[c].mean + z * error;
    }
    if (rows > LK_EVAL_RESAMPLE_LIMIT) return LK_OK;
    resampling r = {values, rows, columns, seed, resamples, lk_alloc(columns, resamples * sizeof *r.means)};
    if (!r.means) return lk_fail_memory("resamples");
    s = lk_parallel_for(lk_context_pool(context), resamples, 16, resample, &r);
    for (size_t c = 0; s == LK_OK && c < columns; c++) {
        double *means = r.means + c * resamples;
        qsort(means, resamples, sizeof *means, by_value);
        out[c].low = quantile(means, resamples, (1 - level) / 2);
        out[c].high = quantile(means, resamples, (1 + level) / 2);
    }
    free(r.means);
    return s;
}

/* Whether a sum is as far from zero as the one observed; sums of the same numbers in another order or with other signs
 * differ by rounding alone. */
static bool as_extreme(double sum, double observed)
{
    return fabs(sum) >= fabs(observed) * (1 - 1e-12) - 1e-300;
}

/* All 2^n ways to flip the signs; each sum is made anew, so that no rounding piles up. */
static double exact_randomisation(const double *differences, size_t n, double observed)
{
    uint64_t all = (uint64_t)1 << n, extreme = 0;
    for (uint64_t code = 0; code < all; code++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += code >> i & 1 ? -differences[i] : differences[i];
        extreme += as_extreme(sum, observed);
    }
    return (double)extreme / (double)all;
}

static double sampled_randomisation(const double *differences, size_t n, double observed, uint32_t resamples,
                                    uint64_t seed)
{
    lk_random random;
    lk_random_seed(&random, seed ^ 0x5bd1e995u);
    uint32_t extreme = 0;
    for (uint32_t b = 0; b < resamples; b++) {
        double sum = 0;
        uint64_t bits = 0;
        for (size_t i = 0; i < n; i++) {
            if (i % 64 == 0) bits = lk_random_u64(&random);
            sum += bits & 1 ? -differences[i] : differences[i];
            bits >>= 1;
        }
        extreme += as_extreme(sum, observed);
    }
    return (1.0 + extreme) / (1.0 + resamples);
}

/* Two-sided p of the paired bootstrap from sorted means of differences. */
static double bootstrap_p(const double *means, uint32_t n)
{
    uint32_t at_most = 0, at_least = 0;
    for (uint32_t b = 0; b < n; b++) {
        at_most += means[b] <= 0;
        at_least += means[b] >= 0;
    }
    uint32_t fewer = at_most < at_least ? at_most : at_least;
    double p = 2 * (1.0 + fewer) / (1.0 + n);
    return p < 1 ? p : 1;
}

lk_status lk_eval_compare(lk_context *context, const double *a, const double *b, size_t n, double level,
                          uint32_t resamples, uint64_t seed, lk_comparison *out)
{
    lk_status s = check(n, level, resamples);
    if (s != LK_OK) return s;
    *out = (lk_comparison){0};
    double *differences = lk_alloc(n, sizeof *differences), sum = 0, error;
    resampling r = {differences, n, 1, seed, resamples, NULL};
    if (!differences) return lk_fail_memory("comparison");
    for (size_t i = 0; i < n; i++) {
        differences[i] = b[i] - a[i];
        sum += differences[i];
        out->better += differences[i] > 0;
        out->worse += differences[i] < 0;
        out->equal += differences[i] == 0;
    }
    moments(differences, n, 1, &out->difference.mean, &error);
    double z = normal_quantile((1 + level) / 2);
    out->difference.low = out->difference.mean - z * error;
    out->difference.high = out->difference.mean + z * error;
    if (n > LK_EVAL_RESAMPLE_LIMIT) {
        out->p_bootstrap = out->p_randomisation = error > 0 ? erfc(fabs(out->difference.mean) / error / sqrt(2)) : 1;
        goto done;
    }
    r.means = lk_alloc(resamples, sizeof *r.means);
    if (!r.means) {
        s = lk_fail_memory("comparison");
        goto done;
    }
    LK_TRY(lk_parallel_for(lk_context_pool(context), resamples, 16, resample, &r));
    qsort(r.means, resamples, sizeof *r.means, by_value);
    out->difference.low = quantile(r.means, resamples, (1 - level) / 2);
    out->difference.high = quantile(r.means, resamples, (1 + level) / 2);
    out->p_bootstrap = bootstrap_p(r.means, resamples);
    out->p_randomisation = n < 32 && ((uint64_t)1 << n) <= resamples
                               ? exact_randomisation(differences, n, sum)
                               : sampled_randomisation(differences, n, sum, resamples, seed);
done:
    free(r.means);
    free(differences);
    return s;
}
