/* Any bytes as a text for CLIP's tokenizer, with the small vocabulary of the fixtures (run from the top of the tree).
 */
#include "models/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static lk_tokenizer *tokenizer;
    int32_t ids[77];
    size_t count;
    if (!tokenizer && lk_tokenizer_open("tests/fixtures/tokenizer", &tokenizer) != LK_OK) abort();
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, bytes, size);
    text[size] = 0;
    if (lk_tokenizer_encode(tokenizer, text, 77, ids, &count) == LK_OK) {
        if (count < 2 || count > 77) abort();
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || (size_t)ids[i] >= lk_tokenizer_size(tokenizer)) abort();
    }
    free(text);
    return 0;
}
