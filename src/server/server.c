/* The daemon: connections, bodies, limits, and who may ask at all. */
#include "server/server.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "late/late.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define THUMBNAIL_BYTES ((size_t)64 << 20)
enum { MOST_BODIES = 16 }; /* of the largest size that may lie in memory at once, of all connections together */

/* ---- who may ask ---- */

static bool host_is(const char *host, const char *name)
{
    size_t n = strlen(name);
    return strncasecmp(host, name, n) == 0 && (host[n] == 0 || host[n] == ':');
}

/* A page of a stranger can make a browser send requests here under a name that it has pointed at this machine (DNS
 * rebinding). A server for this machine alone answers only to the names of this machine. */
static bool host_allowed(const lk_server *server, const char *host)
{
    if (!server->loopback || !host) return true;
    return host_is(host, "localhost") || host_is(host, "[::1]") || host_is(host, "127.0.0.1") ||
           (server->options.address && host_is(host, server->options.address));
}

/* A form on another site may post here; its Origin then is not ours. Programs send none. */
static bool origin_allowed(const char *origin, const char *host)
{
    if (!origin) return true;
    const char *name = strstr(origin, "://");
    return name && host && strcasecmp(name + 3, host) == 0;
}

/* ---- bodies ---- */

static bool append(lk_request *request, const void *bytes, size_t n)
{
    if (request->size + n > request->server->options.max_upload_bytes) {
        request->refused = 413;
        request->refusal = "the upload, all its pictures together, is larger than this server accepts";
        return false;
    }
    lk_server *server = request->server;
    if (atomic_fetch_add(&server->body_bytes, n) + n > server->options.max_upload_bytes * MOST_BODIES) {
        atomic_fetch_sub(&server->body_bytes, n);
        request->refused = 503;
        request->refusal = "too many pictures are being sent at once: try again";
        return false;
    }
    request->counted += n;
    if (!lk_grow((void **)&request->body, &request->capacity, request->size + n, 1)) {
        request->refused = 503;
        request->refusal = "out of memory";
        return false;
    }
    memcpy(request->body + request->size, bytes, n);
    request->size += n;
    return true;
}

static enum MHD_Result form_part(void *user, enum MHD_ValueKind kind, const char *key, const char *file,
                                 const char *type, const char *encoding, const char *data, uint64_t offset, size_t size)
{
    lk_request *request = user;
    (void)kind, (void)file, (void)type, (void)encoding;
    if (!key || strcmp(key, "image") != 0) return MHD_YES;
    if (size == 0) return MHD_YES;
    if (offset == 0 && request->pictures == LK_MOST_UPLOADS) {
        request->refused = 400;
        request->refusal = "the form has more than 16 pictures";
        return MHD_NO;
    }
    if (offset == 0) request->starts[request->pictures++] = request->size;
    return append(request, data, size) ? MHD_YES : MHD_NO;
}

static const char *header(lk_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

/* At the first sight of a request: whether it is worth reading its body. */
static void examine(lk_request *request)
{
    const char *host = header(request, "Host"), *length = header(request, "Content-Length"),
               *type = header(request, "Content-Type");
    bool post = strcmp(request->method, "POST") == 0;
    if (!host_allowed(request->server, host)) {
        request->refused = 403;
        request->refusal = "this server answers to localhost only";
    } else if (post && !origin_allowed(header(request, "Origin"), host)) {
        request->refused = 403;
        request->refusal = "requests from pages of other sites are not answered";
    } else if (length && strtoull(length, NULL, 10) > request->server->options.max_upload_bytes + 65536) {
        request->refused = 413; /* 64 KiB for the wrapping of a form */
        request->refusal = "the upload, all its pictures together, is larger than this server accepts";
    } else if (post && type && strncasecmp(type, "multipart/form-data", 19) == 0) {
        request->form = MHD_create_post_processor(request->connection, 65536, form_part, request);
        if (!request->form) {
            request->refused = 400;
            request->refusal = "the form is malformed";
        }
    }
}

static enum MHD_Result answer_refusal(lk_request *request)
{
    return lk_answer_error(request, request->refused, request->refusal);
}

static enum MHD_Result handle(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                              const char *version, const char *data, size_t *size, void **state)
{
    lk_server *server = user;
    lk_request *request = *state;
    (void)version;
    if (!request) {
        request = lk_alloc_zero(1, sizeof *request);
        if (!request) return MHD_NO;
        *request = (lk_request){.server = server, .connection = connection, .method = method, .path = path};
        *state = request;
        atomic_fetch_add(&server->requests, 1);
        examine(request);
        /* Who asks before sending need not send what is refused; it ends the connection. */
        if (request->refused && header(request, "Expect")) return answer_refusal(request);
        return MHD_YES;
    }
    if (*size) {
        if (!request->refused) {
            if (!request->form) {
                request->pictures = 1;
                append(request, data, *size);
            } else if (MHD_post_process(request->form, data, *size) != MHD_YES && !request->refused) {
                request->refused = 400;
                request->refusal = "the form is malformed";
            }
        }
        *size = 0; /* what is refused is read and dropped, so that the sender gets to see the answer */
        return MHD_YES;
    }
    if (request->form) { /* hands out what it still holds; what it says of the closing line is no reason to refuse */
        MHD_destroy_post_processor(request->form);
        request->form = NULL;
    }
    return request->refused ? answer_refusal(request) : lk_route(request);
}

static void completed(void *user, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode code)
{
    lk_request *request = *state;
    (void)user, (void)connection, (void)code;
    if (!request) return;
    if (request->form) MHD_destroy_post_processor(request->form); /* the sender went away */
    atomic_fetch_sub(&request->server->body_bytes, request->counted);
    free(request->body);
    free(request);
    *state = NULL;
}

/* ---- life ---- */

static void *refresh(void *user)
{
    lk_server *server = user;
    unsigned waited = 0;
    while (!atomic_load(&server->stopping)) {
        nanosleep(&(struct timespec){0, 100000000}, NULL);
        if (++waited < server->options.refresh_seconds * 10) continue;
        waited = 0;
        if (lk_searcher_refresh(server->searcher) != LK_OK)
            lk_log(server->context, LK_LOG_WARN, "the collection could not be read again: %s", lk_error_message());
    }
    return NULL;
}

static lk_status resolve(const lk_server_options *options, struct sockaddr_storage *out, bool *six, bool *loopback)
{
    const char *address = options->address;
    memset(out, 0, sizeof *out);
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    if (strcmp(address, "localhost") == 0) address = "127.0.0.1";
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(options->port);
        *six = false;
        *loopback = ntohl(v4->sin_addr.s_addr) >> 24 == 127;
        return LK_OK;
    }
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(options->port);
        *six = true;
        *loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
        return LK_OK;
    }
    return lk_fail(LK_INVALID, "%s: is not an IP address", options->address);
}

