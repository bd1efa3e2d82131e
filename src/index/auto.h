/* Choosing an index and how hard to search it. */
#ifndef LK_INDEX_AUTO_H
#define LK_INDEX_AUTO_H

#include "index/ann.h"

/* The kind for n vectors of dim components: exact where looking at all of them takes less than a tenth of a
 * millisecond, a graph where it is the faster one and fits into the memory allowed (bytes, 0 = any), partitions else.
 * why [size] receives a sentence. LK_LIMIT when not even the smallest fits. */
lk_status lk_ann_choose(size_t n, size_t dim, size_t memory_limit, const lk_ann_type **out, char *why, size_t size);

/* The least effort of those that the kind proposes with which at least `recall` of the k nearest are found: measured on
 * queries of its own (0 = 200 of them), vectors near those of the input but none of them, whose true neighbours are
 * found exactly. The greatest effort when none reaches it. *reached is the recall measured. */
lk_status lk_ann_tune(lk_context *context, const lk_ann_type *type, const void *index, const lk_ann_input *input,
                      size_t k, double recall, size_t queries, unsigned *effort, double *reached);

/* "auto": a face that builds what lk_ann_choose says and forwards to it. */
extern const lk_ann_type lk_ann_auto;

#endif
