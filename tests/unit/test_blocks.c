/* The table of a segment's blocks: with it nothing else is found than without, and a wrong one is not believed. */
#include "index/flat.h"
#include "store/blocks.h"
#include <likeness/collection.h>

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIM = 4, BATCHES = 70, BATCH = 3, PICTURES = BATCHES * BATCH };

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

static const char *in_folder(void **state, const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", (char *)*state, name);
    return path;
}

static void put(lk_collection *c, int n, float value)
{
    char path[32];
    float vector[DIM] = {value, (float)n, 1, 0};
    snprintf(path, sizeof path, "/p/%d.png", n);
    lk_record record = {.path = path, .hash = {(uint64_t)n, 1}, .width = 1, .height = 1};
    OK(lk_collection_put(c, &record, vector, NULL));
}

/* Pictures of ids 1 to PICTURES, a block for each batch of them; then one in seven changes, which mixes ids. */
static void make(void **state, const char *name, float value)
{
    lk_collection_config config = {
        .dim = DIM, .metric = LK_L2, .dtype = LK_F32, .embedder_id = "0123", .embedder_name = "test"};
    lk_collection *c;
    OK(lk_collection_create(in_folder(state, name), &config, &c));
    for (int n = 1; n <= PICTURES; n++) {
        put(c, n, value);
        if (n % BATCH == 0) OK(lk_collection_commit(c));
    }
    for (int n = 7; n <= PICTURES; n += 7) put(c, n, value + 1);
    OK(lk_collection_commit(c));
    lk_collection_close(c);
}

static lk_collection *open_as(void **state, const char *name, lk_access access)
{
    lk_collection *c;
    OK(lk_collection_open(in_folder(state, name), access, &c));
    return c;
}

/* Every picture has its vector, and nothing else is there. */
static void expect_all(void **state, float value)
{
    lk_collection *c = open_as(state, "c.lk", LK_READ);
    lk_snapshot *snapshot;
    OK(lk_collection_snapshot(c, &snapshot));
    const lk_flat *index = lk_snapshot_index(snapshot);
    assert_int_equal(lk_flat_count(index), PICTURES);
    for (int n = PICTURES + 1; n >= 0; n--) {
        float found[DIM];
        lk_status s = lk_flat_vector(index, (uint64_t)n, found);
        if (n == 0 || n > PICTURES) {
            assert_int_equal(s, LK_NOT_FOUND);
            continue;
        }
        assert_int_equal(s, LK_OK);
        float wanted[DIM] = {n % 7 ? value : value + 1, (float)n, 1, 0};
        assert_memory_equal(found, wanted, sizeof found);
    }
    lk_snapshot_free(snapshot);
    lk_collection_close(c);
}

static uint64_t problems(void **state)
{
    uint64_t n;
    lk_collection *c = open_as(state, "c.lk", LK_READ);
    OK(lk_collection_verify(c, NULL, NULL, &n));
    lk_collection_close(c);
    return n;
}

static uint8_t *slurp(const char *path, size_t *size)
{
    uint8_t *bytes;
    OK(lk_file_read(path, 0, &bytes, size));
    return bytes;
}

/* How many blocks the table of the first segment tells of; -1: it is not believed. */
static int entries(void **state)
{
    const char *path = in_folder(state, "c.lk/vectors/000001.seg");
    lk_map map;
    lk_block_table table;
    OK(lk_map_open(path, &map));
    lk_status s = lk_block_table_read(path, &map, 1, map.size, DIM, LK_F32, &table);
    int count = s == LK_OK ? (int)table.count : -1;
    if (s != LK_OK && s != LK_CORRUPT && s != LK_NOT_FOUND) fail_msg("%s", lk_error_message());
    lk_block_table_free(&table);
    lk_map_close(&map);
    return count;
}

