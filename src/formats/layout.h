/* Where the rows of a plain file lie: what a header says, checked against the length of the file. Pure functions of
 * bytes, so that they can be fuzzed. */
#ifndef LK_FORMATS_LAYOUT_H
#define LK_FORMATS_LAYOUT_H

#include <likeness/vectors.h>
#include <stdbool.h>

typedef struct lk_vector_layout {
    lk_component component;
    uint64_t rows, offset, stride; /* bytes: of the first component of row 0, from row to row */
    size_t dim;
    bool counted; /* each row is preceded by its dim as an int32 */
} lk_vector_layout;

/* What is known of a file from the end of its name. */
typedef enum lk_vector_format { LK_FORMAT_NPY, LK_FORMAT_VECS, LK_FORMAT_BIN, LK_FORMAT_HDF5 } lk_vector_format;
/* *component is what the format holds (LK_COMPONENT_F32 for those that hold any). *name_end receives the length of the
 * file's own name when the path names a dataset after it ("x.hdf5:train"), else the length of path. */
lk_status lk_vector_format_of(const char *path, lk_vector_format *format, lk_component *component, size_t *name_end);

/* Enough of a file for any header: .npy describes itself in a few hundred bytes at most. */
enum { LK_HEADER_BYTES = 4096, LK_DIM_MOST = 65536 };

/* name is for messages; head [size] are the first bytes of a file of file_size >= size bytes; size is LK_HEADER_BYTES
 * or all of the file. */
lk_status lk_npy_layout(const char *name, const uint8_t *head, size_t size, uint64_t file_size, lk_vector_layout *out);
lk_status lk_vecs_layout(const char *name, lk_component component, const uint8_t *head, size_t size, uint64_t file_size,
                         lk_vector_layout *out);
lk_status lk_bin_layout(const char *name, lk_component component, const uint8_t *head, size_t size, uint64_t file_size,
                        lk_vector_layout *out);

/* Header of a .npy of version 1.0 (128 bytes); returns its length. */
enum { LK_NPY_HEADER = 128 };
void lk_npy_header(uint64_t rows, size_t dim, lk_component component, uint8_t out[LK_NPY_HEADER]);

/* n components at any address -> f32. */
void lk_components_decode(lk_component component, size_t n, const void *in, float *out);
/* The inverse. Returns n, or the position of the first value that does not fit. */
size_t lk_components_encode(lk_component component, size_t n, const float *in, void *out);

#endif
