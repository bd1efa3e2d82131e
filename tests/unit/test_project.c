/* Principal projections of codes, and the graph that walks over them. */
#include "base/random.h"
#include "index/graph.h"
#include "index/project.h"

#include "unit.h"

#include <likeness/index.h>
#include <math.h>

enum { N = 2500, DIM = 300, STRIDE = 320, QUERIES = 60, K = 10 };
static const char *const processors[] = {"plain", "avx2", NULL}; /* LIKENESS_CPU; NULL: all that there is */

static void limit_processor(const char *name)
{
    if (name)
        setenv("LIKENESS_CPU", name, 1);
    else
        unsetenv("LIKENESS_CPU");
}

/* Vectors near one of the spaces of `directions` dimensions, with a little noise in all the others. */
static float *make_vectors_of(uint64_t space, lk_random *random, size_t n, size_t directions)
{
    float *axes = test_malloc(directions * DIM * sizeof *axes), *out = test_malloc(n * DIM * sizeof *out);
    lk_random fixed;
    lk_random_seed(&fixed, space);
    for (size_t i = 0; i < directions * DIM; i++) axes[i] = (float)lk_random_normal(&fixed);
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < DIM; i++) out[r * DIM + i] = 0.5f * (float)lk_random_normal(random);
        for (size_t a = 0; a < directions; a++) {
            float along = (float)lk_random_normal(random);
            for (size_t i = 0; i < DIM; i++) out[r * DIM + i] += along * axes[a * DIM + i];
        }
    }
    test_free(axes);
    return out;
}

static float *make_vectors(lk_random *random, size_t n, size_t directions)
{
    return make_vectors_of(77, random, n, directions);
}

static uint8_t *make_codes(size_t directions)
{
    lk_random random;
    lk_random_seed(&random, 1);
    float *vectors = make_vectors(&random, N, directions), most = 0;
    uint8_t *codes = aligned_alloc(64, N * STRIDE);
    assert_non_null(codes);
    memset(codes, 0, N * STRIDE);
    for (size_t i = 0; i < N * DIM; i++) most = fmaxf(most, fabsf(vectors[i]));
    for (size_t r = 0; r < N; r++)
        for (size_t i = 0; i < DIM; i++) codes[r * STRIDE + i] = (uint8_t)(127.5f + 127 * vectors[r * DIM + i] / most);
    test_free(vectors);
    return codes;
}

static void train(lk_projection *p, const lk_code_kernels *kernels, const uint8_t *codes, double least)
{
    assert_int_equal(lk_projection_train(p, kernels, NULL, N, codes, STRIDE, least, 5), LK_OK);
}

static void narrowest_width_that_keeps_enough_is_taken(void **state)
{
    (void)state;
    static const struct {
        size_t directions, width;
    } cases[] = {{20, 64}, {90, 128}, {300, 0}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t *codes = make_codes(cases[c].directions);
        lk_projection p;
        train(&p, &lk_codes_plain, codes, 0.9);
        assert_int_equal(p.width, cases[c].width);
        lk_projection_free(&p);
        free(codes);
    }
}

/* What varies along few directions keeps its distances, in the proportion that the grid tells. */
static void distances_survive_projection(void **state)
{
    (void)state;
    uint8_t *codes = make_codes(20);
    lk_projection p;
    train(&p, &lk_codes_plain, codes, 0.9);
    double worst = 0;
    for (size_t pair = 0; pair < 500; pair++) {
        int16_t query[2][STRIDE], out[2][LK_PROJECTION_MOST_WIDTH];
        double whole = 0, projected = 0;
        for (int side = 0; side < 2; side++) {
            const uint8_t *code = codes + (2 * pair + (size_t)side) * STRIDE;
            for (size_t i = 0; i < STRIDE; i++) query[side][i] = code[i];
            lk_projection_query(&p, &lk_codes_plain, query[side], out[side]);
        }
        for (size_t i = 0; i < STRIDE; i++) whole += pow(query[0][i] - query[1][i], 2);
        for (size_t k = 0; k < p.width; k++) projected += pow(out[0][k] - out[1][k], 2);
        worst = fmax(worst, fabs(projected / (whole * (double)p.grid[p.width + 1]) - 1));
    }
    print_message("at most %.3f lost or added\n", worst);
    assert_true(worst < 0.1); /* noise: 0.25 of about 20 in the variance of a component */
    lk_projection_free(&p);
    free(codes);
}

