#include "models/unigram.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PIECES = 1 << 22, MAX_TEXT = 256 << 20, ROOT = 0 };
#define UNKNOWN_PENALTY 10.0

typedef struct piece {
    size_t at, size; /* in texts */
    double score;
    lk_piece_kind kind;
} piece;

/* A trie as one hash table: (node, byte) -> child. */
typedef struct edge {
    uint64_t key; /* node << 8 | byte; UINT64_MAX is an empty place */
    uint32_t child;
} edge;

typedef struct trie {
    edge *edges; /* [mask + 1], at most half full */
    size_t mask;
    int32_t *ids; /* [nodes]: piece that ends here, or -1 */
    uint32_t nodes;
} trie;

struct lk_unigram {
    char *texts;
    size_t texts_size, texts_capacity;
    piece *pieces;
    size_t count, capacity;
    trie found, reserved; /* pieces that texts may hold; the others */
    int32_t unknown, bytes[256];
    bool has_bytes, single;
    double unknown_score, best_score;
};

lk_status lk_unigram_new(lk_unigram **out)
{
    *out = lk_alloc_zero(1, sizeof **out);
    return *out ? LK_OK : lk_fail_memory("vocabulary");
}

static void trie_free(trie *t)
{
    free(t->edges);
    free(t->ids);
}

void lk_unigram_free(lk_unigram *u)
{
    if (!u) return;
    trie_free(&u->found);
    trie_free(&u->reserved);
    free(u->texts);
    free(u->pieces);
    free(u);
}

lk_status lk_unigram_add(lk_unigram *u, const char *text, size_t size, double score, lk_piece_kind kind)
{
    if (size == 0) return lk_fail(LK_CORRUPT, "piece %zu is empty", u->count);
    if (!isfinite(score) || fabs(score) > 1e9) return lk_fail(LK_CORRUPT, "the score of piece %zu is none", u->count);
    if (u->count == MAX_PIECES || size > MAX_TEXT - u->texts_size)
        return lk_fail(LK_LIMIT, "more than %d pieces", MAX_PIECES);
    if (!lk_grow((void **)&u->texts, &u->texts_capacity, u->texts_size + size, 1) ||
        !lk_grow((void **)&u->pieces, &u->capacity, u->count + 1, sizeof *u->pieces))
        return lk_fail_memory("vocabulary");
    memcpy(u->texts + u->texts_size, text, size);
    u->pieces[u->count++] = (piece){u->texts_size, size, score, kind};
    u->texts_size += size;
    return LK_OK;
}

/* ---- the tries ---- */

static edge *edge_at(const trie *t, uint32_t node, uint8_t byte)
{
    uint64_t key = (uint64_t)node << 8 | byte;
    size_t at = (size_t)(key * 0x9E3779B97F4A7C15u >> 24) & t->mask;
    while (t->edges[at].key != UINT64_MAX && t->edges[at].key != key) at = (at + 1) & t->mask;
    return &t->edges[at];
}

/* The child by a byte; 0 (the root is nobody's child) when there is none. */
static uint32_t step(const trie *t, uint32_t node, uint8_t byte)
{
    const edge *e = edge_at(t, node, byte);
    return e->key == UINT64_MAX ? ROOT : e->child;
}

static bool trie_new(trie *t, size_t bytes)
{
    size_t size = 16;
    while (size < bytes * 2) size *= 2;
    t->edges = lk_alloc(size, sizeof *t->edges);
    t->ids = lk_alloc(bytes + 1, sizeof *t->ids);
    t->mask = size - 1;
    t->nodes = 1;
    if (!t->edges || !t->ids) return false;
    memset(t->edges, 0xff, size * sizeof *t->edges);
    t->ids[ROOT] = -1;
    return true;
}

static bool trie_add(trie *t, const char *text, size_t size, int32_t id)
{
    uint32_t node = ROOT;
    for (size_t i = 0; i < size; i++) {
        edge *e = edge_at(t, node, (uint8_t)text[i]);
        if (e->key == UINT64_MAX) {
            *e = (edge){(uint64_t)node << 8 | (uint8_t)text[i], t->nodes};
            t->ids[t->nodes++] = -1;
        }
        node = e->child;
    }
    if (t->ids[node] >= 0) return false;
    t->ids[node] = id;
    return true;
}

static int32_t trie_find(const trie *t, const char *text, size_t size)
{
    uint32_t node = ROOT;
    for (size_t i = 0; i < size; i++)
        if ((node = step(t, node, (uint8_t)text[i])) == ROOT) return -1;
    return t->ids[node];
}

int32_t lk_unigram_find(const lk_unigram *u, const char *text, size_t size)
{
    int32_t id = trie_find(&u->reserved, text, size);
    return id >= 0 ? id : trie_find(&u->found, text, size);
}

size_t lk_unigram_size(const lk_unigram *u)
{
    return u->count;
}

