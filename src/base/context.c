#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct lk_context {
    lk_context_options options;
    lk_pool *pool;
    atomic_bool cancelled;
    pthread_mutex_t log_mutex, progress_mutex; /* receivers are promised one call at a time */
};

lk_status lk_context_new(const lk_context_options *options, lk_context **out)
{
    *out = NULL;
    lk_context *context = lk_alloc_zero(1, sizeof *context);
    if (!context) return lk_fail_memory("context");
    if (options) context->options = *options;
    pthread_mutex_init(&context->log_mutex, NULL);
    pthread_mutex_init(&context->progress_mutex, NULL);
    int threads = context->options.threads;
    lk_status s = lk_pool_new(threads == 0 ? lk_cpu_count() : threads, &context->pool);
    if (s != LK_OK) {
        lk_context_free(context);
        return s;
    }
    *out = context;
    return LK_OK;
}

void lk_context_free(lk_context *context)
{
    if (!context) return;
    lk_pool_free(context->pool);
    pthread_mutex_destroy(&context->log_mutex);
    pthread_mutex_destroy(&context->progress_mutex);
    free(context);
}

int lk_context_threads(const lk_context *context)
{
    return context ? lk_pool_threads(context->pool) : 1;
}

lk_pool *lk_context_pool(lk_context *context)
{
    return context ? context->pool : NULL;
}

void lk_context_cancel(lk_context *context)
{
    atomic_store(&context->cancelled, true);
}

bool lk_context_cancelled(const lk_context *context)
{
    return context && atomic_load_explicit(&context->cancelled, memory_order_relaxed);
}

void lk_log(lk_context *context, lk_log_level level, const char *format, ...)
{
    if (!context || !context->options.log || level > context->options.log_level) return;
    char line[LK_ERROR_SIZE + 256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    line[lk_utf8_fit(line, sizeof line - 1)] = 0;
    pthread_mutex_lock(&context->log_mutex);
    context->options.log(context->options.log_user, level, line);
    pthread_mutex_unlock(&context->log_mutex);
}

void lk_report_progress(lk_context *context, const char *job, uint64_t done, uint64_t total)
{
    if (!context || !context->options.progress) return;
    pthread_mutex_lock(&context->progress_mutex);
    context->options.progress(context->options.progress_user, job, done, total);
    pthread_mutex_unlock(&context->progress_mutex);
}
