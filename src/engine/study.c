#include "engine/study.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "engine/csv.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const study_place *)a)->id, y = ((const study_place *)b)->id;
    return (x > y) - (x < y);
}

lk_status study_begin(study *s, lk_context *context, const lk_evaluate_options *options, const lk_flat *index)
{
    *s = (study){.context = context, .options = options, .index = index, .rows = lk_flat_count(index)};
    if (s->rows == 0) return lk_fail(LK_INVALID, "the collection is empty: index some pictures first");
    if (s->rows >= UINT32_MAX) return lk_fail(LK_LIMIT, "%zu vectors are more than can be evaluated at once", s->rows);
    s->ids = lk_alloc(s->rows, sizeof *s->ids);
    s->names = lk_alloc_zero(s->rows, sizeof *s->names);
    s->paths = lk_alloc_zero(s->rows, sizeof *s->paths);
    s->labels = lk_alloc(s->rows, sizeof *s->labels);
    s->asked = lk_alloc_zero(s->rows, 1);
    if (!s->ids || !s->names || !s->paths || !s->labels || !s->asked) return lk_fail_memory("gallery");
    memset(s->labels, 0xff, s->rows * sizeof *s->labels);
    s->gallery = s->rows;
    lk_flat_ids(index, s->ids);
    for (size_t row = 0; row < s->rows; row++)
        if (s->ids[row] >= s->id_limit) s->id_limit = s->ids[row] + 1;
    if (s->id_limit && s->id_limit <= 8 * (uint64_t)s->rows + 4096) {
        s->row_of_id = lk_alloc(s->id_limit, sizeof *s->row_of_id);
        if (!s->row_of_id) return lk_fail_memory("gallery");
        memset(s->row_of_id, 0xff, s->id_limit * sizeof *s->row_of_id);
        for (size_t row = 0; row < s->rows; row++) s->row_of_id[s->ids[row]] = (uint32_t)row;
        return LK_OK;
    }
    s->places = lk_alloc(s->rows, sizeof *s->places);
    if (!s->places) return lk_fail_memory("gallery");
    for (size_t row = 0; row < s->rows; row++) s->places[row] = (study_place){s->ids[row], row};
    qsort(s->places, s->rows, sizeof *s->places, by_id);
    return LK_OK;
}

void study_end(study *s)
{
    for (size_t row = 0; row < s->rows; row++) {
        if (s->names) free(s->names[row]);
        if (s->paths) free(s->paths[row]);
    }
    for (size_t i = 0; i < s->label_count; i++) free(s->label_names[i]);
    for (size_t q = 0; q < s->query_count; q++) {
        free(s->queries[q].name);
        free(s->queries[q].path);
    }
    free(s->ids);
    free(s->row_of_id);
    free(s->places);
    free(s->names);
    free(s->paths);
    free(s->labels);
    free(s->label_names);
    free(s->asked);
    free(s->outside);
    free(s->queries);
    free(s->truth);
    *s = (study){0};
}

size_t study_row(const study *s, uint64_t id)
{
    if (s->row_of_id) return id < s->id_limit && s->row_of_id[id] != UINT32_MAX ? s->row_of_id[id] : SIZE_MAX;
    study_place wanted = {id, 0}, *found = bsearch(&wanted, s->places, s->rows, sizeof wanted, by_id);
    return found ? found->row : SIZE_MAX;
}

/* A label with the place it belongs to. */
typedef struct labelled {
    const char *text;
    size_t place;
} labelled;

static int by_text(const void *a, const void *b)
{
    const labelled *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

lk_status study_number_labels(study *s, const char *const *texts, size_t n, uint32_t *out)
{
    labelled *sorted = lk_alloc(n, sizeof *sorted);
    if (!sorted) return lk_fail_memory("labels");
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        out[i] = STUDY_NO_LABEL;
        if (texts[i]) sorted[count++] = (labelled){texts[i], i};
    }
    if (count) qsort(sorted, count, sizeof *sorted, by_text);
    lk_status status = LK_OK;
    for (size_t i = 0; status == LK_OK && i < count; i++) {
        if (i == 0 || strcmp(sorted[i - 1].text, sorted[i].text) != 0) {
            char *copy = strdup(sorted[i].text);
            if (!copy ||
                !lk_grow((void **)&s->label_names, &s->label_capacity, s->label_count + 1, sizeof *s->label_names)) {
                free(copy);
                status = lk_fail_memory("labels");
                break;
            }
            s->label_names[s->label_count++] = copy;
        }
        out[sorted[i].place] = (uint32_t)(s->label_count - 1);
    }
    free(sorted);
    return status;
}

