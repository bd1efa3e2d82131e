/* A collection: one directory that holds a catalog of pictures, their vectors and the embedder that made them.
 *
 * One writer at a time (a second is refused with LK_CONFLICT), any number of readers in any number of processes.
 * Changes are gathered in a batch and acknowledged by lk_collection_commit: a crash at any moment loses at most what
 * was not acknowledged. Readers see the last commit before they opened or refreshed. Format: docs/format.md. A handle
 * is for one thread at a time; snapshots and their indexes may be searched from many. */
#ifndef LIKENESS_COLLECTION_H
#define LIKENESS_COLLECTION_H

#include <likeness/context.h>
#include <likeness/index.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lk_collection lk_collection;

typedef struct lk_collection_config {
    size_t dim; /* of the vectors; fixed for life */
    lk_metric metric;
    lk_dtype dtype;            /* how vectors are stored */
    const char *embedder_id;   /* lk_embedder_id of what made the vectors */
    const char *embedder_name; /* for people */
    const char *model_dir; /* to lk_collection_create: a folder written by lk_embedder_save beside the collection; it is
                              moved in, so that a collection never exists without its model. NULL = vectors alone. */
} lk_collection_config;

typedef enum lk_picture_state {
    LK_PICTURE_INDEXED = 0, /* has a vector */
    LK_PICTURE_SKIPPED =
        1 /* could not be used; `error` says why; tried again only when the file changes or on request */
} lk_picture_state;

/* A row of the catalog. Strings are UTF-8 (paths: the bytes given, which must be valid UTF-8). */
typedef struct lk_record {
    int64_t id;             /* > 0; stable for the life of the collection, never reused. 0 when putting a new one. */
    const char *path;       /* as a program started in the same folder may open it: absolute, made so by the caller */
    uint64_t size;          /* bytes of the file */
    int64_t mtime_ns;       /* nanoseconds since 1970 */
    uint64_t hash[2];       /* XXH3-128 of the file's bytes: low, high */
    uint32_t width, height; /* upright pixels of the file */
    const char *labels; /* JSON object of columns, e.g. {"label":"coffee","year":2020,"tags":["a","b"]}; NULL = {} */
    const char *label;  /* the "label" member as text, or NULL: filled on reading, ignored on writing */
    lk_picture_state state;
    const char *error; /* NULL unless skipped */
} lk_record;

/* Creates the directory (its parent must exist) and opens it for writing. LK_CONFLICT when something is there already.
 */
LK_API lk_status lk_collection_create(const char *path, const lk_collection_config *config, lk_collection **out);

typedef enum lk_access { LK_READ, LK_WRITE } lk_access;

/* Opens a collection. As a writer it takes the lock and discards what a killed writer left unacknowledged.
 * LK_NOT_FOUND, LK_CONFLICT (another writer; the message names its process), LK_CORRUPT, LK_UNSUPPORTED (newer format).
 */
LK_API lk_status lk_collection_open(const char *path, lk_access access, lk_collection **out);
/* Drops what was not committed. NULL is allowed. */
LK_API void lk_collection_close(lk_collection *collection);

LK_API lk_collection_config lk_collection_config_of(const lk_collection *collection); /* strings owned by it */
LK_API const char *lk_collection_path(const lk_collection *collection);
/* Directory in which the embedder of the collection lives. */
LK_API const char *lk_collection_model_dir(const lk_collection *collection);

/* Puts a picture: a new one (record->id 0 and path unknown), or the new version of the one with this path or id; the id
 * is kept. vector [dim] f32 for LK_PICTURE_INDEXED (normalised inside for LK_COSINE), NULL for LK_PICTURE_SKIPPED.
 * Visible to readers after the commit. *id (may be NULL) receives the id. LK_INVALID (not finite, bad JSON, or JSON
 * nested more than SQLite reads: 1000 or 2000 levels), LK_IO. */
LK_API lk_status lk_collection_put(lk_collection *collection, const lk_record *record, const float *vector,
                                   int64_t *id);
/* Changes the labels alone, or the path/size/mtime alone (a file that moved or was touched): the vector stays. */
LK_API lk_status lk_collection_update(lk_collection *collection, const lk_record *record);
LK_API lk_status lk_collection_remove(lk_collection *collection, int64_t id);
/* Makes everything put or removed since the last commit durable (fsync) and visible, all or nothing. */
LK_API lk_status lk_collection_commit(lk_collection *collection);
/* Forgets everything put or removed since the last commit. */
LK_API lk_status lk_collection_rollback(lk_collection *collection);

