/* Processes joined by MPI: started by mpirun, on one machine or several. */
#include "base/error.h"
#include "base/memory.h"
#include "train/processes.h"

#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 28 }; /* elements of one call: MPI counts in int */

struct lk_processes {
    int rank, count;
    bool failed; /* by itself: nothing can be agreed on any more */
    bool agreed; /* on a failure */
};

static lk_status check(const lk_processes *p, int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (code == MPI_SUCCESS) return LK_OK;
    ((lk_processes *)(uintptr_t)p)->failed = true;
    MPI_Error_string(code, text, &length);
    return lk_fail(LK_IO, "process %d of %d: %s: %.*s: another process has died or cannot be reached", p->rank,
                   p->count, what, length, text);
}

lk_status lk_processes_join(lk_processes **out)
{
    int before = 0, after = 0, provided;
    *out = NULL;
    if (MPI_Finalized(&after) != MPI_SUCCESS || after)
        return lk_fail(LK_INVALID, "this process has left MPI: it cannot join again");
    if (MPI_Initialized(&before) != MPI_SUCCESS ||
        (!before && MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS))
        return lk_fail(LK_IO, "MPI does not start");
    lk_processes *p = lk_alloc_zero(1, sizeof *p);
    if (!p) return lk_fail_memory("processes");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &p->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &p->count);
    *out = p;
    return LK_OK;
}

/* MPI waits for all at its end: a process that failed by itself ends without, and the others are stopped by mpirun. */
void lk_processes_leave(lk_processes *p)
{
    if (!p) return;
    if (!p->failed) MPI_Finalize();
    free(p);
}

int lk_processes_rank(const lk_processes *p)
{
    return p ? p->rank : 0;
}

int lk_processes_count(const lk_processes *p)
{
    return p ? p->count : 1;
}

bool lk_processes_broken(const lk_processes *p)
{
    return p && p->failed;
}

lk_status lk_processes_same(lk_processes *p, lk_status status)
{
    if (p && status != LK_OK) p->agreed = true;
    return status;
}

lk_status lk_processes_note(lk_processes *p, lk_status status)
{
    if (p && status != LK_OK && !p->agreed) p->failed = true;
    return status;
}

static bool alone(const lk_processes *p)
{
    return !p || p->count == 1;
}

static lk_status sum(const lk_processes *p, void *values, size_t n, MPI_Datatype type, size_t bytes)
{
    lk_status s = LK_OK;
    for (size_t at = 0; s == LK_OK && !alone(p) && at < n; at += PIECE) {
        int count = (int)(n - at < PIECE ? n - at : PIECE);
        s = check(p, MPI_Allreduce(MPI_IN_PLACE, (char *)values + at * bytes, count, type, MPI_SUM, MPI_COMM_WORLD),
                  "adding up");
    }
    return s;
}

lk_status lk_processes_sum(const lk_processes *p, float *values, size_t n)
{
    return sum(p, values, n, MPI_FLOAT, sizeof *values);
}

lk_status lk_processes_sum_f64(const lk_processes *p, double *values, size_t n)
{
    return sum(p, values, n, MPI_DOUBLE, sizeof *values);
}

lk_status lk_processes_gather(const lk_processes *p, float *values, size_t n)
{
    if (alone(p)) return LK_OK;
    if (n > INT_MAX) return lk_fail(LK_LIMIT, "a batch of %zu numbers is too large to be exchanged", n);
    return check(p, MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, values, (int)n, MPI_FLOAT, MPI_COMM_WORLD),
                 "gathering");
}

lk_status lk_processes_share(const lk_processes *p, void *bytes, size_t n)
{
    lk_status s = LK_OK;
    for (size_t at = 0; s == LK_OK && !alone(p) && at < n; at += PIECE) {
        int count = (int)(n - at < PIECE ? n - at : PIECE);
        s = check(p, MPI_Bcast((char *)bytes + at, count, MPI_BYTE, 0, MPI_COMM_WORLD), "sharing");
    }
    return s;
}

lk_status lk_processes_agree(lk_processes *p, lk_status status)
{
    char message[LK_ERROR_SIZE] = "";
    if (alone(p)) return status;
    if (p->failed) return status;
    /* Lowest rank with a failure; its status and message for all. */
    int mine = status == LK_OK ? p->count : p->rank, first = p->count, code = (int)status;
    lk_status s = check(p, MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "agreeing");
    if (s != LK_OK || first == p->count) return s;
    if (first == p->rank) strcpy(message, lk_error_message());
    s = check(p, MPI_Bcast(&code, 1, MPI_INT, first, MPI_COMM_WORLD), "agreeing");
    if (s == LK_OK) s = check(p, MPI_Bcast(message, LK_ERROR_SIZE, MPI_CHAR, first, MPI_COMM_WORLD), "agreeing");
    if (s != LK_OK) return s;
    p->agreed = true;
    return first == 0 ? lk_fail((lk_status)code, "%s", message)
                      : lk_fail((lk_status)code, "process %d: %s", first, message);
}

bool lk_processes_any(const lk_processes *p, bool yes, lk_status *failed)
{
    int mine = yes, all = yes;
    *failed = LK_OK;
    if (!alone(p)) *failed = check(p, MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD), "agreeing");
    return all;
}
