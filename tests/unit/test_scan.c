/* Product codes and the fast scan over them: every variant of the kernels against the plain one, codes and distances
 * against those of faiss. */
#include "../fixtures/pq.h"
#include "base/random.h"
#include "index/partitioned/pq.h"

#include "unit.h"

#include <float.h>
#include <math.h>

static size_t variants(const lk_scan_kernels *out[4])
{
    size_t count = 0;
    lk_cpu_features have = lk_cpu_detect();
    static const lk_cpu_features steps[] = {LK_CPU_AVX2, LK_CPU_AVX512, LK_CPU_NEON};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (have & steps[i]) out[count++] = lk_scan_kernels_for(steps[i]);
    return count;
}

static void fill(lk_random *random, void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) ((uint8_t *)bytes)[i] = (uint8_t)lk_random_u64(random);
}

static void every_variant_scans_as_the_plain_one_bit_for_bit(void **state)
{
    (void)state;
    enum { MOST = 200, GROUPS = 256 };
    static uint8_t codes[(MOST / 32 + 1) * GROUPS * 16], tables[GROUPS * 16];
    static int16_t corrections[MOST + 32];
    static float keys[2][MOST + 64];
    static uint32_t positions[2][MOST + 64];
    const lk_scan_kernels *kernels[4];
    size_t count = variants(kernels);
    lk_random random;
    lk_random_seed(&random, 1);
    for (int round = 0; round < 400; round++) {
        size_t n = lk_random_below(&random, MOST + 1), groups = 4 * (1 + lk_random_below(&random, GROUPS / 4));
        fill(&random, codes, sizeof codes);
        fill(&random, tables, sizeof tables);
        fill(&random, corrections, sizeof corrections);
        if (round % 7 == 0) memset(tables, 255, sizeof tables); /* the largest sums */
        lk_scan scan = {.tables = tables, .groups = groups, .scale = 0.37f, .bias = -11, .factor = 1.3f};
        scan.threshold = round % 3 ? (float)groups * 127 * 0.37f : -FLT_MAX; /* about half, or all */
        size_t expected = lk_scan_plain.scan(&scan, codes, corrections, n, 1000, keys[0], positions[0]);
        if (round % 3 == 0) assert_int_equal(expected, n);
        for (size_t v = 0; v < count; v++) {
            assert_int_equal(kernels[v]->scan(&scan, codes, corrections, n, 1000, keys[1], positions[1]), expected);
            assert_memory_equal(keys[0], keys[1], expected * sizeof(float));
            assert_memory_equal(positions[0], positions[1], expected * sizeof(uint32_t));
        }
    }
}

static void the_plain_scan_is_the_sum_of_what_the_codes_pick(void **state)
{
    (void)state;
    enum { N = 45, GROUPS = 8 };
    uint8_t blocks[2 * GROUPS * 16] = {0}, tables[GROUPS * 16], codes[N][GROUPS];
    int16_t corrections[64] = {0};
    float keys[64];
    uint32_t positions[64];
    lk_random random;
    lk_random_seed(&random, 2);
    fill(&random, tables, sizeof tables);
    lk_pq pq = lk_pq_of(GROUPS, GROUPS, NULL);
    for (size_t i = 0; i < N; i++) {
        for (size_t g = 0; g < GROUPS; g++) codes[i][g] = (uint8_t)lk_random_below(&random, 16);
        lk_pq_pack(&pq, codes[i], i % 32, blocks + i / 32 * lk_pq_block(&pq));
        corrections[i] = (int16_t)(i * 3);
    }
    lk_scan scan = {.tables = tables, .groups = GROUPS, .scale = 2, .bias = 5, .factor = -1, .threshold = -FLT_MAX};
    assert_int_equal(lk_scan_plain.scan(&scan, blocks, corrections, N, 7, keys, positions), N);
    for (size_t i = 0; i < N; i++) {
        float sum = 0;
        for (size_t g = 0; g < GROUPS; g++) sum += tables[g * 16 + codes[i][g]];
        assert_true(keys[i] == 2 * sum + 5 - (float)(3 * i));
        assert_int_equal(positions[i], 7 + i);
    }
}

static int falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

