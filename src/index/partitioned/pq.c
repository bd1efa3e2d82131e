#include "index/partitioned/pq.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = LK_SCAN_CODEWORDS, ITERATIONS = 16 };

lk_pq lk_pq_of(size_t dim, size_t groups, const float *codewords)
{
    return (lk_pq){.dim = dim,
                   .groups = groups,
                   .padded = (groups + LK_SCAN_GROUPS - 1) / LK_SCAN_GROUPS * LK_SCAN_GROUPS,
                   .codewords = codewords,
                   .kernels = lk_scan_kernels_for(lk_cpu_detect())};
}

/* ---- learning ---- */

typedef struct training {
    const lk_pq *pq;
    const float *x;
    size_t n;
    uint64_t seed;
    float *codewords;
    lk_context *context;
} training;

/* Seeds by k-means++ on at most 256 rows, which is many for 16 clusters. */
static void seed_words(const training *t, size_t first, size_t components, lk_random *random, float *words)
{
    enum { SAMPLE = 256 };
    size_t rows[SAMPLE], count = t->n < SAMPLE ? t->n : SAMPLE, chosen = 0;
    float nearest[SAMPLE];
    for (size_t i = 0; i < count; i++) {
        rows[i] = t->n <= SAMPLE ? i : lk_random_below(random, t->n);
        nearest[i] = FLT_MAX;
    }
    for (size_t j = 0; j < WORDS; j++) {
        const float *word = t->x + rows[chosen] * t->pq->dim + first;
        double total = 0, sum = 0;
        for (size_t c = 0; c < components; c++) words[c * WORDS + j] = word[c];
        for (size_t i = 0; i < count; i++) {
            const float *row = t->x + rows[i] * t->pq->dim + first;
            float distance = 0;
            for (size_t c = 0; c < components; c++) distance += (row[c] - word[c]) * (row[c] - word[c]);
            if (distance < nearest[i]) nearest[i] = distance;
            total += nearest[i];
        }
        double target = lk_random_unit(random) * total;
        for (chosen = 0; chosen + 1 < count; chosen++) {
            sum += nearest[chosen];
            if (sum > target) break;
        }
    }
}

static lk_status train_group(const training *t, size_t g)
{
    size_t first = lk_pq_start(t->pq, g), components = lk_pq_start(t->pq, g + 1) - first;
    float *words = t->codewords + first * WORDS;
    uint8_t *codes = lk_alloc(t->n, 1);
    double *sums = lk_alloc(components * WORDS, sizeof *sums);
    lk_status s = codes && sums ? LK_OK : lk_fail_memory("product quantiser");
    lk_random random;
    lk_random_seed(&random, t->seed + g);
    if (s == LK_OK) seed_words(t, first, components, &random, words);
    for (int iteration = 0; s == LK_OK && iteration < ITERATIONS; iteration++) {
        size_t counts[WORDS] = {0};
        if (lk_context_cancelled(t->context)) s = lk_fail(LK_CANCELLED, "learning the product quantiser was stopped");
        t->pq->kernels->nearest(t->x + first, t->pq->dim, t->n, components, words, codes, 1);
        memset(sums, 0, components * WORDS * sizeof *sums);
        for (size_t i = 0; i < t->n; i++) {
            counts[codes[i]]++;
            for (size_t c = 0; c < components; c++) sums[c * WORDS + codes[i]] += t->x[i * t->pq->dim + first + c];
        }
        for (size_t j = 0; j < WORDS; j++) { /* a word without rows takes one at random */
            const float *row = t->x + lk_random_below(&random, t->n) * t->pq->dim + first;
            for (size_t c = 0; c < components; c++)
                words[c * WORDS + j] = counts[j] ? (float)(sums[c * WORDS + j] / (double)counts[j]) : row[c];
        }
    }
    free(codes);
    free(sums);
    return s;
}

static lk_status train_groups(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    lk_status s = LK_OK;
    for (size_t g = begin; s == LK_OK && g < end; g++) s = train_group(arg, g);
    return s;
}

lk_status lk_pq_train(lk_context *context, const float *x, size_t n, size_t dim, size_t groups, uint64_t seed,
                      float *codewords)
{
    lk_pq pq = lk_pq_of(dim, groups, codewords);
    training t = {&pq, x, n, seed, codewords, context};
    return lk_parallel_for(lk_context_pool(context), groups, 1, train_groups, &t);
}

/* ---- codes ---- */

void lk_pq_encode(const lk_pq *pq, const float *x, size_t n, uint8_t *codes)
{
    for (size_t g = 0; g < pq->groups; g++) {
        size_t first = lk_pq_start(pq, g);
        pq->kernels->nearest(x + first, pq->dim, n, lk_pq_start(pq, g + 1) - first, pq->codewords + first * WORDS,
                             codes + g, pq->groups);
    }
}

/* The part of the error in group g if it had code j: its squared length, and its product with the direction. */
static void group_error(const lk_pq *pq, const float *target, const float *direction, size_t g, int j, float *square,
                        float *along)
{
    *square = *along = 0;
    for (size_t c = lk_pq_start(pq, g); c < lk_pq_start(pq, g + 1); c++) {
        float error = target[c] - pq->codewords[c * WORDS + (size_t)j];
        *square += error * error;
        *along += error * direction[c];
    }
}

void lk_pq_bend(const lk_pq *pq, const float *target, const float *direction, float eta, uint8_t *codes)
{
    float length = 0, along = 0, square, part;
    for (size_t c = 0; c < pq->dim; c++) length += direction[c] * direction[c];
    if (!(length > 0)) return;
    float weight = (eta - 1) / length;
    for (size_t g = 0; g < pq->groups; g++) {
        group_error(pq, target, direction, g, codes[g], &square, &part);
        along += part;
    }
    for (int sweep = 0, changed = 1; sweep < 4 && changed; sweep++) {
        changed = 0;
        for (size_t g = 0; g < pq->groups; g++) {
            group_error(pq, target, direction, g, codes[g], &square, &part);
            float others = along - part, best = square + weight * along * along;
            for (int j = 0; j < WORDS; j++) {
                group_error(pq, target, direction, g, j, &square, &part);
                float loss = square + weight * (others + part) * (others + part);
                if (!(loss < best)) continue;
                best = loss;
                along = others + part;
                codes[g] = (uint8_t)j;
                changed = 1;
            }
        }
    }
}

void lk_pq_decode(const lk_pq *pq, const uint8_t *codes, float *out)
{
    for (size_t g = 0; g < pq->groups; g++)
        for (size_t c = lk_pq_start(pq, g); c < lk_pq_start(pq, g + 1); c++)
            out[c] = pq->codewords[c * WORDS + codes[g]];
}

void lk_pq_pack(const lk_pq *pq, const uint8_t *codes, size_t lane, uint8_t *block)
{
    for (size_t g = 0; g < pq->groups; g++) block[g * 16 + lane % 16] |= (uint8_t)(codes[g] << (lane / 16 * 4));
}

/* ---- queries ---- */

void lk_pq_tables(const lk_pq *pq, const float *query, float *scratch, uint8_t *tables, float *scale, float *bias)
{
    pq->kernels->tables(query, pq->dim, pq->groups, pq->codewords, scratch, tables, scale, bias);
    memset(tables + pq->groups * WORDS, 0, (pq->padded - pq->groups) * WORDS);
}
