/* Metrics by hand and beside trec_eval; ranks by counting beside ranks by sorting. */
#include <likeness/eval.h>

#include "../fixtures/metrics.h"
#include "base/random.h"

#include "unit.h"

#include <math.h>

static void close_to(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9)) fail_msg("%.12g, not %.12g", a, b);
}

/* Ranks 1, 3 and 6 of four relevant items; the fourth is not found. */
static void metrics_are_those_computed_by_hand(void **state)
{
    (void)state;
    const uint64_t ranks[] = {1, 3, 6};
    const uint32_t ks[] = {1, 2, 4, 10};
    lk_query_metrics m;
    assert_int_equal(lk_eval_query(ranks, NULL, 3, 4, NULL, ks, 4, &m), LK_OK);
    close_to(m.average_precision, (1 + 2.0 / 3 + 3.0 / 6) / 4);
    close_to(m.r_precision, 2.0 / 4);
    close_to(m.reciprocal_rank, 1);
    const double precision[] = {1, 0.5, 0.5, 0.3}, recall[] = {0.25, 0.25, 0.5, 0.75};
    double gain = 1, ideal = 1 + 1 / log2(3) + 1 / log2(4) + 1 / log2(5);
    const double dcg[] = {gain, gain, gain + 1 / log2(4), gain + 1 / log2(4) + 1 / log2(7)};
    const double best[] = {1, 1 + 1 / log2(3), ideal, ideal};
    for (int c = 0; c < 4; c++) {
        close_to(m.precision[c], precision[c]);
        close_to(m.recall[c], recall[c]);
        close_to(m.hit[c], 1);
        close_to(m.ndcg[c], dcg[c] / best[c]);
    }
}

static void metrics_agree_with_trec_eval(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof metric_cases / sizeof *metric_cases; i++) {
        lk_query_metrics m;
        assert_int_equal(lk_eval_query(metric_cases[i].ranks, metric_cases[i].gains, metric_cases[i].found,
                                       metric_cases[i].relevant, metric_cases[i].ideal, metric_ks, METRIC_KS, &m),
                         LK_OK);
        close_to(m.average_precision, metric_cases[i].map);
        close_to(m.r_precision, metric_cases[i].r_precision);
        close_to(m.reciprocal_rank, metric_cases[i].reciprocal_rank);
        for (size_t c = 0; c < METRIC_KS; c++) {
            close_to(m.precision[c], metric_cases[i].precision[c]);
            close_to(m.recall[c], metric_cases[i].recall[c]);
            close_to(m.hit[c], metric_cases[i].success[c]);
            close_to(m.ndcg[c], metric_cases[i].ndcg[c]);
        }
    }
}

static void ranks_agree_with_trec_eval(void **state)
{
    (void)state;
    uint64_t ids[METRIC_GALLERY], ranks[METRIC_GALLERY];
    for (size_t i = 0; i < METRIC_GALLERY; i++) ids[i] = i + 1;
    for (size_t i = 0; i < sizeof metric_cases / sizeof *metric_cases; i++) {
        size_t found = metric_cases[i].found;
        assert_int_equal(lk_eval_ranks(metric_cases[i].scores, ids, METRIC_GALLERY, 1, SIZE_MAX, metric_cases[i].items,
                                       found, ranks, NULL),
                         LK_OK);
        assert_memory_equal(ranks, metric_cases[i].ranks, found * sizeof *ranks);
    }
}

static void a_cutoff_beyond_the_relevant_items_keeps_its_meaning(void **state)
{
    (void)state;
    const uint64_t ranks[] = {2};
    const uint32_t ks[] = {1, 100};
    lk_query_metrics m;
    assert_int_equal(lk_eval_query(ranks, NULL, 1, 1, NULL, ks, 2, &m), LK_OK);
    close_to(m.precision[1], 1.0 / 100); /* of k, however few are relevant */
    close_to(m.recall[1], 1);
    close_to(m.hit[0], 0);
    close_to(m.ndcg[1], 1 / log2(3));
    close_to(m.r_precision, 0);
}

