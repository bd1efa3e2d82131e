/* Searching: cells by fast scan over the centroids' codes and then exactly; vectors of these cells by fast scan over
 * what is left of them without their centroid; the best of them from their finer copies.
 *
 * A key is a score that is better when higher: minus the squared distance, or the inner product. With q = c + (q - c)
 * the key of a vector c + r is, for products, q.c + q.r, and for distances -|q - c|^2 + 2 q.r - (|r|^2 + 2 c.r). In
 * both q.r does not depend on the cell, so that one set of tables serves all of them. */
#include "base/error.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "index/partitioned/partitioned.h"
#include "index/raw.h"
#include "index/topk.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct workspace {
    float *query, *moved, *products, *probe_keys;
    uint8_t *tables;
    uint32_t *probes;
    lk_cells_scratch cells;
    lk_candidates found;
    lk_hit *hits;
    lk_topk best; /* of a range */
} workspace;

/* The first blocks of a cell that comes next; the kernel fetches the rest ahead of itself. */
static void prefetch_cell(const lk_partitioned *index, const lk_list *list)
{
    const uint8_t *codes = index->codes + list->block * lk_pq_block(&index->pq);
    size_t bytes = 2 * lk_pq_block(&index->pq);
    for (size_t at = 0; at < bytes && at < 4096; at += 64) __builtin_prefetch(codes + at);
    __builtin_prefetch(index->corrections + list->block * LK_SCAN_BLOCK);
}

typedef struct accepting {
    const lk_partitioned *index;
    lk_id_filter filter;
    void *user;
} accepting;

static int accept_position(void *arg, uint32_t position)
{
    const accepting *a = arg;
    return a->filter(a->user, lk_partitioned_id(a->index, position));
}

static void scan_cell(const lk_partitioned *index, workspace *w, size_t probe, size_t probes, float scale, float bias,
                      lk_id_filter filter, void *user)
{
    const lk_list *list = &index->lists[w->probes[probe]];
    if (probe + 1 < probes) prefetch_cell(index, &index->lists[w->probes[probe + 1]]);
    float sign = lk_partitioned_by_distance((lk_metric)index->header->metric) ? 2 : 1;
    lk_scan scan = {.tables = w->tables,
                    .groups = index->pq.padded,
                    .scale = sign * scale,
                    .bias = w->probe_keys[probe] + sign * bias - list->middle,
                    .factor = -list->step};
    accepting accept = {index, filter, user};
    lk_candidates_scan(&w->found, index->pq.kernels, &scan, index->codes + list->block * lk_pq_block(&index->pq),
                       index->corrections + list->block * LK_SCAN_BLOCK, (size_t)(list[1].first - list->first),
                       (uint32_t)list->first, filter ? accept_position : NULL, &accept);
}

/* ---- the finer copies ---- */

/* What is compared with the finer copies: for int8 the query is moved (distances) or stretched (products) once, so that
 * the codes can be used as they are. Returns what is added to every key. */
static float place_query(const lk_partitioned *index, workspace *w)
{
    const lk_partitioned_header *h = index->header;
    float add = 0;
    memcpy(w->moved, w->query, h->dim * sizeof *w->moved);
    if (h->refine != LK_REFINE_I8) return 0;
    for (size_t c = 0; c < h->dim; c++) {
        float middle = index->refine_place[2 * c];
        if (h->metric == LK_L2)
            w->moved[c] -= middle;
        else
            add += w->query[c] * middle;
    }
    return add;
}

static float refined_key(const lk_partitioned *index, const float *moved, uint64_t position)
{
    static const lk_dtype dtypes[] = {[LK_REFINE_I8] = LK_I8, [LK_REFINE_F16] = LK_F16, [LK_REFINE_F32] = LK_F32};
    const lk_partitioned_header *h = index->header;
    lk_dtype dtype = dtypes[h->refine];
    const uint8_t *row = index->refine + position * h->dim * lk_refine_bytes((lk_refine)h->refine);
    float score, step = index->refine_place[1];
    if (h->metric != LK_L2) {
        index->kernels->rows_dot[dtype](moved, row, 0, 1, h->dim, &step, &score);
        return score;
    }
    index->kernels->rows_l2[dtype](moved, row, 0, 1, h->dim, &step, &score);
    return -score;
}

