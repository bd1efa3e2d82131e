/* Principal projections of 8-bit codes (quantise.h): a few components, 8 bits each, that tell nearly how far vectors
 * are. Wide embeddings vary along far fewer directions than they have components; the projection goes onto the
 * directions in which a sample varies most (principal components), turned at random among themselves so that one grid
 * fits all. Everything behind training is whole numbers, and rounding of one product and sum, so every instruction set
 * gives the same. */
#ifndef LK_INDEX_PROJECT_H
#define LK_INDEX_PROJECT_H

#include "base/threads.h"
#include "index/codes.h"
#include <likeness/status.h>

/* Of the codes that are projected, at most: training takes time and memory with the square. And of what comes out. */
enum { LK_PROJECTION_MOST = 2048, LK_PROJECTION_MOST_WIDTH = 256 };

typedef struct lk_projection {
    size_t width;      /* components that come out: a multiple of 64; 0: there is no projection */
    size_t stride;     /* bytes of the codes that go in: a multiple of 64 */
    uint8_t *rows;     /* [width][stride], 64-byte aligned: 128 + the direction times one factor common to all */
    uint64_t *lengths; /* [width]: squared lengths of the rows as they are stored */
    float *grid;       /* [width + 2]: from where products with a row count, by what they are multiplied, and by what
                          squared distances of codes are multiplied when they are projected, less what is lost */
} lk_projection;

/* Trains on codes [n][stride], n >= 1, stride at most LK_PROJECTION_MOST: of the widths 64, 128 and 256, no more than
 * half of stride, the least that leaves the share `least` of a sample's variance; none that does: width 0. The same
 * seed and codes give the same for any number of threads. LK_NO_MEMORY. */
lk_status lk_projection_train(lk_projection *projection, const lk_code_kernels *kernels, lk_pool *pool, size_t n,
                              const uint8_t *codes, size_t stride, double least, uint64_t seed);
void lk_projection_free(lk_projection *projection);
/* The lengths follow from the rows: for those who read rows and grid from a file. */
lk_status lk_projection_measure(lk_projection *projection);

/* A query in the units of the codes [stride] to one in the units of the projected codes: out [width], clipped to
 * LK_CODES_QUERY_MIN .. LK_CODES_QUERY_MAX. */
void lk_projection_query(const lk_projection *projection, const lk_code_kernels *kernels, const int16_t *query,
                         int16_t *out);

#endif
