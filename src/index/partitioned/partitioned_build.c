/* Building: learn centroids and codewords from a sample, assign every row to its cell (first pass over the rows), lay
 * the image out, put every row into its place (second pass). */
#include "base/error.h"
#include "base/half.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "index/kmeans.h"
#include "index/partitioned/partitioned.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SAMPLE_PER_CELL = 64,      /* rows a cell is learnt from */
    SAMPLE_LEAST_PER_CELL = 8, /* when memory is short */
    SAMPLE_FOR_CODES = 100000,
    SAMPLE_RUN = 16, /* rows read at once for the sample */
    KMEANS_ROUNDS = 10,
    SCANNED_CELLS = 1024, /* from here on finding cells by scan is faster than by products of matrices */
    PIECE = 1024          /* rows that a thread takes at once */
};

typedef struct build {
    lk_context *context;
    const lk_rows *rows;
    lk_metric metric;
    lk_partitioned_options options;
    lk_partitioned_header header;
    size_t dim, threads;
    float *sample; /* [sampled][dim]; later what is left of it without its centroids */
    size_t sampled;
    float *centroids, *half_norms, *refine_place;
    bool by_scan; /* cells are found by scan over their centroids' codes */
    lk_cells assigning;
    uint8_t *cell_codes;
    int16_t *cell_corrections;
    uint32_t *sample_cells;
    uint32_t *cells;     /* [n]: cell of each row */
    uint32_t *positions; /* [n] */
    float *corrections;  /* [n] by position, before they are rounded */
    float *scratch;      /* per thread */
    size_t scratch_size;
    uint32_t *piece_order; /* rows of the block in hand, by cell */
    float *block;          /* [block_rows][dim] */
    size_t block_rows;
    uint64_t block_first;
    size_t *runs; /* [run_count + 1] into piece_order: rows of one cell */
    size_t run_count;
    char *temporary; /* file that is being built, NULL in memory */
    lk_partitioned *index;
} build;

/* ---- rows ---- */

/* Reads rows, normalised for cosine. */
static lk_status read_rows(const build *b, uint64_t first, size_t n, float *out)
{
    lk_status s = b->rows->read(b->rows->user, first, n, out);
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        float *row = out + i * b->dim;
        double squares = 0;
        for (size_t c = 0; c < b->dim; c++) squares += (double)row[c] * row[c];
        if (!(squares < FLT_MAX)) /* also NaN */
            return lk_fail(LK_INVALID, "row %llu holds a component that is not finite, or too large",
                           (unsigned long long)(first + i));
        if (b->metric != LK_COSINE || squares == 0) continue;
        float factor = (float)(1 / sqrt(squares));
        for (size_t c = 0; c < b->dim; c++) row[c] *= factor;
    }
    return s;
}

/* Runs of rows evenly spread over the input: neighbours in a file are often alike, but reading each row alone is slow.
 */
static lk_status read_sample(void *arg, size_t begin, size_t end, int worker)
{
    build *b = arg;
    (void)worker;
    size_t runs = (b->sampled + SAMPLE_RUN - 1) / SAMPLE_RUN;
    lk_status s = LK_OK;
    for (size_t run = begin; s == LK_OK && run < end; run++) {
        size_t at = run * SAMPLE_RUN, n = b->sampled - at < SAMPLE_RUN ? b->sampled - at : SAMPLE_RUN;
        uint64_t first = runs > 1 ? (uint64_t)((__uint128_t)(b->rows->n - n) * run / (runs - 1)) : 0;
        s = read_rows(b, first, n, b->sample + at * b->dim);
    }
    return s;
}

/* ---- learning ---- */

static void subtract_centroids(const build *b, float *rows, const uint32_t *cells, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < b->dim; c++) rows[i * b->dim + c] -= b->centroids[cells[i] * b->dim + c];
}

/* Ranges of the components within the sample, [dim] pairs; says whether all of them are whole numbers. */
static bool measure_ranges(const build *b, float *ranges)
{
    bool whole = true;
    for (size_t c = 0; c < b->dim; c++) {
        ranges[2 * c] = FLT_MAX;
        ranges[2 * c + 1] = -FLT_MAX;
    }
    for (size_t i = 0; i < b->sampled; i++) {
        for (size_t c = 0; c < b->dim; c++) {
            float x = b->sample[i * b->dim + c], *range = ranges + 2 * c;
            range[0] = x < range[0] ? x : range[0];
            range[1] = x > range[1] ? x : range[1];
            whole &= x == rintf(x);
        }
    }
    return whole;
}

