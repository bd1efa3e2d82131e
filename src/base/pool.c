/* Worker threads with one queue of tasks. A task is a small struct inside the caller's frame or job: nothing is
 * allocated per task. */
#include "base/pool.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

static _Thread_local const lk_pool *running_in; /* the pool whose worker this thread is */

static void *worker_main(void *arg)
{
    lk_pool *pool = arg;
    running_in = pool;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (!pool->first && !pool->stopping) pthread_cond_wait(&pool->wake, &pool->mutex);
        if (!pool->first) break;
        lk_task *task = pool->first;
        pool->first = task->next;
        if (!pool->first) pool->last = NULL;
        pthread_mutex_unlock(&pool->mutex);
        task->run(task);
        pthread_mutex_lock(&pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

lk_status lk_pool_new(int threads, lk_pool **out)
{
    *out = NULL;
    if (threads < 1) return lk_fail(LK_INVALID, "a thread pool needs at least one thread, not %d", threads);
    lk_pool *pool = lk_alloc_zero(1, sizeof *pool + (size_t)threads * sizeof *pool->workers);
    if (!pool) return lk_fail_memory("thread pool");
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->threads = threads;
    int wanted = threads == 1 ? 0 : threads; /* one thread: the caller does the work itself */
    for (; pool->started < wanted; pool->started++) {
        int err = pthread_create(&pool->workers[pool->started], NULL, worker_main, pool);
        if (err) {
            lk_pool_free(pool);
            lk_fail_errno(err, "could not start %d threads", threads);
            return LK_IO;
        }
    }
    *out = pool;
    return LK_OK;
}

void lk_pool_free(lk_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

int lk_pool_threads(const lk_pool *pool)
{
    return pool ? pool->threads : 1;
}

bool lk_pool_serial(const lk_pool *pool)
{
    return !pool || pool->started == 0 || running_in == pool;
}

void lk_pool_push(lk_pool *pool, lk_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&pool->mutex);
    if (pool->last)
        pool->last->next = task;
    else
        pool->first = task;
    pool->last = task;
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}
