/* Every compiled variant of the distance kernels against the plain one, on odd sizes, unaligned, with denormals. */
#include "base/random.h"
#include "index/distance.h"

#include "unit.h"

#include <math.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum { MAX_TEST_DIM = 1030, MAX_TEST_ROWS = 23 };

static const lk_distance_kernels *variants[8];
static int variant_count;

/* Those that this machine can run, one per set of features. */
static int find_variants(void **state)
{
    (void)state;
    unsetenv("LIKENESS_CPU");
    unsigned has = lk_cpu_detect();
    static const unsigned sets[] = {LK_CPU_AVX2, LK_CPU_AVX512, LK_CPU_AVX512 | LK_CPU_AVX512_VNNI, LK_CPU_NEON,
                                    LK_CPU_NEON | LK_CPU_NEON_DOTPROD};
    variant_count = 0;
    variants[variant_count++] = &lk_distance_plain;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if ((has & sets[i]) == sets[i]) variants[variant_count++] = lk_distance_kernels_for((lk_cpu_features)sets[i]);
    for (int i = 0; i < variant_count; i++) print_message("variant %s\n", variants[i]->name);
    return 0;
}

/* Sizes around every register width and unrolling, then some at random. */
static size_t pick_dim(lk_random *random, int round)
{
    return round < 140 ? (size_t)round + 1 : 1 + (size_t)lk_random_below(random, MAX_TEST_DIM);
}

/* Normal numbers, now and then a denormal or a zero. */
static float pick_f32(lk_random *random)
{
    uint64_t kind = lk_random_below(random, 16);
    if (kind == 0) return (float)(lk_random_normal(random) * 1e-40);
    if (kind == 1) return 0;
    return (float)lk_random_normal(random);
}

typedef struct rows {
    char bytes[MAX_TEST_ROWS * (MAX_TEST_DIM * 4 + 64) + 64];
    char *first; /* at an odd address */
    size_t stride, n, dim;
    float scales[MAX_TEST_ROWS];
    float query[MAX_TEST_DIM];
    double stored[MAX_TEST_ROWS][MAX_TEST_DIM]; /* what the bytes mean */
} rows;

/* Row by row through the plain decoder, but int8 in double: scale * code is not rounded there. */
static void read_back(rows *r, lk_dtype dtype)
{
    float values[MAX_TEST_DIM];
    for (size_t row = 0; row < r->n; row++) {
        const char *at = r->first + row * r->stride;
        if (dtype == LK_F32) memcpy(values, at, 4 * r->dim);
        if (dtype == LK_F16) lk_decode_rows(&lk_distance_plain, LK_F16, r->dim, 1, at, NULL, values);
        for (size_t i = 0; i < r->dim; i++)
            r->stored[row][i] = dtype == LK_I8 ? (double)r->scales[row] * ((const int8_t *)at)[i] : values[i];
    }
}

static void make_rows(rows *r, lk_random *random, lk_dtype dtype, size_t dim)
{
    size_t width = lk_dtype_bytes(dtype, dim);
    r->dim = dim;
    r->n = 1 + (size_t)lk_random_below(random, MAX_TEST_ROWS);
    r->stride = width + (size_t)lk_random_below(random, 5);
    r->first = r->bytes + 1 + lk_random_below(random, 32);
    for (size_t i = 0; i < dim; i++) r->query[i] = pick_f32(random);
    for (size_t row = 0; row < r->n; row++) {
        float vector[MAX_TEST_DIM];
        for (size_t i = 0; i < dim; i++) vector[i] = pick_f32(random);
        if (dtype == LK_F16 && dim > 2) vector[1] = 3e-6f; /* denormal there */
        assert_int_equal(lk_vectors_encode(dtype, dim, 1, vector, 0, r->first + row * r->stride, r->scales + row),
                         LK_OK);
    }
    read_back(r, dtype);
}

/* The score of a row in double, and how far rounding in float may lead away from it. */
static double exact_score(const rows *r, lk_dtype dtype, int l2, size_t row, double *tolerance)
{
    double exact = 0, bound = 0, decoding = 0;
    for (size_t i = 0; i < r->dim; i++) {
        double a = r->query[i], b = r->stored[row][i], term = l2 ? (a - b) * (a - b) : a * b;
        exact += term;
        bound += fabs(term);
        /* scale * code may be rounded before the subtraction */
        if (l2 && dtype == LK_I8) decoding += 2.1 * fabs(a - b) * fabs(b) * 0x1p-24 + b * b * 0x1p-47;
    }
    /* dim roundings of at most half a unit in the last place each, a few more for the scale */
    *tolerance = ((double)r->dim + 8) * 0x1p-24 * bound + decoding + 1e-38;
    return exact;
}

