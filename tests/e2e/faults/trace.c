/* A library to be preloaded: writes down what a program does to files, in order, so that tests/e2e/faults/disk.py can
 * play back what a disk holds after the power went at any moment. What a program writes through a mapping or through
 * stdio is not seen; collections are written with neither.
 *
 * One record: letter, descriptor, two numbers, two lengths (int32, int32, uint64, uint64, uint32, uint32), then the
 * bytes. LIKENESS_TRACE names the file, which is appended to. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define TRACED __attribute__((visibility("default")))

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* an operation and its record happen as one */
static int log_fd = -1;

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("LIKENESS_TRACE");
    if (path) log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static void record(char what, int fd, uint64_t a, uint64_t b, const void *first, size_t first_size, const void *second,
                   size_t second_size)
{
    struct __attribute__((packed)) {
        int32_t what, fd;
        uint64_t a, b;
        uint32_t first, second;
    } head = {what, fd, a, b, (uint32_t)first_size, (uint32_t)second_size};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)first, first_size}, {(void *)second, second_size}};
    if (log_fd >= 0) syscall(SYS_writev, log_fd, parts, 3);
}

/* The absolute path of a name beside a directory's descriptor. */
static const char *resolve(int directory, const char *path, char out[PATH_MAX])
{
    char link[64], folder[PATH_MAX];
    if (path[0] == '/') return path;
    if (directory == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t n = readlink(link, folder, sizeof folder - 1);
    folder[n > 0 ? n : 0] = 0;
    if (snprintf(out, PATH_MAX, "%s/%s", folder, path) >= PATH_MAX) abort();
    return out;
}

static int open_at(int directory, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    struct stat st;
    const char *absolute = resolve(directory, path, whole);
    pthread_mutex_lock(&mutex);
    int before = lstat(absolute, &st) == 0;
    int fd = (int)syscall(SYS_openat, directory, path, flags, mode), error = errno;
    if (fd >= 0) record('o', fd, (uint64_t)flags, (uint64_t)!before, absolute, strlen(absolute), NULL, 0);
    pthread_mutex_unlock(&mutex);
    errno = error;
    return fd;
}

static mode_t mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

#define OPEN(name)                                                                                                     \
    TRACED int name(const char *path, int flags, ...)                                                                  \
    {                                                                                                                  \
        va_list args;                                                                                                  \
        va_start(args, flags);                                                                                         \
        mode_t mode = mode_of(flags, args);                                                                            \
        va_end(args);                                                                                                  \
        return open_at(AT_FDCWD, path, flags, mode);                                                                   \
    }
#define OPENAT(name)                                                                                                   \
    TRACED int name(int directory, const char *path, int flags, ...)                                                   \
    {                                                                                                                  \
        va_list args;                                                                                                  \
        va_start(args, flags);                                                                                         \
        mode_t mode = mode_of(flags, args);                                                                            \
        va_end(args);                                                                                                  \
        return open_at(directory, path, flags, mode);                                                                  \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* An operation as a system call, and its record when it went well. */
#define DO(call, when_well)                                                                                            \
    pthread_mutex_lock(&mutex);                                                                                        \
    long result = (call);                                                                                              \
    int error = errno;                                                                                                 \
    if (result >= 0) when_well;                                                                                        \
    pthread_mutex_unlock(&mutex);                                                                                      \
    errno = error;                                                                                                     \
    return (__typeof__(result))result

TRACED int close(int fd)
{
    DO(syscall(SYS_close, fd), record('c', fd, 0, 0, NULL, 0, NULL, 0));
}

TRACED ssize_t write(int fd, const void *bytes, size_t size)
{
    DO(syscall(SYS_write, fd, bytes, size),
       record('w', fd, (uint64_t)(lseek(fd, 0, SEEK_CUR) - result), 0, bytes, (size_t)result, NULL, 0));
}

static ssize_t write_at(int fd, const void *bytes, size_t size, off_t offset)
{
    DO(syscall(SYS_pwrite64, fd, bytes, size, offset),
       record('w', fd, (uint64_t)offset, 0, bytes, (size_t)result, NULL, 0));
}

TRACED ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    return write_at(fd, bytes, size, offset);
}
TRACED ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset)
{
    return write_at(fd, bytes, size, offset);
}

static int cut(int fd, off_t size)
{
    DO(syscall(SYS_ftruncate, fd, size), record('t', fd, (uint64_t)size, 0, NULL, 0, NULL, 0));
}
TRACED int ftruncate(int fd, off_t size)
{
    return cut(fd, size);
}
TRACED int ftruncate64(int fd, off_t size)
{
    return cut(fd, size);
}

static int cut_path(const char *path, off_t size)
{
    char whole[PATH_MAX];
    const char *absolute = resolve(AT_FDCWD, path, whole);
    DO(syscall(SYS_truncate, path, size), record('T', -1, (uint64_t)size, 0, absolute, strlen(absolute), NULL, 0));
}
TRACED int truncate(const char *path, off_t size)
{
    return cut_path(path, size);
}
TRACED int truncate64(const char *path, off_t size)
{
    return cut_path(path, size);
}

TRACED int fsync(int fd)
{
    DO(syscall(SYS_fsync, fd), record('s', fd, 0, 0, NULL, 0, NULL, 0));
}
TRACED int fdatasync(int fd)
{
    DO(syscall(SYS_fdatasync, fd), record('s', fd, 0, 0, NULL, 0, NULL, 0));
}

TRACED int rename(const char *from, const char *to)
{
    char a[PATH_MAX], b[PATH_MAX];
    const char *first = resolve(AT_FDCWD, from, a), *second = resolve(AT_FDCWD, to, b);
    DO(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0),
       record('r', -1, 0, 0, first, strlen(first), second, strlen(second)));
}

TRACED int unlinkat(int directory, const char *path, int flags)
{
    char whole[PATH_MAX];
    const char *absolute = resolve(directory, path, whole);
    DO(syscall(SYS_unlinkat, directory, path, flags), record('u', -1, 0, 0, absolute, strlen(absolute), NULL, 0));
}
TRACED int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
TRACED int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

TRACED int mkdir(const char *path, mode_t mode)
{
    char whole[PATH_MAX];
    const char *absolute = resolve(AT_FDCWD, path, whole);
    DO(syscall(SYS_mkdirat, AT_FDCWD, path, mode), record('m', -1, 0, 0, absolute, strlen(absolute), NULL, 0));
}
