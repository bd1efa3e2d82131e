/* Evaluation of vectors that stand in .npy files, so that any system's embeddings can be measured. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "engine/csv.h"
#include "engine/study.h"
#include "formats/npy_array.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 65536 }; /* rows converted at once */

/* One row's text of each kind; all NULL at first. */
typedef struct rows_text {
    char **labels, **names, **paths; /* [n] */
    uint8_t *is_query, *in_gallery;  /* [n] by the columns of the options */
    size_t n;
} rows_text;

static void free_strings(char **strings, size_t n)
{
    for (size_t i = 0; strings && i < n; i++) free(strings[i]);
    free(strings);
}

static void rows_free(rows_text *t)
{
    free_strings(t->labels, t->n);
    free_strings(t->names, t->n);
    free_strings(t->paths, t->n);
    free(t->is_query);
    free(t->in_gallery);
    *t = (rows_text){0};
}

static lk_status rows_new(size_t n, rows_text *t)
{
    *t = (rows_text){lk_alloc_zero(n, sizeof *t->labels),
                     lk_alloc_zero(n, sizeof *t->names),
                     lk_alloc_zero(n, sizeof *t->paths),
                     lk_alloc(n, 1),
                     lk_alloc(n, 1),
                     n};
    if (!t->labels || !t->names || !t->paths || !t->is_query || !t->in_gallery) return lk_fail_memory("labels");
    memset(t->is_query, 1, n);
    memset(t->in_gallery, 1, n);
    return LK_OK;
}

static lk_status wrong_count(const char *path, size_t found, size_t wanted)
{
    return lk_fail(LK_INVALID, "%s: has %zu rows; there are %zu vectors", path, found, wanted);
}

static lk_status labels_from_npy(const char *path, rows_text *t)
{
    lk_npy npy;
    lk_status s = lk_npy_open(path, &npy);
    if (s != LK_OK) return s;
    if (npy.kind == 'f' || npy.columns != 1)
        s = lk_fail(LK_UNSUPPORTED, "%s: labels are one whole number a vector", path);
    else if (npy.rows != t->n)
        s = wrong_count(path, npy.rows, t->n);
    for (size_t i = 0; s == LK_OK && i < t->n; i++) {
        char number[32];
        snprintf(number, sizeof number, "%" PRId64, lk_npy_integer(&npy, i));
        if (!(t->labels[i] = strdup(number))) s = lk_fail_memory("labels");
    }
    lk_npy_close(&npy);
    return s;
}

/* Where the columns of a labels CSV are; SIZE_MAX = missing. */
typedef struct label_columns {
    size_t label, id, path, query, gallery;
} label_columns;

static lk_status find_columns(const lk_csv *csv, const lk_evaluate_options *options, label_columns *at)
{
    *at = (label_columns){lk_csv_column(csv, "label"), lk_csv_column(csv, "id"), lk_csv_column(csv, "path"),
                          options->query_column ? lk_csv_column(csv, options->query_column) : SIZE_MAX,
                          options->gallery_column ? lk_csv_column(csv, options->gallery_column) : SIZE_MAX};
    const char *missing = options->query_column && at->query == SIZE_MAX                    ? options->query_column
                          : options->gallery_column && at->gallery == SIZE_MAX              ? options->gallery_column
                          : at->label == SIZE_MAX && !options->truth_csv && !options->qrels ? "label"
                                                                                            : NULL;
    return missing ? lk_fail(LK_CORRUPT, "%s: the first line names no column `%s`", csv->path, missing) : LK_OK;
}

static lk_status take_row(const lk_csv *csv, const lk_evaluate_options *options, label_columns at, const char *folder,
                          size_t i, rows_text *t)
{
    lk_status s = LK_OK;
    char *const *fields = csv->fields;
    if ((at.label != SIZE_MAX && !lk_utf8_valid(fields[at.label])) ||
        (at.id != SIZE_MAX && !lk_utf8_valid(fields[at.id]))) /* the report could not name it */
        return lk_fail(LK_CORRUPT, "%s: line %zu: the label or the id is not UTF-8 text", csv->path, csv->row_line);
    if (at.label != SIZE_MAX && fields[at.label][0] && !(t->labels[i] = strdup(fields[at.label])))
        return lk_fail_memory("labels");
    if (at.id != SIZE_MAX && !(t->names[i] = strdup(fields[at.id]))) return lk_fail_memory("labels");
    if (at.path != SIZE_MAX && fields[at.path][0]) {
        char *joined = lk_path_join(folder, fields[at.path]);
        s = joined ? lk_path_absolute(joined, &t->paths[i]) : lk_fail_memory("labels");
        free(joined);
    }
    if (at.query != SIZE_MAX) t->is_query[i] = strcmp(fields[at.query], options->query_value) == 0;
    if (at.gallery != SIZE_MAX) t->in_gallery[i] = strcmp(fields[at.gallery], options->gallery_value) == 0;
    return s;
}

