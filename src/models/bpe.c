#include "models/bpe.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

lk_status lk_bpe_new(size_t merges, lk_bpe *out)
{
    size_t size = 16;
    while (size < merges * 2) size *= 2;
    *out = (lk_bpe){lk_alloc(size, sizeof *out->entries), size - 1};
    if (!out->entries) return lk_fail_memory("merges");
    memset(out->entries, 0xff, size * sizeof *out->entries);
    return LK_OK;
}

void lk_bpe_free(lk_bpe *bpe)
{
    free(bpe->entries);
    *bpe = (lk_bpe){0};
}

static lk_bpe_entry *place(const lk_bpe *bpe, uint64_t pair)
{
    uint64_t hash = pair * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(hash >> 20) & bpe->mask;
    while (bpe->entries[at].pair != UINT64_MAX && bpe->entries[at].pair != pair) at = (at + 1) & bpe->mask;
    return &bpe->entries[at];
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

void lk_bpe_add(lk_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    uint64_t pair = pair_of(left, right);
    *place(bpe, pair) = (lk_bpe_entry){pair, rank, merged};
}

/* A chain of symbols; -1 ends it. A symbol that was merged into its left neighbour is dead. */
typedef struct symbol {
    int32_t id, previous, next;
    bool dead;
} symbol;

/* A merge that may be made at a position, smallest (rank, position) on top of the heap. */
typedef struct chance {
    uint32_t rank;
    int32_t at, merged;
} chance;

static bool before(const chance *a, const chance *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(chance *heap, size_t *size, chance c)
{
    size_t i = (*size)++;
    for (; i > 0 && before(&c, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
}

static chance pop(chance *heap, size_t *size)
{
    chance top = heap[0], last = heap[--*size];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < *size; i = child) {
        if (child + 1 < *size && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

/* What merging position `at` with its right neighbour would give; NULL when nothing. */
static const lk_bpe_entry *merge_at(const lk_bpe *bpe, const symbol *symbols, int32_t at)
{
    if (at < 0 || symbols[at].next < 0) return NULL;
    const lk_bpe_entry *e = place(bpe, pair_of(symbols[at].id, symbols[symbols[at].next].id));
    return e->pair == UINT64_MAX ? NULL : e;
}

static void consider(const lk_bpe *bpe, const symbol *symbols, int32_t at, chance *heap, size_t *size)
{
    const lk_bpe_entry *e = merge_at(bpe, symbols, at);
    if (e) push(heap, size, (chance){e->rank, at, e->merged});
}

lk_status lk_bpe_merge(const lk_bpe *bpe, int32_t *ids, size_t *n)
{
    size_t count = *n, size = 0;
    if (count < 2) return LK_OK;
    symbol *symbols = lk_alloc(count, sizeof *symbols);
    chance *heap = lk_alloc(count * 3, sizeof *heap); /* one per pair, and two more per merge */
    lk_status s = LK_OK;
    if (!symbols || !heap) {
        s = lk_fail_memory("word");
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        symbols[i] = (symbol){ids[i], (int32_t)i - 1, i + 1 < count ? (int32_t)i + 1 : -1, false};
    for (size_t i = 0; i + 1 < count; i++) consider(bpe, symbols, (int32_t)i, heap, &size);
    while (size) {
        chance c = pop(heap, &size);
        symbol *left = &symbols[c.at];
        if (left->dead) continue;
        const lk_bpe_entry *e = merge_at(bpe, symbols, c.at);
        if (!e || e->merged != c.merged) continue; /* a neighbour changed since */
        symbol *right = &symbols[left->next];
        right->dead = true;
        left->id = c.merged;
        left->next = right->next;
        if (right->next >= 0) symbols[right->next].previous = c.at;
        consider(bpe, symbols, left->previous, heap, &size);
        consider(bpe, symbols, c.at, heap, &size);
    }
    *n = 0;
    for (int32_t i = 0; i >= 0; i = symbols[i].next) ids[(*n)++] = symbols[i].id;
done:
    free(symbols);
    free(heap);
    return s;
}
