#include "base/error.h"
#include "base/memory.h"
#include "base/pool.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct range_job {
    lk_range_fn fn;
    void *arg;
    size_t count, grain, pieces;
    atomic_size_t next; /* piece to hand out */
    atomic_bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    int running;
    size_t failed_piece; /* of the failure kept: the one with the smallest piece */
    lk_status status;
    char message[LK_ERROR_SIZE];
} range_job;

typedef struct range_task {
    lk_task task;
    range_job *job;
    int worker;
} range_task;

static void run_pieces(lk_task *task)
{
    range_task *self = (range_task *)task;
    range_job *job = self->job;
    while (!atomic_load_explicit(&job->stop, memory_order_relaxed)) {
        size_t piece = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (piece >= job->pieces) break;
        size_t begin = piece * job->grain, end = begin + job->grain < job->count ? begin + job->grain : job->count;
        lk_status s = job->fn(job->arg, begin, end, self->worker);
        if (s == LK_OK) continue;
        atomic_store(&job->stop, true);
        pthread_mutex_lock(&job->mutex);
        if (job->status == LK_OK || piece < job->failed_piece) {
            job->status = s;
            job->failed_piece = piece;
            strcpy(job->message, lk_error_message());
        }
        pthread_mutex_unlock(&job->mutex);
    }
    pthread_mutex_lock(&job->mutex);
    if (--job->running == 0) pthread_cond_signal(&job->idle);
    pthread_mutex_unlock(&job->mutex);
}

lk_status lk_parallel_for(lk_pool *pool, size_t count, size_t grain, lk_range_fn fn, void *arg)
{
    if (count == 0) return LK_OK;
    if (grain == 0) grain = 1;
    size_t pieces = (count - 1) / grain + 1;
    if (pieces == 1 || lk_pool_serial(pool)) {
        for (size_t piece = 0; piece < pieces; piece++) {
            size_t begin = piece * grain, end = count - begin > grain ? begin + grain : count;
            lk_status s = fn(arg, begin, end, 0);
            if (s != LK_OK) return s;
        }
        return LK_OK;
    }
    int tasks = pool->started;
    if ((size_t)tasks > pieces) tasks = (int)pieces;
    range_task *all = lk_alloc((size_t)tasks, sizeof *all);
    if (!all) return lk_fail_memory("parallel work");
    range_job job = {.fn = fn, .arg = arg, .count = count, .grain = grain, .pieces = pieces, .running = tasks};
    pthread_mutex_init(&job.mutex, NULL);
    pthread_cond_init(&job.idle, NULL);
    for (int i = 0; i < tasks; i++) {
        all[i] = (range_task){.task.run = run_pieces, .job = &job, .worker = i};
        lk_pool_push(pool, &all[i].task);
    }
    pthread_mutex_lock(&job.mutex);
    while (job.running) pthread_cond_wait(&job.idle, &job.mutex);
    pthread_mutex_unlock(&job.mutex);
    pthread_cond_destroy(&job.idle);
    pthread_mutex_destroy(&job.mutex);
    free(all);
    return job.status == LK_OK ? LK_OK : lk_fail(job.status, "%s", job.message);
}
