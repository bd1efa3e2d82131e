/* CSV files and gathering sources. */
#include "base/file.h"
#include "engine/csv.h"

#include "engine_fixture.h"

/* ---- CSV ---- */

/* The rows as text: fields in brackets, a row a line. */
static void expect_csv(void **state, const char *text, const char *wanted)
{
    char out[1024] = "";
    lk_csv csv;
    bool more;
    write_text(at(state, "a.csv"), text);
    OK(lk_csv_open(at(state, "a.csv"), &csv));
    for (;;) {
        OK(lk_csv_next(&csv, &more));
        if (!more) break;
        for (size_t i = 0; i < csv.count; i++)
            snprintf(out + strlen(out), sizeof out - strlen(out), "[%s]", csv.fields[i]);
        strcat(out, "\n");
    }
    lk_csv_close(&csv);
    assert_string_equal(out, wanted);
}

static void csv_rows_are_those_of_rfc_4180(void **state)
{
    expect_csv(state, "a,b\n1,2\n", "[a][b]\n[1][2]\n");
    expect_csv(state, "a,b\r\n1,2\r\n", "[a][b]\n[1][2]\n");
    expect_csv(state, "a,b\n1,2", "[a][b]\n[1][2]\n");
    expect_csv(state, "a,b\n1,", "[a][b]\n[1][]\n");
    expect_csv(state, "a,b\n,\n", "[a][b]\n[][]\n");
    expect_csv(state,
               "\xef\xbb\xbf"
               "a,b\n1,2\n",
               "[a][b]\n[1][2]\n");
    expect_csv(state, "\"a\",\"b, c\"\n\"say \"\"no\"\"\",\"two\r\nlines\"\n",
               "[a][b, c]\n[say \"no\"][two\r\nlines]\n");
    expect_csv(state, "a,b\n\n\r\n1,2\n\n", "[a][b]\n[1][2]\n");
    expect_csv(state, "a,b\n\"\",\"\"\n", "[a][b]\n[][]\n");
    expect_csv(state, "a b , c\n 1,\"2\"\r\n", "[a b ][ c]\n[ 1][2]\n");
    expect_csv(state, "a\rb,c\n1,2\n", "[a\rb][c]\n[1][2]\n"); /* a lone CR is a character */
    expect_csv(state, "5\" disc,c\n1,2\n", "[5\" disc][c]\n[1][2]\n");
    expect_csv(state, "", "");
    expect_csv(state, "\n\n", "");
}

static void broken_csv_rows_are_named_by_their_line(void **state)
{
    static const struct {
        const char *text, *message;
    } files[] = {{"a,b\n1,2\n3\n", "line 3: has 1 field"},
                 {"a,b\n1,2,3\n", "line 2: has 3 fields"},
                 {"a,b\n\"x\ny\nz\",2\n5\n", "line 5: has 1 field"}, /* lines within quotes count */
                 {"a,b\n1,\"2\n3\n", "line 2: a quoted field is never closed"},
                 {"a,b\n1,\"2\"3\n", "line 2: something follows"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        lk_csv csv;
        bool more = true;
        write_text(at(state, "a.csv"), files[i].text);
        OK(lk_csv_open(at(state, "a.csv"), &csv));
        lk_status s = LK_OK;
        while (s == LK_OK && more) s = lk_csv_next(&csv, &more);
        assert_int_equal(s, LK_CORRUPT);
        if (!strstr(lk_error_message(), files[i].message)) fail_msg("%s", lk_error_message());
        lk_csv_close(&csv);
    }
    lk_csv csv;
    write_bytes(at(state, "a.csv"), "a,b\n1\0,2\n", 9);
    assert_int_equal(lk_csv_open(at(state, "a.csv"), &csv), LK_CORRUPT);
    assert_int_equal(lk_csv_open(at(state, "none.csv"), &csv), LK_NOT_FOUND);
}

/* ---- sources ---- */

/* The list as text: one path a line without the test's folder, "|labels" after it when it has some. */
static void expect_sources(void **state, lk_source_list *list, const char *wanted)
{
    char out[2048] = "";
    size_t cut = strlen(*state) + 1;
    for (size_t i = 0; i < lk_sources_count(list); i++) {
        const lk_source *s = lk_sources_at(list, i);
        assert_memory_equal(s->path, *state, cut - 1);
        snprintf(out + strlen(out), sizeof out - strlen(out), "%s%s%s\n", s->path + cut, s->labels ? "|" : "",
                 s->labels ? s->labels : "");
    }
    assert_string_equal(out, wanted);
}

static void a_folder_gives_its_pictures_and_those_below(void **state)
{
    static const char *const files[] = {
        "p/b.JPG",         "p/a.png",      "p/note.txt",           "p/.hidden.png",          "p/sub/c.svg",
        "p/noending",      "p/.git/d.png", "p/photos.lk/MANIFEST", "p/photos.lk/catalog.db", "p/photos.lk/t.png",
        "elsewhere/e.gif", "real.webp"};
    static const char *const folders[] = {"p", "p/sub", "p/.git", "p/photos.lk", "elsewhere"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) mkdir(at(state, folders[i]), 0777);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) write_text(at(state, files[i]), "x");
    write_text(at(state, "p/bare"), "GIF89a"); /* a name without an ending: its bytes are asked */
    assert_int_equal(symlink("../real.webp", at(state, "p/link.webp")), 0);
    assert_int_equal(symlink("../elsewhere", at(state, "p/folder-link")), 0);
    assert_int_equal(symlink("nowhere", at(state, "p/dangling.png")), 0);
    assert_int_equal(symlink("p", at(state, "named-link")), 0);
    lk_source_list *list = new_list();
    OK(lk_sources_add(list, at(state, "p")));
    expect_sources(state, list, "p/a.png\np/b.JPG\np/bare\np/link.webp\np/sub/c.svg\n");
    lk_sources_free(list);
    list = new_list();
    OK(lk_sources_add(list, at(state, "named-link"))); /* a link that is named is followed */
    assert_int_equal(lk_sources_count(list), 5);
    lk_sources_free(list);
    list = new_list();
    OK(lk_sources_add(list, at(state, "p/note.txt"))); /* a file that is named is tried, whatever it is called */
    expect_sources(state, list, "p/note.txt\n");
    lk_sources_free(list);
}

