/* The flat index: what it finds against a reference in double precision and against faiss, and what it keeps. */
#include "../fixtures/flat.h"
#include "base/random.h"
#include "index/flat.h"
#include "index/topk.h"

#include "unit.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>

static float *random_vectors(lk_random *random, size_t n, size_t dim)
{
    float *out = test_malloc(n * dim * sizeof *out);
    for (size_t i = 0; i < n * dim; i++) out[i] = (float)lk_random_normal(random);
    return out;
}

/* Ids that are neither dense nor rising: 3 i + 1 with neighbours exchanged. */
static uint64_t *some_ids(size_t n)
{
    uint64_t *ids = test_malloc(n * sizeof *ids);
    for (size_t i = 0; i < n; i++) ids[i] = 3 * ((i ^ 1) < n ? i ^ 1 : i) + 1;
    return ids;
}

static lk_flat *index_of(lk_metric metric, lk_dtype dtype, size_t n, size_t dim, const uint64_t *ids,
                         const float *vectors)
{
    lk_flat *index;
    assert_int_equal(lk_flat_new(dim, metric, dtype, &index), LK_OK);
    if (n) assert_int_equal(lk_flat_add(index, n, ids, vectors), LK_OK);
    return index;
}

/* Score of a stored vector in double precision. */
static double reference_score(const lk_flat *index, uint64_t id, const float *query, float *decoded)
{
    size_t dim = lk_flat_dim(index);
    double dot = 0, l2 = 0, squares = 0;
    assert_int_equal(lk_flat_vector(index, id, decoded), LK_OK);
    for (size_t i = 0; i < dim; i++) {
        dot += (double)query[i] * decoded[i];
        l2 += ((double)query[i] - decoded[i]) * ((double)query[i] - decoded[i]);
        squares += (double)query[i] * query[i];
    }
    if (lk_flat_metric(index) == LK_COSINE) return squares > 0 ? fmax(-1, fmin(1, dot / sqrt(squares))) : 0;
    return lk_flat_metric(index) == LK_L2 ? l2 : dot;
}

static double tolerance_of(const lk_flat *index, const float *query)
{
    double squares = 0;
    for (size_t i = 0; i < lk_flat_dim(index); i++) squares += (double)query[i] * query[i];
    /* Vectors of these tests have lengths near sqrt(dim) or 1. */
    return lk_flat_metric(index) == LK_COSINE ? 1e-6 : 1e-6 * (squares + (double)lk_flat_dim(index));
}

/* Checks that hits are right: true scores, in order, none missing. `allowed` (may be NULL) says which ids count. */
static void check_hits(const lk_flat *index, const float *query, size_t k, const lk_hit *hits, size_t count,
                       int (*allowed)(void *, uint64_t))
{
    size_t live = lk_flat_count(index), passing = 0, better = 0;
    double sign = lk_flat_metric(index) == LK_L2 ? -1 : 1, tolerance = tolerance_of(index, query);
    uint64_t *ids = test_malloc((live + 1) * sizeof *ids);
    float *decoded = test_malloc(lk_flat_dim(index) * sizeof *decoded);
    lk_flat_ids(index, ids);
    for (size_t i = 0; i < live; i++) passing += !allowed || allowed(NULL, ids[i]);
    assert_int_equal(count, passing < k ? passing : k);
    for (size_t i = 0; i < count; i++) {
        assert_true(!allowed || allowed(NULL, hits[i].id));
        assert_true(fabs(hits[i].score - reference_score(index, hits[i].id, query, decoded)) <= tolerance);
        if (i == 0) continue;
        double step = sign * ((double)hits[i - 1].score - hits[i].score);
        assert_true(step > 0 || (step == 0 && hits[i - 1].id < hits[i].id));
    }
    for (size_t i = 0; count == k && i < live; i++) {
        if (allowed && !allowed(NULL, ids[i])) continue;
        better += sign * (reference_score(index, ids[i], query, decoded) - hits[k - 1].score) > tolerance;
    }
    assert_true(better < k);
    test_free(decoded);
    test_free(ids);
}

