#include "index/partitioned/cells.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 512 }; /* vectors scanned before the threshold rises */

/* ---- candidates ---- */

size_t lk_candidates_capacity(size_t wanted)
{
    return 2 * wanted + CHUNK + LK_SCAN_BLOCK;
}

void lk_candidates_tighten(lk_candidates *c, const lk_scan_kernels *kernels)
{
    c->count = kernels->narrow(c->keys, c->positions, c->count, c->wanted, &c->threshold);
}

void lk_candidates_scan(lk_candidates *c, const lk_scan_kernels *kernels, lk_scan *scan, const uint8_t *codes,
                        const int16_t *corrections, size_t n, uint32_t first, lk_candidate_filter accept, void *user)
{
    size_t block = scan->groups * 16;
    for (size_t done = 0; done < n; done += CHUNK) {
        size_t count = n - done < CHUNK ? n - done : CHUNK, begin = c->count, kept = begin;
        scan->threshold = c->threshold;
        size_t end = begin + kernels->scan(scan, codes + done / LK_SCAN_BLOCK * block, corrections + done, count,
                                           first + (uint32_t)done, c->keys + begin, c->positions + begin);
        for (size_t i = begin; accept && i < end; i++) {
            if (!accept(user, c->positions[i])) continue;
            c->keys[kept] = c->keys[i];
            c->positions[kept++] = c->positions[i];
        }
        c->count = accept ? kept : end;
        if (c->count >= 2 * c->wanted) lk_candidates_tighten(c, kernels);
    }
}

/* ---- finding ---- */

/* Keys as whole numbers in the same order, with the position below them: smaller positions first among equals. */
static inline uint64_t pack(float key, uint32_t position)
{
    uint32_t bits;
    memcpy(&bits, &key, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~position;
}

static inline float unpack(uint64_t packed, uint32_t *position)
{
    uint32_t bits = (uint32_t)(packed >> 32);
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    *position = ~(uint32_t)packed;
    float key;
    memcpy(&key, &bits, sizeof key);
    return key;
}

static int best_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x > y ? -1 : x < y;
}

static void sort_best_first(uint64_t *x, size_t n)
{
    if (n > 128) {
        qsort(x, n, sizeof *x, best_first);
        return;
    }
    for (size_t i = 1; i < n; i++) { /* few: cheaper than a call per comparison */
        uint64_t value = x[i];
        size_t j = i;
        for (; j > 0 && x[j - 1] < value; j--) x[j] = x[j - 1];
        x[j] = value;
    }
}

/* Cells scored exactly: the scan's order is not exact. */
static size_t scored(const lk_cells *cells, size_t best)
{
    size_t wanted = best + best / 2 + 8;
    return wanted < cells->count ? wanted : cells->count;
}

static size_t carve(char **at, size_t bytes, void **out)
{
    bytes = (bytes + 63) / 64 * 64;
    if (*at) {
        *out = *at;
        *at += bytes;
    }
    return bytes;
}

size_t lk_cells_carve(const lk_cells *cells, size_t best, char *memory, lk_cells_scratch *s)
{
    lk_candidates *c = &s->candidates;
    c->wanted = scored(cells, best);
    c->capacity = lk_candidates_capacity(c->wanted);
    return carve(&memory, c->capacity * sizeof *c->keys, (void **)&c->keys) +
           carve(&memory, c->capacity * sizeof *c->positions, (void **)&c->positions) +
           carve(&memory, c->capacity * sizeof *s->order, (void **)&s->order) +
           carve(&memory, cells->pq.padded * LK_SCAN_CODEWORDS * sizeof *s->products, (void **)&s->products) +
           carve(&memory, cells->pq.padded * LK_SCAN_CODEWORDS, (void **)&s->tables);
}

