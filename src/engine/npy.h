/* Reading NumPy's .npy files (format 1.0 to 3.0, little-endian, C order). */
#ifndef LK_ENGINE_NPY_H
#define LK_ENGINE_NPY_H

#include "base/file.h"

typedef struct lk_npy {
    lk_map map;
    const uint8_t *data;
    char kind;            /* 'f', 'i', 'u' */
    size_t size;          /* bytes of a number: 2, 4, 8 (floats); 1, 2, 4, 8 (integers) */
    size_t rows, columns; /* columns 1 for a one-dimensional array */
} lk_npy;

/* LK_CORRUPT for what is no such file, LK_UNSUPPORTED for other types, orders and shapes. */
lk_status lk_npy_open(const char *path, lk_npy *out);
void lk_npy_close(lk_npy *npy);
/* Rows [first, first + n) as f32 [n][columns]. */
void lk_npy_floats(const lk_npy *npy, size_t first, size_t n, float *out);
/* One number of an integer array. */
int64_t lk_npy_integer(const lk_npy *npy, size_t row);

#endif
