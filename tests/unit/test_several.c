/* Ranges, several vectors as one query, and results that differ: of every kind of index, against looking at everything.
 */
#include "base/random.h"
#include "index/partitioned/partitioned_ann.h"
#include <likeness/partitioned.h>

#include "unit.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

enum { N = 3000, DIM = 19, QUERIES = 20, K = 10, KINDS = 4 };

static float vectors[N * DIM], queries[QUERIES * DIM];
static uint64_t ids[N];

/* Fifty groups; every seventh vector is nearly the one before it. */
static int make_vectors(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 5);
    static float centres[50 * DIM];
    for (int i = 0; i < 50 * DIM; i++) centres[i] = (float)lk_random_normal(&random);
    for (int i = 0; i < N + QUERIES; i++) {
        float *row = i < N ? vectors + i * DIM : queries + (i - N) * DIM;
        const float *near = i < N && i % 7 == 6 ? row - DIM : centres + lk_random_below(&random, 50) * DIM;
        float noise = i < N && i % 7 == 6 ? 0.001f : 0.5f;
        for (int c = 0; c < DIM; c++) row[c] = near[c] + noise * (float)lk_random_normal(&random);
    }
    for (uint64_t i = 0; i < N; i++) ids[i] = 5 + 3 * i;
    return 0;
}

/* ---- the kinds ---- */

typedef struct kinds {
    lk_metric metric;
    lk_flat *flat;
    lk_graph_index *graph;
    lk_partitioned *exact, *coded; /* copies of f32, of int8 */
} kinds;

static kinds make_kinds(lk_metric metric)
{
    kinds k = {.metric = metric};
    lk_partitioned_options f32 = {.refine = LK_REFINE_F32};
    assert_int_equal(lk_flat_new(DIM, metric, LK_F32, &k.flat), LK_OK);
    assert_int_equal(lk_flat_add(k.flat, N, ids, vectors), LK_OK);
    assert_int_equal(lk_graph_index_build(NULL, NULL, metric, DIM, N, ids, vectors, &k.graph), LK_OK);
    assert_int_equal(lk_partitioned_build_memory(NULL, N, DIM, vectors, ids, metric, &f32, &k.exact), LK_OK);
    assert_int_equal(lk_partitioned_build_memory(NULL, N, DIM, vectors, ids, metric, NULL, &k.coded), LK_OK);
    return k;
}

static void drop_kinds(kinds *k)
{
    lk_flat_free(k->flat);
    lk_graph_index_free(k->graph);
    lk_partitioned_free(k->exact);
    lk_partitioned_free(k->coded);
}

static const lk_partitioned_effort whole = {.probes = 1000, .refined = N};

static void several(const kinds *k, int kind, size_t m, const float *v, lk_fusion fusion, lk_id_filter filter,
                    lk_hit *hits, size_t *count)
{
    lk_status s = LK_INVALID;
    if (kind == 0) s = lk_flat_search_several(k->flat, NULL, m, v, fusion, K, filter, NULL, hits, count);
    if (kind == 1) s = lk_graph_index_search_several(k->graph, NULL, 200, m, v, fusion, K, filter, NULL, hits, count);
    if (kind == 2) s = lk_partitioned_search_several(k->exact, NULL, whole, m, v, fusion, K, filter, NULL, hits, count);
    if (kind == 3) s = lk_partitioned_search_several(k->coded, NULL, whole, m, v, fusion, K, filter, NULL, hits, count);
    assert_int_equal(s, LK_OK);
}

static void diverse(const kinds *k, int kind, lk_diversity how, size_t n, const float *q, lk_id_filter filter,
                    lk_hit *hits, size_t *counts)
{
    lk_status s = LK_INVALID;
    if (kind == 0) s = lk_flat_search_diverse(k->flat, NULL, how, n, q, K, filter, NULL, hits, counts);
    if (kind == 1) s = lk_graph_index_search_diverse(k->graph, NULL, 200, how, n, q, K, filter, NULL, hits, counts);
    if (kind == 2) s = lk_partitioned_search_diverse(k->exact, NULL, whole, how, n, q, K, filter, NULL, hits, counts);
    if (kind == 3) s = lk_partitioned_search_diverse(k->coded, NULL, whole, how, n, q, K, filter, NULL, hits, counts);
    assert_int_equal(s, LK_OK);
}

/* ---- looking at everything ---- */

