/* Kernels of the networks: every instruction set gives what the plain one gives, and steps made of them what operators
 * give. */
#include "base/cpu.h"
#include "base/random.h"
#include "nn/kernels.h"
#include <likeness/nn.h>

#include "unit.h"

#include <math.h>

/* bf16 keeps eight bits: one off in the last, for what is not nearly nothing. Far out it is x, or nothing. */
static void swish_of_bf16_is_right_to_its_last_bit(void **state)
{
    (void)state;
    const lk_nn_kernels *k = lk_nn_kernels_for(lk_cpu_detect());
    enum { N = 1001 };
    float t[N], y[N];
    uint16_t stored[N];
    for (int i = 0; i < N; i++) t[i] = (float)(500 - i) * 0.045f; /* -x / ln 2 */
    t[0] = 1e4f;
    t[1] = -1e4f;
    t[2] = NAN;
    k->store(LK_TYPE_BF16, 1, t, N, stored);
    k->load(LK_TYPE_BF16, 1, stored, N, t);
    k->swish(LK_TYPE_BF16, -0.69314718f, stored, N);
    k->load(LK_TYPE_BF16, 1, stored, N, y);
    assert_true(fabsf(y[0]) < 1e-30f && isnan(y[2]));
    for (int i = 1; i < N; i++) {
        double exact = -0.69314718 * (double)t[i] / (1 + exp2((double)t[i]));
        if (i == 2) continue;
        assert_true(fabs((double)y[i] - exact) <= fabs(exact) * 0x1p-8 + 1e-30);
    }
}

static void kernel_variants_agree_with_the_plain_one(void **state)
{
    (void)state;
    static const unsigned sets[] = {LK_CPU_AVX2, LK_CPU_AVX512, LK_CPU_AVX512 | LK_CPU_AVX512_BF16};
    lk_random random;
    lk_random_seed(&random, 2);
    for (size_t v = 0; v < 3; v++) {
        if ((lk_cpu_detect() & sets[v]) != sets[v]) continue;
        const lk_nn_kernels *k = lk_nn_kernels_for((lk_cpu_features)sets[v]), *plain = lk_nn_kernels_for(LK_CPU_PLAIN);
        assert_string_not_equal(k->name, plain->name);
        for (size_t n = 1; n < 140; n++) {
            float x[140], w[140], a[140], b[140], ma, mb, ra, rb;
            for (size_t i = 0; i < n; i++) {
                x[i] = (float)lk_random_normal(&random) * 4;
                w[i] = (float)lk_random_normal(&random);
            }
            for (int kind = LK_RELU; kind <= LK_TANH; kind++) {
                memcpy(a, x, sizeof a);
                memcpy(b, x, sizeof b);
                k->activate((lk_activation)kind, a, n);
                plain->activate((lk_activation)kind, b, n);
                for (size_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= 1e-6f * (1 + fabsf(b[i])));
                memcpy(a, w, sizeof a);
                memcpy(b, w, sizeof b);
                k->activate_gradient((lk_activation)kind, x, w, n, a);
                plain->activate_gradient((lk_activation)kind, x, w, n, b);
                for (size_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= 3e-6f * (1 + fabsf(w[i])));
            }
            memcpy(a, x, sizeof a);
            memcpy(b, x, sizeof b);
            k->swish(LK_TYPE_F32, -0.4f, a, n);
            plain->swish(LK_TYPE_F32, -0.4f, b, n);
            for (size_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= 5e-7f * fabsf(b[i]) + 1e-7f);
            static const lk_type types[] = {LK_TYPE_F32, LK_TYPE_BF16, LK_TYPE_U8, LK_TYPE_I8};
            for (int t = 0; t < 4; t++) {
                char ca[560] = {0}, cb[560] = {0};
                k->store(types[t], 0.05f, x, n, ca);
                plain->store(types[t], 0.05f, x, n, cb);
                assert_memory_equal(ca, cb, n * lk_type_bytes(types[t]));
                k->load(types[t], 0.05f, ca, n, a);
                plain->load(types[t], 0.05f, cb, n, b);
                assert_memory_equal(a, b, n * sizeof *a);
            }
            memcpy(a, x, sizeof a);
            memcpy(b, x, sizeof b);
            k->softmax(a, n, 0.7f);
            plain->softmax(b, n, 0.7f);
            for (size_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= 1e-6f);
            k->moments(x, n, 1e-6f, &ma, &ra);
            plain->moments(x, n, 1e-6f, &mb, &rb);
            assert_true(fabsf(ma - mb) <= 1e-6f * (1 + fabsf(mb)) && fabsf(ra - rb) <= 1e-5f * rb);
            assert_true(fabsf(k->dot(x, w, n) - plain->dot(x, w, n)) <= 1e-4f);
            assert_true(fabsf(k->sum(x, n) - plain->sum(x, n)) <= 1e-4f);
        }
    }
}

