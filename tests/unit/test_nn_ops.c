/* Every operator, forward and backward, against PyTorch (tools/reference/nn_ops.py, computed there in float64) and
 * against finite differences; in training, in inference with and without fusing. */
#include "base/random.h"
#include "nn/safetensors.h"
#include <likeness/nn.h>

#include "unit.h"

#include <math.h>

enum { MAX_X = 3 };

/* Builds a case's graph over its inputs. */
typedef lk_node (*build_fn)(lk_graph *g, const lk_node *x);

static lk_node conv_of(lk_graph *g, lk_node x, lk_conv conv)
{
    return lk_graph_conv(g, "c", x, &conv);
}
static lk_node conv(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0], (lk_conv){.out = 6, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
}
static lk_node conv_strided(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0],
                   (lk_conv){.out = 8, .kernel = {3, 5}, .stride = {2, 2}, .pad = {1, 1, 1, 1}, .no_bias = true});
}
static lk_node conv_dilated(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0], (lk_conv){.out = 4, .kernel = {3, 3}, .dilation = {2, 2}, .pad = {2, 2, 2, 2}});
}
static lk_node conv_grouped(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0], (lk_conv){.out = 12, .kernel = {3, 3}, .pad = {1, 1, 1, 1}, .groups = 4});
}
static lk_node conv_depthwise(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0],
                   (lk_conv){.out = 16, .kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}, .groups = 16});
}
static lk_node conv_depthwise5(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0], (lk_conv){.out = 16, .kernel = {5, 5}, .pad = {2, 2, 2, 2}, .groups = 16, .no_bias = true});
}
static lk_node conv_same(lk_graph *g, const lk_node *x)
{
    lk_conv c = {.out = 6, .kernel = {3, 3}, .stride = {2, 2}};
    lk_graph_same_padding(g, x[0], &c);
    return conv_of(g, x[0], c);
}
static lk_node conv_pointwise(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0], (lk_conv){.out = 32, .kernel = {1, 1}});
}
static lk_node conv_patches(lk_graph *g, const lk_node *x)
{
    return conv_of(g, x[0], (lk_conv){.out = 8, .kernel = {4, 4}, .stride = {4, 4}});
}
static lk_node batch_norm(lk_graph *g, const lk_node *x)
{
    return lk_graph_batch_norm(g, "b", x[0], 1e-5f, 0.1f);
}
static lk_node layer_norm(lk_graph *g, const lk_node *x)
{
    return lk_graph_layer_norm(g, "l", x[0], 1e-6f);
}
static lk_node linear(lk_graph *g, const lk_node *x)
{
    return lk_graph_linear(g, "f", x[0], 7, false);
}
static lk_node linear_no_bias(lk_graph *g, const lk_node *x)
{
    return lk_graph_linear(g, "f", x[0], 7, true);
}
static lk_node matmul(lk_graph *g, const lk_node *x)
{
    return lk_graph_matmul(g, NULL, x[0], x[1], false);
}
static lk_node matmul_transposed(lk_graph *g, const lk_node *x)
{
    return lk_graph_matmul(g, NULL, x[0], x[1], true);
}
static lk_node matmul_shared(lk_graph *g, const lk_node *x)
{
    return lk_graph_matmul(g, NULL, x[0], lk_graph_parameter(g, "w", 2, (int64_t[]){4, 6}), false);
}
static lk_node softmax(lk_graph *g, const lk_node *x)
{
    return lk_graph_softmax(g, NULL, x[0]);
}
static lk_node attention(lk_graph *g, const lk_node *x)
{
    return lk_graph_attention(g, NULL, x[0], x[1], x[2], &(lk_attention){.heads = 4});
}
static lk_node attention_causal(lk_graph *g, const lk_node *x)
{
    return lk_graph_attention(g, NULL, x[0], x[1], x[2], &(lk_attention){.heads = 2, .scale = 0.4f, .causal = true});
}
static lk_node attention_long(lk_graph *g, const lk_node *x)
{
    return lk_graph_attention(g, NULL, x[0], x[1], x[2], &(lk_attention){.heads = 2});
}
static lk_node attention_causal_wide(lk_graph *g, const lk_node *x)
{
    return lk_graph_attention_qkv(g, NULL, x[0], &(lk_attention){.heads = 2, .causal = true});
}
static lk_node attention_qkv(lk_graph *g, const lk_node *x)
{
    return lk_graph_attention_qkv(g, NULL, x[0], &(lk_attention){.heads = 3});
}
static lk_node attention_pool(lk_graph *g, const lk_node *x)
{
    lk_node q = lk_graph_parameter(g, "q", 3, (int64_t[]){1, 1, 16});
    return lk_graph_attention(g, NULL, q, x[0], x[1], &(lk_attention){.heads = 2});
}

