/* Which pictures satisfy a predicate, as a set of ids.
 *
 * Each test is looked up by itself in the catalog's indexes, the sets are joined as the predicate says; so a rare label
 * costs its own pictures and not all of them. What takes too long, or is too long for SQLite, is left out: of an `and`
 * the rest tells which pictures may pass, and SQLite is asked about these. Where that is not enough it looks at every
 * picture. */
#include "store/select.h"
#include "store/collection.h"
#include "store/where.h"

#include "base/error.h"
#include "base/file.h"
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

/* A set of one id may be added again. */
static lk_status add(lk_id_set *set, uint64_t id)
{
    size_t before = set->bytes, need = (size_t)(id / 8) + 1;
    if (!lk_grow((void **)&set->bits, &set->bytes, need, 1)) return lk_fail_memory("filter");
    memset(set->bits + before, 0, set->bytes - before);
    uint8_t bit = (uint8_t)(1u << (id % 8));
    set->count += !(set->bits[id / 8] & bit);
    set->bits[id / 8] |= bit;
    return LK_OK;
}

typedef enum joining { AND, OR, AND_NOT } joining;

/* a = a <how> b */
static lk_status join(lk_id_set *a, const lk_id_set *b, joining how)
{
    if (how == OR && b->bytes > a->bytes) {
        size_t before = a->bytes;
        if (!lk_grow((void **)&a->bits, &a->bytes, b->bytes, 1)) return lk_fail_memory("filter");
        memset(a->bits + before, 0, a->bytes - before);
    }
    a->count = 0;
    for (size_t i = 0; i < a->bytes; i++) {
        uint8_t other = i < b->bytes ? b->bits[i] : 0;
        if (how == AND) a->bits[i] &= other;
        if (how == OR) a->bits[i] |= other;
        if (how == AND_NOT) a->bits[i] &= (uint8_t)~other;
        a->count += (size_t)__builtin_popcount(a->bits[i]);
    }
    return LK_OK;
}

/* ---- asking SQLite ---- */

/* Steps of SQLite's machine: a million are some 20 ms. */
enum {
    STEPS = 500000,       /* in which a whole predicate is answered quickly */
    TEST_STEPS = 250000,  /* and one of its tests */
    LOOKUP_STEPS = 2000,  /* that making a look-up ready costs as much as, however little it finds */
    STEPS_BETWEEN = 1000, /* counts */
};

/* What may still be spent. */
typedef struct budget {
    bool bounded; /* else as much as the limits of the question allow */
    long all, test;
} budget;

/* One question, made ready. */
typedef struct question {
    lk_collection *collection;
    lk_select_limits limits;
    lk_where where;
    lk_where_sql condition;
    sqlite3_stmt *whole; /* looks at every picture */
    bool begun, label_tables;
    lk_id_set *all; /* every picture with a vector, when it has been asked for */
} question;

/* Whether nobody has had enough of it. */
static lk_status go_on(const question *q)
{
    const lk_select_limits *l = &q->limits;
    if (l->context && lk_context_cancelled(l->context)) return lk_fail(LK_CANCELLED, "the search was cancelled");
    if (l->until > 0 && lk_now() > l->until)
        return lk_fail(LK_LIMIT, "the filter takes too long: fewer tests, or an `and` with one that few pictures pass, "
                                 "take less");
    return LK_OK;
}

typedef struct spending {
    const question *question;
    budget *left;
    lk_status stopped;
} spending;

static int spend(void *arg)
{
    spending *s = arg;
    s->left->all -= STEPS_BETWEEN;
    s->left->test -= STEPS_BETWEEN;
    s->stopped = go_on(s->question);
    return s->stopped != LK_OK || (s->left->bounded && (s->left->all < 0 || s->left->test < 0));
}

/* The ids that a query gives, whose first `count` parameters are the values. *out is left NULL when that costs more
 * than may be spent. */
