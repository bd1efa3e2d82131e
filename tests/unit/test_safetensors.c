/* Against files of the safetensors package (tools/reference/safetensors_files.py), and against bad ones. */
#include "unit.h"

#include "nn/safetensors.h"

#include <jansson.h>
#include <math.h>

static double number_of(const json_t *value)
{
    const char *text = json_string_value(value);
    if (!text) return json_number_value(value);
    return strcmp(text, "nan") == 0 ? NAN : strcmp(text, "inf") == 0 ? INFINITY : -INFINITY;
}

static void every_element_type_reads_as_the_reference_does(void **state)
{
    (void)state;
    lk_safetensors *file;
    json_t *all = json_load_file(UNIT_FIXTURES "/safetensors/every_type.json", 0, NULL), *row;
    const char *name;
    assert_non_null(all);
    assert_int_equal(lk_safetensors_open(UNIT_FIXTURES "/safetensors/every_type.safetensors", &file), LK_OK);
    assert_int_equal(lk_safetensors_count(file), json_object_size(all));
    assert_string_equal(lk_safetensors_metadata(file, "note"), "é");
    assert_null(lk_safetensors_metadata(file, "absent"));
    assert_null(lk_safetensors_find(file, "absent"));
    json_object_foreach(all, name, row)
    {
        const lk_safetensor *t = lk_safetensors_find(file, name);
        const json_t *shape = json_object_get(row, "shape"), *values = json_object_get(row, "values");
        assert_non_null(t);
        assert_int_equal(t->rank, json_array_size(shape));
        for (size_t i = 0; i < t->rank; i++)
            assert_int_equal(t->shape[i], json_integer_value(json_array_get(shape, i)));
        assert_int_equal(t->count, json_array_size(values));
        float *out = malloc((t->count + 1) * sizeof *out);
        lk_safetensor_to_f32(t, out);
        for (size_t i = 0; i < t->count; i++) {
            float wanted = (float)number_of(json_array_get(values, i));
            if (isnan(wanted) ? !isnan(out[i]) : out[i] != wanted || signbit(out[i]) != signbit(wanted))
                fail_msg("%s[%zu] is %g, not %g", name, i, (double)out[i], (double)wanted);
        }
        free(out);
    }
    json_decref(all);
    lk_safetensors_free(file);
}

/* A file from a header and some bytes of data. */
static uint8_t *make(const char *header, size_t data, size_t *size)
{
    size_t n = strlen(header);
    *size = 8 + n + data;
    uint8_t *bytes = calloc(1, *size);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(bytes + 8, header, n);
    return bytes;
}

static void refuses(const char *header, size_t data, lk_status status, const char *why)
{
    size_t size;
    lk_safetensors *file;
    uint8_t *bytes = make(header, data, &size);
    lk_status s = lk_safetensors_parse(bytes, size, "m.safetensors", &file);
    if (s != status || file || !strstr(lk_error_message(), why) || !strstr(lk_error_message(), "m.safetensors"))
        fail_msg("%s: status %d, message \"%s\"", header, s, lk_error_message());
    free(bytes);
}

static void malformed_headers_are_refused_with_file_and_tensor(void **state)
{
    (void)state;
    refuses("[]", 0, LK_CORRUPT, "not a JSON object");
    refuses("{\"a\":", 0, LK_CORRUPT, "not JSON");
    refuses("{\"a\":1}", 0, LK_CORRUPT, "tensor a");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":[2],"
            "\"data_offsets\":[0,8]}}",
            8, LK_CORRUPT, "duplicate");
    refuses("{\"a\":{\"dtype\":\"F12\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, LK_UNSUPPORTED, "F12");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, LK_CORRUPT, "disagree");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, LK_CORRUPT, "shape");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, LK_CORRUPT, "shape");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, LK_CORRUPT,
            "shape");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, LK_CORRUPT,
            "disagree");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, LK_LIMIT,
            "9 dimensions");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,16]}}", 8, LK_CORRUPT, "beyond the end");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}}", 8, LK_CORRUPT,
            "beyond the end");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,18446744073709551624]}}", 8, LK_CORRUPT,
            "not JSON");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, LK_CORRUPT, "range");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, LK_CORRUPT, "range");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],"
            "\"data_offsets\":[4,12]}}",
            12, LK_CORRUPT, "overlaps");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],"
            "\"data_offsets\":[0,8]}}",
            8, LK_CORRUPT, "overlaps");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, LK_CORRUPT, "hole");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, LK_CORRUPT, "belong to no tensor");
    refuses("{\"__metadata__\":{\"k\":1}}", 0, LK_CORRUPT, "__metadata__");
    refuses("{\"__metadata__\":[]}", 0, LK_CORRUPT, "__metadata__");
}

