/* The ranking of every query, a block at a time, and its judgement. Two ways: the ranks of all relevant pictures
 * counted from all scores of a block of queries, or, with a depth, searched among the best results alone. Neither ever
 * holds more than one block. */
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "engine/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 256 };                     /* queries of a block */
#define SCORE_BYTES ((size_t)64 << 20)    /* of its score rows */
#define SAMPLE_SCORES ((size_t)200000000) /* looked at for the distributions */

typedef struct judging {
    const study *s;
    lk_judged *out;
    const study_extra *extra;
    size_t first, depth;
    const float *scores; /* [block][rows], or NULL with a depth: */
    uint32_t *best;      /* [block][depth] rows */
    size_t *counts;      /* [block] */
    lk_eval_curves curves[BLOCK];
} judging;

/* ---- one query ---- */

/* The truth of a query in the order of its ranking. */
typedef struct ranking {
    truth_item *items; /* [n] by row */
    size_t n;
    uint64_t *ranks; /* [found] of relevant and junk, ascending */
    truth_item *at;  /* [found] what stands there */
    size_t found;
} ranking;

static int by_row(const void *a, const void *b)
{
    uint32_t x = ((const truth_item *)a)->row, y = ((const truth_item *)b)->row;
    return (x > y) - (x < y);
}

static const truth_item *find_row(const ranking *r, uint32_t row)
{
    truth_item wanted = {.row = row};
    return bsearch(&wanted, r->items, r->n, sizeof wanted, by_row);
}

static lk_status rank_by_scores(const judging *j, size_t i, ranking *r)
{
    const study *s = j->s;
    size_t *rows = lk_alloc(2 * r->n, sizeof *rows), *order = rows ? rows + r->n : NULL;
    if (!rows) return lk_fail_memory("ranks");
    for (size_t t = 0; t < r->n; t++) rows[t] = r->items[t].row;
    lk_status status = lk_eval_ranks(j->scores + i * s->rows, s->ids, s->rows, lk_flat_metric(s->index) != LK_L2,
                                     s->queries[j->first + i].row, s->outside, rows, r->n, r->ranks, order);
    r->found = r->n;
    for (size_t t = 0; status == LK_OK && t < r->n; t++) r->at[t] = *find_row(r, (uint32_t)order[t]);
    free(rows);
    return status;
}

static void rank_among_best(const judging *j, size_t i, ranking *r)
{
    for (size_t place = 0; place < j->counts[i]; place++) {
        const truth_item *item = find_row(r, j->best[i * j->depth + place]);
        if (!item) continue;
        r->ranks[r->found] = place + 1;
        r->at[r->found++] = *item;
    }
}

