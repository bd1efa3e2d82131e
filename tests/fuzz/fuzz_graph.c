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

enum { N = 120, DIM = 6, TABLES = 104, TABLE_COUNT = 9, HEADER = 616 };

static uint8_t *good;
static size_t good_size;

static void make_good(lk_metric metric)
{
    static float vectors[N * DIM];
    lk_random random;
    lk_graph_index *graph;
    char path[64];
    lk_random_seed(&random, 1);
    for (int i = 0; i < N * DIM; i++) vectors[i] = (float)lk_random_normal(&random);
    lk_graph_index_options options = {.degree = 6, .build_effort = 12};
    snprintf(path, sizeof path, "/tmp/likeness-fuzz-%d", (int)getpid());
    if (lk_graph_index_build(NULL, &options, metric, DIM, N, NULL, vectors, &graph) != LK_OK) abort();
    if (lk_graph_index_remove(graph, 5) != LK_OK || lk_graph_index_save(graph, path) != LK_OK) abort();
    if (lk_file_read(path, 0, &good, &good_size) != LK_OK) abort();
    unlink(path);
    lk_graph_index_free(graph);
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

static void fit_checksums(uint8_t *image)
{
    for (int t = 0; t < TABLE_COUNT; t++) {
        uint64_t table[4]; /* offset, size, checksum */
        memcpy(table, image + TABLES + 32 * t, sizeof table);
        if (table[0] > good_size || table[1] > good_size - table[0]) continue;
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
    if (!good) make_good(LK_INNER_PRODUCT); /* has every table */
    int fd = memfd_create("fuzz", 0);
    uint8_t *image = malloc(good_size);
    if (fd < 0 || !image) abort();
    memcpy(image, good, good_size);
    for (size_t i = 0; i + 4 <= size; i += 4) {
        size_t at = (data[i] | (size_t)data[i + 1] << 8) % good_size;
        if (data[i + 1] & 128) at %= HEADER; /* half of all changes */
        memcpy(image + at, data + i + 2, good_size - at < 2 ? 1 : 2);
    }
    fit_checksums(image);
    if (write(fd, image, good_size) != (ssize_t)good_size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    use(path, 0);
    use(path, LK_GRAPH_CHANGE);
    free(image);
    close(fd);
    return 0;
}