static void check_fixture(lk_metric metric, const uint64_t *ids, const float *scores)
{
    uint64_t all[FIXTURE_ROWS];
    lk_hit hits[FIXTURE_QUERIES * FIXTURE_K];
    size_t counts[FIXTURE_QUERIES];
    for (size_t i = 0; i < FIXTURE_ROWS; i++) all[i] = i;
    lk_flat *index = index_of(metric, LK_F32, FIXTURE_ROWS, FIXTURE_DIM, all, fixture_vectors);
    assert_int_equal(lk_flat_search(index, NULL, FIXTURE_QUERIES, fixture_queries, FIXTURE_K, NULL, NULL, hits, counts),
                     LK_OK);
    for (size_t i = 0; i < FIXTURE_QUERIES * FIXTURE_K; i++) {
        assert_int_equal(counts[i / FIXTURE_K], FIXTURE_K);
        assert_int_equal(hits[i].id, ids[i]);
        assert_float_equal(hits[i].score, scores[i], 1e-5 * fmaxf(1, fabsf(scores[i])));
    }
    lk_flat_free(index);
}

static void neighbours_and_scores_agree_with_faiss(void **state)
{
    (void)state;
    check_fixture(LK_COSINE, fixture_cosine_ids, fixture_cosine_scores);
    check_fixture(LK_INNER_PRODUCT, fixture_ip_ids, fixture_ip_scores);
    check_fixture(LK_L2, fixture_l2_ids, fixture_l2_scores);
}

/* Every metric and type, on sizes around the blocks of the scan, one query and batches of every kind. */
static void search_finds_the_k_best_of_a_double_precision_reference(void **state)
{
    (void)state;
    static const size_t sizes[][4] = {/* rows, dim, queries, k */
                                      {1, 1, 1, 1},    {7, 3, 5, 10},    {47, 17, 3, 5},    {49, 33, 4, 5},
                                      {1009, 5, 7, 3}, {2100, 64, 1, 9}, {1500, 37, 70, 4}, {700, 131, 67, 200}};
    lk_random random;
    lk_random_seed(&random, 1);
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++) {
        size_t n = sizes[c][0], dim = sizes[c][1], asked = sizes[c][2], k = sizes[c][3];
        float *vectors = random_vectors(&random, n, dim), *queries = random_vectors(&random, asked, dim);
        uint64_t *ids = some_ids(n);
        lk_hit *hits = test_malloc(asked * k * sizeof *hits);
        size_t *counts = test_malloc(asked * sizeof *counts);
        for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
            for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
                lk_flat *index = index_of((lk_metric)metric, (lk_dtype)dtype, n, dim, ids, vectors);
                assert_int_equal(lk_flat_search(index, NULL, asked, queries, k, NULL, NULL, hits, counts), LK_OK);
                for (size_t q = 0; q < asked && q < 6; q++)
                    check_hits(index, queries + q * dim, k, hits + q * k, counts[q], NULL);
                lk_flat_free(index);
            }
        }
        test_free(vectors), test_free(queries), test_free(ids), test_free(hits), test_free(counts);
    }
}

