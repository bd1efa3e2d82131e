/* The graph index beside exact search: recall for every metric, updates, files, and what it refuses. */
#include "base/cpu.h"
#include "base/random.h"

#include "unit.h"

#include <likeness/index.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { N = 3000, QUERIES = 100, K = 10 };

/* Vectors around a few hundred centres, as real ones are; whole numbers 0..255 when `whole`. */
static float *make_vectors(lk_random *random, size_t n, size_t dim, int whole)
{
    enum { CENTRES = 100 };
    float *centres = test_malloc(CENTRES * dim * sizeof *centres), *out = test_malloc(n * dim * sizeof *out);
    lk_random fixed;
    lk_random_seed(&fixed, dim); /* every call draws from the same centres */
    for (size_t i = 0; i < CENTRES * dim; i++) centres[i] = (float)lk_random_normal(&fixed);
    for (size_t r = 0; r < n; r++) {
        const float *centre = centres + lk_random_below(random, CENTRES) * dim;
        for (size_t i = 0; i < dim; i++) {
            float value = centre[i] + 0.5f * (float)lk_random_normal(random);
            if (whole) value = rintf(fminf(fmaxf(128 + 30 * value, 0), 255));
            out[r * dim + i] = value;
        }
    }
    test_free(centres);
    return out;
}

static lk_flat *make_flat(lk_metric metric, size_t dim, size_t n, const uint64_t *ids, const float *vectors)
{
    lk_flat *flat;
    uint64_t *numbers = test_malloc(n * sizeof *numbers);
    for (size_t i = 0; i < n; i++) numbers[i] = i;
    assert_int_equal(lk_flat_new(dim, metric, LK_F32, &flat), LK_OK);
    assert_int_equal(lk_flat_add(flat, n, ids ? ids : numbers, vectors), LK_OK);
    test_free(numbers);
    return flat;
}

/* Share of the true K best of all queries that the graph finds. Scores of common hits agree within tolerance * score.
 */
static double recall(const lk_graph_index *graph, const lk_flat *flat, size_t effort, const float *queries,
                     lk_id_filter filter, void *user, double tolerance)
{
    lk_hit *found = test_malloc(2 * QUERIES * K * sizeof *found), *truth = found + QUERIES * K;
    size_t found_counts[QUERIES], truth_counts[QUERIES], hits = 0, all = 0;
    assert_int_equal(lk_graph_index_search(graph, NULL, effort, QUERIES, queries, K, filter, user, found, found_counts),
                     LK_OK);
    assert_int_equal(lk_flat_search(flat, NULL, QUERIES, queries, K, filter, user, truth, truth_counts), LK_OK);
    for (size_t q = 0; q < QUERIES; q++) {
        all += truth_counts[q];
        for (size_t i = 0; i < found_counts[q]; i++) {
            const lk_hit *hit = found + q * K + i;
            if (filter) assert_true(filter(user, hit->id));
            for (size_t j = 0; j < truth_counts[q]; j++) {
                const lk_hit *best = truth + q * K + j;
                if (best->id != hit->id) continue;
                hits++;
                if (fabs(hit->score - best->score) > tolerance * (1e-3 + fabs(best->score)))
                    fail_msg("score %.9g, not %.9g", (double)hit->score, (double)best->score);
            }
        }
    }
    test_free(found);
    return (double)hits / (double)all;
}

static void every_metric_and_width_finds_nearly_all(void **state)
{
    (void)state;
    static const size_t dims[] = {3, 5, 31, 64, 100, 129, 200, 300};
    lk_random random;
    lk_random_seed(&random, 1);
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
            float *vectors = make_vectors(&random, N, dims[d], 0),
                  *queries = make_vectors(&random, QUERIES, dims[d], 0);
            lk_flat *flat = make_flat((lk_metric)metric, dims[d], N, NULL, vectors);
            lk_graph_index *graph;
            assert_int_equal(lk_graph_index_build(NULL, NULL, (lk_metric)metric, dims[d], N, NULL, vectors, &graph),
                             LK_OK);
            assert_int_equal(lk_graph_index_count(graph), N);
            double share = recall(graph, flat, 100, queries, NULL, NULL, 0.02);
            if (share < 0.97) fail_msg("dim %zu metric %d: recall %.3f", dims[d], metric, share);
            lk_graph_index_free(graph);
            lk_flat_free(flat);
            test_free(vectors);
            test_free(queries);
        }
    }
}

