/* Predicates over labels: what they find, and what they refuse. */
#include <likeness/collection.h>

#include "store/select.h"
#include "unit.h"

#include <sqlite3.h>

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
        {"label = a xéééééééééééé", "at \"xééééééééé\" "}, /* not cut within a character */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *message = found(c, cases[i][0]);
        if (!strstr(message, cases[i][1])) fail_msg("%s: said \"%s\"", cases[i][0], message);
    }
    assert_string_equal(found(c, "label = \xff"), "the filter is not UTF-8");
    static char wide[60000] = "path like '%";
    memset(wide + strlen(wide), 'x', 50100);
    const char *message = found(c, wide);
    if (!strstr(message, "a quote is not closed")) fail_msg("a long text without its end: said \"%s\"", message);
    lk_id_set *set;
    strcat(wide, "'");
    assert_int_equal(lk_collection_select(c, wide, &set), LK_LIMIT);
    assert_non_null(strstr(lk_error_message(), "50000 bytes"));
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

/* ---- what is looked up, and where ---- */

enum { MANY = 12000 }; /* more than a quick answer could look at one by one */

static void catalog_path(const char *folder, char out[160])
{
    snprintf(out, 160, "%s/many.lk/catalog.db", folder);
}

static void change_catalog(const char *folder, const char *sql)
{
    char path[160], *message = NULL;
    sqlite3 *db;
    catalog_path(folder, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) fail_msg("%s", message);
    sqlite3_close(db);
}

