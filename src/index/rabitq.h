/* RaBitQ: vectors as codes of 1 to 8 bits per component, with an unbiased estimate of inner products and a bound on its
 * error (Gao & Long, 2024; for more bits Gao et al., 2025).
 *
 * A vector is given as its difference r from a centre, randomly rotated (rotate.h). Its code names the point v of a
 * grid { -(2^bits - 1)/2, ..., (2^bits - 1)/2 }^dim whose direction is nearest to r's; for 1 bit these are the signs.
 * For any q, rotated likewise,
 *
 *     <q, r>  is estimated by  scale <q, v>,  scale = |r|^2 / <r, v>,
 *
 * and over the choice of the rotation the error stays below  epsilon |q| error  with a probability that grows with
 * epsilon as for a normal distribution, error = |r| sqrt((1/cos^2 - 1) / (dim - 1)), cos the cosine between r and v. */
#ifndef LK_INDEX_RABITQ_H
#define LK_INDEX_RABITQ_H

#include "index/codes.h"
#include <likeness/status.h>

enum { LK_RABITQ_MAX_BITS = 8 };

typedef struct lk_rabitq_factors {
    float squares; /* |r|^2 */
    float scale;
    float error;
} lk_rabitq_factors;

/* Bytes of a code: 1 bit, 4 bits (for 2 to 4) or 8 bits (for 5 to 8) per component, packed as codes.h says. */
size_t lk_rabitq_bytes(int bits, size_t dim);

/* Codes r [dim] into code [lk_rabitq_bytes]: component value + (2^bits - 1)/2 as a whole number. A zero vector gets
 * scale 0. LK_NO_MEMORY; never for 1 bit. Precondition: 1 <= bits <= 8. Takes time in proportion to dim 2^bits. */
lk_status lk_rabitq_encode(int bits, size_t dim, const float *r, uint8_t *code, lk_rabitq_factors *factors);
/* The estimate of r: scale * v, out [dim]. */
void lk_rabitq_decode(int bits, size_t dim, const uint8_t *code, const lk_rabitq_factors *factors, float *out);

/* A query q as the kernels want it: int8 components, rounded at random by half a step, so that it adds no bias. */
typedef struct lk_rabitq_query {
    int8_t *components; /* [dim], borrowed */
    size_t dim;
    float step; /* q is about step * components */
    float length;
    int32_t sum;
} lk_rabitq_query;
/* components [dim] is written and must outlive *out. The same seed rounds alike. */
void lk_rabitq_query_init(lk_rabitq_query *out, size_t dim, const float *q, uint64_t seed, int8_t *components);

/* The estimate of <q, r>. *bound, if not NULL: what the error exceeds once in many (epsilon 1.9 as in the paper, and
 * the rounding of the query). */
float lk_rabitq_dot(const lk_code_kernels *kernels, int bits, const lk_rabitq_query *query, const uint8_t *code,
                    const lk_rabitq_factors *factors, float *bound);
/* |q - r|^2 from the same estimate. */
static inline float lk_rabitq_l2(const lk_code_kernels *kernels, int bits, const lk_rabitq_query *query,
                                 const uint8_t *code, const lk_rabitq_factors *factors, float *bound)
{
    float dot = lk_rabitq_dot(kernels, bits, query, code, factors, bound);
    if (bound) *bound *= 2;
    return query->length * query->length + factors->squares - 2 * dot;
}

#endif
