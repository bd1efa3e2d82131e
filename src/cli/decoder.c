#include "cli/decoder.h"
#include "base/error.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Both ends are one program, so structs travel as they are. The path follows the request; the pixels follow the answer.
 */
typedef struct request {
    lk_image_options options;
    uint32_t crop[4];
    size_t path_size; /* with the NUL */
    bool cropped;
} request;

typedef struct answer {
    lk_status status;
    lk_image image; /* its pixels mean nothing to the other end */
    char message[LK_ERROR_SIZE];
} answer;

struct decoder {
    int socket; /* -1: no process */
    pid_t process;
    request request; /* the last, and its path */
    char *path;
};

static bool send_all(int socket, const void *bytes, size_t size)
{
    for (const char *at = bytes; size;) {
        ssize_t n = send(socket, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool receive_all(int socket, void *bytes, size_t size)
{
    for (char *at = bytes; size;) {
        ssize_t n = recv(socket, at, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static size_t pixel_bytes(const lk_image *image)
{
    return (size_t)image->width * image->height * image->channels;
}

static lk_status decode(const request *r, const char *path, lk_image *out)
{
    return lk_query_image_file(path, r->cropped ? r->crop : NULL, &r->options, out);
}

/* ---- the process ---- */

static bool serve_one(int socket)
{
    request r;
    answer a = {0};
    char *path = NULL;
    bool going =
        receive_all(socket, &r, sizeof r) && (path = malloc(r.path_size)) && receive_all(socket, path, r.path_size);
    if (going) {
        a.status = decode(&r, path, &a.image);
        if (a.status != LK_OK) strcpy(a.message, lk_error_message());
        going = send_all(socket, &a, sizeof a) &&
                (a.status != LK_OK || send_all(socket, a.image.pixels, pixel_bytes(&a.image)));
        lk_image_free(&a.image);
    }
    free(path);
    return going;
}

static _Noreturn void serve(int socket, pid_t parent, const char *first)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    signal(SIGINT, SIG_IGN); /* to the whole group: the program decides what ends */
    signal(SIGTERM, SIG_IGN);
    /* Whoever reads what the program prints waits until nobody holds the other end. Standard input stays: /dev/stdin is
     * a picture's name too. */
    int nothing = open("/dev/null", O_WRONLY);
    for (int fd = 1; nothing >= 0 && fd <= 2; fd++) dup2(nothing, fd);
    lk_image_prepare(first);
    while (serve_one(socket)) continue;
    _exit(0);
}

/* ---- the program ---- */

/* Above the numbers of standard streams, whichever of these are closed. */
static bool make_ends(int ends[2])
{
    int low[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, low) != 0) return false;
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 3);
        close(low[i]);
    }
    if (ends[0] >= 0 && ends[1] >= 0) return true;
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0) close(ends[i]);
    return false;
}

decoder *decoder_start(const char *first)
{
    decoder *d = lk_alloc_zero(1, sizeof *d);
    int ends[2];
    if (!d) return NULL;
    d->socket = -1;
    if (!make_ends(ends)) return d;
    signal(SIGCHLD, SIG_DFL); /* whoever ignores it leaves nothing to wait for, and the number to another process */
    pid_t parent = getpid();
    d->process = fork();
    if (d->process == 0) {
        close(ends[0]);
        serve(ends[1], parent, first);
    }
    close(ends[1]);
    if (d->process > 0)
        d->socket = ends[0];
    else
        close(ends[0]);
    return d;
}

lk_status decoder_ask(decoder *d, const char *path, const uint32_t crop[4], const lk_image_options *options)
{
    if (!d) return lk_fail_memory("decoder");
    d->request = (request){.options = *options, .path_size = strlen(path) + 1, .cropped = crop != NULL};
    if (crop) memcpy(d->request.crop, crop, sizeof d->request.crop);
    free(d->path);
    d->path = strdup(path);
    if (!d->path) return lk_fail_memory("decoder");
    /* Who cannot send finds nothing to receive either: decoder_take says why. */
    if (d->socket >= 0 && send_all(d->socket, &d->request, sizeof d->request))
        send_all(d->socket, d->path, d->request.path_size);
    return LK_OK;
}

/* The process has closed its end, so it ends. */
static lk_status ended(decoder *d, lk_image *out)
{
    int how = 0;
    pid_t waited;
    close(d->socket);
    d->socket = -1;
    while ((waited = waitpid(d->process, &how, 0)) < 0 && errno == EINTR) continue;
    if (waited < 0) return lk_fail(LK_IO, "%s: the process that decodes it has ended", d->path);
    if (WIFEXITED(how) && WEXITSTATUS(how) == 127) return decode(&d->request, d->path, out); /* says what is missing */
    if (WIFEXITED(how))
        return lk_fail(LK_IO, "%s: the process that decodes it has ended with status %d", d->path, WEXITSTATUS(how));
    int by = WTERMSIG(how);
    bool crashed = by == SIGSEGV || by == SIGBUS || by == SIGFPE || by == SIGILL || by == SIGABRT || by == SIGTRAP;
    return lk_fail(crashed ? LK_CORRUPT : LK_IO, "%s: the process that decodes it has ended by signal %d (%s)%s",
                   d->path, by, strsignal(by), by == SIGKILL ? ", as it does when memory is short" : "");
}

/* The pictures of strangers may have taken the process over: what it sends is believed as little as they are. */
static bool sensible(const decoder *d, answer *a)
{
    const lk_image *i = &a->image;
    const lk_image_options *asked = &d->request.options;
    uint32_t channels = asked->colour == LK_COLOUR_RGBA ? 4 : asked->colour == LK_COLOUR_GREY ? 1 : 3;
    a->message[sizeof a->message - 1] = 0;
    if (a->status != LK_OK) return a->status > LK_OK && a->status <= LK_LIMIT;
    return i->width && i->height && i->channels == channels &&
           (uint64_t)i->width * i->height <= (asked->max_pixels ? asked->max_pixels : SIZE_MAX / 4);
}

lk_status decoder_take(decoder *d, lk_image *out)
{
    answer a;
    *out = (lk_image){0};
    if (d->socket < 0) return decode(&d->request, d->path, out);
    if (!receive_all(d->socket, &a, sizeof a)) return ended(d, out);
    if (!sensible(d, &a)) return lk_fail(LK_CORRUPT, "%s: the process that decodes it went wrong", d->path);
    if (a.status != LK_OK) return lk_fail(a.status, "%s", a.message);
    a.image.pixels = lk_alloc(pixel_bytes(&a.image), 1);
    if (!a.image.pixels) return lk_fail_memory("picture");
    if (!receive_all(d->socket, a.image.pixels, pixel_bytes(&a.image))) {
        free(a.image.pixels);
        return ended(d, out);
    }
    *out = a.image;
    return LK_OK;
}

void decoder_stop(decoder *d)
{
    if (!d) return;
    if (d->socket >= 0) {
        close(d->socket);
        /* It is not waited for, so that the number stays its own until this program ends: to take a hundred libraries
         * out of its memory takes up to ten milliseconds, and the system does that while this program goes on. */
        kill(d->process, SIGKILL);
    }
    free(d->path);
    free(d);
}