size_t lk_unigram_user_prefix(const lk_unigram *u, const char *text, size_t size)
{
    size_t best = 0;
    uint32_t node = ROOT;
    for (size_t i = 0; i < size; i++) {
        if ((node = step(&u->found, node, (uint8_t)text[i])) == ROOT) break;
        if (u->found.ids[node] >= 0 && u->pieces[u->found.ids[node]].kind == LK_PIECE_USER) best = i + 1;
    }
    return best;
}

/* sentencepiece's bounds are those of normal pieces; tokenizers knows no kinds. */
static void find_bounds(lk_unigram *u)
{
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < u->count; i++) {
        if (u->single && u->pieces[i].kind != LK_PIECE_NORMAL) continue;
        least = fmin(least, u->pieces[i].score);
        most = fmax(most, u->pieces[i].score);
    }
    if (!isfinite(least)) least = most = 0;
    u->unknown_score = u->single ? (double)((float)least - (float)UNKNOWN_PENALTY) : least - UNKNOWN_PENALTY;
    u->best_score = most;
}

lk_status lk_unigram_finish(lk_unigram *u, int64_t unknown, bool bytes, lk_unigram_manner manner)
{
    if (unknown < 0 || (uint64_t)unknown >= u->count) return lk_fail(LK_CORRUPT, "no piece is the unknown one");
    u->unknown = (int32_t)unknown;
    u->single = manner == LK_UNIGRAM_SENTENCEPIECE;
    u->has_bytes = bytes;
    size_t sizes[2] = {0};
    for (size_t i = 0; i < u->count; i++) sizes[u->pieces[i].kind == LK_PIECE_RESERVED] += u->pieces[i].size;
    if (!trie_new(&u->found, sizes[0]) || !trie_new(&u->reserved, sizes[1])) return lk_fail_memory("vocabulary");
    for (size_t i = 0; i < u->count; i++) {
        const piece *p = &u->pieces[i];
        trie *t = p->kind == LK_PIECE_RESERVED ? &u->reserved : &u->found;
        if (!trie_add(t, u->texts + p->at, p->size, (int32_t)i))
            return lk_fail(LK_CORRUPT, "piece %zu (%.*s) is there twice", i, p->size < 64 ? (int)p->size : 64,
                           u->texts + p->at);
    }
    for (int i = 0; bytes && i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        u->bytes[i] = lk_unigram_find(u, name, 6);
        if (u->bytes[i] < 0) return lk_fail(LK_CORRUPT, "the piece %s is missing", name);
    }
    find_bounds(u);
    return LK_OK;
}

/* ---- encoding ---- */

/* The likeliest way to a place in the text: its last piece. */
typedef struct best {
    double score;
    size_t start;
    int32_t id; /* -1: no way yet */
} best;

static void offer(const lk_unigram *u, best *at, double score, size_t start, int32_t id)
{
    if (u->single) score = (double)(float)score;
    if (at->id >= 0 && !(score > at->score)) return;
    *at = (best){score, start, id};
}

static double score_of(const lk_unigram *u, int32_t id, size_t size)
{
    if (u->pieces[id].kind == LK_PIECE_USER) return (double)((float)size * (float)u->best_score) - 0.1;
    return u->pieces[id].score;
}

/* Bytes of a character, from the first of them. */
static size_t character_size(uint8_t lead)
{
    return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

static void walk(const lk_unigram *u, const char *text, size_t size, best *ends)
{
    for (size_t i = 0; i <= size; i++) ends[i].id = -1;
    ends[0].score = 0;
    for (size_t start = 0, width; start < size; start += width) {
        double before = ends[start].score;
        bool covered = false;
        uint32_t node = ROOT;
        width = character_size((uint8_t)text[start]);
        if (width > size - start) width = size - start;
        for (size_t i = start; i < size; i++) {
            if ((node = step(&u->found, node, (uint8_t)text[i])) == ROOT) break;
            int32_t id = u->found.ids[node];
            size_t length = i + 1 - start;
            if (id < 0 || u->pieces[id].kind == LK_PIECE_UNUSED) continue;
            offer(u, &ends[i + 1], score_of(u, id, length) + before, start, id);
            covered = covered || length == width;
        }
        if (!covered) offer(u, &ends[start + width], u->unknown_score + before, start, u->unknown);
    }
}

lk_status lk_unigram_encode(const lk_unigram *u, const char *text, size_t size, int32_t *ids, size_t *count)
{
    *count = 0;
    if (size == 0) return LK_OK;
    best *ends = lk_alloc(size + 1, sizeof *ends);
    if (!ends) return lk_fail_memory("text");
    walk(u, text, size, ends);
    /* Backwards, filled from the end of ids. */
    size_t n = size;
    for (size_t end = size; end > 0; end = ends[end].start) {
        int32_t id = ends[end].id;
        if (id == u->unknown && u->has_bytes)
            for (size_t i = end; i-- > ends[end].start;) ids[--n] = u->bytes[(uint8_t)text[i]];
        else if (id != u->unknown || n == size || ids[n] != u->unknown)
            ids[--n] = id;
    }
    *count = size - n;
    memmove(ids, ids + n, *count * sizeof *ids);
    free(ends);
    return LK_OK;
}