lk_status study_leave_out(study *s, size_t row)
{
    if (!s->outside && !(s->outside = lk_alloc_zero(s->rows, 1))) return lk_fail_memory("gallery");
    s->gallery -= !s->outside[row];
    s->outside[row] = 1;
    return LK_OK;
}

/* ---- names ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const study_name *)a)->text, ((const study_name *)b)->text);
}

static study_name *sorted_names(const study *s, char *const *texts, size_t *count)
{
    study_name *names = lk_alloc(s->rows, sizeof *names);
    *count = 0;
    for (size_t row = 0; names && row < s->rows; row++)
        if (texts[row]) names[(*count)++] = (study_name){texts[row], row};
    if (names && *count) qsort(names, *count, sizeof *names, by_name);
    return names;
}

lk_status study_names_of(const study *s, study_names *out)
{
    out->names = sorted_names(s, s->names, &out->name_count);
    out->paths = sorted_names(s, s->paths, &out->path_count);
    return out->names && out->paths ? LK_OK : lk_fail_memory("names");
}

void study_names_free(study_names *names)
{
    free(names->names);
    free(names->paths);
    *names = (study_names){0};
}

size_t study_find_name(const study_names *names, const char *name)
{
    study_name wanted = {name, 0}, *found = bsearch(&wanted, names->names, names->name_count, sizeof wanted, by_name);
    return found ? found->row : SIZE_MAX;
}

size_t study_find(const study_names *names, const char *folder, const char *field)
{
    size_t row = study_find_name(names, field);
    if (row == SIZE_MAX && strncmp(field, "id:", 3) == 0)
        row = study_find_name(names, field + 3); /* as `search` says */
    if (row != SIZE_MAX) return row;
    char *joined = lk_path_join(folder, field), *absolute = NULL;
    if (joined && lk_path_absolute(joined, &absolute) == LK_OK) {
        study_name wanted = {absolute, 0},
                   *found = bsearch(&wanted, names->paths, names->path_count, sizeof wanted, by_name);
        row = found ? found->row : SIZE_MAX;
    }
    free(joined);
    free(absolute);
    return row;
}

bool study_column_equals(const char *labels, const char *column, const char *value)
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

/* ---- truth ---- */

static lk_status add_query(study *s, study_query query, const char *name, const char *path)
{
    if (!lk_grow((void **)&s->queries, &s->query_capacity, s->query_count + 1, sizeof *s->queries))
        return lk_fail_memory("truth");
    query.name = strdup(name);
    query.path = path ? strdup(path) : NULL;
    s->queries[s->query_count++] = query;
    return query.name && (!path || query.path) ? LK_OK : lk_fail_memory("truth");
}

/* Rows by label, as one shared list: groups [label_count + 1] says where each label begins in it. */
static lk_status group_rows(study *s, size_t **groups)
{
    *groups = lk_alloc_zero(s->label_count + 2, sizeof **groups);
    s->truth = lk_alloc(s->rows, sizeof *s->truth);
    if (!*groups || !s->truth) return lk_fail_memory("truth");
    size_t *begins = *groups;
    for (size_t row = 0; row < s->rows; row++)
        if (s->labels[row] != STUDY_NO_LABEL) begins[s->labels[row] + 2]++;
    for (size_t i = 2; i < s->label_count + 2; i++) begins[i] += begins[i - 1];
    for (size_t row = 0; row < s->rows; row++) /* begins[l + 1] is where the next row of l goes */
        if (s->labels[row] != STUDY_NO_LABEL)
            s->truth[begins[s->labels[row] + 1]++] = (truth_item){(uint32_t)row, 1, TRUTH_PLAIN};
    s->by_label = true;
    return LK_OK;
}