static double score(lk_metric metric, const float *a, const float *b)
{
    double dot = 0, aa = 0, bb = 0, l2 = 0;
    for (int c = 0; c < DIM; c++) {
        dot += (double)a[c] * b[c];
        aa += (double)a[c] * a[c];
        bb += (double)b[c] * b[c];
        l2 += ((double)a[c] - b[c]) * ((double)a[c] - b[c]);
    }
    return metric == LK_L2 ? l2 : metric == LK_COSINE ? dot / sqrt(aa * bb) : dot;
}

typedef struct scored {
    double key; /* higher is better */
    int row;
} scored;

static int best_first(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->key > y->key ? -1 : x->key < y->key ? 1 : x->row - y->row;
}

static double fused(lk_metric metric, size_t m, const float *v, lk_fusion fusion, const float *row)
{
    double sum = 0, best = metric == LK_L2 ? INFINITY : -INFINITY;
    for (size_t q = 0; q < m; q++) {
        double s = score(metric, v + q * DIM, row);
        sum += s;
        best = metric == LK_L2 ? fmin(best, s) : fmax(best, s);
    }
    return fusion == LK_FUSE_BEST ? best : fusion == LK_FUSE_SUM ? sum : sum / (double)m;
}

static int two_in_three(void *user, uint64_t id)
{
    (void)user;
    return id % 2 == 0 || id % 5 == 0;
}

static size_t rank(lk_metric metric, size_t m, const float *v, lk_fusion fusion, lk_id_filter filter, scored *out)
{
    size_t n = 0;
    for (int i = 0; i < N; i++) {
        if (filter && !filter(NULL, ids[i])) continue;
        double s = fused(metric, m, v, fusion, vectors + i * DIM);
        out[n++] = (scored){metric == LK_L2 ? -s : s, i};
    }
    qsort(out, n, sizeof *out, best_first);
    return n;
}

static bool close_to(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * (1 + fabs(a) + fabs(b));
}

/* ---- tests ---- */

static void the_fused_score_of_several_vectors_ranks(void **state)
{
    (void)state;
    static scored truth[N];
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        kinds all = make_kinds((lk_metric)metric);
        for (int kind = 0; kind < KINDS; kind++) {
            size_t same = 0, wanted = 0;
            for (int q = 0; q + 3 <= QUERIES; q++) {
                lk_fusion fusion = (lk_fusion)(q % 3);
                lk_id_filter filter = q % 2 ? two_in_three : NULL;
                const float *v = queries + q * DIM;
                lk_hit hits[K];
                size_t count;
                rank((lk_metric)metric, 3, v, fusion, filter, truth);
                several(&all, kind, 3, v, fusion, filter, hits, &count);
                assert_int_equal(count, K);
                for (size_t i = 0; i < count; i++) {
                    const float *row = vectors + (hits[i].id - 5) / 3 * DIM;
                    double tolerance = kind == 0 || kind == 2 ? 1e-5 : 0.03; /* codes of 8 bits */
                    if (!close_to(hits[i].score, fused((lk_metric)metric, 3, v, fusion, row), tolerance))
                        fail_msg("metric %d, kind %d, fusion %d: score %g is %g", metric, kind, (int)fusion,
                                 (double)hits[i].score, fused((lk_metric)metric, 3, v, fusion, row));
                    assert_true(!filter || filter(NULL, hits[i].id));
                    for (size_t j = 0; j < K; j++) same += ids[truth[j].row] == hits[i].id;
                }
                wanted += K;
            }
            double least = kind == 0 || kind == 2 ? 1 : 0.93;
            if ((double)same < least * (double)wanted)
                fail_msg("metric %d, kind %d: %zu of %zu", metric, kind, same, wanted);
        }
        drop_kinds(&all);
    }
}

