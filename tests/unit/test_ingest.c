/* Pictures into a collection. */
#include "base/file.h"

#include "engine_fixture.h"

#include <fcntl.h>

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

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, unit_folder, unit_folder_remove)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_is_known_and_unchanged_is_not_read_again),
        IN_FOLDER(a_moved_file_keeps_its_id_and_labels),
        IN_FOLDER(a_broken_file_is_skipped_and_tried_again_when_it_changes),
        IN_FOLDER(a_name_that_is_not_utf_8_is_skipped_and_stops_nothing),
        IN_FOLDER(labels_are_kept_unless_new_ones_come),
        IN_FOLDER(another_models_vectors_are_not_mixed_in),
        IN_FOLDER(a_cancelled_run_goes_on_to_the_same_collection),
        IN_FOLDER(the_collection_does_not_depend_on_the_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