static void every_variant_scores_rows_as_the_plain_one_does(void **state)
{
    (void)state;
    lk_random random;
    rows *r = test_malloc(sizeof *r);
    lk_random_seed(&random, 1);
    for (int round = 0; round < 3 * 400; round++) {
        lk_dtype dtype = (lk_dtype)(round % 3);
        make_rows(r, &random, dtype, pick_dim(&random, round / 3));
        for (int l2 = 0; l2 < 2; l2++) {
            double exact[MAX_TEST_ROWS], tolerance[MAX_TEST_ROWS];
            for (size_t row = 0; row < r->n; row++) exact[row] = exact_score(r, dtype, l2, row, &tolerance[row]);
            for (int v = 0; v < variant_count; v++) {
                const lk_distance_kernels *kernels = variants[v];
                lk_rows_fn score = l2 ? kernels->rows_l2[dtype] : kernels->rows_dot[dtype];
                float out[MAX_TEST_ROWS], alone;
                score(r->query, r->first, r->stride, r->n, r->dim, r->scales, out);
                for (size_t row = 0; row < r->n; row++) {
                    if (!(fabs(out[row] - exact[row]) <= tolerance[row]))
                        fail_msg("%s %s dtype %d dim %zu row %zu of %zu: %.9g, not %.9g +- %.3g", kernels->name,
                                 l2 ? "l2" : "dot", (int)dtype, r->dim, row, r->n, (double)out[row], exact[row],
                                 tolerance[row]);
                    score(r->query, r->first + row * r->stride, 0, 1, r->dim, r->scales + row, &alone);
                    assert_memory_equal(&alone, &out[row], sizeof alone); /* the same bits by itself */
                }
            }
        }
    }
    test_free(r);
}

static void int8_products_are_exact_in_every_variant(void **state)
{
    (void)state;
    lk_random random;
    enum { N = 65536 };
    int8_t *a = test_malloc(N + 1), *b = test_malloc(N + 3);
    lk_random_seed(&random, 2);
    for (int round = 0; round < 300; round++) {
        size_t n = round == 0 ? N : pick_dim(&random, round - 1);
        int64_t dot = 0, l2 = 0;
        int8_t *x = a + 1, *y = b + 3;
        for (size_t i = 0; i < n; i++) {
            /* The first round has the largest sums that exist. */
            x[i] = round == 0 ? 127 : (int8_t)((int)lk_random_below(&random, 255) - 127);
            y[i] = round == 0 ? -127 : (int8_t)((int)lk_random_below(&random, 255) - 127);
            dot += x[i] * y[i];
            l2 += (x[i] - y[i]) * (x[i] - y[i]);
        }
        for (int v = 0; v < variant_count; v++) {
            assert_int_equal(variants[v]->dot_i8(x, y, n), dot);
            assert_int_equal(variants[v]->l2_i8(x, y, n), l2);
        }
    }
    test_free(a);
    test_free(b);
}

static void every_variant_decodes_to_the_same_bits(void **state)
{
    (void)state;
    lk_random random;
    char bytes[2 * MAX_TEST_DIM + 1];
    float plain[MAX_TEST_DIM], out[MAX_TEST_DIM + 1];
    lk_random_seed(&random, 3);
    for (int round = 0; round < 300; round++) {
        size_t n = pick_dim(&random, round);
        for (size_t i = 0; i < 2 * n; i++) bytes[1 + i] = (char)lk_random_below(&random, 256);
        for (size_t i = 0; i < n; i++) /* no NaN: its payload is nobody's business */
            if ((bytes[2 + 2 * i] & 0x7c) == 0x7c) bytes[2 + 2 * i] = 0x3c;
        for (int v = 0; v < variant_count; v++) {
            out[n] = 42;
            lk_distance_plain.decode_f16((const uint16_t *)(const void *)(bytes + 1), n, plain);
            variants[v]->decode_f16((const uint16_t *)(const void *)(bytes + 1), n, out);
            assert_memory_equal(plain, out, n * sizeof *out);
            lk_distance_plain.decode_i8((const int8_t *)bytes + 1, 0.37f, n, plain);
            variants[v]->decode_i8((const int8_t *)bytes + 1, 0.37f, n, out);
            assert_memory_equal(plain, out, n * sizeof *out);
            assert_float_equal(out[n], 42, 0); /* nothing is written behind the end */
        }
    }
}

