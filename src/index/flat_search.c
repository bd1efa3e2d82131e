/* Exact search over a flat index.
 *
 * The score of a row is what the rows_* kernel says, and nothing else: a single query scans with that kernel. A batch
 * is multiplied with blocks of rows by the screen kernel, which is several times faster because it reads a row once for
 * all queries, but sums in another order; whatever it finds within the error bound of the threshold is scored again by
 * the rows_* kernel. Results are therefore the same bytes however queries are batched and rows are divided among
 * threads. */
#include "index/flat.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "index/raw.h"
#include "index/topk.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_BLOCK = 1008,     /* rows scored at once: a multiple of every group of the screen kernels */
    FIRST_BLOCK = 48,     /* the first blocks are small so that a threshold is known early */
    MAX_GROUP = 256,      /* queries that share one pass over the rows */
    SCREEN_FROM = 4,      /* queries from which screening is faster than scanning for each: measured by bench/flat */
    RANGES_PER_THREAD = 4 /* pieces of work per thread, so that threads end together */
};
#define BLOCK_BYTES                                                                                                    \
    ((size_t)256 << 10)                 /* of rows as f32: stays in the second-level cache between panels of queries   \
                                         */
#define PACKED_BYTES ((size_t)1 << 20)  /* of one panel of queries */
#define HITS_BYTES ((size_t)256 << 20)  /* of candidates, at most, where there is a choice */
#define RANGE_BYTES ((size_t)256 << 10) /* of stored vectors below which a piece of work is not divided */

/* Everything that all pieces of one search share. */
typedef struct flat_search {
    const lk_flat *index;
    lk_context *context;
    const float *queries;  /* [n][dim], normalised for LK_COSINE */
    const double *lengths; /* [n] */
    size_t n, k;           /* k as asked for, at most the live rows */
    size_t group, ranges;  /* queries per piece; ranges of rows */
    size_t range_rows;
    float least; /* key that a row must have */
    lk_id_filter filter;
    void *filter_user;
    lk_hit *hits;   /* [ranges][n][k] */
    size_t *counts; /* [ranges][n] */
} flat_search;

/* One piece of work: some queries against a range of rows. */
typedef struct flat_scan {
    const flat_search *all;
    size_t first, n;   /* queries */
    lk_topk *best;     /* [n] */
    lk_hit *hits;      /* behind best */
    float *keys;       /* [MAX_BLOCK] */
    uint32_t *passed;  /* [MAX_BLOCK] */
    float *decoded;    /* [block][dim] unless rows are f32 */
    float *zeros;      /* [MAX_BLOCK], the bias of every metric but L2 */
    uint64_t *masks;   /* [MAX_BLOCK] */
    float *packed;     /* [panels][dim][width], the last panel narrower */
    float *thresholds; /* [n rounded up to lanes] */
    size_t block;      /* rows, at most MAX_BLOCK */
    bool screen;
} flat_scan;

/* A run of rows of one part. */
typedef struct row_run {
    const lk_flat_part *part;
    size_t begin, count;
} row_run;

static const char *run_codes(const lk_flat *index, row_run run)
{
    return run.part->codes + run.begin * index->row_bytes;
}

static const float *run_scales(row_run run)
{
    return run.part->scales ? run.part->scales + run.begin : NULL;
}

/* Turns kernel scores into keys, of which the higher is the better and the impossible ones are -infinity: a stored
 * vector with NaN or infinity in it is never found. Cosines keep to [-1, 1], which rounding may leave. */
static void make_keys(lk_metric metric, float *scores, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float key = metric == LK_L2 ? -scores[i] : scores[i];
        if (metric == LK_COSINE && fabsf(key) <= FLT_MAX) key = key > 1 ? 1 : key < -1 ? -1 : key;
        scores[i] = fabsf(key) <= FLT_MAX ? key : -INFINITY;
    }
}

static void score_run(const lk_flat *index, const float *query, row_run run, float *keys)
{
    lk_rows_fn score =
        index->metric == LK_L2 ? index->kernels->rows_l2[index->dtype] : index->kernels->rows_dot[index->dtype];
    score(query, run_codes(index, run), index->row_bytes, run.count, index->dim, run_scales(run), keys);
    make_keys(index->metric, keys, run.count);
}