static void whole_numbers_are_found_with_exact_scores(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 2);
    float *vectors = make_vectors(&random, N, 128, 1), *queries = make_vectors(&random, QUERIES, 128, 1);
    lk_flat *flat = make_flat(LK_L2, 128, N, NULL, vectors);
    lk_graph_index *graph;
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 128, N, NULL, vectors, &graph), LK_OK);
    assert_true(recall(graph, flat, 150, queries, NULL, NULL, 0) >= 0.99);
    lk_graph_index_free(graph);
    lk_flat_free(flat);
    test_free(vectors);
    test_free(queries);
}

/* Saves and reads back; the caller frees. */
static char *image_of(const lk_graph_index *graph, const char *folder, size_t *size)
{
    char path[256];
    snprintf(path, sizeof path, "%s/image", folder);
    assert_int_equal(lk_graph_index_save(graph, path), LK_OK);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    char *bytes = test_malloc(*size);
    assert_int_equal(fread(bytes, 1, *size, f), *size);
    fclose(f);
    return bytes;
}

static void any_number_of_threads_builds_the_same_file(void **state)
{
    lk_random random;
    lk_random_seed(&random, 3);
    float *vectors = make_vectors(&random, N, 50, 0);
    char *first = NULL;
    size_t first_size = 0;
    for (int threads = 1; threads <= 4; threads++) {
        lk_context_options options = {.threads = threads};
        lk_context *context;
        lk_graph_index *graph;
        size_t size;
        assert_int_equal(lk_context_new(&options, &context), LK_OK);
        assert_int_equal(lk_graph_index_build(context, NULL, LK_L2, 50, N, NULL, vectors, &graph), LK_OK);
        char *image = image_of(graph, *state, &size);
        if (first) {
            assert_int_equal(size, first_size);
            assert_memory_equal(image, first, size);
            test_free(image);
        } else {
            first = image;
            first_size = size;
        }
        lk_graph_index_free(graph);
        lk_context_free(context);
    }
    test_free(first);
    test_free(vectors);
}

static void opened_file_answers_as_the_index_that_was_saved(void **state)
{
    lk_random random;
    char path[256];
    lk_random_seed(&random, 4);
    snprintf(path, sizeof path, "%s/graph", (char *)*state);
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        float *vectors = make_vectors(&random, N, 40, 0), *queries = make_vectors(&random, QUERIES, 40, 0);
        lk_graph_index *graph, *opened;
        lk_hit *a = test_malloc(2 * QUERIES * K * sizeof *a), *b = a + QUERIES * K;
        size_t counts[QUERIES];
        assert_int_equal(lk_graph_index_build(NULL, NULL, (lk_metric)metric, 40, N, NULL, vectors, &graph), LK_OK);
        assert_int_equal(lk_graph_index_remove(graph, 7), LK_OK);
        assert_int_equal(lk_graph_index_save(graph, path), LK_OK);
        assert_int_equal(lk_graph_index_search(graph, NULL, 40, QUERIES, queries, K, NULL, NULL, a, counts), LK_OK);
        for (int flags = 0; flags <= (LK_GRAPH_VERIFY | LK_GRAPH_CHANGE); flags++) {
            assert_int_equal(lk_graph_index_open(path, flags, &opened), LK_OK);
            assert_int_equal(lk_graph_index_count(opened), N - 1);
            assert_int_equal(lk_graph_index_search(opened, NULL, 40, QUERIES, queries, K, NULL, NULL, b, counts),
                             LK_OK);
            for (size_t i = 0; i < QUERIES * K; i++) assert_int_equal(a[i].id, b[i].id);
            int changes = lk_graph_index_remove(opened, 9) == LK_OK;
            assert_int_equal(changes, (flags & LK_GRAPH_CHANGE) != 0);
            lk_graph_index_free(opened);
        }
        lk_graph_index_free(graph);
        test_free(a);
        test_free(vectors);
        test_free(queries);
    }
}

