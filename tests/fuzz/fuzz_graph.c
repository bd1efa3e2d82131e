/* Opening, searching and changing a graph index whose bytes are changed: each four bytes of input put a value at a
 * place of a good file. The header's checksum is made to fit again, so that what lies behind it is tried; tables are
 * not verified when a file is opened for searching, so theirs need not fit. */
#include "base/file.h"
#include "base/random.h"

#include <likeness/index.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TABLES = 104, TABLE_COUNT = 12, HEADER = 616 };

static uint8_t *goods[2]; /* narrow; wide, with a projection */
static size_t good_sizes[2];

/* Inner products: then there is every table. */
static void make_good(int wide)
{
    size_t n = wide ? 2048 : 120, dim = wide ? 256 : 6;
    float *vectors = calloc(n * dim, sizeof *vectors);
    lk_random random;
    lk_graph_index *graph;
    char path[64];
    lk_random_seed(&random, 1);
    if (!vectors) abort();
    for (size_t i = 0; i < n * dim; i++) /* wide ones vary along few axes */
        if (i % dim < 20) vectors[i] = (float)lk_random_normal(&random);
    lk_graph_index_options options = {.degree = 6, .build_effort = 12};
    snprintf(path, sizeof path, "/tmp/likeness-fuzz-%d", (int)getpid());
    if (lk_graph_index_build(NULL, &options, LK_INNER_PRODUCT, dim, n, NULL, vectors, &graph) != LK_OK) abort();
    if (lk_graph_index_remove(graph, 5) != LK_OK || lk_graph_index_save(graph, path) != LK_OK) abort();
    if (lk_file_read(path, 0, &goods[wide], &good_sizes[wide]) != LK_OK) abort();
    unlink(path);
    lk_graph_index_free(graph);
    free(vectors);
}

static void use(const char *path, int flags)
{
    static float query[16384] = {1, -2, 3};
    lk_graph_index *graph;
    lk_hit hits[5];
    size_t count;
    uint64_t id = 1000000;
    if (lk_graph_index_open(path, flags, &graph) != LK_OK) return;
    lk_graph_index_search(graph, NULL, 20, 1, query, 5, NULL, NULL, hits, &count);
    lk_graph_index_range(graph, NULL, 20, 1, query, 1, 5, NULL, NULL, hits, &count);
    if (flags & LK_GRAPH_CHANGE) {
        lk_graph_index_remove(graph, 3);
        lk_graph_index_add(graph, NULL, 1, &id, query);
        lk_graph_index_consolidate(graph, NULL);
        lk_graph_index_search(graph, NULL, 20, 1, query, 5, NULL, NULL, hits, &count);
    }
    lk_graph_index_free(graph);
}

static void fit_checksums(uint8_t *image, size_t size)
{
    for (int t = 0; t < TABLE_COUNT; t++) {
        uint64_t table[4]; /* offset, size, checksum */
        memcpy(table, image + TABLES + 32 * t, sizeof table);
        if (table[0] > size || table[1] > size - table[0]) continue;
        lk_hash128 hash = lk_hash(image + table[0], table[1]);
        memcpy(image + TABLES + 32 * t + 16, &hash.low, 8);
        memcpy(image + TABLES + 32 * t + 24, &hash.high, 8);
    }
    lk_hash128 hash = lk_hash(image, HEADER);
    memcpy(image + HEADER, &hash.low, 8);
    memcpy(image + HEADER + 8, &hash.high, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int wide = size % 4 == 1;
    if (!goods[wide]) make_good(wide);
    const uint8_t *good = goods[wide];
    size_t good_size = good_sizes[wide];
    int fd = memfd_create("fuzz", 0);
    uint8_t *image = malloc(good_size);
    if (fd < 0 || !image) abort();
    memcpy(image, good, good_size);
    for (size_t i = 0; i + 4 <= size; i += 4) {
        size_t at = (data[i] | (size_t)data[i + 1] << 8) * (good_size / 65536 + 1) % good_size;
        if (data[i + 1] & 128) at %= HEADER; /* half of all changes */
        memcpy(image + at, data + i + 2, good_size - at < 2 ? 1 : 2);
    }
    fit_checksums(image, good_size);
    if (write(fd, image, good_size) != (ssize_t)good_size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    use(path, 0);
    use(path, LK_GRAPH_CHANGE);
    free(image);
    close(fd);
    return 0;
}