#define ACTIVATION(name, kind)                                                                                         \
    static lk_node name(lk_graph *g, const lk_node *x)                                                                 \
    {                                                                                                                  \
        return lk_graph_activation(g, NULL, x[0], kind);                                                               \
    }
ACTIVATION(act_relu, LK_RELU)
ACTIVATION(act_relu6, LK_RELU6)
ACTIVATION(act_gelu, LK_GELU)
ACTIVATION(act_gelu_tanh, LK_GELU_TANH)
ACTIVATION(act_quick_gelu, LK_QUICK_GELU)
ACTIVATION(act_silu, LK_SILU)
ACTIVATION(act_sigmoid, LK_SIGMOID)
ACTIVATION(act_hard_swish, LK_HARD_SWISH)
ACTIVATION(act_hard_sigmoid, LK_HARD_SIGMOID)
ACTIVATION(act_tanh, LK_TANH)

static lk_node max_pool(lk_graph *g, const lk_node *x)
{
    return lk_graph_max_pool(g, NULL, x[0], &(lk_pool2d){.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}});
}
static lk_node max_pool_ceil(lk_graph *g, const lk_node *x)
{
    return lk_graph_max_pool(g, NULL, x[0], &(lk_pool2d){.kernel = {2, 2}, .ceil_mode = true});
}
static lk_node avg(lk_graph *g, lk_node x, bool ceil, bool count)
{
    return lk_graph_avg_pool(
        g, NULL, x,
        &(lk_pool2d){.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}, .ceil_mode = ceil, .count_pad = count});
}
static lk_node avg_pool(lk_graph *g, const lk_node *x)
{
    return avg(g, x[0], false, true);
}
static lk_node avg_pool_no_pad(lk_graph *g, const lk_node *x)
{
    return avg(g, x[0], true, false);
}
static lk_node avg_pool_ceil(lk_graph *g, const lk_node *x)
{
    return avg(g, x[0], true, true);
}
static lk_node adaptive_pool(lk_graph *g, const lk_node *x)
{
    return lk_graph_adaptive_avg_pool(g, NULL, x[0], 3, 4);
}
static lk_node global_avg(lk_graph *g, const lk_node *x)
{
    return lk_graph_global_avg_pool(g, NULL, x[0]);
}
static lk_node global_max(lk_graph *g, const lk_node *x)
{
    return lk_graph_global_max_pool(g, NULL, x[0]);
}
static lk_node mean_tokens(lk_graph *g, const lk_node *x)
{
    return lk_graph_mean_tokens(g, NULL, x[0]);
}
static lk_node add(lk_graph *g, const lk_node *x)
{
    return lk_graph_add(g, NULL, x[0], x[1]);
}
static lk_node multiply(lk_graph *g, const lk_node *x)
{
    return lk_graph_multiply(g, NULL, x[0], x[1]);
}
static lk_node add_positions(lk_graph *g, const lk_node *x)
{
    return lk_graph_add(g, NULL, x[0], lk_graph_parameter(g, "pos", 3, (int64_t[]){1, 5, 6}));
}
static lk_node add_channels(lk_graph *g, const lk_node *x)
{
    lk_node b = lk_graph_parameter(g, "bias", 1, (int64_t[]){5});
    return lk_graph_add(g, NULL, x[0], lk_graph_reshape(g, NULL, b, 3, (int64_t[]){5, 1, 1}));
}
static lk_node add_last(lk_graph *g, const lk_node *x)
{
    return lk_graph_add(g, NULL, lk_graph_parameter(g, "bias", 1, (int64_t[]){6}), x[0]);
}
static lk_node scale(lk_graph *g, const lk_node *x)
{
    return lk_graph_scale(g, NULL, x[0], "gamma");
}
static lk_node scale_by(lk_graph *g, const lk_node *x)
{
    return lk_graph_scale_by(g, NULL, x[0], 0.37f);
}
static lk_node concat(lk_graph *g, const lk_node *x)
{
    return lk_graph_concat(g, NULL, x, 2, 1);
}
static lk_node concat_token(lk_graph *g, const lk_node *x)
{
    lk_node parts[] = {lk_graph_parameter(g, "cls", 3, (int64_t[]){1, 1, 6}), x[0]};
    return lk_graph_concat(g, NULL, parts, 2, 1);
}
static lk_node slice(lk_graph *g, const lk_node *x)
{
    return lk_graph_slice(g, NULL, x[0], 1, 1, 4);
}
static lk_node slice_pictures(lk_graph *g, const lk_node *x)
{
    return lk_graph_slice(g, NULL, x[0], 1, 2, 5);
}
static lk_node reshape(lk_graph *g, const lk_node *x)
{
    return lk_graph_reshape(g, NULL, x[0], 4, (int64_t[]){LK_BATCH, 4, 5, 0});
}
static lk_node flatten(lk_graph *g, const lk_node *x)
{
    return lk_graph_reshape(g, NULL, x[0], 2, (int64_t[]){LK_BATCH, 0});
}
static lk_node transpose(lk_graph *g, const lk_node *x)
{
    return lk_graph_transpose(g, NULL, x[0], (int[]){0, 2, 1});
}
static lk_node transpose_pictures(lk_graph *g, const lk_node *x)
{
    return lk_graph_transpose(g, NULL, x[0], (int[]){0, 2, 3, 1});
}
static lk_node tokens(lk_graph *g, const lk_node *x)
{
    return lk_graph_tokens(g, NULL, x[0]);
}
static lk_node l2_normalise(lk_graph *g, const lk_node *x)
{
    return lk_graph_l2_normalise(g, NULL, x[0], 1e-12f);
}
static lk_node positions(lk_graph *g, lk_node x, lk_positions how)
{
    how.prefix = 1;
    lk_node p = lk_graph_parameter(g, "pos", 3, (int64_t[]){1, 1 + how.from[0] * how.from[1], 4});
    return lk_graph_add(g, NULL, x, lk_graph_interpolate_positions(g, NULL, p, &how));
}
static lk_node positions_up(lk_graph *g, const lk_node *x)
{
    return positions(g, x[0], (lk_positions){.from = {3, 4}, .to = {5, 6}});
}
static lk_node positions_up_antialias(lk_graph *g, const lk_node *x)
{
    return positions(g, x[0], (lk_positions){.from = {3, 4}, .to = {5, 6}, .antialias = true});
}
static lk_node positions_down(lk_graph *g, const lk_node *x)
{
    return positions(g, x[0], (lk_positions){.from = {7, 6}, .to = {3, 4}});
}
static lk_node positions_down_antialias(lk_graph *g, const lk_node *x)
{
    return positions(g, x[0], (lk_positions){.from = {7, 6}, .to = {3, 4}, .antialias = true});
}
static lk_node embedding(lk_graph *g, const lk_node *x)
{
    return lk_graph_embedding(g, "e", x[0], 10, 6);
}
static lk_node pick_largest(lk_graph *g, const lk_node *x)
{
    return lk_graph_pick_token(g, NULL, x[0], x[1], -1);
}
static lk_node pick_token(lk_graph *g, const lk_node *x)
{
    return lk_graph_pick_token(g, NULL, x[0], x[1], 2);
}
static lk_node block_residual(lk_graph *g, const lk_node *x)
{
    lk_conv c = {.out = 16, .kernel = {3, 3}, .pad = {1, 1, 1, 1}, .no_bias = true};
    lk_node first = lk_graph_activation(g, NULL, x[0], LK_RELU);
    lk_node y = lk_graph_batch_norm(g, "b1", lk_graph_conv(g, "c1", first, &c), 1e-5f, 0.1f);
    y = lk_graph_activation(g, NULL, y, LK_RELU);
    y = lk_graph_batch_norm(g, "b2", lk_graph_conv(g, "c2", y, &c), 1e-5f, 0.1f);
    return lk_graph_activation(g, NULL, lk_graph_add(g, NULL, y, first), LK_RELU);
}
static lk_node block_transformer(lk_graph *g, const lk_node *x)
{
    lk_node y = lk_graph_linear(g, "qkv", lk_graph_layer_norm(g, "n1", x[0], 1e-6f), 72, false);
    y = lk_graph_attention_qkv(g, NULL, y, &(lk_attention){.heads = 3});
    y = lk_graph_scale(g, NULL, lk_graph_linear(g, "proj", y, 24, false), "gamma");
    lk_node sum = lk_graph_add(g, NULL, x[0], lk_graph_drop_path(g, NULL, y, 0.5f));
    y = lk_graph_linear(g, "fc1", lk_graph_layer_norm(g, "n2", sum, 1e-6f), 48, false);
    y = lk_graph_linear(g, "fc2", lk_graph_activation(g, NULL, y, LK_GELU), 24, false);
    return lk_graph_add(g, NULL, sum, lk_graph_dropout(g, NULL, y, 0.5f));
}

