/* Optimisers and schedules against PyTorch and timm (tools/reference/nn_optim.py, float64). */
#include "nn/safetensors.h"
#include <likeness/nn.h>

#include "unit.h"

#include <math.h>

static lk_safetensors *file;

static int open_fixtures(void **state)
{
    (void)state;
    return lk_safetensors_open(UNIT_FIXTURES "/nn/optim.safetensors", &file) != LK_OK;
}

static int close_fixtures(void **state)
{
    (void)state;
    lk_safetensors_free(file);
    return 0;
}

/* The fixtures are F64. */
static const double *doubles(const char *format, const char *name, int i, size_t *n)
{
    char full[64];
    snprintf(full, sizeof full, format, name, i);
    const lk_safetensor *t = lk_safetensors_find(file, full);
    if (!t) fail_msg("no fixture %s", full);
    assert_int_equal(t->dtype, LK_ST_F64);
    if (n) *n = t->count;
    return t->data;
}

static double at(const double *unaligned, size_t i)
{
    double x;
    memcpy(&x, (const char *)unaligned + 8 * i, 8);
    return x;
}

typedef struct problem {
    float w[2][64], g[2][64];
    const double *curve[2], *goal[2];
    size_t n[2];
    lk_optimiser *optimiser;
} problem;

static void start(problem *p, const lk_optimiser_options *options)
{
    assert_int_equal(lk_optimiser_new(options, &p->optimiser), LK_OK);
    for (int i = 0; i < 2; i++) {
        const double *w = doubles("%s%d", "start", i, &p->n[i]);
        for (size_t k = 0; k < p->n[i]; k++) p->w[i][k] = (float)at(w, k);
        p->curve[i] = doubles("%s%d", "curve", i, NULL);
        p->goal[i] = doubles("%s%d", "goal", i, NULL);
        assert_int_equal(lk_optimiser_add(p->optimiser, p->w[i], p->g[i], p->n[i], i ? 0.1 : 1, i ? 0 : 1, NULL),
                         LK_OK);
    }
}

static void step(problem *p)
{
    for (int i = 0; i < 2; i++)
        for (size_t k = 0; k < p->n[i]; k++)
            p->g[i][k] = (float)(at(p->curve[i], k) * ((double)p->w[i][k] - at(p->goal[i], k)));
    assert_int_equal(lk_optimiser_step(p->optimiser, -1, NULL), LK_OK);
}

static void compare(const char *name, const char *what, int i, const float *got, const double *expected, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (!(fabs((double)got[k] - at(expected, k)) <= 2e-5))
            fail_msg("%s, %s of tensor %d [%zu]: %.9g, not %.9g", name, what, i, k, (double)got[k], at(expected, k));
}

static void fifty_steps_are_those_of_pytorch(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        lk_optimiser_options options;
    } runs[] = {
        {"sgd", {.kind = LK_SGD, .rate = 0.05}},
        {"sgd_momentum", {.kind = LK_SGD, .rate = 0.05, .momentum = 0.9, .weight_decay = 0.02, .ema = 0.9}},
        {"sgd_nesterov",
         {.kind = LK_SGD, .rate = 0.05, .momentum = 0.9, .nesterov = true, .weight_decay = 0.02, .clip_norm = 1}},
        {"adamw", {.kind = LK_ADAMW, .rate = 0.01, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-7, .weight_decay = 0.1}},
        {"lamb", {.kind = LK_LAMB, .rate = 0.02, .weight_decay = 0.05}},
    };
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        problem p = {0};
        start(&p, &runs[r].options);
        for (int t = 1, row = 0; t <= 50; t++) {
            step(&p);
            if (t != 1 && t != 10 && t != 50) continue;
            for (int i = 0; i < 2; i++)
                compare(runs[r].name, "weights", i, p.w[i],
                        doubles("%s/w%d", runs[r].name, i, NULL) + (size_t)row * p.n[i], p.n[i]);
            row++;
        }
        for (int i = 0; i < 2 && runs[r].options.ema > 0; i++)
            compare(runs[r].name, "average", i, lk_optimiser_average(p.optimiser, (size_t)i),
                    doubles("%s/ema%d", runs[r].name, i, NULL), p.n[i]);
        lk_optimiser_free(p.optimiser);
    }
}

