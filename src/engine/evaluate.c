/* Evaluation of a collection, of vectors from files, and of other systems' runs: each becomes a study (or, for runs
 * alone, qrels), which is judged, compared and written out the same way. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "engine/searcher.h"
#include "engine/study.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEARCH_DEPTH = 1000 }; /* results of a search that is judged */

void lk_evaluation_free(lk_evaluation *evaluation)
{
    for (size_t i = 0; evaluation && i < evaluation->n_runs; i++) lk_judged_free(&evaluation->runs[i]);
    if (!evaluation) return;
    free(evaluation->runs);
    free(evaluation->comparisons);
    *evaluation = (lk_evaluation){0};
}

lk_status study_options(const lk_evaluate_options *given, lk_evaluate_options *out)
{
    static const uint32_t default_ks[] = {1, 5, 10, 100};
    *out = given ? *given : (lk_evaluate_options){0};
    if (!out->ks) {
        out->ks = default_ks;
        out->n_ks = sizeof default_ks / sizeof *default_ks;
    }
    if (out->n_ks > LK_EVAL_MAX_KS)
        return lk_fail(LK_INVALID, "%zu cut-offs are more than the %d possible", out->n_ks, LK_EVAL_MAX_KS);
    for (size_t c = 0; c < out->n_ks; c++)
        if (out->ks[c] == 0) return lk_fail(LK_INVALID, "a cut-off of 0 makes no sense");
    if (out->truth_csv && out->qrels) return lk_fail(LK_INVALID, "the truth is either a CSV or qrels, not both");
    if (!out->name) out->name = "likeness";
    if (out->level == 0) out->level = 0.95;
    if (out->resamples == 0) out->resamples = 2000;
    return LK_OK;
}

/* ---- what is common to all ---- */

