/* Files of vectors: those that numpy and h5py wrote (tools/reference/vectors.py) are read exactly, ours come back as
 * they were, and damaged ones are refused. */
#include "formats/layout.h"
#include <likeness/vectors.h>

#include "unit.h"

#include <math.h>

enum { ROWS = 5, DIM = 7 };

static void expect_table(lk_vector_reader *reader, uint64_t rows, float add)
{
    float out[ROWS * DIM];
    assert_int_equal(lk_vector_reader_rows(reader), rows);
    assert_int_equal(lk_vector_reader_dim(reader), DIM);
    assert_int_equal(lk_vector_reader_read(reader, 0, rows, out), LK_OK);
    for (uint64_t i = 0; i < rows * DIM; i++) assert_true(out[i] == (float)i + add);
    assert_int_equal(lk_vector_reader_read(reader, 1, 1, out), LK_OK); /* in the middle */
    for (int i = 0; i < DIM; i++) assert_true(out[i] == (float)(DIM + i) + add);
    assert_int_equal(lk_vector_reader_read(reader, rows, 0, out), LK_OK);
    assert_int_equal(lk_vector_reader_read(reader, rows, 1, out), LK_INVALID);
    assert_int_equal(lk_vector_reader_read(reader, UINT64_MAX, 2, out), LK_INVALID);
}

static const struct {
    const char *file;
    lk_component component;
    float add;
} readable[] = {
    {"f4.npy", LK_COMPONENT_F32, -9.5f},
    {"f2.npy", LK_COMPONENT_F16, -9.5f},
    {"f8.npy", LK_COMPONENT_F64, -9.5f},
    {"i1.npy", LK_COMPONENT_I8, -10},
    {"u1.npy", LK_COMPONENT_U8, 0},
    {"i4.npy", LK_COMPONENT_I32, -10},
    {"version1.npy", LK_COMPONENT_F32, -9.5f},
    {"version2.npy", LK_COMPONENT_F32, -9.5f},
    {"version3.npy", LK_COMPONENT_F32, -9.5f},
    {"f.fvecs", LK_COMPONENT_F32, -9.5f},
    {"u.bvecs", LK_COMPONENT_U8, 0},
    {"i.ivecs", LK_COMPONENT_I32, -10},
    {"f.fbin", LK_COMPONENT_F32, -9.5f},
    {"u.u8bin", LK_COMPONENT_U8, 0},
    {"i.i8bin", LK_COMPONENT_I8, -10},
    {"i.ibin", LK_COMPONENT_I32, -10},
    {"both.ibin", LK_COMPONENT_I32, -10},
};

static void files_of_numpy_and_of_the_specifications_are_read_exactly(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readable / sizeof *readable; i++) {
        char path[512];
        lk_vector_reader *reader;
        snprintf(path, sizeof path, "%s/vectors/%s", UNIT_FIXTURES, readable[i].file);
        assert_int_equal(lk_vector_reader_open(path, LK_VECTORS_BASE, &reader), LK_OK);
        assert_int_equal(lk_vector_reader_component(reader), readable[i].component);
        expect_table(reader, ROWS, readable[i].add);
        int32_t whole[DIM];
        bool ids = readable[i].component == LK_COMPONENT_I32;
        assert_int_equal(lk_vector_reader_read_i32(reader, 2, 1, whole), ids ? LK_OK : LK_INVALID);
        for (int c = 0; ids && c < DIM; c++) assert_int_equal(whole[c], 2 * DIM + c - 10);
        lk_vector_reader_free(reader);
    }
}

static bool has_hdf5(void)
{
    lk_vector_reader *reader;
    lk_status s = lk_vector_reader_open(UNIT_FIXTURES "/vectors/ann.hdf5", LK_VECTORS_BASE, &reader);
    lk_vector_reader_free(reader);
    return s != LK_UNSUPPORTED;
}

static void each_role_finds_its_dataset(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        lk_vectors_role role;
        lk_component component;
        uint64_t rows;
        float add;
    } sets[] = {{"ann.hdf5", LK_VECTORS_BASE, LK_COMPONENT_F32, ROWS, -9.5f},
                {"ann.hdf5", LK_VECTORS_QUERIES, LK_COMPONENT_F64, 2, -9.5f},
                {"ann.hdf5", LK_VECTORS_NEIGHBOURS, LK_COMPONENT_I32, ROWS, -10},
                {"ann.hdf5", LK_VECTORS_DISTANCES, LK_COMPONENT_F16, ROWS, -9.5f},
                {"ann.hdf5:test", LK_VECTORS_BASE, LK_COMPONENT_F64, 2, -9.5f},
                {"zipped.h5", LK_VECTORS_BASE, LK_COMPONENT_F32, ROWS, -9.5f}};
    if (!has_hdf5()) skip();
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char path[512];
        lk_vector_reader *reader;
        snprintf(path, sizeof path, "%s/vectors/%s", UNIT_FIXTURES, sets[i].path);
        assert_int_equal(lk_vector_reader_open(path, sets[i].role, &reader), LK_OK);
        assert_int_equal(lk_vector_reader_component(reader), sets[i].component);
        expect_table(reader, sets[i].rows, sets[i].add);
        lk_vector_reader_free(reader);
    }
}

