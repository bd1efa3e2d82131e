/* Builds small indexes and prints what they are and answer, so that processors can be compared (tests/run neon):
 *
 *     dump_index FOLDER
 *
 * First the kernels that were chosen. Then a line a graph, with checksums of its file, of the ids and of the scores of
 * all answers, and a line a partitioned index with the ids themselves: its clusters come out of products in floating
 * point, which BLAS rounds as suits the processor. The vectors are made without the mathematical library, whose last
 * digits differ between processors. */
#include "base/cpu.h"
#include "base/random.h"
#include "index/codes.h"
#include "index/distance.h"
#include "index/partitioned/scan.h"

#include <likeness/index.h>
#include <likeness/partitioned.h>
#include <likeness/status.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { QUERIES = 40, K = 10, CENTRES = 40 };

typedef struct sample {
    const char *name;
    lk_metric metric;
    size_t dim, n;
    int whole; /* 0..255, as SIFT's are */
} sample;

static const sample samples[] = {
    {"l2 whole", LK_L2, 64, 500, 1},          {"l2", LK_L2, 100, 500, 0},
    {"cosine", LK_COSINE, 33, 500, 0},        {"inner product", LK_INNER_PRODUCT, 48, 500, 0},
    {"cosine wide", LK_COSINE, 200, 2100, 0}, /* so many are walked by their principal components */
};

/* About normal: a sum of uniform numbers, each a whole one divided by a power of two. */
static float bump(lk_random *random)
{
    int sum = 0;
    for (int i = 0; i < 6; i++) sum += (int)lk_random_below(random, 1024);
    return (float)(sum - 6 * 512) / 512;
}

static void fill(const sample *s, float *out, size_t n, lk_random *random)
{
    float *centres = malloc(CENTRES * s->dim * sizeof *centres);
    if (!centres) abort();
    lk_random fixed;
    lk_random_seed(&fixed, s->dim);
    for (size_t i = 0; i < CENTRES * s->dim; i++) centres[i] = bump(&fixed);
    for (size_t r = 0; r < n; r++) {
        const float *centre = centres + lk_random_below(random, CENTRES) * s->dim;
        for (size_t i = 0; i < s->dim; i++) {
            float value = centre[i] + bump(random) / 4;
            if (s->whole) value = (float)((int)(value * 20) + 128);
            out[r * s->dim + i] = value;
        }
    }
    free(centres);
}

static int file_sum(const char *path, uint64_t *out)
{
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    XXH3_state_t *state = XXH3_createState();
    char bytes[4096];
    size_t got;
    XXH3_64bits_reset(state);
    while ((got = fread(bytes, 1, sizeof bytes, f)) > 0) XXH3_64bits_update(state, bytes, got);
    *out = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return fclose(f) == 0;
}

static void print_checksums(const sample *s, uint64_t file, const lk_hit *hits, const size_t *counts)
{
    uint64_t ids[QUERIES * K], n = 0;
    float scores[QUERIES * K];
    for (size_t q = 0; q < QUERIES; q++)
        for (size_t i = 0; i < counts[q]; i++, n++) ids[n] = hits[q * K + i].id, scores[n] = hits[q * K + i].score;
    printf("graph %s: file %016llx, %llu ids %016llx, scores %016llx\n", s->name, (unsigned long long)file,
           (unsigned long long)n, (unsigned long long)XXH3_64bits(ids, n * sizeof *ids),
           (unsigned long long)XXH3_64bits(scores, n * sizeof *scores));
}

static int dump_graph(const sample *s, const float *vectors, const char *path)
{
    lk_graph_index *graph = NULL;
    lk_hit hits[QUERIES * K];
    size_t counts[QUERIES];
    uint64_t sum = 0;
    int done = lk_graph_index_build(NULL, NULL, s->metric, s->dim, s->n, NULL, vectors, &graph) == LK_OK &&
               lk_graph_index_search(graph, NULL, 20, QUERIES, vectors + s->n * s->dim, K, NULL, NULL, hits, counts) ==
                   LK_OK &&
               lk_graph_index_save(graph, path) == LK_OK && file_sum(path, &sum);
    if (done) print_checksums(s, sum, hits, counts);
    lk_graph_index_free(graph);
    return done;
}

static int dump_partitioned(const sample *s, const float *vectors)
{
    lk_partitioned *index = NULL;
    lk_hit hits[QUERIES * K];
    size_t counts[QUERIES];
    int done = lk_partitioned_build_memory(NULL, s->n, s->dim, vectors, NULL, s->metric, NULL, &index) == LK_OK &&
               lk_partitioned_search(index, NULL, (lk_partitioned_effort){0}, QUERIES, vectors + s->n * s->dim, K, NULL,
                                     NULL, hits, counts) == LK_OK;
    if (done) {
        printf("partitioned %s:", s->name);
        for (size_t q = 0; q < QUERIES; q++)
            for (size_t i = 0; i < counts[q]; i++) printf(" %zu/%llu", q, (unsigned long long)hits[q * K + i].id);
        printf("\n");
    }
    lk_partitioned_free(index);
    return done;
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "usage: dump_index FOLDER\n"), 2;
    lk_cpu_features cpu = lk_cpu_detect();
    printf("kernels: %s %s %s\n", lk_distance_kernels_for(cpu)->name, lk_code_kernels_for(cpu)->name,
           lk_scan_kernels_for(cpu)->name);
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const sample *s = samples + i;
        float *vectors = malloc((s->n + QUERIES) * s->dim * sizeof *vectors);
        char path[4096];
        lk_random random;
        snprintf(path, sizeof path, "%s/index", argv[1]);
        lk_random_seed(&random, i + 1);
        if (!vectors) return 1;
        fill(s, vectors, s->n + QUERIES, &random);
        if (!dump_graph(s, vectors, path) || !dump_partitioned(s, vectors))
            return fprintf(stderr, "%s\n", lk_error_message()), 1;
        free(vectors);
    }
    return 0;
}