/* The same search in one batch, in batches of 5 and one by one, on 1, 2 and 4 threads: the same bytes. */
static void results_depend_neither_on_batches_nor_on_threads(void **state)
{
    (void)state;
    enum { ROWS = 20000, DIM = 41, QUERIES = 270, K = 11 };
    static const size_t batches[] = {QUERIES, 5, 1};
    static const int threads[] = {1, 2, 4};
    lk_random random;
    lk_random_seed(&random, 2);
    float *vectors = random_vectors(&random, ROWS, DIM), *queries = random_vectors(&random, QUERIES, DIM);
    uint64_t *ids = some_ids(ROWS);
    lk_hit *first = test_calloc(QUERIES * K, sizeof *first), *hits = test_calloc(QUERIES * K, sizeof *hits);
    size_t counts[QUERIES];
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
            lk_flat *index = index_of((lk_metric)metric, (lk_dtype)dtype, ROWS, DIM, ids, vectors);
            for (size_t t = 0; t < 3; t++) {
                lk_context *context;
                assert_int_equal(lk_context_new(&(lk_context_options){.threads = threads[t]}, &context), LK_OK);
                for (size_t b = 0; b < 3; b++) {
                    lk_hit *out = t + b == 0 ? first : hits;
                    for (size_t q = 0; q < QUERIES; q += batches[b])
                        assert_int_equal(lk_flat_search(index, context,
                                                        batches[b] < QUERIES - q ? batches[b] : QUERIES - q,
                                                        queries + q * DIM, K, NULL, NULL, out + q * K, counts + q),
                                         LK_OK);
                    for (size_t i = 0; i < QUERIES * K; i++) {
                        assert_int_equal(out[i].id, first[i].id);
                        assert_memory_equal(&out[i].score, &first[i].score, sizeof out[i].score);
                    }
                }
                lk_context_free(context);
            }
            lk_flat_free(index);
        }
    }
    test_free(vectors), test_free(queries), test_free(ids), test_free(first), test_free(hits);
}

static void equal_scores_come_in_order_of_id(void **state)
{
    (void)state;
    enum { ROWS = 3000, DIM = 10, K = 25 };
    static const size_t batches[] = {1, 8};
    float *vectors = test_malloc(ROWS * DIM * sizeof *vectors), queries[8 * DIM];
    uint64_t ids[ROWS];
    for (size_t i = 0; i < ROWS * DIM; i++)
        vectors[i] = (float)(i / DIM % 3) + (float)(i % DIM); /* three vectors, repeated */
    for (size_t i = 0; i < 8 * DIM; i++) queries[i] = (float)(i % DIM);
    for (size_t i = 0; i < ROWS; i++) ids[i] = (i * 1777) % ROWS; /* a permutation */
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_flat *index = index_of((lk_metric)metric, LK_F32, ROWS, DIM, ids, vectors);
        for (size_t b = 0; b < 2; b++) {
            lk_hit hits[8 * K];
            size_t counts[8], best = metric == LK_INNER_PRODUCT ? 2 : 0, next = 0;
            assert_int_equal(lk_flat_search(index, NULL, batches[b], queries, K, NULL, NULL, hits, counts), LK_OK);
            uint64_t expected[K];
            for (uint64_t id = 0; next < K; id++)
                for (size_t row = best; row < ROWS; row += 3)
                    if (ids[row] == id) expected[next++] = id;
            for (size_t i = 0; i < batches[b] * K; i++) assert_int_equal(hits[i].id, expected[i % K]);
        }
        lk_flat_free(index);
    }
    test_free(vectors);
}

static int id_is_rare(void *calls, uint64_t id)
{
    if (calls) atomic_fetch_add((atomic_size_t *)calls, 1);
    return id % 41 == 0;
}

static void filter_lets_only_its_ids_through(void **state)
{
    (void)state;
    enum { ROWS = 5000, DIM = 24, QUERIES = 9, K = 30 };
    lk_random random;
    lk_context *context;
    lk_random_seed(&random, 3);
    float *vectors = random_vectors(&random, ROWS, DIM), *queries = random_vectors(&random, QUERIES, DIM);
    uint64_t *ids = some_ids(ROWS);
    lk_hit hits[QUERIES * K];
    size_t counts[QUERIES];
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 3}, &context), LK_OK);
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_flat *index = index_of((lk_metric)metric, LK_F32, ROWS, DIM, ids, vectors);
        for (size_t n = 1; n <= QUERIES; n += QUERIES - 1) {
            atomic_size_t calls = 0;
            assert_int_equal(lk_flat_search(index, context, n, queries, K, id_is_rare, &calls, hits, counts), LK_OK);
            assert_true(calls > 0 && calls <= n * ROWS);
            for (size_t q = 0; q < n; q++) check_hits(index, queries + q * DIM, K, hits + q * K, counts[q], id_is_rare);
        }
        lk_flat_free(index);
    }
    lk_context_free(context);
    test_free(vectors), test_free(queries), test_free(ids);
}

