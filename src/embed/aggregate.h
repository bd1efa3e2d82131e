/* From many local descriptors to one vector, over a vocabulary of visual words. */
#ifndef LK_EMBED_AGGREGATE_H
#define LK_EMBED_AGGREGATE_H

#include <stddef.h>
#include <stdint.h>

/* VLAD (Jegou et al., 2010): for each word the sum of (descriptor - word) over the descriptors assigned to it; each
 * such sum divided by its length (intra-normalisation, Arandjelovic & Zisserman, 2013), every component replaced by its
 * signed square root (power normalisation, Perronnin et al., 2010), and the whole divided by its length. descriptors
 * [n][dim], words [k][dim], assignment [n], out [k][dim]. A sum of zero stays zero. */
void lk_vlad(const float *descriptors, const uint32_t *assignment, size_t n, const float *words, size_t k, size_t dim,
             float *out);

/* Term frequencies: the share of descriptors at each word; out [k], sums to 1. */
void lk_bovw_frequencies(const uint32_t *assignment, size_t n, size_t k, float *out);

/* tf-idf (Sivic & Zisserman, 2003): multiplies frequencies [k] by idf [k] in place and divides by the length. */
void lk_bovw_weight(float *frequencies, const float *idf, size_t k);

/* idf = ln(documents / (documents that have the word)); 0 for a word that none has. */
void lk_bovw_idf(const uint32_t *documents_with, size_t documents, size_t k, float *idf);

/* Divides by the L2 norm; a zero vector stays zero. */
void lk_l2_normalise(float *x, size_t n);

#endif
