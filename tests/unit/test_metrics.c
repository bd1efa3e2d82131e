/* Metrics, ranks, intervals and tests of significance, against pytrec_eval, ranx, the revisited protocol and scipy. */
#include "unit.h"

#include "../fixtures/metrics.h"
#include "../fixtures/published_revisited.h"
#include "base/random.h"
#include <likeness/eval.h>

#include <math.h>

enum { N_KS = sizeof fixture_ks / sizeof *fixture_ks };

/* Both sides compute in f64; sums differ in their order alone. */
static void assert_close(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-12)) fail_msg("%.17g is not %.17g", got, wanted);
}

static size_t column_named(const char *wanted, const uint32_t *ks, size_t n_ks)
{
    char name[32];
    for (size_t c = 0; c < lk_eval_columns(n_ks); c++) {
        lk_eval_column_name(c, ks, n_ks, name);
        if (strcmp(name, wanted) == 0) return c;
    }
    fail_msg("no metric is called %s", wanted);
    return 0;
}

static void metrics_agree_with_pytrec_eval_and_ranx(void **state)
{
    (void)state;
    double values[LK_EVAL_MAX_COLUMNS];
    for (size_t i = 0; i < FIXTURE_CASES; i++) {
        const struct metrics_case *one = &fixture_cases[i];
        assert_int_equal(
            lk_eval_query(one->ranks, one->grades, one->found, one->relevant, one->ideal, fixture_ks, N_KS, values),
            LK_OK);
        for (size_t n = 0; n < FIXTURE_NAMES; n++)
            assert_close(values[column_named(fixture_names[n], fixture_ks, N_KS)], one->values[n]);
    }
}

static void grades_of_one_are_the_default(void **state)
{
    (void)state;
    const uint64_t ranks[] = {2, 3, 7};
    const double ones[] = {1, 1, 1, 1};
    double plain[LK_EVAL_MAX_COLUMNS], graded[LK_EVAL_MAX_COLUMNS];
    assert_int_equal(lk_eval_query(ranks, NULL, 3, 4, NULL, fixture_ks, N_KS, plain), LK_OK);
    assert_int_equal(lk_eval_query(ranks, ones, 3, 4, ones, fixture_ks, N_KS, graded), LK_OK);
    assert_memory_equal(plain, graded, lk_eval_columns(N_KS) * sizeof *plain);
    assert_close(plain[LK_EVAL_NDCG], plain[LK_EVAL_NDCG_EXP]);
}

static void more_relevant_than_k_bounds_recall_but_not_the_mean_precision(void **state)
{
    (void)state;
    const uint64_t ranks[] = {1, 2, 3, 4, 5, 6, 7, 8};
    const uint32_t ks[] = {2};
    double v[LK_EVAL_MAX_COLUMNS];
    assert_int_equal(lk_eval_query(ranks, NULL, 8, 8, NULL, ks, 1, v), LK_OK);
    assert_close(v[lk_eval_column(LK_EVAL_PRECISION, 0, 1)], 1);
    assert_close(v[lk_eval_column(LK_EVAL_RECALL, 0, 1)], 0.25);
    assert_close(v[lk_eval_column(LK_EVAL_MAP_AT, 0, 1)], 1);     /* over min(R, k) */
    assert_close(v[lk_eval_column(LK_EVAL_MAP_CUT, 0, 1)], 0.25); /* over R */
    assert_close(v[lk_eval_column(LK_EVAL_NDCG_AT, 0, 1)], 1);    /* the best possible first k */
}

static void precision_counts_places_that_hold_nothing(void **state)
{
    (void)state;
    const uint64_t ranks[] = {1, 2}; /* a run of two items */
    const uint32_t ks[] = {10};
    double v[LK_EVAL_MAX_COLUMNS];
    assert_int_equal(lk_eval_query(ranks, NULL, 2, 2, NULL, ks, 1, v), LK_OK);
    assert_close(v[lk_eval_column(LK_EVAL_PRECISION, 0, 1)], 0.2);
}

