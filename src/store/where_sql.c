/* Predicates as SQL: over the rows of the table `images`, and as look-ups of single tests in the catalog's indexes. */
#include "store/catalog.h"
#include "store/where.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    FILE *sql;
    lk_where_sql *out;
} writer;

typedef enum column_kind { VALUE, NUMBER, TEXT } column_kind; /* of a label: any; columns have one type */

static lk_status bind(writer *w, const char *value)
{
    lk_where_sql *out = w->out;
    if (!lk_grow((void **)&out->values, &out->capacity, out->count + 1, sizeof *out->values))
        return lk_fail_memory("filter");
    out->values[out->count++] = value;
    return LK_OK;
}

/* ---- over the rows ---- */

/* What reads like a number, word for word as the catalog's indexes of such labels have it. */
static void write_reads_like_number(writer *w, const char *column)
{
    fprintf(w->sql, "%s GLOB '*[0-9]*' AND %s NOT GLOB '*[^-+.eE0-9]*'", column, column);
}

/* Numbers are compared as numbers with what is one or reads like one (labels from a CSV are texts). */
static void write_is_number(writer *w, const char *column, column_kind kind)
{
    if (kind != TEXT) fprintf(w->sql, "(typeof(%s) IN ('integer','real') OR ", column);
    fputs("(", w->sql);
    write_reads_like_number(w, column);
    fputs(kind != TEXT ? "))" : ")", w->sql);
}

/* "column <op> ?" for one value; texts as texts. A bare number also equals the same text, so that label=007 finds
 * "007". */
static lk_status write_value(writer *w, const char *column, column_kind kind, const char *op, lk_where_value value)
{
    bool equal = strcmp(op, "=") == 0 || strcmp(op, "<>") == 0;
    if (!value.number || strcmp(op, "LIKE") == 0) {
        fprintf(w->sql, kind == TEXT ? "%s %s ?" : "CAST(%s AS TEXT) %s ?", column, op);
        return bind(w, value.text);
    }
    if (kind == NUMBER) {
        fprintf(w->sql, "%s %s CAST(? AS NUMERIC)", column, op);
        return bind(w, value.text);
    }
    if (strcmp(op, "<>") == 0) fputs("NOT ", w->sql);
    fputs("((", w->sql);
    write_is_number(w, column, kind);
    fprintf(w->sql, " AND CAST(%s AS REAL) %s CAST(? AS REAL))", column, equal ? "=" : op);
    lk_status s = bind(w, value.text);
    if (equal) {
        fprintf(w->sql, kind == TEXT ? " OR %s = ?" : " OR CAST(%s AS TEXT) = ?", column);
        if (s == LK_OK) s = bind(w, value.text);
    }
    fputs(")", w->sql);
    return s;
}

typedef enum members { ALL, NUMBERS, TEXTS } members;

/* ?, ?, ... for these of the values. */
static lk_status write_members(writer *w, const char *placeholder, const lk_where *test, members which)
{
    lk_status s = LK_OK;
    size_t written = 0;
    for (size_t i = 0; s == LK_OK && i < test->count; i++) {
        if (which != ALL && test->values[i].number != (which == NUMBERS)) continue;
        fprintf(w->sql, "%s%s", written++ ? "," : "", placeholder);
        s = bind(w, test->values[i].text);
    }
    return s;
}

static size_t count_numbers(const lk_where *test)
{
    size_t n = 0;
    for (size_t i = 0; i < test->count; i++) n += test->values[i].number;
    return n;
}

/* What "= v or = v ..." would say, as lists of SQL, because a chain of many ors is too deep for it. */
static lk_status write_list(writer *w, const char *column, column_kind kind, const lk_where *test)
{
    size_t numbers = count_numbers(test);
    lk_status s;
    if (kind == NUMBER && numbers == test->count) {
        fprintf(w->sql, "%s IN (", column);
        s = write_members(w, "CAST(? AS NUMERIC)", test, ALL);
        fputs(")", w->sql);
        return s;
    }
    fprintf(w->sql, kind == TEXT ? "(%s IN (" : "(CAST(%s AS TEXT) IN (", column);
    s = write_members(w, "?", test, ALL);
    if (s == LK_OK && numbers) {
        fputs(") OR (", w->sql);
        write_is_number(w, column, kind);
        fprintf(w->sql, " AND CAST(%s AS REAL) IN (", column);
        s = write_members(w, "CAST(? AS REAL)", test, NUMBERS);
        fputs(")", w->sql);
    }
    fputs("))", w->sql);
    return s;
}

