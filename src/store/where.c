/* Recursive descent: or -> and -> not -> comparison, writing SQL as it goes. */
#include "store/where.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_DEPTH = 64 };

typedef struct parser {
    const char *text, *at; /* at: the token not yet taken */
    FILE *sql;
    lk_where *out;
    size_t capacity;
    int depth;
} parser;

typedef enum column_kind { VALUE, NUMBER, TEXT } column_kind; /* of a label: any; columns have one type */

/* Columns of the table itself; any other name is a label. They are compared as they are, so that SQLite can look into
 * its indexes instead of at every row. */
static const struct {
    const char *name, *column;
    column_kind kind;
} columns[] = {{"id", "id", NUMBER},       {"path", "path", TEXT},       {"bytes", "size", NUMBER},
               {"width", "width", NUMBER}, {"height", "height", NUMBER}, {"label", "label", TEXT}};

static lk_status bad(const parser *p, const char *wanted)
{
    int most = lk_utf8_fit(p->text, 400); /* of a long filter too the message says where and what */
    if (!*p->at) return lk_fail(LK_INVALID, "the filter \"%.*s\" ends where %s is wanted", most, p->text, wanted);
    return lk_fail(LK_INVALID, "the filter \"%.*s\": at \"%.*s\" %s is wanted", most, p->text, lk_utf8_fit(p->at, 20),
                   p->at, wanted);
}

static void skip_blanks(parser *p)
{
    while (isspace((unsigned char)*p->at)) p->at++;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("_-.:/@+", c)) || (unsigned char)c >= 0x80;
}

/* Takes a key word, in any case; false leaves everything as it is. */
static bool take_word(parser *p, const char *word)
{
    size_t n = strlen(word);
    skip_blanks(p);
    if (strncasecmp(p->at, word, n) != 0 || is_word(p->at[n])) return false;
    p->at += n;
    return true;
}

static bool take_sign(parser *p, const char *sign)
{
    skip_blanks(p);
    if (strncmp(p->at, sign, strlen(sign)) != 0) return false;
    p->at += strlen(sign);
    return true;
}

/* A bare word, or a text in '...' or "..." whose quote is doubled to stand for itself. malloc'ed. */
static lk_status take_text(parser *p, const char *what, char **out, bool *quoted)
{
    skip_blanks(p);
    *out = NULL;
    char quote = *p->at == '\'' || *p->at == '"' ? *p->at : 0;
    *quoted = quote != 0;
    size_t size;
    char *text = NULL;
    FILE *copy = open_memstream(&text, &size);
    if (!copy) return lk_fail_memory("filter");
    const char *start = p->at;
    if (quote) {
        p->at++;
        for (; *p->at && (*p->at != quote || p->at[1] == quote); p->at++) {
            fputc(*p->at, copy);
            if (*p->at == quote) p->at++;
        }
    } else {
        for (; is_word(*p->at); p->at++) fputc(*p->at, copy);
    }
    bool closed = !quote || *p->at == quote;
    if (quote && closed) p->at++;
    if (fclose(copy) != 0) {
        free(text);
        return lk_fail_memory("filter");
    }
    if (!closed || p->at == start) {
        free(text);
        if (!closed) return lk_fail(LK_INVALID, "the filter \"%s\": a quote is not closed", p->text);
        return bad(p, what);
    }
    *out = text;
    return LK_OK;
}

/* Hands the value over to the predicate. */
static lk_status bind_value(parser *p, char *value)
{
    if (!lk_grow((void **)&p->out->values, &p->capacity, p->out->count + 1, sizeof *p->out->values)) {
        free(value);
        return lk_fail_memory("filter");
    }
    p->out->values[p->out->count++] = value;
    return LK_OK;
}

static bool is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return end != text && !*end && !strpbrk(text, "xXnN"); /* neither hexadecimal nor NaN or infinity */
}

/* "v <op> ?" for one value. Numbers are compared as numbers with what is one or reads like one (labels from a CSV are
 * texts); texts as texts. A bare number also equals the same text, so that label=007 finds "007". */
static void write_is_number(parser *p, const char *column, column_kind kind)
{
    if (kind == TEXT) { /* word for word as the catalog's index of such labels has it */
        fprintf(p->sql, "(%s GLOB '*[0-9]*' AND %s NOT GLOB '*[^-+.eE0-9]*')", column, column);
        return;
    }
    fprintf(p->sql, "(typeof(%s) IN ('integer','real') OR (%s GLOB '*[0-9]*' AND %s NOT GLOB '*[^-+.eE0-9]*'))", column,
            column, column);
}

