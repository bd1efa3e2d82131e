/* Ranks of a query's relevant items among all scores, by counting instead of sorting: one pass over the gallery puts
 * each item between two neighbouring relevant ones, O(n log r) for r relevant items. */
#include "base/error.h"
#include "base/memory.h"
#include <likeness/eval.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct item {
    float score; /* higher is better; NaN has become -infinity */
    uint64_t id;
    size_t index;
} item;

static bool before(const item *a, const item *b)
{
    return a->score > b->score || (a->score == b->score && a->id < b->id);
}

static int compare(const void *a, const void *b)
{
    return before(a, b) ? -1 : before(b, a) ? 1 : 0;
}

static item make_item(const float *scores, const uint64_t *ids, int higher_is_better, size_t i)
{
    float score = higher_is_better ? scores[i] : -scores[i];
    return (item){isnan(score) ? -INFINITY : score, ids[i], i};
}

lk_status lk_eval_ranks(const float *scores, const uint64_t *ids, size_t n, int higher_is_better, size_t self,
                        const size_t *relevant, size_t n_relevant, uint64_t *ranks, size_t *order_out)
{
    if (n_relevant == 0) return LK_OK;
    item *sorted = lk_alloc(n_relevant, sizeof *sorted);
    uint64_t *ahead = lk_alloc_zero(n_relevant + 1, sizeof *ahead);
    lk_status s = sorted && ahead ? LK_OK : lk_fail_memory("ranks");
    for (size_t i = 0; s == LK_OK && i < n_relevant; i++) {
        if (relevant[i] >= n || relevant[i] == self)
            s = lk_fail(LK_INVALID, "relevant item %zu is not in the gallery of %zu, or is the query", relevant[i], n);
        else
            sorted[i] = make_item(scores, ids, higher_is_better, relevant[i]);
    }
    if (s != LK_OK) goto done;
    qsort(sorted, n_relevant, sizeof *sorted, compare);
    for (size_t i = 0; i < n; i++) {
        if (i == self) continue;
        item candidate = make_item(scores, ids, higher_is_better, i);
        /* Most of a gallery is worse than every relevant item: one comparison for those. */
        if (before(&sorted[n_relevant - 1], &candidate)) continue;
        size_t low = 0, high = n_relevant; /* the first relevant item that is not ahead of the candidate */
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
    for (size_t i = 0; i < n_relevant; i++) {
        rank += ahead[i];
        ranks[i] = rank;
        if (order_out) order_out[i] = sorted[i].index;
    }
done:
    free(sorted);
    free(ahead);
    return s;
}
