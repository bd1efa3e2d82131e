#include "models/tokenizer.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "models/clip_words.h"
#include "models/tokenizer_inside.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581, which stands for a space within pieces */

enum { MAX_TEXT = 64 << 10 };

void lk_tokenizer_free(lk_tokenizer *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->n_added; i++) free(t->added[i].text);
    lk_bpe_free(&t->bpe);
    lk_sentencepiece_free(t->model);
    free(t->unknown);
    lk_unigram_free(t->unigram);
    lk_cleaning_free(&t->cleaning);
    free(t);
}

int32_t lk_tokenizer_end(const lk_tokenizer *tokenizer)
{
    return tokenizer->end;
}

int32_t lk_tokenizer_pad(const lk_tokenizer *tokenizer)
{
    return tokenizer->pad;
}

size_t lk_tokenizer_size(const lk_tokenizer *tokenizer)
{
    return tokenizer->size;
}

typedef struct encoding {
    const lk_tokenizer *t;
    int32_t *ids;
    size_t count, capacity;
    int32_t *word; /* scratch of CLIP */
} encoding;

static lk_status add_ids(encoding *e, const int32_t *ids, size_t n)
{
    if (!lk_grow((void **)&e->ids, &e->capacity, e->count + n + 1, sizeof *e->ids)) return lk_fail_memory("text");
    if (n) memcpy(e->ids + e->count, ids, n * sizeof *ids);
    e->count += n;
    return LK_OK;
}

/* The first place of an added token in [text, text + size); the longest of those that begin there. */
static const lk_added *find_added(const lk_tokenizer *t, bool normalized, const char *text, size_t size, size_t *at)
{
    for (*at = 0; *at < size; ++*at) {
        const lk_added *best = NULL;
        for (size_t i = 0; i < t->n_added; i++) {
            const lk_added *a = &t->added[i];
            if (a->normalized == normalized && a->length <= size - *at && memcmp(text + *at, a->text, a->length) == 0 &&
                (!best || a->length > best->length))
                best = a;
        }
        if (best) return best;
    }
    return NULL;
}

/* ---- CLIP ---- */

static lk_status encode_word(void *user, const char *bytes, size_t size)
{
    encoding *e = user;
    for (size_t i = 0; i < size; i++) e->word[i] = e->t->bytes[(uint8_t)bytes[i]][i + 1 == size];
    size_t n = size;
    lk_status s = lk_bpe_merge(&e->t->bpe, e->word, &n);
    return s == LK_OK ? add_ids(e, e->word, n) : s;
}

static lk_status encode_clean(encoding *e, const char *text, size_t size)
{
    while (size) {
        size_t at;
        const lk_added *a = find_added(e->t, true, text, size, &at);
        lk_status s = lk_clip_words(text, at, encode_word, e);
        if (s != LK_OK) return s;
        if (!a) break;
        if ((s = add_ids(e, &a->id, 1)) != LK_OK) return s;
        text += at + a->length;
        size -= at + a->length;
    }
    return LK_OK;
}

static lk_status encode_clip(encoding *e, const char *text, size_t size, bool first)
{
    char *clean;
    (void)first;
    lk_status s = lk_clip_clean(text, size, &clean);
    if (s == LK_OK) s = encode_clean(e, clean, strlen(clean));
    free(clean);
    return s;
}

/* ---- pieces ---- */

static lk_status encode_unigram(encoding *e, const char *text, size_t size, bool first)
{
    lk_text clean = {0};
    size_t count;
    lk_status s = lk_cleaning_run(&e->t->cleaning, text, size, first, &clean);
    int32_t *ids = s == LK_OK ? lk_alloc(clean.size + 1, sizeof *ids) : NULL;
    if (s == LK_OK && !ids) s = lk_fail_memory("text");
    if (s == LK_OK) s = lk_unigram_encode(e->t->unigram, clean.bytes, clean.size, ids, &count);
    if (s == LK_OK) s = add_ids(e, ids, count);
    free(ids);
    lk_text_free(&clean);
    return s;
}

/* SiglipTokenizer puts the unknown token's text in front, so that sentencepiece strips no space of the text itself, and
 * takes its pieces off again. */
