/* Levelled log lines and progress, sent to whoever the context names. A NULL context is silent. */
#ifndef LK_BASE_LOG_H
#define LK_BASE_LOG_H

#include <likeness/context.h>

void lk_log(lk_context *context, lk_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));
void lk_report_progress(lk_context *context, const char *job, uint64_t done, uint64_t total);

#endif
