#include "models/clip_words.h"

#include "base/error.h"
#include "base/memory.h"
#include "models/text.h"

#include <glib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_letter(gunichar c)
{
    switch (g_unichar_type(c)) {
    case G_UNICODE_UPPERCASE_LETTER:
    case G_UNICODE_LOWERCASE_LETTER:
    case G_UNICODE_TITLECASE_LETTER:
    case G_UNICODE_MODIFIER_LETTER:
    case G_UNICODE_OTHER_LETTER: return true;
    default: return false;
    }
}

static bool is_number(gunichar c)
{
    switch (g_unichar_type(c)) {
    case G_UNICODE_DECIMAL_NUMBER:
    case G_UNICODE_LETTER_NUMBER:
    case G_UNICODE_OTHER_NUMBER: return true;
    default: return false;
    }
}

lk_status lk_clip_clean(const char *text, size_t size, char **clean)
{
    *clean = NULL;
    char *composed = g_utf8_normalize(text, (gssize)size, G_NORMALIZE_NFC);
    if (!composed) return lk_fail(LK_INVALID, "a text is not UTF-8");
    /* Lower case takes at most one byte more per character of two, and two more for U+0130. */
    char *out = lk_alloc(strlen(composed) * 2 + 1, 1), *end = out;
    lk_status s = out ? LK_OK : lk_fail_memory("text");
    bool space = false;
    for (const char *p = composed; out && *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);
        if (lk_is_space(c)) {
            if (!space) *end++ = ' ';
            space = true;
            continue;
        }
        space = false;
        if (c == 0x130) { /* the one character whose lower case is two */
            end += g_unichar_to_utf8('i', end);
            end += g_unichar_to_utf8(0x307, end);
        } else {
            end += g_unichar_to_utf8(lk_lower(c), end);
        }
    }
    if (out) *end = 0;
    g_free(composed);
    *clean = out;
    return s;
}

/* Bytes of the literal that the text begins with, or 0. */
static size_t literal(const char *p, const char *end, const char *const *list)
{
    for (; *list; list++) {
        size_t n = strlen(*list);
        if (n <= (size_t)(end - p) && memcmp(p, *list, n) == 0) return n;
    }
    return 0;
}

lk_status lk_clip_words(const char *text, size_t size, lk_word_fn word, void *user)
{
    static const char *const marks[] = {"<|startoftext|>", "<|endoftext|>", NULL};
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", NULL};
    const char *p = text, *end = text + size, *next;
    lk_status s = LK_OK;
    while (s == LK_OK && p < end) {
        gunichar c = g_utf8_get_char(p);
        size_t n = literal(p, end, marks);
        if (n) { /* taken as one, and then cut once more by the byte-level rule */
            s = word(user, p, 2);
            if (s == LK_OK) s = word(user, p + 2, n - 4);
            if (s == LK_OK) s = word(user, p + n - 2, 2);
            p += n;
            continue;
        }
        if (lk_is_space(c)) {
            p = g_utf8_next_char(p);
            continue;
        }
        n = literal(p, end, contractions);
        next = n ? p + n : g_utf8_next_char(p);
        if (!n && is_letter(c)) {
            while (next < end && is_letter(g_utf8_get_char(next))) next = g_utf8_next_char(next);
        } else if (!n && !is_number(c)) {
            for (gunichar d;
                 next < end && (d = g_utf8_get_char(next), !lk_is_space(d) && !is_letter(d) && !is_number(d));)
                next = g_utf8_next_char(next);
        }
        s = word(user, p, (size_t)(next - p));
        p = next;
    }
    return s;
}
