#include "engine/csv.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

lk_status lk_csv_open(const char *path, lk_csv *out)
{
    *out = (lk_csv){.line = 1};
    size_t size;
    lk_status s = lk_file_read(path, 0, &out->bytes, &size);
    if (s != LK_OK) return s;
    out->path = strdup(path);
    if (!out->path) {
        lk_csv_close(out);
        return lk_fail_memory(path);
    }
    out->next = (char *)out->bytes;
    out->end = out->next + size;
    if (memchr(out->next, 0, size)) {
        s = lk_fail(LK_CORRUPT, "%s: is not a text file", path);
        lk_csv_close(out);
        return s;
    }
    if (size >= 3 && memcmp(out->next, "\xef\xbb\xbf", 3) == 0) out->next += 3;
    return LK_OK;
}

void lk_csv_close(lk_csv *csv)
{
    free(csv->path);
    free(csv->bytes);
    free(csv->fields);
    *csv = (lk_csv){0};
}

/* Reads one field in place (what is written never runs ahead of what is read). *last: it ended its row. */
static lk_status read_field(lk_csv *csv, bool *last)
{
    char *p = csv->next, *to = p;
    if (!lk_grow((void **)&csv->fields, &csv->capacity, csv->count + 1, sizeof *csv->fields))
        return lk_fail_memory(csv->path);
    csv->fields[csv->count++] = p;
    if (p < csv->end && *p == '"') {
        for (p++;; p++) {
            if (p >= csv->end)
                return lk_fail(LK_CORRUPT, "%s: line %zu: a quoted field is never closed", csv->path, csv->row_line);
            if (*p == '\n') csv->line++;
            if (*p == '"') {
                if (p + 1 >= csv->end || p[1] != '"') break;
                p++;
            }
            *to++ = *p;
        }
        p++;
        if (p < csv->end && *p != ',' && *p != '\n' && *p != '\r')
            return lk_fail(LK_CORRUPT, "%s: line %zu: something follows the closing quote of a field", csv->path,
                           csv->line);
    } else {
        while (p < csv->end && *p != ',' && *p != '\n' && !(*p == '\r' && (p + 1 >= csv->end || p[1] == '\n'))) p++;
        to = p;
    }
    *last = true;
    if (p < csv->end && *p == ',') {
        *last = false;
        p++;
    } else {
        if (p < csv->end && *p == '\r') p++;
        if (p < csv->end && *p == '\n') {
            p++;
            csv->line++;
        }
    }
    csv->next = p;
    *to = 0; /* a separator, or the zero byte after the file's end */
    return LK_OK;
}

lk_status lk_csv_next(lk_csv *csv, bool *more)
{
    *more = false;
    do {
        if (csv->next >= csv->end) return LK_OK;
        csv->count = 0;
        csv->row_line = csv->line;
        bool last = false;
        while (!last) {
            lk_status s = read_field(csv, &last);
            if (s != LK_OK) return s;
        }
    } while (csv->count == 1 && csv->fields[0][0] == 0);
    if (csv->columns == 0) csv->columns = csv->count;
    if (csv->count != csv->columns)
        return lk_fail(LK_CORRUPT, "%s: line %zu: has %zu fields; the first line has %zu", csv->path, csv->row_line,
                       csv->count, csv->columns);
    *more = true;
    return LK_OK;
}

size_t lk_csv_column(const lk_csv *csv, const char *name)
{
    for (size_t i = 0; i < csv->count; i++)
        if (strcmp(csv->fields[i], name) == 0) return i;
    return SIZE_MAX;
}
