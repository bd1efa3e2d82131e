#include "server/server.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

typedef struct thumb thumb;
struct thumb {
    int64_t id, stamp;
    unsigned size;
    size_t bytes;
    thumb *chain;         /* in its bucket */
    thumb *newer, *older; /* in order of use */
    uint8_t data[];
};

struct lk_thumbs {
    pthread_mutex_t mutex;
    size_t bytes, max_bytes;
    thumb *newest, *oldest;
    thumb *buckets[BUCKETS];
};

lk_status lk_thumbs_new(size_t max_bytes, lk_thumbs **out)
{
    *out = lk_alloc_zero(1, sizeof **out);
    if (!*out) return lk_fail_memory("thumbnails");
    (*out)->max_bytes = max_bytes;
    pthread_mutex_init(&(*out)->mutex, NULL);
    return LK_OK;
}

void lk_thumbs_free(lk_thumbs *thumbs)
{
    if (!thumbs) return;
    for (thumb *t = thumbs->oldest; t;) {
        thumb *next = t->newer;
        free(t);
        t = next;
    }
    pthread_mutex_destroy(&thumbs->mutex);
    free(thumbs);
}

static thumb **bucket(lk_thumbs *thumbs, int64_t id, unsigned size)
{
    return &thumbs->buckets[((uint64_t)id * 0x9e3779b97f4a7c15u + size) % BUCKETS];
}

static thumb *find(lk_thumbs *thumbs, int64_t id, unsigned size, int64_t stamp)
{
    thumb *t = *bucket(thumbs, id, size);
    while (t && (t->id != id || t->size != size || t->stamp != stamp)) t = t->chain;
    return t;
}

static void unlink_use(lk_thumbs *thumbs, thumb *t)
{
    *(t->newer ? &t->newer->older : &thumbs->newest) = t->older;
    *(t->older ? &t->older->newer : &thumbs->oldest) = t->newer;
}

static void link_newest(lk_thumbs *thumbs, thumb *t)
{
    t->newer = NULL;
    t->older = thumbs->newest;
    *(t->older ? &t->older->newer : &thumbs->oldest) = t;
    thumbs->newest = t;
}

static void drop(lk_thumbs *thumbs, thumb *t)
{
    thumb **link = bucket(thumbs, t->id, t->size);
    while (*link != t) link = &(*link)->chain;
    *link = t->chain;
    unlink_use(thumbs, t);
    thumbs->bytes -= t->bytes;
    free(t);
}

uint8_t *lk_thumbs_get(lk_thumbs *thumbs, int64_t id, unsigned size, int64_t stamp, size_t *bytes)
{
    uint8_t *copy = NULL;
    pthread_mutex_lock(&thumbs->mutex);
    thumb *t = find(thumbs, id, size, stamp);
    if (t && (copy = lk_alloc(t->bytes, 1))) {
        memcpy(copy, t->data, t->bytes);
        *bytes = t->bytes;
        unlink_use(thumbs, t);
        link_newest(thumbs, t);
    }
    pthread_mutex_unlock(&thumbs->mutex);
    return copy;
}

void lk_thumbs_put(lk_thumbs *thumbs, int64_t id, unsigned size, int64_t stamp, const uint8_t *data, size_t bytes)
{
    if (bytes > thumbs->max_bytes / 8) return;
    thumb *t = malloc(sizeof *t + bytes);
    if (!t) return; /* a cache may forget */
    *t = (thumb){.id = id, .stamp = stamp, .size = size, .bytes = bytes};
    memcpy(t->data, data, bytes);
    pthread_mutex_lock(&thumbs->mutex);
    if (find(thumbs, id, size, stamp)) { /* another thread was faster */
        free(t);
    } else {
        thumb **head = bucket(thumbs, id, size);
        t->chain = *head;
        *head = t;
        link_newest(thumbs, t);
        thumbs->bytes += bytes;
        while (thumbs->bytes > thumbs->max_bytes) drop(thumbs, thumbs->oldest);
    }
    pthread_mutex_unlock(&thumbs->mutex);
}