static lk_status encode_siglip(encoding *e, const char *text, size_t size, bool first)
{
    const lk_tokenizer *t = e->t;
    lk_text clean = {0};
    int32_t *ids = NULL;
    size_t count = 0, drop = t->unknown_pieces;
    (void)first;
    lk_status s = lk_text_add(&clean, t->unknown, strlen(t->unknown));
    if (s == LK_OK) s = lk_siglip_clean(text, size, t->lower, &clean);
    if (s == LK_OK) s = lk_sentencepiece_encode(t->model, clean.bytes, clean.size, &ids, &count);
    if (count < drop) drop = 0;
    if (s == LK_OK) s = add_ids(e, ids + drop, count - drop);
    free(ids);
    lk_text_free(&clean);
    return s;
}

/* U+2581 in front of the text, and spaces instead of those in it. */
static lk_status prepare_siglip(const char *text, size_t size, lk_text *out)
{
    lk_status s = lk_text_add(out, SPACE, 3);
    for (size_t i = 0, run; s == LK_OK && i < size; i += run) {
        const char *next = memmem(text + i, size - i, SPACE, 3);
        bool here = next == text + i;
        run = here ? 3 : next ? (size_t)(next - text) - i : size - i;
        s = here ? lk_text_add(out, " ", 1) : lk_text_add(out, text + i, run);
    }
    return s;
}

/* ---- all ---- */

typedef lk_status (*encode_fn)(encoding *e, const char *text, size_t size, bool first);

static void strip_space(const char **text, size_t *size, bool left, bool right)
{
    const char *begin = *text, *end = begin + *size;
    while (left && begin < end && lk_is_python_space(g_utf8_get_char(begin))) begin = g_utf8_next_char(begin);
    while (right && begin < end && lk_is_python_space(g_utf8_get_char(g_utf8_prev_char(end))))
        end = g_utf8_prev_char(end);
    *text = begin;
    *size = (size_t)(end - begin);
}

/* Splits at the added tokens that are looked for in the raw text and encodes what lies between them. */
static lk_status encode_raw(encoding *e, const char *text, size_t size, encode_fn encode)
{
    bool strip = false, first = true; /* strip: the token before takes white space with it */
    while (size) {
        size_t at, part_size;
        const lk_added *a = find_added(e->t, false, text, size, &at);
        const char *part = text;
        part_size = at;
        strip_space(&part, &part_size, strip, a && a->strip_left);
        lk_status s = part_size ? encode(e, part, part_size, first) : LK_OK;
        if (s == LK_OK && a) s = add_ids(e, &a->id, 1);
        if (s != LK_OK || !a) return s;
        strip = a->strip_right;
        first = false;
        text += at + a->length;
        size -= at + a->length;
    }
    return LK_OK;
}

static lk_status encode_all(encoding *e, const char *text, size_t size)
{
    const lk_tokenizer *t = e->t;
    lk_text prepared = {0};
    lk_status s = LK_OK;
    switch (t->way) {
    case LK_TOKENS_OF_BYTES:
        /* Composing and lower-casing lengthen a text by at most to three times its bytes. */
        e->word = lk_alloc(size * 3 + 8, sizeof *e->word);
        return e->word ? encode_raw(e, text, size, encode_clip) : lk_fail_memory("text");
    case LK_TOKENS_OF_UNIGRAM: return encode_raw(e, text, size, encode_unigram);
    case LK_TOKENS_OF_SIGLIP:
        s = prepare_siglip(text, size, &prepared);
        if (s == LK_OK) s = encode_raw(e, prepared.bytes, prepared.size, encode_siglip);
        break;
    }
    lk_text_free(&prepared);
    return s;
}

lk_status lk_tokenizer_encode(const lk_tokenizer *t, const char *text, size_t most, int32_t *ids, size_t *count)
{
    size_t size = strlen(text), n = 0;
    if (size > MAX_TEXT) return lk_fail(LK_LIMIT, "a text of %zu bytes is above %d", size, MAX_TEXT);
    if (!lk_utf8_valid(text)) return lk_fail(LK_INVALID, "a text is not UTF-8");
    encoding e = {.t = t};
    lk_status s = encode_all(&e, text, size);
    if (s == LK_OK) {
        size_t ends = (size_t)(t->start >= 0) + (size_t)(t->end >= 0);
        size_t keep = e.count + ends <= most ? e.count : most - ends;
        if (t->start >= 0) ids[n++] = t->start;
        if (keep) memcpy(ids + n, e.ids, keep * sizeof *ids);
        n += keep;
        bool ended = t->way == LK_TOKENS_OF_SIGLIP && keep && ids[n - 1] == t->end;
        if (t->end >= 0 && !ended) ids[n++] = t->end;
        *count = n;
    }
    free(e.ids);
    free(e.word);
    return s;
}
