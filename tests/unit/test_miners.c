/* Miners against PyTorch Metric Learning and Open Metric Learning (tests/fixtures/miners.h): the very same tuples. The
 * distance-weighted miner, which draws, against the distribution it is defined by. */
#include "unit.h"

#include "../fixtures/miners.h"
#include "base/random.h"

#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool same(const uint32_t *const *columns, int width, size_t count, const uint8_t *expected)
{
    for (size_t i = 0; i < count; i++)
        for (int k = 0; k < width; k++)
            if (columns[k][i] != expected[i * (size_t)width + (size_t)k]) return false;
    return true;
}

static void deterministic_miners_find_the_tuples_of_the_reference(void **state)
{
    (void)state;
    bool seen[LK_MINER_KINDS] = {[LK_MINER_DISTANCE_WEIGHTED] = true};
    for (size_t i = 0; i < COUNT(fixture_cases); i++) {
        const struct fixture_case *c = &fixture_cases[i];
        lk_miner_options options = lk_miner_defaults(c->kind);
        lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = fixture_classes[c->batch]};
        lk_tuples found;
        if (c->set) c->set(&options);
        if (lk_mine(&options, fixture_x[c->batch], FIXTURE_N, FIXTURE_DIM, &labels, 0, &found))
            fail_msg("%s: %s", c->name, lk_error_message());
        assert_int_equal(found.triplets, c->triplets);
        if (found.positives != c->count || (!c->triplets && found.negatives != c->negatives))
            fail_msg("%s: %zu and %zu tuples, expected %zu and %zu", c->name, found.positives, found.negatives,
                     c->count, c->negatives);
        const uint32_t *first[] = {found.anchor_positive, found.positive, found.negative};
        const uint32_t *second[] = {found.anchor_negative, found.negative};
        if (!same(first, c->triplets ? 3 : 2, c->count, c->first)) fail_msg("%s: other tuples", c->name);
        if (!c->triplets && !same(second, 2, c->negatives, c->second)) fail_msg("%s: other negative pairs", c->name);
        seen[c->kind] = true;
        lk_tuples_free(&found);
    }
    for (int k = 0; k < LK_MINER_KINDS; k++)
        if (!seen[k]) fail_msg("no case for %s", lk_miner_name((lk_miner_kind)k));
}

/* Wu et al. (2017), section 4.1, written once more: probability of each negative of anchor 0. */
static void expected_shares(const float *x, const int32_t *classes, double *share)
{
    double sum = 0, norms[FIXTURE_N];
    for (size_t i = 0; i < FIXTURE_N; i++) {
        norms[i] = 0;
        for (size_t k = 0; k < FIXTURE_DIM; k++)
            norms[i] += (double)x[i * FIXTURE_DIM + k] * (double)x[i * FIXTURE_DIM + k];
        norms[i] = sqrt(norms[i]);
    }
    for (size_t j = 0; j < FIXTURE_N; j++) {
        double dot = 0;
        for (size_t k = 0; k < FIXTURE_DIM; k++) dot += (double)x[k] * (double)x[j * FIXTURE_DIM + k];
        double d = fmax(0.5, sqrt(fmax(0, 2 - 2 * dot / norms[0] / norms[j])));
        double q = pow(d, FIXTURE_DIM - 2) * pow(1 - d * d / 4, (FIXTURE_DIM - 3) / 2.0);
        share[j] = classes[j] != classes[0] && d < 1.4 ? 1 / q : 0;
        sum += share[j];
    }
    for (size_t j = 0; j < FIXTURE_N; j++) share[j] /= sum;
}

