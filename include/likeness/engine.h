/* The two pipelines that join everything: pictures into a collection, and a query to ranked pictures. */
#ifndef LIKENESS_ENGINE_H
#define LIKENESS_ENGINE_H

#include <likeness/collection.h>
#include <likeness/context.h>
#include <likeness/embed.h>
#include <likeness/eval.h>
#include <likeness/partitioned.h>
#include <likeness/rank.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One picture to ingest. */
typedef struct lk_source {
    const char *path;   /* absolute, as lk_sources_add* make it */
    const char *labels; /* JSON object, or NULL: keep what the catalog has */
} lk_source;

/* A list of pictures gathered from folders, globs, CSV files and plain lists. What is handed out is sorted by path and
 * has no repeats: of two entries with one path the one with labels, else the later, counts. */
typedef struct lk_source_list lk_source_list;
LK_API lk_status lk_sources_new(lk_source_list **out);
LK_API void lk_sources_free(lk_source_list *list);
/* A folder (walked recursively; files whose name ends in a picture's extension, or that have none and begin as a
 * picture does; hidden ones left out; label = NULL), one file, or a glob pattern. LK_NOT_FOUND when it names nothing.
 */
LK_API lk_status lk_sources_add(lk_source_list *list, const char *path_or_pattern);
/* A CSV (RFC 4180) whose header has a `path` column, relative to the CSV's folder; every other column becomes a member
 * of the labels. LK_CORRUPT with the line number. */
LK_API lk_status lk_sources_add_csv(lk_source_list *list, const char *csv_path);
/* One path. */
LK_API lk_status lk_sources_add_path(lk_source_list *list, const char *path, const char *labels);
/* Gives every source without labels the name of the folder that it lies in as its "label": classes as most data sets
 * keep them. */
LK_API lk_status lk_sources_label_by_folder(lk_source_list *list);
LK_API size_t lk_sources_count(lk_source_list *list);
/* Borrowed until the next addition. */
LK_API const lk_source *lk_sources_at(lk_source_list *list, size_t index);

typedef struct lk_ingest_options {
    size_t commit_every;            /* pictures per acknowledged batch; 0 = 256 */
    bool retry_skipped;             /* try again the files that were skipped before, changed or not */
    uint64_t max_bytes, max_pixels; /* limits per picture; 0 = those of lk_image_default_options */
} lk_ingest_options;

typedef struct lk_ingest_report {
    uint64_t added, updated, unchanged, moved, skipped;
    uint64_t skipped_before; /* skipped by an earlier run, unchanged, not tried again (counted in `skipped` too) */
    double decode_seconds, embed_seconds; /* summed over threads */
    double wall_seconds;
} lk_ingest_report;

/* Decodes, embeds and stores every source that is new or changed (by size and mtime, then by content). Ordered, bounded
 * in memory, interruptible: what was committed stays, and the same call goes on from there. A picture that cannot be
 * used is recorded as skipped with its reason and logged at LK_LOG_WARN; it does not stop the run.
 * A file whose name is not UTF-8, or a folder that may not be read, is logged and counted, but not recorded.
 * LK_UNSUPPORTED when a library that decodes or embeds is missing: then no picture is recorded. */
LK_API lk_status lk_ingest(lk_context *context, lk_collection *collection, const lk_embedder *embedder,
                           lk_source_list *sources, const lk_ingest_options *options, lk_ingest_report *report);

/* Embeds the sources in order into out [count][dim]; ok [count] (may be NULL) says which rows are valid, the others are
 * zero. LK_UNSUPPORTED as above. */
LK_API lk_status lk_embed_sources(lk_context *context, const lk_embedder *embedder, const lk_source *sources,
                                  size_t count, float *out, uint8_t *ok);

/* ---- searching ---- */

typedef struct lk_result {
    int64_t id;
    char *path;
    char *label;  /* NULL when it has none */
    char *labels; /* JSON object */
    uint32_t width, height;
    float score;    /* by the metric, whatever the order */
    float reranked; /* the re-ranker's own number; NAN where it did not look (beyond its shortlist) */
} lk_result;

/* How the first results are put into a better order; docs/ranking.md says when which helps. */
typedef enum lk_rerank {
    LK_RERANK_NONE = 0,
    LK_RERANK_KRECIPROCAL, /* lk_kreciprocal_rerank; distance, lower is better */
    LK_RERANK_DIFFUSION,   /* lk_diffusion_rerank; higher is better */
    LK_RERANK_SUPERGLOBAL, /* lk_superglobal_rerank; higher is better */
    LK_RERANK_GEOMETRIC    /* local features that agree on one affine map; the cosine and 0.02 for each, higher is
                              better */
} lk_rerank;

