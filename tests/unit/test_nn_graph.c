/* Building, compiling and running graphs: mistakes are named, memory is shared without harm, precision and threads. */
#include "base/cpu.h"
#include "base/random.h"
#include "nn/kernels.h"
#include <likeness/nn.h>

#include "unit.h"

#include <math.h>

static lk_graph *graph_with_picture(lk_node *x)
{
    lk_graph *g;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    *x = lk_graph_input(g, "image", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, 3, 32, 32});
    return g;
}

static void expect_mistake(lk_graph *g, lk_status status, const char *part)
{
    assert_int_equal(lk_graph_check(g), status);
    if (!strstr(lk_error_message(), part)) fail_msg("\"%s\" does not speak of %s", lk_error_message(), part);
    lk_graph_free(g);
}

static void wrong_shapes_are_refused_with_the_name_of_the_node(void **state)
{
    (void)state;
    lk_node x, y;
    lk_graph *g = graph_with_picture(&x);
    lk_graph_conv(g, "stem", x, &(lk_conv){.out = 8, .kernel = {40, 3}});
    expect_mistake(g, LK_INVALID, "stem");

    g = graph_with_picture(&x);
    lk_graph_conv(g, "stem", x, &(lk_conv){.out = 8, .kernel = {3, 3}, .groups = 2});
    expect_mistake(g, LK_INVALID, "stem");

    g = graph_with_picture(&x);
    y = lk_graph_conv(g, "a", x, &(lk_conv){.out = 8, .kernel = {1, 1}});
    lk_graph_add(g, "shortcut", x, y);
    expect_mistake(g, LK_INVALID, "shortcut");

    g = graph_with_picture(&x);
    lk_graph_linear(g, "head", x, 10, false);
    expect_mistake(g, LK_INVALID, "head");

    g = graph_with_picture(&x);
    lk_graph_attention_qkv(g, "attn", lk_graph_tokens(g, NULL, x), &(lk_attention){.heads = 2});
    expect_mistake(g, LK_INVALID, "attn");

    g = graph_with_picture(&x);
    lk_graph_reshape(g, "flat", x, 2, (int64_t[]){LK_BATCH, 100});
    expect_mistake(g, LK_INVALID, "flat");

    g = graph_with_picture(&x);
    lk_graph_slice(g, "cut", x, 1, 2, 4);
    expect_mistake(g, LK_INVALID, "cut");

    g = graph_with_picture(&x);
    lk_graph_matmul(g, "product", x, x, false);
    lk_graph_matmul(g, "product2", lk_graph_slice(g, NULL, x, 3, 0, 31), x, true);
    expect_mistake(g, LK_INVALID, "product2");

    g = graph_with_picture(&x);
    lk_graph_activation(g, "act", lk_graph_activation(g, "act", x, LK_RELU), LK_RELU);
    expect_mistake(g, LK_CONFLICT, "act");

    g = graph_with_picture(&x);
    lk_graph_scale(g, NULL, x, "gamma");
    lk_graph_parameter(g, "gamma", 1, (int64_t[]){4});
    expect_mistake(g, LK_CONFLICT, "gamma");
}

static void after_a_mistake_the_first_message_stays(void **state)
{
    (void)state;
    lk_node x;
    lk_graph *g = graph_with_picture(&x);
    lk_node bad = lk_graph_conv(g, "first", x, &(lk_conv){.out = 0, .kernel = {1, 1}});
    assert_int_equal(bad, LK_NO_NODE);
    assert_int_equal(lk_graph_linear(g, "second", bad, 5, false), LK_NO_NODE);
    assert_int_equal(lk_graph_add(g, NULL, bad, x), LK_NO_NODE);
    expect_mistake(g, LK_INVALID, "first");
}

