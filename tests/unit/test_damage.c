/* Collections whose files are damaged, and disks that are full: what is wrong is told. */
#include "base/file.h"
#include "store/manifest.h"
#include "store/segment.h"

#include "store_fixture.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- damage ---- */

static uint8_t *slurp(const char *path, size_t *size)
{
    uint8_t *bytes;
    OK(lk_file_read(path, 0, &bytes, size));
    return bytes;
}

static void spill(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static void fill(void **state, lk_dtype dtype)
{
    lk_collection *c = create_typed(state, dtype, LK_L2);
    for (int batch = 0; batch < 3; batch++) {
        for (int n = 1; n <= 4; n++) put(c, batch * 4 + n, 0);
        OK(lk_collection_commit(c));
    }
    lk_collection_close(c);
}

static void a_torn_tail_is_cut_off_by_the_next_writer(void **state)
{
    fill(state, LK_F32);
    char *path = in_folder(state, "c.lk/vectors/000001.seg");
    size_t size, after;
    uint8_t *bytes = slurp(path, &size);
    uint8_t *longer = calloc(1, size + 1000);
    memcpy(longer, bytes, size);
    memcpy(longer + size, bytes + LK_SEGMENT_HEADER, 100); /* the beginning of a block */
    spill(path, longer, size + 1000);
    char *orphan = in_folder(state, "c.lk/vectors/000002.seg"); /* begun and never committed */
    spill(orphan, "LKSEG", 5);
    lk_collection *c = open_as(state, LK_READ); /* readers go by the committed length */
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
    c = open_as(state, LK_WRITE);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, size);
    assert_int_not_equal(stat(orphan, &st), 0);
    put(c, 50, 0);
    OK(lk_collection_commit(c));
    assert_int_equal(problems(c), 0);
    assert_int_equal(indexed(c), 13);
    lk_collection_close(c);
    free(slurp(path, &after));
    assert_true(after > size);
    free(bytes);
    free(longer);
}

static void every_flipped_byte_of_the_vectors_is_found(void **state)
{
    fill(state, LK_I8);
    char *path = in_folder(state, "c.lk/vectors/000001.seg");
    size_t size;
    uint8_t *bytes = slurp(path, &size);
    lk_collection *c = open_as(state, LK_READ);
    for (size_t at = 0; at < size; at += 3) {
        bytes[at] ^= 0x10;
        spill(path, bytes, size);
        uint64_t n;
        OK(lk_collection_verify(c, NULL, NULL, &n));
        if (n == 0) fail_msg("byte %zu of %zu", at, size);
        bytes[at] ^= 0x10;
    }
    spill(path, bytes, size);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
    free(bytes);
}

static void a_segment_cut_short_or_missing_is_refused_with_its_name(void **state)
{
    fill(state, LK_F32);
    char *path = in_folder(state, "c.lk/vectors/000001.seg");
    size_t size;
    uint8_t *bytes = slurp(path, &size);
    lk_collection *c = open_as(state, LK_READ), *writer;
    lk_snapshot *snapshot;
    const size_t cuts[] = {0, 10, LK_SEGMENT_HEADER, LK_SEGMENT_HEADER + 30, size - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        uint64_t n;
        spill(path, bytes, cuts[i]);
        assert_int_equal(lk_collection_snapshot(c, &snapshot), LK_CORRUPT);
        assert_non_null(strstr(lk_error_message(), "000001.seg"));
        assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_WRITE, &writer), LK_CORRUPT);
        OK(lk_collection_verify(c, NULL, NULL, &n));
        assert_true(n > 0);
    }
    unlink(path);
    assert_int_equal(lk_collection_snapshot(c, &snapshot), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "missing"));
    assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_WRITE, &writer), LK_NOT_FOUND);
    lk_collection_close(c);
    free(bytes);
}

static void compaction_never_blesses_damaged_vectors(void **state)
{
    fill(state, LK_F32);
    char *path = in_folder(state, "c.lk/vectors/000001.seg");
    size_t size;
    uint8_t *bytes = slurp(path, &size);
    bytes[size - 64 - 8] ^= 1; /* in the last block's payload */
    spill(path, bytes, size);
    lk_collection *c = open_as(state, LK_WRITE);
    assert_int_equal(lk_collection_compact(c), LK_CORRUPT);
    bytes[size - 64 - 8] ^= 1;
    spill(path, bytes, size);
    assert_int_equal(problems(c), 0); /* nothing else has changed */
    assert_int_equal(unit_count_files(in_folder(state, "c.lk/vectors")), 1);
    OK(lk_collection_compact(c));
    assert_int_equal(indexed(c), 12);
    lk_collection_close(c);
    free(bytes);
}

