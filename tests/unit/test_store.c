/* The collection: what is acknowledged stays, and what is not leaves no trace. */
#include "base/file.h"
#include "store/segment.h"

#include "store_fixture.h"

#include <sys/stat.h>

/* ---- writing and reading ---- */

static void what_was_committed_is_there_after_reopening(void **state)
{
    lk_collection *c = create(state);
    for (int n = 1; n <= 10; n++) assert_int_equal(put(c, n, 0), n);
    OK(lk_collection_commit(c));
    lk_collection_close(c);
    c = open_as(state, LK_READ);
    lk_record r;
    OK(lk_collection_find_path(c, "/p/7.png", &r));
    assert_int_equal(r.id, 7);
    assert_int_equal(r.size, 7);
    assert_int_equal(r.width, 10);
    assert_int_equal(r.height, 20);
    assert_int_equal(r.hash[0], 7);
    assert_string_equal(r.label, "x");
    assert_string_equal(r.labels, "{\"label\":\"x\",\"year\":7}");
    assert_int_equal(r.state, LK_PICTURE_INDEXED);
    assert_null(r.error);
    lk_record_free(&r);
    lk_collection_config config = lk_collection_config_of(c);
    assert_int_equal(config.dim, DIM);
    assert_int_equal(config.metric, LK_L2);
    assert_string_equal(config.embedder_id, "0123");
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    assert_int_equal(lk_flat_count(lk_snapshot_index(snapshot)), 10);
    for (int n = 1; n <= 10; n++) expect_vector(snapshot, n, n, 0);
    lk_snapshot_free(snapshot);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
}

static void every_type_of_vector_survives_storage(void **state)
{
    for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
        lk_collection *c = create_typed(state, (lk_dtype)dtype, LK_COSINE);
        float vector[DIM] = {3, -4, 0, 12, 0.5f}, found[DIM];
        double norm = 0;
        for (int i = 0; i < DIM; i++) norm += vector[i] * vector[i];
        lk_record record = {.path = "/a"};
        OK(lk_collection_put(c, &record, vector, NULL));
        for (int n = 1; n <= 200; n++) put(c, n, 0); /* more than one block's padding */
        OK(lk_collection_commit(c));
        lk_collection_close(c);
        c = open_as(state, LK_READ);
        lk_snapshot *snapshot;
        OK(lk_collection_snapshot(c, &snapshot));
        OK(lk_flat_vector(lk_snapshot_index(snapshot), 1, found));
        for (int i = 0; i < DIM; i++)
            assert_true(fabs(found[i] - vector[i] / sqrt(norm)) < (dtype == LK_I8 ? 6e-3 : 5e-4));
        lk_snapshot_free(snapshot);
        assert_int_equal(problems(c), 0);
        lk_collection_close(c);
        nftw(in_folder(state, "c.lk"), unit_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}

static void a_batch_is_invisible_before_its_commit_and_gone_after_rollback(void **state)
{
    lk_collection *writer = create(state);
    put(writer, 1, 0);
    OK(lk_collection_commit(writer));
    lk_collection *reader = open_as(state, LK_READ);
    uint64_t version, later;
    OK(lk_collection_version(reader, &version));
    for (int n = 2; n <= 5000; n++) put(writer, n, 0); /* more than a block: some is on disk already */
    put(writer, 1, 1);
    assert_int_equal(id_of(writer, 4), 4);
    assert_int_equal(id_of(reader, 4), 0);
    OK(lk_collection_version(reader, &later));
    assert_int_equal(later, version);
    OK(lk_collection_rollback(writer));
    assert_int_equal(id_of(writer, 4), 0);
    assert_int_equal(indexed(writer), 1);
    put(writer, 9, 0);
    OK(lk_collection_commit(writer));
    OK(lk_collection_version(reader, &later));
    assert_int_not_equal(later, version);
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(reader, &snapshot));
    assert_int_equal(lk_flat_count(lk_snapshot_index(snapshot)), 2);
    expect_vector(snapshot, 1, 1, 0);
    expect_vector(snapshot, id_of(reader, 9), 9, 0);
    lk_snapshot_free(snapshot);
    assert_int_equal(problems(reader), 0);
    lk_collection_close(reader);
    lk_collection_close(writer);
}

