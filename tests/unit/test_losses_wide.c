/* Losses with class weights where their products are f32 (src/metric/matrix_weights.c): against PyTorch Metric Learning
 * in f64 (tests/fixtures/losses_wide.h), to 1e-5 of the value and of the largest component of a gradient; and the
 * matrix against the one in f64. */
#include "unit.h"

#include "../fixtures/losses_wide.h"
#include "base/random.h"
#include "metric/matrix.h"

#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
enum { WEIGHTS = WIDE_CLASSES * WIDE_CENTERS * WIDE_DIM };
static const double tolerance = 1e-5;

/* As the reference draws: numbers in [-1, 1) with 12 bits. */
static void numbers(uint32_t seed, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = (float)(seed >> 20) / 2048 - 1;
    }
}

static void make_batch(float *x, float *weights, int32_t *y)
{
    static float noise[WIDE_N * WIDE_DIM];
    numbers(1, WEIGHTS, weights);
    numbers(2, COUNT(noise), noise);
    for (int i = 0; i < WIDE_N; i++) {
        y[i] = i / (WIDE_N / WIDE_CLASSES);
        float share = i == 1 ? 1.0f / 1024 : ldexpf(1, -(i % 5));
        for (int k = 0; k < WIDE_DIM; k++)
            x[i * WIDE_DIM + k] = weights[y[i] * WIDE_CENTERS * WIDE_DIM + k] + share * noise[i * WIDE_DIM + k];
    }
}

static double off(const float *got, const float *expected, double most)
{
    double worst = 0;
    for (int k = 0; k < WIDE_DIM; k++) worst = fmax(worst, fabs((double)got[k] - (double)expected[k]));
    return worst / most;
}

static double along(const float *gradient, uint32_t seed, size_t rows, size_t stride)
{
    static float probe[WEIGHTS > WIDE_N * WIDE_DIM ? WEIGHTS : WIDE_N * WIDE_DIM];
    double sum = 0;
    numbers(seed, rows * stride * WIDE_DIM, probe);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < WIDE_DIM; k++)
            sum += (double)gradient[i * WIDE_DIM + k] * (double)probe[i * stride * WIDE_DIM + k];
    return sum;
}

static void wide_class_weights_agree_with_the_reference(void **state)
{
    (void)state;
    static float x[WIDE_N * WIDE_DIM], weights[WEIGHTS], gx[WIDE_N * WIDE_DIM], gw[WEIGHTS];
    int32_t y[WIDE_N];
    const lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = y};
    make_batch(x, weights, y);
    for (size_t c = 0; c < COUNT(wide_cases); c++) {
        lk_loss_options options = lk_loss_defaults(wide_cases[c].kind);
        lk_loss *loss;
        size_t count, stride = wide_cases[c].kind == LK_LOSS_SUBCENTER_ARCFACE ? 1 : WIDE_CENTERS;
        double value, worst = 0;
        options.classes = WIDE_CLASSES;
        assert_int_equal(lk_loss_new(&options, WIDE_DIM, 1, &loss), LK_OK);
        float *own = lk_loss_parameters(loss, &count);
        assert_int_equal(count * stride, WEIGHTS);
        for (size_t i = 0; i < count / WIDE_DIM; i++)
            memcpy(own + i * WIDE_DIM, weights + i * stride * WIDE_DIM, WIDE_DIM * sizeof *own);
        assert_int_equal(lk_loss_forward_backward(loss, x, WIDE_N, WIDE_DIM, &labels, NULL, &value, gx, gw), LK_OK);
        const float *kept = wide_cases[c].kept;
        for (size_t i = 0; i < COUNT(wide_rows); i++, kept += WIDE_DIM)
            worst = fmax(worst, off(gx + wide_rows[i] * WIDE_DIM, kept, wide_cases[c].most[0]));
        for (size_t i = 0; i < COUNT(wide_weights); i++, kept += WIDE_DIM)
            worst = fmax(worst, off(gw + wide_weights[i] * WIDE_DIM, kept, wide_cases[c].most[1]));
        double ax = along(gx, 3, WIDE_N, 1), aw = along(gw, 4, count / WIDE_DIM, stride);
        double rest = fmax(fabs(ax - wide_cases[c].along[0]) / wide_cases[c].most[0],
                           fabs(aw - wide_cases[c].along[1]) / wide_cases[c].most[1]);
        double e = fabs(value / wide_cases[c].value - 1);
        print_message("%s: value off by %.1e, gradients by %.1e, along the probes by %.1e\n",
                      lk_loss_name(wide_cases[c].kind), e, worst, rest);
        assert_true(e <= tolerance && worst <= tolerance);
        assert_true(rest <= 100 * tolerance); /* thousands of components add up */
        lk_loss_free(loss);
    }
}