/* Kernels that move or add up stored numbers: gates, sums of rows, planes into channels. */
static void variants_agree_on_stored_numbers(void **state)
{
    (void)state;
    static const unsigned sets[] = {LK_CPU_AVX2, LK_CPU_AVX512, LK_CPU_AVX512 | LK_CPU_AVX512_BF16};
    static const lk_type types[] = {LK_TYPE_F32, LK_TYPE_BF16, LK_TYPE_U8, LK_TYPE_I8};
    enum { N = 150, COUNT = 5 };
    const lk_nn_kernels *plain = lk_nn_kernels_for(LK_CPU_PLAIN);
    lk_random random;
    lk_random_seed(&random, 3);
    float x[N * COUNT], gate[N], a[N], b[N];
    for (int i = 0; i < N * COUNT; i++) x[i] = (float)lk_random_normal(&random) * 4;
    for (int i = 0; i < N; i++) gate[i] = (float)lk_random_unit(&random);
    for (size_t v = 0; v < 3; v++) {
        if ((lk_cpu_detect() & sets[v]) != sets[v]) continue;
        const lk_nn_kernels *k = lk_nn_kernels_for((lk_cpu_features)sets[v]);
        for (int t = 0; t < 4; t++) {
            for (size_t n = 1; n < N; n++) {
                char stored[N * COUNT * 4], ca[N * COUNT * 4] = {0}, cb[N * COUNT * 4] = {0};
                size_t bytes = lk_type_bytes(types[t]);
                plain->store(types[t], 0.05f, x, n * COUNT, stored);
                k->sum_rows(types[t], 0.05f, stored, COUNT, n, n, a);
                plain->sum_rows(types[t], 0.05f, stored, COUNT, n, n, b);
                for (size_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= 1e-5f);
                k->gate_rows(types[t], 0.05f, stored, gate, COUNT, n, types[t], 0.04f, ca);
                plain->gate_rows(types[t], 0.05f, stored, gate, COUNT, n, types[t], 0.04f, cb);
                assert_memory_equal(ca, cb, n * COUNT * bytes);
                const void *planes[3] = {stored, stored + n * bytes, stored + 2 * n * bytes};
                k->interleave(types[t], planes, n, ca);
                for (size_t i = 0; i < 3 * n; i++)
                    assert_memory_equal(ca + i * bytes, (const char *)planes[i % 3] + i / 3 * bytes, bytes);
            }
        }
    }
}

/* Tokens that fill their panels and that do not, every width of a head, with the causal mask and without: the plain
 * kernel is given the same stored numbers. */