static void closing_without_commit_loses_the_batch_alone(void **state)
{
    lk_collection *c = create(state);
    put(c, 1, 0);
    OK(lk_collection_commit(c));
    put(c, 2, 0);
    lk_collection_close(c);
    c = open_as(state, LK_WRITE);
    assert_int_equal(indexed(c), 1);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
}

static void a_new_version_keeps_the_id_and_replaces_the_vector(void **state)
{
    lk_collection *c = create(state);
    for (int n = 1; n <= 3; n++) put(c, n, 0);
    OK(lk_collection_commit(c));
    assert_int_equal(put(c, 2, 5), 2);
    assert_int_equal(put(c, 2, 6), 2); /* twice in one batch */
    OK(lk_collection_commit(c));
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    assert_int_equal(lk_flat_count(lk_snapshot_index(snapshot)), 3);
    expect_vector(snapshot, 2, 2, 6);
    lk_snapshot_free(snapshot);
    lk_collection_stats stats;
    OK(lk_collection_stats_of(c, &stats));
    assert_int_equal(stats.dead_vectors, 2);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
}

static void removed_ids_are_never_used_again(void **state)
{
    lk_collection *c = create(state);
    for (int n = 1; n <= 3; n++) put(c, n, 0);
    OK(lk_collection_commit(c));
    OK(lk_collection_remove(c, 3));
    assert_int_equal(lk_collection_remove(c, 3), LK_NOT_FOUND);
    assert_int_equal(lk_collection_remove(c, 77), LK_NOT_FOUND);
    OK(lk_collection_commit(c));
    assert_int_equal(put(c, 3, 1), 4);
    OK(lk_collection_commit(c));
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    expect_vector(snapshot, 3, 3, -1);
    expect_vector(snapshot, 4, 3, 1);
    lk_snapshot_free(snapshot);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
}

static void labels_change_without_touching_the_vector(void **state)
{
    lk_collection *c = create(state);
    put(c, 1, 0);
    OK(lk_collection_commit(c));
    lk_record record = {.path = "/p/1.png", .size = 99, .labels = "{\"label\":5}"}, r;
    OK(lk_collection_update(c, &record));
    record.path = "/p/none.png";
    assert_int_equal(lk_collection_update(c, &record), LK_NOT_FOUND);
    OK(lk_collection_commit(c));
    OK(lk_collection_find_id(c, 1, &r));
    assert_string_equal(r.label, "5");
    assert_int_equal(r.size, 99);
    assert_int_equal(r.hash[0], 1);
    lk_record_free(&r);
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    expect_vector(snapshot, 1, 1, 0);
    lk_snapshot_free(snapshot);
    lk_collection_close(c);
}

static void a_skipped_picture_has_a_reason_and_no_vector(void **state)
{
    lk_collection *c = create(state);
    put(c, 1, 0);
    OK(lk_collection_commit(c));
    lk_record record = {.path = "/p/1.png", .state = LK_PICTURE_SKIPPED, .error = "broken"}, r;
    float vector[DIM] = {1};
    assert_int_equal(lk_collection_put(c, &record, vector, NULL), LK_INVALID);
    OK(lk_collection_put(c, &record, NULL, NULL));
    OK(lk_collection_commit(c));
    OK(lk_collection_find_id(c, 1, &r));
    assert_int_equal(r.state, LK_PICTURE_SKIPPED);
    assert_string_equal(r.error, "broken");
    lk_record_free(&r);
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    assert_int_equal(lk_flat_count(lk_snapshot_index(snapshot)), 0);
    lk_snapshot_free(snapshot);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
}

static void a_picture_is_found_by_its_bytes(void **state)
{
    lk_collection *c = create(state);
    put(c, 1, 0);
    put(c, 2, 0);
    const uint64_t two[2] = {2, 0}, none[2] = {2, 1};
    lk_record r;
    OK(lk_collection_find_hash(c, two, 0, &r));
    assert_int_equal(r.id, 2);
    lk_record_free(&r);
    assert_int_equal(lk_collection_find_hash(c, two, 2, &r), LK_NOT_FOUND); /* no other after it */
    assert_int_equal(lk_collection_find_hash(c, none, 0, &r), LK_NOT_FOUND);
    lk_collection_close(c);
}

/* ---- refusals leave no trace ---- */

