/* Vector index: exact search over vectors held here or borrowed from mapped files. Knows nothing of pictures or files.
 */
#ifndef LIKENESS_INDEX_H
#define LIKENESS_INDEX_H

#include <likeness/context.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Cosine: score in [-1, 1], higher is better. Inner product: higher is better. L2: squared Euclidean distance, lower is
 * better. */
typedef enum lk_metric { LK_COSINE = 0, LK_INNER_PRODUCT = 1, LK_L2 = 2 } lk_metric;

/* How a component is stored. LK_I8 keeps one f32 scale per vector: component = scale * code, code in [-127, 127]. */
typedef enum lk_dtype { LK_F32 = 0, LK_F16 = 1, LK_I8 = 2 } lk_dtype;

/* Bytes of one stored vector of `dim` components (the int8 scale is kept apart and not counted). */
LK_API size_t lk_dtype_bytes(lk_dtype dtype, size_t dim);

/* Encodes n vectors [n][dim] f32 as codes [n][lk_dtype_bytes(dtype, dim)] and, for LK_I8, scales [n] (else NULL).
 * With normalise != 0 each vector is divided by its L2 norm first (a zero vector stays zero).
 * LK_INVALID when a component is NaN or infinite, or overflows f16: the message gives the row. */
LK_API lk_status lk_vectors_encode(lk_dtype dtype, size_t dim, size_t n, const float *vectors, int normalise,
                                   void *codes, float *scales);
/* The inverse up to rounding: out [n][dim]. */
LK_API void lk_vectors_decode(lk_dtype dtype, size_t dim, size_t n, const void *codes, const float *scales, float *out);

typedef struct lk_hit {
    uint64_t id;
    float score;
} lk_hit;

typedef struct lk_flat lk_flat;

/* An empty exact index over dim-wide vectors. LK_INVALID when dim is 0 or above 65536. */
LK_API lk_status lk_flat_new(size_t dim, lk_metric metric, lk_dtype dtype, lk_flat **out);
LK_API void lk_flat_free(lk_flat *index);

/* Copies n vectors in, encoding them (normalised for LK_COSINE). ids may repeat ids of earlier calls only after their
 * removal: LK_CONFLICT otherwise, and nothing is added. */
LK_API lk_status lk_flat_add(lk_flat *index, size_t n, const uint64_t *ids, const float *vectors);

/* Adds n encoded vectors without copying: ids, codes (64-byte alignment is not needed) and scales must outlive the
 * index. For LK_COSINE they must be normalised. live, if not NULL, is a bitmap [ceil(n/8)], bit i (LSB first) of which
 * says whether row i takes part; it is copied. Ids of live rows are not checked for repeats. */
LK_API lk_status lk_flat_attach(lk_flat *index, size_t n, const uint64_t *ids, const void *codes, const float *scales,
                                const uint8_t *live);

/* Takes a vector out. LK_NOT_FOUND when the id is not there. */
LK_API lk_status lk_flat_remove(lk_flat *index, uint64_t id);

LK_API size_t lk_flat_count(const lk_flat *index); /* live vectors */
LK_API size_t lk_flat_dim(const lk_flat *index);
LK_API lk_metric lk_flat_metric(const lk_flat *index);

/* Says whether an id may be returned. Asked at most once per query and vector, and only about vectors that would be
 * among the best so far; from several threads at once. */
typedef int (*lk_id_filter)(void *user, uint64_t id);

/* The k best of the whole index for each of n queries [n][dim] (normalised inside for LK_COSINE). Exact: every live
 * vector is scored as it is stored (for LK_I8 scale * code) with the f32 query, summed in f32; LK_L2 sums squared
 * differences. A vector whose score is not finite (NaN or infinity in attached memory, or overflow) is never found.
 * hits [n][k] are written best first, ties broken by smaller id; counts [n] says how many of the k exist (fewer when
 * fewer vectors pass). Results do not depend on the number of threads, nor on how queries are batched. context NULL =
 * the calling thread alone. filter NULL = all. LK_INVALID when k is 0 or a query is not finite; LK_NO_MEMORY;
 * LK_CANCELLED. */
LK_API lk_status lk_flat_search(const lk_flat *index, lk_context *context, size_t n, const float *queries, size_t k,
                                lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts);

/* Copies the stored vector of an id, decoded, into out [dim]. LK_NOT_FOUND. */
LK_API lk_status lk_flat_vector(const lk_flat *index, uint64_t id, float *out);

/* All scores: for each of n queries the score of every live vector, in the order of rows (see lk_flat_ids):
 * scores [n][lk_flat_count], those of lk_flat_search, and the worst possible infinity where that would never find the
 * vector. The evaluation uses it, because it needs the rank of every relevant picture. */
LK_API lk_status lk_flat_scores(const lk_flat *index, lk_context *context, size_t n, const float *queries,
                                float *scores);
/* Ids in the order of lk_flat_scores: out [lk_flat_count]. */
LK_API void lk_flat_ids(const lk_flat *index, uint64_t *out);

#ifdef __cplusplus
}
#endif
#endif