static lk_status compare_runs(lk_context *context, const lk_evaluate_options *options, lk_evaluation *out)
{
    if (out->n_runs < 2) return LK_OK;
    size_t columns = out->runs[0].columns;
    out->comparisons = lk_alloc_zero(out->n_runs - 1, columns * sizeof *out->comparisons);
    if (!out->comparisons) return lk_fail_memory("comparison");
    for (size_t i = 1; i < out->n_runs; i++)
        for (size_t c = 0; c < columns; c++) {
            lk_status s =
                lk_judged_compare(context, &out->runs[0], &out->runs[i], c, options->level, options->resamples,
                                  options->seed, &out->comparisons[(i - 1) * columns + c]);
            if (s != LK_OK) return s;
        }
    return LK_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Judges options->runs behind the `own` runs that are there already, compares, writes what is wanted. s may be NULL. */
static lk_status finish(lk_context *context, const study *s, const lk_evaluate_options *options, const lk_trec *qrels,
                        size_t own, const uint32_t *nearest, lk_evaluation *out)
{
    lk_trec *runs = lk_alloc_zero(options->n_runs, sizeof *runs);
    const lk_trec **lists = lk_alloc_zero(own + options->n_runs, sizeof *lists);
    lk_status status = runs && lists ? LK_OK : lk_fail_memory("runs");
    for (size_t i = 0; status == LK_OK && i < options->n_runs; i++) {
        status = lk_trec_read_run(options->runs[i], &runs[i]);
        if (status == LK_OK)
            status = lk_trec_judge(qrels, &runs[i], base_name(options->runs[i]), options->ks, options->n_ks,
                                   &out->runs[out->n_runs]);
        if (status != LK_OK) break;
        lists[out->n_runs++] = &runs[i];
    }
    for (size_t i = 0; status == LK_OK && i < out->n_runs; i++)
        status = lk_judged_finish(context, &out->runs[i], options->level, options->resamples, options->seed);
    if (status == LK_OK) status = compare_runs(context, options, out);
    if (status == LK_OK && options->csv) status = lk_judged_write_csv(out->runs, out->n_runs, options->csv);
    if (status == LK_OK && options->html)
        status = study_report(s, options, context, out, (const lk_trec *const *)lists, qrels, nearest);
    for (size_t i = 0; runs && i < options->n_runs; i++) lk_trec_free(&runs[i]);
    free(runs);
    free(lists);
    return status;
}

static lk_status prepare_runs(const lk_evaluate_options *options, size_t own, lk_evaluation *out)
{
    *out = (lk_evaluation){.level = options->level, .runs = lk_alloc_zero(own + options->n_runs, sizeof *out->runs)};
    return out->runs ? LK_OK : lk_fail_memory("runs");
}

lk_status study_evaluate(study *s, lk_evaluation *out)
{
    const lk_evaluate_options *options = s->options;
    lk_trec qrels = {0};
    double start = lk_now();
    uint32_t *nearest = options->html && s->label_count ? lk_alloc(s->query_count, sizeof *nearest) : NULL;
    study_extra extra = {nearest};
    lk_status status = options->html && s->label_count && !nearest ? lk_fail_memory("evaluation") : LK_OK;
    if (status == LK_OK) status = prepare_runs(options, 1, out);
    if (status == LK_OK) status = study_judge(s, options->name, &out->runs[0], &extra);
    if (status == LK_OK) {
        out->n_runs = 1;
        out->runs[0].seconds = lk_now() - start;
    }
    if (status == LK_OK && options->write_qrels) status = study_write_qrels(s, options->write_qrels);
    if (status == LK_OK && options->write_run)
        status = study_write_run(s, options->write_run, options->depth ? options->depth : 1000);
    if (status == LK_OK && options->n_runs) status = study_qrels(s, &qrels);
    if (status == LK_OK) status = finish(s->context, s, options, &qrels, 1, nearest, out);
    lk_trec_free(&qrels);
    free(nearest);
    return status;
}

static lk_status truth_from_qrels_file(study *s, const char *path)
{
    lk_trec qrels;
    lk_status status = lk_trec_read_qrels(path, &qrels);
    if (status != LK_OK) return status;
    status = study_truth_from_qrels(s, &qrels);
    lk_trec_free(&qrels);
    return status;
}

lk_status study_make_truth(study *s)
{
    if (s->options->truth_csv) return study_truth_from_csv(s, s->options->truth_csv);
    if (s->options->qrels) return truth_from_qrels_file(s, s->options->qrels);
    return study_truth_from_labels(s);
}

/* ---- a collection ---- */

typedef struct gathering {
    study *s;
    const char **labels; /* [rows], owned */
    lk_status status;
} gathering;

static lk_status gather(void *user, const lk_record *record)
{
    gathering *g = user;
    study *s = g->s;
    const lk_evaluate_options *options = s->options;
    /* The catalog may be ahead of the snapshot: what the snapshot lacks takes no part. */
    size_t row = record->state == LK_PICTURE_INDEXED ? study_row(s, (uint64_t)record->id) : SIZE_MAX;
    if (row == SIZE_MAX) return LK_OK;
    char id[24];
    snprintf(id, sizeof id, "%lld", (long long)record->id);
    s->names[row] = strdup(id);
    s->paths[row] = strdup(record->path);
    g->labels[row] = record->label ? strdup(record->label) : NULL;
    if (!s->names[row] || !s->paths[row] || (record->label && !g->labels[row])) return lk_fail_memory("gallery");
    s->asked[row] =
        !options->query_column || study_column_equals(record->labels, options->query_column, options->query_value);
    if (options->gallery_column &&
        !study_column_equals(record->labels, options->gallery_column, options->gallery_value))
        return study_leave_out(s, row);
    return LK_OK;
}

typedef struct collection_job {
    lk_context *context;
    lk_searcher *searcher;
    const lk_evaluate_options *options;
    lk_evaluation *out;
} collection_job;

/* Rows that the catalog does not know (any more) are not in the gallery, but have a name all the same. */
static lk_status leave_out_unknown(study *s)
{
    for (size_t row = 0; row < s->rows; row++) {
        if (s->names[row]) continue;
        char id[24];
        snprintf(id, sizeof id, "%llu", (unsigned long long)s->ids[row]);
        if (!(s->names[row] = strdup(id))) return lk_fail_memory("gallery");
        lk_status status = study_leave_out(s, row);
        if (status != LK_OK) return status;
    }
    return LK_OK;
}

static lk_status evaluate_index(void *user, const lk_flat *index)
{
    collection_job *job = user;
    study s;
    gathering g = {.s = &s};
    lk_status status = study_begin(&s, job->context, job->options, index);
    if (status != LK_OK) goto done;
    g.labels = lk_alloc_zero(s.rows, sizeof *g.labels);
    status = g.labels ? lk_searcher_each(job->searcher, gather, &g) : lk_fail_memory("gallery");
    if (status == LK_OK) status = leave_out_unknown(&s);
    if (status == LK_OK) status = study_number_labels(&s, g.labels, s.rows, s.labels);
    if (status == LK_OK && s.label_count == 0 && !job->options->truth_csv && !job->options->qrels)
        status = lk_fail(LK_INVALID, "no picture has a label: index from a CSV with a `label` column or with "
                                     "--label-folders, or give the truth as a "
                                     "CSV of `query,relevant`");
    if (status == LK_OK) status = study_make_truth(&s);
    if (status == LK_OK) status = study_evaluate(&s, job->out);
done:
    for (size_t row = 0; g.labels && row < s.rows; row++) free((char *)g.labels[row]);
    free(g.labels);
    study_end(&s);
    return status;
}

/* The ranking that a user gets who searches with these options. */
typedef struct ranked_search {
    lk_searcher *searcher;
    const lk_search_options *options;
} ranked_search;

static lk_status search_instead(void *user, const lk_flat *index, uint64_t id, const float *vector, lk_hit *hits,
                                size_t *count)
{
    const ranked_search *r = user;
    (void)index, (void)vector;
    int64_t picture = (int64_t)id;
    lk_search_options options = *r->options;
    options.k = *count; /* how many there is room for */
    if (*count == 0) return LK_OK;
    return lk_search_hits(r->searcher, &(lk_query){.ids = &picture, .n_ids = 1}, &options, hits, count);
}

lk_status lk_evaluate(lk_context *context, lk_searcher *searcher, const lk_evaluate_options *options,
                      lk_evaluation *out)
{
    *out = (lk_evaluation){0};
    lk_evaluate_options full;
    lk_status s = study_options(options, &full);
    if (s != LK_OK) return s;
    double start = lk_now();
    ranked_search ranked = {searcher, options ? options->search : NULL};
    if (ranked.options) {
        if (full.reorder || full.gallery_column)
            return lk_fail(LK_INVALID, "options of a search exclude another re-ranking and a part of the gallery");
        if (full.depth == 0) full.depth = SEARCH_DEPTH;
        full.reorder = search_instead;
        full.reorder_user = &ranked;
    }
    collection_job job = {context, searcher, &full, out};
    s = lk_searcher_with_index(searcher, evaluate_index, &job);
    out->seconds = lk_now() - start;
    if (s != LK_OK) lk_evaluation_free(out);
    return s;
}

/* ---- runs ---- */

lk_status lk_evaluate_runs(lk_context *context, const lk_evaluate_options *options, lk_evaluation *out)
{
    *out = (lk_evaluation){0};
    lk_evaluate_options full;
    lk_trec qrels = {0};
    double start = lk_now();
    lk_status s;
    LK_TRY(study_options(options, &full));
    if (!full.qrels || full.n_runs == 0) {
        s = lk_fail(LK_INVALID, "runs are judged by qrels: both are wanted");
        goto done;
    }
    LK_TRY(lk_trec_read_qrels(full.qrels, &qrels));
    LK_TRY(prepare_runs(&full, 0, out));
    LK_TRY(finish(context, NULL, &full, &qrels, 0, NULL, out));
    out->seconds = lk_now() - start;
done:
    lk_trec_free(&qrels);
    if (s != LK_OK) lk_evaluation_free(out);
    return s;
}