static void readers_go_on_while_a_damaged_end_is_cut_off(void **state)
{
    enum { BATCH = 2000 }; /* more than a page: what a mapped file has lost cannot be read any more */
    lk_collection *c = create(state);
    lk_snapshot *snapshot;
    for (int n = 1; n <= 2 * BATCH; n++) {
        put(c, n, 0);
        if (n % BATCH == 0) OK(lk_collection_commit(c));
    }
    lk_collection_close(c);
    char *path = in_folder(state, "c.lk/vectors/000001.seg");
    size_t size, after;
    uint8_t *bytes = slurp(path, &size);
    bytes[size - 200] ^= 1; /* in the last block's payload */
    spill(path, bytes, size);
    free(bytes);
    c = open_as(state, LK_READ);
    int64_t id = id_of(c, BATCH + 5);
    OK(lk_collection_snapshot(c, &snapshot));
    uint64_t repairs;
    OK(lk_collection_repair(in_folder(state, "c.lk"), NULL, NULL, &repairs));
    free(slurp(path, &after));
    assert_true(after < size);
    expect_vector(snapshot, id, BATCH + 5, 0);
    lk_snapshot_free(snapshot);
    assert_int_equal(indexed(c), BATCH);
    assert_int_equal(problems(c), 0);
    lk_collection_close(c);
}

static void a_damaged_manifest_is_refused(void **state)
{
    fill(state, LK_F32);
    char *path = in_folder(state, "c.lk/MANIFEST");
    size_t size;
    uint8_t *bytes = slurp(path, &size);
    lk_collection *c;
    for (size_t keep = 0; keep < size; keep += 7) {
        spill(path, bytes, keep);
        assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c), LK_CORRUPT);
        assert_non_null(strstr(lk_error_message(), "MANIFEST"));
    }
    for (size_t at = 0; at < size; at += 3) {
        bytes[at] ^= 4;
        spill(path, bytes, size);
        assert_int_not_equal(lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c), LK_OK);
        bytes[at] ^= 4;
    }
    free(bytes);
}

static void a_newer_format_is_told_apart_from_damage(void **state)
{
    fill(state, LK_F32);
    lk_collection *c;
    size_t size;
    char *manifest = in_folder(state, "c.lk/MANIFEST");
    uint8_t *bytes = slurp(manifest, &size);
    static const char text[] = "{}";
    OK(lk_blob_write(manifest, "LKMANIF", 2, text, 2));
    assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c), LK_UNSUPPORTED);
    assert_non_null(strstr(lk_error_message(), "newer"));
    spill(manifest, bytes, size);
    free(bytes);

    char *segment = in_folder(state, "c.lk/vectors/000001.seg");
    bytes = slurp(segment, &size);
    bytes[8] = 2; /* version */
    uint64_t sum = lk_hash(bytes, 56).low;
    memcpy(bytes + 56, &sum, sizeof sum);
    spill(segment, bytes, size);
    c = open_as(state, LK_READ);
    lk_snapshot *snapshot;
    assert_int_equal(lk_collection_snapshot(c, &snapshot), LK_UNSUPPORTED);
    assert_non_null(strstr(lk_error_message(), "newer"));
    lk_collection_close(c);
    free(bytes);

    sqlite3 *db;
    assert_int_equal(sqlite3_open(in_folder(state, "c.lk/catalog.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c), LK_UNSUPPORTED);
    assert_non_null(strstr(lk_error_message(), "newer"));
}

static void a_damaged_catalog_is_refused_or_reported(void **state)
{
    fill(state, LK_F32);
    char *path = in_folder(state, "c.lk/catalog.db");
    size_t size;
    uint8_t *bytes = slurp(path, &size);
    lk_collection *c;
    spill(path, bytes, 50);
    assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "catalog"));
    spill(path, "this is not a database, however long it may be, and never was", 62);
    assert_int_equal(lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c), LK_CORRUPT);
    unlink(path);
    assert_int_not_equal(lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c), LK_OK);
    for (size_t page = 4096; page < size; page += 4096) { /* the tables; the first page is the schema */
        uint8_t kept[64];
        uint64_t n = 0;
        memcpy(kept, bytes + page, sizeof kept);
        memset(bytes + page, 0x5a, sizeof kept);
        spill(path, bytes, size);
        memcpy(bytes + page, kept, sizeof kept);
        if (lk_collection_open(in_folder(state, "c.lk"), LK_READ, &c) != LK_OK) continue;
        OK(lk_collection_verify(c, NULL, NULL, &n));
        if (n == 0) fail_msg("page at %zu", page);
        lk_collection_close(c);
    }
    free(bytes);
}

