#include "index/project.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "index/rotate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLE = 8192, /* codes that are looked at */
    ROUNDS = 8,    /* of subspace iteration: directions that it has not yet parted from others vary about as much */
    REACH = 4      /* standard deviations on either side of the mean that the grid covers */
};

/* ---- covariance ---- */

/* Sums over the sample of products of components i and j, each less 128: out [stride][stride]; sums of components less
 * 128: sums [stride]. Products of bytes are exact. */
static lk_status sum_products(const lk_code_kernels *kernels, size_t n, const uint8_t *codes, size_t step,
                              size_t stride, double *sums, float *out)
{
    uint8_t *columns = lk_alloc_aligned(stride * n, sizeof *columns);
    int8_t *column = lk_alloc(n, sizeof *column);
    lk_status s = columns && column ? LK_OK : lk_fail_memory("principal projection");
    for (size_t r = 0; s == LK_OK && r < n; r++)
        for (size_t i = 0; i < stride; i++) columns[i * n + r] = codes[r * step * stride + i];
    for (size_t i = 0; s == LK_OK && i < stride; i++) {
        int64_t sum = 0;
        for (size_t r = 0; r < n; r++) {
            column[r] = (int8_t)(columns[i * n + r] - 128);
            sum += column[r];
        }
        sums[i] = (double)sum;
        for (size_t j = 0; j <= i; j++) {
            double product = (double)(kernels->dot_u8(column, columns + j * n, n) - 128 * sum);
            out[i * stride + j] = out[j * stride + i] = (float)(product - sums[i] * sums[j] / (double)n);
        }
    }
    free(columns);
    free(column);
    return s;
}

/* ---- directions ---- */

/* Makes basis [width][dim] orthonormal (modified Gram-Schmidt). A direction that depends on those before it becomes
 * zero. */
static void orthonormalise(float *basis, size_t width, size_t dim)
{
    for (size_t k = 0; k < width; k++) {
        float *row = basis + k * dim;
        double before = 0, squares = 0;
        for (size_t i = 0; i < dim; i++) before += (double)row[i] * row[i];
        for (size_t other = 0; other < k; other++) {
            const float *by = basis + other * dim;
            double dot = 0;
            for (size_t i = 0; i < dim; i++) dot += (double)row[i] * by[i];
            for (size_t i = 0; i < dim; i++) row[i] -= (float)dot * by[i];
        }
        for (size_t i = 0; i < dim; i++) squares += (double)row[i] * row[i];
        double scale = squares > 1e-9 * before ? 1 / sqrt(squares) : 0;
        for (size_t i = 0; i < dim; i++) row[i] = (float)(row[i] * scale);
    }
}

typedef struct multiplying {
    const float *basis, *matrix; /* [width][dim], [dim][dim] symmetric */
    size_t dim;
    float *out; /* [width][dim]: their product */
} multiplying;

static lk_status multiply_some(void *arg, size_t begin, size_t end, int worker)
{
    (void)worker;
    multiplying *m = arg;
    size_t dim = m->dim;
    memset(m->out + begin * dim, 0, (end - begin) * dim * sizeof *m->out);
    for (size_t j = 0; j < dim; j++) {
        const float *row = m->matrix + j * dim;
        for (size_t k = begin; k < end; k++) {
            float by = m->basis[k * dim + j], *to = m->out + k * dim;
            for (size_t i = 0; i < dim; i++) to[i] += by * row[i];
        }
    }
    return LK_OK;
}

/* An orthonormal basis [width][dim] of about the directions in which the covariance is largest (subspace iteration),
 * and the share of the variance that lies along them. */