static void prefetch_row(const lk_partitioned *index, uint64_t position)
{
    size_t bytes = index->header->dim * lk_refine_bytes((lk_refine)index->header->refine);
    const uint8_t *row = index->refine + position * bytes;
    for (size_t at = 0; at < bytes && at < 1024; at += 64) __builtin_prefetch(row + at);
}

/* Keys become scores. */
static size_t take_hits(const lk_partitioned *index, lk_topk *best, lk_hit *hits)
{
    bool finer = index->header->refine != LK_REFINE_NONE;
    size_t count = lk_topk_finish(best);
    for (size_t i = 0; i < count; i++) {
        hits[i] = best->hits[i];
        if (index->header->metric == LK_L2) hits[i].score = -hits[i].score;
        if (index->header->metric == LK_COSINE && !finer) hits[i].score = 1 + hits[i].score / 2;
    }
    return count;
}

static size_t refine(const lk_partitioned *index, workspace *w, size_t k, bool by_position, lk_hit *hits)
{
    enum { AHEAD = 8 };
    lk_candidates *c = &w->found;
    lk_topk topk;
    lk_topk_init(&topk, w->hits, k);
    lk_candidates_tighten(c, index->pq.kernels);
    bool finer = index->header->refine != LK_REFINE_NONE;
    float add = place_query(index, w);
    for (size_t i = 0; finer && i < AHEAD && i < c->count; i++) prefetch_row(index, c->positions[i]);
    for (size_t i = 0; i < c->count; i++) {
        if (finer && i + AHEAD < c->count) prefetch_row(index, c->positions[i + AHEAD]);
        float key = finer ? add + refined_key(index, w->moved, c->positions[i]) : c->keys[i];
        if (key >= topk.threshold)
            lk_topk_push(&topk, key, by_position ? c->positions[i] : lk_partitioned_id(index, c->positions[i]));
    }
    return take_hits(index, &topk, hits);
}

/* ---- one query ---- */

/* Cells visited when nobody says: enough for nine in ten of the ten best in collections that we measured. */
static lk_partitioned_effort complete(const lk_partitioned *index, lk_partitioned_effort effort, size_t k)
{
    size_t cells = index->header->partitions;
    if (effort.probes == 0) effort.probes = 8 + cells / 100;
    if (effort.probes > cells) effort.probes = cells;
    if (effort.refined == 0) effort.refined = 4 * k + effort.probes;
    if (effort.refined < k) effort.refined = k;
    if (effort.refined > index->header->n) effort.refined = index->header->n;
    return effort;
}

/* The k best that pass a filter lie farther away than the k best, so more cells hold them: as many times more as the
 * square root of one in how many passes, measured (docs/partitioned.md). The share is that of a sample, which ends when
 * enough of it pass; where hardly any do, too few are left for passing any over, and all cells are visited. */
static lk_partitioned_effort among(const lk_partitioned *index, lk_partitioned_effort effort, lk_id_filter filter,
                                   void *user)
{
    enum { SAMPLE = 2048, ENOUGH = 32 };
    uint64_t n = index->header->n, sample = n < SAMPLE ? n : SAMPLE, asked = 0, passed = 0;
    if (!filter) return effort;
    for (; asked < sample && passed < ENOUGH; asked++) {
        uint64_t spread = (asked * 0x9e3779b97f4a7c15u) >> 32; /* the fractions of multiples of the golden ratio */
        passed += filter(user, lk_partitioned_id(index, spread * n >> 32)) != 0;
    }
    double share = ((double)passed + 0.5) / ((double)asked + 1), cells = index->header->partitions;
    double probes = ceil((double)effort.probes / sqrt(share < 1 ? share : 1));
    effort.probes = probes < cells && share * (double)n > 4.0 * (double)effort.refined ? (size_t)probes : (size_t)cells;
    return effort;
}

typedef struct search {
    const lk_partitioned *index;
    const float *queries;
    size_t k;
    lk_partitioned_effort effort;
    lk_id_filter filter;
    void *user;
    lk_hit *hits; /* their ids are positions with by_position */
    size_t *counts;
    bool by_position, range;
    float bound; /* of a range */
    workspace *workspaces;
} search;