static void write_file(const char *path, const char *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static void damaged_files_are_refused_or_at_least_harmless(void **state)
{
    lk_random random;
    lk_random_seed(&random, 5);
    float *vectors = make_vectors(&random, 500, 20, 0);
    lk_graph_index *graph;
    size_t size, counts[4];
    char path[256];
    lk_hit hits[4 * K];
    snprintf(path, sizeof path, "%s/damaged", (char *)*state);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 20, 500, NULL, vectors, &graph), LK_OK);
    char *image = image_of(graph, *state, &size);
    lk_graph_index_free(graph);
    /* A newer version and another byte order are named as such. */
    char *other = test_malloc(size);
    memcpy(other, image, size);
    other[8] = 9;
    write_file(path, other, size);
    assert_int_equal(lk_graph_index_open(path, 0, &graph), LK_UNSUPPORTED);
    memcpy(other, image, size);
    other[12] = 1;
    write_file(path, other, size);
    assert_int_equal(lk_graph_index_open(path, 0, &graph), LK_UNSUPPORTED);
    for (size_t cut = 0; cut < 40; cut++) {
        write_file(path, image, (size_t)lk_random_below(&random, size));
        assert_int_equal(lk_graph_index_open(path, 0, &graph), LK_CORRUPT);
    }
    for (int round = 0; round < 300; round++) {
        memcpy(other, image, size);
        size_t at =
            round < 100 ? 16 + (size_t)lk_random_below(&random, 616 - 16) : (size_t)lk_random_below(&random, size);
        other[at] = (char)(other[at] ^ (1 << lk_random_below(&random, 8)));
        write_file(path, other, size);
        lk_status verified = lk_graph_index_open(path, LK_GRAPH_VERIFY, &graph);
        int padding = 0;
        if (verified == LK_OK) { /* only a byte that means nothing */
            lk_graph_index_free(graph);
            padding = 1;
        }
        if (round < 100) assert_int_equal(verified, LK_CORRUPT);
        lk_status opened = lk_graph_index_open(path, 0, &graph);
        if (opened != LK_OK) assert_false(padding);
        if (opened != LK_OK) continue;
        assert_int_equal(lk_graph_index_search(graph, NULL, 30, 4, vectors, K, NULL, NULL, hits, counts), LK_OK);
        lk_graph_index_free(graph);
    }
    /* Links that are all noise. */
    memcpy(other, image, size);
    for (size_t i = 4096; i < size; i++) other[i] = (char)lk_random_u64(&random);
    write_file(path, other, size);
    assert_int_equal(lk_graph_index_open(path, LK_GRAPH_VERIFY, &graph), LK_CORRUPT);
    assert_int_equal(lk_graph_index_open(path, 0, &graph), LK_CORRUPT); /* its entries are checked */
    test_free(other);
    test_free(image);
    test_free(vectors);
}

/* Half of the collection is replaced ten times; recall may fall by at most 0.02 below that of a fresh index. */
static void recall_survives_replacing_half_ten_times(void **state)
{
    (void)state;
    enum { DIM = 48 };
    lk_random random;
    lk_graph_index *graph, *fresh;
    lk_random_seed(&random, 6);
    float *vectors = make_vectors(&random, N, DIM, 0), *queries = make_vectors(&random, QUERIES, DIM, 0);
    uint64_t ids[N], next = N;
    for (size_t i = 0; i < N; i++) ids[i] = i;
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, DIM, N, ids, vectors, &graph), LK_OK);
    for (int round = 0; round < 10; round++) {
        float *more = make_vectors(&random, N / 2, DIM, 0);
        uint64_t more_ids[N / 2];
        for (size_t i = 0; i < N / 2; i++) {
            size_t row = 2 * i + (size_t)lk_random_below(&random, 2);
            assert_int_equal(lk_graph_index_remove(graph, ids[row]), LK_OK);
            ids[row] = more_ids[i] = next++;
            memcpy(vectors + row * DIM, more + i * DIM, DIM * sizeof *more);
        }
        for (size_t i = 0; i < N / 2; i += 100)
            assert_int_equal(lk_graph_index_add(graph, NULL, 100, more_ids + i, more + i * DIM), LK_OK);
        assert_int_equal(lk_graph_index_count(graph), N);
        test_free(more);
    }
    lk_flat *flat = make_flat(LK_L2, DIM, N, ids, vectors);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, DIM, N, ids, vectors, &fresh), LK_OK);
    double after = recall(graph, flat, K, queries, NULL, NULL, 0.02),
           best = recall(fresh, flat, K, queries, NULL, NULL, 0.02);
    print_message("recall %.3f after replacing, %.3f fresh\n", after, best);
    assert_true(after >= best - 0.02);
    lk_graph_index_free(fresh);
    lk_graph_index_free(graph);
    lk_flat_free(flat);
    test_free(vectors);
    test_free(queries);
}

