/* The definition of the code kernels, in plain C. */
#include "index/codes.h"

#include <math.h>
#include <string.h>

static void l2_u8_rows(const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n,
                       size_t dim, uint32_t *out)
{
    for (size_t r = 0; r < n; r++) {
        const uint8_t *row = codes + (size_t)rows[r] * stride;
        uint32_t sum = 0;
        for (size_t i = 0; i < dim; i++) {
            int32_t difference = query[i] - row[i];
            sum += (uint32_t)(difference * difference);
        }
        out[r] = sum;
    }
}

float lk_plain_l2_residual(const float *query, const uint8_t *code, const int8_t *residual, size_t dim)
{
    float sums[16] = {0};
    for (size_t i = 0; i < dim; i += 16) {
        for (size_t j = 0; j < 16; j++) {
            float rest = residual ? (float)residual[i + j] * (1.0f / 256) : 0;
            float difference = query[i + j] - ((float)code[i + j] + rest);
            sums[j] += difference * difference;
        }
    }
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

void lk_plain_hadamard(float *x, size_t n)
{
    float scale = 1.0f / sqrtf((float)n);
    for (size_t half = 1; half < n; half *= 2) {
        for (size_t i = 0; i < n; i += 2 * half) {
            for (size_t j = i; j < i + half; j++) {
                float a = x[j], b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
        }
    }
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

size_t lk_plain_unmarked(const uint32_t *links, size_t n, uint32_t count, const uint64_t *marks, uint32_t *out)
{
    size_t found = 0;
    for (size_t i = 0; i < n && links[i] < count; i++) {
        out[found] = links[i];
        found += !(marks[links[i] / 64] >> (links[i] % 64) & 1);
    }
    return found;
}

int32_t lk_plain_dot_u8(const int8_t *query, const uint8_t *code, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += query[i] * code[i];
    return sum;
}

int32_t lk_plain_dot_u4(const int8_t *query, const uint8_t *code, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += query[i] * (code[i / 2] >> (i % 2 * 4) & 15);
    return sum;
}

int32_t lk_plain_dot_b1(const int8_t *query, const uint8_t *code, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += query[i] * (code[i / 8] >> (i % 8) & 1);
    return sum;
}

uint64_t lk_plain_hamming(const uint8_t *a, const uint8_t *b, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += (uint64_t)__builtin_popcount((unsigned)(a[i] ^ b[i]));
    return sum;
}

static inline float bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float lk_plain_dot_bf16(const float *query, const uint16_t *row, size_t n)
{
    float sum[4] = {0};
    for (size_t i = 0; i < n; i++) sum[i % 4] += query[i] * bf16(row[i]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

float lk_plain_l2_bf16(const float *query, const uint16_t *row, size_t n)
{
    float sum[4] = {0};
    for (size_t i = 0; i < n; i++) {
        float difference = query[i] - bf16(row[i]);
        sum[i % 4] += difference * difference;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

const lk_code_kernels lk_codes_plain = {
    .name = "plain",
    .l2_u8_rows = l2_u8_rows,
    .l2_residual = lk_plain_l2_residual,
    .hadamard = lk_plain_hadamard,
    .unmarked = lk_plain_unmarked,
    .dot_u8 = lk_plain_dot_u8,
    .dot_u4 = lk_plain_dot_u4,
    .dot_b1 = lk_plain_dot_b1,
    .hamming = lk_plain_hamming,
    .dot_bf16 = lk_plain_dot_bf16,
    .l2_bf16 = lk_plain_l2_bf16,
};