static lk_status write_value(parser *p, const char *column, column_kind kind, const char *op)
{
    char *value;
    bool quoted;
    lk_status s = take_text(p, "a value", &value, &quoted);
    if (s != LK_OK) return s;
    bool number = !quoted && is_number(value) && strcmp(op, "LIKE") != 0;
    bool equal = strcmp(op, "=") == 0 || strcmp(op, "<>") == 0;
    if (number && kind == NUMBER) {
        fprintf(p->sql, "%s %s CAST(? AS NUMERIC)", column, op);
        return bind_value(p, value);
    }
    if (number) {
        char *again = equal ? strdup(value) : NULL;
        if (equal && !again) {
            free(value);
            return lk_fail_memory("filter");
        }
        if (strcmp(op, "<>") == 0) fputs("NOT ", p->sql);
        fputs("((", p->sql);
        write_is_number(p, column, kind);
        fprintf(p->sql, " AND CAST(%s AS REAL) %s CAST(? AS REAL))", column, equal ? "=" : op);
        if (equal) fprintf(p->sql, kind == TEXT ? " OR %s = ?" : " OR CAST(%s AS TEXT) = ?", column);
        fputs(")", p->sql);
        s = bind_value(p, value);
        if (s == LK_OK && equal)
            s = bind_value(p, again);
        else
            free(again);
        return s;
    }
    fprintf(p->sql, kind == TEXT ? "%s %s ?" : "CAST(%s AS TEXT) %s ?", column, op);
    return bind_value(p, value);
}

/* ?, ?, ... for all values, or as numbers for those that are; hands them over. */
static lk_status write_members(parser *p, const char *placeholder, size_t count, char **values, const bool *chosen)
{
    size_t written = 0;
    for (size_t i = 0; i < count; i++) {
        if (chosen && !chosen[i]) continue;
        char *copy = strdup(values[i]);
        if (!copy) return lk_fail_memory("filter");
        lk_status s = bind_value(p, copy);
        if (s != LK_OK) return s;
        fprintf(p->sql, "%s%s", written++ ? "," : "", placeholder);
    }
    return LK_OK;
}

/* (v, v, ...): what "= v or = v ..." would say, as lists of SQL, because a chain of many ors is too deep for it. */
static lk_status write_list(parser *p, const char *column, column_kind kind)
{
    char **values = NULL;
    bool *numbers = NULL;
    size_t count = 0, number_count = 0, capacity = 0, flags = 0;
    lk_status s;
    if (!take_sign(p, "(")) return bad(p, "(");
    do {
        char *value;
        bool quoted;
        LK_TRY(take_text(p, "a value", &value, &quoted));
        if (!lk_grow((void **)&values, &capacity, count + 1, sizeof *values) ||
            !lk_grow((void **)&numbers, &flags, count + 1, sizeof *numbers)) {
            free(value);
            s = lk_fail_memory("filter");
            goto done;
        }
        numbers[count] = !quoted && is_number(value);
        number_count += numbers[count];
        values[count++] = value;
    } while (take_sign(p, ","));
    if (!take_sign(p, ")")) {
        s = bad(p, ", or )");
        goto done;
    }
    if (kind == NUMBER && number_count == count) {
        fprintf(p->sql, "%s IN (", column);
        LK_TRY(write_members(p, "CAST(? AS NUMERIC)", count, values, NULL));
        fputs(")", p->sql);
        goto done;
    }
    fprintf(p->sql, kind == TEXT ? "(%s IN (" : "(CAST(%s AS TEXT) IN (", column);
    LK_TRY(write_members(p, "?", count, values, NULL));
    if (number_count) {
        fputs(") OR (", p->sql);
        write_is_number(p, column, kind);
        fprintf(p->sql, " AND CAST(%s AS REAL) IN (", column);
        LK_TRY(write_members(p, "CAST(? AS REAL)", count, values, numbers));
        fputs(")", p->sql);
    }
    fputs("))", p->sql);
done:
    for (size_t i = 0; i < count; i++) free(values[i]);
    free(values);
    free(numbers);
    return s;
}

