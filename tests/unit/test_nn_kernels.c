/* Kernels of our own within graphs, and their variants. */
#include "base/cpu.h"
#include "base/random.h"
#include "nn/kernels.h"
#include <likeness/nn.h>

#include "unit.h"

#include <math.h>

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

/* What kernels of our own multiply: 3x3 convolutions with tiles that do not fit the picture, more than one block of
 * them, products of tokens with all that may follow them, an activation after strips of a picture. The bytes are those
 * of one thread and one picture; the numbers those of training, which has other kernels. */
static void own_products_are_right_in_any_batch_and_on_any_threads(void **state)
{
    (void)state;
    enum { C = 64, H = 30, W = 37, N = 4, IN = C * H * W, OUT = 128 };
    lk_graph *g;
    lk_training *t;
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
    lk_random random;
    lk_random_seed(&random, 4);
    float *in = test_malloc(N * IN * sizeof *in), exact[N * OUT], one[N * OUT], many[N * OUT];
    for (int i = 0; i < N * IN; i++) in[i] = (float)lk_random_normal(&random);
    for (int64_t i = 0; i < N; i++) {
        assert_int_equal(lk_graph_compile_training(g, &(lk_training_options){.batch = 1}, &t), LK_OK);
        assert_int_equal(lk_training_forward(t, false, (const void *[]){in + i * IN}, (float *[]){exact + i * OUT}),
                         LK_OK);
        lk_training_free(t);
    }
    double largest = 0;
    for (int i = 0; i < N * OUT; i++) largest = fmax(largest, fabs((double)exact[i]));
    for (int precision = LK_PRECISION_F32; precision <= LK_PRECISION_BF16; precision++) {
        if (precision == LK_PRECISION_BF16 && !(lk_cpu_detect() & LK_CPU_AVX512_BF16)) continue;
        run_in_batches(g, (lk_precision)precision, 1, 1, N, in, IN, one, OUT);
        for (int i = 0; i < N * OUT; i++)
            assert_true(fabs((double)one[i] - (double)exact[i]) <=
                        largest * (precision == LK_PRECISION_F32 ? 1e-5 : 1e-2));
        for (int threads = 1; threads <= 3; threads++) {
            for (int64_t batch = 1; batch <= N; batch *= 2) {
                run_in_batches(g, (lk_precision)precision, threads, batch, N, in, IN, many, OUT);
                assert_memory_equal(one, many, sizeof one);
            }
        }
    }
    test_free(in);
    lk_graph_free(g);
}

/* bf16 keeps eight bits: one off in the last, for what is not nearly nothing. Far out it is x, or nothing. */
static void swish_of_bf16_is_right_to_its_last_bit(void **state)
{
    (void)state;
    const lk_nn_kernels *k = lk_nn_kernels_for(lk_cpu_detect());
    enum { N = 1001 };
    float x[N], y[N];
    uint16_t stored[N];
    for (int i = 0; i < N; i++) x[i] = (float)(i - 500) * 0.031f;
    x[0] = -1e4f;
    x[1] = 1e4f;
    x[2] = NAN;
    k->store(LK_TYPE_BF16, 1, x, N, stored);
    k->load(LK_TYPE_BF16, 1, stored, N, x);
    k->swish(LK_TYPE_BF16, 1, stored, N);
    k->load(LK_TYPE_BF16, 1, stored, N, y);
    assert_true(fabsf(y[0]) < 1e-30f && y[1] == x[1] && isnan(y[2]));
    for (int i = 3; i < N; i++) {
        double exact = (double)x[i] / (1 + exp(-(double)x[i]));
        assert_true(fabs((double)y[i] - exact) <= fabs(exact) * 0x1p-8 + 1e-30);
    }
}

static void kernel_variants_agree_with_the_plain_one(void **state)
{
    (void)state;
    static const unsigned sets[] = {LK_CPU_AVX2, LK_CPU_AVX512};
    lk_random random;
    lk_random_seed(&random, 2);
    for (size_t v = 0; v < 2; v++) {
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
            k->swish(LK_TYPE_F32, 1.702f, a, n);
            plain->swish(LK_TYPE_F32, 1.702f, b, n);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_products_are_right_in_any_batch_and_on_any_threads),
        cmocka_unit_test(swish_of_bf16_is_right_to_its_last_bit),
        cmocka_unit_test(kernel_variants_agree_with_the_plain_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
