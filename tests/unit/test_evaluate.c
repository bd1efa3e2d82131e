/* Whole evaluations of vectors from files, against pytorch-metric-learning and Open Metric Learning; the protocols. */
#include "unit.h"

#include "../fixtures/metrics_ml.h"
#include <likeness/engine.h>

#include <math.h>

static const uint32_t ks[] = {1, 5, 10};

static const char *in(void **state, const char *name)
{
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, 256, "%s/%s", (char *)*state, name);
    return path;
}

static const char *write_npy(void **state, const char *name, const char *type, size_t rows, size_t columns,
                             const void *data, size_t bytes)
{
    const char *path = in(state, name);
    char header[118];
    memset(header, ' ', sizeof header);
    int n = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%zu,", type, rows);
    n += columns ? snprintf(header + n, sizeof header - (size_t)n, " %zu), }", columns)
                 : snprintf(header + n, sizeof header - (size_t)n, "), }");
    header[n] = ' ';
    header[117] = '\n';
    FILE *file = fopen(path, "w");
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file);
    fwrite(header, 1, sizeof header, file);
    fwrite(data, 1, bytes, file);
    fclose(file);
    return path;
}

static const char *write_text(void **state, const char *name, const char *text)
{
    const char *path = in(state, name);
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
    return path;
}

static lk_vector_files ml_files(void **state)
{
    return (lk_vector_files){.vectors =
                                 write_npy(state, "v.npy", "<f4", ML_COUNT, ML_DIM, ml_vectors, sizeof ml_vectors),
                             .labels = write_npy(state, "l.npy", "<i4", ML_COUNT, 0, ml_labels, sizeof ml_labels)};
}

static double mean_of(const lk_judged *run, const char *wanted)
{
    char name[32];
    for (size_t c = 0; c < run->columns; c++) {
        lk_eval_column_name(c, run->ks, run->n_ks, name);
        if (strcmp(name, wanted) == 0) return run->means[c].mean;
    }
    fail_msg("no metric is called %s", wanted);
    return 0;
}

static void figures_are_those_of_pytorch_metric_learning(void **state)
{
    lk_vector_files files = ml_files(state);
    lk_evaluate_options options = {.ks = ks, .n_ks = 3};
    lk_evaluation e;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
    assert_int_equal(e.runs[0].queries, ML_QUERIES);
    assert_int_equal(e.runs[0].queries + e.runs[0].without, ML_COUNT);
    /* Its MRR is summed in f32. */
    for (size_t i = 0; i < sizeof ml_pml / sizeof *ml_pml; i++)
        assert_true(fabs(mean_of(&e.runs[0], ml_pml[i].name) - ml_pml[i].value) < 1e-6);
    lk_evaluation_free(&e);
}

static void figures_are_those_of_open_metric_learning(void **state)
{
    static const float *const cmc[] = {ml_oml_cmc_1, ml_oml_cmc_5, ml_oml_cmc_10};
    static const float *const precision[] = {ml_oml_precision_1, ml_oml_precision_5, ml_oml_precision_10};
    static const float *const map[] = {ml_oml_map_1, ml_oml_map_5, ml_oml_map_10};
    lk_vector_files files = ml_files(state);
    lk_evaluate_options options = {.ks = ks, .n_ks = 3};
    lk_evaluation e;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
    const lk_judged *run = &e.runs[0];
    for (size_t q = 0; q < ML_QUERIES; q++) {
        const double *values = run->values + q * run->columns, r = run->relevant[q];
        for (size_t c = 0; c < 3; c++) {
            double hits = values[lk_eval_column(LK_EVAL_PRECISION, c, 3)] * ks[c];
            assert_true(values[lk_eval_column(LK_EVAL_HIT, c, 3)] == cmc[c][q]);
            /* It divides by min(k, R), and its map@k by the relevant ones among the first k. */
            assert_true(fabs(hits / (ks[c] < r ? ks[c] : r) - precision[c][q]) < 1e-6);
            assert_true(fabs((hits > 0 ? values[lk_eval_column(LK_EVAL_MAP_CUT, c, 3)] * r / hits : 0) - map[c][q]) <
                        1e-6);
        }
    }
    lk_evaluation_free(&e);
}