static void what_is_not_read_is_refused_with_a_remedy(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        lk_status status;
        const char *word;
    } refused[] = {{"big_endian.npy", LK_UNSUPPORTED, "astype('<f4')"},
                   {"fortran.npy", LK_UNSUPPORTED, "ascontiguousarray"},
                   {"flat.npy", LK_UNSUPPORTED, "reshape"},
                   {"complex.npy", LK_UNSUPPORTED, "astype"},
                   {"records.npy", LK_UNSUPPORTED, "records"},
                   {"absent.npy", LK_NOT_FOUND, "absent.npy"},
                   {"f.vectors", LK_UNSUPPORTED, ".fvecs"},
                   {"f4.npy:train", LK_UNSUPPORTED, "end of the name"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char path[512];
        lk_vector_reader *reader;
        snprintf(path, sizeof path, "%s/vectors/%s", UNIT_FIXTURES, refused[i].file);
        assert_int_equal(lk_vector_reader_open(path, LK_VECTORS_BASE, &reader), refused[i].status);
        assert_null(reader);
        assert_non_null(strstr(lk_error_message(), refused[i].word));
        assert_non_null(strstr(lk_error_message(), refused[i].file));
    }
    lk_vector_reader *reader;
    if (!has_hdf5()) return;
    assert_int_equal(lk_vector_reader_open(UNIT_FIXTURES "/vectors/ann.hdf5:line", 0, &reader), LK_UNSUPPORTED);
    assert_int_equal(lk_vector_reader_open(UNIT_FIXTURES "/vectors/ann.hdf5:text", 0, &reader), LK_UNSUPPORTED);
    assert_int_equal(lk_vector_reader_open(UNIT_FIXTURES "/vectors/ann.hdf5:none", 0, &reader), LK_NOT_FOUND);
}

static void write_bytes(const char *path, const uint8_t *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* numpy counts in int64, and lists of neighbours come so. */
static void whole_numbers_that_are_too_wide_are_refused_with_their_remedy(void **state)
{
    char path[512], text[128 + 16] = "\x93NUMPY\x01";
    lk_vector_reader *reader;
    text[8] = 118;
    int n = snprintf(text + 10, 119, "%-117s\n", "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }");
    assert_int_equal(n, 118);
    snprintf(path, sizeof path, "%s/wide.npy", (char *)*state);
    write_bytes(path, (const uint8_t *)text, sizeof text);
    assert_int_equal(lk_vector_reader_open(path, LK_VECTORS_NEIGHBOURS, &reader), LK_UNSUPPORTED);
    assert_non_null(strstr(lk_error_message(), "astype('<i4')"));
}

static size_t read_bytes(const char *path, uint8_t *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, room, f);
    fclose(f);
    return n;
}

static void every_cut_of_a_file_is_refused(void **state)
{
    for (size_t i = 0; i < sizeof readable / sizeof *readable; i++) {
        uint8_t bytes[2048];
        char from[512], to[512];
        lk_vector_reader *reader;
        snprintf(from, sizeof from, "%s/vectors/%s", UNIT_FIXTURES, readable[i].file);
        snprintf(to, sizeof to, "%s/%s", (char *)*state, readable[i].file);
        size_t size = read_bytes(from, bytes, sizeof bytes);
        size_t row = 4 + DIM * lk_component_bytes(readable[i].component);
        bool counted = strstr(to, "vecs") != NULL, both = strstr(to, "both") != NULL;
        for (size_t cut = 0; cut < size; cut++) {
            if (counted && cut > 0 && cut % row == 0) continue; /* nothing in the format tells */
            if (both && cut == 8 + (size - 8) / 2) continue;    /* a file of neighbours alone */
            write_bytes(to, bytes, cut);
            assert_int_equal(lk_vector_reader_open(to, LK_VECTORS_BASE, &reader), LK_CORRUPT);
        }
    }
}