/* A small network with everything: stem, residual block with squeeze and excitation, tokens, attention, projection. */
static lk_graph *network(lk_node *feature)
{
    lk_node x;
    lk_graph *g = graph_with_picture(&x);
    x = lk_graph_conv(g, "conv1", x,
                      &(lk_conv){.out = 32, .kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}, .no_bias = true});
    x = lk_graph_activation(g, NULL, lk_graph_batch_norm(g, "bn1", x, 1e-5f, 0.1f), LK_RELU);
    x = lk_graph_max_pool(g, NULL, x, &(lk_pool2d){.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}});
    lk_node y = x;
    for (int i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "block%d", i);
        y = lk_graph_conv(g, name, x, &(lk_conv){.out = 32, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
        snprintf(name, sizeof name, "bn_b%d", i);
        x = lk_graph_activation(g, NULL, lk_graph_add(g, NULL, lk_graph_batch_norm(g, name, y, 1e-5f, 0.1f), x),
                                LK_RELU);
    }
    lk_node gate = lk_graph_linear(g, "se", lk_graph_global_avg_pool(g, NULL, x), 32, false);
    x = lk_graph_multiply(g, NULL, x, lk_graph_activation(g, NULL, gate, LK_SIGMOID));
    x = lk_graph_conv(g, "dw", x, &(lk_conv){.out = 32, .kernel = {3, 3}, .pad = {1, 1, 1, 1}, .groups = 32});
    *feature = x = lk_graph_activation(g, "feature", x, LK_HARD_SWISH);
    lk_node t =
        lk_graph_add(g, NULL, lk_graph_tokens(g, NULL, x), lk_graph_parameter(g, "pos", 3, (int64_t[]){1, 64, 32}));
    lk_node q = lk_graph_linear(g, "qkv", lk_graph_layer_norm(g, "ln1", t, 1e-6f), 96, false);
    q = lk_graph_linear(g, "proj", lk_graph_attention_qkv(g, NULL, q, &(lk_attention){.heads = 2}), 32, false);
    t = lk_graph_add(g, NULL, t, q);
    q = lk_graph_activation(g, NULL, lk_graph_linear(g, "fc1", lk_graph_layer_norm(g, "ln2", t, 1e-6f), 64, false),
                            LK_GELU);
    t = lk_graph_add(g, NULL, t, lk_graph_linear(g, "fc2", q, 32, false));
    t = lk_graph_linear(g, "head", lk_graph_mean_tokens(g, NULL, t), 48, false);
    lk_graph_output(g, lk_graph_l2_normalise(g, NULL, t, 1e-12f));
    assert_int_equal(lk_graph_check(g), LK_OK);
    assert_int_equal(lk_graph_initialise(g, 5), LK_OK);
    /* the small start of transformers would hide their part */
    for (size_t i = 0; i < lk_graph_parameter_count(g); i++) {
        float *values;
        lk_parameter p = lk_graph_parameter_at(g, i);
        assert_int_equal(lk_graph_values_writable(g, i, &values), LK_OK);
        for (size_t k = 0; p.shape.rank == 2 && k < p.elements; k++) values[k] *= 8;
    }
    return g;
}

enum { ROWS = 5, PICTURE = 3 * 32 * 32, WIDTH = 48, FEATURE = 32 * 64 };

static float *pictures(void)
{
    lk_random random;
    lk_random_seed(&random, 3);
    float *x = test_malloc(sizeof *x * ROWS * PICTURE);
    for (int i = 0; i < ROWS * PICTURE; i++) x[i] = (float)lk_random_normal(&random);
    return x;
}

static void embed(const lk_graph *g, lk_compile_options options, const float *x, int64_t rows, float *out,
                  lk_executor_stats *stats)
{
    lk_executor *e;
    if (lk_graph_compile(g, &options, &e) != LK_OK) fail_msg("%s", lk_error_message());
    for (int64_t at = 0; at < rows;) {
        int64_t n = rows - at < options.batch ? rows - at : options.batch;
        float *outputs[] = {out + at * WIDTH};
        assert_int_equal(lk_executor_run(e, n, (const void *[]){x + at * PICTURE}, outputs), LK_OK);
        at += n;
    }
    if (stats) *stats = lk_executor_stats_of(e);
    lk_executor_free(e);
}

static void shared_memory_changes_no_result(void **state)
{
    (void)state;
    lk_node feature;
    lk_graph *g = network(&feature);
    float *x = pictures(), a[ROWS * WIDTH], b[ROWS * WIDTH];
    lk_executor_stats shared, own;
    embed(g, (lk_compile_options){.batch = ROWS}, x, ROWS, a, &shared);
    embed(g, (lk_compile_options){.batch = ROWS, .no_reuse = true}, x, ROWS, b, &own);
    /* without reuse a residual sum goes through memory of its own: rounding may differ, nothing else */
    for (int i = 0; i < ROWS * WIDTH; i++) assert_true(fabs((double)(a[i] - b[i])) < 1e-6);
    assert_true(shared.activation_bytes * 2 < own.activation_bytes);
    test_free(x);
    lk_graph_free(g);
}

static void fused_operators_give_what_single_ones_give(void **state)
{
    (void)state;
    lk_node feature;
    lk_graph *g = network(&feature);
    float *x = pictures(), a[ROWS * WIDTH], b[ROWS * WIDTH];
    lk_executor_stats fused, single;
    embed(g, (lk_compile_options){.batch = ROWS}, x, ROWS, a, &fused);
    embed(g, (lk_compile_options){.batch = ROWS, .no_fusion = true}, x, ROWS, b, &single);
    for (int i = 0; i < ROWS * WIDTH; i++) assert_true(fabs((double)(a[i] - b[i])) < 2e-6);
    assert_true(fused.steps + 10 < single.steps);
    test_free(x);
    lk_graph_free(g);
}

