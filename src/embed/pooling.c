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

/* Work goes in lanes that the compiler can put into vector registers: neighbouring positions of a map, neighbouring
 * channels of tokens. Sums are f32 over at most RUN steps of a lane and f64 beyond. */
enum { LANES = 16, RUN = 32 };

static inline float larger(float a, float b)
{
    return a > b ? a : b;
}

/* Natural logarithm of a normal number above 0 to about 1e-7, in operations that go into vector registers:
 * x = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1)). */
static inline __attribute__((always_inline)) float log_of(float x)
{
    union {
        float value;
        int32_t bits;
    } u = {.value = x};
    int32_t e = (u.bits - 0x3f3504f3) >> 23; /* 0x3f3504f3: sqrt(1/2) */
    u.bits -= (int32_t)((uint32_t)e << 23);
    float s = (u.value - 1) / (u.value + 1), z = s * s;
    float series = s * (2 + z * (2.0f / 3 + z * (2.0f / 5 + z * (2.0f / 7 + z * (2.0f / 9)))));
    return series + (float)e * 0.693147181f;
}

/* e^x for x from -87 to 87: 2^k e^r with |r| <= ln(2) / 2, e^r by its series. */
static inline __attribute__((always_inline)) float exp_of(float x)
{
    union {
        float value;
        int32_t bits;
    } u, shifted;
    float rounding = 12582912; /* 1.5 * 2^23: adding it leaves the nearest whole number below */
    shifted.value = x * 1.44269504f + rounding;
    float r = x - (shifted.value - rounding) * 0.693147181f;
    float series =
        1 + r * (1 + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r / 5040))))));
    u.bits = (shifted.bits - 0x4b400000 + 127) * (1 << 23); /* 0x4b400000: the bits of 1.5 * 2^23 */
    return u.value * series;
}

/* e^-87 is 0 beside any sum it is added to. */
static const float least_exponent = -87;

/* x^p; whole exponents, which fixed GeM has, by multiplication. whole 0 = any p. */
static inline __attribute__((always_inline)) float power(float x, float p, int whole)
{
    switch (whole) {
    case 1: return x;
    case 2: return x * x;
    case 3: return x * x * x;
    case 4: return (x * x) * (x * x);
    default: return exp_of(larger(p * log_of(x), least_exponent));
    }
}

static int whole_power(float p)
{
    return p == 1 || p == 2 || p == 3 || p == 4 ? (int)p : 0;
}

/* What is summed: power(max(x, floor) * scale). */
typedef struct term {
    float floor, p;
} term;

static inline __attribute__((always_inline)) double sum_map(const float *x, size_t n, term t, float scale, int whole)
{
    double total = 0;
    for (size_t begin = 0; begin < n; begin += LANES * RUN) {
        size_t end = n - begin < LANES * RUN ? n : begin + LANES * RUN, i = begin;
        float part[LANES] = {0};
        for (; i + LANES <= end; i += LANES)
            for (size_t k = 0; k < LANES; k++) part[k] += power(larger(x[i + k], t.floor) * scale, t.p, whole);
        for (size_t k = 0; i < end; i++, k++) part[k] += power(larger(x[i], t.floor) * scale, t.p, whole);
        for (size_t k = 0; k < LANES; k++) total += (double)part[k];
    }
    return total;
}

/* The sums of `width` <= LANES neighbouring channels of tokens. */
static inline __attribute__((always_inline)) void sum_tokens(const float *x, size_t n, size_t channels, size_t width,
                                                             term t, const float *scale, int whole, double *total)
{
    for (size_t k = 0; k < width; k++) total[k] = 0;
    for (size_t begin = 0; begin < n; begin += RUN) {
        size_t end = n - begin < RUN ? n : begin + RUN;
        float part[LANES] = {0};
        for (size_t i = begin; i < end; i++)
            for (size_t k = 0; k < width; k++)
                part[k] += power(larger(x[i * channels + k], t.floor) * scale[k], t.p, whole);
        for (size_t k = 0; k < width; k++) total[k] += (double)part[k];
    }
}

/* Sums of `width` channels (1 for a map) that begin at x; the switch gives each exponent a loop of its own. */
static void sum_terms(lk_map_shape s, const float *x, size_t width, term t, const float *scale, double *total)
{
    size_t n = s.positions;
    if (s.tokens) {
        switch (whole_power(t.p)) {
        case 1: sum_tokens(x, n, s.channels, width, t, scale, 1, total); return;
        case 2: sum_tokens(x, n, s.channels, width, t, scale, 2, total); return;
        case 3: sum_tokens(x, n, s.channels, width, t, scale, 3, total); return;
        case 4: sum_tokens(x, n, s.channels, width, t, scale, 4, total); return;
        default: sum_tokens(x, n, s.channels, width, t, scale, 0, total); return;
        }
    }
    switch (whole_power(t.p)) {
    case 1: *total = sum_map(x, n, t, *scale, 1); return;
    case 2: *total = sum_map(x, n, t, *scale, 2); return;
    case 3: *total = sum_map(x, n, t, *scale, 3); return;
    case 4: *total = sum_map(x, n, t, *scale, 4); return;
    default: *total = sum_map(x, n, t, *scale, 0); return;
    }
}

