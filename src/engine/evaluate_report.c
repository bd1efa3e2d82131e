/* The report of an evaluation as a folder: the data as JSON, the page that shows it, thumbnails, every query as CSV. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "engine/report_strips.h"
#include "eval/page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AP_BINS = 20, PAIRS = 40, MATRIX = 14 };

static json_t *numbers(const double *values, size_t n)
{
    json_t *out = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(out, json_real(values[i]));
    return out;
}

static json_t *interval(lk_interval i)
{
    return json_pack("[f,f,f]", i.mean, i.low, i.high);
}

static json_t *revisited_json(const lk_judged *run)
{
    static const char *const setups[] = {"easy", "medium", "hard"};
    json_t *out = json_object();
    for (size_t setup = 0; setup < 3; setup++) {
        json_t *one = json_pack("{s:f}", "mAP", lk_judged_revisited(run, setup, 0));
        for (size_t c = 0; c < run->n_ks; c++) {
            char name[32];
            snprintf(name, sizeof name, "mP@%u", run->ks[c]);
            json_object_set_new(one, name, json_real(lk_judged_revisited(run, setup, 1 + c)));
        }
        json_object_set_new(out, setups[setup], one);
    }
    return out;
}

static json_t *run_json(const lk_judged *run)
{
    double bins[AP_BINS] = {0};
    char name[32];
    json_t *means = json_object();
    for (size_t q = 0; q < run->queries; q++) {
        double ap = run->values[q * run->columns];
        bins[ap < 1 ? (size_t)(ap * AP_BINS) : AP_BINS - 1] += 1;
    }
    for (size_t c = 0; c < run->columns; c++) {
        lk_eval_column_name(c, run->ks, run->n_ks, name);
        json_object_set_new(means, name, interval(run->means[c]));
    }
    json_t *out =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o, s:o, s:o}", "name", run->name, "queries",
                  (json_int_t)run->queries, "without", (json_int_t)run->without, "missing", (json_int_t)run->missing,
                  "unknown", (json_int_t)run->unknown, "gallery", (json_int_t)run->gallery, "depth",
                  (json_int_t)run->depth, "seconds", run->seconds, "means", means, "precision",
                  numbers(run->curves.precision, LK_EVAL_LEVELS), "recall", numbers(run->curves.recall, LK_EVAL_DEPTHS),
                  "hit", numbers(run->curves.hit, LK_EVAL_DEPTHS), "ap", numbers(bins, AP_BINS));
    if (run->revisited) json_object_set_new(out, "revisited", revisited_json(run));
    return out;
}

static json_t *comparison_json(const lk_evaluation *e, size_t i)
{
    const lk_judged *first = &e->runs[0];
    json_t *columns = json_object();
    char name[32];
    for (size_t c = 0; c < first->columns; c++) {
        const lk_comparison *one = &e->comparisons[i * first->columns + c];
        lk_eval_column_name(c, first->ks, first->n_ks, name);
        json_object_set_new(columns, name,
                            json_pack("{s:o, s:f, s:f, s:[I,I,I]}", "difference", interval(one->difference),
                                      "p_bootstrap", one->p_bootstrap, "p_randomisation", one->p_randomisation,
                                      "better_worse_equal", (json_int_t)one->better, (json_int_t)one->worse,
                                      (json_int_t)one->equal));
    }
    return json_pack("{s:s, s:s, s:o}", "name", e->runs[i + 1].name, "against", first->name, "columns", columns);
}

/* ---- confusion between labels ---- */

typedef struct confusion {
    uint32_t own, found;
    size_t count;
} confusion;

static int by_labels(const void *a, const void *b)
{
    const confusion *x = a, *y = b;
    if (x->own != y->own) return x->own < y->own ? -1 : 1;
    return (x->found > y->found) - (x->found < y->found);
}

static int by_count(const void *a, const void *b)
{
    const confusion *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return by_labels(a, b);
}

/* Label of each query with that of its first result, alike pairs counted; by labels. */
static confusion *count_confusions(const study *s, const uint32_t *nearest, size_t *count)
{
    confusion *pairs = lk_alloc(s->query_count, sizeof *pairs);
    size_t n = 0, kept = 0;
    for (size_t q = 0; pairs && q < s->query_count; q++)
        if (s->queries[q].label != STUDY_NO_LABEL && nearest[q] != UINT32_MAX)
            pairs[n++] = (confusion){s->queries[q].label, s->labels[nearest[q]], 1};
    if (n) qsort(pairs, n, sizeof *pairs, by_labels);
    for (size_t i = 0; i < n; i++) {
        if (kept && by_labels(&pairs[kept - 1], &pairs[i]) == 0)
            pairs[kept - 1].count++;
        else
            pairs[kept++] = pairs[i];
    }
    *count = kept;
    return pairs;
}

static const char *label_text(const study *s, uint32_t label)
{
    return label == STUDY_NO_LABEL ? "(no label)" : s->label_names[label];
}

/* The labels that are confused most, as a matrix with a last column for all others. */
static json_t *matrix_json(const study *s, const confusion *pairs, size_t count, size_t *wrong_of)
{
    uint32_t chosen[MATRIX];
    size_t n = 0;
    for (; n < MATRIX; n++) {
        size_t best = SIZE_MAX;
        for (size_t l = 0; l < s->label_count; l++)
            if (wrong_of[l] && (best == SIZE_MAX || wrong_of[l] > wrong_of[best])) best = l;
        if (best == SIZE_MAX) break;
        chosen[n] = (uint32_t)best;
        wrong_of[best] = 0;
    }
    json_t *labels = json_array(), *rows = json_array();
    for (size_t r = 0; r < n; r++) {
        double cells[MATRIX + 1] = {0};
        for (size_t i = 0; i < count; i++) {
            if (pairs[i].own != chosen[r]) continue;
            size_t c = 0;
            while (c < n && chosen[c] != pairs[i].found) c++;
            cells[c] += (double)pairs[i].count; /* c == n: some other label */
        }
        json_array_append_new(labels, json_string(label_text(s, chosen[r])));
        json_array_append_new(rows, numbers(cells, n + 1));
    }
    return json_pack("{s:o, s:o}", "labels", labels, "rows", rows);
}

