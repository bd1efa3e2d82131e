#include "base/workplace.h"

#include "base/error.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

bool lk_remove_tree(const char *path)
{
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0;
}

/* The folder that `place` lies in, and its name there. Both are to be freed; false when out of memory or lost. */
static bool split(const char *place, char **folder, char **name)
{
    *folder = *name = NULL;
    if (lk_path_absolute(place, folder) != LK_OK) return false;
    char *slash = strrchr(*folder, '/');
    *name = strdup(slash + 1);
    slash[slash == *folder] = 0; /* "/x" lies in "/" */
    return *name != NULL;
}

lk_status lk_workplace_open(const char *place, lk_workplace *out)
{
    static atomic_uint next;
    char *folder, *name;
    *out = (lk_workplace){.lock = -1};
    lk_workplace_sweep(place);
    lk_status s = split(place, &folder, &name) ? LK_OK : lk_fail_memory(place);
    if (s == LK_OK &&
        asprintf(&out->path, "%s/.%s.%ld-%u.new", folder, name, (long)getpid(), atomic_fetch_add(&next, 1)) < 0) {
        out->path = NULL;
        s = lk_fail_memory(place);
    }
    free(folder);
    free(name);
    if (s != LK_OK) return s;
    lk_remove_tree(out->path); /* of a process that had our number and was killed */
    if (mkdir(out->path, 0777) != 0) {
        s = lk_fail_errno(errno, "%s: cannot be created", place);
        free(out->path);
        out->path = NULL;
        return s;
    }
    out->lock = open(out->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->lock >= 0) flock(out->lock, LOCK_EX | LOCK_NB); /* where there are no locks the number has to do */
    return LK_OK;
}

void lk_workplace_close(lk_workplace *w)
{
    if (!w->path) return;
    lk_remove_tree(w->path);
    if (w->lock >= 0) close(w->lock);
    free(w->path);
    *w = (lk_workplace){.lock = -1};
}

/* Whether nobody works on it: the process of that number is gone, and nobody holds the lock. The lock tells where
 * processes do not see one another (containers), the number where there are no locks, and in the moment before one is
 * taken. */
static bool is_abandoned(int folder, const char *name, long process)
{
    if (process <= 0 || process > INT32_MAX || kill((pid_t)process, 0) == 0 || errno != ESRCH) return false;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return !held;
}

/* Number of the process in "<before>PID[-N]<after>", 0 when the name is another. */
static long process_of(const char *name, const char *before, const char *after)
{
    size_t n = strlen(before);
    char *end;
    if (strncmp(name, before, n) != 0 || name[n] < '1' || name[n] > '9') return 0;
    long process = strtol(name + n, &end, 10);
    if (*end == '-') end += 1 + strspn(end + 1, "0123456789");
    return strcmp(end, after) == 0 ? process : 0;
}

static int sweep(const char *folder, const char *before, const char *after)
{
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        long process = process_of(e->d_name, before, after);
        if (!process || !is_abandoned(dirfd(dir), e->d_name, process)) continue;
        char *path = lk_path_join(folder, e->d_name);
        count += path && lk_remove_tree(path);
        free(path);
    }
    if (dir) closedir(dir);
    return count;
}

int lk_workplace_sweep(const char *place)
{
    char *folder, *name, *before = NULL;
    int count = 0;
    if (split(place, &folder, &name) && asprintf(&before, ".%s.", name) >= 0) count = sweep(folder, before, ".new");
    free(before);
    free(folder);
    free(name);
    return count;
}

int lk_atomic_sweep(const char *folder, const char *file)
{
    char *before;
    if (asprintf(&before, "%s.", file) < 0) return 0;
    int count = sweep(folder, before, ".tmp");
    free(before);
    return count;
}
