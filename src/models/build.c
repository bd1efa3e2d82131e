#include "models/build.h"

#include "base/error.h"
#include "base/file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *lk_name(lk_builder *b, const char *format, ...)
{
    char *name = b->names[b->next++ % 8];
    int n = snprintf(name, sizeof b->names[0], "%s", b->prefix);
    va_list args;
    va_start(args, format);
    vsnprintf(name + n, sizeof b->names[0] - (size_t)n, format, args);
    va_end(args);
    return name;
}

lk_node lk_build_fail(lk_builder *b, lk_status status, const char *format, ...)
{
    char text[512];
    if (b->status != LK_OK) return LK_NO_NODE;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text[lk_utf8_fit(text, sizeof text - 1)] = 0;
    b->status = lk_fail(status, "%s: config.json: %s", b->folder, text);
    return LK_NO_NODE;
}

int64_t lk_build_int(lk_builder *b, const json_t *from, const char *key, int64_t otherwise, int64_t least, int64_t most)
{
    const json_t *value = json_object_get(from, key);
    if (!value || json_is_null(value)) return otherwise;
    if (json_is_integer(value) && json_integer_value(value) >= least && json_integer_value(value) <= most)
        return json_integer_value(value);
    lk_build_fail(b, LK_CORRUPT, "%s is not a whole number from %lld to %lld", key, (long long)least, (long long)most);
    return otherwise;
}

float lk_build_float(lk_builder *b, const json_t *from, const char *key, double otherwise)
{
    const json_t *value = json_object_get(from, key);
    if (!value || json_is_null(value)) return (float)otherwise;
    if (json_is_number(value) && isfinite((float)json_number_value(value))) return (float)json_number_value(value);
    lk_build_fail(b, LK_CORRUPT, "%s is not a number", key);
    return (float)otherwise;
}

bool lk_build_flag(const json_t *from, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(from, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

void lk_build_ints(lk_builder *b, const json_t *from, const char *key, int64_t *values, int count, int64_t most)
{
    const json_t *list = json_object_get(from, key);
    if (!list) return;
    for (int i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        values[i] = json_integer_value(value);
        if (json_array_size(list) != (size_t)count || !json_is_integer(value) || values[i] < 1 || values[i] > most) {
            lk_build_fail(b, LK_CORRUPT, "%s is not %d whole numbers from 1 to %lld", key, count, (long long)most);
            values[i] = 1;
        }
    }
}

lk_activation lk_build_activation(lk_builder *b, const json_t *from, const char *key, lk_activation otherwise)
{
    static const struct {
        const char *name;
        lk_activation kind;
    } known[] = {{"gelu", LK_GELU},
                 {"quick_gelu", LK_QUICK_GELU},
                 {"gelu_pytorch_tanh", LK_GELU_TANH},
                 {"gelu_new", LK_GELU_TANH},
                 {"relu", LK_RELU},
                 {"silu", LK_SILU}};
    const char *name = json_string_value(json_object_get(from, key));
    if (!name) return otherwise;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) return known[i].kind;
    lk_build_fail(b, LK_UNSUPPORTED, "the activation %.*s is not known", lk_utf8_fit(name, 32), name);
    return otherwise;
}

lk_node lk_build_picture(lk_builder *b)
{
    b->input =
        lk_graph_input(b->graph, "pixel_values", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, 3, b->size[0], b->size[1]});
    return b->input;
}

lk_shape lk_build_stored(lk_builder *b, const char *name)
{
    lk_shape shape = {0};
    const lk_safetensor *t = b->weights ? lk_safetensors_find(b->weights, name) : NULL;
    if (!t || t->rank > LK_MAX_DIMS) return shape;
    shape.rank = (int)t->rank;
    for (uint32_t i = 0; i < t->rank; i++) shape.dims[i] = (int64_t)t->shape[i];
    return shape;
}