static lk_status write_test_of(writer *w, const char *column, column_kind kind, const lk_where *test, const char *op)
{
    return strcmp(op, "IN") == 0 ? write_list(w, column, kind, test)
                                 : write_value(w, column, kind, op, test->values[0]);
}

static lk_status write_column_test(writer *w, const lk_where *test)
{
    if (strcmp(test->op, "EXISTS") == 0) {
        fprintf(w->sql, "%s IS NOT NULL", test->column);
        return LK_OK;
    }
    fprintf(w->sql, strcmp(test->op, "<>") == 0 ? "(%s IS NULL OR " : "(%s IS NOT NULL AND ", test->column);
    lk_status s = write_test_of(w, test->column, test->numbers ? NUMBER : TEXT, test, test->op);
    fputs(")", w->sql);
    return s;
}

/* The values of one label of a picture: its own, or its members. The label is found by its key and not by a path of
 * JSON, because SQLite compares paths with the text as it is written, escapes and all; so the tables of labels, whose
 * names are keys too, and this say the same. */
#define IS_LIST "top.type IN ('array','object')"
#define VALUES_OF_LABEL                                                                                                \
    "(SELECT CASE WHEN " IS_LIST " THEN member.value ELSE top.value END AS value"                                      \
    " FROM json_each(" LK_SQL_LABELS("images") ") AS top"                                                              \
                                               " LEFT JOIN json_each(CASE WHEN " IS_LIST                               \
                                               " THEN top.value END) AS member WHERE top.key=?) AS each"

/* A label that is a list passes when one of its members does. "<>" is the opposite of "=": a picture without the label
 * passes, and one whose list has the value does not. */
static lk_status write_label_test(writer *w, const lk_where *test)
{
    bool differs = strcmp(test->op, "<>") == 0;
    fprintf(w->sql, "%sEXISTS(SELECT 1 FROM " VALUES_OF_LABEL " WHERE each.value IS NOT NULL", differs ? "NOT " : "");
    lk_status s = bind(w, test->name);
    if (s == LK_OK && strcmp(test->op, "EXISTS") != 0) {
        fputs(" AND ", w->sql);
        s = write_test_of(w, "each.value", VALUE, test, differs ? "=" : test->op);
    }
    fputs(")", w->sql);
    return s;
}

/* As shallow as it can be said: SQLite's parser bears a hundred open words and brackets. */
static lk_status write_condition(writer *w, const lk_where *where)
{
    lk_status s = LK_OK;
    if (where->kind == LK_WHERE_TEST) return where->column ? write_column_test(w, where) : write_label_test(w, where);
    if (where->kind == LK_WHERE_NOT) {
        if (where->parts->kind == LK_WHERE_NOT) return write_condition(w, where->parts->parts);
        fputs("NOT ", w->sql);
        return write_condition(w, where->parts);
    }
    fputs("(", w->sql);
    for (size_t i = 0; s == LK_OK && i < where->part_count; i++) {
        if (i) fputs(where->kind == LK_WHERE_AND ? " AND " : " OR ", w->sql);
        s = write_condition(w, &where->parts[i]);
    }
    fputs(")", w->sql);
    return s;
}

/* ---- look-ups ---- */

static bool reads_like_number(const char *text)
{
    return strpbrk(text, "0123456789") && strspn(text, "-+.eE0123456789") == strlen(text);
}

#define WANTED "CAST(column1 AS REAL)"
/* As far from a number may those be whose text is its text: SQLite writes 15 digits, which of the largest numbers read
 * as infinity. */
#define LESS "*(1-1e-14)"
#define MORE "*(1+1e-14)"
#define LARGE "1.79e308"

static bool is_numeric(const lk_where_value *value)
{
    return value->number || reads_like_number(value->text);
}