static void removed_vectors_are_never_found_and_ids_are_kept_apart(void **state)
{
    (void)state;
    enum { DIM = 8, COUNT = 400 };
    lk_random random;
    lk_graph_index *graph;
    lk_hit hits[COUNT];
    size_t count;
    lk_random_seed(&random, 7);
    float *vectors = make_vectors(&random, COUNT, DIM, 0);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_COSINE, DIM, COUNT, NULL, vectors, &graph), LK_OK);
    uint64_t id = 3;
    assert_int_equal(lk_graph_index_add(graph, NULL, 1, &id, vectors), LK_CONFLICT);
    assert_int_equal(lk_graph_index_remove(graph, COUNT), LK_NOT_FOUND);
    for (uint64_t i = 0; i < COUNT; i++) {
        if (i % 3 == 0) assert_int_equal(lk_graph_index_remove(graph, i), LK_OK);
        if (i == COUNT / 2) assert_int_equal(lk_graph_index_consolidate(graph, NULL), LK_OK);
    }
    assert_int_equal(lk_graph_index_remove(graph, 3), LK_NOT_FOUND);
    for (size_t q = 0; q < COUNT; q += 3) {
        assert_int_equal(
            lk_graph_index_search(graph, NULL, COUNT, 1, vectors + q * DIM, COUNT, NULL, NULL, hits, &count), LK_OK);
        for (size_t i = 0; i < count; i++) assert_true(hits[i].id % 3 != 0);
    }
    /* An update moves the id to where its new vector is. */
    id = 4;
    assert_int_equal(lk_graph_index_update(graph, NULL, 1, &id, vectors), LK_OK); /* vector 0 is removed */
    assert_int_equal(lk_graph_index_search(graph, NULL, 50, 1, vectors, 1, NULL, NULL, hits, &count), LK_OK);
    assert_int_equal(hits[0].id, 4);
    /* Down to nothing and up again. */
    for (uint64_t i = 0; i < COUNT; i++) lk_graph_index_remove(graph, i);
    assert_int_equal(lk_graph_index_count(graph), 0);
    assert_int_equal(lk_graph_index_search(graph, NULL, 50, 1, vectors, K, NULL, NULL, hits, &count), LK_OK);
    assert_int_equal(count, 0);
    assert_int_equal(lk_graph_index_consolidate(graph, NULL), LK_OK);
    uint64_t ids[COUNT];
    for (size_t i = 0; i < COUNT; i++) ids[i] = 1000 + i;
    assert_int_equal(lk_graph_index_add(graph, NULL, COUNT, ids, vectors), LK_OK);
    assert_int_equal(lk_graph_index_search(graph, NULL, 50, 1, vectors + 5 * DIM, 1, NULL, NULL, hits, &count), LK_OK);
    assert_int_equal(hits[0].id, 1005);
    lk_graph_index_free(graph);
    test_free(vectors);
}

static void longer_vectors_may_come_later(void **state)
{
    (void)state;
    enum { DIM = 30 };
    lk_random random;
    lk_graph_index *graph;
    lk_random_seed(&random, 8);
    float *vectors = make_vectors(&random, N, DIM, 0), *queries = make_vectors(&random, QUERIES, DIM, 0);
    uint64_t ids[N];
    for (size_t i = 0; i < N; i++) ids[i] = i;
    for (size_t i = 0; i < N / 2 * DIM; i++) vectors[i] *= 0.8f; /* the second half is longer */
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_INNER_PRODUCT, DIM, N / 2, ids, vectors, &graph), LK_OK);
    for (size_t i = N / 2; i < N; i += 50)
        assert_int_equal(lk_graph_index_add(graph, NULL, 50, ids + i, vectors + i * DIM), LK_OK);
    lk_flat *flat = make_flat(LK_INNER_PRODUCT, DIM, N, NULL, vectors);
    assert_true(recall(graph, flat, 100, queries, NULL, NULL, 0.1) >= 0.9);
    lk_graph_index_free(graph);
    lk_flat_free(flat);
    test_free(vectors);
    test_free(queries);
}

typedef struct sieve {
    double share;
    int by_block; /* ids pass in runs, so that what passes lies where its neighbours in the order of ids lie */
} sieve;

static int sieve_passes(void *user, uint64_t id)
{
    const sieve *s = user;
    uint64_t mixed = (s->by_block ? id / 64 : id) * 0x9e3779b97f4a7c15u;
    return (double)(mixed >> 11) * 0x1p-53 < s->share;
}

