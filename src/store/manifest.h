/* MANIFEST: what a collection is (shape of its vectors, the embedder that made them) and which files it is made of. */
#ifndef LK_STORE_MANIFEST_H
#define LK_STORE_MANIFEST_H

#include "store/catalog.h"

typedef struct lk_manifest {
    lk_collection_config config; /* strings owned by this struct; model_dir unused */
    char *created;               /* ISO 8601, UTC */
    lk_segment_row *segments;    /* as of the last time a segment was begun or the collection compacted */
    size_t segment_count;
} lk_manifest;

/* LK_NOT_FOUND, LK_CORRUPT, LK_UNSUPPORTED (newer). */
lk_status lk_manifest_read(const char *path, lk_manifest *out);
/* Atomic. */
lk_status lk_manifest_write(const char *path, const lk_manifest *manifest);
void lk_manifest_free(lk_manifest *manifest);

#endif
