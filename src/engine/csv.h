/* Reading CSV files (RFC 4180): quoted fields, doubled quotes, commas and line breaks in quotes, CRLF, byte order mark.
 */
#ifndef LK_ENGINE_CSV_H
#define LK_ENGINE_CSV_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lk_csv {
    char *path;
    uint8_t *bytes;
    char *next, *end;
    size_t line, row_line; /* 1-based: where reading stands, where the present row began */
    char **fields;         /* [count] of the present row, NUL-terminated, valid until the next row */
    size_t count, capacity;
    size_t columns; /* of the first row; every row must have as many */
} lk_csv;

lk_status lk_csv_open(const char *path, lk_csv *out);
void lk_csv_close(lk_csv *csv);
/* Reads the next row; *more is false at the end. Empty lines are passed over. LK_CORRUPT with file and line. */
lk_status lk_csv_next(lk_csv *csv, bool *more);
/* Position of a name in the present row (the header), or SIZE_MAX. */
size_t lk_csv_column(const lk_csv *csv, const char *name);

#endif