static void attention_of_bf16_agrees_with_the_plain_one(void **state)
{
    (void)state;
    enum { MOST = 70, WIDTH = 80 };
    static const size_t tokens[] = {1, 2, 15, 17, 33, 64, 65, MOST}, widths[] = {16, 48, 64, WIDTH};
    const lk_nn_kernels *k = lk_nn_kernels_for(lk_cpu_detect()), *plain = lk_nn_kernels_for(LK_CPU_PLAIN);
    lk_random random;
    lk_random_seed(&random, 5);
    float *x = test_malloc(MOST * 3 * WIDTH * sizeof *x), *y[2];
    uint16_t *stored = test_malloc(MOST * 3 * WIDTH * sizeof *stored);
    float *scratch = test_malloc(lk_head_scratch(MOST, WIDTH) * sizeof *scratch);
    for (int i = 0; i < MOST * 3 * WIDTH; i++) x[i] = (float)lk_random_normal(&random);
    plain->store(LK_TYPE_BF16, 1, x, MOST * 3 * WIDTH, stored);
    for (int i = 0; i < 2; i++) y[i] = test_malloc(MOST * WIDTH * sizeof *y[i]);
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            for (int causal = 0; causal < 2; causal++) {
                size_t width = widths[w];
                lk_head head = {.type = LK_TYPE_BF16,
                                .y_type = LK_TYPE_F32,
                                .y_scale = 1,
                                .q = stored,
                                .k = stored + width,
                                .v = stored + 2 * width,
                                .q_step = 3 * width,
                                .k_step = 3 * width,
                                .v_step = 3 * width,
                                .y_step = width,
                                .queries = tokens[t],
                                .keys = tokens[t],
                                .width = width,
                                .scale = 0.3f,
                                .causal = causal,
                                .scratch = scratch};
                head.y = y[0];
                k->attention(&head);
                head.y = y[1];
                plain->attention(&head);
                /* probabilities of eight bits, of numbers up to 4 */
                for (size_t i = 0; i < tokens[t] * width; i++) assert_true(fabsf(y[0][i] - y[1][i]) <= 1.5e-2f);
            }
        }
    }
    test_free(x);
    test_free(stored);
    test_free(scratch);
    test_free(y[0]);
    test_free(y[1]);
}

/* Runs `rows` pictures on so many threads, in batches of `batch`. */
static void run_in_batches(const lk_graph *g, lk_precision precision, int threads, int64_t batch, int64_t rows,
                           const float *in, size_t in_row, float *out, size_t out_row)
{
    lk_executor *e;
    assert_int_equal(
        lk_graph_compile(g, &(lk_compile_options){.batch = batch, .threads = threads, .precision = precision}, &e),
        LK_OK);
    for (int64_t i = 0; i < rows; i += batch)
        assert_int_equal(lk_executor_run(e, batch, (const void *[]){in + (size_t)i * in_row},
                                         (float *[]){out + (size_t)i * out_row}),
                         LK_OK);
    lk_executor_free(e);
}

/* The bytes are those of one thread and one picture in a batch; the numbers those of training, which has other kernels,
 * within `bf16` of the largest in that precision. */
static void agrees_everywhere(lk_graph *g, int64_t rows, size_t in_row, size_t out_row, double bf16)
{
    size_t n = (size_t)rows * out_row;
    float *in = test_malloc((size_t)rows * in_row * sizeof *in), *exact = test_malloc(n * sizeof *exact),
          *one = test_malloc(n * sizeof *one), *many = test_malloc(n * sizeof *many);
    lk_training *t;
    lk_random random;
    lk_random_seed(&random, 4);
    for (size_t i = 0; i < (size_t)rows * in_row; i++) in[i] = (float)lk_random_normal(&random);
    for (size_t i = 0; i < (size_t)rows; i++) {
        assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = 1}, &t), LK_OK);
        assert_int_equal(
            lk_training_forward(t, false, (const void *[]){in + i * in_row}, (float *[]){exact + i * out_row}), LK_OK);
        lk_training_free(t);
    }
    double largest = 0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)exact[i]));
    for (int precision = LK_PRECISION_F32; precision <= LK_PRECISION_BF16; precision++) {
        if (precision == LK_PRECISION_BF16 && !(lk_cpu_detect() & LK_CPU_AVX512_BF16)) continue;
        run_in_batches(g, (lk_precision)precision, 1, 1, rows, in, in_row, one, out_row);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)one[i] - (double)exact[i]) <=
                        largest * (precision == LK_PRECISION_F32 ? 1e-5 : bf16));
        for (int threads = 1; threads <= 3; threads++) {
            for (int64_t batch = 1; batch <= rows; batch *= 2) {
                run_in_batches(g, (lk_precision)precision, threads, batch, rows, in, in_row, many, out_row);
                assert_memory_equal(one, many, n * sizeof *one);
            }
        }
    }
    test_free(in);
    test_free(exact);
    test_free(one);
    test_free(many);
}