static void removed_vectors_are_not_found_and_their_ids_are_free_again(void **state)
{
    (void)state;
    enum { ROWS = 6000, DIM = 8, K = 5 };
    lk_random random;
    lk_random_seed(&random, 4);
    float *vectors = random_vectors(&random, ROWS, DIM), out[DIM];
    uint64_t *ids = some_ids(ROWS), *left = test_malloc(ROWS * sizeof *left);
    lk_hit hits[K];
    size_t count;
    lk_flat *index = index_of(LK_L2, LK_F32, ROWS, DIM, ids, vectors);
    for (size_t i = 0; i < ROWS; i++)
        if (i % 4 != 0) assert_int_equal(lk_flat_remove(index, ids[i]), LK_OK);
    assert_int_equal(lk_flat_count(index), ROWS / 4);
    assert_int_equal(lk_flat_remove(index, ids[1]), LK_NOT_FOUND);
    assert_int_equal(lk_flat_vector(index, ids[1], out), LK_NOT_FOUND);
    assert_int_equal(lk_flat_search(index, NULL, 1, vectors + DIM, K, NULL, NULL, hits, &count), LK_OK);
    check_hits(index, vectors + DIM, K, hits, count, NULL);
    /* So many are gone that adding makes the rest move together: everything must still be where it says. */
    assert_int_equal(lk_flat_add(index, 1, &ids[1], vectors + DIM), LK_OK);
    assert_int_equal(lk_flat_count(index), ROWS / 4 + 1);
    lk_flat_ids(index, left);
    for (size_t i = 0; i < ROWS / 4; i++) assert_int_equal(left[i], ids[4 * i]);
    assert_int_equal(left[ROWS / 4], ids[1]);
    for (size_t i = 0; i < ROWS; i += 4) {
        assert_int_equal(lk_flat_vector(index, ids[i], out), LK_OK);
        assert_memory_equal(out, vectors + i * DIM, sizeof out);
    }
    assert_int_equal(lk_flat_search(index, NULL, 1, vectors + DIM, K, NULL, NULL, hits, &count), LK_OK);
    assert_int_equal(hits[0].id, ids[1]);
    assert_true(hits[0].score == 0 && !signbit(hits[0].score));
    lk_flat_free(index);
    test_free(vectors), test_free(ids), test_free(left);
}

static void repeated_id_is_refused_and_nothing_is_added(void **state)
{
    (void)state;
    enum { DIM = 3 };
    float vectors[4 * DIM] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1};
    const uint64_t first[] = {5, 6}, known[] = {7, 8, 6, 9}, twice[] = {7, 8, 7, 9};
    lk_flat *index = index_of(LK_COSINE, LK_I8, 2, DIM, first, vectors);
    assert_int_equal(lk_flat_add(index, 4, known, vectors), LK_CONFLICT);
    assert_int_equal(lk_flat_add(index, 4, twice, vectors), LK_CONFLICT);
    assert_int_equal(lk_flat_count(index), 2);
    vectors[10] = NAN;
    assert_int_equal(lk_flat_add(index, 2, known, vectors + 6), LK_INVALID);
    vectors[10] = 1;
    assert_int_equal(lk_flat_count(index), 2);
    assert_int_equal(lk_flat_add(index, 2, known, vectors + 6), LK_OK); /* 7 and 8 were not kept by the failures */
    assert_int_equal(lk_flat_count(index), 4);
    lk_flat_free(index);
}

