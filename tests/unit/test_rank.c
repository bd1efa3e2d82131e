/* Query expansion, augmentation, feedback, diffusion and SuperGlobal against numpy in float64
 * (tools/reference/rank.py). Components of unit vectors may differ by 1e-6, scores by 1e-5. */
#include "unit.h"

#include "../fixtures/published_expansion.h"
#include "../fixtures/rank.h"
#include <likeness/rank.h>

#include <math.h>

static void assert_vector(const float *out, const float *expected, size_t n, float tolerance)
{
    for (size_t i = 0; i < n; i++) assert_float_equal(out[i], expected[i], tolerance);
}

static float dot(const float *a, const float *b)
{
    double sum = 0;
    for (size_t d = 0; d < FIXTURE_DIM; d++) sum += (double)a[d] * b[d];
    return (float)sum;
}

static void expansion_agrees_with_numpy(void **state)
{
    (void)state;
    const struct {
        lk_expansion kind;
        const float *expected;
    } cases[] = {{LK_EXPAND_AVERAGE, fixture_expand_average},
                 {LK_EXPAND_RANK, fixture_expand_rank},
                 {LK_EXPAND_ALPHA, fixture_expand_alpha}};
    float similarities[FIXTURE_NEAR], out[FIXTURE_DIM];
    for (size_t i = 0; i < FIXTURE_NEAR; i++) similarities[i] = dot(fixture_query, fixture_vectors + i * FIXTURE_DIM);
    for (size_t c = 0; c < 3; c++) {
        assert_int_equal(lk_expand_query(cases[c].kind, 3, FIXTURE_DIM, fixture_query, FIXTURE_NEAR, fixture_vectors,
                                         similarities, out),
                         LK_OK);
        assert_vector(out, cases[c].expected, FIXTURE_DIM, 1e-6f);
    }
}

static void expansion_and_augmentation_agree_with_a_published_program(void **state)
{
    (void)state;
    const struct {
        lk_expansion kind;
        float alpha;
        size_t n;
        const float *expected;
    } cases[] = {{LK_EXPAND_AVERAGE, 0, 10, published_aqe_10},
                 {LK_EXPAND_ALPHA, 3, 10, published_alpha_10_3},
                 {LK_EXPAND_ALPHA, 1, 5, published_alpha_5_1}};
    float similarities[PUBLISHED_N], out[PUBLISHED_N * PUBLISHED_DIM];
    for (size_t i = 0; i < PUBLISHED_N; i++) {
        double sum = 0;
        for (size_t d = 0; d < PUBLISHED_DIM; d++)
            sum += (double)published_query[d] * published_vectors[i * PUBLISHED_DIM + d];
        similarities[i] = (float)sum;
    }
    for (size_t c = 0; c < 3; c++) {
        assert_int_equal(lk_expand_query(cases[c].kind, cases[c].alpha, PUBLISHED_DIM, published_query, cases[c].n,
                                         published_vectors, similarities, out),
                         LK_OK);
        assert_vector(out, cases[c].expected, PUBLISHED_DIM, 1e-6f);
    }
    assert_int_equal(lk_augment(NULL, LK_EXPAND_ALPHA, 2, 4, PUBLISHED_N, PUBLISHED_DIM, published_vectors, out),
                     LK_OK);
    assert_vector(out, published_augment_4_2, PUBLISHED_N * PUBLISHED_DIM, 1e-6f);
}

static void alpha_of_zero_is_the_average(void **state)
{
    (void)state;
    float similarities[FIXTURE_NEAR], out[FIXTURE_DIM];
    for (size_t i = 0; i < FIXTURE_NEAR; i++) similarities[i] = 0.5f;
    assert_int_equal(lk_expand_query(LK_EXPAND_ALPHA, 0, FIXTURE_DIM, fixture_query, FIXTURE_NEAR, fixture_vectors,
                                     similarities, out),
                     LK_OK);
    assert_vector(out, fixture_expand_average, FIXTURE_DIM, 1e-6f);
}

