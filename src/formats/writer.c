/* Writing: the header first, which is why the number of rows is announced. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "formats/hdf5.h"
#include "formats/layout.h"

#include <stdlib.h>
#include <string.h>

struct lk_vector_writer {
    char *name;
    lk_atomic_file *file; /* a plain file */
    lk_hdf5 *hdf5;        /* or a dataset */
    lk_component component;
    bool counted;
    uint64_t rows, written;
    size_t dim;
    uint8_t *block; /* [block_rows] rows as they go into the file */
    size_t block_rows, row_bytes;
};

static const char *const role_names[] = {"train", "test", "neighbors", "distances"};

static lk_status begin_plain(lk_vector_writer *w, lk_vector_format format)
{
    uint8_t head[LK_NPY_HEADER];
    size_t size = 0;
    if (format == LK_FORMAT_NPY) {
        lk_npy_header(w->rows, w->dim, w->component, head);
        size = sizeof head;
    } else if (format == LK_FORMAT_BIN) {
        uint32_t numbers[2] = {(uint32_t)w->rows, (uint32_t)w->dim};
        memcpy(head, numbers, size = sizeof numbers);
    }
    lk_status s = lk_atomic_open(w->name, &w->file);
    return s == LK_OK && size ? lk_atomic_write(w->file, head, size) : s;
}

lk_status lk_vector_writer_open(const char *path, lk_vectors_role role, uint64_t rows, size_t dim,
                                lk_component component, lk_vector_writer **out)
{
    *out = NULL;
    lk_vector_format format;
    lk_component holds;
    size_t name_end;
    lk_status s = lk_vector_format_of(path, &format, &holds, &name_end);
    if (s != LK_OK) return s;
    if (dim < 1 || dim > LK_DIM_MOST)
        return lk_fail(LK_INVALID, "%s: rows of %zu components; from 1 to %d are possible", path, dim, LK_DIM_MOST);
    bool fixed = format == LK_FORMAT_VECS || format == LK_FORMAT_BIN;
    if (fixed && component != holds)
        return lk_fail(LK_UNSUPPORTED, "%s: this format holds %s, not %s", path, lk_component_name(holds),
                       lk_component_name(component));
    if (format == LK_FORMAT_BIN && rows > UINT32_MAX)
        return lk_fail(LK_LIMIT, "%s: this format counts at most 4294967295 rows; .npy holds more", path);
    lk_vector_writer *w = lk_alloc_zero(1, sizeof *w);
    if (!w) return lk_fail_memory(path);
    w->name = strndup(path, name_end);
    w->component = component;
    w->counted = format == LK_FORMAT_VECS;
    w->rows = rows;
    w->dim = dim;
    w->row_bytes = dim * lk_component_bytes(component) + (w->counted ? 4 : 0);
    w->block_rows = ((size_t)1 << 20) / w->row_bytes + 1;
    w->block = lk_alloc(w->block_rows, w->row_bytes);
    if (!w->name || !w->block)
        s = lk_fail_memory(path);
    else if (format == LK_FORMAT_HDF5)
        s = lk_hdf5_create(w->name, path[name_end] ? path + name_end + 1 : role_names[role], rows, dim, component,
                           &w->hdf5);
    else
        s = begin_plain(w, format);
    if (s == LK_OK)
        *out = w;
    else
        lk_vector_writer_abandon(w);
    return s;
}

/* Encodes `count` rows into the block. */
static lk_status encode_rows(lk_vector_writer *w, size_t count, const float *floats, const int32_t *ints)
{
    int32_t dim = (int32_t)w->dim;
    for (size_t i = 0; i < count; i++) {
        uint8_t *at = w->block + i * w->row_bytes;
        if (w->counted) {
            memcpy(at, &dim, sizeof dim);
            at += sizeof dim;
        }
        if (ints) {
            memcpy(at, ints + i * w->dim, w->dim * sizeof *ints);
            continue;
        }
        size_t good = lk_components_encode(w->component, w->dim, floats + i * w->dim, at);
        if (good < w->dim)
            return lk_fail(LK_INVALID, "%s: row %llu, component %zu is %g, which does not fit into %s", w->name,
                           (unsigned long long)(w->written + i), good, (double)floats[i * w->dim + good],
                           lk_component_name(w->component));
    }
    return LK_OK;
}

static lk_status write_rows(lk_vector_writer *w, size_t n, const float *floats, const int32_t *ints)
{
    if (n > w->rows - w->written)
        return lk_fail(LK_INVALID, "%s: more rows than the %llu that were announced", w->name,
                       (unsigned long long)w->rows);
    for (size_t done = 0; done < n;) {
        size_t count = n - done < w->block_rows ? n - done : w->block_rows;
        lk_status s = encode_rows(w, count, floats ? floats + done * w->dim : NULL, ints ? ints + done * w->dim : NULL);
        if (s == LK_OK)
            s = w->hdf5 ? lk_hdf5_write(w->hdf5, w->written, count, w->block)
                        : lk_atomic_write(w->file, w->block, count * w->row_bytes);
        if (s != LK_OK) return s;
        w->written += count;
        done += count;
    }
    return LK_OK;
}

lk_status lk_vector_writer_write(lk_vector_writer *w, size_t n, const float *rows)
{
    return write_rows(w, n, rows, NULL);
}

lk_status lk_vector_writer_write_i32(lk_vector_writer *w, size_t n, const int32_t *rows)
{
    if (w->component != LK_COMPONENT_I32)
        return lk_fail(LK_INVALID, "%s: holds %s, not whole numbers (i32)", w->name, lk_component_name(w->component));
    return write_rows(w, n, NULL, rows);
}

lk_status lk_vector_writer_finish(lk_vector_writer *w)
{
    if (w->written < w->rows) {
        lk_status s = lk_fail(LK_INVALID, "%s: %llu rows were announced and %llu written", w->name,
                              (unsigned long long)w->rows, (unsigned long long)w->written);
        lk_vector_writer_abandon(w);
        return s;
    }
    lk_status s = w->hdf5 ? lk_hdf5_commit(w->hdf5) : lk_atomic_commit(w->file);
    w->hdf5 = NULL;
    w->file = NULL;
    lk_vector_writer_abandon(w);
    return s;
}

void lk_vector_writer_abandon(lk_vector_writer *w)
{
    if (!w) return;
    lk_atomic_abandon(w->file);
    lk_hdf5_free(w->hdf5);
    free(w->name);
    free(w->block);
    free(w);
}
