#include "nn/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

/* Threads of a gathering. The caller of fn publishes work by counting `turn` up; every other thread does its piece and
 * counts `busy` down. Both sides look for some microseconds and then sleep: the next piece mostly comes sooner. */
typedef struct crew {
    void (*fn)(void *);
    void *arg;
    pieces work;
    size_t others;  /* threads beside the caller */
    size_t threads; /* that have a piece */
    _Alignas(128) _Atomic uint32_t turn;
    _Atomic uint32_t sleepers; /* in turn */
    bool done;
    _Alignas(128) _Atomic uint32_t busy;
    _Atomic uint32_t waiting; /* the caller sleeps in busy */
} crew;

static _Thread_local crew *gathered; /* the one that this thread is the caller of */

enum { LOOKS = 3000 };

static void pause_once(void)
{
#if defined(__x86_64__)
    _mm_pause();
#endif
}

/* Until *word is no longer `old`; counts itself in *sleepers while it sleeps. */
static void await_change(_Atomic uint32_t *word, uint32_t old, _Atomic uint32_t *sleepers)
{
    for (int i = 0; i < LOOKS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        pause_once();
    }
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(word) == old) syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(sleepers, 1);
}

static void do_piece(const pieces *p, size_t i, size_t threads)
{
    size_t begin = p->count * i / threads, end = p->count * (i + 1) / threads;
    if (begin < end) p->fn(p->arg, begin, end);
}

static void stand_by(crew *c, size_t index)
{
    for (uint32_t turn = 0;; turn++) {
        await_change(&c->turn, turn, &c->sleepers);
        if (c->done) return;
        if (index < c->threads) do_piece(&c->work, index, c->threads);
        if (atomic_fetch_sub(&c->busy, 1) == 1 && atomic_load(&c->waiting))
            syscall(SYS_futex, &c->busy, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

static void next_turn(crew *c)
{
    atomic_fetch_add(&c->turn, 1);
    if (atomic_load(&c->sleepers)) syscall(SYS_futex, &c->turn, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void share(crew *c, const pieces *work, size_t threads)
{
    c->work = *work;
    c->threads = threads;
    atomic_store(&c->busy, (uint32_t)c->others);
    next_turn(c);
    gathered = NULL; /* what the piece calls has this thread alone */
    do_piece(work, 0, threads);
    gathered = c;
    for (uint32_t left; (left = atomic_load_explicit(&c->busy, memory_order_acquire)) != 0;)
        await_change(&c->busy, left, &c->waiting);
}

static void crew_member(void *data)
{
    crew *c = data;
    if (omp_get_thread_num() != 0) {
        stand_by(c, (size_t)omp_get_thread_num());
        return;
    }
    c->others = (size_t)omp_get_num_threads() - 1;
    gathered = c;
    c->fn(c->arg);
    gathered = NULL;
    c->done = true;
    next_turn(c);
}

void lk_team_gather(const lk_team *team, void (*fn)(void *), void *arg)
{
    if (team->threads <= 1 || gathered) {
        fn(arg);
        return;
    }
    crew c = {.fn = fn, .arg = arg};
    GOMP_parallel(crew_member, &c, (unsigned)team->threads, 0);
}

void lk_team_for(const lk_team *team, size_t count, size_t cost, lk_piece_fn fn, void *arg)
{
    crew *c = gathered;
    size_t threads = c ? c->others + 1 : (size_t)team->threads;
    if (threads > (size_t)team->threads) threads = (size_t)team->threads;
    if (threads > count) threads = count;
    /* Waking threads costs a few microseconds, about what 40,000 operations take; those that stand by a tenth. */
    size_t least = c ? 4000 : 40000;
    if (count * cost / least < threads) threads = count * cost / least;
    if (threads <= 1) {
        if (count) fn(arg, 0, count);
        return;
    }
    pieces p = {fn, arg, count};
    if (c)
        share(c, &p, threads);
    else
        GOMP_parallel(one_piece, &p, (unsigned)threads, 0);
}

int lk_team_enter(int threads)
{
    int before = omp_get_max_threads();
    if (before != threads) omp_set_num_threads(threads);
    return before;
}