/* Attached memory at an odd address, with dead rows, between vectors of our own. */
static void attached_rows_are_searched_where_they_lie(void **state)
{
    (void)state;
    enum { ROWS = 1234, DIM = 29, QUERIES = 6, K = 8 };
    lk_random random;
    lk_random_seed(&random, 5);
    float *vectors = random_vectors(&random, ROWS, DIM), *queries = random_vectors(&random, QUERIES, DIM), scales[ROWS],
          out[DIM];
    uint64_t *ids = some_ids(ROWS), own[] = {100000, 100001, 100002};
    uint8_t live[(ROWS + 7) / 8];
    size_t dead = 0, counts[QUERIES];
    lk_hit hits[QUERIES * K];
    for (size_t i = 0; i < sizeof live; i++) live[i] = (uint8_t)lk_random_below(&random, 256);
    for (size_t i = 0; i < ROWS; i++) dead += !(live[i / 8] >> (i % 8) & 1);
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
            size_t bytes = ROWS * lk_dtype_bytes((lk_dtype)dtype, DIM);
            char *block = test_malloc(bytes + 3), *codes = block + 3;
            assert_int_equal(lk_vectors_encode((lk_dtype)dtype, DIM, ROWS, vectors, metric == LK_COSINE, codes, scales),
                             LK_OK);
            lk_flat *index = index_of((lk_metric)metric, (lk_dtype)dtype, 2, DIM, own, vectors);
            assert_int_equal(lk_flat_attach(index, ROWS, ids, codes, scales, live), LK_OK);
            assert_int_equal(lk_flat_add(index, 1, own + 2, vectors + 2 * DIM), LK_OK);
            assert_int_equal(lk_flat_count(index), ROWS - dead + 3);
            for (size_t n = 1; n <= QUERIES; n += QUERIES - 1) {
                assert_int_equal(lk_flat_search(index, NULL, n, queries, K, NULL, NULL, hits, counts), LK_OK);
                for (size_t q = 0; q < n; q++) check_hits(index, queries + q * DIM, K, hits + q * K, counts[q], NULL);
            }
            assert_int_equal(lk_flat_remove(index, hits[0].id), LK_OK);
            assert_int_equal(lk_flat_vector(index, hits[0].id, out), LK_NOT_FOUND);
            assert_int_equal(lk_flat_search(index, NULL, 1, queries, K, NULL, NULL, hits, counts), LK_OK);
            check_hits(index, queries, K, hits, counts[0], NULL);
            lk_flat_free(index);
            test_free(block);
        }
    }
    lk_flat *index = index_of(LK_COSINE, LK_I8, 0, DIM, NULL, NULL);
    assert_int_equal(lk_flat_attach(index, ROWS, ids, vectors, NULL, NULL), LK_INVALID);
    lk_flat_free(index);
    test_free(vectors), test_free(queries), test_free(ids);
}

static void garbage_in_attached_memory_is_never_a_result(void **state)
{
    (void)state;
    enum { ROWS = 300, DIM = 20, QUERIES = 5, K = ROWS };
    lk_random random;
    lk_random_seed(&random, 6);
    float *vectors = random_vectors(&random, ROWS, DIM), *queries = random_vectors(&random, QUERIES, DIM);
    uint64_t ids[ROWS];
    size_t counts[QUERIES];
    lk_hit *hits = test_malloc(QUERIES * K * sizeof *hits);
    float *scores = test_malloc(QUERIES * ROWS * sizeof *scores);
    for (size_t i = 0; i < ROWS; i++) {
        ids[i] = i;
        if (i % 3 == 1) vectors[i * DIM + i % DIM] = NAN;
        if (i % 3 == 2) vectors[i * DIM + i % DIM] = i % 2 ? INFINITY : -INFINITY;
    }
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_flat *index = index_of((lk_metric)metric, LK_F32, 0, DIM, NULL, NULL);
        assert_int_equal(lk_flat_attach(index, ROWS, ids, vectors, NULL, NULL), LK_OK);
        for (size_t n = 1; n <= QUERIES; n += QUERIES - 1) {
            assert_int_equal(lk_flat_search(index, NULL, n, queries, K, NULL, NULL, hits, counts), LK_OK);
            for (size_t q = 0; q < n; q++) {
                assert_int_equal(counts[q], ROWS / 3);
                for (size_t i = 0; i < counts[q]; i++) {
                    assert_int_equal(hits[q * K + i].id % 3, 0);
                    assert_true(isfinite(hits[q * K + i].score));
                }
            }
        }
        assert_int_equal(lk_flat_scores(index, NULL, QUERIES, queries, scores), LK_OK);
        for (size_t i = 0; i < QUERIES * ROWS; i++)
            assert_true(i % ROWS % 3 == 0 ? isfinite(scores[i])
                                          : scores[i] == (metric == LK_L2 ? INFINITY : -INFINITY));
        lk_flat_free(index);
    }
    test_free(vectors), test_free(queries), test_free(hits), test_free(scores);
}

