#include "nn/convert.h"

#include <string.h>

/* The exponent is moved by a multiplication, which also makes subnormal halves right; infinity and NaN by hand. */
static float half(uint16_t h)
{
    uint32_t bits = (uint32_t)(h & 0x7fffu) << 13;
    float x;
    memcpy(&x, &bits, 4);
    x *= 0x1p112f;
    memcpy(&bits, &x, 4);
    if ((h & 0x7c00u) == 0x7c00u) bits = 0x7f800000u | (uint32_t)(h & 0x3ffu) << 13;
    bits |= (uint32_t)(h & 0x8000u) << 16;
    memcpy(&x, &bits, 4);
    return x;
}

void lk_floats_from(lk_type type, const void *src, size_t n, float *dst)
{
    const uint8_t *at = src;
    if (type == LK_TYPE_F64) {
        for (size_t i = 0; i < n; i++) {
            double x;
            memcpy(&x, at + 8 * i, 8);
            dst[i] = (float)x;
        }
    } else if (type == LK_TYPE_F16 || type == LK_TYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, at + 2 * i, 2);
            uint32_t bits = (uint32_t)h << 16;
            if (type == LK_TYPE_F16)
                dst[i] = half(h);
            else
                memcpy(dst + i, &bits, 4);
        }
    } else {
        memcpy(dst, src, n * sizeof *dst);
    }
}