typedef struct op_case {
    const char *name;
    build_fn build;
    bool train;  /* batch statistics */
    bool kinked; /* not smooth: finite differences would step over kinks */
} op_case;

static const op_case cases[] = {
    {"conv", conv},
    {"conv_strided", conv_strided},
    {"conv_dilated", conv_dilated},
    {"conv_grouped", conv_grouped},
    {"conv_depthwise", conv_depthwise},
    {"conv_depthwise5", conv_depthwise5},
    {"conv_same", conv_same},
    {"conv_pointwise", conv_pointwise},
    {"conv_patches", conv_patches},
    {"batch_norm_eval", batch_norm},
    {"batch_norm_train", batch_norm, .train = true},
    {"batch_norm_rows", batch_norm, .train = true},
    {"layer_norm", layer_norm},
    {"layer_norm_pictures", layer_norm},
    {"linear", linear},
    {"linear_no_bias", linear_no_bias},
    {"matmul", matmul},
    {"matmul_transposed", matmul_transposed},
    {"matmul_shared", matmul_shared},
    {"softmax", softmax},
    {"attention", attention},
    {"attention_causal", attention_causal},
    {"attention_qkv", attention_qkv},
    {"attention_long", attention_long},
    {"attention_causal_wide", attention_causal_wide},
    {"attention_pool", attention_pool},
    {"act_relu", act_relu, .kinked = true},
    {"act_relu6", act_relu6, .kinked = true},
    {"act_gelu", act_gelu},
    {"act_gelu_tanh", act_gelu_tanh},
    {"act_quick_gelu", act_quick_gelu},
    {"act_silu", act_silu},
    {"act_sigmoid", act_sigmoid},
    {"act_hard_swish", act_hard_swish, .kinked = true},
    {"act_hard_sigmoid", act_hard_sigmoid, .kinked = true},
    {"act_tanh", act_tanh},
    {"max_pool", max_pool, .kinked = true},
    {"max_pool_ceil", max_pool_ceil, .kinked = true},
    {"avg_pool", avg_pool},
    {"avg_pool_no_pad", avg_pool_no_pad},
    {"avg_pool_ceil", avg_pool_ceil},
    {"adaptive_pool", adaptive_pool},
    {"global_avg", global_avg},
    {"global_max", global_max, .kinked = true},
    {"mean_tokens", mean_tokens},
    {"add", add},
    {"multiply", multiply},
    {"multiply_gate", multiply},
    {"multiply_gate_first", multiply},
    {"multiply_map", multiply},
    {"add_positions", add_positions},
    {"add_channels", add_channels},
    {"add_last", add_last},
    {"scale", scale},
    {"scale_pictures", scale},
    {"scale_by", scale_by},
    {"concat", concat},
    {"concat_token", concat_token},
    {"slice", slice},
    {"slice_pictures", slice_pictures},
    {"reshape", reshape},
    {"flatten", flatten},
    {"transpose", transpose},
    {"transpose_pictures", transpose_pictures},
    {"tokens", tokens},
    {"l2_normalise", l2_normalise},
    {"positions_up", positions_up},
    {"positions_up_antialias", positions_up_antialias},
    {"positions_down", positions_down},
    {"positions_down_antialias", positions_down_antialias},
    {"embedding", embedding},
    {"pick_largest", pick_largest},
    {"pick_token", pick_token},
    {"block_residual", block_residual, .kinked = true},
    {"block_transformer", block_transformer},
};