static void recall_is_kept_whatever_share_passes_a_filter(void **state)
{
    (void)state;
    enum { COUNT = 9000, DIM = 32 };
    lk_random random;
    lk_graph_index *graph;
    lk_graph_index_filter *filter;
    lk_hit hits[QUERIES], truth[QUERIES];
    size_t counts[QUERIES];
    lk_random_seed(&random, 9);
    float *vectors = make_vectors(&random, COUNT, DIM, 0), *queries = make_vectors(&random, QUERIES, DIM, 0);
    lk_flat *flat = make_flat(LK_L2, DIM, COUNT, NULL, vectors);
    lk_graph_index_options options = {.degree = 16, .build_effort = 64};
    assert_int_equal(lk_graph_index_build(NULL, &options, LK_L2, DIM, COUNT, NULL, vectors, &graph), LK_OK);
    static const double shares[] = {0.001, 0.01, 0.1, 0.45, 0.6, 0.9};
    for (size_t i = 0; i < 2 * sizeof shares / sizeof *shares; i++) {
        sieve s = {shares[i / 2], i % 2 != 0};
        double found = recall(graph, flat, 60, queries, sieve_passes, &s, 0.02);
        if (found < 0.97) fail_msg("share %g: recall %.3f", s.share, found);
        /* Short beams, so that more than 3600 are walked through. */
        size_t same = 0;
        assert_int_equal(lk_graph_index_filter_new(graph, NULL, sieve_passes, &s, &filter), LK_OK);
        assert_int_equal(lk_graph_index_search_filtered(graph, NULL, 1, QUERIES, queries, 1, filter, hits, counts),
                         LK_OK);
        assert_int_equal(lk_flat_search(flat, NULL, QUERIES, queries, 1, sieve_passes, &s, truth, counts), LK_OK);
        for (size_t q = 0; q < QUERIES; q++) {
            assert_true(sieve_passes(&s, hits[q].id));
            same += hits[q].id == truth[q].id;
        }
        if (same < QUERIES * 95 / 100) fail_msg("share %g: the best of %zu of %d", s.share, same, QUERIES);
        lk_graph_index_filter_free(filter);
    }
    lk_graph_index_free(graph);
    lk_flat_free(flat);
    test_free(vectors);
    test_free(queries);
}

static void sets_of_ids_filter_and_go_stale_when_the_graph_changes(void **state)
{
    enum { DIM = 10 };
    lk_random random;
    lk_graph_index *graph, *opened;
    lk_graph_index_filter *filter;
    lk_hit hits[K];
    size_t count;
    char path[256];
    uint64_t ids[5] = {11, 2999, 77, 11, 123456};
    lk_random_seed(&random, 10);
    float *vectors = make_vectors(&random, N, DIM, 0);
    snprintf(path, sizeof path, "%s/graph", (char *)*state);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, DIM, N, NULL, vectors, &graph), LK_OK);
    assert_int_equal(lk_graph_index_save(graph, path), LK_OK);
    assert_int_equal(lk_graph_index_open(path, 0, &opened), LK_OK);
    for (int i = 0; i < 2; i++) {
        const lk_graph_index *g = i ? opened : graph;
        assert_int_equal(lk_graph_index_filter_ids(g, 5, ids, &filter), LK_OK);
        assert_int_equal(lk_graph_index_filter_count(filter), 3);
        assert_int_equal(lk_graph_index_search_filtered(g, NULL, 1, 1, vectors + 77 * DIM, K, filter, hits, &count),
                         LK_OK);
        assert_int_equal(count, 3);
        assert_int_equal(hits[0].id, 77);
        if (i) lk_graph_index_free(opened);
        if (i) break;
        lk_graph_index_filter_free(filter);
    }
    assert_int_equal(lk_graph_index_remove(graph, 5), LK_OK);
    lk_graph_index_filter_free(filter);
    assert_int_equal(lk_graph_index_filter_ids(graph, 5, ids, &filter), LK_OK);
    assert_int_equal(lk_graph_index_remove(graph, 11), LK_OK);
    assert_int_equal(lk_graph_index_search_filtered(graph, NULL, 1, 1, vectors, K, filter, hits, &count), LK_CONFLICT);
    lk_graph_index_filter_free(filter);
    lk_graph_index_free(graph);
    test_free(vectors);
}

static void range_search_finds_what_lies_within(void **state)
{
    (void)state;
    enum { DIM = 20 };
    lk_random random;
    lk_random_seed(&random, 11);
    float *vectors = make_vectors(&random, N, DIM, 0), *queries = make_vectors(&random, QUERIES, DIM, 0);
    lk_hit *hits = test_malloc(N * sizeof *hits), *truth = test_malloc(N * sizeof *truth);
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_flat *flat = make_flat((lk_metric)metric, DIM, N, NULL, vectors);
        lk_graph_index *graph;
        size_t found = 0, all = 0, count, truth_count;
        assert_int_equal(lk_graph_index_build(NULL, NULL, (lk_metric)metric, DIM, N, NULL, vectors, &graph), LK_OK);
        for (size_t q = 0; q < 20; q++) {
            const float *query = queries + q * DIM;
            assert_int_equal(lk_flat_search(flat, NULL, 1, query, N, NULL, NULL, truth, &truth_count), LK_OK);
            size_t within = q * q;
            float bound = (truth[within].score + truth[within + 1].score) / 2;
            assert_int_equal(lk_graph_index_range(graph, NULL, 20, 1, query, bound, N, NULL, NULL, hits, &count),
                             LK_OK);
            for (size_t i = 0; i < count; i++) {
                assert_true(metric == LK_L2 ? hits[i].score <= bound : hits[i].score >= bound);
                for (size_t j = 0; j <= within; j++) found += truth[j].id == hits[i].id;
            }
            all += within + 1;
            assert_int_equal(lk_graph_index_range(graph, NULL, 20, 1, query, bound, 3, NULL, NULL, hits, &count),
                             LK_OK);
            assert_true(count <= 3);
        }
        if ((double)found < 0.98 * (double)all) fail_msg("metric %d: %zu of %zu", metric, found, all);
        lk_graph_index_free(graph);
        lk_flat_free(flat);
    }
    test_free(hits);
    test_free(truth);
    test_free(vectors);
    test_free(queries);
}

