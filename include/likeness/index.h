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
 * among the best so far; from several threads at once. An index may be locked meanwhile: of its
 * functions only those that tell its count, width and metric may be called. */
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

/* All vectors whose score is `bound` or better (LK_L2: at most, else: at least) for each of n queries, best first, but
 * at most `most` of them: hits [n][most], counts [n]. Exact, and otherwise as lk_flat_search. LK_INVALID when most is 0
 * or bound is NaN. */
LK_API lk_status lk_flat_range(const lk_flat *index, lk_context *context, size_t n, const float *queries, float bound,
                               size_t most, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts);

/* One thing searched for by several vectors at once: a vector's score is made of its scores for each of them. */
typedef enum lk_fusion {
    LK_FUSE_MEAN = 0, /* the mean of the scores: one search, with the mean of the vectors */
    LK_FUSE_SUM = 1,
    LK_FUSE_BEST = 2 /* the best of them (LK_L2: the least): one search for each */
} lk_fusion;
/* The k best by the fused score of m vectors [m][dim], m >= 1 (each normalised inside for LK_COSINE): hits [k], *count.
 * Exact, by the scores that lk_flat_search gives up to rounding. */
LK_API lk_status lk_flat_search_several(const lk_flat *index, lk_context *context, size_t m, const float *vectors,
                                        lk_fusion fusion, size_t k, lk_id_filter filter, void *filter_user,
                                        lk_hit *hits, size_t *count);

/* Results that are not all of one kind. Zero in both: as they come. */
typedef struct lk_diversity {
    float apart; /* a result nearer than this to a better one is left out: by squared distance, for LK_COSINE by
                    1 - cosine */
    float trade; /* 0..1: maximal marginal relevance (Carbonell & Goldstein, 1998): next comes the result with the
                    greatest (1 - trade) score + trade * -(its greatest score with a chosen one), scores of LK_L2
                    being minus the squared distance */
} lk_diversity;
/* Chooses up to k of n hits, best first, with their vectors [n][dim] (for LK_COSINE normalised): numbers of those
 * chosen [k], *count. LK_INVALID when a number in `how` is negative or not finite, or trade above 1; LK_NO_MEMORY. */
LK_API lk_status lk_diversify(lk_metric metric, size_t dim, lk_diversity how, size_t n, const lk_hit *hits,
                              const float *vectors, size_t k, size_t *chosen, size_t *count);
/* As lk_flat_search, diversified: more than k are found, and looked at as they are stored, until k remain. trade
 * chooses among the 4 k + 16 best. */
LK_API lk_status lk_flat_search_diverse(const lk_flat *index, lk_context *context, lk_diversity how, size_t n,
                                        const float *queries, size_t k, lk_id_filter filter, void *filter_user,
                                        lk_hit *hits, size_t *counts);

/* Copies the stored vector of an id, decoded, into out [dim]. LK_NOT_FOUND. */
LK_API lk_status lk_flat_vector(const lk_flat *index, uint64_t id, float *out);

/* All scores: for each of n queries the score of every live vector, in the order of rows (see lk_flat_ids):
 * scores [n][lk_flat_count], those of lk_flat_search, and the worst possible infinity where that would never find the
 * vector. The evaluation uses it, because it needs the rank of every relevant picture. */
LK_API lk_status lk_flat_scores(const lk_flat *index, lk_context *context, size_t n, const float *queries,
                                float *scores);
/* Ids in the order of lk_flat_scores: out [lk_flat_count]. */
LK_API void lk_flat_ids(const lk_flat *index, uint64_t *out);

/* Graph index -------------------------------------------------------------------------------------------------------
 * Approximate search in memory: a graph of near vertices over 8-bit codes (see src/index/graph.h for the sources). It
 * copies what it keeps. Any number of threads may search; one at a time may change, and searches go on meanwhile. */
typedef struct lk_graph_index lk_graph_index;

