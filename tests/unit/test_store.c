/* The collection: what is acknowledged stays, what is not leaves no trace, and damage is told. */
#include "base/file.h"
#include "store/manifest.h"
#include "store/segment.h"
#include <likeness/collection.h>

#include "unit.h"

#include <fcntl.h>
#include <math.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { DIM = 5 };

/* The path of a file in the test's folder; equal paths are one string, valid for the whole test. */
static char *in_folder(void **state, const char *name)
{
    static char paths[64][512];
    static int next;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (char *)*state, name);
    for (int i = 0; i < 64; i++)
        if (strcmp(paths[i], path) == 0) return paths[i];
    return strcpy(paths[next++ % 64], path);
}

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

static lk_collection *create_typed(void **state, lk_dtype dtype, lk_metric metric)
{
    lk_collection_config config = {
        .dim = DIM, .metric = metric, .dtype = dtype, .embedder_id = "0123", .embedder_name = "test"};
    lk_collection *c;
    OK(lk_collection_create(in_folder(state, "c.lk"), &config, &c));
    return c;
}

static lk_collection *create(void **state)
{
    return create_typed(state, LK_F32, LK_L2);
}

static lk_collection *open_as(void **state, lk_access access)
{
    lk_collection *c;
    OK(lk_collection_open(in_folder(state, "c.lk"), access, &c));
    return c;
}

/* The vector of picture n: all components n + version/10. */
static void make_vector(int n, int version, float *out)
{
    for (int i = 0; i < DIM; i++) out[i] = (float)n + (float)version / 10;
}

static int64_t put(lk_collection *c, int n, int version)
{
    char path[32];
    float vector[DIM];
    int64_t id = 0;
    snprintf(path, sizeof path, "/p/%d.png", n);
    make_vector(n, version, vector);
    lk_record record = {.path = path,
                        .size = (uint64_t)n,
                        .mtime_ns = version,
                        .hash = {(uint64_t)n, (uint64_t)version},
                        .width = 10,
                        .height = 20,
                        .labels = "{\"label\":\"x\",\"year\":7}"};
    OK(lk_collection_put(c, &record, vector, &id));
    return id;
}

static int64_t id_of(lk_collection *c, int n)
{
    char path[32];
    lk_record record;
    snprintf(path, sizeof path, "/p/%d.png", n);
    if (lk_collection_find_path(c, path, &record) != LK_OK) return 0;
    int64_t id = record.id;
    lk_record_free(&record);
    return id;
}

static uint64_t indexed(lk_collection *c)
{
    lk_collection_stats stats;
    OK(lk_collection_stats_of(c, &stats));
    return stats.indexed;
}

static void print_problem(void *user, const char *problem)
{
    (void)user;
    print_message("problem: %s\n", problem);
}

static uint64_t problems(lk_collection *c)
{
    uint64_t n;
    OK(lk_collection_verify(c, print_problem, NULL, &n));
    return n;
}

/* The vector of picture n in a snapshot is that of `version`; version < 0: it has none. */
static void expect_vector(const lk_snapshot *snapshot, int64_t id, int n, int version)
{
    float found[DIM], wanted[DIM];
    lk_status s = lk_flat_vector(lk_snapshot_index(snapshot), (uint64_t)id, found);
    assert_int_equal(s, version < 0 ? LK_NOT_FOUND : LK_OK);
    if (version < 0) return;
    make_vector(n, version, wanted);
    assert_memory_equal(found, wanted, sizeof found);
}

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
        IN_FOLDER(a_torn_tail_is_cut_off_by_the_next_writer),
        IN_FOLDER(every_flipped_byte_of_the_vectors_is_found),
        IN_FOLDER(a_segment_cut_short_or_missing_is_refused_with_its_name),
        IN_FOLDER(compaction_never_blesses_damaged_vectors),
        IN_FOLDER(a_damaged_manifest_is_refused),
        IN_FOLDER(a_newer_format_is_told_apart_from_damage),
        IN_FOLDER(a_damaged_catalog_is_refused_or_reported),
        IN_FOLDER(catalog_and_vectors_that_disagree_are_reported),
        IN_FOLDER(what_is_no_collection_is_told),
        IN_FOLDER(a_full_disk_loses_nothing_that_was_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
