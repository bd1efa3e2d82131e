#include "index/topk.h"

#include <float.h>
#include <stdlib.h>

static inline bool before(const lk_hit *a, const lk_hit *b)
{
    return a->score > b->score || (a->score == b->score && a->id < b->id);
}

static int compare(const void *a, const void *b)
{
    const lk_hit *x = a, *y = b;
    return before(x, y) ? -1 : before(y, x) ? 1 : 0;
}

static inline void swap(lk_hit *a, lk_hit *b)
{
    lk_hit t = *a;
    *a = *b;
    *b = t;
}

/* Hoare's selection with the median of three: afterwards hits[rank] is what sorting would put there, and nothing before
 * it is worse. */
static void select_rank(lk_hit *hits, size_t count, size_t rank)
{
    size_t low = 0, high = count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (before(&hits[middle], &hits[low])) swap(&hits[middle], &hits[low]);
        if (before(&hits[high], &hits[low])) swap(&hits[high], &hits[low]);
        if (before(&hits[high], &hits[middle])) swap(&hits[high], &hits[middle]);
        lk_hit pivot = hits[middle];
        size_t i = low, j = high;
        for (;;) {
            while (before(&hits[i], &pivot)) i++;
            while (before(&pivot, &hits[j])) j--;
            if (i >= j) break;
            swap(&hits[i++], &hits[j--]);
        }
        /* low .. j are not after the pivot, j + 1 .. high not before it. */
        if (rank <= j)
            high = j;
        else
            low = j + 1;
    }
}

size_t lk_topk_capacity(size_t k)
{
    return k + (k > 128 ? k : 128);
}

void lk_topk_init(lk_topk *topk, lk_hit *hits, size_t k)
{
    *topk =
        (lk_topk){.hits = hits, .k = k, .capacity = lk_topk_capacity(k), .threshold = -FLT_MAX, .worst_id = UINT64_MAX};
}

static void keep_best(lk_topk *topk)
{
    if (topk->count < topk->k) return;
    select_rank(topk->hits, topk->count, topk->k - 1);
    topk->count = topk->k;
    topk->threshold = topk->hits[topk->k - 1].score;
    topk->worst_id = topk->hits[topk->k - 1].id;
}

void lk_topk_push(lk_topk *topk, float key, uint64_t id)
{
    if (!lk_topk_accepts(topk, key, id)) return;
    topk->hits[topk->count++] = (lk_hit){.id = id, .score = key};
    if (topk->count == topk->capacity) keep_best(topk);
}

void lk_topk_tighten(lk_topk *topk)
{
    size_t worth = topk->k / 2 > 16 ? topk->k / 2 : 16;
    if (topk->count >= topk->k + worth) keep_best(topk);
}

size_t lk_topk_finish(lk_topk *topk)
{
    keep_best(topk);
    if (topk->count > 1) qsort(topk->hits, topk->count, sizeof *topk->hits, compare);
    return topk->count;
}
