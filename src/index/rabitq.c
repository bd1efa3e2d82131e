#include "index/rabitq.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EPSILON 1.9f

size_t lk_rabitq_bytes(int bits, size_t dim)
{
    return bits == 1 ? (dim + 7) / 8 : bits <= 4 ? (dim + 1) / 2 : dim;
}

static void put(int bits, uint8_t *code, size_t i, unsigned value)
{
    if (bits == 1)
        code[i / 8] = (uint8_t)(code[i / 8] | value << (i % 8));
    else if (bits <= 4)
        code[i / 2] = (uint8_t)(code[i / 2] | value << (i % 2 * 4));
    else
        code[i] = (uint8_t)value;
}

static unsigned get(int bits, const uint8_t *code, size_t i)
{
    if (bits == 1) return code[i / 8] >> (i % 8) & 1u;
    if (bits <= 4) return code[i / 2] >> (i % 2 * 4) & 15u;
    return code[i];
}

/* Where, as r is scaled up, a component reaches its next level. */
typedef struct crossing {
    float at;
    uint32_t component;
} crossing;

static int compare_crossings(const void *a, const void *b)
{
    const crossing *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return (x->component > y->component) - (x->component < y->component);
}

/* The level of each component, 0 .. top, of the grid point (level + 1/2, signs aside) nearest in direction to |r|: the
 * nearest grid point to t |r| is optimal for some t, and as t grows one component after another goes up by one. */
static lk_status find_levels(size_t dim, const float *r, unsigned top, uint8_t *levels)
{
    memset(levels, 0, dim);
    if (top == 0) return LK_OK;
    size_t count = 0, best = 0;
    crossing *all = lk_alloc(dim * top, sizeof *all);
    if (!all) return lk_fail_memory("quantisation");
    double along = 0, squares = 0.25 * (double)dim, best_cosine;
    for (size_t i = 0; i < dim; i++) {
        float size = fabsf(r[i]);
        along += 0.5 * size;
        for (unsigned level = 1; size > 0 && level <= top; level++)
            all[count++] = (crossing){(float)level / size, (uint32_t)i};
    }
    qsort(all, count, sizeof *all, compare_crossings);
    best_cosine = along / sqrt(squares);
    for (size_t c = 0; c < count; c++) {
        size_t i = all[c].component;
        squares += 2.0 * levels[i] + 2; /* (level + 3/2)^2 - (level + 1/2)^2 */
        along += fabsf(r[i]);
        levels[i]++;
        double cosine = along / sqrt(squares);
        if (cosine <= best_cosine) continue;
        best_cosine = cosine;
        best = c + 1;
    }
    memset(levels, 0, dim);
    for (size_t c = 0; c < best; c++) levels[all[c].component]++;
    free(all);
    return LK_OK;
}

lk_status lk_rabitq_encode(int bits, size_t dim, const float *r, uint8_t *code, lk_rabitq_factors *factors)
{
    unsigned half = 1u << (bits - 1);
    uint8_t few[256], *levels = bits == 1 ? NULL : dim <= sizeof few ? few : lk_alloc(dim, 1);
    if (bits > 1 && !levels) return lk_fail_memory("quantisation");
    lk_status s = levels ? find_levels(dim, r, half - 1, levels) : LK_OK;
    double along = 0, squares = 0, own = 0;
    memset(code, 0, lk_rabitq_bytes(bits, dim));
    for (size_t i = 0; s == LK_OK && i < dim; i++) {
        unsigned level = levels ? levels[i] : 0;
        double value = level + 0.5;
        put(bits, code, i, r[i] > 0 ? half + level : half - 1 - level);
        along += fabs((double)r[i]) * value;
        squares += value * value;
        own += (double)r[i] * r[i];
    }
    *factors = (lk_rabitq_factors){.squares = (float)own};
    if (s == LK_OK && along > 0) {
        double cosine2 = along * along / (own * squares), rest = 1 / cosine2 - 1;
        factors->scale = (float)(own / along);
        factors->error = dim > 1 && rest > 0 ? (float)sqrt(own * rest / (double)(dim - 1)) : 0;
    }
    if (levels != few) free(levels);
    return s;
}

void lk_rabitq_decode(int bits, size_t dim, const uint8_t *code, const lk_rabitq_factors *factors, float *out)
{
    float middle = (float)((1u << bits) - 1) / 2;
    for (size_t i = 0; i < dim; i++) out[i] = factors->scale * ((float)get(bits, code, i) - middle);
}

void lk_rabitq_query_init(lk_rabitq_query *out, size_t dim, const float *q, uint64_t seed, int8_t *components)
{
    double squares = 0;
    float most = 0;
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < dim; i++) {
        squares += (double)q[i] * q[i];
        if (fabsf(q[i]) > most) most = fabsf(q[i]);
    }
    *out = (lk_rabitq_query){.components = components, .dim = dim, .step = most / 126, .length = (float)sqrt(squares)};
    for (size_t i = 0; i < dim; i++) {
        double value = most > 0 ? floor((double)q[i] / out->step + lk_random_unit(&random)) : 0;
        components[i] = (int8_t)(value < -127 ? -127 : value > 127 ? 127 : value);
        out->sum += components[i];
    }
}

float lk_rabitq_dot(const lk_code_kernels *kernels, int bits, const lk_rabitq_query *query, const uint8_t *code,
                    const lk_rabitq_factors *factors, float *bound)
{
    int32_t (*dot)(const int8_t *, const uint8_t *, size_t) = bits == 1   ? kernels->dot_b1
                                                              : bits <= 4 ? kernels->dot_u4
                                                                          : kernels->dot_u8;
    double middle = (double)((1u << bits) - 1) / 2;
    double product = (double)dot(query->components, code, query->dim) - middle * query->sum;
    if (bound) {
        /* Each component of the query is off by at most a step: on average over the signs by their root sum of squares,
         * over a vector scale * v that is about as long as r. */
        float rounding = query->step * sqrtf(factors->squares) * 0.5f;
        *bound = EPSILON * (query->length * factors->error + rounding);
    }
    return (float)(product * query->step * factors->scale);
}
