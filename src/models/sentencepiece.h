/* SentencePiece models of the Unigram kind (Kudo & Richardson, 2018; sentencepiece_model.proto): the file's own
 * normalisation of characters, then pieces. Ids are those that sentencepiece gives. */
#ifndef LK_MODELS_SENTENCEPIECE_H
#define LK_MODELS_SENTENCEPIECE_H

#include "models/text.h"
#include "models/unigram.h"

typedef struct lk_sentencepiece lk_sentencepiece;

/* From the bytes of a .model file; `name` stands for the file in messages. LK_CORRUPT, LK_UNSUPPORTED (a model of
 * another kind: the message says which), LK_LIMIT, LK_NO_MEMORY. */
lk_status lk_sentencepiece_parse(const void *bytes, size_t size, const char *name, lk_sentencepiece **out);
void lk_sentencepiece_free(lk_sentencepiece *model); /* NULL allowed */

const lk_unigram *lk_sentencepiece_pieces(const lk_sentencepiece *model);

/* Adds the normalised form of a valid UTF-8 text: characters replaced, spaces as U+2581, one in front. */
lk_status lk_sentencepiece_normalise(const lk_sentencepiece *model, const char *text, size_t size, lk_text *out);
/* Normalises and cuts into pieces. *ids is malloc'ed, NULL on failure. */
lk_status lk_sentencepiece_encode(const lk_sentencepiece *model, const char *text, size_t size, int32_t **ids,
                                  size_t *count);

#endif
