/* The nearest neighbours of every vector among all. A tile of inner products at a time is computed by matrix product in
 * f32; what may be among the k nearest is measured again in f64, so that near ties fall as they would in exact
 * arithmetic. */
#include "rank/knn.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "index/distance.h"
#include "index/topk.h"

#include <cblas.h>
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 96, COLUMNS = 2048, SPARE = 8 /* candidates beyond k, against rounding */ };

typedef struct work {
    lk_context *context;
    const lk_distance_kernels *kernels;
    size_t n, dim, wanted; /* wanted: candidates a row */
    const float *vectors;
    float *bias; /* [n]: minus half the squared length */
    lk_knn *knn;
    atomic_size_t done;
} work;

typedef struct scratch {
    float *tile;      /* [ROWS][COLUMNS] */
    uint32_t *chosen; /* [COLUMNS] */
    lk_hit *hits;     /* [ROWS][capacity] */
    lk_topk best[ROWS];
    float lowest[ROWS]; /* the worst key of each row: its farthest item */
    uint32_t lowest_at[ROWS];
} scratch;

typedef struct candidate {
    double distance;
    uint32_t at;
} candidate;

double lk_rank_distance(const float *a, const float *b, size_t dim)
{
    double sums[8] = {0};
    size_t d = 0;
    for (; d + 8 <= dim; d += 8) {
        for (int l = 0; l < 8; l++) {
            double t = (double)a[d + (size_t)l] - (double)b[d + (size_t)l];
            sums[l] += t * t;
        }
    }
    for (; d < dim; d++) {
        double t = (double)a[d] - (double)b[d];
        sums[0] += t * t;
    }
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

static int nearer(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Keys are inner products less half the squared length of the other: higher is nearer. */
static void take_tile(const work *w, scratch *t, size_t rows, size_t column, size_t columns)
{
    for (size_t r = 0; r < rows; r++) {
        float *keys = t->tile + r * COLUMNS, lowest = t->lowest[r];
        for (size_t c = 0; c < columns; c++) lowest = keys[c] < lowest ? keys[c] : lowest;
        if (lowest < t->lowest[r]) {
            size_t at = 0;
            while (keys[at] != lowest) at++;
            t->lowest[r] = lowest;
            t->lowest_at[r] = (uint32_t)(column + at);
        }
        size_t found = w->kernels->select(keys, columns, t->best[r].threshold, t->chosen);
        for (size_t i = 0; i < found; i++) lk_topk_push(&t->best[r], keys[t->chosen[i]], column + t->chosen[i]);
        lk_topk_tighten(&t->best[r]);
    }
}

static void settle_row(const work *w, scratch *t, size_t r, size_t row, candidate *candidates)
{
    const float *x = w->vectors + row * w->dim;
    size_t count = lk_topk_finish(&t->best[r]), k = w->knn->k;
    for (size_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)t->best[r].hits[i].id;
        candidates[i] = (candidate){lk_rank_distance(x, w->vectors + at * w->dim, w->dim), at};
    }
    qsort(candidates, count, sizeof *candidates, nearer);
    for (size_t i = 0; i < k; i++) {
        w->knn->neighbours[row * k + i] = i < count ? candidates[i].at : LK_KNN_NONE;
        w->knn->distances[row * k + i] = i < count ? (float)candidates[i].distance : 0;
    }
    w->knn->farthest[row] = (float)lk_rank_distance(x, w->vectors + t->lowest_at[r] * w->dim, w->dim);
}

static lk_status find_rows(void *arg, size_t begin, size_t end, int worker)
{
    work *w = arg;
    (void)worker;
    size_t rows = end - begin, capacity = lk_topk_capacity(w->wanted);
    scratch *t = lk_alloc_zero(1, sizeof *t);
    candidate *candidates = lk_alloc(w->wanted, sizeof *candidates);
    lk_status s = LK_OK;
    if (!t || !candidates || !(t->tile = lk_alloc_aligned((size_t)ROWS * COLUMNS, sizeof *t->tile)) ||
        !(t->chosen = lk_alloc(COLUMNS, sizeof *t->chosen)) ||
        !(t->hits = lk_alloc(ROWS * capacity, sizeof *t->hits))) {
        s = lk_fail_memory("neighbours");
        goto done;
    }
    if (lk_context_cancelled(w->context)) {
        s = lk_fail(LK_CANCELLED, "the search for neighbours was stopped");
        goto done;
    }
    for (size_t r = 0; r < rows; r++) {
        lk_topk_init(&t->best[r], t->hits + r * capacity, w->wanted);
        t->lowest[r] = FLT_MAX;
    }
    for (size_t column = 0; column < w->n; column += COLUMNS) {
        size_t columns = w->n - column < COLUMNS ? w->n - column : COLUMNS;
        for (size_t r = 0; r < rows; r++) memcpy(t->tile + r * COLUMNS, w->bias + column, columns * sizeof(float));
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, (blasint)columns, (blasint)w->dim, 1,
                    w->vectors + begin * w->dim, (blasint)w->dim, w->vectors + column * w->dim, (blasint)w->dim, 1,
                    t->tile, COLUMNS);
        take_tile(w, t, rows, column, columns);
    }
    for (size_t r = 0; r < rows; r++) settle_row(w, t, r, begin + r, candidates);
    lk_report_progress(w->context, "finding neighbours", atomic_fetch_add(&w->done, rows) + rows, w->n);
done:
    if (t) {
        free(t->tile);
        free(t->chosen);
        free(t->hits);
    }
    free(t);
    free(candidates);
    return s;
}

