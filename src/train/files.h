/* What a training writes: the model, the checkpoint, the history and the report. */
#ifndef LK_TRAIN_FILES_H
#define LK_TRAIN_FILES_H

#include "train/validate.h"

/* Where a run stands. Everything else of it follows from options, data and seed. */
typedef struct lk_train_state {
    uint32_t epoch;  /* epochs done */
    uint64_t batch;  /* batches done of the next one */
    uint64_t step;   /* steps of the optimiser */
    double loss_sum; /* over those batches */
    uint32_t best_epoch, since_best;
    double best_map;
} lk_train_state;

/* checkpoint/last.safetensors. fingerprint: 32 digits of the options and the data. */
lk_status lk_checkpoint_write(const char *directory, const lk_network *net, const lk_train_state *state,
                              const char *fingerprint);
/* *there is false when there is none. LK_CONFLICT: of other options or data. */
lk_status lk_checkpoint_read(const char *directory, lk_network *net, lk_train_state *state, const char *fingerprint,
                             bool *there);

/* config.json and model.safetensors: the head without what only training needs. */
lk_status lk_train_export(const char *directory, const lk_network *net, bool half);

/* Learns the whitening that is asked for, when the training is over, and puts it into the model; nothing is done where
 * it is there already. */
lk_status lk_train_whiten(lk_context *context, const lk_train_data *data, const lk_train_options *options,
                          const char *directory);

/* history.csv, one line an epoch. */
lk_status lk_history_write(const char *directory, const lk_train_epoch *epochs, size_t count);
/* The first `count` lines of it; fewer when the file has fewer. */
lk_status lk_history_read(const char *directory, lk_train_epoch *epochs, size_t count);

/* report.html. */
lk_status lk_train_report_write(const char *directory, const lk_network *net, const lk_train_data *data,
                                const lk_train_epoch *epochs, size_t count, const lk_validation *validation,
                                const char *reason);

#endif