/* Middle and step of each int8 component. One step for all, so that distances need no weights: that of the widest range
 * in the sample; rare components beyond it are clamped. Vectors of bytes (SIFT descriptors, say) are kept exactly. */
static void place_refinement(build *b)
{
    float *ranges = b->refine_place, least = FLT_MAX, most = -FLT_MAX, widest = 0;
    bool whole = measure_ranges(b, ranges);
    for (size_t c = 0; c < b->dim; c++) {
        least = ranges[2 * c] < least ? ranges[2 * c] : least;
        most = ranges[2 * c + 1] > most ? ranges[2 * c + 1] : most;
        widest = ranges[2 * c + 1] - ranges[2 * c] > widest ? ranges[2 * c + 1] - ranges[2 * c] : widest;
    }
    bool bytes = whole && least >= 0 && most <= 255, signed_bytes = whole && least >= -128 && most <= 127;
    float step = bytes || signed_bytes || widest == 0 ? 1 : widest / 255;
    for (size_t c = 0; c < b->dim; c++) {
        float *range = ranges + 2 * c;
        range[0] = bytes ? 128 : signed_bytes ? 0 : range[0] + step * ceilf((range[1] - range[0]) / step / 2);
        range[1] = step;
    }
}

/* Cells of rows [n][dim]: found by scan when there are many, else by products of matrices. */
static lk_status assign(const build *b, const float *rows, size_t n, int worker, uint32_t *cells)
{
    float *scratch = b->scratch + (size_t)worker * b->scratch_size + PIECE * b->dim, key;
    if (!b->by_scan) {
        lk_kmeans_assign(rows, n, b->dim, b->centroids, b->half_norms, b->header.partitions, scratch, cells, NULL);
        return LK_OK;
    }
    lk_cells_scratch find;
    lk_cells_carve(&b->assigning, 1, (char *)scratch, &find);
    for (size_t i = 0; i < n; i++) lk_cells_find(&b->assigning, &find, rows + i * b->dim, 1, &cells[i], &key);
    return LK_OK;
}

static lk_status assign_sample(void *arg, size_t begin, size_t end, int worker)
{
    build *b = arg;
    return assign(b, b->sample + begin * b->dim, end - begin, worker, b->sample_cells + begin);
}

static lk_status learn_cells(build *b, float *coarse_words)
{
    size_t cells = b->header.partitions, blocks = lk_cells_blocks(cells);
    lk_kmeans_options how = {
        .iterations = KMEANS_ROUNDS, .seed = b->options.seed, .job = "learning the partitions", .random_seeds = true};
    lk_status s;
    if (b->by_scan)
        s = lk_cells_learn(b->context, b->sample, b->sampled, b->dim, cells, b->options.seed, b->centroids);
    else
        s = lk_kmeans(b->context, b->sample, b->sampled, b->dim, cells, &how, b->centroids, NULL, NULL);
    if (s == LK_OK)
        s = lk_pq_train(b->context, b->centroids, cells, b->dim, b->header.coarse_groups, b->options.seed,
                        coarse_words);
    if (s != LK_OK) return s;
    lk_kmeans_half_norms(b->centroids, cells, b->dim, b->half_norms);
    b->assigning = (lk_cells){.count = cells,
                              .dim = b->dim,
                              .by_distance = 1,
                              .kernels = lk_distance_kernels_for(lk_cpu_detect()),
                              .centroids = b->centroids,
                              .pq = lk_pq_of(b->dim, b->header.coarse_groups, coarse_words)};
    b->cell_codes = lk_alloc_zero(blocks, lk_pq_block(&b->assigning.pq));
    b->cell_corrections = lk_alloc_zero(blocks * LK_SCAN_BLOCK, sizeof *b->cell_corrections);
    float *scratch = lk_alloc(2 * b->dim + cells, sizeof *scratch);
    if (b->cell_codes && b->cell_corrections && scratch)
        lk_cells_encode(&b->assigning, scratch, b->cell_codes, b->cell_corrections);
    else
        s = lk_fail_memory("partitions");
    free(scratch);
    return s;
}