static lk_safetensors *files[3];

static int open_fixtures(void **state)
{
    (void)state;
    return lk_safetensors_open(UNIT_FIXTURES "/nn/products.safetensors", &files[0]) != LK_OK ||
           lk_safetensors_open(UNIT_FIXTURES "/nn/blocks.safetensors", &files[1]) != LK_OK ||
           lk_safetensors_open(UNIT_FIXTURES "/nn/others.safetensors", &files[2]) != LK_OK;
}

static int close_fixtures(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) lk_safetensors_free(files[i]);
    return 0;
}

static const lk_safetensor *fixture(const op_case *c, const char *what)
{
    char name[128];
    const lk_safetensor *t = NULL;
    snprintf(name, sizeof name, "%s/%s", c->name, what);
    for (int i = 0; i < 3 && !t; i++) t = lk_safetensors_find(files[i], name);
    return t;
}

static float *floats(const lk_safetensor *t)
{
    float *values = test_malloc(sizeof *values * t->count);
    lk_safetensor_to_f32(t, values);
    return values;
}

/* One case: its graph with loaded parameters, its inputs. */
typedef struct setting {
    const op_case *c;
    lk_graph *graph;
    lk_node output;
    int count;
    void *x[MAX_X]; /* float or int32_t */
    size_t elements[MAX_X];
    bool integer[MAX_X];
    int64_t batch;
    size_t out_elements;
} setting;

