#include "index/auto.h"

#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the kind ---- */

/* Bytes a vector in each kind, as measured: the graph keeps 32 links and 8-bit codes beside its ids, with a second byte
 * for components that are no whole numbers, and wide ones projected; the partitions codes of 4 bits for two components
 * and 8-bit copies. */
static uint64_t flat_bytes(size_t n, size_t dim)
{
    return (uint64_t)n * (4 * dim + 8);
}

static uint64_t graph_bytes(size_t n, size_t dim, bool whole)
{
    return (uint64_t)n * ((whole ? 1 : 2) * ((dim + 63) / 64 * 64) + lk_graph_index_projected_most(dim) + 140);
}

static uint64_t partitioned_bytes(size_t n, size_t dim)
{
    return (uint64_t)n * (dim + dim / 4 + 15);
}

uint64_t lk_ann_machine(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
}

bool lk_ann_whole(size_t n, size_t dim, const float *vectors)
{
    float least = 0, most = 0;
    for (size_t i = 0, step = n / 1000 + 1; i < n; i += step)
        for (size_t c = 0; c < dim; c++) {
            float x = vectors[i * dim + c];
            if (x != rintf(x)) return false;
            least = x < least ? x : least;
            most = x > most ? x : most;
        }
    return most - least <= 255;
}

lk_status lk_ann_choose(size_t n, size_t dim, bool whole, uint64_t memory, uint64_t machine, const lk_ann_type **out,
                        char *why, size_t size)
{
    enum { FLAT_MOST = 32 << 20 }; /* bytes: read in 1.6 ms at 21 GB/s */
    enum { GRAPH_MOST = 2000000 }; /* vectors: a graph of so many is built in minutes, partitions in a third of them */
    uint64_t limit = memory ? memory : UINT64_MAX, room = memory ? memory : machine / 4;
    uint64_t graph = graph_bytes(n, dim, whole);
    const char *name = NULL;
    *out = NULL;
    if (flat_bytes(n, dim) <= FLAT_MOST && flat_bytes(n, dim) <= limit) {
        name = "flat";
        snprintf(why, size, "all %zu vectors of %zu components are read in %.1g ms", n, dim,
                 (double)flat_bytes(n, dim) / 21e6);
    } else if (n <= GRAPH_MOST && graph <= room) {
        name = "graph";
        snprintf(why, size, "a graph is fastest, and its %llu MiB fit", (unsigned long long)(graph >> 20) + 1);
    } else if (partitioned_bytes(n, dim) <= limit) {
        name = "partitioned";
        if (n > GRAPH_MOST)
            snprintf(why, size, "a graph of more than %d vectors takes too long to build", GRAPH_MOST);
        else
            snprintf(why, size, "a graph would take %llu MiB, %llu are allowed", (unsigned long long)(graph >> 20) + 1,
                     (unsigned long long)(room >> 20));
    }
    if (!name)
        return lk_fail(LK_LIMIT, "the smallest index of %zu vectors takes about %llu MiB; %llu were allowed", n,
                       (unsigned long long)(partitioned_bytes(n, dim) >> 20) + 1, (unsigned long long)(limit >> 20));
    *out = lk_ann_type_named(name);
    return LK_OK;
}

/* ---- the effort ---- */

typedef struct tuning {
    size_t k, asked, count;
    size_t *rows;   /* [count] of the input */
    float *queries; /* [2][count][dim]: these rows, and vectors near such */
    uint64_t *best; /* [2][count][k], UINT64_MAX where there are fewer */
    lk_hit *hits;   /* [count][asked + 1] */
    size_t *counts;
} tuning;

static uint64_t id_of(const lk_ann_input *input, size_t row)
{
    return input->ids ? input->ids[row] : row;
}

/* Ids of the k nearest of the hits of each query, [count][most], into best [count][k]. In the exact index ids are the
 * numbers of rows; of rows [count] each leaves itself out. */