static lk_status learn(build *b, float *words, float *coarse_words)
{
    place_refinement(b);
    lk_status s = learn_cells(b, coarse_words);
    if (s != LK_OK) return s;
    size_t n = b->sampled < SAMPLE_FOR_CODES ? b->sampled : SAMPLE_FOR_CODES;
    b->sample_cells = lk_alloc(n, sizeof *b->sample_cells);
    if (!b->sample_cells) return lk_fail_memory("training");
    /* The sample is in the order of the input: a part of it must come from everywhere too. */
    size_t step = b->sampled / n;
    for (size_t i = 0; i < n; i++)
        memmove(b->sample + i * b->dim, b->sample + i * step * b->dim, b->dim * sizeof *b->sample);
    s = lk_parallel_for(lk_context_pool(b->context), n, PIECE, assign_sample, b);
    if (s != LK_OK) return s;
    subtract_centroids(b, b->sample, b->sample_cells, n);
    return lk_pq_train(b->context, b->sample, n, b->dim, b->header.groups, b->options.seed, words);
}

/* ---- assigning ---- */

static lk_status assign_rows(void *arg, size_t begin, size_t end, int worker)
{
    build *b = arg;
    float *rows = b->scratch + (size_t)worker * b->scratch_size;
    lk_status s = read_rows(b, begin, end - begin, rows);
    if (s == LK_OK) s = assign(b, rows, end - begin, worker, b->cells + begin);
    if (worker == 0) lk_report_progress(b->context, "assigning", end, b->rows->n);
    return s == LK_OK && lk_context_cancelled(b->context) ? lk_fail(LK_CANCELLED, "building the index was stopped") : s;
}

/* Positions of rows, lists with their beginnings; returns the count of blocks. */
static uint64_t place_rows(build *b, lk_list *lists)
{
    size_t cells = b->header.partitions;
    uint64_t n = b->rows->n, position = 0, block = 0;
    memset(lists, 0, (cells + 1) * sizeof *lists);
    for (uint64_t i = 0; i < n; i++) lists[b->cells[i]].first++;
    for (size_t cell = 0; cell <= cells; cell++) {
        uint64_t count = lists[cell].first;
        lists[cell].first = position;
        lists[cell].block = block;
        position += count;
        block += (count + LK_SCAN_BLOCK - 1) / LK_SCAN_BLOCK;
    }
    for (uint64_t i = 0; i < n; i++) b->positions[i] = (uint32_t)lists[b->cells[i]].first++;
    for (size_t cell = cells; cell-- > 0;) lists[cell + 1].first = lists[cell].first;
    lists[0].first = 0;
    return block;
}

/* ---- the image ---- */

static lk_status make_image(build *b, uint64_t blocks, const char *path)
{
    lk_partitioned_header *h = &b->header;
    lk_partitioned_lay_out(h, blocks);
    int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (path) {
        if (asprintf(&b->temporary, "%s.%ld.tmp", path, (long)getpid()) < 0) {
            b->temporary = NULL;
            return lk_fail_memory(path);
        }
        fd = open(b->temporary, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
        /* Blocks are reserved: a write into a mapped file that finds the disk full would be a signal. */
        int failed = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)h->file_size);
        if (failed) {
            if (fd >= 0) close(fd);
            return lk_fail_errno(failed, "%s: cannot be written", path);
        }
        flags = MAP_SHARED;
    }
    void *image = mmap(NULL, h->file_size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (fd >= 0) close(fd);
    if (image == MAP_FAILED) return lk_fail_memory("index");
    if (!path) madvise(image, h->file_size, MADV_HUGEPAGE);
    memcpy(image, h, sizeof *h);
    lk_partitioned_bind(b->index, image, path != NULL);
    return LK_OK;
}

/* Rounds numbers to 16 bits between their extremes. Returns the step; key is middle + step * rounded. */
static float round_corrections(const float *numbers, size_t n, float *middle, int16_t *out)
{
    float least = FLT_MAX, most = -FLT_MAX;
    for (size_t i = 0; i < n; i++) {
        least = numbers[i] < least ? numbers[i] : least;
        most = numbers[i] > most ? numbers[i] : most;
    }
    *middle = n ? least + (most - least) / 2 : 0;
    float step = n && most > least ? (most - least) / 65534 : 0;
    for (size_t i = 0; i < n; i++) out[i] = step > 0 ? (int16_t)lrintf((numbers[i] - *middle) / step) : 0;
    return step;
}

