/* Code kernels against the plain ones at every odd length, and what the quantisers built on them promise. */
#include "base/random.h"
#include "index/codes.h"
#include "index/quantise.h"
#include "index/rabitq.h"
#include <likeness/codes.h>

#include "unit.h"

#include <math.h>

enum { MOST = 1100 };

static const lk_code_kernels *variants[8];
static int variant_count;

static int find_variants(void **state)
{
    (void)state;
    unsetenv("LIKENESS_CPU");
    unsigned has = lk_cpu_detect();
    static const unsigned sets[] = {LK_CPU_AVX2, LK_CPU_AVX512, LK_CPU_AVX512 | LK_CPU_AVX512_VNNI,
                                    LK_CPU_AVX512 | LK_CPU_AVX512_VNNI | LK_CPU_AVX512_VPOPCNT, LK_CPU_NEON};
    variant_count = 0;
    variants[variant_count++] = &lk_codes_plain;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if ((has & sets[i]) == sets[i]) variants[variant_count++] = lk_code_kernels_for((lk_cpu_features)sets[i]);
    for (int i = 0; i < variant_count; i++) print_message("variant %s\n", variants[i]->name);
    return 0;
}

/* Every length up to 300, then some. Codes and query are unaligned; the first round has the largest values. */
static size_t pick_length(lk_random *random, size_t round)
{
    return round < 300 ? round + 1 : 1 + (size_t)lk_random_below(random, MOST);
}

static void fill(lk_random *random, void *out, size_t n, size_t round)
{
    unsigned char *bytes = out;
    for (size_t i = 0; i < n; i++) bytes[i] = round % 50 == 7 ? 0xff : (unsigned char)lk_random_below(random, 256);
}

static void products_of_codes_are_exact_at_every_length(void **state)
{
    (void)state;
    lk_random random;
    int8_t query_bytes[MOST + 1], *query = query_bytes + 1;
    uint8_t code_bytes[MOST + 3], *code = code_bytes + 3, other[MOST];
    lk_random_seed(&random, 1);
    for (size_t round = 0; round < 500; round++) {
        size_t n = pick_length(&random, round);
        fill(&random, code, n, round);
        fill(&random, other, n, round + 1);
        fill(&random, query, n, 0);
        if (round % 50 == 7) memset(query, round % 100 == 7 ? -128 : 127, n);
        int32_t u8 = 0, u4 = 0, b1 = 0;
        uint64_t differ = 0;
        for (size_t i = 0; i < n; i++) {
            u8 += query[i] * code[i];
            u4 += query[i] * (code[i / 2] >> (i % 2 * 4) & 15);
            b1 += (code[i / 8] >> (i % 8) & 1) ? query[i] : 0;
            for (int b = 0; b < 8; b++) differ += (code[i] >> b & 1) != (other[i] >> b & 1);
        }
        for (int v = 0; v < variant_count; v++) {
            assert_int_equal(variants[v]->dot_u8(query, code, n), u8);
            assert_int_equal(variants[v]->dot_u4(query, code, n), u4);
            assert_int_equal(variants[v]->dot_b1(query, code, n), b1);
            assert_int_equal(variants[v]->hamming(code, other, n), differ);
        }
    }
}

