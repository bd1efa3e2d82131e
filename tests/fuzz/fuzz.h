/* What the harnesses share: a file in memory that has a path. */
#ifndef FUZZ_H
#define FUZZ_H

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* A file with these bytes; the same one at each call. */
__attribute__((unused)) static const char *fuzz_file(const void *bytes, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size) abort();
    return path;
}

/* A checked blob (docs/format.md) around a payload, so that what is behind the checksum is reached. *out is malloc'ed.
 */
__attribute__((unused)) static size_t fuzz_blob(const char magic[8], const void *payload, size_t size, uint8_t **out)
{
    struct {
        char magic[8];
        uint32_t version, endian;
        uint64_t size, sum[2], header;
    } h = {.version = 1, .endian = 0x01020304, .size = size};
    lk_hash128 sum = lk_hash(payload, size);
    memcpy(h.magic, magic, 8);
    h.sum[0] = sum.low;
    h.sum[1] = sum.high;
    h.header = lk_hash(&h, 40).low;
    *out = malloc(sizeof h + size);
    if (!*out) abort();
    memcpy(*out, &h, sizeof h);
    if (size) memcpy(*out + sizeof h, payload, size);
    return sizeof h + size;
}

#endif