static void load_parameters(lk_graph *g, const op_case *c)
{
    for (size_t i = 0; i < lk_graph_parameter_count(g); i++) {
        lk_parameter p = lk_graph_parameter_at(g, i);
        char what[96];
        snprintf(what, sizeof what, "p/%s", p.name);
        const lk_safetensor *t = fixture(c, what);
        if (!t) fail_msg("%s: no fixture of %s", c->name, p.name);
        lk_tensor tensor = {.type = LK_TYPE_F32, .rank = (int)t->rank, .data = t->data};
        for (uint32_t d = 0; d < t->rank; d++) tensor.dims[d] = (int64_t)t->shape[d];
        if (lk_graph_load(g, p.name, &tensor) != LK_OK) fail_msg("%s: %s", c->name, lk_error_message());
    }
}

static setting set_up(const op_case *c)
{
    setting s = {.c = c};
    lk_node nodes[MAX_X];
    assert_int_equal(lk_graph_new(&s.graph), LK_OK);
    for (; s.count < MAX_X; s.count++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", s.count);
        const lk_safetensor *t = fixture(c, name);
        if (!t) break;
        int64_t dims[LK_MAX_DIMS] = {LK_BATCH};
        for (uint32_t d = 1; d < t->rank; d++) dims[d] = (int64_t)t->shape[d];
        s.integer[s.count] = t->dtype == LK_ST_I32;
        s.batch = (int64_t)t->shape[0];
        s.elements[s.count] = t->count;
        s.x[s.count] = test_malloc(4 * t->count);
        memcpy(s.x[s.count], t->data, 4 * t->count);
        nodes[s.count] =
            lk_graph_input(s.graph, name, s.integer[s.count] ? LK_TYPE_I32 : LK_TYPE_F32, (int)t->rank, dims);
    }
    s.output = c->build(s.graph, nodes);
    lk_graph_output(s.graph, s.output);
    if (lk_graph_check(s.graph) != LK_OK) fail_msg("%s: %s", c->name, lk_error_message());
    load_parameters(s.graph, c);
    s.out_elements = fixture(c, "y")->count;
    return s;
}