static void gathered_distances_are_exact_for_every_count(void **state)
{
    (void)state;
    enum { ROWS = 40, WIDEST = 320 };
    lk_random random;
    uint8_t *codes = aligned_alloc(64, ROWS * WIDEST);
    int16_t query[WIDEST];
    uint32_t rows[ROWS], out[ROWS + 1];
    lk_random_seed(&random, 2);
    assert_non_null(codes);
    for (size_t round = 0; round < 300; round++) {
        size_t dim = 64 * (1 + (size_t)lk_random_below(&random, 5)), n = (size_t)lk_random_below(&random, ROWS + 1);
        fill(&random, codes, ROWS * dim, round);
        for (size_t i = 0; i < dim; i++)
            query[i] = round % 3 ? (int16_t)((int)lk_random_below(&random, 766) - 255)
                                 : (int16_t)(round % 2 ? LK_CODES_QUERY_MIN : LK_CODES_QUERY_MAX);
        for (size_t i = 0; i < n; i++) rows[i] = (uint32_t)lk_random_below(&random, ROWS);
        for (int v = 0; v < variant_count; v++) {
            out[n] = 42;
            variants[v]->l2_u8_rows(query, codes, dim, rows, n, dim, out);
            for (size_t r = 0; r < n; r++) {
                uint32_t sum = 0;
                for (size_t i = 0; i < dim; i++) {
                    int32_t difference = query[i] - codes[rows[r] * dim + i];
                    sum += (uint32_t)(difference * difference);
                }
                assert_int_equal(out[r], sum);
            }
            assert_int_equal(out[n], 42);
        }
    }
    free(codes);
}

/* To the bit: ranks follow from these sums, and codes from these transforms. */
static void residual_distances_and_transforms_are_the_same_in_all_variants(void **state)
{
    (void)state;
    enum { WIDEST = 1024 };
    lk_random random;
    float query[WIDEST], vector[WIDEST], expected[WIDEST], got[WIDEST];
    uint8_t code[WIDEST];
    int8_t residual[WIDEST];
    lk_random_seed(&random, 11);
    for (size_t round = 0; round < 200; round++) {
        size_t dim = 16 * (1 + (size_t)lk_random_below(&random, WIDEST / 16)), power = (size_t)1 << round % 11;
        double exact = 0;
        fill(&random, code, dim, round);
        fill(&random, residual, dim, round + 1);
        for (size_t i = 0; i < dim; i++) query[i] = 128 + 100 * (float)lk_random_normal(&random);
        for (size_t i = 0; i < power; i++) vector[i] = (float)lk_random_normal(&random);
        for (size_t i = 0; i < dim; i++)
            exact += pow((double)query[i] - code[i] - (round % 2 ? residual[i] / 256.0 : 0), 2);
        float distance = lk_plain_l2_residual(query, code, round % 2 ? residual : NULL, dim);
        assert_true(fabs((double)distance - exact) <= 1e-5 * exact);
        memcpy(expected, vector, sizeof vector);
        lk_plain_hadamard(expected, power);
        for (int v = 0; v < variant_count; v++) {
            assert_true(variants[v]->l2_residual(query, code, round % 2 ? residual : NULL, dim) == distance);
            memcpy(got, vector, sizeof vector);
            variants[v]->hadamard(got, power);
            assert_memory_equal(got, expected, power * sizeof *got);
        }
        lk_plain_hadamard(expected, power); /* its own inverse */
        for (size_t i = 0; i < power; i++) assert_true(fabsf(expected[i] - vector[i]) <= 1e-5f * 4);
    }
}

static void unmarked_links_come_in_order_up_to_the_first_invalid(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    lk_random random;
    uint64_t marks[COUNT / 64 + 1];
    uint32_t links[100], out[100 + 16];
    lk_random_seed(&random, 3);
    for (size_t round = 0; round < 2000; round++) {
        size_t n = (size_t)lk_random_below(&random, 101), expected = 0;
        uint32_t wanted[100];
        for (size_t i = 0; i < COUNT / 64 + 1; i++) marks[i] = lk_random_u64(&random);
        for (size_t i = 0; i < n; i++) {
            links[i] = (uint32_t)lk_random_below(&random, COUNT);
            if (lk_random_below(&random, 60) == 0) links[i] = lk_random_below(&random, 2) ? COUNT : UINT32_MAX;
        }
        for (size_t i = 0; i < n && links[i] < COUNT; i++)
            if (!(marks[links[i] / 64] >> (links[i] % 64) & 1)) wanted[expected++] = links[i];
        for (int v = 0; v < variant_count; v++) {
            assert_int_equal(variants[v]->unmarked(links, n, COUNT, marks, out), expected);
            assert_memory_equal(out, wanted, expected * sizeof *out);
        }
    }
}