/* Looks up one picture, uncommitted changes of this writer included. The record's strings are freed by lk_record_free.
 * LK_NOT_FOUND leaves no message behind that anyone needs: it is an answer. */
LK_API lk_status lk_collection_find_id(lk_collection *collection, int64_t id, lk_record *out);
LK_API lk_status lk_collection_find_path(lk_collection *collection, const char *path, lk_record *out);
/* The indexed picture with these bytes whose id is the smallest above `after` (0 = of all). */
LK_API lk_status lk_collection_find_hash(lk_collection *collection, const uint64_t hash[2], int64_t after,
                                         lk_record *out);
LK_API void lk_record_free(lk_record *record);

/* Calls fn for every picture with an id above `after` (0 = all) in order of id; the record is borrowed for the call. A
 * status other than LK_OK from fn stops the walk and is returned. */
typedef lk_status (*lk_record_fn)(void *user, const lk_record *record);
LK_API lk_status lk_collection_each(lk_collection *collection, int64_t after, lk_record_fn fn, void *user);

typedef struct lk_collection_stats {
    uint64_t indexed, skipped; /* pictures by state */
    uint64_t dead_vectors;     /* rows of segments that nothing refers to any more (lk_collection_compact drops them) */
    uint64_t vector_bytes, catalog_bytes;
    uint64_t segments;
} lk_collection_stats;
LK_API lk_status lk_collection_stats_of(lk_collection *collection, lk_collection_stats *out);

/* A set of picture ids, as a filter of searches. */
typedef struct lk_id_set lk_id_set;
LK_API void lk_id_set_free(lk_id_set *set);
LK_API size_t lk_id_set_count(const lk_id_set *set);
/* An lk_id_filter whose `user` is the set. */
LK_API int lk_id_set_has(void *set, uint64_t id);

/* An exact index over the live vectors of the last commit, straight from the mapped segments (nothing is copied). It
 * stays valid after later commits and after lk_collection_close until lk_collection_snapshot_free. */
typedef struct lk_snapshot lk_snapshot;
LK_API lk_status lk_collection_snapshot(lk_collection *collection, lk_snapshot **out);
LK_API const lk_flat *lk_snapshot_index(const lk_snapshot *snapshot);
/* Equal for two snapshots of one collection when they hold the same vectors in the same rows: what is made of the
 * vectors remembers it. Labels, indexes and mere openings leave it as it is; compaction does not. */
LK_API uint64_t lk_snapshot_stamp(const lk_snapshot *snapshot);
LK_API void lk_snapshot_free(lk_snapshot *snapshot);

/* An approximate index of the collection's vectors, so that a search reads a small part of them. It is a file over the
 * vectors of one commit; pictures that come later are scanned beside it, removed ones left out. */
typedef struct lk_index_options {
    /* "flat" (none: every search is exact), "graph", "partitioned" or "auto": none while the vectors
     * as f32 are at most 32 MiB, else a graph, or partitions where a graph would not fit into memory_limit or would be
     * of more than two million vectors. NULL = what there is, "auto" where there is none. */
    const char *kind;
    double recall; /* share of the ten best that searches are to find, measured on queries of its own; 0 = 0.98 */
    uint64_t memory_limit; /* bytes that searching may keep in memory; 0 = no limit ("auto": a quarter of the
                              machine's memory) */
    bool always; /* build even where the present index is good enough: of the same kind, and not one row in five new or
                    dead since */
    uint64_t seed;
} lk_index_options;

/* Builds the index where that is worth it. Commits what was put. Searches go on with the old one until the new one is
 * complete; a crash leaves the old one. LK_LIMIT when the memory does not do; LK_NO_MEMORY (all vectors are in memory
 * as f32 meanwhile); LK_CANCELLED; LK_IO. options NULL = all defaults. */
LK_API lk_status lk_collection_build_index(lk_context *context, lk_collection *collection,
                                           const lk_index_options *options);