size_t lk_cells_find(const lk_cells *cells, lk_cells_scratch *s, const float *query, size_t best, uint32_t *numbers,
                     float *keys)
{
    float scale, bias, sign = cells->by_distance ? 2 : 1;
    lk_candidates *c = &s->candidates;
    c->count = 0;
    c->threshold = -FLT_MAX;
    lk_pq_tables(&cells->pq, query, s->products, s->tables, &scale, &bias);
    lk_scan scan = {.tables = s->tables,
                    .groups = cells->pq.padded,
                    .scale = sign * scale,
                    .bias = sign * bias - cells->middle,
                    .factor = -cells->step};
    lk_candidates_scan(c, cells->pq.kernels, &scan, cells->codes, cells->corrections, cells->count, 0, NULL, NULL);
    lk_candidates_tighten(c, cells->pq.kernels);
    for (size_t i = 0; i < c->count; i++) __builtin_prefetch(cells->centroids + (size_t)c->positions[i] * cells->dim);
    for (size_t i = 0; i < c->count; i++) {
        const float *centroid = cells->centroids + (size_t)c->positions[i] * cells->dim;
        float key = cells->by_distance ? -lk_l2_f32(cells->kernels, query, centroid, cells->dim)
                                       : lk_dot_f32(cells->kernels, query, centroid, cells->dim);
        s->order[i] = pack(key, c->positions[i]);
    }
    sort_best_first(s->order, c->count);
    size_t count = best < c->count ? best : c->count;
    for (size_t i = 0; i < count; i++) keys[i] = unpack(s->order[i], &numbers[i]);
    return count;
}

/* ---- making ---- */

void lk_cells_encode(lk_cells *cells, float *scratch, uint8_t *codes, int16_t *corrections)
{
    float *decoded = scratch, *squares = scratch + 2 * cells->dim, least = FLT_MAX, most = -FLT_MAX;
    uint8_t *code = (uint8_t *)(scratch + cells->dim);
    for (size_t i = 0; i < cells->count; i++) {
        lk_pq_encode(&cells->pq, cells->centroids + i * cells->dim, 1, code);
        lk_pq_decode(&cells->pq, code, decoded);
        lk_pq_pack(&cells->pq, code, i % LK_SCAN_BLOCK, codes + i / LK_SCAN_BLOCK * lk_pq_block(&cells->pq));
        squares[i] = cells->by_distance ? lk_dot_f32(cells->kernels, decoded, decoded, cells->dim) : 0;
        least = squares[i] < least ? squares[i] : least;
        most = squares[i] > most ? squares[i] : most;
    }
    cells->middle = least + (most - least) / 2;
    cells->step = (most - least) / 65534;
    for (size_t i = 0; i < cells->count; i++)
        corrections[i] = cells->step > 0 ? (int16_t)lrintf((squares[i] - cells->middle) / cells->step) : 0;
    cells->codes = codes;
    cells->corrections = corrections;
}

typedef struct learning {
    const float *x;
    size_t n, dim;
    lk_cells cells;
    float *centroids, *codewords, *encode_scratch;
    uint8_t *codes;
    int16_t *corrections;
    uint32_t *assignment;
    size_t *starts, *order; /* rows by cell */
    char *memory;
    size_t memory_each;
    uint64_t seed;
} learning;

static lk_status assign_rows(void *arg, size_t begin, size_t end, int worker)
{
    learning *l = arg;
    lk_cells_scratch scratch;
    float key;
    lk_cells_carve(&l->cells, 1, l->memory + (size_t)worker * l->memory_each, &scratch);
    for (size_t i = begin; i < end; i++)
        lk_cells_find(&l->cells, &scratch, l->x + i * l->dim, 1, &l->assignment[i], &key);
    return LK_OK;
}

/* Each centroid becomes the mean of its rows, summed by one thread in their order; one without rows takes a row at
 * random. */
static lk_status average(void *arg, size_t begin, size_t end, int worker)
{
    learning *l = arg;
    (void)worker;
    for (size_t cell = begin; cell < end; cell++) {
        float *centroid = l->centroids + cell * l->dim;
        size_t count = l->starts[cell + 1] - l->starts[cell];
        lk_random random;
        lk_random_seed(&random, l->seed + cell);
        if (count == 0) {
            memcpy(centroid, l->x + lk_random_below(&random, l->n) * l->dim, l->dim * sizeof *centroid);
            continue;
        }
        memset(centroid, 0, l->dim * sizeof *centroid);
        for (size_t i = l->starts[cell]; i < l->starts[cell + 1]; i++)
            for (size_t c = 0; c < l->dim; c++) centroid[c] += l->x[l->order[i] * l->dim + c];
        for (size_t c = 0; c < l->dim; c++) centroid[c] /= (float)count;
    }
    return LK_OK;
}

