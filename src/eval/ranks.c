/* Ranks of a query's relevant items among all scores, by counting instead of sorting. For a few relevant items each is
 * counted in a pass of its own, which the compiler turns into vector compares; for many, one pass puts each item
 * between two neighbouring relevant ones by bisection. */
#include "base/error.h"
#include "base/memory.h"
#include <likeness/eval.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    FEW = 48,
    BLOCK = 8192
}; /* relevant items counted one by one; scores that stay in the nearest cache meanwhile */

typedef struct item {
    float score; /* higher is better; NaN has become -infinity */
    uint64_t id;
    size_t index;
} item;

/* What is ranked. */
typedef struct gallery {
    const float *scores;
    const uint64_t *ids;
    size_t n, self;
    const uint8_t *skip;
    bool higher_is_better;
} gallery;

static bool before(const item *a, const item *b)
{
    return a->score > b->score || (a->score == b->score && a->id < b->id);
}

static int compare(const void *a, const void *b)
{
    return before(a, b) ? -1 : before(b, a) ? 1 : 0;
}

static item make_item(const gallery *g, size_t i)
{
    float score = g->higher_is_better ? g->scores[i] : -g->scores[i];
    return (item){isnan(score) ? -INFINITY : score, g->ids[i], i};
}

static bool takes_part(const gallery *g, size_t i)
{
    return i != g->self && !(g->skip && g->skip[i]);
}

/* Adds how many of scores [n] are above t, and how many are t or above. */
static void count_scores(const gallery *g, size_t begin, size_t n, float t, uint64_t *above, uint64_t *from)
{
    const float *scores = g->scores + begin;
    uint32_t higher = 0, same_or_higher = 0;
    if (g->skip) {
        const uint8_t *skip = g->skip + begin;
        float sign = g->higher_is_better ? 1 : -1;
        for (size_t i = 0; i < n; i++) {
            higher += (sign * scores[i] > t) & !skip[i];
            same_or_higher += (sign * scores[i] >= t) & !skip[i];
        }
    } else if (g->higher_is_better) {
        for (size_t i = 0; i < n; i++) {
            higher += scores[i] > t;
            same_or_higher += scores[i] >= t;
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            higher += scores[i] < -t;
            same_or_higher += scores[i] <= -t;
        }
    }
    *above += higher;
    *from += same_or_higher;
}

/* Items of the same score as `wanted` that are ranked before it. */
static uint64_t tied_ahead(const gallery *g, const item *wanted)
{
    uint64_t ahead = 0;
    for (size_t i = 0; i < g->n; i++) {
        if (!takes_part(g, i)) continue;
        item candidate = make_item(g, i);
        ahead += candidate.score == wanted->score && candidate.id < wanted->id;
    }
    return ahead;
}

/* sorted [n]: the relevant items, best first; counts [2 n] is scratch. */
static void count_few(const gallery *g, const item *sorted, size_t n, uint64_t *counts, uint64_t *ranks)
{
    for (size_t begin = 0; begin < g->n; begin += BLOCK) {
        size_t size = g->n - begin < BLOCK ? g->n - begin : BLOCK;
        for (size_t r = 0; r < n; r++)
            count_scores(g, begin, size, sorted[r].score, &counts[2 * r], &counts[2 * r + 1]);
    }
    item own = {-INFINITY, 0, SIZE_MAX};
    bool counted = g->self < g->n && !(g->skip && g->skip[g->self]) && !isnan(g->scores[g->self]);
    if (counted) own = make_item(g, g->self);
    for (size_t r = 0; r < n; r++) {
        uint64_t above = counts[2 * r], from = counts[2 * r + 1];
        if (counted) {
            above -= own.score > sorted[r].score;
            from -= own.score >= sorted[r].score;
        }
        bool alone = from - above == 1 && sorted[r].score > -INFINITY;
        ranks[r] = 1 + above + (alone ? 0 : tied_ahead(g, &sorted[r]));
    }
}

/* One pass over the gallery, O(log n) for each of its items; ahead [n + 1] zeroed. */
static void count_many(const gallery *g, const item *sorted, size_t n, uint64_t *ahead, uint64_t *ranks)
{
    for (size_t i = 0; i < g->n; i++) {
        if (!takes_part(g, i)) continue;
        item candidate = make_item(g, i);
        /* Most of a gallery is worse than every relevant item: one comparison for those. */
        if (before(&sorted[n - 1], &candidate)) continue;
        size_t low = 0, high = n; /* the first relevant item that is not ahead of the candidate */
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (before(&sorted[middle], &candidate))
                low = middle + 1;
            else
                high = middle;
        }
        ahead[low]++; /* the candidate is ahead of sorted[low] (or is it) and of all after it */
    }
    uint64_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        rank += ahead[i];
        ranks[i] = rank;
    }
}

lk_status lk_eval_ranks(const float *scores, const uint64_t *ids, size_t n, int higher_is_better, size_t self,
                        const uint8_t *skip, const size_t *relevant, size_t n_relevant, uint64_t *ranks,
                        size_t *order_out)
{
    if (n_relevant == 0) return LK_OK;
    gallery g = {scores, ids, n, self, skip, higher_is_better};
    item *sorted = lk_alloc(n_relevant, sizeof *sorted);
    uint64_t *counts = lk_alloc_zero(2 * n_relevant, sizeof *counts);
    lk_status s = sorted && counts ? LK_OK : lk_fail_memory("ranks");
    for (size_t i = 0; s == LK_OK && i < n_relevant; i++) {
        if (relevant[i] >= n || !takes_part(&g, relevant[i]))
            s = lk_fail(LK_INVALID, "relevant item %zu is not in the gallery of %zu, or is the query", relevant[i], n);
        else
            sorted[i] = make_item(&g, relevant[i]);
    }
    if (s == LK_OK) {
        qsort(sorted, n_relevant, sizeof *sorted, compare);
        if (n_relevant <= FEW)
            count_few(&g, sorted, n_relevant, counts, ranks);
        else
            count_many(&g, sorted, n_relevant, counts, ranks);
        for (size_t i = 0; order_out && i < n_relevant; i++) order_out[i] = sorted[i].index;
    }
    free(sorted);
    free(counts);
    return s;
}
