/* One face for every kind of vector index, so that a benchmark, a tuner or a program can drive flat, graph and
 * partitioned alike. Each kind fills one lk_ann_type; the functions forward to its own API, which can do more.
 *
 * Effort is the one knob of a search: a whole number, larger = more recall and less speed (graph: length of the beam;
 * partitioned: partitions visited; flat: ignored). efforts() gives a sensible sweep. */
#ifndef LK_INDEX_ANN_H
#define LK_INDEX_ANN_H

#include <likeness/index.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lk_ann_input {
    size_t n, dim;
    lk_metric metric;
    const float *vectors; /* [n][dim], borrowed during the call only: an index copies what it keeps */
    const uint64_t *ids;  /* [n]; NULL = 0 .. n-1 */
    size_t memory_limit;  /* bytes the finished index may hold; 0 = as fast as it can. LK_LIMIT when that cannot be */
    uint64_t seed;        /* same input, seed and threads = same index */
} lk_ann_input;

typedef struct lk_ann_size {
    size_t dim;        /* of its vectors */
    uint64_t vectors;  /* that it was built of */
    uint64_t resident; /* bytes that searching keeps in memory, all of the index included */
    uint64_t disk;     /* bytes of its file, once it is saved or opened; else what the file would have, or 0 */
} lk_ann_size;

enum { LK_ANN_MAX_EFFORTS = 32 };

typedef struct lk_ann_type {
    const char *name; /* "flat", "graph", "partitioned" */

    /* All threads of the context (NULL = the calling one). *out is freed by free(). */
    lk_status (*build)(lk_context *context, const lk_ann_input *input, void **out);
    void (*free)(void *index);

    /* The k best of each of n queries [n][dim], best first, as lk_flat_search: hits [n][k], counts [n]. context NULL =
     * on the calling thread alone (what "one thread, one query at a time" means: n = 1, context NULL); then it may be
     * called from several threads at once. filter NULL = all. Scores have the sign and scale of lk_flat_search's. */
    lk_status (*search)(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                        size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts);

    /* All whose score is `bound` or better, best first, at most `most` for each query: as lk_flat_range. */
    lk_status (*range)(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                       float bound, size_t most, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts);

    /* Rising efforts worth measuring for k results: out [LK_ANN_MAX_EFFORTS]; returns how many (at least 1). */
    size_t (*efforts)(const void *index, size_t k, unsigned *out);

    void (*size)(const void *index, lk_ann_size *out);

    /* One file; open maps it and searches in place. NULL where the kind has no file of its own. */
    lk_status (*save)(const void *index, const char *path);
    lk_status (*open)(const char *path, void **out);
    /* Reads all of such a file and compares every checksum: LK_CORRUPT. NULL as save. */
    lk_status (*verify)(const char *path);

    /* A few words for `info` and the benchmark's report ("degree 32, int8, neighbour codes"): text [size]. */
    void (*describe)(const void *index, char *text, size_t size);
} lk_ann_type;

/* Kinds by name; NULL when there is none of that name. Each kind's own file defines its table. */
const lk_ann_type *lk_ann_type_named(const char *name);

extern const lk_ann_type lk_ann_graph; /* graph_ann.c */

#endif