static int catalog_number(const char *folder, const char *sql)
{
    char path[160];
    sqlite3 *db;
    sqlite3_stmt *st;
    catalog_path(folder, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    int value = sqlite3_column_int(st, 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return value;
}

static void write_many_labels(int i, char *out, size_t size)
{
    static const char *const odd[] = {"7",    "\"7\"", "7.0",           "\"007\"", "\"x7\"",
                                      "true", "null",  "[7,\"red\",8]", "1e300",   "{\"a\":3}"};
    snprintf(out, size, "{\"label\":\"%d\",\"set\":\"s%d\",\"year\":%d,\"name\":\"picture %d\"%s%s}", i % 1000, i % 3,
             1900 + i % 125, i, i % 7 ? "" : ",\"odd\":", i % 7 ? "" : odd[i / 7 % 10]);
}

static lk_collection *open_many(const char *folder, lk_access access)
{
    char path[128];
    lk_collection *c;
    snprintf(path, sizeof path, "%s/many.lk", folder);
    if (lk_collection_open(path, access, &c) != LK_OK) fail_msg("%s", lk_error_message());
    return c;
}

static lk_collection *create_many(const char *folder)
{
    char path[128];
    snprintf(path, sizeof path, "%s/many.lk", folder);
    lk_collection *c;
    lk_collection_config config = {
        .dim = 2, .metric = LK_COSINE, .dtype = LK_F32, .embedder_id = "0", .embedder_name = "none"};
    assert_int_equal(lk_collection_create(path, &config, &c), LK_OK);
    return c;
}

static lk_status put_one(lk_collection *c, int i, const char *text)
{
    char name[64];
    snprintf(name, sizeof name, "/pictures/%05d.png", i);
    lk_record record = {.path = name,
                        .size = (uint64_t)i,
                        .width = (uint32_t)i % 500,
                        .height = 9,
                        .labels = text,
                        .hash = {(uint64_t)i}};
    return lk_collection_put(c, &record, (float[]){1, (float)i}, NULL);
}

static lk_collection *many(const char *folder)
{
    lk_collection *c = create_many(folder);
    for (int i = 1; i <= MANY; i++) {
        char text[256];
        write_many_labels(i, text, sizeof text);
        assert_int_equal(put_one(c, i, text), LK_OK);
    }
    assert_int_equal(lk_collection_commit(c), LK_OK);
    return c;
}

/* How many are found; -1 where that takes longer than a quick answer may. */
static int found_quickly(lk_collection *c, const char *predicate)
{
    lk_id_set *set;
    assert_int_equal(lk_collection_select_quickly(c, predicate, NULL, &set), LK_OK);
    int count = set ? (int)lk_id_set_count(set) : -1;
    lk_id_set_free(set);
    return count;
}

/* All ways to an answer say what looking at every picture says. */
static void compare_ways(lk_collection *c, const char *predicate)
{
    static lk_hit every[MANY];
    lk_id_set *sets[3];
    for (int i = 0; i < MANY; i++) every[i].id = (uint64_t)i + 1;
    assert_int_equal(lk_collection_select_among(c, predicate, MANY, every, NULL, &sets[0]), LK_OK);
    assert_int_equal(lk_collection_select(c, predicate, &sets[1]), LK_OK);
    assert_int_equal(lk_collection_select_quickly(c, predicate, NULL, &sets[2]), LK_OK);
    for (int way = 1; way < 3; way++) {
        if (way == 2 && !sets[way]) continue;
        if (lk_id_set_count(sets[way]) != lk_id_set_count(sets[0]))
            fail_msg("%s: %zu found, %zu wanted", predicate, lk_id_set_count(sets[way]), lk_id_set_count(sets[0]));
        for (uint64_t id = 1; id <= MANY; id++)
            if (lk_id_set_has(sets[way], id) != lk_id_set_has(sets[0], id)) fail_msg("%s: %d", predicate, (int)id);
    }
    for (int way = 0; way < 3; way++) lk_id_set_free(sets[way]);
}

static const char *const tests[] = {
    "name = 'picture 77'",
    "set = s1",
    "year > 2020",
    "year = 1950",
    "year != 1950",
    "odd = 7",
    "odd = '7'",
    "odd = '7.0'",
    "odd = '007'",
    "odd in (7, red)",
    "odd in ('7', '7.0')",
    "odd in (x7, '8', 3)",
    "odd like '%7'",
    "odd exists",
    "odd < 7.5",
    "odd = true",
    "odd = '1'",
    "odd = 1e300",
    "odd > 1000",
    "odd < 'y'",
    "odd != red",
    "label = 5",
    "label in (5, '6')",
    "label like '99%'",
    "label != 5",
    "width > 490",
    "width in (3, 4)",
    "bytes <= 20",
    "height = 9",
    "height != 9",
    "path = '/pictures/00007.png'",
    "path like '%11.png'",
    "id < 100",
    "'label' = 5",
    "nothing = 1",
    "nothing != 1",
    "not odd exists",
};
enum { TESTS = sizeof tests / sizeof *tests };

static void looked_up_is_what_every_picture_says(void **state)
{
    lk_collection *c = many(*state);
    uint32_t random = 1;
    char text[512];
    for (int i = 0; i < TESTS; i++) compare_ways(c, tests[i]);
    for (int i = 0; i < 60; i++) {
        const char *part[4];
        static const char *const joints[] = {"and", "or", "and not", "or not"};
        for (int j = 0; j < 4; j++) {
            random = random * 1664525 + 1013904223;
            part[j] = tests[(random >> 8) % TESTS];
        }
        snprintf(text, sizeof text, "%s %s (%s %s %s) %s %s", part[0], joints[random >> 30], part[1],
                 joints[random >> 28 & 3], part[2], joints[random >> 26 & 3], part[3]);
        compare_ways(c, text);
    }
    lk_collection_close(c);
}

static void rare_labels_are_found_without_looking_at_all(void **state)
{
    lk_collection *c = many(*state);
    assert_int_equal(found_quickly(c, "name = 'picture 77'"), 1);
    assert_int_equal(found_quickly(c, "name in ('picture 77', 'picture 78', none)"), 2);
    assert_int_equal(found_quickly(c, "year = 2000"), MANY / 125);
    assert_int_equal(found_quickly(c, "year > 2023"), MANY / 125);
    assert_int_equal(found_quickly(c, "missing exists"), 0);
    assert_int_equal(found_quickly(c, "width >= 498"), 2 * MANY / 500);
    assert_int_equal(found_quickly(c, "bytes < 11"), 10);
    /* Of an `and` the part that is looked up is enough, whichever it is. */
    assert_int_equal(found_quickly(c, "path like '%5.png' and year = 2000 and not label like '1%'"), 48);
    assert_int_equal(found_quickly(c, "name = 'picture 77' or year = 1976"), 1 + MANY / 125);
    assert_int_equal(found_quickly(c, "name = 'picture 77' or path like '%77.png'"), -1);
    lk_collection_close(c);
}

static void looked_up_labels_follow_every_change(void **state)
{
    lk_collection *c = many(*state);
    lk_record record = {.id = 77, .path = "/pictures/00077.png", .labels = "{\"name\":[\"other\",\"one more\"]}"};
    assert_int_equal(lk_collection_update(c, &record), LK_OK);
    assert_int_equal(found_quickly(c, "name = 'one more'"), 1); /* also before it is committed */
    assert_int_equal(found_quickly(c, "name = 'picture 77'"), 0);
    assert_int_equal(lk_collection_rollback(c), LK_OK);
    assert_int_equal(found_quickly(c, "name = 'one more'"), 0);
    assert_int_equal(found_quickly(c, "name = 'picture 77'"), 1);
    assert_int_equal(lk_collection_remove(c, 77), LK_OK);
    lk_record skipped = {.id = 78,
                         .path = "/pictures/00078.png",
                         .labels = "{\"name\":\"picture 78\"}",
                         .state = LK_PICTURE_SKIPPED,
                         .error = "broken"};
    assert_int_equal(lk_collection_put(c, &skipped, NULL, NULL), LK_OK);
    assert_int_equal(lk_collection_commit(c), LK_OK);
    assert_int_equal(found_quickly(c, "name in ('picture 77', 'picture 78')"), 0);
    const char *stale = "SELECT count(*) FROM label_values WHERE value IN ('picture 77','picture 78','picture 79')";
    assert_int_equal(catalog_number(*state, stale),
                     1); /* a writer looks for them the first time that it could matter */
    assert_int_equal(lk_collection_remove(c, 79), LK_OK);
    assert_int_equal(lk_collection_commit(c), LK_OK);
    assert_int_equal(catalog_number(*state, stale), 1);
    assert_int_equal(lk_collection_compact(c), LK_OK);
    assert_int_equal(catalog_number(*state, stale), 0);
    skipped = (lk_record){.id = 78, .path = "/pictures/00078.png", .labels = "{\"name\":\"picture 78\"}"};
    assert_int_equal(lk_collection_put(c, &skipped, (float[]){1, 2}, NULL), LK_OK);
    assert_int_equal(found_quickly(c, "name = 'picture 78'"), 1);
    for (int i = 0; i < TESTS; i++) compare_ways(c, tests[i]);
    lk_collection_close(c);
}

#define MAKE_OLDER                                                                                                     \
    "DROP TRIGGER images_added; DROP TRIGGER images_removed; DROP TRIGGER images_changed;"                             \
    "DROP TABLE label_values; DROP TABLE label_images; DROP INDEX images_number;"                                      \
    "DROP INDEX images_bytes; DROP INDEX images_width; DROP INDEX images_height;"

/* Whether one writer stays, or each picture has one of its own. */
static void relabelling_leaves_few_values_behind(void **state)
{
    enum { RELABELLED = 1500, ROUNDS = 8 };
    char text[64];
    lk_collection *c = create_many(*state);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 1; i <= RELABELLED; i++) {
            snprintf(text, sizeof text, "{\"name\":\"%d in round %d\"}", i, round);
            assert_int_equal(put_one(c, i, text), LK_OK);
        }
        assert_int_equal(lk_collection_commit(c), LK_OK);
        assert_true(catalog_number(*state, "SELECT count(*) FROM label_values") <= 2 * RELABELLED);
    }
    for (int round = 0; round < ROUNDS; round++) {
        lk_collection_close(c);
        c = open_many(*state, LK_WRITE);
        for (int i = 1; i <= RELABELLED / 2; i++) {
            snprintf(text, sizeof text, "{\"name\":\"%d alone in %d\"}", i, round);
            assert_int_equal(put_one(c, i, text), LK_OK);
        }
        assert_int_equal(lk_collection_commit(c), LK_OK);
        assert_int_equal(catalog_number(*state, "SELECT count(*) FROM label_values"), RELABELLED);
    }
    lk_collection_close(c);
}

