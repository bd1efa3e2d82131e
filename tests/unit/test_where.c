/* Predicates over labels: what they find, and what they refuse. */
#include <likeness/collection.h>

#include "unit.h"

static const char *const labels[] = {
    "{\"label\":\"coffee\",\"year\":\"2020\",\"tags\":[\"red\",\"dark blue\"]}",
    "{\"label\":\"tea\",\"year\":2021,\"tags\":[\"red\"]}",
    "{\"label\":\"it's\",\"year\":\"new\",\"note\":null}",
    "{\"label\":\"007\",\"year\":1999.5,\"tags\":[]}",
    "{}",
};
enum { PICTURES = sizeof labels / sizeof *labels };

/* Ids (1 to PICTURES) that satisfy the predicate, as "1 3", or the message of the failure. */
static const char *found(lk_collection *collection, const char *predicate)
{
    static char text[256];
    lk_id_set *set;
    if (lk_collection_select(collection, predicate, &set) != LK_OK) return lk_error_message();
    char *to = text;
    *to = 0;
    size_t count = 0;
    for (uint64_t id = 0; id < 200; id++) {
        if (!lk_id_set_has(set, id)) continue;
        to += sprintf(to, count++ ? " %d" : "%d", (int)id);
    }
    assert_int_equal(lk_id_set_count(set), count);
    lk_id_set_free(set);
    return text;
}

static lk_collection *filled(const char *folder)
{
    char path[128];
    snprintf(path, sizeof path, "%s/c.lk", folder);
    lk_collection *c;
    lk_collection_config config = {
        .dim = 2, .metric = LK_COSINE, .dtype = LK_F32, .embedder_id = "0", .embedder_name = "none"};
    assert_int_equal(lk_collection_create(path, &config, &c), LK_OK);
    for (int i = 0; i < PICTURES; i++) {
        char name[64];
        snprintf(name, sizeof name, "/pictures/%d.png", i + 1);
        lk_record record = {
            .path = name, .size = 100 + (uint64_t)i, .width = 10 * (uint32_t)(i + 1), .labels = labels[i]};
        record.hash[0] = (uint64_t)i;
        assert_int_equal(lk_collection_put(c, &record, (float[]){1, (float)i}, NULL), LK_OK);
    }
    lk_record skipped = {
        .path = "/pictures/x.png", .labels = labels[0], .state = LK_PICTURE_SKIPPED, .error = "broken"};
    assert_int_equal(lk_collection_put(c, &skipped, NULL, NULL), LK_OK);
    assert_int_equal(lk_collection_commit(c), LK_OK);
    return c;
}

