/* Choosing an index, tuning its effort, and the common face of every kind. */
#include "base/random.h"
#include "index/auto.h"

#include "unit.h"

#include <math.h>

enum { N = 4000, DIM = 24, QUERIES = 50, K = 10 };

#define GIB ((uint64_t)1 << 30)
#define MACHINE (24 * GIB)

static float vectors[N * DIM], queries[QUERIES * DIM];
static uint64_t ids[N];

static int make_vectors(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 21);
    float mix[8 * DIM];
    for (int i = 0; i < 8 * DIM; i++) mix[i] = (float)lk_random_normal(&random);
    for (int i = 0; i < N + QUERIES; i++) { /* eight dimensions and a little noise */
        float *row = i < N ? vectors + i * DIM : queries + (i - N) * DIM, hidden[8];
        for (int h = 0; h < 8; h++) hidden[h] = (float)lk_random_normal(&random);
        for (int c = 0; c < DIM; c++) {
            row[c] = 0.1f * (float)lk_random_normal(&random);
            for (int h = 0; h < 8; h++) row[c] += hidden[h] * mix[h * DIM + c];
        }
    }
    for (uint64_t i = 0; i < N; i++) ids[i] = 1000000 - 3 * i;
    return 0;
}

static void the_kind_follows_from_count_width_and_memory(void **state)
{
    (void)state;
    static const struct {
        size_t n, dim;
        bool whole;
        uint64_t memory, machine;
        const char *kind;
    } cases[] = {
        {1000, 128, false, 0, MACHINE, "flat"},
        {65000, 126, false, 0, MACHINE, "flat"}, /* the last below 32 MiB, and the first beyond */
        {66100, 126, false, 0, MACHINE, "graph"},
        {5000, 2048, false, 0, MACHINE, "graph"}, /* few, but wide */
        {30000, 128, false, 6 << 20, MACHINE, "partitioned"},
        {300000, 128, true, 90 << 20, MACHINE, "graph"}, /* SIFT: one byte a component */
        {300000, 128, false, 90 << 20, MACHINE, "partitioned"},
        {1000000, 512, false, 0, MACHINE, "graph"},
        {1000000, 512, false, 0, MACHINE / 8, "partitioned"}, /* more than a quarter of 3 GiB */
        {1000000, 2048, false, 0, 1 << 20, "partitioned"},    /* no limit was named: never refused */
        {2000000, 128, false, 0, MACHINE, "graph"},
        {2000001, 128, false, 0, MACHINE, "partitioned"},
        {10000000, 256, false, 12 * GIB, MACHINE, "partitioned"},
    };
    const lk_ann_type *type;
    char why[128];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(lk_ann_choose(cases[i].n, cases[i].dim, cases[i].whole, cases[i].memory, cases[i].machine,
                                       &type, why, sizeof why),
                         LK_OK);
        assert_string_equal(type->name, cases[i].kind);
        assert_true(strlen(why) > 20);
    }
    assert_int_equal(lk_ann_choose(1000000, 512, false, 100 << 20, MACHINE, &type, why, sizeof why), LK_LIMIT);
    assert_non_null(strstr(lk_error_message(), "MiB"));
}

static double recall(const lk_ann_type *type, const void *index, const lk_flat *flat, unsigned effort)
{
    lk_hit found[QUERIES * K], truth[QUERIES * K];
    size_t counts[QUERIES], expected[QUERIES], same = 0;
    assert_int_equal(type->search(index, NULL, effort, QUERIES, queries, K, NULL, NULL, found, counts), LK_OK);
    assert_int_equal(lk_flat_search(flat, NULL, QUERIES, queries, K, NULL, NULL, truth, expected), LK_OK);
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < counts[q]; i++)
            for (size_t j = 0; j < K; j++) same += found[q * K + i].id == truth[q * K + j].id;
    return (double)same / (QUERIES * K);
}

/* The queries of the tuning are made from the input, and the ones here are not: near the target is what can be had. */
static void a_tuned_effort_comes_near_its_recall_on_other_queries(void **state)
{
    (void)state;
    static const char *const names[] = {"graph", "partitioned", "flat"};
    lk_ann_input input = {.n = N, .dim = DIM, .metric = LK_L2, .vectors = vectors, .ids = ids, .seed = 1};
    lk_flat *flat;
    assert_int_equal(lk_flat_new(DIM, LK_L2, LK_F32, &flat), LK_OK);
    assert_int_equal(lk_flat_add(flat, N, ids, vectors), LK_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const lk_ann_type *type = lk_ann_type_named(names[i]);
        unsigned effort, least;
        double reached, low;
        void *index;
        assert_int_equal(type->build(NULL, &input, &index), LK_OK);
        assert_int_equal(lk_ann_tune(NULL, type, index, &input, K, K, 0.5, 0, &least, &low), LK_OK);
        assert_int_equal(lk_ann_tune(NULL, type, index, &input, K, K, 0.95, 0, &effort, &reached), LK_OK);
        assert_true(reached >= 0.95 && low >= 0.5);
        assert_true(effort >= least);
        assert_true(recall(type, index, flat, effort) >= 0.9);
        type->free(index);
    }
    lk_flat_free(flat);
}

static void auto_is_the_kind_that_it_chose(void **state)
{
    char text[256], path[512];
    unsigned efforts[LK_ANN_MAX_EFFORTS], chosen_efforts[LK_ANN_MAX_EFFORTS];
    const lk_ann_type *kind = lk_ann_type_named("partitioned");
    lk_ann_size size;
    void *index, *opened;
    lk_ann_input input = {.n = N, .dim = DIM, .metric = LK_COSINE, .vectors = vectors, .ids = ids, .seed = 1};
    assert_int_equal(lk_ann_auto.build(NULL, &input, &index), LK_OK);
    lk_ann_auto.describe(index, text, sizeof text);
    assert_non_null(strstr(text, "flat, because"));
    assert_int_equal(lk_ann_auto.save(index, "/nowhere"), LK_UNSUPPORTED);
    lk_ann_auto.free(index);

    assert_int_equal(kind->build(NULL, &input, &index), LK_OK);
    snprintf(path, sizeof path, "%s/x.index", (char *)*state);
    assert_int_equal(kind->save(index, path), LK_OK);
    assert_int_equal(lk_ann_auto.open(path, &opened), LK_OK);
    lk_ann_auto.describe(opened, text, sizeof text);
    assert_non_null(strstr(text, "partitioned"));
    lk_ann_auto.size(opened, &size);
    assert_true(size.disk > N * DIM);
    assert_int_equal(lk_ann_auto.efforts(opened, K, efforts), kind->efforts(index, K, chosen_efforts));
    lk_hit hits[2][K];
    size_t counts[2];
    assert_int_equal(kind->search(index, NULL, 5, 1, queries, K, NULL, NULL, hits[0], &counts[0]), LK_OK);
    assert_int_equal(lk_ann_auto.search(opened, NULL, 5, 1, queries, K, NULL, NULL, hits[1], &counts[1]), LK_OK);
    assert_int_equal(counts[0], counts[1]);
    for (size_t i = 0; i < counts[0]; i++) assert_true(hits[0][i].id == hits[1][i].id);
    lk_ann_auto.free(opened);
    kind->free(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kind_follows_from_count_width_and_memory),
        cmocka_unit_test(a_tuned_effort_comes_near_its_recall_on_other_queries),
        cmocka_unit_test_setup_teardown(auto_is_the_kind_that_it_chose, unit_folder, unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, make_vectors, NULL);
}
