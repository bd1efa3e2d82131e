/* What processes that train together exchange. Every function is called by all of them in the same order, and by one
 * thread. NULL processes: one alone, and nothing is exchanged. */
#ifndef LK_TRAIN_PROCESSES_H
#define LK_TRAIN_PROCESSES_H

#include <likeness/train.h>

/* Sums over all processes in the place of the values. All receive the same bytes. */
lk_status lk_processes_sum(const lk_processes *processes, float *values, size_t n);
lk_status lk_processes_sum_f64(const lk_processes *processes, double *values, size_t n);

/* Of values [count of processes][n] each brings the row of its rank, and receives the others'. */
lk_status lk_processes_gather(const lk_processes *processes, float *values, size_t n);

/* The first process' bytes for all. */
lk_status lk_processes_share(const lk_processes *processes, void *bytes, size_t n);

/* The worst that happened anywhere: a status that is not LK_OK in one process becomes everyone's, with the message of
 * the lowest rank that has one. */
lk_status lk_processes_agree(lk_processes *processes, lk_status status);
/* A failure that every process has, because all compute the same; returns the status. */
lk_status lk_processes_same(lk_processes *processes, lk_status status);
/* Remembers a status that the others may not know of. */
lk_status lk_processes_note(lk_processes *processes, lk_status status);
/* Whether it is so in any of them; in *failed whether that could not be found out. */
bool lk_processes_any(const lk_processes *processes, bool yes, lk_status *failed);

#endif
