/* Samplers, labels, confusable classes and advice. */
#include "unit.h"

#include "base/random.h"

#include <likeness/metric.h>
#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
enum { PICTURES = 101 };
static int32_t classes[PICTURES]; /* 10 classes numbered 0, 3, 6, ..; class 27 has two pictures */

static int fill_classes(void **state)
{
    (void)state;
    for (int i = 0; i < PICTURES; i++) classes[i] = i < 99 ? i % 9 * 3 : 27;
    return 0;
}

static lk_sampler *sampler_of(lk_sampler_options options)
{
    lk_sampler *sampler;
    if (lk_sampler_new(&options, classes, PICTURES, &sampler)) fail_msg("%s", lk_error_message());
    return sampler;
}

static uint32_t *epoch_of(const lk_sampler *sampler, size_t batch, uint64_t epoch)
{
    uint32_t *rows = malloc(lk_sampler_batches(sampler) * batch * sizeof *rows);
    assert_int_equal(lk_sampler_epoch(sampler, epoch, rows), LK_OK);
    return rows;
}

static void plain_epoch_shows_every_picture_at_most_once(void **state)
{
    (void)state;
    lk_sampler *sampler = sampler_of((lk_sampler_options){.kind = LK_SAMPLER_PLAIN, .batch = 8, .seed = 1});
    assert_int_equal(lk_sampler_batches(sampler), 12);
    uint32_t *rows = epoch_of(sampler, 8, 0);
    int times[PICTURES] = {0}, in_place = 0;
    for (uint32_t i = 0; i < 96; i++) {
        assert_true(rows[i] < PICTURES);
        assert_int_equal(times[rows[i]]++, 0);
        in_place += rows[i] == i;
    }
    assert_true(in_place < 20);
    free(rows);
    lk_sampler_free(sampler);
}

static void class_batches_hold_p_classes_of_k_pictures(void **state)
{
    (void)state;
    lk_sampler *sampler =
        sampler_of((lk_sampler_options){.kind = LK_SAMPLER_PK, .batch = 12, .per_class = 3, .batches = 50, .seed = 2});
    uint32_t *rows = epoch_of(sampler, 12, 0);
    int class_times[28] = {0};
    for (int b = 0; b < 50; b++) {
        int seen[28] = {0};
        for (int g = 0; g < 4; g++) {
            const uint32_t *group = rows + b * 12 + g * 3;
            int32_t class = classes[group[0]];
            assert_int_equal(seen[class]++, 0);
            class_times[class]++;
            for (int k = 0; k < 3; k++) assert_int_equal(classes[group[k]], class);
            bool distinct = group[0] != group[1] && group[1] != group[2] && group[0] != group[2];
            assert_true(distinct || class == 27); /* which has two pictures for three places */
        }
    }
    for (int c = 0; c < 28; c += 3)
        assert_true(class_times[c] >= 19 && class_times[c] <= 21); /* 200 places, 10 classes */
    free(rows);
    lk_sampler_free(sampler);
}

static void balanced_draws_show_small_classes_as_often_as_large(void **state)
{
    (void)state;
    lk_sampler *sampler =
        sampler_of((lk_sampler_options){.kind = LK_SAMPLER_BALANCED, .batch = 100, .batches = 100, .seed = 3});
    uint32_t *rows = epoch_of(sampler, 100, 4);
    int times[28] = {0};
    for (int i = 0; i < 10000; i++) times[classes[rows[i]]]++;
    for (int c = 0; c < 28; c += 3) assert_true(times[c] > 850 && times[c] < 1150); /* 1000, five standard deviations */
    free(rows);
    lk_sampler_free(sampler);
}

static void hard_batches_gather_confusable_classes(void **state)
{
    (void)state;
    uint32_t confusable[28 * 2];
    for (uint32_t c = 0; c < 28; c++) { /* 0, 3, 6 are alike, so are 9, 12, 15, and 18, 21, 24; nobody is like 27 */
        uint32_t trio = c / 9 * 9;
        for (uint32_t k = 0, at = 0; k < 3; k++)
            if (trio + 3 * k != c && at < 2) confusable[c * 2 + at++] = c == 27 ? UINT32_MAX : trio + 3 * k;
    }
    lk_sampler *sampler = sampler_of((lk_sampler_options){.kind = LK_SAMPLER_HARD_CLASS,
                                                          .batch = 6,
                                                          .per_class = 2,
                                                          .batches = 60,
                                                          .confusable = confusable,
                                                          .confusable_count = 2,
                                                          .seed = 3});
    uint32_t *rows = epoch_of(sampler, 6, 0);
    int together = 0;
    for (int b = 0; b < 60; b++) {
        int32_t a = classes[rows[b * 6]], c = classes[rows[b * 6 + 2]], d = classes[rows[b * 6 + 4]];
        assert_true(a != c && c != d && a != d);
        if (a != 27) assert_true(a / 9 == c / 9 && a / 9 == d / 9);
        together += a != 27;
    }
    assert_true(together >= 50);
    free(rows);
    lk_sampler_free(sampler);
}

