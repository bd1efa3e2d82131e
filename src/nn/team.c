#include "nn/team.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* The interface that GCC's own code for `#pragma omp parallel` calls; stable since GCC 4.9. */
extern void GOMP_parallel(void (*fn)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);
extern int omp_get_max_threads(void);
extern int omp_get_num_procs(void);
extern void omp_set_num_threads(int);

/* libgomp's threads spin for about a millisecond where they wait for each other. On a machine that does anything else
 * beside, the one waited for does not run just then, and a network of a hundred operators takes seconds. libgomp itself
 * spins for microseconds only when it manages more threads than there are processors; its settings are read from the
 * environment before any code of ours runs. So a sleeping team is made that is one larger than the machine, once per
 * process. */

static void nothing(void *data)
{
    (void)data;
}

static void *sleep_in_a_crowd(void *unused)
{
    GOMP_parallel(nothing, NULL, (unsigned)omp_get_num_procs() + 1, 0);
    for (;;) pause(); /* the team lives as long as the thread that made it */
    return unused;
}

static void make_crowd(void)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, sleep_in_a_crowd, NULL) == 0) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

lk_team lk_team_of(int threads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (threads > 1 && !getenv("OMP_WAIT_POLICY")) pthread_once(&once, make_crowd);
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