static void every_processor_and_number_of_threads_trains_the_same(void **state)
{
    (void)state;
    uint8_t *codes = make_codes(90);
    lk_projection first;
    lk_context_options options = {.threads = 3};
    lk_context *context;
    assert_int_equal(lk_context_new(&options, &context), LK_OK);
    train(&first, &lk_codes_plain, codes, 0.9);
    for (size_t c = 0; c < sizeof processors / sizeof *processors; c++) {
        limit_processor(processors[c]);
        const lk_code_kernels *kernels = lk_code_kernels_for(lk_cpu_detect());
        lk_projection p;
        int16_t query[STRIDE], a[LK_PROJECTION_MOST_WIDTH], b[LK_PROJECTION_MOST_WIDTH];
        assert_int_equal(lk_projection_train(&p, kernels, lk_context_pool(context), N, codes, STRIDE, 0.9, 5), LK_OK);
        assert_int_equal(p.width, first.width);
        assert_memory_equal(p.rows, first.rows, p.width * p.stride);
        assert_memory_equal(p.grid, first.grid, (p.width + 2) * sizeof *p.grid);
        for (size_t i = 0; i < STRIDE; i++) query[i] = (int16_t)(i % 2 ? LK_CODES_QUERY_MAX : LK_CODES_QUERY_MIN);
        lk_projection_query(&p, kernels, query, a);
        lk_projection_query(&first, &lk_codes_plain, query, b);
        assert_memory_equal(a, b, p.width * sizeof *a);
        lk_projection_free(&p);
    }
    limit_processor(NULL);
    lk_projection_free(&first);
    lk_context_free(context);
    free(codes);
}

/* ---- the graph ---- */

static lk_graph_index *build(lk_metric metric, size_t n, const float *vectors)
{
    lk_graph_index *graph;
    assert_int_equal(lk_graph_index_build(NULL, NULL, metric, DIM, n, NULL, vectors, &graph), LK_OK);
    return graph;
}

static double recall(const lk_graph_index *graph, lk_metric metric, size_t n, const float *vectors,
                     const float *queries, size_t effort)
{
    lk_flat *flat;
    uint64_t *ids = test_malloc(n * sizeof *ids);
    lk_hit *found = test_malloc(2 * QUERIES * K * sizeof *found), *truth = found + QUERIES * K;
    size_t counts[QUERIES], hits = 0;
    for (size_t i = 0; i < n; i++) ids[i] = i;
    assert_int_equal(lk_flat_new(DIM, metric, LK_F32, &flat), LK_OK);
    assert_int_equal(lk_flat_add(flat, n, ids, vectors), LK_OK);
    assert_int_equal(lk_graph_index_search(graph, NULL, effort, QUERIES, queries, K, NULL, NULL, found, counts), LK_OK);
    assert_int_equal(lk_flat_search(flat, NULL, QUERIES, queries, K, NULL, NULL, truth, counts), LK_OK);
    for (size_t i = 0; i < QUERIES * K; i++) {
        for (size_t j = i / K * K; j < i / K * K + K; j++) {
            if (found[i].id != truth[j].id) continue;
            hits++;
            if (fabs(found[i].score - truth[j].score) > 0.01 * (1e-3 + fabs(truth[j].score)))
                fail_msg("score %.9g, not %.9g", (double)found[i].score, (double)truth[j].score);
        }
    }
    lk_flat_free(flat);
    test_free(ids);
    test_free(found);
    return (double)hits / (QUERIES * K);
}

/* Also after half of the vectors have come later. */
static void wide_vectors_are_found_by_every_metric(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 2);
    float *vectors = make_vectors(&random, 2 * N, 20), *queries = make_vectors(&random, QUERIES, 20);
    uint64_t later[N];
    for (size_t i = 0; i < N; i++) later[i] = N + i;
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_graph_index *graph = build((lk_metric)metric, N, vectors);
        assert_int_equal(graph->projection.width, 64);
        double before = recall(graph, (lk_metric)metric, N, vectors, queries, 100);
        assert_int_equal(lk_graph_index_add(graph, NULL, N, later, vectors + N * DIM), LK_OK);
        assert_int_equal(graph->projection.width, 64); /* it still fits */
        double after = recall(graph, (lk_metric)metric, 2 * N, vectors, queries, 100);
        print_message("metric %d: recall %.3f, %.3f with later ones\n", metric, before, after);
        assert_true(before >= 0.97 && after >= 0.97);
        lk_graph_index_free(graph);
    }
    test_free(vectors);
    test_free(queries);
}

/* Share of the vectors within ranges of `within` vectors that are found. */
static double range_recall(const lk_graph_index *graph, const lk_hit *truth, const float *queries, size_t within)
{
    static lk_hit hits[N];
    size_t found = 0, count;
    for (size_t q = 0; q < QUERIES; q++) {
        float bound = truth[q * N + within - 1].score;
        assert_int_equal(
            lk_graph_index_range(graph, NULL, 40, 1, queries + q * DIM, bound, N, NULL, NULL, hits, &count), LK_OK);
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < within; j++) found += truth[q * N + j].id == hits[i].id;
    }
    return (double)found / (double)(QUERIES * within);
}