static lk_status find_directions(lk_pool *pool, const float *covariance, size_t width, size_t dim, uint64_t seed,
                                 float *basis, double *kept)
{
    lk_random random;
    multiplying m = {basis, covariance, dim, lk_alloc(width * dim, sizeof *m.out)};
    lk_status s = m.out ? LK_OK : lk_fail_memory("principal projection");
    double whole = 0, along = 0;
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < width * dim; i++) basis[i] = (float)lk_random_normal(&random);
    for (int round = 0; s == LK_OK && round <= ROUNDS; round++) {
        if (round > 0) memcpy(basis, m.out, width * dim * sizeof *basis);
        orthonormalise(basis, width, dim);
        s = lk_parallel_for(pool, width, 8, multiply_some, &m);
    }
    for (size_t i = 0; s == LK_OK && i < width * dim; i++) along += (double)basis[i] * m.out[i];
    for (size_t i = 0; i < dim; i++) whole += covariance[i * dim + i];
    *kept = whole > 0 ? along / whole : 0;
    free(m.out);
    return s;
}

/* Turns the basis [width][dim] within the space that it spans. */
static lk_status turn(float *basis, size_t width, size_t dim, uint64_t seed)
{
    lk_rotation rotation;
    float *column = lk_alloc(width, sizeof *column);
    lk_status s = column ? lk_rotation_init(&rotation, width, seed) : lk_fail_memory("principal projection");
    if (s == LK_OK) {
        for (size_t i = 0; i < dim; i++) {
            for (size_t k = 0; k < width; k++) column[k] = basis[k * dim + i];
            lk_rotate(&rotation, column);
            for (size_t k = 0; k < width; k++) basis[k * dim + i] = column[k];
        }
        lk_rotation_free(&rotation);
    }
    free(column);
    return s;
}

/* ---- the projection ---- */

/* Products of a query in the units of the codes [stride] with the directions: out [width]. */
static void multiply_rows(const lk_projection *p, const lk_code_kernels *kernels, const int16_t *query, int64_t *out)
{
    enum { PART = 64 };
    int32_t squares = 0, sum = 0; /* at most LK_PROJECTION_MOST * 510^2 */
    uint32_t places[PART], distances[PART];
    for (size_t i = 0; i < p->stride; i++) {
        squares += query[i] * query[i];
        sum += query[i];
    }
    for (size_t first = 0; first < p->width; first += PART) {
        for (size_t k = 0; k < PART; k++) places[k] = (uint32_t)(first + k);
        kernels->l2_u8_rows(query, p->rows, p->stride, places, PART, p->stride, distances);
        /* |query - row|^2 tells their product; rows are stored 128 too high. */
        for (size_t k = 0; k < PART; k++)
            out[first + k] = (squares + (int64_t)p->lengths[first + k] - distances[k]) / 2 - 128 * (int64_t)sum;
    }
}

void lk_projection_query(const lk_projection *p, const lk_code_kernels *kernels, const int16_t *query, int16_t *out)
{
    int64_t products[LK_PROJECTION_MOST_WIDTH];
    double scale = p->grid[p->width];
    multiply_rows(p, kernels, query, products);
    for (size_t k = 0; k < p->width; k++) {
        double value = ((double)products[k] - p->grid[k]) * scale;
        value = value > LK_CODES_QUERY_MIN ? value : LK_CODES_QUERY_MIN; /* also when a damaged file made it NaN */
        value = value < LK_CODES_QUERY_MAX ? value : LK_CODES_QUERY_MAX;
        out[k] = (int16_t)((value + 0x1.8p52) - 0x1.8p52); /* rint, without a call */
    }
}

lk_status lk_projection_measure(lk_projection *p)
{
    p->lengths = lk_alloc(p->width, sizeof *p->lengths);
    if (!p->lengths) return lk_fail_memory("principal projection");
    for (size_t k = 0; k < p->width; k++) {
        p->lengths[k] = 0;
        for (size_t i = 0; i < p->stride; i++)
            p->lengths[k] += (uint64_t)p->rows[k * p->stride + i] * p->rows[k * p->stride + i];
    }
    return LK_OK;
}

void lk_projection_free(lk_projection *p)
{
    free(p->rows);
    free(p->lengths);
    free(p->grid);
    *p = (lk_projection){0};
}

