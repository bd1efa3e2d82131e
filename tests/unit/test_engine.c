/* CSV files, gathering sources, ingesting, searching and evaluating. */
#include "base/file.h"
#include "engine/csv.h"
#include <likeness/likeness.h>

#include "shapes.h"
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

/* "<folder of the test>/<name>"; one of the last 16 is overwritten at each call. */
static char *at(void **state, const char *name)
{
    static char paths[16][512];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s%s%s", (char *)*state, *name ? "/" : "", name);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

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

static lk_source_list *new_list(void)
{
    lk_source_list *list;
    OK(lk_sources_new(&list));
    return list;
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

/* ---- ingesting ---- */

static void write_picture(const char *path, int shape, int variant)
{
    lk_image image = draw(shapes[shape], 64, 64, variant);
    uint8_t *bytes;
    size_t size;
    OK(lk_image_encode(&image, LK_FORMAT_PNG, 1, &bytes, &size));
    write_bytes(path, bytes, size);
    free(bytes);
    lk_image_free(&image);
}

static lk_status hand_out(void *user, size_t index, const lk_image_options *options, lk_image *out)
{
    (void)user, (void)options;
    *out = draw(shapes[index % SHAPES], 64, 64, (int)(index / SHAPES));
    return LK_OK;
}

static lk_embedder *train(uint64_t seed)
{
    lk_classical_options options = {.kind = LK_CLASSICAL_VLAD, .words = 3, .dim = 8, .seed = seed};
    lk_embedder *embedder;
    OK(lk_classical_train(NULL, &options, 2 * SHAPES, hand_out, NULL, &embedder));
    return embedder;
}

/* p/<shape><variant>.png, PICTURES of them, all of different bytes. */
static void write_pictures(void **state)
{
    char name[32];
    mkdir(at(state, "p"), 0777);
    for (int i = 0; i < PICTURES; i++) {
        snprintf(name, sizeof name, "p/%c%d.png", 'a' + i % SHAPES, i / SHAPES);
        write_picture(at(state, name), i % SHAPES, i / SHAPES);
    }
}

static lk_collection *new_collection(void **state, const char *name, const lk_embedder *embedder)
{
    char *model = at(state, "new-model");
    OK(lk_embedder_save(embedder, model));
    lk_collection_config config = {.dim = lk_embedder_dim(embedder),
                                   .embedder_id = lk_embedder_id(embedder),
                                   .embedder_name = lk_embedder_name(embedder),
                                   .model_dir = model};
    lk_collection *c;
    OK(lk_collection_create(at(state, name), &config, &c));
    return c;
}

static lk_ingest_report ingest(void **state, lk_collection *c, const lk_embedder *embedder, int threads,
                               const char *from, const lk_ingest_options *options)
{
    lk_context *context;
    lk_context_options with = {.threads = threads};
    lk_ingest_report report;
    OK(lk_context_new(&with, &context));
    lk_source_list *list = new_list();
    if (strstr(from, ".csv"))
        OK(lk_sources_add_csv(list, at(state, from)));
    else
        OK(lk_sources_add(list, at(state, from)));
    OK(lk_ingest(context, c, embedder, list, options, &report));
    lk_sources_free(list);
    lk_context_free(context);
    return report;
}

static void expect(lk_ingest_report r, uint64_t added, uint64_t updated, uint64_t unchanged, uint64_t moved,
                   uint64_t skipped)
{
    if (r.added != added || r.updated != updated || r.unchanged != unchanged || r.moved != moved ||
        r.skipped != skipped)
        fail_msg("%lu added, %lu updated, %lu unchanged, %lu moved, %lu skipped", (unsigned long)r.added,
                 (unsigned long)r.updated, (unsigned long)r.unchanged, (unsigned long)r.moved,
                 (unsigned long)r.skipped);
}

static lk_record find(void **state, lk_collection *c, const char *name)
{
    lk_record record;
    OK(lk_collection_find_path(c, at(state, name), &record));
    return record;
}

static int64_t id_of(void **state, lk_collection *c, const char *name)
{
    lk_record record = find(state, c, name);
    int64_t id = record.id;
    lk_record_free(&record);
    return id;
}

static void what_is_known_and_unchanged_is_not_read_again(void **state)
{
    write_pictures(state);
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    expect(ingest(state, c, embedder, 2, "p", NULL), PICTURES, 0, 0, 0, 0);
    uint64_t before, after;
    OK(lk_collection_version(c, &before));
    expect(ingest(state, c, embedder, 2, "p", NULL), 0, 0, PICTURES, 0, 0);
    OK(lk_collection_version(c, &after));
    assert_int_equal(before, after); /* nothing was written */
    /* Touched: the bytes are compared, and nothing is embedded. */
    struct timespec times[2] = {{1000, 0}, {1000, 0}};
    assert_int_equal(utimensat(AT_FDCWD, at(state, "p/a0.png"), times, 0), 0);
    lk_ingest_report report = ingest(state, c, embedder, 1, "p", NULL);
    expect(report, 0, 0, PICTURES, 0, 0);
    assert_true(report.embed_seconds == 0);
    expect(ingest(state, c, embedder, 1, "p", NULL), 0, 0, PICTURES, 0, 0);
    /* Changed: the id stays. */
    int64_t id = id_of(state, c, "p/a0.png");
    write_picture(at(state, "p/a0.png"), 1, 7);
    expect(ingest(state, c, embedder, 1, "p", NULL), 0, 1, PICTURES - 1, 0, 0);
    assert_int_equal(id_of(state, c, "p/a0.png"), id);
    lk_collection_stats stats;
    OK(lk_collection_stats_of(c, &stats));
    assert_int_equal(stats.indexed, PICTURES);
    assert_int_equal(stats.dead_vectors, 1);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_moved_file_keeps_its_id_and_labels(void **state)
{
    write_pictures(state);
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    write_text(at(state, "l.csv"), "path,label\np/a0.png,round\np/b0.png,long\n");
    expect(ingest(state, c, embedder, 1, "l.csv", NULL), 2, 0, 0, 0, 0);
    int64_t id = id_of(state, c, "p/a0.png");
    assert_int_equal(rename(at(state, "p/a0.png"), at(state, "p/moved.png")), 0);
    expect(ingest(state, c, embedder, 1, "p/moved.png", NULL), 0, 0, 0, 1, 0);
    lk_record record;
    assert_int_equal(lk_collection_find_path(c, at(state, "p/a0.png"), &record), LK_NOT_FOUND);
    record = find(state, c, "p/moved.png");
    assert_int_equal(record.id, id);
    assert_non_null(record.label);
    assert_string_equal(record.label, "round");
    lk_record_free(&record);
    /* A copy is a picture of its own. */
    write_picture(at(state, "p/copy.png"), 0, 0);
    expect(ingest(state, c, embedder, 1, "p/copy.png", NULL), 1, 0, 0, 0, 0);
    assert_int_not_equal(id_of(state, c, "p/copy.png"), id);
    /* Of two files with the same bytes one moves: that one keeps its id, though the other is found first. */
    int64_t copy = id_of(state, c, "p/copy.png");
    assert_int_equal(rename(at(state, "p/copy.png"), at(state, "p/copy2.png")), 0);
    expect(ingest(state, c, embedder, 1, "p/copy2.png", NULL), 0, 0, 0, 1, 0);
    assert_int_equal(id_of(state, c, "p/copy2.png"), copy);
    uint64_t problems;
    OK(lk_collection_verify(c, NULL, NULL, &problems));
    assert_int_equal(problems, 0);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_broken_file_is_skipped_and_tried_again_when_it_changes(void **state)
{
    write_pictures(state);
    write_text(at(state, "p/broken.png"), "\x89PNG\r\n\x1a\n but no more");
    write_text(at(state, "p/text.jpg"), "dear reader");
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    expect(ingest(state, c, embedder, 2, "p", NULL), PICTURES, 0, 0, 0, 2);
    lk_record record = find(state, c, "p/text.jpg");
    assert_int_equal(record.state, LK_PICTURE_SKIPPED);
    assert_non_null(strstr(record.error, "is not a picture"));
    lk_record_free(&record);
    lk_ingest_report report = ingest(state, c, embedder, 2, "p", NULL);
    expect(report, 0, 0, PICTURES, 0, 2);
    assert_int_equal(report.skipped_before, 2);
    lk_ingest_options again = {.retry_skipped = true};
    report = ingest(state, c, embedder, 2, "p", &again);
    expect(report, 0, 0, PICTURES, 0, 2);
    assert_int_equal(report.skipped_before, 0);
    write_picture(at(state, "p/broken.png"), 2, 9);
    expect(ingest(state, c, embedder, 2, "p", NULL), 0, 1, PICTURES, 0, 1);
    write_text(at(state, "p/a0.png"), "spoilt"); /* and the other way round: its vector goes */
    expect(ingest(state, c, embedder, 2, "p", NULL), 0, 0, PICTURES, 0, 2);
    lk_collection_stats stats;
    OK(lk_collection_stats_of(c, &stats));
    assert_int_equal(stats.indexed, PICTURES);
    assert_int_equal(stats.skipped, 2);
    lk_ingest_options small = {.max_bytes = 10, .retry_skipped = true};
    write_picture(at(state, "p/text.jpg"), 3, 9);
    expect(ingest(state, c, embedder, 1, "p/text.jpg", &small), 0, 0, 0, 0, 1);
    record = find(state, c, "p/text.jpg");
    assert_non_null(strstr(record.error, "limit"));
    lk_record_free(&record);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_name_that_is_not_utf_8_is_skipped_and_stops_nothing(void **state)
{
    write_pictures(state);
    write_picture(at(state, "p/\xff.png"), 1, 9);
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    expect(ingest(state, c, embedder, 2, "p", NULL), PICTURES, 0, 0, 0, 1);
    expect(ingest(state, c, embedder, 2, "p", NULL), 0, 0, PICTURES, 0, 1);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void labels_are_kept_unless_new_ones_come(void **state)
{
    write_pictures(state);
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    write_text(at(state, "l.csv"), "path,label\np/a0.png,round\n");
    expect(ingest(state, c, embedder, 1, "l.csv", NULL), 1, 0, 0, 0, 0);
    expect(ingest(state, c, embedder, 1, "p/a0.png", NULL), 0, 0, 1, 0, 0);
    write_picture(at(state, "p/a0.png"), 0, 5);
    expect(ingest(state, c, embedder, 1, "p/a0.png", NULL), 0, 1, 0, 0, 0);
    lk_record record = find(state, c, "p/a0.png");
    assert_string_equal(record.label, "round");
    lk_record_free(&record);
    write_text(at(state, "l.csv"), "path,label\np/a0.png,disc\n");
    lk_ingest_report report = ingest(state, c, embedder, 1, "l.csv", NULL);
    expect(report, 0, 1, 0, 0, 0);
    assert_true(report.embed_seconds == 0);
    record = find(state, c, "p/a0.png");
    assert_string_equal(record.label, "disc");
    lk_record_free(&record);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void another_models_vectors_are_not_mixed_in(void **state)
{
    write_pictures(state);
    lk_embedder *embedder = train(1), *other = train(2);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    lk_context *context;
    OK(lk_context_new(NULL, &context));
    lk_source_list *list = new_list();
    OK(lk_sources_add(list, at(state, "p")));
    assert_int_equal(lk_ingest(context, c, other, list, NULL, NULL), LK_CONFLICT);
    lk_sources_free(list);
    lk_context_free(context);
    lk_collection_close(c);
    lk_embedder_free(embedder);
    lk_embedder_free(other);
}

/* Everything that a collection says of its pictures, vectors included, as bytes. */
typedef struct contents {
    char *text;
    size_t size;
    FILE *out;
    const lk_flat *index;
} contents;

static lk_status write_record(void *user, const lk_record *r)
{
    contents *to = user;
    float vector[64];
    fprintf(to->out, "%ld %s %lu %lx%lx %ux%u %s %d %s:", (long)r->id, r->path, (unsigned long)r->size,
            (unsigned long)r->hash[0], (unsigned long)r->hash[1], r->width, r->height, r->labels, (int)r->state,
            r->error ? r->error : "");
    if (r->state == LK_PICTURE_INDEXED) {
        OK(lk_flat_vector(to->index, (uint64_t)r->id, vector));
        for (size_t i = 0; i < lk_flat_dim(to->index); i++) fprintf(to->out, " %a", (double)vector[i]);
    }
    fputs("\n", to->out);
    return LK_OK;
}

static char *contents_of(lk_collection *c)
{
    contents to = {0};
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    to.index = lk_snapshot_index(snapshot);
    to.out = open_memstream(&to.text, &to.size);
    OK(lk_collection_each(c, 0, write_record, &to));
    fclose(to.out);
    lk_snapshot_free(snapshot);
    return to.text;
}

typedef struct stopper {
    lk_context *context;
    uint64_t after;
} stopper;

static void stop_after(void *user, const char *job, uint64_t done, uint64_t total)
{
    stopper *s = user;
    (void)job, (void)total;
    if (done >= s->after) lk_context_cancel(s->context);
}

static void a_cancelled_run_goes_on_to_the_same_collection(void **state)
{
    write_pictures(state);
    write_text(at(state, "p/broken.png"), "not one");
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "whole.lk", embedder);
    ingest(state, c, embedder, 1, "p", NULL);
    char *whole = contents_of(c);
    lk_collection_close(c);
    c = new_collection(state, "parts.lk", embedder);
    int cancelled = 0;
    for (int run = 0; run < 2 * PICTURES; run++) {
        stopper stop = {.after = (uint64_t)run * 2 + 1};
        lk_context_options with = {.threads = 1 + run % 3, .progress = stop_after, .progress_user = &stop};
        lk_ingest_options options = {.commit_every = 3};
        OK(lk_context_new(&with, &stop.context));
        lk_source_list *list = new_list();
        OK(lk_sources_add(list, at(state, "p")));
        lk_status s = lk_ingest(stop.context, c, embedder, list, &options, NULL);
        lk_sources_free(list);
        lk_context_free(stop.context);
        if (s == LK_OK) break;
        assert_int_equal(s, LK_CANCELLED);
        cancelled++;
    }
    assert_true(cancelled >= 1);
    char *parts = contents_of(c);
    assert_string_equal(parts, whole);
    free(parts);
    free(whole);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void the_collection_does_not_depend_on_the_number_of_threads(void **state)
{
    write_pictures(state);
    lk_embedder *embedder = train(1);
    char *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        char name[16];
        snprintf(name, sizeof name, "c%d.lk", threads);
        lk_collection *c = new_collection(state, name, embedder);
        lk_ingest_options options = {.commit_every = (size_t)threads * 2};
        ingest(state, c, embedder, threads, "p", &options);
        char *now = contents_of(c);
        if (first) {
            assert_string_equal(now, first);
            free(now);
        } else {
            first = now;
        }
        lk_collection_close(c);
    }
    free(first);
    lk_embedder_free(embedder);
}

/* ---- searching ---- */

/* A collection of all pictures, their shape as label and `set` 0, 1, 2 as a number. */
static lk_collection *labelled(void **state, const lk_embedder *embedder)
{
    char csv[4096] = "path,label,set\n";
    write_pictures(state);
    for (int i = 0; i < PICTURES; i++)
        snprintf(csv + strlen(csv), sizeof csv - strlen(csv), "p/%c%d.png,shape %c,%d\n", 'a' + i % SHAPES, i / SHAPES,
                 'a' + i % SHAPES, i / SHAPES);
    write_text(at(state, "l.csv"), csv);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    expect(ingest(state, c, embedder, 1, "l.csv", NULL), PICTURES, 0, 0, 0, 0);
    return c;
}

static void a_search_finds_the_picture_itself_first_unless_it_is_the_query(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results results;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    assert_int_equal(lk_searcher_count(searcher), PICTURES);
    int64_t id = id_of(state, c, "p/c1.png");
    lk_image_options decoding = lk_embedder_image_options(lk_searcher_embedder(searcher));
    lk_image image;
    OK(lk_image_load(at(state, "p/c1.png"), &decoding, &image));
    OK(lk_search_image(searcher, &image, NULL, &results));
    assert_int_equal(results.count, 10);
    assert_int_equal(results.items[0].id, id);
    assert_true(fabs(results.items[0].score - 1) < 1e-5);
    assert_string_equal(results.items[0].label, "shape c");
    assert_string_equal(results.items[0].path, at(state, "p/c1.png"));
    for (size_t i = 1; i < results.count; i++) assert_true(results.items[i].score <= results.items[i - 1].score);
    lk_results_free(&results);
    lk_search_options options = {.k = 1000};
    OK(lk_search_id(searcher, id, &options, &results));
    assert_int_equal(results.count, PICTURES - 1);
    for (size_t i = 0; i < results.count; i++) assert_int_not_equal(results.items[i].id, id);
    lk_results_free(&results);
    assert_int_equal(lk_search_id(searcher, 999, NULL, &results), LK_NOT_FOUND);
    lk_image_free(&image);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_refreshed_searcher_sees_what_was_committed_since(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results results;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    write_picture(at(state, "p/new.png"), 0, 11);
    expect(ingest(state, c, embedder, 1, "p/new.png", NULL), 1, 0, 0, 0, 0);
    int64_t removed = id_of(state, c, "p/a0.png");
    OK(lk_collection_remove(c, removed));
    OK(lk_collection_commit(c));
    assert_int_equal(lk_searcher_count(searcher), PICTURES);
    lk_search_options options = {.k = 1000};
    OK(lk_search_id(searcher, id_of(state, c, "p/b0.png"), &options, &results));
    for (size_t i = 0; i < results.count; i++) assert_int_not_equal(results.items[i].id, removed); /* gone at once */
    assert_int_equal(results.count, PICTURES - 2);
    lk_results_free(&results);
    OK(lk_searcher_refresh(searcher));
    OK(lk_search_id(searcher, id_of(state, c, "p/new.png"), &options, &results));
    assert_int_equal(results.count, PICTURES - 1);
    lk_results_free(&results);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void the_length_of_a_query_vector_means_nothing(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results a, b;
    float vector[8];
    int64_t yes = id_of(state, c, "p/d0.png");
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    const lk_search_options options[] = {{.k = 15},
                                         {.k = 15, .expand = LK_EXPAND_AVERAGE, .expand_k = 4},
                                         {.k = 15, .yes = &yes, .n_yes = 1},
                                         {.k = 15, .rerank = LK_RERANK_KRECIPROCAL},
                                         {.k = 15, .rerank = LK_RERANK_DIFFUSION},
                                         {.k = 15, .rerank = LK_RERANK_SUPERGLOBAL}};
    assert_int_equal(lk_embedder_dim(embedder), 8);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        for (int d = 0; d < 8; d++) vector[d] = (float)((d * 5 + 3) % 7 - 2);
        OK(lk_search_vector(searcher, vector, &options[i], &a));
        for (int d = 0; d < 8; d++) vector[d] *= 100;
        OK(lk_search_vector(searcher, vector, &options[i], &b));
        assert_int_equal(a.count, b.count);
        for (size_t r = 0; r < a.count; r++) assert_int_equal(a.items[r].id, b.items[r].id);
        lk_results_free(&a);
        lk_results_free(&b);
    }
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_table_of_neighbours_holds_as_long_as_the_vectors_do(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    OK(lk_searcher_build_neighbours(searcher, 5));
    lk_searcher_free(searcher);
    /* Opening for writing, labels and an index change no vector. */
    lk_collection_close(c);
    OK(lk_collection_open(at(state, "c.lk"), LK_WRITE, &c));
    write_text(at(state, "l.csv"), "path,label\np/a0.png,disc\n");
    expect(ingest(state, c, embedder, 1, "l.csv", NULL), 0, 1, 0, 0, 0);
    OK(lk_collection_build_index(NULL, c, &(lk_index_options){.kind = "graph"}));
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    assert_true(lk_searcher_has_neighbours(searcher));
    OK(lk_collection_remove(c, id_of(state, c, "p/a0.png")));
    OK(lk_collection_commit(c));
    OK(lk_searcher_refresh(searcher));
    assert_false(lk_searcher_has_neighbours(searcher));
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void pages_walk_through_all_pictures_once(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results page;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    int64_t after = 0;
    size_t seen = 0;
    for (;;) {
        OK(lk_searcher_page(searcher, after, 4, &page));
        if (page.count == 0) break;
        for (size_t i = 0; i < page.count; i++) {
            assert_true(page.items[i].id > after);
            after = page.items[i].id;
            seen++;
        }
        lk_results_free(&page);
    }
    lk_results_free(&page);
    assert_int_equal(seen, PICTURES);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_collection_with_another_model_inside_is_not_searched(void **state)
{
    lk_embedder *embedder = train(1), *other = train(2);
    lk_collection_close(labelled(state, embedder));
    OK(lk_embedder_save(other, at(state, "c.lk/model")));
    lk_searcher *searcher;
    assert_int_equal(lk_searcher_open(NULL, at(state, "c.lk"), &searcher), LK_CONFLICT);
    lk_embedder_free(embedder);
    lk_embedder_free(other);
}

/* ---- evaluating ---- */

static void near_to(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9)) fail_msg("%.12g, not %.12g", a, b);
}

/* Means over the queries by the textbook: each query's ranking comes from a search, and is walked from the top. */
static void expect_evaluation(lk_searcher *searcher, const lk_evaluate_options *options,
                              int (*is_query)(const lk_result *),
                              int (*is_relevant)(const lk_result *, const lk_result *))
{
    static const uint32_t ks[] = {1, 5, 10, 100};
    lk_evaluation found;
    lk_results all;
    OK(lk_evaluate(NULL, searcher, options, &found));
    OK(lk_searcher_page(searcher, 0, 1000, &all));
    double map = 0, r_precision = 0, mrr = 0, precision[4] = {0}, recall[4] = {0}, hit[4] = {0}, ndcg[4] = {0};
    size_t queries = 0, without = 0;
    for (size_t q = 0; q < all.count; q++) {
        if (!is_query(&all.items[q])) continue;
        size_t relevant = 0, met = 0;
        for (size_t i = 0; i < all.count; i++) relevant += i != q && is_relevant(&all.items[q], &all.items[i]);
        if (relevant == 0) {
            without++;
            continue;
        }
        queries++;
        lk_results ranked;
        lk_search_options wide = {.k = 1000};
        OK(lk_search_id(searcher, all.items[q].id, &wide, &ranked));
        double ap = 0, dcg[4] = {0}, best[4] = {0};
        for (size_t i = 0; i < ranked.count; i++) {
            for (int c = 0; c < 4; c++)
                if (i < ks[c] && i < relevant) best[c] += 1 / log2((double)i + 2);
            if (!is_relevant(&all.items[q], &ranked.items[i])) continue;
            met++;
            ap += (double)met / (double)(i + 1);
            if (met == 1) mrr += 1 / (double)(i + 1);
            r_precision += i < relevant ? 1 / (double)relevant : 0;
            for (int c = 0; c < 4; c++) {
                if (i >= ks[c]) continue;
                precision[c] += 1.0 / ks[c];
                recall[c] += 1 / (double)relevant;
                if (met == 1) hit[c]++;
                dcg[c] += 1 / log2((double)i + 2);
            }
        }
        map += ap / (double)relevant;
        for (int c = 0; c < 4; c++) ndcg[c] += dcg[c] / best[c];
        lk_results_free(&ranked);
    }
    lk_results_free(&all);
    assert_true(queries > 0);
    assert_int_equal(found.n_runs, 1);
    const lk_judged *run = &found.runs[0];
    assert_int_equal(run->queries, queries);
    assert_int_equal(run->without, without);
    assert_int_equal(run->n_ks, 4);
    double n = (double)queries;
    near_to(run->means[LK_EVAL_MAP].mean, map / n);
    near_to(run->means[LK_EVAL_R_PRECISION].mean, r_precision / n);
    near_to(run->means[LK_EVAL_MRR].mean, mrr / n);
    for (size_t c = 0; c < 4; c++) {
        assert_int_equal(run->ks[c], ks[c]);
        near_to(run->means[lk_eval_column(LK_EVAL_PRECISION, c, 4)].mean, precision[c] / n);
        near_to(run->means[lk_eval_column(LK_EVAL_RECALL, c, 4)].mean, recall[c] / n);
        near_to(run->means[lk_eval_column(LK_EVAL_HIT, c, 4)].mean, hit[c] / n);
        near_to(run->means[lk_eval_column(LK_EVAL_NDCG_AT, c, 4)].mean, ndcg[c] / n);
    }
    lk_evaluation_free(&found);
}

static int every(const lk_result *r)
{
    (void)r;
    return 1;
}

static int of_set_one(const lk_result *r)
{
    return strstr(r->labels, "\"set\":1") != NULL;
}

static int same_label(const lk_result *a, const lk_result *b)
{
    return a->label && b->label && strcmp(a->label, b->label) == 0;
}

/* The truth of the CSV below: a0 and b0 want c0; a1 wants a2 and d0. */
static int in_truth(const lk_result *a, const lk_result *b)
{
    static const char *const pairs[][2] = {
        {"/a0.png", "/c0.png"}, {"/b0.png", "/c0.png"}, {"/a1.png", "/a2.png"}, {"/a1.png", "/d0.png"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strstr(a->path, pairs[i][0]) && strstr(b->path, pairs[i][1])) return 1;
    return 0;
}

static void evaluation_equals_a_computation_by_hand(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    write_picture(at(state, "p/lonely.png"), 3, 20); /* without a label: in the gallery, relevant to none */
    ingest(state, c, embedder, 1, "p/lonely.png", NULL);
    write_text(at(state, "p/broken.png"), "x");
    ingest(state, c, embedder, 1, "p/broken.png", NULL);
    lk_searcher *searcher;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    expect_evaluation(searcher, NULL, every, same_label);
    lk_evaluate_options options = {.query_column = "set", .query_value = "1"};
    expect_evaluation(searcher, &options, of_set_one, same_label);
    char truth[256];
    snprintf(
        truth, sizeof truth,
        "query,relevant\np/a0.png,p/c0.png\n%s,p/c0.png\np/a1.png,p/a2.png\nid:%ld,%ld\np/a1.png,p/a2.png\na0.png/../"
        "p/a1.png,p/a1.png\n",
        at(state, "p/b0.png"), (long)id_of(state, c, "p/a1.png"), (long)id_of(state, c, "p/d0.png"));
    write_text(at(state, "truth.csv"), truth);
    options = (lk_evaluate_options){.truth_csv = at(state, "truth.csv")};
    expect_evaluation(searcher, &options, every, in_truth);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_truth_that_names_unknown_pictures_is_refused(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_evaluation found;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    lk_evaluate_options options = {.truth_csv = at(state, "truth.csv")};
    write_text(options.truth_csv, "query,relevant\np/a0.png,p/b0.png\np/a0.png,p/none.png\n");
    assert_int_equal(lk_evaluate(NULL, searcher, &options, &found), LK_NOT_FOUND);
    assert_non_null(strstr(lk_error_message(), "line 3"));
    assert_non_null(strstr(lk_error_message(), "none.png"));
    write_text(options.truth_csv, "a,b\np/a0.png,p/b0.png\n");
    assert_int_equal(lk_evaluate(NULL, searcher, &options, &found), LK_CORRUPT);
    const uint32_t ks[LK_EVAL_MAX_KS + 1] = {1};
    options = (lk_evaluate_options){.ks = ks, .n_ks = LK_EVAL_MAX_KS + 1};
    assert_int_equal(lk_evaluate(NULL, searcher, &options, &found), LK_INVALID);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
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
        IN_FOLDER(what_is_known_and_unchanged_is_not_read_again),
        IN_FOLDER(a_moved_file_keeps_its_id_and_labels),
        IN_FOLDER(a_broken_file_is_skipped_and_tried_again_when_it_changes),
        IN_FOLDER(a_name_that_is_not_utf_8_is_skipped_and_stops_nothing),
        IN_FOLDER(labels_are_kept_unless_new_ones_come),
        IN_FOLDER(another_models_vectors_are_not_mixed_in),
        IN_FOLDER(a_cancelled_run_goes_on_to_the_same_collection),
        IN_FOLDER(the_collection_does_not_depend_on_the_number_of_threads),
        IN_FOLDER(a_search_finds_the_picture_itself_first_unless_it_is_the_query),
        IN_FOLDER(a_refreshed_searcher_sees_what_was_committed_since),
        IN_FOLDER(the_length_of_a_query_vector_means_nothing),
        IN_FOLDER(a_table_of_neighbours_holds_as_long_as_the_vectors_do),
        IN_FOLDER(pages_walk_through_all_pictures_once),
        IN_FOLDER(a_collection_with_another_model_inside_is_not_searched),
        IN_FOLDER(evaluation_equals_a_computation_by_hand),
        IN_FOLDER(a_truth_that_names_unknown_pictures_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
