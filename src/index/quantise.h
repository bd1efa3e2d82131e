/* Scalar quantisers, with one grid for all vectors (lk_sq8) and with one for each (lk_lvq).
 *
 * lk_sq8: 8 bits per component on one grid common to all vectors, so that distances between codes are distances between
 * vectors up to one factor and need no corrections per vector. Where all components are whole numbers within 255 of
 * each other (SIFT descriptors, histograms, pixels) the codes are exact; elsewhere vectors are rotated first
 * (rotate.h), which makes one grid fit all components, and a second byte per component can keep what the first lost. */
#ifndef LK_INDEX_QUANTISE_H
#define LK_INDEX_QUANTISE_H

#include "index/rotate.h"
#include <stdbool.h>

typedef struct lk_sq8 {
    size_t dim;
    size_t stride;        /* bytes of a code row: dim rounded up to a multiple of 64; the padding is 0 */
    bool exact;           /* every vector seen in training is represented exactly */
    float step;           /* component = offset + step * (code + residual / 256) */
    float *offset;        /* [dim] */
    lk_rotation rotation; /* signs NULL: vectors are coded as they are */
} lk_sq8;

/* Trains on n >= 1 vectors [n][dim]; rotates unless they are exact. LK_NO_MEMORY. */
lk_status lk_sq8_train(lk_sq8 *quantiser, size_t n, size_t dim, const float *vectors, uint64_t seed);
void lk_sq8_free(lk_sq8 *quantiser);

/* A vector in the units of the codes (rotated if need be), unclipped: out [stride], padding 0. */
void lk_sq8_units(const lk_sq8 *quantiser, const float *vector, float *out);
/* From units to code [stride], clipped to 0..255, and residual [stride] (may be NULL). */
void lk_sq8_encode(const lk_sq8 *quantiser, const float *units, uint8_t *code, int8_t *residual);
/* Back to a vector [dim]; residual may be NULL. */
void lk_sq8_decode(const lk_sq8 *quantiser, const uint8_t *code, const int8_t *residual, float *out);

/* Locally adaptive quantisation (LVQ; Aguerrebere et al., 2023): 4 or 8 bits per component between the least and the
 * largest component of each vector, from which a mean vector is best taken off before. Needs no training. */
typedef struct lk_lvq_factors {
    float offset, scale; /* component = offset + scale * code, off by at most scale / 2 */
} lk_lvq_factors;

/* Bytes of a code: 4-bit codes are packed as index/codes.h says. */
static inline size_t lk_lvq_bytes(int bits, size_t dim)
{
    return bits == 4 ? (dim + 1) / 2 : dim;
}
/* bits is 4 or 8. */
void lk_lvq_encode(int bits, size_t dim, const float *vector, uint8_t *code, lk_lvq_factors *factors);
void lk_lvq_decode(int bits, size_t dim, const uint8_t *code, const lk_lvq_factors *factors, float *out);

#endif