static void training_goes_on_from_a_saved_state(void **state)
{
    (void)state;
    const lk_optimiser_options options = {.kind = LK_ADAMW, .rate = 0.01, .weight_decay = 0.1, .ema = 0.99};
    problem a = {0}, b = {0};
    start(&a, &options);
    start(&b, &options);
    for (int t = 0; t < 7; t++) step(&a);
    size_t size = lk_optimiser_state_size(a.optimiser);
    void *bytes = test_malloc(size);
    lk_optimiser_state_save(a.optimiser, bytes);
    assert_int_equal(lk_optimiser_state_load(b.optimiser, bytes, size), LK_OK);
    assert_int_equal(lk_optimiser_state_load(b.optimiser, bytes, size - 4), LK_CORRUPT);
    memcpy(b.w, a.w, sizeof a.w);
    for (int t = 0; t < 7; t++) {
        step(&a);
        step(&b);
    }
    assert_memory_equal(a.w, b.w, sizeof a.w);
    assert_memory_equal(lk_optimiser_average(a.optimiser, 0), lk_optimiser_average(b.optimiser, 0),
                        a.n[0] * sizeof(float));
    test_free(bytes);
    lk_optimiser_free(a.optimiser);
    lk_optimiser_free(b.optimiser);
}

/* Tensors of several pieces and of few numbers, with the norm over all of them. */
static void threads_do_not_change_a_step(void **state)
{
    (void)state;
    enum { LARGE = 70001, SMALL = 5, TENSORS = 4 };
    float *w[2], *g = test_malloc(TENSORS * LARGE * sizeof *g);
    double norm[2];
    for (int i = 0; i < TENSORS * LARGE; i++) g[i] = (float)sin(i);
    for (int threads = 1; threads <= 2; threads++) {
        const lk_optimiser_options options = {
            .kind = LK_ADAMW, .rate = 0.01, .weight_decay = 0.1, .clip_norm = 1, .ema = 0.9, .threads = threads};
        lk_optimiser *o;
        float *values = w[threads - 1] = test_malloc(TENSORS * LARGE * sizeof *values);
        for (int i = 0; i < TENSORS * LARGE; i++) values[i] = (float)cos(i);
        assert_int_equal(lk_optimiser_new(&options, &o), LK_OK);
        for (int i = 0; i < TENSORS; i++)
            assert_int_equal(lk_optimiser_add(o, values + i * LARGE, g + i * LARGE, i % 2 ? SMALL : LARGE, 1, 1, NULL),
                             LK_OK);
        for (int t = 0; t < 3; t++) assert_int_equal(lk_optimiser_step(o, -1, &norm[threads - 1]), LK_OK);
        lk_optimiser_free(o);
    }
    assert_memory_equal(w[0], w[1], TENSORS * LARGE * sizeof *w[0]);
    assert_true(norm[0] == norm[1]);
    double square = 0;
    for (int i = 0; i < TENSORS; i++)
        for (int k = 0; k < (i % 2 ? SMALL : LARGE); k++) square += (double)g[i * LARGE + k] * (double)g[i * LARGE + k];
    assert_true(fabs(norm[0] - sqrt(square)) <= 1e-9 * norm[0]);
    test_free(w[0]);
    test_free(w[1]);
    test_free(g);
}

