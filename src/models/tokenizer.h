/* Texts to token ids, read from the files that Hugging Face publishes: byte-level byte-pair encoding (Sennrich et al.,
 * 2016; Radford et al., 2021) with the ids of transformers' CLIPTokenizer; a SentencePiece model (spiece.model) with
 * those of its SiglipTokenizer; the Unigram model of a tokenizer.json with those of the tokenizers library. */
#ifndef LK_MODELS_TOKENIZER_H
#define LK_MODELS_TOKENIZER_H

#include <jansson.h>
#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lk_tokenizer lk_tokenizer;

/* Reads spiece.model, else tokenizer.json, else vocab.json and merges.txt, of a model's folder. LK_NOT_FOUND when it
 * has neither, LK_CORRUPT, LK_UNSUPPORTED (a tokenizer of another kind: the message says which). */
lk_status lk_tokenizer_open(const char *directory, lk_tokenizer **out);
bool lk_tokenizer_exists(const char *directory);
/* From the text of a tokenizer.json; `name` stands for the file in messages. */
lk_status lk_tokenizer_parse(const char *json, size_t size, const char *name, lk_tokenizer **out);
/* From the bytes of a spiece.model and what tokenizer_config.json says (NULL: nothing). */
lk_status lk_tokenizer_parse_siglip(const void *bytes, size_t size, const char *name, const json_t *config,
                                    lk_tokenizer **out);
void lk_tokenizer_free(lk_tokenizer *tokenizer); /* NULL allowed */

/* Token ids of a UTF-8 text: start (where there is one), pieces, end; what does not fit into `most` >= 2 is cut off,
 * the end token kept. ids [most], of which *count are written. Text above 64 KiB: LK_LIMIT. Not UTF-8: LK_INVALID. */
lk_status lk_tokenizer_encode(const lk_tokenizer *tokenizer, const char *text, size_t most, int32_t *ids,
                              size_t *count);
int32_t lk_tokenizer_end(const lk_tokenizer *tokenizer);
int32_t lk_tokenizer_pad(const lk_tokenizer *tokenizer); /* what fills short rows */
size_t lk_tokenizer_size(const lk_tokenizer *tokenizer); /* above every id */

#endif
