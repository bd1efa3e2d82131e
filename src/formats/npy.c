/* .npy versions 1 to 3 (NEP 1 and numpy.lib.format): magic, version, length of the header, and a header that is a
 * Python dictionary literal with the keys descr, fortran_order and shape. */
#include "base/error.h"
#include "formats/layout.h"
#include "formats/npy_array.h"

#include <stdio.h>
#include <string.h>

typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_space(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t' || *c->at == '\r')) c->at++;
}

static bool take(cursor *c, char what)
{
    skip_space(c);
    if (c->at >= c->end || *c->at != what) return false;
    c->at++;
    return true;
}

/* 'text' or "text" without escapes. */
static bool take_text(cursor *c, char *out, size_t room)
{
    skip_space(c);
    if (c->at >= c->end || (*c->at != '\'' && *c->at != '"')) return false;
    char quote = *c->at++;
    size_t n = 0;
    while (c->at < c->end && *c->at != quote) {
        if (n + 1 >= room || *c->at == '\\') return false;
        out[n++] = *c->at++;
    }
    out[n] = 0;
    return take(c, quote);
}

static bool take_word(cursor *c, const char *word)
{
    size_t n = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n) != 0) return false;
    c->at += n;
    return true;
}

static bool take_number(cursor *c, uint64_t *out)
{
    skip_space(c);
    uint64_t value = 0;
    int digits = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++, digits++) {
        if (digits >= 15) return false; /* no file holds as much */
        value = 10 * value + (uint64_t)(*c->at - '0');
    }
    take_word(c, "L"); /* Python 2 wrote long integers so */
    *out = value;
    return digits > 0;
}

typedef struct description {
    char descr[16];
    bool fortran, structured;
    uint64_t shape[2];
    int dims; /* counted beyond two, not kept */
    int seen; /* bit per key */
} description;

static bool take_shape(cursor *c, description *d)
{
    if (!take(c, '(')) return false;
    while (!take(c, ')')) {
        uint64_t size;
        if (!take_number(c, &size)) return false;
        if (d->dims < 2) d->shape[d->dims] = size;
        d->dims++;
        if (take(c, ',')) continue;
        if (!take(c, ')')) return false;
        break;
    }
    return true;
}

static bool take_description(cursor *c, description *d)
{
    char key[32];
    if (!take(c, '{')) return false;
    while (!take(c, '}')) {
        if (!take_text(c, key, sizeof key) || !take(c, ':')) return false;
        if (strcmp(key, "descr") == 0) {
            skip_space(c);
            if (c->at < c->end && *c->at == '[') {
                d->structured = true;
                return true;
            }
            if (!take_text(c, d->descr, sizeof d->descr)) return false;
            d->seen |= 1;
        } else if (strcmp(key, "fortran_order") == 0) {
            d->fortran = take_word(c, "True");
            if (!d->fortran && !take_word(c, "False")) return false;
            d->seen |= 2;
        } else if (strcmp(key, "shape") == 0) {
            if (d->seen & 4 || !take_shape(c, d)) return false;
            d->seen |= 4;
        } else {
            return false;
        }
        if (take(c, ',')) continue;
        if (!take(c, '}')) return false;
        break;
    }
    return d->seen == 7;
}

static const struct {
    const char *descr;
    lk_component component;
} descrs[] = {{"<f4", LK_COMPONENT_F32}, {"<f2", LK_COMPONENT_F16}, {"<f8", LK_COMPONENT_F64},
              {"|i1", LK_COMPONENT_I8},  {"|u1", LK_COMPONENT_U8},  {"<i4", LK_COMPONENT_I32},
              {"<i1", LK_COMPONENT_I8},  {"<u1", LK_COMPONENT_U8}};

static lk_status component_of(const char *name, const description *d, lk_component *out)
{
    for (size_t i = 0; i < sizeof descrs / sizeof *descrs; i++) {
        if (strcmp(d->descr, descrs[i].descr) != 0) continue;
        *out = descrs[i].component;
        return LK_OK;
    }
    if (d->descr[0] == '>')
        return lk_fail(LK_UNSUPPORTED, "%s: is big-endian (%s); save array.astype('<%s') instead", name, d->descr,
                       d->descr + 1);
    bool whole = !d->structured && (d->descr[1] == 'i' || d->descr[1] == 'u'); /* lists of neighbours above all */
    return lk_fail(LK_UNSUPPORTED,
                   "%s: holds '%s'; f4, f2, f8, i1, u1 and i4 are read: save array.astype('<%s') instead", name,
                   d->structured ? "records" : d->descr, whole ? "i4" : "f4");
}

/* Kind and size of a number: "<f4", "|u1". Big-endian and anything else is refused with the way out. */
static lk_status number_of(const char *name, const description *d, lk_npy_array *out)
{
    const char *t = d->descr;
    bool known = (t[0] == '<' || (t[0] == '|' && t[2] == '1')) && t[1] && strchr("fiu", t[1]) && t[2] &&
                 strchr(t[1] == 'f' ? "248" : "1248", t[2]) && !t[3];
    if (t[0] == '>')
        return lk_fail(LK_UNSUPPORTED, "%s: is big-endian (%s); save array.astype('<%s') instead", name, t, t + 1);
    if (!known)
        return lk_fail(LK_UNSUPPORTED,
                       "%s: holds '%s'; f2, f4, f8 and whole numbers are read: save array.astype('<f4')", name,
                       d->structured ? "records" : t);
    out->kind = t[1];
    out->size = (size_t)(t[2] - '0');
    return LK_OK;
}

