/* Built without MPI: every process is alone. */
#include "base/error.h"
#include "train/processes.h"

lk_status lk_processes_join(lk_processes **out)
{
    *out = NULL;
    return lk_fail(LK_UNSUPPORTED, "this program was built without MPI (meson setup -Dmpi=enabled)");
}

void lk_processes_leave(lk_processes *processes)
{
    (void)processes;
}

int lk_processes_rank(const lk_processes *processes)
{
    (void)processes;
    return 0;
}

int lk_processes_count(const lk_processes *processes)
{
    (void)processes;
    return 1;
}

bool lk_processes_broken(const lk_processes *processes)
{
    (void)processes;
    return false;
}

lk_status lk_processes_same(lk_processes *processes, lk_status status)
{
    (void)processes;
    return status;
}

lk_status lk_processes_note(lk_processes *processes, lk_status status)
{
    (void)processes;
    return status;
}

lk_status lk_processes_sum(const lk_processes *processes, float *values, size_t n)
{
    (void)processes, (void)values, (void)n;
    return LK_OK;
}

lk_status lk_processes_sum_f64(const lk_processes *processes, double *values, size_t n)
{
    (void)processes, (void)values, (void)n;
    return LK_OK;
}

lk_status lk_processes_gather(const lk_processes *processes, float *values, size_t n)
{
    (void)processes, (void)values, (void)n;
    return LK_OK;
}

lk_status lk_processes_share(const lk_processes *processes, void *bytes, size_t n)
{
    (void)processes, (void)bytes, (void)n;
    return LK_OK;
}

lk_status lk_processes_agree(lk_processes *processes, lk_status status)
{
    (void)processes;
    return status;
}

bool lk_processes_any(const lk_processes *processes, bool yes, lk_status *failed)
{
    (void)processes;
    *failed = LK_OK;
    return yes;
}