static void a_refused_put_leaves_the_rest_of_the_batch_whole(void **state)
{
    lk_collection *c = create(state);
    put(c, 1, 0);
    put(c, 2, 0);
    OK(lk_collection_commit(c));
    float vector[DIM] = {0}, bad[DIM] = {1, 2, NAN};
    lk_record record = {.path = "/new"};
    put(c, 3, 0);
    assert_int_equal(lk_collection_put(c, &record, bad, NULL), LK_INVALID);
    record.labels = "[1]";
    assert_int_equal(lk_collection_put(c, &record, vector, NULL), LK_INVALID);
    record.labels = "{oops";
    assert_int_equal(lk_collection_put(c, &record, vector, NULL), LK_INVALID);
    record = (lk_record){.path = "/bad\xff"};
    assert_int_equal(lk_collection_put(c, &record, vector, NULL), LK_INVALID);
    record = (lk_record){.path = "/new", .id = 55};
    assert_int_equal(lk_collection_put(c, &record, vector, NULL), LK_NOT_FOUND);
    record = (lk_record){.path = "/p/2.png", .id = 1}; /* the path of another picture */
    assert_int_equal(lk_collection_put(c, &record, vector, NULL), LK_CONFLICT);
    put(c, 4, 0);
    OK(lk_collection_commit(c));
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    assert_int_equal(lk_flat_count(lk_snapshot_index(snapshot)), 4);
    for (int n = 1; n <= 4; n++) expect_vector(snapshot, n, n, 0);
    lk_snapshot_free(snapshot);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
}

static void a_collection_without_sense_is_not_created(void **state)
{
    lk_collection_config config = {.dim = 0, .embedder_id = "a", .embedder_name = "b"};
    lk_collection *c;
    assert_int_equal(lk_collection_create(in_folder(state, "c.lk"), &config, &c), LK_INVALID);
    config.dim = 65537;
    assert_int_equal(lk_collection_create(in_folder(state, "c.lk"), &config, &c), LK_INVALID);
    config.dim = 4;
    assert_int_not_equal(lk_collection_create(in_folder(state, "none/c.lk"), &config, &c), LK_OK);
    mkdir(in_folder(state, "taken"), 0777);
    assert_int_equal(lk_collection_create(in_folder(state, "taken"), &config, &c), LK_CONFLICT);
    rmdir(in_folder(state, "taken"));
    assert_null(c);
    assert_int_equal(unit_count_files(*state), 0);
}

static void readers_cannot_write(void **state)
{
    lk_collection_close(create(state));
    lk_collection *c = open_as(state, LK_READ);
    float vector[DIM] = {0};
    lk_record record = {.path = "/a"};
    assert_int_equal(lk_collection_put(c, &record, vector, NULL), LK_INVALID);
    assert_int_equal(lk_collection_remove(c, 1), LK_INVALID);
    assert_int_equal(lk_collection_commit(c), LK_INVALID);
    assert_int_equal(lk_collection_compact(c), LK_INVALID);
    lk_collection_close(c);
}

static void a_second_writer_is_refused_while_readers_go_on(void **state)
{
    lk_collection *writer = create(state), *second;
    put(writer, 1, 0);
    OK(lk_collection_commit(writer));
    assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_WRITE, &second), LK_CONFLICT);
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(lk_error_message(), pid));
    put(writer, 2, 0);
    lk_collection *reader = open_as(state, LK_READ);
    assert_int_equal(indexed(reader), 1);
    OK(lk_collection_commit(writer));
    assert_int_equal(indexed(reader), 2);
    lk_collection_close(writer);
    OK(lk_collection_open(in_folder(state, "c.lk"), LK_WRITE, &second));
    lk_collection_close(second);
    lk_collection_close(reader);
}

/* ---- snapshots and compaction ---- */

