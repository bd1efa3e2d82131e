/* The kernels that every instruction set gets from the compiler: loops over the 16 codewords, which are one or a few
 * registers wide. Included by one source file per instruction set. */
#include "index/partitioned/scan.h"

#include <string.h>

static void nearest(const float *x, size_t stride, size_t n, size_t components, const float *codewords, uint8_t *out,
                    size_t out_stride)
{
    for (size_t i = 0; i < n; i++) {
        const float *row = x + i * stride;
        float distances[LK_SCAN_CODEWORDS] = {0};
        for (size_t c = 0; c < components; c++) {
            for (int j = 0; j < LK_SCAN_CODEWORDS; j++) {
                float difference = row[c] - codewords[c * LK_SCAN_CODEWORDS + (size_t)j];
                distances[j] += difference * difference;
            }
        }
        /* Floats that are not negative are ordered as their bits are; the codeword rides in the last four of them. */
        int32_t bits[LK_SCAN_CODEWORDS], least = INT32_MAX;
        memcpy(bits, distances, sizeof bits);
        for (int j = 0; j < LK_SCAN_CODEWORDS; j++) bits[j] = (bits[j] & ~15) | j;
        for (int j = 0; j < LK_SCAN_CODEWORDS; j++) least = bits[j] < least ? bits[j] : least;
        out[i * out_stride] = (uint8_t)(least & 15);
    }
}

static inline __attribute__((always_inline)) void products(const float *x, size_t components, const float *codewords,
                                                           float *out)
{
    float sums[LK_SCAN_CODEWORDS] = {0};
    for (size_t c = 0; c < components; c++)
        for (int j = 0; j < LK_SCAN_CODEWORDS; j++) sums[j] += x[c] * codewords[c * LK_SCAN_CODEWORDS + (size_t)j];
    memcpy(out, sums, sizeof sums);
}

static void tables(const float *query, size_t dim, size_t groups, const float *codewords, float *scratch, uint8_t *out,
                   float *scale, float *bias)
{
    float widest = 0, total = 0, sum = 0;
    for (size_t g = 0; g < groups; g++) {
        size_t first = g * dim / groups, components = (g + 1) * dim / groups - first;
        float *row = scratch + g * LK_SCAN_CODEWORDS, least, most;
        if (components == 2) /* a constant count is unrolled */
            products(query + first, 2, codewords + first * LK_SCAN_CODEWORDS, row);
        else
            products(query + first, components, codewords + first * LK_SCAN_CODEWORDS, row);
        least = most = row[0];
        for (int j = 0; j < LK_SCAN_CODEWORDS; j++) least = row[j] < least ? row[j] : least;
        for (int j = 0; j < LK_SCAN_CODEWORDS; j++) most = row[j] > most ? row[j] : most;
        for (int j = 0; j < LK_SCAN_CODEWORDS; j++) row[j] -= least;
        widest = most - least > widest ? most - least : widest;
        total += most - least;
        sum += least;
    }
    /* 8 bits an entry, and 16 a sum: 32000 leaves room for the rounding of 65536 groups. */
    float step = widest / 255 > total / 32000 ? widest / 255 : total / 32000;
    float inverse = step > 0 ? 1 / step : 0;
    for (size_t i = 0; i < groups * LK_SCAN_CODEWORDS; i++) {
        float entry =
            scratch[i] * inverse + 0.5f; /* below 256, unless a damaged file holds codewords that are not finite */
        out[i] = (uint8_t)(int)(entry < 256 ? entry > 0 ? entry : 0 : 0);
    }
    *scale = step;
    *bias = sum;
}

static inline size_t count_reaching(const float *keys, size_t n, float threshold)
{
    int count = 0;
    for (size_t i = 0; i < n; i++) count += keys[i] >= threshold;
    return (size_t)count;
}

/* A threshold is found by halving the interval of keys: each step counts many keys at a time and mispredicts nothing,
 * which makes it several times faster than a selection that moves elements. */
static size_t narrow(float *keys, uint32_t *positions, size_t n, size_t wanted, float *threshold)
{
    enum { STEPS = 24 };
    if (n <= wanted) return n;
    size_t most = wanted + wanted / 8, kept = 0;
    float low = keys[0], high = keys[0];
    for (size_t i = 0; i < n; i++) low = keys[i] < low ? keys[i] : low;
    for (size_t i = 0; i < n; i++) high = keys[i] > high ? keys[i] : high;
    float cut = low; /* all reach low; too few reach high, or it is not known how many */
    size_t count = n;
    for (int step = 0; step < STEPS && count > most; step++) {
        float middle = low + (high - low) / 2;
        size_t reaching = count_reaching(keys, n, middle);
        if (reaching >= wanted) {
            low = cut = middle;
            count = reaching;
        } else {
            high = middle;
        }
    }
    if (count <= most) {
        for (size_t i = 0; i < n; i++) {
            keys[kept] = keys[i];
            positions[kept] = positions[i];
            kept += keys[i] >= cut;
        }
    } else { /* many at nearly one key: those above first, then as many of the others as are wanted */
        size_t above = count_reaching(keys, n, high), others = wanted > above ? wanted - above : 0;
        for (size_t i = 0; i < n && kept < most; i++) {
            int take = keys[i] >= high || (keys[i] >= cut && others > 0);
            others -= take && keys[i] < high;
            keys[kept] = keys[i];
            positions[kept] = positions[i];
            kept += (size_t)take;
        }
    }
    *threshold = cut > *threshold ? cut : *threshold;
    return kept;
}