static void more_relevant_items_than_the_cutoff_limit_recall(void **state)
{
    (void)state;
    uint64_t ranks[50];
    const uint32_t ks[] = {10};
    lk_query_metrics m;
    for (size_t i = 0; i < 50; i++) ranks[i] = i + 1;
    assert_int_equal(lk_eval_query(ranks, NULL, 50, 50, NULL, ks, 1, &m), LK_OK);
    close_to(m.precision[0], 1);
    close_to(m.recall[0], 10.0 / 50);
    close_to(m.ndcg[0], 1);
    close_to(m.average_precision, 1);
    close_to(m.r_precision, 1);
}

static void nothing_found_gives_zeros(void **state)
{
    (void)state;
    const uint32_t ks[] = {5};
    lk_query_metrics m;
    assert_int_equal(lk_eval_query(NULL, NULL, 0, 3, NULL, ks, 1, &m), LK_OK);
    close_to(m.average_precision + m.r_precision + m.reciprocal_rank + m.precision[0] + m.recall[0] + m.hit[0] +
                 m.ndcg[0],
             0);
}

static void queries_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    const uint64_t good[] = {1, 2}, zero[] = {0, 1}, equal[] = {3, 3}, falling[] = {4, 2};
    const uint32_t ks[LK_EVAL_MAX_KS + 1] = {1}, none[] = {0};
    lk_query_metrics m;
    assert_int_equal(lk_eval_query(good, NULL, 0, 0, NULL, ks, 1, &m), LK_INVALID); /* no relevant item */
    assert_int_equal(lk_eval_query(good, NULL, 2, 1, NULL, ks, 1, &m), LK_INVALID); /* more found than there are */
    assert_int_equal(lk_eval_query(zero, NULL, 2, 2, NULL, ks, 1, &m), LK_INVALID);
    assert_int_equal(lk_eval_query(equal, NULL, 2, 2, NULL, ks, 1, &m), LK_INVALID);
    assert_int_equal(lk_eval_query(falling, NULL, 2, 2, NULL, ks, 1, &m), LK_INVALID);
    assert_int_equal(lk_eval_query(good, NULL, 2, 2, NULL, none, 1, &m), LK_INVALID);
    assert_int_equal(lk_eval_query(good, NULL, 2, 2, NULL, ks, LK_EVAL_MAX_KS + 1, &m), LK_INVALID);
}

static void means_are_over_queries_with_relevant_items(void **state)
{
    (void)state;
    const uint64_t first[] = {1}, second[] = {4};
    const uint32_t ks[] = {1, 5};
    lk_query_metrics m;
    lk_eval_mean mean = {0};
    close_to(lk_eval_mean_result(&mean, 2).average_precision, 0);
    assert_int_equal(lk_eval_query(first, NULL, 1, 1, NULL, ks, 2, &m), LK_OK);
    lk_eval_mean_add(&mean, &m, 2);
    assert_int_equal(lk_eval_query(second, NULL, 1, 2, NULL, ks, 2, &m), LK_OK);
    lk_eval_mean_add(&mean, &m, 2);
    lk_query_metrics result = lk_eval_mean_result(&mean, 2);
    assert_int_equal(mean.queries, 2);
    close_to(result.average_precision, (1 + 0.25 / 2) / 2);
    close_to(result.reciprocal_rank, (1 + 0.25) / 2);
    close_to(result.hit[0], 0.5);
    close_to(result.precision[1], 0.2);
    close_to(result.recall[1], 0.75);
}

/* ---- ranks ---- */

static int sort_higher;
static const float *sort_scores;
static const uint64_t *sort_ids;

static int by_score_then_id(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    float p = sort_scores[x], q = sort_scores[y];
    if (isnan(p) || isnan(q)) { /* NaN is worse than everything but another */
        if (isnan(p) != isnan(q)) return isnan(p) ? 1 : -1;
    } else if (p != q) {
        return (p > q) == (sort_higher != 0) ? -1 : 1;
    }
    return (sort_ids[x] > sort_ids[y]) - (sort_ids[x] < sort_ids[y]);
}