static void ranges_of_projected_vectors_lose_nothing(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 12);
    float *vectors = make_vectors(&random, N, 20), *queries = make_vectors(&random, QUERIES, 20);
    /* Noise that a projection leaves out, of every second vector: by projected codes these seem nearer than they are.
     */
    for (size_t i = 0; i < N * DIM; i++)
        if (i / DIM % 2) vectors[i] += 2 * (float)lk_random_normal(&random);
    lk_flat *flat;
    uint64_t ids[N];
    size_t counts[QUERIES];
    lk_hit *truth = test_malloc(QUERIES * N * sizeof *truth);
    for (size_t i = 0; i < N; i++) ids[i] = i;
    assert_int_equal(lk_flat_new(DIM, LK_L2, LK_F32, &flat), LK_OK);
    assert_int_equal(lk_flat_add(flat, N, ids, vectors), LK_OK);
    assert_int_equal(lk_flat_search(flat, NULL, QUERIES, queries, N, NULL, NULL, truth, counts), LK_OK);
    lk_graph_index *graph = build(LK_L2, N, vectors);
    uint8_t *projected = graph->projected;
    assert_non_null(projected);
    for (size_t within = 15; within <= 240; within *= 2) {
        double with = range_recall(graph, truth, queries, within);
        graph->projected = NULL;
        double whole = range_recall(graph, truth, queries, within);
        graph->projected = projected;
        print_message("%zu within: %.4f of them by projected codes, %.4f by whole ones\n", within, with, whole);
        assert_true(with >= whole - 0.005);
    }
    lk_graph_index_free(graph);
    lk_flat_free(flat);
    test_free(truth);
    test_free(vectors);
    test_free(queries);
}

static void projection_is_given_up_for_vectors_of_other_directions(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 7);
    float *vectors = make_vectors(&random, 2 * N, 20), *queries = make_vectors_of(78, &random, QUERIES, 20);
    float *others = make_vectors_of(78, &random, N, 20);
    uint64_t later[N];
    for (size_t i = 0; i < N; i++) later[i] = N + i;
    memcpy(vectors + N * DIM, others, N * DIM * sizeof *vectors);
    lk_graph_index *graph = build(LK_L2, N, vectors);
    assert_int_equal(graph->projection.width, 64);
    for (size_t i = 0; i < N; i += 50) /* a few at a time */
        assert_int_equal(lk_graph_index_add(graph, NULL, 50, later + i, others + i * DIM), LK_OK);
    assert_null(graph->projected);
    double share = recall(graph, LK_L2, 2 * N, vectors, queries, 100);
    print_message("recall %.3f\n", share);
    assert_true(share >= 0.97);
    lk_graph_index_free(graph);
    test_free(vectors);
    test_free(queries);
    test_free(others);
}

static void what_varies_in_all_directions_is_not_projected(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 3);
    float *vectors = make_vectors(&random, N, 0);
    lk_graph_index *graph = build(LK_L2, N, vectors);
    assert_null(graph->projected);
    lk_graph_index_free(graph);
    test_free(vectors);
}

