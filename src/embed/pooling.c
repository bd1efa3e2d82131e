/* Pooling over all positions: average, maximum, generalised mean, and the mask of Batch DropBlock. */
#include <likeness/pooling.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where channel c of picture b begins and how far its positions lie apart. */
typedef struct lane {
    size_t at, step;
} lane;

static lane lane_of(lk_map_shape s, size_t b, size_t c)
{
    size_t picture = b * s.channels * s.positions;
    return s.tokens ? (lane){picture + c, s.channels} : (lane){picture + c * s.positions, 1};
}

static lk_status check(lk_map_shape s)
{
    if (s.batch && s.channels && s.positions) return LK_OK;
    return lk_fail(LK_INVALID, "a map of %zu x %zu x %zu cannot be pooled", s.batch, s.channels, s.positions);
}

lk_status lk_average_forward(lk_map_shape s, const float *x, float *out)
{
    lk_status bad = check(s);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0; c < s.channels; c++) {
            lane l = lane_of(s, b, c);
            double sum = 0;
            for (size_t i = 0; i < s.positions; i++) sum += (double)x[l.at + i * l.step];
            out[b * s.channels + c] = (float)(sum / (double)s.positions);
        }
    return LK_OK;
}

lk_status lk_average_backward(lk_map_shape s, const float *grad_out, float *grad_x)
{
    lk_status bad = check(s);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0; c < s.channels; c++) {
            lane l = lane_of(s, b, c);
            float share = grad_out[b * s.channels + c] / (float)s.positions;
            for (size_t i = 0; i < s.positions; i++) grad_x[l.at + i * l.step] = share;
        }
    return LK_OK;
}

static size_t first_maximum(const float *x, lane l, size_t positions)
{
    size_t best = 0;
    for (size_t i = 1; i < positions; i++)
        if (x[l.at + i * l.step] > x[l.at + best * l.step]) best = i;
    return best;
}

lk_status lk_maximum_forward(lk_map_shape s, const float *x, float *out)
{
    lk_status bad = check(s);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0; c < s.channels; c++) {
            lane l = lane_of(s, b, c);
            out[b * s.channels + c] = x[l.at + first_maximum(x, l, s.positions) * l.step];
        }
    return LK_OK;
}

lk_status lk_maximum_backward(lk_map_shape s, const float *x, const float *grad_out, float *grad_x)
{
    lk_status bad = check(s);
    if (bad) return bad;
    memset(grad_x, 0, s.batch * s.channels * s.positions * sizeof *grad_x);
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0; c < s.channels; c++) {
            lane l = lane_of(s, b, c);
            grad_x[l.at + first_maximum(x, l, s.positions) * l.step] = grad_out[b * s.channels + c];
        }
    return LK_OK;
}

static lk_status check_gem(lk_map_shape s, const float *p, size_t p_count, float eps)
{
    lk_status bad = check(s);
    if (bad) return bad;
    if (p_count != 1 && p_count != s.channels)
        return lk_fail(LK_INVALID, "GeM takes one exponent or one per channel, not %zu", p_count);
    for (size_t c = 0; c < p_count; c++)
        if (!(p[c] > 0 && isfinite(p[c])))
            return lk_fail(LK_INVALID, "the exponent of GeM must be above 0, not %g", (double)p[c]);
    if (!(eps > 0)) return lk_fail(LK_INVALID, "the floor of GeM must be above 0");
    return LK_OK;
}

/* x^p; whole exponents, which fixed GeM has, by multiplication: the loop over positions then needs no library call. */
static inline float power(float x, float p, int whole)
{
    if (whole == 1) return x;
    if (whole == 2) return x * x;
    if (whole == 3) return x * x * x;
    if (whole == 4) return (x * x) * (x * x);
    return powf(x, p);
}

static inline int whole_power(float p)
{
    return p == 1 || p == 2 || p == 3 || p == 4 ? (int)p : 0;
}

/* Sum of powers divided by the largest value's, so that neither large exponents nor large values overflow. */
static inline __attribute__((always_inline)) double sum_powers(const float *x, lane l, size_t positions, float p,
                                                               int whole, float eps, float most)
{
    double total = 0;
    float scale = 1 / most;
    enum { BLOCK = 64 };
    for (size_t i0 = 0; i0 < positions; i0 += BLOCK) { /* f32 within a block, f64 between */
        size_t end = i0 + BLOCK < positions ? i0 + BLOCK : positions;
        float sum = 0;
        for (size_t i = i0; i < end; i++) sum += power(fmaxf(x[l.at + i * l.step], eps) * scale, p, whole);
        total += (double)sum;
    }
    return total;
}