static void expansion_that_cancels_out_leaves_the_query(void **state)
{
    (void)state;
    const float query[] = {1, 0}, opposite[] = {-1, 0};
    float out[2] = {5, 5};
    assert_int_equal(lk_expand_query(LK_EXPAND_AVERAGE, 0, 2, query, 1, opposite, NULL, out), LK_OK);
    assert_true(out[0] == 1 && out[1] == 0);
    assert_int_equal(lk_expand_query(LK_EXPAND_NONE, 0, 2, query, 1, opposite, NULL, out), LK_INVALID);
    assert_int_equal(lk_expand_query(LK_EXPAND_ALPHA, -1, 2, query, 1, opposite, query, out), LK_INVALID);
}

static void augmentation_agrees_with_numpy_for_any_number_of_threads(void **state)
{
    (void)state;
    float out[FIXTURE_N * FIXTURE_DIM], again[FIXTURE_N * FIXTURE_DIM];
    lk_context *context;
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 3}, &context), LK_OK);
    assert_int_equal(lk_augment(NULL, LK_EXPAND_ALPHA, 3, 5, FIXTURE_N, FIXTURE_DIM, fixture_vectors, out), LK_OK);
    assert_int_equal(lk_augment(context, LK_EXPAND_ALPHA, 3, 5, FIXTURE_N, FIXTURE_DIM, fixture_vectors, again), LK_OK);
    assert_vector(out, fixture_augment, FIXTURE_N * FIXTURE_DIM, 1e-6f);
    assert_memory_equal(out, again, sizeof out);
    lk_context_free(context);
}

static void several_queries_become_their_normalised_mean(void **state)
{
    (void)state;
    float three[3 * FIXTURE_DIM], out[FIXTURE_DIM];
    memcpy(three, fixture_vectors, sizeof three);
    for (size_t d = 0; d < FIXTURE_DIM; d++) three[d] *= 3; /* length does not count */
    assert_int_equal(lk_fuse_queries(3, FIXTURE_DIM, three, out), LK_OK);
    assert_vector(out, fixture_fused, FIXTURE_DIM, 1e-6f);
    assert_int_equal(lk_fuse_queries(0, FIXTURE_DIM, three, out), LK_INVALID);
    const float opposite[] = {1, 0, -1, 0};
    assert_int_equal(lk_fuse_queries(2, 2, opposite, out), LK_INVALID);
}

static void feedback_agrees_with_numpy(void **state)
{
    (void)state;
    const size_t yes[] = {0, 3}, no[] = {5, 8, 100};
    float wanted[2 * FIXTURE_DIM], unwanted[3 * FIXTURE_DIM], out[FIXTURE_DIM];
    for (size_t i = 0; i < 2; i++)
        memcpy(wanted + i * FIXTURE_DIM, fixture_vectors + yes[i] * FIXTURE_DIM, FIXTURE_DIM * sizeof *out);
    for (size_t i = 0; i < 3; i++)
        memcpy(unwanted + i * FIXTURE_DIM, fixture_vectors + no[i] * FIXTURE_DIM, FIXTURE_DIM * sizeof *out);
    assert_int_equal(lk_feedback(lk_rocchio_defaults(), FIXTURE_DIM, fixture_query, 2, wanted, 3, unwanted, out),
                     LK_OK);
    assert_vector(out, fixture_feedback, FIXTURE_DIM, 1e-6f);
    assert_int_equal(lk_feedback(lk_rocchio_defaults(), FIXTURE_DIM, fixture_query, 0, NULL, 0, NULL, out), LK_OK);
    assert_vector(out, fixture_query, FIXTURE_DIM, 1e-6f);
}

/* ---- diffusion ---- */