static lk_status run(const question *q, sqlite3_stmt *st, const lk_where_sql *sql, budget *left, lk_id_set **out)
{
    *out = NULL;
    lk_catalog *catalog = &q->collection->catalog;
    lk_id_set *set = lk_alloc_zero(1, sizeof *set);
    if (!set) return lk_fail_memory("filter");
    lk_status s = LK_OK;
    spending spent = {.question = q, .left = left};
    int code = SQLITE_OK;
    for (size_t i = 0; code == SQLITE_OK && i < sql->count; i++)
        code = sqlite3_bind_text(st, (int)i + 1, sql->values[i], -1, SQLITE_STATIC);
    sqlite3_progress_handler(catalog->db, STEPS_BETWEEN, spend, &spent);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(st);
        if (code == SQLITE_ROW && (s = add(set, (uint64_t)sqlite3_column_int64(st, 0))) != LK_OK) break;
    }
    sqlite3_progress_handler(catalog->db, 0, NULL, NULL);
    bool given_up = s == LK_OK && code == SQLITE_INTERRUPT;
    if (given_up) s = spent.stopped;
    if (s == LK_OK && !given_up && code != SQLITE_DONE) s = lk_catalog_fail(catalog, code);
    sqlite3_reset(st);
    if (s == LK_OK && !given_up)
        *out = set;
    else
        lk_id_set_free(set);
    return s;
}

static lk_status prepare(lk_collection *c, const char *text, sqlite3_stmt **out)
{
    int code = sqlite3_prepare_v2(c->catalog.db, text, -1, out, NULL);
    if (code == SQLITE_OK) return LK_OK;
    if ((code & 0xff) == SQLITE_ERROR) /* well-formed for us, so it is SQLite's limits that it exceeds */
        return lk_fail(LK_LIMIT, "the filter is too long: %s", sqlite3_errmsg(c->catalog.db));
    return lk_catalog_fail(&c->catalog, code);
}

/* From the last to the first, so that the set gets its room at once. */
#define WHOLE_QUERY "SELECT id FROM images WHERE state=0 AND %s%s%s(%s) ORDER BY id DESC"

/* Parses the predicate and begins a read transaction, because what follows is several queries. */
static lk_status begin(lk_collection *c, const char *predicate, const lk_select_limits *limits, question *q)
{
    char *text = NULL;
    *q = (question){.collection = c, .limits = limits ? *limits : (lk_select_limits){0}};
    lk_status s;
    LK_TRY(lk_where_parse(predicate, &q->where));
    LK_TRY(lk_where_condition(&q->where, &q->condition));
    if (asprintf(&text, WHOLE_QUERY, "", "", "", q->condition.text) < 0) {
        text = NULL;
        s = lk_fail_memory("filter");
        goto done;
    }
    LK_TRY(prepare(c, text, &q->whole)); /* also where it is not needed: what is too long does not depend on that */
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_SELECT_BEGIN));
    q->begun = true;
    LK_TRY(lk_catalog_has_label_tables(&c->catalog, &q->label_tables));
done:
    free(text);
    return s;
}

static lk_status end(question *q, lk_status s, lk_id_set **out)
{
    if (q->begun) {
        lk_status ended = lk_catalog_simple(&q->collection->catalog, LK_SQL_SELECT_END);
        if (s == LK_OK) s = ended;
    }
    sqlite3_finalize(q->whole);
    lk_id_set_free(q->all);
    lk_where_sql_free(&q->condition);
    lk_where_free(&q->where);
    if (s != LK_OK) {
        lk_id_set_free(*out);
        *out = NULL;
    }
    return s;
}

/* Those that satisfy the predicate among some, a list of ids. */
static lk_status check_each(question *q, const char *among, lk_id_set **out)
{
    char *text = NULL;
    sqlite3_stmt *st = NULL;
    *out = NULL;
    if (asprintf(&text, WHOLE_QUERY, "id IN (", among, ") AND ", q->condition.text) < 0)
        return lk_fail_memory("filter");
    lk_status s = prepare(q->collection, text, &st);
    if (s == LK_OK) s = run(q, st, &q->condition, &(budget){0}, out);
    sqlite3_finalize(st);
    free(text);
    return s;
}

