/* The two pipelines that join everything: pictures into a collection, and a query to ranked pictures. */
#ifndef LIKENESS_ENGINE_H
#define LIKENESS_ENGINE_H

#include <likeness/collection.h>
#include <likeness/context.h>
#include <likeness/embed.h>
#include <likeness/eval.h>
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
/* A folder (walked recursively; files whose name ends in a picture's extension; hidden ones left out; label = NULL),
 * one file, or a glob pattern. LK_NOT_FOUND when it names nothing. */
LK_API lk_status lk_sources_add(lk_source_list *list, const char *path_or_pattern);
/* A CSV (RFC 4180) whose header has a `path` column, relative to the CSV's folder; every other column becomes a member
 * of the labels. LK_CORRUPT with the line number. */
LK_API lk_status lk_sources_add_csv(lk_source_list *list, const char *csv_path);
/* One path. */
LK_API lk_status lk_sources_add_path(lk_source_list *list, const char *path, const char *labels);
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
 * used is recorded as skipped with its reason and logged at LK_LOG_WARN; it does not stop the run. */
LK_API lk_status lk_ingest(lk_context *context, lk_collection *collection, const lk_embedder *embedder,
                           lk_source_list *sources, const lk_ingest_options *options, lk_ingest_report *report);

/* Embeds the sources in order into out [count][dim]; ok [count] (may be NULL) says which rows are valid, the others are
 * zero. */
LK_API lk_status lk_embed_sources(lk_context *context, const lk_embedder *embedder, const lk_source *sources,
                                  size_t count, float *out, uint8_t *ok);

/* ---- searching ---- */

typedef struct lk_result {
    int64_t id;
    char *path;
    char *label;  /* NULL when it has none */
    char *labels; /* JSON object */
    uint32_t width, height;
    float score;
} lk_result;

typedef struct lk_results {
    lk_result *items; /* [count], best first */
    size_t count;
    lk_metric metric; /* says what the score is */
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
    size_t k;           /* 0 = 10 */
    int64_t exclude_id; /* leave this picture out (the query itself); 0 = none */
} lk_search_options;

LK_API lk_status lk_search_vector(lk_searcher *searcher, const float *vector, const lk_search_options *options,
                                  lk_results *out);
LK_API lk_status lk_search_image(lk_searcher *searcher, const lk_image *image, const lk_search_options *options,
                                 lk_results *out);
/* A text as the query: collections of a model that has both (lk_embedder_has_text). LK_UNSUPPORTED else. */
LK_API lk_status lk_search_text(lk_searcher *searcher, const char *text, const lk_search_options *options,
                                lk_results *out);
/* A picture of the collection as the query. It is left out of the results. */
LK_API lk_status lk_search_id(lk_searcher *searcher, int64_t id, const lk_search_options *options, lk_results *out);
/* The record of one picture. Free with lk_record_free. */
LK_API lk_status lk_searcher_record(lk_searcher *searcher, int64_t id, lk_record *out);
/* The same by its absolute path. */
LK_API lk_status lk_searcher_find(lk_searcher *searcher, const char *path, lk_record *out);
/* Up to n pictures with id > after, in order of id (a page of the collection). */
LK_API lk_status lk_searcher_page(lk_searcher *searcher, int64_t after, size_t n, lk_results *out);

/* ---- evaluating ---- */

typedef struct lk_evaluate_options {
    const char *truth_csv;    /* `query,relevant` pairs; NULL = pictures with an equal "label" are relevant */
    const char *query_column; /* with query_value: only pictures whose labels have this value are queries; NULL = all */
    const char *query_value;
    const uint32_t *ks; /* cut-offs; NULL = 1, 5, 10, 100 */
    size_t n_ks;
} lk_evaluate_options;

typedef struct lk_evaluation {
    lk_query_metrics mean;
    uint32_t ks[LK_EVAL_MAX_KS];
    size_t n_ks;
    uint64_t queries, queries_without, gallery;
    double seconds;
} lk_evaluation;

/* Full-library protocol: every query picture ranks all other pictures of the collection, itself never among them. */
LK_API lk_status lk_evaluate(lk_context *context, lk_searcher *searcher, const lk_evaluate_options *options,
                             lk_evaluation *out);

#ifdef __cplusplus
}
#endif
#endif
