/* Decoded pictures in memory, and batches of them for a network: decoded, framed and augmented on the pool's threads.
 */
#ifndef LK_TRAIN_PICTURES_H
#define LK_TRAIN_PICTURES_H

#include "base/threads.h"
#include "models/preprocess.h"
#include "train/data.h"

#include "image/augment.h"

typedef struct lk_pictures lk_pictures;

typedef struct lk_pictures_options {
    lk_preprocess prepare;      /* of the network; its fit is the frame */
    lk_augment_options augment; /* width 0 = none */
    uint64_t memory;            /* bytes kept at most */
    uint64_t seed;
} lk_pictures_options;

/* data is borrowed. */
lk_status lk_pictures_new(lk_context *context, const lk_train_data *data, const lk_pictures_options *options,
                          lk_pictures **out);
void lk_pictures_free(lk_pictures *pictures);
uint64_t lk_pictures_unreadable(const lk_pictures *pictures);

/* Begins to make a batch of training pictures: rows [n] are places in the training part; out [n][3][h][w] stays the
 * caller's until lk_pictures_finish of this batch, and holds the same bytes for the same seed, epoch and place of the
 * batch in it. At most two batches of `most` are under way. A picture that cannot be read gives way to the next of its
 * class. */
lk_status lk_pictures_begin(lk_pictures *pictures, const uint32_t *rows, size_t n, uint64_t epoch, uint64_t first,
                            float *out);
/* Waits for the oldest batch. LK_CORRUPT when no picture of a class can be read. */
lk_status lk_pictures_finish(lk_pictures *pictures);

/* A picture of the validation part as it will be seen in use: out [3][h][w]. Any thread. view > 0: augmented instead.
 */
lk_status lk_pictures_plain(lk_pictures *pictures, uint32_t picture, uint64_t view, float *out);

#endif