static lk_status take_query(const lk_partitioned *index, workspace *w, const float *query, size_t number)
{
    size_t dim = index->header->dim;
    double squares = 0;
    for (size_t c = 0; c < dim; c++) squares += (double)query[c] * query[c];
    if (!(squares < FLT_MAX))
        return lk_fail(LK_INVALID, "query %zu holds a component that is not finite, or too large", number);
    float factor = index->header->metric == LK_COSINE && squares > 0 ? (float)(1 / sqrt(squares)) : 1;
    for (size_t c = 0; c < dim; c++) w->query[c] = query[c] * factor;
    return LK_OK;
}

static lk_status search_one(const search *s, workspace *w, size_t number)
{
    const lk_partitioned *index = s->index;
    float scale, bias;
    lk_status status = take_query(index, w, s->queries + number * index->header->dim, number);
    if (status != LK_OK) return status;
    size_t probes = s->effort.probes;
    size_t cells = lk_cells_find(&index->cells, &w->cells, w->query, s->filter ? index->header->partitions : probes,
                                 w->probes, w->probe_keys);
    if (probes > cells) probes = cells;
    lk_pq_tables(&index->pq, w->query, w->products, w->tables, &scale, &bias);
    w->found.count = 0;
    w->found.threshold = -FLT_MAX;
    for (size_t i = 0; i < probes || (s->filter && i < cells && w->found.count < w->found.wanted); i++)
        scan_cell(index, w, i, probes, scale, bias, s->filter, s->user);
    s->counts[number] = refine(index, w, s->k, s->by_position, s->hits + number * s->k);
    return LK_OK;
}

/* ---- ranges ---- */

/* What a key from codes must reach so that no vector whose key from its copy reaches the bound is lost: as much less as
 * the two differed at most in the first cells, and as much again. */
typedef struct code_error {
    float error;
    size_t measured;
} code_error;

enum { SLACK_SAMPLE = 64 };

static float coded_bound(const search *s, const code_error *slack)
{
    lk_metric metric = (lk_metric)s->index->header->metric;
    float key = metric == LK_L2 ? -s->bound : metric == LK_COSINE ? 2 * s->bound - 2 : s->bound;
    if (s->index->header->refine == LK_REFINE_NONE) return key;
    return slack->measured < SLACK_SAMPLE ? -FLT_MAX : key - 2 * slack->error;
}

/* Takes what the scan of a cell found; says whether any of it is within the bound. */
static bool take_within(const search *s, workspace *w, float add, code_error *slack)
{
    const lk_partitioned *index = s->index;
    lk_metric metric = (lk_metric)index->header->metric;
    bool finer = index->header->refine != LK_REFINE_NONE, any = false, measure = slack->measured < SLACK_SAMPLE;
    float bound = metric == LK_L2 ? -s->bound : !finer && metric == LK_COSINE ? 2 * s->bound - 2 : s->bound;
    for (size_t i = 0; i < w->found.count; i++) {
        uint32_t position = w->found.positions[i];
        float key = finer ? add + refined_key(index, w->moved, position) : w->found.keys[i];
        if (finer && measure) {
            float error = fabsf((metric == LK_COSINE ? 2 * key - 2 : key) - w->found.keys[i]);
            slack->error = fmaxf(slack->error, error);
            slack->measured++;
        }
        if (key < bound) continue;
        uint64_t id = lk_partitioned_id(index, position);
        any |= lk_topk_accepts(&w->best, key, id);
        lk_topk_push(&w->best, key, id);
    }
    return any;
}

static lk_status range_one(const search *s, workspace *w, size_t number)
{
    const lk_partitioned *index = s->index;
    float scale, bias;
    code_error slack = {0};
    lk_status status = take_query(index, w, s->queries + number * index->header->dim, number);
    if (status != LK_OK) return status;
    size_t cells =
        lk_cells_find(&index->cells, &w->cells, w->query, index->header->partitions, w->probes, w->probe_keys);
    lk_pq_tables(&index->pq, w->query, w->products, w->tables, &scale, &bias);
    float add = place_query(index, w);
    lk_topk_init(&w->best, w->hits, s->k);
    for (size_t i = 0, idle = 0; i < cells && idle < s->effort.probes; i++) {
        w->found.count = 0;
        w->found.threshold = coded_bound(s, &slack);
        scan_cell(index, w, i, cells, scale, bias, s->filter, s->user);
        idle = take_within(s, w, add, &slack) ? 0 : idle + 1;
    }
    s->counts[number] = take_hits(index, &w->best, s->hits + number * s->k);
    return LK_OK;
}

