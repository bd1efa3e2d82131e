/* Collections out as plain files, and in again: vectors are handed over in rows, everything else is a table. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "engine/csv.h"
#include "engine/derive.h"
#include "engine/searcher.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMMIT_EVERY = 4096 };

static const char *const columns[] = {"id", "path", "size", "mtime_ns", "hash", "width", "height", "labels"};
enum { ID, PATH, SIZE, MTIME, HASH, WIDTH, HEIGHT, LABELS, COLUMNS };

/* ---- out ---- */

typedef struct writing {
    lk_atomic_file *file;
    const uint64_t *ids; /* [n], rising */
    size_t n, written;
} writing;

static lk_status write_text(lk_atomic_file *file, const char *text)
{
    return lk_atomic_write(file, text, strlen(text));
}

static lk_status write_quoted(lk_atomic_file *file, const char *text)
{
    lk_status s = write_text(file, "\"");
    while (s == LK_OK && *text) {
        size_t plain = strcspn(text, "\"");
        s = lk_atomic_write(file, text, plain);
        text += plain;
        if (s == LK_OK && *text++) s = write_text(file, "\"\"");
    }
    return s == LK_OK ? write_text(file, "\"") : s;
}

static lk_status write_row(void *user, const lk_record *record)
{
    writing *w = user;
    char numbers[160];
    if (w->written == w->n || (uint64_t)record->id != w->ids[w->written]) return LK_OK; /* it has no vector here */
    w->written++;
    snprintf(numbers, sizeof numbers, "%" PRId64 ",", record->id);
    lk_status s = write_text(w->file, numbers);
    if (s == LK_OK) s = write_quoted(w->file, record->path);
    snprintf(numbers, sizeof numbers, ",%" PRIu64 ",%" PRId64 ",%016" PRIx64 "%016" PRIx64 ",%" PRIu32 ",%" PRIu32 ",",
             record->size, record->mtime_ns, record->hash[1], record->hash[0], record->width, record->height);
    if (s == LK_OK) s = write_text(w->file, numbers);
    if (s == LK_OK) s = write_quoted(w->file, record->labels ? record->labels : "{}");
    return s == LK_OK ? write_text(w->file, "\n") : s;
}

lk_status lk_export_collection(lk_searcher *searcher, const char *csv, lk_vectors_fn rows, void *user)
{
    lk_searcher_view v = lk_searcher_use(searcher);
    writing w = {.n = lk_flat_count(v.index)};
    uint64_t *ids = NULL;
    float *vectors = NULL;
    lk_status s;
    LK_TRY(lk_searcher_vectors(v.index, &ids, &vectors));
    w.ids = ids;
    LK_TRY(lk_atomic_open(csv, &w.file));
    for (int i = 0; s == LK_OK && i < COLUMNS; i++) {
        s = write_text(w.file, columns[i]);
        if (s == LK_OK) s = write_text(w.file, i + 1 < COLUMNS ? "," : "\n");
    }
    if (s == LK_OK) s = lk_searcher_each(searcher, write_row, &w);
    if (s == LK_OK && w.written != w.n)
        s = lk_fail(LK_CONFLICT, "%s: pictures were removed meanwhile: export once more", lk_searcher_path(searcher));
    if (s == LK_OK) s = rows(user, w.n, lk_flat_dim(v.index), vectors);
    if (s != LK_OK) goto done;
    s = lk_atomic_commit(w.file);
    w.file = NULL;
done:
    lk_atomic_abandon(w.file);
    lk_searcher_give_back(&v);
    free(ids);
    free(vectors);
    return s;
}

/* ---- in ---- */

static lk_status number(const lk_csv *csv, size_t at, uint64_t *out)
{
    char *end;
    *out = at == SIZE_MAX || !*csv->fields[at] ? 0 : strtoull(csv->fields[at], &end, 10);
    if (at == SIZE_MAX || !*csv->fields[at] || !*end) return LK_OK;
    return lk_fail(LK_INVALID, "%s, line %zu: %s is no number", csv->path, csv->row_line, csv->fields[at]);
}

/* The present row as a record; its strings are the row's. */
static lk_status read_record(const lk_csv *csv, const size_t at[COLUMNS], lk_record *out)
{
    uint64_t size, mtime, width, height;
    lk_status s = LK_OK;
    LK_TRY(number(csv, at[SIZE], &size));
    LK_TRY(number(csv, at[MTIME], &mtime));
    LK_TRY(number(csv, at[WIDTH], &width));
    LK_TRY(number(csv, at[HEIGHT], &height));
    *out = (lk_record){.path = csv->fields[at[PATH]],
                       .size = size,
                       .mtime_ns = (int64_t)mtime,
                       .width = (uint32_t)width,
                       .height = (uint32_t)height};
    if (at[LABELS] != SIZE_MAX && *csv->fields[at[LABELS]]) out->labels = csv->fields[at[LABELS]];
    const char *hash = at[HASH] == SIZE_MAX ? "" : csv->fields[at[HASH]];
    if (*hash && (strlen(hash) != 32 || sscanf(hash, "%16" SCNx64 "%16" SCNx64, &out->hash[1], &out->hash[0]) != 2))
        s = lk_fail(LK_INVALID, "%s, line %zu: %s is no hash", csv->path, csv->row_line, hash);
done:
    return s;
}

static lk_status put_rows(lk_collection *into, lk_csv *csv, const lk_rows *rows)
{
    size_t at[COLUMNS];
    bool more;
    uint64_t row = 0;
    lk_status s;
    float *vector = lk_alloc(rows->dim, sizeof *vector);
    if (!vector) return lk_fail_memory("import");
    LK_TRY(lk_csv_next(csv, &more));
    for (int i = 0; i < COLUMNS; i++) at[i] = more ? lk_csv_column(csv, columns[i]) : SIZE_MAX;
    if (at[PATH] == SIZE_MAX) {
        s = lk_fail(LK_INVALID, "%s: has no column named path", csv->path);
        goto done;
    }
    for (;; row++) {
        lk_record record;
        LK_TRY(lk_csv_next(csv, &more));
        if (!more) break;
        if (row == rows->n) {
            s = lk_fail(LK_INVALID, "%s, line %zu: there are only %" PRIu64 " vectors", csv->path, csv->row_line,
                        rows->n);
            goto done;
        }
        LK_TRY(read_record(csv, at, &record));
        LK_TRY(rows->read(rows->user, row, 1, vector));
        LK_TRY(lk_fail_in(lk_collection_put(into, &record, vector, NULL), "%s, line %zu", csv->path, csv->row_line));
        if (row % COMMIT_EVERY == COMMIT_EVERY - 1) LK_TRY(lk_collection_commit(into));
    }
    if (row < rows->n)
        s = lk_fail(LK_INVALID, "%s: names %" PRIu64 " pictures, and there are %" PRIu64 " vectors", csv->path, row,
                    rows->n);
done:
    free(vector);
    return s;
}

lk_status lk_import_collection(lk_searcher *like, const char *csv, const lk_rows *rows, const char *path)
{
    size_t dim = lk_searcher_config(like).dim;
    lk_derived into = {0};
    lk_csv table = {0};
    lk_status s;
    if (rows->dim != dim)
        return lk_fail(LK_INVALID, "vectors of %zu components do not go into a collection of %zu", rows->dim, dim);
    LK_TRY(lk_csv_open(csv, &table));
    LK_TRY(lk_derived_begin(like, path, &into));
    LK_TRY(put_rows(into.collection, &table, rows));
    s = lk_derived_finish(&into);
done:
    lk_derived_free(&into);
    lk_csv_close(&table);
    return s;
}
