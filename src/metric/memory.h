/* Cross-batch memory (Wang et al., 2020): the latest embeddings of earlier batches as further references. */
#ifndef LK_METRIC_MEMORY_H
#define LK_METRIC_MEMORY_H

#include <likeness/metric.h>

/* A ring of `capacity` rows. */
typedef struct lk_memory {
    size_t capacity, dim, next, count;
    float *embeddings; /* [capacity][dim] */
    int32_t *classes;  /* [capacity] */
} lk_memory;

lk_status lk_memory_new(size_t capacity, size_t dim, lk_memory *out);
void lk_memory_free(lk_memory *memory);

/* What a batch overwrote, to be put back when the evaluation fails. */
typedef struct lk_memory_undo {
    size_t next, count, n;
    float *embeddings;
    int32_t *classes;
} lk_memory_undo;

/* Puts n rows in, oldest ones first out; slot [n] receives where each went. LK_INVALID when n exceeds the capacity. On
 * success undo is filled and must go to lk_memory_undo or lk_memory_keep. */
lk_status lk_memory_put(lk_memory *memory, const float *embeddings, const int32_t *classes, size_t n, uint32_t *slot,
                        lk_memory_undo *undo);
void lk_memory_keep(lk_memory_undo *undo);
void lk_memory_put_back(lk_memory *memory, lk_memory_undo *undo);

#endif
