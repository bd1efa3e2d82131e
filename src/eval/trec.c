/* Runs and qrels of TREC: reading, and judging a run. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include <likeness/eval.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static int by_item(const void *a, const void *b)
{
    const lk_trec_row *x = a, *y = b;
    int order = strcmp(x->query, y->query);
    return order ? order : strcmp(x->item, y->item);
}

static int by_rank(const void *a, const void *b)
{
    const lk_trec_row *x = a, *y = b;
    int order = strcmp(x->query, y->query);
    if (order) return order;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return strcmp(y->item, x->item);
}

void lk_trec_free(lk_trec *trec)
{
    if (!trec) return;
    free(trec->rows);
    free(trec->tag);
    free(trec->bytes);
    *trec = (lk_trec){0};
}

/* Splits a line at white space into at most `most` fields, in place; returns how many there are (most + 1 for more). */
static size_t split(char *line, char **fields, size_t most)
{
    size_t n = 0;
    for (char *save = NULL, *word = strtok_r(line, " \t\r", &save); word; word = strtok_r(NULL, " \t\r", &save)) {
        if (n == most) return most + 1;
        fields[n++] = word;
    }
    return n;
}

static lk_status take_line(lk_trec *out, size_t *capacity, const char *path, size_t number, char *line, bool run)
{
    char *fields[6], *end;
    size_t wanted = run ? 6 : 4, n = split(line, fields, wanted);
    if (n == 0) return LK_OK;
    if (n != wanted)
        return lk_fail(LK_CORRUPT, "%s: line %zu: %zu columns with white space between are wanted (%s)", path, number,
                       wanted, run ? "query Q0 item rank score tag" : "query 0 item grade");
    const char *text = fields[run ? 4 : 3];
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return lk_fail(LK_CORRUPT, "%s: line %zu: %s is not a number", path, number, text);
    if (!lk_grow((void **)&out->rows, capacity, out->count + 1, sizeof *out->rows)) return lk_fail_memory(path);
    out->rows[out->count++] = (lk_trec_row){fields[0], fields[2], run ? (float)value : 0, run ? 0 : value};
    if (run && !out->tag && !(out->tag = strdup(fields[5]))) return lk_fail_memory(path);
    return LK_OK;
}

/* An item twice under one query is refused, but a judgement that is merely repeated is not. */
static lk_status drop_repeats(lk_trec *trec, const char *path, bool run)
{
    size_t kept = 0;
    for (size_t i = 0; i < trec->count; i++) {
        lk_trec_row *row = &trec->rows[i];
        if (i && by_item(&trec->rows[i - 1], row) == 0) {
            if (run || trec->rows[i - 1].grade != row->grade)
                return lk_fail(LK_CORRUPT, "%s: %s stands twice under query %s%s", path, row->item, row->query,
                               run ? "" : " with different grades");
            continue;
        }
        trec->rows[kept++] = *row;
    }
    trec->count = kept;
    return LK_OK;
}

static lk_status read_file(const char *path, bool run, lk_trec *out)
{
    *out = (lk_trec){0};
    size_t size, capacity = 0, number = 0;
    lk_status s = lk_file_read(path, 0, (uint8_t **)&out->bytes, &size);
    if (s != LK_OK) return s;
    if (memchr(out->bytes, 0, size)) s = lk_fail(LK_CORRUPT, "%s: is not a text file", path);
    for (char *line = out->bytes, *next; s == LK_OK && line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        s = take_line(out, &capacity, path, ++number, line, run);
    }
    if (s == LK_OK && out->count) {
        qsort(out->rows, out->count, sizeof *out->rows, by_item);
        s = drop_repeats(out, path, run);
    }
    if (s == LK_OK && run && out->count) qsort(out->rows, out->count, sizeof *out->rows, by_rank);
    if (s != LK_OK) lk_trec_free(out);
    return s;
}

lk_status lk_trec_read_run(const char *path, lk_trec *out)
{
    return read_file(path, true, out);
}

lk_status lk_trec_read_qrels(const char *path, lk_trec *out)
{
    return read_file(path, false, out);
}

static size_t end_of_query(const lk_trec *trec, size_t begin)
{
    size_t end = begin;
    while (end < trec->count && strcmp(trec->rows[begin].query, trec->rows[end].query) == 0) end++;
    return end;
}

