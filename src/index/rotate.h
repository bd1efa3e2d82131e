/* A random rotation in time dim log dim: rounds of sign flips and Hadamard transforms. Lengths and angles stay as they
 * are, but what lay along few axes is spread over all of them, so that every component of a rotated vector is worth the
 * same number of bits. Widths that are no power of two are covered by two overlapping transforms, mixed by rotations of
 * 45 degrees between the halves (after Ailon & Chazelle, 2009, and the walk of Kac). */
#ifndef LK_INDEX_ROTATE_H
#define LK_INDEX_ROTATE_H

#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>

enum { LK_ROTATION_ROUNDS = 4 };

typedef struct lk_rotation {
    size_t dim;
    float *signs; /* [LK_ROTATION_ROUNDS][dim], each 1 or -1 */
} lk_rotation;

/* The same seed and dim give the same rotation on every machine. LK_NO_MEMORY. */
lk_status lk_rotation_init(lk_rotation *rotation, size_t dim, uint64_t seed);
void lk_rotation_free(lk_rotation *rotation);
/* In place. */
void lk_rotate(const lk_rotation *rotation, float *vector);
/* The inverse, in place. */
void lk_rotate_back(const lk_rotation *rotation, float *vector);

#endif