static lk_status labels_from_csv(const char *path, const lk_evaluate_options *options, rows_text *t)
{
    lk_csv csv;
    lk_status s = lk_csv_open(path, &csv);
    if (s != LK_OK) return s;
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    label_columns at = {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX};
    bool more;
    size_t i = 0;
    if (!folder) {
        s = lk_fail_memory("labels");
        goto done;
    }
    if (slash)
        slash[slash == folder ? 1 : 0] = 0;
    else
        strcpy(folder, ".");
    LK_TRY(lk_csv_next(&csv, &more));
    if (!more) {
        s = wrong_count(path, 0, t->n);
        goto done;
    }
    LK_TRY(find_columns(&csv, options, &at));
    for (;; i++) {
        LK_TRY(lk_csv_next(&csv, &more));
        if (!more) break;
        if (i < t->n) LK_TRY(take_row(&csv, options, at, folder, i, t));
    }
    if (i != t->n) s = wrong_count(path, i, t->n);
done:
    free(folder);
    lk_csv_close(&csv);
    return s;
}

static lk_status read_labels(const char *path, const lk_evaluate_options *options, rows_text *t)
{
    size_t length = strlen(path);
    bool npy = length > 4 && strcmp(path + length - 4, ".npy") == 0;
    if (npy && (options->query_column || options->gallery_column))
        return lk_fail(LK_INVALID, "%s: has no columns to choose queries or gallery by: give the labels as a CSV",
                       path);
    return npy ? labels_from_npy(path, t) : labels_from_csv(path, options, t);
}

/* The vectors as an exact index whose ids are the rows. */
static lk_status read_index(const char *path, lk_metric metric, lk_flat **out)
{
    lk_npy npy;
    lk_status s = lk_npy_open(path, &npy);
    if (s != LK_OK) return s;
    size_t chunk = npy.rows < CHUNK ? npy.rows : CHUNK;
    float *vectors = lk_alloc(chunk * npy.columns, sizeof *vectors);
    uint64_t *ids = lk_alloc(chunk, sizeof *ids);
    s = vectors && ids ? lk_flat_new(npy.columns, metric, LK_F32, out) : lk_fail_memory(path);
    for (size_t first = 0; s == LK_OK && first < npy.rows; first += chunk) {
        size_t n = npy.rows - first < chunk ? npy.rows - first : chunk;
        for (size_t i = 0; i < n; i++) ids[i] = first + i;
        lk_npy_floats(&npy, first, n, vectors);
        s = lk_fail_in(lk_flat_add(*out, n, ids, vectors), "%s: rows from %zu", path, first);
    }
    free(vectors);
    free(ids);
    lk_npy_close(&npy);
    return s;
}

static lk_status read_floats(const char *path, size_t dim, size_t *n, float **out)
{
    lk_npy npy;
    lk_status s = lk_npy_open(path, &npy);
    if (s != LK_OK) return s;
    *n = npy.rows;
    *out = lk_alloc(npy.rows * npy.columns, sizeof **out);
    if (npy.columns != dim)
        s = lk_fail(LK_INVALID, "%s: vectors of %zu numbers; those of the gallery have %zu", path, npy.columns, dim);
    else if (!*out)
        s = lk_fail_memory(path);
    else
        lk_npy_floats(&npy, 0, npy.rows, *out);
    lk_npy_close(&npy);
    return s;
}