/* The centroids as vectors to be scanned. */
static lk_status encode_cells(build *b)
{
    lk_partitioned *index = b->index;
    float *scratch = lk_alloc(2 * b->dim + b->header.partitions, sizeof *scratch);
    if (!scratch) return lk_fail_memory("partitions");
    lk_cells_encode(&index->cells, scratch, index->coarse_codes, index->coarse_corrections);
    index->header->coarse_middle = index->cells.middle;
    index->header->coarse_step = index->cells.step;
    free(scratch);
    return LK_OK;
}

/* ---- filling ---- */

static void refine_row(const build *b, const float *row, uint64_t position)
{
    size_t dim = b->dim, bytes = lk_refine_bytes((lk_refine)b->header.refine);
    uint8_t *at = b->index->refine + position * dim * bytes;
    if (b->header.refine == LK_REFINE_F32) memcpy(at, row, dim * bytes);
    for (size_t c = 0; c < dim && b->header.refine == LK_REFINE_F16; c++) {
        uint16_t half = lk_float_to_half(row[c] > 65504 ? 65504 : row[c] < -65504 ? -65504 : row[c]);
        memcpy(at + 2 * c, &half, sizeof half);
    }
    for (size_t c = 0; c < dim && b->header.refine == LK_REFINE_I8; c++) {
        float code = rintf((row[c] - b->refine_place[2 * c]) / b->refine_place[2 * c + 1]);
        at[c] = (uint8_t)(int8_t)(code > 127 ? 127 : code < -128 ? -128 : code);
    }
}

/* |q - c - r|^2 = |q - c|^2 - 2 q.r + (|r|^2 + 2 c.r): what is in brackets is the row's alone. Of r the scan knows its
 * codes' s; |r|^2 may be taken from either. What the codes miss of (q - c).r is to be made up for, and q - c points
 * along r as far as q is near: on average (q - c).(r - s) = share (|r|^2 - |s|^2) / 2. With a share of 3/4 more of the
 * nearest were among the first on descriptors of photographs than with 1/2 or with 1, which is the distance to what the
 * codes stand for. */
static float correction_of(size_t dim, const float *rest, const float *decoded, const float *centroid)
{
    const float share = 0.75f;
    float own = 0, coded = 0, along = 0;
    for (size_t c = 0; c < dim; c++) {
        own += rest[c] * rest[c];
        coded += decoded[c] * decoded[c];
        along += decoded[c] * centroid[c];
    }
    return 2 * along + share * coded + (1 - share) * own;
}

/* Puts one row into its place. rest and decoded are scratch [dim], codes [groups]. */
static void fill_row(const build *b, uint64_t row_number, const float *row, float *rest, float *decoded, uint8_t *codes)
{
    lk_partitioned *index = b->index;
    uint32_t cell = b->cells[row_number], position = b->positions[row_number];
    const float *centroid = b->centroids + (size_t)cell * b->dim;
    const lk_list *list = &index->lists[cell];
    size_t place = position - list->first;
    uint64_t id = b->rows->ids ? b->rows->ids[row_number] : row_number, block = list->block + place / LK_SCAN_BLOCK;
    for (size_t c = 0; c < b->dim; c++) rest[c] = row[c] - centroid[c];
    lk_pq_encode(&index->pq, rest, 1, codes);
    if (b->metric == LK_INNER_PRODUCT && b->options.anisotropy > 1)
        lk_pq_bend(&index->pq, rest, row, b->options.anisotropy, codes);
    lk_pq_pack(&index->pq, codes, place % LK_SCAN_BLOCK, index->codes + block * lk_pq_block(&index->pq));
    if (lk_partitioned_by_distance(b->metric)) {
        lk_pq_decode(&index->pq, codes, decoded);
        b->corrections[position] = correction_of(b->dim, rest, decoded, centroid);
    }
    memcpy(index->ids + (size_t)position * b->header.id_bytes, &id, b->header.id_bytes);
    refine_row(b, row, position);
}

