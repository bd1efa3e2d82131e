/* Matching of local descriptors kept as codes of four bits a component. */
#ifndef LK_RANK_MATCH_H
#define LK_RANK_MATCH_H

#include <likeness/rank.h>

enum { LK_MATCH_CODE = 64 }; /* bytes of a descriptor of 128 components, component 2b in the low half of byte b */

/* As lk_match_descriptors with mutual != 0, the codes standing for vectors of unit length. a [n_a], b [n_b], out [n_a].
 * LK_NO_MEMORY. */
lk_status lk_match_codes(size_t n_a, const uint8_t *a, size_t n_b, const uint8_t *b, float ratio, lk_match *out,
                         size_t *count);
/* The components of one code. */
void lk_match_unpack(const uint8_t code[LK_MATCH_CODE], int8_t out[2 * LK_MATCH_CODE]);

#endif
