/* Numbers of other types as f32. */
#ifndef LK_NN_CONVERT_H
#define LK_NN_CONVERT_H

#include <likeness/nn.h>

/* src [n] of a float type, unaligned. */
void lk_floats_from(lk_type type, const void *src, size_t n, float *dst);

#endif