static void collections_of_older_versions_answer_and_become_quick(void **state)
{
    lk_collection_close(many(*state));
    change_catalog(*state, MAKE_OLDER);
    lk_collection *c = open_many(*state, LK_READ);
    for (int i = 0; i < TESTS; i++) compare_ways(c, tests[i]);
    assert_int_equal(found_quickly(c, "name = 'picture 77'"), -1);
    /* The reader that has it open sees it. */
    lk_collection_close(open_many(*state, LK_WRITE));
    assert_int_equal(found_quickly(c, "name = 'picture 77'"), 1);
    assert_int_equal(found_quickly(c, "width >= 498"), 2 * MANY / 500);
    for (int i = 0; i < TESTS; i++) compare_ways(c, tests[i]);
    lk_collection_close(c);
}

/* ---- labels and filters that SQLite takes otherwise than they are meant ---- */

static lk_collection *with_labels(const char *folder, const char *const *texts, int count)
{
    lk_collection *c = create_many(folder);
    for (int i = 0; i < count; i++) assert_int_equal(put_one(c, i + 1, texts[i]), LK_OK);
    assert_int_equal(lk_collection_commit(c), LK_OK);
    return c;
}

/* Looked up, and asked of each picture by the condition. */
static void expect_both_ways(lk_collection *c, const char *predicate, const char *ids)
{
    char text[256];
    const char *looked_up = found(c, predicate);
    if (strcmp(looked_up, ids) != 0) fail_msg("%s: found \"%s\", wanted \"%s\"", predicate, looked_up, ids);
    snprintf(text, sizeof text, "(%s) and height = 9 and path like '%%png'", predicate);
    const char *asked = found(c, text);
    if (strcmp(asked, ids) != 0) fail_msg("%s: found \"%s\", wanted \"%s\"", text, asked, ids);
    compare_ways(c, predicate);
}

