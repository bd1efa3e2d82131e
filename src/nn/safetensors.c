#include "nn/safetensors.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Published headers are below 1 MiB. Parsed JSON takes up to some thirty times its text. */
enum { MAX_HEADER = 16 << 20, LENGTH_BYTES = 8 };

static const struct {
    const char *name;
    size_t bytes;
} types[LK_ST_DTYPES] = {[LK_ST_BOOL] = {"BOOL", 1},       [LK_ST_U8] = {"U8", 1},           [LK_ST_I8] = {"I8", 1},
                         [LK_ST_F8_E5M2] = {"F8_E5M2", 1}, [LK_ST_F8_E4M3] = {"F8_E4M3", 1}, [LK_ST_I16] = {"I16", 2},
                         [LK_ST_U16] = {"U16", 2},         [LK_ST_F16] = {"F16", 2},         [LK_ST_BF16] = {"BF16", 2},
                         [LK_ST_I32] = {"I32", 4},         [LK_ST_U32] = {"U32", 4},         [LK_ST_F32] = {"F32", 4},
                         [LK_ST_F64] = {"F64", 8},         [LK_ST_I64] = {"I64", 8},         [LK_ST_U64] = {"U64", 8}};

struct lk_safetensors {
    char *path;
    lk_map map; /* empty when the bytes are borrowed */
    const uint8_t *bytes;
    size_t size;
    json_t *header; /* owns the names */
    lk_safetensor *tensors;
    const lk_safetensor **by_name;
    size_t count;
};

const char *lk_st_dtype_name(lk_st_dtype dtype)
{
    return types[dtype].name;
}

size_t lk_st_dtype_bytes(lk_st_dtype dtype)
{
    return types[dtype].bytes;
}

/* A non-negative JSON integer. */
static bool read_size(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static lk_status read_shape(const lk_safetensors *file, const json_t *shape, lk_safetensor *t)
{
    if (!json_is_array(shape)) return lk_fail(LK_CORRUPT, "%s: tensor %s: has no shape", file->path, t->name);
    size_t rank = json_array_size(shape);
    if (rank > LK_ST_MAX_RANK)
        return lk_fail(LK_LIMIT, "%s: tensor %s: has %zu dimensions; %d are the most", file->path, t->name, rank,
                       LK_ST_MAX_RANK);
    t->rank = (uint32_t)rank;
    t->count = 1;
    for (size_t i = 0; i < rank; i++) {
        if (!read_size(json_array_get(shape, i), &t->shape[i]) ||
            __builtin_mul_overflow(t->count, t->shape[i], &t->count))
            return lk_fail(LK_CORRUPT, "%s: tensor %s: its shape is not one that a file can hold", file->path, t->name);
    }
    return LK_OK;
}

/* One member of the header; data_begin is where offsets count from. */
static lk_status read_tensor(const lk_safetensors *file, size_t data_begin, const char *name, const json_t *value,
                             lk_safetensor *t)
{
    *t = (lk_safetensor){.name = name, .dtype = LK_ST_DTYPES};
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    if (!dtype) return lk_fail(LK_CORRUPT, "%s: tensor %s: has no dtype", file->path, name);
    for (int i = 0; i < LK_ST_DTYPES; i++)
        if (strcmp(types[i].name, dtype) == 0) t->dtype = (lk_st_dtype)i;
    if (t->dtype == LK_ST_DTYPES)
        return lk_fail(LK_UNSUPPORTED, "%s: tensor %s: elements of type %.*s are not known", file->path, name,
                       lk_utf8_fit(dtype, 32), dtype);
    lk_status s = read_shape(file, json_object_get(value, "shape"), t);
    if (s != LK_OK) return s;
    const json_t *offsets = json_object_get(value, "data_offsets");
    uint64_t begin, end, bytes;
    if (json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), &begin) ||
        !read_size(json_array_get(offsets, 1), &end) || begin > end)
        return lk_fail(LK_CORRUPT, "%s: tensor %s: its data_offsets are not a range", file->path, name);
    if (end > file->size - data_begin)
        return lk_fail(LK_CORRUPT, "%s: tensor %s: lies beyond the end of the file (is the download complete?)",
                       file->path, name);
    if (__builtin_mul_overflow(t->count, types[t->dtype].bytes, &bytes) || bytes != end - begin)
        return lk_fail(LK_CORRUPT, "%s: tensor %s: its shape and its %" PRIu64 " bytes disagree", file->path, name,
                       end - begin);
    t->data = file->bytes + data_begin + begin;
    return LK_OK;
}