/* ---- memory ---- */

static size_t carve(char **at, size_t bytes, void **out)
{
    bytes = (bytes + 63) / 64 * 64;
    if (*at) {
        *out = *at;
        *at += bytes;
    }
    return bytes;
}

static size_t carve_candidates(char **at, size_t wanted, lk_candidates *c)
{
    c->wanted = wanted;
    c->capacity = lk_candidates_capacity(wanted);
    return carve(at, c->capacity * sizeof *c->keys, (void **)&c->keys) +
           carve(at, c->capacity * sizeof *c->positions, (void **)&c->positions);
}

/* Divides w->memory, or says how much of it is needed. */
static size_t carve_workspace(const search *s, char *at, workspace *w)
{
    const lk_partitioned_header *h = s->index->header;
    size_t total = 0;
    size_t probes = s->filter || s->range ? h->partitions : s->effort.probes;
    total += carve(&at, h->dim * sizeof *w->query, (void **)&w->query);
    total += carve(&at, h->dim * sizeof *w->moved, (void **)&w->moved);
    total += carve(&at, h->groups * LK_SCAN_CODEWORDS * sizeof *w->products, (void **)&w->products);
    total += carve(&at, s->index->pq.padded * LK_SCAN_CODEWORDS, (void **)&w->tables);
    total += carve(&at, probes * sizeof *w->probes, (void **)&w->probes);
    total += carve(&at, probes * sizeof *w->probe_keys, (void **)&w->probe_keys);
    size_t cells = lk_cells_carve(&s->index->cells, probes, at, &w->cells);
    if (at) at += cells;
    total += cells;
    total += carve_candidates(&at, s->effort.refined, &w->found);
    return total + carve(&at, lk_topk_capacity(s->k) * sizeof *w->hits, (void **)&w->hits);
}

static lk_status search_range(void *arg, size_t begin, size_t end, int worker)
{
    const search *s = arg;
    lk_status status = LK_OK;
    for (size_t i = begin; status == LK_OK && i < end; i++)
        status = s->range ? range_one(s, &s->workspaces[worker], i) : search_one(s, &s->workspaces[worker], i);
    return status;
}

static lk_status search_all(search *s, lk_context *context, size_t n)
{
    size_t threads = context ? (size_t)lk_context_threads(context) : 1;
    if (threads > n) threads = n;
    if (n == 0) return LK_OK;
    workspace one, *workspaces = threads > 1 ? lk_alloc(threads, sizeof one) : &one;
    if (!workspaces) return lk_fail_memory("search");
    s->workspaces = workspaces;
    size_t bytes = carve_workspace(s, NULL, &one);
    char *memory = lk_alloc_aligned(threads, bytes);
    lk_status status = memory ? LK_OK : lk_fail_memory("search");
    for (size_t t = 0; memory && t < threads; t++) carve_workspace(s, memory + t * bytes, &workspaces[t]);
    if (status == LK_OK)
        status =
            threads > 1 ? lk_parallel_for(lk_context_pool(context), n, 4, search_range, s) : search_range(s, 0, n, 0);
    free(memory);
    if (workspaces != &one) free(workspaces);
    return status;
}

lk_status lk_partitioned_search(const lk_partitioned *index, lk_context *context, lk_partitioned_effort effort,
                                size_t n, const float *queries, size_t k, lk_id_filter filter, void *filter_user,
                                lk_hit *hits, size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "at least one result is wanted");
    search s = {.index = index,
                .queries = queries,
                .k = k,
                .effort = among(index, complete(index, effort, k), filter, filter_user),
                .filter = filter,
                .user = filter_user,
                .hits = hits,
                .counts = counts};
    return search_all(&s, context, n);
}