static char *read_image(const lk_graph_index *graph, const char *path, size_t *size)
{
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

static void assert_same_hits(const lk_hit *hits, const lk_hit *expected)
{
    for (size_t i = 0; i < QUERIES * K; i++) {
        assert_int_equal(hits[i].id, expected[i].id);
        assert_true(hits[i].score == expected[i].score);
    }
}

static void every_processor_writes_the_same_file_and_finds_the_same(void **state)
{
    lk_random random;
    char path[256];
    char *first = NULL;
    size_t first_size = 0, counts[QUERIES];
    lk_hit *hits = test_malloc(2 * QUERIES * K * sizeof *hits), *expected = hits + QUERIES * K;
    lk_random_seed(&random, 4);
    snprintf(path, sizeof path, "%s/wide", (char *)*state);
    float *vectors = make_vectors(&random, N, 20), *queries = make_vectors(&random, QUERIES, 20);
    for (size_t c = 0; c < sizeof processors / sizeof *processors; c++) {
        size_t size;
        limit_processor(processors[c]);
        lk_graph_index *graph = build(LK_L2, N, vectors);
        char *image = read_image(graph, path, &size);
        assert_int_equal(lk_graph_index_search(graph, NULL, 20, QUERIES, queries, K, NULL, NULL, hits, counts), LK_OK);
        if (first) {
            assert_int_equal(size, first_size);
            assert_memory_equal(image, first, size);
            assert_same_hits(hits, expected);
            test_free(image);
        } else {
            first = image;
            first_size = size;
            memcpy(expected, hits, QUERIES * K * sizeof *hits);
        }
        lk_graph_index_free(graph);
        for (int flags = 0; flags <= (LK_GRAPH_VERIFY | LK_GRAPH_CHANGE); flags++) { /* and read back */
            assert_int_equal(lk_graph_index_open(path, flags, &graph), LK_OK);
            assert_int_equal(graph->projection.width, 64);
            assert_int_equal(lk_graph_index_search(graph, NULL, 20, QUERIES, queries, K, NULL, NULL, hits, counts),
                             LK_OK);
            assert_same_hits(hits, expected);
            lk_graph_index_free(graph);
        }
    }
    limit_processor(NULL);
    test_free(first);
    test_free(hits);
    test_free(vectors);
    test_free(queries);
}

/* A file without a projection is one from before there were any. */
static void tables_that_are_missing_leave_no_trace_in_the_header(void **state)
{
    lk_random random;
    char path[256];
    size_t size;
    lk_random_seed(&random, 5);
    snprintf(path, sizeof path, "%s/old", (char *)*state);
    float *vectors = make_vectors(&random, 500, 20);
    lk_graph_index *graph = build(LK_L2, 500, vectors);
    char *image = read_image(graph, path, &size);
    assert_null(graph->projected);
    for (size_t i = 104 + 9 * 32; i < 616; i++) assert_int_equal(image[i], 0);
    lk_graph_index_free(graph);
    assert_int_equal(lk_graph_index_open(path, LK_GRAPH_VERIFY, &graph), LK_OK);
    lk_graph_index_free(graph);
    test_free(image);
    test_free(vectors);
}

static void damaged_projections_are_refused_when_verified_and_harmless_else(void **state)
{
    lk_random random;
    char path[256];
    size_t size, counts[4];
    lk_hit hits[4 * K];
    lk_random_seed(&random, 6);
    snprintf(path, sizeof path, "%s/damaged", (char *)*state);
    float *vectors = make_vectors(&random, N, 20);
    lk_graph_index *graph = build(LK_L2, N, vectors);
    char *image = read_image(graph, path, &size);
    lk_graph_index_free(graph);
    for (size_t t = 9; t < 12; t++) {
        uint64_t table[2]; /* offset, size */
        memcpy(table, image + 104 + 32 * t, sizeof table);
        assert_true(table[1] > 0);
        for (int round = 0; round < 4; round++) { /* one bit, then all */
            FILE *f = fopen(path, "r+b");
            assert_non_null(f);
            char *noise = test_malloc(table[1]);
            memcpy(noise, image + table[0], table[1]);
            if (round < 3)
                noise[lk_random_below(&random, table[1])] ^= 16;
            else
                for (size_t i = 0; i < table[1]; i++) noise[i] = (char)(t == 11 ? 0xff : lk_random_u64(&random));
            fseek(f, (long)table[0], SEEK_SET);
            assert_int_equal(fwrite(noise, 1, table[1], f), table[1]);
            fclose(f);
            assert_int_equal(lk_graph_index_open(path, LK_GRAPH_VERIFY, &graph), LK_CORRUPT);
            assert_int_equal(lk_graph_index_open(path, 0, &graph), LK_OK);
            assert_int_equal(lk_graph_index_search(graph, NULL, 30, 4, vectors, K, NULL, NULL, hits, counts), LK_OK);
            lk_graph_index_free(graph);
            f = fopen(path, "r+b");
            assert_non_null(f);
            fseek(f, (long)table[0], SEEK_SET);
            assert_int_equal(fwrite(image + table[0], 1, table[1], f), table[1]);
            fclose(f);
            test_free(noise);
        }
    }
    test_free(image);
    test_free(vectors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrowest_width_that_keeps_enough_is_taken),
        cmocka_unit_test(distances_survive_projection),
        cmocka_unit_test(every_processor_and_number_of_threads_trains_the_same),
        cmocka_unit_test(wide_vectors_are_found_by_every_metric),
        cmocka_unit_test(ranges_of_projected_vectors_lose_nothing),
        cmocka_unit_test(projection_is_given_up_for_vectors_of_other_directions),
        cmocka_unit_test(what_varies_in_all_directions_is_not_projected),
        cmocka_unit_test_setup_teardown(every_processor_writes_the_same_file_and_finds_the_same, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(tables_that_are_missing_leave_no_trace_in_the_header, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(damaged_projections_are_refused_when_verified_and_harmless_else, unit_folder,
                                        unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
