/* Datasets of HDF5 files through libhdf5; in a build without it opening is LK_UNSUPPORTED. The library keeps global
 * state, so that calls are made one at a time. */
#ifndef LK_FORMATS_HDF5_H
#define LK_FORMATS_HDF5_H

#include <likeness/vectors.h>

typedef struct lk_hdf5 lk_hdf5;

/* Opens dataset `name` of the file for reading. */
lk_status lk_hdf5_open(const char *file, const char *name, lk_hdf5 **out, uint64_t *rows, size_t *dim,
                       lk_component *component);
/* Rows as f32, or as i32 when whole != 0. */
lk_status lk_hdf5_read(lk_hdf5 *set, uint64_t first, size_t n, int whole, void *out);

/* Opens for writing: a copy beside the file (or a new one) in which the dataset is made anew. */
lk_status lk_hdf5_create(const char *file, const char *name, uint64_t rows, size_t dim, lk_component component,
                         lk_hdf5 **out);
/* Rows already encoded as the component. */
lk_status lk_hdf5_write(lk_hdf5 *set, uint64_t first, size_t n, const void *rows);
/* Puts the copy into its place. Frees, also on failure. */
lk_status lk_hdf5_commit(lk_hdf5 *set);
/* Closes; a copy that was not committed is removed. NULL allowed. */
void lk_hdf5_free(lk_hdf5 *set);

#endif