lk_status lk_gem_forward(lk_map_shape s, const float *x, const float *p, size_t p_count, float eps, float *out)
{
    lk_status bad = check_gem(s, p, p_count, eps);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0; c < s.channels; c++) {
            lane l = lane_of(s, b, c);
            float q = p[p_count == 1 ? 0 : c], most = fmaxf(x[l.at + first_maximum(x, l, s.positions) * l.step], eps);
            double sum;
            switch (whole_power(q)) { /* constants, so that each loop is compiled for its exponent */
            case 1: sum = sum_powers(x, l, s.positions, q, 1, eps, most); break;
            case 2: sum = sum_powers(x, l, s.positions, q, 2, eps, most); break;
            case 3: sum = sum_powers(x, l, s.positions, q, 3, eps, most); break;
            case 4: sum = sum_powers(x, l, s.positions, q, 4, eps, most); break;
            default: sum = sum_powers(x, l, s.positions, q, 0, eps, most);
            }
            out[b * s.channels + c] = (float)((double)most * pow(sum / (double)s.positions, 1 / (double)q));
        }
    return LK_OK;
}

/* With u = max(x, eps) and y = (mean u^p)^(1/p):
 *     dy/du_i = (u_i / y)^(p-1) / positions
 *     dy/dp   = y / p * (sum u^p ln u / sum u^p - ln y) */
lk_status lk_gem_backward(lk_map_shape s, const float *x, const float *out, const float *grad_out, const float *p,
                          size_t p_count, float eps, float *grad_x, float *grad_p)
{
    lk_status bad = check_gem(s, p, p_count, eps);
    if (bad) return bad;
    double *slope = grad_p ? lk_alloc_zero(p_count, sizeof *slope) : NULL;
    if (grad_p && !slope) return lk_fail_memory("exponents");
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0; c < s.channels; c++) {
            lane l = lane_of(s, b, c);
            size_t k = p_count == 1 ? 0 : c;
            float y = out[b * s.channels + c], g = grad_out[b * s.channels + c], q = p[k],
                  share = g / (float)s.positions;
            int whole = whole_power(q - 1);
            for (size_t i = 0; grad_x && i < s.positions; i++) {
                float u = x[l.at + i * l.step];
                grad_x[l.at + i * l.step] = u < eps ? 0 : q == 1 ? share : share * power(u / y, q - 1, whole);
            }
            if (!grad_p) continue;
            double sum = 0, logs = 0;
            for (size_t i = 0; i < s.positions; i++) {
                double u = fmax((double)x[l.at + i * l.step], (double)eps) / (double)y, v = pow(u, (double)q);
                sum += v;
                logs += v * log(u);
            }
            slope[k] += (double)g * (double)y / (double)q * (logs / sum);
        }
    for (size_t k = 0; grad_p && k < p_count; k++) grad_p[k] = (float)slope[k];
    free(slope);
    return LK_OK;
}

lk_status lk_drop_block_mask(uint32_t height, uint32_t width, float height_share, float width_share, uint64_t seed,
                             float *mask)
{
    if (!height || !width || !(height_share > 0 && height_share <= 1) || !(width_share > 0 && width_share <= 1))
        return lk_fail(LK_INVALID, "a block of %g x %g cannot be dropped from a map of %u x %u", (double)height_share,
                       (double)width_share, height, width);
    uint32_t h = (uint32_t)fmaxf(1, roundf(height_share * (float)height));
    uint32_t w = (uint32_t)fmaxf(1, roundf(width_share * (float)width));
    lk_random random;
    lk_random_seed(&random, seed);
    uint32_t top = (uint32_t)lk_random_below(&random, height - h + 1),
             left = (uint32_t)lk_random_below(&random, width - w + 1);
    for (uint32_t i = 0; i < height; i++)
        for (uint32_t j = 0; j < width; j++)
            mask[(size_t)i * width + j] = !(i >= top && i < top + h && j >= left && j < left + w);
    return LK_OK;
}

lk_status lk_drop_block_apply(lk_map_shape s, const float *mask, const float *x, float *out)
{
    lk_status bad = check(s);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0; c < s.channels; c++) {
            lane l = lane_of(s, b, c);
            for (size_t i = 0; i < s.positions; i++) out[l.at + i * l.step] = mask[i] * x[l.at + i * l.step];
        }
    return LK_OK;
}