static void screen_passes_exactly_what_reaches_its_threshold(void **state)
{
    (void)state;
    lk_random random;
    rows *r = test_malloc(sizeof *r);
    lk_random_seed(&random, 4);
    for (int round = 0; round < 300; round++) {
        make_rows(r, &random, LK_F32, pick_dim(&random, round));
        size_t stride = r->stride / 4 * 4 >= r->dim * 4 ? r->stride : r->dim * 4;
        for (int v = 0; v < variant_count; v++) {
            const lk_distance_kernels *kernels = variants[v];
            size_t registers = kernels->screen_width / kernels->screen_lanes;
            size_t width = kernels->screen_lanes * (1 + (size_t)lk_random_below(&random, registers));
            float *packed = test_malloc(width * r->dim * sizeof *packed);
            float bias[MAX_TEST_ROWS], thresholds[LK_SCREEN_WIDTH];
            uint64_t masks[MAX_TEST_ROWS];
            int any = 0;
            for (size_t i = 0; i < width * r->dim; i++) packed[i] = pick_f32(&random);
            for (size_t row = 0; row < r->n; row++) bias[row] = pick_f32(&random);
            for (size_t q = 0; q < width; q++)
                thresholds[q] = q == 1 ? -INFINITY : q == 2 ? INFINITY : pick_f32(&random);
            int said = kernels->screen(packed, width, r->first, stride, r->n, r->dim, bias, thresholds, masks);
            for (size_t row = 0; row < r->n; row++) {
                assert_true(width == 64 || masks[row] >> width == 0);
                for (size_t q = 0; q < width; q++) {
                    double exact = bias[row], bound = fabs(exact);
                    for (size_t i = 0; i < r->dim; i++) {
                        double term = packed[i * width + q] * r->stored[row][i];
                        exact += term;
                        bound += fabs(term);
                    }
                    double distance = exact - (double)thresholds[q];
                    int bit = (int)(masks[row] >> q & 1);
                    any |= bit;
                    /* Within rounding of the threshold either answer is right. */
                    if (fabs(distance) > ((double)r->dim + 4) * 0x1p-24 * bound + 1e-38)
                        assert_int_equal(bit, distance >= 0);
                }
            }
            assert_int_equal(said, any);
            test_free(packed);
        }
    }
    test_free(r);
}

static void nan_passes_no_screen_and_no_selection(void **state)
{
    (void)state;
    float row[40], bias[3] = {0, NAN, 0}, packed[40 * LK_SCREEN_WIDTH], thresholds[LK_SCREEN_WIDTH], scores[70];
    uint64_t masks[3];
    uint32_t out[70];
    for (size_t i = 0; i < 40; i++) row[i] = 1;
    row[39] = NAN;
    for (size_t i = 0; i < 40 * LK_SCREEN_WIDTH; i++) packed[i] = 1;
    for (size_t q = 0; q < LK_SCREEN_WIDTH; q++) thresholds[q] = -INFINITY;
    for (size_t i = 0; i < 70; i++) scores[i] = i == 68 ? -5 : NAN;
    for (int v = 0; v < variant_count; v++) {
        const lk_distance_kernels *kernels = variants[v];
        assert_false(kernels->screen(packed, kernels->screen_width, row, 0, 3, 40, bias, thresholds, masks));
        assert_true(kernels->screen(packed, kernels->screen_width, row, 0, 3, 39, bias, thresholds, masks));
        assert_true(masks[0] != 0 && masks[1] == 0 && masks[2] != 0);
        assert_int_equal(kernels->select(scores, 70, -INFINITY, out), 1);
        assert_int_equal(out[0], 68);
    }
}

static void every_variant_selects_the_same_positions(void **state)
{
    (void)state;
    lk_random random;
    float scores[131];
    uint32_t plain[131], out[131];
    lk_random_seed(&random, 5);
    for (size_t n = 0; n <= 131; n++) {
        for (size_t i = 0; i < n; i++) scores[i] = (float)((int)lk_random_below(&random, 5) - 2);
        size_t expected = lk_distance_plain.select(scores, n, 1, plain);
        for (int v = 0; v < variant_count; v++) {
            assert_int_equal(variants[v]->select(scores, n, 1, out), expected);
            assert_memory_equal(out, plain, expected * sizeof *out);
        }
    }
}

static void environment_lowers_the_choice(void **state)
{
    (void)state;
    setenv("LIKENESS_CPU", "plain", 1);
    assert_ptr_equal(lk_distance_kernels_for(lk_cpu_detect()), &lk_distance_plain);
    unsetenv("LIKENESS_CPU");
}

/* A table that is never chosen, or a choice that is never tested, would pass all of the above. */
static void what_runs_here_is_among_the_variants(void **state)
{
    (void)state;
    const char *chosen = lk_distance_kernels_for(lk_cpu_detect())->name;
    int found = 0;
    for (int i = 0; i < variant_count; i++) {
        found += strcmp(variants[i]->name, chosen) == 0;
        for (int j = 0; j < i; j++) assert_string_not_equal(variants[i]->name, variants[j]->name);
    }
    assert_int_equal(found, 1);
#if defined(__aarch64__)
    assert_string_equal(chosen, getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? "neon_dotprod" : "neon");
    setenv("LIKENESS_CPU", "neon", 1);
    assert_string_equal(lk_distance_kernels_for(lk_cpu_detect())->name, "neon");
    unsetenv("LIKENESS_CPU");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_scores_rows_as_the_plain_one_does),
        cmocka_unit_test(int8_products_are_exact_in_every_variant),
        cmocka_unit_test(every_variant_decodes_to_the_same_bits),
        cmocka_unit_test(screen_passes_exactly_what_reaches_its_threshold),
        cmocka_unit_test(nan_passes_no_screen_and_no_selection),
        cmocka_unit_test(every_variant_selects_the_same_positions),
        cmocka_unit_test(environment_lowers_the_choice),
        cmocka_unit_test(what_runs_here_is_among_the_variants),
    };
    return cmocka_run_group_tests(tests, find_variants, NULL);
}