/* Vectors 0-15 and 16-31 of a block share bytes, so each cell's rows of the block in hand are filled by one thread. */
static lk_status fill_runs(void *arg, size_t begin, size_t end, int worker)
{
    build *b = arg;
    float *rest = b->scratch + (size_t)worker * b->scratch_size, *decoded = rest + b->dim;
    uint8_t *codes = (uint8_t *)(decoded + b->dim);
    for (size_t i = b->runs[begin]; i < b->runs[end]; i++)
        fill_row(b, b->block_first + b->piece_order[i], b->block + b->piece_order[i] * b->dim, rest, decoded, codes);
    return LK_OK;
}

static lk_status read_block(void *arg, size_t begin, size_t end, int worker)
{
    build *b = arg;
    (void)worker;
    return read_rows(b, b->block_first + begin, end - begin, b->block + begin * b->dim);
}

static int by_cell(const void *x, const void *y, void *arg)
{
    const build *b = arg;
    uint32_t i = *(const uint32_t *)x, j = *(const uint32_t *)y;
    uint32_t p = b->positions[b->block_first + i], q = b->positions[b->block_first + j];
    return p < q ? -1 : p > q;
}

static lk_status fill(build *b)
{
    lk_pool *pool = lk_context_pool(b->context);
    for (b->block_first = 0; b->block_first < b->rows->n; b->block_first += b->block_rows) {
        size_t n = b->rows->n - b->block_first < b->block_rows ? (size_t)(b->rows->n - b->block_first) : b->block_rows;
        if (lk_context_cancelled(b->context)) return lk_fail(LK_CANCELLED, "building the index was stopped");
        lk_status s = lk_parallel_for(pool, n, PIECE, read_block, b);
        if (s != LK_OK) return s;
        for (size_t i = 0; i < n; i++) b->piece_order[i] = (uint32_t)i;
        qsort_r(b->piece_order, n, sizeof *b->piece_order, by_cell, b);
        b->run_count = 0;
        for (size_t i = 0; i < n; i++)
            if (i == 0 ||
                b->cells[b->block_first + b->piece_order[i]] != b->cells[b->block_first + b->piece_order[i - 1]])
                b->runs[b->run_count++] = i;
        b->runs[b->run_count] = n;
        s = lk_parallel_for(pool, b->run_count, 16, fill_runs, b);
        if (s != LK_OK) return s;
        /* Written pages of a file need not stay mapped; they are in the page cache, or on the disk. */
        if (b->temporary)
            madvise(b->index->image + LK_PARTITIONED_HEADER, b->index->size - LK_PARTITIONED_HEADER, MADV_DONTNEED);
        lk_report_progress(b->context, "encoding", b->block_first + n, b->rows->n);
    }
    return LK_OK;
}

static void finish_lists(build *b)
{
    lk_partitioned *index = b->index;
    for (size_t i = 0; i < b->header.partitions && lk_partitioned_by_distance(b->metric); i++) {
        lk_list *list = &index->lists[i];
        list->step = round_corrections(b->corrections + list->first, (size_t)(list[1].first - list->first),
                                       &list->middle, index->corrections + list->block * LK_SCAN_BLOCK);
    }
}

/* ---- the whole ---- */

static unsigned bytes_of(uint64_t most)
{
    unsigned bytes = 1;
    while (bytes < 8 && most >> (8 * bytes)) bytes++;
    return bytes;
}

static lk_status plan(build *b)
{
    const lk_rows *rows = b->rows;
    lk_partitioned_options *o = &b->options;
    if (rows->n < 1 || rows->n > UINT32_MAX)
        return lk_fail(LK_INVALID, "%llu vectors: from 1 to 4294967295 are possible", (unsigned long long)rows->n);
    if (rows->dim < 1 || rows->dim > LK_PARTITIONED_DIM_MOST)
        return lk_fail(LK_INVALID, "vectors of %zu components: from 1 to %d are possible", rows->dim,
                       LK_PARTITIONED_DIM_MOST);
    uint64_t most = rows->n - 1;
    for (uint64_t i = 0; rows->ids && i < rows->n; i++) most = rows->ids[i] > most ? rows->ids[i] : most;
    if (o->partitions == 0) o->partitions = (size_t)(2 * sqrt((double)rows->n));
    if (o->partitions > rows->n) o->partitions = (size_t)rows->n;
    if (o->groups == 0) o->groups = (rows->dim + 1) / 2;
    if (o->groups > rows->dim) o->groups = rows->dim;
    if (o->anisotropy == 0) o->anisotropy = 4;
    b->header = (lk_partitioned_header){.magic = LK_PARTITIONED_MAGIC,
                                        .version = LK_PARTITIONED_VERSION,
                                        .endian = 0x01020304,
                                        .n = rows->n,
                                        .metric = b->metric,
                                        .refine = o->refine,
                                        .dim = (uint32_t)rows->dim,
                                        .partitions = (uint32_t)o->partitions,
                                        .groups = (uint32_t)o->groups,
                                        .coarse_groups = (uint32_t)((rows->dim + 1) / 2),
                                        .id_bytes = bytes_of(most)};
    return LK_OK;
}