/* Far from the origin |q|^2 - 2 q.v + |v|^2 has no correct digit left, and of two rows one in f32 the screen must find.
 */
static void distances_far_from_the_origin_stay_exact_in_batches(void **state)
{
    (void)state;
    enum { ROWS = 4000, DIM = 48, QUERIES = 8, K = 6 };
    lk_random random;
    lk_random_seed(&random, 7);
    float *vectors = random_vectors(&random, ROWS, DIM), *queries = random_vectors(&random, QUERIES, DIM);
    uint64_t *ids = some_ids(ROWS);
    size_t counts[QUERIES];
    lk_hit together[QUERIES * K], alone[K];
    for (size_t i = 0; i < ROWS * DIM; i++) vectors[i] += 3000;
    for (size_t i = 0; i < QUERIES * DIM; i++) queries[i] += 3000;
    lk_flat *index = index_of(LK_L2, LK_F32, ROWS, DIM, ids, vectors);
    assert_int_equal(lk_flat_search(index, NULL, QUERIES, queries, K, NULL, NULL, together, counts), LK_OK);
    float *decoded = test_malloc(DIM * sizeof *decoded);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(lk_flat_search(index, NULL, 1, queries + q * DIM, K, NULL, NULL, alone, counts), LK_OK);
        for (size_t i = 0; i < K; i++) {
            double exact = reference_score(index, alone[i].id, queries + q * DIM, decoded);
            assert_true(fabs(alone[i].score - exact) <= 1e-5 * exact);
            assert_int_equal(alone[i].id, together[q * K + i].id);
            assert_memory_equal(&alone[i].score, &together[q * K + i].score, sizeof alone[i].score);
        }
    }
    lk_flat_free(index);
    test_free(decoded), test_free(vectors), test_free(queries), test_free(ids);
}

static void all_scores_are_those_of_search_in_order_of_ids(void **state)
{
    (void)state;
    enum { ROWS = 2500, DIM = 19, QUERIES = 5 };
    lk_random random;
    lk_context *context;
    lk_random_seed(&random, 8);
    float *vectors = random_vectors(&random, ROWS, DIM), *queries = random_vectors(&random, QUERIES, DIM);
    uint64_t *ids = some_ids(ROWS), *order = test_malloc(ROWS * sizeof *order);
    float *scores = test_malloc(QUERIES * ROWS * sizeof *scores);
    lk_hit *hits = test_malloc(QUERIES * ROWS * sizeof *hits);
    size_t counts[QUERIES], *row_of = test_malloc(4 * ROWS * sizeof *row_of);
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 2}, &context), LK_OK);
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_flat *index = index_of((lk_metric)metric, LK_I8, ROWS, DIM, ids, vectors);
        for (size_t i = 0; i < ROWS; i += 7) assert_int_equal(lk_flat_remove(index, ids[i]), LK_OK);
        size_t live = lk_flat_count(index);
        lk_flat_ids(index, order);
        for (size_t i = 0; i < live; i++) row_of[order[i]] = i;
        assert_int_equal(lk_flat_scores(index, context, QUERIES, queries, scores), LK_OK);
        assert_int_equal(lk_flat_search(index, NULL, QUERIES, queries, ROWS, NULL, NULL, hits, counts), LK_OK);
        for (size_t q = 0; q < QUERIES; q++) {
            assert_int_equal(counts[q], live);
            for (size_t i = 0; i < live; i++) {
                const lk_hit *hit = &hits[q * ROWS + i];
                assert_memory_equal(&hit->score, &scores[q * live + row_of[hit->id]], sizeof hit->score);
            }
        }
        lk_flat_free(index);
    }
    lk_context_free(context);
    test_free(vectors), test_free(queries), test_free(ids), test_free(order), test_free(scores), test_free(hits);
    test_free(row_of);
}

