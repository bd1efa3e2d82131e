/* Optimisers over a list of tensors. Update rules are those of PyTorch's SGD and AdamW, and of LAMB (You et al., 2020,
 * alg. 2) with bias correction:
 *
 *     SGD    g += wd w;  b = g at first, then m b + g;  w -= r (nesterov ? g + m b : b)
 *     AdamW  w -= r wd w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= r (m / c1) / (sqrt(v / c2) + eps)
 *     LAMB   u = (m / c1) / (sqrt(v / c2) + eps) + wd w;  w -= r (|w| / |u|) u
 *
 * with c1 = 1 - b1^t, c2 = 1 - b2^t in step t = 1, 2, ... */
#include "base/error.h"
#include "base/memory.h"
#include "nn/team.h"
#include <likeness/nn.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 14 }; /* numbers that one thread takes at a time */

typedef struct tensor {
    float *values;
    const float *gradients;
    size_t n;
    double rate_scale, decay_scale;
    float *first, *second, *average; /* momentum or m; v; moving average. NULL where not used */
} tensor;

typedef struct piece {
    size_t tensor, begin, end;
    size_t before;  /* numbers in the pieces before it */
    double squares; /* of its gradients */
} piece;

struct lk_optimiser {
    lk_optimiser_options options;
    lk_team team;
    piece *pieces; /* of all tensors in order */
    size_t piece_count, piece_capacity, numbers;
    double rate; /* of this step */
    float factor;
    tensor *tensors;
    size_t count, capacity;
    uint64_t step;
};

lk_status lk_optimiser_new(const lk_optimiser_options *options, lk_optimiser **out)
{
    lk_optimiser_options o = *options;
    if (o.beta1 == 0) o.beta1 = 0.9;
    if (o.beta2 == 0) o.beta2 = 0.999;
    if (o.eps == 0) o.eps = o.kind == LK_LAMB ? 1e-6 : 1e-8;
    bool sane = o.rate >= 0 && o.momentum >= 0 && o.momentum < 1 && o.beta1 > 0 && o.beta1 < 1 && o.beta2 > 0 &&
                o.beta2 < 1 && o.eps > 0 && o.weight_decay >= 0 && o.clip_norm >= 0 && o.clip_value >= 0 &&
                o.ema >= 0 && o.ema < 1 && (o.kind == LK_SGD || o.kind == LK_ADAMW || o.kind == LK_LAMB);
    if (!sane) return lk_fail(LK_INVALID, "the settings of the optimiser make no sense");
    if (o.nesterov && o.momentum == 0) return lk_fail(LK_INVALID, "Nesterov's momentum needs a momentum");
    lk_optimiser *p = lk_alloc_zero(1, sizeof *p);
    if (!p) return lk_fail_memory("optimiser");
    p->options = o;
    p->team = lk_team_of(o.threads);
    *out = p;
    return LK_OK;
}

void lk_optimiser_free(lk_optimiser *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->count; i++) {
        free(p->tensors[i].first);
        free(p->tensors[i].second);
        free(p->tensors[i].average);
    }
    free(p->tensors);
    free(p->pieces);
    free(p);
}

lk_status lk_optimiser_add(lk_optimiser *p, float *values, const float *gradients, size_t n, double rate_scale,
                           double decay_scale, size_t *index)
{
    if (!values || !gradients || n == 0 || !(rate_scale >= 0) || !(decay_scale >= 0))
        return lk_fail(LK_INVALID,
                       "a tensor for the optimiser needs values, gradients and scales that are not negative");
    if (p->step) return lk_fail(LK_INVALID, "tensors are added before the first step");
    if (!lk_grow((void **)&p->tensors, &p->capacity, p->count + 1, sizeof *p->tensors))
        return lk_fail_memory("optimiser");
    size_t pieces = (n + PIECE - 1) / PIECE;
    if (!lk_grow((void **)&p->pieces, &p->piece_capacity, p->piece_count + pieces, sizeof *p->pieces))
        return lk_fail_memory("optimiser");
    tensor t = {.values = values, .gradients = gradients, .n = n, .rate_scale = rate_scale, .decay_scale = decay_scale};
    bool first = p->options.kind != LK_SGD || p->options.momentum > 0, second = p->options.kind != LK_SGD;
    if (first) t.first = lk_alloc_zero(n, sizeof(float));
    if (second) t.second = lk_alloc_zero(n, sizeof(float));
    if (p->options.ema > 0) t.average = lk_alloc(n, sizeof(float));
    if ((first && !t.first) || (second && !t.second) || (p->options.ema > 0 && !t.average)) {
        free(t.first);
        free(t.second);
        free(t.average);
        return lk_fail_memory("optimiser");
    }
    if (t.average) memcpy(t.average, values, n * sizeof(float));
    for (size_t i = 0; i < pieces; i++) {
        size_t begin = i * PIECE, end = i + 1 < pieces ? begin + PIECE : n;
        p->pieces[p->piece_count++] = (piece){p->count, begin, end, p->numbers, 0};
        p->numbers += end - begin;
    }
    if (index) *index = p->count;
    p->tensors[p->count++] = t;
    return LK_OK;
}

