/* Losses against PyTorch Metric Learning, Open Metric Learning and equations in PyTorch (tests/fixtures/losses.h), and
 * against finite differences. Tolerance against the reference: 1e-5 of the value, and 1e-5 of the largest component for
 * gradients. */
#include "unit.h"

#include "../fixtures/losses.h"
#include "base/random.h"

#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
static const double tolerance = 1e-5;

static lk_labels labels_of(const struct fixture_case *c)
{
    if (c->multi) return (lk_labels){.kind = LK_LABELS_MULTI, .set_at = fixture_set_at, .sets = fixture_sets};
    return (lk_labels){.kind = LK_LABELS_SINGLE, .classes = fixture_y[c->batch]};
}

/* The fixture's arrays are const; losses only read them. */
static lk_tuples tuples_of(int number)
{
    return (lk_tuples){fixture_tuples[number].triplets,
                       fixture_tuples[number].positives,
                       fixture_tuples[number].negatives,
                       (uint32_t *)(uintptr_t)fixture_tuples[number].a,
                       (uint32_t *)(uintptr_t)fixture_tuples[number].p,
                       (uint32_t *)(uintptr_t)fixture_tuples[number].b,
                       (uint32_t *)(uintptr_t)fixture_tuples[number].n};
}

static lk_loss *loss_of(const struct fixture_case *c)
{
    lk_loss_options options = lk_loss_defaults(c->kind);
    lk_loss *loss = NULL;
    size_t count;
    if (c->set) c->set(&options);
    if (lk_loss_new(&options, FIXTURE_DIM, 1, &loss)) fail_msg("%s: %s", c->name, lk_error_message());
    float *parameters = lk_loss_parameters(loss, &count);
    assert_int_equal(count, c->count);
    if (count) memcpy(parameters, c->parameters, count * sizeof *parameters);
    return loss;
}

static double largest(const float *x, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)x[i]));
    return most;
}

/* Largest difference over the largest component expected. */
static double error_of(const float *got, const float *expected, size_t n)
{
    double worst = 0, most = largest(expected, n);
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)got[i] - (double)expected[i]));
    return worst == 0 ? 0
                      : worst / fmax(most, 1e-3); /* components below 1e-3 of a gradient of order one are rounding */
}

static void every_loss_agrees_with_the_reference(void **state)
{
    (void)state;
    bool seen[LK_LOSS_KINDS] = {false};
    double worst_value = 0, worst_grad = 0;
    int failures = 0;
    for (size_t i = 0; i < COUNT(fixture_cases); i++) {
        const struct fixture_case *c = &fixture_cases[i];
        float grad[FIXTURE_N * FIXTURE_DIM], grad_parameters[64 * FIXTURE_DIM];
        double value;
        lk_loss *loss = loss_of(c);
        lk_labels labels = labels_of(c);
        lk_tuples tuples = tuples_of(c->tuples);
        if (lk_loss_forward_backward(loss, fixture_x[c->batch], FIXTURE_N, FIXTURE_DIM, &labels,
                                     c->tuples ? &tuples : NULL, &value, grad, c->count ? grad_parameters : NULL))
            fail_msg("%s: %s", c->name, lk_error_message());
        double e = fabs(value - c->value) / fmax(fabs(c->value), 1e-3), g = error_of(grad, c->grad, COUNT(grad));
        if (c->count) g = fmax(g, error_of(grad_parameters, c->grad_parameters, c->count));
        if (!(e <= tolerance) || !(g <= tolerance)) {
            print_error("%s: value %.9g, expected %.9g; error %.2g, of the gradient %.2g\n", c->name, value, c->value,
                        e, g);
            failures++;
        }
        worst_value = fmax(worst_value, e);
        worst_grad = fmax(worst_grad, g);
        seen[c->kind] = true;
        lk_loss_free(loss);
    }
    print_message("%zu cases: largest error of a value %.2g, of a gradient %.2g\n", COUNT(fixture_cases), worst_value,
                  worst_grad);
    for (int k = 0; k < LK_LOSS_KINDS; k++)
        if (!seen[k]) fail_msg("no case for %s", lk_loss_name((lk_loss_kind)k));
    assert_int_equal(failures, 0);
}

