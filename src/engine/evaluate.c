/* The full-library protocol: every query picture ranks all others. Scores exist for one block of queries at a time. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "engine/csv.h"
#include "engine/searcher.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define SCORE_BYTES ((size_t)64 << 20) /* one block of score rows */

/* A picture of the gallery; row is its place in the index. */
typedef struct entry {
    int64_t id;
    char *path;
    char *label;
    size_t row;
    bool query;
} entry;

/* One pair of the truth, both as rows. */
typedef struct pair {
    size_t query, relevant;
} pair;

typedef struct evaluation {
    lk_context *context;
    lk_searcher *searcher;
    const lk_evaluate_options *options;
    lk_evaluation *out;
    const lk_flat *index;
    uint64_t *ids; /* [rows], in the order of the index */
    size_t rows;
    entry *entries; /* [count], by id; those in the index */
    size_t count, capacity;
    pair *pairs; /* by query, then relevant; no repeats, never the query itself */
    size_t pair_count, pair_capacity;
    size_t *relevant; /* [pair_count]: the second halves of pairs */
    /* Of the present block: */
    size_t *firsts; /* [queries + 1]: where each query's pairs begin */
    size_t *queries;
    size_t query_count, block_first;
    float *scores;
    lk_query_metrics *metrics;
} evaluation;

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int by_path(const void *a, const void *b)
{
    return strcmp((*(entry *const *)a)->path, (*(entry *const *)b)->path);
}

static int by_label(const void *a, const void *b)
{
    return strcmp((*(entry *const *)a)->label, (*(entry *const *)b)->label);
}

static int by_query(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->query != y->query) return x->query < y->query ? -1 : 1;
    return (x->relevant > y->relevant) - (x->relevant < y->relevant);
}

/* ---- the gallery ---- */

static bool column_equals(const char *labels, const char *column, const char *value)
{
    json_t *object = json_loads(labels ? labels : "{}", 0, NULL), *member = json_object_get(object, column);
    char number[32];
    const char *text = json_string_value(member);
    if (json_is_integer(member)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(member));
        text = number;
    }
    bool equal = text && strcmp(text, value) == 0;
    json_decref(object);
    return equal;
}

static lk_status gather(void *user, const lk_record *record)
{
    evaluation *e = user;
    const lk_evaluate_options *options = e->options;
    if (record->state != LK_PICTURE_INDEXED) return LK_OK;
    if (!lk_grow((void **)&e->entries, &e->capacity, e->count + 1, sizeof *e->entries))
        return lk_fail_memory("gallery");
    entry *item = &e->entries[e->count++];
    *item = (entry){.id = record->id,
                    .path = strdup(record->path),
                    .label = record->label ? strdup(record->label) : NULL,
                    .row = SIZE_MAX,
                    .query = !options->query_column ||
                             column_equals(record->labels, options->query_column, options->query_value)};
    if (!item->path || (record->label && !item->label)) return lk_fail_memory("gallery");
    return LK_OK;
}

/* Gives each entry its row. The catalog may be ahead of the snapshot: what the snapshot lacks takes no part. */
static lk_status match_rows(evaluation *e)
{
    typedef struct place {
        uint64_t id;
        size_t row;
    } place;
    place *places = lk_alloc(e->rows, sizeof *places);
    if (!places) return lk_fail_memory("gallery");
    for (size_t row = 0; row < e->rows; row++) places[row] = (place){e->ids[row], row};
    qsort(places, e->rows, sizeof *places, by_id);
    size_t kept = 0;
    for (size_t i = 0; i < e->count; i++) {
        uint64_t id = (uint64_t)e->entries[i].id;
        place *found = bsearch(&id, places, e->rows, sizeof *places, by_id);
        if (found) {
            e->entries[i].row = found->row;
            e->entries[kept++] = e->entries[i];
        } else {
            free(e->entries[i].path);
            free(e->entries[i].label);
        }
    }
    e->count = kept;
    free(places);
    return LK_OK;
}

/* ---- the truth ---- */

static lk_status add_pair(evaluation *e, size_t query, size_t relevant)
{
    if (query == relevant) return LK_OK; /* a picture is never its own result */
    if (!lk_grow((void **)&e->pairs, &e->pair_capacity, e->pair_count + 1, sizeof *e->pairs))
        return lk_fail_memory("truth");
    e->pairs[e->pair_count++] = (pair){query, relevant};
    return LK_OK;
}