static void catalog_and_vectors_that_disagree_are_reported(void **state)
{
    static const char *const changes[] = {
        "UPDATE images SET row=3 WHERE id=2",     /* another's vector */
        "UPDATE images SET row=99 WHERE id=2",    /* beyond the end */
        "UPDATE images SET segment=9 WHERE id=2", /* a segment that is not there */
        "UPDATE images SET segment=NULL WHERE id=2",
        "DELETE FROM images WHERE id=2", /* its vector would still be found */
        "INSERT INTO dead VALUES(1, 1)", /* a live vector called dead */
        "UPDATE segments SET rows=11",
    };
    fill(state, LK_F32);
    char *path = in_folder(state, "c.lk/catalog.db");
    size_t size;
    uint8_t *bytes = slurp(path, &size);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        sqlite3 *db;
        spill(path, bytes, size);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        if (sqlite3_exec(db, changes[i], NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s", sqlite3_errmsg(db));
        sqlite3_close(db);
        lk_collection *c = open_as(state, LK_READ);
        uint64_t n;
        OK(lk_collection_verify(c, NULL, NULL, &n));
        if (n == 0) fail_msg("not noticed: %s", changes[i]);
        lk_collection_close(c);
    }
    free(bytes);
}

static void change(void **state, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(in_folder(state, "c.lk/catalog.db"), &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_close(db);
}

static size_t found(void **state, const char *predicate)
{
    lk_id_set *set;
    lk_collection *c = open_as(state, LK_READ);
    OK(lk_collection_select(c, predicate, &set));
    size_t count = lk_id_set_count(set);
    lk_id_set_free(set);
    lk_collection_close(c);
    return count;
}

enum { LABELLED = 20 };

/* Each with a number, and with a list of twice the same and another. */
static void fill_labelled(void **state)
{
    lk_collection *c = create(state);
    for (int i = 0; i < LABELLED; i++) {
        char name[32], labels[96];
        float vector[DIM];
        snprintf(name, sizeof name, "/p/%d.png", i);
        snprintf(labels, sizeof labels, "{\"part\":%d,\"tags\":[\"a\",\"a\",1.0],\"no\":null}", i % 4);
        make_vector(i, 0, vector);
        lk_record record = {.path = name, .labels = labels};
        OK(lk_collection_put(c, &record, vector, NULL));
    }
    OK(lk_collection_commit(c));
    lk_collection_close(c);
}

static void tables_of_labels_that_lie_are_found_and_made_anew(void **state)
{
    static const char *const changes[] = {
        "DELETE FROM label_images WHERE image%2=0",
        "DELETE FROM label_values WHERE name='part' AND value=2",
        "UPDATE label_values SET value='2' WHERE value=2", /* as texts the same */
        "INSERT INTO label_images VALUES((SELECT number FROM label_values WHERE name='part' AND value=2), 1)",
        "INSERT INTO label_images VALUES(99, 1)",
        "INSERT INTO label_images VALUES((SELECT number FROM label_values WHERE name='part' AND value=2), 99)",
        "UPDATE label_values SET name='other' WHERE name='tags'",
    };
    fill_labelled(state);
    uint64_t n;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        lk_collection *c = open_as(state, LK_READ);
        OK(lk_collection_verify(c, NULL, NULL, &n));
        assert_int_equal(n, 0);
        lk_collection_close(c);
        change(state, changes[i]);
        c = open_as(state, LK_READ);
        OK(lk_collection_verify(c, NULL, NULL, &n));
        if (n != 1) fail_msg("%d problems: %s", (int)n, changes[i]);
        lk_collection_close(c);
        OK(lk_collection_repair(in_folder(state, "c.lk"), NULL, NULL, &n));
        assert_int_equal(n, 1);
        assert_int_equal(found(state, "part = 2 and tags = a and tags = 1"), LABELLED / 4);
    }
}

/* And a row that is no JSON, which keeps nobody from writing. */
#define BREAK_LABELS                                                                                                   \
    "DROP TRIGGER images_added; DROP TRIGGER images_changed; DROP TABLE label_values;"                                 \
    "UPDATE images SET labels='{\"part\":2,' WHERE id=20"

static void incomplete_tables_of_labels_are_made_anew_by_the_next_writer(void **state)
{
    static const char *const changes[] = {
        "DROP TRIGGER images_changed",   "DROP TRIGGER images_added; INSERT INTO label_images VALUES(99, 1)",
        "DROP TABLE label_images",       "DROP TABLE label_values",
        "DROP INDEX label_values_value", BREAK_LABELS,
    };
    fill_labelled(state);
    uint64_t n;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        change(state, changes[i]);
        if (i < 5) assert_int_equal(found(state, "part = 2"), LABELLED / 4); /* by looking at every picture */
        lk_collection_close(open_as(state, LK_WRITE));
        lk_collection *c = open_as(state, LK_READ);
        OK(lk_collection_verify(c, NULL, NULL, &n));
        assert_int_equal(n, 0);
        lk_collection_close(c);
        assert_int_equal(found(state, "part = 2"), LABELLED / 4);
        assert_int_equal(found(state, "part exists"), i < 5 ? LABELLED : LABELLED - 1);
    }
    lk_collection *c = open_as(state, LK_WRITE);
    lk_record mended = {.id = 20, .path = "/p/19.png", .labels = "{\"part\":7}"};
    OK(lk_collection_update(c, &mended));
    OK(lk_collection_commit(c));
    lk_collection_close(c);
    assert_int_equal(found(state, "part exists"), LABELLED);
}