/* Whether anything is left of [first, last) without the query itself and what is outside. */
static bool finds_something(const study *s, size_t first, size_t last, size_t self)
{
    for (size_t i = first; i < last; i++) {
        const truth_item *item = &s->truth[i];
        if (item->row != self && item->kind != TRUTH_JUNK && !(s->outside && s->outside[item->row])) return true;
    }
    return false;
}

lk_status study_truth_from_labels(study *s)
{
    size_t *groups;
    lk_status status = group_rows(s, &groups);
    for (size_t row = 0; status == LK_OK && row < s->rows; row++) {
        if (!s->asked[row]) continue;
        uint32_t label = s->labels[row];
        size_t first = label == STUDY_NO_LABEL ? 0 : groups[label],
               last = label == STUDY_NO_LABEL ? 0 : groups[label + 1];
        if (!finds_something(s, first, last, row))
            s->without++;
        else
            status = add_query(s, (study_query){.row = row, .first = first, .last = last, .label = label},
                               s->names[row], s->paths[row]);
    }
    free(groups);
    return status;
}

lk_status study_truth_for_vectors(study *s, size_t n, const uint32_t *labels, char *const *names, char *const *paths)
{
    size_t *groups;
    lk_status status = group_rows(s, &groups);
    for (size_t i = 0; status == LK_OK && i < n; i++) {
        size_t first = groups[labels[i]], last = groups[labels[i] + 1];
        char number[32];
        snprintf(number, sizeof number, "q%zu", i);
        if (!finds_something(s, first, last, SIZE_MAX))
            s->without++;
        else
            status = add_query(
                s, (study_query){.row = SIZE_MAX, .vector = i, .first = first, .last = last, .label = labels[i]},
                names && names[i] ? names[i] : number, paths ? paths[i] : NULL);
    }
    free(groups);
    return status;
}

static int by_query(const void *a, const void *b)
{
    const study_pair *x = a, *y = b;
    if (x->query != y->query) return x->query < y->query ? -1 : 1;
    return (x->item.row > y->item.row) - (x->item.row < y->item.row);
}

lk_status study_take_pairs(study *s, study_pair *pairs, size_t count, const char *path)
{
    if (count) qsort(pairs, count, sizeof *pairs, by_query);
    s->truth = lk_alloc(count, sizeof *s->truth);
    if (!s->truth) return lk_fail_memory("truth");
    size_t asked = 0;
    for (size_t row = 0; row < s->rows; row++) asked += s->asked[row];
    for (size_t begin = 0, end; begin < count; begin = end) {
        size_t first = s->truth_count, row = pairs[begin].query;
        for (end = begin; end < count && pairs[end].query == row; end++) {
            truth_item *last = s->truth_count > first ? &s->truth[s->truth_count - 1] : NULL;
            if (last && last->row == pairs[end].item.row) {
                if (last->grade != pairs[end].item.grade || last->kind != pairs[end].item.kind)
                    return lk_fail(LK_CORRUPT, "%s: %s stands twice under the query %s, and not the same", path,
                                   s->names[last->row], s->names[row]);
                continue;
            }
            s->truth[s->truth_count++] = pairs[end].item;
        }
        if (!finds_something(s, first, s->truth_count, row)) {
            s->truth_count = first;
            continue;
        }
        lk_status status =
            add_query(s, (study_query){.row = row, .first = first, .last = s->truth_count, .label = s->labels[row]},
                      s->names[row], s->paths[row]);
        if (status != LK_OK) return status;
    }
    s->without = asked - s->query_count;
    return LK_OK;
}

/* Columns of a truth CSV; SIZE_MAX when missing. */
typedef struct columns {
    size_t query, relevant, grade, difficulty;
} columns;