static void maxima(lk_map_shape s, const float *x, size_t width, float *most)
{
    float part[LANES];
    if (s.tokens) {
        for (size_t k = 0; k < width; k++) most[k] = x[k];
        for (size_t i = 1; i < s.positions; i++)
            for (size_t k = 0; k < width; k++) most[k] = larger(x[i * s.channels + k], most[k]);
        return;
    }
    for (size_t k = 0; k < LANES; k++) part[k] = x[0];
    size_t i = 0;
    for (; i + LANES <= s.positions; i += LANES)
        for (size_t k = 0; k < LANES; k++) part[k] = larger(x[i + k], part[k]);
    for (; i < s.positions; i++) part[0] = larger(x[i], part[0]);
    *most = part[0];
    for (size_t k = 1; k < LANES; k++) *most = larger(part[k], *most);
}

/* Channels that are handled together: a lane of tokens' channels (all with one exponent), or one channel of a map. */
static size_t width_at(lk_map_shape s, size_t c, size_t p_count)
{
    if (!s.tokens || p_count > 1) return 1;
    return s.channels - c < LANES ? s.channels - c : LANES;
}

lk_status lk_average_forward(lk_map_shape s, const float *x, float *out)
{
    lk_status bad = check(s);
    if (bad) return bad;
    float ones[LANES];
    double total[LANES];
    for (size_t k = 0; k < LANES; k++) ones[k] = 1;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0, width; c < s.channels; c += width) {
            width = width_at(s, c, 1);
            sum_terms(s, x + lane_of(s, b, c).at, width, (term){-INFINITY, 1}, ones, total);
            for (size_t k = 0; k < width; k++) out[b * s.channels + c + k] = (float)(total[k] / (double)s.positions);
        }
    return LK_OK;
}

lk_status lk_average_backward(lk_map_shape s, const float *grad_out, float *grad_x)
{
    lk_status bad = check(s);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t i = 0; i < s.positions * s.channels; i++) {
            size_t c = s.tokens ? i % s.channels : i / s.positions;
            grad_x[b * s.positions * s.channels + i] = grad_out[b * s.channels + c] / (float)s.positions;
        }
    return LK_OK;
}

lk_status lk_maximum_forward(lk_map_shape s, const float *x, float *out)
{
    lk_status bad = check(s);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0, width; c < s.channels; c += width) {
            width = width_at(s, c, 1);
            maxima(s, x + lane_of(s, b, c).at, width, out + b * s.channels + c);
        }
    return LK_OK;
}

lk_status lk_maximum_backward(lk_map_shape s, const float *x, const float *grad_out, float *grad_x)
{
    lk_status bad = check(s);
    if (bad) return bad;
    memset(grad_x, 0, s.batch * s.channels * s.positions * sizeof *grad_x);
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0, width; c < s.channels; c += width) {
            float most[LANES];
            width = width_at(s, c, 1);
            maxima(s, x + lane_of(s, b, c).at, width, most);
            for (size_t k = 0; k < width; k++) {
                lane l = lane_of(s, b, c + k);
                size_t i = 0;
                while (i + 1 < s.positions && x[l.at + i * l.step] != most[k]) i++;
                grad_x[l.at + i * l.step] = grad_out[b * s.channels + c + k];
            }
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

/* Everything is divided by the largest value first, so that neither large exponents nor large values overflow. */
lk_status lk_gem_forward(lk_map_shape s, const float *x, const float *p, size_t p_count, float eps, float *out)
{
    lk_status bad = check_gem(s, p, p_count, eps);
    if (bad) return bad;
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0, width; c < s.channels; c += width) {
            const float *from = x + lane_of(s, b, c).at;
            float q = p[p_count == 1 ? 0 : c], most[LANES], scale[LANES];
            double total[LANES];
            width = width_at(s, c, p_count);
            maxima(s, from, width, most);
            for (size_t k = 0; k < width; k++) {
                most[k] = larger(most[k], eps);
                scale[k] = 1 / most[k];
            }
            sum_terms(s, from, width, (term){eps, q}, scale, total);
            for (size_t k = 0; k < width; k++)
                out[b * s.channels + c + k] =
                    (float)((double)most[k] * pow(total[k] / (double)s.positions, 1 / (double)q));
        }
    return LK_OK;
}

/* Gradient by x over one lane of count values, step 1, all with one exponent: share (u / y)^(p-1) where x is at or
 * above the floor. For a map y and share are those of the channel; for tokens each value has its own. */
static inline __attribute__((always_inline)) void spread(const float *x, size_t count, bool tokens, const float *y,
                                                         const float *share, term t, int whole, float *grad)
{
    for (size_t i = 0; i < count; i++) {
        size_t c = tokens ? i : 0;
        float g = t.p == 0 ? share[c] : share[c] * power(larger(x[i], t.floor) * y[c], t.p, whole);
        grad[i] = x[i] < t.floor ? 0 : g;
    }
}