/* Compares the columns that a ranking of this depth decides. */
static void assert_same_at_cut_offs(const lk_judged *a, const lk_judged *b)
{
    assert_int_equal(a->queries, b->queries);
    for (size_t q = 0; q < a->queries; q++)
        for (size_t c = LK_EVAL_SCALARS; c < a->columns; c++)
            assert_true(a->values[q * a->columns + c] == b->values[q * b->columns + c]);
}

static void a_depth_changes_nothing_above_it(void **state)
{
    lk_vector_files files = ml_files(state);
    lk_evaluate_options options = {.ks = ks, .n_ks = 3};
    for (int metric = 0; metric < 3; metric++) {
        lk_evaluation all, best;
        files.metric = (lk_metric)metric;
        options.depth = 0;
        assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &all), LK_OK);
        options.depth = 10;
        assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &best), LK_OK);
        assert_same_at_cut_offs(&all.runs[0], &best.runs[0]);
        assert_true(best.runs[0].means[LK_EVAL_MAP].mean <
                    all.runs[0].means[LK_EVAL_MAP].mean); /* deeper ones are lost */
        lk_evaluation_free(&all);
        lk_evaluation_free(&best);
    }
}

static void results_do_not_depend_on_threads(void **state)
{
    lk_vector_files files = ml_files(state);
    lk_context *context;
    lk_context_options threads = {.threads = 3};
    lk_evaluation alone, shared;
    assert_int_equal(lk_context_new(&threads, &context), LK_OK);
    assert_int_equal(lk_evaluate_vectors(NULL, &files, NULL, &alone), LK_OK);
    assert_int_equal(lk_evaluate_vectors(context, &files, NULL, &shared), LK_OK);
    assert_memory_equal(alone.runs[0].values, shared.runs[0].values,
                        alone.runs[0].queries * alone.runs[0].columns * sizeof(double));
    assert_memory_equal(alone.runs[0].means, shared.runs[0].means, alone.runs[0].columns * sizeof(lk_interval));
    assert_memory_equal(&alone.runs[0].curves, &shared.runs[0].curves, sizeof(lk_eval_curves));
    lk_evaluation_free(&alone);
    lk_evaluation_free(&shared);
    lk_context_free(context);
}

static void what_is_written_as_trec_files_is_judged_the_same(void **state)
{
    lk_vector_files files = ml_files(state);
    const char *run = in(state, "run"), *qrels = in(state, "qrels");
    lk_evaluate_options options = {.ks = ks, .n_ks = 3, .write_run = run, .write_qrels = qrels};
    lk_evaluation own, read;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &own), LK_OK);
    lk_evaluate_options judged = {.ks = ks, .n_ks = 3, .runs = &run, .n_runs = 1, .qrels = qrels};
    assert_int_equal(lk_evaluate_runs(NULL, &judged, &read), LK_OK);
    for (size_t c = 0; c < own.runs[0].columns; c++)
        assert_true(fabs(own.runs[0].means[c].mean - read.runs[0].means[c].mean) < 1e-12); /* another order of adding */
    lk_evaluation_free(&read);
    /* And beside the own ranking it is no better and no worse. */
    lk_evaluate_options beside = {.ks = ks, .n_ks = 3, .runs = &run, .n_runs = 1};
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &beside, &read), LK_OK);
    assert_int_equal(read.n_runs, 2);
    assert_int_equal(read.comparisons[LK_EVAL_MAP].equal, ML_QUERIES);
    lk_evaluation_free(&read);
    /* Qrels as the truth of vectors. */
    lk_evaluate_options by_qrels = {.ks = ks, .n_ks = 3, .qrels = qrels};
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &by_qrels, &read), LK_OK);
    assert_memory_equal(own.runs[0].values, read.runs[0].values,
                        own.runs[0].queries * own.runs[0].columns * sizeof(double));
    lk_evaluation_free(&read);
    lk_evaluation_free(&own);
}