/* Gradient i as the update sees it: clamped, then scaled. */
static inline float gradient(const lk_optimiser_options *o, const tensor *t, size_t i, float factor)
{
    float g = t->gradients[i], limit = (float)o->clip_value;
    if (limit > 0) g = g > limit ? limit : g < -limit ? -limit : g;
    return g * factor;
}

/* Threads share the numbers evenly, not the pieces: each takes those that begin among its own. */
static void each_piece(lk_optimiser *p, size_t cost, lk_piece_fn fn)
{
    lk_team_for(&p->team, p->numbers, cost, fn, p);
}

static size_t first_from(const lk_optimiser *p, size_t number)
{
    size_t k = 0;
    while (k < p->piece_count && p->pieces[k].before < number) k++;
    return k;
}

static void squares_piece(void *arg, size_t begin, size_t end)
{
    lk_optimiser *p = arg;
    for (size_t k = first_from(p, begin), last = first_from(p, end); k < last; k++) {
        piece *at = &p->pieces[k];
        const tensor *t = &p->tensors[at->tensor];
        double sum[8] = {0};
        size_t i = at->begin;
        for (; i + 8 <= at->end; i += 8)
            for (size_t j = 0; j < 8; j++) {
                double g = (double)gradient(&p->options, t, i + j, 1);
                sum[j] += g * g;
            }
        for (; i < at->end; i++) {
            double g = (double)gradient(&p->options, t, i, 1);
            sum[0] += g * g;
        }
        at->squares = ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
    }
}

static double norm_of(lk_optimiser *p)
{
    double square = 0;
    each_piece(p, 2, squares_piece);
    for (size_t k = 0; k < p->piece_count; k++) square += p->pieces[k].squares;
    return sqrt(square);
}

static void step_sgd(const lk_optimiser *p, const tensor *t, size_t begin, size_t end)
{
    float decay = (float)(p->options.weight_decay * t->decay_scale), momentum = (float)p->options.momentum;
    float r = (float)(p->rate * t->rate_scale), factor = p->factor;
    for (size_t i = begin; i < end; i++) {
        float g = gradient(&p->options, t, i, factor) + decay * t->values[i];
        if (t->first) {
            float b = t->first[i] = p->step == 1 ? g : momentum * t->first[i] + g;
            g = p->options.nesterov ? g + momentum * b : b;
        }
        t->values[i] -= r * g;
    }
}

/* m and v; the step itself is (m / c1) / (sqrt(v) / sqrt(c2) + eps). */
static void moments(const lk_optimiser *p, const tensor *t, size_t begin, size_t end)
{
    float b1 = (float)p->options.beta1, b2 = (float)p->options.beta2, factor = p->factor;
    float a1 = (float)(1 - p->options.beta1), a2 = (float)(1 - p->options.beta2);
    for (size_t i = begin; i < end; i++) {
        float g = gradient(&p->options, t, i, factor);
        t->first[i] = b1 * t->first[i] + a1 * g;
        t->second[i] = b2 * t->second[i] + a2 * g * g;
    }
}

/* 1 / c1 and 1 / sqrt(c2) */
static float first_scale(const lk_optimiser *p)
{
    return (float)(1 / (1 - pow(p->options.beta1, (double)p->step)));
}

static float second_scale(const lk_optimiser *p)
{
    return (float)(1 / sqrt(1 - pow(p->options.beta2, (double)p->step)));
}

static void step_adamw(const lk_optimiser *p, const tensor *t, size_t begin, size_t end)
{
    const lk_optimiser_options *o = &p->options;
    double r = p->rate * t->rate_scale, decay = o->weight_decay * t->decay_scale;
    float c1 = first_scale(p), c2 = second_scale(p), eps = (float)o->eps;
    float keep = (float)(1 - r * decay), size = (float)r * c1;
    moments(p, t, begin, end);
    for (size_t i = begin; i < end; i++)
        t->values[i] = t->values[i] * keep - size * t->first[i] / (sqrtf(t->second[i]) * c2 + eps);
}