static void what_is_no_collection_is_told(void **state)
{
    lk_collection *c;
    assert_int_equal(lk_collection_open(in_folder(state, "none.lk"), LK_READ, &c), LK_NOT_FOUND);
    assert_int_equal(lk_collection_open(*state, LK_READ, &c), LK_NOT_FOUND);
    assert_non_null(strstr(lk_error_message(), "is not a collection"));
}

/* ---- a disk that is full ---- */

/* In a child, because the limit holds for the process: batches until one fails. The exit status says how many were
 * acknowledged; 200 and more means that the failure was not told as it should be. */
static int write_until_full(const char *path, rlim_t most)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN); /* writes beyond the limit then fail with EFBIG */
        struct rlimit limit = {most, most};
        setrlimit(RLIMIT_FSIZE, &limit);
        lk_collection *c;
        if (lk_collection_open(path, LK_WRITE, &c) != LK_OK) _exit(199); /* not even the first page of the log fits */
        int acknowledged = 0;
        for (; acknowledged < 100; acknowledged++) {
            lk_status s = LK_OK;
            for (int i = 0; s == LK_OK && i < 20; i++) {
                char name[32];
                float vector[DIM];
                int n = acknowledged * 20 + i + 1000;
                snprintf(name, sizeof name, "/p/%d.png", n);
                make_vector(n, 0, vector);
                lk_record record = {.path = name};
                s = lk_collection_put(c, &record, vector, NULL);
            }
            if (s == LK_OK) s = lk_collection_commit(c);
            if (s == LK_OK) continue;
            if (s != LK_IO || !*lk_error_message()) _exit(200);
            break;
        }
        if (acknowledged == 100) _exit(201);
        /* The same handle goes on once there is room... which there is not: it must say so again, and not crash. */
        if (lk_collection_rollback(c) != LK_OK) _exit(202);
        lk_collection_close(c);
        _exit(acknowledged);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_full_disk_loses_nothing_that_was_acknowledged(void **state)
{
    fill(state, LK_F32);
    uint64_t known = 12;
    int some = 0;
    const rlim_t limits[] = {20000, 30000, 45000, 60000, 90000, 150000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        int acknowledged = write_until_full(in_folder(state, "c.lk"), limits[i]);
        if (acknowledged >= 200) fail_msg("limit %lu: status %d", (unsigned long)limits[i], acknowledged);
        if (acknowledged == 199) acknowledged = 0;
        some += acknowledged;
        lk_collection *c = open_as(state, LK_WRITE);
        /* Batches that replace those of the run before count once. */
        uint64_t most = 12 + (uint64_t)acknowledged * 20;
        known = known > most ? known : most;
        assert_int_equal(indexed(c), known);
        assert_int_equal(problems(c), 0);
        put(c, 1, (int)i); /* there is room again */
        OK(lk_collection_commit(c));
        assert_int_equal(problems(c), 0);
        lk_collection_close(c);
    }
    assert_true(some > 0); /* the limits are neither all too narrow nor too wide */
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, unit_folder, unit_folder_remove)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_torn_tail_is_cut_off_by_the_next_writer),
        IN_FOLDER(every_flipped_byte_of_the_vectors_is_found),
        IN_FOLDER(a_segment_cut_short_or_missing_is_refused_with_its_name),
        IN_FOLDER(compaction_never_blesses_damaged_vectors),
        IN_FOLDER(readers_go_on_while_a_damaged_end_is_cut_off),
        IN_FOLDER(a_damaged_manifest_is_refused),
        IN_FOLDER(a_newer_format_is_told_apart_from_damage),
        IN_FOLDER(a_damaged_catalog_is_refused_or_reported),
        IN_FOLDER(catalog_and_vectors_that_disagree_are_reported),
        IN_FOLDER(tables_of_labels_that_lie_are_found_and_made_anew),
        IN_FOLDER(incomplete_tables_of_labels_are_made_anew_by_the_next_writer),
        IN_FOLDER(what_is_no_collection_is_told),
        IN_FOLDER(a_full_disk_loses_nothing_that_was_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