/* Six points on a line; distances are easy to see. */
static lk_vector_files line_files(void **state, const char *labels)
{
    static const double points[] = {0, 1, 2.5, 4.5, 7, 10};
    return (lk_vector_files){.vectors = write_npy(state, "line.npy", "<f8", 6, 1, points, sizeof points),
                             .labels = write_text(state, "line.csv", labels),
                             .metric = LK_L2};
}

static const char line_labels[] = "id,label,split\np0,a,q\np1,b,g\np2,a,g\np3,a,g\np4,b,q\np5,c,g\n";

static void truth_may_be_graded_and_repeat_itself(void **state)
{
    lk_vector_files files = line_files(state, line_labels);
    lk_evaluate_options options = {.ks = ks, .n_ks = 3};
    options.truth_csv =
        write_text(state, "t.csv", "query,relevant,grade\np0,p2,3\np0,p1,1\np0,p2,3\np0,p0,2\np0,p5,0\n");
    lk_evaluation e;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
    assert_int_equal(e.runs[0].queries, 1);
    assert_int_equal(e.runs[0].without, 5);
    assert_int_equal(e.runs[0].relevant[0], 2); /* itself does not count, nor what has the grade 0 */
    assert_true(e.runs[0].means[LK_EVAL_MAP].mean == 1);
    double ideal = 3 + 1 / log2(3), got = 1 + 3 / log2(3);
    assert_true(fabs(e.runs[0].means[LK_EVAL_NDCG].mean - got / ideal) < 1e-12);
    ideal = 7 + 1 / log2(3), got = 1 + 7 / log2(3);
    assert_true(fabs(e.runs[0].means[LK_EVAL_NDCG_EXP].mean - got / ideal) < 1e-12);
    lk_evaluation_free(&e);
    options.truth_csv = write_text(state, "t.csv", "query,relevant,grade\np0,p2,3\np0,p2,1\n");
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_CORRUPT); /* it contradicts itself */
    options.truth_csv = write_text(state, "t.csv", "query,relevant\np0,p2\np0,p9\n");
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_NOT_FOUND);
    assert_non_null(strstr(lk_error_message(), "line 3"));
    options.truth_csv = write_text(state, "t.csv", "query,relevant,difficulty\np0,p2,simple\n");
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_CORRUPT);
}

static void difficulty_gives_the_revisited_set_ups(void **state)
{
    lk_vector_files files = line_files(state, line_labels);
    lk_evaluate_options options = {.ks = ks, .n_ks = 3};
    /* The ranking of p0: p1 (junk), p2 (easy), p3, p4 (hard), p5. */
    options.truth_csv = write_text(state, "t.csv", "query,relevant,difficulty\np0,p1,junk\np0,p2,easy\np0,p4,hard\n");
    lk_evaluation e;
    for (int depth = 0; depth < 5; depth += 4) { /* all ranked, and only the best four */
        options.depth = (size_t)depth;
        assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
        assert_int_equal(e.runs[0].queries, 1);
        assert_true(e.runs[0].means[LK_EVAL_MRR].mean == 1); /* the junk ahead does not count */
        assert_true(fabs(e.runs[0].means[LK_EVAL_MAP].mean - (1 + 2.0 / 3) / 2) < 1e-12);
        const double *easy = e.runs[0].revisited, *medium = easy + 4, *hard = easy + 8;
        assert_true(easy[0] == 1);
        assert_true(fabs(medium[0] - (1 + (0.5 + 2.0 / 3) / 2) / 2) < 1e-12);
        assert_true(fabs(hard[0] - (0 + 1.0 / 2) / 2) < 1e-12); /* p3 is ahead, p1 and p2 are junk */
        lk_evaluation_free(&e);
    }
}

