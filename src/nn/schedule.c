/* Learning rates by step. */
#include <likeness/nn.h>

#include <math.h>

static double half_cosine(double from, double to, double share)
{
    return to + (from - to) * (1 + cos(M_PI * share)) / 2;
}

double lk_schedule_rate(const lk_schedule *s, uint64_t i)
{
    if (s->kind == LK_RATE_ONE_CYCLE) {
        /* As PyTorch's OneCycleLR: two half cosines, the first ending after up * steps - 1 steps. */
        double up = s->up > 0 ? s->up : 0.3, start = s->rate / (s->div > 0 ? s->div : 25);
        double low = start / (s->final_div > 0 ? s->final_div : 1e4);
        double top = up * (double)s->steps - 1, end = (double)s->steps - 1, at = (double)i > end ? end : (double)i;
        if (at <= top) return top > 0 ? half_cosine(start, s->rate, at / top) : s->rate;
        return end > top ? half_cosine(s->rate, low, (at - top) / (end - top)) : low;
    }
    if (i < s->warmup) return s->rate * (double)(i + 1) / (double)(s->warmup + 1);
    if (s->kind == LK_RATE_COSINE) {
        double steps = s->steps > s->warmup ? (double)(s->steps - s->warmup) : 1, at = (double)(i - s->warmup);
        return half_cosine(s->rate, s->final_rate, at >= steps ? 1 : at / steps);
    }
    if (s->kind == LK_RATE_STEP && s->step > 0) return s->rate * pow(s->gamma, (double)(i / s->step));
    return s->rate;
}
