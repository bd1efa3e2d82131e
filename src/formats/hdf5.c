#include "formats/hdf5.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "formats/layout.h"
#include "late/late.h"

#include <errno.h>
#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct lk_hdf5 {
    char *path, *copy; /* copy: of a file being written */
    char *name;
    hid_t file, set, type; /* type: of a component of a file being written */
    size_t dim;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void lock(void)
{
    pthread_mutex_lock(&mutex);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* the library would print its errors */
}

static void unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

static lk_hdf5 *make(const char *path, const char *name)
{
    lk_hdf5 *h = lk_alloc_zero(1, sizeof *h);
    if (!h) return NULL;
    h->file = h->set = h->type = H5I_INVALID_HID;
    h->path = strdup(path);
    h->name = strdup(name);
    if (h->path && h->name) return h;
    lk_hdf5_free(h);
    return NULL;
}

static void close_all(lk_hdf5 *h)
{
    if (h->set >= 0) H5Dclose(h->set);
    if (h->file >= 0) H5Fclose(h->file);
    if (h->type >= 0) H5Tclose(h->type);
    h->set = h->file = h->type = H5I_INVALID_HID;
}

void lk_hdf5_free(lk_hdf5 *h)
{
    if (!h) return;
    lock();
    close_all(h);
    unlock();
    if (h->copy) unlink(h->copy);
    free(h->copy);
    free(h->path);
    free(h->name);
    free(h);
}

/* The library's types are variables that H5open sets. */
#define TYPE(name) (H5open(), *(const hid_t *)lk_late_symbol("libhdf5", "H5T_" #name "_g"))

static hid_t type_of(lk_component component)
{
    switch (component) {
    case LK_COMPONENT_F32: return TYPE(IEEE_F32LE);
    case LK_COMPONENT_F64: return TYPE(IEEE_F64LE);
    case LK_COMPONENT_I8: return TYPE(STD_I8LE);
    case LK_COMPONENT_U8: return TYPE(STD_U8LE);
    case LK_COMPONENT_I32: return TYPE(STD_I32LE);
    case LK_COMPONENT_F16: break;
    }
    return H5I_INVALID_HID;
}