static void a_query_that_finds_nothing_has_only_zeros(void **state)
{
    (void)state;
    double v[LK_EVAL_MAX_COLUMNS];
    assert_int_equal(lk_eval_query(NULL, NULL, 0, 3, NULL, fixture_ks, N_KS, v), LK_OK);
    for (size_t c = 0; c < lk_eval_columns(N_KS); c++) assert_true(v[c] == 0);
}

static void impossible_ranks_are_refused(void **state)
{
    (void)state;
    double v[LK_EVAL_MAX_COLUMNS];
    const uint64_t twice[] = {3, 3}, zero[] = {0}, falling[] = {4, 2};
    const uint32_t no_k[] = {0};
    assert_int_equal(lk_eval_query(twice, NULL, 2, 2, NULL, fixture_ks, N_KS, v), LK_INVALID);
    assert_int_equal(lk_eval_query(zero, NULL, 1, 2, NULL, fixture_ks, N_KS, v), LK_INVALID);
    assert_int_equal(lk_eval_query(falling, NULL, 2, 2, NULL, fixture_ks, N_KS, v), LK_INVALID);
    assert_int_equal(lk_eval_query(falling, NULL, 2, 1, NULL, fixture_ks, N_KS, v), LK_INVALID);
    assert_int_equal(lk_eval_query(zero + 1, NULL, 0, 0, NULL, fixture_ks, N_KS, v), LK_INVALID);
    assert_int_equal(lk_eval_query(falling, NULL, 0, 1, NULL, no_k, 1, v), LK_INVALID);
}

/* kinds [n]: what stands at each place. */
static void check_revisited(const char *kinds, size_t n_places, const double values[3][6])
{
    static const char good[3][3] = {"e", "eh", "h"}, ignored[3][3] = {"jh", "j", "je"};
    for (size_t setup = 0; setup < 3; setup++) {
        uint64_t ranks[64];
        uint8_t junk[64];
        size_t n = 0, relevant = 0;
        for (size_t place = 0; place < n_places; place++) {
            bool is_junk = strchr(ignored[setup], kinds[place]), is_good = strchr(good[setup], kinds[place]);
            relevant += is_good;
            if (!is_junk && !is_good) continue;
            ranks[n] = place + 1;
            junk[n++] = is_junk;
        }
        size_t found = lk_eval_drop_junk(ranks, junk, n);
        double ap, precision[N_KS];
        assert_int_equal(found, relevant);
        lk_status s = lk_eval_revisited(ranks, found, relevant, fixture_ks, N_KS, &ap, precision);
        assert_int_equal(s, relevant ? LK_OK : LK_INVALID);
        if (!relevant) {
            assert_true(isnan(values[setup][0]));
            continue;
        }
        assert_close(ap, values[setup][0]);
        for (size_t c = 0; c < N_KS; c++) assert_close(precision[c], values[setup][1 + c]);
    }
}

static void revisited_protocol_agrees_with_its_formulas(void **state)
{
    (void)state;
    for (size_t i = 0; i < REVISITED_CASES; i++)
        check_revisited(revisited_cases[i].kinds, REVISITED_GALLERY, revisited_cases[i].values);
}

static void revisited_protocol_agrees_with_the_published_program(void **state)
{
    (void)state;
    for (size_t i = 0; i < PUBLISHED_CASES; i++)
        check_revisited(published_cases[i].kinds, PUBLISHED_GALLERY, published_cases[i].values);
}

/* ---- curves ---- */

static void interpolated_precision_is_the_best_at_that_recall_or_above(void **state)
{
    (void)state;
    const uint64_t ranks[] = {2, 3, 10}; /* precisions 1/2, 2/3, 3/10 at recall 1/4, 2/4, 3/4 */
    lk_eval_curves c;
    lk_eval_curves_of(ranks, 3, 4, &c);
    assert_close(c.precision[0], 2.0 / 3);
    assert_close(c.precision[50], 2.0 / 3);
    assert_close(c.precision[51], 0.3);
    assert_close(c.precision[75], 0.3);
    assert_close(c.precision[76], 0);
    for (size_t d = 0; d < LK_EVAL_DEPTHS; d++) {
        double found = (lk_eval_depths[d] >= 2) + (lk_eval_depths[d] >= 3) + (lk_eval_depths[d] >= 10);
        assert_close(c.recall[d], found / 4);
        assert_close(c.hit[d], found > 0);
    }
}

