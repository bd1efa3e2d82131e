/* Pictures to search with of which several come in one request: for less work, and a limit that they share. */
#ifndef LK_ENGINE_QUERY_H
#define LK_ENGINE_QUERY_H

#include <likeness/engine.h>

typedef struct lk_posted {
    const void *bytes;
    size_t size;
    const char *name;     /* in messages */
    const uint32_t *crop; /* [4] as of lk_query_image_load, or NULL */
    bool drawing;         /* an SVG: may embed pictures of any number of pixels */
} lk_posted;

bool lk_posted_is_drawing(const void *bytes, size_t size);

/* lk_query_image_memory for the embedder of the searcher and, if detail is not NULL, for geometric re-ranking: the
 * picture that a part is cut from is decoded once. *pixels receives how many count against a limit of several pictures
 * together: those in the file; of a drawing those it is rendered in, and all that it may have if it embeds pictures.
 * What is returned is the caller's to free whatever happens. */
lk_status lk_posted_load(lk_searcher *searcher, const lk_posted *posted, const lk_image_options *limits,
                         lk_image *image, lk_image *detail, uint64_t *pixels);

#endif