/* Zero stands for the default in brackets. */
typedef struct lk_graph_index_options {
    size_t degree; /* [32] most links of a vertex, at most 256: memory 4 bytes each, and time per step of a search;
                      more links need fewer steps */
    size_t build_effort; /* [128] candidates that a vertex's links are chosen among: building takes time in proportion,
                            recall at the same speed gains up to about 200 */
    float spread;  /* [1.2] how much nearer a link must be to another link than to its vertex to be left out (ratio
                      of squared distances), 1 .. 4: more keeps longer links */
    int refine;    /* [0] 1: keep a second byte per component, so that results are ranked as precisely as by 16 bits;
                      -1: never; 0: where one byte is not exact */
    uint64_t seed; /* of the order of insertion and of the rotation */
} lk_graph_index_options;

/* Builds an index of n >= 1 vectors [n][dim]; ids [n], NULL = 0 .. n-1, each once. options NULL = all defaults. The
 * result does not depend on the number of threads. LK_INVALID when a component is not finite, dim is 0 or above 16384,
 * or an option is out of range; LK_CONFLICT when an id repeats; LK_LIMIT beyond 2^31 vectors; LK_NO_MEMORY;
 * LK_CANCELLED. */
LK_API lk_status lk_graph_index_build(lk_context *context, const lk_graph_index_options *options, lk_metric metric,
                                      size_t dim, size_t n, const uint64_t *ids, const float *vectors,
                                      lk_graph_index **out);
LK_API void lk_graph_index_free(lk_graph_index *graph);

/* The k best of each of n queries [n][dim], as lk_flat_search gives them, but approximately: scores are those of the
 * stored codes, and some of the k may be missed. effort >= 1 is the length of the beam, raised to k at least: time
 * grows in proportion, recall with it. context NULL = on the calling thread alone. filter NULL = all. LK_INVALID when k
 * is 0 or a query is not finite; LK_NO_MEMORY; LK_CANCELLED. Of many queries each is answered from one state of the
 * graph; writers get in between them, also in the searches below but lk_graph_index_search_filtered. */
LK_API lk_status lk_graph_index_search(const lk_graph_index *graph, lk_context *context, size_t effort, size_t n,
                                       const float *queries, size_t k, lk_id_filter filter, void *filter_user,
                                       lk_hit *hits, size_t *counts);

LK_API size_t lk_graph_index_count(const lk_graph_index *graph); /* live vectors */
LK_API size_t lk_graph_index_dim(const lk_graph_index *graph);
LK_API lk_metric lk_graph_index_metric(const lk_graph_index *graph);
/* Bytes that the index holds, all of it (for an opened one: of the file that searching may touch). */
LK_API uint64_t lk_graph_index_bytes(const lk_graph_index *graph);

/* Which vectors may be found, worked out once for any number of searches: about n/8 bytes. It is good until the graph
 * changes, then searches with it fail with LK_CONFLICT. */
typedef struct lk_graph_index_filter lk_graph_index_filter;
/* Asks fn about every live vector. */
LK_API lk_status lk_graph_index_filter_new(const lk_graph_index *graph, lk_context *context, lk_id_filter fn,
                                           void *user, lk_graph_index_filter **out);
/* The vectors of these ids [n]; ids that are not there are passed over. */
LK_API lk_status lk_graph_index_filter_ids(const lk_graph_index *graph, size_t n, const uint64_t *ids,
                                           lk_graph_index_filter **out);
LK_API size_t lk_graph_index_filter_count(const lk_graph_index_filter *filter);
LK_API void lk_graph_index_filter_free(lk_graph_index_filter *filter);
/* lk_graph_index_search among the vectors that pass. Recall stays as without a filter, whatever share passes: few are
 * compared one by one, among more the walk steps over those that do not pass. (lk_graph_index_search with a function
 * makes such a filter for the one call when less than a quarter of a sample passes.) */
