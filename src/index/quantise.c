#include "index/quantise.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows that the grid is fitted to. */
enum { TRAIN_ROWS = 20000 };

/* All components whole and, per component, within 255 of each other? Then offset [dim] makes codes of them. */
static bool fit_whole(size_t n, size_t dim, const float *vectors, float *offset, float *high)
{
    bool bytes = true;
    memcpy(offset, vectors, dim * sizeof *offset);
    memcpy(high, vectors, dim * sizeof *high);
    for (size_t r = 0; r < n; r++) {
        const float *row = vectors + r * dim;
        for (size_t i = 0; i < dim; i++) {
            if (row[i] != rintf(row[i]) || fabsf(row[i]) > 1e6f) return false;
            offset[i] = row[i] < offset[i] ? row[i] : offset[i];
            high[i] = row[i] > high[i] ? row[i] : high[i];
        }
    }
    for (size_t i = 0; i < dim; i++) {
        if (high[i] - offset[i] > 255) return false;
        bytes = bytes && offset[i] >= 0 && high[i] <= 255;
    }
    /* Room for vectors to come on both sides; bytes remain themselves. */
    for (size_t i = 0; i < dim; i++) offset[i] = bytes ? 0 : floorf((offset[i] + high[i]) / 2) - 127;
    return true;
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The grid covers a sample of rotated vectors with some room, but never spends more than half of its steps on the
 * outermost 1 in 10,000 components. */
static lk_status fit_grid(lk_sq8 *q, size_t n, const float *vectors)
{
    lk_status s = LK_OK;
    size_t dim = q->dim, rows = n < TRAIN_ROWS ? n : TRAIN_ROWS;
    size_t probes = rows * dim < 2000000 ? rows * dim : 2000000;
    double *mean = lk_alloc_zero(dim, sizeof *mean);
    float *sample = lk_alloc(rows * dim, sizeof *sample), *spread = lk_alloc(probes, sizeof *spread);
    if (!mean || !sample || !spread) {
        s = lk_fail_memory("training of a quantiser");
        goto done;
    }
    for (size_t r = 0; r < rows; r++) {
        float *row = sample + r * dim;
        memcpy(row, vectors + r * n / rows * dim, dim * sizeof *row);
        if (q->rotation.signs) lk_rotate(&q->rotation, row);
        for (size_t i = 0; i < dim; i++) mean[i] += row[i];
    }
    for (size_t i = 0; i < dim; i++) mean[i] /= (double)rows;
    for (size_t p = 0; p < probes; p++) {
        size_t at = (size_t)((double)p / (double)probes * (double)(rows * dim));
        spread[p] = fabsf(sample[at] - (float)mean[at % dim]);
    }
    qsort(spread, probes, sizeof *spread, compare_floats);
    float inner = spread[probes - 1 - probes / 10000], reach = 1.1f * spread[probes - 1];
    if (reach > 2 * inner && inner > 0) reach = 2 * inner;
    if (reach < 1e-30f) reach = 1;
    q->step = 2 * reach / 255;
    for (size_t i = 0; i < dim; i++) q->offset[i] = (float)mean[i] - 127.5f * q->step;
done:
    free(mean);
    free(sample);
    free(spread);
    return s;
}

lk_status lk_sq8_train(lk_sq8 *q, size_t n, size_t dim, const float *vectors, uint64_t seed)
{
    lk_status s = LK_OK;
    *q = (lk_sq8){.dim = dim, .stride = (dim + 63) / 64 * 64, .step = 1};
    q->offset = lk_alloc(dim, sizeof *q->offset);
    float *high = lk_alloc(dim, sizeof *high);
    if (!q->offset || !high) {
        s = lk_fail_memory("training of a quantiser");
        goto done;
    }
    q->exact = fit_whole(n, dim, vectors, q->offset, high);
    if (!q->exact) {
        LK_TRY(lk_rotation_init(&q->rotation, dim, seed));
        LK_TRY(fit_grid(q, n, vectors));
    }
done:
    free(high);
    if (s != LK_OK) lk_sq8_free(q);
    return s;
}

void lk_sq8_free(lk_sq8 *q)
{
    free(q->offset);
    lk_rotation_free(&q->rotation);
    *q = (lk_sq8){0};
}

void lk_sq8_units(const lk_sq8 *q, const float *vector, float *out)
{
    float scale = 1 / q->step;
    memcpy(out, vector, q->dim * sizeof *out);
    if (q->rotation.signs) lk_rotate(&q->rotation, out);
    for (size_t i = 0; i < q->dim; i++) out[i] = (out[i] - q->offset[i]) * scale;
    for (size_t i = q->dim; i < q->stride; i++) out[i] = 0;
}

void lk_sq8_encode(const lk_sq8 *q, const float *units, uint8_t *code, int8_t *residual)
{
    memset(code, 0, q->stride);
    if (residual) memset(residual, 0, q->stride);
    for (size_t i = 0; i < q->dim; i++) {
        float value = units[i] < 0 ? 0 : units[i] > 255 ? 255 : units[i], rounded = rintf(value);
        code[i] = (uint8_t)rounded;
        if (!residual) continue;
        float rest = rintf((units[i] - rounded) * 256);
        residual[i] = (int8_t)(rest < -128 ? -128 : rest > 127 ? 127 : rest);
    }
}

void lk_sq8_decode(const lk_sq8 *q, const uint8_t *code, const int8_t *residual, float *out)
{
    for (size_t i = 0; i < q->dim; i++)
        out[i] = q->offset[i] + q->step * ((float)code[i] + (residual ? (float)residual[i] / 256 : 0));
    if (q->rotation.signs) lk_rotate_back(&q->rotation, out);
}

void lk_lvq_encode(int bits, size_t dim, const float *vector, uint8_t *code, lk_lvq_factors *factors)
{
    float low = vector[0], high = vector[0], steps = bits == 4 ? 15 : 255;
    for (size_t i = 1; i < dim; i++) {
        low = vector[i] < low ? vector[i] : low;
        high = vector[i] > high ? vector[i] : high;
    }
    *factors = (lk_lvq_factors){low, (high - low) / steps};
    memset(code, 0, lk_lvq_bytes(bits, dim));
    if (!(factors->scale > 0)) return;
    for (size_t i = 0; i < dim; i++) {
        float value = rintf((vector[i] - low) / factors->scale);
        unsigned whole = value > steps ? (unsigned)steps : (unsigned)value;
        if (bits == 4)
            code[i / 2] = (uint8_t)(code[i / 2] | whole << (i % 2 * 4));
        else
            code[i] = (uint8_t)whole;
    }
}

void lk_lvq_decode(int bits, size_t dim, const uint8_t *code, const lk_lvq_factors *factors, float *out)
{
    for (size_t i = 0; i < dim; i++) {
        unsigned whole = bits == 4 ? code[i / 2] >> (i % 2 * 4) & 15u : code[i];
        out[i] = factors->offset + factors->scale * (float)whole;
    }
}