typedef struct lk_results {
    lk_result *items; /* [count], best first */
    size_t count;
    lk_metric metric; /* says what the score is */
    lk_rerank rerank; /* says what `reranked` is */
} lk_results;
LK_API void lk_results_free(lk_results *results);

/* A collection opened for searching: its embedder, a snapshot, and the catalog. Several threads may search one at once.
 */
typedef struct lk_searcher lk_searcher;
LK_API lk_status lk_searcher_open(lk_context *context, const char *collection_path, lk_searcher **out);
LK_API void lk_searcher_free(lk_searcher *searcher);
/* Takes up what was committed since. Cheap when nothing was. Safe beside running searches. */
LK_API lk_status lk_searcher_refresh(lk_searcher *searcher);
LK_API const lk_embedder *lk_searcher_embedder(const lk_searcher *searcher);
LK_API lk_collection_config lk_searcher_config(const lk_searcher *searcher);
LK_API size_t lk_searcher_count(lk_searcher *searcher); /* pictures that can be found */

typedef struct lk_search_options {
    size_t k;             /* 0 = 10 */
    int64_t exclude_id;   /* leave this picture out (the query itself); 0 = none */
    bool exact;           /* read every vector, though the collection has an approximate index */
    const char *where;    /* only pictures that satisfy this predicate (lk_collection_select); NULL = all */
    double where_seconds; /* how long working out which these are may take, then LK_LIMIT; 0 = as long as it takes */
    bool range;           /* all results whose score is `bound` or better, but at most k */
    float bound;
    lk_diversity diverse; /* of results: near-identical ones left out, marginal relevance (not with re-ranking) */
    size_t diverse_among; /* how many of the nearest `diverse` chooses from at most, never fewer than k or a shortlist;
                             there are fewer than k results when these are too much alike. 0 = any number, all of the
                             collection if it takes that */
    lk_fusion fuse; /* of several queries: LK_FUSE_MEAN (their mean is searched for) or LK_FUSE_BEST (each is, and a
                       picture has the best of its scores; without feedback, expansion and re-ranking) */
    /* Everything below wants a collection of cosine vectors (LK_UNSUPPORTED), except LK_RERANK_GEOMETRIC. */
    lk_expansion expand;     /* search again with the query joined by its nearest */
    size_t expand_k;         /* how many of them; 0 = 2 */
    float expand_alpha;      /* 0 = 10; the average is LK_EXPAND_AVERAGE */
    const int64_t *yes, *no; /* pictures that the user called right and wrong: Rocchio's feedback, lk_rocchio_defaults.
                                The wrong ones are left out of the results. */
    size_t n_yes, n_no;
    lk_rerank rerank;
    lk_kreciprocal_options kreciprocal; /* k1 0 = 12, 2, 0.8; the paper's are lk_kreciprocal_defaults */
    lk_diffusion_options diffusion;     /* k 0 = 20, alpha 0.2, the rest lk_diffusion_defaults */
    lk_superglobal_options superglobal; /* k 0 = lk_superglobal_defaults */
    uint32_t geometric_least;           /* fewer features that agree count as none; 0 = 4 */
    float geometric_weight; /* of each feature that agrees, added to the cosine; 0 = 0.02. Other metrics: their number
                               alone decides */
    size_t shortlist; /* how many of the first are re-ranked; 0 = 200, for LK_RERANK_GEOMETRIC 100. At most 10000. */
} lk_search_options;

/* Sets the kind, and its parameters, from what the program and the HTTP API take: none, kreciprocal[:K1[:K2[:LAMBDA]]],
 * diffusion[:K[:KQ[:GAMMA[:ALPHA]]]], superglobal[:K[:BETA]], geometric[:LEAST[:WEIGHT]]; none, aqe[:N], rank[:N],
 * alpha[:N[:ALPHA]]. LK_INVALID says what is wanted. */
LK_API lk_status lk_rerank_parse(const char *text, lk_search_options *out);
LK_API lk_status lk_expansion_parse(const char *text, lk_search_options *out);
/* The same for range and bound, from a distance (1 - cosine, or L2 as it is; of inner products there is none:
 * LK_UNSUPPORTED); for fuse, from mean or best; for diverse: the distance that results are apart, and the share that
 * this counts. Messages begin with `option`, the caller's name for it. */