static void epochs_depend_on_seed_and_number_alone(void **state)
{
    (void)state;
    for (int kind = LK_SAMPLER_PLAIN; kind <= LK_SAMPLER_BALANCED; kind++) {
        lk_sampler_options options = {.kind = (lk_sampler_kind)kind, .batch = 12, .per_class = 3, .seed = 2};
        lk_sampler *a = sampler_of(options), *b = sampler_of(options);
        size_t bytes = lk_sampler_batches(a) * 12 * sizeof(uint32_t);
        uint32_t *first = epoch_of(a, 12, 0), *second = epoch_of(a, 12, 1), *again = epoch_of(b, 12, 1);
        assert_memory_equal(second, again, bytes);
        assert_memory_not_equal(first, second, bytes);
        free(first), free(second), free(again);
        lk_sampler_free(a), lk_sampler_free(b);
    }
}

static void impossible_batches_are_refused(void **state)
{
    (void)state;
    lk_sampler *sampler;
    lk_sampler_options options = {.kind = LK_SAMPLER_PLAIN, .batch = 102};
    assert_int_equal(lk_sampler_new(&options, classes, PICTURES, &sampler), LK_INVALID);
    options = (lk_sampler_options){.kind = LK_SAMPLER_PK, .batch = 33, .per_class = 3};
    assert_int_equal(lk_sampler_new(&options, classes, PICTURES, &sampler), LK_INVALID); /* 11 classes of 10 */
    options.batch = 31;
    assert_int_equal(lk_sampler_new(&options, classes, PICTURES, &sampler), LK_INVALID);
    options = (lk_sampler_options){.kind = LK_SAMPLER_HARD_CLASS, .batch = 6, .per_class = 2};
    assert_int_equal(lk_sampler_new(&options, classes, PICTURES, &sampler), LK_INVALID);
}

static void confusable_classes_are_the_nearest_centroids(void **state)
{
    (void)state;
    static const float x[] = {1, 0, 2, 0.02f, 0.9f, 0.3f, 0.9f, 0.32f, 0, 1, 0.1f, 3, -1, 0.1f};
    static const int32_t labels[] = {0, 0, 1, 1, 2, 2, 4};
    uint32_t out[5 * 2];
    assert_int_equal(lk_confusable_classes(x, 7, 2, labels, 5, 2, out), LK_OK);
    static const uint32_t expected[] = {1, 2, 0, 2, 1, 4, UINT32_MAX, UINT32_MAX, 2, 1};
    assert_memory_equal(out, expected, sizeof out);
    assert_int_equal(lk_confusable_classes(x, 7, 2, labels, 4, 2, out), LK_INVALID);
}

static void similarity_of_label_sets_is_their_shared_share(void **state)
{
    (void)state;
    static const uint32_t at[] = {0, 2, 4, 4, 7};
    static const int32_t sets[] = {1, 5, 5, 9, 1, 5, 9};
    lk_labels multi = {.kind = LK_LABELS_MULTI, .set_at = at, .sets = sets};
    assert_true(fabs(lk_label_similarity(&multi, 0, &multi, 1) - 1.0 / 3) < 1e-12);
    assert_true(fabs(lk_label_similarity(&multi, 0, &multi, 3) - 2.0 / 3) < 1e-12);
    assert_true(lk_label_similarity(&multi, 2, &multi, 2) == 0 && lk_label_similarity(&multi, 0, &multi, 0) == 1);
    static const int32_t levels[] = {1, 4, 7, 1, 4, 8, 1, 5, 8, 2, 4, 7};
    lk_labels tree = {.kind = LK_LABELS_HIERARCHY, .classes = levels, .levels = 3};
    assert_true(fabs(lk_label_similarity(&tree, 0, &tree, 1) - 2.0 / 3) < 1e-12);
    assert_true(fabs(lk_label_similarity(&tree, 1, &tree, 2) - 1.0 / 3) < 1e-12);
    assert_true(lk_label_similarity(&tree, 0, &tree, 3) == 0);
    int32_t views[6];
    lk_labels_of_views(3, views);
    static const int32_t expected[] = {0, 1, 2, 0, 1, 2};
    assert_memory_equal(views, expected, sizeof views);
}

