/* A pool of worker threads, and the two shapes of parallel work that the library uses. */
#ifndef LK_BASE_THREADS_H
#define LK_BASE_THREADS_H

#include <likeness/context.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct lk_pool lk_pool;

/* threads >= 1. With 1, work runs in the calling thread and no thread is started. */
lk_status lk_pool_new(int threads, lk_pool **out);
void lk_pool_free(lk_pool *pool);
int lk_pool_threads(const lk_pool *pool);
/* The pool of a context; NULL for a NULL context, and a NULL pool means "the calling thread alone" everywhere below. */
lk_pool *lk_context_pool(lk_context *context);

/* Calls fn(arg, begin, end, worker) over [0, count) in pieces of at most `grain`, in no order, on all threads; returns
 * when all are done. worker is in [0, lk_pool_threads) and no two calls with one worker number overlap: it indexes
 * per-thread scratch. The first failure (by index of piece) is returned with its message and stops handing out further
 * pieces. May be called from several threads at once, and from within a piece (then it runs there, serially, with that
 * worker number's scratch being the caller's business: pass worker 0). */
typedef lk_status (*lk_range_fn)(void *arg, size_t begin, size_t end, int worker);
lk_status lk_parallel_for(lk_pool *pool, size_t count, size_t grain, lk_range_fn fn, void *arg);

/* Ordered pipeline with back-pressure: jobs run on the pool in any order and come out in the order they were submitted;
 * at most `capacity` jobs are inside at once, so a fast producer waits for a slow consumer. One thread submits and
 * takes.
 *
 *     while (more || lk_ordered_pending(o)) {
 *         while (more && lk_ordered_room(o)) more = submit_next(o);
 *         job = lk_ordered_take(o);             // waits for the oldest
 *         consume(job);
 *     }
 */
typedef struct lk_ordered lk_ordered;
typedef void (*lk_job_fn)(void *job);
lk_status lk_ordered_new(lk_pool *pool, size_t capacity, lk_job_fn work, lk_ordered **out);
/* Waits for jobs still running, then drops them: taking what is pending first is the caller's business if jobs own
 * memory. */
void lk_ordered_free(lk_ordered *ordered);
bool lk_ordered_room(const lk_ordered *ordered);
size_t lk_ordered_pending(const lk_ordered *ordered);
/* Precondition: room. */
void lk_ordered_submit(lk_ordered *ordered, void *job);
/* The oldest job, finished. NULL when none is pending. */
void *lk_ordered_take(lk_ordered *ordered);

#endif