static void offer(const flat_search *all, lk_topk *best, row_run run, size_t row, float key)
{
    uint64_t id = run.part->ids[run.begin + row];
    if (!lk_topk_accepts(best, key, id) || !lk_flat_is_live(run.part, run.begin + row)) return;
    if (all->filter && !all->filter(all->filter_user, id)) return;
    lk_topk_push(best, key, id);
}

/* The plain way: each query by itself. */
static void scan_run(flat_scan *scan, row_run run)
{
    const lk_flat *index = scan->all->index;
    for (size_t q = 0; q < scan->n; q++) {
        lk_topk *best = &scan->best[q];
        score_run(index, scan->all->queries + (scan->first + q) * index->dim, run, scan->keys);
        size_t passed = index->kernels->select(scan->keys, run.count, best->threshold, scan->passed);
        for (size_t i = 0; i < passed; i++) offer(scan->all, best, run, scan->passed[i], scan->keys[scan->passed[i]]);
        lk_topk_tighten(best);
    }
}

/* What the screen must let through so that no row with a key of at least `key` is lost.
 *
 * Summing d products in any order in f32 errs by at most g |q||v|, with g = d u / (1 - d u), u = 2^-24 (Higham,
 * Accuracy and Stability of Numerical Algorithms, section 3.1); a few more roundings (decoding, the scale of int8, the
 * bias) are counted as further components. Both the kernel that defines the key and the screen err so. For L2 the
 * screen compares q.v - |v|^2/2, from which the squared distance is |q|^2 minus twice that. */
static float screen_threshold(const lk_flat *index, float key, double query, double longest)
{
    double u = (double)(index->dim + 16) * 0x1p-24, g = u / (1 - u), margin, limit;
    if (index->metric == LK_L2) {
        limit = (query * query + (double)key * (1 + 2 * g)) / 2;
        margin = 2 * g * (query * longest + longest * longest);
    } else {
        if (index->metric == LK_COSINE && key <= -1) return -INFINITY; /* lower sums count as -1 */
        limit = key;
        margin = 2 * g * query * longest;
    }
    limit -= margin + (double)FLT_MIN;         /* FLT_MIN: products that underflow */
    if (!(limit > -FLT_MAX)) return -INFINITY; /* also when the margin is infinite or NaN */
    return nextafterf((float)limit, -INFINITY);
}

/* The rows of a run as f32. */
static const void *decode_run(flat_scan *scan, row_run run)
{
    const lk_flat *index = scan->all->index;
    const char *rows = run_codes(index, run);
    if (index->dtype == LK_F32) return rows;
    lk_decode_rows(index->kernels, index->dtype, index->dim, run.count, rows, run_scales(run), scan->decoded);
    return scan->decoded;
}

/* The batched way. */
static void screen_run(flat_scan *scan, row_run run)
{
    const flat_search *all = scan->all;
    const lk_flat *index = all->index;
    const float *bias = run.part->bias ? run.part->bias + run.begin : scan->zeros, *packed = scan->packed;
    const void *rows = decode_run(scan, run);
    size_t lanes = index->kernels->screen_lanes, panel = index->kernels->screen_width;
    while (panel > lanes && panel * index->dim * sizeof(float) > PACKED_BYTES) panel -= lanes;
    for (size_t q = 0; q < scan->n; q++)
        scan->thresholds[q] =
            screen_threshold(index, scan->best[q].threshold, all->lengths[scan->first + q], run.part->longest);
    for (size_t begin = 0; begin < scan->n; begin += panel) {
        size_t width = scan->n - begin < panel ? (scan->n - begin + lanes - 1) / lanes * lanes : panel;
        int any = index->kernels->screen(packed, width, rows, index->dim * sizeof(float), run.count, index->dim, bias,
                                         scan->thresholds + begin, scan->masks);
        packed += width * index->dim;
        for (size_t r = 0; any && r < run.count; r++) {
            for (uint64_t mask = scan->masks[r]; mask != 0; mask &= mask - 1) {
                size_t q = begin + (size_t)__builtin_ctzll(mask);
                float key;
                score_run(index, all->queries + (scan->first + q) * index->dim,
                          (row_run){.part = run.part, .begin = run.begin + r, .count = 1}, &key);
                if (key >= scan->best[q].threshold) offer(all, &scan->best[q], run, r, key);
            }
        }
    }
    for (size_t q = 0; q < scan->n; q++) lk_topk_tighten(&scan->best[q]);
}

