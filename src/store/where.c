/* Recursive descent: or -> and -> not -> test. */
#include "store/where.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_DEPTH = 64, MOST_PATTERN = 50000 /* bytes: more SQLite does not compare with */ };

enum { SHOWN = 400 }; /* bytes of a filter in a message, so that of a long one too it says where and what */

typedef struct parser {
    const char *text, *at; /* at: the token not yet taken */
    int depth;
} parser;

/* Columns of the table itself; any other name is a label. */
static const struct {
    const char *name, *column;
    bool numbers;
} columns[] = {{"id", "id", true},       {"path", "path", false},    {"bytes", "size", true},
               {"width", "width", true}, {"height", "height", true}, {"label", "label", false}};

static lk_status bad(const parser *p, const char *wanted)
{
    int most = lk_utf8_fit(p->text, SHOWN);
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
        if (!closed)
            return lk_fail(LK_INVALID, "the filter \"%.*s\": at \"%.*s\" a quote is not closed",
                           lk_utf8_fit(p->text, SHOWN), p->text, lk_utf8_fit(start, 20), start);
        return bad(p, what);
    }
    *out = text;
    return LK_OK;
}

static bool is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return end != text && !*end && !strpbrk(text, "xXnN"); /* neither hexadecimal nor NaN or infinity */
}

/* One value, taken over; of the tests with an operator the only one. */
static lk_status take_value(parser *p, lk_where *test)
{
    char *value;
    bool quoted;
    lk_status s = take_text(p, "a value", &value, &quoted);
    if (s != LK_OK) return s;
    if (!lk_grow((void **)&test->values, &test->capacity, test->count + 1, sizeof *test->values)) {
        free(value);
        return lk_fail_memory("filter");
    }
    test->values[test->count++] = (lk_where_value){value, !quoted && is_number(value)};
    return LK_OK;
}

/* (v, v, ...) */
static lk_status take_list(parser *p, lk_where *test)
{
    lk_status s;
    if (!take_sign(p, "(")) return bad(p, "(");
    do {
        s = take_value(p, test);
    } while (s == LK_OK && take_sign(p, ","));
    return s == LK_OK && !take_sign(p, ")") ? bad(p, ", or )") : s;
}

static lk_status take_test(parser *p, lk_where *test)
{
    static const char *const signs[][2] = {{"==", "="},  {"!=", "<>"}, {"<>", "<>"}, {"<=", "<="},
                                           {">=", ">="}, {"=", "="},   {"<", "<"},   {">", ">"}};
    if (take_word(p, "exists")) {
        test->op = "EXISTS";
        return LK_OK;
    }
    if (take_word(p, "in")) {
        test->op = "IN";
        return take_list(p, test);
    }
    if (take_word(p, "like")) test->op = "LIKE";
    for (size_t i = 0; !test->op && i < sizeof signs / sizeof *signs; i++)
        if (take_sign(p, signs[i][0])) test->op = signs[i][1];
    if (!test->op) return bad(p, "=, !=, <, <=, >, >=, in, like or exists");
    lk_status s = take_value(p, test);
    if (s == LK_OK && strcmp(test->op, "LIKE") == 0 && strlen(test->values[0].text) > MOST_PATTERN)
        s = lk_fail(LK_LIMIT, "the filter has a pattern of more than %d bytes", MOST_PATTERN);
    return s;
}

/* name <test> */
static lk_status comparison(parser *p, lk_where *out)
{
    char *name;
    bool quoted;
    lk_status s = take_text(p, "the name of a label", &name, &quoted);
    if (s != LK_OK) return s;
    out->name = name;
    for (size_t i = 0; !quoted && i < sizeof columns / sizeof *columns; i++) {
        if (strcmp(columns[i].name, name) != 0) continue;
        out->column = columns[i].column;
        out->numbers = columns[i].numbers;
    }
    return take_test(p, out);
}

static lk_status either(parser *p, lk_where *out);

static lk_status negation(parser *p, lk_where *out)
{
    lk_status s;
    if (++p->depth > MOST_DEPTH) return lk_fail(LK_LIMIT, "the filter is nested more than %d deep", MOST_DEPTH);
    if (take_word(p, "not")) {
        *out = (lk_where){.kind = LK_WHERE_NOT, .parts = lk_alloc_zero(1, sizeof *out->parts)};
        out->part_count = out->parts != NULL;
        s = out->parts ? negation(p, out->parts) : lk_fail_memory("filter");
    } else if (take_sign(p, "(")) {
        s = either(p, out);
        if (s == LK_OK && !take_sign(p, ")")) s = bad(p, ")");
    } else {
        s = comparison(p, out);
    }
    p->depth--;
    return s;
}

/* One part after another, as long as the word or the sign stands between them. A single one is itself. */
static lk_status parts(parser *p, lk_where_kind kind, lk_status (*part)(parser *, lk_where *), const char *word,
                       const char *sign, lk_where *out)
{
    lk_status s = part(p, out);
    size_t capacity = 0;
    while (s == LK_OK && (take_word(p, word) || take_sign(p, sign))) {
        if (!capacity) { /* the second one: what was the whole is a part now */
            lk_where *first = lk_alloc_zero(4, sizeof *first);
            if (!first) return lk_fail_memory("filter");
            *first = *out;
            *out = (lk_where){.kind = kind, .parts = first, .part_count = 1};
            capacity = 4;
        }
        if (!lk_grow((void **)&out->parts, &capacity, out->part_count + 1, sizeof *out->parts))
            return lk_fail_memory("filter");
        out->parts[out->part_count] = (lk_where){0};
        s = part(p, &out->parts[out->part_count++]);
    }
    return s;
}

static lk_status both(parser *p, lk_where *out)
{
    return parts(p, LK_WHERE_AND, negation, "and", "&&", out);
}

static lk_status either(parser *p, lk_where *out)
{
    return parts(p, LK_WHERE_OR, both, "or", "||", out);
}

lk_status lk_where_parse(const char *text, lk_where *out)
{
    *out = (lk_where){0};
    parser p = {.text = text, .at = text};
    if (!lk_utf8_valid(text)) return lk_fail(LK_INVALID, "the filter is not UTF-8");
    lk_status s = either(&p, out);
    skip_blanks(&p);
    if (s == LK_OK && *p.at) s = bad(&p, "and, or, or the end");
    if (s != LK_OK) lk_where_free(out);
    return s;
}

void lk_where_free(lk_where *where)
{
    for (size_t i = 0; i < where->part_count; i++) lk_where_free(&where->parts[i]);
    for (size_t i = 0; i < where->count; i++) free(where->values[i].text);
    free(where->parts);
    free(where->values);
    free(where->name);
    *where = (lk_where){0};
}