static lk_knn *table(size_t k)
{
    lk_knn *knn;
    assert_int_equal(lk_knn_new(NULL, FIXTURE_N, FIXTURE_DIM, NULL, fixture_vectors, k, &knn), LK_OK);
    return knn;
}

static void diffuse(const lk_diffusion_options *options, size_t count, float *out)
{
    uint64_t ids[FIXTURE_N];
    float distances[FIXTURE_N];
    lk_knn *knn = table(10);
    for (size_t i = 0; i < count; i++) {
        ids[i] = i;
        distances[i] = 2 - 2 * dot(fixture_query, fixture_vectors + i * FIXTURE_DIM);
    }
    lk_shortlist list = {count, ids, distances, 0, LK_RANK_QUERY};
    lk_neighbour_source source = {lk_knn_neighbours, NULL, knn};
    assert_int_equal(lk_diffusion_rerank(options, &list, &source, out), LK_OK);
    lk_knn_free(knn);
}

static void assert_scores(const float *out, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) assert_float_equal(out[i], expected[i], 1e-5f * (1 + fabsf(expected[i])));
}

static void diffusion_solves_the_equations(void **state)
{
    (void)state;
    float out[FIXTURE_N];
    diffuse(&(lk_diffusion_options){10, 5, 3, 0.99f, 500, 1e-9f}, FIXTURE_N, out);
    assert_scores(out, fixture_diffusion, FIXTURE_N);
}

static void diffusion_is_truncated_to_the_shortlist(void **state)
{
    (void)state;
    float out[FIXTURE_N];
    diffuse(&(lk_diffusion_options){10, 5, 3, 0.9f, 500, 1e-9f}, 40, out);
    assert_scores(out, fixture_diffusion_cut, 40);
}

static void diffusion_refuses_what_does_not_converge(void **state)
{
    (void)state;
    lk_diffusion_options options = lk_diffusion_defaults();
    options.alpha = 1;
    float out[1];
    assert_int_equal(lk_diffusion_rerank(&options, &(lk_shortlist){0}, &(lk_neighbour_source){0}, out), LK_INVALID);
}

/* ---- SuperGlobal ---- */

static void superglobal_agrees_with_numpy(void **state)
{
    (void)state;
    float out[FIXTURE_N];
    assert_int_equal(lk_superglobal_rerank(NULL, FIXTURE_DIM, fixture_positive, FIXTURE_N, fixture_activations, out),
                     LK_OK);
    assert_vector(out, fixture_superglobal, FIXTURE_N, 1e-5f);
}

static void superglobal_of_fewer_than_it_averages_works(void **state)
{
    (void)state;
    float out[3];
    assert_int_equal(lk_superglobal_rerank(NULL, FIXTURE_DIM, fixture_positive, 1, fixture_activations, out), LK_OK);
    float own = dot(fixture_activations, fixture_activations), with = dot(fixture_positive, fixture_activations);
    assert_float_equal(out[0], (own + with) / 2, 1e-6f);
    assert_int_equal(lk_superglobal_rerank(NULL, FIXTURE_DIM, fixture_positive, 0, NULL, out), LK_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expansion_agrees_with_numpy),
        cmocka_unit_test(expansion_and_augmentation_agree_with_a_published_program),
        cmocka_unit_test(alpha_of_zero_is_the_average),
        cmocka_unit_test(expansion_that_cancels_out_leaves_the_query),
        cmocka_unit_test(augmentation_agrees_with_numpy_for_any_number_of_threads),
        cmocka_unit_test(several_queries_become_their_normalised_mean),
        cmocka_unit_test(feedback_agrees_with_numpy),
        cmocka_unit_test(diffusion_solves_the_equations),
        cmocka_unit_test(diffusion_is_truncated_to_the_shortlist),
        cmocka_unit_test(diffusion_refuses_what_does_not_converge),
        cmocka_unit_test(superglobal_agrees_with_numpy),
        cmocka_unit_test(superglobal_of_fewer_than_it_averages_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
