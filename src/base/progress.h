/* Shows the progress of a long job to a person: a bar with rate and time left on a terminal, a plain line now and then
 * elsewhere. Receives what lk_report_progress sends (lk_progress_update is an lk_progress_fn). */
#ifndef LK_BASE_PROGRESS_H
#define LK_BASE_PROGRESS_H

#include <stdint.h>
#include <stdio.h>

typedef struct lk_progress lk_progress;

/* stream is borrowed; whether it is a terminal is asked here. NULL when out of memory. */
lk_progress *lk_progress_new(FILE *stream);
void lk_progress_free(lk_progress *progress);
void lk_progress_update(void *progress, const char *job, uint64_t done, uint64_t total);
/* Takes the bar off the line so that something else may be printed there; the next update draws it again. */
void lk_progress_clear(lk_progress *progress);

#endif