/* y: 1 / out. t.p: exponent less one. */
static void spread_any(const float *x, size_t count, bool tokens, const float *y, const float *share, term t,
                       float *grad)
{
    int whole = whole_power(t.p);
    if (whole == 1 && !tokens)
        spread(x, count, false, y, share, t, 1, grad);
    else if (whole == 2 && !tokens)
        spread(x, count, false, y, share, t, 2, grad);
    else if (whole == 3 && !tokens)
        spread(x, count, false, y, share, t, 3, grad);
    else if (whole == 2)
        spread(x, count, true, y, share, t, 2, grad);
    else
        spread(x, count, tokens, y, share, t, whole, grad);
}

static lk_status gem_grad_x(lk_map_shape s, const float *x, const float *out, const float *grad_out, const float *p,
                            size_t p_count, float eps, float *grad_x)
{
    float *y = lk_alloc(s.channels, 2 * sizeof *y);
    if (!y) return lk_fail_memory("generalised mean");
    float *share = y + s.channels;
    for (size_t b = 0; b < s.batch; b++) {
        size_t picture = b * s.channels * s.positions;
        for (size_t c = 0; c < s.channels; c++) {
            y[c] = 1 / out[b * s.channels + c];
            share[c] = grad_out[b * s.channels + c] / (float)s.positions;
        }
        for (size_t c = 0; !s.tokens && c < s.channels; c++)
            spread_any(x + picture + c * s.positions, s.positions, false, y + c, share + c,
                       (term){eps, p[p_count == 1 ? 0 : c] - 1}, grad_x + picture + c * s.positions);
        for (size_t i = 0; s.tokens && i < s.positions; i++) {
            size_t at = picture + i * s.channels;
            for (size_t c = 0; c < s.channels; c += p_count == 1 ? s.channels : 1)
                spread_any(x + at + c, p_count == 1 ? s.channels : 1, true, y + c, share + c, (term){eps, p[c] - 1},
                           grad_x + at + c);
        }
    }
    free(y);
    return LK_OK;
}

/* Sums of v = (u scale)^p and of v ln(u scale) over one channel. */
static void sum_logs(const float *x, lane l, size_t n, float eps, float p, float scale, double *sum, double *logs)
{
    *sum = *logs = 0;
    for (size_t begin = 0; begin < n; begin += LANES) {
        float part[LANES], with_log[LANES];
        size_t width = n - begin < LANES ? n - begin : LANES;
        for (size_t k = 0; k < LANES; k++) part[k] = x[l.at + (k < width ? begin + k : begin) * l.step];
        /* One step a loop: choices and arithmetic in one loop would keep it out of vector registers. */
        for (size_t k = 0; k < LANES; k++) part[k] = larger(part[k], eps) * scale;
        for (size_t k = 0; k < LANES; k++) with_log[k] = log_of(part[k]);
        for (size_t k = 0; k < LANES; k++) part[k] = larger(p * with_log[k], least_exponent);
        for (size_t k = 0; k < LANES; k++) part[k] = exp_of(part[k]);
        for (size_t k = 0; k < LANES; k++) with_log[k] *= part[k];
        for (size_t k = 0; k < width; k++) {
            *sum += (double)part[k];
            *logs += (double)with_log[k];
        }
    }
}

/* With u = max(x, eps), y = (mean u^p)^(1/p) and M the largest u:
 *     dy/du_i = (u_i / y)^(p-1) / positions
 *     dy/dp   = y / p * (sum u^p ln u / sum u^p - ln y), the same with u / M and y / M in the logarithms and sums */
lk_status lk_gem_backward(lk_map_shape s, const float *x, const float *out, const float *grad_out, const float *p,
                          size_t p_count, float eps, float *grad_x, float *grad_p)
{
    lk_status bad = check_gem(s, p, p_count, eps);
    if (!bad && grad_x) bad = gem_grad_x(s, x, out, grad_out, p, p_count, eps, grad_x);
    if (bad || !grad_p) return bad;
    double *slope = lk_alloc_zero(p_count, sizeof *slope);
    if (!slope) return lk_fail_memory("exponents");
    for (size_t b = 0; b < s.batch; b++)
        for (size_t c = 0, width; c < s.channels; c += width) {
            float most[LANES];
            width = width_at(s, c, p_count);
            maxima(s, x + lane_of(s, b, c).at, width, most);
            for (size_t k = 0; k < width; k++) {
                size_t which = p_count == 1 ? 0 : c + k, o = b * s.channels + c + k;
                double largest = (double)larger(most[k], eps), sum, logs, y = (double)out[o];
                sum_logs(x, lane_of(s, b, c + k), s.positions, eps, p[which], (float)(1 / largest), &sum, &logs);
                slope[which] += (double)grad_out[o] * y / (double)p[which] * (logs / sum - log(y / largest));
            }
        }
    for (size_t k = 0; k < p_count; k++) grad_p[k] = (float)slope[k];
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