static int compare_name(const void *a, const void *b)
{
    return strcmp((*(const lk_safetensor *const *)a)->name, (*(const lk_safetensor *const *)b)->name);
}

static int compare_place(const void *a, const void *b)
{
    const lk_safetensor *x = *(const lk_safetensor *const *)a, *y = *(const lk_safetensor *const *)b;
    if (x->data != y->data) return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count); /* empty ones first */
}

/* The tensors must tile what follows the header: the format allows neither overlaps nor holes. */
static lk_status check_tiling(lk_safetensors *file, const uint8_t *data)
{
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_place);
    for (size_t i = 0; i < file->count; i++) {
        const lk_safetensor *t = file->by_name[i];
        if ((const uint8_t *)t->data < data)
            return lk_fail(LK_CORRUPT, "%s: tensor %s: overlaps with %s", file->path, t->name,
                           file->by_name[i - 1]->name);
        if ((const uint8_t *)t->data > data)
            return lk_fail(LK_CORRUPT, "%s: tensor %s: there is a hole in front of it", file->path, t->name);
        data = (const uint8_t *)t->data + t->count * types[t->dtype].bytes;
    }
    if (data != file->bytes + file->size)
        return lk_fail(LK_CORRUPT, "%s: %zu bytes at its end belong to no tensor", file->path,
                       (size_t)(file->bytes + file->size - data));
    return LK_OK;
}

static lk_status read_tensors(lk_safetensors *file, size_t data_begin)
{
    const char *name;
    json_t *value;
    size_t most = json_object_size(file->header);
    file->tensors = lk_alloc_zero(most, sizeof *file->tensors);
    file->by_name = lk_alloc_zero(most, sizeof *file->by_name);
    if (!file->tensors || !file->by_name) return lk_fail_memory(file->path);
    json_object_foreach(file->header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            const char *key;
            json_t *text;
            if (!json_is_object(value)) return lk_fail(LK_CORRUPT, "%s: its __metadata__ is not an object", file->path);
            json_object_foreach(value, key, text) if (!json_is_string(text)) return lk_fail(
                LK_CORRUPT, "%s: __metadata__: %s: is not a text", file->path, key);
            continue;
        }
        lk_status s = read_tensor(file, data_begin, name, value, &file->tensors[file->count]);
        if (s != LK_OK) return s;
        file->by_name[file->count] = &file->tensors[file->count];
        file->count++;
    }
    lk_status s = check_tiling(file, file->bytes + data_begin);
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_name);
    return s;
}

/* PyTorch writes zip archives, and wrote bare pickles before. */
static bool is_pytorch(const uint8_t *bytes, size_t size)
{
    return (size >= 4 && memcmp(bytes, "PK\3\4", 4) == 0) ||
           (size >= 3 && bytes[0] == 0x80 && bytes[1] >= 2 && bytes[1] <= 5 && bytes[2] != 0);
}

static lk_status parse(lk_safetensors *file)
{
    const uint8_t *bytes = file->bytes;
    uint64_t header = 0;
    if (is_pytorch(bytes, file->size))
        return lk_fail(LK_UNSUPPORTED,
                       "%s: is a PyTorch file, which can run programs as it is read; convert it once: python -c "
                       "\"import sys, torch, "
                       "safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in torch.load(sys.argv[1], "
                       "weights_only=True).items()}, 'model.safetensors')\" %s",
                       file->path, file->path);
    if (file->size >= LENGTH_BYTES && memcmp(bytes, "version ", LENGTH_BYTES) == 0)
        return lk_fail(LK_CORRUPT, "%s: is Git LFS's pointer to the weights: fetch them (git lfs pull)", file->path);
    if (file->size < LENGTH_BYTES + 2)
        return lk_fail(LK_CORRUPT, "%s: is too short for a safetensors file", file->path);
    for (int i = LENGTH_BYTES; i-- > 0;) header = header << 8 | bytes[i];
    if (header > file->size - LENGTH_BYTES)
        return lk_fail(LK_CORRUPT,
                       "%s: is not a safetensors file, or not all of it: its header is longer than the file",
                       file->path);
    if (header > MAX_HEADER)
        return lk_fail(LK_LIMIT, "%s: its header of %" PRIu64 " bytes is above 16 MiB", file->path, header);
    json_error_t error;
    file->header = json_loadb((const char *)bytes + LENGTH_BYTES, header, JSON_REJECT_DUPLICATES, &error);
    if (!file->header) return lk_fail(LK_CORRUPT, "%s: its header is not JSON: %s", file->path, error.text);
    if (!json_is_object(file->header)) return lk_fail(LK_CORRUPT, "%s: its header is not a JSON object", file->path);
    return read_tensors(file, LENGTH_BYTES + header);
}