static void tear_down(setting *s)
{
    for (int i = 0; i < s->count; i++) test_free(s->x[i]);
    lk_graph_free(s->graph);
}

/* Differences are taken relative to the largest value of the tensor. */
static void assert_close(const op_case *c, const char *what, const float *got, double tolerance)
{
    const lk_safetensor *t = fixture(c, what);
    if (!t) fail_msg("%s: no fixture %s", c->name, what);
    float *expected = floats(t);
    double largest = 0;
    for (size_t i = 0; i < t->count; i++) largest = fmax(largest, fabs((double)expected[i]));
    for (size_t i = 0; i < t->count; i++)
        if (!(fabs((double)got[i] - (double)expected[i]) <= tolerance * largest))
            fail_msg("%s %s[%zu]: %.9g, not %.9g (largest %.9g)", c->name, what, i, (double)got[i], (double)expected[i],
                     largest);
    test_free(expected);
}

static void run_inference(setting *s, const lk_compile_options *options, float *y)
{
    lk_executor *e;
    if (lk_graph_compile(s->graph, options, &e) != LK_OK) fail_msg("%s: %s", s->c->name, lk_error_message());
    assert_int_equal(lk_executor_run(e, s->batch, (const void *const *)s->x, &y), LK_OK);
    lk_executor_free(e);
}

static void inference_agrees_with_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].train) continue;
        setting s = set_up(&cases[i]);
        float *y = test_malloc(s.out_elements * sizeof *y);
        for (int variant = 0; variant < 4; variant++) {
            lk_compile_options options = {
                .batch = s.batch, .threads = 1 + variant / 2, .no_fusion = variant % 2, .no_reuse = variant % 2};
            run_inference(&s, &options, y);
            assert_close(&cases[i], "y", y, 1e-5);
        }
        test_free(y);
        tear_down(&s);
    }
}

static void training_agrees_with_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const op_case *c = &cases[i];
        for (int threads = 1; threads <= 2; threads++) {
            setting s = set_up(c);
            lk_training *t;
            if (lk_graph_compile_training(s.graph, &(lk_training_options){.batch = s.batch, .threads = threads}, &t) !=
                LK_OK)
                fail_msg("%s: %s", c->name, lk_error_message());
            float *y = test_malloc(s.out_elements * sizeof *y), *gy = floats(fixture(c, "gy")), *gx[MAX_X] = {NULL};
            for (int k = 0; k < s.count; k++) gx[k] = s.integer[k] ? NULL : test_malloc(s.elements[k] * sizeof(float));
            assert_int_equal(lk_training_forward(t, c->train, (const void *const *)s.x, &y), LK_OK);
            assert_close(c, "y", y, 1e-5);
            /* twice: gradients of parameters add up, those of inputs do not */
            for (int round = 0; round < 2; round++)
                assert_int_equal(lk_training_backward(t, (const float *const *)&gy, gx), LK_OK);
            char what[96];
            for (int k = 0; k < s.count; k++) {
                snprintf(what, sizeof what, "gx%d", k);
                if (gx[k]) assert_close(c, what, gx[k], 2e-5);
                test_free(gx[k]);
            }
            for (size_t p = 0; p < lk_graph_parameter_count(s.graph); p++) {
                lk_parameter info = lk_graph_parameter_at(s.graph, p);
                float *g = lk_training_gradient(t, p);
                assert_int_equal(g == NULL, info.buffer);
                snprintf(what, sizeof what, "%s/%s", info.buffer ? "after" : "gp", info.name);
                if (g) {
                    for (size_t k = 0; k < info.elements; k++) g[k] /= 2;
                    assert_close(c, what, g, 2e-5);
                } else if (c->train) {
                    assert_close(c, what, lk_graph_values(s.graph, p), 1e-5);
                }
            }
            test_free(y);
            test_free(gy);
            lk_training_free(t);
            tear_down(&s);
        }
    }
}