static void take_best(const lk_ann_input *input, const tuning *t, size_t most, const size_t *rows, uint64_t *best)
{
    for (size_t q = 0; q < t->count; q++) {
        size_t taken = 0;
        for (size_t i = 0; i < t->counts[q] && taken < t->k; i++) {
            size_t row = (size_t)t->hits[q * most + i].id;
            if (!rows || row != rows[q]) best[q * t->k + taken++] = id_of(input, row);
        }
        while (taken < t->k) best[q * t->k + taken++] = UINT64_MAX;
    }
}

/* The rows, and beside them vectors that the index does not hold, about as far from its own as these are from their
 * neighbours: each is a row moved by what another of them is from its k-th neighbour. */
static lk_status make_queries(lk_context *context, const lk_ann_input *input, tuning *t)
{
    const lk_ann_type *flat = lk_ann_type_named("flat");
    lk_ann_input all = *input;
    size_t dim = input->dim, wanted = t->k + 1;
    float *own = t->queries, *near = own + t->count * dim;
    void *index;
    all.memory_limit = 0;
    all.ids = NULL;
    lk_status s = flat->build(context, &all, &index);
    if (s != LK_OK) return s;
    for (size_t q = 0; q < t->count; q++) memcpy(own + q * dim, input->vectors + t->rows[q] * dim, dim * sizeof *own);
    LK_TRY(flat->search(index, context, 1, t->count, own, wanted, NULL, NULL, t->hits, t->counts));
    take_best(input, t, wanted, t->rows, t->best);
    for (size_t q = 0; q < t->count; q++) {
        size_t from = (q + t->count / 2) % t->count;
        const float *far = input->vectors + t->hits[from * wanted + t->counts[from] - 1].id * dim;
        for (size_t c = 0; c < dim; c++) near[q * dim + c] = own[q * dim + c] + own[from * dim + c] - far[c];
    }
    LK_TRY(flat->search(index, context, 1, t->count, near, t->k, NULL, NULL, t->hits, t->counts));
    take_best(input, t, t->k, NULL, t->best + t->count * t->k);
done:
    flat->free(index);
    return s;
}

/* Recall of one kind of queries; that of rows [count] leaves each out of its own results. */
static lk_status recall_of(lk_context *context, const lk_ann_type *type, const void *index, unsigned effort,
                           const lk_ann_input *input, const tuning *t, const float *queries, const uint64_t *best,
                           const size_t *rows, double *out)
{
    size_t found = 0, all = 0, most = t->asked + (rows != NULL);
    lk_status s = type->search(index, context, effort, t->count, queries, most, NULL, NULL, t->hits, t->counts);
    for (size_t q = 0; s == LK_OK && q < t->count; q++) {
        const lk_hit *hits = t->hits + q * most;
        for (size_t i = 0; i < t->k && best[q * t->k + i] != UINT64_MAX; i++, all++)
            for (size_t j = 0, seen = 0; j < t->counts[q] && seen < t->asked; j++) {
                bool itself = rows && hits[j].id == id_of(input, rows[q]);
                found += !itself && hits[j].id == best[q * t->k + i];
                seen += !itself;
            }
    }
    *out = all ? (double)found / (double)all : 1;
    return s;
}

lk_status lk_ann_tune(lk_context *context, const lk_ann_type *type, const void *index, const lk_ann_input *input,
                      size_t k, size_t asked, double recall, size_t queries, unsigned *effort, double *reached)
{
    unsigned efforts[LK_ANN_MAX_EFFORTS];
    size_t count = type->efforts(index, k, efforts), n = queries ? queries : 200, dim = input->dim;
    if (n > input->n) n = input->n;
    tuning t = {.k = k,
                .asked = asked,
                .count = n,
                .rows = lk_alloc(n, sizeof *t.rows),
                .queries = lk_alloc(2 * n * dim, sizeof *t.queries),
                .best = lk_alloc(2 * n * k, sizeof *t.best),
                .hits = lk_alloc(n * (asked + 1), sizeof *t.hits),
                .counts = lk_alloc(n, sizeof *t.counts)};
    lk_status s = t.rows && t.queries && t.best && t.hits && t.counts ? LK_OK : lk_fail_memory("tuning");
    for (size_t q = 0; s == LK_OK && q < n; q++) t.rows[q] = q * input->n / n; /* evenly from the whole input */
    if (s == LK_OK) s = make_queries(context, input, &t);
    *reached = 0;
    for (size_t i = 0; s == LK_OK && i < count && (i == 0 || *reached < recall); i++) {
        double own, near = 0;
        *effort = efforts[i];
        s = recall_of(context, type, index, efforts[i], input, &t, t.queries, t.best, t.rows, &own);
        if (s == LK_OK)
            s = recall_of(context, type, index, efforts[i], input, &t, t.queries + n * dim, t.best + n * k, NULL,
                          &near);
        *reached = own < near ? own : near;
    }
    free(t.rows);
    free(t.queries);
    free(t.best);
    free(t.hits);
    free(t.counts);
    return s;
}

