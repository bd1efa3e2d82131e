/* A query against a snapshot: the approximate index, what came after it, and the exact scores of what both found. */
#include "base/error.h"
#include "base/memory.h"
#include "index/topk.h"
#include "store/select.h"
#include "store/snapshot.h"

#include <math.h>
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

/* Offers what the approximate index found, which are rows. */
static lk_status offer_rows(const lk_snapshot *snapshot, const float *query, size_t count, const lk_hit *hits,
                            lk_topk *best)
{
    uint64_t *places = lk_alloc(count, sizeof *places);
    lk_status s = places ? LK_OK : lk_fail_memory("results");
    for (size_t i = 0; s == LK_OK && i < count; i++) {
        if (hits[i].id >= snapshot->covered)
            s = lk_fail(LK_CORRUPT, "the approximate index names a vector that is not there");
        else
            places[i] = place_of_row(snapshot, hits[i].id);
    }
    if (s == LK_OK) s = offer_places(snapshot, query, count, places, best);
    free(places);
    return s;
}

/* The effort was measured for ten results; many more need a longer list. */
static size_t effort_for(const lk_snapshot *snapshot, size_t k)
{
    return snapshot->effort > 2 * k ? snapshot->effort : 2 * k;
}

/* What the approximate index finds. */
static lk_status search_ann(const lk_snapshot *snapshot, lk_context *context, const float *query, size_t k,
                            const lk_id_set *set, lk_topk *best)
{
    passing filter = {snapshot, set};
    bool filtered = set || snapshot->covered_dead;
    size_t count = 0, asked = LK_ANN_ASKED * k < snapshot->covered ? LK_ANN_ASKED * k : snapshot->covered;
    lk_hit *hits = lk_alloc(asked, sizeof *hits);
    lk_status s = hits ? LK_OK : lk_fail_memory("results");
    if (s == LK_OK)
        s = snapshot->type->search(snapshot->ann, context, (unsigned)effort_for(snapshot, k), 1, query, asked,
                                   filtered ? row_passes : NULL, &filter, hits, &count);
    if (s == LK_OK) s = offer_rows(snapshot, query, count, hits, best);
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

/* ---- ranges ---- */

typedef struct range {
    const lk_snapshot *snapshot;
    lk_context *context;
    const float *query;
    float bound;
    size_t most;
    const lk_id_set *set; /* or NULL */
} range;

static lk_status range_exact(const range *r, const lk_flat *flat, lk_hit *hits, size_t *count)
{
    return lk_flat_range(flat, r->context, 1, r->query, r->bound, r->most, r->set ? lk_id_set_has : NULL,
                         (void *)r->set, hits, count);
}

static lk_status range_ann(const range *r, lk_hit *hits, lk_topk *best)
{
    const lk_snapshot *snapshot = r->snapshot;
    passing filter = {snapshot, r->set};
    size_t count = 0;
    /* Its scores are those of codes: what lies a little outside of the bound by them may lie within. */
    float slack = snapshot->index->metric == LK_L2 ? -0.02f * r->bound : 0.01f * fmaxf(1, fabsf(r->bound));
    lk_status s = snapshot->type->range(snapshot->ann, r->context, (unsigned)effort_for(snapshot, 1), 1, r->query,
                                        r->bound - slack, r->most, r->set || snapshot->covered_dead ? row_passes : NULL,
                                        &filter, hits, &count);
    if (s == LK_OK) s = offer_rows(snapshot, r->query, count, hits, best);
    if (s == LK_OK && snapshot->tail->live) s = range_exact(r, snapshot->tail, hits, &count);
    for (size_t i = 0; s == LK_OK && snapshot->tail->live && i < count; i++)
        lk_topk_push(best, key_of(snapshot->index->metric, hits[i].score), hits[i].id);
    return s;
}

lk_status lk_snapshot_range(const lk_snapshot *snapshot, lk_context *context, bool exact, const float *query,
                            float bound, size_t most, const lk_id_set *filter, lk_hit *hits, size_t *count)
{
    const lk_flat *flat = snapshot->index;
    *count = 0;
    if (most == 0 || isnan(bound)) return lk_fail(LK_INVALID, "a range needs a bound, and room for results");
    if (flat->live == 0 || (filter && lk_id_set_count(filter) == 0)) return LK_OK;
    range r = {snapshot, context, query, bound, most < flat->live ? most : flat->live, filter};
    size_t n = filter ? lk_id_set_count(filter) : flat->live;
    bool small = filter && (n <= SMALL_SET || n < flat->live / SMALL_SHARE);
    if (!small && (exact || !snapshot->ann)) return range_exact(&r, flat, hits, count);
    lk_topk best;
    lk_hit *room = lk_alloc(lk_topk_capacity(r.most), sizeof *room);
    if (!room) return lk_fail_memory("results");
    lk_topk_init(&best, room, r.most);
    best.threshold = key_of(flat->metric, bound);
    lk_status s = small ? scan_set(snapshot, query, filter, &best) : range_ann(&r, hits, &best);
    if (s == LK_OK) *count = lk_topk_finish(&best);
    for (size_t i = 0; s == LK_OK && i < *count; i++)
        hits[i] = (lk_hit){.id = room[i].id, .score = flat->metric == LK_L2 ? 0 - room[i].score : room[i].score};
    free(room);
    return s == LK_CORRUPT ? range_exact(&r, flat, hits, count) : s;
}
