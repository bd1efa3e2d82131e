/* Predicates over the catalog: "label in (coffee, tea) and year > 2020". The language is described in
 * include/likeness/collection.h at lk_collection_select. */
#ifndef LK_STORE_WHERE_H
#define LK_STORE_WHERE_H

#include <likeness/status.h>
#include <stddef.h>

/* A predicate as a condition of SQL over the table `images`. Everything the caller wrote is bound, nothing is pasted.
 */
typedef struct lk_where {
    char *sql;     /* with one ? for each value */
    char **values; /* [count], in order; numbers too (SQL casts them) */
    size_t count;
} lk_where;

/* LK_INVALID with the place where the text stops making sense; LK_LIMIT when it is nested too deeply. */
lk_status lk_where_parse(const char *text, lk_where *out);
void lk_where_free(lk_where *where);

#endif