static void tuned_effort_reaches_the_recall_on_other_queries(void **state)
{
    (void)state;
    enum { DIM = 64 };
    lk_random random;
    lk_graph_index *graph;
    size_t effort, before = 0;
    lk_random_seed(&random, 12);
    float *vectors = make_vectors(&random, N, DIM, 0), *queries = make_vectors(&random, QUERIES, DIM, 0);
    lk_flat *flat = make_flat(LK_L2, DIM, N, NULL, vectors);
    lk_graph_index_options options = {.degree = 8, .build_effort = 32};
    assert_int_equal(lk_graph_index_build(NULL, &options, LK_L2, DIM, N, NULL, vectors, &graph), LK_OK);
    for (double target = 0.8; target < 1; target += 0.09) {
        assert_int_equal(lk_graph_index_tune(graph, NULL, 200, NULL, K, target, &effort), LK_OK);
        double reached = recall(graph, flat, effort, queries, NULL, NULL, 0.02);
        print_message("recall %.2f asked for: effort %zu gives %.3f\n", target, effort, reached);
        assert_true(reached >= target - 0.04);
        assert_true(effort >= before);
        before = effort;
    }
    assert_int_equal(lk_graph_index_tune(graph, NULL, 50, queries, K, 0.9, &effort), LK_OK);
    assert_int_equal(lk_graph_index_tune(graph, NULL, 50, queries, K, 1.1, &effort), LK_INVALID);
    lk_graph_index_free(graph);
    lk_flat_free(flat);
    test_free(vectors);
    test_free(queries);
}

typedef struct reader {
    const lk_graph_index *graph;
    const float *queries;
    size_t dim;
    atomic_bool *stop;
    size_t searches, wrong;
} reader;

/* Vectors of ids below N/2 stay: each must be found by itself whenever it is searched for. */
static void *read_on(void *arg)
{
    reader *r = arg;
    lk_hit hits[K];
    size_t count;
    for (size_t q = 0; !atomic_load(r->stop) || r->searches < 100; q = (q + 1) % (N / 2)) {
        if (lk_graph_index_search(r->graph, NULL, 60, 1, r->queries + q * r->dim, K, NULL, NULL, hits, &count) !=
                LK_OK ||
            count != K || hits[0].id != q)
            r->wrong++;
        r->searches++;
    }
    return NULL;
}

static void searches_go_on_while_the_graph_changes(void **state)
{
    (void)state;
    enum { DIM = 32, READERS = 2 };
    lk_random random;
    lk_graph_index *graph;
    atomic_bool stop = false;
    pthread_t threads[READERS];
    reader readers[READERS];
    size_t searches = 0, wrong = 0;
    lk_random_seed(&random, 13);
    float *vectors = make_vectors(&random, N, DIM, 0), *more = make_vectors(&random, N, DIM, 0);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, DIM, N, NULL, vectors, &graph), LK_OK);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (reader){graph, vectors, DIM, &stop, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    for (size_t i = 0; i < N; i += 10) {
        uint64_t ids[10];
        for (size_t j = 0; j < 10; j++) {
            ids[j] = N + i + j;
            lk_graph_index_remove(graph, i + j < N / 2 ? N / 2 + i + j : N + i + j - N / 2);
        }
        assert_int_equal(lk_graph_index_add(graph, NULL, 10, ids, more + i * DIM), LK_OK);
    }
    assert_int_equal(lk_graph_index_consolidate(graph, NULL), LK_OK);
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        searches += readers[i].searches;
        wrong += readers[i].wrong;
    }
    print_message("%zu searches meanwhile, %zu missed their own vector\n", searches, wrong);
    assert_true(wrong * 100 <= searches);
    lk_graph_index_free(graph);
    test_free(vectors);
    test_free(more);
}

static int pass_some(void *user, uint64_t id)
{
    return id % *(size_t *)user == 0;
}

enum { VICTIMS = 16 };