static void cross_batch_memory_agrees_with_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(fixture_streams); i++) {
        lk_loss_options options = lk_loss_defaults(fixture_streams[i].kind);
        options.memory = STREAM_MEMORY;
        options.memory_miner = fixture_streams[i].miner;
        lk_loss *loss;
        assert_int_equal(lk_loss_new(&options, FIXTURE_DIM, 1, &loss), LK_OK);
        for (int b = 0; b < 3; b++) {
            float grad[STREAM_BATCH * FIXTURE_DIM];
            double value;
            lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = stream_y + b * STREAM_BATCH};
            assert_int_equal(lk_loss_forward_backward(loss, stream_x + b * STREAM_BATCH * FIXTURE_DIM, STREAM_BATCH,
                                                      FIXTURE_DIM, &labels, NULL, &value, grad, NULL),
                             LK_OK);
            double e = fabs(value - fixture_streams[i].values[b]) / fmax(fabs(fixture_streams[i].values[b]), 1e-3);
            double g = error_of(grad, fixture_streams[i].grad + b * STREAM_BATCH * FIXTURE_DIM, COUNT(grad));
            if (!(e <= tolerance) || !(g <= tolerance))
                fail_msg("%s, batch %d: value %.9g, expected %.9g; error of the gradient %.2g", fixture_streams[i].name,
                         b, value, fixture_streams[i].values[b], g);
        }
        lk_loss_free(loss);
    }
}

/* ---- Finite differences
 * ------------------------------------------------------------------------------------------------ */

/* The loss as a function of one number; circle and curricular hold some factors constant in their gradients, so they
 * are checked against the reference alone. */
static double value_at(lk_loss *loss, const float *x, size_t n, const lk_labels *labels)
{
    double value;
    if (lk_loss_forward_backward(loss, x, n, FIXTURE_DIM, labels, NULL, &value, NULL, NULL))
        fail_msg("%s", lk_error_message());
    return value;
}

static double slope_at(lk_loss *loss, float *at, const float *x, size_t n, const lk_labels *labels, double step)
{
    float kept = *at;
    *at = (float)(kept + step);
    double high = *at, above = value_at(loss, x, n, labels);
    *at = (float)(kept - step);
    double low = *at, below = value_at(loss, x, n, labels);
    *at = kept;
    return (above - below) / (high - low);
}

static void every_gradient_matches_finite_differences(void **state)
{
    (void)state;
    enum { N = 12 };
    static const int32_t classes[N] = {0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3};
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = classes};
    lk_random random;
    lk_random_seed(&random, 5);
    for (int kind = 0; kind < LK_LOSS_KINDS; kind++) {
        if (kind == LK_LOSS_CIRCLE || kind == LK_LOSS_CURRICULAR) continue;
        float x[N * FIXTURE_DIM], grad[N * FIXTURE_DIM], grad_parameters[64 * FIXTURE_DIM];
        for (size_t i = 0; i < COUNT(x); i++) x[i] = (float)lk_random_normal(&random);
        lk_loss_options options = lk_loss_defaults((lk_loss_kind)kind);
        options.classes = 4;
        if (options.scale > 16) options.scale = 16; /* softer, so that a step of 1e-3 stays in the linear range */
        if (kind == LK_LOSS_SMOOTH_AP) options.temperature = 0.2;
        if (kind == LK_LOSS_MULTI_SIMILARITY) options.beta = 10;
        if (kind == LK_LOSS_MARGIN) options.learn_beta = options.beta_per_class = true;
        options.reducer = kind == LK_LOSS_MARGIN || kind == LK_LOSS_PROXY_ANCHOR ? LK_REDUCE_DEFAULT : LK_REDUCE_MEAN;
        lk_loss *loss;
        size_t count;
        double value;
        assert_int_equal(lk_loss_new(&options, FIXTURE_DIM, 3, &loss), LK_OK);
        float *parameters = lk_loss_parameters(loss, &count);
        assert_int_equal(lk_loss_forward_backward(loss, x, N, FIXTURE_DIM, &labels, NULL, &value, grad,
                                                  count ? grad_parameters : NULL),
                         LK_OK);
        double most = largest(grad, COUNT(grad)), most_parameter = count ? largest(grad_parameters, count) : 0;
        assert_true(most > 1e-4);
        int off = 0, total = 0;
        for (size_t i = 0; i < COUNT(x); i += 3, total++)
            off += fabs(slope_at(loss, &x[i], x, N, &labels, 1e-3) - (double)grad[i]) > 2e-3 * most;
        for (size_t i = 0; i < count; i += 3, total++)
            off += fabs(slope_at(loss, &parameters[i], x, N, &labels, 1e-3) - (double)grad_parameters[i]) >
                   2e-3 * most_parameter;
        /* Hinges and the counts of the margin loss have kinks: a step may straddle one, but not many. */
        if (off * 20 > total) fail_msg("%s: %d of %d components differ", lk_loss_name((lk_loss_kind)kind), off, total);
        lk_loss_free(loss);
    }
}

/* ---- Edges
 * ---------------------------------------------------------------------------------------------------------------- */