static void quiet(void *user, const char *format, va_list args)
{
    (void)user, (void)format, (void)args; /* broken connections are daily bread */
}

lk_status lk_server_new(lk_context *context, lk_searcher *searcher, const lk_server_options *options, lk_server **out)
{
    *out = NULL;
    const char *missing = lk_late_try("libmicrohttpd");
    if (missing) return lk_fail(LK_UNSUPPORTED, "%s", missing);
    lk_server *server = lk_alloc_zero(1, sizeof *server);
    if (!server) return lk_fail_memory("server");
    server->context = context;
    server->searcher = searcher;
    if (options) server->options = *options;
    lk_server_options *o = &server->options;
    if (!o->address) o->address = "127.0.0.1";
    if (!o->max_upload_bytes) o->max_upload_bytes = (uint64_t)32 << 20;
    if (!o->max_pixels) o->max_pixels = 50000000;
    if (!o->max_connections) o->max_connections = 256;
    if (!o->timeout_seconds) o->timeout_seconds = 30;
    if (!o->refresh_seconds) o->refresh_seconds = 2;
    struct sockaddr_storage address;
    bool six = false;
    lk_status s;
    LK_TRY(lk_thumbs_new(THUMBNAIL_BYTES, &server->thumbs));
    LK_TRY(resolve(o, &address, &six, &server->loopback));
    unsigned threads =
        (unsigned)lk_context_threads(context) * 2; /* searches keep the processors busy, reading does not */
    errno = 0;
    server->daemon = MHD_start_daemon(
        MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ERROR_LOG | (six ? MHD_USE_IPv6 : 0), o->port, NULL,
        NULL, handle, server, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL, MHD_OPTION_SOCK_ADDR,
        (struct sockaddr *)&address, MHD_OPTION_THREAD_POOL_SIZE, threads < 4 ? 4u : threads,
        MHD_OPTION_CONNECTION_LIMIT, o->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, o->timeout_seconds,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
    if (!server->daemon) {
        int err = errno;
        s = err == EADDRINUSE
                ? lk_fail(LK_IO, "port %u is taken by another program: choose another with --port", o->port)
                : lk_fail_errno(err ? err : EIO, "%s, port %u: cannot be served", o->address, o->port);
        goto done;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT);
    server->port = info ? info->port : o->port;
    int err = pthread_create(&server->refresher, NULL, refresh, server);
    if (err) {
        lk_fail_errno(err, "a thread could not be started");
        s = LK_IO;
        goto done;
    }
    server->refreshing = true;
    *out = server;
    server = NULL;
done:
    lk_server_free(server);
    return s;
}

uint16_t lk_server_port(const lk_server *server)
{
    return server->port;
}

void lk_server_free(lk_server *server)
{
    if (!server) return;
    atomic_store(&server->stopping, true);
    if (server->refreshing) pthread_join(server->refresher, NULL);
    if (server->daemon) MHD_stop_daemon(server->daemon); /* waits for the threads, and they for their requests */
    lk_thumbs_free(server->thumbs);
    free(server);
}
