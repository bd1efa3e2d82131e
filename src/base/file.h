/* Files: read whole, map, replace atomically, with checksums. */
#ifndef LK_BASE_FILE_H
#define LK_BASE_FILE_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a regular file whole; *bytes is malloc'ed with one zero byte after the end (so that text can be parsed in
 * place). LK_LIMIT when larger than max_bytes (0 = no limit), LK_INVALID for a directory, LK_NOT_FOUND, LK_IO. */
lk_status lk_file_read(const char *path, uint64_t max_bytes, uint8_t **bytes, size_t *size);

/* Replaces `path` so that any reader, and the state after a power cut, has either the old file or the whole new one:
 * writes beside it, fsyncs, renames, fsyncs the folder. LK_IO names the path. */
lk_status lk_file_write_atomic(const char *path, const void *bytes, size_t size);

/* Renames a file whose contents are on the disk so that it replaces `to` durably (syncs the folder). */
lk_status lk_file_move(const char *from, const char *to);

/* The same, in pieces. On failure or lk_atomic_abandon nothing is left behind. */
typedef struct lk_atomic_file lk_atomic_file;
lk_status lk_atomic_open(const char *path, lk_atomic_file **out);
lk_status lk_atomic_write(lk_atomic_file *file, const void *bytes, size_t size);
lk_status lk_atomic_commit(lk_atomic_file *file); /* frees it, also on failure */
void lk_atomic_abandon(lk_atomic_file *file);     /* NULL allowed */

/* Makes the names in a folder durable: those of new files and folders, and that old ones are gone. */
lk_status lk_folder_sync(const char *path);

/* Checked blob: a file of one payload with magic, version, endianness mark, payload size and XXH3-128 of the payload in
 * front; written atomically. Reading refuses a wrong magic (LK_CORRUPT), a newer version (LK_UNSUPPORTED), a wrong size
 * or checksum (LK_CORRUPT). magic is 8 characters. *payload is malloc'ed. */
lk_status lk_blob_write(const char *path, const char magic[8], uint32_t version, const void *payload, size_t size);
lk_status lk_blob_read(const char *path, const char magic[8], uint32_t version, uint8_t **payload, size_t *size);

/* Read-only mapping of [0, size) of a file. */
typedef struct lk_map {
    const uint8_t *bytes;
    size_t size;
    bool copied; /* bytes are this process's own */
} lk_map;
lk_status lk_map_open(const char *path, lk_map *out);
/* The same, and the file stays open for reading; *file is -1 on failure. */
lk_status lk_map_open_file(const char *path, lk_map *out, int *file);
/* Puts a copy of the bytes in place of the mapping. LK_NO_MEMORY, and then nothing changed. */
lk_status lk_map_copy(lk_map *map, const char *path);
void lk_map_close(lk_map *map);

/* mkdir -p. */
lk_status lk_make_dirs(const char *path);
/* The folders that a path lies in. */
lk_status lk_make_dirs_above(const char *path);
bool lk_path_exists(const char *path);
/* "a/b" from "a" and "b"; b alone when it is absolute. malloc'ed, NULL when out of memory. */
char *lk_path_join(const char *a, const char *b);
/* Absolute form of path without touching links or needing the file to exist: joins the working directory, drops "." and
 * "..". malloc'ed. */
lk_status lk_path_absolute(const char *path, char **out);

typedef struct lk_hash128 {
    uint64_t low, high;
} lk_hash128;
/* XXH3-128. */
lk_hash128 lk_hash(const void *bytes, size_t size);
/* 32 lower-case hexadecimal digits, high half first. */
void lk_hash_hex(lk_hash128 hash, char out[33]);

/* Valid UTF-8 without NUL? */
bool lk_utf8_valid(const char *text);
/* How many of the first `most` bytes of a text to take so that no character of UTF-8 is cut at the end of them; for
 * "%.*s". */
int lk_utf8_fit(const char *text, size_t most);

/* Seconds on a clock that never jumps. */
double lk_now(void);

#endif