static lk_status write_test(parser *p, const char *column, column_kind kind)
{
    static const char *const signs[][2] = {{"==", "="},  {"!=", "<>"}, {"<>", "<>"}, {"<=", "<="},
                                           {">=", ">="}, {"=", "="},   {"<", "<"},   {">", ">"}};
    if (take_word(p, "in")) return write_list(p, column, kind);
    if (take_word(p, "like")) return write_value(p, column, kind, "LIKE");
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (take_sign(p, signs[i][0])) return write_value(p, column, kind, signs[i][1]);
    return bad(p, "=, !=, <, <=, >, >=, in, like or exists");
}

/* name <test>. A label that is a list passes when one of its members does. "<>" is the opposite of "=": a picture
 * without the label passes, and one whose list has the value does not. */
static lk_status comparison(parser *p)
{
    char *name, *path = NULL;
    bool quoted;
    lk_status s = take_text(p, "the name of a label", &name, &quoted);
    if (s != LK_OK) return s;
    const char *column = NULL;
    column_kind kind = VALUE;
    for (size_t i = 0; !quoted && i < sizeof columns / sizeof *columns; i++) {
        if (strcmp(columns[i].name, name) != 0) continue;
        column = columns[i].column;
        kind = columns[i].kind;
    }
    bool exists = take_word(p, "exists");
    if (column) {
        free(name);
        if (exists) {
            fprintf(p->sql, "%s IS NOT NULL", column);
            return LK_OK;
        }
        const char *before = p->at;
        bool differs = take_sign(p, "!=") || take_sign(p, "<>");
        p->at = before;
        fprintf(p->sql, differs ? "(%s IS NULL OR " : "(%s IS NOT NULL AND ", column);
        s = write_test(p, column, kind);
        fputs(")", p->sql);
        return s;
    }
    if (strpbrk(name, "\"\\") || asprintf(&path, "$.\"%s\"", name) < 0) {
        s = path ? LK_OK : lk_fail(LK_INVALID, "the filter \"%s\": a label cannot be called %s", p->text, name);
        free(name);
        return s;
    }
    free(name);
    bool differs = !exists && (take_sign(p, "!=") || take_sign(p, "<>"));
    fprintf(p->sql, "%sEXISTS(SELECT 1 FROM json_each(images.labels, ?) AS each WHERE each.value IS NOT NULL",
            differs ? "NOT " : "");
    s = bind_value(p, path);
    if (s == LK_OK && !exists) {
        fputs(" AND ", p->sql);
        s = differs ? write_value(p, "each.value", VALUE, "=") : write_test(p, "each.value", VALUE);
    }
    fputs(")", p->sql);
    return s;
}

static lk_status either(parser *p);

static lk_status negation(parser *p)
{
    lk_status s;
    if (++p->depth > MOST_DEPTH) return lk_fail(LK_LIMIT, "the filter is nested more than %d deep", MOST_DEPTH);
    if (take_word(p, "not")) {
        fputs("NOT ", p->sql);
        s = negation(p);
    } else if (take_sign(p, "(")) {
        fputs("(", p->sql);
        s = either(p);
        if (s == LK_OK && !take_sign(p, ")")) s = bad(p, ")");
        fputs(")", p->sql);
    } else {
        s = comparison(p);
    }
    p->depth--;
    return s;
}

static lk_status both(parser *p)
{
    lk_status s = negation(p);
    while (s == LK_OK && (take_word(p, "and") || take_sign(p, "&&"))) {
        fputs(" AND ", p->sql);
        s = negation(p);
    }
    return s;
}

static lk_status either(parser *p)
{
    lk_status s = both(p);
    while (s == LK_OK && (take_word(p, "or") || take_sign(p, "||"))) {
        fputs(" OR ", p->sql);
        s = both(p);
    }
    return s;
}

lk_status lk_where_parse(const char *text, lk_where *out)
{
    *out = (lk_where){0};
    size_t size;
    parser p = {.text = text, .at = text, .out = out};
    p.sql = open_memstream(&out->sql, &size);
    if (!p.sql) return lk_fail_memory("filter");
    lk_status s = either(&p);
    skip_blanks(&p);
    if (s == LK_OK && *p.at) s = bad(&p, "and, or, or the end");
    if (fclose(p.sql) != 0 && s == LK_OK) s = lk_fail_memory("filter");
    if (s != LK_OK) lk_where_free(out);
    return s;
}

void lk_where_free(lk_where *where)
{
    for (size_t i = 0; i < where->count; i++) free(where->values[i]);
    free(where->values);
    free(where->sql);
    *where = (lk_where){0};
}