/* Names, pictures, choice of queries and gallery of the rows of the index. */
static lk_status take_rows(study *s, rows_text *t)
{
    for (size_t row = 0; row < s->rows; row++) {
        size_t at = (size_t)s->ids[row]; /* ids are rows of the file */
        char number[24];
        snprintf(number, sizeof number, "%zu", at);
        s->names[row] = strdup(t->names[at] ? t->names[at] : number);
        s->paths[row] = t->paths[at] ? strdup(t->paths[at]) : NULL;
        if (!s->names[row] || (t->paths[at] && !s->paths[row])) return lk_fail_memory("gallery");
        s->asked[row] = t->is_query[at];
        lk_status status = t->in_gallery[at] ? LK_OK : study_leave_out(s, row);
        if (status != LK_OK) return status;
    }
    return LK_OK;
}

/* Labels of the gallery and of `queries` (may be empty) as numbers; those of the queries to *numbers. */
static lk_status number_labels(study *s, const rows_text *gallery, const rows_text *queries, uint32_t **numbers)
{
    size_t n = s->rows + queries->n;
    const char **texts = lk_alloc(n, sizeof *texts);
    uint32_t *all = lk_alloc(n, sizeof *all);
    lk_status status = texts && all ? LK_OK : lk_fail_memory("labels");
    for (size_t row = 0; status == LK_OK && row < s->rows; row++) texts[row] = gallery->labels[s->ids[row]];
    for (size_t i = 0; status == LK_OK && i < queries->n; i++) {
        texts[s->rows + i] = queries->labels[i];
        if (!queries->labels[i]) status = lk_fail(LK_INVALID, "query %zu has no label", i);
    }
    if (status == LK_OK) status = study_number_labels(s, texts, n, all);
    if (status == LK_OK) memcpy(s->labels, all, s->rows * sizeof *all);
    if (status == LK_OK && queries->n) {
        *numbers = lk_alloc(queries->n, sizeof **numbers);
        if (*numbers)
            memcpy(*numbers, all + s->rows, queries->n * sizeof *all);
        else
            status = lk_fail_memory("labels");
    }
    free(texts);
    free(all);
    return status;
}

static lk_status make_truth(study *s, const lk_vector_files *files, const rows_text *queries, const uint32_t *numbers)
{
    if (files->queries) return study_truth_for_vectors(s, queries->n, numbers, queries->names, queries->paths);
    return study_make_truth(s);
}

lk_status lk_evaluate_vectors(lk_context *context, const lk_vector_files *files, const lk_evaluate_options *options,
                              lk_evaluation *out)
{
    *out = (lk_evaluation){0};
    lk_evaluate_options full, plain;
    lk_flat *index = NULL;
    study s = {0};
    rows_text gallery = {0}, queries = {0};
    float *vectors = NULL;
    uint32_t *numbers = NULL;
    double start = lk_now();
    lk_status status = study_options(options, &full);
    if (status != LK_OK) return status;
    if (files->queries && (full.truth_csv || full.qrels || full.query_column))
        return lk_fail(LK_INVALID,
                       "queries of their own are judged by labels: no truth and no choice of queries goes with them");
    status = read_index(files->vectors, files->metric, &index);
    if (status == LK_OK) status = study_begin(&s, context, &full, index);
    if (status == LK_OK) status = rows_new(s.rows, &gallery);
    if (status == LK_OK && files->labels) status = read_labels(files->labels, &full, &gallery);
    if (status == LK_OK) status = take_rows(&s, &gallery);
    if (status == LK_OK && files->queries) {
        size_t n = 0;
        plain = full;
        plain.query_column = plain.gallery_column = NULL;
        status = read_floats(files->queries, lk_flat_dim(index), &n, &vectors);
        if (status == LK_OK) status = rows_new(n, &queries);
        if (status == LK_OK)
            status = files->query_labels ? read_labels(files->query_labels, &plain, &queries)
                                         : lk_fail(LK_INVALID, "queries want labels of their own");
        s.query_vectors = vectors;
    }
    if (status == LK_OK) status = number_labels(&s, &gallery, &queries, &numbers);
    if (status == LK_OK && s.label_count == 0 && !full.truth_csv && !full.qrels)
        status = lk_fail(LK_INVALID, "there are neither labels nor a truth to judge by");
    if (status == LK_OK) status = make_truth(&s, files, &queries, numbers);
    if (status == LK_OK) status = study_evaluate(&s, out);
    out->seconds = lk_now() - start;
    study_end(&s);
    lk_flat_free(index);
    rows_free(&gallery);
    rows_free(&queries);
    free(vectors);
    free(numbers);
    if (status != LK_OK) lk_evaluation_free(out);
    return status;
}