static lk_status truth_from_labels(evaluation *e, entry **sorted)
{
    size_t n = 0;
    for (size_t i = 0; i < e->count; i++)
        if (e->entries[i].label) sorted[n++] = &e->entries[i];
    if (n == 0)
        return lk_fail(LK_INVALID,
                       "no picture has a label: index from a CSV with a `label` column, or give the truth as a "
                       "CSV of `query,relevant`");
    qsort(sorted, n, sizeof *sorted, by_label);
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && strcmp(sorted[begin]->label, sorted[end]->label) == 0;) end++;
        for (size_t q = begin; q < end; q++) {
            for (size_t r = begin; sorted[q]->query && r < end; r++) {
                lk_status s = add_pair(e, sorted[q]->row, sorted[r]->row);
                if (s != LK_OK) return s;
            }
        }
    }
    return LK_OK;
}

static int entry_against_path(const void *key, const void *item)
{
    return strcmp(key, (*(entry *const *)item)->path);
}

static int entry_against_id(const void *key, const void *item)
{
    int64_t id = *(const int64_t *)key, other = ((const entry *)item)->id;
    return (id > other) - (id < other);
}

/* A field of the truth: an id, or a path (absolute, or relative to the CSV's folder). NULL when nothing has it. */
static entry *find_entry(evaluation *e, entry **by_paths, const char *folder, const char *field)
{
    size_t n = strlen(field);
    if (n > 0 && n < 19 && strspn(field, "0123456789") == n) {
        int64_t id = atoll(field);
        entry *found = bsearch(&id, e->entries, e->count, sizeof *e->entries, entry_against_id);
        if (found) return found;
    }
    char *joined = lk_path_join(folder, field), *absolute = NULL;
    entry **found = NULL;
    if (joined && lk_path_absolute(joined, &absolute) == LK_OK)
        found = bsearch(absolute, by_paths, e->count, sizeof *by_paths, entry_against_path);
    free(joined);
    free(absolute);
    return found ? *found : NULL;
}

static lk_status truth_from_csv(evaluation *e, entry **by_paths)
{
    const char *path = e->options->truth_csv;
    lk_csv csv;
    lk_status s = lk_csv_open(path, &csv);
    if (s != LK_OK) return s;
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    if (!folder) {
        lk_csv_close(&csv);
        return lk_fail_memory(path);
    }
    if (slash)
        slash[slash == folder ? 1 : 0] = 0;
    else
        strcpy(folder, ".");
    bool more;
    LK_TRY(lk_csv_next(&csv, &more));
    size_t query = more ? lk_csv_column(&csv, "query") : SIZE_MAX,
           relevant = more ? lk_csv_column(&csv, "relevant") : SIZE_MAX;
    if (query == SIZE_MAX || relevant == SIZE_MAX) {
        s = lk_fail(LK_CORRUPT, "%s: the first line must be `query,relevant`", path);
        goto done;
    }
    for (size_t i = 0; i < e->count; i++) by_paths[i] = &e->entries[i];
    qsort(by_paths, e->count, sizeof *by_paths, by_path);
    for (;;) {
        LK_TRY(lk_csv_next(&csv, &more));
        if (!more) break;
        entry *q = find_entry(e, by_paths, folder, csv.fields[query]);
        entry *r = find_entry(e, by_paths, folder, csv.fields[relevant]);
        if (!q || !r) { /* a missing picture would silently flatter the figures */
            s = lk_fail(LK_NOT_FOUND, "%s: line %zu: %s is not an indexed picture of the collection", path,
                        csv.row_line, csv.fields[q ? relevant : query]);
            goto done;
        }
        if (q->query) LK_TRY(add_pair(e, q->row, r->row));
    }
done:
    free(folder);
    lk_csv_close(&csv);
    return s;
}

static lk_status build_truth(evaluation *e)
{
    entry **scratch = lk_alloc(e->count, sizeof *scratch);
    if (!scratch) return lk_fail_memory("truth");
    lk_status s = e->options->truth_csv ? truth_from_csv(e, scratch) : truth_from_labels(e, scratch);
    free(scratch);
    if (s != LK_OK) return s;
    if (e->pair_count) qsort(e->pairs, e->pair_count, sizeof *e->pairs, by_query);
    size_t kept = 0, queries = 0;
    for (size_t i = 0; i < e->pair_count; i++) {
        bool repeated = kept && by_query(&e->pairs[kept - 1], &e->pairs[i]) == 0;
        if (repeated) continue;
        if (!kept || e->pairs[kept - 1].query != e->pairs[i].query) queries++;
        e->pairs[kept++] = e->pairs[i];
    }
    e->pair_count = kept;
    e->relevant = lk_alloc(kept, sizeof *e->relevant);
    e->firsts = lk_alloc(queries + 1, sizeof *e->firsts);
    e->queries = lk_alloc(queries, sizeof *e->queries);
    e->metrics = lk_alloc(queries, sizeof *e->metrics);
    if (!e->relevant || !e->firsts || !e->queries || !e->metrics) return lk_fail_memory("truth");
    for (size_t i = 0; i < kept; i++) {
        e->relevant[i] = e->pairs[i].relevant;
        if (i && e->pairs[i - 1].query == e->pairs[i].query) continue;
        e->firsts[e->query_count] = i;
        e->queries[e->query_count++] = e->pairs[i].query;
    }
    e->firsts[e->query_count] = kept;
    size_t asked = 0;
    for (size_t i = 0; i < e->count; i++) asked += e->entries[i].query;
    e->out->queries = e->query_count;
    e->out->queries_without = asked - e->query_count;
    return LK_OK;
}