static void no_result_is_near_a_better_one(void **state)
{
    (void)state;
    static scored truth[N];
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        kinds all = make_kinds((lk_metric)metric);
        lk_diversity how = {.apart = metric == LK_COSINE ? 0.02f : 0.4f};
        lk_metric apart_by = metric == LK_COSINE ? LK_COSINE : LK_L2;
        for (int kind = 0; kind < KINDS; kind++) {
            lk_hit hits[QUERIES * K];
            size_t counts[QUERIES], same = 0;
            diverse(&all, kind, how, QUERIES, queries, kind % 2 ? NULL : two_in_three, hits, counts);
            for (int q = 0; q < QUERIES; q++) {
                const lk_hit *found = hits + q * K;
                size_t n =
                    rank((lk_metric)metric, 1, queries + q * DIM, LK_FUSE_MEAN, kind % 2 ? NULL : two_in_three, truth);
                int kept[K];
                size_t count = 0;
                for (size_t i = 0; i < n && count < K; i++) { /* greedily, as it is promised */
                    bool near = false;
                    for (size_t j = 0; j < count; j++) {
                        double d = score(apart_by, vectors + truth[i].row * DIM, vectors + kept[j] * DIM);
                        near |= (apart_by == LK_COSINE ? 1 - d : d) < (double)how.apart;
                    }
                    if (!near) kept[count++] = truth[i].row;
                }
                assert_int_equal(counts[q], K);
                for (size_t i = 0; i < K; i++) {
                    const float *row = vectors + (found[i].id - 5) / 3 * DIM;
                    for (size_t j = 0; j < i; j++) {
                        double d = score(apart_by, row, vectors + (found[j].id - 5) / 3 * DIM);
                        assert_true((apart_by == LK_COSINE ? 1 - d : d) > 0.9 * (double)how.apart);
                    }
                    bool known = false; /* codes may prefer the twin */
                    for (size_t j = 0; j < count; j++) {
                        double d = score(apart_by, row, vectors + kept[j] * DIM);
                        known |=
                            ids[kept[j]] == found[i].id || (kind == 3 && (apart_by == LK_COSINE ? 1 - d : d) < 1e-3);
                    }
                    same += known;
                }
            }
            double least = kind == 0 || kind == 2 ? 0.999 : 0.9;
            if ((double)same < least * QUERIES * K)
                fail_msg("metric %d, kind %d: %zu of %d", metric, kind, same, QUERIES * K);
        }
        drop_kinds(&all);
    }
}

/* By the definition of Carbonell & Goldstein, among the same candidates. */
static void marginal_relevance_follows_its_definition(void **state)
{
    (void)state;
    enum { POOL = 40 };
    static scored truth[N];
    float pool[POOL * DIM];
    lk_hit hits[POOL];
    size_t chosen[K], count;
    const double trade = 0.5;
    rank(LK_L2, 1, queries, LK_FUSE_MEAN, NULL, truth);
    for (int i = 0; i < POOL; i++) {
        memcpy(pool + i * DIM, vectors + truth[i].row * DIM, DIM * sizeof *pool);
        hits[i] = (lk_hit){(uint64_t)i, (float)-truth[i].key};
    }
    assert_int_equal(
        lk_diversify(LK_L2, DIM, (lk_diversity){.trade = (float)trade}, POOL, hits, pool, K, chosen, &count), LK_OK);
    assert_int_equal(count, K);
    assert_int_equal(chosen[0], 0);
    for (size_t next = 1; next < K; next++) {
        double best = -INFINITY, own = 0;
        for (size_t i = 0; i < POOL; i++) {
            double nearest = INFINITY;
            bool taken = false;
            for (size_t j = 0; j < next; j++) {
                nearest = fmin(nearest, score(LK_L2, pool + i * DIM, pool + chosen[j] * DIM));
                taken |= chosen[j] == i;
            }
            double value = (1 - trade) * truth[i].key + trade * nearest;
            if (i == chosen[next]) own = value;
            if (!taken) best = fmax(best, value);
        }
        assert_true(close_to(own, best, 1e-5));
    }
}