/* Removes what is nearest to the queries of a batch, one vector after another, once the batch has begun. */
typedef struct remover {
    lk_graph_index *graph;
    size_t one_in; /* so many ids pass its filter */
    atomic_bool begun, done;
    lk_hit victims[VICTIMS];
    size_t count;
} remover;

static int pass_and_begin(void *user, uint64_t id)
{
    remover *r = user;
    atomic_store(&r->begun, true);
    return pass_some(&r->one_in, id);
}

static void *remove_nearest(void *arg)
{
    remover *r = arg;
    while (!atomic_load(&r->begun)) usleep(50);
    for (size_t i = 0; i < r->count && !atomic_load(&r->done); i++) {
        lk_graph_index_remove(r->graph, r->victims[i].id);
        usleep(1000);
    }
    return NULL;
}

/* A batch of n times one query, with a writer beside it; whether it found one thing first and another at last. */
static bool writer_gets_in(lk_graph_index *graph, int way, size_t n, const float *queries, lk_hit *hits, size_t *counts)
{
    remover r = {.graph = graph, .one_in = way == 1 ? 8 : 2}; /* 8: the filter is worked out before the walks */
    pthread_t writer;
    lk_diversity apart = {.apart = 0.01f};
    lk_status s;
    assert_int_equal(
        lk_graph_index_search(graph, NULL, 400, 1, queries, VICTIMS, pass_some, &r.one_in, r.victims, &r.count), LK_OK);
    assert_int_equal(pthread_create(&writer, NULL, remove_nearest, &r), 0);
    if (way < 2)
        s = lk_graph_index_search(graph, NULL, 100, n, queries, K, pass_and_begin, &r, hits, counts);
    else if (way == 2)
        s = lk_graph_index_range(graph, NULL, 100, n, queries, 1e9f, K, pass_and_begin, &r, hits, counts);
    else
        s = lk_graph_index_search_diverse(graph, NULL, 100, apart, n, queries, K, pass_and_begin, &r, hits, counts);
    atomic_store(&r.done, true);
    pthread_join(writer, NULL);
    assert_int_equal(s, LK_OK);
    assert_true(counts[0] > 0 && counts[n - 1] > 0);
    return hits[0].id != hits[(n - 1) * K].id;
}

static void writers_get_in_while_a_long_batch_runs(void **state)
{
    (void)state;
    enum { DIM = 8, BATCH = 4000, TRIES = 5 }; /* a busy machine may not run the writer during one batch */
    lk_random random;
    lk_random_seed(&random, 14);
    float *vectors = make_vectors(&random, N, DIM, 0), *queries = test_malloc(BATCH * DIM * sizeof *queries);
    static lk_hit hits[BATCH * K];
    static size_t counts[BATCH];
    for (size_t i = 0; i < BATCH * DIM; i++) queries[i] = vectors[i % DIM];
    for (int way = 0; way < 4; way++) {
        lk_graph_index *graph;
        assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, DIM, N, NULL, vectors, &graph), LK_OK);
        bool between = false;
        for (int i = 0; i < TRIES && !between; i++) between = writer_gets_in(graph, way, BATCH, queries, hits, counts);
        if (!between) fail_msg("way %d: the writer waited for the whole batch", way);
        lk_graph_index_free(graph);
    }
    test_free(vectors);
    test_free(queries);
}

static void check_same(const lk_hit *a, const size_t *a_counts, const lk_hit *b, const size_t *b_counts, size_t n)
{
    for (size_t q = 0; q < n; q++) {
        assert_int_equal(a_counts[q], b_counts[q]);
        for (size_t i = 0; i < a_counts[q]; i++) {
            assert_int_equal(a[q * K + i].id, b[q * K + i].id);
            assert_float_equal(a[q * K + i].score, b[q * K + i].score, 0);
        }
    }
}