static void a_row_has_the_same_bytes_in_any_batch_and_on_any_threads(void **state)
{
    (void)state;
    lk_node feature;
    lk_graph *g = network(&feature);
    float *x = pictures(), a[ROWS * WIDTH], b[ROWS * WIDTH];
    bool bf16 = lk_cpu_detect() & LK_CPU_AVX512_BF16;
    for (int precision = 0; precision <= bf16; precision++) {
        embed(g, (lk_compile_options){.batch = 4, .threads = 1, .precision = (lk_precision)precision}, x, ROWS, a,
              NULL);
        embed(g, (lk_compile_options){.batch = 4, .threads = 2, .precision = (lk_precision)precision}, x, ROWS, b,
              NULL);
        assert_memory_equal(a, b, sizeof a);
        /* row 4 came alone in a batch of 4 here; now it comes third */
        embed(g, (lk_compile_options){.batch = 4, .threads = 2, .precision = (lk_precision)precision}, x + 2 * PICTURE,
              3, b, NULL);
        assert_memory_equal(a + 2 * WIDTH, b, 3 * WIDTH * sizeof *a);
    }
    test_free(x);
    lk_graph_free(g);
}

static double cosine(const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < WIDTH; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

static void bf16_stays_close_to_f32(void **state)
{
    (void)state;
    lk_node feature;
    lk_graph *g = network(&feature);
    float *x = pictures(), a[ROWS * WIDTH], b[ROWS * WIDTH];
    lk_executor *e;
    if (!(lk_cpu_detect() & LK_CPU_AVX512_BF16)) {
        assert_int_equal(lk_graph_compile(g, &(lk_compile_options){.precision = LK_PRECISION_BF16}, &e),
                         LK_UNSUPPORTED);
    } else {
        embed(g, (lk_compile_options){.batch = ROWS}, x, ROWS, a, NULL);
        embed(g, (lk_compile_options){.batch = ROWS, .precision = LK_PRECISION_BF16}, x, ROWS, b, NULL);
        for (int i = 0; i < ROWS; i++) assert_true(cosine(a + i * WIDTH, b + i * WIDTH) > 0.999);
    }
    test_free(x);
    lk_graph_free(g);
}

static void calibrated_int8_stays_close_to_f32_and_survives_saving(void **state)
{
    (void)state;
    lk_node feature;
    lk_graph *g = network(&feature);
    float *x = pictures(), a[ROWS * WIDTH], b[ROWS * WIDTH], c[ROWS * WIDTH];
    lk_executor *e;
    lk_calibration *calibration, *again;
    lk_compile_options options = {.batch = ROWS, .precision = LK_PRECISION_INT8};
    if (lk_cpu_detect() & LK_CPU_AVX512_VNNI) {
        assert_int_equal(lk_graph_compile(g, &options, &e), LK_INVALID); /* without ranges */
        assert_int_equal(lk_calibration_new(g, &calibration), LK_OK);
        assert_int_equal(lk_calibration_add(calibration, ROWS, (const void *[]){x}), LK_OK);
        options.calibration = calibration;
        embed(g, (lk_compile_options){.batch = ROWS}, x, ROWS, a, NULL);
        embed(g, options, x, ROWS, b, NULL);
        for (int i = 0; i < ROWS; i++) assert_true(cosine(a + i * WIDTH, b + i * WIDTH) > 0.99);
        assert_memory_not_equal(a, b, sizeof a);
        size_t n = lk_calibration_count(calibration);
        float *ranges = test_malloc(n * sizeof *ranges);
        lk_calibration_values(calibration, ranges);
        assert_int_equal(lk_calibration_new(g, &again), LK_OK);
        assert_int_equal(lk_calibration_set(again, ranges, n - 1), LK_INVALID);
        assert_int_equal(lk_calibration_set(again, ranges, n), LK_OK);
        options.calibration = again;
        embed(g, options, x, ROWS, c, NULL);
        assert_memory_equal(b, c, sizeof b);
        options.threads = 2;
        embed(g, options, x, ROWS, c, NULL);
        assert_memory_equal(b, c, sizeof b);
        lk_calibration_free(calibration);
        lk_calibration_free(again);
        /* a clone needs no ranges any more */
        lk_executor *clone;
        options.threads = 1;
        assert_int_equal(lk_calibration_new(g, &calibration), LK_OK);
        assert_int_equal(lk_calibration_set(calibration, ranges, n), LK_OK);
        options.calibration = calibration;
        assert_int_equal(lk_graph_compile(g, &options, &e), LK_OK);
        lk_calibration_free(calibration);
        assert_int_equal(lk_executor_clone(e, &clone), LK_OK);
        lk_executor_free(e);
        assert_int_equal(lk_executor_run(clone, ROWS, (const void *[]){x}, (float *[]){c}), LK_OK);
        assert_memory_equal(b, c, sizeof b);
        lk_executor_free(clone);
        test_free(ranges);
    }
    test_free(x);
    lk_graph_free(g);
}

/* Depthwise convolutions whose result a product of codes reads have no primitive of 8 bits. */
static void what_int8_cannot_do_runs_in_floats(void **state)
{
    (void)state;
    if (!(lk_cpu_detect() & LK_CPU_AVX512_VNNI)) skip();
    lk_node x;
    lk_graph *g = graph_with_picture(&x);
    x = lk_graph_conv(g, "stem", x, &(lk_conv){.out = 16, .kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}});
    x = lk_graph_activation(g, NULL, x, LK_HARD_SWISH);
    for (int i = 0; i < 2; i++) { /* a convolution whose own input is added to its result, as in EfficientNetV2 */
        lk_node y =
            lk_graph_conv(g, i ? "own1" : "own0", x, &(lk_conv){.out = 16, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
        x = lk_graph_add(g, NULL, lk_graph_activation(g, NULL, y, LK_SILU), x);
    }
    for (int i = 0; i < 3; i++) {
        char name[16];
        lk_node in = x;
        snprintf(name, sizeof name, "depthwise%d", i);
        x = lk_graph_conv(g, name, x, &(lk_conv){.out = 16, .kernel = {3, 3}, .pad = {1, 1, 1, 1}, .groups = 16});
        x = lk_graph_activation(g, NULL, x, i == 2 ? LK_HARD_SWISH : LK_RELU);
        snprintf(name, sizeof name, "pointwise%d", i);
        x = lk_graph_conv(g, name, x, &(lk_conv){.out = 16, .kernel = {1, 1}});
        x = lk_graph_add(g, NULL, x, in);
    }
    x = lk_graph_reshape(g, NULL, lk_graph_global_avg_pool(g, NULL, x), 2, (int64_t[]){LK_BATCH, 16});
    lk_graph_output(g, lk_graph_linear(g, "head", x, WIDTH, false));
    assert_int_equal(lk_graph_check(g), LK_OK);
    assert_int_equal(lk_graph_initialise(g, 3), LK_OK);
    float *p = pictures(), a[ROWS * WIDTH], b[ROWS * WIDTH], c[ROWS * WIDTH];
    lk_calibration *calibration;
    assert_int_equal(lk_calibration_new(g, &calibration), LK_OK);
    assert_int_equal(lk_calibration_add(calibration, ROWS, (const void *[]){p}), LK_OK);
    lk_compile_options options = {.batch = ROWS, .precision = LK_PRECISION_INT8, .calibration = calibration};
    embed(g, (lk_compile_options){.batch = ROWS}, p, ROWS, a, NULL);
    embed(g, options, p, ROWS, b, NULL);
    for (int i = 0; i < ROWS; i++) assert_true(cosine(a + i * WIDTH, b + i * WIDTH) > 0.99);
    options.batch = 2;
    options.threads = 2;
    embed(g, options, p, ROWS, c, NULL);
    assert_memory_equal(b, c, sizeof b);
    lk_calibration_free(calibration);
    test_free(p);
    lk_graph_free(g);
}

/* Two convolutions with a ReLU behind each; a third of the weights of the second is negative. */
static lk_graph *overflowing(float first, float second)
{
    lk_node x;
    lk_graph *g = graph_with_picture(&x);
    x = lk_graph_conv(g, "a", x, &(lk_conv){.out = 16, .kernel = {3, 3}, .no_bias = true});
    x = lk_graph_activation(g, NULL, x, LK_RELU);
    x = lk_graph_conv(g, "b", x, &(lk_conv){.out = 16, .kernel = {3, 3}, .no_bias = true});
    x = lk_graph_activation(g, NULL, x, LK_RELU);
    x = lk_graph_reshape(g, NULL, lk_graph_global_avg_pool(g, NULL, x), 2, (int64_t[]){LK_BATCH, 16});
    lk_graph_output(g, lk_graph_linear(g, "head", x, WIDTH, false));
    assert_int_equal(lk_graph_check(g), LK_OK);
    float weights[16 * 16 * 9];
    for (int i = 0; i < 16 * 3 * 9; i++) weights[i] = first;
    assert_int_equal(lk_graph_load(g, "a.weight", &(lk_tensor){LK_TYPE_F32, 4, {16, 3, 3, 3}, weights}), LK_OK);
    for (int i = 0; i < 16 * 16 * 9; i++) weights[i] = i % 3 ? second : -second;
    assert_int_equal(lk_graph_load(g, "b.weight", &(lk_tensor){LK_TYPE_F32, 4, {16, 16, 3, 3}, weights}), LK_OK);
    assert_int_equal(lk_graph_initialise(g, 5), LK_OK);
    return g;
}

static void weights_that_are_no_usable_numbers_are_refused(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1.1e16f, -3e38f};
    float weights[16 * 3 * 9] = {0};
    lk_graph *g = overflowing(1, 1);
    const lk_tensor tensor = {LK_TYPE_F32, 4, {16, 3, 3, 3}, weights};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weights[i * 100] = bad[i];
        assert_int_equal(lk_graph_load(g, "a.weight", &tensor), LK_CORRUPT);
        assert_non_null(strstr(lk_error_message(), "a.weight"));
        assert_int_equal(lk_graph_load_borrowed(g, "a.weight", &tensor), LK_CORRUPT);
        weights[i * 100] = 0;
    }
    assert_int_equal(lk_graph_load(g, "a.weight", &tensor), LK_OK);
    lk_graph_free(g);
}

