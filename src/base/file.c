#include "base/file.h"

#include "base/error.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

lk_status lk_file_read(const char *path, uint64_t max_bytes, uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    /* O_NONBLOCK: opening a FIFO must not wait for a writer; it has no effect on regular files. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return lk_fail_errno(errno, "%s: cannot be opened", path);
    lk_status s = LK_OK;
    uint8_t *buffer = NULL;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        s = lk_fail_errno(errno, "%s: cannot be read", path);
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        s = lk_fail(LK_INVALID, "%s: is %s, not a file", path, S_ISDIR(st.st_mode) ? "a folder" : "a special file");
        goto done;
    }
    if (max_bytes && (uint64_t)st.st_size > max_bytes) {
        s = lk_fail(LK_LIMIT, "%s: %llu bytes are over the limit of %llu", path, (unsigned long long)st.st_size,
                    (unsigned long long)max_bytes);
        goto done;
    }
    size_t wanted = (size_t)st.st_size, got = 0;
    buffer = lk_alloc(wanted + 1, 1);
    if (!buffer) {
        s = lk_fail_memory(path);
        goto done;
    }
    while (got < wanted) {
        ssize_t n = read(fd, buffer + got, wanted - got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            s = lk_fail_errno(errno, "%s: cannot be read", path);
            goto done;
        }
        if (n == 0) break; /* became shorter since fstat: what is there is what we return */
        got += (size_t)n;
    }
    buffer[got] = 0;
    *bytes = buffer;
    *size = got;
    buffer = NULL;
done:
    free(buffer);
    close(fd);
    return s;
}

/* ---- replacing atomically ---- */

struct lk_atomic_file {
    int fd;
    char *path, *temporary;
};

static atomic_uint next_temporary; /* keeps the names of two threads apart */

static void atomic_free(lk_atomic_file *file)
{
    if (file->fd >= 0) close(file->fd);
    free(file->path);
    free(file->temporary);
    free(file);
}

lk_status lk_atomic_open(const char *path, lk_atomic_file **out)
{
    *out = NULL;
    lk_atomic_file *file = lk_alloc_zero(1, sizeof *file);
    if (!file) return lk_fail_memory(path);
    file->fd = -1;
    file->path = strdup(path);
    unsigned number = atomic_fetch_add(&next_temporary, 1);
    if (!file->path || asprintf(&file->temporary, "%s.%ld-%u.tmp", path, (long)getpid(), number) < 0) {
        file->temporary = NULL;
        atomic_free(file);
        return lk_fail_memory(path);
    }
    /* Not O_EXCL: a leftover of a killed process that had our number is ours to overwrite. */
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file->fd < 0) {
        lk_status s = lk_fail_errno(errno, "%s: cannot be written", path);
        atomic_free(file);
        return s;
    }
    flock(file->fd, LOCK_EX | LOCK_NB); /* tells lk_atomic_sweep that somebody writes it */
    *out = file;
    return LK_OK;
}

lk_status lk_atomic_write(lk_atomic_file *file, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    while (size > 0) {
        ssize_t n = write(file->fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lk_fail_errno(errno, "%s: cannot be written", file->path);
        p += n;
        size -= (size_t)n;
    }
    return LK_OK;
}

lk_status lk_folder_sync(const char *path)
{
    lk_status s = LK_OK;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) /* EINVAL: a file system that cannot sync folders */
        s = lk_fail_errno(errno, "%s: the folder cannot be synced", path);
    if (fd >= 0) close(fd);
    return s;
}

static lk_status sync_folder_of(const char *path)
{
    char *copy = strdup(path);
    if (!copy) return lk_fail_memory(path);
    char *slash = strrchr(copy, '/');
    const char *folder = ".";
    if (slash) {
        slash[slash == copy ? 1 : 0] = 0; /* "/x" lies in "/" */
        folder = copy;
    }
    lk_status s = lk_folder_sync(folder);
    free(copy);
    return s;
}

lk_status lk_file_move(const char *from, const char *to)
{
    return rename(from, to) == 0 ? sync_folder_of(to) : lk_fail_errno(errno, "%s: cannot be replaced", to);
}

lk_status lk_atomic_commit(lk_atomic_file *file)
{
    lk_status s = LK_OK;
    if (fsync(file->fd) != 0) s = lk_fail_errno(errno, "%s: cannot be written", file->path);
    int failed = close(file->fd);
    file->fd = -1;
    if (s == LK_OK && failed) s = lk_fail_errno(errno, "%s: cannot be written", file->path);
    if (s == LK_OK && rename(file->temporary, file->path) != 0)
        s = lk_fail_errno(errno, "%s: cannot be replaced", file->path);
    if (s == LK_OK)
        s = sync_folder_of(file->path);
    else
        unlink(file->temporary);
    atomic_free(file);
    return s;
}

void lk_atomic_abandon(lk_atomic_file *file)
{
    if (!file) return;
    unlink(file->temporary);
    atomic_free(file);
}

lk_status lk_file_write_atomic(const char *path, const void *bytes, size_t size)
{
    lk_atomic_file *file;
    lk_status s = lk_atomic_open(path, &file);
    if (s != LK_OK) return s;
    s = lk_atomic_write(file, bytes, size);
    if (s != LK_OK) {
        lk_atomic_abandon(file);
        return s;
    }
    return lk_atomic_commit(file);
}

/* ---- mapping ---- */

lk_status lk_map_open(const char *path, lk_map *out)
{
    int file;
    lk_status s = lk_map_open_file(path, out, &file);
    if (file >= 0) close(file);
    return s;
}

lk_status lk_map_open_file(const char *path, lk_map *out, int *file)
{
    *out = (lk_map){0};
    *file = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return lk_fail_errno(errno, "%s: cannot be opened", path);
    lk_status s = LK_OK;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        s = lk_fail_errno(errno, "%s: cannot be read", path);
    } else if (!S_ISREG(st.st_mode)) {
        s = lk_fail(LK_INVALID, "%s: is not a regular file", path);
    } else if (st.st_size > 0) { /* an empty mapping is not allowed; NULL and 0 stand for it */
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            s = lk_fail_errno(errno, "%s: cannot be mapped", path);
        else
            *out = (lk_map){p, (size_t)st.st_size, false};
    }
    if (s == LK_OK)
        *file = fd;
    else
        close(fd);
    return s;
}

lk_status lk_map_copy(lk_map *map, const char *path)
{
    void *bytes = lk_alloc_aligned(map->size, 1);
    if (!bytes) return lk_fail_memory(path);
    memcpy(bytes, map->bytes, map->size);
    size_t size = map->size;
    lk_map_close(map);
    *map = (lk_map){bytes, size, true};
    return LK_OK;
}

void lk_map_close(lk_map *map)
{
    if (map && map->copied)
        free((void *)map->bytes);
    else if (map && map->bytes)
        munmap((void *)map->bytes, map->size);
    if (map) *map = (lk_map){0};
}

double lk_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