static void a_batch_finds_what_its_queries_find_one_by_one(void **state)
{
    (void)state;
    enum { DIM = 16, BATCH = 600 }; /* longer than what is held at once */
    lk_random random;
    lk_random_seed(&random, 15);
    lk_graph_index *graph;
    float *vectors = make_vectors(&random, N, DIM, 0), *queries = make_vectors(&random, BATCH, DIM, 0);
    static lk_hit whole[BATCH * K], single[BATCH * K];
    static size_t whole_counts[BATCH], single_counts[BATCH];
    lk_context_options options = {.threads = 2};
    lk_context *context;
    assert_int_equal(lk_context_new(&options, &context), LK_OK);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, DIM, N, NULL, vectors, &graph), LK_OK);
    lk_diversity apart = {.apart = 0.5f};
    size_t every[] = {0, 2, 8}; /* 0 = no filter */
    for (int i = 0; i < 3; i++) {
        lk_id_filter filter = every[i] ? pass_some : NULL;
        lk_graph_index_search(graph, context, 30, BATCH, queries, K, filter, &every[i], whole, whole_counts);
        for (size_t q = 0; q < BATCH; q++)
            lk_graph_index_search(graph, NULL, 30, 1, queries + q * DIM, K, filter, &every[i], single + q * K,
                                  single_counts + q);
        check_same(whole, whole_counts, single, single_counts, BATCH);
        lk_graph_index_range(graph, context, 30, BATCH, queries, 8, K, filter, &every[i], whole, whole_counts);
        for (size_t q = 0; q < BATCH; q++)
            lk_graph_index_range(graph, NULL, 30, 1, queries + q * DIM, 8, K, filter, &every[i], single + q * K,
                                 single_counts + q);
        check_same(whole, whole_counts, single, single_counts, BATCH);
        lk_graph_index_search_diverse(graph, context, 30, apart, BATCH, queries, K, filter, &every[i], whole,
                                      whole_counts);
        for (size_t q = 0; q < BATCH; q++)
            lk_graph_index_search_diverse(graph, NULL, 30, apart, 1, queries + q * DIM, K, filter, &every[i],
                                          single + q * K, single_counts + q);
        check_same(whole, whole_counts, single, single_counts, BATCH);
    }
    lk_graph_index_free(graph);
    lk_context_free(context);
    test_free(vectors);
    test_free(queries);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    float vectors[8] = {1, 2, 3, 4, 5, 6, 7, NAN};
    uint64_t ids[2] = {5, 5};
    lk_graph_index *graph;
    lk_hit hit;
    size_t count;
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 4, 2, NULL, vectors, &graph), LK_INVALID);
    vectors[7] = 8;
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 4, 0, NULL, vectors, &graph), LK_INVALID);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 0, 2, NULL, vectors, &graph), LK_INVALID);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 16385, 2, NULL, vectors, &graph), LK_INVALID);
    assert_int_equal(lk_graph_index_build(NULL, NULL, (lk_metric)3, 4, 2, NULL, vectors, &graph), LK_INVALID);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 4, 2, ids, vectors, &graph), LK_CONFLICT);
    lk_graph_index_options options = {.degree = 3};
    assert_int_equal(lk_graph_index_build(NULL, &options, LK_L2, 4, 2, NULL, vectors, &graph), LK_INVALID);
    options = (lk_graph_index_options){.spread = 0.5f};
    assert_int_equal(lk_graph_index_build(NULL, &options, LK_L2, 4, 2, NULL, vectors, &graph), LK_INVALID);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, 4, 2, NULL, vectors, &graph), LK_OK);
    assert_int_equal(lk_graph_index_search(graph, NULL, 10, 1, vectors, 0, NULL, NULL, &hit, &count), LK_INVALID);
    vectors[0] = INFINITY;
    assert_int_equal(lk_graph_index_search(graph, NULL, 10, 1, vectors, 1, NULL, NULL, &hit, &count), LK_INVALID);
    assert_int_equal(lk_graph_index_add(graph, NULL, 1, ids, vectors), LK_INVALID);
    lk_graph_index_free(graph);
    float zeros[8] = {0};
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_INNER_PRODUCT, 4, 2, NULL, zeros, &graph), LK_OK);
    assert_int_equal(lk_graph_index_search(graph, NULL, 10, 1, vectors + 4, 1, NULL, NULL, &hit, &count), LK_OK);
    assert_true(count == 1 && hit.score == 0);
    lk_graph_index_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_and_width_finds_nearly_all),
        cmocka_unit_test(whole_numbers_are_found_with_exact_scores),
        cmocka_unit_test_setup_teardown(any_number_of_threads_builds_the_same_file, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(opened_file_answers_as_the_index_that_was_saved, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(damaged_files_are_refused_or_at_least_harmless, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test(recall_survives_replacing_half_ten_times),
        cmocka_unit_test(removed_vectors_are_never_found_and_ids_are_kept_apart),
        cmocka_unit_test(longer_vectors_may_come_later),
        cmocka_unit_test(recall_is_kept_whatever_share_passes_a_filter),
        cmocka_unit_test_setup_teardown(sets_of_ids_filter_and_go_stale_when_the_graph_changes, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test(range_search_finds_what_lies_within),
        cmocka_unit_test(tuned_effort_reaches_the_recall_on_other_queries),
        cmocka_unit_test(searches_go_on_while_the_graph_changes),
        cmocka_unit_test(writers_get_in_while_a_long_batch_runs),
        cmocka_unit_test(a_batch_finds_what_its_queries_find_one_by_one),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
