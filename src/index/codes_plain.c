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

const lk_code_kernels lk_codes_plain = {.name = "plain", .l2_u8_rows = l2_u8_rows};