static void queries_and_gallery_can_be_chosen_by_columns(void **state)
{
    lk_vector_files files = line_files(state, line_labels);
    lk_evaluate_options options = {.ks = ks,
                                   .n_ks = 3,
                                   .query_column = "split",
                                   .query_value = "q",
                                   .gallery_column = "split",
                                   .gallery_value = "g"};
    lk_evaluation e;
    for (int depth = 0; depth < 4; depth += 3) {
        options.depth = (size_t)depth;
        assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
        assert_int_equal(e.runs[0].gallery, 4);
        assert_int_equal(e.runs[0].queries, 2);
        /* p0 ranks p1, p2, p3: relevant at 2 and 3. p4 ranks p3, p5 (by 3), p2, p1: relevant p1, at 4. */
        assert_true(fabs(e.runs[0].values[LK_EVAL_MAP] - (1.0 / 2 + 2.0 / 3) / 2) < 1e-12);
        assert_true(e.runs[0].values[e.runs[0].columns + LK_EVAL_MRR] == (depth ? 0 : 0.25));
        lk_evaluation_free(&e);
    }
    options.query_column = "nothing";
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_CORRUPT);
}

static void queries_may_be_vectors_of_their_own(void **state)
{
    lk_vector_files files = line_files(state, line_labels);
    static const float points[] = {1.1f, 9, 100};
    files.queries = write_npy(state, "q.npy", "<f4", 3, 1, points, sizeof points);
    files.query_labels = write_text(state, "q.csv", "label\nb\na\nnone\n");
    lk_evaluate_options options = {.ks = ks, .n_ks = 3};
    lk_evaluation e;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
    assert_int_equal(e.runs[0].queries, 2);
    assert_int_equal(e.runs[0].without, 1);
    /* 1.1 ranks p1, p0, p2, p3, p4: b at 1 and 5. 9 ranks p5, p4, p3, p2, p1, p0: a at 3, 4, 6. */
    assert_true(fabs(e.runs[0].values[LK_EVAL_MAP] - (1 + 2.0 / 5) / 2) < 1e-12);
    assert_true(fabs(e.runs[0].values[e.runs[0].columns + LK_EVAL_MAP] - (1.0 / 3 + 2.0 / 4 + 3.0 / 6) / 3) < 1e-12);
    lk_evaluation_free(&e);
    files.query_labels = NULL;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_INVALID);
}

static void files_that_do_not_fit_are_refused(void **state)
{
    lk_vector_files files = line_files(state, line_labels);
    lk_evaluation e;
    files.labels = write_text(state, "few.csv", "label\na\nb\n");
    assert_int_equal(lk_evaluate_vectors(NULL, &files, NULL, &e), LK_INVALID);
    files.labels = write_text(state, "none.csv", "name\na\n");
    assert_int_equal(lk_evaluate_vectors(NULL, &files, NULL, &e), LK_CORRUPT);
    files.labels = write_text(state, "latin.csv", "label,id\na,1\nb,2\na,3\nb,4\n\xe9,5\na,6\n");
    assert_int_equal(lk_evaluate_vectors(NULL, &files, NULL, &e), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "line 6"));
    files.labels = NULL;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, NULL, &e), LK_INVALID);
    static const float one[] = {1};
    const char *const broken[] = {write_npy(state, "short.npy", "<f4", 3, 4, one, sizeof one),
                                  write_npy(state, "huge.npy", "<f4", SIZE_MAX / 4, 4, one, sizeof one),
                                  write_text(state, "text.npy", "hello"), in(state, "ends.npy")};
    static const char ends[] = "\x93NUMPY\x01\x00\x33\x00{'fortran_order': False, 'shape': (1,), 'descr': '<";
    FILE *file = fopen(broken[3], "w"); /* in the middle of the type */
    fwrite(ends, 1, 10 + 0x33, file);
    fclose(file);
    for (size_t i = 0; i < 4; i++) {
        files.vectors = broken[i];
        assert_int_equal(lk_evaluate_vectors(NULL, &files, NULL, &e), LK_CORRUPT);
    }
    files.vectors = write_npy(state, "big.npy", ">f4", 1, 1, one, sizeof one);
    assert_int_equal(lk_evaluate_vectors(NULL, &files, NULL, &e), LK_UNSUPPORTED);
}

