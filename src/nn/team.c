#include "nn/team.h"

/* The interface that GCC's own code for `#pragma omp parallel` calls; stable since GCC 4.9. */
extern void GOMP_parallel(void (*fn)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);
extern int omp_get_max_threads(void);
extern void omp_set_num_threads(int);

lk_team lk_team_of(int threads)
{
    return (lk_team){.threads = threads < 1 ? 1 : threads, .kernels = lk_nn_kernels_for(lk_cpu_detect())};
}

typedef struct pieces {
    lk_piece_fn fn;
    void *arg;
    size_t count;
} pieces;

static void one_piece(void *data)
{
    const pieces *p = data;
    size_t n = (size_t)omp_get_num_threads(), i = (size_t)omp_get_thread_num();
    size_t begin = p->count * i / n, end = p->count * (i + 1) / n;
    if (begin < end) p->fn(p->arg, begin, end);
}

void lk_team_for(const lk_team *team, size_t count, size_t cost, lk_piece_fn fn, void *arg)
{
    size_t threads = (size_t)team->threads;
    if (threads > count) threads = count;
    /* Waking threads costs a few microseconds: about what 40,000 operations take. */
    if (count * cost / 40000 < threads) threads = count * cost / 40000;
    if (threads <= 1) {
        if (count) fn(arg, 0, count);
        return;
    }
    pieces p = {fn, arg, count};
    GOMP_parallel(one_piece, &p, (unsigned)threads, 0);
}

int lk_team_enter(int threads)
{
    int before = omp_get_max_threads();
    if (before != threads) omp_set_num_threads(threads);
    return before;
}
