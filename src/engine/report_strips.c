#include "engine/report_strips.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include <likeness/image.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STRIP = 12, BEST = 6, WORST = 12, CHANGED = 8, THUMBNAIL = 160, QUALITY = 82 };

lk_status strips_begin(strip_maker *m)
{
    if (!m->s) return LK_OK;
    m->wanted = lk_alloc_zero(m->s->rows, 1);
    m->wanted_queries = lk_alloc_zero(m->s->query_count, 1);
    if (!m->wanted || !m->wanted_queries) return lk_fail_memory("report");
    return study_names_of(m->s, &m->names);
}

void strips_end(strip_maker *m)
{
    study_names_free(&m->names);
    free(m->wanted);
    free(m->wanted_queries);
}

/* ---- one strip ---- */

static const char *label_of(const study *s, uint32_t label)
{
    return label == STUDY_NO_LABEL ? NULL : s->label_names[label];
}

/* A picture of the gallery, or an item known by name alone (row SIZE_MAX). mark: 1 right, 0 wrong, 2 junk. */
static json_t *item_json(strip_maker *m, size_t row, const char *name, double score, int mark)
{
    json_t *item = json_pack("{s:s, s:f, s:i}", "name", name, "score", score, "mark", mark);
    if (!m->s || row == SIZE_MAX) return item;
    const char *label = label_of(m->s, m->s->labels[row]), *path = m->s->paths[row];
    if (label) json_object_set_new(item, "label", json_string(label));
    if (path) {
        char file[48];
        const char *slash = strrchr(path, '/');
        snprintf(file, sizeof file, "pictures/%zu.webp", row);
        json_object_set_new(item, "picture", json_string(file));
        json_object_set_new(item, "file", json_string(slash ? slash + 1 : path));
        m->wanted[row] = 1;
    }
    return item;
}

static json_t *query_json(strip_maker *m, size_t q)
{
    const lk_judged *first = &m->evaluation->runs[0];
    if (!m->s) return json_pack("{s:s}", "name", first->ids[q]);
    const study_query *query = &m->s->queries[q];
    if (query->row != SIZE_MAX) return item_json(m, query->row, query->name, 0, 1);
    json_t *item = json_pack("{s:s}", "name", query->name);
    const char *label = label_of(m->s, query->label);
    if (label) json_object_set_new(item, "label", json_string(label));
    if (query->path) {
        char file[48];
        snprintf(file, sizeof file, "pictures/q%zu.webp", q);
        json_object_set_new(item, "picture", json_string(file));
        m->wanted_queries[q] = 1;
    }
    return item;
}

static int mark_of(const study *s, const truth_item *items, size_t n, size_t row)
{
    (void)s;
    for (size_t i = 0; i < n; i++)
        if (items[i].row == row) return items[i].kind == TRUTH_JUNK ? 2 : 1;
    return 0;
}

/* The study's own ranking of query q. */
static lk_status own_results(strip_maker *m, size_t q, json_t *out)
{
    const study *s = m->s;
    uint32_t rows[STRIP];
    float scores[STRIP];
    size_t count, most = s->queries[q].last - s->queries[q].first;
    truth_item *items = lk_alloc(most, sizeof *items);
    lk_status status = items ? study_best(s, q, 1, STRIP, rows, scores, &count) : lk_fail_memory("report");
    size_t n = status == LK_OK ? study_relevant(s, q, items) : 0;
    for (size_t r = 0; status == LK_OK && r < count; r++)
        json_array_append_new(
            out, item_json(m, rows[r], s->names[rows[r]], (double)scores[r], mark_of(s, items, n, rows[r])));
    free(items);
    return status;
}

static bool judged_relevant(const lk_trec *qrels, const char *query, const char *item)
{
    size_t begin, end;
    lk_trec_find(qrels, query, &begin, &end);
    for (size_t i = begin; i < end; i++)
        if (strcmp(qrels->rows[i].item, item) == 0) return qrels->rows[i].grade > 0;
    return false;
}

static void listed_results(strip_maker *m, const lk_trec *run, const char *query, json_t *out)
{
    size_t begin, end;
    lk_trec_find(run, query, &begin, &end);
    for (size_t i = begin; i < end && i < begin + STRIP; i++) {
        const lk_trec_row *row = &run->rows[i];
        size_t at = m->s ? study_find_name(&m->names, row->item) : SIZE_MAX;
        json_array_append_new(
            out, item_json(m, at, row->item, (double)row->score, judged_relevant(m->qrels, query, row->item)));
    }
}

static size_t find_query(const lk_judged *run, const char *id)
{
    for (size_t q = 0; q < run->queries; q++)
        if (strcmp(run->ids[q], id) == 0) return q;
    return SIZE_MAX;
}

/* Query q of the first run with the results of the runs [0, shown). */
static lk_status strip_json(strip_maker *m, size_t q, size_t shown, json_t *out)
{
    const lk_judged *first = &m->evaluation->runs[0];
    json_t *lists = json_array();
    lk_status status = LK_OK;
    for (size_t i = 0; status == LK_OK && i < shown; i++) {
        const lk_judged *run = &m->evaluation->runs[i];
        size_t at = i == 0 ? q : find_query(run, first->ids[q]);
        if (at == SIZE_MAX) continue;
        json_t *items = json_array();
        if (m->trec[i])
            listed_results(m, m->trec[i], first->ids[q], items);
        else
            status = own_results(m, at, items);
        json_array_append_new(lists,
                              json_pack("{s:s, s:f, s:f, s:o}", "run", run->name, "ap", run->values[at * run->columns],
                                        "mrr", run->values[at * run->columns + LK_EVAL_MRR], "items", items));
    }
    json_array_append_new(out, json_pack("{s:o, s:i, s:o}", "query", query_json(m, q), "relevant",
                                         (int)first->relevant[q], "lists", lists));
    return status;
}