LK_API lk_status lk_within_parse(const char *option, const char *text, lk_metric metric, lk_search_options *out);
LK_API lk_status lk_fuse_parse(const char *option, const char *text, lk_search_options *out);
LK_API lk_status lk_apart_parse(const char *option, const char *text, lk_search_options *out);
LK_API lk_status lk_trade_parse(const char *option, const char *text, lk_search_options *out);
LK_API const char *lk_rerank_name(lk_rerank rerank);

/* What is looked for: at least one picture. Several are fused into one query (lk_fuse_queries). */
typedef struct lk_query {
    const lk_image *images; /* [n_images], decoded by lk_embedder_image_options */
    size_t n_images;
    const lk_image *details; /* [n_images] the same pictures for LK_RERANK_GEOMETRIC, which sees more in them: decoded
                                by lk_query_image_load without a searcher; NULL = images are taken */
    const int64_t *ids;      /* [n_ids]: pictures of the collection; they are left out of the results */
    size_t n_ids;
    const float *vectors; /* [n_vectors][dim] */
    size_t n_vectors;
} lk_query;

/* Decodes a picture as the embedder of the searcher wants it, cut to the rectangle crop {left, top, width, height} of
 * the upright full picture if crop is not NULL. limits (may be NULL): max_bytes and max_pixels are taken from it.
 * searcher NULL: as geometric re-ranking wants it. */
LK_API lk_status lk_query_image_load(lk_searcher *searcher, const char *path, const uint32_t crop[4],
                                     const lk_image_options *limits, lk_image *out);
/* The same in two steps, of which the second needs no searcher: what a process that only decodes is told. */
LK_API lk_image_options lk_query_image_options(const lk_searcher *searcher, const lk_image_options *limits);
LK_API lk_status lk_query_image_file(const char *path, const uint32_t crop[4], const lk_image_options *options,
                                     lk_image *out);
LK_API lk_status lk_query_image_memory(lk_searcher *searcher, const void *bytes, size_t size, const char *name,
                                       const uint32_t crop[4], const lk_image_options *limits, lk_image *out);

/* Embeds, fuses, takes up feedback, expands, searches, re-ranks: what of it is asked for, in this order. */
LK_API lk_status lk_search(lk_searcher *searcher, const lk_query *query, const lk_search_options *options,
                           lk_results *out);
LK_API lk_status lk_search_vector(lk_searcher *searcher, const float *vector, const lk_search_options *options,
                                  lk_results *out);
LK_API lk_status lk_search_image(lk_searcher *searcher, const lk_image *image, const lk_search_options *options,
                                 lk_results *out);
/* A text as the query: collections of a model that has both (lk_embedder_has_text). LK_UNSUPPORTED else. */
LK_API lk_status lk_search_text(lk_searcher *searcher, const char *text, const lk_search_options *options,
                                lk_results *out);
/* A picture of the collection as the query. It is left out of the results. */
LK_API lk_status lk_search_id(lk_searcher *searcher, int64_t id, const lk_search_options *options, lk_results *out);

/* Finds the k nearest of every picture and keeps them in the collection, for LK_RERANK_KRECIPROCAL and
 * LK_RERANK_DIFFUSION. Without, or after the collection has changed, these two take the shortlist for the whole
 * collection: a little worse, and as fast. Exact: time grows with the square of the collection. k 0 = 50. LK_INVALID
 * (empty collection), LK_UNSUPPORTED (not cosine), LK_NO_MEMORY, LK_IO, LK_CANCELLED. */
LK_API lk_status lk_searcher_build_neighbours(lk_searcher *searcher, size_t k);
/* Whether there is a table for the collection as it is now. */
LK_API bool lk_searcher_has_neighbours(lk_searcher *searcher);

/* Computes the local features that LK_RERANK_GEOMETRIC compares of every picture and keeps them in the collection,
 * those that are there already and of pictures that have not changed excepted. What is not kept is computed when a
 * search meets it, and kept then: so this only saves the first searches the time. limit: bytes that are kept from now
 * on, the oldest go beyond it; 0 = as before, at first 1 GiB. Nothing that is kept is dropped for what is computed
 * here: it ends where the limit is reached, and logs how many pictures are left and what would hold all. *pictures says
 * how many are kept. LK_IO (read-only folder, full disk), LK_UNSUPPORTED (features of a newer version), LK_NO_MEMORY,
 * LK_CANCELLED. */