/* Bytes beside the sample and the block in hand. */
static uint64_t fixed_bytes(const build *b, bool in_file)
{
    lk_partitioned_header h = b->header;
    lk_partitioned_lay_out(&h, h.n / LK_SCAN_BLOCK + h.partitions);
    return (in_file ? 0 : h.file_size) + h.n * 12 + h.partitions * b->dim * 8 + b->threads * b->scratch_size * 4;
}

static lk_status allocate(build *b, bool in_file)
{
    size_t cells = b->header.partitions, row = b->dim * sizeof(float);
    uint64_t n = b->rows->n;
    b->threads = (size_t)lk_context_threads(b->context);
    b->by_scan = cells >= SCANNED_CELLS;
    lk_cells_scratch measure;
    lk_cells shape = {.count = cells, .dim = b->dim, .pq = lk_pq_of(b->dim, b->header.coarse_groups, NULL)};
    size_t find = lk_cells_carve(&shape, 1, NULL, &measure) / sizeof(float) + 16, products = lk_kmeans_scratch(cells);
    /* Rounded so that every thread's part, and what comes after the rows in it, begins at a line of the cache. */
    b->scratch_size = PIECE * b->dim + ((b->by_scan ? find : products) + b->header.groups + 15) / 16 * 16;
    uint64_t sampled = (uint64_t)SAMPLE_PER_CELL * cells, block = 65536;
    if (sampled > n) sampled = n;
    if (block > n) block = n;
    if (b->options.memory) {
        uint64_t fixed = fixed_bytes(b, in_file), left = b->options.memory > fixed ? b->options.memory - fixed : 0;
        uint64_t least = (uint64_t)SAMPLE_LEAST_PER_CELL * cells < n ? (uint64_t)SAMPLE_LEAST_PER_CELL * cells : n;
        uint64_t room = left / (row + 16); /* the sample is gone before the block comes; k-means keeps 16 bytes a row */
        if (room < least || room < PIECE)
            return lk_fail(LK_LIMIT, "building takes at least %llu MiB; %llu were allowed",
                           (unsigned long long)((fixed + (least + PIECE) * (row + 16)) >> 20) + 1,
                           (unsigned long long)(b->options.memory >> 20));
        if (sampled > room) sampled = room;
        if (block > room) block = room;
    }
    b->sampled = (size_t)sampled;
    b->block_rows = (size_t)block;
    b->sample = lk_alloc(b->sampled, row);
    b->centroids = lk_alloc_aligned(cells, row);
    b->half_norms = lk_alloc(cells, sizeof *b->half_norms);
    b->refine_place = lk_alloc(b->dim, 2 * sizeof *b->refine_place);
    b->cells = lk_alloc(n, sizeof *b->cells);
    b->positions = lk_alloc(n, sizeof *b->positions);
    b->scratch = lk_alloc_aligned(b->threads * b->scratch_size, sizeof *b->scratch);
    return b->sample && b->centroids && b->half_norms && b->refine_place && b->cells && b->positions && b->scratch
               ? LK_OK
               : lk_fail_memory("index");
}

static lk_status allocate_block(build *b)
{
    free(b->sample);
    b->sample = NULL;
    b->block = lk_alloc(b->block_rows, b->dim * sizeof *b->block);
    b->piece_order = lk_alloc(b->block_rows, sizeof *b->piece_order);
    b->runs = lk_alloc(b->block_rows + 1, sizeof *b->runs);
    b->corrections = lk_alloc(b->rows->n, sizeof *b->corrections);
    return b->block && b->piece_order && b->runs && b->corrections ? LK_OK : lk_fail_memory("index");
}