static void bf16_is_scored_within_rounding(void **state)
{
    (void)state;
    lk_random random;
    float query[MOST];
    uint16_t row[MOST];
    lk_random_seed(&random, 4);
    for (size_t round = 0; round < 400; round++) {
        size_t n = pick_length(&random, round);
        double dot = 0, l2 = 0, dot_bound = 0;
        for (size_t i = 0; i < n; i++) {
            float value = (float)lk_random_normal(&random);
            uint32_t bits;
            query[i] = (float)lk_random_normal(&random);
            memcpy(&bits, &value, 4);
            row[i] = (uint16_t)(bits >> 16);
            bits &= 0xffff0000u;
            memcpy(&value, &bits, 4);
            dot += (double)query[i] * value;
            dot_bound += fabs((double)query[i] * value);
            l2 += ((double)query[i] - value) * ((double)query[i] - value);
        }
        for (int v = 0; v < variant_count; v++) {
            assert_true(fabs(variants[v]->dot_bf16(query, row, n) - dot) <= (double)(n + 8) * 0x1p-24 * dot_bound);
            assert_true(fabs(variants[v]->l2_bf16(query, row, n) - l2) <= (double)(n + 8) * 0x1p-23 * l2);
        }
    }
}

static void rotation_keeps_lengths_and_angles_and_can_be_undone(void **state)
{
    (void)state;
    static const size_t dims[] = {1, 2, 3, 7, 64, 100, 128, 129, 500, 512, 1000};
    lk_random random;
    lk_random_seed(&random, 5);
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        size_t n = dims[d];
        lk_rotation rotation;
        float a[1000] = {0}, b[1000], x[1000];
        double before = 0, after = 0, largest = 0;
        assert_int_equal(lk_rotation_init(&rotation, n, 6), LK_OK);
        a[n / 2] = 3; /* along one axis: the worst case */
        for (size_t i = 0; i < n; i++) before += (double)a[i] * (b[i] = (float)lk_random_normal(&random));
        memcpy(x, a, n * sizeof *x);
        lk_rotate(&rotation, x);
        lk_rotate(&rotation, b);
        for (size_t i = 0; i < n; i++) {
            after += (double)x[i] * b[i];
            if (fabs((double)x[i]) > largest) largest = fabs((double)x[i]);
        }
        assert_true(fabs(after - before) < 1e-4 * (1 + fabs(before)));
        /* Spread: no component is larger than a normal one of that length will be. */
        if (n >= 64) assert_true(largest < 3 * 5 / sqrt((double)n));
        lk_rotate_back(&rotation, x);
        for (size_t i = 0; i < n; i++) assert_true(fabs((double)x[i] - (double)a[i]) < 1e-5);
        lk_rotation_free(&rotation);
    }
}

static void scalar_codes_stay_within_half_a_step(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 7);
    for (size_t dim = 1; dim < 140; dim += 3) {
        float vector[140], back[140];
        uint8_t code[140];
        lk_lvq_factors factors;
        for (size_t i = 0; i < dim; i++) vector[i] = (float)(5 + 3 * lk_random_normal(&random));
        for (int bits = 4; bits <= 8; bits += 4) {
            lk_lvq_encode(bits, dim, vector, code, &factors);
            lk_lvq_decode(bits, dim, code, &factors, back);
            for (size_t i = 0; i < dim; i++)
                assert_true(fabs((double)vector[i] - (double)back[i]) <= 0.5001 * (double)factors.scale + 1e-6);
        }
    }
}

