/* Inside of the server: a request as the routes see it, and what they answer. */
#ifndef LK_SERVER_SERVER_H
#define LK_SERVER_SERVER_H

#include <jansson.h>
#include <likeness/server.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Pictures made smaller, kept while there is room; the one not asked for longest goes first. */
typedef struct lk_thumbs lk_thumbs;
lk_status lk_thumbs_new(size_t max_bytes, lk_thumbs **out);
void lk_thumbs_free(lk_thumbs *thumbs);
/* A malloc'ed copy of what is kept under (id, size, stamp), or NULL. stamp tells versions of one picture apart. */
uint8_t *lk_thumbs_get(lk_thumbs *thumbs, int64_t id, unsigned size, int64_t stamp, size_t *bytes);
void lk_thumbs_put(lk_thumbs *thumbs, int64_t id, unsigned size, int64_t stamp, const uint8_t *data, size_t bytes);

/* A file of web/, put into the program at build time. */
typedef struct lk_web_file {
    const char *path, *type;
    const unsigned char *bytes;
    size_t size;
    const char *tag; /* for ETag: changes with the content */
} lk_web_file;
extern const lk_web_file lk_web_files[];
extern const size_t lk_web_file_count;

struct lk_server {
    lk_context *context;
    lk_searcher *searcher;
    lk_server_options options;
    struct MHD_Daemon *daemon;
    uint16_t port;
    bool loopback;
    lk_thumbs *thumbs;
    pthread_t refresher;
    bool refreshing;
    atomic_bool stopping;
    atomic_ullong requests, failures, searches;
    atomic_ullong search_microseconds;
    atomic_ullong body_bytes; /* of all requests under way */
};

enum { LK_MOST_UPLOADS = 16 }; /* pictures in one form */

typedef struct lk_request {
    lk_server *server;
    struct MHD_Connection *connection;
    const char *method, *path;
    uint8_t *body; /* pictures, one behind the other */
    size_t starts[LK_MOST_UPLOADS], pictures;
    size_t size, capacity;
    size_t counted;                 /* in the server's body_bytes */
    struct MHD_PostProcessor *form; /* while a multipart body comes in */
    unsigned refused;               /* HTTP status decided before the body was read; 0 = none */
    const char *refusal;
} lk_request;

/* Answers a complete request. */
enum MHD_Result lk_route(lk_request *request);

/* {"error":{"code":..,"message":..}} */
enum MHD_Result lk_answer_error(lk_request *request, unsigned status, const char *message);
/* Takes value over. */
enum MHD_Result lk_answer_json(lk_request *request, unsigned status, json_t *value);
/* bytes is taken over (free). cache is the Cache-Control header. */
enum MHD_Result lk_answer_bytes(lk_request *request, const char *type, uint8_t *bytes, size_t size, const char *cache);

#endif