/* Worst first. */
static lk_status turn_round(void *user, const lk_flat *index, uint64_t id, const float *query, lk_hit *hits,
                            size_t *count)
{
    float vector[64];
    assert_true(lk_flat_dim(index) <= 64);
    assert_int_equal(lk_flat_vector(index, id, vector), LK_OK);
    assert_memory_equal(vector, query, lk_flat_dim(index) * sizeof(float));
    assert_ptr_not_equal(index, NULL);
    for (size_t i = 0; i < *count / 2; i++) {
        lk_hit hit = hits[i];
        hits[i] = hits[*count - 1 - i];
        hits[*count - 1 - i] = hit;
    }
    __atomic_add_fetch((int *)user, 1, __ATOMIC_SEQ_CST);
    return LK_OK;
}

static void a_re_ranking_is_judged_instead(void **state)
{
    lk_vector_files files = line_files(state, line_labels);
    int calls = 0;
    lk_evaluate_options options = {.ks = ks, .n_ks = 3, .reorder = turn_round, .reorder_user = &calls};
    lk_evaluation e;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_INVALID); /* without a depth */
    options.depth = 4;
    options.truth_csv = write_text(state, "t.csv", "query,relevant\np0,p1\n");
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
    assert_int_equal(calls, 1);
    /* The five best of p0 are itself, p1, p2, p3, p4; turned round p1 stands at 4, itself left out. */
    assert_true(e.runs[0].means[LK_EVAL_MRR].mean == 0.25);
    lk_evaluation_free(&e);
}

static void a_report_is_one_folder_with_its_data_inside(void **state)
{
    lk_vector_files files =
        line_files(state, "label,id\n</script><b>,p0\nb,p1\n</script><b>,p2\n</script><b>,p3\nb,p4\nc,p5\n");
    lk_evaluate_options options = {.ks = ks, .n_ks = 3, .html = in(state, "report")};
    lk_evaluation e;
    assert_int_equal(lk_evaluate_vectors(NULL, &files, &options, &e), LK_OK);
    lk_evaluation_free(&e);
    FILE *file = fopen(in(state, "report/index.html"), "r");
    assert_non_null(file);
    static char page[1 << 20];
    size_t size = fread(page, 1, sizeof page - 1, file);
    fclose(file);
    page[size] = 0;
    assert_non_null(strstr(page, "\\u003c/script>\\u003cb>"));
    assert_null(strstr(page, "</script><b>")); /* a label cannot end the data */
    assert_null(strstr(page, "{{"));           /* every part of the template is filled */
    assert_null(strstr(page, "src=\"http"));
    assert_int_equal(access(in(state, "report/queries.csv"), R_OK), 0);
    assert_int_equal(access(in(state, "report/report.json"), R_OK), 0);
}

int main(void)
{
#define FOLDER(name) cmocka_unit_test_setup_teardown(name, unit_folder, unit_folder_remove)
    const struct CMUnitTest tests[] = {
        FOLDER(figures_are_those_of_pytorch_metric_learning),
        FOLDER(figures_are_those_of_open_metric_learning),
        FOLDER(a_depth_changes_nothing_above_it),
        FOLDER(results_do_not_depend_on_threads),
        FOLDER(what_is_written_as_trec_files_is_judged_the_same),
        FOLDER(truth_may_be_graded_and_repeat_itself),
        FOLDER(difficulty_gives_the_revisited_set_ups),
        FOLDER(queries_and_gallery_can_be_chosen_by_columns),
        FOLDER(queries_may_be_vectors_of_their_own),
        FOLDER(files_that_do_not_fit_are_refused),
        FOLDER(a_re_ranking_is_judged_instead),
        FOLDER(a_report_is_one_folder_with_its_data_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
