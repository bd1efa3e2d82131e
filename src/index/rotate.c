#include "index/rotate.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "index/codes.h"

#include <math.h>
#include <stdlib.h>

lk_status lk_rotation_init(lk_rotation *rotation, size_t dim, uint64_t seed)
{
    lk_random random;
    *rotation = (lk_rotation){.dim = dim, .signs = lk_alloc(LK_ROTATION_ROUNDS * dim, sizeof(float))};
    if (!rotation->signs) return lk_fail_memory("random rotation");
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < LK_ROTATION_ROUNDS * dim; i++)
        rotation->signs[i] = lk_random_u64(&random) >> 63 ? 1.0f : -1.0f;
    return LK_OK;
}

void lk_rotation_free(lk_rotation *rotation)
{
    free(rotation->signs);
    *rotation = (lk_rotation){0};
}

/* Rotations by 45 degrees in the planes of components i and i + ceil(dim / 2): a reflection, its own inverse. */
static void mix_halves(float *x, size_t dim)
{
    size_t half = dim / 2, second = dim - half;
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + second];
        x[i] = (a + b) * (float)M_SQRT1_2;
        x[i + second] = (a - b) * (float)M_SQRT1_2;
    }
}

static size_t power_below(size_t dim)
{
    size_t power = 1;
    while (power * 2 <= dim) power *= 2;
    return power;
}

void lk_rotate(const lk_rotation *rotation, float *vector)
{
    const lk_code_kernels *kernels = lk_code_kernels_for(lk_cpu_detect());
    size_t dim = rotation->dim, power = power_below(dim);
    for (size_t round = 0; round < LK_ROTATION_ROUNDS; round++) {
        const float *signs = rotation->signs + round * dim;
        for (size_t i = 0; i < dim; i++) vector[i] *= signs[i];
        kernels->hadamard(vector + (round % 2 ? dim - power : 0), power);
        if (power != dim) mix_halves(vector, dim);
    }
}

void lk_rotate_back(const lk_rotation *rotation, float *vector)
{
    const lk_code_kernels *kernels = lk_code_kernels_for(lk_cpu_detect());
    size_t dim = rotation->dim, power = power_below(dim);
    for (size_t round = LK_ROTATION_ROUNDS; round-- > 0;) {
        const float *signs = rotation->signs + round * dim;
        if (power != dim) mix_halves(vector, dim);
        kernels->hadamard(vector + (round % 2 ? dim - power : 0), power);
        for (size_t i = 0; i < dim; i++) vector[i] *= signs[i];
    }
}
