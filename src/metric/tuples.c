#include "metric/tuples.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

void lk_tuples_free(lk_tuples *tuples)
{
    if (!tuples) return;
    free(tuples->anchor_positive);
    free(tuples->positive);
    free(tuples->anchor_negative);
    free(tuples->negative);
    *tuples = (lk_tuples){0};
}

static void group_free(lk_group *group)
{
    free(group->at);
    free(group->other);
    free(group->weight);
    *group = (lk_group){0};
}

void lk_pair_sets_free(lk_pair_sets *sets)
{
    group_free(&sets->positive);
    group_free(&sets->negative);
}

static lk_status group_room(lk_group *group, size_t count, bool weighted)
{
    group->count = count;
    group->other = lk_alloc(count, sizeof *group->other);
    if (weighted) group->weight = lk_alloc(count, sizeof *group->weight);
    return group->other && (!weighted || group->weight) ? LK_OK : lk_fail_memory("pairs");
}

static void put(lk_group *group, size_t at, size_t other, double weight)
{
    group->other[at] = (uint32_t)other;
    if (group->weight) group->weight[at] = weight;
}

lk_status lk_pair_sets_all(const lk_pair_rule *rule, const lk_labels *anchors, size_t n, const lk_labels *references,
                           size_t m, const uint32_t *own, lk_pair_sets *out)
{
    lk_status s = LK_OK;
    *out = (lk_pair_sets){0};
    bool single = anchors->kind == LK_LABELS_SINGLE, weighted = rule->soft && !single;
    out->positive.at = lk_alloc_zero(n + 1, sizeof *out->positive.at);
    out->negative.at = lk_alloc_zero(n + 1, sizeof *out->negative.at);
    if (!out->positive.at || !out->negative.at) {
        s = lk_fail_memory("pairs");
        goto done;
    }
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        size_t p = 0, q = 0;
        for (size_t i = 0; i < n; i++) {
            size_t self = own ? own[i] : i;
            for (size_t j = 0; j < m; j++) {
                if (j == self) continue;
                bool same = single && anchors->classes[i] == references->classes[j]; /* the common kind, inline */
                lk_relation relation = single ? (lk_relation){same, !same} : lk_relate(rule, anchors, i, references, j);
                if (relation.positive > 0) {
                    if (pass) put(&out->positive, p, j, relation.positive);
                    p++;
                }
                if (relation.negative > 0) {
                    if (pass) put(&out->negative, q, j, relation.negative);
                    q++;
                }
            }
            out->positive.at[i + 1] = p;
            out->negative.at[i + 1] = q;
        }
        if (!pass) {
            LK_TRY(group_room(&out->positive, p, weighted));
            LK_TRY(group_room(&out->negative, q, weighted));
        }
    }
done:
    if (s) lk_pair_sets_free(out);
    return s;
}

/* Stable counting sort by anchor. */
static lk_status group_list(const uint32_t *anchor, const uint32_t *other, size_t count, size_t n, size_t m,
                            lk_group *out)
{
    for (size_t i = 0; i < count; i++)
        if (anchor[i] >= n || other[i] >= m)
            return lk_fail(LK_INVALID, "pair (%u, %u) lies outside %zu embeddings and %zu references", anchor[i],
                           other[i], n, m);
    out->at = lk_alloc_zero(n + 1, sizeof *out->at);
    if (!out->at) return lk_fail_memory("pairs");
    lk_status s = group_room(out, count, false);
    if (s) return s;
    for (size_t i = 0; i < count; i++) out->at[anchor[i]]++;
    size_t at = 0;
    for (size_t i = 0; i <= n; i++) { /* to the start of each anchor */
        size_t here = out->at[i];
        out->at[i] = at;
        at += here;
    }
    for (size_t i = 0; i < count; i++) out->other[out->at[anchor[i]]++] = other[i];
    memmove(out->at + 1, out->at, n * sizeof *out->at); /* each start has become its end */
    out->at[0] = 0;
    return LK_OK;
}

lk_status lk_pair_sets_of(const lk_tuples *tuples, size_t n, size_t m, lk_pair_sets *out)
{
    *out = (lk_pair_sets){0};
    const uint32_t *second = tuples->triplets ? tuples->anchor_positive : tuples->anchor_negative;
    lk_status s = group_list(tuples->anchor_positive, tuples->positive, tuples->positives, n, m, &out->positive);
    if (!s) s = group_list(second, tuples->negative, tuples->negatives, n, m, &out->negative);
    if (s) lk_pair_sets_free(out);
    return s;
}

static void group_unique(lk_group *group, size_t n, size_t *seen)
{
    size_t kept = 0;
    for (size_t i = 0, begin = 0; i < n; i++) {
        size_t end = group->at[i + 1];
        for (size_t k = begin; k < end; k++) {
            if (seen[group->other[k]] == i + 1) continue;
            seen[group->other[k]] = i + 1;
            put(group, kept, group->other[k], lk_group_weight(group, k));
            kept++;
        }
        begin = end;
        group->at[i + 1] = kept;
    }
    group->count = kept;
}

lk_status lk_pair_sets_unique(lk_pair_sets *sets, size_t n, size_t m)
{
    size_t *seen = lk_alloc_zero(m, sizeof *seen);
    if (!seen) return lk_fail_memory("pairs");
    group_unique(&sets->positive, n, seen);
    memset(seen, 0, m * sizeof *seen);
    group_unique(&sets->negative, n, seen);
    free(seen);
    return LK_OK;
}

static lk_status count_in(const uint32_t *index, size_t count, size_t n, double *weight)
{
    for (size_t i = 0; i < count; i++) {
        if (index[i] >= n) return lk_fail(LK_INVALID, "tuple index %u lies outside %zu embeddings", index[i], n);
        weight[index[i]]++;
    }
    return LK_OK;
}

lk_status lk_tuple_weights(const lk_tuples *tuples, size_t n, bool anchors_only, double *weight)
{
    lk_status s = LK_OK;
    bool none = !tuples || (!tuples->positives && !tuples->negatives);
    for (size_t i = 0; i < n; i++) weight[i] = none;
    if (none) return LK_OK;
    LK_TRY(count_in(tuples->anchor_positive, tuples->positives, n, weight));
    if (!tuples->triplets) LK_TRY(count_in(tuples->anchor_negative, tuples->negatives, n, weight));
    if (!anchors_only) {
        LK_TRY(count_in(tuples->positive, tuples->positives, n, weight));
        LK_TRY(count_in(tuples->negative, tuples->negatives, n, weight));
    }
    double most = 0;
    for (size_t i = 0; i < n; i++) most = weight[i] > most ? weight[i] : most;
    for (size_t i = 0; i < n; i++) weight[i] /= most;
done:
    return s;
}