static lk_status check_members(question *q, const lk_id_set *among, lk_id_set **out)
{
    char *list = NULL;
    size_t size;
    *out = NULL;
    FILE *f = open_memstream(&list, &size);
    if (!f) return lk_fail_memory("filter");
    const char *comma = "";
    for (uint64_t id = 0; lk_id_set_next(among, &id); id++, comma = ",") fprintf(f, "%s%" PRIu64, comma, id);
    lk_status s = fclose(f) == 0 ? check_each(q, list, out) : lk_fail_memory("filter");
    free(list);
    return s;
}

/* ---- looking up ---- */

/* What an evaluation has found out. */
typedef struct candidates {
    lk_id_set *set; /* NULL: nothing */
    bool exact;     /* else some of the set may not pass; all that pass are in it */
} candidates;

enum {
    FEW = 1000,   /* candidates that are asked about rather than made fewer */
    SOME = 20000, /* and rather than looking at every picture */
};

static lk_status look_up(question *q, const lk_where *test, budget *left, lk_id_set **out)
{
    lk_where_sql sql;
    sqlite3_stmt *st = NULL;
    *out = NULL;
    if (left->bounded && (left->all <= 0 || !lk_where_is_indexed(test, q->label_tables))) return LK_OK;
    lk_status s = go_on(q);
    if (s == LK_OK) s = lk_where_lookup(test, &sql);
    if (s != LK_OK) return s;
    left->test = TEST_STEPS;
    left->all -= LOOKUP_STEPS;
    s = prepare(q->collection, sql.text, &st);
    if (s == LK_OK)
        s = run(q, st, &sql, left, out);
    else if (s == LK_LIMIT) /* says more than the condition, which was not too long: that one answers */
        s = LK_OK;
    sqlite3_finalize(st);
    lk_where_sql_free(&sql);
    return s;
}

/* Turns a set into that of all others, where it may be spent. */
static lk_status turn(question *q, const budget *left, candidates *inout)
{
    lk_status s = LK_OK;
    if (!inout->set) return LK_OK;
    if (inout->exact && !left->bounded && !q->all) {
        sqlite3_stmt *st = NULL;
        s = prepare(q->collection, "SELECT id FROM images WHERE state=0", &st);
        if (s == LK_OK) s = run(q, st, &(lk_where_sql){0}, &(budget){0}, &q->all);
        sqlite3_finalize(st);
    }
    candidates out = {.exact = true};
    if (s == LK_OK && inout->exact && !left->bounded) {
        out.set = lk_alloc_zero(1, sizeof *out.set);
        s = out.set ? join(out.set, q->all, OR) : lk_fail_memory("filter");
        if (s == LK_OK) s = join(out.set, inout->set, AND_NOT);
    }
    lk_id_set_free(inout->set);
    *inout = out;
    return s;
}

static lk_status evaluate(question *q, const lk_where *where, budget *left, candidates *out);

static lk_status evaluate_test(question *q, const lk_where *where, budget *left, candidates *out)
{
    lk_where equal = *where;
    bool differs = strcmp(where->op, "<>") == 0;
    *out = (candidates){.exact = true};
    if (differs && left->bounded) return LK_OK;
    if (differs) equal.op = "=";
    if (!where->column && !lk_where_is_indexed(where, q->label_tables)) return LK_OK; /* as good as the whole */
    lk_status s = look_up(q, &equal, left, &out->set);
    return s == LK_OK && differs ? turn(q, left, out) : s;
}

static lk_status evaluate_parts(question *q, const lk_where *where, budget *left, candidates *out)
{
    bool and = where->kind == LK_WHERE_AND;
    *out = (candidates){.exact = true};
    for (size_t i = 0; i < where->part_count; i++) {
        candidates part;
        lk_status s = evaluate(q, &where->parts[i], left, &part);
        if (s == LK_OK && part.set && out->set) s = join(out->set, part.set, and? AND : OR);
        if (part.set && out->set) {
            lk_id_set_free(part.set);
        } else if (part.set) {
            out->set = part.set;
        }
        out->exact &= part.set && part.exact;
        if (s != LK_OK) return s;
        if (!and&&!part.set) { /* others may pass */
            lk_id_set_free(out->set);
            out->set = NULL;
            return LK_OK;
        }
        if (and&&out->set && lk_id_set_count(out->set) <= FEW && i + 1 < where->part_count) {
            out->exact &= lk_id_set_count(out->set) == 0;
            return LK_OK;
        }
    }
    return LK_OK;
}

