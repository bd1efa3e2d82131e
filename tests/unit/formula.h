/* Weights that tools/reference/models_small.py and C compute alike, so that no fixture has to hold them. */
#ifndef FORMULA_H
#define FORMULA_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

__attribute__((unused)) static uint64_t formula_hash(const char *text)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *text; text++) h = (h ^ (uint8_t)*text) * 0x100000001B3u;
    return h;
}

/* Number i of a sequence, in [-1, 1): splitmix64. */
__attribute__((unused)) static float formula_unit(uint64_t seed, uint64_t i)
{
    uint64_t x = seed + (i + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x = x ^ (x >> 31);
    return (float)(x >> 40) / 8388608.0f - 1.0f;
}

/* Value number i of a tensor is middle + spread * unit(i). */
__attribute__((unused)) static void formula_kind(const char *name, const uint64_t *shape, uint32_t rank, uint64_t count,
                                                 float *middle, float *spread)
{
    static const char *const learnt[] = {"embeddings.position", "embeddings.class", "embeddings.token",
                                         "pos_embed",           "_token",           "probe"};
    size_t n = strlen(name);
    *middle = 0;
    *spread = 0.1f;
    if (n >= 11 && strcmp(name + n - 11, "running_var") == 0) {
        *middle = 1;
        *spread = 0.25f;
        return;
    }
    if (strstr(name, "gamma") || strstr(name, "lambda") || strstr(name, "layer_scale")) {
        *middle = 0.5f;
        return;
    }
    for (size_t i = 0; i < sizeof learnt / sizeof *learnt; i++)
        if (strstr(name, learnt[i])) {
            *spread = 0.5f;
            return;
        }
    if (rank >= 2)
        *spread = (float)sqrt(4.5 / ((double)count / (double)shape[0]));
    else if (n >= 6 && strcmp(name + n - 6, "weight") == 0)
        *middle = 1;
}

__attribute__((unused)) static float *formula_values(const char *name, const uint64_t *shape, uint32_t rank)
{
    uint64_t count = 1, seed = formula_hash(name);
    float middle, spread;
    for (uint32_t i = 0; i < rank; i++) count *= shape[i];
    formula_kind(name, shape, rank, count, &middle, &spread);
    float *values = malloc((count + 1) * sizeof *values);
    for (uint64_t i = 0; i < count; i++) values[i] = middle + spread * formula_unit(seed, i);
    return values;
}

#endif
