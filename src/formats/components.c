/* Components: sizes, names, to f32 and back. */
#include "base/half.h"
#include "formats/layout.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
    double least, most; /* of whole numbers; 0, 0 = any */
} kinds[] = {
    [LK_COMPONENT_F32] = {"f32", 4, 0, 0}, [LK_COMPONENT_F16] = {"f16", 2, 0, 0},
    [LK_COMPONENT_F64] = {"f64", 8, 0, 0}, [LK_COMPONENT_I8] = {"i8", 1, -128, 127},
    [LK_COMPONENT_U8] = {"u8", 1, 0, 255}, [LK_COMPONENT_I32] = {"i32", 4, -2147483648.0, 2147483647.0},
};

const char *lk_component_name(lk_component component)
{
    return kinds[component].name;
}

size_t lk_component_bytes(lk_component component)
{
    return kinds[component].bytes;
}

void lk_components_decode(lk_component component, size_t n, const void *in, float *out)
{
    const uint8_t *p = in;
    switch (component) {
    case LK_COMPONENT_F32: memcpy(out, p, n * sizeof *out); break;
    case LK_COMPONENT_F16:
        for (size_t i = 0; i < n; i++) {
            uint16_t half;
            memcpy(&half, p + 2 * i, sizeof half);
            out[i] = lk_half_to_float(half);
        }
        break;
    case LK_COMPONENT_F64:
        for (size_t i = 0; i < n; i++) {
            double value;
            memcpy(&value, p + 8 * i, sizeof value);
            out[i] = (float)value;
        }
        break;
    case LK_COMPONENT_I8:
        for (size_t i = 0; i < n; i++) out[i] = (float)(int8_t)p[i];
        break;
    case LK_COMPONENT_U8:
        for (size_t i = 0; i < n; i++) out[i] = (float)p[i];
        break;
    case LK_COMPONENT_I32:
        for (size_t i = 0; i < n; i++) {
            int32_t value;
            memcpy(&value, p + 4 * i, sizeof value);
            out[i] = (float)value;
        }
        break;
    }
}

/* One value; false when it does not fit. NaN fits into no whole number. */
static bool encode(lk_component component, float value, uint8_t *out)
{
    double whole = nearbyint(value);
    if (kinds[component].most > 0 && !(whole >= kinds[component].least && whole <= kinds[component].most)) return false;
    switch (component) {
    case LK_COMPONENT_F32: memcpy(out, &value, sizeof value); return true;
    case LK_COMPONENT_F16: {
        uint16_t half = lk_float_to_half(value);
        memcpy(out, &half, sizeof half);
        return !(isfinite(value) && (half & 0x7fff) == 0x7c00);
    }
    case LK_COMPONENT_F64: {
        double wide = value;
        memcpy(out, &wide, sizeof wide);
        return true;
    }
    case LK_COMPONENT_I8: *out = (uint8_t)(int8_t)whole; return true;
    case LK_COMPONENT_U8: *out = (uint8_t)whole; return true;
    case LK_COMPONENT_I32: {
        int32_t number = (int32_t)whole;
        memcpy(out, &number, sizeof number);
        return true;
    }
    }
    return false;
}

size_t lk_components_encode(lk_component component, size_t n, const float *in, void *out)
{
    size_t bytes = lk_component_bytes(component);
    for (size_t i = 0; i < n; i++)
        if (!encode(component, in[i], (uint8_t *)out + i * bytes)) return i;
    return n;
}
