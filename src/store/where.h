/* Predicates over the catalog: "label in (coffee, tea) and year > 2020". The language is described in
 * include/likeness/collection.h at lk_collection_select. */
#ifndef LK_STORE_WHERE_H
#define LK_STORE_WHERE_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum lk_where_kind { LK_WHERE_TEST, LK_WHERE_AND, LK_WHERE_OR, LK_WHERE_NOT } lk_where_kind;

typedef struct lk_where_value {
    char *text;
    bool number; /* a bare word that reads like one */
} lk_where_value;

/* A predicate, as a tree. */
typedef struct lk_where {
    lk_where_kind kind;
    struct lk_where *parts; /* [part_count]: of and and or two at least, of not one */
    size_t part_count;
    /* LK_WHERE_TEST: name <op> values */
    char *name;
    const char *column; /* of the table of pictures; NULL = a label */
    bool numbers;       /* the column holds such, else texts; labels may be either */
    const char *op;     /* "=", "<>", "<", "<=", ">", ">=", "LIKE" with one value, "IN" with some, "EXISTS" with none */
    lk_where_value *values;
    size_t count, capacity;
} lk_where;

/* LK_INVALID with the place where the text stops making sense; LK_LIMIT when it is nested too deeply. */
lk_status lk_where_parse(const char *text, lk_where *out);
void lk_where_free(lk_where *where);

/* SQL. Everything the caller wrote is bound, nothing is pasted. */
typedef struct lk_where_sql {
    char *text;          /* with one ? for each value */
    const char **values; /* [count], in order; numbers too (SQL casts them). They belong to the predicate. */
    size_t count, capacity;
} lk_where_sql;

/* The predicate as a condition over the table `images`. */
lk_status lk_where_condition(const lk_where *where, lk_where_sql *out);
/* A query for the ids of the pictures with vectors that pass one test, by the tables of labels where it is one of a
 * label. Not for "<>". */
lk_status lk_where_lookup(const lk_where *test, lk_where_sql *out);
/* Whether an index answers lk_where_lookup; if not, it looks at every picture. tables: those of labels are there. */
bool lk_where_is_indexed(const lk_where *test, bool tables);
void lk_where_sql_free(lk_where_sql *sql);

#endif
