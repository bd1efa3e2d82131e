/* Inside of a tokenizer: what its files say (tokenizer_files.c) and what encodes texts with it (tokenizer.c). */
#ifndef LK_MODELS_TOKENIZER_INSIDE_H
#define LK_MODELS_TOKENIZER_INSIDE_H

#include "models/bpe.h"
#include "models/cleaning.h"
#include "models/sentencepiece.h"
#include "models/tokenizer.h"

enum { LK_MAX_ADDED = 64 };

/* A token that is found in the text itself, before anything is split. */
typedef struct lk_added {
    char *text;
    size_t length;
    int32_t id;
    bool normalized;              /* looked for after the clean-up rather than before */
    bool strip_left, strip_right; /* white space beside it goes */
} lk_added;

struct lk_tokenizer {
    enum {
        LK_TOKENS_OF_BYTES,   /* CLIP's byte-level pairs */
        LK_TOKENS_OF_SIGLIP,  /* a SentencePiece model, as SiglipTokenizer uses it */
        LK_TOKENS_OF_UNIGRAM, /* the Unigram model of a tokenizer.json */
    } way;
    lk_added added[LK_MAX_ADDED];
    size_t n_added, size;
    int32_t start, end, pad; /* start and end: -1 = none */
    /* CLIP */
    lk_bpe bpe;
    int32_t bytes[256][2]; /* token of a byte within a word, and at its end */
    /* SigLIP */
    lk_sentencepiece *model;
    bool lower;
    char *unknown; /* text of the unknown token, and how many pieces it is cut into */
    size_t unknown_pieces;
    /* Unigram */
    lk_unigram *unigram;
    lk_cleaning cleaning;
};

#endif
