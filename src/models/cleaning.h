/* How texts are cleaned before they are cut into pieces, as the "normalizer" and "pre_tokenizer" of a tokenizer.json
 * with a Unigram model say, or as SiglipTokenizer does it. */
#ifndef LK_MODELS_CLEANING_H
#define LK_MODELS_CLEANING_H

#include "models/text.h"

#include <jansson.h>

enum { LK_CLEANING_STEPS = 16 };

typedef struct lk_cleaning {
    int count;
    struct lk_cleaning_step {
        enum { LK_CLEAN_LOWER, LK_CLEAN_COMPOSE, LK_CLEAN_COMPOSE_COMPATIBLE, LK_CLEAN_STRIP, LK_CLEAN_REPLACE } kind;
        bool left, right; /* of strip */
        /* Of replace: runs of `least` or more characters that are white space, or one of `set`. */
        bool spaces, run;
        int least;
        const char *set;  /* owned; NULL where spaces */
        const char *with; /* owned */
    } steps[LK_CLEANING_STEPS];
    enum { LK_PREFIX_ALWAYS, LK_PREFIX_FIRST, LK_PREFIX_NEVER } prefix; /* of U+2581 in front of a text */
} lk_cleaning;

/* Reads both from a tokenizer.json. LK_UNSUPPORTED when they hold what is not known here: other tokens would be the
 * result. */
lk_status lk_cleaning_parse(const json_t *root, const char *name, lk_cleaning *out);
void lk_cleaning_free(lk_cleaning *cleaning);

/* Adds the cleaned form of a valid UTF-8 text, spaces as U+2581. first: the text stands at the very beginning. */
lk_status lk_cleaning_run(const lk_cleaning *cleaning, const char *text, size_t size, bool first, lk_text *out);

/* What SiglipTokenizer does to a text: lower case where asked for, no punctuation of ASCII, runs of white space as one
 * space, none at the ends. */
lk_status lk_siglip_clean(const char *text, size_t size, bool lower, lk_text *out);

#endif
