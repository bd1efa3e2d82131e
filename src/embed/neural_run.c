#include "embed/neural_run.h"

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>

void lk_neural_run_init(lk_neural_run *run)
{
    *run = (lk_neural_run){0};
    pthread_mutex_init(&run->mutex, NULL);
    pthread_cond_init(&run->returned, NULL);
}

void lk_neural_run_free(lk_neural_run *run)
{
    for (size_t i = 0; i < run->count; i++)
        if (run->idle[i] != run->first) lk_executor_free(run->idle[i]);
    lk_executor_free(run->first);
    free(run->idle);
    pthread_mutex_destroy(&run->mutex);
    pthread_cond_destroy(&run->returned);
}

bool lk_neural_run_made(lk_neural_run *run)
{
    pthread_mutex_lock(&run->mutex);
    bool made = run->first != NULL;
    pthread_mutex_unlock(&run->mutex);
    return made;
}

/* Called with the mutex held. */
static lk_status make(lk_neural_run *run, const lk_graph *graph, const lk_compile_options *options, size_t wanted,
                      size_t most, lk_executor **out)
{
    lk_status s;
    if (!lk_grow((void **)&run->idle, &run->room, run->made + 1, sizeof *run->idle)) return lk_fail_memory("executors");
    if (run->first) {
        s = lk_executor_clone(run->first, out);
    } else {
        lk_compile_options chosen = *options;
        run->batch = (int64_t)(wanted < most ? wanted : most);
        run->shared = wanted == 1;
        chosen.batch = run->batch;
        chosen.threads = run->shared ? lk_cpu_count() : 1;
        s = lk_graph_compile(graph, &chosen, out);
        if (s == LK_OK) run->first = *out;
    }
    if (s == LK_OK) run->made++;
    return s;
}

lk_status lk_neural_run_take(lk_neural_run *run, const lk_graph *graph, const lk_compile_options *options,
                             size_t wanted, size_t most, lk_executor **out)
{
    lk_status s = LK_OK;
    *out = NULL;
    pthread_mutex_lock(&run->mutex);
    while (run->first && run->shared && run->count == 0) pthread_cond_wait(&run->returned, &run->mutex);
    if (run->count)
        *out = run->idle[--run->count];
    else
        s = make(run, graph, options, wanted, most, out);
    pthread_mutex_unlock(&run->mutex);
    return s;
}

void lk_neural_run_give(lk_neural_run *run, lk_executor *executor)
{
    if (!executor) return;
    pthread_mutex_lock(&run->mutex);
    run->idle[run->count++] = executor;
    pthread_cond_signal(&run->returned);
    pthread_mutex_unlock(&run->mutex);
}
