/* Learning-rate schedules as functions of the step: no state, so that a resumed run needs none. All equal PyTorch's. */
#ifndef LK_METRIC_SCHEDULE_H
#define LK_METRIC_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

/* lowest + (base - lowest) (1 + cos(pi step / period)) / 2 (Loshchilov & Hutter, 2017); beyond the period it rises
 * again, as PyTorch's CosineAnnealingLR does. */
double lk_schedule_cosine(uint64_t step, uint64_t period, double base, double lowest);

/* base * factor^floor(step / every). every > 0. */
double lk_schedule_step(uint64_t step, uint64_t every, double factor, double base);

/* Linear from base * start at step 0 to base at step `length` and on. */
double lk_schedule_warmup(uint64_t step, uint64_t length, double start, double base);

/* Linear warm-up for `length` steps, then cosine to `lowest` over the steps that are left; `lowest` afterwards. */
double lk_schedule_warmup_cosine(uint64_t step, uint64_t length, double start, uint64_t total, double base,
                                 double lowest);

/* One cycle (Smith & Topin, 2018): the rate rises from highest / divisor to `highest` over `rising` of all steps and
 * falls to highest / divisor / final_divisor; momentum goes the other way between its two ends. */
typedef struct lk_one_cycle {
    uint64_t total;                     /* steps, above 1 */
    double highest;                     /* rate */
    double rising;                      /* share of the steps; 0.3 */
    double divisor;                     /* 25 */
    double final_divisor;               /* 1e4 */
    double momentum_low, momentum_high; /* 0.85, 0.95 */
    bool linear;                        /* else cosine */
    bool three_phases;                  /* fall to the start first, as long as the rise took, then to the end */
} lk_one_cycle;
lk_one_cycle lk_one_cycle_defaults(uint64_t total, double highest);
/* rate and momentum of a step; a step at or beyond `total` counts as the last. NULL = not wanted. */
void lk_schedule_one_cycle(const lk_one_cycle *cycle, uint64_t step, double *rate, double *momentum);

#endif
