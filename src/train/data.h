/* What there is to train on: paths, labels, and the part each picture plays. */
#ifndef LK_TRAIN_DATA_H
#define LK_TRAIN_DATA_H

#include "base/arena.h"

#include <likeness/train.h>

/* A part of the data: training or validation. */
typedef struct lk_train_part {
    size_t count;
    uint32_t *pictures; /* [count] numbers of the data */
    int32_t *classes;   /* [count] 0..class_count-1; of several labels the first, without labels the picture's number */
    size_t class_count;
    uint32_t *set_at; /* several labels: [count+1] */
    int32_t *sets;
    int32_t *levels; /* a hierarchy: [count][levels], the coarsest first */
} lk_train_part;

struct lk_train_data {
    lk_arena arena;
    size_t count;
    const char **paths;
    const char **names; /* [count] label as written, or "" */
    bool multi, labelled, drawings;
    size_t levels; /* of a hierarchy; 0 = none */
    lk_train_part training, validation;
    lk_train_data_info info;
};

/* Labels of rows (places in the part) as a loss wants them. finest: of a hierarchy the finest level alone, as single
 * labels. The arrays belong to the caller: classes [n] or [n][levels], set_at [n+1], sets [enough for all]. */
lk_labels lk_train_labels_of(const lk_train_data *data, const lk_train_part *part, const uint32_t *rows, size_t n,
                             bool finest, int32_t *classes, uint32_t *set_at, int32_t *sets);

#endif