static lk_status finish(lk_safetensors *file, const char *name, lk_safetensors **out)
{
    file->path = strdup(name);
    lk_status s = file->path ? parse(file) : lk_fail_memory(name);
    if (s == LK_OK)
        *out = file;
    else
        lk_safetensors_free(file);
    return s;
}

lk_status lk_safetensors_open(const char *path, lk_safetensors **out)
{
    *out = NULL;
    lk_safetensors *file = lk_alloc_zero(1, sizeof *file);
    if (!file) return lk_fail_memory(path);
    lk_status s = lk_map_open(path, &file->map);
    if (s != LK_OK) {
        free(file);
        return s;
    }
    file->bytes = file->map.bytes;
    file->size = file->map.size;
    return finish(file, path, out);
}

lk_status lk_safetensors_parse(const void *bytes, size_t size, const char *name, lk_safetensors **out)
{
    *out = NULL;
    lk_safetensors *file = lk_alloc_zero(1, sizeof *file);
    if (!file) return lk_fail_memory(name);
    file->bytes = bytes;
    file->size = size;
    return finish(file, name, out);
}

void lk_safetensors_free(lk_safetensors *file)
{
    if (!file) return;
    json_decref(file->header);
    free(file->tensors);
    free(file->by_name);
    free(file->path);
    lk_map_close(&file->map);
    free(file);
}

const char *lk_safetensors_path(const lk_safetensors *file)
{
    return file->path;
}

const void *lk_safetensors_bytes(const lk_safetensors *file, size_t *size)
{
    *size = file->size;
    return file->bytes;
}

size_t lk_safetensors_count(const lk_safetensors *file)
{
    return file->count;
}

const lk_safetensor *lk_safetensors_at(const lk_safetensors *file, size_t i)
{
    return &file->tensors[i];
}

const lk_safetensor *lk_safetensors_find(const lk_safetensors *file, const char *name)
{
    lk_safetensor key = {.name = name};
    const lk_safetensor *wanted = &key;
    const lk_safetensor **found = bsearch(&wanted, file->by_name, file->count, sizeof *file->by_name, compare_name);
    return found ? *found : NULL;
}