static void deep_and_huge_headers_are_refused(void **state)
{
    (void)state;
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    refuses(deep, 0, LK_CORRUPT, "not JSON");
    free(deep);
    size_t size = (17u << 20) + 8;
    uint8_t *huge = malloc(size);
    memset(huge, ' ', size);
    for (int i = 0; i < 8; i++) huge[i] = (uint8_t)((uint64_t)(size - 8) >> (8 * i));
    lk_safetensors *file;
    assert_int_equal(lk_safetensors_parse(huge, size, "h", &file), LK_LIMIT);
    memset(huge, 0xff, 8);
    assert_int_equal(lk_safetensors_parse(huge, size, "h", &file), LK_CORRUPT);
    assert_int_equal(lk_safetensors_parse(huge, 7, "h", &file), LK_CORRUPT);
    assert_int_equal(lk_safetensors_parse(huge, 0, "h", &file), LK_CORRUPT);
    free(huge);
}

static void pytorch_files_are_refused_with_the_way_out(void **state)
{
    (void)state;
    lk_safetensors *file;
    assert_int_equal(lk_safetensors_parse("PK\3\4archive/data.pkl", 20, "pytorch_model.bin", &file), LK_UNSUPPORTED);
    assert_non_null(strstr(lk_error_message(), "save_file"));
    assert_int_equal(lk_safetensors_parse("\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.", 16, "old.pt", &file),
                     LK_UNSUPPORTED);
    assert_non_null(strstr(lk_error_message(), "old.pt"));
}

static void a_pointer_of_git_lfs_is_told_from_a_damaged_file(void **state)
{
    (void)state;
    lk_safetensors *file;
    const char text[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    assert_int_equal(lk_safetensors_parse(text, sizeof text - 1, "model.safetensors", &file), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "git lfs pull"));
}

static void what_is_written_reads_back(void **state)
{
    char path[200], other[200];
    lk_safetensors *file;
    const float matrix[6] = {1, 2, 3, 4, 5, -6.5f};
    const uint16_t half[3] = {0x3f80, 0xc000, 0};
    const int64_t scalar = -7;
    const lk_safetensor tensors[] = {
        {.name = "a.weight", .dtype = LK_ST_F32, .rank = 2, .shape = {2, 3}, .data = matrix},
        {.name = "b \"quoted\" é", .dtype = LK_ST_BF16, .rank = 1, .shape = {3}, .data = half},
        {.name = "none", .dtype = LK_ST_F32, .rank = 1, .shape = {0}, .data = matrix},
        {.name = "s", .dtype = LK_ST_I64, .rank = 0, .data = &scalar}};
    const char *const about[] = {"format", "pt", NULL};
    snprintf(path, sizeof path, "%s/m.safetensors", (char *)*state);
    snprintf(other, sizeof other, "%s/n.safetensors", (char *)*state);
    assert_int_equal(lk_safetensors_write(path, tensors, 4, about), LK_OK);
    assert_int_equal(lk_safetensors_open(path, &file), LK_OK);
    assert_int_equal(lk_safetensors_count(file), 4);
    assert_string_equal(lk_safetensors_metadata(file, "format"), "pt");
    float out[6];
    lk_safetensor_to_f32(lk_safetensors_find(file, "a.weight"), out);
    assert_memory_equal(out, matrix, sizeof matrix);
    lk_safetensor_to_f32(lk_safetensors_find(file, "b \"quoted\" é"), out);
    assert_true(out[0] == 1 && out[1] == -2 && out[2] == 0);
    lk_safetensor_to_f32(lk_safetensors_find(file, "s"), out);
    assert_true(out[0] == -7);
    size_t size;
    lk_safetensors_bytes(file, &size);
    assert_int_equal((size - 24 - 6 - 8) % 8, 0); /* the data begins aligned */
    lk_safetensors_free(file);
    const lk_safetensor twice[] = {tensors[0], tensors[0]};
    assert_int_equal(lk_safetensors_write(other, twice, 2, NULL), LK_INVALID);
    assert_int_equal(unit_count_files(*state), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_type_reads_as_the_reference_does),
        cmocka_unit_test(malformed_headers_are_refused_with_file_and_tensor),
        cmocka_unit_test(deep_and_huge_headers_are_refused),
        cmocka_unit_test(pytorch_files_are_refused_with_the_way_out),
        cmocka_unit_test(a_pointer_of_git_lfs_is_told_from_a_damaged_file),
        cmocka_unit_test_setup_teardown(what_is_written_reads_back, unit_folder, unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
