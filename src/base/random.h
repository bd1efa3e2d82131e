/* One seeded generator (xoshiro256++, Blackman & Vigna 2021, seeded by splitmix64), passed in wherever chance is used.
 */
#ifndef LK_BASE_RANDOM_H
#define LK_BASE_RANDOM_H

#include <stdint.h>

typedef struct lk_random {
    uint64_t state[4];
} lk_random;

void lk_random_seed(lk_random *random, uint64_t seed);
uint64_t lk_random_u64(lk_random *random);
/* Uniform in [0, n), n > 0, without bias. */
uint64_t lk_random_below(lk_random *random, uint64_t n);
/* Uniform in [0, 1). */
double lk_random_unit(lk_random *random);
/* Standard normal. */
double lk_random_normal(lk_random *random);

#endif
