/* What was computed of pictures once and is slow to compute again: the local features that geometric verification
 * compares. A SQLite file in the folder of a collection, beside the catalog and of no authority: searches fill it, it
 * has a limit beyond which the oldest go, and whoever deletes it loses time alone. Any number of processes may use one.
 * A row belongs to the bytes of a picture (id and hash), so that a changed picture is never compared by its old
 * features.
 */
#ifndef LK_STORE_FEATURES_H
#define LK_STORE_FEATURES_H

#include <likeness/collection.h>

#define LK_FEATURES_FILE "features.db"
#define LK_FEATURES_LIMIT ((uint64_t)1 << 30) /* bytes, unless another limit was set */

enum { LK_FEATURES_NEWEST = 1 }; /* version of what the bytes mean: files of newer ones are left alone */

typedef struct lk_features lk_features; /* for one thread at a time */

/* Opens the features of the collection at `path`, making an empty file when there is none. version: of what the bytes
 * mean; a file of an older version is emptied. LK_IO (a folder that cannot be written to), LK_CORRUPT, LK_UNSUPPORTED
 * (newer), LK_NO_MEMORY. */
lk_status lk_features_open(const char *path, uint32_t version, lk_features **out);
void lk_features_close(lk_features *features); /* NULL allowed */

/* Keeps at most so many bytes from now on, also after reopening, and drops the oldest beyond it; 0 =
 * LK_FEATURES_LIMIT. */
lk_status lk_features_set_limit(lk_features *features, uint64_t bytes);
uint64_t lk_features_limit(const lk_features *features);
/* Bytes in use, and pictures. */
uint64_t lk_features_size(lk_features *features);
uint64_t lk_features_count(lk_features *features);

/* *bytes is freed by the caller. LK_NOT_FOUND, without a message; LK_CORRUPT when they do not match their checksum. */
lk_status lk_features_get(lk_features *features, int64_t id, const uint64_t hash[2], uint8_t **bytes, size_t *size);
bool lk_features_has(lk_features *features, int64_t id, const uint64_t hash[2]);

typedef struct lk_features_row {
    int64_t id;
    uint64_t hash[2];
    const uint8_t *bytes;
    size_t size;
} lk_features_row;
/* Puts n, all or none, and drops the oldest if there are too many then. LK_CONFLICT when another process keeps the file
 * locked; LK_IO. */
lk_status lk_features_put(lk_features *features, const lk_features_row *rows, size_t n);

/* Puts as many of n, in their order, as there is room for; nothing is dropped for them. *added says how many.
 * LK_CONFLICT, LK_IO (also where the file cannot be written to). */
lk_status lk_features_add(lk_features *features, const lk_features_row *rows, size_t n, size_t *added);

/* Drops those of pictures that the collection at `path` does not hold any more, or not with these bytes. A collection
 * without features is left as it is. LK_UNSUPPORTED (newer). */
lk_status lk_features_prune(const char *path);

/* Whether lk_features_verify would report damage; that a file is of a newer version is none. */
lk_status lk_features_damaged(const char *path, bool *damaged);
/* Deletes the file; processes that have opened it go on with what they have. */
lk_status lk_features_remove(const char *path);

/* Calls report with a sentence for everything that is damaged. A collection without features has no problems. */
lk_status lk_features_verify(const char *path, lk_report_fn report, void *user, uint64_t *problems);

#endif