/* ---- ranks ---- */

/* Sorts everything, as a definition. */
static void sorted_ranks(const float *scores, const uint64_t *ids, size_t n, bool higher, size_t self,
                         const uint8_t *skip, const size_t *relevant, size_t n_relevant, uint64_t *ranks)
{
    for (size_t r = 0; r < n_relevant; r++) {
        float own = isnan(scores[relevant[r]]) ? -INFINITY : higher ? scores[relevant[r]] : -scores[relevant[r]];
        ranks[r] = 1;
        for (size_t i = 0; i < n; i++) {
            if (i == self || (skip && skip[i]) || i == relevant[r]) continue;
            float other = isnan(scores[i]) ? -INFINITY : higher ? scores[i] : -scores[i];
            ranks[r] += other > own || (other == own && ids[i] < ids[relevant[r]]);
        }
    }
}

static int rising(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void counted_ranks_are_those_of_a_sorted_gallery(void **state)
{
    (void)state;
    enum { MOST = 300 };
    lk_random random;
    lk_random_seed(&random, 5);
    for (int round = 0; round < 300; round++) {
        float scores[MOST];
        uint64_t ids[MOST], got[MOST], wanted[MOST];
        uint8_t skip[MOST];
        size_t relevant[MOST], n = 1 + lk_random_below(&random, MOST), n_relevant = 0;
        bool higher = round % 2, skipping = round % 3 == 0;
        size_t self = round % 5 ? lk_random_below(&random, n) : SIZE_MAX, levels = round % 7 ? 5 : 100000;
        for (size_t i = 0; i < n; i++) {
            scores[i] = (float)lk_random_below(&random, levels) - 2;
            if (lk_random_below(&random, 40) == 0) scores[i] = round % 4 ? NAN : higher ? -INFINITY : INFINITY;
            ids[i] = (uint64_t)((i * 7919 + 13) % 1000003);
            skip[i] = skipping && lk_random_below(&random, 4) == 0;
        }
        uint64_t share = 1 + lk_random_below(&random, 20);
        for (size_t i = 0; i < n; i++)
            if (i != self && !(skipping && skip[i]) && lk_random_below(&random, share) == 0) relevant[n_relevant++] = i;
        size_t order[MOST];
        assert_int_equal(
            lk_eval_ranks(scores, ids, n, higher, self, skipping ? skip : NULL, relevant, n_relevant, got, order),
            LK_OK);
        sorted_ranks(scores, ids, n, higher, self, skipping ? skip : NULL, order, n_relevant, wanted);
        for (size_t r = 0; r < n_relevant; r++) assert_int_equal(got[r], wanted[r]);
        qsort(wanted, n_relevant, sizeof *wanted, rising);
        for (size_t r = 0; r < n_relevant; r++) assert_int_equal(got[r], wanted[r]); /* best first */
    }
}

static void equal_scores_are_ranked_by_ascending_id(void **state)
{
    (void)state;
    const float scores[] = {1, 1, 1, 1};
    const uint64_t ids[] = {40, 10, 30, 20};
    const size_t relevant[] = {0, 2};
    uint64_t ranks[2];
    size_t order[2];
    assert_int_equal(lk_eval_ranks(scores, ids, 4, 1, SIZE_MAX, NULL, relevant, 2, ranks, order), LK_OK);
    assert_int_equal(ranks[0], 3);
    assert_int_equal(order[0], 2);
    assert_int_equal(ranks[1], 4);
    assert_int_equal(order[1], 0);
}

static void the_query_is_not_in_its_own_gallery(void **state)
{
    (void)state;
    const float scores[] = {1, 0.5f, 0.2f};
    const uint64_t ids[] = {1, 2, 3};
    const size_t relevant[] = {1}, itself[] = {0};
    uint64_t rank;
    assert_int_equal(lk_eval_ranks(scores, ids, 3, 1, 0, NULL, relevant, 1, &rank, NULL), LK_OK);
    assert_int_equal(rank, 1);
    assert_int_equal(lk_eval_ranks(scores, ids, 3, 1, 0, NULL, itself, 1, &rank, NULL), LK_INVALID);
}

static void duplicates_of_a_picture_are_items_like_others(void **state)
{
    (void)state;
    const float scores[] = {0.9f, 0.9f, 0.9f, 0.1f}; /* three copies of one file */
    const uint64_t ids[] = {1, 2, 3, 4};
    const size_t relevant[] = {2};
    uint64_t rank;
    assert_int_equal(lk_eval_ranks(scores, ids, 4, 1, SIZE_MAX, NULL, relevant, 1, &rank, NULL), LK_OK);
    assert_int_equal(rank, 3);
}

static void junk_is_as_if_it_were_not_there(void **state)
{
    (void)state;
    uint64_t ranks[] = {1, 3, 4, 9};
    const uint8_t junk[] = {1, 0, 1, 0};
    assert_int_equal(lk_eval_drop_junk(ranks, junk, 4), 2);
    assert_int_equal(ranks[0], 2);
    assert_int_equal(ranks[1], 7);
}

/* ---- certainty ---- */

static void intervals_cover_the_truth_as_often_as_they_say(void **state)
{
    (void)state;
    enum { ROUNDS = 400, N = 60 };
    lk_random random;
    lk_random_seed(&random, 9);
    int covered = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double values[N];
        lk_interval one;
        for (int i = 0; i < N; i++) values[i] = lk_random_unit(&random);
        assert_int_equal(lk_eval_intervals(NULL, values, N, 1, 0.9, 400, (uint64_t)round, &one), LK_OK);
        assert_true(one.low < one.mean && one.mean < one.high);
        covered += one.low <= 0.5 && 0.5 <= one.high;
    }
    /* 90% of 400 is 360 with a standard deviation of 6; the percentile interval is a little narrow at 60 queries. */
    assert_in_range(covered, 335, 380);
}

