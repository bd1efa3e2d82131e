/* Any bytes as a tokenizer.json. */
#include "models/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lk_tokenizer *t;
    int32_t ids[16];
    size_t count;
    if (lk_tokenizer_parse((const char *)bytes, size, "fuzz", &t) != LK_OK) return 0;
    if (lk_tokenizer_encode(t, "it's a Test 123 <|endoftext|>\xf0\x9f\xa6\x81", 16, ids, &count) == LK_OK && count > 16)
        abort();
    lk_tokenizer_free(t);
    return 0;
}
