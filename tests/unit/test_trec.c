/* Runs and qrels of TREC: what is read, what is refused, how a run is judged. */
#include "unit.h"

#include <likeness/eval.h>

#include <math.h>

static const uint32_t ks[] = {1, 2};

static char *write_text(void **state, const char *name, const char *text)
{
    static char path[4][256];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, 256, "%s/%s", (char *)*state, name);
    FILE *file = fopen(out, "w");
    fputs(text, file);
    fclose(file);
    return out;
}

static lk_judged judge(void **state, const char *qrels_text, const char *run_text)
{
    lk_trec qrels, run;
    lk_judged out;
    assert_int_equal(lk_trec_read_qrels(write_text(state, "q", qrels_text), &qrels), LK_OK);
    assert_int_equal(lk_trec_read_run(write_text(state, "r", run_text), &run), LK_OK);
    assert_int_equal(lk_trec_judge(&qrels, &run, "run", ks, 2, &out), LK_OK);
    lk_trec_free(&qrels);
    lk_trec_free(&run);
    return out;
}

static void ranks_follow_scores_and_not_the_rank_column(void **state)
{
    lk_judged j = judge(state, "1 0 a 1\n", "1 Q0 b 1 0.5 t\n1 Q0 a 2 0.9 t\n");
    assert_true(j.values[LK_EVAL_MRR] == 1);
    lk_judged_free(&j);
}

static void equal_scores_are_ranked_by_descending_item_as_trec_eval_does(void **state)
{
    /* 1 + 1e-10 is 1 in f32. */
    lk_judged j = judge(state, "1 0 a 1\n", "1 Q0 a 1 1.0000000001 t\n1 Q0 b 2 1 t\n1 Q0 c 3 0.1 t\n");
    assert_true(j.values[LK_EVAL_MRR] == 0.5);
    lk_judged_free(&j);
}

static void queries_without_relevant_items_are_counted_apart(void **state)
{
    lk_judged j = judge(state, "1 0 a 1\n2 0 a 0\n3 0 a -1\n", "1 Q0 a 1 1 t\n2 Q0 a 1 1 t\n");
    assert_int_equal(j.queries, 1);
    assert_int_equal(j.without, 2);
    assert_int_equal(lk_judged_finish(NULL, &j, 0.95, 100, 1), LK_OK);
    assert_true(j.means[LK_EVAL_MAP].mean == 1);
    lk_judged_free(&j);
}

static void a_query_that_is_not_answered_counts_with_zero(void **state)
{
    lk_judged j = judge(state, "1 0 a 1\n2 0 a 1\n", "1 Q0 a 1 1 t\n9 Q0 a 1 1 t\n");
    assert_int_equal(j.queries, 2);
    assert_int_equal(j.missing, 1);
    assert_int_equal(j.unknown, 1); /* query 9 */
    assert_int_equal(lk_judged_finish(NULL, &j, 0.95, 100, 1), LK_OK);
    assert_true(j.means[LK_EVAL_MAP].mean == 0.5);
    lk_judged_free(&j);
}

static void what_has_no_judgement_is_not_relevant(void **state)
{
    lk_judged j = judge(state, "1 0 a 1\n1 0 b 2\n", "1 Q0 x 1 3 t\n1 Q0 b 2 2 t\n1 Q0 a 3 1 t\n");
    assert_true(fabs(j.values[LK_EVAL_MAP] - (1.0 / 2 + 2.0 / 3) / 2) < 1e-15);
    assert_int_equal(j.relevant[0], 2);
    lk_judged_free(&j);
}

static void an_item_twice_under_a_query_is_refused(void **state)
{
    lk_trec trec;
    assert_int_equal(lk_trec_read_run(write_text(state, "r", "1 Q0 a 1 2 t\n1 Q0 b 2 1 t\n1 Q0 a 3 0 t\n"), &trec),
                     LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "a stands twice under query 1"));
    assert_int_equal(lk_trec_read_qrels(write_text(state, "q", "1 0 a 1\n1 0 a 2\n"), &trec), LK_CORRUPT);
    assert_int_equal(lk_trec_read_qrels(write_text(state, "q", "1 0 a 1\n1 0 a 1\n"), &trec), LK_OK);
    assert_int_equal(trec.count, 1); /* merely repeated */
    lk_trec_free(&trec);
}