/* ---- the face ---- */

typedef struct chosen {
    const lk_ann_type *type;
    void *index;
    char why[128];
} chosen;

static void chosen_free(void *index)
{
    chosen *c = index;
    if (!c) return;
    if (c->index) c->type->free(c->index);
    free(c);
}

static lk_status build(lk_context *context, const lk_ann_input *input, void **out)
{
    *out = NULL;
    chosen *c = lk_alloc_zero(1, sizeof *c);
    if (!c) return lk_fail_memory("index");
    bool whole = input->metric != LK_COSINE && lk_ann_whole(input->n, input->dim, input->vectors);
    lk_status s = lk_ann_choose(input->n, input->dim, whole, input->memory_limit, lk_ann_machine(), &c->type, c->why,
                                sizeof c->why);
    lk_ann_input all = *input;
    all.memory_limit = 0; /* was for the finished index, and has been considered */
    if (s == LK_OK) s = c->type->build(context, &all, &c->index);
    if (s == LK_OK)
        *out = c;
    else
        chosen_free(c);
    return s;
}

static lk_status search(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                        size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    const chosen *c = index;
    return c->type->search(c->index, context, effort, n, queries, k, filter, filter_user, hits, counts);
}

static lk_status range(const void *index, lk_context *context, unsigned effort, size_t n, const float *queries,
                       float bound, size_t most, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    const chosen *c = index;
    return c->type->range(c->index, context, effort, n, queries, bound, most, filter, filter_user, hits, counts);
}

static size_t efforts(const void *index, size_t k, unsigned *out)
{
    const chosen *c = index;
    return c->type->efforts(c->index, k, out);
}

static void size(const void *index, lk_ann_size *out)
{
    const chosen *c = index;
    c->type->size(c->index, out);
}

static lk_status save(const void *index, const char *path)
{
    const chosen *c = index;
    if (!c->type->save) return lk_fail(LK_UNSUPPORTED, "%s: a %s index has no file of its own", path, c->type->name);
    return c->type->save(c->index, path);
}

/* The kinds that have files know their own. */
static lk_status open_file(const char *path, void **out)
{
    static const char *const names[] = {"partitioned", "graph"};
    *out = NULL;
    chosen *c = lk_alloc_zero(1, sizeof *c);
    if (!c) return lk_fail_memory(path);
    lk_status s = LK_CORRUPT;
    for (size_t i = 0; s == LK_CORRUPT && i < sizeof names / sizeof *names; i++) {
        c->type = lk_ann_type_named(names[i]);
        s = c->type->open(path, &c->index);
    }
    snprintf(c->why, sizeof c->why, "the file is one");
    if (s == LK_OK)
        *out = c;
    else
        free(c);
    return s;
}

static lk_status verify(const char *path)
{
    void *index;
    lk_status s = open_file(path, &index);
    if (s != LK_OK) return s;
    s = ((chosen *)index)->type->verify(path);
    chosen_free(index);
    return s;
}

static void describe(const void *index, char *text, size_t room)
{
    const chosen *c = index;
    char inner[128];
    c->type->describe(c->index, inner, sizeof inner);
    snprintf(text, room, "%s, because %s: %s", c->type->name, c->why, inner);
}

const lk_ann_type lk_ann_auto = {
    .name = "auto",
    .build = build,
    .free = chosen_free,
    .search = search,
    .range = range,
    .efforts = efforts,
    .size = size,
    .save = save,
    .open = open_file,
    .verify = verify,
    .describe = describe,
};
