/* The definition of the code kernels, in plain C. */
#include "index/codes.h"

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

static size_t unmarked(const uint32_t *links, size_t n, uint32_t count, const uint64_t *marks, uint32_t *out)
{
    size_t found = 0;
    for (size_t i = 0; i < n && links[i] < count; i++) {
        out[found] = links[i];
        found += !(marks[links[i] / 64] >> (links[i] % 64) & 1);
    }
    return found;
}

const lk_code_kernels lk_codes_plain = {.name = "plain", .l2_u8_rows = l2_u8_rows, .unmarked = unmarked};
