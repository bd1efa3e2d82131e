#include "engine/npy.h"

#include "base/error.h"
#include "base/half.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value after 'key': in the header's dictionary, or NULL. */
static const char *member(const char *header, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *at = strstr(header, quoted);
    if (!at) return NULL;
    at += strlen(quoted);
    while (*at == ' ' || *at == ':') at++;
    return at;
}

static lk_status read_shape(const char *path, const char *shape, lk_npy *out)
{
    size_t sizes[3], n = 0;
    char *end;
    if (*shape != '(') return lk_fail(LK_CORRUPT, "%s: its shape cannot be read", path);
    for (shape++; *shape != ')';) {
        if (*shape == ' ' || *shape == ',') {
            shape++;
            continue;
        }
        unsigned long long size = strtoull(shape, &end, 10);
        if (end == shape || *shape == '-') return lk_fail(LK_CORRUPT, "%s: its shape cannot be read", path);
        if (n == 2) return lk_fail(LK_UNSUPPORTED, "%s: an array of one or two dimensions is wanted", path);
        sizes[n++] = size;
        shape = end;
    }
    if (n == 0) return lk_fail(LK_UNSUPPORTED, "%s: an array of one or two dimensions is wanted", path);
    out->rows = sizes[0];
    out->columns = n == 2 ? sizes[1] : 1;
    return LK_OK;
}

static lk_status read_header(const char *path, const char *header, size_t available, lk_npy *out)
{
    const char *type = member(header, "descr"), *order = member(header, "fortran_order"),
               *shape = member(header, "shape");
    size_t bytes;
    if (!type || !order || !shape || strnlen(type, 5) < 5 || type[0] != '\'')
        return lk_fail(LK_CORRUPT, "%s: its header cannot be read", path);
    out->kind = type[2];
    out->size = (size_t)(type[3] - '0');
    bool known = (type[1] == '<' || (type[1] == '|' && out->size == 1)) && type[4] == '\'' &&
                 ((out->kind == 'f' && (out->size == 2 || out->size == 4 || out->size == 8)) ||
                  ((out->kind == 'i' || out->kind == 'u') &&
                   (out->size == 1 || out->size == 2 || out->size == 4 || out->size == 8)));
    if (!known)
        return lk_fail(LK_UNSUPPORTED,
                       "%s: numbers of the type %.*s cannot be read: float16, float32, float64 and integers can", path,
                       (int)strcspn(type, ","), type);
    lk_status s = read_shape(path, shape, out);
    if (s != LK_OK) return s;
    if (strncmp(order, "False", 5) != 0 && out->rows > 1 && out->columns > 1)
        return lk_fail(LK_UNSUPPORTED, "%s: is stored column by column: save numpy.ascontiguousarray(...) of it", path);
    if (__builtin_mul_overflow(out->rows, out->columns, &bytes) || __builtin_mul_overflow(bytes, out->size, &bytes) ||
        bytes > available)
        return lk_fail(LK_CORRUPT, "%s: is shorter than its header says", path);
    return LK_OK;
}

lk_status lk_npy_open(const char *path, lk_npy *out)
{
    *out = (lk_npy){0};
    lk_status s = lk_map_open(path, &out->map);
    if (s != LK_OK) return s;
    const uint8_t *bytes = out->map.bytes;
    size_t size = out->map.size, prefix = 0, length = 0;
    if (size >= 12 && memcmp(bytes, "\x93NUMPY", 6) == 0) {
        prefix = bytes[6] == 1 ? 10 : 12;
        length = (size_t)bytes[8] | (size_t)bytes[9] << 8;
        if (prefix == 12) length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    }
    char *header = prefix && length <= size - prefix ? malloc(length + 1) : NULL;
    if (header) {
        memcpy(header, bytes + prefix, length);
        header[length] = 0;
        out->data = bytes + prefix + length;
        s = read_header(path, header, size - prefix - length, out);
    } else {
        s = lk_fail(LK_CORRUPT, "%s: is not a .npy file", path);
    }
    free(header);
    if (s != LK_OK) lk_npy_close(out);
    return s;
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

int64_t lk_npy_integer(const lk_npy *npy, size_t row)
{
    const uint8_t *from = npy->data + row * npy->size;
    uint64_t value = 0;
    memcpy(&value, from, npy->size); /* little-endian, as the machines we build for */
    unsigned unused = 64 - 8 * (unsigned)npy->size;
    return npy->kind == 'i' ? (int64_t)(value << unused) >> unused : (int64_t)value;
}
