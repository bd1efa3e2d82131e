/* Pooling heads against PyTorch (tests/fixtures/pooling.h) and against finite differences. Tolerance against the
 * reference: 1e-5 of the largest component. */
#include "unit.h"

#include "../fixtures/pooling.h"
#include "base/random.h"

#include <likeness/pooling.h>
#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
static const lk_map_shape map_shape = {BATCH, CHANNELS, HEIGHT *WIDTH, false};
static const lk_map_shape token_shape = {BATCH, CHANNELS, HEIGHT *WIDTH, true};
enum { MAP = BATCH * CHANNELS * HEIGHT * WIDTH, MOST = 4096 };

static void near_enough(const char *what, const float *got, const float *expected, size_t n)
{
    double worst = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) fail_msg("%s: component %zu is not finite", what, i);
        worst = fmax(worst, fabs((double)got[i] - (double)expected[i]));
        most = fmax(most, fabs((double)expected[i]));
    }
    if (worst > 1e-5 * most) fail_msg("%s: off by %.2g of %.2g", what, worst, most);
}
#define NEAR(got, expected) near_enough(#expected, got, expected, COUNT(expected))

static void average_and_maximum_agree_with_the_reference(void **state)
{
    (void)state;
    float out[BATCH * CHANNELS], grad[MAP];
    assert_int_equal(lk_average_forward(map_shape, map, out), LK_OK);
    NEAR(out, average_out);
    assert_int_equal(lk_average_forward(token_shape, tokens, out), LK_OK);
    NEAR(out, average_out);
    assert_int_equal(lk_average_backward(map_shape, average_back, grad), LK_OK);
    NEAR(grad, average_grad_x);
    assert_int_equal(lk_average_backward(token_shape, average_back, grad), LK_OK);
    for (size_t i = 0; i < MAP; i++) { /* the same, positions before channels */
        size_t position = i / CHANNELS % (HEIGHT * WIDTH),
               plane = i / (CHANNELS * HEIGHT * WIDTH) * CHANNELS + i % CHANNELS;
        assert_true(fabsf(grad[i] - average_grad_x[plane * HEIGHT * WIDTH + position]) < 1e-6f);
    }
    assert_int_equal(lk_maximum_forward(token_shape, tokens, out), LK_OK);
    NEAR(out, maximum_out);
    assert_int_equal(lk_maximum_backward(token_shape, tokens, maximum_back, grad), LK_OK);
    for (size_t i = 0; i < MAP; i++) {
        size_t position = i / CHANNELS % (HEIGHT * WIDTH),
               plane = i / (CHANNELS * HEIGHT * WIDTH) * CHANNELS + i % CHANNELS;
        assert_true(fabsf(grad[i] - maximum_grad_x[plane * HEIGHT * WIDTH + position]) < 1e-6f);
    }
    assert_int_equal(lk_maximum_forward(map_shape, map, out), LK_OK);
    NEAR(out, maximum_out);
    assert_int_equal(lk_maximum_backward(map_shape, map, maximum_back, grad), LK_OK);
    NEAR(grad, maximum_grad_x);
}