LK_API lk_status lk_searcher_build_local_features(lk_searcher *searcher, uint64_t limit, uint64_t *pictures);

/* Writes a copy of a collection whose vectors are augmented by their k nearest (lk_augment): a collection of its own,
 * with the same model, labels and pictures; ids are new. Pictures added to it later are not augmented. LK_CONFLICT when
 * something is at `into` already; LK_UNSUPPORTED (not cosine). Nothing is left when it fails. */
LK_API lk_status lk_augment_collection(lk_searcher *searcher, lk_expansion kind, float alpha, size_t k,
                                       const char *into);

/* ---- duplicates ---- */

typedef struct lk_duplicates {
    lk_results *groups; /* [count], each of two pictures or more, the largest first: the one with the smallest id, then
                           the others by their score with it */
    size_t count;
    size_t pictures; /* in all groups */
} lk_duplicates;
/* Groups of pictures that are nearly the same: any two within a distance (1 - cosine; squared for LK_L2) of each other
 * are of one group, and so are those that a chain of such pairs connects. Through the approximate index where there is
 * one, which may miss a few pairs, unless exact: then time grows with the square of the collection. where: only
 * pictures that satisfy it (lk_collection_select); NULL = all. LK_INVALID, LK_UNSUPPORTED (inner products),
 * LK_NO_MEMORY (all vectors are in memory as f32 meanwhile), LK_CANCELLED. */
LK_API lk_status lk_find_duplicates(lk_searcher *searcher, float within, bool exact, const char *where,
                                    lk_duplicates *out);
LK_API void lk_duplicates_free(lk_duplicates *duplicates);

/* ---- out and in ---- */

/* Writes what the catalog knows of every picture that can be found as a CSV (id, path, size, mtime_ns, hash, width,
 * height, labels as JSON) in order of id, and hands their vectors to rows [n][dim] in the same order, once. The file
 * appears when rows has returned LK_OK. LK_CONFLICT when pictures are removed meanwhile; LK_NO_MEMORY; LK_IO; what rows
 * returns. */
typedef lk_status (*lk_vectors_fn)(void *user, size_t n, size_t dim, const float *vectors);
LK_API lk_status lk_export_collection(lk_searcher *searcher, const char *csv, lk_vectors_fn rows, void *user);
/* Makes a new collection with the model of another: the pictures of a CSV as above, of whose columns only path must be
 * there, with one vector each, in its order. Ids are new. A picture whose size and mtime_ns are not given or not those
 * of its file is embedded anew by the next run of lk_ingest over it. LK_CONFLICT when something is at `path` already;
 * LK_INVALID with the line. Nothing is left when it fails. */
LK_API lk_status lk_import_collection(lk_searcher *like, const char *csv, const lk_rows *rows, const char *path);

/* ---- what two pictures share ---- */

typedef struct lk_picture_pair {
    lk_point a, b; /* in pixels of the pictures given */
    int inlier;    /* agrees with the transform */
} lk_picture_pair;

typedef struct lk_picture_match {
    lk_picture_pair *pairs; /* [count]: local features that look alike, outliers first */
    size_t count, inliers;
    size_t features_a, features_b;
    double transform[9]; /* from a to b, row by row; all zero when inliers is 0 */
} lk_picture_match;

/* SIFT features of both pictures (any channels), matched by Lowe's ratio and verified with an affine map or a
 * homography; the threshold is 2% of the longer side of b. LK_NO_MEMORY. */
LK_API lk_status lk_match_pictures(const lk_image *a, const lk_image *b, lk_transform_kind kind, lk_picture_match *out);
LK_API void lk_picture_match_free(lk_picture_match *match);
/* Both pictures side by side with a line for every pair: green for inliers, grey for the others. RGB; freed by the
 * caller. */
LK_API lk_status lk_draw_match(const lk_image *a, const lk_image *b, const lk_picture_match *match, lk_image *out);

/* The record of one picture. Free with lk_record_free. */
LK_API lk_status lk_searcher_record(lk_searcher *searcher, int64_t id, lk_record *out);
/* The same by its absolute path. */
LK_API lk_status lk_searcher_find(lk_searcher *searcher, const char *path, lk_record *out);
/* Up to n pictures with id > after, in order of id (a page of the collection). */
LK_API lk_status lk_searcher_page(lk_searcher *searcher, int64_t after, size_t n, lk_results *out);