/* The bounds lie between two neighbours of the ranking, so that rounding cannot move one across. */
static void a_range_is_all_that_lies_within(void **state)
{
    (void)state;
    static scored truth[N];
    static lk_hit hits[QUERIES * N];
    size_t counts[QUERIES];
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        kinds all = make_kinds((lk_metric)metric);
        size_t found[3] = {0}, within[3] = {0};
        for (int q = 0; q < QUERIES; q++) {
            const float *query = queries + q * DIM;
            lk_id_filter filter = q % 3 == 2 ? two_in_three : NULL;
            size_t n = rank((lk_metric)metric, 1, query, LK_FUSE_MEAN, filter, truth), edge = (size_t)(q * q);
            while (truth[edge].key - truth[edge + 1].key < 1e-4) edge++;
            double key = (truth[edge].key + truth[edge + 1].key) / 2;
            float bound = (float)(metric == LK_L2 ? -key : key);
            assert_true(edge + 1 < n);
            assert_int_equal(lk_flat_range(all.flat, NULL, 1, query, bound, N, filter, NULL, hits, counts), LK_OK);
            assert_int_equal(counts[0], edge + 1);
            for (size_t i = 0; i <= edge; i++) assert_int_equal(hits[i].id, ids[truth[i].row]);
            assert_int_equal(lk_flat_range(all.flat, NULL, 1, query, bound, 7, filter, NULL, hits, counts), LK_OK);
            assert_int_equal(counts[0], edge + 1 < 7 ? edge + 1 : 7);
            assert_int_equal(
                lk_partitioned_range(all.exact, NULL, whole, 1, query, bound, N, filter, NULL, hits, counts), LK_OK);
            assert_int_equal(counts[0], edge + 1);
            for (size_t i = 0; i <= edge; i++) assert_int_equal(hits[i].id, ids[truth[i].row]);
            for (int kind = 0; kind < 3; kind++) { /* with little effort most of it */
                lk_partitioned_effort little = {.probes = 8};
                lk_status s =
                    kind == 0
                        ? lk_partitioned_range(all.exact, NULL, little, 1, query, bound, N, filter, NULL, hits, counts)
                    : kind == 1
                        ? lk_partitioned_range(all.coded, NULL, little, 1, query, bound, N, filter, NULL, hits, counts)
                        : lk_graph_index_range(all.graph, NULL, 20, 1, query, bound, N, filter, NULL, hits, counts);
                assert_int_equal(s, LK_OK);
                within[kind] += edge + 1;
                for (size_t i = 0; i < counts[0]; i++) {
                    assert_true(metric == LK_L2 ? hits[i].score <= bound : hits[i].score >= bound);
                    assert_true(!filter || filter(NULL, hits[i].id));
                    for (size_t j = 0; j <= edge; j++) found[kind] += ids[truth[j].row] == hits[i].id;
                }
            }
        }
        for (int kind = 0; kind < 3; kind++)
            if ((double)found[kind] < 0.95 * (double)within[kind])
                fail_msg("metric %d, kind %d: %zu of %zu", metric, kind, found[kind], within[kind]);
        drop_kinds(&all);
    }
}

