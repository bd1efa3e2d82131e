/* Files of vectors as other programs write them: .npy (numpy), .fvecs .bvecs .ivecs (TEXMEX), .fbin .u8bin .i8bin .ibin
 * (big-ann-benchmarks) and HDF5 (ann-benchmarks). Read and written in blocks of rows, so that a file need not fit into
 * memory. */
#ifndef LIKENESS_VECTORS_H
#define LIKENESS_VECTORS_H

#include <likeness/context.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a component is in the file. */
typedef enum lk_component {
    LK_COMPONENT_F32 = 0,
    LK_COMPONENT_F16 = 1,
    LK_COMPONENT_F64 = 2,
    LK_COMPONENT_I8 = 3,
    LK_COMPONENT_U8 = 4,
    LK_COMPONENT_I32 = 5
} lk_component;
/* "f32", "f16", "f64", "i8", "u8", "i32". */
LK_API const char *lk_component_name(lk_component component);
LK_API size_t lk_component_bytes(lk_component component);

/* Which dataset of an HDF5 file is meant when the path names none; other formats hold one and ignore it. A path may
 * name it: "sift.hdf5:train". */
typedef enum lk_vectors_role {
    LK_VECTORS_BASE = 0,       /* "train" */
    LK_VECTORS_QUERIES = 1,    /* "test" */
    LK_VECTORS_NEIGHBOURS = 2, /* "neighbors": ids of the best, per query */
    LK_VECTORS_DISTANCES = 3   /* "distances" */
} lk_vectors_role;

typedef struct lk_vector_reader lk_vector_reader;

/* The format is told by the end of the name. Opening reads the header alone. LK_NOT_FOUND; LK_CORRUPT when the header
 * contradicts itself or the length of the file; LK_UNSUPPORTED for what is well-formed but not read here (a big-endian
 * or Fortran-ordered array, an unknown name): the message says how to make it readable. */
LK_API lk_status lk_vector_reader_open(const char *path, lk_vectors_role role, lk_vector_reader **out);
LK_API void lk_vector_reader_free(lk_vector_reader *reader);
LK_API uint64_t lk_vector_reader_rows(const lk_vector_reader *reader);
LK_API size_t lk_vector_reader_dim(const lk_vector_reader *reader); /* at least 1 */
LK_API lk_component lk_vector_reader_component(const lk_vector_reader *reader);

/* Rows [first, first + n) converted to f32 (exactly, except from f64 and from i32 beyond 2^24): out [n][dim]. From
 * several threads at once. LK_INVALID when the rows do not exist, LK_CORRUPT when a row is not what the header says,
 * LK_IO. */
LK_API lk_status lk_vector_reader_read(lk_vector_reader *reader, uint64_t first, size_t n, float *out);
/* The same for whole numbers, as lists of neighbours are: out [n][dim]. LK_INVALID unless the file holds i32. */
LK_API lk_status lk_vector_reader_read_i32(lk_vector_reader *reader, uint64_t first, size_t n, int32_t *out);

typedef struct lk_vector_writer lk_vector_writer;

/* Begins a file of rows x dim components. The file appears under its name when it is finished, replacing what was
 * there; in HDF5 only the dataset is replaced, others stay. LK_UNSUPPORTED when the format does not know the component:
 * .fvecs and .fbin hold f32, .bvecs and .u8bin u8, .i8bin i8, .ivecs and .ibin i32, .npy and HDF5 all of them. */
LK_API lk_status lk_vector_writer_open(const char *path, lk_vectors_role role, uint64_t rows, size_t dim,
                                       lk_component component, lk_vector_writer **out);
/* The next n rows, [n][dim]. Whole-number components are rounded to nearest. LK_INVALID when a value does not fit into
 * the component (the message names the row) or there are more rows than were announced. */
LK_API lk_status lk_vector_writer_write(lk_vector_writer *writer, size_t n, const float *rows);
/* LK_INVALID unless the file holds i32. */
LK_API lk_status lk_vector_writer_write_i32(lk_vector_writer *writer, size_t n, const int32_t *rows);
/* Frees the writer, also on failure. LK_INVALID when rows are missing. */
LK_API lk_status lk_vector_writer_finish(lk_vector_writer *writer);
/* Leaves nothing behind. NULL allowed. */
LK_API void lk_vector_writer_abandon(lk_vector_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