static void predicates_find_what_they_say(void **state)
{
    lk_collection *c = filled(*state);
    static const char *const cases[][2] = {
        {"label = coffee", "1"},
        {"label != coffee", "2 3 4 5"},
        {"label in (coffee, tea)", "1 2"},
        {"label in ('it''s', \"007\")", "3 4"},
        {"label = 007", "4"},
        {"label = 7", "4"}, /* as numbers they are equal */
        {"label = '7'", ""},
        {"label like 'c%'", "1"},
        {"label exists", "1 2 3 4"},
        {"year > 2019", "1 2"}, /* a number in a text counts, a word does not */
        {"year >= 2021", "2"},
        {"year < 2000", "4"},
        {"year = 2020", "1"},
        {"year != 2020", "2 3 4 5"},
        {"year = new", "3"},
        {"tags = red", "1 2"},
        {"tags = 'dark blue'", "1"},
        {"tags != red", "3 4 5"},
        {"tags exists", "1 2"},
        {"note exists", ""},
        {"\"label\" = tea", "2"}, /* a quoted name is a label */
        {"width >= 30 and width < 50", "3 4"},
        {"bytes = 104", "5"},
        {"path like '%/2.png'", "2"},
        {"id in (1, 5, 99)", "1 5"},
        {"label=coffee or label=tea and year=2021", "1 2"}, /* and binds closer */
        {"(label=coffee or label=tea) and year=2021", "2"},
        {"not (label exists)", "5"},
        {"NOT label exists OR tags = red", "1 2 5"},
        {"id in (1, 5, x)", "1 5"},
        {"id in ('5', 2)", "2 5"},
        {"id = 2e0", "2"},
        {"id != 2 and id < 4.5", "1 3 4"},
        {"id = '2'", "2"},
        {"id = x", ""},
        {"bytes in (101, 103.0)", "2 4"},
        {"label != 7", "1 2 3 5"},
        {"label > 6", "4"},
        {"label in (7)", "4"},
        {"not label in (7)", "1 2 3 5"},
        {"not (label != coffee)", "1"},
        {"path in ('/pictures/2.png')", "2"},
        {"path < '/pictures/3'", "1 2"},
        {"nothing = 1", ""},
        {"nothing != 1", "1 2 3 4 5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *ids = found(c, cases[i][0]);
        if (strcmp(ids, cases[i][1]) != 0) fail_msg("%s: found \"%s\", wanted \"%s\"", cases[i][0], ids, cases[i][1]);
    }
    lk_collection_close(c);
}

static void lists_may_be_long_and_mixed(void **state)
{
    lk_collection *c = filled(*state);
    assert_string_equal(found(c, "year in (2020, new, '2021')"), "1 2 3");
    assert_string_equal(found(c, "label in (7, tea)"), "2 4"); /* as numbers 007 and 7 are equal */
    assert_string_equal(found(c, "tags in (7, red)"), "1 2");
    assert_string_equal(found(c, "not label in (coffee, 7)"), "2 3 5");
    size_t size;
    char *longest;
    FILE *f = open_memstream(&longest, &size);
    fprintf(f, "id in (");
    for (int i = 0; i < 5000; i++) fprintf(f, "%d, ", i % 2 ? 1000 + i : 3);
    fprintf(f, "x)");
    fclose(f);
    assert_string_equal(found(c, longest), "3");
    free(longest);
    lk_collection_close(c);
}

static void values_are_never_taken_for_sql(void **state)
{
    lk_collection *c = filled(*state);
    assert_string_equal(found(c, "label = 'x'') OR 1=1 --'"), "");
    assert_string_equal(found(c, "'a b]$.c' exists"), "");
    assert_non_null(strstr(found(c, "label = coffee; DROP TABLE images"), "and, or, or the end is wanted"));
    assert_string_equal(found(c, "label = coffee"), "1");
    lk_collection_close(c);
}

static void senseless_predicates_are_refused_with_the_place(void **state)
{
    lk_collection *c = filled(*state);
    static const char *const cases[][2] = {
        {"", "the name of a label"},
        {"label", "=, !="},
        {"label =", "ends where a value"},
        {"label ~ x", "at \"~ x\""},
        {"label in coffee", "( is wanted"},
        {"label in (a b)", "at \"b)\""},
        {"(label = a", "ends where ) is wanted"},
        {"label = 'a", "quote is not closed"},
        {"label = a b", "at \"b\""},
        {"'a\"b' = 1", "cannot be called"},
        {"label = a xéééééééééééé", "at \"xééééééééé\" "}, /* not cut within a character */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *message = found(c, cases[i][0]);
        if (!strstr(message, cases[i][1])) fail_msg("%s: said \"%s\"", cases[i][0], message);
    }
    lk_id_set *set;
    assert_int_equal(lk_collection_select(c, "label = ", &set), LK_INVALID);
    assert_null(set);
    char deep[300];
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    assert_int_equal(lk_collection_select(c, deep, &set), LK_LIMIT);
    size_t size;
    char *longest;
    FILE *f = open_memstream(&longest, &size);
    for (int i = 0; i < 5000; i++) fprintf(f, "%slabel = x", i ? " or " : "");
    fclose(f);
    assert_int_equal(lk_collection_select(c, longest, &set), LK_LIMIT);
    free(longest);
    lk_collection_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(predicates_find_what_they_say, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(lists_may_be_long_and_mixed, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(values_are_never_taken_for_sql, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(senseless_predicates_are_refused_with_the_place, unit_folder,
                                        unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
