#include "embed/kmeans.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "index/distance.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDING_PER_CLUSTER = 16, SEEDING_LEAST = 20000, ROWS_PER_PIECE = 2048 };

typedef struct kmeans {
    const float *x;
    size_t n, dim, k;
    float *centroids, *half_norms;
    uint32_t *assignment;
    float *distances; /* [n], squared, to the assigned centroid */
    float *scratch;   /* [threads][k] */
    size_t *order;    /* [n]: rows by cluster */
    size_t *starts;   /* [k + 1] into order */
    const lk_distance_kernels *kernels;
    const float *seed_row; /* the seed chosen last */
} kmeans;

void lk_kmeans_half_norms(const float *centroids, size_t k, size_t dim, float *half_norms)
{
    for (size_t c = 0; c < k; c++) {
        double sum = 0;
        for (size_t i = 0; i < dim; i++) sum += (double)centroids[c * dim + i] * centroids[c * dim + i];
        half_norms[c] = (float)(sum / 2);
    }
}

void lk_kmeans_assign(const float *x, size_t n, size_t dim, const float *centroids, const float *half_norms, size_t k,
                      float *scratch, uint32_t *assignment, float *distances)
{
    /* |x - c|^2 = |x|^2 - 2 (x.c - |c|^2/2): the nearest centroid has the largest x.c - |c|^2/2. */
    const lk_distance_kernels *kernels = lk_distance_kernels_for(lk_cpu_detect());
    for (size_t r = 0; r < n; r++) {
        const float *v = x + r * dim;
        kernels->rows_dot[LK_F32](v, centroids, dim * sizeof(float), k, dim, NULL, scratch);
        float best = -FLT_MAX;
        uint32_t nearest = 0;
        for (size_t c = 0; c < k; c++) {
            float score = scratch[c] - half_norms[c];
            if (score > best) {
                best = score;
                nearest = (uint32_t)c;
            }
        }
        assignment[r] = nearest;
        if (!distances) continue;
        float distance = lk_dot_f32(kernels, v, v, dim) - 2 * best;
        distances[r] = distance > 0 ? distance : 0;
    }
}

static lk_status assign_rows(void *arg, size_t begin, size_t end, int worker)
{
    kmeans *m = arg;
    lk_kmeans_assign(m->x + begin * m->dim, end - begin, m->dim, m->centroids, m->half_norms, m->k,
                     m->scratch + (size_t)worker * m->k, m->assignment + begin, m->distances + begin);
    return LK_OK;
}

/* Each centroid is summed by one thread in the order of its rows: the sum does not depend on the threads. */
static lk_status average_clusters(void *arg, size_t begin, size_t end, int worker)
{
    kmeans *m = arg;
    (void)worker;
    for (size_t c = begin; c < end; c++) {
        size_t count = m->starts[c + 1] - m->starts[c];
        if (count == 0) continue;
        float *centroid = m->centroids + c * m->dim;
        double *sums = lk_alloc_zero(m->dim, sizeof *sums);
        if (!sums) return lk_fail_memory("k-means");
        for (size_t i = m->starts[c]; i < m->starts[c + 1]; i++) {
            const float *row = m->x + m->order[i] * m->dim;
            for (size_t j = 0; j < m->dim; j++) sums[j] += row[j];
        }
        for (size_t j = 0; j < m->dim; j++) centroid[j] = (float)(sums[j] / (double)count);
        free(sums);
    }
    return LK_OK;
}

/* Counting sort of rows by cluster. */
static void group_rows(kmeans *m)
{
    memset(m->starts, 0, (m->k + 1) * sizeof *m->starts);
    for (size_t i = 0; i < m->n; i++) m->starts[m->assignment[i] + 1]++;
    for (size_t c = 0; c < m->k; c++) m->starts[c + 1] += m->starts[c];
    for (size_t i = 0; i < m->n; i++) m->order[m->starts[m->assignment[i]]++] = i;
    memmove(m->starts + 1, m->starts, m->k * sizeof *m->starts); /* each start has run on to the next cluster's */
    m->starts[0] = 0;
}

/* An empty cluster takes the row that is worst served; that row then counts as served. */
static void refill_empty(kmeans *m)
{
    for (size_t c = 0; c < m->k; c++) {
        if (m->starts[c + 1] != m->starts[c]) continue;
        size_t worst = 0;
        for (size_t i = 1; i < m->n; i++)
            if (m->distances[i] > m->distances[worst]) worst = i;
        memcpy(m->centroids + c * m->dim, m->x + worst * m->dim, m->dim * sizeof *m->x);
        m->distances[worst] = 0;
    }
}

/* ---- seeding ---- */

typedef struct seeding {
    const kmeans *m;
    const size_t *rows; /* of the sample */
    float *nearest;     /* [sample]: squared distance to the nearest seed so far */
} seeding;