static bool finite_all(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static void equal_and_zero_embeddings_give_finite_gradients(void **state)
{
    (void)state;
    static const int32_t classes[8] = {0, 0, 1, 1, 2, 2, 3, 3};
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = classes};
    for (int kind = 0; kind < LK_LOSS_KINDS; kind++)
        for (int raw = 0; raw < 2; raw++) {
            float x[8 * 4] = {0}, grad[8 * 4], grad_parameters[64 * 4];
            for (size_t i = 0; i < 4 * 4; i++) x[i] = i % 4 == 1; /* four equal ones, four zeros */
            lk_loss_options options = lk_loss_defaults((lk_loss_kind)kind);
            options.classes = 4;
            options.distance.raw = raw;
            lk_loss *loss;
            size_t count;
            double value;
            if (lk_loss_new(&options, 4, 3, &loss) == LK_INVALID && raw) continue; /* not defined for raw embeddings */
            float *parameters = lk_loss_parameters(loss, &count);
            if (count >= 4) memcpy(parameters, x, 4 * sizeof *x); /* an embedding right on its class weight */
            assert_int_equal(
                lk_loss_forward_backward(loss, x, 8, 4, &labels, NULL, &value, grad, count ? grad_parameters : NULL),
                LK_OK);
            if (!isfinite(value) || !finite_all(grad, COUNT(grad)) || (count && !finite_all(grad_parameters, count)))
                fail_msg("%s is not finite", lk_loss_name((lk_loss_kind)kind));
            lk_loss_free(loss);
        }
}

static void nothing_to_compare_gives_zero(void **state)
{
    (void)state;
    float x[3 * 4] = {1, 2, 3, 4, 4, 3, 2, 1, 0, 1, 0, 2}, grad[3 * 4];
    static const int32_t classes[3] = {0, 1, 2};
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = classes};
    lk_tuples none = {0};
    for (int kind = 0; kind < LK_LOSS_KINDS; kind++) {
        lk_loss_options options = lk_loss_defaults((lk_loss_kind)kind);
        options.classes = 3;
        lk_loss *loss;
        size_t count;
        double value;
        assert_int_equal(lk_loss_new(&options, 4, 3, &loss), LK_OK);
        lk_loss_parameters(loss, &count);
        assert_int_equal(lk_loss_forward_backward(loss, x, 0, 4, &labels, NULL, &value, grad, NULL), LK_OK);
        assert_true(value == 0);
        if (!count && kind != LK_LOSS_FAST_AP && kind != LK_LOSS_SMOOTH_AP) {
            memset(grad, 1, sizeof grad);
            assert_int_equal(lk_loss_forward_backward(loss, x, 3, 4, &labels, &none, &value, grad, NULL), LK_OK);
            assert_true(value == 0 && largest(grad, 12) == 0);
        }
        lk_loss_free(loss);
    }
}

static void state_of_a_loss_survives_saving(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        lk_loss_options options = lk_loss_defaults(which ? LK_LOSS_CURRICULAR : LK_LOSS_CONTRASTIVE);
        options.classes = 4;
        options.memory = which ? 0 : STREAM_MEMORY;
        lk_loss *a, *b;
        float grad[2][STREAM_BATCH * FIXTURE_DIM];
        double values[2], value;
        assert_int_equal(lk_loss_new(&options, FIXTURE_DIM, 7, &a), LK_OK);
        assert_int_equal(lk_loss_new(&options, FIXTURE_DIM, 7, &b), LK_OK);
        for (int step = 0; step < 2; step++) {
            lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = stream_y + step * STREAM_BATCH};
            assert_int_equal(lk_loss_forward_backward(a, stream_x + step * STREAM_BATCH * FIXTURE_DIM, STREAM_BATCH,
                                                      FIXTURE_DIM, &labels, NULL, &value, NULL, NULL),
                             LK_OK);
        }
        size_t size = lk_loss_state_size(a);
        assert_true(size > 0);
        char *bytes = malloc(size);
        lk_loss_state_save(a, bytes);
        assert_int_equal(lk_loss_state_restore(b, bytes, size - 1), LK_CONFLICT);
        assert_int_equal(lk_loss_state_restore(b, bytes, size), LK_OK);
        free(bytes);
        lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = stream_y + 2 * STREAM_BATCH};
        for (int k = 0; k < 2; k++)
            assert_int_equal(lk_loss_forward_backward(k ? b : a, stream_x + 2 * STREAM_BATCH * FIXTURE_DIM,
                                                      STREAM_BATCH, FIXTURE_DIM, &labels, NULL, &values[k], grad[k],
                                                      NULL),
                             LK_OK);
        assert_memory_equal(values, values + 1, sizeof *values);
        assert_memory_equal(grad[0], grad[1], sizeof grad[0]);
        lk_loss_free(a);
        lk_loss_free(b);
    }
}