/* Rows near to and far from one another, of a thousand classes. */
static void narrow_products_give_the_matrix_of_wide_ones(void **state)
{
    (void)state;
    enum { N = 20, M = 1000, DIM = 200 };
    static const lk_distance distances[] = {{.kind = LK_DISTANCE_COSINE},
                                            {.kind = LK_DISTANCE_SQUARED_L2},
                                            {.kind = LK_DISTANCE_INNER_PRODUCT, .raw = true},
                                            {.kind = LK_DISTANCE_SQUARED_L2, .raw = true}};
    static float x[N * DIM], r[M * DIM], g[2][N * DIM], h[2][M * DIM];
    static double slope[2][N * M];
    lk_random random;
    lk_random_seed(&random, 5);
    for (size_t i = 0; i < COUNT(r); i++) r[i] = (float)lk_random_normal(&random);
    for (int i = 0; i < N; i++) {
        float share = ldexpf(1, -2 * i); /* the last one is 1e-11 off: equal */
        for (int k = 0; k < DIM; k++) x[i * DIM + k] = r[i * DIM + k] + share * (float)lk_random_normal(&random);
    }
    memset(x + 3 * DIM, 0, DIM * sizeof *x);
    for (size_t d = 0; d < COUNT(distances); d++) {
        lk_matrix a, b;
        double scale = distances[d].raw ? 4 * DIM : 1, worst = 0, most = 0, off_by = 0;
        assert_int_equal(lk_matrix_new_weights(distances[d], x, N, r, M, DIM, &a), LK_OK);
        assert_non_null(a.x_unit);
        assert_int_equal(lk_matrix_new(distances[d], x, N, r, M, DIM, &b), LK_OK);
        for (size_t i = 0; i < N * M; i++) {
            worst = fmax(worst, fabs(a.value[i] - b.value[i]) / scale);
            slope[0][i] = slope[1][i] = lk_random_normal(&random);
        }
        assert_int_equal(lk_matrix_backward(&a, slope[0], NULL, g[0], h[0]), LK_OK);
        assert_int_equal(lk_matrix_backward(&b, slope[1], NULL, g[1], h[1]), LK_OK);
        for (size_t i = 0; i < COUNT(x); i++) {
            most = fmax(most, fabs((double)g[1][i]));
            off_by = fmax(off_by, fabs((double)g[0][i] - (double)g[1][i]));
        }
        for (size_t i = 0; i < COUNT(r); i++) off_by = fmax(off_by, fabs((double)h[0][i] - (double)h[1][i]));
        print_message("distance %d%s: entries off by %.1e, gradients by %.1e\n", distances[d].kind,
                      distances[d].raw ? " raw" : "", worst, off_by / most);
        assert_true(worst <= 5e-7);
        assert_true(off_by <= 2e-6 * most);
        lk_matrix_free(&a);
        lk_matrix_free(&b);
    }
}

static void products_beyond_f32_stay_finite(void **state)
{
    (void)state;
    enum { DIM = 64 };
    static float x[DIM], r[2 * DIM];
    const lk_distance raw = {.kind = LK_DISTANCE_INNER_PRODUCT, .raw = true};
    lk_matrix matrix;
    for (int k = 0; k < DIM; k++) x[k] = r[k] = 1e30f, r[DIM + k] = k % 2 ? -1e30f : 1e30f;
    assert_int_equal(lk_matrix_new_weights(raw, x, 1, r, 2, DIM, &matrix), LK_OK);
    assert_true(fabs(matrix.value[0] / (DIM * 1e60) - 1) < 1e-6);
    assert_true(matrix.value[1] == 0);
    lk_matrix_free(&matrix);
    x[7] = NAN;
    assert_int_equal(lk_matrix_new_weights(raw, x, 1, r, 2, DIM, &matrix), LK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_class_weights_agree_with_the_reference),
        cmocka_unit_test(narrow_products_give_the_matrix_of_wide_ones),
        cmocka_unit_test(products_beyond_f32_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
