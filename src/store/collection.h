/* Inside of a collection, shared by collection.c (life and writing), snapshot.c, verify.c and compact.c. */
#ifndef LK_STORE_COLLECTION_H
#define LK_STORE_COLLECTION_H

#include "store/manifest.h"
#include "store/segment.h"

/* Vectors put since the last commit that are not on disk yet, encoded. */
typedef struct lk_pending {
    uint64_t *ids;
    float *scales;
    uint8_t *codes;
    size_t rows, capacity;
} lk_pending;

struct lk_collection {
    char *path, *model_dir, *manifest_path;
    lk_access access;
    int lock; /* descriptor of LOCK, or -1 */
    lk_manifest manifest;
    lk_catalog catalog;
    bool in_batch;          /* a transaction is open */
    lk_segment_row current; /* the segment that grows: bytes and rows on disk, committed or not; number 0 = none yet */
    bool current_is_new;    /* begun in this batch: the manifest does not name it yet */
    size_t untabled;        /* blocks of it that were written since its table of blocks was */
    lk_pending pending;
    bool relabelled; /* this batch has changed or removed pictures, whose labels may have been the last of a value */
    uint64_t values_most; /* values of labels from which on those that no picture has any more are looked for */
};

enum { LK_BLOCK_ROWS = 4096 }; /* a batch larger than this goes to disk in blocks as it comes */

/* malloc'ed path of segment `number`. */
char *lk_collection_segment_path(const lk_collection *collection, uint64_t number);
/* Rewrites MANIFEST from the catalog's table of segments. */
lk_status lk_collection_write_manifest(lk_collection *collection);
/* Only a writer may go on: LK_INVALID otherwise. */
lk_status lk_collection_for_writing(lk_collection *collection);
/* Brings the tables of blocks of all segments up to date where at least `least` blocks are missing, as they are
 * committed. They are a convenience: what cannot be written is left for the next time. The caller is the writer,
 * outside of a batch. */
void lk_collection_table_blocks(lk_collection *collection, size_t least);
/* A further reader of the same collection, for another thread; `collection` may be in use meanwhile. LK_CONFLICT when
 * another collection lies in its place by now. */
lk_status lk_collection_open_again(const lk_collection *collection, lk_collection **out);
/* As a writer, but without a look at anything: what other openings do then is done by lk_collection_recover, which
 * takes segments that are missing or cut short. */
lk_status lk_collection_open_damaged(const char *path, lk_collection **out);
lk_status lk_collection_recover(lk_collection *collection);
/* Deletes files in vectors/ that the catalog does not know. */
lk_status lk_collection_drop_orphans(lk_collection *collection);

#endif
