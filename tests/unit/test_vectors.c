/* Storage types: f16 rounding, int8 scales, refusals. */
#include "base/half.h"
#include "base/random.h"
#include <likeness/index.h>

#include "unit.h"

#include <math.h>

static void every_half_survives_the_way_through_f32(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        float value = lk_half_to_float((uint16_t)half);
        if (isnan(value))
            assert_true(isnan(lk_half_to_float(lk_float_to_half(value))));
        else
            assert_int_equal(lk_float_to_half(value), half);
    }
}

static void f16_rounds_to_the_nearest_and_ties_to_even(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++) {
        float low = lk_half_to_float((uint16_t)half), high = lk_half_to_float((uint16_t)(half + 1));
        float middle = low + (high - low) / 2; /* exact */
        assert_int_equal(lk_float_to_half(middle), half % 2 ? half + 1 : half);
        assert_int_equal(lk_float_to_half(nextafterf(middle, 0)), half);
        assert_int_equal(lk_float_to_half(nextafterf(middle, 1e9f)), half + 1);
        assert_int_equal(lk_float_to_half(-middle), 0x8000 | (half % 2 ? half + 1 : half));
    }
    assert_int_equal(lk_float_to_half(65519.996f), 0x7bff);
    assert_int_equal(lk_float_to_half(65520), 0x7c00);
}

static void a_vector_that_is_not_finite_is_refused_by_row(void **state)
{
    (void)state;
    float vectors[3 * 2] = {1, 2, 3, 4, NAN, 6}, scales[3];
    char codes[24];
    for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
        vectors[4] = NAN;
        assert_int_equal(lk_vectors_encode((lk_dtype)dtype, 2, 3, vectors, 0, codes, scales), LK_INVALID);
        assert_non_null(strstr(lk_error_message(), "row 2"));
        vectors[4] = -INFINITY;
        assert_int_equal(lk_vectors_encode((lk_dtype)dtype, 2, 3, vectors, 1, codes, scales), LK_INVALID);
    }
    vectors[4] = 65520;
    assert_int_equal(lk_vectors_encode(LK_F16, 2, 3, vectors, 0, codes, scales), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "row 2"));
    assert_int_equal(lk_vectors_encode(LK_F16, 2, 3, vectors, 1, codes, scales), LK_OK);
    assert_int_equal(lk_vectors_encode(LK_I8, 2, 3, vectors, 0, codes, NULL), LK_INVALID);
}

static void decoding_gives_back_what_was_encoded_up_to_rounding(void **state)
{
    (void)state;
    enum { ROWS = 9, DIM = 37 };
    lk_random random;
    float vectors[ROWS * DIM], out[ROWS * DIM], scales[ROWS];
    char codes[ROWS * DIM * 4];
    lk_random_seed(&random, 1);
    for (int i = 0; i < ROWS * DIM; i++) vectors[i] = (float)lk_random_normal(&random);
    for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
        assert_int_equal(lk_vectors_encode((lk_dtype)dtype, DIM, ROWS, vectors, 0, codes, scales), LK_OK);
        lk_vectors_decode((lk_dtype)dtype, DIM, ROWS, codes, scales, out);
        for (int row = 0; row < ROWS; row++) {
            float largest = 0;
            for (int i = 0; i < DIM; i++) largest = fmaxf(largest, fabsf(vectors[row * DIM + i]));
            for (int i = row * DIM; i < (row + 1) * DIM; i++) {
                double tolerance = dtype == LK_F32   ? 0
                                   : dtype == LK_F16 ? fabs(vectors[i]) * 0x1p-11
                                                     : largest / 254 * 1.00001;
                assert_true(fabs((double)vectors[i] - out[i]) <= tolerance);
            }
        }
    }
}

static void a_normalised_vector_has_length_one_in_every_type(void **state)
{
    (void)state;
    enum { DIM = 200 };
    static const double tolerances[] = {1e-7, 1e-4,
                                        1e-7}; /* f16 keeps 11 bits of each component; int8 adapts its scale */
    lk_random random;
    float vector[DIM], out[DIM], scale;
    char codes[DIM * 4];
    lk_random_seed(&random, 2);
    for (int round = 0; round < 100; round++) {
        double size = pow(10, round % 60 - 38); /* down to denormals */
        for (int i = 0; i < DIM; i++) vector[i] = (float)(lk_random_normal(&random) * size);
        for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
            double squares = 0;
            assert_int_equal(lk_vectors_encode((lk_dtype)dtype, DIM, 1, vector, 1, codes, &scale), LK_OK);
            lk_vectors_decode((lk_dtype)dtype, DIM, 1, codes, &scale, out);
            for (int i = 0; i < DIM; i++) squares += (double)out[i] * out[i];
            assert_true(fabs(sqrt(squares) - 1) < tolerances[dtype]);
        }
    }
}

static void a_zero_vector_stays_zero(void **state)
{
    (void)state;
    float vector[5] = {0, -0.0f, 0, 0, 0}, out[5], scale = 7;
    char codes[20];
    for (int dtype = LK_F32; dtype <= LK_I8; dtype++) {
        assert_int_equal(lk_vectors_encode((lk_dtype)dtype, 5, 1, vector, 1, codes, &scale), LK_OK);
        lk_vectors_decode((lk_dtype)dtype, 5, 1, codes, &scale, out);
        for (int i = 0; i < 5; i++) assert_true(out[i] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_survives_the_way_through_f32),
        cmocka_unit_test(f16_rounds_to_the_nearest_and_ties_to_even),
        cmocka_unit_test(a_vector_that_is_not_finite_is_refused_by_row),
        cmocka_unit_test(decoding_gives_back_what_was_encoded_up_to_rounding),
        cmocka_unit_test(a_normalised_vector_has_length_one_in_every_type),
        cmocka_unit_test(a_zero_vector_stays_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
