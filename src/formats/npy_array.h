/* A .npy file as the array that it is, of any kind of numbers: what lk_vector_reader does not offer (labels are whole
 * numbers of 64 bits, in one dimension). */
#ifndef LK_FORMATS_NPY_ARRAY_H
#define LK_FORMATS_NPY_ARRAY_H

#include "base/file.h"

typedef struct lk_npy_array {
    char kind;              /* 'f', 'i', 'u' */
    size_t size;            /* bytes of a number: 2, 4, 8 (floats); 1, 2, 4, 8 (integers) */
    uint64_t rows, columns; /* columns 1 for an array of one dimension */
    uint64_t offset;        /* bytes before the first number */
} lk_npy_array;

/* head [size] are the first bytes of a file of file_size >= size. LK_CORRUPT, LK_UNSUPPORTED for other types, orders
 * and shapes. */
lk_status lk_npy_array_of(const char *name, const uint8_t *head, size_t size, uint64_t file_size, lk_npy_array *out);

typedef struct lk_npy {
    lk_map map;
    const uint8_t *data;
    char kind;
    size_t size, rows, columns;
} lk_npy;

/* Maps a file. LK_NOT_FOUND, LK_IO, and as above. */
lk_status lk_npy_open(const char *path, lk_npy *out);
void lk_npy_close(lk_npy *npy);
/* Rows [first, first + n) as f32 [n][columns]. */
void lk_npy_floats(const lk_npy *npy, size_t first, size_t n, float *out);
/* Number i of an array of integers. */
int64_t lk_npy_integer(const lk_npy *npy, size_t i);

#endif