#define CHECK_GEM(name)                                                                                                \
    do {                                                                                                               \
        float out[BATCH * CHANNELS], grad[MAP], grad_p[CHANNELS];                                                      \
        size_t n = COUNT(name##_p);                                                                                    \
        assert_int_equal(lk_gem_forward(map_shape, map, name##_p, n, 1e-6f, out), LK_OK);                              \
        NEAR(out, name##_out);                                                                                         \
        assert_int_equal(lk_gem_backward(map_shape, map, out, name##_back, name##_p, n, 1e-6f, grad, grad_p), LK_OK);  \
        NEAR(grad, name##_grad_x);                                                                                     \
        NEAR(grad_p, name##_grad_p);                                                                                   \
    } while (0)

static void generalised_mean_agrees_with_the_reference(void **state)
{
    (void)state;
    CHECK_GEM(gem1);
    CHECK_GEM(gem3);
    CHECK_GEM(gem);
    CHECK_GEM(gemc);
    float out[BATCH * CHANNELS], grad[MAP], grad_p, three = 3;
    assert_int_equal(lk_gem_forward(token_shape, tokens, &three, 1, 1e-6f, out), LK_OK);
    NEAR(out, patch_out);
    assert_int_equal(lk_gem_backward(token_shape, tokens, out, patch_back, &three, 1, 1e-6f, grad, &grad_p), LK_OK);
    NEAR(grad, patch_grad_x);
    near_enough("patch_grad_p", &grad_p, patch_grad_p, 1);
}

/* Sizes around the width of lanes and runs, where the parts of a sum meet, against the plain definition. */
static void every_size_and_layout_gives_the_plain_definition(void **state)
{
    (void)state;
    enum { WIDEST = 1100 };
    static float x[WIDEST * 3], out[WIDEST], grad[WIDEST * 3], back[WIDEST];
    static const size_t sizes[][2] = {{1, 1},   {2, 15},   {3, 16}, {1, 17},  {2, 511},
                                      {2, 513}, {1, 1100}, {17, 3}, {33, 40}, {16, 2}};
    static const float exponents[] = {1, 2, 3, 4, 5, 2.5f};
    lk_random random;
    lk_random_seed(&random, 8);
    for (size_t i = 0; i < COUNT(x); i++) x[i] = (float)lk_random_normal(&random) + 0.5f;
    for (size_t i = 0; i < COUNT(back); i++) back[i] = (float)lk_random_normal(&random);
    for (size_t k = 0; k < COUNT(sizes) * COUNT(exponents) * 2; k++) {
        size_t channels = sizes[k / 12][0], n = sizes[k / 12][1];
        lk_map_shape shape = {1, channels, n, k % 2};
        float p = exponents[k / 2 % 6];
        assert_int_equal(lk_gem_forward(shape, x, &p, 1, 1e-6f, out), LK_OK);
        assert_int_equal(lk_gem_backward(shape, x, out, back, &p, 1, 1e-6f, grad, NULL), LK_OK);
        for (size_t c = 0; c < channels; c++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += pow(fmax((double)x[k % 2 ? i * channels + c : c * n + i], 1e-6), (double)p);
            double y = pow(sum / (double)n, 1 / (double)p);
            assert_true(fabs((double)out[c] - y) < 1e-5 * y);
            for (size_t i = 0; i < n; i++) {
                size_t at = k % 2 ? i * channels + c : c * n + i;
                double g = x[at] < 1e-6f ? 0 : (double)back[c] / (double)n * pow((double)x[at] / y, (double)p - 1);
                assert_true(fabs((double)grad[at] - g) < 1e-5 * fabs((double)back[c]) * (1 + fabs(g)));
            }
        }
    }
}

static void extreme_exponents_and_values_stay_finite(void **state)
{
    (void)state;
    float x[4] = {1e-3f, 2e4f, 3e4f, 0}, out, grad[4], grad_p, p = 60;
    lk_map_shape shape = {1, 1, 4, false};
    assert_int_equal(lk_gem_forward(shape, x, &p, 1, 1e-6f, &out), LK_OK);
    assert_true(out > 2.5e4f && out <= 3e4f); /* the maximum divided by at most 4^(1/60) */
    float one = 1;
    assert_int_equal(lk_gem_backward(shape, x, &out, &one, &p, 1, 1e-6f, grad, &grad_p), LK_OK);
    for (int i = 0; i < 4; i++) assert_true(isfinite(grad[i]));
    assert_true(isfinite(grad_p));
    memset(x, 0, sizeof x);
    assert_int_equal(lk_gem_forward(shape, x, &p, 1, 1e-6f, &out), LK_OK);
    assert_true(fabsf(out - 1e-6f) < 1e-9f);
    p = 0;
    assert_int_equal(lk_gem_forward(shape, x, &p, 1, 1e-6f, &out), LK_INVALID);
}

#define CHECK_RMAC(name, H, W)                                                                                         \
    do {                                                                                                               \
        float out[BATCH * CHANNELS], grad[BATCH * CHANNELS * H * W], grad_weight[OUT * CHANNELS], grad_bias[OUT];      \
        lk_whitening white = {name##_weight, name##_bias, OUT};                                                        \
        lk_region regions[64];                                                                                         \
        size_t count;                                                                                                  \
        assert_int_equal(lk_rmac_regions(H, W, 3, regions, &count), LK_OK);                                            \
        assert_int_equal(count, COUNT(name##_regions));                                                                \
        assert_memory_equal(regions, name##_regions, sizeof name##_regions);                                           \
        assert_int_equal(lk_rmac_forward(BATCH, CHANNELS, H, W, 3, NULL, name##_map, out), LK_OK);                     \
        NEAR(out, name##_out);                                                                                         \
        assert_int_equal(lk_rmac_backward(BATCH, CHANNELS, H, W, 3, NULL, name##_map, name##_back, grad, NULL, NULL),  \
                         LK_OK);                                                                                       \
        NEAR(grad, name##_grad_x);                                                                                     \
        assert_int_equal(lk_rmac_forward(BATCH, CHANNELS, H, W, 3, &white, name##_map, out), LK_OK);                   \
        NEAR(out, name##_white_out);                                                                                   \
        assert_int_equal(lk_rmac_backward(BATCH, CHANNELS, H, W, 3, &white, name##_map, name##_white_back, grad,       \
                                          grad_weight, grad_bias),                                                     \
                         LK_OK);                                                                                       \
        NEAR(grad, name##_white_grad_x);                                                                               \
        NEAR(grad_weight, name##_white_grad_weight);                                                                   \
        NEAR(grad_bias, name##_white_grad_bias);                                                                       \
    } while (0)

static void regional_maxima_agree_with_the_reference(void **state)
{
    (void)state;
    CHECK_RMAC(wide, 5, 7);
    CHECK_RMAC(square, 6, 6);
    CHECK_RMAC(tall, 12, 4);
    CHECK_RMAC(thin, 1, 9);
}

static void regions_lie_within_the_map(void **state)
{
    (void)state;
    for (uint32_t h = 1; h < 24; h++)
        for (uint32_t w = 1; w < 24; w++) {
            lk_region regions[1024];
            size_t count;
            assert_int_equal(lk_rmac_regions(h, w, 5, regions, &count), LK_OK);
            assert_true(count <= COUNT(regions));
            for (size_t i = 0; i < count; i++)
                assert_true(regions[i].height >= 1 && regions[i].top + regions[i].height <= h &&
                            regions[i].width >= 1 && regions[i].left + regions[i].width <= w);
        }
}

static void combined_descriptors_agree_with_the_reference(void **state)
{
    (void)state;
    lk_cgd_branch branches[3] = {
        {LK_CGD_AVERAGE, 0, cgd_weight0, 3}, {LK_CGD_MAXIMUM, 0, cgd_weight1, 4}, {LK_CGD_GEM, 3, cgd_weight2, 2}};
    float out[BATCH * 9], grad[MAP], g0[3 * CHANNELS], g1[4 * CHANNELS], g2[2 * CHANNELS], *grads[3] = {g0, g1, g2};
    assert_int_equal(lk_cgd_forward(map_shape, branches, 3, map, out), LK_OK);
    NEAR(out, cgd_out);
    assert_int_equal(lk_cgd_backward(map_shape, branches, 3, map, cgd_back, grad, grads), LK_OK);
    NEAR(grad, cgd_grad_x);
    NEAR(g0, cgd_grad_w0);
    NEAR(g1, cgd_grad_w1);
    NEAR(g2, cgd_grad_w2);
}

static void projection_neck_and_normalisation_agree_with_the_reference(void **state)
{
    (void)state;
    float out[ROWS * CHANNELS], grad[ROWS * CHANNELS], weight[OUT * CHANNELS], bias[OUT];
    assert_int_equal(lk_projection_forward(ROWS, CHANNELS, OUT, rows, projection_weight, projection_bias, out), LK_OK);
    NEAR(out, projection_out);
    assert_int_equal(
        lk_projection_backward(ROWS, CHANNELS, OUT, rows, projection_weight, projection_back, grad, weight, bias),
        LK_OK);
    NEAR(grad, projection_grad_x);
    NEAR(weight, projection_grad_weight);
    NEAR(bias, projection_grad_bias);

    float mean[CHANNELS], inverse[CHANNELS], running_mean[CHANNELS], running_variance[CHANNELS], scale[CHANNELS],
        shift[CHANNELS];
    memcpy(running_mean, neck_before_mean, sizeof running_mean);
    memcpy(running_variance, neck_before_variance, sizeof running_variance);
    assert_int_equal(lk_neck_forward(ROWS, CHANNELS, rows, neck_scale, neck_shift, 1e-5f, 0.1f, running_mean,
                                     running_variance, mean, inverse, out),
                     LK_OK);
    NEAR(out, neck_out);
    NEAR(running_mean, neck_after_mean);
    NEAR(running_variance, neck_after_variance);
    assert_int_equal(lk_neck_backward(ROWS, CHANNELS, rows, neck_scale, mean, inverse, neck_back, grad, scale, shift),
                     LK_OK);
    NEAR(grad, neck_grad_x);
    NEAR(scale, neck_grad_scale);
    NEAR(shift, neck_grad_shift);
    assert_int_equal(
        lk_neck_apply(ROWS, CHANNELS, rows, neck_scale, neck_shift, 1e-5f, running_mean, running_variance, out), LK_OK);
    NEAR(out, neck_used);
    assert_int_equal(lk_neck_forward(1, CHANNELS, rows, neck_scale, NULL, 1e-5f, 0.1f, NULL, NULL, mean, inverse, out),
                     LK_INVALID);

    assert_int_equal(lk_normalise_forward(ROWS, CHANNELS, rows, 1e-12f, out), LK_OK);
    NEAR(out, normalise_out);
    assert_int_equal(lk_normalise_backward(ROWS, CHANNELS, rows, 1e-12f, normalise_back, grad), LK_OK);
    NEAR(grad, normalise_grad_x);
    float zero[3] = {0}, one[3] = {1, 1, 1};
    assert_int_equal(lk_normalise_forward(1, 3, zero, 0, out), LK_OK);
    assert_int_equal(lk_normalise_backward(1, 3, zero, 0, one, grad), LK_OK);
    for (int i = 0; i < 3; i++) assert_true(out[i] == 0 && grad[i] == 0);
}

/* ---- Finite differences
 * ------------------------------------------------------------------------------------------------ */

typedef lk_status (*head_fn)(const float *x, float *out);

static lk_status head_gem(const float *x, float *out)
{
    float p = 2.7f;
    return lk_gem_forward(map_shape, x, &p, 1, 1e-6f, out);
}
static lk_status head_rmac(const float *x, float *out)
{
    lk_whitening white = {wide_weight, wide_bias, OUT};
    return lk_rmac_forward(BATCH, CHANNELS, HEIGHT, WIDTH, 3, &white, x, out);
}
static lk_status head_cgd(const float *x, float *out)
{
    lk_cgd_branch branches[2] = {{LK_CGD_MAXIMUM, 0, cgd_weight1, 4}, {LK_CGD_GEM, 3, cgd_weight2, 2}};
    return lk_cgd_forward(map_shape, branches, 2, x, out);
}

/* d (back . head(x)) / dx against central differences over every component. */
static void differences(const char *name, head_fn head, const float *at, const float *back, size_t outputs,
                        const float *grad)
{
    float x[MAP], out[64];
    double most = 0;
    for (size_t i = 0; i < MAP; i++) most = fmax(most, fabs((double)grad[i]));
    for (size_t i = 0; i < MAP; i++) {
        double ends[2];
        for (int side = 0; side < 2; side++) {
            memcpy(x, at, sizeof x);
            x[i] += side ? 1.0f / 512 : -1.0f / 512;
            assert_int_equal(head(x, out), LK_OK);
            ends[side] = 0;
            for (size_t o = 0; o < outputs; o++) ends[side] += (double)back[o] * (double)out[o];
        }
        double slope = (ends[1] - ends[0]) * 256;
        if (fabs((double)at[i]) < 0.01) continue; /* beside the floor of GeM */
        if (fabs(slope - (double)grad[i]) > 5e-3 * most) fail_msg("%s: %g, expected %g", name, slope, (double)grad[i]);
    }
}

static void gradients_match_finite_differences(void **state)
{
    (void)state;
    float x[MAP], back[64], out[64], grad[MAP], p = 2.7f;
    lk_random random;
    lk_random_seed(&random, 3);
    for (size_t i = 0; i < COUNT(back); i++) back[i] = (float)lk_random_normal(&random);
    for (size_t i = 0; i < MAP; i++)
        x[i] = 0.06f * (float)(i * 23 % 35) - 0.31f; /* far apart: no step changes a maximum */
    assert_int_equal(head_gem(x, out), LK_OK);
    assert_int_equal(lk_gem_backward(map_shape, x, out, back, &p, 1, 1e-6f, grad, NULL), LK_OK);
    differences("gem", head_gem, x, back, BATCH * CHANNELS, grad);
    lk_whitening white = {wide_weight, wide_bias, OUT};
    assert_int_equal(lk_rmac_backward(BATCH, CHANNELS, HEIGHT, WIDTH, 3, &white, x, back, grad, NULL, NULL), LK_OK);
    differences("r-mac", head_rmac, x, back, BATCH * OUT, grad);
    lk_cgd_branch branches[2] = {{LK_CGD_MAXIMUM, 0, cgd_weight1, 4}, {LK_CGD_GEM, 3, cgd_weight2, 2}};
    assert_int_equal(lk_cgd_backward(map_shape, branches, 2, x, back, grad, NULL), LK_OK);
    differences("cgd", head_cgd, x, back, BATCH * 6, grad);
}

static void dropped_block_is_one_rectangle_of_the_asked_size(void **state)
{
    (void)state;
    float mask[8 * 6], again[8 * 6], x[2 * 8 * 6], out[2 * 8 * 6];
    bool moved = false;
    for (uint64_t seed = 0; seed < 50; seed++) {
        uint32_t top = 8, left = 6, bottom = 0, right = 0, zeros = 0;
        assert_int_equal(lk_drop_block_mask(8, 6, 0.33f, 0.5f, seed, mask), LK_OK);
        for (uint32_t i = 0; i < 8; i++)
            for (uint32_t j = 0; j < 6; j++) {
                if (mask[i * 6 + j] != 0) continue;
                zeros++;
                top = i < top ? i : top, bottom = i > bottom ? i : bottom;
                left = j < left ? j : left, right = j > right ? j : right;
            }
        assert_int_equal(bottom - top + 1, 3);
        assert_int_equal(right - left + 1, 3);
        assert_int_equal(zeros, 9);
        if (seed) moved |= memcmp(mask, again, sizeof mask) != 0;
        memcpy(again, mask, sizeof mask);
    }
    assert_true(moved);
    for (size_t i = 0; i < COUNT(x); i++) x[i] = (float)i + 1;
    assert_int_equal(lk_drop_block_apply((lk_map_shape){1, 2, 48, false}, mask, x, out), LK_OK);
    for (size_t i = 0; i < COUNT(x); i++) assert_true(out[i] == (mask[i % 48] != 0 ? x[i] : 0));
    assert_int_equal(lk_drop_block_mask(8, 6, 0, 0.5f, 1, mask), LK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(average_and_maximum_agree_with_the_reference),
        cmocka_unit_test(generalised_mean_agrees_with_the_reference),
        cmocka_unit_test(every_size_and_layout_gives_the_plain_definition),
        cmocka_unit_test(extreme_exponents_and_values_stay_finite),
        cmocka_unit_test(regional_maxima_agree_with_the_reference),
        cmocka_unit_test(regions_lie_within_the_map),
        cmocka_unit_test(combined_descriptors_agree_with_the_reference),
        cmocka_unit_test(projection_neck_and_normalisation_agree_with_the_reference),
        cmocka_unit_test(gradients_match_finite_differences),
        cmocka_unit_test(dropped_block_is_one_rectangle_of_the_asked_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