/* ---- which queries ---- */

/* A query with what it is chosen by. */
typedef struct choice {
    double value;
    uint32_t relevant;
    size_t q;
} choice;

/* Highest value first; of equal ones the query with more to find says more. */
static int by_choice(const void *a, const void *b)
{
    const choice *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    if (x->relevant != y->relevant) return x->relevant < y->relevant ? 1 : -1;
    return (x->q > y->q) - (x->q < y->q);
}

static lk_status chosen_json(strip_maker *m, choice *choices, size_t n, size_t most, double above, size_t shown,
                             const char *name, json_t *out)
{
    json_t *strips = json_array();
    lk_status status = LK_OK;
    if (n) qsort(choices, n, sizeof *choices, by_choice);
    for (size_t i = 0; status == LK_OK && i < n && i < most && choices[i].value > above; i++)
        status = strip_json(m, choices[i].q, shown, strips);
    json_object_set_new(out, name, strips);
    return status;
}

/* Difference of AP of the second run to the first, per query of the first; those that it lacks are left out. */
static size_t changes(const lk_judged *a, const lk_judged *b, double sign, choice *out)
{
    size_t n = 0, guess = 0;
    for (size_t q = 0; q < a->queries; q++) {
        size_t at = guess < b->queries && strcmp(b->ids[guess], a->ids[q]) == 0 ? guess : find_query(b, a->ids[q]);
        if (at == SIZE_MAX) continue;
        guess = at + 1;
        out[n++] = (choice){sign * (b->values[at * b->columns] - a->values[q * a->columns]), a->relevant[q], q};
    }
    return n;
}

lk_status strips_json(strip_maker *m, json_t *out)
{
    const lk_judged *first = &m->evaluation->runs[0];
    choice *choices = lk_alloc(first->queries, sizeof *choices);
    lk_status s = choices ? LK_OK : lk_fail_memory("report");
    if (s != LK_OK) return s;
    for (int worst = 0; s == LK_OK && worst < 2; worst++) {
        for (size_t q = 0; q < first->queries; q++) {
            double ap = first->values[q * first->columns];
            choices[q] = (choice){worst ? -ap : ap, first->relevant[q], q};
        }
        s = chosen_json(m, choices, first->queries, worst ? WORST : BEST, -2, 1, worst ? "worst" : "best", out);
    }
    if (s == LK_OK && m->evaluation->n_runs > 1) {
        const lk_judged *second = &m->evaluation->runs[1];
        size_t n = changes(first, second, 1, choices);
        s = chosen_json(m, choices, n, CHANGED, 0, 2, "improved", out);
        n = changes(first, second, -1, choices);
        if (s == LK_OK) s = chosen_json(m, choices, n, CHANGED, 0, 2, "worsened", out);
    }
    free(choices);
    return s;
}

/* ---- thumbnails ---- */

typedef struct thumbnails {
    const strip_maker *m;
    lk_context *context;
    char *folder;
    size_t *places, count; /* rows, then rows + query for queries that are not in the gallery */
} thumbnails;

static lk_status write_thumbnail(const char *from, const char *to)
{
    lk_image_options options = lk_image_default_options();
    options.max_side = THUMBNAIL;
    lk_image image = {0};
    uint8_t *bytes = NULL;
    size_t size;
    lk_status s = lk_image_load(from, &options, &image);
    if (s == LK_OK) s = lk_image_encode(&image, LK_FORMAT_WEBP, QUALITY, &bytes, &size);
    if (s != LK_OK) { /* the page says that the picture is gone */
        lk_image_free(&image);
        return LK_OK;
    }
    s = lk_file_write_atomic(to, bytes, size);
    free(bytes);
    lk_image_free(&image);
    return s;
}

static lk_status write_thumbnails(void *arg, size_t begin, size_t end, int worker)
{
    thumbnails *t = arg;
    const study *s = t->m->s;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t place = t->places[i];
        char name[40];
        bool row = place < s->rows;
        snprintf(name, sizeof name, "pictures/%s%zu.webp", row ? "" : "q", row ? place : place - s->rows);
        char *path = lk_path_join(t->folder, name);
        lk_status status = path ? write_thumbnail(row ? s->paths[place] : s->queries[place - s->rows].path, path)
                                : lk_fail_memory("report");
        free(path);
        if (status != LK_OK) return status;
    }
    return LK_OK;
}

lk_status strips_write_pictures(strip_maker *m, lk_context *context, const char *folder)
{
    if (!m->s) return LK_OK;
    const study *s = m->s;
    char *pictures = lk_path_join(folder, "pictures");
    thumbnails t = {.m = m,
                    .context = context,
                    .folder = (char *)folder,
                    .places = lk_alloc(s->rows + s->query_count, sizeof *t.places)};
    lk_status status = pictures && t.places ? lk_make_dirs(pictures) : lk_fail_memory("report");
    for (size_t row = 0; status == LK_OK && row < s->rows; row++)
        if (m->wanted[row]) t.places[t.count++] = row;
    for (size_t q = 0; status == LK_OK && q < s->query_count; q++)
        if (m->wanted_queries[q]) t.places[t.count++] = s->rows + q;
    if (status == LK_OK) status = lk_parallel_for(lk_context_pool(context), t.count, 4, write_thumbnails, &t);
    free(pictures);
    free(t.places);
    return status;
}