static void what_is_no_number_never_gives_a_finite_result(void **state)
{
    (void)state;
    float a[ROWS * WIDTH], b[ROWS * WIDTH];
    for (int precision = LK_PRECISION_F32; precision <= LK_PRECISION_BF16; precision++) {
        if (precision == LK_PRECISION_BF16 && !(lk_cpu_detect() & LK_CPU_AVX512_BF16)) continue;
        float *x = pictures();
        lk_compile_options options = {.batch = ROWS, .threads = 2, .precision = (lk_precision)precision};
        lk_graph *g = overflowing(1, 1);
        embed(g, options, x, ROWS, a, NULL);
        for (int i = 0; i < ROWS * WIDTH; i++) assert_true(isfinite(a[i]));
        /* one number of one row, and the others are as before */
        for (int kind = 0; kind < 3; kind++) {
            float kept = x[2 * PICTURE + 777];
            x[2 * PICTURE + 777] = kind == 0 ? NAN : kind == 1 ? INFINITY : -2e16f;
            embed(g, options, x, ROWS, b, NULL);
            for (int i = 0; i < ROWS * WIDTH; i++)
                if (!(i / WIDTH == 2 ? isnan(b[i]) : memcmp(&a[i], &b[i], sizeof *a) == 0))
                    fail_msg("%d %d %d: %g %g", precision, kind, i, a[i], b[i]);
            x[2 * PICTURE + 777] = kept;
        }
        lk_graph_free(g);
        /* each number is allowed; infinity less infinity everywhere, then a ReLU, which makes zero of it */
        g = overflowing(1e16f, 1e16f);
        for (int i = 0; i < ROWS * PICTURE; i++) x[i] = fminf(fabsf(x[i]) * 1e15f, 1e16f);
        embed(g, options, x, ROWS, b, NULL);
        for (int i = 0; i < ROWS * WIDTH; i++) assert_true(isnan(b[i]));
        lk_graph_free(g);
        test_free(x);
    }
}

