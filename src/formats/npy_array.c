#include "formats/npy_array.h"

#include "base/half.h"

#include <string.h>

lk_status lk_npy_open(const char *path, lk_npy *out)
{
    lk_npy_array array;
    *out = (lk_npy){0};
    lk_status s = lk_map_open(path, &out->map);
    if (s != LK_OK) return s;
    s = lk_npy_array_of(path, out->map.bytes, out->map.size, out->map.size, &array);
    if (s != LK_OK) {
        lk_npy_close(out);
        return s;
    }
    out->data = out->map.bytes + array.offset;
    out->kind = array.kind;
    out->size = array.size;
    out->rows = (size_t)array.rows;
    out->columns = (size_t)array.columns;
    return LK_OK;
}

void lk_npy_close(lk_npy *npy)
{
    lk_map_close(&npy->map);
    *npy = (lk_npy){0};
}

void lk_npy_floats(const lk_npy *npy, size_t first, size_t n, float *out)
{
    size_t count = n * npy->columns;
    const uint8_t *from = npy->data + first * npy->columns * npy->size;
    if (npy->kind != 'f') {
        for (size_t i = 0; i < count; i++) out[i] = (float)lk_npy_integer(npy, first * npy->columns + i);
    } else if (npy->size == 4) {
        memcpy(out, from, count * sizeof *out);
    } else if (npy->size == 8) {
        for (size_t i = 0; i < count; i++) {
            double value;
            memcpy(&value, from + 8 * i, sizeof value);
            out[i] = (float)value;
        }
    } else {
        for (size_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, from + 2 * i, sizeof half);
            out[i] = lk_half_to_float(half);
        }
    }
}

int64_t lk_npy_integer(const lk_npy *npy, size_t i)
{
    const uint8_t *from = npy->data + i * npy->size;
    uint64_t value = 0;
    memcpy(&value, from, npy->size); /* little-endian, as the machines we build for */
    unsigned unused = 64 - 8 * (unsigned)npy->size;
    return npy->kind == 'i' ? (int64_t)(value << unused) >> unused : (int64_t)value;
}