/* Packs queries for the screen; must divide them as screen_run does. */
static void pack_queries(flat_scan *scan)
{
    const lk_flat *index = scan->all->index;
    size_t lanes = index->kernels->screen_lanes, panel = index->kernels->screen_width, dim = index->dim;
    float *packed = scan->packed;
    while (panel > lanes && panel * dim * sizeof(float) > PACKED_BYTES) panel -= lanes;
    for (size_t begin = 0; begin < scan->n; begin += panel) {
        size_t count = scan->n - begin < panel ? scan->n - begin : panel, width = (count + lanes - 1) / lanes * lanes;
        const float *queries = scan->all->queries + (scan->first + begin) * dim;
        for (size_t i = 0; i < dim; i++)
            for (size_t q = 0; q < width; q++) packed[i * width + q] = q < count ? queries[q * dim + i] : 0;
        packed += width * dim;
    }
    for (size_t q = scan->n; q < (scan->n + lanes - 1) / lanes * lanes; q++) scan->thresholds[q] = INFINITY;
}

static void scan_free(flat_scan *scan)
{
    free(scan->best);
    free(scan->hits);
    free(scan->keys);
    free(scan->passed);
    free(scan->decoded);
    free(scan->zeros);
    free(scan->masks);
    free(scan->packed);
    free(scan->thresholds);
}

static lk_status scan_init(flat_scan *scan, const flat_search *all, size_t first, size_t n)
{
    const lk_flat *index = all->index;
    size_t lanes = index->kernels->screen_lanes, padded = (n + lanes - 1) / lanes * lanes;
    *scan = (flat_scan){.all = all, .first = first, .n = n, .screen = n >= SCREEN_FROM};
    scan->block = BLOCK_BYTES / (index->dim * sizeof(float)) / FIRST_BLOCK * FIRST_BLOCK;
    if (scan->block < FIRST_BLOCK) scan->block = FIRST_BLOCK;
    if (scan->block > MAX_BLOCK) scan->block = MAX_BLOCK;
    scan->best = lk_alloc(n, sizeof *scan->best);
    scan->hits = lk_alloc(n, lk_topk_capacity(all->k) * sizeof *scan->hits);
    scan->keys = lk_alloc_aligned(MAX_BLOCK, sizeof *scan->keys);
    scan->passed = lk_alloc(MAX_BLOCK, sizeof *scan->passed);
    bool whole = scan->best && scan->hits && scan->keys && scan->passed;
    if (whole && scan->screen) {
        scan->decoded = index->dtype == LK_F32 ? NULL : lk_alloc_aligned(scan->block * index->dim, sizeof(float));
        scan->zeros = lk_alloc_zero(MAX_BLOCK, sizeof *scan->zeros);
        scan->masks = lk_alloc(MAX_BLOCK, sizeof *scan->masks);
        scan->packed = lk_alloc_aligned(padded * index->dim, sizeof *scan->packed);
        scan->thresholds = lk_alloc_aligned(padded, sizeof *scan->thresholds);
        whole =
            (scan->decoded || index->dtype == LK_F32) && scan->zeros && scan->masks && scan->packed && scan->thresholds;
    }
    if (!whole) {
        scan_free(scan);
        return lk_fail_memory("search");
    }
    for (size_t q = 0; q < n; q++) {
        lk_topk_init(&scan->best[q], scan->hits + q * lk_topk_capacity(all->k), all->k);
        scan->best[q].threshold = all->least;
    }
    if (scan->screen) pack_queries(scan);
    return LK_OK;
}

/* Scans rows begin .. end, counted over all parts. */
static lk_status scan_rows(flat_scan *scan, size_t begin, size_t end)
{
    const lk_flat *index = scan->all->index;
    size_t start = 0, block = scan->block < FIRST_BLOCK ? scan->block : FIRST_BLOCK;
    for (size_t p = 0; p < index->part_count && start < end; start += index->parts[p++].count) {
        const lk_flat_part *part = &index->parts[p];
        size_t row = begin > start ? begin - start : 0, stop = end - start < part->count ? end - start : part->count;
        while (row < stop) {
            size_t count = stop - row < block ? stop - row : block;
            row_run run = {.part = part, .begin = row, .count = count};
            if (scan->all->context && lk_context_cancelled(scan->all->context))
                return lk_fail(LK_CANCELLED, "the search was cancelled");
            if (scan->screen)
                screen_run(scan, run);
            else
                scan_run(scan, run);
            row += count;
            block = block * 2 < scan->block ? block * 2 : scan->block;
        }
    }
    return LK_OK;
}