static void intervals_do_not_depend_on_threads(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 3);
    double values[200];
    for (int i = 0; i < 200; i++) values[i] = lk_random_unit(&random);
    lk_interval alone[2], shared[2], other[2];
    lk_context *context;
    lk_context_options options = {.threads = 3};
    assert_int_equal(lk_context_new(&options, &context), LK_OK);
    assert_int_equal(lk_eval_intervals(NULL, values, 100, 2, 0.95, 500, 1, alone), LK_OK);
    assert_int_equal(lk_eval_intervals(context, values, 100, 2, 0.95, 500, 1, shared), LK_OK);
    assert_int_equal(lk_eval_intervals(context, values, 100, 2, 0.95, 500, 2, other), LK_OK);
    lk_context_free(context);
    assert_memory_equal(alone, shared, sizeof alone);
    assert_memory_not_equal(alone, other, sizeof alone);
}

static void resampling_and_the_normal_interval_meet(void **state)
{
    (void)state;
    enum { N = LK_EVAL_RESAMPLE_LIMIT };
    double *values = malloc((N + 1) * sizeof *values);
    lk_random random;
    lk_random_seed(&random, 4);
    for (int i = 0; i <= N; i++) values[i] = lk_random_unit(&random) < 0.3;
    lk_interval drawn, normal;
    assert_int_equal(lk_eval_intervals(NULL, values, N, 1, 0.95, 1000, 1, &drawn), LK_OK);
    assert_int_equal(lk_eval_intervals(NULL, values, N + 1, 1, 0.95, 1000, 1, &normal), LK_OK);
    assert_true(fabs(normal.high - normal.mean - 1.959964 * sqrt(0.3 * 0.7 / N)) < 2e-4);
    assert_true(fabs(drawn.low - normal.low) < 1e-3 && fabs(drawn.high - normal.high) < 1e-3);
    free(values);
}