static void zero_query_and_zero_vector_have_cosine_zero(void **state)
{
    (void)state;
    float vectors[3 * 2] = {0, 0, 1, 0, -1, 0}, queries[5 * 2] = {0, 0, 3, 0, 0, 0, 0, 0, 0, 0};
    const uint64_t ids[] = {1, 2, 3};
    lk_hit hits[15];
    size_t counts[5];
    lk_flat *index = index_of(LK_COSINE, LK_F32, 3, 2, ids, vectors);
    for (size_t n = 2; n <= 5; n += 3) {
        assert_int_equal(lk_flat_search(index, NULL, n, queries, 3, NULL, NULL, hits, counts), LK_OK);
        for (size_t i = 0; i < 3; i++) {
            assert_true(hits[i].score == 0);
            assert_int_equal(hits[i].id, i + 1);
        }
        assert_true(hits[3].id == 2 && hits[3].score == 1 && hits[4].id == 1 && hits[4].score == 0);
        assert_true(hits[5].id == 3 && hits[5].score == -1);
    }
    lk_flat_free(index);
}

static void senseless_requests_are_refused(void **state)
{
    (void)state;
    lk_flat *index;
    const uint64_t id = 9;
    float vector[2] = {1, 2}, bad[2] = {1, NAN};
    lk_hit hit;
    size_t count = 7;
    lk_context *context;
    assert_int_equal(lk_flat_new(0, LK_L2, LK_F32, &index), LK_INVALID);
    assert_null(index);
    assert_int_equal(lk_flat_new(65537, LK_L2, LK_F32, &index), LK_INVALID);
    assert_int_equal(lk_flat_new(2, (lk_metric)3, LK_F32, &index), LK_INVALID);
    assert_int_equal(lk_flat_new(2, LK_L2, (lk_dtype)-1, &index), LK_INVALID);
    index = index_of(LK_L2, LK_F32, 0, 2, NULL, NULL);
    assert_int_equal(lk_flat_search(index, NULL, 1, vector, 0, NULL, NULL, &hit, &count), LK_INVALID);
    assert_int_equal(lk_flat_search(index, NULL, 1, bad, 1, NULL, NULL, &hit, &count), LK_INVALID);
    assert_int_equal(lk_flat_search(index, NULL, 1, vector, 1, NULL, NULL, &hit, &count), LK_OK);
    assert_int_equal(count, 0); /* nothing is there to be found */
    assert_int_equal(lk_flat_add(index, 1, &id, bad), LK_INVALID);
    assert_int_equal(lk_flat_add(index, 1, &id, vector), LK_OK);
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 1}, &context), LK_OK);
    lk_context_cancel(context);
    assert_int_equal(lk_flat_search(index, context, 1, vector, 1, NULL, NULL, &hit, &count), LK_CANCELLED);
    assert_int_equal(lk_flat_scores(index, context, 1, vector, vector), LK_CANCELLED);
    lk_context_free(context);
    lk_flat_free(index);
    lk_flat_free(NULL);
}