const char *lk_safetensors_metadata(const lk_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

/* ---- elements ---- */

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A float of 1 sign, `exponent` and `mantissa` bits with the usual bias, as f32. finite_only: E4M3FN, which has no
 * infinities and one NaN (all ones). */
static float small_float(uint32_t bits, int exponent, int mantissa, bool finite_only)
{
    uint32_t sign = bits >> (exponent + mantissa) & 1, m = bits & ((1u << mantissa) - 1);
    int e = (int)(bits >> mantissa & ((1u << exponent) - 1)), top = (1 << exponent) - 1,
        bias = (1 << (exponent - 1)) - 1;
    float value;
    if (e == top && (!finite_only || m == (1u << mantissa) - 1))
        value = m ? NAN : INFINITY;
    else if (e == 0)
        value = ldexpf((float)m, 1 - bias - mantissa);
    else
        value = from_bits((uint32_t)(e - bias + 127) << 23 | m << (23 - mantissa));
    return sign ? -value : value;
}

#define CONVERT(type)                                                                                                  \
    for (uint64_t i = 0; i < tensor->count; i++) {                                                                     \
        type x;                                                                                                        \
        memcpy(&x, bytes + i * sizeof x, sizeof x);                                                                    \
        out[i] = (float)x;                                                                                             \
    }                                                                                                                  \
    break

#define CONVERT_BITS(type, expression)                                                                                 \
    for (uint64_t i = 0; i < tensor->count; i++) {                                                                     \
        type x;                                                                                                        \
        memcpy(&x, bytes + i * sizeof x, sizeof x);                                                                    \
        out[i] = (expression);                                                                                         \
    }                                                                                                                  \
    break

void lk_safetensor_to_f32(const lk_safetensor *tensor, float *out)
{
    const uint8_t *bytes = tensor->data;
    switch (tensor->dtype) {
    case LK_ST_BOOL: CONVERT_BITS(uint8_t, x ? 1.0f : 0.0f);
    case LK_ST_U8: CONVERT(uint8_t);
    case LK_ST_I8: CONVERT(int8_t);
    case LK_ST_F8_E5M2: CONVERT_BITS(uint8_t, small_float(x, 5, 2, false));
    case LK_ST_F8_E4M3: CONVERT_BITS(uint8_t, small_float(x, 4, 3, true));
    case LK_ST_I16: CONVERT(int16_t);
    case LK_ST_U16: CONVERT(uint16_t);
    case LK_ST_F16: CONVERT_BITS(uint16_t, small_float(x, 5, 10, false));
    case LK_ST_BF16: CONVERT_BITS(uint16_t, from_bits((uint32_t)x << 16));
    case LK_ST_I32: CONVERT(int32_t);
    case LK_ST_U32: CONVERT(uint32_t);
    case LK_ST_F32: memcpy(out, bytes, tensor->count * sizeof *out); break;
    case LK_ST_F64: CONVERT(double);
    case LK_ST_I64: CONVERT(int64_t);
    case LK_ST_U64: CONVERT(uint64_t);
    case LK_ST_DTYPES: break;
    }
}

/* ---- writing ---- */

static lk_status make_header(const char *path, const lk_safetensor *tensors, size_t n, const char *const *metadata,
                             char **text, size_t *size)
{
    json_t *header = json_object(), *entry = NULL;
    uint64_t at = 0, bytes;
    lk_status s = LK_OK;
    *text = NULL;
    if (metadata) {
        json_t *about = json_object();
        for (; metadata[0]; metadata += 2)
            if (json_object_set_new(about, metadata[0], json_string(metadata[1])) != 0) s = LK_INVALID;
        if (json_object_set_new(header, "__metadata__", about) != 0) s = LK_INVALID;
    }
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        const lk_safetensor *t = &tensors[i];
        json_t *shape = json_array();
        bytes = types[t->dtype].bytes;
        for (uint32_t d = 0; d < t->rank; d++) {
            json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
            if (__builtin_mul_overflow(bytes, t->shape[d], &bytes)) s = LK_INVALID;
        }
        entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[t->dtype].name, "shape", shape, "data_offsets",
                          (json_int_t)at, (json_int_t)(at + bytes));
        at += bytes;
        if (json_object_get(header, t->name) || json_object_set_new(header, t->name, entry) != 0) s = LK_INVALID;
    }
    if (s == LK_OK) *text = json_dumps(header, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(header);
    if (s != LK_OK)
        return lk_fail(s, "%s: a tensor or a metadata text is named twice, is not UTF-8 or is too large", path);
    if (!*text) return lk_fail_memory(path);
    *size = strlen(*text);
    return LK_OK;
}

lk_status lk_safetensors_write(const char *path, const lk_safetensor *tensors, size_t n, const char *const *metadata)
{
    char *text = NULL;
    size_t size = 0;
    lk_atomic_file *file = NULL;
    lk_status s;
    uint8_t length[LENGTH_BYTES];
    LK_TRY(make_header(path, tensors, n, metadata, &text, &size));
    LK_TRY(lk_atomic_open(path, &file));
    size_t padding = (8 - size % 8) % 8; /* the data begins at a multiple of 8 */
    for (int i = 0; i < LENGTH_BYTES; i++) length[i] = (uint8_t)((uint64_t)(size + padding) >> (8 * i));
    LK_TRY(lk_atomic_write(file, length, sizeof length));
    LK_TRY(lk_atomic_write(file, text, size));
    LK_TRY(lk_atomic_write(file, "        ", padding));
    for (size_t i = 0; i < n; i++) {
        size_t bytes = types[tensors[i].dtype].bytes;
        for (uint32_t d = 0; d < tensors[i].rank; d++) bytes *= tensors[i].shape[d];
        LK_TRY(lk_atomic_write(file, tensors[i].data, bytes));
    }
    s = lk_atomic_commit(file);
    file = NULL;
done:
    lk_atomic_abandon(file);
    free(text);
    return s;
}