static void counted_ranks_are_those_of_a_full_sort(void **state)
{
    (void)state;
    enum { N = 200 };
    float scores[N];
    uint64_t ids[N], ranks[N];
    size_t order[N], relevant[N], order_out[N];
    lk_random random;
    lk_random_seed(&random, 11);
    for (int round = 0; round < 300; round++) {
        size_t n = 1 + (size_t)lk_random_below(&random, N), n_relevant = 0;
        uint64_t levels = 1 + lk_random_below(&random, 40); /* few levels: many ties */
        size_t self = round % 3 ? (size_t)lk_random_below(&random, n) : SIZE_MAX;
        for (size_t i = 0; i < n; i++) {
            scores[i] = (float)lk_random_below(&random, levels) - 5;
            if (round % 5 == 0 && lk_random_below(&random, 10) == 0) scores[i] = NAN;
            ids[i] = (i * 7919) % 100003 + 1; /* in no order */
            order[i] = i;
            if (i != self && lk_random_below(&random, 4) == 0) relevant[n_relevant++] = i;
        }
        sort_higher = round % 2;
        sort_scores = scores;
        sort_ids = ids;
        qsort(order, n, sizeof *order, by_score_then_id);
        assert_int_equal(lk_eval_ranks(scores, ids, n, sort_higher, self, relevant, n_relevant, ranks, order_out),
                         LK_OK);
        uint64_t rank = 0;
        size_t met = 0;
        for (size_t i = 0; i < n; i++) {
            if (order[i] == self) continue;
            rank++;
            for (size_t r = 0; r < n_relevant; r++) {
                if (relevant[r] != order[i]) continue;
                assert_int_equal(ranks[met], rank);
                assert_int_equal(order_out[met], order[i]);
                met++;
            }
        }
        assert_int_equal(met, n_relevant);
    }
}

static void equal_scores_are_ranked_by_id(void **state)
{
    (void)state;
    const float scores[] = {0.5f, 0.5f, 0.5f, 0.5f};
    const uint64_t ids[] = {40, 10, 30, 20};
    const size_t relevant[] = {0, 2};
    uint64_t ranks[2];
    assert_int_equal(lk_eval_ranks(scores, ids, 4, 1, 1, relevant, 2, ranks, NULL), LK_OK); /* the query is id 10 */
    assert_int_equal(ranks[0], 2);
    assert_int_equal(ranks[1], 3);
}

static void a_relevant_item_that_is_the_query_or_nowhere_is_refused(void **state)
{
    (void)state;
    const float scores[] = {1, 2};
    const uint64_t ids[] = {1, 2};
    uint64_t ranks[1];
    assert_int_equal(lk_eval_ranks(scores, ids, 2, 1, 1, (size_t[]){1}, 1, ranks, NULL), LK_INVALID);
    assert_int_equal(lk_eval_ranks(scores, ids, 2, 1, 1, (size_t[]){2}, 1, ranks, NULL), LK_INVALID);
    assert_int_equal(lk_eval_ranks(scores, ids, 2, 1, 1, NULL, 0, ranks, NULL), LK_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_are_those_computed_by_hand),
        cmocka_unit_test(metrics_agree_with_trec_eval),
        cmocka_unit_test(ranks_agree_with_trec_eval),
        cmocka_unit_test(a_cutoff_beyond_the_relevant_items_keeps_its_meaning),
        cmocka_unit_test(more_relevant_items_than_the_cutoff_limit_recall),
        cmocka_unit_test(nothing_found_gives_zeros),
        cmocka_unit_test(queries_that_make_no_sense_are_refused),
        cmocka_unit_test(means_are_over_queries_with_relevant_items),
        cmocka_unit_test(counted_ranks_are_those_of_a_full_sort),
        cmocka_unit_test(equal_scores_are_ranked_by_id),
        cmocka_unit_test(a_relevant_item_that_is_the_query_or_nowhere_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
