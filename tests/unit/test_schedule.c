/* Schedules against PyTorch's (tests/fixtures/schedules.h), to 1e-9 of the value. */
#include "unit.h"

#include "../fixtures/schedules.h"
#include "metric/schedule.h"

#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void near_enough(const char *what, size_t step, double got, double expected)
{
    if (!(fabs(got - expected) <= 1e-9 * fabs(expected)))
        fail_msg("%s, step %zu: %.12g, expected %.12g", what, step, got, expected);
}

static void plain_schedules_equal_those_of_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cosine); i++)
        near_enough("cosine", i, lk_schedule_cosine(i, 20, 0.1, 0.003), cosine[i]);
    for (size_t i = 0; i < COUNT(steps); i++) near_enough("step", i, lk_schedule_step(i, 4, 0.3, 0.1), steps[i]);
    for (size_t i = 0; i < COUNT(warmup); i++)
        near_enough("warm-up", i, lk_schedule_warmup(i, 7, 0.05, 0.1), warmup[i]);
    for (size_t i = 0; i < COUNT(warmup_cosine); i++)
        near_enough("warm-up and cosine", i, lk_schedule_warmup_cosine(i, 5, 0.05, 20, 0.1, 0.002), warmup_cosine[i]);
    near_enough("after the end", 25, lk_schedule_warmup_cosine(25, 5, 0.05, 20, 0.1, 0.002), 0.002);
}

static void check_cycle(const char *name, const lk_one_cycle *cycle, const double *rates, const double *momenta,
                        size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double rate, momentum;
        lk_schedule_one_cycle(cycle, i, &rate, &momentum);
        near_enough(name, i, rate, rates[i]);
        near_enough(name, i, momentum, momenta[i]);
    }
}

static void one_cycle_equals_that_of_pytorch(void **state)
{
    (void)state;
    lk_one_cycle cycle = lk_one_cycle_defaults(23, 0.4);
    check_cycle("one cycle", &cycle, one_cycle, one_cycle_momentum, COUNT(one_cycle));
    cycle.linear = true;
    cycle.rising = 0.25;
    check_cycle("linear", &cycle, one_cycle_linear, one_cycle_linear_momentum, COUNT(one_cycle_linear));
    cycle = lk_one_cycle_defaults(23, 0.4);
    cycle.three_phases = true;
    cycle.divisor = 10;
    cycle.final_divisor = 100;
    check_cycle("three phases", &cycle, one_cycle_three, one_cycle_three_momentum, COUNT(one_cycle_three));
}

static void steps_past_the_end_stay_at_the_last_rate(void **state)
{
    (void)state;
    lk_one_cycle cycle = lk_one_cycle_defaults(23, 0.4);
    double last, after;
    lk_schedule_one_cycle(&cycle, 22, &last, NULL);
    lk_schedule_one_cycle(&cycle, 500, &after, NULL);
    assert_true(last == after);
    near_enough("last", 22, last, 0.4 / 25 / 1e4);
    assert_true(lk_schedule_warmup(1000, 7, 0.05, 0.1) == 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_schedules_equal_those_of_pytorch),
        cmocka_unit_test(one_cycle_equals_that_of_pytorch),
        cmocka_unit_test(steps_past_the_end_stay_at_the_last_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