static void common_grid_is_exact_for_bytes_and_fine_with_residuals(void **state)
{
    (void)state;
    enum { N = 300 };
    lk_random random;
    lk_random_seed(&random, 8);
    for (size_t dim = 1; dim < 140; dim += 13) {
        float *vectors = test_malloc(N * dim * sizeof *vectors), units[192], back[140];
        uint8_t code[192];
        int8_t residual[192];
        lk_sq8 q;
        for (int whole = 0; whole < 2; whole++) {
            for (size_t i = 0; i < N * dim; i++)
                vectors[i] = whole ? (float)lk_random_below(&random, 256) - 1000 : (float)lk_random_normal(&random);
            assert_int_equal(lk_sq8_train(&q, N, dim, vectors, 9), LK_OK);
            assert_int_equal(q.exact, whole);
            double worst = 0, worst_residual = 0;
            for (size_t r = 0; r < N; r++) {
                lk_sq8_units(&q, vectors + r * dim, units);
                lk_sq8_encode(&q, units, code, residual);
                for (int fine = 0; fine < 2; fine++) {
                    double squares = 0;
                    lk_sq8_decode(&q, code, fine ? residual : NULL, back);
                    for (size_t i = 0; i < dim; i++) {
                        double difference = (double)back[i] - (double)vectors[r * dim + i];
                        squares += difference * difference;
                    }
                    double rms = sqrt(squares / (double)dim) / (double)q.step;
                    if (fine)
                        worst_residual = fmax(worst_residual, rms);
                    else
                        worst = fmax(worst, rms);
                }
            }
            if (whole) assert_true(worst == 0 && worst_residual == 0);
            assert_true(worst <= 0.51);
            assert_true(worst_residual <= 0.51 / 256 + 1e-4); /* and the rounding of the rotation */
            lk_sq8_free(&q);
        }
        test_free(vectors);
    }
}

/* Estimates of inner products with randomly rotated vectors: unbiased, within the bound as often as the theory says,
 * and closer by about half with every bit. */
static void rabitq_estimates_are_unbiased_and_bounded(void **state)
{
    (void)state;
    enum { PAIRS = 400 };
    static const size_t dims[] = {64, 100, 131};
    lk_random random;
    lk_random_seed(&random, 10);
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        size_t dim = dims[d];
        double last = 1e9;
        for (int bits = 1; bits <= 7; bits++) {
            double bias = 0, squares = 0;
            size_t outside = 0;
            for (size_t pair = 0; pair < PAIRS; pair++) {
                float r[131], q[131];
                uint8_t code[131];
                int8_t components[131];
                lk_rotation rotation;
                lk_rabitq_factors factors;
                lk_rabitq_query query;
                double exact = 0, length_r = 0, length_q = 0;
                float bound;
                for (size_t i = 0; i < dim; i++) { /* sparse and correlated: what rotation is for */
                    r[i] = lk_random_below(&random, 4) == 0 ? (float)lk_random_normal(&random) : 0;
                    q[i] = 0.6f * r[i] + 0.3f * (float)lk_random_normal(&random);
                    exact += (double)r[i] * q[i];
                    length_r += (double)r[i] * r[i];
                    length_q += (double)q[i] * q[i];
                }
                assert_int_equal(lk_rotation_init(&rotation, dim, pair), LK_OK);
                lk_rotate(&rotation, r);
                lk_rotate(&rotation, q);
                lk_rotation_free(&rotation);
                assert_int_equal(lk_rabitq_encode(bits, dim, r, code, &factors), LK_OK);
                lk_rabitq_query_init(&query, dim, q, pair, components);
                double error = (double)lk_rabitq_dot(&lk_codes_plain, bits, &query, code, &factors, &bound) - exact;
                for (int v = 1; v < variant_count; v++) {
                    float again = lk_rabitq_dot(variants[v], bits, &query, code, &factors, NULL);
                    assert_true((double)again - exact == error); /* whole numbers: the same in every variant */
                }
                outside += fabs(error) > (double)bound;
                error /= sqrt(length_r * length_q);
                bias += error / PAIRS;
                squares += error * error / PAIRS;
            }
            double spread = sqrt(squares);
            if (fabs(bias) > 4 * spread / sqrt((double)PAIRS))
                fail_msg("%d bits: bias %g, spread %g", bits, bias, spread);
            if (outside > PAIRS * 8 / 100) fail_msg("%d bits: %zu of %d outside", bits, outside, PAIRS);
            if (bits <= 5 && spread > 0.7 * last) fail_msg("%d bits: spread %g after %g", bits, spread, last);
            last = spread;
        }
    }
}

