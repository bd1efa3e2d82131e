/* Unigram language model over pieces (Kudo, 2018): of all ways to cut a text into pieces the likeliest, found by
 * Viterbi's algorithm. What no piece covers is "unknown", ten below the least likely piece. */
#ifndef LK_MODELS_UNIGRAM_H
#define LK_MODELS_UNIGRAM_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lk_piece_kind {
    LK_PIECE_NORMAL,
    LK_PIECE_USER,    /* always taken where it occurs */
    LK_PIECE_UNUSED,  /* has an id and is never taken */
    LK_PIECE_RESERVED /* not found in texts: padding, end, unknown, bytes */
} lk_piece_kind;

typedef struct lk_unigram lk_unigram;

/* Whose arithmetic decides between ways that are nearly as likely: sentencepiece adds in f32, Hugging Face's
 * tokenizers in f64. */
typedef enum lk_unigram_manner { LK_UNIGRAM_SENTENCEPIECE, LK_UNIGRAM_TOKENIZERS } lk_unigram_manner;

lk_status lk_unigram_new(lk_unigram **out);
void lk_unigram_free(lk_unigram *unigram); /* NULL allowed */
/* Adds a piece; ids count up from 0 in the order of adding. LK_CORRUPT (empty, score not finite), LK_LIMIT,
 * LK_NO_MEMORY. */
lk_status lk_unigram_add(lk_unigram *unigram, const char *piece, size_t size, double score, lk_piece_kind kind);
/* To be called once after the last piece. unknown: id of what no piece covers; bytes: such characters become the
 * pieces "<0x00>" to "<0xFF>" of their bytes. LK_CORRUPT (a piece twice, no such ids), LK_NO_MEMORY. */
lk_status lk_unigram_finish(lk_unigram *unigram, int64_t unknown, bool bytes, lk_unigram_manner manner);

size_t lk_unigram_size(const lk_unigram *unigram);
/* Id of a piece of any kind, or -1. */
int32_t lk_unigram_find(const lk_unigram *unigram, const char *piece, size_t size);
/* Bytes of the longest LK_PIECE_USER that the text begins with, or 0. */
size_t lk_unigram_user_prefix(const lk_unigram *unigram, const char *text, size_t size);

/* ids [size], of which *count are written: neighbouring unknowns are one. LK_NO_MEMORY. */
lk_status lk_unigram_encode(const lk_unigram *unigram, const char *text, size_t size, int32_t *ids, size_t *count);

#endif