static void narrowing_keeps_the_best_in_order_and_few_more(void **state)
{
    (void)state;
    enum { MOST = 900 };
    static float keys[MOST], kept[MOST], sorted[MOST];
    static uint32_t positions[MOST];
    const lk_scan_kernels *kernels[5];
    size_t count = variants(kernels);
    kernels[count++] = &lk_scan_plain;
    lk_random random;
    lk_random_seed(&random, 3);
    for (int round = 0; round < 300; round++) {
        size_t n = 1 + lk_random_below(&random, MOST), wanted = 1 + lk_random_below(&random, n + 3);
        for (size_t i = 0; i < n; i++) /* spread out, few distinct, and all but one alike */
            keys[i] = round % 3 == 0   ? (float)lk_random_normal(&random) * 1e6f
                      : round % 3 == 1 ? (float)lk_random_below(&random, 5)
                                       : (i == n / 2 ? 3e38f : 1);
        memcpy(sorted, keys, sizeof keys);
        qsort(sorted, n, sizeof *sorted, falling);
        for (size_t v = 0; v < count; v++) {
            float threshold = -FLT_MAX;
            memcpy(kept, keys, sizeof keys);
            for (size_t i = 0; i < n; i++) positions[i] = (uint32_t)i;
            size_t left = kernels[v]->narrow(kept, positions, n, wanted, &threshold);
            assert_true(left == n || (left >= wanted && left <= wanted + wanted / 8));
            for (size_t i = 0; i < left; i++) {
                assert_true(kept[i] == keys[positions[i]]);
                assert_true(i == 0 || positions[i] > positions[i - 1]);
                assert_true(kept[i] >= threshold);
            }
            qsort(kept, left, sizeof *kept, falling);
            for (size_t i = 0; i < left && i < wanted; i++) assert_true(kept[i] == sorted[i]);
        }
    }
}

/* Codewords of faiss [group][word][component] in our order [component][word]. */
static void ours(float *codewords)
{
    enum { WIDTH = PQ_DIM / PQ_GROUPS };
    for (size_t g = 0; g < PQ_GROUPS; g++)
        for (size_t j = 0; j < 16; j++)
            for (size_t c = 0; c < WIDTH; c++)
                codewords[(g * WIDTH + c) * 16 + j] = pq_centroids[(g * 16 + j) * WIDTH + c];
}

static void codes_are_those_of_faiss(void **state)
{
    (void)state;
    float codewords[PQ_DIM * 16];
    uint8_t codes[PQ_ROWS * PQ_GROUPS];
    const lk_scan_kernels *kernels[5];
    size_t count = variants(kernels);
    kernels[count++] = &lk_scan_plain;
    ours(codewords);
    for (size_t v = 0; v < count; v++) {
        lk_pq pq = lk_pq_of(PQ_DIM, PQ_GROUPS, codewords);
        pq.kernels = kernels[v];
        lk_pq_encode(&pq, pq_vectors, PQ_ROWS, codes);
        assert_memory_equal(codes, pq_codes, sizeof codes);
    }
}

/* |q - x|^2 = |q|^2 - 2 q.x + |x|^2 with q.x from the scan: off by at most half a step of the tables for each group. */
static void distances_from_the_scan_are_those_of_faiss_up_to_the_tables_rounding(void **state)
{
    (void)state;
    float codewords[PQ_DIM * 16], scratch[PQ_GROUPS * 16], decoded[PQ_DIM], keys[64];
    uint8_t tables[PQ_GROUPS * 16], blocks[2 * PQ_GROUPS * 16] = {0};
    int16_t corrections[64] = {0};
    uint32_t positions[64];
    const lk_scan_kernels *kernels[5];
    size_t count = variants(kernels);
    kernels[count++] = &lk_scan_plain;
    ours(codewords);
    lk_pq pq = lk_pq_of(PQ_DIM, PQ_GROUPS, codewords);
    for (size_t i = 0; i < PQ_ROWS; i++)
        lk_pq_pack(&pq, pq_codes + i * PQ_GROUPS, i % 32, blocks + i / 32 * lk_pq_block(&pq));
    for (size_t q = 0; q < PQ_QUERIES * count; q++) {
        const float *query = pq_queries + q % PQ_QUERIES * PQ_DIM;
        float scale, bias, own = 0;
        pq.kernels = kernels[q / PQ_QUERIES];
        lk_pq_tables(&pq, query, scratch, tables, &scale, &bias);
        lk_scan scan = {.tables = tables, .groups = pq.padded, .scale = scale, .bias = bias, .threshold = -FLT_MAX};
        assert_int_equal(pq.kernels->scan(&scan, blocks, corrections, PQ_ROWS, 0, keys, positions), PQ_ROWS);
        for (size_t c = 0; c < PQ_DIM; c++) own += query[c] * query[c];
        for (size_t i = 0; i < PQ_ROWS; i++) {
            float square = 0;
            lk_pq_decode(&pq, pq_codes + i * PQ_GROUPS, decoded);
            for (size_t c = 0; c < PQ_DIM; c++) square += decoded[c] * decoded[c];
            float distance = own - 2 * keys[i] + square, expected = pq_distances[q % PQ_QUERIES * PQ_ROWS + i];
            assert_true(fabsf(distance - expected) <= scale * PQ_GROUPS * 1.01f + 1e-4f);
        }
    }
}