/* Pieces first .. last of a search, each a group of queries with a range of rows. */
static lk_status search_pieces(void *arg, size_t first, size_t last, int worker)
{
    const flat_search *all = arg;
    (void)worker;
    for (size_t piece = first; piece < last; piece++) {
        size_t range = piece % all->ranges, query = piece / all->ranges * all->group, begin = range * all->range_rows;
        size_t n = all->n - query < all->group ? all->n - query : all->group;
        size_t end = all->index->rows - begin < all->range_rows ? all->index->rows : begin + all->range_rows;
        flat_scan scan;
        lk_status s = scan_init(&scan, all, query, n);
        if (s != LK_OK) return s;
        s = scan_rows(&scan, begin, end);
        for (size_t q = 0; q < n && s == LK_OK; q++) {
            size_t at = range * all->n + query + q;
            all->counts[at] = lk_topk_finish(&scan.best[q]);
            memcpy(all->hits + at * all->k, scan.best[q].hits, all->counts[at] * sizeof *all->hits);
        }
        scan_free(&scan);
        if (s != LK_OK) return s;
    }
    return LK_OK;
}

/* Joins the ranges' hits of each query, in *best's* memory, and turns keys into scores. */
static void write_hits(const flat_search *all, lk_topk *best, size_t k, lk_hit *hits, size_t *counts)
{
    for (size_t q = 0; q < all->n; q++) {
        lk_topk_init(best, best->hits, all->k);
        for (size_t range = 0; range < all->ranges; range++) {
            const lk_hit *from = all->hits + (range * all->n + q) * all->k;
            for (size_t i = 0; i < all->counts[range * all->n + q]; i++) lk_topk_push(best, from[i].score, from[i].id);
        }
        counts[q] = lk_topk_finish(best);
        for (size_t i = 0; i < counts[q]; i++) {
            float key = best->hits[i].score;
            /* 0 - key, because minus a distance of zero is minus zero. */
            hits[q * k + i] = (lk_hit){.id = best->hits[i].id, .score = all->index->metric == LK_L2 ? 0 - key : key};
        }
    }
}

/* Checks queries and makes the copy that is searched for: lengths [n], out [n][dim]. */
static lk_status prepare_queries(const lk_flat *index, size_t n, const float *queries, float *out, double *lengths)
{
    for (size_t q = 0; q < n; q++) {
        const float *query = queries + q * index->dim;
        double squares = 0;
        for (size_t i = 0; i < index->dim; i++) {
            if (!isfinite(query[i]))
                return lk_fail(LK_INVALID, "component %zu of query %zu is not a finite number", i, q);
            squares += (double)query[i] * query[i];
        }
        double factor = index->metric == LK_COSINE && squares > 0 ? 1 / sqrt(squares) : 1;
        for (size_t i = 0; i < index->dim; i++) out[q * index->dim + i] = (float)(query[i] * factor);
        lengths[q] = sqrt(squares) * factor * 1.000001; /* an upper bound */
    }
    return LK_OK;
}

/* Divides the work: by queries first, because a group of them shares one pass over the rows, then by ranges of rows
 * until every thread has some. */
static void divide(flat_search *all, int threads)
{
    const lk_flat *index = all->index;
    size_t hits = lk_topk_capacity(all->k) * sizeof(lk_hit), pieces = (size_t)threads * RANGES_PER_THREAD;
    all->group = all->n < MAX_GROUP ? all->n : MAX_GROUP;
    while (all->group > 1 && all->group * hits > HITS_BYTES / (size_t)threads) all->group = (all->group + 1) / 2;
    size_t groups = (all->n - 1) / all->group + 1, most = index->rows * index->row_bytes / RANGE_BYTES + 1;
    all->ranges = threads == 1 || groups >= pieces ? 1 : (pieces - 1) / groups + 1;
    if (all->ranges > most) all->ranges = most;
    while (all->ranges > 1 && all->ranges * all->n * all->k > HITS_BYTES / sizeof(lk_hit)) all->ranges--;
    all->range_rows = (index->rows - 1) / all->ranges + 1;
    all->ranges = (index->rows - 1) / all->range_rows + 1;
}