static void a_batch_of_ranges_is_one_after_the_other(void **state)
{
    (void)state;
    enum { MOST = 50 };
    lk_context *context;
    lk_context_options options = {.threads = 3};
    assert_int_equal(lk_context_new(&options, &context), LK_OK);
    kinds all = make_kinds(LK_L2);
    lk_hit batch[QUERIES * MOST], one[MOST];
    size_t counts[QUERIES], count;
    const float bound = 12;
    for (int kind = 0; kind < 3; kind++) {
        lk_partitioned_effort e = {0};
        lk_status s =
            kind == 0 ? lk_flat_range(all.flat, context, QUERIES, queries, bound, MOST, NULL, NULL, batch, counts)
            : kind == 1
                ? lk_graph_index_range(all.graph, context, 30, QUERIES, queries, bound, MOST, NULL, NULL, batch, counts)
                : lk_partitioned_range(all.coded, context, e, QUERIES, queries, bound, MOST, NULL, NULL, batch, counts);
        assert_int_equal(s, LK_OK);
        for (int q = 0; q < QUERIES; q++) {
            const float *query = queries + q * DIM;
            s = kind == 0   ? lk_flat_range(all.flat, NULL, 1, query, bound, MOST, NULL, NULL, one, &count)
                : kind == 1 ? lk_graph_index_range(all.graph, NULL, 30, 1, query, bound, MOST, NULL, NULL, one, &count)
                            : lk_partitioned_range(all.coded, NULL, e, 1, query, bound, MOST, NULL, NULL, one, &count);
            assert_int_equal(s, LK_OK);
            assert_int_equal(count, counts[q]);
            for (size_t i = 0; i < count; i++) assert_true(one[i].id == batch[q * MOST + i].id);
        }
    }
    drop_kinds(&all);
    lk_context_free(context);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    lk_hit hits[K];
    size_t counts[1], chosen[K];
    float bad[DIM] = {NAN};
    kinds all = make_kinds(LK_COSINE);
    assert_int_equal(lk_flat_range(all.flat, NULL, 1, queries, NAN, K, NULL, NULL, hits, counts), LK_INVALID);
    assert_int_equal(lk_flat_range(all.flat, NULL, 1, queries, 0, 0, NULL, NULL, hits, counts), LK_INVALID);
    assert_int_equal(lk_graph_index_range(all.graph, NULL, 9, 1, queries, NAN, K, NULL, NULL, hits, counts),
                     LK_INVALID);
    assert_int_equal(lk_graph_index_range(all.graph, NULL, 9, 1, bad, 0, K, NULL, NULL, hits, counts), LK_INVALID);
    assert_int_equal(lk_partitioned_range(all.coded, NULL, whole, 1, queries, NAN, K, NULL, NULL, hits, counts),
                     LK_INVALID);
    assert_int_equal(lk_partitioned_range(all.coded, NULL, whole, 1, bad, 0, K, NULL, NULL, hits, counts), LK_INVALID);
    assert_int_equal(lk_flat_search_several(all.flat, NULL, 0, queries, LK_FUSE_MEAN, K, NULL, NULL, hits, counts),
                     LK_INVALID);
    assert_int_equal(lk_flat_search_several(all.flat, NULL, 1, bad, LK_FUSE_BEST, K, NULL, NULL, hits, counts),
                     LK_INVALID);
    assert_int_equal(lk_flat_search_several(all.flat, NULL, 1, queries, (lk_fusion)9, K, NULL, NULL, hits, counts),
                     LK_INVALID);
    static const lk_diversity wrong[] = {{.apart = -1}, {.apart = NAN}, {.trade = 1.5f}, {.trade = -0.5f}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(lk_diversify(LK_COSINE, DIM, wrong[i], K, hits, vectors, K, chosen, counts), LK_INVALID);
    drop_kinds(&all);
}

/* ---- one beside the other ---- */

static int pass_one_in_ten(void *user, uint64_t id)
{
    (void)user;
    return id / 3 % 10 == 0;
}

/* On one graph and one pool of threads; each thread does its kind of work until all have done enough. */
typedef struct crowd {
    lk_context *context;
    lk_graph_index *graph;
    atomic_int done[4]; /* batches, another's batches, batches with a filter, writes */
    atomic_int failures;
    atomic_bool over;
} crowd;

static void *search_batches(crowd *c, int kind, lk_id_filter filter)
{
    static _Thread_local lk_hit hits[N / 4 * K];
    static _Thread_local size_t counts[N / 4];
    while (!atomic_load(&c->over)) {
        if (lk_graph_index_search(c->graph, c->context, 64, N / 4, vectors, K, filter, NULL, hits, counts) != LK_OK)
            atomic_fetch_add(&c->failures, 1);
        atomic_fetch_add(&c->done[kind], 1);
    }
    return NULL;
}

static void *search_all_batches(void *arg)
{
    return search_batches(arg, 0, NULL);
}

static void *search_other_batches(void *arg)
{
    return search_batches(arg, 1, NULL);
}

static void *search_filtered(void *arg)
{
    return search_batches(arg, 2, pass_one_in_ten);
}

static void *write_on(void *arg)
{
    crowd *c = arg;
    for (uint64_t id = 1000000; !atomic_load(&c->over); id++) {
        if (lk_graph_index_add(c->graph, c->context, 1, &id, vectors) != LK_OK ||
            lk_graph_index_remove(c->graph, id) != LK_OK)
            atomic_fetch_add(&c->failures, 1);
        atomic_fetch_add(&c->done[3], 1);
    }
    return NULL;
}

static void batches_filters_and_writers_share_a_pool(void **state)
{
    (void)state;
    enum { ENOUGH = 20, PATIENCE = 240 }; /* seconds, for a standstill */
    crowd c = {0};
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 2}, &c.context), LK_OK);
    assert_int_equal(lk_graph_index_build(NULL, NULL, LK_L2, DIM, N, ids, vectors, &c.graph), LK_OK);
    void *(*const work[])(void *) = {search_all_batches, search_other_batches, search_filtered, write_on};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, work[i], &c), 0);
    bool enough = false;
    for (int i = 0; i < 100 * PATIENCE && !enough; i++) {
        usleep(10000);
        enough = true;
        for (int k = 0; k < 4; k++) enough = enough && atomic_load(&c.done[k]) >= ENOUGH;
    }
    if (!enough) fail_msg("%d, %d, %d, %d: they wait for each other", c.done[0], c.done[1], c.done[2], c.done[3]);
    atomic_store(&c.over, true);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    assert_int_equal(c.failures, 0);
    lk_graph_index_free(c.graph);
    lk_context_free(c.context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fused_score_of_several_vectors_ranks),  cmocka_unit_test(no_result_is_near_a_better_one),
        cmocka_unit_test(marginal_relevance_follows_its_definition), cmocka_unit_test(a_range_is_all_that_lies_within),
        cmocka_unit_test(a_batch_of_ranges_is_one_after_the_other),  cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(batches_filters_and_writers_share_a_pool),
    };
    return cmocka_run_group_tests(tests, make_vectors, NULL);
}
