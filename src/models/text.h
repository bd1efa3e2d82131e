/* What tokenizers do to characters: a text that grows, and Unicode's properties as the references see them. */
#ifndef LK_MODELS_TEXT_H
#define LK_MODELS_TEXT_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow up to LK_TEXT_LIMIT, which no honest text reaches; always ended by NUL once something was added. */
enum { LK_TEXT_LIMIT = 4 << 20 };
typedef struct lk_text {
    char *bytes;
    size_t size, capacity;
} lk_text;
lk_status lk_text_add(lk_text *text, const char *bytes, size_t size); /* LK_NO_MEMORY, LK_LIMIT */
lk_status lk_text_add_character(lk_text *text, uint32_t c);
void lk_text_free(lk_text *text);

/* Unicode's White_Space. */
bool lk_is_space(uint32_t c);
/* Python's str.isspace: White_Space and the four separators of ASCII. */
bool lk_is_python_space(uint32_t c);
/* Simple lower case. U+0130, whose lower case is two characters, becomes 'i' (callers add U+0307). */
uint32_t lk_lower(uint32_t c);
/* Adds a valid UTF-8 text in lower case: character by character, or as Python's str.lower does, which gives a capital
 * sigma at the end of a word its final form. */
lk_status lk_text_add_lower(lk_text *text, const char *bytes, size_t size, bool python);

#endif