lk_status lk_knn_alloc(size_t n, size_t k, const uint64_t *ids, lk_knn **out)
{
    *out = NULL;
    lk_knn *knn = lk_alloc_zero(1, sizeof *knn);
    if (!knn) return lk_fail_memory("neighbours");
    *knn = (lk_knn){.n = n,
                    .k = k,
                    .ids = lk_alloc(n, sizeof *knn->ids),
                    .neighbours = k <= SIZE_MAX / n ? lk_alloc(n * k, sizeof *knn->neighbours) : NULL,
                    .distances = k <= SIZE_MAX / n ? lk_alloc(n * k, sizeof *knn->distances) : NULL,
                    .farthest = lk_alloc_zero(n, sizeof *knn->farthest)};
    if (!knn->ids || !knn->neighbours || !knn->distances || !knn->farthest || !lk_id_map_reserve(&knn->places, n)) {
        lk_knn_free(knn);
        return lk_fail_memory("neighbours");
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t id = ids ? ids[i] : i;
        if (lk_id_map_get(&knn->places, id) != LK_NO_PLACE) {
            lk_knn_free(knn);
            return lk_fail(LK_CONFLICT, "the id %llu appears twice among the items", (unsigned long long)id);
        }
        knn->ids[i] = id;
        lk_id_map_put(&knn->places, id, i);
    }
    *out = knn;
    return LK_OK;
}

void lk_knn_free(lk_knn *knn)
{
    if (!knn) return;
    free(knn->ids);
    free(knn->neighbours);
    free(knn->distances);
    free(knn->farthest);
    lk_id_map_free(&knn->places);
    free(knn);
}

lk_status lk_knn_new(lk_context *context, size_t n, size_t dim, const uint64_t *ids, const float *vectors, size_t k,
                     lk_knn **out)
{
    *out = NULL;
    if (n == 0 || dim == 0 || k == 0 || n >= UINT32_MAX || dim > 1 << 20)
        return lk_fail(LK_INVALID, "%zu neighbours of %zu vectors of width %zu cannot be found", k, n, dim);
    if (k > n) k = n;
    work w = {.context = context,
              .kernels = lk_distance_kernels_for(lk_cpu_detect()),
              .n = n,
              .dim = dim,
              .wanted = k + SPARE < n ? k + SPARE : n,
              .vectors = vectors,
              .bias = lk_alloc(n, sizeof *w.bias)};
    lk_status s = w.bias ? LK_OK : lk_fail_memory("neighbours");
    if (s != LK_OK) goto done;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t d = 0; d < dim; d++) sum += (double)vectors[i * dim + d] * vectors[i * dim + d];
        w.bias[i] = (float)(-sum / 2);
        if (!(sum < FLT_MAX)) {
            s = lk_fail(LK_INVALID, "vector %zu is not finite or too long", i);
            goto done;
        }
    }
    LK_TRY(lk_knn_alloc(n, k, ids, &w.knn));
    openblas_set_num_threads(1); /* rows are divided by our own threads */
    LK_TRY(lk_parallel_for(lk_context_pool(context), n, ROWS, find_rows, &w));
    *out = w.knn;
    w.knn = NULL;
done:
    lk_knn_free(w.knn);
    free(w.bias);
    return s;
}

lk_status lk_knn_from_lists(size_t n, const uint64_t *ids, size_t k, const uint32_t *neighbours, const float *distances,
                            const float *farthest, lk_knn **out)
{
    *out = NULL;
    if (n == 0 || k == 0 || n >= UINT32_MAX)
        return lk_fail(LK_INVALID, "a table of %zu lists of %zu is not possible", n, k);
    for (size_t i = 0; i < n * k; i++) {
        if (neighbours[i] >= n && neighbours[i] != LK_KNN_NONE)
            return lk_fail(LK_INVALID, "item %zu: its neighbour %zu is none of the %zu items", i / k, i % k, n);
    }
    lk_status s = lk_knn_alloc(n, k, ids, out);
    if (s != LK_OK) return s;
    memcpy((*out)->neighbours, neighbours, n * k * sizeof *neighbours);
    memcpy((*out)->distances, distances, n * k * sizeof *distances);
    if (farthest) memcpy((*out)->farthest, farthest, n * sizeof *farthest);
    return LK_OK;
}

size_t lk_knn_count(const lk_knn *knn)
{
    return knn->n;
}

size_t lk_knn_width(const lk_knn *knn)
{
    return knn->k;
}

lk_status lk_knn_neighbours(void *user, uint64_t id, size_t k, lk_hit *out, size_t *count, float *farthest)
{
    const lk_knn *knn = user;
    *count = 0;
    *farthest = 0;
    uint64_t at = lk_id_map_get(&knn->places, id);
    if (at == LK_NO_PLACE) return LK_NOT_FOUND; /* an answer, not a failure: no message */
    const uint32_t *row = knn->neighbours + at * knn->k;
    for (size_t i = 0; i < k && i < knn->k && row[i] != LK_KNN_NONE; i++)
        out[(*count)++] = (lk_hit){knn->ids[row[i]], knn->distances[at * knn->k + i]};
    *farthest = knn->farthest[at];
    return LK_OK;
}
