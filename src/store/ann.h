/* The approximate index of a collection: one immutable file over the rows that were there when it was built. Rows that
 * came later are scanned, rows that died since are left out, so it never has to change. */
#ifndef LK_STORE_ANN_H
#define LK_STORE_ANN_H

#include "index/ann.h"
#include "index/partitioned/partitioned_ann.h"
#include "store/catalog.h"

/* The catalog's row about it. number 0 = there is none. */
typedef struct lk_ann_row {
    uint64_t number;  /* of index/NNNN.ann */
    char kind[16];    /* as lk_ann_type_named knows it */
    uint64_t rows;    /* of all segments together, dead ones too, that it was built over: the first ones */
    uint64_t segment; /* the last of them, and how many of its rows */
    uint64_t segment_rows;
    uint64_t vectors; /* that are in it */
    unsigned effort;
    double recall; /* of 10 results that effort was measured to have */
    char why[128]; /* it is of this kind; "" when somebody wanted that */
} lk_ann_row;

/* The index is asked for so many times the results that are wanted: the best by exact scores are among them where its
 * own copies of vectors are too coarse to rank them. */
enum { LK_ANN_ASKED = 2 };

/* LK_OK also when there is none. */
lk_status lk_ann_row_read(lk_catalog *catalog, lk_ann_row *out);
/* Whether the segments still begin with the rows it was built over. */
bool lk_ann_row_fits(const lk_ann_row *row, const lk_segment_row *segments, size_t count);
/* A writer deletes the files in index/ that the catalog does not know. */
lk_status lk_ann_drop_orphans(lk_collection *collection);
/* malloc'ed path of index/NNNN.ann. */
char *lk_ann_path(const char *collection_path, uint64_t number);
/* Opens the file of a row whose number is not 0; freed by the type's free. Damaged tables are not noticed (the type's
 * verify does that), but what they make a search do stays inside of them. LK_CORRUPT, also when it is an index of so
 * many vectors or of such a width as the catalog does not say; LK_NOT_FOUND; LK_UNSUPPORTED. */
lk_status lk_ann_open(const char *path, const lk_ann_row *row, size_t dim, void **out);

#endif