static void names_of_labels_are_found_however_they_are_written(void **state)
{
    static const char *const texts[] = {
        "{\"gr\\u00f6\\u00dfe\":3}", "{\"größe\":3}",     "{\"gr\\u00f6\\u00dfe\":[1,3]}",
        "{\"a\\/b\":\"x\"}",         "{\"n\":1,\"n\":2}", "{\"a\\\"b\":5}",
        "{\"a\":{\"n\":1}}",
    };
    lk_collection *c = with_labels(*state, texts, sizeof texts / sizeof *texts);
    expect_both_ways(c, "größe = 3", "1 2 3");
    expect_both_ways(c, "größe exists", "1 2 3");
    expect_both_ways(c, "größe != 3", "4 5 6 7");
    expect_both_ways(c, "a/b = x", "4");
    expect_both_ways(c, "n = 1", "5");
    expect_both_ways(c, "n = 2", "5");
    expect_both_ways(c, "'a\"b' = 5", "6");
    expect_both_ways(c, "a = 1", "7");
    lk_collection_close(c);
}

static void numbers_are_found_by_the_text_of_fifteen_digits(void **state)
{
    static const char *const texts[] = {
        "{\"price\":0.30000000000000004}",     "{\"price\":0.3}",       "{\"price\":-0.30000000000000004}",
        "{\"price\":\"0.30000000000000004\"}", "{\"price\":\"0.30\"}",  "{\"price\":[7,1.0000000000000049e20]}",
        "{\"price\":9007199254740993}",        "{\"price\":\"1e400\"}", "{\"price\":0.300000000000001}",
    };
    lk_collection *c = with_labels(*state, texts, sizeof texts / sizeof *texts);
    expect_both_ways(c, "price = 0.3", "1 2 5");
    expect_both_ways(c, "price = '0.3'", "1 2");
    expect_both_ways(c, "price in (0.3, -0.3)", "1 2 3 5");
    expect_both_ways(c, "price in ('0.3', '-0.3', x)", "1 2 3");
    expect_both_ways(c, "price != 0.3", "3 4 6 7 8 9");
    expect_both_ways(c, "price = -0.3", "3");
    expect_both_ways(c, "price = 0.30000000000000004", "1 4");
    expect_both_ways(c, "price in (1.0e+20, '0.30')", "5 6");
    expect_both_ways(c, "price = '9007199254740993'", "7");
    expect_both_ways(c, "price = 1e400", "8");
    lk_collection_close(c);
}

/* Their texts of 15 digits read as infinity. */
static void the_largest_numbers_are_found_by_their_texts(void **state)
{
    static const char *const texts[] = {"{\"price\":1.7976931348623157e308}", "{\"price\":-1.7976931348623157e308}",
                                        "{\"price\":1.7e308}", "{\"price\":\"1e309\"}"};
    lk_collection *c = with_labels(*state, texts, sizeof texts / sizeof *texts);
    expect_both_ways(c, "price = '1.79769313486232e+308'", "1");
    expect_both_ways(c, "price = '-1.79769313486232e+308'", "2");
    expect_both_ways(c, "price in ('1.79769313486232e+308', '-1.79769313486232e+308', '1.7e+308')", "1 2 3");
    expect_both_ways(c, "price = 1.7976931348623157e308", "1");
    expect_both_ways(c, "price = -1.7976931348623157e308", "2");
    expect_both_ways(c, "price = 1.7e308", "3");
    expect_both_ways(c, "price = 1e310", "4");
    lk_collection_close(c);
}

