/* Geometric verification: transforms that are known, degenerate places, and OpenCV's inliers
 * (tools/reference/homography.py). */
#include "unit.h"

#include "../fixtures/homography.h"
#include "base/random.h"
#include <likeness/rank.h>

#include <math.h>

enum { CASES = sizeof fixture_cases / sizeof *fixture_cases, MOST = 200 };

static lk_point through(const double t[9], lk_point p)
{
    double w = t[6] * p.x + t[7] * p.y + t[8];
    return (lk_point){(t[0] * p.x + t[1] * p.y + t[2]) / w, (t[3] * p.x + t[4] * p.y + t[5]) / w};
}

static size_t load_case(size_t c, lk_point *from, lk_point *to)
{
    for (size_t i = 0; i < fixture_cases[c].count; i++) {
        const double *p = fixture_points[fixture_cases[c].first + i];
        from[i] = (lk_point){p[0], p[1]};
        to[i] = (lk_point){p[2], p[3]};
    }
    return fixture_cases[c].count;
}

static void inliers_are_those_of_opencv_on_95_of_100_pairs(void **state)
{
    (void)state;
    lk_verify_options options = {LK_HOMOGRAPHY, 3, 0.995, 2000, 1};
    size_t equal = 0;
    for (size_t c = 0; c < CASES; c++) {
        lk_point from[MOST], to[MOST];
        uint8_t inlier[MOST];
        lk_verified found;
        size_t n = load_case(c, from, to), same = 0, marked = 0;
        assert_int_equal(lk_verify_matches(&options, n, from, to, &found, inlier), LK_OK);
        for (size_t i = 0; i < n; i++) {
            same += inlier[i] == (fixture_masks[c][i] == '1');
            marked += inlier[i];
        }
        assert_int_equal(marked, found.inliers);
        equal += same == n;
    }
    print_message("equal inlier sets: %zu of %d\n", equal, CASES);
    assert_true(equal * 100 >= CASES * 95);
}

static void found_homography_puts_points_where_the_true_one_does(void **state)
{
    (void)state;
    lk_verify_options options = {LK_HOMOGRAPHY, 3, 0.995, 2000, 9};
    for (size_t c = 0; c < CASES; c++) {
        lk_point from[MOST], to[MOST];
        lk_verified found;
        size_t n = load_case(c, from, to);
        assert_int_equal(lk_verify_matches(&options, n, from, to, &found, NULL), LK_OK);
        assert_in_range(found.inliers, fixture_cases[c].good - 1, n);
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            lk_point a = through(found.transform, from[i]), b = through(fixture_cases[c].truth, from[i]);
            sum += hypot(a.x - b.x, a.y - b.y);
        }
        assert_true(sum / (double)n < 1.5); /* the noise is 0.5 a coordinate */
    }
}

static const double known_homography[9] = {1.2, -0.3, 40, 0.25, 0.9, -12, 3e-4, -2e-4, 1};
static const double known_affine[9] = {0.8, -0.6, 100, 0.5, 0.9, -30, 0, 0, 1};

static void scatter(lk_point *from, lk_point *to, size_t n, const double t[9], uint64_t seed)
{
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < n; i++) {
        from[i] = (lk_point){lk_random_unit(&random) * 640, lk_random_unit(&random) * 480};
        to[i] = through(t, from[i]);
    }
}

static void exact_points_give_the_exact_transform(void **state)
{
    (void)state;
    lk_point from[50], to[50];
    double t[9];
    const struct {
        lk_transform_kind kind;
        size_t n;
        const double *truth;
    } cases[] = {{LK_HOMOGRAPHY, 4, known_homography},  {LK_HOMOGRAPHY, 5, known_homography},
                 {LK_HOMOGRAPHY, 50, known_homography}, {LK_AFFINE, 3, known_affine},
                 {LK_AFFINE, 50, known_affine},         {LK_HOMOGRAPHY, 20, known_affine}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        scatter(from, to, cases[c].n, cases[c].truth, 4 + c);
        assert_int_equal(lk_fit_transform(cases[c].kind, cases[c].n, from, to, t), LK_OK);
        for (size_t i = 0; i < cases[c].n; i++) {
            lk_point p = through(t, from[i]);
            assert_true(hypot(p.x - to[i].x, p.y - to[i].y) < 1e-6);
        }
        assert_float_equal(t[8], 1, 0);
    }
}

static void least_squares_affine_is_the_minimum(void **state)
{
    (void)state;
    lk_point from[30], to[30];
    double t[9], moved[9], least = 0;
    lk_random random;
    lk_random_seed(&random, 8);
    scatter(from, to, 30, known_affine, 2);
    for (size_t i = 0; i < 30; i++) to[i].x += lk_random_normal(&random), to[i].y += lk_random_normal(&random);
    assert_int_equal(lk_fit_transform(LK_AFFINE, 30, from, to, t), LK_OK);
    for (int which = -1; which < 12; which++) { /* a step in any direction makes it worse */
        double sum = 0;
        memcpy(moved, t, sizeof moved);
        if (which >= 0) moved[which % 6] += (which < 6 ? 1 : -1) * (which % 3 == 2 ? 0.01 : 1e-4);
        for (size_t i = 0; i < 30; i++) {
            lk_point p = through(moved, from[i]);
            sum += (p.x - to[i].x) * (p.x - to[i].x) + (p.y - to[i].y) * (p.y - to[i].y);
        }
        if (which < 0)
            least = sum;
        else
            assert_true(sum > least);
    }
}