LK_API lk_status lk_graph_index_search_filtered(const lk_graph_index *graph, lk_context *context, size_t effort,
                                                size_t n, const float *queries, size_t k,
                                                const lk_graph_index_filter *filter, lk_hit *hits, size_t *counts);

/* As lk_flat_range, lk_flat_search_several and lk_flat_search_diverse, approximate as a search is; effort as there. */
LK_API lk_status lk_graph_index_range(const lk_graph_index *graph, lk_context *context, size_t effort, size_t n,
                                      const float *queries, float bound, size_t most, lk_id_filter filter,
                                      void *filter_user, lk_hit *hits, size_t *counts);
LK_API lk_status lk_graph_index_search_several(const lk_graph_index *graph, lk_context *context, size_t effort,
                                               size_t m, const float *vectors, lk_fusion fusion, size_t k,
                                               lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *count);
LK_API lk_status lk_graph_index_search_diverse(const lk_graph_index *graph, lk_context *context, size_t effort,
                                               lk_diversity how, size_t n, const float *queries, size_t k,
                                               lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts);

/* The least effort at which searches for k results find the share `recall` (0..1) of them, measured on n queries
 * [n][dim]; queries NULL: on up to n of the index's own vectors, each hidden while it is searched for. Queries that are
 * unlike the collection need more than its own vectors say. Truth is found by looking at everything: n times the time
 * of an exact search. LK_LIMIT when no effort up to 4096 reaches it: *effort is then 4096. */
LK_API lk_status lk_graph_index_tune(const lk_graph_index *graph, lk_context *context, size_t n, const float *queries,
                                     size_t k, double recall, size_t *effort);

/* Adds n vectors. LK_CONFLICT when an id is there already, and then none is added; LK_INVALID as for building; after
 * LK_CANCELLED or LK_NO_MEMORY some may have been added. Searches go on meanwhile and find each once its batch is
 * linked. */
LK_API lk_status lk_graph_index_add(lk_graph_index *graph, lk_context *context, size_t n, const uint64_t *ids,
                                    const float *vectors);
/* Takes a vector out: no search that begins afterwards finds it. LK_NOT_FOUND. */
LK_API lk_status lk_graph_index_remove(lk_graph_index *graph, uint64_t id);
/* Adds vectors, in place of those of the same ids where there are such; ids each once. */
LK_API lk_status lk_graph_index_update(lk_graph_index *graph, lk_context *context, size_t n, const uint64_t *ids,
                                       const float *vectors);
/* Relinks what was linked to removed vectors and frees their places. Adding does it by itself when an eighth is
 * removed; a program may do it in the background, searches go on meanwhile. */
LK_API lk_status lk_graph_index_consolidate(lk_graph_index *graph, lk_context *context);

/* Writes the index as one file, replacing path atomically. */
LK_API lk_status lk_graph_index_save(const lk_graph_index *graph, const char *path);

/* LK_GRAPH_VERIFY reads the whole file and compares all checksums; without it only the header's is, and damaged tables
 * give wrong answers, though never a crash as long as the file stays as long as it is. LK_GRAPH_CHANGE verifies as well
 * and copies the index into memory, so that it can be changed; without it changes are refused with LK_UNSUPPORTED.
 * LK_GRAPH_COPY copies the index as it is, into large pages where the system has them, which a process that stays may
 * prefer: from a million vectors on searches are up to a quarter faster, but nothing is shared. */
enum { LK_GRAPH_VERIFY = 1, LK_GRAPH_CHANGE = 2, LK_GRAPH_COPY = 4 };
/* Opens a saved index by mapping it: any number of processes share one copy, and only what searches touch is read. The
 * file stays open too (one descriptor), for the first searches.
 * LK_CORRUPT, LK_UNSUPPORTED (a newer format, another byte order), LK_NOT_FOUND, LK_IO. */
LK_API lk_status lk_graph_index_open(const char *path, int flags, lk_graph_index **out);

#ifdef __cplusplus
}
#endif
#endif
