/* Folders in which something is made whole before it is moved to its place, and what killed processes leave of them. */
#ifndef LK_BASE_WORKPLACE_H
#define LK_BASE_WORKPLACE_H

#include <likeness/status.h>
#include <stdbool.h>

/* ".NAME.PID-N.new" in the folder that "NAME" is to lie in. As long as it is open its folder is locked (flock). */
typedef struct lk_workplace {
    char *path; /* NULL when closed */
    int lock;   /* descriptor, or -1 */
} lk_workplace;

/* Makes an empty one for `place`, whose folder must exist, and removes what lk_workplace_sweep does. LK_IO. */
lk_status lk_workplace_open(const char *place, lk_workplace *out);
/* Removes it with all that is still in it. What was moved away stays; a zeroed one is allowed. */
void lk_workplace_close(lk_workplace *workplace);

/* Removes the workplaces of `place` whose process is gone: nobody has their lock, and no process has their number. What
 * cannot be removed does no harm and stays. Returns how many were removed. */
int lk_workplace_sweep(const char *place);

/* The same for files of a folder that lk_atomic_open has begun ("FILE.PID-N.tmp"): those of `file` alone. */
int lk_atomic_sweep(const char *folder, const char *file);

/* Removes a folder with all that is in it, or a file; follows no links. */
bool lk_remove_tree(const char *path);

#endif
