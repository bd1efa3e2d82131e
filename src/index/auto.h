/* Choosing an index and how hard to search it. */
#ifndef LK_INDEX_AUTO_H
#define LK_INDEX_AUTO_H

#include "index/ann.h"
#include <stdbool.h>

/* The one rule, of the library and of collections: exact where the vectors as f32 are at most 32 MiB, a graph up to two
 * million vectors where it fits into the memory allowed, partitions else; docs/graph.md has the reasons. memory: bytes
 * allowed; 0 = any, but for a graph a quarter of the machine's. whole: all components are whole numbers within 255 of
 * each other, which a graph keeps in one byte each. why [size] receives half a sentence. LK_LIMIT when not even the
 * smallest fits. */
lk_status lk_ann_choose(size_t n, size_t dim, bool whole, uint64_t memory, uint64_t machine, const lk_ann_type **out,
                        char *why, size_t size);
uint64_t lk_ann_machine(void); /* bytes of memory that there are */
/* Whether vectors [n][dim] are `whole`, judged by a thousand of them. */
bool lk_ann_whole(size_t n, size_t dim, const float *vectors);

/* The least effort of those that the kind proposes with which at least `recall` of the k nearest are among the first
 * `asked` >= k that are found, by two kinds of questions, each of which must reach it: vectors of the input, which are
 * themselves left out, and vectors near those of the input but none of them. The latter alone are found too easily in
 * cells, the former in a graph. queries of each kind (0 = 200); true neighbours are found exactly. The greatest effort
 * when none reaches it. *reached is the recall measured, the lower of the two. */
lk_status lk_ann_tune(lk_context *context, const lk_ann_type *type, const void *index, const lk_ann_input *input,
                      size_t k, size_t asked, double recall, size_t queries, unsigned *effort, double *reached);

/* "auto": a face that builds what lk_ann_choose says and forwards to it. */
extern const lk_ann_type lk_ann_auto;

#endif
