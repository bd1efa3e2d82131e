/* Inside of the thread pool, for the shapes of work built on it (parallel.c, ordered.c). Others include threads.h. */
#ifndef LK_BASE_POOL_H
#define LK_BASE_POOL_H

#include "base/threads.h"

#include <pthread.h>

typedef struct lk_task lk_task;
struct lk_task {
    void (*run)(lk_task *task);
    lk_task *next;
};

struct lk_pool {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    lk_task *first, *last;
    bool stopping;
    int threads; /* asked for */
    int started; /* running; 0 when threads is 1 */
    pthread_t workers[];
};

/* Whether work must run in the calling thread: no workers, or the caller is one of them (waiting there for other
 * workers could wait for ever). */
bool lk_pool_serial(const lk_pool *pool);
void lk_pool_push(lk_pool *pool, lk_task *task);

#endif