static void trained_codewords_are_nearly_as_good_as_those_of_faiss(void **state)
{
    (void)state;
    enum { N = 2000 };
    float theirs[PQ_DIM * 16], codewords[PQ_DIM * 16], decoded[PQ_DIM];
    float *x = malloc(sizeof *x * N * PQ_DIM);
    uint8_t codes[PQ_GROUPS];
    double errors[2] = {0, 0};
    lk_random random;
    lk_random_seed(&random, 4);
    /* Vectors like those of the fixture: mixtures of its rows. */
    for (size_t i = 0; i < N; i++) {
        const float *a = pq_vectors + lk_random_below(&random, PQ_ROWS) * PQ_DIM;
        for (size_t c = 0; c < PQ_DIM; c++) x[i * PQ_DIM + c] = a[c] + 0.3f * (float)lk_random_normal(&random);
    }
    ours(theirs);
    assert_int_equal(lk_pq_train(NULL, x, N, PQ_DIM, PQ_GROUPS, 9, codewords), LK_OK);
    for (int which = 0; which < 2; which++) {
        lk_pq pq = lk_pq_of(PQ_DIM, PQ_GROUPS, which ? theirs : codewords);
        for (size_t i = 0; i < N; i++) {
            lk_pq_encode(&pq, x + i * PQ_DIM, 1, codes);
            lk_pq_decode(&pq, codes, decoded);
            for (size_t c = 0; c < PQ_DIM; c++)
                errors[which] += (x[i * PQ_DIM + c] - decoded[c]) * (x[i * PQ_DIM + c] - decoded[c]);
        }
    }
    assert_true(errors[0] < errors[1]); /* learnt from the very vectors, while theirs come from others */
    free(x);
}

static double loss(const lk_pq *pq, const float *x, float eta, const uint8_t *codes)
{
    float decoded[PQ_DIM];
    double square = 0, along = 0, length = 0;
    lk_pq_decode(pq, codes, decoded);
    for (size_t c = 0; c < PQ_DIM; c++) {
        square += (x[c] - decoded[c]) * (x[c] - decoded[c]);
        along += (x[c] - decoded[c]) * x[c];
        length += x[c] * x[c];
    }
    return square + (eta - 1) * along * along / length;
}

static void bending_makes_errors_along_the_vector_smaller(void **state)
{
    (void)state;
    float codewords[PQ_DIM * 16];
    ours(codewords);
    lk_pq pq = lk_pq_of(PQ_DIM, PQ_GROUPS, codewords);
    double before = 0, after = 0;
    for (size_t i = 0; i < PQ_ROWS; i++) {
        uint8_t codes[PQ_GROUPS];
        const float *x = pq_vectors + i * PQ_DIM;
        memcpy(codes, pq_codes + i * PQ_GROUPS, sizeof codes);
        before += loss(&pq, x, 4, codes);
        lk_pq_bend(&pq, x, x, 4, codes);
        assert_true(loss(&pq, x, 4, codes) <= loss(&pq, x, 4, pq_codes + i * PQ_GROUPS) * 1.00001);
        after += loss(&pq, x, 4, codes);
        memcpy(codes, pq_codes + i * PQ_GROUPS, sizeof codes);
        lk_pq_bend(&pq, x, x, 1, codes); /* no direction counts more: the nearest codewords are best already */
        assert_memory_equal(codes, pq_codes + i * PQ_GROUPS, sizeof codes);
    }
    assert_true(after < 0.9 * before);
}

static void what_runs_here_is_among_the_variants(void **state)
{
    (void)state;
    const lk_scan_kernels *kernels[4], *chosen = lk_scan_kernels_for(lk_cpu_detect());
    size_t count = variants(kernels), found = chosen == &lk_scan_plain && count == 0;
    for (size_t v = 0; v < count; v++) found += kernels[v] == chosen;
    assert_int_equal(found, 1);
#if defined(__aarch64__)
    assert_ptr_equal(chosen, &lk_scan_neon);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_scans_as_the_plain_one_bit_for_bit),
        cmocka_unit_test(the_plain_scan_is_the_sum_of_what_the_codes_pick),
        cmocka_unit_test(narrowing_keeps_the_best_in_order_and_few_more),
        cmocka_unit_test(codes_are_those_of_faiss),
        cmocka_unit_test(distances_from_the_scan_are_those_of_faiss_up_to_the_tables_rounding),
        cmocka_unit_test(trained_codewords_are_nearly_as_good_as_those_of_faiss),
        cmocka_unit_test(bending_makes_errors_along_the_vector_smaller),
        cmocka_unit_test(what_runs_here_is_among_the_variants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
