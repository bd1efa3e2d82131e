#include "base/error.h"
#include "base/memory.h"
#include "base/pool.h"

#include <stdlib.h>

typedef struct slot {
    lk_task task;
    lk_ordered *owner;
    void *job;
    bool finished;
} slot;

/* A ring of slots: [taken, submitted) are inside, in the order of submission. */
struct lk_ordered {
    lk_pool *pool;
    lk_job_fn work;
    pthread_mutex_t mutex;
    pthread_cond_t done;
    size_t capacity, taken, submitted;
    slot slots[];
};

static void run_slot(lk_task *task)
{
    slot *self = (slot *)task;
    lk_ordered *ordered = self->owner;
    ordered->work(self->job);
    pthread_mutex_lock(&ordered->mutex);
    self->finished = true;
    pthread_cond_signal(&ordered->done);
    pthread_mutex_unlock(&ordered->mutex);
}

lk_status lk_ordered_new(lk_pool *pool, size_t capacity, lk_job_fn work, lk_ordered **out)
{
    *out = NULL;
    if (capacity == 0) return lk_fail(LK_INVALID, "a pipeline needs room for at least one job");
    lk_ordered *ordered = lk_alloc_zero(1, sizeof *ordered + capacity * sizeof *ordered->slots);
    if (!ordered) return lk_fail_memory("pipeline");
    ordered->pool = pool;
    ordered->work = work;
    ordered->capacity = capacity;
    pthread_mutex_init(&ordered->mutex, NULL);
    pthread_cond_init(&ordered->done, NULL);
    *out = ordered;
    return LK_OK;
}

void lk_ordered_free(lk_ordered *ordered)
{
    if (!ordered) return;
    while (lk_ordered_take(ordered)) {
    }
    pthread_cond_destroy(&ordered->done);
    pthread_mutex_destroy(&ordered->mutex);
    free(ordered);
}

/* taken and submitted belong to the one thread that submits and takes: no lock. */
size_t lk_ordered_pending(const lk_ordered *ordered)
{
    return ordered->submitted - ordered->taken;
}

bool lk_ordered_room(const lk_ordered *ordered)
{
    return lk_ordered_pending(ordered) < ordered->capacity;
}

void lk_ordered_submit(lk_ordered *ordered, void *job)
{
    slot *s = &ordered->slots[ordered->submitted++ % ordered->capacity];
    *s = (slot){.task.run = run_slot, .owner = ordered, .job = job};
    if (lk_pool_serial(ordered->pool))
        run_slot(&s->task);
    else
        lk_pool_push(ordered->pool, &s->task);
}

void *lk_ordered_take(lk_ordered *ordered)
{
    if (lk_ordered_pending(ordered) == 0) return NULL;
    slot *s = &ordered->slots[ordered->taken % ordered->capacity];
    pthread_mutex_lock(&ordered->mutex);
    while (!s->finished) pthread_cond_wait(&ordered->done, &ordered->mutex);
    pthread_mutex_unlock(&ordered->mutex);
    ordered->taken++;
    return s->job;
}
