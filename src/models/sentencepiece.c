#include "models/sentencepiece.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581, which stands for a space within pieces */

struct lk_sentencepiece {
    lk_unigram *pieces;
    /* Replacements of characters: a double-array trie (Aoe, 1989; the layout of darts-clone) from texts to places in
     * `replacements`, where a text ended by NUL stands. */
    uint32_t *units;
    size_t unit_count;
    char *replacements;
    size_t replacements_size;
    bool dummy_prefix, single_spaces, escape_spaces;
};

/* ---- reading protocol buffers ---- */

/* Fields of a message, one after another. A field's value is a number or bytes. */
typedef struct message {
    const uint8_t *at, *end;
    uint32_t field;
    uint64_t number;
    const uint8_t *bytes;
    size_t size;
    bool bad;
} message;

static bool read_varint(message *m, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        uint8_t byte = *m->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

/* Moves on to the next field; false at the end, or when the message is broken (bad). */
static bool next_field(message *m)
{
    uint64_t tag, size = 0;
    m->bytes = NULL;
    m->size = 0;
    m->number = 0;
    if (m->bad || m->at == m->end) return false;
    m->bad = true;
    if (!read_varint(m, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) return false;
    m->field = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
        if (!read_varint(m, &m->number)) return false;
        m->bad = false;
        return true;
    case 1: size = 8; break;
    case 5: size = 4; break;
    case 2:
        if (!read_varint(m, &size)) return false;
        break;
    default: return false;
    }
    if (size > (uint64_t)(m->end - m->at)) return false;
    m->bytes = m->at;
    m->size = (size_t)size;
    m->at += size;
    m->bad = false;
    return true;
}

static message inner(const message *m)
{
    return (message){.at = m->bytes, .end = m->bytes ? m->bytes + m->size : NULL};
}

/* ---- reading the model ---- */

/* What the trainer's part of the file decides. */
typedef struct trainer {
    uint64_t kind; /* 1: Unigram */
    bool bytes;
    int64_t unknown; /* piece of the kind "unknown", -1 before it was seen */
} trainer;

enum { KIND_NORMAL = 1, KIND_UNKNOWN = 2, KIND_CONTROL = 3, KIND_USER = 4, KIND_UNUSED = 5, KIND_BYTE = 6 };

static lk_status read_piece(lk_sentencepiece *m, message in, trainer *t)
{
    const uint8_t *text = NULL;
    size_t size = 0;
    uint64_t kind = KIND_NORMAL;
    float score = 0;
    while (next_field(&in)) {
        if (in.field == 1 && in.bytes) {
            text = in.bytes;
            size = in.size;
        }
        if (in.field == 2 && in.size == sizeof score) memcpy(&score, in.bytes, sizeof score);
        if (in.field == 3) kind = in.number;
    }
    if (in.bad) return lk_fail(LK_CORRUPT, "a piece is broken");
    if (kind < KIND_NORMAL || kind > KIND_BYTE) return lk_fail(LK_UNSUPPORTED, "a piece is of an unknown kind");
    if (kind == KIND_UNKNOWN) {
        if (t->unknown >= 0) return lk_fail(LK_CORRUPT, "two pieces are the unknown one");
        t->unknown = (int64_t)lk_unigram_size(m->pieces);
    }
    lk_piece_kind as = kind == KIND_NORMAL   ? LK_PIECE_NORMAL
                       : kind == KIND_USER   ? LK_PIECE_USER
                       : kind == KIND_UNUSED ? LK_PIECE_UNUSED
                                             : LK_PIECE_RESERVED;
    return lk_unigram_add(m->pieces, (const char *)text, size, (double)score, as);
}

static lk_status read_trainer(message in, trainer *t)
{
    while (next_field(&in)) {
        if (in.field == 3) t->kind = in.number;
        if (in.field == 24 && in.number) return lk_fail(LK_UNSUPPORTED, "puts spaces behind words; in front is read");
        if (in.field == 35) t->bytes = in.number != 0;
    }
    return in.bad ? lk_fail(LK_CORRUPT, "what it says of its training is broken") : LK_OK;
}

/* The table of replacements: size of the trie in bytes, its units, then the texts. */
static lk_status read_replacements(lk_sentencepiece *m, const uint8_t *bytes, size_t size)
{
    uint32_t trie;
    if (size == 0) return LK_OK;
    if (m->units) return lk_fail(LK_CORRUPT, "has two tables of characters");
    if (size < sizeof trie) return lk_fail(LK_CORRUPT, "its table of characters is broken");
    memcpy(&trie, bytes, sizeof trie);
    if (trie < 4 || trie % 4 || trie > size - sizeof trie)
        return lk_fail(LK_CORRUPT, "its table of characters is broken");
    m->unit_count = trie / 4;
    m->replacements_size = size - sizeof trie - trie;
    m->units = lk_alloc(m->unit_count, sizeof *m->units);
    m->replacements = lk_alloc(m->replacements_size + 1, 1);
    if (!m->units || !m->replacements) return lk_fail_memory("table of characters");
    memcpy(m->units, bytes + sizeof trie, trie);
    memcpy(m->replacements, bytes + sizeof trie + trie, m->replacements_size);
    m->replacements[m->replacements_size] = 0; /* every text ends */
    return LK_OK;
}

static lk_status read_normaliser(lk_sentencepiece *m, message in)
{
    while (next_field(&in)) {
        lk_status s = in.field == 2 && in.bytes ? read_replacements(m, in.bytes, in.size) : LK_OK;
        if (s != LK_OK) return s;
        if (in.field == 3) m->dummy_prefix = in.number != 0;
        if (in.field == 4) m->single_spaces = in.number != 0;
        if (in.field == 5) m->escape_spaces = in.number != 0;
    }
    return in.bad ? lk_fail(LK_CORRUPT, "its normalisation is broken") : LK_OK;
}

static lk_status read_model(lk_sentencepiece *m, message in)
{
    static const char *const kinds[] = {"", "Unigram", "BPE", "word", "character"};
    trainer t = {.kind = 1, .unknown = -1};
    lk_status s = lk_unigram_new(&m->pieces);
    while (s == LK_OK && next_field(&in)) {
        if (!in.bytes) continue;
        if (in.field == 1) s = read_piece(m, inner(&in), &t);
        if (in.field == 2) s = read_trainer(inner(&in), &t);
        if (in.field == 3) s = read_normaliser(m, inner(&in));
    }
    if (s != LK_OK) return s;
    if (in.bad || lk_unigram_size(m->pieces) == 0) return lk_fail(LK_CORRUPT, "is not a SentencePiece model");
    if (t.kind != 1)
        return lk_fail(LK_UNSUPPORTED, "is a SentencePiece model of the kind %s; Unigram is read",
                       t.kind < sizeof kinds / sizeof *kinds ? kinds[t.kind] : "?");
    return lk_unigram_finish(m->pieces, t.unknown, t.bytes, LK_UNIGRAM_SENTENCEPIECE);
}

lk_status lk_sentencepiece_parse(const void *bytes, size_t size, const char *name, lk_sentencepiece **out)
{
    *out = NULL;
    lk_sentencepiece *m = lk_alloc_zero(1, sizeof *m);
    if (!m) return lk_fail_memory(name);
    m->dummy_prefix = m->single_spaces = m->escape_spaces = true;
    lk_status s = read_model(m, (message){.at = bytes, .end = (const uint8_t *)bytes + size});
    if (s != LK_OK) {
        lk_sentencepiece_free(m);
        return lk_fail_in(s, "%s", name);
    }
    *out = m;
    return LK_OK;
}

void lk_sentencepiece_free(lk_sentencepiece *m)
{
    if (!m) return;
    lk_unigram_free(m->pieces);
    free(m->units);
    free(m->replacements);
    free(m);
}

const lk_unigram *lk_sentencepiece_pieces(const lk_sentencepiece *m)
{
    return m->pieces;
}

/* ---- normalising ---- */

/* Bits of a unit: a leaf's value in 31 bits; else a label in the low 8, whether a leaf hangs below it in bit 8, and the
 * offset of its children in bits 10 and up, times 256 where bit 9 is set. */
static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* The replacement of the longest beginning that has one: its text, and how many bytes it stands for (0: none). */
static size_t find_replacement(const lk_sentencepiece *m, const char *text, size_t size, const char **replacement)
{
    size_t best = 0;
    if (!m->units) return 0;
    size_t node = offset_of(m->units[0]);
    for (size_t i = 0; i < size; i++) {
        node ^= (uint8_t)text[i];
        if (node >= m->unit_count) break;
        uint32_t unit = m->units[node];
        if ((unit & (1u << 31 | 0xff)) != (uint8_t)text[i]) break;
        node ^= offset_of(unit);
        if (node >= m->unit_count) break;
        uint32_t value = m->units[node] & 0x7fffffff;
        if ((unit & 1u << 8) && value <= m->replacements_size) {
            best = i + 1;
            *replacement = m->replacements + value;
        }
    }
    return best;
}

/* What the text begins with, normalised: *out of *out_size bytes stands for the bytes that are returned. */
static size_t normalise_prefix(const lk_sentencepiece *m, const char *text, size_t size, const char **out,
                               size_t *out_size)
{
    size_t n = lk_unigram_user_prefix(m->pieces, text, size);
    *out = text;
    if (!n && (n = find_replacement(m, text, size, out))) {
        *out_size = strlen(*out);
        return n;
    }
    if (!n) /* one character */
        for (n = 1; n < size && ((uint8_t)text[n] & 0xc0) == 0x80; n++) {
        }
    *out_size = n;
    return n;
}

static bool ends_with(const lk_text *text, const char *part, size_t size)
{
    return text->size >= size && memcmp(text->bytes + text->size - size, part, size) == 0;
}

static lk_status add_normalised(const lk_sentencepiece *m, const char *from, size_t size, lk_text *out)
{
    lk_status s = LK_OK;
    for (size_t i = 0, run; s == LK_OK && i < size; i += run) {
        bool space = m->escape_spaces && from[i] == ' ';
        for (run = 1; !space && i + run < size && !(m->escape_spaces && from[i + run] == ' '); run++) {
        }
        s = space ? lk_text_add(out, SPACE, 3) : lk_text_add(out, from + i, run);
    }
    return s;
}

lk_status lk_sentencepiece_normalise(const lk_sentencepiece *m, const char *text, size_t size, lk_text *out)
{
    const char *from, *space = m->escape_spaces ? SPACE : " ";
    size_t from_size, n, space_size = strlen(space);
    lk_status s = LK_OK;
    while (size && m->single_spaces) { /* leading spaces */
        n = normalise_prefix(m, text, size, &from, &from_size);
        if (from_size != 1 || *from != ' ') break;
        text += n;
        size -= n;
    }
    if (size == 0) return LK_OK;
    if (m->dummy_prefix) s = lk_text_add(out, space, space_size);
    bool after_space = m->single_spaces;
    while (s == LK_OK && size) {
        n = normalise_prefix(m, text, size, &from, &from_size);
        for (; after_space && from_size && *from == ' '; from_size--) from++;
        if (from_size) {
            s = add_normalised(m, from, from_size, out);
            after_space = m->single_spaces && from[from_size - 1] == ' ';
        }
        text += n;
        size -= n;
    }
    while (s == LK_OK && m->single_spaces && ends_with(out, space, space_size)) out->bytes[out->size -= space_size] = 0;
    return s;
}

lk_status lk_sentencepiece_encode(const lk_sentencepiece *m, const char *text, size_t size, int32_t **ids,
                                  size_t *count)
{
    lk_text normal = {0};
    *count = 0;
    *ids = NULL;
    lk_status s = lk_sentencepiece_normalise(m, text, size, &normal);
    if (s == LK_OK && !(*ids = lk_alloc(normal.size + 1, sizeof **ids))) s = lk_fail_memory("text");
    if (s == LK_OK) s = lk_unigram_encode(m->pieces, normal.bytes, normal.size, *ids, count);
    lk_text_free(&normal);
    if (s != LK_OK) {
        free(*ids);
        *ids = NULL;
    }
    return s;
}