/* The k best whose key is at least `least`. */
static lk_status search_from(const lk_flat *index, lk_context *context, size_t n, const float *queries, float least,
                             size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    if (k == 0) return lk_fail(LK_INVALID, "a search for the 0 best makes no sense");
    if (n == 0) return LK_OK;
    if (n >= SCREEN_FROM) {
        lk_status measured = lk_flat_measure(index);
        if (measured != LK_OK) return measured;
    }
    flat_search all = {.index = index,
                       .context = context,
                       .n = n,
                       .k = k < index->live ? k : index->live,
                       .least = least,
                       .filter = filter,
                       .filter_user = filter_user};
    lk_topk best = {0};
    float *prepared = lk_alloc_aligned(n * index->dim, sizeof *prepared);
    double *lengths = lk_alloc(n, sizeof *lengths);
    lk_status s =
        prepared && lengths ? prepare_queries(index, n, queries, prepared, lengths) : lk_fail_memory("queries");
    if (s != LK_OK) goto done;
    if (index->live == 0) {
        memset(counts, 0, n * sizeof *counts);
        goto done;
    }
    all.queries = prepared;
    all.lengths = lengths;
    divide(&all, context ? lk_context_threads(context) : 1);
    all.hits = lk_alloc(all.ranges * n, all.k * sizeof *all.hits);
    all.counts = lk_alloc(all.ranges * n, sizeof *all.counts);
    best.hits = lk_alloc(lk_topk_capacity(all.k), sizeof *best.hits);
    if (!all.hits || !all.counts || !best.hits) {
        s = lk_fail_memory("hits");
        goto done;
    }
    LK_TRY(lk_parallel_for(lk_context_pool(context), ((n - 1) / all.group + 1) * all.ranges, 1, search_pieces, &all));
    write_hits(&all, &best, k, hits, counts);
done:
    free(best.hits);
    free(all.counts);
    free(all.hits);
    free(lengths);
    free(prepared);
    return s;
}

lk_status lk_flat_search(const lk_flat *index, lk_context *context, size_t n, const float *queries, size_t k,
                         lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    return search_from(index, context, n, queries, -FLT_MAX, k, filter, filter_user, hits, counts);
}

lk_status lk_flat_range(const lk_flat *index, lk_context *context, size_t n, const float *queries, float bound,
                        size_t most, lk_id_filter filter, void *filter_user, lk_hit *hits, size_t *counts)
{
    if (isnan(bound)) return lk_fail(LK_INVALID, "the bound of a range is not a number");
    float least = index->metric == LK_L2 ? -bound : bound;
    if (least < -FLT_MAX) least = -FLT_MAX;
    return search_from(index, context, n, queries, least, most, filter, filter_user, hits, counts);
}

typedef struct flat_raw {
    const lk_flat *index;
    lk_context *context;
    lk_id_filter filter;
    void *user;
} flat_raw;

static lk_status raw_search(const void *with, size_t n, const float *queries, size_t k, lk_hit *hits, size_t *counts)
{
    const flat_raw *raw = with;
    return lk_flat_search(raw->index, raw->context, n, queries, k, raw->filter, raw->user, hits, counts);
}

static lk_status raw_vector(const void *with, uint64_t place, float *out)
{
    return lk_flat_vector(((const flat_raw *)with)->index, place, out);
}

static uint64_t raw_id(const void *with, uint64_t place)
{
    (void)with;
    return place;
}

static lk_raw raw_of(const lk_flat *index, const flat_raw *with)
{
    return (lk_raw){.with = with,
                    .dim = index->dim,
                    .count = index->live,
                    .metric = index->metric,
                    .search = raw_search,
                    .vector = raw_vector,
                    .id = raw_id};
}

lk_status lk_flat_search_several(const lk_flat *index, lk_context *context, size_t m, const float *vectors,
                                 lk_fusion fusion, size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits,
                                 size_t *count)
{
    flat_raw with = {index, context, filter, filter_user};
    lk_raw raw = raw_of(index, &with);
    return lk_raw_search_several(&raw, m, vectors, fusion, k, hits, count);
}