void lk_trec_find(const lk_trec *trec, const char *query, size_t *begin, size_t *end)
{
    size_t low = 0, high = trec->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(trec->rows[middle].query, query) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *begin = *end = low;
    if (low < trec->count && strcmp(trec->rows[low].query, query) == 0) *end = end_of_query(trec, low);
}

static int falling(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Scratch for one query: as long as the longest of qrels. */
typedef struct scratch {
    uint64_t *ranks;
    double *grades, *ideal;
} scratch;

/* Judges rows [run_begin, run_end) of the run against rows [begin, end) of qrels as query q of *out. */
static lk_status judge_query(const lk_trec *qrels, size_t begin, size_t end, const lk_trec *run, size_t run_begin,
                             size_t run_end, scratch *work, size_t q, lk_judged *out)
{
    size_t relevant = 0, found = 0;
    for (size_t i = begin; i < end; i++)
        if (qrels->rows[i].grade > 0) work->ideal[relevant++] = qrels->rows[i].grade;
    qsort(work->ideal, relevant, sizeof *work->ideal, falling);
    for (size_t i = run_begin; i < run_end; i++) {
        lk_trec_row wanted = {qrels->rows[begin].query, run->rows[i].item, 0, 0};
        const lk_trec_row *row = bsearch(&wanted, qrels->rows + begin, end - begin, sizeof wanted, by_item);
        if (!row || row->grade <= 0) continue;
        work->ranks[found] = i - run_begin + 1;
        work->grades[found++] = row->grade;
    }
    out->relevant[q] = (uint32_t)relevant;
    lk_status s = lk_eval_query(work->ranks, work->grades, found, relevant, work->ideal, out->ks, out->n_ks,
                                out->values + q * out->columns);
    if (s != LK_OK) return s;
    lk_eval_curves one;
    lk_eval_curves_of(work->ranks, found, relevant, &one);
    for (size_t i = 0; i < sizeof one / sizeof(double); i++)
        ((double *)&out->curves)[i] += ((double *)&one)[i] / (double)out->queries;
    return LK_OK;
}

/* Calls for each query of qrels; counts when out is NULL. */
static lk_status judge_all(const lk_trec *qrels, const lk_trec *run, scratch *work, lk_judged *out, size_t *judged,
                           uint64_t *without, size_t *longest)
{
    *judged = *longest = 0;
    *without = 0;
    for (size_t begin = 0, end; begin < qrels->count; begin = end) {
        bool something = false;
        end = end_of_query(qrels, begin);
        for (size_t i = begin; i < end; i++) something |= qrels->rows[i].grade > 0;
        *without += !something;
        *longest = end - begin > *longest ? end - begin : *longest;
        if (!something) continue;
        if (out) {
            size_t run_begin, run_end;
            lk_trec_find(run, qrels->rows[begin].query, &run_begin, &run_end);
            out->missing += run_begin == run_end;
            if (!(out->ids[*judged] = strdup(qrels->rows[begin].query))) return lk_fail_memory("metrics");
            lk_status s = judge_query(qrels, begin, end, run, run_begin, run_end, work, *judged, out);
            if (s != LK_OK) return s;
        }
        ++*judged;
    }
    return LK_OK;
}

lk_status lk_trec_judge(const lk_trec *qrels, const lk_trec *run, const char *name, const uint32_t *ks, size_t n_ks,
                        lk_judged *out)
{
    size_t queries, longest;
    uint64_t without;
    scratch work = {0};
    *out = (lk_judged){0};
    judge_all(qrels, run, NULL, NULL, &queries, &without, &longest);
    lk_status s;
    LK_TRY(lk_judged_init(out, name, ks, n_ks, queries));
    out->without = without;
    work = (scratch){lk_alloc(longest, sizeof *work.ranks), lk_alloc(longest, sizeof *work.grades),
                     lk_alloc(longest, sizeof *work.ideal)};
    if (!work.ranks || !work.grades || !work.ideal) {
        s = lk_fail_memory("metrics");
        goto done;
    }
    LK_TRY(judge_all(qrels, run, &work, out, &queries, &without, &longest));
    for (size_t begin = 0, end; begin < run->count; begin = end) {
        size_t known, known_end;
        end = end_of_query(run, begin);
        lk_trec_find(qrels, run->rows[begin].query, &known, &known_end);
        out->unknown += known == known_end;
    }
done:
    free(work.ranks);
    free(work.grades);
    free(work.ideal);
    if (s != LK_OK) lk_judged_free(out);
    return s;
}