static lk_status read_pair(study *s, const lk_csv *csv, columns at, study_pair *out)
{
    static const char *const kinds[] = {"", "easy", "hard", "junk"};
    out->item.grade = 1;
    out->item.kind = TRUTH_PLAIN;
    if (at.grade != SIZE_MAX) {
        char *end, *text = csv->fields[at.grade];
        double grade = strtod(text, &end);
        if (end == text || *end || !isfinite(grade) || grade < 0 || grade > 1000)
            return lk_fail(LK_CORRUPT, "%s: line %zu: the grade %s is not a number from 0 to 1000", csv->path,
                           csv->row_line, text);
        out->item.grade = (float)grade;
        s->graded |= grade != 0 && grade != 1;
    }
    if (at.difficulty != SIZE_MAX) {
        size_t kind = 0;
        while (kind < 4 && strcmp(csv->fields[at.difficulty], kinds[kind]) != 0) kind++;
        if (kind == 4)
            return lk_fail(LK_CORRUPT, "%s: line %zu: the difficulty %s is none of easy, hard, junk", csv->path,
                           csv->row_line, csv->fields[at.difficulty]);
        out->item.kind = (truth_kind)kind;
        s->revisited |= kind == TRUTH_EASY || kind == TRUTH_HARD;
    }
    return LK_OK;
}

static lk_status read_truth(study *s, lk_csv *csv, const char *folder, const study_names *names, study_pair **pairs,
                            size_t *count)
{
    bool more;
    size_t capacity = 0;
    lk_status status = lk_csv_next(csv, &more);
    if (status != LK_OK) return status;
    columns at = {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX};
    if (more)
        at = (columns){lk_csv_column(csv, "query"), lk_csv_column(csv, "relevant"), lk_csv_column(csv, "grade"),
                       lk_csv_column(csv, "difficulty")};
    if (at.query == SIZE_MAX || at.relevant == SIZE_MAX)
        return lk_fail(LK_CORRUPT,
                       "%s: the first line must be `query,relevant`, with `grade` and `difficulty` if wanted",
                       csv->path);
    for (;;) {
        status = lk_csv_next(csv, &more);
        if (status != LK_OK || !more) return status;
        size_t q = study_find(names, folder, csv->fields[at.query]),
               r = study_find(names, folder, csv->fields[at.relevant]);
        if (q == SIZE_MAX || r == SIZE_MAX) /* a missing picture would silently flatter the figures */
            return lk_fail(LK_NOT_FOUND, "%s: line %zu: %s is not an indexed picture of the collection", csv->path,
                           csv->row_line, csv->fields[q == SIZE_MAX ? at.query : at.relevant]);
        study_pair one = {.query = (uint32_t)q, .item.row = (uint32_t)r};
        status = read_pair(s, csv, at, &one);
        if (status != LK_OK) return status;
        if (!s->asked[q] || q == r || (one.item.grade == 0 && one.item.kind != TRUTH_JUNK)) continue;
        if (!lk_grow((void **)pairs, &capacity, *count + 1, sizeof **pairs)) return lk_fail_memory("truth");
        (*pairs)[(*count)++] = one;
    }
}

lk_status study_truth_from_csv(study *s, const char *path)
{
    lk_csv csv;
    lk_status status = lk_csv_open(path, &csv);
    if (status != LK_OK) return status;
    study_pair *pairs = NULL;
    study_names names = {0};
    size_t count = 0;
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    if (folder) {
        if (slash)
            slash[slash == folder ? 1 : 0] = 0;
        else
            strcpy(folder, ".");
        status = study_names_of(s, &names);
        if (status == LK_OK) status = read_truth(s, &csv, folder, &names, &pairs, &count);
        if (status == LK_OK) status = study_take_pairs(s, pairs, count, path);
    } else {
        status = lk_fail_memory(path);
    }
    study_names_free(&names);
    free(pairs);
    free(folder);
    lk_csv_close(&csv);
    return status;
}

size_t study_relevant(const study *s, size_t q, truth_item *items)
{
    const study_query *query = &s->queries[q];
    size_t n = 0;
    for (size_t i = query->first; i < query->last; i++) {
        const truth_item *item = &s->truth[i];
        if (item->row != query->row && !(s->outside && s->outside[item->row])) items[n++] = *item;
    }
    return n;
}

lk_status study_query_vectors(const study *s, size_t first, size_t n, float *out)
{
    size_t dim = lk_flat_dim(s->index);
    for (size_t i = 0; i < n; i++) {
        const study_query *query = &s->queries[first + i];
        if (query->row == SIZE_MAX) {
            memcpy(out + i * dim, s->query_vectors + query->vector * dim, dim * sizeof *out);
            continue;
        }
        lk_status status = lk_flat_vector(s->index, s->ids[query->row], out + i * dim);
        if (status != LK_OK) return status;
    }
    return LK_OK;
}