/* Rounds the basis to rows of bytes; returns the factor. */
static double round_basis(lk_projection *p, const float *basis)
{
    float most = 0;
    for (size_t i = 0; i < p->width * p->stride; i++) most = fabsf(basis[i]) > most ? fabsf(basis[i]) : most;
    double factor = most > 0 ? 127 / (double)most : 1;
    for (size_t i = 0; i < p->width * p->stride; i++) p->rows[i] = (uint8_t)(128 + (int)rint(basis[i] * factor));
    return factor;
}

/* The grid that covers the sample's projections. */
static lk_status fit_grid(lk_projection *p, const lk_code_kernels *kernels, size_t n, const uint8_t *codes, size_t step,
                          double factor)
{
    size_t width = p->width;
    double *sums = lk_alloc_zero(2 * width, sizeof *sums), *squares = sums + width, variance = 0;
    int64_t *products = lk_alloc(width, sizeof *products);
    int16_t *query = lk_alloc_aligned(p->stride, sizeof *query);
    lk_status s = sums && products && query ? LK_OK : lk_fail_memory("principal projection");
    for (size_t r = 0; s == LK_OK && r < n; r++) {
        for (size_t i = 0; i < p->stride; i++) query[i] = codes[r * step * p->stride + i];
        multiply_rows(p, kernels, query, products);
        for (size_t k = 0; k < width; k++) {
            sums[k] += (double)products[k];
            squares[k] += (double)products[k] * (double)products[k];
        }
    }
    for (size_t k = 0; s == LK_OK && k < width; k++)
        variance += (squares[k] - sums[k] * sums[k] / (double)n) / (double)n / (double)width;
    double scale = variance > 0 ? 127.5 / (REACH * sqrt(variance)) : 1;
    for (size_t k = 0; s == LK_OK && k < width; k++) p->grid[k] = (float)(sums[k] / (double)n - 127.5 / scale);
    if (s == LK_OK) p->grid[width] = (float)scale, p->grid[width + 1] = (float)(scale * factor * scale * factor);
    free(sums);
    free(products);
    free(query);
    return s;
}

lk_status lk_projection_train(lk_projection *p, const lk_code_kernels *kernels, lk_pool *pool, size_t n,
                              const uint8_t *codes, size_t stride, double least, uint64_t seed)
{
    size_t step = n > SAMPLE ? n / SAMPLE : 1, rows = n / step < SAMPLE ? n / step : SAMPLE, width = 32;
    size_t most = stride / 2 < LK_PROJECTION_MOST_WIDTH ? stride / 2 : LK_PROJECTION_MOST_WIDTH;
    double kept = 0;
    *p = (lk_projection){.stride = stride};
    double *sums = lk_alloc(stride, sizeof *sums);
    float *covariance = lk_alloc(stride * stride, sizeof *covariance), *basis = lk_alloc(most * stride, sizeof *basis);
    lk_status s = sums && covariance && basis ? LK_OK : lk_fail_memory("principal projection");
    if (s != LK_OK) goto done;
    LK_TRY(sum_products(kernels, rows, codes, step, stride, sums, covariance));
    while (kept < least && (width *= 2) <= most)
        LK_TRY(find_directions(pool, covariance, width, stride, seed, basis, &kept));
    if (kept < least) goto done;
    p->width = width;
    p->rows = lk_alloc_aligned(width * stride, sizeof *p->rows);
    p->grid = lk_alloc(width + 2, sizeof *p->grid);
    s = p->rows && p->grid ? turn(basis, width, stride, seed) : lk_fail_memory("principal projection");
    if (s != LK_OK) goto done;
    double factor = round_basis(p, basis);
    LK_TRY(lk_projection_measure(p));
    LK_TRY(fit_grid(p, kernels, rows, codes, step, factor));
done:
    free(sums);
    free(covariance);
    free(basis);
    if (s != LK_OK) lk_projection_free(p);
    return s;
}
