/* One object that carries what a program decides once: threads, where log lines and progress go, cancellation. */
#ifndef LIKENESS_CONTEXT_H
#define LIKENESS_CONTEXT_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lk_log_level { LK_LOG_ERROR, LK_LOG_WARN, LK_LOG_INFO, LK_LOG_DEBUG } lk_log_level;

/* Receives one log line (no newline). May be called from any thread, never from two at once. */
typedef void (*lk_log_fn)(void *user, lk_log_level level, const char *line);

/* Receives the state of a long job. total is 0 while it is unknown. done == total announces the end. Called from one
 * thread at a time, often: the receiver throttles. */
typedef void (*lk_progress_fn)(void *user, const char *job, uint64_t done, uint64_t total);

typedef struct lk_context_options {
    int threads;            /* worker threads for parallel work; 0 = one per available processor */
    lk_log_level log_level; /* lines above this level are dropped before they are formatted */
    lk_log_fn log;          /* NULL = no log */
    void *log_user;
    lk_progress_fn progress; /* NULL = no progress */
    void *progress_user;
} lk_context_options;

typedef struct lk_context lk_context;

/* Creates a context with its thread pool. options NULL = {0}. LK_NO_MEMORY, LK_IO when threads cannot be started. */
LK_API lk_status lk_context_new(const lk_context_options *options, lk_context **out);
/* Joins the threads. No call that was given this context may still run. NULL is allowed. */
LK_API void lk_context_free(lk_context *context);

LK_API int lk_context_threads(const lk_context *context);

/* Asks every job running under this context to stop at its next safe point; they return LK_CANCELLED with everything
 * acknowledged so far kept. Async-signal-safe, so that a SIGINT handler may call it. */
LK_API void lk_context_cancel(lk_context *context);
LK_API bool lk_context_cancelled(const lk_context *context);

#ifdef __cplusplus
}
#endif
#endif