/* What kernels of our own multiply: 3x3 convolutions with tiles that do not fit the picture, more than one block of
 * them, products of tokens with all that may follow them, an activation after strips of a picture. */
static void own_products_are_right_in_any_batch_and_on_any_threads(void **state)
{
    (void)state;
    enum { C = 64, H = 30, W = 37, OUT = 128 };
    lk_graph *g;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, C, H, W});
    lk_node first = lk_graph_conv(g, "a", x, &(lk_conv){.out = 4 * C, .kernel = {1, 1}});
    first = lk_graph_conv(g, "b", lk_graph_activation(g, NULL, first, LK_SILU), &(lk_conv){.out = C, .kernel = {1, 1}});
    lk_node y = lk_graph_conv(g, "c", first, &(lk_conv){.out = C, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    y = lk_graph_activation(g, NULL, lk_graph_add(g, NULL, y, first), LK_RELU);
    y = lk_graph_activation(
        g, NULL, lk_graph_conv(g, "d", y, &(lk_conv){.out = C, .kernel = {3, 3}, .pad = {0, 1, 1, 0}}), LK_RELU);
    lk_node tokens = lk_graph_tokens(g, NULL, y), z = lk_graph_linear(g, "e", tokens, OUT, true);
    z = lk_graph_linear(g, "f", lk_graph_activation(g, NULL, z, LK_GELU), C, true);
    z = lk_graph_linear(g, "h", lk_graph_activation(g, NULL, lk_graph_add(g, NULL, z, tokens), LK_QUICK_GELU), OUT,
                        false);
    lk_graph_output(g, lk_graph_mean_tokens(g, NULL, z));
    assert_int_equal(lk_graph_initialise(g, 8), LK_OK);
    agrees_everywhere(g, 4, C * H * W, OUT, 1e-2);
    lk_graph_free(g);
}

/* The other shapes that they take: a row per picture with widths that fill no vector (squeeze and excitation), or a
 * sum, pointwise convolutions of 7x7 positions whose last panel is narrow, with an activation or a sum behind them. */
static void squeezes_and_small_maps_are_right_in_any_batch_and_on_any_threads(void **state)
{
    (void)state;
    enum { C = 48, WIDE = 208, SIDE = 7, OUT = 50 };
    lk_graph *g;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, C, SIDE, SIDE});
    lk_node y = lk_graph_conv(g, "a", x, &(lk_conv){.out = C, .kernel = {3, 3}, .pad = {1, 1, 1, 1}, .groups = C});
    lk_node z = lk_graph_conv(g, "b", y, &(lk_conv){.out = WIDE, .kernel = {1, 1}});
    z = lk_graph_activation(g, NULL, z, LK_SILU);
    lk_node gate = lk_graph_linear(g, "c", lk_graph_global_avg_pool(g, NULL, z), 6, false);
    gate = lk_graph_linear(g, "d", lk_graph_activation(g, NULL, gate, LK_SILU), WIDE, false);
    z = lk_graph_multiply(g, NULL, z, lk_graph_activation(g, NULL, gate, LK_SIGMOID));
    z = lk_graph_add(g, NULL, lk_graph_conv(g, "e", z, &(lk_conv){.out = C, .kernel = {1, 1}}), y);
    z = lk_graph_global_avg_pool(g, NULL, z);
    z = lk_graph_activation(g, NULL, lk_graph_add(g, NULL, lk_graph_linear(g, "h", z, C, false), z), LK_RELU);
    lk_graph_output(g, lk_graph_linear(g, "f", z, OUT, false));
    assert_int_equal(lk_graph_initialise(g, 8), LK_OK);
    agrees_everywhere(g, 4, C * SIDE * SIDE, OUT, 2e-2);
    lk_graph_free(g);
}

