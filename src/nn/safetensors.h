/* safetensors files: a JSON header that names tensors, then their bytes (https://github.com/huggingface/safetensors,
 * "Format"). Reading maps the file and copies nothing; a header is believed only after every number in it was checked.
 */
#ifndef LK_NN_SAFETENSORS_H
#define LK_NN_SAFETENSORS_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LK_ST_MAX_RANK = 8 };

typedef enum lk_st_dtype {
    LK_ST_BOOL,
    LK_ST_U8,
    LK_ST_I8,
    LK_ST_F8_E5M2,
    LK_ST_F8_E4M3,
    LK_ST_I16,
    LK_ST_U16,
    LK_ST_F16,
    LK_ST_BF16,
    LK_ST_I32,
    LK_ST_U32,
    LK_ST_F32,
    LK_ST_F64,
    LK_ST_I64,
    LK_ST_U64,
    LK_ST_DTYPES
} lk_st_dtype;

/* "BF16" and so on, as in the file. Static. */
const char *lk_st_dtype_name(lk_st_dtype dtype);
size_t lk_st_dtype_bytes(lk_st_dtype dtype);

typedef struct lk_safetensor {
    const char *name; /* owned by the file it comes from, borrowed when writing */
    lk_st_dtype dtype;
    uint32_t rank; /* 0 is a scalar */
    uint64_t shape[LK_ST_MAX_RANK];
    const void *data; /* row-major, little-endian, of any alignment */
    uint64_t count;   /* elements: the product of shape; ignored when writing */
} lk_safetensor;

typedef struct lk_safetensors lk_safetensors;

/* Maps a file and checks its header. LK_NOT_FOUND, LK_IO, LK_CORRUPT (the message names file and tensor),
 * LK_UNSUPPORTED (PyTorch's own format, with the way out; an element type not listed above), LK_LIMIT (header above
 * 16 MiB, more than 8 dimensions). */
lk_status lk_safetensors_open(const char *path, lk_safetensors **out);
/* The same over bytes that stay where they are until lk_safetensors_free; `name` stands for the file in messages. */
lk_status lk_safetensors_parse(const void *bytes, size_t size, const char *name, lk_safetensors **out);
void lk_safetensors_free(lk_safetensors *file); /* NULL allowed */

const char *lk_safetensors_path(const lk_safetensors *file);
/* The whole file, for whoever hashes it. */
const void *lk_safetensors_bytes(const lk_safetensors *file, size_t *size);
size_t lk_safetensors_count(const lk_safetensors *file);
/* Tensor number i in the order of the header. */
const lk_safetensor *lk_safetensors_at(const lk_safetensors *file, size_t i);
/* NULL when there is none of this name. */
const lk_safetensor *lk_safetensors_find(const lk_safetensors *file, const char *name);
/* A value of the header's __metadata__, or NULL. */
const char *lk_safetensors_metadata(const lk_safetensors *file, const char *key);

/* Converts every element to f32 (rounded where f32 cannot hold it; true is 1): out [count]. */
void lk_safetensor_to_f32(const lk_safetensor *tensor, float *out);

/* Writes n tensors as one file, replaced atomically. metadata: key, value, key, value, ..., NULL; may be NULL. The
 * bytes depend on the arguments alone. LK_INVALID (a name twice, a name or value that is not UTF-8), LK_IO,
 * LK_NO_MEMORY. */
lk_status lk_safetensors_write(const char *path, const lk_safetensor *tensors, size_t n, const char *const *metadata);

#endif
