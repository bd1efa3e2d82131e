/* .fvecs .bvecs .ivecs: each row is preceded by its dim (http://corpus-texmex.irisa.fr). .fbin .u8bin .i8bin .ibin:
 * rows and dim as uint32, then the rows (https://big-ann-benchmarks.com). All little-endian. */
#include "base/error.h"
#include "formats/layout.h"

#include <string.h>
#include <strings.h>

static const struct {
    const char *suffix;
    lk_vector_format format;
    lk_component component;
} suffixes[] = {
    {".npy", LK_FORMAT_NPY, LK_COMPONENT_F32},   {".fvecs", LK_FORMAT_VECS, LK_COMPONENT_F32},
    {".bvecs", LK_FORMAT_VECS, LK_COMPONENT_U8}, {".ivecs", LK_FORMAT_VECS, LK_COMPONENT_I32},
    {".fbin", LK_FORMAT_BIN, LK_COMPONENT_F32},  {".u8bin", LK_FORMAT_BIN, LK_COMPONENT_U8},
    {".i8bin", LK_FORMAT_BIN, LK_COMPONENT_I8},  {".ibin", LK_FORMAT_BIN, LK_COMPONENT_I32},
    {".hdf5", LK_FORMAT_HDF5, LK_COMPONENT_F32}, {".h5", LK_FORMAT_HDF5, LK_COMPONENT_F32},
};

lk_status lk_vector_format_of(const char *path, lk_vector_format *format, lk_component *component, size_t *name_end)
{
    size_t whole = strlen(path), base = whole;
    const char *colon = strrchr(path, ':');
    for (int named = 0; named < 2; named++) {
        for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
            size_t length = strlen(suffixes[i].suffix);
            if (base <= length || strncasecmp(path + base - length, suffixes[i].suffix, length) != 0) continue;
            if (named && suffixes[i].format != LK_FORMAT_HDF5) continue; /* no others hold datasets by name */
            *format = suffixes[i].format;
            *component = suffixes[i].component;
            *name_end = base;
            return LK_OK;
        }
        if (!colon) break;
        base = (size_t)(colon - path);
    }
    return lk_fail(
        LK_UNSUPPORTED,
        "%s: the end of the name tells no format; .npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, .ibin, "
        ".hdf5 and .h5 are known",
        path);
}

lk_status lk_vecs_layout(const char *name, lk_component component, const uint8_t *head, size_t size, uint64_t file_size,
                         lk_vector_layout *out)
{
    int32_t dim;
    if (size < sizeof dim)
        return lk_fail(LK_CORRUPT, "%s: holds %zu bytes and no vector; was the copy cut off?", name, size);
    memcpy(&dim, head, sizeof dim);
    if (dim < 1 || dim > LK_DIM_MOST)
        return lk_fail(LK_CORRUPT,
                       "%s: begins with the dimension %d, which must be from 1 to %d; is it another format?", name, dim,
                       LK_DIM_MOST);
    uint64_t stride = 4 + (uint64_t)dim * lk_component_bytes(component);
    if (file_size % stride != 0)
        return lk_fail(
            LK_CORRUPT,
            "%s: %llu bytes are no whole number of vectors of %d components; was the copy cut off, or is the "
            "end of the name wrong?",
            name, (unsigned long long)file_size, dim);
    *out = (lk_vector_layout){.component = component,
                              .rows = file_size / stride,
                              .offset = 4,
                              .stride = stride,
                              .dim = (size_t)dim,
                              .counted = true};
    return LK_OK;
}

lk_status lk_bin_layout(const char *name, lk_component component, const uint8_t *head, size_t size, uint64_t file_size,
                        lk_vector_layout *out)
{
    uint32_t rows, dim;
    if (size < 8)
        return lk_fail(LK_CORRUPT, "%s: holds %zu bytes, less than a header; was the copy cut off?", name, size);
    memcpy(&rows, head, sizeof rows);
    memcpy(&dim, head + 4, sizeof dim);
    if (dim < 1 || dim > LK_DIM_MOST)
        return lk_fail(LK_CORRUPT, "%s: says dimension %u, which must be from 1 to %d; is it another format?", name,
                       dim, LK_DIM_MOST);
    uint64_t stride = (uint64_t)dim * lk_component_bytes(component), body = rows * stride;
    /* Lists of neighbours come with their distances after them. */
    bool both = component == LK_COMPONENT_I32 && file_size == 8 + 2 * body;
    if (file_size != 8 + body && !both)
        return lk_fail(LK_CORRUPT,
                       "%s: says %u vectors of %u components, which take %llu bytes, but holds %llu; was the copy cut "
                       "off, or is the end of the name wrong?",
                       name, rows, dim, (unsigned long long)(8 + body), (unsigned long long)file_size);
    *out = (lk_vector_layout){.component = component, .rows = rows, .offset = 8, .stride = stride, .dim = dim};
    return LK_OK;
}
