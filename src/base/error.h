/* Leaving a message with a status. The message is per thread; work handed to a pool carries it back (see threads.h). */
#ifndef LK_BASE_ERROR_H
#define LK_BASE_ERROR_H

#include <likeness/status.h>

#define LK_ERROR_SIZE 1024

/* Sets this thread's message and returns status, so that callers write `return lk_fail(LK_INVALID, "...", ...)`. */
lk_status lk_fail(lk_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For a failed system call: appends ": <meaning of err>" and picks the status from err (ENOENT: not found, ENOMEM: no
 * memory, everything else LK_IO; ENOSPC and EDQUOT say that the disk is full). */
lk_status lk_fail_errno(int err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<context>: " before the present message; returns status unchanged. For LK_OK does nothing. */
lk_status lk_fail_in(lk_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* LK_NO_MEMORY with "out of memory (<what>)". */
lk_status lk_fail_memory(const char *what);

/* `lk_status s` in scope and a label `done`: leaves on failure. */
#define LK_TRY(call)                                                                                                   \
    do {                                                                                                               \
        if ((s = (call)) != LK_OK) goto done;                                                                          \
    } while (0)

#endif
