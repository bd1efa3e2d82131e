/* Code kernels for NEON. */
#include "index/codes.h"

#include <arm_neon.h>

static void l2_u8_rows(const int16_t *query, const uint8_t *codes, size_t stride, const uint32_t *rows, size_t n,
                       size_t dim, uint32_t *out)
{
    for (size_t r = 0; r < n; r++) {
        const uint8_t *row = codes + (size_t)rows[r] * stride;
        int32x4_t low = vdupq_n_s32(0), high = low;
        for (size_t i = 0; i < dim; i += 8) {
            int16x8_t code = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(row + i)));
            int16x8_t difference = vsubq_s16(vld1q_s16(query + i), code);
            low = vmlal_s16(low, vget_low_s16(difference), vget_low_s16(difference));
            high = vmlal_high_s16(high, difference, difference);
        }
        out[r] = (uint32_t)vaddvq_s32(vaddq_s32(low, high));
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

const lk_code_kernels lk_codes_neon = {.name = "neon", .l2_u8_rows = l2_u8_rows, .unmarked = unmarked};
