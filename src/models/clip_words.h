/* How CLIP cleans a text and cuts it into words, before byte-pair encoding. */
#ifndef LK_MODELS_CLIP_WORDS_H
#define LK_MODELS_CLIP_WORDS_H

#include <likeness/status.h>
#include <stddef.h>

/* Unicode NFC, runs of white space to one space each, lower case character by character. text is valid UTF-8 of `size`
 * bytes; *clean is malloc'ed, ended by NUL, NULL on failure. LK_NO_MEMORY. */
lk_status lk_clip_clean(const char *text, size_t size, char **clean);

/* Calls word for each piece of a cleaned text, in order: contractions, runs of letters, single numerals, runs of
 * anything else but white space. A status other than LK_OK stops and is returned. */
typedef lk_status (*lk_word_fn)(void *user, const char *bytes, size_t size);
lk_status lk_clip_words(const char *text, size_t size, lk_word_fn word, void *user);

#endif