static lk_status confusion_json(const study *s, const uint32_t *nearest, json_t *out)
{
    size_t count, wrong = 0, right = 0;
    confusion *pairs = count_confusions(s, nearest, &count);
    size_t *wrong_of = lk_alloc_zero(s->label_count, sizeof *wrong_of);
    if (!pairs || !wrong_of) {
        free(pairs);
        free(wrong_of);
        return lk_fail_memory("report");
    }
    for (size_t i = 0; i < count; i++) {
        bool same = pairs[i].own == pairs[i].found;
        if (!same) wrong_of[pairs[i].own] += pairs[i].count;
        *(same ? &right : &wrong) += pairs[i].count;
    }
    json_t *matrix = matrix_json(s, pairs, count, wrong_of), *list = json_array();
    if (count) qsort(pairs, count, sizeof *pairs, by_count);
    for (size_t i = 0; i < count && json_array_size(list) < PAIRS; i++)
        if (pairs[i].own != pairs[i].found)
            json_array_append_new(list, json_pack("[s,s,I]", label_text(s, pairs[i].own), label_text(s, pairs[i].found),
                                                  (json_int_t)pairs[i].count));
    json_object_set_new(out, "confusion",
                        json_pack("{s:I, s:I, s:o, s:o}", "right", (json_int_t)right, "wrong", (json_int_t)wrong,
                                  "pairs", list, "matrix", matrix));
    free(pairs);
    free(wrong_of);
    return LK_OK;
}

/* ---- the whole ---- */

static lk_status distribution_json(const study *s, json_t *out)
{
    static const char *const names[] = {"cosine similarity", "inner product", "squared distance"};
    study_distribution d;
    lk_status status = study_distribution_of(s, &d);
    if (status != LK_OK || d.queries == 0 || !isfinite(d.low)) return status;
    json_object_set_new(out, "distribution",
                        json_pack("{s:s, s:f, s:f, s:I, s:o, s:o}", "score", names[lk_flat_metric(s->index)], "low",
                                  d.low, "high", d.high, "queries", (json_int_t)d.queries, "right",
                                  numbers(d.right, STUDY_BINS), "wrong", numbers(d.wrong, STUDY_BINS)));
    return LK_OK;
}

static json_t *summary_json(const lk_evaluate_options *options, const lk_evaluation *e)
{
    json_t *runs = json_array(), *comparisons = json_array(), *depths = json_array(), *columns = json_array(),
           *ks = json_array();
    char name[32];
    for (size_t i = 0; i < e->n_runs; i++) json_array_append_new(runs, run_json(&e->runs[i]));
    for (size_t i = 0; i + 1 < e->n_runs; i++) json_array_append_new(comparisons, comparison_json(e, i));
    for (size_t i = 0; i < LK_EVAL_DEPTHS; i++) json_array_append_new(depths, json_integer(lk_eval_depths[i]));
    for (size_t c = 0; c < options->n_ks; c++) json_array_append_new(ks, json_integer(options->ks[c]));
    for (size_t c = 0; c < e->runs[0].columns; c++) {
        lk_eval_column_name(c, options->ks, options->n_ks, name);
        json_array_append_new(columns, json_string(name));
    }
    return json_pack("{s:f, s:i, s:o, s:o, s:o, s:o, s:o}", "level", e->level, "resamples", (int)options->resamples,
                     "ks", ks, "columns", columns, "depths", depths, "runs", runs, "comparisons", comparisons);
}

static lk_status write_files(const lk_evaluate_options *options, const lk_evaluation *e, const json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    char *csv = lk_path_join(options->html, "queries.csv"), *json = lk_path_join(options->html, "report.json");
    lk_status s = text && csv && json ? lk_report_page(options->html, e->runs[0].name, text) : lk_fail_memory("report");
    if (s == LK_OK) s = lk_file_write_atomic(json, text, strlen(text));
    if (s == LK_OK) s = lk_judged_write_csv(e->runs, e->n_runs, csv);
    free(text);
    free(csv);
    free(json);
    return s;
}

lk_status study_report(const study *s, const lk_evaluate_options *options, lk_context *context,
                       const lk_evaluation *evaluation, const lk_trec *const *trec, const lk_trec *qrels,
                       const uint32_t *nearest)
{
    strip_maker strips = {.s = s, .evaluation = evaluation, .trec = trec, .qrels = qrels};
    json_t *data = summary_json(options, evaluation), *shown = json_object();
    lk_status status = data && shown ? strips_begin(&strips) : lk_fail_memory("report");
    if (status == LK_OK && s) status = distribution_json(s, data);
    if (status == LK_OK && s && nearest) status = confusion_json(s, nearest, data);
    if (status == LK_OK) status = strips_json(&strips, shown);
    if (status == LK_OK && json_object_set(data, "strips", shown) != 0) status = lk_fail_memory("report");
    if (status == LK_OK) status = lk_make_dirs(options->html);
    if (status == LK_OK) status = strips_write_pictures(&strips, context, options->html);
    if (status == LK_OK) status = write_files(options, evaluation, data);
    strips_end(&strips);
    json_decref(shown);
    json_decref(data);
    return status;
}