/* Values that read like numbers, among the labels that do: bare ones by number or by text, quoted ones by text. */
static lk_status write_numeric_values(writer *w, const lk_where *test)
{
    lk_status s = LK_OK;
    size_t written = 0;
    fputs("SELECT number FROM (VALUES", w->sql);
    for (size_t i = 0; s == LK_OK && i < test->count; i++) {
        if (!is_numeric(&test->values[i])) continue;
        fprintf(w->sql, "%s(?,%d)", written++ ? "," : "", test->values[i].number);
        s = bind(w, test->values[i].text);
    }
    fputs(") AS wanted CROSS JOIN label_values WHERE name=? AND ", w->sql);
    if (s == LK_OK) s = bind(w, test->name);
    write_reads_like_number(w, "value");
    fputs(" AND CAST(value AS REAL) BETWEEN min(" LARGE "," WANTED LESS "," WANTED MORE ")"
          " AND max(-" LARGE "," WANTED LESS "," WANTED MORE ")"
          " AND (CAST(value AS TEXT)=column1 OR (column2 AND CAST(value AS REAL)=" WANTED "))",
          w->sql);
    return s;
}

static lk_status begin_values(writer *w, const lk_where *test)
{
    fputs("SELECT number FROM label_values WHERE name=?", w->sql);
    return bind(w, test->name);
}

/* The distinct values of a label that pass: there are few of them where many pictures share one. */
static lk_status write_values(writer *w, const lk_where *test)
{
    bool among = strcmp(test->op, "=") == 0 || strcmp(test->op, "IN") == 0;
    if (among && count_numbers(test) == test->count) return write_numeric_values(w, test);
    lk_status s = begin_values(w, test);
    if (s != LK_OK || strcmp(test->op, "EXISTS") == 0) return s;
    fputs(" AND ", w->sql);
    if (!among && count_numbers(test) && strcmp(test->op, "LIKE") != 0) {
        write_reads_like_number(w, "value");
        fprintf(w->sql, " AND CAST(value AS REAL) %s CAST(? AS REAL)", test->op);
        return bind(w, test->values[0].text);
    }
    if (!among) {
        fprintf(w->sql, "CAST(value AS TEXT) %s ?", test->op);
        return bind(w, test->values[0].text);
    }
    fputs("value IN (", w->sql);
    s = write_members(w, "?", test, TEXTS);
    fputs(")", w->sql);
    bool numeric = false;
    for (size_t i = 0; i < test->count; i++) numeric |= is_numeric(&test->values[i]);
    if (s != LK_OK || !numeric) return s;
    fputs(" UNION ALL ", w->sql);
    return write_numeric_values(w, test);
}

static lk_status write_lookup(writer *w, const lk_where *test)
{
    if (test->column) {
        fputs("SELECT id FROM images WHERE state=0 AND ", w->sql);
        return write_column_test(w, test);
    }
    fputs("SELECT image FROM label_images WHERE value IN (", w->sql);
    lk_status s = write_values(w, test);
    fputs(")", w->sql);
    return s;
}

bool lk_where_is_indexed(const lk_where *test, bool tables)
{
    if (!test->column) return tables && strcmp(test->name, "label") != 0;
    return strcmp(test->op, "LIKE") != 0 && strcmp(test->op, "EXISTS") != 0;
}

/* ---- */

static lk_status write_all(const lk_where *where, lk_status (*write)(writer *, const lk_where *), lk_where_sql *out)
{
    size_t size;
    *out = (lk_where_sql){0};
    writer w = {.sql = open_memstream(&out->text, &size), .out = out};
    if (!w.sql) return lk_fail_memory("filter");
    lk_status s = write(&w, where);
    if (fclose(w.sql) != 0 && s == LK_OK) s = lk_fail_memory("filter");
    if (s != LK_OK) lk_where_sql_free(out);
    return s;
}

lk_status lk_where_condition(const lk_where *where, lk_where_sql *out)
{
    return write_all(where, write_condition, out);
}

lk_status lk_where_lookup(const lk_where *test, lk_where_sql *out)
{
    return write_all(test, write_lookup, out);
}

void lk_where_sql_free(lk_where_sql *sql)
{
    free(sql->text);
    free(sql->values);
    *sql = (lk_where_sql){0};
}