/* A whole tensor: its length decides. */
static void step_lamb(const lk_optimiser *p, const tensor *t)
{
    const lk_optimiser_options *o = &p->options;
    double decay = o->weight_decay * t->decay_scale, weights = 0, updates = 0;
    float c1 = first_scale(p), c2 = second_scale(p), eps = (float)o->eps;
    moments(p, t, 0, t->n);
    for (size_t i = 0; i < t->n; i++) {
        double u = (double)(t->first[i] * c1 / (sqrtf(t->second[i]) * c2 + eps) + (float)decay * t->values[i]);
        weights += (double)t->values[i] * (double)t->values[i];
        updates += u * u;
    }
    double trust = weights > 0 && updates > 0 ? sqrt(weights) / sqrt(updates) : 1;
    float size = (float)(p->rate * t->rate_scale * trust);
    for (size_t i = 0; i < t->n; i++)
        t->values[i] -= size * (t->first[i] * c1 / (sqrtf(t->second[i]) * c2 + eps) + (float)decay * t->values[i]);
}

static void average(const lk_optimiser *p, const tensor *t, size_t begin, size_t end)
{
    float keep = (float)p->options.ema;
    for (size_t i = begin; t->average && i < end; i++) t->average[i] = keep * t->average[i] + (1 - keep) * t->values[i];
}

static void step_piece(void *arg, size_t begin, size_t end)
{
    const lk_optimiser *p = arg;
    for (size_t k = first_from(p, begin), last = first_from(p, end); k < last; k++) {
        const piece *at = &p->pieces[k];
        const tensor *t = &p->tensors[at->tensor];
        (p->options.kind == LK_SGD ? step_sgd : step_adamw)(p, t, at->begin, at->end);
        average(p, t, at->begin, at->end);
    }
}

lk_status lk_optimiser_step(lk_optimiser *p, double rate, double *norm)
{
    const lk_optimiser_options *o = &p->options;
    double all = norm_of(p), r = rate < 0 ? o->rate : rate;
    if (norm) *norm = all;
    if (!isfinite(all)) return lk_fail(LK_CORRUPT, "gradients are not finite");
    /* PyTorch's clip_grad_norm_ divides by norm + 1e-6, and never enlarges */
    double factor = o->clip_norm > 0 ? o->clip_norm / (all + 1e-6) : 1;
    if (factor > 1) factor = 1;
    p->step++;
    p->rate = r;
    p->factor = (float)factor;
    if (o->kind != LK_LAMB) {
        each_piece(p, 16, step_piece);
        return LK_OK;
    }
    for (size_t k = 0; k < p->count; k++) {
        step_lamb(p, &p->tensors[k]);
        average(p, &p->tensors[k], 0, p->tensors[k].n);
    }
    return LK_OK;
}

const float *lk_optimiser_average(const lk_optimiser *p, size_t index)
{
    return index < p->count ? p->tensors[index].average : NULL;
}

/* State: step, then the arrays of every tensor. */

typedef struct cursor {
    char *out;
    const char *in;
    size_t size;
} cursor;

static void part(cursor *c, void *data, size_t bytes)
{
    if (c->out) memcpy(c->out + c->size, data, bytes);
    if (c->in) memcpy(data, c->in + c->size, bytes);
    c->size += bytes;
}

static size_t walk(const lk_optimiser *p, cursor c)
{
    part(&c, (void *)&p->step, sizeof p->step);
    for (size_t k = 0; k < p->count; k++) {
        const tensor *t = &p->tensors[k];
        float *arrays[] = {t->first, t->second, t->average};
        for (int i = 0; i < 3; i++)
            if (arrays[i]) part(&c, arrays[i], t->n * sizeof(float));
    }
    return c.size;
}

size_t lk_optimiser_state_size(const lk_optimiser *p)
{
    return walk(p, (cursor){0});
}

void lk_optimiser_state_save(const lk_optimiser *p, void *bytes)
{
    walk(p, (cursor){.out = bytes});
}

lk_status lk_optimiser_state_load(lk_optimiser *p, const void *bytes, size_t size)
{
    if (size != lk_optimiser_state_size(p)) return lk_fail(LK_CORRUPT, "the state is that of another optimiser");
    walk(p, (cursor){.in = bytes});
    return LK_OK;
}