static void randomisation_test_agrees_with_scipy(void **state)
{
    (void)state;
    for (size_t i = 0; i < PAIRED_CASES; i++) {
        lk_comparison c;
        assert_int_equal(lk_eval_compare(NULL, paired_cases[i].a, paired_cases[i].b, PAIRED_QUERIES, 0.95, 2000, 1, &c),
                         LK_OK);
        assert_close(c.p_randomisation, paired_cases[i].p); /* 2^9 sign flips, all of them */
        /* Fewer draws than ways: the estimate is within three standard deviations (0.5 / sqrt(500) at most). */
        assert_int_equal(lk_eval_compare(NULL, paired_cases[i].a, paired_cases[i].b, PAIRED_QUERIES, 0.95, 500, 1, &c),
                         LK_OK);
        assert_true(fabs(c.p_randomisation - paired_cases[i].p) < 0.07);
    }
}

static void a_run_is_no_better_than_itself(void **state)
{
    (void)state;
    const double a[] = {0.1, 0.5, 0.9, 0.4};
    lk_comparison c;
    assert_int_equal(lk_eval_compare(NULL, a, a, 4, 0.95, 1000, 1, &c), LK_OK);
    assert_true(c.difference.mean == 0 && c.difference.low == 0 && c.difference.high == 0);
    assert_true(c.p_bootstrap == 1 && c.p_randomisation == 1);
    assert_int_equal(c.equal, 4);
}

static void a_clear_difference_is_significant_both_ways(void **state)
{
    (void)state;
    double a[50], b[50];
    lk_random random;
    lk_random_seed(&random, 8);
    for (int i = 0; i < 50; i++) {
        a[i] = lk_random_unit(&random) / 2;
        b[i] = a[i] + 0.1 + lk_random_unit(&random) / 10;
    }
    lk_comparison up, down;
    assert_int_equal(lk_eval_compare(NULL, a, b, 50, 0.95, 1000, 1, &up), LK_OK);
    assert_int_equal(lk_eval_compare(NULL, b, a, 50, 0.95, 1000, 1, &down), LK_OK);
    assert_true(up.p_bootstrap < 0.01 && up.p_randomisation < 0.01 && up.difference.low > 0.1 && up.better == 50);
    assert_true(down.p_bootstrap < 0.01 && down.p_randomisation < 0.01 && down.difference.high < -0.1 &&
                down.worse == 50);
}

static void no_queries_make_no_interval(void **state)
{
    (void)state;
    lk_interval one;
    lk_comparison c;
    assert_int_equal(lk_eval_intervals(NULL, NULL, 0, 1, 0.95, 100, 1, &one), LK_INVALID);
    assert_int_equal(lk_eval_compare(NULL, NULL, NULL, 0, 0.95, 100, 1, &c), LK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_agree_with_pytrec_eval_and_ranx),
        cmocka_unit_test(grades_of_one_are_the_default),
        cmocka_unit_test(more_relevant_than_k_bounds_recall_but_not_the_mean_precision),
        cmocka_unit_test(precision_counts_places_that_hold_nothing),
        cmocka_unit_test(a_query_that_finds_nothing_has_only_zeros),
        cmocka_unit_test(impossible_ranks_are_refused),
        cmocka_unit_test(revisited_protocol_agrees_with_its_formulas),
        cmocka_unit_test(revisited_protocol_agrees_with_the_published_program),
        cmocka_unit_test(interpolated_precision_is_the_best_at_that_recall_or_above),
        cmocka_unit_test(counted_ranks_are_those_of_a_sorted_gallery),
        cmocka_unit_test(equal_scores_are_ranked_by_ascending_id),
        cmocka_unit_test(the_query_is_not_in_its_own_gallery),
        cmocka_unit_test(duplicates_of_a_picture_are_items_like_others),
        cmocka_unit_test(junk_is_as_if_it_were_not_there),
        cmocka_unit_test(intervals_cover_the_truth_as_often_as_they_say),
        cmocka_unit_test(intervals_do_not_depend_on_threads),
        cmocka_unit_test(resampling_and_the_normal_interval_meet),
        cmocka_unit_test(randomisation_test_agrees_with_scipy),
        cmocka_unit_test(a_run_is_no_better_than_itself),
        cmocka_unit_test(a_clear_difference_is_significant_both_ways),
        cmocka_unit_test(no_queries_make_no_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