static void clones_share_weights_and_agree(void **state)
{
    (void)state;
    lk_node feature;
    lk_graph *g = network(&feature);
    float *x = pictures(), a[WIDTH], b[WIDTH], *map_a = test_malloc(FEATURE * sizeof(float)),
          *map_b = test_malloc(FEATURE * sizeof(float));
    lk_executor *e, *clone;
    assert_int_equal(lk_graph_compile(g, &(lk_compile_options){.keep = &feature, .keep_count = 1}, &e), LK_OK);
    assert_int_equal(lk_executor_run(e, 1, (const void *[]){x}, (float *[]){a}), LK_OK);
    assert_int_equal(lk_executor_clone(e, &clone), LK_OK);
    assert_int_equal(lk_executor_stats_of(e).weight_bytes, lk_executor_stats_of(clone).weight_bytes);
    assert_int_equal(lk_executor_read(e, feature, map_a), LK_OK);
    lk_executor_free(e);
    assert_int_equal(lk_executor_run(clone, 1, (const void *[]){x}, (float *[]){b}), LK_OK);
    assert_int_equal(lk_executor_read(clone, feature, map_b), LK_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_equal(map_a, map_b, FEATURE * sizeof(float));
    assert_int_equal(lk_executor_read(clone, lk_graph_find(g, "conv1"), map_b), LK_INVALID); /* not kept */
    assert_int_equal(lk_executor_run(clone, 2, (const void *[]){x}, (float *[]){b}), LK_INVALID);
    lk_executor_free(clone);
    test_free(x);
    test_free(map_a);
    test_free(map_b);
    lk_graph_free(g);
}

static void parameters_load_from_every_float_type_and_nothing_else(void **state)
{
    (void)state;
    lk_graph *g;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 2, (int64_t[]){LK_BATCH, 2});
    lk_graph_output(g, lk_graph_linear(g, "f", x, 2, true));
    static const float f32[] = {1, -2, 0.5f, 65504};
    static const uint16_t f16[] = {0x3c00, 0xc000, 0x3800, 0x7bff}, bf16[] = {0x3f80, 0xc000, 0x3f00, 0x4780};
    static const double f64[] = {1, -2, 0.5, 65504};
    lk_tensor t = {.rank = 2, .dims = {2, 2}};
    const struct {
        lk_type type;
        const void *data;
        float last;
    } all[] = {
        {LK_TYPE_F32, f32, 65504}, {LK_TYPE_F16, f16, 65504}, {LK_TYPE_BF16, bf16, 65536}, {LK_TYPE_F64, f64, 65504}};
    lk_executor *e;
    assert_int_equal(lk_graph_compile(g, &(lk_compile_options){0}, &e), LK_NOT_FOUND);
    assert_non_null(strstr(lk_error_message(), "f.weight"));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        t.type = all[i].type;
        t.data = all[i].data;
        assert_int_equal(lk_graph_load(g, "f.weight", &t), LK_OK);
        const float *v = lk_graph_values(g, 0);
        assert_true(v[0] == 1 && v[1] == -2 && v[2] == 0.5f && v[3] == all[i].last);
    }
    assert_int_equal(lk_graph_load(g, "f.bias", &t), LK_NOT_FOUND);
    t.dims[0] = 3;
    assert_int_equal(lk_graph_load(g, "f.weight", &t), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "[3, 2]"));
    t.dims[0] = 2;
    t.type = LK_TYPE_I32;
    assert_int_equal(lk_graph_load(g, "f.weight", &t), LK_UNSUPPORTED);
    float bad[] = {1, 2, INFINITY, 4};
    t.type = LK_TYPE_F32;
    t.data = bad;
    assert_int_equal(lk_graph_load(g, "f.weight", &t), LK_CORRUPT);
    assert_int_equal(lk_graph_load_borrowed(g, "f.weight", &t), LK_CORRUPT);
    bad[2] = 3;
    assert_int_equal(lk_graph_load_borrowed(g, "f.weight", &t), LK_OK);
    assert_ptr_equal(lk_graph_values(g, 0), bad);
    lk_graph_free(g);
}