static void points_on_a_line_or_in_one_place_determine_nothing(void **state)
{
    (void)state;
    lk_point from[20], to[20];
    double t[9];
    lk_verified found;
    uint8_t inlier[20];
    for (size_t i = 0; i < 20; i++) from[i] = to[i] = (lk_point){(double)i * 7, (double)i * 3 + 5};
    assert_int_equal(lk_fit_transform(LK_AFFINE, 20, from, to, t), LK_INVALID);
    assert_int_equal(lk_fit_transform(LK_HOMOGRAPHY, 20, from, to, t), LK_INVALID);
    for (int kind = LK_AFFINE; kind <= LK_HOMOGRAPHY; kind++) {
        lk_verify_options options = {(lk_transform_kind)kind, 3, 0.99, 300, 1};
        assert_int_equal(lk_verify_matches(&options, 20, from, to, &found, inlier), LK_OK);
        assert_int_equal(found.inliers, 0);
        for (size_t i = 0; i < 20; i++) assert_int_equal(inlier[i], 0);
    }
    for (size_t i = 0; i < 20; i++) from[i] = (lk_point){4, 4};
    assert_int_equal(lk_fit_transform(LK_AFFINE, 20, from, to, t), LK_INVALID);
    assert_int_equal(lk_fit_transform(LK_AFFINE, 2, from, to, t), LK_INVALID);
}

static void pairs_without_a_common_transform_have_few_inliers(void **state)
{
    (void)state;
    lk_point from[60], to[60], unused[60];
    lk_verified found;
    scatter(from, unused, 60, known_affine, 31);
    scatter(to, unused, 60, known_affine, 32);
    assert_int_equal(lk_verify_matches(NULL, 60, from, to, &found, NULL), LK_OK);
    assert_in_range(found.inliers, 0, 7);
}

static void few_pairs_and_none_are_no_failure(void **state)
{
    (void)state;
    lk_point from[3], to[3];
    lk_verified found;
    scatter(from, to, 3, known_affine, 1);
    for (size_t n = 0; n <= 3; n++) {
        assert_int_equal(lk_verify_matches(NULL, n, from, to, &found, NULL), LK_OK);
        assert_int_equal(found.inliers, 0); /* a sample always agrees with itself */
    }
    lk_verify_options options = lk_verify_defaults();
    options.threshold = 0;
    assert_int_equal(lk_verify_matches(&options, 3, from, to, &found, NULL), LK_INVALID);
}

static void same_seed_gives_the_same_result_and_clean_pairs_end_early(void **state)
{
    (void)state;
    lk_point from[MOST], to[MOST];
    lk_verified a, b;
    size_t n = load_case(3, from, to);
    lk_verify_options options = {LK_HOMOGRAPHY, 3, 0.995, 2000, 77};
    assert_int_equal(lk_verify_matches(&options, n, from, to, &a, NULL), LK_OK);
    assert_int_equal(lk_verify_matches(&options, n, from, to, &b, NULL), LK_OK);
    assert_memory_equal(&a, &b, sizeof a);
    scatter(from, to, 100, known_affine, 6);
    assert_int_equal(lk_verify_matches(NULL, 100, from, to, &a, NULL), LK_OK);
    assert_int_equal(a.inliers, 100);
    assert_in_range(a.iterations, 1, 20);
}

/* ---- matching ---- */

static void matching_keeps_what_is_clear_and_mutual(void **state)
{
    (void)state;
    /* On a line: a0 has one near neighbour, a1 lies between two, a2 is nearest to b0 but b0 has a nearer one. */
    const float a[] = {0, 5, 1}, b[] = {0.1f, 4.6f, 5.5f};
    lk_match out[3];
    size_t count;
    assert_int_equal(lk_match_descriptors(1, 3, a, 3, b, 0.8f, 0, out, &count), LK_OK);
    assert_int_equal(count, 2);
    assert_true(out[0].a == 0 && out[0].b == 0 && out[1].a == 2 && out[1].b == 0);
    assert_float_equal(out[0].distance, 0.01f, 1e-6f);
    assert_int_equal(lk_match_descriptors(1, 3, a, 3, b, 0.8f, 1, out, &count), LK_OK);
    assert_int_equal(count, 1);
    assert_true(out[0].a == 0 && out[0].b == 0);
    assert_int_equal(lk_match_descriptors(1, 3, a, 1, b, 0.8f, 0, out, &count), LK_OK);
    assert_int_equal(count, 0);
    assert_int_equal(lk_match_descriptors(1, 3, a, 1, b, 1, 1, out, &count), LK_OK);
    assert_int_equal(count, 1);
    assert_int_equal(lk_match_descriptors(1, 0, a, 3, b, 0.8f, 0, out, &count), LK_OK);
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inliers_are_those_of_opencv_on_95_of_100_pairs),
        cmocka_unit_test(found_homography_puts_points_where_the_true_one_does),
        cmocka_unit_test(exact_points_give_the_exact_transform),
        cmocka_unit_test(least_squares_affine_is_the_minimum),
        cmocka_unit_test(points_on_a_line_or_in_one_place_determine_nothing),
        cmocka_unit_test(pairs_without_a_common_transform_have_few_inliers),
        cmocka_unit_test(few_pairs_and_none_are_no_failure),
        cmocka_unit_test(same_seed_gives_the_same_result_and_clean_pairs_end_early),
        cmocka_unit_test(matching_keeps_what_is_clear_and_mutual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
