/* Directories of models from tests/fixtures/models/cases.json. */
#ifndef MODELS_FIXTURE_H
#define MODELS_FIXTURE_H

#include "formula.h"
#include "nn/safetensors.h"

#include <jansson.h>
#include <stdio.h>

/* One tensor more than the case has, or one of the case's changed: for tests of what is refused. */
typedef struct fixture_change {
    const char *drop, *nan, *reshape, *negative; /* names of tensors */
    const char *extra;
} fixture_change;

__attribute__((unused)) static json_t *fixture_case(json_t *cases, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(cases, i,
                       item) if (strcmp(json_string_value(json_object_get(item, "name")), name) == 0) return item;
    return NULL;
}

__attribute__((unused)) static void fixture_weights(const json_t *item, const char *path, const fixture_change *change)
{
    const json_t *list = json_object_get(item, "tensors");
    size_t count = json_array_size(list), n = 0;
    lk_safetensor *tensors = calloc(count + 1, sizeof *tensors);
    for (size_t i = 0; i < count; i++) {
        const json_t *row = json_array_get(list, i), *shape = json_array_get(row, 1);
        lk_safetensor *t = &tensors[n];
        t->name = json_string_value(json_array_get(row, 0));
        if (change && change->drop && strcmp(change->drop, t->name) == 0) continue;
        bool floats = strcmp(json_string_value(json_array_get(row, 2)), "F32") == 0;
        t->dtype = floats ? LK_ST_F32 : LK_ST_I64;
        t->rank = (uint32_t)json_array_size(shape);
        for (uint32_t d = 0; d < t->rank; d++) t->shape[d] = (uint64_t)json_integer_value(json_array_get(shape, d));
        float *values = floats ? formula_values(t->name, t->shape, t->rank) : calloc(1, 8);
        if (change && change->nan && strcmp(change->nan, t->name) == 0) values[1] = NAN;
        if (change && change->negative && strcmp(change->negative, t->name) == 0) values[1] = -1;
        if (change && change->reshape && strcmp(change->reshape, t->name) == 0) t->shape[0] -= 1;
        t->data = values;
        n++;
    }
    float extra[4] = {1, 2, 3, 4};
    if (change && change->extra)
        tensors[n++] =
            (lk_safetensor){.name = change->extra, .dtype = LK_ST_F32, .rank = 1, .shape = {4}, .data = extra};
    assert_int_equal(lk_safetensors_write(path, tensors, n, NULL), LK_OK);
    for (size_t i = 0; i < n; i++)
        if (tensors[i].data != extra) free((void *)tensors[i].data);
    free(tensors);
}

__attribute__((unused)) static void fixture_json(const json_t *value, const char *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (value) assert_int_equal(json_dump_file(value, path, 0), 0);
}

/* Writes config.json, preprocessor_config.json if any, and model.safetensors. */
__attribute__((unused)) static void fixture_model(const json_t *item, const char *folder, const fixture_change *change)
{
    char path[512];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    fixture_weights(item, path, change);
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    remove(path);
    fixture_json(json_object_get(item, "config"), folder, "config.json");
    fixture_json(json_object_get(item, "preprocessor"), folder, "preprocessor_config.json");
}

#endif