/* 3x3 convolutions of f32 go Winograd's way here: against the direct ones of training. Sides that are not multiples of
 * 4, more tiles than one block holds, a sum before the activation. */
static void winograd_agrees_with_direct_convolution(void **state)
{
    (void)state;
    enum { C = 64, H = 14, W = 19, N = 3, SIZE = N * C * H * W };
    lk_graph *g;
    lk_executor *e;
    lk_training *t;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, C, H, W});
    lk_node first = lk_graph_activation(g, NULL, x, LK_SILU);
    lk_node y = lk_graph_conv(g, "c", first, &(lk_conv){.out = C, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    y = lk_graph_activation(g, NULL, lk_graph_add(g, NULL, y, first), LK_RELU);
    y = lk_graph_conv(g, "d", y, &(lk_conv){.out = C, .kernel = {3, 3}, .pad = {0, 1, 1, 0}, .no_bias = true});
    lk_graph_output(g, y);
    assert_int_equal(lk_graph_initialise(g, 8), LK_OK);
    lk_random random;
    lk_random_seed(&random, 4);
    float *in = test_malloc(SIZE * sizeof *in), *a = test_malloc(SIZE * sizeof *a), *b = test_malloc(SIZE * sizeof *b);
    for (int i = 0; i < SIZE; i++) in[i] = (float)lk_random_normal(&random);
    assert_int_equal(lk_graph_compile(g, &(lk_compile_options){.batch = N, .threads = 2}, &e), LK_OK);
    assert_int_equal(lk_executor_run(e, N, (const void *[]){in}, (float *[]){a}), LK_OK);
    assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = N}, &t), LK_OK);
    assert_int_equal(lk_training_forward(t, false, (const void *[]){in}, (float *[]){b}), LK_OK);
    double largest = 0, difference = 0;
    for (int i = 0; i < N * C * (H - 1) * (W - 1); i++) {
        largest = fmax(largest, fabs((double)b[i]));
        difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
    }
    assert_true(largest > 1 && difference <= 1e-5 * largest);
    /* another way, so other roundings: without wide registers both are direct */
    if (lk_cpu_detect() & (LK_CPU_AVX512 | LK_CPU_AVX2)) assert_true(difference > 0);
    lk_executor_free(e);
    lk_training_free(t);
    test_free(in);
    test_free(a);
    test_free(b);
    lk_graph_free(g);
}

static void layers_over_a_parameter_serve_every_row(void **state)
{
    (void)state;
    enum { C = 32, T = 5, N = 3 };
    lk_graph *g;
    lk_executor *e;
    lk_training *t;
    float in[N * T * C], a[N * C], b[N * C];
    for (int i = 0; i < N * T * C; i++) in[i] = (float)(i * 37 % 101) / 50 - 1;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 3, (int64_t[]){LK_BATCH, T, C});
    lk_node probe = lk_graph_parameter(g, "probe", 3, (int64_t[]){1, 1, C});
    lk_node q = lk_graph_activation(g, NULL, lk_graph_linear(g, "q", probe, C, false), LK_GELU);
    lk_node y = lk_graph_attention(g, NULL, q, x, x, &(lk_attention){.heads = 2});
    lk_graph_output(g, lk_graph_reshape(g, NULL, y, 2, (int64_t[]){LK_BATCH, 0}));
    assert_int_equal(lk_graph_initialise(g, 8), LK_OK);
    if (lk_graph_compile(g, &(lk_compile_options){.batch = N}, &e) != LK_OK) fail_msg("%s", lk_error_message());
    assert_int_equal(lk_executor_run(e, N, (const void *[]){in}, (float *[]){a}), LK_OK);
    assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = N}, &t), LK_OK);
    assert_int_equal(lk_training_forward(t, false, (const void *[]){in}, (float *[]){b}), LK_OK);
    for (int i = 0; i < N * C; i++) assert_true(fabsf(a[i] - b[i]) < 1e-6f);
    lk_executor_free(e);
    lk_training_free(t);
    lk_graph_free(g);
}