/* More than one chunk of owned rows, so that parts, places and blocks meet. */
static void an_index_of_several_chunks_loses_no_row(void **state)
{
    (void)state;
    enum { ROWS = 700, DIM = 65536, PER_CHUNK = (32 << 20) / DIM, K = 3 };
    lk_flat *index = index_of(LK_INNER_PRODUCT, LK_I8, 0, DIM, NULL, NULL);
    float *vector = test_calloc(5 * DIM, sizeof *vector);
    lk_hit hits[5 * K];
    size_t counts[5];
    for (uint64_t id = 0; id < ROWS; id++) {
        vector[id * 7] = 1 + (float)id;
        assert_int_equal(lk_flat_add(index, 1, &id, vector), LK_OK);
        vector[id * 7] = 0;
    }
    assert_true(ROWS > PER_CHUNK && index->part_count == 2);
    for (size_t i = 0; i < ROWS; i++) vector[i * 7] = 1;
    for (size_t n = 1; n <= 5; n += 4) {
        assert_int_equal(lk_flat_search(index, NULL, n, vector, K, NULL, NULL, hits, counts), LK_OK);
        for (size_t i = 0; i < K; i++) {
            assert_int_equal(hits[i].id, ROWS - 1 - i);
            assert_float_equal(hits[i].score, ROWS - i, 1e-3);
        }
    }
    lk_flat_free(index);
    test_free(vector);
}

static void topk_keeps_what_sorting_would(void **state)
{
    (void)state;
    lk_random random;
    enum { N = 5000 };
    lk_hit *all = test_malloc(N * sizeof *all), *room = test_malloc(lk_topk_capacity(N) * sizeof *room);
    lk_random_seed(&random, 9);
    for (int round = 0; round < 60; round++) {
        size_t n = 1 + (size_t)lk_random_below(&random, N),
               k = 1 + (size_t)lk_random_below(&random, round % 2 ? 20 : n);
        int kinds = round % 3 == 0 ? 3 : 1000000; /* many ties or none */
        lk_topk best;
        lk_topk_init(&best, room, k);
        for (size_t i = 0; i < n; i++) {
            float score = (float)lk_random_below(&random, (uint64_t)kinds);
            if (round % 5 == 1) score = (float)i; /* rising and falling orders too */
            if (round % 5 == 2) score = -(float)i;
            all[i] = (lk_hit){.id = lk_random_u64(&random), .score = score};
            lk_topk_push(&best, all[i].score, all[i].id);
            if (i % 100 == 0) lk_topk_tighten(&best);
        }
        size_t count = lk_topk_finish(&best);
        assert_int_equal(count, k < n ? k : n);
        for (size_t i = 0; i < count; i++) {
            size_t before = 0;
            for (size_t j = 0; j < n; j++)
                before += all[j].score > room[i].score || (all[j].score == room[i].score && all[j].id < room[i].id);
            assert_int_equal(before, i);
            if (count > 300 && i > 20) i += count / 100;
        }
    }
    test_free(all), test_free(room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_and_scores_agree_with_faiss),
        cmocka_unit_test(search_finds_the_k_best_of_a_double_precision_reference),
        cmocka_unit_test(results_depend_neither_on_batches_nor_on_threads),
        cmocka_unit_test(equal_scores_come_in_order_of_id),
        cmocka_unit_test(filter_lets_only_its_ids_through),
        cmocka_unit_test(removed_vectors_are_not_found_and_their_ids_are_free_again),
        cmocka_unit_test(repeated_id_is_refused_and_nothing_is_added),
        cmocka_unit_test(attached_rows_are_searched_where_they_lie),
        cmocka_unit_test(garbage_in_attached_memory_is_never_a_result),
        cmocka_unit_test(distances_far_from_the_origin_stay_exact_in_batches),
        cmocka_unit_test(all_scores_are_those_of_search_in_order_of_ids),
        cmocka_unit_test(zero_query_and_zero_vector_have_cosine_zero),
        cmocka_unit_test(senseless_requests_are_refused),
        cmocka_unit_test(an_index_of_several_chunks_loses_no_row),
        cmocka_unit_test(topk_keeps_what_sorting_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
