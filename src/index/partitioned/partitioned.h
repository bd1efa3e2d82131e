/* What a partitioned index is made of: one image, in memory or a mapped file, of a header and sections.
 * partitioned_build.c fills it, partitioned_file.c writes and opens it, partitioned_search.c reads it. docs/format.md
 * describes it. */
#ifndef LK_INDEX_PARTITIONED_PARTITIONED_H
#define LK_INDEX_PARTITIONED_PARTITIONED_H

#include "base/file.h"
#include "index/distance.h"
#include "index/partitioned/cells.h"
#include "index/partitioned/pq.h"
#include <likeness/partitioned.h>

enum { LK_PARTITIONED_VERSION = 1, LK_PARTITIONED_HEADER = 4096, LK_PARTITIONED_DIM_MOST = 65536 };
#define LK_PARTITIONED_MAGIC "LKPARTIX"

enum {
    SECTION_CENTROIDS,        /* f32 [partitions][dim] */
    SECTION_COARSE_WORDS,     /* f32 [dim][16]: codewords of the centroids, which are found by fast scan themselves */
    SECTION_COARSE_CODES,     /* blocks of 32 centroids */
    SECTION_COARSE_CORRECTED, /* i16 [partitions rounded up to 32] */
    SECTION_WORDS,            /* f32 [dim][16]: codewords of what is left of a vector without its centroid */
    SECTION_LISTS,            /* lk_list [partitions + 1] */
    SECTION_REFINE_PLACE,     /* f32 [dim][2]: middle and step of an int8 component */
    SECTION_CODES,            /* blocks of 32 vectors of one partition */
    SECTION_CORRECTIONS,      /* i16, 32 for each block */
    SECTION_IDS,              /* [n], id_bytes each, and 8 bytes more */
    SECTION_REFINE,           /* [n][dim] of the finer copies */
    SECTIONS,
    SECTIONS_CHECKED_ON_OPEN = SECTION_CODES /* those before it are read by every search */
};

/* A partition holds positions [first, next one's first) and begins at a block. What is added to a key of its vector is
 * -(middle + step * correction). */
typedef struct lk_list {
    uint64_t first, block;
    float middle, step;
} lk_list;

typedef struct lk_partitioned_section {
    uint64_t offset, size;
    uint64_t hash_low, hash_high;
} lk_partitioned_section;

typedef struct lk_partitioned_header {
    char magic[8];
    uint32_t version, endian; /* 0x01020304 */
    uint64_t file_size, n;
    uint32_t metric, refine, dim, partitions, groups, coarse_groups, id_bytes;
    float coarse_middle, coarse_step; /* as those of a list */
    lk_partitioned_section sections[SECTIONS];
    uint64_t hash_low, hash_high; /* of all before */
} lk_partitioned_header;

struct lk_partitioned {
    lk_partitioned_header *header; /* at the beginning of the image */
    uint8_t *image;
    size_t size;
    int mapped; /* a file, which is not written to */
    lk_pq pq;
    lk_cells cells;
    const lk_distance_kernels *kernels;
    /* The sections. */
    float *centroids, *coarse_words, *words, *refine_place;
    uint8_t *coarse_codes, *codes, *ids, *refine;
    int16_t *coarse_corrections, *corrections;
    lk_list *lists;
};

/* Vectors of length one are ranked by their distance: from codes that is estimated better than the product. */
static inline int lk_partitioned_by_distance(lk_metric metric)
{
    return metric != LK_INNER_PRODUCT;
}

size_t lk_refine_bytes(lk_refine refine); /* of a component */

/* Sizes of sections from the header's numbers and the count of blocks; offsets are set, file_size too. */
void lk_partitioned_lay_out(lk_partitioned_header *header, uint64_t blocks);
/* Fills the struct from image and header. */
void lk_partitioned_bind(lk_partitioned *index, uint8_t *image, int mapped);
/* Computes the checksums of the sections and of the header. */
void lk_partitioned_seal(lk_partitioned *index);

static inline uint64_t lk_partitioned_id(const lk_partitioned *index, uint64_t position)
{
    uint64_t id;
    unsigned bytes = index->header->id_bytes;
    __builtin_memcpy(&id, index->ids + position * bytes, sizeof id);
    return bytes == 8 ? id : id & ((1ull << (8 * bytes)) - 1);
}

#endif
