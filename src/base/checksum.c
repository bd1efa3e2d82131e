/* XXH3-128 and the checked file that carries one (layout in docs/format.md). */
#include "base/error.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

lk_hash128 lk_hash(const void *bytes, size_t size)
{
    XXH128_hash_t h = XXH3_128bits(bytes, size);
    return (lk_hash128){h.low64, h.high64};
}

void lk_hash_hex(lk_hash128 hash, char out[33])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        out[i] = digits[hash.high >> (60 - 4 * i) & 15];
        out[16 + i] = digits[hash.low >> (60 - 4 * i) & 15];
    }
    out[32] = 0;
}

/* Written as it lies in memory: the endianness mark makes a machine of the other order refuse the file. */
typedef struct blob_header {
    char magic[8];
    uint32_t version;
    uint32_t endian; /* 0x01020304 */
    uint64_t size;   /* of the payload */
    uint64_t sum[2]; /* of the payload: low, high */
    uint64_t header; /* low half of XXH3-128 of the 40 bytes above */
} blob_header;
_Static_assert(sizeof(blob_header) == 48, "the header is part of the file format");

#define BLOB_ENDIAN 0x01020304u

lk_status lk_blob_write(const char *path, const char magic[8], uint32_t version, const void *payload, size_t size)
{
    lk_hash128 sum = lk_hash(payload, size);
    blob_header h = {.version = version, .endian = BLOB_ENDIAN, .size = size, .sum = {sum.low, sum.high}};
    memcpy(h.magic, magic, 8);
    h.header = lk_hash(&h, 40).low;
    lk_atomic_file *file;
    lk_status s = lk_atomic_open(path, &file);
    if (s != LK_OK) return s;
    s = lk_atomic_write(file, &h, sizeof h);
    if (s == LK_OK) s = lk_atomic_write(file, payload, size);
    if (s == LK_OK) return lk_atomic_commit(file);
    lk_atomic_abandon(file);
    return s;
}

lk_status lk_blob_read(const char *path, const char magic[8], uint32_t version, uint8_t **payload, size_t *size)
{
    *payload = NULL;
    *size = 0;
    uint8_t *bytes = NULL;
    size_t n;
    lk_status s = lk_file_read(path, 0, &bytes, &n);
    if (s != LK_OK) return s;
    blob_header h;
    if (n < sizeof h) {
        s = lk_fail(LK_CORRUPT, "%s: is too short (%zu bytes) to be one of our files", path, n);
        goto done;
    }
    memcpy(&h, bytes, sizeof h);
    if (memcmp(h.magic, magic, 8) != 0) {
        s = lk_fail(LK_CORRUPT, "%s: does not start with %.8s: it is not the file that was expected here", path, magic);
    } else if (h.endian != BLOB_ENDIAN) {
        s = lk_fail(LK_UNSUPPORTED, "%s: was written on a machine with another byte order", path);
    } else if (h.header != lk_hash(&h, 40).low) {
        s = lk_fail(LK_CORRUPT, "%s: the header's checksum does not match", path);
    } else if (h.version > version) {
        s = lk_fail(LK_UNSUPPORTED, "%s: has format version %u; this program knows versions up to %u: use a newer one",
                    path, h.version, version);
    } else if (h.size != n - sizeof h) {
        s = lk_fail(LK_CORRUPT,
                    "%s: should hold %llu bytes after its header and holds %zu: it was cut short or added to", path,
                    (unsigned long long)h.size, n - sizeof h);
    } else {
        lk_hash128 sum = lk_hash(bytes + sizeof h, n - sizeof h);
        if (sum.low != h.sum[0] || sum.high != h.sum[1])
            s = lk_fail(LK_CORRUPT, "%s: the checksum does not match", path);
    }
    if (s != LK_OK) goto done;
    n -= sizeof h;
    memmove(bytes, bytes + sizeof h, n);
    bytes[n] = 0;
    *payload = bytes;
    *size = n;
    bytes = NULL;
done:
    free(bytes);
    return s;
}
