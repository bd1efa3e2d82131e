/* Losses and miners as they are typed: a name, and after a colon what differs from the defaults:
 * triplet:margin=0.2,form=smooth,distance=squared-l2 */
#ifndef LK_CLI_TRAIN_KEYS_H
#define LK_CLI_TRAIN_KEYS_H

#include <likeness/train.h>

/* LK_INVALID lists what is known. */
lk_status cli_read_loss(const char *text, lk_loss_options *out);
lk_status cli_read_miner(const char *text, lk_miner_options *out);
/* gem, gem:3, gem-channels, avg, max, rmac, rmac:4, cgd, cgd:avg+gem, cls. */
lk_status cli_read_pool(const char *text, lk_head_options *out);
/* soft, X (alike from there on) or X,Y (and unlike up to there). */
/* "1", "1:temperature=0.5,smoothing=0.1": the classifier beside CGD. */
lk_status cli_read_auxiliary(const char *text, lk_auxiliary_options *out);
/* "pca", "learnt:64". */
lk_status cli_read_whiten(const char *text, lk_whiten_kind *kind, size_t *dim);
lk_status cli_read_pairs(const char *text, lk_pair_rule *out);

/* One of so many words; *out is left alone when text is NULL. */
lk_status cli_read_word(const char *option, const char *text, const char *const *words, int count, int *out);
/* A number in a range; the same. */
lk_status cli_read_number(const char *option, const char *text, double least, double most, double *out);

#endif