static void group_rows(learning *l)
{
    size_t count = l->cells.count;
    memset(l->starts, 0, (count + 1) * sizeof *l->starts);
    for (size_t i = 0; i < l->n; i++) l->starts[l->assignment[i] + 1]++;
    for (size_t c = 0; c < count; c++) l->starts[c + 1] += l->starts[c];
    for (size_t i = 0; i < l->n; i++) l->order[l->starts[l->assignment[i]]++] = i;
    memmove(l->starts + 1, l->starts, count * sizeof *l->starts);
    l->starts[0] = 0;
}

static lk_status learn_round(lk_context *context, learning *l)
{
    lk_cells *cells = &l->cells;
    lk_pool *pool = lk_context_pool(context);
    lk_status s = lk_pq_train(context, l->centroids, cells->count, l->dim, cells->pq.groups, l->seed, l->codewords);
    if (s != LK_OK) return s;
    memset(l->codes, 0, lk_cells_blocks(cells->count) * lk_pq_block(&cells->pq));
    lk_cells_encode(cells, l->encode_scratch, l->codes, l->corrections);
    s = lk_parallel_for(pool, l->n, 1024, assign_rows, l);
    if (s != LK_OK) return s;
    group_rows(l);
    return lk_parallel_for(pool, cells->count, 16, average, l);
}

lk_status lk_cells_learn(lk_context *context, const float *x, size_t n, size_t dim, size_t count, uint64_t seed,
                         float *centroids)
{
    enum { ROUNDS = 8 };
    learning l = {.x = x, .n = n, .dim = dim, .centroids = centroids, .seed = seed};
    l.codewords = lk_alloc(dim * LK_SCAN_CODEWORDS, sizeof *l.codewords);
    l.cells = (lk_cells){.count = count,
                         .dim = dim,
                         .by_distance = 1,
                         .kernels = lk_distance_kernels_for(lk_cpu_detect()),
                         .centroids = centroids,
                         .pq = lk_pq_of(dim, (dim + 1) / 2, l.codewords)};
    size_t blocks = lk_cells_blocks(count), threads = (size_t)lk_context_threads(context);
    lk_cells_scratch measure;
    l.memory_each = lk_cells_carve(&l.cells, 1, NULL, &measure);
    l.codes = lk_alloc(blocks, lk_pq_block(&l.cells.pq));
    l.corrections = lk_alloc(blocks * LK_SCAN_BLOCK, sizeof *l.corrections);
    l.encode_scratch = lk_alloc(2 * dim + count, sizeof *l.encode_scratch);
    l.assignment = lk_alloc(n, sizeof *l.assignment);
    l.starts = lk_alloc(count + 1, sizeof *l.starts);
    l.order = lk_alloc(n, sizeof *l.order);
    l.memory = lk_alloc_aligned(threads, l.memory_each);
    lk_status s =
        l.codewords && l.codes && l.corrections && l.encode_scratch && l.assignment && l.starts && l.order && l.memory
            ? LK_OK
            : lk_fail_memory("partitions");
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; s == LK_OK && i < n; i++) l.order[i] = i;
    for (size_t c = 0; s == LK_OK && c < count; c++) { /* distinct rows, at random */
        size_t j = c + lk_random_below(&random, n - c), row = l.order[j];
        l.order[j] = l.order[c];
        memcpy(centroids + c * dim, x + row * dim, dim * sizeof *x);
    }
    for (int round = 0; s == LK_OK && round < ROUNDS; round++) {
        if (lk_context_cancelled(context)) s = lk_fail(LK_CANCELLED, "learning the partitions was stopped");
        lk_report_progress(context, "learning the partitions", (uint64_t)round, ROUNDS);
        if (s == LK_OK) s = learn_round(context, &l);
    }
    free(l.codewords);
    free(l.codes);
    free(l.corrections);
    free(l.encode_scratch);
    free(l.assignment);
    free(l.starts);
    free(l.order);
    free(l.memory);
    return s;
}
