/* Tables of neighbours on disk: a checked blob (base/file.h) with magic LKNEIGH, version 1. Payload: four u64 (caller's
 * stamp, n, k, 0), then ids [n] u64, farthest [n] f32, distances [n][k] f32, neighbours [n][k] u32. */
#include "rank/knn.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define VERSION 1u
static const char magic[8] = "LKNEIGH";

static size_t payload_size(size_t n, size_t k)
{
    return 4 * sizeof(uint64_t) + n * (sizeof(uint64_t) + sizeof(float)) + n * k * (sizeof(float) + sizeof(uint32_t));
}

lk_status lk_knn_save(const lk_knn *knn, const char *path, uint64_t version)
{
    size_t size = payload_size(knn->n, knn->k), cells = knn->n * knn->k;
    uint8_t *payload = lk_alloc(size, 1), *at = payload;
    if (!payload) return lk_fail_memory(path);
    const uint64_t header[4] = {version, knn->n, knn->k, 0};
    const struct {
        const void *bytes;
        size_t size;
    } parts[] = {{header, sizeof header},
                 {knn->ids, knn->n * sizeof *knn->ids},
                 {knn->farthest, knn->n * sizeof *knn->farthest},
                 {knn->distances, cells * sizeof *knn->distances},
                 {knn->neighbours, cells * sizeof *knn->neighbours}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memcpy(at, parts[i].bytes, parts[i].size);
        at += parts[i].size;
    }
    lk_status s = lk_blob_write(path, magic, VERSION, payload, size);
    free(payload);
    return s;
}

lk_status lk_knn_open(const char *path, lk_knn **out, uint64_t *version)
{
    uint8_t *payload = NULL, *at;
    size_t size;
    uint64_t header[4];
    *out = NULL;
    lk_status s = lk_blob_read(path, magic, VERSION, &payload, &size);
    if (s != LK_OK) return s;
    if (size >= sizeof header) memcpy(header, payload, sizeof header);
    if (size < sizeof header || header[1] == 0 || header[1] >= UINT32_MAX || header[2] == 0 || header[2] > header[1] ||
        header[2] > SIZE_MAX / 16 / header[1] || size != payload_size(header[1], header[2])) {
        s = lk_fail(LK_CORRUPT, "%s: the sizes in it do not agree", path);
        goto done;
    }
    size_t n = header[1], k = header[2];
    uint64_t *ids = lk_alloc(n, sizeof *ids);
    if (!ids) {
        s = lk_fail_memory(path);
        goto done;
    }
    at = payload + sizeof header;
    memcpy(ids, at, n * sizeof *ids);
    s = lk_knn_alloc(n, k, ids, out);
    free(ids);
    if (s != LK_OK) goto done;
    at += n * sizeof(uint64_t);
    memcpy((*out)->farthest, at, n * sizeof(float));
    at += n * sizeof(float);
    memcpy((*out)->distances, at, n * k * sizeof(float));
    at += n * k * sizeof(float);
    memcpy((*out)->neighbours, at, n * k * sizeof(uint32_t));
    for (size_t i = 0; i < n * k; i++) {
        if ((*out)->neighbours[i] < n || (*out)->neighbours[i] == LK_KNN_NONE) continue;
        s = lk_fail(LK_CORRUPT, "%s: a neighbour that is no item", path);
        lk_knn_free(*out);
        *out = NULL;
        goto done;
    }
    *version = header[0];
done:
    free(payload);
    return s;
}