static void distance_weighted_negatives_follow_their_distribution(void **state)
{
    (void)state;
    enum { DRAWS = 4000 };
    lk_miner_options options = lk_miner_defaults(LK_MINER_DISTANCE_WEIGHTED);
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = fixture_classes[0]};
    double share[FIXTURE_N], counts[FIXTURE_N] = {0}, positives[FIXTURE_N] = {0}, total = 0;
    expected_shares(fixture_x[0], fixture_classes[0], share);
    for (uint64_t seed = 0; seed < DRAWS; seed++) {
        lk_tuples found;
        assert_int_equal(lk_mine(&options, fixture_x[0], FIXTURE_N, FIXTURE_DIM, &labels, seed, &found), LK_OK);
        for (size_t i = 0; i < found.positives; i++) {
            if (found.anchor_positive[i] != 0) continue;
            counts[found.negative[i]]++;
            positives[found.positive[i]]++;
            total++;
        }
        lk_tuples_free(&found);
    }
    assert_true(total == 4 * DRAWS); /* as many triplets per anchor as its class has pictures */
    double chi = 0;
    int cells = 0;
    for (size_t j = 0; j < FIXTURE_N; j++) {
        if (share[j] == 0) assert_true(counts[j] == 0);
        if (share[j] * total < 5) continue;
        chi += pow(counts[j] - share[j] * total, 2) / (share[j] * total);
        cells++;
    }
    assert_true(cells > 3);
    assert_true(chi < cells + 4 * sqrt(2.0 * cells)); /* four standard deviations of chi square */
    for (size_t j = 0; j < FIXTURE_N; j++) {
        bool positive = j != 0 && fixture_classes[0][j] == fixture_classes[0][0];
        assert_true(positive ? fabs(positives[j] / total - 1.0 / 3) < 0.02 : positives[j] == 0);
    }
}

static void the_same_seed_draws_the_same_triplets(void **state)
{
    (void)state;
    lk_miner_options options = lk_miner_defaults(LK_MINER_DISTANCE_WEIGHTED);
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = fixture_classes[1]};
    lk_tuples a, b, c;
    assert_int_equal(lk_mine(&options, fixture_x[1], FIXTURE_N, FIXTURE_DIM, &labels, 5, &a), LK_OK);
    assert_int_equal(lk_mine(&options, fixture_x[1], FIXTURE_N, FIXTURE_DIM, &labels, 5, &b), LK_OK);
    assert_int_equal(lk_mine(&options, fixture_x[1], FIXTURE_N, FIXTURE_DIM, &labels, 6, &c), LK_OK);
    assert_true(a.positives > 0 && a.positives == b.positives);
    assert_memory_equal(a.negative, b.negative, a.negatives * sizeof *a.negative);
    assert_memory_equal(a.positive, b.positive, a.positives * sizeof *a.positive);
    assert_true(a.positives != c.positives || memcmp(a.negative, c.negative, a.negatives * sizeof *a.negative) != 0);
    lk_tuples_free(&a);
    lk_tuples_free(&b);
    lk_tuples_free(&c);
}

static void senseless_miners_are_refused(void **state)
{
    (void)state;
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = fixture_classes[0]};
    lk_tuples found;
    lk_miner_options options = lk_miner_defaults(LK_MINER_BATCH_EASY_HARD);
    options.positive = LK_STRATEGY_SEMI_HARD;
    assert_int_equal(lk_mine(&options, fixture_x[0], FIXTURE_N, FIXTURE_DIM, &labels, 0, &found), LK_INVALID);
    options = lk_miner_defaults(LK_MINER_ANGULAR);
    options.distance.kind = LK_DISTANCE_COSINE;
    assert_int_equal(lk_mine(&options, fixture_x[0], FIXTURE_N, FIXTURE_DIM, &labels, 0, &found), LK_INVALID);
    options = lk_miner_defaults(LK_MINER_ALL);
    assert_int_equal(lk_mine(&options, fixture_x[0], FIXTURE_N, FIXTURE_DIM, NULL, 0, &found), LK_INVALID);
    lk_miner_kind kind;
    assert_int_equal(lk_miner_kind_of("angular", &kind), LK_OK);
    assert_int_equal(kind, LK_MINER_ANGULAR);
    assert_int_equal(lk_miner_kind_of("gold", &kind), LK_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deterministic_miners_find_the_tuples_of_the_reference),
        cmocka_unit_test(distance_weighted_negatives_follow_their_distribution),
        cmocka_unit_test(the_same_seed_draws_the_same_triplets),
        cmocka_unit_test(senseless_miners_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
