/* One system's ranking, judged: room, means, comparison, CSV. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include <likeness/eval.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

lk_status lk_judged_init(lk_judged *judged, const char *name, const uint32_t *ks, size_t n_ks, size_t queries)
{
    *judged = (lk_judged){.n_ks = n_ks, .queries = queries};
    if (n_ks > LK_EVAL_MAX_KS)
        return lk_fail(LK_INVALID, "%zu cut-offs are more than the %d possible", n_ks, LK_EVAL_MAX_KS);
    memcpy(judged->ks, ks, n_ks * sizeof *ks);
    judged->columns = lk_eval_columns(n_ks);
    judged->name = strdup(name);
    judged->ids = lk_alloc_zero(queries, sizeof *judged->ids);
    judged->values = lk_alloc_zero(queries, judged->columns * sizeof *judged->values);
    judged->relevant = lk_alloc_zero(queries, sizeof *judged->relevant);
    judged->means = lk_alloc_zero(judged->columns, sizeof *judged->means);
    if (judged->name && judged->ids && judged->values && judged->relevant && judged->means) return LK_OK;
    lk_judged_free(judged);
    return lk_fail_memory("metrics");
}

void lk_judged_free(lk_judged *judged)
{
    if (!judged) return;
    for (size_t q = 0; judged->ids && q < judged->queries; q++) free(judged->ids[q]);
    free(judged->ids);
    free(judged->name);
    free(judged->values);
    free(judged->relevant);
    free(judged->means);
    free(judged->revisited);
    *judged = (lk_judged){0};
}

lk_status lk_judged_finish(lk_context *context, lk_judged *judged, double level, uint32_t resamples, uint64_t seed)
{
    if (judged->queries == 0) return LK_OK; /* all means are 0 */
    return lk_eval_intervals(context, judged->values, judged->queries, judged->columns, level, resamples, seed,
                             judged->means);
}

double lk_judged_revisited(const lk_judged *judged, size_t setup, size_t column)
{
    double sum = 0;
    size_t n = 0, width = 1 + judged->n_ks;
    for (size_t q = 0; judged->revisited && q < judged->queries; q++) {
        double value = judged->revisited[(q * 3 + setup) * width + column];
        if (isnan(value)) continue;
        sum += value;
        n++;
    }
    return n ? sum / (double)n : 0;
}

/* A query with its place. */
typedef struct place {
    const char *id;
    size_t row;
} place;

static int by_id(const void *a, const void *b)
{
    return strcmp(((const place *)a)->id, ((const place *)b)->id);
}

static place *sorted_places(const lk_judged *judged)
{
    place *places = lk_alloc(judged->queries, sizeof *places);
    for (size_t q = 0; places && q < judged->queries; q++) places[q] = (place){judged->ids[q], q};
    if (places) qsort(places, judged->queries, sizeof *places, by_id);
    return places;
}

lk_status lk_judged_compare(lk_context *context, const lk_judged *a, const lk_judged *b, size_t column, double level,
                            uint32_t resamples, uint64_t seed, lk_comparison *out)
{
    place *left = sorted_places(a), *right = sorted_places(b);
    double *x = lk_alloc(a->queries, sizeof *x), *y = lk_alloc(a->queries, sizeof *y);
    lk_status s = left && right && x && y ? LK_OK : lk_fail_memory("comparison");
    size_t n = 0;
    for (size_t i = 0, j = 0; s == LK_OK && i < a->queries && j < b->queries;) {
        int order = strcmp(left[i].id, right[j].id);
        if (order == 0) {
            x[n] = a->values[left[i].row * a->columns + column];
            y[n++] = b->values[right[j].row * b->columns + column];
        }
        i += order <= 0;
        j += order >= 0;
    }
    if (s == LK_OK && n == 0) s = lk_fail(LK_INVALID, "%s and %s have no query in common", a->name, b->name);
    if (s == LK_OK) s = lk_eval_compare(context, x, y, n, level, resamples, seed, out);
    free(left);
    free(right);
    free(x);
    free(y);
    return s;
}

/* A field of a CSV: quoted when it holds a comma, a quote or a line break. */
static void write_field(FILE *file, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"') fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

static void write_queries(const lk_judged *judged, bool named, FILE *file)
{
    for (size_t q = 0; q < judged->queries; q++) {
        if (named) {
            write_field(file, judged->name);
            fputc(',', file);
        }
        write_field(file, judged->ids[q]);
        fprintf(file, ",%u", judged->relevant[q]);
        for (size_t c = 0; c < judged->columns; c++) fprintf(file, ",%.15g", judged->values[q * judged->columns + c]);
        fputc('\n', file);
    }
}

lk_status lk_judged_write_csv(const lk_judged *runs, size_t n, const char *path)
{
    char *bytes = NULL, name[32];
    size_t size = 0;
    FILE *file = open_memstream(&bytes, &size);
    if (!file) return lk_fail_memory(path);
    fputs(n > 1 ? "run,query,relevant" : "query,relevant", file);
    for (size_t c = 0; n && c < runs->columns; c++) {
        lk_eval_column_name(c, runs->ks, runs->n_ks, name);
        fprintf(file, ",%s", name);
    }
    fputc('\n', file);
    for (size_t i = 0; i < n; i++) write_queries(&runs[i], n > 1, file);
    lk_status s = fclose(file) == 0 ? lk_file_write_atomic(path, bytes, size) : lk_fail_memory(path);
    free(bytes);
    return s;
}