/* Magic and header: where the description ends (*offset) and what it says. */
static lk_status read_description(const char *name, const uint8_t *head, size_t size, uint64_t file_size,
                                  description *d, uint64_t *offset)
{
    if (size < 10 || memcmp(head, "\x93NUMPY", 6) != 0)
        return lk_fail(LK_CORRUPT, "%s: does not begin as a .npy file; is the end of its name wrong?", name);
    unsigned major = head[6];
    if (major < 1 || major > 3)
        return lk_fail(LK_UNSUPPORTED, "%s: is of .npy version %u; 1 to 3 are read: save it again with numpy.save",
                       name, major);
    size_t start = major == 1 ? 10 : 12;
    uint64_t length = head[8] | (uint64_t)head[9] << 8;
    if (major > 1) {
        if (size < 12) return lk_fail(LK_CORRUPT, "%s: ends within its header; was the copy cut off?", name);
        length |= (uint64_t)head[10] << 16 | (uint64_t)head[11] << 24;
    }
    if (start + length > size)
        return lk_fail(LK_CORRUPT, "%s: its header of %llu bytes %s", name, (unsigned long long)length,
                       size == file_size ? "reaches beyond the end of the file; was the copy cut off?"
                                         : "is not believable");
    cursor c = {(const char *)head + start, (const char *)head + start + length};
    *d = (description){0};
    *offset = start + length;
    return take_description(&c, d)
               ? LK_OK
               : lk_fail(LK_CORRUPT, "%s: its header is not the description of an array; save it again with numpy.save",
                         name);
}

/* 10^15 rows of 65536 doubles do not overflow 64 bits together with an offset only because the first comparison does.
 */
static lk_status check_length(const char *name, uint64_t rows, size_t stride, uint64_t offset, uint64_t file_size)
{
    if (rows <= file_size / stride && offset + rows * stride == file_size) return LK_OK;
    return lk_fail(LK_CORRUPT,
                   "%s: says %llu rows of %zu bytes, but its %llu bytes are another number; was the copy cut off?",
                   name, (unsigned long long)rows, stride, (unsigned long long)file_size);
}

static lk_status check_order(const char *name, const description *d)
{
    if (!d->fortran || d->shape[0] <= 1 || d->dims < 2 || d->shape[1] <= 1) return LK_OK;
    return lk_fail(LK_UNSUPPORTED, "%s: is stored column by column; save numpy.ascontiguousarray(array) instead", name);
}

lk_status lk_npy_array_of(const char *name, const uint8_t *head, size_t size, uint64_t file_size, lk_npy_array *out)
{
    description d;
    lk_npy_array array = {0};
    lk_status s = read_description(name, head, size, file_size, &d, &array.offset);
    if (s == LK_OK) s = number_of(name, &d, &array);
    if (s != LK_OK) return s;
    array.rows = d.shape[0];
    array.columns = d.dims == 2 ? d.shape[1] : 1;
    if (d.dims < 1 || d.dims > 2)
        return lk_fail(LK_UNSUPPORTED, "%s: is an array of %d dimensions where one or two are wanted", name, d.dims);
    if (array.columns < 1 || array.columns > LK_DIM_MOST)
        return lk_fail(LK_UNSUPPORTED, "%s: has rows of %llu numbers; from 1 to %d are possible", name,
                       (unsigned long long)array.columns, LK_DIM_MOST);
    s = check_order(name, &d);
    if (s == LK_OK) s = check_length(name, array.rows, (size_t)array.columns * array.size, array.offset, file_size);
    if (s == LK_OK) *out = array;
    return s;
}

lk_status lk_npy_layout(const char *name, const uint8_t *head, size_t size, uint64_t file_size, lk_vector_layout *out)
{
    description d;
    lk_vector_layout layout = {0};
    lk_status s = read_description(name, head, size, file_size, &d, &layout.offset);
    if (s == LK_OK) s = component_of(name, &d, &layout.component);
    if (s != LK_OK) return s;
    layout.rows = d.shape[0];
    if (d.dims != 2)
        return lk_fail(LK_UNSUPPORTED,
                       "%s: is an array of %d dimensions where rows of components are wanted; save "
                       "array.reshape(rows, -1) instead",
                       name, d.dims);
    s = check_order(name, &d);
    if (s != LK_OK) return s;
    if (d.shape[1] < 1 || d.shape[1] > LK_DIM_MOST)
        return lk_fail(LK_UNSUPPORTED, "%s: has rows of %llu components; from 1 to %d are possible", name,
                       (unsigned long long)d.shape[1], LK_DIM_MOST);
    layout.dim = (size_t)d.shape[1];
    layout.stride = layout.dim * lk_component_bytes(layout.component);
    s = check_length(name, layout.rows, layout.stride, layout.offset, file_size);
    if (s == LK_OK) *out = layout;
    return s;
}

void lk_npy_header(uint64_t rows, size_t dim, lk_component component, uint8_t out[LK_NPY_HEADER])
{
    const char *descr = "";
    for (size_t i = sizeof descrs / sizeof *descrs; i-- > 0;)
        if (descrs[i].component == component) descr = descrs[i].descr;
    memset(out, ' ', LK_NPY_HEADER);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = LK_NPY_HEADER - 10;
    out[9] = 0;
    char text[LK_NPY_HEADER - 10];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%llu, %zu), }", descr,
                     (unsigned long long)rows, dim);
    memcpy(out + 10, text, (size_t)n);
    out[LK_NPY_HEADER - 1] = '\n';
}
