/* How well the network finds pictures of classes that it was not trained on. */
#ifndef LK_TRAIN_VALIDATE_H
#define LK_TRAIN_VALIDATE_H

#include "train/network.h"
#include "train/pictures.h"

/* A query whose nearest picture is wrong, by how much it is nearer than the nearest right one. */
typedef struct lk_confusion {
    uint32_t query, wrong, right; /* pictures of the data */
    float wrong_score, right_score;
} lk_confusion;

typedef struct lk_validation {
    lk_context *context;
    const lk_train_data *data;
    lk_pictures *pictures;
    size_t n, count; /* vectors; pictures (n is twice that without labels: two views of each) */
    uint32_t *rows;  /* [count] of the validation part */
    float *prepared; /* [n][3][h][w], NULL when too large to keep */
    uint8_t *usable; /* [n] */
    bool ready;
    float *vectors; /* [n][dim] normalised, of the last call */
    lk_confusion confusions[24];
    size_t confusion_count;
} lk_validation;

lk_status lk_validation_open(lk_context *context, const lk_train_data *data, lk_pictures *pictures, lk_validation *out);
void lk_validation_free(lk_validation *validation);
/* Fills map, hit1, hit10 and ndcg10 of the epoch. input: [batch][3][h][w], scratch. */
lk_status lk_validate(lk_validation *validation, lk_network *net, float *input, lk_train_epoch *epoch);

#endif
