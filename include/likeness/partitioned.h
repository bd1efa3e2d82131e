/* Partitioned index: for millions of vectors on small memory. Vectors are divided among the cells of a k-means
 * clustering; a search visits the cells nearest to the query, scores what is in them from 4-bit codes in vector
 * registers, and scores the best of these again from finer copies. Immutable once built; one file, mapped by any number
 * of processes.
 *
 * Sources: Jegou, Douze & Schmid 2011 (inverted file with product quantisation), Andre et al. 2015 (fast scan), Guo et
 * al. 2020 (codes that keep inner products). */
#ifndef LIKENESS_PARTITIONED_H
#define LIKENESS_PARTITIONED_H

#include <likeness/context.h>
#include <likeness/index.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lk_partitioned lk_partitioned;

/* The finer copy that decides in the end, bytes per component: 0, 1, 2, 4. Without one the order is that of the codes.
 */
typedef enum lk_refine { LK_REFINE_I8 = 0, LK_REFINE_F16 = 1, LK_REFINE_F32 = 2, LK_REFINE_NONE = 3 } lk_refine;

/* Zero everywhere means: sensible. */
typedef struct lk_partitioned_options {
    size_t partitions; /* cells; 0 = about 2 sqrt(n) */
    size_t groups;     /* codes of 4 bits per vector; 0 = one for two components */
    lk_refine refine;  /* int8 by default: a quarter of the bytes of f32, and nearly its order */
    float anisotropy;  /* >= 1: weight of errors along a vector, LK_INNER_PRODUCT only; 0 = 4 */
    uint64_t seed;
    size_t memory; /* bytes that building may take, the index itself included unless it goes into a file; 0 = no
                    * ceiling. A low one makes the training sample smaller; LK_LIMIT when even the least does not fit */
} lk_partitioned_options;

/* Where vectors come from. read gives rows [first, first + n) as f32, [n][dim], and is called from several threads at
 * once; every row is asked for twice, in rising order, and a sample once more. */
typedef struct lk_rows {
    lk_status (*read)(void *user, uint64_t first, size_t n, float *out);
    void *user;
    uint64_t n;
    size_t dim;
    const uint64_t *ids; /* [n], borrowed during the build; NULL = 0 .. n - 1 */
} lk_rows;

/* Builds on all threads of the context (NULL = the calling one). With a path the index is built in a file that replaces
 * `path` when it is complete, and is mapped; else it is built in memory. The same input and seed give the same bytes
 * for any number of threads. LK_INVALID for no rows, more than 2^32 - 1, a dim of 0 or above 65536, or a component that
 * is not finite; LK_LIMIT; LK_NO_MEMORY; LK_CANCELLED; what read returns. */
LK_API lk_status lk_partitioned_build(lk_context *context, const lk_rows *rows, lk_metric metric,
                                      const lk_partitioned_options *options, const char *path, lk_partitioned **out);
/* The same from vectors [n][dim] in memory. */
LK_API lk_status lk_partitioned_build_memory(lk_context *context, size_t n, size_t dim, const float *vectors,
                                             const uint64_t *ids, lk_metric metric,
                                             const lk_partitioned_options *options, lk_partitioned **out);
LK_API void lk_partitioned_free(lk_partitioned *index);

/* Writes the index into a file, which appears when it is complete. */
LK_API lk_status lk_partitioned_save(const lk_partitioned *index, const char *path);
/* Maps a file; only what every search needs is read and verified. LK_CORRUPT, LK_UNSUPPORTED when a newer version wrote
 * it. */
LK_API lk_status lk_partitioned_open(const char *path, lk_partitioned **out);
/* Reads all of it: LK_CORRUPT when a checksum does not fit. */
LK_API lk_status lk_partitioned_verify(const lk_partitioned *index);

LK_API uint64_t lk_partitioned_count(const lk_partitioned *index);
LK_API size_t lk_partitioned_dim(const lk_partitioned *index);
LK_API lk_metric lk_partitioned_metric(const lk_partitioned *index);
LK_API size_t lk_partitioned_partitions(const lk_partitioned *index);
LK_API uint64_t lk_partitioned_bytes(const lk_partitioned *index); /* of the file, all of it */

/* How hard to look. Zero everywhere means: sensible for k. */
typedef struct lk_partitioned_effort {
    size_t probes;  /* cells visited */
    size_t refined; /* vectors scored from their finer copies */
} lk_partitioned_effort;

/* The k best that were found for each of n queries [n][dim], as lk_flat_search writes them; scores are those of the
 * finer copies. The filter is asked before anything is refined, and about up to 2,048 vectors beforehand: the fewer
 * pass, the more cells are visited than effort says, so that recall stays what it is without a filter. context NULL =
 * the calling thread alone; searches may run at once. LK_INVALID when k is 0 or a query is not finite. */
LK_API lk_status lk_partitioned_search(const lk_partitioned *index, lk_context *context, lk_partitioned_effort effort,
                                       size_t n, const float *queries, size_t k, lk_id_filter filter, void *filter_user,
                                       lk_hit *hits, size_t *counts);

/* All that were found whose score is `bound` or better, as lk_flat_range. Cells are visited, the nearest first, until
 * effort.probes of them in a row had nothing to give. */
LK_API lk_status lk_partitioned_range(const lk_partitioned *index, lk_context *context, lk_partitioned_effort effort,
                                      size_t n, const float *queries, float bound, size_t most, lk_id_filter filter,
                                      void *filter_user, lk_hit *hits, size_t *counts);
/* As lk_flat_search_several and lk_flat_search_diverse. The latter wants finer copies: LK_UNSUPPORTED without. */
LK_API lk_status lk_partitioned_search_several(const lk_partitioned *index, lk_context *context,
                                               lk_partitioned_effort effort, size_t m, const float *vectors,
                                               lk_fusion fusion, size_t k, lk_id_filter filter, void *filter_user,
                                               lk_hit *hits, size_t *count);
LK_API lk_status lk_partitioned_search_diverse(const lk_partitioned *index, lk_context *context,
                                               lk_partitioned_effort effort, lk_diversity how, size_t n,
                                               const float *queries, size_t k, lk_id_filter filter, void *filter_user,
                                               lk_hit *hits, size_t *counts);

#ifdef __cplusplus
}
#endif
#endif
