/* Fills a collection with outside vectors, for bench/command/run.py: bench_fill COLLECTION VECTORS.npy COUNT. Each gets
 * a path of its own; a commit after every 256, as indexing pictures does. */
#include <inttypes.h>
#include <likeness/collection.h>
#include <likeness/vectors.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 256 };

static lk_status fill(lk_collection *collection, lk_vector_reader *reader, uint64_t count)
{
    size_t dim = lk_vector_reader_dim(reader);
    float *rows = malloc(BATCH * dim * sizeof *rows);
    lk_status s = rows ? LK_OK : LK_NO_MEMORY;
    for (uint64_t first = 0; s == LK_OK && first < count; first += BATCH) {
        size_t n = count - first < BATCH ? (size_t)(count - first) : BATCH;
        s = lk_vector_reader_read(reader, first, n, rows);
        for (size_t i = 0; s == LK_OK && i < n; i++) {
            char path[64], labels[64];
            uint64_t row = first + i;
            snprintf(path, sizeof path, "/outside/%03" PRIu64 "/%07" PRIu64 ".jpg", row / 1000, row);
            snprintf(labels, sizeof labels, "{\"label\":\"%" PRIu64 "\"}", row % 1000);
            lk_record record = {.path = path, .hash = {row, 1}, .width = 64, .height = 64, .labels = labels};
            s = lk_collection_put(collection, &record, rows + i * dim, NULL);
        }
        if (s == LK_OK) s = lk_collection_commit(collection);
    }
    free(rows);
    return s;
}

int main(int argc, char **argv)
{
    lk_collection *collection = NULL;
    lk_vector_reader *reader = NULL;
    if (argc != 4) {
        fprintf(stderr, "bench_fill COLLECTION VECTORS COUNT\n");
        return 2;
    }
    lk_status s = lk_collection_open(argv[1], LK_WRITE, &collection);
    if (s == LK_OK) s = lk_vector_reader_open(argv[2], LK_VECTORS_BASE, &reader);
    if (s == LK_OK) s = fill(collection, reader, strtoull(argv[3], NULL, 10));
    if (s != LK_OK) fprintf(stderr, "bench_fill: %s\n", lk_error_message());
    lk_vector_reader_free(reader);
    lk_collection_close(collection);
    return s == LK_OK ? 0 : 1;
}
