/* Any bytes as a tokenizer.json; and, with the small vocabulary of the fixtures where it can be read, as a text. */
#include "models/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static lk_tokenizer *fixture(void)
{
    static lk_tokenizer *tokenizer;
    static bool tried;
    if (!tried && lk_tokenizer_open("tests/fixtures/tokenizer", &tokenizer) != LK_OK) tokenizer = NULL;
    tried = true;
    return tokenizer;
}

static void encode(const lk_tokenizer *t, const uint8_t *bytes, size_t size)
{
    int32_t ids[77];
    size_t count;
    char *text = malloc(size + 1);
    if (!text) return;
    memcpy(text, bytes, size);
    text[size] = 0;
    if (lk_tokenizer_encode(t, text, 77, ids, &count) == LK_OK) {
        if (count < 2 || count > 77) abort();
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || (size_t)ids[i] >= lk_tokenizer_size(t)) abort();
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lk_tokenizer *t;
    if (lk_tokenizer_parse((const char *)bytes, size, "fuzz", &t) == LK_OK) {
        encode(t, (const uint8_t *)"it's a Test 123 <|endoftext|>\xf0\x9f\xa6\x81", 33);
        lk_tokenizer_free(t);
    }
    if (fixture()) encode(fixture(), bytes, size);
    return 0;
}
