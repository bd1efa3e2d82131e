/* How vectors are stored: f32 as they are, f16 rounded to nearest even, int8 with one scale per vector. */
#include "base/cpu.h"
#include "base/error.h"
#include "base/half.h"
#include "index/distance.h"

#include <math.h>
#include <string.h>

size_t lk_dtype_bytes(lk_dtype dtype, size_t dim)
{
    return dtype == LK_F32 ? 4 * dim : dtype == LK_F16 ? 2 * dim : dim;
}

static float read_f32(const float *vector, size_t i)
{
    float value; /* callers may hand over bytes at any address */
    memcpy(&value, (const char *)vector + 4 * i, sizeof value);
    return value;
}

/* Symmetric: the component of largest magnitude becomes 127. A normalised vector's scale is then chosen so that the
 * stored vector has length 1 exactly, which makes its inner products true cosines. */
static float encode_i8(size_t dim, const float *vector, double factor, int normalise, int8_t *codes)
{
    double largest = 0, squares = 0;
    for (size_t i = 0; i < dim; i++) largest = fmax(largest, fabs(read_f32(vector, i) * factor));
    float scale = (float)(largest / 127);
    double inverse = scale > 0 ? 127 / largest : 0;
    for (size_t i = 0; i < dim; i++) {
        codes[i] = (int8_t)lrint(read_f32(vector, i) * factor * inverse);
        squares += codes[i] * codes[i];
    }
    return normalise && squares > 0 ? (float)(1 / sqrt(squares)) : scale;
}

lk_status lk_vectors_encode(lk_dtype dtype, size_t dim, size_t n, const float *vectors, int normalise, void *codes,
                            float *scales)
{
    if (dtype == LK_I8 && scales == NULL && n > 0)
        return lk_fail(LK_INVALID, "int8 vectors need a place for their scales");
    size_t width = lk_dtype_bytes(dtype, dim);
    for (size_t row = 0; row < n; row++) {
        const float *vector = vectors + row * dim;
        char *out = (char *)codes + row * width;
        double squares = 0, factor = 1;
        for (size_t i = 0; i < dim; i++) {
            double value = read_f32(vector, i);
            if (!isfinite(value)) return lk_fail(LK_INVALID, "row %zu, component %zu is not a finite number", row, i);
            squares += value * value;
        }
        if (normalise && squares > 0) factor = 1 / sqrt(squares);
        if (dtype == LK_I8) {
            scales[row] = encode_i8(dim, vector, factor, normalise, (int8_t *)out);
            continue;
        }
        for (size_t i = 0; i < dim; i++) {
            float value = (float)(read_f32(vector, i) * factor);
            if (dtype == LK_F32) {
                memcpy(out + 4 * i, &value, sizeof value);
                continue;
            }
            if (fabsf(value) >= 65520.0f)
                return lk_fail(LK_INVALID,
                               "row %zu, component %zu is %g, which does not fit into 16 bits; the largest is 65504",
                               row, i, (double)value);
            uint16_t half = lk_float_to_half(value);
            memcpy(out + 2 * i, &half, sizeof half);
        }
    }
    return LK_OK;
}

void lk_decode_rows(const lk_distance_kernels *kernels, lk_dtype dtype, size_t dim, size_t n, const void *codes,
                    const float *scales, float *out)
{
    if (dtype == LK_F32) memcpy(out, codes, n * dim * sizeof *out);
    if (dtype == LK_F16) kernels->decode_f16(codes, n * dim, out);
    if (dtype == LK_I8)
        for (size_t row = 0; row < n; row++)
            kernels->decode_i8((const int8_t *)codes + row * dim, scales[row], dim, out + row * dim);
}

void lk_vectors_decode(lk_dtype dtype, size_t dim, size_t n, const void *codes, const float *scales, float *out)
{
    lk_decode_rows(lk_distance_kernels_for(lk_cpu_detect()), dtype, dim, n, codes, scales, out);
}
