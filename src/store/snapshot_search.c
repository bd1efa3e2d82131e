/* A query against a snapshot: the approximate index, what came after it, and the exact scores of what both found. */
#include "base/error.h"
#include "base/memory.h"
#include "index/topk.h"
#include "store/select.h"
#include "store/snapshot.h"

#include <stdlib.h>

/* A set of at most one picture in so many, or at most SMALL_SET pictures, is scored picture by picture: a walk would
 * look at more of the others than that. */
enum { SMALL_SHARE = 100, SMALL_SET = 5000 };

/* Place of row number `row`, which exists. */
static uint64_t place_of_row(const lk_snapshot *snapshot, size_t row)
{
    size_t low = 0, high = snapshot->index->part_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (snapshot->starts[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return lk_flat_place(low, row - snapshot->starts[low]);
}

typedef struct passing {
    const lk_snapshot *snapshot;
    const lk_id_set *set; /* or NULL */
} passing;

/* Whether a row of the approximate index may be found. */
static int row_passes(void *user, uint64_t row)
{
    const passing *p = user;
    size_t at;
    if (row >= p->snapshot->covered) return 1; /* of a damaged file: search_ann sees it */
    const lk_flat_part *part = lk_flat_at_place(p->snapshot->index, place_of_row(p->snapshot, row), &at);
    return lk_flat_is_live(part, at) && (!p->set || lk_id_set_has((void *)p->set, part->ids[at]));
}

static float key_of(lk_metric metric, float score)
{
    return metric == LK_L2 ? -score : score;
}

/* Scores places exactly and offers them. */
static lk_status offer_places(const lk_snapshot *snapshot, const float *query, size_t n, const uint64_t *places,
                              lk_topk *best)
{
    float *scores = lk_alloc(n, sizeof *scores);
    if (!scores) return lk_fail_memory("results");
    lk_status s = lk_flat_score_places(snapshot->index, query, n, places, scores);
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        size_t row;
        const lk_flat_part *part = lk_flat_at_place(snapshot->index, places[i], &row);
        float key = key_of(snapshot->index->metric, scores[i]);
        if (lk_topk_accepts(best, key, part->ids[row])) lk_topk_push(best, key, part->ids[row]);
    }
    free(scores);
    return s;
}

/* What the approximate index finds. */
static lk_status search_ann(const lk_snapshot *snapshot, lk_context *context, const float *query, size_t k,
                            const lk_id_set *set, lk_topk *best)
{
    passing filter = {snapshot, set};
    bool filtered = set || snapshot->covered_dead;
    size_t count = 0;
    if (k > snapshot->covered) k = snapshot->covered;
    /* The effort was measured for ten results; many more need a longer list. */
    size_t effort = snapshot->effort > 2 * k ? snapshot->effort : 2 * k;
    /* Of a filtered walk's candidates only so many can be found: it needs more of them for the same recall. */
    if (set) effort = (size_t)((double)effort * (double)snapshot->index->live / (double)lk_id_set_count(set));
    lk_hit *hits = lk_alloc(k, sizeof *hits);
    uint64_t *places = lk_alloc(k, sizeof *places);
    lk_status s = hits && places ? LK_OK : lk_fail_memory("results");
    if (s == LK_OK)
        s = snapshot->type->search(snapshot->ann, context, (unsigned)effort, 1, query, k, filtered ? row_passes : NULL,
                                   &filter, hits, &count);
    for (size_t i = 0; s == LK_OK && i < count; i++) {
        if (hits[i].id >= snapshot->covered)
            s = lk_fail(LK_CORRUPT, "the approximate index names a vector that is not there");
        else
            places[i] = place_of_row(snapshot, hits[i].id);
    }
    if (s == LK_OK) s = offer_places(snapshot, query, count, places, best);
    free(places);
    free(hits);
    return s;
}

static lk_status search_tail(const lk_snapshot *snapshot, lk_context *context, const float *query, size_t k,
                             const lk_id_set *set, lk_topk *best)
{
    size_t live = lk_flat_count(snapshot->tail), count = 0;
    if (live == 0) return LK_OK;
    if (k > live) k = live;
    lk_hit *hits = lk_alloc(k, sizeof *hits);
    if (!hits) return lk_fail_memory("results");
    lk_status s =
        lk_flat_search(snapshot->tail, context, 1, query, k, set ? lk_id_set_has : NULL, (void *)set, hits, &count);
    for (size_t i = 0; s == LK_OK && i < count; i++) {
        float key = key_of(snapshot->index->metric, hits[i].score);
        if (lk_topk_accepts(best, key, hits[i].id)) lk_topk_push(best, key, hits[i].id);
    }
    free(hits);
    return s;
}

/* Every picture of a small set. */
static lk_status scan_set(const lk_snapshot *snapshot, const float *query, const lk_id_set *set, lk_topk *best)
{
    size_t n = lk_id_set_count(set), found = 0;
    uint64_t *places = lk_alloc(n, sizeof *places);
    if (!places) return lk_fail_memory("filter");
    lk_status s = LK_OK;
    for (uint64_t id = 0; s == LK_OK && lk_id_set_next(set, &id); id++) {
        s = lk_flat_find(snapshot->index, id, &places[found]);
        if (s == LK_OK) found++;
        if (s == LK_NOT_FOUND) s = LK_OK; /* the set is of another commit than the snapshot */
    }
    if (s == LK_OK) s = offer_places(snapshot, query, found, places, best);
    free(places);
    return s;
}

lk_status lk_snapshot_search(const lk_snapshot *snapshot, lk_context *context, bool exact, const float *query, size_t k,
                             const lk_id_set *filter, lk_hit *hits, size_t *count)
{
    const lk_flat *flat = snapshot->index;
    *count = 0;
    if (k == 0) return lk_fail(LK_INVALID, "a search for no results");
    if (flat->live == 0 || (filter && lk_id_set_count(filter) == 0)) return LK_OK;
    if (k > flat->live) k = flat->live;
    size_t n = filter ? lk_id_set_count(filter) : flat->live;
    bool small = filter && (n <= SMALL_SET || n < flat->live / SMALL_SHARE);
    if (!small && (exact || !snapshot->ann))
        return lk_flat_search(flat, context, 1, query, k, filter ? lk_id_set_has : NULL, (void *)filter, hits, count);
    lk_topk best;
    lk_hit *room = lk_alloc(lk_topk_capacity(k), sizeof *room);
    if (!room) return lk_fail_memory("results");
    lk_topk_init(&best, room, k);
    lk_status s;
    if (small) {
        s = scan_set(snapshot, query, filter, &best);
    } else {
        s = search_ann(snapshot, context, query, k, filter, &best);
        if (s == LK_OK) s = search_tail(snapshot, context, query, k, filter, &best);
    }
    if (s == LK_OK) *count = lk_topk_finish(&best);
    /* A walk may end among pictures that do not pass or are gone, and a damaged file may lead anywhere: neither is a
     * reason for fewer results than there are. */
    if (!small && (s == LK_CORRUPT || (s == LK_OK && *count < k && *count < n))) {
        free(room);
        return lk_flat_search(flat, context, 1, query, k, filter ? lk_id_set_has : NULL, (void *)filter, hits, count);
    }
    for (size_t i = 0; i < *count; i++)
        hits[i] = (lk_hit){.id = room[i].id, .score = flat->metric == LK_L2 ? 0 - room[i].score : room[i].score};
    free(room);
    return s;
}
