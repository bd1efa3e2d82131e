/* The k best of a stream of scores. Candidates go into a buffer somewhat larger than k; when it is full, a selection in
 * linear time keeps the k best. Most candidates of a long scan are refused by one comparison with the threshold. */
#ifndef LK_INDEX_TOPK_H
#define LK_INDEX_TOPK_H

#include <likeness/index.h>
#include <stdbool.h>

typedef struct lk_topk {
    lk_hit *hits; /* [capacity], borrowed; score is a key: higher is better */
    size_t k, capacity, count;
    float threshold;   /* a candidate below it is not among the k best */
    uint64_t worst_id; /* nor is one at it with an id above this */
} lk_topk;

/* Hits that a collector of k needs room for. */
size_t lk_topk_capacity(size_t k);
/* k >= 1. Keys that are not finite and above -FLT_MAX never enter. */
void lk_topk_init(lk_topk *topk, lk_hit *hits, size_t k);

static inline bool lk_topk_accepts(const lk_topk *topk, float key, uint64_t id)
{
    return key > topk->threshold || (key == topk->threshold && id <= topk->worst_id);
}

void lk_topk_push(lk_topk *topk, float key, uint64_t id);
/* Raises the threshold if enough has gathered to be worth it. */
void lk_topk_tighten(lk_topk *topk);
/* Best first, ties by smaller id; returns how many, at most k. */
size_t lk_topk_finish(lk_topk *topk);

#endif