static void hierarchy_makes_pairs_by_threshold(void **state)
{
    (void)state;
    static const int32_t levels[] = {1, 4, 1, 4, 1, 5, 2, 6};
    static const float x[] = {1, 0, 0, 1, 1, 1, -1, 0};
    lk_labels tree = {.kind = LK_LABELS_HIERARCHY, .classes = levels, .levels = 2};
    lk_miner_options options = lk_miner_defaults(LK_MINER_ALL);
    lk_tuples found;
    assert_int_equal(lk_mine(&options, x, 4, 2, &tree, 0, &found), LK_OK); /* half in common is enough */
    assert_int_equal(found.positives, 6);
    assert_int_equal(found.negatives, 6);
    lk_tuples_free(&found);
    options.rule.positive = 1;
    assert_int_equal(lk_mine(&options, x, 4, 2, &tree, 0, &found), LK_OK); /* half in common is neither */
    assert_int_equal(found.positives, 2);
    assert_int_equal(found.negatives, 6);
    lk_tuples_free(&found);
}

static lk_advice advice_for(lk_label_summary summary)
{
    lk_advice advice;
    if (lk_advise(&summary, 64, &advice)) fail_msg("%s", lk_error_message());
    assert_true(strlen(advice.reason) > 40);
    return advice;
}

static void advice_follows_the_labels(void **state)
{
    (void)state;
    lk_label_summary summary;
    assert_int_equal(lk_labels_summary(&(lk_labels){.kind = LK_LABELS_SINGLE, .classes = classes}, PICTURES, &summary),
                     LK_OK);
    assert_int_equal(summary.classes, 10);
    assert_int_equal(summary.smallest, 2);
    assert_int_equal(summary.largest, 11);
    lk_advice advice = advice_for(summary);
    assert_int_equal(advice.loss.kind, LK_LOSS_ARCFACE);
    assert_int_equal(advice.loss.classes, 10);
    advice = advice_for((lk_label_summary){.pictures = 1000,
                                           .labelled = 1000,
                                           .classes = 400,
                                           .singletons = 20,
                                           .smallest = 1,
                                           .largest = 9,
                                           .labels_per_picture = 1,
                                           .levels = 1});
    assert_int_equal(advice.loss.kind, LK_LOSS_MULTI_SIMILARITY);
    assert_int_equal(advice.sampler, LK_SAMPLER_PK);
    assert_int_equal(advice.per_class, 2);
    advice = advice_for((lk_label_summary){.pictures = 90000,
                                           .labelled = 90000,
                                           .classes = 300,
                                           .smallest = 5,
                                           .largest = 4000,
                                           .labels_per_picture = 1,
                                           .levels = 1});
    assert_int_equal(advice.loss.kind, LK_LOSS_SUBCENTER_ARCFACE);
    assert_int_equal(advice.sampler, LK_SAMPLER_BALANCED);
    advice = advice_for((lk_label_summary){.pictures = 500});
    assert_true(advice.two_views && advice.loss.kind == LK_LOSS_NT_XENT);
    advice = advice_for((lk_label_summary){.pictures = 50,
                                           .labelled = 50,
                                           .classes = 50,
                                           .singletons = 50,
                                           .smallest = 1,
                                           .largest = 1,
                                           .labels_per_picture = 1});
    assert_true(advice.two_views);
    advice = advice_for((lk_label_summary){.kind = LK_LABELS_MULTI,
                                           .pictures = 500,
                                           .labelled = 500,
                                           .classes = 30,
                                           .smallest = 3,
                                           .largest = 90,
                                           .labels_per_picture = 2.5});
    assert_true(advice.loss.rule.soft);
    summary = (lk_label_summary){.pictures = 50, .labelled = 50, .classes = 1, .smallest = 50, .largest = 50};
    assert_int_equal(lk_advise(&summary, 64, &advice), LK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_epoch_shows_every_picture_at_most_once),
        cmocka_unit_test(class_batches_hold_p_classes_of_k_pictures),
        cmocka_unit_test(balanced_draws_show_small_classes_as_often_as_large),
        cmocka_unit_test(hard_batches_gather_confusable_classes),
        cmocka_unit_test(epochs_depend_on_seed_and_number_alone),
        cmocka_unit_test(impossible_batches_are_refused),
        cmocka_unit_test(confusable_classes_are_the_nearest_centroids),
        cmocka_unit_test(similarity_of_label_sets_is_their_shared_share),
        cmocka_unit_test(hierarchy_makes_pairs_by_threshold),
        cmocka_unit_test(advice_follows_the_labels),
    };
    return cmocka_run_group_tests(tests, fill_classes, NULL);
}