static void a_row_of_another_length_is_found_when_it_is_read(void **state)
{
    uint8_t bytes[2048];
    char path[512];
    float out[ROWS * DIM];
    lk_vector_reader *reader;
    size_t size = read_bytes(UNIT_FIXTURES "/vectors/f.fvecs", bytes, sizeof bytes);
    bytes[3 * (4 + 4 * DIM)] = DIM + 1;
    snprintf(path, sizeof path, "%s/x.fvecs", (char *)*state);
    write_bytes(path, bytes, size);
    assert_int_equal(lk_vector_reader_open(path, LK_VECTORS_BASE, &reader), LK_OK);
    assert_int_equal(lk_vector_reader_read(reader, 0, 3, out), LK_OK);
    assert_int_equal(lk_vector_reader_read(reader, 3, 1, out), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "row 3"));
    assert_int_equal(lk_vector_reader_read(reader, 0, ROWS, out), LK_CORRUPT);
    lk_vector_reader_free(reader);
}

static void an_empty_array_has_no_rows(void **state)
{
    (void)state;
    lk_vector_reader *reader;
    assert_int_equal(lk_vector_reader_open(UNIT_FIXTURES "/vectors/empty.npy", LK_VECTORS_BASE, &reader), LK_OK);
    assert_int_equal(lk_vector_reader_rows(reader), 0);
    lk_vector_reader_free(reader);
}

/* Writes 1000 rows of 300 components in two calls, reads them back in one; more than a block of either side. */
static void round_trip(const char *folder, const char *name, lk_component component)
{
    enum { MANY = 1000, WIDE = 300, FIRST = 317 };
    char path[512];
    lk_vector_writer *writer;
    lk_vector_reader *reader;
    float *rows = malloc(sizeof *rows * MANY * WIDE), *back = malloc(sizeof *back * MANY * WIDE);
    assert_true(rows && back);
    for (int i = 0; i < MANY * WIDE; i++) rows[i] = (float)(i * 37 % 128);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(lk_vector_writer_open(path, LK_VECTORS_BASE, MANY, WIDE, component, &writer), LK_OK);
    assert_int_equal(lk_vector_writer_write(writer, FIRST, rows), LK_OK);
    assert_int_equal(lk_vector_writer_write(writer, MANY - FIRST, rows + FIRST * WIDE), LK_OK);
    assert_int_equal(lk_vector_writer_finish(writer), LK_OK);
    assert_int_equal(lk_vector_reader_open(path, LK_VECTORS_BASE, &reader), LK_OK);
    assert_int_equal(lk_vector_reader_rows(reader), MANY);
    assert_int_equal(lk_vector_reader_dim(reader), WIDE);
    assert_int_equal(lk_vector_reader_component(reader), component);
    assert_int_equal(lk_vector_reader_read(reader, 0, MANY, back), LK_OK);
    assert_memory_equal(rows, back, sizeof *rows * MANY * WIDE);
    lk_vector_reader_free(reader);
    free(rows);
    free(back);
}

static void what_is_written_comes_back(void **state)
{
    for (int component = LK_COMPONENT_F32; component <= LK_COMPONENT_I32; component++)
        round_trip(*state, "x.npy", (lk_component)component);
    round_trip(*state, "x.fvecs", LK_COMPONENT_F32);
    round_trip(*state, "x.bvecs", LK_COMPONENT_U8);
    round_trip(*state, "x.ivecs", LK_COMPONENT_I32);
    round_trip(*state, "x.fbin", LK_COMPONENT_F32);
    round_trip(*state, "x.u8bin", LK_COMPONENT_U8);
    round_trip(*state, "x.i8bin", LK_COMPONENT_I8);
    round_trip(*state, "x.ibin", LK_COMPONENT_I32);
    for (int component = LK_COMPONENT_F32; has_hdf5() && component <= LK_COMPONENT_I32; component++)
        round_trip(*state, "x.hdf5", (lk_component)component);
}

static void our_npy_is_byte_for_byte_that_of_numpy(void **state)
{
    for (size_t i = 0; i < 6; i++) {
        char path[512], reference[512];
        uint8_t ours[1024], theirs[1024];
        float rows[ROWS * DIM];
        lk_vector_writer *writer;
        for (int c = 0; c < ROWS * DIM; c++) rows[c] = (float)c + readable[i].add;
        snprintf(path, sizeof path, "%s/x.npy", (char *)*state);
        snprintf(reference, sizeof reference, "%s/vectors/%s", UNIT_FIXTURES, readable[i].file);
        assert_int_equal(lk_vector_writer_open(path, LK_VECTORS_BASE, ROWS, DIM, readable[i].component, &writer),
                         LK_OK);
        assert_int_equal(lk_vector_writer_write(writer, ROWS, rows), LK_OK);
        assert_int_equal(lk_vector_writer_finish(writer), LK_OK);
        size_t size = read_bytes(reference, theirs, sizeof theirs);
        assert_int_equal(read_bytes(path, ours, sizeof ours), size);
        assert_memory_equal(ours, theirs, size);
    }
}