static void failed_call_leaves_the_memory_as_it_was(void **state)
{
    (void)state;
    lk_loss_options options = lk_loss_defaults(LK_LOSS_CONTRASTIVE);
    options.memory = STREAM_MEMORY;
    lk_loss *loss;
    double value;
    assert_int_equal(lk_loss_new(&options, FIXTURE_DIM, 7, &loss), LK_OK);
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = stream_y};
    assert_int_equal(
        lk_loss_forward_backward(loss, stream_x, STREAM_BATCH, FIXTURE_DIM, &labels, NULL, &value, NULL, NULL), LK_OK);
    size_t size = lk_loss_state_size(loss);
    char *before = malloc(size), *after = malloc(size);
    lk_loss_state_save(loss, before);
    float bad[STREAM_BATCH * FIXTURE_DIM] = {0};
    bad[17] = NAN;
    assert_int_equal(lk_loss_forward_backward(loss, bad, STREAM_BATCH, FIXTURE_DIM, &labels, NULL, &value, NULL, NULL),
                     LK_INVALID);
    lk_loss_state_save(loss, after);
    assert_memory_equal(before, after, size);
    free(before);
    free(after);
    lk_loss_free(loss);
}

static void senseless_options_and_input_are_refused(void **state)
{
    (void)state;
    lk_loss *loss;
    lk_loss_options options = lk_loss_defaults(LK_LOSS_ARCFACE);
    assert_int_equal(lk_loss_new(&options, 4, 1, &loss), LK_INVALID); /* number of classes unknown */
    options.classes = 2;
    options.scale = 0;
    assert_int_equal(lk_loss_new(&options, 4, 1, &loss), LK_INVALID);
    options = lk_loss_defaults(LK_LOSS_SPHEREFACE);
    options.classes = 2;
    options.margin = 2.5;
    assert_int_equal(lk_loss_new(&options, 4, 1, &loss), LK_INVALID);
    options = lk_loss_defaults(LK_LOSS_LIFTED);
    options.rule.soft = true;
    assert_int_equal(lk_loss_new(&options, 4, 1, &loss), LK_INVALID);
    options = lk_loss_defaults(LK_LOSS_ARCFACE);
    options.classes = 2;
    assert_int_equal(lk_loss_new(&options, 4, 1, &loss), LK_OK);
    float x[8] = {1, 0, 0, 0, 0, 1, 0, 0};
    int32_t classes[2] = {0, 2};
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = classes};
    double value;
    assert_int_equal(lk_loss_forward_backward(loss, x, 2, 4, &labels, NULL, &value, NULL, NULL), LK_INVALID);
    classes[1] = 1;
    uint32_t outside[1] = {2};
    lk_tuples tuples = {.triplets = true,
                        .positives = 1,
                        .negatives = 1,
                        .anchor_positive = outside,
                        .positive = outside,
                        .negative = outside};
    assert_int_equal(lk_loss_forward_backward(loss, x, 2, 4, &labels, &tuples, &value, NULL, NULL), LK_INVALID);
    assert_int_equal(lk_loss_forward_backward(loss, x, 2, 3, &labels, NULL, &value, NULL, NULL), LK_INVALID);
    lk_loss_free(loss);
    options = lk_loss_defaults(LK_LOSS_TRIPLET);
    assert_int_equal(lk_loss_new(&options, 4, 1, &loss), LK_OK);
    assert_int_equal(lk_loss_forward_backward(loss, x, 2, 4, &labels, &tuples, &value, NULL, NULL), LK_INVALID);
    lk_loss_free(loss);
}

static void names_lead_back_to_their_kinds(void **state)
{
    (void)state;
    lk_loss_kind kind;
    for (int k = 0; k < LK_LOSS_KINDS; k++) {
        assert_int_equal(lk_loss_kind_of(lk_loss_name((lk_loss_kind)k), &kind), LK_OK);
        assert_int_equal(kind, k);
    }
    assert_int_equal(lk_loss_kind_of("hinge", &kind), LK_NOT_FOUND);
    assert_non_null(strstr(lk_error_message(), "arcface"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_loss_agrees_with_the_reference),
        cmocka_unit_test(cross_batch_memory_agrees_with_the_reference),
        cmocka_unit_test(every_gradient_matches_finite_differences),
        cmocka_unit_test(equal_and_zero_embeddings_give_finite_gradients),
        cmocka_unit_test(nothing_to_compare_gives_zero),
        cmocka_unit_test(state_of_a_loss_survives_saving),
        cmocka_unit_test(failed_call_leaves_the_memory_as_it_was),
        cmocka_unit_test(senseless_options_and_input_are_refused),
        cmocka_unit_test(names_lead_back_to_their_kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