static void rabitq_decodes_to_the_nearest_direction(void **state)
{
    (void)state;
    lk_random random;
    float r[90], back[90], zero[90] = {0};
    uint8_t code[90];
    lk_rabitq_factors factors;
    lk_random_seed(&random, 11);
    for (int bits = 1; bits <= 8; bits++) {
        double dot = 0, a = 0, b = 0;
        for (size_t i = 0; i < 90; i++) r[i] = (float)lk_random_normal(&random);
        assert_int_equal(lk_rabitq_encode(bits, 90, r, code, &factors), LK_OK);
        lk_rabitq_decode(bits, 90, code, &factors, back);
        for (size_t i = 0; i < 90; i++) {
            dot += (double)r[i] * back[i];
            a += (double)r[i] * r[i];
            b += (double)back[i] * back[i];
        }
        double cosine = dot / sqrt(a * b);
        assert_true(1 - cosine < 0.3 * pow(0.3, bits - 1)); /* 1 - sqrt(2 / pi) = 0.2 for signs */
        assert_true(fabs(dot - a) < 1e-4 * a);              /* the estimate of <r, r> is exact */
        assert_int_equal(lk_rabitq_encode(bits, 90, zero, code, &factors), LK_OK);
        assert_true(factors.scale == 0 && factors.squares == 0 && factors.error == 0);
    }
}

/* Of any vectors, in every metric, kind and number of bits: against products in double precision. */
static void estimated_scores_keep_to_their_bounds(void **state)
{
    (void)state;
    enum { N = 200, DIM = 75, QUERIES = 5 };
    static const struct {
        lk_codes_kind kind;
        int bits;
        double error; /* of a score, as a share of the lengths */
    } cases[] = {{LK_CODES_SCALAR, 4, 0.03}, {LK_CODES_SCALAR, 8, 0.006}, {LK_CODES_RABITQ, 1, 0.12},
                 {LK_CODES_RABITQ, 2, 0.06}, {LK_CODES_RABITQ, 4, 0.02},  {LK_CODES_RABITQ, 7, 0.006}};
    static float vectors[N * DIM], queries[QUERIES * DIM], back[N * DIM], scores[N], bounds[N];
    lk_random random;
    lk_random_seed(&random, 31);
    for (int i = 0; i < (N + QUERIES) * DIM; i++) /* with a mean that is far from 0 */
        *(i < N * DIM ? &vectors[i] : &queries[i - N * DIM]) =
            2 + (float)(i % DIM % 3) + (float)lk_random_normal(&random);
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            lk_coder *coder;
            assert_int_equal(lk_coder_new(cases[c].kind, cases[c].bits, (lk_metric)metric, N, DIM, vectors, 3, &coder),
                             LK_OK);
            size_t bytes = lk_coder_bytes(coder), outside = 0;
            uint8_t *codes = test_malloc(N * bytes);
            double sum = 0, lengths = 0;
            assert_int_equal(lk_coder_encode(coder, N, vectors, codes), LK_OK);
            assert_int_equal(lk_coder_decode(coder, N, codes, back), LK_OK);
            for (int q = 0; q < QUERIES; q++) {
                assert_int_equal(lk_coder_scores(coder, queries + q * DIM, 7, N, codes, scores, bounds), LK_OK);
                for (int i = 0; i < N; i++) {
                    double dot = 0, a = 0, b = 0, l2 = 0;
                    for (int d = 0; d < DIM; d++) {
                        double x = (double)vectors[i * DIM + d], y = (double)queries[q * DIM + d];
                        dot += x * y;
                        a += x * x;
                        b += y * y;
                        l2 += (x - y) * (x - y);
                    }
                    double exact = metric == LK_L2 ? l2 : metric == LK_COSINE ? dot / sqrt(a * b) : dot;
                    double off = fabs((double)scores[i] - exact);
                    outside += off > (double)bounds[i];
                    sum += off;
                    lengths += metric == LK_L2 ? l2 : metric == LK_COSINE ? 0.1 : sqrt(a * b);
                }
            }
            if (sum > 3 * cases[c].error * lengths) fail_msg("metric %d, case %zu: error %g", metric, c, sum / lengths);
            if (outside > (cases[c].kind == LK_CODES_SCALAR ? 0 : N * QUERIES * 8 / 100))
                fail_msg("metric %d, case %zu: %zu of %d outside", metric, c, outside, N * QUERIES);
            /* What the codes stand for is the vector, but for half a step of the grid; normalised for cosines. */
            if (cases[c].kind == LK_CODES_SCALAR && cases[c].bits == 8 && metric != LK_COSINE)
                for (int i = 0; i < N * DIM; i++) assert_true(fabsf(back[i] - vectors[i]) < 0.02f);
            test_free(codes);
            lk_coder_free(coder);
        }
    }
}

