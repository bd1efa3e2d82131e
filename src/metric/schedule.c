#include "metric/schedule.h"

#include <math.h>

double lk_schedule_cosine(uint64_t step, uint64_t period, double base, double lowest)
{
    return lowest + (base - lowest) * (1 + cos(M_PI * (double)step / (double)period)) / 2;
}

double lk_schedule_step(uint64_t step, uint64_t every, double factor, double base)
{
    return base * pow(factor, (double)(step / every));
}

double lk_schedule_warmup(uint64_t step, uint64_t length, double start, double base)
{
    if (step >= length) return base;
    return base * (start + (1 - start) * (double)step / (double)length);
}

double lk_schedule_warmup_cosine(uint64_t step, uint64_t length, double start, uint64_t total, double base,
                                 double lowest)
{
    if (step < length) return lk_schedule_warmup(step, length, start, base);
    if (step >= total) return lowest;
    return lk_schedule_cosine(step - length, total - length, base, lowest);
}

lk_one_cycle lk_one_cycle_defaults(uint64_t total, double highest)
{
    return (lk_one_cycle){.total = total,
                          .highest = highest,
                          .rising = 0.3,
                          .divisor = 25,
                          .final_divisor = 1e4,
                          .momentum_low = 0.85,
                          .momentum_high = 0.95};
}

static double between(bool linear, double from, double to, double share)
{
    return linear ? from + (to - from) * share : to + (from - to) / 2 * (1 + cos(M_PI * share));
}

void lk_schedule_one_cycle(const lk_one_cycle *c, uint64_t step, double *rate, double *momentum)
{
    double last = (double)c->total - 1, at = fmin((double)step, last), first = c->highest / c->divisor;
    /* Steps at which phases end, and what rate and momentum are there; phase 0 begins at the first entry. */
    double ends[4] = {0, c->rising * (double)c->total - 1, last, last};
    double rates[4] = {first, c->highest, first / c->final_divisor, 0};
    double momenta[4] = {c->momentum_high, c->momentum_low, c->momentum_high, c->momentum_high};
    if (c->three_phases) {
        ends[2] = 2 * c->rising * (double)c->total - 2;
        rates[2] = first;
        rates[3] = first / c->final_divisor;
    }
    int phase = 0, phases = c->three_phases ? 3 : 2;
    while (phase < phases - 1 && at > ends[phase + 1]) phase++;
    double length = ends[phase + 1] - ends[phase], share = length > 0 ? (at - ends[phase]) / length : 1;
    if (rate) *rate = between(c->linear, rates[phase], rates[phase + 1], share);
    if (momentum) *momentum = between(c->linear, momenta[phase], momenta[phase + 1], share);
}