static void many_small_batches_leave_a_table_that_finds_every_picture(void **state)
{
    make(state, "c.lk", 10);
    assert_int_equal(entries(state), 64); /* written once, and lags behind by less than as much again */
    assert_int_equal(problems(state), 0);
    expect_all(state, 10);
}

static void without_a_table_everything_is_found_and_the_next_writer_makes_it(void **state)
{
    make(state, "c.lk", 10);
    assert_int_equal(unlink(in_folder(state, "c.lk/vectors/000001.blocks")), 0);
    assert_int_equal(problems(state), 0);
    expect_all(state, 10);
    lk_collection_close(open_as(state, "c.lk", LK_WRITE));
    assert_int_equal(entries(state), BATCHES + 1);
    assert_int_equal(problems(state), 0);
    expect_all(state, 10);
}

static void a_damaged_table_is_told_and_not_believed_and_mended(void **state)
{
    make(state, "c.lk", 10);
    char path[512];
    strcpy(path, in_folder(state, "c.lk/vectors/000001.blocks"));
    size_t size;
    uint8_t *bytes = slurp(path, &size);
    for (size_t at = 0; at < size; at += 31) {
        bytes[at] ^= 0x20;
        OK(lk_file_write_atomic(path, bytes, size));
        bytes[at] ^= 0x20;
        uint64_t n = problems(state);
        if (n != 1) fail_msg("byte %zu of %zu: %d problems", at, size, (int)n);
    }
    expect_all(state, 10);
    OK(lk_file_write_atomic(path, bytes, size / 2));
    expect_all(state, 10);
    lk_collection_close(open_as(state, "c.lk", LK_WRITE));
    assert_int_equal(entries(state), BATCHES + 1);
    assert_int_equal(problems(state), 0);
    free(bytes);
}

static void the_table_of_other_vectors_is_not_believed(void **state)
{
    make(state, "c.lk", 10);
    make(state, "d.lk", 20); /* blocks of the same sizes */
    size_t size;
    uint8_t *bytes = slurp(in_folder(state, "d.lk/vectors/000001.blocks"), &size);
    OK(lk_file_write_atomic(in_folder(state, "c.lk/vectors/000001.blocks"), bytes, size));
    assert_int_equal(entries(state), -1);
    assert_int_equal(problems(state), 1);
    expect_all(state, 10);
    free(bytes);
}

/* A table can be whole and say what is not so; only reading all blocks tells. */
static void verify_compares_the_table_with_the_blocks(void **state)
{
    make(state, "c.lk", 10);
    char path[512];
    strcpy(path, in_folder(state, "c.lk/vectors/000001.blocks"));
    uint8_t *payload;
    size_t size;
    OK(lk_blob_read(path, "LKBLOCKS", 1, &payload, &size));
    payload[32 + 24 * 5] += 1; /* least id of the sixth block */
    OK(lk_blob_write(path, "LKBLOCKS", 1, payload, size));
    assert_int_equal(problems(state), 1);
    free(payload);
}

static void compaction_leaves_tables_of_its_own_segments_alone(void **state)
{
    make(state, "c.lk", 10);
    lk_collection *c = open_as(state, "c.lk", LK_WRITE);
    OK(lk_collection_compact(c));
    lk_collection_close(c);
    struct stat st;
    assert_int_not_equal(stat(in_folder(state, "c.lk/vectors/000001.blocks"), &st), 0);
    assert_int_equal(stat(in_folder(state, "c.lk/vectors/000002.blocks"), &st), 0);
    assert_int_equal(problems(state), 0);
    expect_all(state, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(many_small_batches_leave_a_table_that_finds_every_picture, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(without_a_table_everything_is_found_and_the_next_writer_makes_it, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_damaged_table_is_told_and_not_believed_and_mended, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(the_table_of_other_vectors_is_not_believed, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(verify_compares_the_table_with_the_blocks, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(compaction_leaves_tables_of_its_own_segments_alone, unit_folder,
                                        unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
