/* HTTP API and web page over one collection. Routes: docs/api.md. */
#ifndef LIKENESS_SERVER_H
#define LIKENESS_SERVER_H

#include <likeness/engine.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lk_server lk_server;

typedef struct lk_server_options {
    const char *address;       /* NULL = 127.0.0.1: only this machine. Listening wider is a decision of the caller. */
    uint16_t port;             /* 0 = any free one (see lk_server_port) */
    uint64_t max_upload_bytes; /* of the pictures of one request together; 0 = 32 MiB */
    uint64_t max_pixels;       /* of the pictures of an upload together; 0 = 50 megapixels */
    unsigned max_connections;  /* 0 = 256 */
    unsigned timeout_seconds;  /* idle connections are dropped; 0 = 30 */
    unsigned refresh_seconds;  /* how often the collection is asked for new commits; 0 = 2 */
} lk_server_options;

/* Starts serving in threads of its own; the searcher is borrowed until lk_server_free. LK_IO when the port is taken
 * (the message says so), LK_UNSUPPORTED when libmicrohttpd is missing. Uploads load libraries when the first comes; a
 * host in which files may be replaced meanwhile calls lk_image_prepare and lk_embedder_prepare before. */
LK_API lk_status lk_server_new(lk_context *context, lk_searcher *searcher, const lk_server_options *options,
                               lk_server **out);
LK_API uint16_t lk_server_port(const lk_server *server);
/* Finishes the requests under way and stops. */
LK_API void lk_server_free(lk_server *server);

#ifdef __cplusplus
}
#endif
#endif
