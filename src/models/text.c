#include "models/text.h"

#include "base/error.h"
#include "base/memory.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

lk_status lk_text_add(lk_text *text, const char *bytes, size_t size)
{
    if (size >= LK_TEXT_LIMIT - text->size) return lk_fail(LK_LIMIT, "a text grows beyond %d bytes", LK_TEXT_LIMIT);
    if (!lk_grow((void **)&text->bytes, &text->capacity, text->size + size + 1, 1)) return lk_fail_memory("text");
    if (size) memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    text->bytes[text->size] = 0;
    return LK_OK;
}

lk_status lk_text_add_character(lk_text *text, uint32_t c)
{
    char bytes[6];
    return lk_text_add(text, bytes, (size_t)g_unichar_to_utf8(c, bytes));
}

void lk_text_free(lk_text *text)
{
    free(text->bytes);
    *text = (lk_text){0};
}

/* g_unichar_isspace leaves some of it out. */
bool lk_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool lk_is_python_space(uint32_t c)
{
    return lk_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

/* Roman numerals and circled letters have lower case though they are no letters; glib gives it to letters alone. */
uint32_t lk_lower(uint32_t c)
{
    if (c >= 0x2160 && c <= 0x216f) return c + 16;
    if (c >= 0x24b6 && c <= 0x24cf) return c + 26;
    return c == 0x130 ? 'i' : g_unichar_tolower(c);
}

/* Unicode's Cased, but for what is ignored anyway. */
static bool is_cased(uint32_t c)
{
    GUnicodeType type = g_unichar_type(c);
    return type == G_UNICODE_UPPERCASE_LETTER || type == G_UNICODE_LOWERCASE_LETTER ||
           type == G_UNICODE_TITLECASE_LETTER || c == 0xaa || c == 0xba || (c >= 0x2160 && c <= 0x217f) ||
           (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189);
}

/* Unicode's Case_Ignorable: marks, modifiers, format characters, and what may stand inside of a word. */
static bool is_ignorable(uint32_t c)
{
    static const uint32_t within[] = {'\'',   '.',    ':',    0xb7,   0x387,  0x55f,  0x5f4,  0x2018, 0x2019,
                                      0x2024, 0x2027, 0xfe13, 0xfe52, 0xfe55, 0xff07, 0xff0e, 0xff1a};
    switch (g_unichar_type(c)) {
    case G_UNICODE_NON_SPACING_MARK:
    case G_UNICODE_ENCLOSING_MARK:
    case G_UNICODE_FORMAT:
    case G_UNICODE_MODIFIER_LETTER:
    case G_UNICODE_MODIFIER_SYMBOL: return true;
    default: break;
    }
    for (size_t i = 0; i < sizeof within / sizeof *within; i++)
        if (within[i] == c) return true;
    return false;
}

/* Whether the capital sigma at p is the last letter of a word of several (Unicode's Final_Sigma). */
static bool is_final_sigma(const char *begin, const char *p, const char *end)
{
    const char *q = p;
    uint32_t c = 0;
    do {
        if (q == begin) return false;
        q = g_utf8_prev_char(q);
        c = g_utf8_get_char(q);
    } while (is_ignorable(c));
    if (!is_cased(c)) return false;
    for (q = g_utf8_next_char(p); q < end; q = g_utf8_next_char(q)) {
        c = g_utf8_get_char(q);
        if (!is_ignorable(c)) return !is_cased(c);
    }
    return true;
}

lk_status lk_text_add_lower(lk_text *text, const char *bytes, size_t size, bool python)
{
    const char *end = bytes + size;
    lk_status s = LK_OK;
    for (const char *p = bytes; s == LK_OK && p < end; p = g_utf8_next_char(p)) {
        uint32_t c = g_utf8_get_char(p);
        bool final = python && c == 0x3a3 && is_final_sigma(bytes, p, end);
        s = lk_text_add_character(text, final ? 0x3c2 : lk_lower(c));
        if (s == LK_OK && c == 0x130) s = lk_text_add_character(text, 0x307);
    }
    return s;
}