/* out->set is to be freed whatever is returned. */
static lk_status evaluate(question *q, const lk_where *where, budget *left, candidates *out)
{
    if (where->kind == LK_WHERE_TEST) return evaluate_test(q, where, left, out);
    if (where->kind != LK_WHERE_NOT) return evaluate_parts(q, where, left, out);
    lk_status s = evaluate(q, where->parts, left, out);
    return s == LK_OK ? turn(q, left, out) : s;
}

/* Evaluates and asks about candidates, at most so many. *out is left NULL where that does not answer. */
static lk_status answer(question *q, budget left, size_t most, lk_id_set **out)
{
    candidates found = {0};
    *out = NULL;
    lk_status s = evaluate(q, &q->where, &left, &found);
    if (s == LK_OK && found.set && found.exact) {
        *out = found.set;
        return LK_OK;
    }
    if (s == LK_OK && found.set && lk_id_set_count(found.set) <= most) s = check_members(q, found.set, out);
    lk_id_set_free(found.set);
    return s;
}

/* Tests for which every picture is looked at. */
static size_t count_scans(const question *q, const lk_where *where)
{
    size_t n = where->kind == LK_WHERE_TEST && !lk_where_is_indexed(where, q->label_tables);
    for (size_t i = 0; i < where->part_count; i++) n += count_scans(q, &where->parts[i]);
    return n;
}

typedef enum patience { QUICK, WHOLE } patience;

static lk_status select_all(question *q, patience how, lk_id_set **out)
{
    budget bounded = {.bounded = true, .all = STEPS};
    lk_status s = answer(q, bounded, how == QUICK ? FEW : SOME, out);
    if (s != LK_OK || *out || how == QUICK) return s;
    /* More scans than one are better done together. */
    if (count_scans(q, &q->where) <= 1) s = answer(q, (budget){0}, SOME, out);
    return s != LK_OK || *out ? s : run(q, q->whole, &q->condition, &(budget){0}, out);
}

static lk_status select_pictures(lk_collection *collection, const char *predicate, patience how,
                                 const lk_select_limits *limits, lk_id_set **out)
{
    question q;
    *out = NULL;
    lk_status s = begin(collection, predicate, limits, &q);
    if (s == LK_OK) s = select_all(&q, how, out);
    return end(&q, s, out);
}

lk_status lk_collection_select(lk_collection *collection, const char *predicate, lk_id_set **out)
{
    return select_pictures(collection, predicate, WHOLE, NULL, out);
}

lk_status lk_collection_select_limited(lk_collection *collection, const char *predicate, const lk_select_limits *limits,
                                       lk_id_set **out)
{
    return select_pictures(collection, predicate, WHOLE, limits, out);
}

lk_status lk_collection_select_quickly(lk_collection *collection, const char *predicate, const lk_select_limits *limits,
                                       lk_id_set **out)
{
    return select_pictures(collection, predicate, QUICK, limits, out);
}

lk_status lk_collection_select_among(lk_collection *collection, const char *predicate, size_t n, const lk_hit *hits,
                                     const lk_select_limits *limits, lk_id_set **out)
{
    question q;
    lk_id_set *among = lk_alloc_zero(1, sizeof *among);
    *out = NULL;
    if (!among) return lk_fail_memory("filter");
    lk_status s = begin(collection, predicate, limits, &q);
    for (size_t i = 0; s == LK_OK && i < n; i++) s = add(among, hits[i].id);
    if (s == LK_OK) s = check_members(&q, among, out);
    lk_id_set_free(among);
    return end(&q, s, out);
}
