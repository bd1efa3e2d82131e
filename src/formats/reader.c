/* Reading: the header once, rows by pread, so that what was read does not stay in our memory. */
#include "base/error.h"
#include "base/memory.h"
#include "formats/hdf5.h"
#include "formats/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct lk_vector_reader {
    char *name;
    int fd;        /* of a plain file */
    lk_hdf5 *hdf5; /* or a dataset */
    lk_vector_layout layout;
};

static const char *const role_names[] = {"train", "test", "neighbors", "distances"};

static lk_status read_at(const lk_vector_reader *r, uint64_t offset, size_t size, void *out, size_t *got)
{
    for (*got = 0; *got < size;) {
        ssize_t n = pread(r->fd, (char *)out + *got, size - *got, (off_t)(offset + *got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lk_fail_errno(errno, "%s: cannot be read", r->name);
        if (n == 0) break;
        *got += (size_t)n;
    }
    return LK_OK;
}

static lk_status open_plain(lk_vector_reader *r, lk_vector_format format, lk_component component)
{
    uint8_t head[LK_HEADER_BYTES];
    size_t size;
    struct stat st;
    r->fd = open(r->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not wait for a writer */
    if (r->fd < 0 || fstat(r->fd, &st) != 0) return lk_fail_errno(errno, "%s: cannot be opened", r->name);
    if (!S_ISREG(st.st_mode)) return lk_fail(LK_INVALID, "%s: is not a regular file", r->name);
    lk_status s = read_at(r, 0, sizeof head, head, &size);
    if (s != LK_OK) return s;
    uint64_t file_size = (uint64_t)st.st_size < size ? size : (uint64_t)st.st_size;
    if (format == LK_FORMAT_NPY) return lk_npy_layout(r->name, head, size, file_size, &r->layout);
    if (format == LK_FORMAT_VECS) return lk_vecs_layout(r->name, component, head, size, file_size, &r->layout);
    return lk_bin_layout(r->name, component, head, size, file_size, &r->layout);
}

lk_status lk_vector_reader_open(const char *path, lk_vectors_role role, lk_vector_reader **out)
{
    *out = NULL;
    lk_vector_format format;
    lk_component component;
    size_t name_end;
    lk_status s = lk_vector_format_of(path, &format, &component, &name_end);
    if (s != LK_OK) return s;
    lk_vector_reader *r = lk_alloc_zero(1, sizeof *r);
    if (!r) return lk_fail_memory(path);
    r->fd = -1;
    r->name = strndup(path, name_end);
    if (!r->name)
        s = lk_fail_memory(path);
    else if (format == LK_FORMAT_HDF5)
        s = lk_hdf5_open(r->name, path[name_end] ? path + name_end + 1 : role_names[role], &r->hdf5, &r->layout.rows,
                         &r->layout.dim, &r->layout.component);
    else
        s = open_plain(r, format, component);
    if (s == LK_OK)
        *out = r;
    else
        lk_vector_reader_free(r);
    return s;
}

void lk_vector_reader_free(lk_vector_reader *r)
{
    if (!r) return;
    if (r->fd >= 0) close(r->fd);
    lk_hdf5_free(r->hdf5);
    free(r->name);
    free(r);
}

uint64_t lk_vector_reader_rows(const lk_vector_reader *r)
{
    return r->layout.rows;
}

size_t lk_vector_reader_dim(const lk_vector_reader *r)
{
    return r->layout.dim;
}

lk_component lk_vector_reader_component(const lk_vector_reader *r)
{
    return r->layout.component;
}

/* n rows from `first` as they are in the file, stride bytes each; a row that is counted begins with its count. */
static lk_status read_raw(const lk_vector_reader *r, uint64_t first, size_t n, uint8_t *raw)
{
    const lk_vector_layout *l = &r->layout;
    size_t got, size = n * l->stride;
    lk_status s = read_at(r, l->offset - (l->counted ? 4 : 0) + first * l->stride, size, raw, &got);
    if (s != LK_OK) return s;
    if (got < size)
        return lk_fail(LK_CORRUPT, "%s: became shorter while it was read; is it still being written?", r->name);
    for (size_t i = 0; l->counted && i < n; i++) {
        int32_t dim;
        memcpy(&dim, raw + i * l->stride, sizeof dim);
        if (dim < 0 || (size_t)dim != l->dim)
            return lk_fail(LK_CORRUPT, "%s: row %llu has %d components, row 0 has %zu; the file is damaged", r->name,
                           (unsigned long long)(first + i), dim, l->dim);
    }
    return LK_OK;
}

static lk_status check_rows(const lk_vector_reader *r, uint64_t first, size_t n)
{
    if (first > r->layout.rows || n > r->layout.rows - first)
        return lk_fail(LK_INVALID, "%s: has no rows %llu to %llu, only %llu", r->name, (unsigned long long)first,
                       (unsigned long long)(first + n), (unsigned long long)r->layout.rows);
    return LK_OK;
}

/* Reads in pieces of about a megabyte; with ints the components are copied, else converted. */
static lk_status read_rows(const lk_vector_reader *r, uint64_t first, size_t n, float *floats, int32_t *ints)
{
    const lk_vector_layout *l = &r->layout;
    lk_status s = check_rows(r, first, n);
    if (s != LK_OK || n == 0) return s;
    if (r->hdf5) return lk_hdf5_read(r->hdf5, first, n, ints != NULL, ints ? (void *)ints : (void *)floats);
    size_t piece = ((size_t)1 << 20) / l->stride + 1;
    if (piece > n) piece = n;
    uint8_t *raw = lk_alloc(piece, l->stride);
    if (!raw) return lk_fail_memory(r->name);
    for (size_t done = 0; s == LK_OK && done < n; done += piece) {
        size_t count = n - done < piece ? n - done : piece;
        s = read_raw(r, first + done, count, raw);
        for (size_t i = 0; s == LK_OK && i < count; i++) {
            const uint8_t *row = raw + i * l->stride + (l->counted ? 4 : 0);
            if (ints)
                memcpy(ints + (done + i) * l->dim, row, l->dim * sizeof *ints);
            else
                lk_components_decode(l->component, l->dim, row, floats + (done + i) * l->dim);
        }
    }
    free(raw);
    return s;
}

lk_status lk_vector_reader_read(lk_vector_reader *r, uint64_t first, size_t n, float *out)
{
    return read_rows(r, first, n, out, NULL);
}

lk_status lk_vector_reader_read_i32(lk_vector_reader *r, uint64_t first, size_t n, int32_t *out)
{
    if (r->layout.component != LK_COMPONENT_I32)
        return lk_fail(LK_INVALID, "%s: holds %s where whole numbers (i32) are wanted", r->name,
                       lk_component_name(r->layout.component));
    return read_rows(r, first, n, NULL, out);
}