/* A copy of an IEEE type narrowed to binary16, which the library does not name before version 1.14. */
static hid_t half_type(void)
{
    hid_t type = H5Tcopy(TYPE(IEEE_F32LE));
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

/* Which of our components a dataset holds; whole numbers of other widths count as i32, other floats as f64. */
static lk_component component_of(hid_t set)
{
    hid_t type = H5Dget_type(set);
    H5T_class_t class = H5Tget_class(type);
    size_t bytes = H5Tget_size(type);
    bool is_signed = class == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_2;
    H5Tclose(type);
    if (class == H5T_FLOAT) return bytes == 4 ? LK_COMPONENT_F32 : bytes == 2 ? LK_COMPONENT_F16 : LK_COMPONENT_F64;
    if (bytes == 1) return is_signed ? LK_COMPONENT_I8 : LK_COMPONENT_U8;
    return LK_COMPONENT_I32;
}

static lk_status open_set(lk_hdf5 *h, uint64_t *rows, size_t *dim, lk_component *component)
{
    hsize_t sizes[2];
    h->file = H5Fopen(h->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (h->file < 0) return lk_fail(LK_CORRUPT, "%s: is not an HDF5 file, or a damaged one", h->path);
    h->set = H5Dopen2(h->file, h->name, H5P_DEFAULT);
    if (h->set < 0)
        return lk_fail(LK_NOT_FOUND, "%s: holds no dataset '%s'; name another as %s:NAME", h->path, h->name, h->path);
    hid_t space = H5Dget_space(h->set), type = H5Dget_type(h->set);
    H5T_class_t class = H5Tget_class(type);
    int dims = H5Sget_simple_extent_ndims(space);
    if (dims == 2) H5Sget_simple_extent_dims(space, sizes, NULL);
    H5Sclose(space);
    H5Tclose(type);
    if (dims != 2 || (class != H5T_FLOAT && class != H5T_INTEGER))
        return lk_fail(LK_UNSUPPORTED, "%s: dataset '%s' is not a table of numbers, rows by components", h->path,
                       h->name);
    if (sizes[1] < 1 || sizes[1] > LK_DIM_MOST)
        return lk_fail(LK_UNSUPPORTED, "%s: dataset '%s' has rows of %llu components; from 1 to %d are possible",
                       h->path, h->name, (unsigned long long)sizes[1], LK_DIM_MOST);
    *rows = sizes[0];
    *dim = h->dim = (size_t)sizes[1];
    *component = component_of(h->set);
    return LK_OK;
}

lk_status lk_hdf5_open(const char *file, const char *name, lk_hdf5 **out, uint64_t *rows, size_t *dim,
                       lk_component *component)
{
    *out = NULL;
    if (access(file, R_OK) != 0) return lk_fail_errno(errno, "%s: cannot be opened", file);
    lk_hdf5 *h = make(file, name);
    if (!h) return lk_fail_memory(file);
    lock();
    lk_status s = open_set(h, rows, dim, component);
    unlock();
    if (s == LK_OK)
        *out = h;
    else
        lk_hdf5_free(h);
    return s;
}

/* Selects rows [first, first + n) of the dataset and calls read or write. */
static herr_t transfer(lk_hdf5 *h, uint64_t first, size_t n, hid_t type, void *in, const void *out)
{
    hsize_t start[2] = {first, 0}, count[2] = {n, h->dim};
    hid_t space = H5Dget_space(h->set), memory = H5Screate_simple(2, count, NULL);
    herr_t failed = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    if (failed >= 0)
        failed = in ? H5Dread(h->set, type, memory, space, H5P_DEFAULT, in)
                    : H5Dwrite(h->set, type, memory, space, H5P_DEFAULT, out);
    H5Sclose(space);
    H5Sclose(memory);
    return failed;
}

lk_status lk_hdf5_read(lk_hdf5 *h, uint64_t first, size_t n, int whole, void *out)
{
    lock();
    herr_t failed = transfer(h, first, n, whole ? TYPE(NATIVE_INT32) : TYPE(NATIVE_FLOAT), out, NULL);
    unlock();
    return failed >= 0 ? LK_OK
                       : lk_fail(LK_CORRUPT, "%s: rows from %llu on of '%s' cannot be read; is the file damaged?",
                                 h->path, (unsigned long long)first, h->name);
}

static lk_status copy_file(const char *from, const char *to)
{
    enum { PIECE = 1 << 20 };
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    char *piece = lk_alloc(PIECE, 1);
    lk_status s = piece ? LK_OK : lk_fail_memory(from);
    if (!in) s = lk_fail_errno(errno, "%s: cannot be read", from);
    if (!out) s = lk_fail_errno(errno, "%s: cannot be written", to);
    for (size_t n; s == LK_OK && (n = fread(piece, 1, PIECE, in)) > 0;)
        if (fwrite(piece, 1, n, out) != n) s = lk_fail_errno(errno, "%s: cannot be written", to);
    if (s == LK_OK && ferror(in)) s = lk_fail(LK_IO, "%s: cannot be read", from);
    if (in) fclose(in);
    if (out && fclose(out) != 0 && s == LK_OK) s = lk_fail_errno(errno, "%s: cannot be written", to);
    free(piece);
    return s;
}

static lk_status create_set(lk_hdf5 *h, uint64_t rows, lk_component component, bool exists)
{
    h->file = exists ? H5Fopen(h->copy, H5F_ACC_RDWR, H5P_DEFAULT)
                     : H5Fcreate(h->copy, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (h->file < 0)
        return exists ? lk_fail(LK_CORRUPT, "%s: exists and is not an HDF5 file; move it away", h->path)
                      : lk_fail(LK_IO, "%s: cannot be written", h->path);
    if (H5Lexists(h->file, h->name, H5P_DEFAULT) > 0) H5Ldelete(h->file, h->name, H5P_DEFAULT);
    hsize_t sizes[2] = {rows, h->dim};
    hid_t space = H5Screate_simple(2, sizes, NULL);
    hid_t type = component == LK_COMPONENT_F16 ? half_type() : H5Tcopy(type_of(component));
    h->set = H5Dcreate2(h->file, h->name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    h->type = type;
    H5Sclose(space);
    return h->set >= 0 ? LK_OK : lk_fail(LK_IO, "%s: dataset '%s' cannot be made", h->path, h->name);
}

lk_status lk_hdf5_create(const char *file, const char *name, uint64_t rows, size_t dim, lk_component component,
                         lk_hdf5 **out)
{
    *out = NULL;
    lk_hdf5 *h = make(file, name);
    if (!h) return lk_fail_memory(file);
    h->dim = dim;
    lk_status s = LK_OK;
    if (asprintf(&h->copy, "%s.%ld.tmp", file, (long)getpid()) < 0) {
        h->copy = NULL;
        s = lk_fail_memory(file);
    }
    bool exists = lk_path_exists(file);
    if (s == LK_OK && exists) s = copy_file(file, h->copy);
    lock();
    if (s == LK_OK) s = create_set(h, rows, component, exists);
    unlock();
    if (s == LK_OK)
        *out = h;
    else
        lk_hdf5_free(h);
    return s;
}

lk_status lk_hdf5_write(lk_hdf5 *h, uint64_t first, size_t n, const void *rows)
{
    lock();
    herr_t failed = transfer(h, first, n, h->type, NULL, rows);
    unlock();
    return failed >= 0 ? LK_OK : lk_fail(LK_IO, "%s: cannot be written; is the disk full?", h->path);
}

lk_status lk_hdf5_commit(lk_hdf5 *h)
{
    lock();
    herr_t failed = H5Fflush(h->file, H5F_SCOPE_GLOBAL);
    close_all(h);
    unlock();
    lk_status s = failed >= 0 ? LK_OK : lk_fail(LK_IO, "%s: cannot be written; is the disk full?", h->path);
    if (s == LK_OK && rename(h->copy, h->path) != 0) s = lk_fail_errno(errno, "%s: cannot be replaced", h->path);
    if (s == LK_OK) {
        free(h->copy);
        h->copy = NULL;
    }
    lk_hdf5_free(h);
    return s;
}