static void a_snapshot_outlives_commits_compaction_and_its_collection(void **state)
{
    lk_collection *c = create(state), *reader;
    for (int n = 1; n <= 100; n++) put(c, n, 0);
    OK(lk_collection_commit(c));
    reader = open_as(state, LK_READ);
    lk_snapshot *old, *fresh;
    OK(lk_collection_snapshot(reader, &old));
    for (int n = 1; n <= 100; n += 2) put(c, n, 1);
    for (int n = 2; n <= 50; n += 2) OK(lk_collection_remove(c, n));
    OK(lk_collection_commit(c));
    OK(lk_collection_compact(c));
    OK(lk_collection_snapshot(reader, &fresh));
    lk_collection_close(c);
    lk_collection_close(reader);
    assert_int_equal(lk_flat_count(lk_snapshot_index(old)), 100);
    assert_int_equal(lk_flat_count(lk_snapshot_index(fresh)), 75);
    for (int n = 1; n <= 100; n++) {
        expect_vector(old, n, n, 0);
        expect_vector(fresh, n, n, n % 2 ? 1 : n <= 50 ? -1 : 0);
    }
    lk_snapshot_free(old);
    lk_snapshot_free(fresh);
}

static void compaction_drops_dead_rows_and_their_files(void **state)
{
    lk_collection *c = create_typed(state, LK_I8, LK_COSINE);
    for (int n = 1; n <= 300; n++) put(c, n, 0);
    OK(lk_collection_commit(c));
    for (int n = 1; n <= 300; n++) put(c, n, 1);
    lk_collection_stats before, after;
    OK(lk_collection_commit(c));
    OK(lk_collection_stats_of(c, &before));
    OK(lk_collection_compact(c));
    OK(lk_collection_stats_of(c, &after));
    assert_int_equal(before.dead_vectors, 300);
    assert_int_equal(after.dead_vectors, 0);
    assert_true(after.vector_bytes < before.vector_bytes * 2 / 3);
    assert_int_equal(unit_count_files(in_folder(state, "c.lk/vectors")), 2); /* a segment and its table of blocks */
    assert_int_equal(put(c, 301, 0), 301);
    OK(lk_collection_commit(c));
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
    c = open_as(state, LK_WRITE);
    assert_int_equal(problems(c), 0);
    assert_int_equal(indexed(c), 301);
    lk_collection_close(c);
}

static void an_emptied_collection_can_be_compacted_and_filled_again(void **state)
{
    lk_collection *c = create(state);
    put(c, 1, 0);
    OK(lk_collection_commit(c));
    OK(lk_collection_remove(c, 1));
    OK(lk_collection_compact(c)); /* commits first */
    assert_int_equal(indexed(c), 0);
    struct stat st; /* numbers of segments are never used again */
    assert_int_not_equal(stat(in_folder(state, "c.lk/vectors/000001.seg"), &st), 0);
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    assert_int_equal(lk_flat_count(lk_snapshot_index(snapshot)), 0);
    lk_snapshot_free(snapshot);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
    c = open_as(state, LK_WRITE);
    put(c, 2, 0);
    OK(lk_collection_commit(c));
    assert_int_not_equal(stat(in_folder(state, "c.lk/vectors/000001.seg"), &st), 0);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
    c = open_as(state, LK_WRITE);
    assert_int_equal(problems(c), 0);
    OK(lk_collection_snapshot(c, &snapshot));
    expect_vector(snapshot, 2, 2, 0);
    lk_snapshot_free(snapshot);
    lk_collection_close(c);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, unit_folder, unit_folder_remove)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(what_was_committed_is_there_after_reopening),
        IN_FOLDER(every_type_of_vector_survives_storage),
        IN_FOLDER(a_batch_is_invisible_before_its_commit_and_gone_after_rollback),
        IN_FOLDER(closing_without_commit_loses_the_batch_alone),
        IN_FOLDER(a_new_version_keeps_the_id_and_replaces_the_vector),
        IN_FOLDER(removed_ids_are_never_used_again),
        IN_FOLDER(labels_change_without_touching_the_vector),
        IN_FOLDER(a_skipped_picture_has_a_reason_and_no_vector),
        IN_FOLDER(a_picture_is_found_by_its_bytes),
        IN_FOLDER(a_refused_put_leaves_the_rest_of_the_batch_whole),
        IN_FOLDER(a_collection_without_sense_is_not_created),
        IN_FOLDER(readers_cannot_write),
        IN_FOLDER(a_second_writer_is_refused_while_readers_go_on),
        IN_FOLDER(a_snapshot_outlives_commits_compaction_and_its_collection),
        IN_FOLDER(compaction_drops_dead_rows_and_their_files),
        IN_FOLDER(an_emptied_collection_can_be_compacted_and_filled_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