static lk_status publish(build *b, const char *path)
{
    lk_partitioned_seal(b->index);
    if (!path) return LK_OK;
    if (msync(b->index->image, b->index->size, MS_SYNC) != 0)
        return lk_fail_errno(errno, "%s: cannot be written", path);
    lk_status s = lk_file_move(b->temporary, path);
    if (s == LK_OK) {
        free(b->temporary);
        b->temporary = NULL;
    }
    return s;
}

static void drop(build *b)
{
    if (b->temporary) unlink(b->temporary);
    free(b->temporary);
    free(b->sample);
    free(b->centroids);
    free(b->half_norms);
    free(b->refine_place);
    free(b->cell_codes);
    free(b->cell_corrections);
    free(b->sample_cells);
    free(b->cells);
    free(b->positions);
    free(b->corrections);
    free(b->scratch);
    free(b->piece_order);
    free(b->block);
    free(b->runs);
}

lk_status lk_partitioned_build(lk_context *context, const lk_rows *rows, lk_metric metric,
                               const lk_partitioned_options *options, const char *path, lk_partitioned **out)
{
    *out = NULL;
    build b = {.context = context, .rows = rows, .metric = metric, .dim = rows->dim};
    if (options) b.options = *options;
    lk_list *lists = NULL;
    float *words = NULL, *coarse_words = NULL;
    lk_status s;
    LK_TRY(plan(&b));
    b.index = lk_alloc_zero(1, sizeof *b.index);
    lists = lk_alloc(b.header.partitions + 1, sizeof *lists);
    words = lk_alloc(b.dim, LK_SCAN_CODEWORDS * sizeof *words);
    coarse_words = lk_alloc(b.dim, LK_SCAN_CODEWORDS * sizeof *coarse_words);
    if (!b.index || !lists || !words || !coarse_words) {
        s = lk_fail_memory("index");
        goto done;
    }
    LK_TRY(allocate(&b, path != NULL));
    LK_TRY(lk_parallel_for(lk_context_pool(context), (b.sampled + SAMPLE_RUN - 1) / SAMPLE_RUN, 16, read_sample, &b));
    LK_TRY(learn(&b, words, coarse_words));
    LK_TRY(allocate_block(&b));
    LK_TRY(lk_parallel_for(lk_context_pool(context), rows->n, PIECE, assign_rows, &b));
    LK_TRY(make_image(&b, place_rows(&b, lists), path));
    memcpy(b.index->centroids, b.centroids, (size_t)b.header.partitions * b.dim * sizeof(float));
    memcpy(b.index->words, words, b.dim * LK_SCAN_CODEWORDS * sizeof *words);
    memcpy(b.index->coarse_words, coarse_words, b.dim * LK_SCAN_CODEWORDS * sizeof *words);
    memcpy(b.index->lists, lists, (b.header.partitions + 1) * sizeof *lists);
    memcpy(b.index->refine_place, b.refine_place, b.dim * 2 * sizeof(float));
    LK_TRY(encode_cells(&b));
    LK_TRY(fill(&b));
    finish_lists(&b);
    LK_TRY(publish(&b, path));
    *out = b.index;
    b.index = NULL;
done:
    lk_partitioned_free(b.index);
    drop(&b);
    free(lists);
    free(words);
    free(coarse_words);
    return s;
}

typedef struct array {
    const float *vectors;
    size_t dim;
} array;

static lk_status read_array(void *user, uint64_t first, size_t n, float *out)
{
    const array *a = user;
    memcpy(out, a->vectors + first * a->dim, n * a->dim * sizeof *out);
    return LK_OK;
}

lk_status lk_partitioned_build_memory(lk_context *context, size_t n, size_t dim, const float *vectors,
                                      const uint64_t *ids, lk_metric metric, const lk_partitioned_options *options,
                                      lk_partitioned **out)
{
    array a = {vectors, dim};
    lk_rows rows = {.read = read_array, .user = &a, .n = n, .dim = dim, .ids = ids};
    return lk_partitioned_build(context, &rows, metric, options, NULL, out);
}