static void gradients_that_are_not_finite_change_nothing(void **state)
{
    (void)state;
    problem p = {0}, before;
    start(&p, &(lk_optimiser_options){.kind = LK_ADAMW, .rate = 0.01});
    step(&p);
    before = p;
    p.g[0][3] = NAN;
    assert_int_equal(lk_optimiser_step(p.optimiser, -1, NULL), LK_CORRUPT);
    assert_memory_equal(p.w, before.w, sizeof p.w);
    p.g[0][3] = before.g[0][3];
    assert_int_equal(lk_optimiser_step(p.optimiser, 0, NULL), LK_OK);
    assert_memory_equal(p.w, before.w, sizeof p.w); /* a rate of 0 */
    lk_optimiser_free(p.optimiser);
}

static void clipping_limits_values_and_reports_the_norm(void **state)
{
    (void)state;
    float w[2] = {0, 0}, g[2] = {30, -4};
    double norm;
    lk_optimiser *o;
    assert_int_equal(lk_optimiser_new(&(lk_optimiser_options){.kind = LK_SGD, .rate = 1, .clip_value = 3}, &o), LK_OK);
    assert_int_equal(lk_optimiser_add(o, w, g, 2, 1, 1, NULL), LK_OK);
    assert_int_equal(lk_optimiser_step(o, -1, &norm), LK_OK);
    assert_true(w[0] == -3 && w[1] == 3);
    assert_true(fabs(norm - sqrt(18)) < 1e-6);
    lk_optimiser_free(o);
}

static void settings_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    lk_optimiser *o;
    assert_int_equal(lk_optimiser_new(&(lk_optimiser_options){.kind = LK_SGD, .rate = -1}, &o), LK_INVALID);
    assert_int_equal(lk_optimiser_new(&(lk_optimiser_options){.kind = LK_SGD, .nesterov = true}, &o), LK_INVALID);
    assert_int_equal(lk_optimiser_new(&(lk_optimiser_options){.kind = LK_ADAMW, .beta2 = 1}, &o), LK_INVALID);
    assert_int_equal(lk_optimiser_new(&(lk_optimiser_options){.kind = LK_ADAMW, .rate = NAN}, &o), LK_INVALID);
}

static void schedules_are_those_of_pytorch(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        lk_schedule schedule;
    } runs[] = {
        {"cosine", {.kind = LK_RATE_COSINE, .rate = 0.5, .final_rate = 0.01, .steps = 40}},
        {"step", {.kind = LK_RATE_STEP, .rate = 0.5, .step = 7, .gamma = 0.3}},
        {"one_cycle", {.kind = LK_RATE_ONE_CYCLE, .rate = 0.5, .steps = 40}},
        {"one_cycle_long_rise",
         {.kind = LK_RATE_ONE_CYCLE, .rate = 0.5, .steps = 33, .up = 0.6, .div = 10, .final_div = 100}},
    };
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        char name[64];
        snprintf(name, sizeof name, "schedule/%s", runs[r].name);
        const lk_safetensor *t = lk_safetensors_find(file, name);
        assert_non_null(t);
        for (size_t i = 0; i < t->count; i++) {
            double got = lk_schedule_rate(&runs[r].schedule, i), expected = at(t->data, i);
            if (!(fabs(got - expected) <= 1e-9))
                fail_msg("%s, step %zu: %.12g, not %.12g", runs[r].name, i, got, expected);
        }
    }
    lk_schedule s = {.kind = LK_RATE_CONSTANT, .rate = 1, .warmup = 3};
    assert_true(lk_schedule_rate(&s, 0) == 0.25 && lk_schedule_rate(&s, 2) == 0.75 && lk_schedule_rate(&s, 3) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifty_steps_are_those_of_pytorch),
        cmocka_unit_test(training_goes_on_from_a_saved_state),
        cmocka_unit_test(threads_do_not_change_a_step),
        cmocka_unit_test(gradients_that_are_not_finite_change_nothing),
        cmocka_unit_test(clipping_limits_values_and_reports_the_norm),
        cmocka_unit_test(settings_that_make_no_sense_are_refused),
        cmocka_unit_test(schedules_are_those_of_pytorch),
    };
    return cmocka_run_group_tests(tests, open_fixtures, close_fixtures);
}
