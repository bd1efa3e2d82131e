#include "rank/kreciprocal.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_K = 1024 };

struct lk_encoder {
    const lk_pool_view *pool;
    uint32_t *reciprocal; /* [k1 + 1]: R(i, k1) */
    uint32_t *nested;     /* [half + 1]: R(c, half) */
    uint32_t *items;      /* [capacity]: R*(i) */
    float *weights;
    size_t capacity;
};

lk_kreciprocal_options lk_kreciprocal_defaults(void)
{
    return (lk_kreciprocal_options){.k1 = 20, .k2 = 6, .lambda = 0.3f};
}

lk_status lk_kreciprocal_check(const lk_kreciprocal_options *options)
{
    if (options->k1 == 0 || options->k1 > MOST_K || options->k2 == 0 || options->k2 > MOST_K)
        return lk_fail(LK_INVALID, "k-reciprocal: k1 and k2 are numbers from 1 to %d, not %u and %u", MOST_K,
                       options->k1, options->k2);
    if (!(options->lambda >= 0 && options->lambda <= 1))
        return lk_fail(LK_INVALID, "k-reciprocal: lambda is a number from 0 to 1, not %g", (double)options->lambda);
    return LK_OK;
}

uint32_t lk_half_even(uint32_t k)
{
    return k / 2 + (k % 4 == 3); /* 1.5 -> 2, 2.5 -> 2, 3.5 -> 4 */
}

lk_status lk_encoder_new(const lk_pool_view *pool, lk_encoder **out)
{
    size_t wide = pool->k1 + 1, narrow = pool->half + 1;
    lk_encoder *e = *out = lk_alloc_zero(1, sizeof *e);
    if (!e) return lk_fail_memory("re-ranking");
    *e = (lk_encoder){.pool = pool, .capacity = wide + wide * narrow};
    e->reciprocal = lk_alloc(wide, sizeof *e->reciprocal);
    e->nested = lk_alloc(narrow, sizeof *e->nested);
    e->items = lk_alloc(e->capacity, sizeof *e->items);
    e->weights = lk_alloc(e->capacity, sizeof *e->weights);
    if (e->reciprocal && e->nested && e->items && e->weights) return LK_OK;
    lk_encoder_free(e);
    *out = NULL;
    return lk_fail_memory("re-ranking");
}

void lk_encoder_free(lk_encoder *encoder)
{
    if (!encoder) return;
    free(encoder->reciprocal);
    free(encoder->nested);
    free(encoder->items);
    free(encoder->weights);
    free(encoder);
}

/* Whether item is among n: the inner loop of everything here, written so that it becomes vector comparisons. */
static bool contains(const uint32_t *items, uint32_t n, uint32_t item)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; i++) found |= items[i] == item;
    return found;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* R(item, k) in the order of the list. */
static lk_status reciprocal(const lk_pool_view *pool, uint32_t item, const lk_nearest *list, uint32_t k, uint32_t *out,
                            uint32_t *count)
{
    *count = 0;
    for (uint32_t i = 0; i < least(list->count, k + 1); i++) {
        lk_nearest other;
        lk_status s = pool->nearest(pool->user, list->items[i], &other);
        if (s != LK_OK) return s;
        if (contains(other.items, least(other.count, k + 1), item)) out[(*count)++] = list->items[i];
    }
    return LK_OK;
}

static int rising(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* R*(item), sorted, each once. */
static lk_status expand(lk_encoder *e, uint32_t item, const lk_nearest *list, uint32_t *count)
{
    const lk_pool_view *pool = e->pool;
    uint32_t n, total, kept = 0;
    lk_status s = reciprocal(pool, item, list, pool->k1, e->reciprocal, &n);
    if (s != LK_OK) return s;
    memcpy(e->items, e->reciprocal, n * sizeof *e->items);
    total = n;
    for (uint32_t i = 0; i < n; i++) {
        lk_nearest near;
        uint32_t nested, common = 0;
        s = pool->nearest(pool->user, e->reciprocal[i], &near);
        if (s == LK_OK) s = reciprocal(pool, e->reciprocal[i], &near, pool->half, e->nested, &nested);
        if (s != LK_OK) return s;
        for (uint32_t j = 0; j < nested; j++) common += contains(e->reciprocal, n, e->nested[j]);
        if (3 * common <= 2 * nested) continue;
        memcpy(e->items + total, e->nested, nested * sizeof *e->items);
        total += nested;
    }
    if (total) qsort(e->items, total, sizeof *e->items, rising);
    for (uint32_t i = 0; i < total; i++)
        if (kept == 0 || e->items[i] != e->items[kept - 1]) e->items[kept++] = e->items[i];
    *count = kept;
    return LK_OK;
}

lk_status lk_encode(lk_encoder *e, uint32_t item, lk_sparse *out)
{
    const lk_pool_view *pool = e->pool;
    lk_nearest list;
    uint32_t count = 0;
    lk_status s = pool->nearest(pool->user, item, &list);
    if (s == LK_OK) s = expand(e, item, &list, &count);
    if (s != LK_OK) return s;
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        float distance;
        uint32_t at = 0;
        while (at < list.count && list.items[at] != e->items[i]) at++;
        if (at < list.count)
            distance = list.distances[at];
        else if ((s = pool->distance(pool->user, item, e->items[i], &distance)) != LK_OK)
            return s;
        e->weights[i] = list.farthest > 0 ? expf(-distance / list.farthest) : 1; /* all items in one place */
        sum += (double)e->weights[i];
    }
    for (uint32_t i = 0; i < count; i++) e->weights[i] = (float)(e->weights[i] / sum);
    *out = (lk_sparse){e->items, e->weights, count};
    return LK_OK;
}