/* ---- the work ---- */

static lk_status rank_queries(void *arg, size_t begin, size_t end, int worker)
{
    evaluation *e = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t q = e->block_first + i, first = e->firsts[q], n = e->firsts[q + 1] - first;
        uint64_t *ranks = lk_alloc(n, sizeof *ranks);
        if (!ranks) return lk_fail_memory("ranks");
        lk_status s = lk_eval_ranks(e->scores + i * e->rows, e->ids, e->rows, lk_flat_metric(e->index) != LK_L2,
                                    e->queries[q], e->relevant + first, n, ranks, NULL);
        if (s == LK_OK) s = lk_eval_query(ranks, NULL, n, n, NULL, e->out->ks, e->out->n_ks, &e->metrics[q]);
        free(ranks);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

static lk_status evaluate_blocks(evaluation *e)
{
    size_t dim = lk_flat_dim(e->index), block = SCORE_BYTES / (e->rows * sizeof(float));
    if (block < 1) block = 1;
    if (block > 256) block = 256;
    float *vectors = lk_alloc(block * dim, sizeof *vectors);
    e->scores = lk_alloc(block * e->rows, sizeof *e->scores);
    lk_status s = vectors && e->scores ? LK_OK : lk_fail_memory("scores");
    lk_eval_mean mean = {0};
    for (size_t first = 0; s == LK_OK && first < e->query_count; first += block) {
        size_t n = e->query_count - first < block ? e->query_count - first : block;
        for (size_t i = 0; s == LK_OK && i < n; i++)
            s = lk_flat_vector(e->index, e->ids[e->queries[first + i]], vectors + i * dim);
        if (s == LK_OK) s = lk_flat_scores(e->index, e->context, n, vectors, e->scores);
        e->block_first = first;
        if (s == LK_OK) s = lk_parallel_for(lk_context_pool(e->context), n, 1, rank_queries, e);
        lk_report_progress(e->context, "evaluating", first + n, e->query_count);
        if (s == LK_OK && lk_context_cancelled(e->context)) s = lk_fail(LK_CANCELLED, "the evaluation was stopped");
    }
    for (size_t q = 0; s == LK_OK && q < e->query_count; q++) lk_eval_mean_add(&mean, &e->metrics[q], e->out->n_ks);
    if (s == LK_OK) e->out->mean = lk_eval_mean_result(&mean, e->out->n_ks);
    free(vectors);
    return s;
}

static lk_status evaluate_index(void *user, const lk_flat *index)
{
    evaluation *e = user;
    e->index = index;
    e->rows = lk_flat_count(index);
    if (e->rows == 0) return lk_fail(LK_INVALID, "the collection is empty: index some pictures first");
    e->ids = lk_alloc(e->rows, sizeof *e->ids);
    if (!e->ids) return lk_fail_memory("gallery");
    lk_flat_ids(index, e->ids);
    e->out->gallery = e->rows;
    lk_status s;
    LK_TRY(lk_searcher_each(e->searcher, gather, e));
    LK_TRY(match_rows(e));
    LK_TRY(build_truth(e));
    LK_TRY(evaluate_blocks(e));
done:
    return s;
}

lk_status lk_evaluate(lk_context *context, lk_searcher *searcher, const lk_evaluate_options *options,
                      lk_evaluation *out)
{
    static const lk_evaluate_options defaults = {0};
    static const uint32_t default_ks[] = {1, 5, 10, 100};
    if (!options) options = &defaults;
    *out = (lk_evaluation){.n_ks = options->ks ? options->n_ks : sizeof default_ks / sizeof *default_ks};
    if (out->n_ks > LK_EVAL_MAX_KS)
        return lk_fail(LK_INVALID, "%zu cut-offs are more than the %d possible", out->n_ks, LK_EVAL_MAX_KS);
    memcpy(out->ks, options->ks ? options->ks : default_ks, out->n_ks * sizeof *out->ks);
    double start = lk_now();
    evaluation e = {.context = context, .searcher = searcher, .options = options, .out = out};
    lk_status s = lk_searcher_with_index(searcher, evaluate_index, &e);
    for (size_t i = 0; i < e.count; i++) {
        free(e.entries[i].path);
        free(e.entries[i].label);
    }
    free(e.entries);
    free(e.ids);
    free(e.pairs);
    free(e.relevant);
    free(e.firsts);
    free(e.queries);
    free(e.scores);
    free(e.metrics);
    out->seconds = lk_now() - start;
    return s;
}