static void ids_outside_of_the_vocabulary_are_refused(void **state)
{
    (void)state;
    lk_graph *g;
    lk_executor *e;
    float out[8];
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "ids", LK_TYPE_I32, 2, (int64_t[]){LK_BATCH, 2});
    lk_graph_output(g, lk_graph_embedding(g, "token", x, 10, 4));
    assert_int_equal(lk_graph_initialise(g, 1), LK_OK);
    assert_int_equal(lk_graph_compile(g, &(lk_compile_options){0}, &e), LK_OK);
    assert_int_equal(lk_executor_run(e, 1, (const void *[]){(int32_t[]){0, 9}}, (float *[]){out}), LK_OK);
    assert_int_equal(lk_executor_run(e, 1, (const void *[]){(int32_t[]){0, 10}}, (float *[]){out}), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "token"));
    assert_int_equal(lk_executor_run(e, 1, (const void *[]){(int32_t[]){-1, 3}}, (float *[]){out}), LK_INVALID);
    lk_executor_free(e);
    lk_graph_free(g);
}

static void training_on_two_threads_gives_the_gradients_of_one(void **state)
{
    (void)state;
    lk_node feature;
    float *x = pictures(), gy[ROWS * WIDTH], *gradients[2] = {NULL};
    for (int i = 0; i < ROWS * WIDTH; i++) gy[i] = (float)(i % 7) - 3;
    for (int threads = 1; threads <= 2; threads++) {
        lk_graph *g = network(&feature);
        lk_training *t;
        size_t at = 0, total = 0;
        for (size_t i = 0; i < lk_graph_parameter_count(g); i++) total += lk_graph_parameter_at(g, i).elements;
        gradients[threads - 1] = test_malloc(total * sizeof(float));
        assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = ROWS, .threads = threads}, &t),
                         LK_OK);
        assert_int_equal(lk_training_forward(t, true, (const void *[]){x}, NULL), LK_OK);
        assert_int_equal(lk_training_backward(t, (const float *[]){gy}, NULL), LK_OK);
        for (size_t i = 0; i < lk_graph_parameter_count(g); i++) {
            const float *gradient = lk_training_gradient(t, i);
            if (!gradient) continue;
            memcpy(gradients[threads - 1] + at, gradient, lk_graph_parameter_at(g, i).elements * sizeof(float));
            at += lk_graph_parameter_at(g, i).elements;
        }
        if (threads == 2) {
            /* oneDNN sums the gradients of weights in one part per thread: equal but for rounding */
            double largest = 0;
            for (size_t i = 0; i < at; i++) largest = fmax(largest, fabs((double)gradients[0][i]));
            for (size_t i = 0; i < at; i++)
                assert_true(fabs((double)(gradients[0][i] - gradients[1][i])) <= 1e-5 * largest);
        }
        lk_training_free(t);
        lk_graph_free(g);
    }
    test_free(gradients[0]);
    test_free(gradients[1]);
    test_free(x);
}

static void frozen_parameters_get_no_gradient_and_keep_their_statistics(void **state)
{
    (void)state;
    lk_node feature;
    lk_graph *g = network(&feature);
    lk_training *t;
    float *x = pictures(), gy[ROWS * WIDTH], before[32];
    for (int i = 0; i < ROWS * WIDTH; i++) gy[i] = (float)(i % 5) - 2;
    size_t weight = (size_t)lk_graph_parameter_index(g, "bn1.weight"),
           mean = (size_t)lk_graph_parameter_index(g, "bn1.running_mean"),
           other = (size_t)lk_graph_parameter_index(g, "bn_b0.running_mean"),
           head = (size_t)lk_graph_parameter_index(g, "head.weight");
    assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = ROWS}, &t), LK_OK);
    assert_int_equal(lk_training_freeze(t, weight, true), LK_OK);
    assert_int_equal(lk_training_freeze(t, mean, true), LK_INVALID);
    memcpy(before, lk_graph_values(g, mean), sizeof before);
    float was = lk_graph_values(g, other)[0];
    assert_int_equal(lk_training_forward(t, true, (const void *[]){x}, NULL), LK_OK);
    assert_int_equal(lk_training_backward(t, (const float *[]){gy}, NULL), LK_OK);
    assert_null(lk_training_gradient(t, weight));
    assert_memory_equal(before, lk_graph_values(g, mean), sizeof before);
    assert_true(lk_graph_values(g, other)[0] != was);
    double size = 0;
    for (int i = 0; i < WIDTH; i++) size += fabs((double)lk_training_gradient(t, head)[i]);
    assert_true(size > 0);
    lk_training_zero_gradients(t);
    for (int i = 0; i < WIDTH; i++) assert_true(lk_training_gradient(t, head)[i] == 0);
    test_free(x);
    lk_training_free(t);
    lk_graph_free(g);
}

