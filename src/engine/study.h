/* What is evaluated: a gallery in an index, queries, and the truth; from a collection or from arrays of vectors. */
#ifndef LK_ENGINE_STUDY_H
#define LK_ENGINE_STUDY_H

#include <likeness/engine.h>

#define STUDY_NO_LABEL UINT32_MAX

typedef enum truth_kind { TRUTH_PLAIN, TRUTH_EASY, TRUTH_HARD, TRUTH_JUNK } truth_kind;

/* One item of a query's truth. */
typedef struct truth_item {
    uint32_t row;
    float grade; /* > 0 unless junk */
    truth_kind kind;
} truth_item;

typedef struct study_query {
    size_t row;         /* in the index, or SIZE_MAX: a vector of its own, at `vector` */
    size_t vector;      /* in query_vectors */
    size_t first, last; /* its truth: items by row, itself perhaps among them */
    uint32_t label;
    char *name; /* as TREC files and CSVs call it */
    char *path; /* picture, or NULL */
} study_query;

typedef struct study {
    lk_context *context;
    const lk_evaluate_options *options;
    const lk_flat *index;
    uint64_t *ids; /* [rows], in the order of the index */
    size_t rows;
    uint32_t *row_of_id; /* [id_limit] row, UINT32_MAX = none; NULL when ids are too far apart for a table */
    uint64_t id_limit;
    struct study_place *places; /* [rows] by id, instead */

    char **names, **paths; /* [rows]; NULL: not known */
    uint32_t *labels;      /* [rows] into label_names, or STUDY_NO_LABEL */
    char **label_names;
    size_t label_count, label_capacity;
    uint8_t *asked;   /* [rows]: is a query (when queries are rows) */
    uint8_t *outside; /* [rows]: cannot be found; NULL when all can */
    size_t gallery;   /* rows that can be found */

    const float *query_vectors;
    study_query *queries; /* [query_count] those with something to find, in order */
    size_t query_count, query_capacity;
    uint64_t without;
    truth_item *truth;
    size_t truth_count, truth_capacity;
    bool by_label, graded, revisited;
} study;

typedef struct study_place {
    uint64_t id;
    size_t row;
} study_place;

/* Takes the rows of an index; everything else starts empty. */
lk_status study_begin(study *s, lk_context *context, const lk_evaluate_options *options, const lk_flat *index);
void study_end(study *s);
/* SIZE_MAX when the index has no such id. */
size_t study_row(const study *s, uint64_t id);
/* Numbers labels in byte order: texts [n] (NULL: no label) to out [n]. Called once. */
lk_status study_number_labels(study *s, const char *const *texts, size_t n, uint32_t *out);
/* Leaves a row out of the gallery. */
lk_status study_leave_out(study *s, size_t row);
/* Truth from equal labels: queries are the asked rows. */
lk_status study_truth_from_labels(study *s);
/* The same for queries that are vectors of their own: labels [n]; names, paths may be NULL. */
lk_status study_truth_for_vectors(study *s, size_t n, const uint32_t *labels, char *const *names, char *const *paths);
/* Finds rows by name and by path. */
typedef struct study_name {
    const char *text;
    size_t row;
} study_name;
typedef struct study_names {
    study_name *names, *paths; /* sorted by text */
    size_t name_count, path_count;
} study_names;
lk_status study_names_of(const study *s, study_names *out);
void study_names_free(study_names *names);
/* Rows by their name; SIZE_MAX when there is none. */
size_t study_find_name(const study_names *names, const char *name);
/* By name, else as a path below `folder`. */
size_t study_find(const study_names *names, const char *folder, const char *field);
/* Whether a row of labels (a JSON object) has this value in a column. */
bool study_column_equals(const char *labels, const char *column, const char *value);

/* Truth from a CSV of query,relevant[,grade][,difficulty]. */
lk_status study_truth_from_csv(study *s, const char *path);
/* One pair of the truth, both as rows. */
typedef struct study_pair {
    uint32_t query;
    truth_item item;
} study_pair;
/* Turns pairs into queries and their truth. A pair that is repeated counts once; it must not contradict itself
 * (LK_CORRUPT, naming `path`). Sorts pairs. */
lk_status study_take_pairs(study *s, study_pair *pairs, size_t count, const char *path);
/* Truth from qrels; items and queries by name. */
lk_status study_truth_from_qrels(study *s, const lk_trec *qrels);
/* The truth as qrels, junk left out. */
lk_status study_qrels(const study *s, lk_trec *out);

/* The truth of query q without itself and what is not in the gallery: items [returned], by row. Room for last - first.
 */
size_t study_relevant(const study *s, size_t q, truth_item *items);
/* Copies the vectors of queries [first, first + n) to out [n][dim]. */
lk_status study_query_vectors(const study *s, size_t first, size_t n, float *out);

/* ---- evaluate.c ---- */

/* Options with the defaults filled in; NULL = all of them. LK_INVALID for what cannot be. */
lk_status study_options(const lk_evaluate_options *given, lk_evaluate_options *out);
/* The truth that the options name. */
lk_status study_make_truth(study *s);
/* Judges a study whose truth is made, and the runs beside it, and writes what is wanted. */
lk_status study_evaluate(study *s, lk_evaluation *out);

/* ---- protocol.c ---- */

/* What the report wants besides, all per query; NULL = not wanted. */
typedef struct study_extra {
    uint32_t *nearest; /* [query_count] row of the first result, UINT32_MAX = none */
} study_extra;
/* Ranks the gallery for every query, a block at a time, and judges. */
lk_status study_judge(const study *s, const char *name, lk_judged *out, const study_extra *extra);
/* The best `most` rows of queries [first, first + n), itself and what is outside left out: rows, scores [n][most],
 * counts [n]. */
lk_status study_best(const study *s, size_t first, size_t n, size_t most, uint32_t *rows, float *scores,
                     size_t *counts);
/* Writes the best `depth` of every query as a TREC run. Equal scores are told apart by the last bits, so that every
 * tool ranks as we do. */
lk_status study_write_run(const study *s, const char *path, size_t depth);
lk_status study_write_qrels(const study *s, const char *path);

/* Score histograms of right and wrong pairs over a sample of the queries. Shares of the pairs of each kind. */
enum { STUDY_BINS = 60 };
typedef struct study_distribution {
    double low, high, right[STUDY_BINS], wrong[STUDY_BINS];
    size_t queries;
} study_distribution;
lk_status study_distribution_of(const study *s, study_distribution *out);

/* ---- evaluate_report.c ---- */

/* Writes the folder of the report. s NULL: runs alone. trec [n_runs]: the ranked lists of each run, NULL for the
 * study's own; nearest as in study_extra, of the study's own run. */
lk_status study_report(const study *s, const lk_evaluate_options *options, lk_context *context,
                       const lk_evaluation *evaluation, const lk_trec *const *trec, const lk_trec *qrels,
                       const uint32_t *nearest);

#endif
