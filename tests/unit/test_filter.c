/* Predicates in searches of the engine: the same is found whether all pictures that satisfy one are worked out, or the
 * best of all are asked about. */
#include "base/file.h"
#include "base/random.h"
#include "engine/searcher.h"
#include "store/select.h"
#include <likeness/likeness.h>

#include "shapes.h"
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MANY = 15000, K = 20 };

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

static lk_status hand_out(void *user, size_t i, const lk_image_options *options, lk_image *out)
{
    (void)user, (void)options;
    *out = draw(shapes[i % SHAPES], 64, 64, (int)(i / SHAPES));
    return LK_OK;
}

/* So many pictures that looking at the labels of each takes longer than a quick answer may. Vectors at random; `part`
 * is 0 to 9, `rare` every thousandth has. */
static lk_searcher *filled(void **state)
{
    lk_classical_options options = {.kind = LK_CLASSICAL_VLAD, .words = 3, .dim = 8, .seed = 1};
    lk_embedder *embedder;
    lk_collection *c;
    lk_searcher *searcher;
    lk_random random;
    char model[256], path[256];
    snprintf(model, sizeof model, "%s/model", (char *)*state);
    snprintf(path, sizeof path, "%s/c.lk", (char *)*state);
    OK(lk_classical_train(NULL, &options, 2 * SHAPES, hand_out, NULL, &embedder));
    OK(lk_embedder_save(embedder, model));
    lk_collection_config config = {.dim = lk_embedder_dim(embedder),
                                   .embedder_id = lk_embedder_id(embedder),
                                   .embedder_name = lk_embedder_name(embedder),
                                   .model_dir = model};
    OK(lk_collection_create(path, &config, &c));
    lk_random_seed(&random, 3);
    for (int i = 1; i <= MANY; i++) {
        char name[64], labels[96];
        float vector[8];
        for (int d = 0; d < 8; d++) vector[d] = (float)lk_random_normal(&random);
        snprintf(name, sizeof name, "/p/%d.png", i);
        snprintf(labels, sizeof labels, "{\"label\":\"%d\",\"part\":%d%s}", i % 10, i % 10,
                 i % 1000 == 0 ? ",\"rare\":1" : "");
        lk_record record = {.path = name, .hash = {(uint64_t)i, 1}, .width = 1, .height = 1, .labels = labels};
        OK(lk_collection_put(c, &record, vector, NULL));
    }
    OK(lk_collection_commit(c));
    lk_collection_close(c);
    OK(lk_searcher_open(NULL, path, &searcher));
    lk_embedder_free(embedder);
    return searcher;
}

static void expect_same(const lk_results *a, const lk_results *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_int_equal(a->items[i].id, b->items[i].id);
        assert_memory_equal(&a->items[i].score, &b->items[i].score, sizeof(float));
    }
}

static void the_first_search_and_the_next_find_the_same(void **state)
{
    lk_searcher *searcher = filled(state);
    static const char *const predicates[] = {"part = 3",
                                             "part in (1, 2, 3, 4, 5)",
                                             "not part = 3",
                                             "rare = 1",
                                             "not rare != 1", /* is not looked up, and few satisfy it */
                                             "not part in (0, 1, 2, 3, 4, 5, 6, 7, 8)",
                                             "rare exists and part = 0",
                                             "nothing exists",
                                             "label = 4",
                                             "id <= 3000"};
    for (size_t i = 0; i < sizeof predicates / sizeof *predicates; i++) {
        lk_search_options options = {.k = K, .where = predicates[i], .exact = true};
        lk_searcher_filter *filter;
        lk_results first, next;
        OK(lk_search_id(searcher, 77, &options, &first));
        OK(lk_search_id(searcher, 77, &options, &next));
        expect_same(&first, &next);
        OK(lk_searcher_select(searcher, predicates[i], false, 0, &filter)); /* the whole truth */
        const lk_id_set *set = lk_searcher_filter_set(filter);
        for (size_t r = 0; r < first.count; r++) assert_true(lk_id_set_has((void *)set, (uint64_t)first.items[r].id));
        size_t all = lk_id_set_count(set) - (size_t)lk_id_set_has((void *)set, 77);
        assert_int_equal(first.count, all < K ? all : K);
        lk_searcher_drop_filter(filter);
        lk_results_free(&first);
        lk_results_free(&next);
    }
    lk_searcher_free(searcher);
}

/* Otherwise the test above compares one way with itself. */
static void looking_at_every_picture_is_not_quick(void **state)
{
    lk_searcher *searcher = filled(state);
    lk_searcher_filter *filter;
    OK(lk_searcher_select(searcher, "not part != 3", true, 0, &filter));
    assert_null(filter);
    OK(lk_searcher_select(searcher, "not part != 3", true, 0, &filter)); /* again: it is worth having */
    assert_non_null(filter);
    assert_int_equal(lk_id_set_count(lk_searcher_filter_set(filter)), MANY / 10);
    lk_searcher_drop_filter(filter);
    static const char *const quick[] = {"label = 3", "label in (3, x)", "label = '3'",
                                        "id <= 100", "id in (1, 2, 7)", "part = 3"};
    static const size_t counts[] = {MANY / 10, MANY / 10, MANY / 10, 100, 3, MANY / 10};
    for (size_t i = 0; i < sizeof quick / sizeof *quick; i++) {
        OK(lk_searcher_select(searcher, quick[i], true, 0, &filter));
        if (!filter) fail_msg("%s is not found by an index", quick[i]);
        assert_int_equal(lk_id_set_count(lk_searcher_filter_set(filter)), counts[i]);
        lk_searcher_drop_filter(filter);
    }
    assert_int_equal(lk_searcher_select(searcher, "part = ", true, 0, &filter), LK_INVALID);
    lk_searcher_free(searcher);
}

