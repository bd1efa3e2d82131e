/* Byte-pair encoding of one word: the merge of lowest rank first, the leftmost of equal ones first. */
#ifndef LK_MODELS_BPE_H
#define LK_MODELS_BPE_H

#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>

/* (left id, right id) -> rank, merged id: open addressing. */
typedef struct lk_bpe_entry {
    uint64_t pair; /* left << 32 | right; UINT64_MAX is an empty place */
    uint32_t rank;
    int32_t merged;
} lk_bpe_entry;

typedef struct lk_bpe {
    lk_bpe_entry *entries; /* [mask + 1], at most half full */
    size_t mask;
} lk_bpe;

lk_status lk_bpe_new(size_t merges, lk_bpe *out);
void lk_bpe_free(lk_bpe *bpe);
/* A pair given twice has its later rank. */
void lk_bpe_add(lk_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged);
/* ids [n] are the word's characters, replaced by its *n tokens. LK_NO_MEMORY. */
lk_status lk_bpe_merge(const lk_bpe *bpe, int32_t *ids, size_t *n);

#endif
