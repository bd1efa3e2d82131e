/* What a flat index is made of; shared by flat.c (keeping vectors) and flat_search.c (finding them). */
#ifndef LK_INDEX_FLAT_H
#define LK_INDEX_FLAT_H

#include "index/distance.h"
#include "index/id_map.h"
#include <likeness/index.h>
#include <pthread.h>
#include <stdbool.h>

/* A run of rows. Borrowed ones are as large as they come; owned ones are chunks that never move once they are full, so
 * that a growing index is not copied again and again. */
typedef struct lk_flat_part {
    const char *codes;
    const uint64_t *ids;
    const float *scales;  /* LK_I8 only */
    const uint8_t *live;  /* bitmap, LSB first; NULL = all */
    size_t count, dead;   /* rows, and those of them that are removed */
    size_t capacity;      /* rows there is room for; 0 = borrowed */
    bool measured;        /* the two below are filled: always for owned parts */
    float longest;        /* no row that can be found is longer */
    const float *bias;    /* minus half the squared length of each row; LK_L2 only */
    uint64_t least, most; /* ids of borrowed rows lie between these */
} lk_flat_part;

struct lk_flat {
    size_t dim, row_bytes;
    lk_metric metric;
    lk_dtype dtype;
    const lk_distance_kernels *kernels;
    lk_flat_part *parts;
    size_t part_count, part_capacity;
    size_t rising;         /* so many parts, the first, have ids above those of the part before */
    size_t rows, live;     /* in all parts */
    pthread_mutex_t mutex; /* guards what reading a const index may cause: building places, measuring parts */
    bool mapped;           /* places holds every live row */
    size_t looked_at;      /* ids and parts, to find ids, while it did not */
    lk_id_map places;      /* id -> part << 40 | row */
};

/* Makes sure that every part is measured. Screening needs it; for LK_COSINE nothing is read, lengths are 1 by contract.
 */
lk_status lk_flat_measure(const lk_flat *index);

static inline bool lk_flat_is_live(const lk_flat_part *part, size_t row)
{
    return part->dead == 0 || (part->live[row / 8] >> (row % 8) & 1);
}

/* Where a row lies: part << 40 | row. For indexes of another kind that point into a flat one. */
static inline uint64_t lk_flat_place(size_t part, size_t row)
{
    return (uint64_t)part << 40 | row;
}
static inline const lk_flat_part *lk_flat_at_place(const lk_flat *index, uint64_t place, size_t *row)
{
    *row = place & (((uint64_t)1 << 40) - 1);
    return &index->parts[place >> 40];
}

/* Says between which ids those of the part that was attached last lie: what is looked for is then looked for in few
 * parts, and no byte of the others is read. */
void lk_flat_bound_ids(lk_flat *index, uint64_t least, uint64_t most);

/* The place of an id. LK_NOT_FOUND. */
lk_status lk_flat_find(const lk_flat *index, uint64_t id, uint64_t *place);

/* The scores of rows by place, the same bytes as lk_flat_search gives: scores [n], for one query [dim] (normalised
 * inside for LK_COSINE). LK_INVALID when the query is not finite. */
lk_status lk_flat_score_places(const lk_flat *index, const float *query, size_t n, const uint64_t *places,
                               float *scores);

#endif
