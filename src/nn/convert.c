#include "nn/convert.h"

#include "base/half.h"

#include <string.h>

void lk_floats_from(lk_type type, const void *src, size_t n, float *dst)
{
    const uint8_t *at = src;
    if (type == LK_TYPE_F64) {
        for (size_t i = 0; i < n; i++) {
            double x;
            memcpy(&x, at + 8 * i, 8);
            dst[i] = (float)x;
        }
    } else if (type == LK_TYPE_F16) {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, at + 2 * i, 2);
            dst[i] = lk_half_to_float(h);
        }
    } else if (type == LK_TYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, at + 2 * i, 2);
            uint32_t bits = (uint32_t)h << 16;
            memcpy(dst + i, &bits, 4);
        }
    } else {
        memcpy(dst, src, n * sizeof *dst);
    }
}