static lk_status update_nearest(void *arg, size_t begin, size_t end, int worker)
{
    seeding *all = arg;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        float d = lk_l2_f32(all->m->kernels, all->m->seed_row, all->m->x + all->rows[i] * all->m->dim, all->m->dim);
        if (d < all->nearest[i]) all->nearest[i] = d;
    }
    return LK_OK;
}

/* Seeds on a sample of the rows: k-means++ reads every row once per cluster, and a sample of 16 rows a cluster serves
 * as well as all for a starting point. */
static lk_status seed(lk_context *context, kmeans *m, uint64_t number)
{
    lk_random random;
    lk_random_seed(&random, number);
    size_t sample = m->k * SEEDING_PER_CLUSTER > SEEDING_LEAST ? m->k * SEEDING_PER_CLUSTER : SEEDING_LEAST;
    if (sample > m->n) sample = m->n;
    size_t *rows = lk_alloc(m->n, sizeof *rows);
    float *nearest = lk_alloc(sample, sizeof *nearest);
    lk_status s = rows && nearest ? LK_OK : lk_fail_memory("k-means");
    if (s != LK_OK) goto done;
    for (size_t i = 0; i < m->n; i++) rows[i] = i;
    for (size_t i = 0; i < sample; i++) { /* the first part of a Fisher-Yates shuffle */
        size_t j = i + lk_random_below(&random, m->n - i), t = rows[i];
        rows[i] = rows[j];
        rows[j] = t;
    }
    for (size_t i = 0; i < sample; i++) nearest[i] = FLT_MAX;
    seeding all = {m, rows, nearest};
    size_t chosen = 0;
    for (size_t c = 0; c < m->k; c++) {
        if (lk_context_cancelled(context)) {
            s = lk_fail(LK_CANCELLED, "learning the vocabulary was stopped");
            goto done;
        }
        m->seed_row = m->x + rows[chosen] * m->dim;
        memcpy(m->centroids + c * m->dim, m->seed_row, m->dim * sizeof *m->x);
        LK_TRY(lk_parallel_for(lk_context_pool(context), sample, 4096, update_nearest, &all));
        double total = 0, sum = 0;
        for (size_t i = 0; i < sample; i++) total += nearest[i];
        double target = lk_random_unit(&random) * total;
        for (chosen = 0; chosen + 1 < sample; chosen++) {
            sum += nearest[chosen];
            if (sum > target) break;
        }
    }
done:
    free(rows);
    free(nearest);
    return s;
}

lk_status lk_kmeans(lk_context *context, const float *x, size_t n, size_t dim, size_t k,
                    const lk_kmeans_options *options, float *centroids, uint32_t *assignment, double *inertia)
{
    if (k == 0 || n < k) return lk_fail(LK_INVALID, "%zu clusters cannot be made of %zu points", k, n);
    unsigned iterations = options->iterations ? options->iterations : 20;
    size_t threads = (size_t)lk_context_threads(context);
    double before = DBL_MAX, now = 0;
    kmeans m = {.x = x,
                .n = n,
                .dim = dim,
                .k = k,
                .centroids = centroids,
                .half_norms = lk_alloc(k, sizeof *m.half_norms),
                .assignment = assignment ? assignment : lk_alloc(n, sizeof *m.assignment),
                .distances = lk_alloc(n, sizeof *m.distances),
                .scratch = lk_alloc(threads * k, sizeof *m.scratch),
                .order = lk_alloc(n, sizeof *m.order),
                .starts = lk_alloc(k + 1, sizeof *m.starts),
                .kernels = lk_distance_kernels_for(lk_cpu_detect())};
    lk_status s = m.half_norms && m.assignment && m.distances && m.scratch && m.order && m.starts
                      ? LK_OK
                      : lk_fail_memory("k-means");
    if (s == LK_OK) s = seed(context, &m, options->seed);
    for (unsigned i = 0; s == LK_OK && i <= iterations; i++) {
        if (lk_context_cancelled(context)) {
            s = lk_fail(LK_CANCELLED, "learning the vocabulary was stopped");
            break;
        }
        lk_report_progress(context, "learning the vocabulary", i, iterations);
        lk_kmeans_half_norms(m.centroids, k, dim, m.half_norms);
        s = lk_parallel_for(lk_context_pool(context), n, ROWS_PER_PIECE, assign_rows, &m);
        now = 0;
        for (size_t r = 0; r < n; r++) now += m.distances[r];
        now /= (double)n;
        if (i == iterations || (options->tolerance > 0 && before - now < options->tolerance * before)) break;
        before = now;
        group_rows(&m);
        if (s == LK_OK) s = lk_parallel_for(lk_context_pool(context), k, 1, average_clusters, &m);
        refill_empty(&m);
    }
    if (inertia) *inertia = now;
    free(m.half_norms);
    if (!assignment) free(m.assignment);
    free(m.distances);
    free(m.scratch);
    free(m.order);
    free(m.starts);
    return s;
}