static void bf16_training_gives_nearly_the_gradients_of_f32(void **state)
{
    (void)state;
    if (!(lk_cpu_detect() & LK_CPU_AVX512_BF16)) skip();
    lk_node feature;
    lk_graph *g = network(&feature);
    float *x = pictures(), *other = pictures(), gy[ROWS * WIDTH];
    lk_training *t[2];
    for (int i = 0; i < ROWS * WIDTH; i++) gy[i] = (float)(i % 7) - 3;
    for (int i = 0; i < ROWS * PICTURE; i++) other[i] = 1 - other[i] * other[i];
    for (int k = 0; k < 2; k++) {
        assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = ROWS, .bf16 = k}, &t[k]), LK_OK);
        /* other values first: nothing of them may be left in what was converted */
        assert_int_equal(lk_training_forward(t[k], false, (const void *[]){other}, NULL), LK_OK);
        assert_int_equal(lk_training_backward(t[k], (const float *[]){other}, NULL), LK_OK);
        lk_training_zero_gradients(t[k]);
        assert_int_equal(lk_training_forward(t[k], false, (const void *[]){x}, NULL), LK_OK);
        assert_int_equal(lk_training_backward(t[k], (const float *[]){gy}, NULL), LK_OK);
    }
    for (size_t i = 0; i < lk_graph_parameter_count(g); i++) {
        const float *a = lk_training_gradient(t[0], i), *b = lk_training_gradient(t[1], i);
        double ab = 0, aa = 0, bb = 0;
        for (size_t k = 0; a && k < lk_graph_parameter_at(g, i).elements; k++) {
            ab += (double)a[k] * (double)b[k];
            aa += (double)a[k] * (double)a[k];
            bb += (double)b[k] * (double)b[k];
        }
        if (a && aa > 0 && !(ab / sqrt(aa * bb) > 0.99))
            fail_msg("%s: cosine %.4f", lk_graph_parameter_at(g, i).name, ab / sqrt(aa * bb));
    }
    lk_training_free(t[0]);
    lk_training_free(t[1]);
    test_free(other);
    test_free(x);
    lk_graph_free(g);
}

static void dropout_drops_its_share_in_training_alone(void **state)
{
    (void)state;
    enum { N = 64, W = 1000 };
    for (int path = 0; path < 2; path++) {
        lk_graph *g;
        lk_training *t;
        assert_int_equal(lk_graph_new(&g), LK_OK);
        lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 2, (int64_t[]){LK_BATCH, W});
        lk_graph_output(g, path ? lk_graph_drop_path(g, "d", x, 0.25f) : lk_graph_dropout(g, "d", x, 0.25f));
        assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = N, .seed = 7}, &t), LK_OK);
        float *in = test_malloc(N * W * sizeof *in), *out = test_malloc(N * W * sizeof *out),
              *gx = test_malloc(N * W * sizeof *gx);
        for (int i = 0; i < N * W; i++) in[i] = 1;
        assert_int_equal(lk_training_forward(t, false, (const void *[]){in}, (float *[]){out}), LK_OK);
        assert_memory_equal(in, out, N * W * sizeof *in);
        assert_int_equal(lk_training_forward(t, true, (const void *[]){in}, (float *[]){out}), LK_OK);
        assert_int_equal(lk_training_backward(t, (const float *[]){in}, (float *[]){gx}), LK_OK);
        assert_memory_equal(gx, out, N * W * sizeof *gx); /* the same were dropped */
        int dropped = 0, unlike = 0;
        for (int i = 0; i < N * W; i++) {
            assert_true(out[i] == 0 || fabsf(out[i] - 4.0f / 3) < 1e-6f);
            dropped += out[i] == 0;
            unlike += path && i % W && out[i] != out[i - 1];
        }
        assert_int_equal(unlike, 0);
        /* within four deviations of a quarter of the units */
        double units = path ? N : N * W, share = dropped / (double)(N * W);
        assert_true(fabs(share - 0.25) < 4 * sqrt(0.25 * 0.75 / units));
        test_free(in);
        test_free(out);
        test_free(gx);
        lk_training_free(t);
        lk_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_shapes_are_refused_with_the_name_of_the_node),
        cmocka_unit_test(after_a_mistake_the_first_message_stays),
        cmocka_unit_test(shared_memory_changes_no_result),
        cmocka_unit_test(fused_operators_give_what_single_ones_give),
        cmocka_unit_test(a_row_has_the_same_bytes_in_any_batch_and_on_any_threads),
        cmocka_unit_test(bf16_stays_close_to_f32),
        cmocka_unit_test(calibrated_int8_stays_close_to_f32_and_survives_saving),
        cmocka_unit_test(what_int8_cannot_do_runs_in_floats),
        cmocka_unit_test(weights_that_are_no_usable_numbers_are_refused),
        cmocka_unit_test(what_is_no_number_never_gives_a_finite_result),
        cmocka_unit_test(clones_share_weights_and_agree),
        cmocka_unit_test(parameters_load_from_every_float_type_and_nothing_else),
        cmocka_unit_test(winograd_agrees_with_direct_convolution),
        cmocka_unit_test(layers_over_a_parameter_serve_every_row),
        cmocka_unit_test(ids_outside_of_the_vocabulary_are_refused),
        cmocka_unit_test(training_on_two_threads_gives_the_gradients_of_one),
        cmocka_unit_test(frozen_parameters_get_no_gradient_and_keep_their_statistics),
        cmocka_unit_test(bf16_training_gives_nearly_the_gradients_of_f32),
        cmocka_unit_test(dropout_drops_its_share_in_training_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
