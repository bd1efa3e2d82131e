/* Fills a collection with outside vectors, for bench/command/run.py: bench_fill COLLECTION VECTORS.npy COUNT [labels].
 * Each gets a path of its own; a commit after every 256, as indexing pictures does. With "labels" each has four labels
 * in the place of one: of a thousand, 37 and 125 different values, and of one that no other has. */
#include <inttypes.h>
#include <likeness/collection.h>
#include <likeness/vectors.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 256 };

static void write_labels(char *out, size_t size, uint64_t row, bool several)
{
    if (several)
        snprintf(out, size,
                 "{\"label\":\"%" PRIu64 "\",\"set\":\"s%" PRIu64 "\",\"year\":%" PRIu64
                 ",\"name\":\"picture number %" PRIu64 "\"}",
                 row % 1000, row % 37, 1900 + row % 125, row);
    else
        snprintf(out, size, "{\"label\":\"%" PRIu64 "\"}", row % 1000);
}

static lk_status fill(lk_collection *collection, lk_vector_reader *reader, uint64_t count, bool several)
{
    size_t dim = lk_vector_reader_dim(reader);
    float *rows = malloc(BATCH * dim * sizeof *rows);
    lk_status s = rows ? LK_OK : LK_NO_MEMORY;
    for (uint64_t first = 0; s == LK_OK && first < count; first += BATCH) {
        size_t n = count - first < BATCH ? (size_t)(count - first) : BATCH;
        s = lk_vector_reader_read(reader, first, n, rows);
        for (size_t i = 0; s == LK_OK && i < n; i++) {
            char path[64], labels[192];
            uint64_t row = first + i;
            snprintf(path, sizeof path, "/outside/%03" PRIu64 "/%07" PRIu64 ".jpg", row / 1000, row);
            write_labels(labels, sizeof labels, row, several);
            lk_record record = {.path = path,
                                .hash = {row, 1},
                                .width = several ? 64 + (uint32_t)(row % 1009) : 64,
                                .height = 64,
                                .labels = labels};
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
    bool several = argc == 5 && strcmp(argv[4], "labels") == 0;
    if (argc != 4 && !several) {
        fprintf(stderr, "bench_fill COLLECTION VECTORS COUNT [labels]\n");
        return 2;
    }
    lk_status s = lk_collection_open(argv[1], LK_WRITE, &collection);
    if (s == LK_OK) s = lk_vector_reader_open(argv[2], LK_VECTORS_BASE, &reader);
    if (s == LK_OK) s = fill(collection, reader, strtoull(argv[3], NULL, 10), several);
    if (s != LK_OK) fprintf(stderr, "bench_fill: %s\n", lk_error_message());
    lk_vector_reader_free(reader);
    lk_collection_close(collection);
    return s == LK_OK ? 0 : 1;
}
