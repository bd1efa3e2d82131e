/* Whitening and the classifier's cross-entropy against the formulas of the reference (tests/fixtures/whitening.h).
 * Tolerance: 1e-5 of the largest number, for PCA, which multiplies in f32, 1e-4. */
#include "unit.h"

#include "../fixtures/whitening.h"
#include "embed/whiten.h"

#include <likeness/likeness.h>
#include <likeness/metric.h>
#include <math.h>
#include <string.h>

static void near_enough(const char *what, const float *got, const float *expected, size_t n, double tolerance)
{
    double worst = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) fail_msg("%s: number %zu is not finite", what, i);
        worst = fmax(worst, fabs((double)got[i] - (double)expected[i]));
        most = fmax(most, fabs((double)expected[i]));
    }
    if (worst > tolerance * most) fail_msg("%s: off by %.2g of %.2g", what, worst, most);
}

/* All rows whitened to KEPT dimensions and normalised. */
static void whiten_rows(const lk_pca *w, float *out)
{
    float y[KEPT];
    for (size_t i = 0; i < ROWS; i++) {
        lk_pca_apply(w, rows + i * DIM, y);
        assert_int_equal(lk_normalise_forward(1, KEPT, y, 1e-12f, out + i * KEPT), LK_OK);
    }
}

static void pca_agrees_with_the_reference(void **state)
{
    (void)state;
    lk_context *context;
    lk_pca w;
    float x[ROWS * DIM], out[ROWS * KEPT];
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 1}, &context), LK_OK);
    memcpy(x, rows, sizeof x);
    assert_int_equal(lk_pca_fit(context, x, ROWS, DIM, KEPT, 0, &w), LK_OK);
    assert_int_equal(w.out, KEPT);
    near_enough("mean", w.mean, pca_mean, DIM, 1e-5);
    whiten_rows(&w, out);
    near_enough("whitened", out, pca_out, ROWS * KEPT, 1e-4);
    lk_pca_free(&w);
    lk_context_free(context);
}

static void make_pairs(lk_pair *pairs)
{
    for (uint32_t i = 0; i < ROWS / 2; i++) pairs[i] = (lk_pair){2 * i, 2 * i + 1};
}

static void learnt_whitening_agrees_with_the_reference(void **state)
{
    (void)state;
    lk_pca w;
    lk_pair pairs[ROWS / 2];
    float out[ROWS * KEPT];
    make_pairs(pairs);
    assert_int_equal(lk_whiten_pairs(rows, ROWS, DIM, pairs, ROWS / 2, DIM, &w), LK_OK);
    near_enough("mean", w.mean, learnt_mean, DIM, 1e-5);
    near_enough("components", w.components, learnt_components, DIM * DIM, 1e-5);
    lk_pca_free(&w);
    assert_int_equal(lk_whiten_pairs(rows, ROWS, DIM, pairs, ROWS / 2, KEPT, &w), LK_OK);
    whiten_rows(&w, out);
    near_enough("whitened", out, learnt_out, ROWS * KEPT, 1e-5);
    lk_pca_free(&w);
}

/* Fewer pairs than dimensions leave directions in which no pair differs. */
static void learnt_whitening_of_few_pairs_stays_finite(void **state)
{
    (void)state;
    lk_pca w;
    lk_pair pairs[ROWS / 2];
    make_pairs(pairs);
    assert_int_equal(lk_whiten_pairs(rows, ROWS, DIM, pairs, 2, DIM, &w), LK_OK);
    for (size_t i = 0; i < DIM * DIM; i++) assert_true(isfinite(w.components[i]));
    lk_pca_free(&w);
}

static void whitening_of_nothing_is_refused(void **state)
{
    (void)state;
    lk_pca w;
    lk_pair pairs[ROWS / 2];
    float same[2 * DIM] = {0};
    make_pairs(pairs);
    assert_int_equal(lk_whiten_pairs(rows, ROWS, DIM, pairs, 0, DIM, &w), LK_INVALID);
    assert_int_equal(lk_whiten_pairs(rows, ROWS, DIM, pairs, 1, DIM + 1, &w), LK_INVALID);
    assert_int_equal(lk_whiten_pairs(same, 2, DIM, pairs, 1, DIM, &w), LK_INVALID);
    same[0] = NAN;
    assert_int_equal(lk_whiten_pairs(same, 2, DIM, pairs, 1, DIM, &w), LK_INVALID);
    assert_null(w.components);
}

static void cross_entropy_agrees_with_the_reference(void **state)
{
    (void)state;
    float grad[LOGITS * CLASSES];
    double value;
    assert_int_equal(lk_cross_entropy(logits, LOGITS, CLASSES, classes_of, 1, 0, &value, grad), LK_OK);
    assert_true(fabs(value - plain_value) < 1e-9);
    near_enough("gradient", grad, plain_grad, LOGITS * CLASSES, 1e-5);
    assert_int_equal(lk_cross_entropy(logits, LOGITS, CLASSES, classes_of, 0.5, 0.1, &value, grad), LK_OK);
    assert_true(fabs(value - smoothed_value) < 1e-9);
    near_enough("smoothed gradient", grad, smoothed_grad, LOGITS * CLASSES, 1e-5);
}

static void cross_entropy_of_huge_logits_is_finite_and_of_nonsense_refused(void **state)
{
    (void)state;
    const float huge[] = {1e30f, -1e30f, 0};
    const int32_t first[] = {0}, beyond[] = {3};
    float grad[3];
    double value;
    assert_int_equal(lk_cross_entropy(huge, 1, 3, first, 1, 0, &value, grad), LK_OK);
    assert_true(value == 0 && isfinite(grad[0]) && isfinite(grad[1]));
    assert_int_equal(lk_cross_entropy(huge, 1, 3, beyond, 1, 0, &value, NULL), LK_INVALID);
    assert_int_equal(lk_cross_entropy(huge, 1, 3, first, 0, 0, &value, NULL), LK_INVALID);
    assert_int_equal(lk_cross_entropy(huge, 1, 3, first, 1, 1, &value, NULL), LK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pca_agrees_with_the_reference),
        cmocka_unit_test(learnt_whitening_agrees_with_the_reference),
        cmocka_unit_test(learnt_whitening_of_few_pairs_stays_finite),
        cmocka_unit_test(whitening_of_nothing_is_refused),
        cmocka_unit_test(cross_entropy_agrees_with_the_reference),
        cmocka_unit_test(cross_entropy_of_huge_logits_is_finite_and_of_nonsense_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