/* ---- looking after a collection ---- */

/* lk_collection_verify, and that the model and the table of neighbours, if there is one, can be read whole. */
LK_API lk_status lk_verify(const char *path, lk_report_fn report, void *user, uint64_t *problems);
/* lk_collection_repair, and a damaged table of neighbours is dropped. */
LK_API lk_status lk_repair(const char *path, lk_report_fn report, void *user, uint64_t *repairs);

/* ---- evaluating ---- */

/* Reorders the results of one query before they are judged: hits [*count], best first, the query itself perhaps among
 * them, may be rewritten in place and *count lowered. id: of the query in the index, or UINT64_MAX; query [dim] as it
 * was searched for. Called from several threads. */
typedef lk_status (*lk_reorder_fn)(void *user, const lk_flat *index, uint64_t id, const float *query, lk_hit *hits,
                                   size_t *count);

typedef struct lk_evaluate_options {
    const char
        *truth_csv; /* `query,relevant` pairs, ids or paths, with the columns `grade` (> 0, default 1) and `difficulty`
                       (easy, hard, junk) if wanted; NULL = pictures with an equal "label" are relevant */
    const char *query_column; /* with query_value: only pictures whose labels have this value are queries; NULL = all */
    const char *query_value;
    const uint32_t *ks; /* cut-offs; NULL = 1, 5, 10, 100 */
    size_t n_ks;
    const char *gallery_column; /* with gallery_value: only pictures with this value can be found; NULL = all */
    const char *gallery_value;
    size_t depth;            /* rank only the best so many; what lies deeper counts as not found. 0 = rank all */
    const char *qrels;       /* truth in TREC's form, pictures by id; excludes truth_csv */
    const char *const *runs; /* [n_runs] TREC runs judged beside the own ranking, pictures by id */
    size_t n_runs;
    const char *write_run,
        *write_qrels; /* files to write: the ranking (the best 1000, or depth) and the truth; NULL = none */
    const char *csv;  /* file to write: every query's metrics; NULL = none */
    const char *html; /* folder to write the report to; NULL = none */
    const lk_search_options *search; /* for lk_evaluate: rank as searches with these options do (expansion, re-ranking,
                                        the approximate index), depth results each (0 = 1000). NULL = plain and exact */
    lk_reorder_fn reorder;           /* re-ranking to judge; wants a depth. NULL = none */
    void *reorder_user;
    const char *name;   /* what the own ranking is called; NULL = "likeness" */
    double level;       /* of confidence intervals; 0 = 0.95 */
    uint32_t resamples; /* of the bootstrap and the randomisation test; 0 = 2000 */
    uint64_t seed;
} lk_evaluate_options;

typedef struct lk_evaluation {
    lk_judged *runs; /* [n_runs]: the own ranking if there is one, then the runs in their order */
    size_t n_runs;
    lk_comparison *comparisons; /* [n_runs - 1][columns]: each further run with the first */
    double level;
    double seconds;
} lk_evaluation;
LK_API void lk_evaluation_free(lk_evaluation *evaluation);

/* Full-library protocol: every query picture ranks all other pictures of the collection, itself never among them. */
LK_API lk_status lk_evaluate(lk_context *context, lk_searcher *searcher, const lk_evaluate_options *options,
                             lk_evaluation *out);

/* Vectors from files, of pictures or of anything else. */
typedef struct lk_vector_files {
    const char *vectors; /* .npy [N][D], float16, float32 or float64 */
    const char
        *labels; /* .npy [N] of integers, or a CSV of N rows with the column `label` and, if wanted, `id` (default: the
                    row, from 0), `path` (a picture for the report) and columns for query_column and gallery_column */
    const char *queries, *query_labels; /* the same for queries that are not in the gallery; NULL: each vector is a
                                           query among the others and never finds itself */
    lk_metric metric;
} lk_vector_files;
LK_API lk_status lk_evaluate_vectors(lk_context *context, const lk_vector_files *files,
                                     const lk_evaluate_options *options, lk_evaluation *out);

/* Runs of other systems alone: options->runs judged by options->qrels. */
LK_API lk_status lk_evaluate_runs(lk_context *context, const lk_evaluate_options *options, lk_evaluation *out);

#ifdef __cplusplus
}
#endif
#endif