static int falling(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Ranks and grades without junk; what is relevant as the kinds say. Returns the number found; *relevant is R. */
static size_t without_junk(const ranking *r, const bool junk[4], uint64_t *ranks, double *grades, double *ideal,
                           uint8_t *is_junk, size_t *relevant)
{
    size_t kept = 0;
    *relevant = 0;
    for (size_t t = 0; t < r->n; t++)
        if (!junk[r->items[t].kind]) ideal[(*relevant)++] = r->items[t].grade;
    qsort(ideal, *relevant, sizeof *ideal, falling);
    for (size_t t = 0; t < r->found; t++) {
        ranks[t] = r->ranks[t];
        is_junk[t] = junk[r->at[t].kind];
        if (!is_junk[t]) grades[kept++] = r->at[t].grade;
    }
    return lk_eval_drop_junk(ranks, is_junk, r->found);
}

static lk_status judge_ranking(judging *j, size_t i, const ranking *r)
{
    static const bool plain[4] = {false, false, false, true};
    static const bool setups[3][4] = {
        {false, false, true, true}, {false, false, false, true}, {false, true, false, true}};
    lk_judged *out = j->out;
    size_t q = j->first + i, relevant;
    double *grades = lk_alloc(2 * r->n, sizeof *grades), *ideal = grades ? grades + r->n : NULL;
    uint64_t *ranks = lk_alloc(r->n, sizeof *ranks);
    uint8_t *junk = lk_alloc(r->n, 1);
    lk_status s = grades && ranks && junk ? LK_OK : lk_fail_memory("ranks");
    if (s != LK_OK) goto done;
    size_t found = without_junk(r, plain, ranks, grades, ideal, junk, &relevant);
    LK_TRY(lk_eval_query(ranks, grades, found, relevant, ideal, out->ks, out->n_ks, out->values + q * out->columns));
    out->relevant[q] = (uint32_t)relevant;
    lk_eval_curves_of(ranks, found, relevant, &j->curves[i]);
    for (size_t setup = 0; out->revisited && setup < 3; setup++) {
        double *values = out->revisited + (q * 3 + setup) * (1 + out->n_ks);
        found = without_junk(r, setups[setup], ranks, grades, ideal, junk, &relevant);
        for (size_t c = 0; relevant == 0 && c < 1 + out->n_ks; c++) values[c] = NAN;
        if (relevant) LK_TRY(lk_eval_revisited(ranks, found, relevant, out->ks, out->n_ks, values, values + 1));
    }
done:
    free(grades);
    free(ranks);
    free(junk);
    return s;
}

/* The first result of a query by its scores: best score, then smallest id. */
static uint32_t first_by_scores(const study *s, const float *scores, size_t self)
{
    float sign = lk_flat_metric(s->index) == LK_L2 ? -1 : 1, best = -INFINITY;
    size_t row = SIZE_MAX;
    for (size_t i = 0; i < s->rows; i++) {
        float score = sign * scores[i];
        if (!(score >= best) || i == self || (s->outside && s->outside[i])) continue;
        if (row != SIZE_MAX && score == best && s->ids[i] > s->ids[row]) continue;
        best = score;
        row = i;
    }
    return (uint32_t)row;
}

static lk_status judge_queries(void *arg, size_t begin, size_t end, int worker)
{
    judging *j = arg;
    const study *s = j->s;
    lk_status status = LK_OK;
    (void)worker;
    for (size_t i = begin; status == LK_OK && i < end; i++) {
        const study_query *query = &s->queries[j->first + i];
        size_t most = query->last - query->first;
        ranking r = {.items = lk_alloc(2 * most, sizeof *r.items), .ranks = lk_alloc(most, sizeof *r.ranks)};
        status = r.items && r.ranks ? LK_OK : lk_fail_memory("ranks");
        if (status == LK_OK) {
            r.at = r.items + most;
            r.n = study_relevant(s, j->first + i, r.items);
            if (j->scores)
                status = rank_by_scores(j, i, &r);
            else
                rank_among_best(j, i, &r);
        }
        if (status == LK_OK) status = judge_ranking(j, i, &r);
        if (status == LK_OK && j->extra && j->extra->nearest)
            j->extra->nearest[j->first + i] = j->scores      ? first_by_scores(s, j->scores + i * s->rows, query->row)
                                              : j->counts[i] ? j->best[i * j->depth]
                                                             : UINT32_MAX;
        free(r.items);
        free(r.ranks);
    }
    return status;
}

/* ---- blocks ---- */

static int inside(void *user, uint64_t id)
{
    const study *s = user;
    size_t row = study_row(s, id);
    return row != SIZE_MAX && !s->outside[row];
}

typedef struct reordering {
    const study *s;
    const float *vectors;
    lk_hit *hits; /* [n][width] */
    size_t *counts, width, first;
} reordering;

static uint64_t query_id(const study *s, size_t query)
{
    size_t row = s->queries[query].row;
    return row < s->rows ? s->ids[row] : UINT64_MAX;
}

static lk_status reorder_queries(void *arg, size_t begin, size_t end, int worker)
{
    reordering *r = arg;
    const lk_evaluate_options *options = r->s->options;
    lk_status status = LK_OK;
    (void)worker;
    for (size_t i = begin; status == LK_OK && i < end; i++)
        status = options->reorder(options->reorder_user, r->s->index, query_id(r->s, r->first + i),
                                  r->vectors + i * lk_flat_dim(r->s->index), r->hits + i * r->width, &r->counts[i]);
    return status;
}

/* study_best with scratch given: vectors [n][dim], hits [n][most + 1]. */
static lk_status best_of_block(const study *s, size_t first, size_t n, size_t most, float *vectors, lk_hit *hits,
                               uint32_t *rows, float *scores, size_t *counts)
{
    lk_status status = study_query_vectors(s, first, n, vectors);
    if (status == LK_OK)
        status = lk_flat_search(s->index, s->context, n, vectors, most + 1, s->outside ? inside : NULL, (void *)s, hits,
                                counts);
    if (status == LK_OK && s->options->reorder) {
        reordering r = {s, vectors, hits, counts, most + 1, first};
        status = lk_parallel_for(lk_context_pool(s->context), n, 1, reorder_queries, &r);
    }
    for (size_t i = 0; status == LK_OK && i < n; i++) {
        size_t kept = 0;
        for (size_t r = 0; r < counts[i] && kept < most; r++) {
            size_t row = study_row(s, hits[i * (most + 1) + r].id);
            if (row == s->queries[first + i].row || row == SIZE_MAX) continue; /* itself; of a later commit */
            if (scores) scores[i * most + kept] = hits[i * (most + 1) + r].score;
            rows[i * most + kept++] = (uint32_t)row;
        }
        counts[i] = kept;
    }
    return status;
}

lk_status study_best(const study *s, size_t first, size_t n, size_t most, uint32_t *rows, float *scores, size_t *counts)
{
    float *vectors = lk_alloc(n * lk_flat_dim(s->index), sizeof *vectors);
    lk_hit *hits = lk_alloc(n * (most + 1), sizeof *hits);
    lk_status status = vectors && hits ? best_of_block(s, first, n, most, vectors, hits, rows, scores, counts)
                                       : lk_fail_memory("results");
    free(vectors);
    free(hits);
    return status;
}

static void add_curves(lk_eval_curves *to, const lk_eval_curves *from, double factor)
{
    for (size_t i = 0; i < sizeof *to / sizeof(double); i++) ((double *)to)[i] += factor * ((const double *)from)[i];
}

static lk_status judge_blocks(judging *j, size_t block, float *vectors, float *scores, lk_hit *hits)
{
    const study *s = j->s;
    lk_eval_curves sum = {0};
    lk_status status = LK_OK;
    for (size_t first = 0; status == LK_OK && first < s->query_count; first += block) {
        size_t n = s->query_count - first < block ? s->query_count - first : block;
        j->first = first;
        if (scores) {
            status = study_query_vectors(s, first, n, vectors);
            if (status == LK_OK) status = lk_flat_scores(s->index, s->context, n, vectors, scores);
        } else {
            status = best_of_block(s, first, n, j->depth, vectors, hits, j->best, NULL, j->counts);
        }
        if (status == LK_OK) status = lk_parallel_for(lk_context_pool(s->context), n, 1, judge_queries, j);
        for (size_t i = 0; status == LK_OK && i < n; i++) add_curves(&sum, &j->curves[i], 1);
        lk_report_progress(s->context, "evaluating", first + n, s->query_count);
        if (status == LK_OK && s->context && lk_context_cancelled(s->context))
            status = lk_fail(LK_CANCELLED, "the evaluation was stopped");
    }
    if (s->query_count) add_curves(&j->out->curves, &sum, 1 / (double)s->query_count);
    return status;
}

lk_status study_judge(const study *s, const char *name, lk_judged *out, const study_extra *extra)
{
    const lk_evaluate_options *options = s->options;
    lk_status status = lk_judged_init(out, name, options->ks, options->n_ks, s->query_count);
    if (status != LK_OK) return status;
    size_t depth = options->depth, dim = lk_flat_dim(s->index), block = BLOCK;
    if (options->reorder && depth == 0) {
        lk_judged_free(out);
        return lk_fail(LK_INVALID, "re-ranking wants a depth: how many of the best are in its hands");
    }
    if (depth >= s->gallery) depth = options->reorder ? s->gallery : 0; /* everything is ranked */
    out->gallery = s->gallery;
    out->depth = depth;
    out->without = s->without;
    if (!depth && block > SCORE_BYTES / (s->rows * sizeof(float))) block = SCORE_BYTES / (s->rows * sizeof(float));
    if (block < 1) block = 1;
    judging *j = lk_alloc_zero(1, sizeof *j);
    float *vectors = lk_alloc(block * dim, sizeof *vectors),
          *scores = depth ? NULL : lk_alloc(block * s->rows, sizeof *scores);
    lk_hit *hits = depth ? lk_alloc(block * (depth + 1), sizeof *hits) : NULL;
    bool failed = !j || !vectors || (depth ? !hits : !scores);
    if (j) *j = (judging){.s = s, .out = out, .extra = extra, .depth = depth, .scores = scores};
    if (j && depth) {
        j->best = lk_alloc(block * depth, sizeof *j->best);
        j->counts = lk_alloc(block, sizeof *j->counts);
        failed |= !j->best || !j->counts;
    }
    if (s->revisited) {
        out->revisited = lk_alloc_zero(s->query_count * 3, (1 + options->n_ks) * sizeof *out->revisited);
        failed |= !out->revisited;
    }
    for (size_t q = 0; q < s->query_count; q++) failed |= !(out->ids[q] = strdup(s->queries[q].name));
    status = failed ? lk_fail_memory("evaluation") : judge_blocks(j, block, vectors, scores, hits);
    if (j) {
        free(j->best);
        free(j->counts);
    }
    free(j);
    free(vectors);
    free(scores);
    free(hits);
    if (status != LK_OK) lk_judged_free(out);
    return status;
}

/* ---- distributions ---- */

/* Which rows are right for a query: marks them with 1, junk, itself and what is outside with 2. */
static lk_status mark_rows(const study *s, size_t q, uint8_t *marks)
{
    const study_query *query = &s->queries[q];
    if (s->outside)
        for (size_t row = 0; row < s->rows; row++) marks[row] = s->outside[row] ? 2 : 0;
    else
        memset(marks, 0, s->rows);
    if (query->row != SIZE_MAX) marks[query->row] = 2;
    for (size_t i = query->first; i < query->last; i++)
        if (marks[s->truth[i].row] == 0) marks[s->truth[i].row] = s->truth[i].kind == TRUTH_JUNK ? 2 : 1;
    return LK_OK;
}

lk_status study_distribution_of(const study *s, study_distribution *out)
{
    *out = (study_distribution){.low = INFINITY, .high = -INFINITY};
    if (s->query_count == 0) return LK_OK;
    size_t sample = SAMPLE_SCORES / s->rows;
    if (sample < 1) sample = 1;
    if (sample > s->query_count) sample = s->query_count;
    if (sample > 2000) sample = 2000;
    float *vector = lk_alloc(lk_flat_dim(s->index), sizeof *vector), *scores = lk_alloc(s->rows, sizeof *scores);
    uint8_t *marks = lk_alloc(s->rows, 1);
    lk_status status = vector && scores && marks ? LK_OK : lk_fail_memory("distributions");
    double sums[2] = {0};
    for (int pass = 0; status == LK_OK && pass < 2; pass++) { /* first the range, then the bins */
        for (size_t i = 0; status == LK_OK && i < sample; i++) {
            size_t q = i * s->query_count / sample;
            status = study_query_vectors(s, q, 1, vector);
            if (status == LK_OK) status = lk_flat_scores(s->index, s->context, 1, vector, scores);
            if (status == LK_OK) status = mark_rows(s, q, marks);
            for (size_t row = 0; status == LK_OK && row < s->rows; row++) {
                double score = scores[row];
                if (marks[row] == 2 || !isfinite(score)) continue;
                if (pass == 0) {
                    out->low = score < out->low ? score : out->low;
                    out->high = score > out->high ? score : out->high;
                    continue;
                }
                double at = out->high > out->low ? (score - out->low) / (out->high - out->low) * STUDY_BINS : 0;
                size_t bin = at < STUDY_BINS ? (size_t)at : STUDY_BINS - 1;
                (marks[row] ? out->right : out->wrong)[bin] += 1;
                sums[!marks[row]] += 1;
            }
        }
    }
    for (size_t bin = 0; bin < STUDY_BINS; bin++) {
        out->right[bin] /= sums[0] > 0 ? sums[0] : 1;
        out->wrong[bin] /= sums[1] > 0 ? sums[1] : 1;
    }
    out->queries = sample;
    free(vector);
    free(scores);
    free(marks);
    return status;
}