/* Sum of gy * y in double: the function whose gradients backward gives. */
static double value_of(lk_training *t, const setting *s, const float *gy, float *y)
{
    double sum = 0;
    assert_int_equal(lk_training_forward(t, s->c->train, (const void *const *)s->x, &y), LK_OK);
    for (size_t i = 0; i < s->out_elements; i++) sum += (double)gy[i] * (double)y[i];
    return sum;
}

/* Moves `values` by +-h along a random direction and compares the slope with the gradient along it. f32 leaves a noise
 * of about 1e-7 of the sum of |gy y| in each value, thus the step of 2^-6 and the tolerance of 0.5 %. */
static void compare_slope(lk_training *t, const setting *s, const float *gy, float *y, float *values,
                          const float *gradient, size_t n, const char *what, lk_random *random)
{
    const float h = 0x1p-6f;
    float *start = test_malloc(n * sizeof *start);
    double slope = 0, size = 0, side[2];
    memcpy(start, values, n * sizeof *start);
    int *direction = test_malloc(n * sizeof *direction);
    for (size_t i = 0; i < n; i++) {
        direction[i] = lk_random_below(random, 2) ? 1 : -1;
        slope += direction[i] * (double)gradient[i];
        size += fabs((double)gradient[i]);
    }
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < n; i++) values[i] = start[i] + (k ? -h : h) * (float)direction[i] / sqrtf((float)n);
        side[k] = value_of(t, s, gy, y);
    }
    memcpy(values, start, n * sizeof *start);
    double measured = (side[0] - side[1]) / (2 * (double)h) * sqrt((double)n);
    if (!(fabs(measured - slope) <= 5e-3 * (size + 1)))
        fail_msg("%s: slope of %s is %.9g, backward says %.9g", s->c->name, what, measured, slope);
    test_free(start);
    test_free(direction);
}

static void gradients_match_finite_differences(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 11);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const op_case *c = &cases[i];
        if (c->kinked) continue;
        setting s = set_up(c);
        lk_training *t;
        assert_int_equal(lk_graph_compile_training(s.graph, &(lk_training_options){.batch = s.batch}, &t), LK_OK);
        float *y = test_malloc(s.out_elements * sizeof *y), *gy = floats(fixture(c, "gy")), *gx[MAX_X] = {NULL};
        for (int k = 0; k < s.count; k++) gx[k] = s.integer[k] ? NULL : test_malloc(s.elements[k] * sizeof(float));
        value_of(t, &s, gy, y);
        assert_int_equal(lk_training_backward(t, (const float *const *)&gy, gx), LK_OK);
        for (int k = 0; k < s.count; k++) {
            if (gx[k]) compare_slope(t, &s, gy, y, s.x[k], gx[k], s.elements[k], "an input", &random);
            test_free(gx[k]);
        }
        for (size_t p = 0; p < lk_graph_parameter_count(s.graph); p++) {
            lk_parameter info = lk_graph_parameter_at(s.graph, p);
            float *values, *gradient = lk_training_gradient(t, p);
            if (!gradient) continue;
            assert_int_equal(lk_graph_values_writable(s.graph, p, &values), LK_OK);
            compare_slope(t, &s, gy, y, values, gradient, info.elements, info.name, &random);
        }
        test_free(y);
        test_free(gy);
        lk_training_free(t);
        tear_down(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inference_agrees_with_pytorch),
        cmocka_unit_test(training_agrees_with_pytorch),
        cmocka_unit_test(gradients_match_finite_differences),
    };
    return cmocka_run_group_tests(tests, open_fixtures, close_fixtures);
}
