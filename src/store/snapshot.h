/* What a snapshot is made of; shared by snapshot.c (making it) and snapshot_search.c (searching it). */
#ifndef LK_STORE_SNAPSHOT_H
#define LK_STORE_SNAPSHOT_H

#include "index/flat.h"
#include "store/ann.h"
#include "store/collection.h"

struct lk_snapshot {
    lk_flat *index; /* every row */
    lk_map *maps;   /* [count] */
    size_t count;
    uint64_t stamp; /* of segments and dead rows */

    /* Only where there is an approximate index: */
    const lk_ann_type *type;
    void *ann;      /* over rows 0 .. covered, whose numbers are its ids */
    lk_flat *tail;  /* the rows from `covered` on */
    size_t covered; /* ends where a part of `index` ends */
    size_t covered_dead;
    size_t *starts;  /* [parts + 1]: number of the first row of each part of `index` */
    unsigned effort; /* for ten results */
};

#endif