/* {"x":[[...]]} with so many brackets */
static char *deep_labels(int depth)
{
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    fputs("{\"x\":", f);
    for (int i = 0; i < depth; i++) fputs("[", f);
    for (int i = 0; i < depth; i++) fputs("]", f);
    fputs("}", f);
    fclose(f);
    return text;
}

static void labels_too_deep_for_the_catalog_are_refused(void **state)
{
    static const char *const texts[] = {"{\"x\":1}", "{\"x\":2}", "{\"x\":3}"};
    char *deep = deep_labels(2040), *less = deep_labels(900), change[8192];
    lk_collection *c = with_labels(*state, texts, 3);
    assert_int_equal(put_one(c, 4, deep), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "/pictures/00004.png: its labels are nested too deeply"));
    lk_record record = {.id = 2, .path = "/pictures/00002.png", .labels = deep};
    assert_int_equal(lk_collection_update(c, &record), LK_INVALID);
    assert_int_equal(put_one(c, 4, less), LK_OK);
    assert_int_equal(lk_collection_commit(c), LK_OK);
    expect_both_ways(c, "x = 2", "2");
    lk_collection_close(c);
    /* Older versions took them, and may take them again. */
    snprintf(change, sizeof change, MAKE_OLDER "UPDATE images SET labels='%s' WHERE id IN (1,2)", deep);
    change_catalog(*state, change);
    c = open_many(*state, LK_WRITE);
    snprintf(change, sizeof change, "UPDATE images SET labels='%s' WHERE id=3", deep);
    change_catalog(*state, change);
    expect_both_ways(c, "x exists", "4");
    expect_both_ways(c, "x != 3", "1 2 3 4");
    assert_int_equal(lk_collection_remove(c, 2), LK_OK);
    assert_int_equal(put_one(c, 1, "{\"x\":5}"), LK_OK);
    assert_int_equal(lk_collection_commit(c), LK_OK);
    expect_both_ways(c, "x = 5", "1");
    lk_collection_close(c);
    free(deep);
    free(less);
}

static void filters_may_be_as_deep_and_long_as_is_said(void **state)
{
    static const char *const texts[] = {"{\"x\":\"7\"}", "{\"x\":8}", "{}"};
    lk_collection *c = with_labels(*state, texts, 3);
    char nested[512] = "";
    for (int i = 0; i < 63; i++) strcat(nested, "not ");
    strcat(nested, "x in (7, red)");
    assert_string_equal(found(c, nested), "2 3");
    compare_ways(c, nested);
    /* As many values as SQLite takes of the condition; the look-up names some of them twice. */
    sqlite3 *db;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    int most = sqlite3_limit(db, SQLITE_LIMIT_VARIABLE_NUMBER, -1);
    sqlite3_close(db);
    size_t size;
    char *longest;
    FILE *f = open_memstream(&longest, &size);
    fputs("x in (", f);
    for (int i = 0; i < most - 10; i++) fprintf(f, "'%d',", i % 1000 + 8);
    fputs("x)", f);
    fclose(f);
    assert_string_equal(found(c, longest), "2");
    free(longest);
    lk_collection_close(c);
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test_setup_teardown(predicates_find_what_they_say, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(lists_may_be_long_and_mixed, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(values_are_never_taken_for_sql, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(senseless_predicates_are_refused_with_the_place, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(looked_up_is_what_every_picture_says, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(rare_labels_are_found_without_looking_at_all, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(looked_up_labels_follow_every_change, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(relabelling_leaves_few_values_behind, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(collections_of_older_versions_answer_and_become_quick, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(names_of_labels_are_found_however_they_are_written, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(numbers_are_found_by_the_text_of_fifteen_digits, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(the_largest_numbers_are_found_by_their_texts, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(labels_too_deep_for_the_catalog_are_refused, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(filters_may_be_as_deep_and_long_as_is_said, unit_folder, unit_folder_remove),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