static void broken_lines_are_named(void **state)
{
    lk_trec trec;
    static const char *const bad[] = {"1 Q0 a 1 2 t\n\n1 Q0 b 2 t\n", "1 Q0 a 1 2 t\n\n1 Q0 b 2 nan t\n",
                                      "1 Q0 a 1 2 t\r\n\r\n1 Q0 b 2 1x t\r\n", "1 Q0 a 1 2 t\n\n1 Q0 b 2 1 t more\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(lk_trec_read_run(write_text(state, "r", bad[i]), &trec), LK_CORRUPT);
        assert_non_null(strstr(lk_error_message(), "line 3"));
    }
    assert_int_equal(lk_trec_read_run("/nonexistent/run", &trec), LK_NOT_FOUND);
    assert_int_equal(lk_trec_read_run(write_text(state, "r", ""), &trec), LK_OK);
    assert_int_equal(trec.count, 0);
    lk_trec_free(&trec);
}

static void runs_are_compared_over_the_queries_that_both_have(void **state)
{
    lk_judged a = judge(state, "1 0 a 1\n2 0 a 1\n3 0 a 1\n", "1 Q0 a 1 1 t\n2 Q0 a 1 1 t\n");
    lk_judged b = judge(state, "2 0 a 1\n3 0 a 1\n4 0 a 1\n", "3 Q0 a 1 1 t\n4 Q0 a 1 1 t\n");
    lk_judged c = judge(state, "7 0 a 1\n", "7 Q0 a 1 1 t\n");
    lk_comparison out;
    assert_int_equal(lk_judged_compare(NULL, &a, &b, LK_EVAL_MAP, 0.95, 100, 1, &out), LK_OK);
    assert_int_equal(out.better, 1); /* query 3 */
    assert_int_equal(out.worse, 1);  /* query 2 */
    assert_true(out.difference.mean == 0);
    assert_int_equal(lk_judged_compare(NULL, &a, &c, LK_EVAL_MAP, 0.95, 100, 1, &out), LK_INVALID);
    lk_judged_free(&a);
    lk_judged_free(&b);
    lk_judged_free(&c);
}

static void the_csv_quotes_what_needs_it(void **state)
{
    lk_judged j = judge(state, "a,\"b 0 x 1\n", "a,\"b Q0 x 1 1 t\n");
    char path[256], line[1024];
    snprintf(path, sizeof path, "%s/out.csv", (char *)*state);
    assert_int_equal(lk_judged_write_csv(&j, 1, path), LK_OK);
    FILE *file = fopen(path, "r");
    assert_non_null(fgets(line, sizeof line, file));
    assert_true(strncmp(line, "query,relevant,mAP,", 19) == 0);
    assert_non_null(fgets(line, sizeof line, file));
    assert_true(strncmp(line, "\"a,\"\"b\",1,1,", 12) == 0);
    fclose(file);
    lk_judged_free(&j);
}

int main(void)
{
#define FOLDER(name) cmocka_unit_test_setup_teardown(name, unit_folder, unit_folder_remove)
    const struct CMUnitTest tests[] = {
        FOLDER(ranks_follow_scores_and_not_the_rank_column),
        FOLDER(equal_scores_are_ranked_by_descending_item_as_trec_eval_does),
        FOLDER(queries_without_relevant_items_are_counted_apart),
        FOLDER(a_query_that_is_not_answered_counts_with_zero),
        FOLDER(what_has_no_judgement_is_not_relevant),
        FOLDER(an_item_twice_under_a_query_is_refused),
        FOLDER(broken_lines_are_named),
        FOLDER(runs_are_compared_over_the_queries_that_both_have),
        FOLDER(the_csv_quotes_what_needs_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
