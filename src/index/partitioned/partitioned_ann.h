/* The partitioned index behind the common face of index/ann.h. */
#ifndef LK_INDEX_PARTITIONED_ANN_H
#define LK_INDEX_PARTITIONED_ANN_H

#include "index/ann.h"

extern const lk_ann_type lk_ann_partitioned;

#endif