static void a_dataset_is_added_beside_those_that_are_there(void **state)
{
    char path[512], named[600];
    float rows[2 * 3] = {1, 2, 3, 4, 5, 6}, out[6];
    if (!has_hdf5()) skip();
    snprintf(path, sizeof path, "%s/x.hdf5", (char *)*state);
    for (int role = LK_VECTORS_BASE; role <= LK_VECTORS_DISTANCES; role++) {
        lk_vector_writer *writer;
        rows[0] = (float)role;
        assert_int_equal(lk_vector_writer_open(path, (lk_vectors_role)role, 2, 3, LK_COMPONENT_F32, &writer), LK_OK);
        assert_int_equal(lk_vector_writer_write(writer, 2, rows), LK_OK);
        assert_int_equal(lk_vector_writer_finish(writer), LK_OK);
    }
    static const char *const names[] = {"train", "test", "neighbors", "distances"};
    for (int role = LK_VECTORS_BASE; role <= LK_VECTORS_DISTANCES; role++) {
        lk_vector_reader *reader;
        snprintf(named, sizeof named, "%s:%s", path, names[role]);
        assert_int_equal(lk_vector_reader_open(named, LK_VECTORS_BASE, &reader), LK_OK);
        assert_int_equal(lk_vector_reader_read(reader, 0, 2, out), LK_OK);
        assert_true(out[0] == (float)role && out[5] == 6);
        lk_vector_reader_free(reader);
    }
    assert_int_equal(unit_count_files(*state), 1);
}

static void an_unfinished_or_impossible_file_leaves_nothing_behind(void **state)
{
    static const char *const names[] = {"x.npy", "x.fvecs", "x.hdf5"};
    float rows[4] = {1, 2, 3, 300}, nan[2] = {NAN, 0};
    char path[512];
    lk_vector_writer *writer;
    for (size_t i = 0; i < (has_hdf5() ? 3 : 2); i++) {
        snprintf(path, sizeof path, "%s/%s", (char *)*state, names[i]);
        assert_int_equal(lk_vector_writer_open(path, LK_VECTORS_BASE, 2, 2, LK_COMPONENT_F32, &writer), LK_OK);
        assert_int_equal(lk_vector_writer_write(writer, 1, rows), LK_OK);
        assert_int_equal(lk_vector_writer_finish(writer), LK_INVALID);
        assert_int_equal(lk_vector_writer_open(path, LK_VECTORS_BASE, 1, 2, LK_COMPONENT_F32, &writer), LK_OK);
        assert_int_equal(lk_vector_writer_write(writer, 2, rows), LK_INVALID);
        lk_vector_writer_abandon(writer);
    }
    snprintf(path, sizeof path, "%s/x.u8bin", (char *)*state);
    assert_int_equal(lk_vector_writer_open(path, LK_VECTORS_BASE, 2, 2, LK_COMPONENT_U8, &writer), LK_OK);
    assert_int_equal(lk_vector_writer_write(writer, 2, rows), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "row 1, component 1 is 300"));
    assert_int_equal(lk_vector_writer_write(writer, 1, nan), LK_INVALID);
    lk_vector_writer_abandon(writer);
    assert_int_equal(lk_vector_writer_open(path, LK_VECTORS_BASE, 2, 2, LK_COMPONENT_F32, &writer), LK_UNSUPPORTED);
    assert_int_equal(unit_count_files(*state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_numpy_and_of_the_specifications_are_read_exactly),
        cmocka_unit_test(each_role_finds_its_dataset),
        cmocka_unit_test(what_is_not_read_is_refused_with_a_remedy),
        cmocka_unit_test_setup_teardown(whole_numbers_that_are_too_wide_are_refused_with_their_remedy, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(every_cut_of_a_file_is_refused, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_row_of_another_length_is_found_when_it_is_read, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test(an_empty_array_has_no_rows),
        cmocka_unit_test_setup_teardown(what_is_written_comes_back, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(our_npy_is_byte_for_byte_that_of_numpy, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_dataset_is_added_beside_those_that_are_there, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(an_unfinished_or_impossible_file_leaves_nothing_behind, unit_folder,
                                        unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