/* Looks at every picture, with so many tests for each. */
static char *long_filter(int tests)
{
    size_t size;
    char *text;
    FILE *f = open_memstream(&text, &size);
    fputs("(path like '%zz%' or path like '%yy%')", f);
    for (int i = 0; i < tests; i++) fprintf(f, " or not n%d != 1", i);
    fclose(f);
    return text;
}

static void filters_that_take_too_long_are_given_up(void **state)
{
    lk_searcher *searcher = filled(state);
    lk_searcher_filter *filter;
    lk_results results;
    char *text = long_filter(3);
    assert_int_equal(lk_searcher_select(searcher, text, false, 1e-9, &filter), LK_LIMIT);
    assert_null(filter);
    assert_non_null(strstr(lk_error_message(), "takes too long"));
    assert_int_equal(lk_searcher_select(searcher, "part = 3", false, 1e-9, &filter), LK_LIMIT);
    lk_hit hits[] = {{1, 0}, {2, 0}, {3, 0}};
    size_t count = 3;
    OK(lk_searcher_select_among(searcher, "part in (1, 2)", lk_now() + 100, hits, &count));
    assert_int_equal(count, 2);
    lk_search_options options = {.k = K, .where = text, .where_seconds = 1e-9};
    assert_int_equal(lk_search_id(searcher, 77, &options, &results), LK_LIMIT);
    options.where_seconds = 100;
    OK(lk_search_id(searcher, 77, &options, &results));
    assert_int_equal(results.count, 0);
    lk_results_free(&results);
    free(text);
    lk_searcher_free(searcher);
}

typedef struct slow {
    lk_searcher *searcher;
    atomic_bool begun, done;
    lk_status status;
} slow;

static void *select_slowly(void *arg)
{
    slow *s = arg;
    char *text = long_filter(400);
    lk_searcher_filter *filter;
    atomic_store(&s->begun, true);
    s->status = lk_searcher_select(s->searcher, text, false, 0, &filter);
    lk_searcher_drop_filter(filter);
    atomic_store(&s->done, true);
    free(text);
    return NULL;
}

/* Neither those that name their results nor those with filters of their own wait; and it ends when it is cancelled. */
static void others_do_not_wait_for_a_slow_filter(void **state)
{
    lk_context *context;
    OK(lk_context_new(&(lk_context_options){.threads = 1}, &context));
    lk_searcher_free(filled(state));
    char path[256];
    snprintf(path, sizeof path, "%s/c.lk", (char *)*state);
    slow s = {0};
    OK(lk_searcher_open(context, path, &s.searcher));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, select_slowly, &s), 0);
    while (!atomic_load(&s.begun)) usleep(100);
    usleep(20000);
    lk_search_options options = {.k = K, .where = "rare = 1"};
    lk_results results;
    OK(lk_search_id(s.searcher, 77, &options, &results));
    assert_int_equal(results.count, MANY / 1000);
    lk_results_free(&results);
    assert_false(atomic_load(&s.done));
    lk_context_cancel(context);
    pthread_join(thread, NULL);
    assert_int_equal(s.status, LK_CANCELLED);
    lk_searcher_free(s.searcher);
    lk_context_free(context);
}

/* However little each finds. */
static void many_lookups_are_not_quick(void **state)
{
    lk_searcher *searcher = filled(state);
    lk_searcher_filter *filter;
    size_t size;
    char *text;
    FILE *f = open_memstream(&text, &size);
    for (int i = 0; i < 400; i++) fprintf(f, "%snothing%d = 1", i ? " or " : "", i);
    fclose(f);
    OK(lk_searcher_select(searcher, text, true, 0, &filter));
    assert_null(filter);
    free(text);
    lk_searcher_free(searcher);
}

static void a_collection_put_in_the_place_of_another_is_noticed(void **state)
{
    lk_searcher *searcher = filled(state), *other;
    char path[256], aside[256];
    snprintf(path, sizeof path, "%s/c.lk", (char *)*state);
    snprintf(aside, sizeof aside, "%s/aside.lk", (char *)*state);
    assert_int_equal(rename(path, aside), 0);
    sleep(1); /* collections know their second of birth */
    other = filled(state);
    lk_searcher_filter *filter;
    assert_int_equal(lk_searcher_select(searcher, "rare = 1", true, 0, &filter), LK_CONFLICT);
    lk_searcher_free(searcher);
    lk_searcher_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_search_and_the_next_find_the_same, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(looking_at_every_picture_is_not_quick, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(filters_that_take_too_long_are_given_up, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(others_do_not_wait_for_a_slow_filter, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(many_lookups_are_not_quick, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_collection_put_in_the_place_of_another_is_noticed, unit_folder,
                                        unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
