#include "engine/group.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

void lk_group_fail(lk_group_item *item, lk_status status)
{
    item->status = status;
    item->fatal |= status == LK_NO_MEMORY;
    strcpy(item->message, lk_error_message());
}

static bool wanted(const lk_group_item *item)
{
    return item->status == LK_OK && !item->leave_out;
}

/* Each by itself, after all together failed: to know which of them it was. */
static void embed_each(const lk_embedder *embedder, lk_group_item *items, size_t n, float *vectors)
{
    size_t dim = lk_embedder_dim(embedder);
    for (size_t i = 0; i < n; i++) {
        if (!wanted(&items[i])) continue;
        lk_status s = lk_embedder_embed(embedder, &items[i].image, 1, vectors + i * dim);
        if (s == LK_OK) continue;
        lk_group_fail(&items[i], lk_fail_in(s, "%s", items[i].name));
        items[i].fatal = s != LK_CORRUPT && s != LK_INVALID;
    }
}

void lk_group_embed(const lk_embedder *embedder, lk_group_item *items, size_t n, float *vectors)
{
    size_t dim = lk_embedder_dim(embedder), good = 0;
    lk_image *images = lk_alloc(n, sizeof *images);
    float *rows = lk_alloc(n * dim, sizeof *rows);
    lk_status s = images && rows ? LK_OK : lk_fail_memory("pictures");
    for (size_t i = 0; s == LK_OK && i < n; i++)
        if (wanted(&items[i])) images[good++] = items[i].image; /* borrowed */
    if (s == LK_OK && good) s = lk_embedder_embed(embedder, images, good, rows);
    if (s == LK_OK) {
        good = 0;
        for (size_t i = 0; i < n; i++)
            if (wanted(&items[i])) memcpy(vectors + i * dim, rows + good++ * dim, dim * sizeof *rows);
    } else {
        embed_each(embedder, items, n, vectors);
    }
    free(images);
    free(rows);
    for (size_t i = 0; i < n; i++) lk_image_free(&items[i].image);
}
