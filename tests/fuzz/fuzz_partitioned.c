/* Opening and searching a partitioned index whose bytes are changed: each four bytes of input put a value at a place of
 * a good file, whose checksums are then made to fit again, so that what lies behind them is tried. Whatever is accepted
 * must be searchable without leaving the file. */
#include "base/file.h"
#include "base/random.h"
#include "index/partitioned/partitioned.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N = 300, DIM = 6 };

static uint8_t *good;
static size_t good_size;

static void make_good(void)
{
    static float vectors[N * DIM];
    lk_random random;
    lk_partitioned *index;
    lk_random_seed(&random, 1);
    for (int i = 0; i < N * DIM; i++) vectors[i] = (float)lk_random_normal(&random);
    if (lk_partitioned_build_memory(NULL, N, DIM, vectors, NULL, LK_L2, NULL, &index) != LK_OK) abort();
    good_size = index->size;
    good = malloc(good_size);
    if (!good) abort();
    memcpy(good, index->image, good_size);
    lk_partitioned_free(index);
}

static void fit_checksums(uint8_t *image)
{
    lk_partitioned_header *h = (lk_partitioned_header *)image;
    for (int i = 0; i < SECTIONS; i++) {
        lk_partitioned_section *s = &h->sections[i];
        if (s->offset > good_size || s->size > good_size - s->offset) continue;
        lk_hash128 hash = lk_hash(image + s->offset, s->size);
        s->hash_low = hash.low;
        s->hash_high = hash.high;
    }
    lk_hash128 hash = lk_hash(h, offsetof(lk_partitioned_header, hash_low));
    h->hash_low = hash.low;
    h->hash_high = hash.high;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    lk_partitioned *index;
    if (!good) make_good();
    int fd = memfd_create("fuzz", 0);
    uint8_t *image = malloc(good_size);
    if (fd < 0 || !image) abort();
    memcpy(image, good, good_size);
    for (size_t i = 0; i + 4 <= size; i += 4) {
        size_t at = (data[i] | (size_t)data[i + 1] << 8) % good_size; /* everything but the finer copies is in reach */
        memcpy(image + at, data + i + 2, good_size - at < 2 ? 1 : 2);
    }
    fit_checksums(image);
    if (write(fd, image, good_size) != (ssize_t)good_size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (lk_partitioned_open(path, &index) == LK_OK) {
        float query[LK_PARTITIONED_DIM_MOST] = {1, 2, 3};
        lk_hit hits[5];
        size_t count;
        lk_partitioned_effort few = {3, 20}, all = {SIZE_MAX, SIZE_MAX};
        lk_partitioned_search(index, NULL, few, 1, query, 5, NULL, NULL, hits, &count);
        lk_partitioned_search(index, NULL, all, 1, query, 5, NULL, NULL, hits, &count);
        lk_partitioned_free(index);
    }
    free(image);
    close(fd);
    return 0;
}