lk_status lk_flat_search_diverse(const lk_flat *index, lk_context *context, lk_diversity how, size_t n,
                                 const float *queries, size_t k, lk_id_filter filter, void *filter_user, lk_hit *hits,
                                 size_t *counts)
{
    flat_raw with = {index, context, filter, filter_user};
    lk_raw raw = raw_of(index, &with);
    return lk_raw_search_diverse(&raw, how, n, queries, k, hits, counts);
}

/* All scores --------------------------------------------------------------------------------------------------------
 */

typedef struct scoring {
    const lk_flat *index;
    lk_context *context;
    const float *queries;
    size_t n, block;
    float *scores;
} scoring;

/* Live rows before row `row` of a part. */
static size_t live_before(const lk_flat_part *part, size_t row)
{
    if (part->dead == 0) return row;
    size_t live = 0;
    for (size_t byte = 0; byte < row / 8; byte++) live += (size_t)__builtin_popcount(part->live[byte]);
    return live + (size_t)__builtin_popcount(part->live[row / 8] & ((1u << (row % 8)) - 1));
}

static void write_scores(const scoring *all, row_run run, size_t at, float *keys)
{
    const lk_flat *index = all->index;
    for (size_t q = 0; q < all->n; q++) {
        float *out = all->scores + q * index->live + at;
        score_run(index, all->queries + q * index->dim, run, keys);
        for (size_t r = 0; r < run.count; r++)
            if (lk_flat_is_live(run.part, run.begin + r)) *out++ = index->metric == LK_L2 ? 0 - keys[r] : keys[r];
    }
}

/* Scores rows begin .. end, counted over all parts, a block at a time for all queries. */
static lk_status score_range(void *arg, size_t begin, size_t end, int worker)
{
    const scoring *all = arg;
    const lk_flat *index = all->index;
    float keys[FIRST_BLOCK];
    size_t start = 0, at = 0; /* rows and live rows before the part */
    (void)worker;
    for (size_t p = 0; p < index->part_count && start < end; p++) {
        const lk_flat_part *part = &index->parts[p];
        size_t row = begin > start ? begin - start : 0, stop = end - start < part->count ? end - start : part->count;
        if (row < stop) {
            size_t live = at + live_before(part, row);
            while (row < stop) {
                if (all->context && lk_context_cancelled(all->context))
                    return lk_fail(LK_CANCELLED, "the scoring was cancelled");
                size_t count = stop - row < FIRST_BLOCK ? stop - row : FIRST_BLOCK;
                write_scores(all, (row_run){.part = part, .begin = row, .count = count}, live, keys);
                for (size_t r = row; r < row + count; r++) live += lk_flat_is_live(part, r);
                row += count;
            }
        }
        start += part->count;
        at += part->count - part->dead;
    }
    return LK_OK;
}

lk_status lk_flat_scores(const lk_flat *index, lk_context *context, size_t n, const float *queries, float *scores)
{
    if (n == 0) return LK_OK;
    scoring all = {.index = index, .context = context, .n = n, .scores = scores};
    float *prepared = lk_alloc_aligned(n * index->dim, sizeof *prepared);
    double *lengths = lk_alloc(n, sizeof *lengths);
    lk_status s =
        prepared && lengths ? prepare_queries(index, n, queries, prepared, lengths) : lk_fail_memory("queries");
    all.queries = prepared;
    if (s == LK_OK) s = lk_parallel_for(lk_context_pool(context), index->rows, MAX_BLOCK, score_range, &all);
    free(lengths);
    free(prepared);
    return s;
}

lk_status lk_flat_score_places(const lk_flat *index, const float *query, size_t n, const uint64_t *places,
                               float *scores)
{
    double length;
    float *prepared = lk_alloc_aligned(index->dim, sizeof *prepared);
    lk_status s = prepared ? prepare_queries(index, 1, query, prepared, &length) : lk_fail_memory("query");
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        row_run run = {.count = 1};
        run.part = lk_flat_at_place(index, places[i], &run.begin);
        score_run(index, prepared, run, &scores[i]);
        if (index->metric == LK_L2) scores[i] = 0 - scores[i];
    }
    free(prepared);
    return s;
}
