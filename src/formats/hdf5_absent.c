/* In place of hdf5.c where libhdf5 is not there. */
#include "base/error.h"
#include "formats/hdf5.h"

static lk_status absent(const char *file)
{
    return lk_fail(LK_UNSUPPORTED,
                   "%s: this build has no HDF5; install libhdf5-dev and build again, or convert the file", file);
}

lk_status lk_hdf5_open(const char *file, const char *name, lk_hdf5 **out, uint64_t *rows, size_t *dim,
                       lk_component *component)
{
    (void)name, (void)rows, (void)dim, (void)component;
    *out = NULL;
    return absent(file);
}

lk_status lk_hdf5_create(const char *file, const char *name, uint64_t rows, size_t dim, lk_component component,
                         lk_hdf5 **out)
{
    (void)name, (void)rows, (void)dim, (void)component;
    *out = NULL;
    return absent(file);
}

lk_status lk_hdf5_read(lk_hdf5 *set, uint64_t first, size_t n, int whole, void *out)
{
    (void)set, (void)first, (void)n, (void)whole, (void)out;
    return absent("HDF5");
}

lk_status lk_hdf5_write(lk_hdf5 *set, uint64_t first, size_t n, const void *rows)
{
    (void)set, (void)first, (void)n, (void)rows;
    return absent("HDF5");
}

lk_status lk_hdf5_commit(lk_hdf5 *set)
{
    (void)set;
    return absent("HDF5");
}

void lk_hdf5_free(lk_hdf5 *set)
{
    (void)set;
}