static void patterns_and_missing_names(void **state)
{
    mkdir(at(state, "q"), 0777);
    static const char *const files[] = {"a1.png", "a2.png", "b1.png", "q/c.png", "we[ir]d.png"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) write_text(at(state, files[i]), "x");
    lk_source_list *list = new_list();
    OK(lk_sources_add(list, at(state, "a*.png")));
    expect_sources(state, list, "a1.png\na2.png\n");
    OK(lk_sources_add(list, at(state, "{b1.png,q}"))); /* a folder that matches is walked */
    expect_sources(state, list, "a1.png\na2.png\nb1.png\nq/c.png\n");
    OK(lk_sources_add(list, at(state, "we[ir]d.png"))); /* a file of that very name comes before the pattern */
    assert_int_equal(lk_sources_count(list), 5);
    assert_int_equal(lk_sources_add(list, at(state, "z*.png")), LK_NOT_FOUND);
    assert_int_equal(lk_sources_add(list, at(state, "none.png")), LK_NOT_FOUND);
    assert_int_equal(lk_sources_count(list), 5);
    lk_sources_free(list);
}

static void csv_columns_become_labels(void **state)
{
    mkdir(at(state, "d"), 0777);
    write_text(at(state, "d/list.csv"),
               "year,path,label,note\n2020,x.png,red,\n007,../y.png,8,\"a \"\"b\"\"\"\n-5,z.png,,1.5\n0,w.png,,\n");
    lk_source_list *list = new_list();
    OK(lk_sources_add_csv(list, at(state, "d/list.csv")));
    expect_sources(state, list,
                   "d/w.png|{\"year\":0}\n"
                   "d/x.png|{\"year\":2020,\"label\":\"red\"}\n"
                   "d/z.png|{\"year\":-5,\"note\":\"1.5\"}\n"
                   "y.png|{\"year\":\"007\",\"label\":\"8\",\"note\":\"a \\\"b\\\"\"}\n");
    lk_sources_free(list);
}

static void csv_files_without_sense_are_refused_with_the_line(void **state)
{
    static const struct {
        const char *text, *message;
    } files[] = {{"name\nx\n", "path"},
                 {"", "path"},
                 {"path,a\nx\n", "line 2"},
                 {"path,a\nx,1\n,2\n", "line 3: the path is empty"},
                 {"path,a\nx,\xff\n", "line 2: the column a is not UTF-8"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        lk_source_list *list = new_list();
        write_text(at(state, "a.csv"), files[i].text);
        assert_int_equal(lk_sources_add_csv(list, at(state, "a.csv")), LK_CORRUPT);
        if (!strstr(lk_error_message(), files[i].message)) fail_msg("%s", lk_error_message());
        lk_sources_free(list);
    }
}

static void of_two_entries_the_labelled_else_the_later_counts(void **state)
{
    lk_source_list *list = new_list();
    OK(lk_sources_add_path(list, at(state, "b.png"), NULL));
    OK(lk_sources_add_path(list, at(state, "a.png"), "{\"label\":\"1\"}"));
    OK(lk_sources_add_path(list, at(state, "a.png"), NULL));
    OK(lk_sources_add_path(list, at(state, "x/../b.png"), "{\"label\":\"2\"}")); /* the same file */
    OK(lk_sources_add_path(list, at(state, "./c.png"), "{\"label\":\"3\"}"));
    OK(lk_sources_add_path(list, at(state, "c.png"), "{\"label\":\"4\"}"));
    expect_sources(state, list, "a.png|{\"label\":\"1\"}\nb.png|{\"label\":\"2\"}\nc.png|{\"label\":\"4\"}\n");
    OK(lk_sources_add_path(list, at(state, "a.png"), "{\"label\":\"5\"}")); /* after it was looked at */
    expect_sources(state, list, "a.png|{\"label\":\"5\"}\nb.png|{\"label\":\"2\"}\nc.png|{\"label\":\"4\"}\n");
    lk_sources_free(list);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, unit_folder, unit_folder_remove)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(csv_rows_are_those_of_rfc_4180),
        IN_FOLDER(broken_csv_rows_are_named_by_their_line),
        IN_FOLDER(a_folder_gives_its_pictures_and_those_below),
        IN_FOLDER(patterns_and_missing_names),
        IN_FOLDER(csv_columns_become_labels),
        IN_FOLDER(csv_files_without_sense_are_refused_with_the_line),
        IN_FOLDER(of_two_entries_the_labelled_else_the_later_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
