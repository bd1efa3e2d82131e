#include "base/random.h"

#include <math.h>

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void lk_random_seed(lk_random *random, uint64_t seed)
{
    for (int i = 0; i < 4; i++) { /* splitmix64: spreads even the seeds 0, 1, 2 over the whole state */
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        random->state[i] = z ^ (z >> 31);
    }
}

uint64_t lk_random_u64(lk_random *random)
{
    uint64_t *s = random->state;
    uint64_t result = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t lk_random_below(lk_random *random, uint64_t n)
{
    /* Lemire's multiply-and-reject. */
    uint64_t x = lk_random_u64(random);
    __uint128_t m = (__uint128_t)x * n;
    if ((uint64_t)m < n) {
        uint64_t threshold = (0 - n) % n;
        while ((uint64_t)m < threshold) {
            x = lk_random_u64(random);
            m = (__uint128_t)x * n;
        }
    }
    return (uint64_t)(m >> 64);
}

double lk_random_unit(lk_random *random)
{
    return (double)(lk_random_u64(random) >> 11) * 0x1p-53;
}

double lk_random_normal(lk_random *random)
{
    /* Box-Muller; the second value is dropped so that the state stays the four words above. */
    double u = 1.0 - lk_random_unit(random), v = lk_random_unit(random);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
