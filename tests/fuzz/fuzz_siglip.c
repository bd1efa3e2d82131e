/* Any bytes as a spiece.model. */
#include "models/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lk_tokenizer *t;
    int32_t ids[16];
    size_t count;
    if (lk_tokenizer_parse_siglip(bytes, size, "fuzz", NULL, &t) != LK_OK) return 0;
    if (lk_tokenizer_encode(t, "It's a  Test </s> \xef\xb7\xba\xc3\xa9 \xf0\x9f\xa6\x81", 16, ids, &count) == LK_OK) {
        if (count > 16) abort();
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || (size_t)ids[i] >= lk_tokenizer_size(t)) abort();
    }
    lk_tokenizer_free(t);
    return 0;
}