lk_status lk_partitioned_range(const lk_partitioned *index, lk_context *context, lk_partitioned_effort effort, size_t n,
                               const float *queries, float bound, size_t most, lk_id_filter filter, void *filter_user,
                               lk_hit *hits, size_t *counts)
{
    if (most == 0) return lk_fail(LK_INVALID, "at least one result is wanted");
    if (isnan(bound)) return lk_fail(LK_INVALID, "the bound of a range is not a number");
    search s = {.index = index,
                .queries = queries,
                .k = most,
                .effort = among(index, complete(index, effort, 1), filter, filter_user),
                .filter = filter,
                .user = filter_user,
                .hits = hits,
                .counts = counts,
                .range = true,
                .bound = bound};
    s.effort.refined = 1; /* of a cell all are kept that a scan lets through */
    for (size_t i = 0; i < index->header->partitions; i++) {
        size_t rows = (size_t)(index->lists[i + 1].first - index->lists[i].first);
        s.effort.refined = rows > s.effort.refined ? rows : s.effort.refined;
    }
    return search_all(&s, context, n);
}

/* ---- several vectors, different results ---- */

typedef struct partitioned_raw {
    const lk_partitioned *index;
    lk_context *context;
    lk_partitioned_effort effort;
    lk_id_filter filter;
    void *user;
} partitioned_raw;

static lk_status raw_search(const void *with, size_t n, const float *queries, size_t k, lk_hit *hits, size_t *counts)
{
    const partitioned_raw *raw = with;
    search s = {.index = raw->index,
                .queries = queries,
                .k = k,
                .effort = among(raw->index, complete(raw->index, raw->effort, k), raw->filter, raw->user),
                .filter = raw->filter,
                .user = raw->user,
                .hits = hits,
                .counts = counts,
                .by_position = true};
    return search_all(&s, raw->context, n);
}

static lk_status raw_vector(const void *with, uint64_t place, float *out)
{
    const lk_partitioned *index = ((const partitioned_raw *)with)->index;
    size_t dim = index->header->dim;
    lk_refine kind = (lk_refine)index->header->refine;
    const uint8_t *row = index->refine + place * dim * lk_refine_bytes(kind);
    if (kind == LK_REFINE_NONE)
        return lk_fail(LK_UNSUPPORTED, "the index keeps no copies of its vectors, by which results could be compared");
    for (size_t c = 0; c < dim; c++) {
        uint16_t half;
        switch (kind) {
        case LK_REFINE_F32: memcpy(&out[c], row + 4 * c, sizeof out[c]); break;
        case LK_REFINE_F16:
            memcpy(&half, row + 2 * c, sizeof half);
            out[c] = lk_half_to_float(half);
            break;
        default: out[c] = index->refine_place[2 * c] + index->refine_place[1] * (float)(int8_t)row[c];
        }
    }
    return LK_OK;
}

static uint64_t raw_id(const void *with, uint64_t place)
{
    return lk_partitioned_id(((const partitioned_raw *)with)->index, place);
}

static lk_raw raw_of(const partitioned_raw *with)
{
    return (lk_raw){.with = with,
                    .dim = with->index->header->dim,
                    .count = with->index->header->n,
                    .metric = (lk_metric)with->index->header->metric,
                    .search = raw_search,
                    .vector = raw_vector,
                    .id = raw_id};
}

lk_status lk_partitioned_search_several(const lk_partitioned *index, lk_context *context, lk_partitioned_effort effort,
                                        size_t m, const float *vectors, lk_fusion fusion, size_t k, lk_id_filter filter,
                                        void *filter_user, lk_hit *hits, size_t *count)
{
    partitioned_raw with = {index, context, effort, filter, filter_user};
    lk_raw raw = raw_of(&with);
    return lk_raw_search_several(&raw, m, vectors, fusion, k, hits, count);
}

lk_status lk_partitioned_search_diverse(const lk_partitioned *index, lk_context *context, lk_partitioned_effort effort,
                                        lk_diversity how, size_t n, const float *queries, size_t k, lk_id_filter filter,
                                        void *filter_user, lk_hit *hits, size_t *counts)
{
    partitioned_raw with = {index, context, effort, filter, filter_user};
    lk_raw raw = raw_of(&with);
    return lk_raw_search_diverse(&raw, how, n, queries, k, hits, counts);
}
