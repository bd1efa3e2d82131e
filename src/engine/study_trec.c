/* A study and the files of TREC: truth from qrels, the truth as qrels, the ranking as a run. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/study.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

lk_status study_truth_from_qrels(study *s, const lk_trec *qrels)
{
    study_names names = {0};
    study_pair *pairs = NULL;
    size_t count = 0, capacity = 0;
    lk_status status = study_names_of(s, &names);
    for (size_t i = 0; status == LK_OK && i < qrels->count; i++) {
        const lk_trec_row *line = &qrels->rows[i];
        size_t q = study_find_name(&names, line->query), r = study_find_name(&names, line->item);
        if (q == SIZE_MAX || r == SIZE_MAX) {
            status = lk_fail(LK_NOT_FOUND, "the qrels name %s, which is not an indexed picture of the collection",
                             q == SIZE_MAX ? line->query : line->item);
            break;
        }
        if (line->grade <= 0 || !s->asked[q] || q == r) continue;
        s->graded |= line->grade != 1;
        if (!lk_grow((void **)&pairs, &capacity, count + 1, sizeof *pairs))
            status = lk_fail_memory("truth");
        else
            pairs[count++] = (study_pair){(uint32_t)q, {(uint32_t)r, (float)line->grade, TRUTH_PLAIN}};
    }
    if (status == LK_OK) status = study_take_pairs(s, pairs, count, "qrels");
    free(pairs);
    study_names_free(&names);
    return status;
}

static int by_item(const void *a, const void *b)
{
    const lk_trec_row *x = a, *y = b;
    int order = strcmp(x->query, y->query);
    return order ? order : strcmp(x->item, y->item);
}

lk_status study_qrels(const study *s, lk_trec *out)
{
    *out = (lk_trec){0};
    size_t capacity = 0;
    for (size_t q = 0; q < s->query_count; q++) {
        size_t most = s->queries[q].last - s->queries[q].first;
        truth_item *items = lk_alloc(most, sizeof *items);
        size_t n = items ? study_relevant(s, q, items) : 0;
        if (!items || !lk_grow((void **)&out->rows, &capacity, out->count + n, sizeof *out->rows)) {
            free(items);
            lk_trec_free(out);
            return lk_fail_memory("qrels");
        }
        for (size_t i = 0; i < n; i++)
            if (items[i].kind != TRUTH_JUNK)
                out->rows[out->count++] = (lk_trec_row){s->queries[q].name, s->names[items[i].row], 0, items[i].grade};
        free(items);
    }
    if (out->count) qsort(out->rows, out->count, sizeof *out->rows, by_item);
    return LK_OK;
}

/* Text gathered for an atomic file, flushed in pieces so that long runs need no memory. */
typedef struct out_text {
    lk_atomic_file *file;
    char *bytes;
    size_t size, capacity;
} out_text;

static lk_status add_line(out_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static lk_status add_line(out_text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !lk_grow((void **)&t->bytes, &t->capacity, t->size + (size_t)n + 1, 1)) return lk_fail_memory("run");
    va_start(args, format);
    vsnprintf(t->bytes + t->size, (size_t)n + 1, format, args);
    va_end(args);
    t->size += (size_t)n;
    if (t->size < 1 << 20) return LK_OK;
    lk_status s = lk_atomic_write(t->file, t->bytes, t->size);
    t->size = 0;
    return s;
}

static lk_status close_text(out_text *t, lk_status s)
{
    if (s == LK_OK) s = lk_atomic_write(t->file, t->bytes, t->size);
    free(t->bytes);
    if (s == LK_OK) return lk_atomic_commit(t->file);
    lk_atomic_abandon(t->file);
    return s;
}

/* A name as a word of a TREC file. */
static lk_status check_name(const char *name)
{
    return name[0] && !strpbrk(name, " \t\r\n")
               ? LK_OK
               : lk_fail(LK_INVALID, "`%s` has white space: TREC files cannot name it", name);
}

enum { RUN_BATCH = 256 };

lk_status study_write_run(const study *s, const char *path, size_t depth)
{
    if (depth > s->gallery) depth = s->gallery;
    out_text text = {0};
    lk_status status = lk_atomic_open(path, &text.file);
    if (status != LK_OK) return status;
    uint32_t *rows = lk_alloc(RUN_BATCH, depth * sizeof *rows);
    float *scores = lk_alloc(RUN_BATCH, depth * sizeof *scores);
    size_t *counts = lk_alloc(RUN_BATCH, sizeof *counts);
    if (!rows || !scores || !counts) status = lk_fail_memory("run");
    bool lower = lk_flat_metric(s->index) == LK_L2;
    for (size_t first = 0; status == LK_OK && first < s->query_count; first += RUN_BATCH) {
        size_t n = s->query_count - first < RUN_BATCH ? s->query_count - first : RUN_BATCH;
        status = study_best(s, first, n, depth, rows, scores, counts);
        for (size_t i = 0; status == LK_OK && i < n; i++) {
            const char *query = s->queries[first + i].name;
            float last = INFINITY;
            status = check_name(query);
            for (size_t r = 0; status == LK_OK && r < counts[i]; r++) {
                const char *item = s->names[rows[i * depth + r]];
                float score = lower ? 0 - scores[i * depth + r] : scores[i * depth + r];
                last = score < last ? score : nextafterf(last, -INFINITY);
                status = check_name(item);
                if (status == LK_OK)
                    status = add_line(&text, "%s Q0 %s %zu %.9g likeness\n", query, item, r + 1, (double)last);
            }
        }
        lk_report_progress(s->context, "writing the run", first + n, s->query_count);
    }
    free(rows);
    free(scores);
    free(counts);
    return close_text(&text, status);
}

lk_status study_write_qrels(const study *s, const char *path)
{
    out_text text = {0};
    lk_status status = lk_atomic_open(path, &text.file);
    if (status != LK_OK) return status;
    for (size_t q = 0; status == LK_OK && q < s->query_count; q++) {
        truth_item *items = lk_alloc(s->queries[q].last - s->queries[q].first, sizeof *items);
        size_t n = items ? study_relevant(s, q, items) : 0;
        status = items ? check_name(s->queries[q].name) : lk_fail_memory("qrels");
        for (size_t i = 0; status == LK_OK && i < n; i++) {
            if (items[i].kind == TRUTH_JUNK) continue;
            status = check_name(s->names[items[i].row]);
            if (status == LK_OK)
                status = add_line(&text, "%s 0 %s %.9g\n", s->queries[q].name, s->names[items[i].row],
                                  (double)items[i].grade);
        }
        free(items);
    }
    return close_text(&text, status);
}