static void codes_without_sense_are_refused(void **state)
{
    (void)state;
    float vectors[4 * 3] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 0, 1}, bad[3] = {1, NAN, 1}, scores[1];
    uint8_t codes[100];
    lk_coder *coder;
    static const struct {
        lk_codes_kind kind;
        int bits;
    } wrong[] = {{LK_CODES_SCALAR, 5}, {LK_CODES_RABITQ, 0}, {LK_CODES_RABITQ, 9}, {(lk_codes_kind)7, 4}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(lk_coder_new(wrong[i].kind, wrong[i].bits, LK_L2, 4, 3, vectors, 0, &coder), LK_INVALID);
    assert_int_equal(lk_coder_new(LK_CODES_SCALAR, 8, LK_L2, 0, 3, vectors, 0, &coder), LK_INVALID);
    assert_int_equal(lk_coder_new(LK_CODES_SCALAR, 8, LK_L2, 1, 3, bad, 0, &coder), LK_INVALID);
    assert_int_equal(lk_coder_new(LK_CODES_RABITQ, 3, LK_L2, 4, 3, vectors, 0, &coder), LK_OK);
    assert_int_equal(lk_coder_encode(coder, 1, bad, codes), LK_INVALID);
    assert_int_equal(lk_coder_encode(coder, 1, vectors, codes), LK_OK);
    assert_int_equal(lk_coder_scores(coder, bad, 0, 1, codes, scores, NULL), LK_INVALID);
    lk_coder_free(coder);
}

static void what_runs_here_is_among_the_variants(void **state)
{
    (void)state;
    const char *chosen = lk_code_kernels_for(lk_cpu_detect())->name;
    int found = 0;
    for (int i = 0; i < variant_count; i++) found += strcmp(variants[i]->name, chosen) == 0;
    assert_int_equal(found, 1);
#if defined(__aarch64__)
    assert_string_equal(chosen, "neon");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_codes_are_exact_at_every_length),
        cmocka_unit_test(gathered_distances_are_exact_for_every_count),
        cmocka_unit_test(residual_distances_and_transforms_are_the_same_in_all_variants),
        cmocka_unit_test(unmarked_links_come_in_order_up_to_the_first_invalid),
        cmocka_unit_test(bf16_is_scored_within_rounding),
        cmocka_unit_test(rotation_keeps_lengths_and_angles_and_can_be_undone),
        cmocka_unit_test(scalar_codes_stay_within_half_a_step),
        cmocka_unit_test(common_grid_is_exact_for_bytes_and_fine_with_residuals),
        cmocka_unit_test(rabitq_estimates_are_unbiased_and_bounded),
        cmocka_unit_test(estimated_scores_keep_to_their_bounds),
        cmocka_unit_test(codes_without_sense_are_refused),
        cmocka_unit_test(rabitq_decodes_to_the_nearest_direction),
        cmocka_unit_test(what_runs_here_is_among_the_variants),
    };
    return cmocka_run_group_tests(tests, find_variants, NULL);
}
