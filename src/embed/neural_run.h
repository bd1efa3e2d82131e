/* Runs one graph for several callers at once: executors are made when they are first needed, the first one compiled,
 * further ones cloned from it. */
#ifndef LK_EMBED_NEURAL_RUN_H
#define LK_EMBED_NEURAL_RUN_H

#include <likeness/nn.h>
#include <pthread.h>

typedef struct lk_neural_run {
    pthread_mutex_t mutex;
    pthread_cond_t returned;
    lk_executor *first; /* the others share its weights */
    lk_executor **idle; /* [room]: made and not in use, `first` among them */
    size_t count, made, room;
    int64_t batch; /* of each executor; set by the first caller */
    bool shared;   /* one executor with all threads: a second caller waits */
} lk_neural_run;

void lk_neural_run_init(lk_neural_run *run);
void lk_neural_run_free(lk_neural_run *run); /* before the graph */

/* Whether an executor was ever made. */
bool lk_neural_run_made(lk_neural_run *run);

/* Takes an executor out, making it if none is idle. The first call decides for all: `wanted` rows a run (at most
 * `most`), and with one row alone, as for a query, all processors for that one row; else a thread per caller. */
lk_status lk_neural_run_take(lk_neural_run *run, const lk_graph *graph, const lk_compile_options *options,
                             size_t wanted, size_t most, lk_executor **out);
void lk_neural_run_give(lk_neural_run *run, lk_executor *executor);

#endif