/* Windows of every kind: three channels, strides, borders that differ, kernels that are not square, a last panel that
 * is narrow, windows longer than what is multiplied at a time, more lines than a block holds, with activations and a
 * sum behind them and a batch norm folded in. */
static void windows_are_right_in_any_batch_and_on_any_threads(void **state)
{
    (void)state;
    enum { H = 45, W = 58, OUT = 48 };
    lk_graph *g;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, 3, H, W});
    lk_node y = lk_graph_conv(
        g, "a", x, &(lk_conv){.out = 80, .kernel = {7, 7}, .stride = {2, 2}, .pad = {3, 3, 3, 3}, .no_bias = true});
    y = lk_graph_activation(g, NULL, lk_graph_batch_norm(g, "n", y, 1e-5f, 0.1f), LK_RELU);
    lk_node z =
        lk_graph_conv(g, "b", y, &(lk_conv){.out = 320, .kernel = {3, 2}, .stride = {2, 1}, .pad = {0, 1, 2, 0}});
    z = lk_graph_conv(g, "c", lk_graph_activation(g, NULL, z, LK_HARD_SWISH),
                      &(lk_conv){.out = OUT, .kernel = {2, 3}, .stride = {1, 3}});
    lk_node w = lk_graph_conv(g, "d", z, &(lk_conv){.out = OUT, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    z = lk_graph_activation(g, NULL, lk_graph_add(g, NULL, w, z), LK_RELU);
    z = lk_graph_conv(g, "e", z, &(lk_conv){.out = 16, .kernel = {1, 1}, .stride = {2, 2}});
    lk_graph_output(g, lk_graph_global_avg_pool(g, NULL, z));
    assert_int_equal(lk_graph_initialise(g, 8), LK_OK);
    agrees_everywhere(g, 4, 3 * H * W, 16, 2e-2);
    lk_graph_free(g);
}

/* 156 and 157 positions want their weights laid out differently, and two thirds of this map have the reference alone.
 */
static void pieces_are_done_the_way_the_whole_is(void **state)
{
    (void)state;
    enum { C = 128, H = 235, W = 2, OUT = 512 };
    lk_graph *g;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, C, H, W});
    lk_node y =
        lk_graph_activation(g, NULL, lk_graph_conv(g, "a", x, &(lk_conv){.out = OUT, .kernel = {1, 1}}), LK_RELU);
    lk_graph_output(g, lk_graph_global_avg_pool(g, NULL, y));
    assert_int_equal(lk_graph_initialise(g, 8), LK_OK);
    agrees_everywhere(g, 2, C * H * W, OUT, 2e-2);
    lk_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(swish_of_bf16_is_right_to_its_last_bit),
        cmocka_unit_test(kernel_variants_agree_with_the_plain_one),
        cmocka_unit_test(variants_agree_on_stored_numbers),
        cmocka_unit_test(attention_of_bf16_agrees_with_the_plain_one),
        cmocka_unit_test(own_products_are_right_in_any_batch_and_on_any_threads),
        cmocka_unit_test(squeezes_and_small_maps_are_right_in_any_batch_and_on_any_threads),
        cmocka_unit_test(windows_are_right_in_any_batch_and_on_any_threads),
        cmocka_unit_test(pieces_are_done_the_way_the_whole_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
