/* Whole steps of training against timm, PyTorch and PyTorch Metric Learning (tools/reference/train_step.py, float64).
 * LIKENESS_TRAIN_STEP_CASES names a folder with another steps.safetensors, for larger networks. */
#include "nn/safetensors.h"
#include "train/network.h"

#include "unit.h"

#include <math.h>

static lk_safetensors *file;
static lk_network net;
static size_t steps, batch, size;
static lk_schedule schedule;
static bool verbose;

static size_t number(const char *key)
{
    const char *text = lk_safetensors_metadata(file, key);
    assert_non_null(text);
    return (size_t)atoi(text);
}

static const lk_safetensor *fixture(const char *kind, const char *name, size_t n)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", kind, name);
    const lk_safetensor *t = lk_safetensors_find(file, full);
    if (!t) fail_msg("no fixture %s", full);
    assert_true(t->count == n);
    return t;
}

static float *floats(const char *kind, const char *name, size_t n)
{
    const lk_safetensor *t = fixture(kind, name, n);
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    lk_safetensor_to_f32(t, values);
    return values;
}

static int open_network(void **state)
{
    const char *folder = getenv("LIKENESS_TRAIN_STEP_CASES");
    char path[1024];
    unit_folder(state);
    snprintf(path, sizeof path, "%s/steps.safetensors", folder ? folder : UNIT_FIXTURES "/train");
    if (lk_safetensors_open(path, &file) != LK_OK) return -1;
    verbose = folder != NULL;
    steps = number("steps");
    batch = number("batch");
    size = number("size");
    double rate = atof(lk_safetensors_metadata(file, "base_rate")),
           decay = atof(lk_safetensors_metadata(file, "decay"));
    snprintf(path, sizeof path, "%s/net.json", (char *)*state);
    FILE *out = fopen(path, "w");
    fputs(lk_safetensors_metadata(file, "config"), out);
    fclose(out);
    lk_train_options options = lk_train_defaults();
    options.backbone = path;
    options.size = (uint32_t)size;
    options.batch = batch;
    options.head = (lk_head_options){.pool = LK_HEAD_GEM, .dim = number("dim"), .neck = true};
    options.optimiser = (lk_optimiser_options){.kind = LK_ADAMW, .rate = rate, .weight_decay = decay};
    options.layer_decay = options.loss_rate = 1;
    schedule = (lk_schedule){.kind = LK_RATE_COSINE, .rate = rate, .steps = steps, .warmup = number("warmup")};
    lk_loss_options loss = lk_loss_defaults(LK_LOSS_SUPCON);
    if (lk_network_open(&options, &loss, 0, 2, &net) != LK_OK) return -1;
    if (lk_network_add_optimiser(&net, &options) != LK_OK) return -1;
    for (size_t i = 0; i < net.tensor_count; i++)
        lk_safetensor_to_f32(fixture("start/", net.tensors[i].name, net.tensors[i].n), net.tensors[i].values);
    return 0;
}

static int close_network(void **state)
{
    lk_network_free(&net);
    lk_safetensors_free(file);
    return unit_folder_remove(state);
}

/* |got - expected| / |expected|, of the differences from `from` where there is one. */
static double difference(const float *got, const float *expected, const float *from, size_t n)
{
    double square = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)expected[i], e = (double)expected[i] - (from ? (double)from[i] : 0);
        square += d * d;
        all += e * e;
    }
    return sqrt(square / (all + 1e-30));
}

/* In front of a batch norm an offset has no gradient but rounding. */
static bool has_gradient(const lk_net_tensor *t)
{
    double square = 0;
    float *expected = t->gradients ? floats("gradient/", t->name, t->n) : NULL;
    for (size_t k = 0; expected && k < t->n; k++) square += (double)expected[k] * (double)expected[k];
    free(expected);
    return square > 1e-16 * (double)t->n;
}

static void one_step(size_t at, int32_t *classes, double *loss)
{
    const uint8_t *pixels = fixture("", "pixels", steps * batch * 3 * size * size)->data;
    size_t n = batch * 3 * size * size;
    float *input = malloc(n * sizeof *input);
    assert_non_null(input);
    for (size_t i = 0; i < n; i++) input[i] = (float)pixels[at * n + i] / 127.5f - 1;
    memcpy(classes, fixture("", "classes", batch)->data, batch * sizeof *classes);
    const lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = classes};
    const lk_miner_options all = lk_miner_defaults(LK_MINER_ALL);
    const lk_net_lesson lesson = {.labels = &labels, .miner = &all, .share = 1};
    assert_int_equal(lk_network_forward(&net, true, 0, input), LK_OK);
    assert_int_equal(lk_network_backward(&net, &lesson, loss), LK_OK);
    free(input);
}

static void compare_first(void)
{
    float *expected = floats("", "embedding", batch * net.dim);
    double d = difference(net.main.embedding, expected, NULL, batch * net.dim);
    bool same = d <= 1e-5;
    if (!same) print_error("embedding differs by %g of its size\n", d);
    free(expected);
    for (size_t i = 0; i < net.tensor_count; i++) {
        const lk_net_tensor *t = &net.tensors[i];
        if (!has_gradient(t)) continue;
        expected = floats("gradient/", t->name, t->n);
        d = difference(t->gradients, expected, NULL, t->n);
        if (verbose) print_message("gradient of %s: %.2g\n", t->name, d);
        /* a value that rounding puts on the other side of 0 passes its gradient on or not */
        if (!(d <= 1e-3)) {
            same = false;
            print_error("gradient of %s differs by %g of its size\n", t->name, d);
        }
        free(expected);
    }
    assert_true(same);
}

/* How far each tensor went. */
static void compare_last(void)
{
    bool same = true;
    for (size_t i = 0; i < net.tensor_count; i++) {
        const lk_net_tensor *t = &net.tensors[i];
        if (t->gradients && !has_gradient(t)) continue;
        float *expected = floats("end/", t->name, t->n), *start = floats("start/", t->name, t->n);
        double d = difference(t->values, expected, start, t->n);
        if (verbose) print_message("step of %s: %.2g\n", t->name, d);
        if (!(d <= 5e-3)) {
            same = false;
            print_error("%s went elsewhere in %zu steps, by %g of the way\n", t->name, steps, d);
        }
        free(expected);
        free(start);
    }
    assert_true(same);
}

static void whole_steps_are_those_of_pytorch(void **state)
{
    (void)state;
    float *losses = floats("", "loss", steps), *rates = floats("", "rate", steps);
    int32_t *classes = malloc(batch * sizeof *classes);
    assert_non_null(classes);
    for (size_t k = 0; k < steps; k++) {
        double loss, rate = lk_schedule_rate(&schedule, k);
        one_step(k, classes, &loss);
        if (verbose) print_message("loss %.6f, expected %.6f\n", loss, (double)losses[k]);
        if (!(fabs(loss - (double)losses[k]) <= (k ? 1e-3 : 1e-5) * loss))
            fail_msg("loss of step %zu: %.7g, not %.7g", k, loss, (double)losses[k]);
        assert_true(fabs(rate - (double)rates[k]) <= 1e-8);
        if (k == 0) compare_first();
        assert_int_equal(lk_network_step(&net, rate), LK_OK);
    }
    compare_last();
    free(losses);
    free(rates);
    free(classes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole_steps_are_those_of_pytorch)};
    return cmocka_run_group_tests(tests, open_network, close_network);
}
