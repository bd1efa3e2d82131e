/* Which pictures satisfy a predicate, as a set of ids. */
#include "store/select.h"
#include "store/collection.h"
#include "store/where.h"

#include "base/error.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lk_id_set {
    uint8_t *bits; /* bit i: id i */
    size_t bytes;
    size_t count;
};

void lk_id_set_free(lk_id_set *set)
{
    if (!set) return;
    free(set->bits);
    free(set);
}

size_t lk_id_set_count(const lk_id_set *set)
{
    return set->count;
}

int lk_id_set_has(void *set, uint64_t id)
{
    const lk_id_set *s = set;
    return id / 8 < s->bytes && (s->bits[id / 8] >> (id % 8) & 1);
}

bool lk_id_set_next(const lk_id_set *set, uint64_t *id)
{
    for (uint64_t i = *id; i < (uint64_t)set->bytes * 8; i++) {
        if (i % 8 == 0 && set->bits[i / 8] == 0) {
            i += 7;
        } else if (set->bits[i / 8] >> (i % 8) & 1) {
            *id = i;
            return true;
        }
    }
    return false;
}

static lk_status add(lk_id_set *set, uint64_t id)
{
    size_t before = set->bytes, need = (size_t)(id / 8) + 1;
    if (!lk_grow((void **)&set->bits, &set->bytes, need, 1)) return lk_fail_memory("filter");
    memset(set->bits + before, 0, set->bytes - before);
    set->bits[id / 8] |= (uint8_t)(1u << (id % 8));
    set->count++;
    return LK_OK;
}

static int give_up(void *arg)
{
    (void)arg;
    return 1;
}

/* ids that satisfy the predicate; among, if not NULL, is a list of those that are asked about. steps: 0 = any number.
 * *out is left NULL when more would be needed. */
static lk_status collect(lk_collection *c, const char *predicate, const char *among, int steps, lk_id_set **out)
{
    char *text = NULL;
    sqlite3_stmt *st = NULL;
    lk_where where;
    *out = NULL;
    lk_status s = lk_where_parse(predicate, &where);
    if (s != LK_OK) return s;
    lk_id_set *set = lk_alloc_zero(1, sizeof *set);
    if (asprintf(&text, "SELECT id FROM images WHERE state=0 AND %s%s%s(%s) ORDER BY id DESC", among ? "id IN (" : "",
                 among ? among : "", among ? ") AND " : "", where.sql) < 0)
        text = NULL;
    if (!set || !text) {
        s = lk_fail_memory("filter");
        goto done;
    }
    int code = sqlite3_prepare_v2(c->catalog.db, text, -1, &st, NULL);
    for (size_t i = 0; code == SQLITE_OK && i < where.count; i++)
        code = sqlite3_bind_text(st, (int)i + 1, where.values[i], -1, SQLITE_STATIC);
    if (code == SQLITE_OK) {
        if (steps) sqlite3_progress_handler(c->catalog.db, steps, give_up, NULL);
        while (s == LK_OK && (code = sqlite3_step(st)) == SQLITE_ROW)
            s = add(set, (uint64_t)sqlite3_column_int64(st, 0));
        sqlite3_progress_handler(c->catalog.db, 0, NULL, NULL);
        if (s == LK_OK && code == SQLITE_INTERRUPT) goto done;
        if (s == LK_OK && code != SQLITE_DONE) s = lk_catalog_fail(&c->catalog, code);
    } else if ((code & 0xff) == SQLITE_ERROR) { /* well-formed for us, so it is SQLite's limits that it exceeds */
        s = lk_fail(LK_LIMIT, "the filter is too long: %s", sqlite3_errmsg(c->catalog.db));
    } else {
        s = lk_catalog_fail(&c->catalog, code);
    }
    if (s == LK_OK) {
        *out = set;
        set = NULL;
    }
done:
    sqlite3_finalize(st);
    free(text);
    lk_where_free(&where);
    lk_id_set_free(set);
    return s;
}

lk_status lk_collection_select(lk_collection *collection, const char *predicate, lk_id_set **out)
{
    return collect(collection, predicate, NULL, 0, out);
}

lk_status lk_collection_select_quickly(lk_collection *collection, const char *predicate, lk_id_set **out)
{
    enum { STEPS = 200000 }; /* of SQLite's machine: 4 ms */
    return collect(collection, predicate, NULL, STEPS, out);
}

lk_status lk_collection_select_among(lk_collection *collection, const char *predicate, size_t n, const lk_hit *hits,
                                     lk_id_set **out)
{
    char *list = NULL;
    size_t size;
    *out = NULL;
    FILE *f = open_memstream(&list, &size);
    if (!f) return lk_fail_memory("filter");
    for (size_t i = 0; i < n; i++) fprintf(f, i ? ",%" PRIu64 : "%" PRIu64, hits[i].id);
    lk_status s = fclose(f) == 0 ? collect(collection, predicate, list, 0, out) : lk_fail_memory("filter");
    free(list);
    return s;
}