typedef struct lk_index_info {
    const char *kind;         /* "flat" when there is none; static */
    char description[128];    /* a few words; "" for flat */
    char why[128];            /* "auto" chose it; "" when somebody wanted this kind */
    uint64_t vectors;         /* that are in it */
    uint64_t bytes, resident; /* of its file; of that, what searching keeps in memory */
    unsigned effort;          /* of a search */
    double recall;            /* that the effort was measured to have */
} lk_index_info;
/* LK_CORRUPT when its file is damaged. */
LK_API lk_status lk_collection_index_info(lk_collection *collection, lk_index_info *out);

/* The k best of a snapshot for one query [dim], as lk_flat_search gives them, through the approximate index where there
 * is one: scores are exact, but some of the best may be missed. A filter that is an lk_id_set of few ids is scanned
 * exactly. exact: reads every vector. LK_INVALID, LK_NO_MEMORY, LK_CANCELLED. */
LK_API lk_status lk_snapshot_search(const lk_snapshot *snapshot, lk_context *context, bool exact, const float *query,
                                    size_t k, const lk_id_set *filter, lk_hit *hits, size_t *count);

/* All pictures whose score is `bound` or better (LK_L2: at most, else: at least), best first, but at most `most`: hits
 * [most]. Exact, or through the approximate index, which may miss some; scores are exact. LK_INVALID (bound is NaN),
 * LK_NO_MEMORY, LK_CANCELLED. */
LK_API lk_status lk_snapshot_range(const lk_snapshot *snapshot, lk_context *context, bool exact, const float *query,
                                   float bound, size_t most, const lk_id_set *filter, lk_hit *hits, size_t *count);

/* Whether searches go through an approximate index unless they are to be exact. */
LK_API bool lk_snapshot_is_approximate(const lk_snapshot *snapshot);

/* A number that changes with every commit of any process: cheap to ask, so that a server knows when to take a new
 * snapshot. */
LK_API lk_status lk_collection_version(lk_collection *collection, uint64_t *version);

/* Rewrites the segments without dead rows. Readers that hold a snapshot go on undisturbed. */
LK_API lk_status lk_collection_compact(lk_collection *collection);

/* The indexed pictures that satisfy a predicate over their labels, as of the last commit:
 *
 *     label in (coffee, tea) and year > 2020
 *     (tags = red or tags = "dark red") and not path like '%/drafts/%'
 *     split exists and width >= 256
 *
 * name = value, also != < <= > >=; name in (value, ...); name like pattern (% any characters, _ one; ASCII letters of
 * both cases are equal); name exists; and, or, not, brackets. A name is a label, or one of id, path, bytes, width,
 * height, label; in quotes it is always a label. Values are bare words or texts in quotes (a quote within is doubled).
 * Without quotes a number is compared as a number, also with labels that are texts; everything else as bytes. A label
 * that is a list satisfies a comparison when one of its members does; != is the opposite of =, so that a picture
 * without the label satisfies it. LK_INVALID names the place where the predicate makes no sense. */
LK_API lk_status lk_collection_select(lk_collection *collection, const char *predicate, lk_id_set **out);

/* Checks everything that can be checked: headers, sizes, checksums of every block, that each indexed picture has
 * exactly one live vector and each vector's id agrees with the catalog, that its tables of labels say what the labels
 * of the pictures do, SQLite's own integrity check. report is called once per problem with one sentence. *problems
 * counts them. Files outside the collection are not looked at. */
typedef void (*lk_report_fn)(void *user, const char *problem);
LK_API lk_status lk_collection_verify(lk_collection *collection, lk_report_fn report, void *user, uint64_t *problems);

/* Mends what can be mended without guessing, and calls report with a sentence for everything that it does; *repairs
 * counts them. Pictures whose vectors are lost keep their ids and labels and are embedded anew by the next lk_ingest
 * over them; what cannot be reached of a segment is cut off, vectors that belong to no picture are left out; a damaged
 * approximate index or store of local features is dropped, tables of labels that lie are made anew; leftovers of killed
 * writers go. What is sound stays as it is, except that vectors are written anew where a damaged block lies between
 * sound ones. LK_CORRUPT: the catalog or MANIFEST is damaged, and nothing was done; LK_CONFLICT (another writer; a file
 * that belongs elsewhere), LK_IO. */
LK_API lk_status lk_collection_repair(const char *path, lk_report_fn report, void *user, uint64_t *repairs);

#ifdef __cplusplus
}
#endif
#endif
