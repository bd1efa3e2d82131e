/* Pictures decoded and embedded together: what a network does best many at a time. */
#ifndef LK_ENGINE_GROUP_H
#define LK_ENGINE_GROUP_H

#include "base/error.h"

#include <likeness/embed.h>
#include <stdbool.h>

/* One picture of a group. The caller fills name and image (or a status other than LK_OK with its message when there is
 * none). */
typedef struct lk_group_item {
    const char *name; /* for messages */
    lk_image image;   /* freed by lk_group_embed */
    bool leave_out;   /* nothing is to be embedded */
    bool fatal;       /* the failure is the machine's or the model's: the next picture would fare no better */
    lk_status status;
    char message[LK_ERROR_SIZE];
} lk_group_item;

/* Embeds those of n pictures that have LK_OK and are not left out, into vectors [n][dim]; rows of the others stay as
 * they are. A picture that cannot be embedded gets its own status and message and takes no other with it. */
void lk_group_embed(const lk_embedder *embedder, lk_group_item *items, size_t n, float *vectors);

/* Keeps the thread's last message as the item's. */
void lk_group_fail(lk_group_item *item, lk_status status);

#endif
