/* Vectors as short codes, each by itself, with scores estimated from the codes and bounds on their errors: for programs
 * that keep many vectors in little memory and look at the best again.
 *
 * LK_CODES_SCALAR: locally adaptive scalar quantisation (LVQ; Aguerrebere et al., 2023), 4 or 8 bits a component
 * between the least and the largest of each vector. LK_CODES_RABITQ: the nearest direction on a grid of 1 to 8 bits a
 * component after a random rotation (RaBitQ; Gao & Long, 2024, and Gao et al., 2025), whose estimates have no bias. The
 * product codes of the partitioned index (partitioned.h) are smaller still, but are no use without its tables. */
#ifndef LIKENESS_CODES_H
#define LIKENESS_CODES_H

#include <likeness/index.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lk_codes_kind { LK_CODES_SCALAR = 0, LK_CODES_RABITQ = 1 } lk_codes_kind;

/* What turns vectors into codes: it knows the mean of a sample, which is taken off first, and the rotation. Constant
 * once made: any number of threads may use one. */
typedef struct lk_coder lk_coder;

/* Learns from n >= 1 vectors [n][dim] (normalised first for LK_COSINE, as everything given to it later). LK_INVALID
 * when bits does not go with the kind, dim is 0 or above 16384, or a component is not finite; LK_NO_MEMORY. */
LK_API lk_status lk_coder_new(lk_codes_kind kind, int bits, lk_metric metric, size_t n, size_t dim,
                              const float *vectors, uint64_t seed, lk_coder **out);
LK_API void lk_coder_free(lk_coder *coder);
LK_API size_t lk_coder_bytes(const lk_coder *coder); /* of one code, its own factors included */

/* codes [n][lk_coder_bytes]. LK_INVALID when a component is not finite: the message gives the row. LK_NO_MEMORY. */
LK_API lk_status lk_coder_encode(const lk_coder *coder, size_t n, const float *vectors, uint8_t *codes);
/* What the codes stand for: out [n][dim]. LK_NO_MEMORY. */
LK_API lk_status lk_coder_decode(const lk_coder *coder, size_t n, const uint8_t *codes, float *out);

/* Estimates the scores of n codes for one query [dim], as lk_flat_search gives them (LK_L2: squared distance): scores
 * [n]. bounds [n], or NULL: how far off each may be; LK_CODES_SCALAR never is further, LK_CODES_RABITQ once in about
 * twenty times. The query is rounded to 8 bits, at random by `seed`, and the bounds count that in. LK_INVALID when it
 * is not finite; LK_NO_MEMORY. */
LK_API lk_status lk_coder_scores(const lk_coder *coder, const float *query, uint64_t seed, size_t n,
                                 const uint8_t *codes, float *scores, float *bounds);

#ifdef __cplusplus
}
#endif
#endif
