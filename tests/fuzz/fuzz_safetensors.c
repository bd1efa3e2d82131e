/* Any bytes as a safetensors file: read, every tensor converted, every name found again. */
#include "nn/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lk_safetensors *file;
    if (lk_safetensors_parse(bytes, size, "fuzz", &file) != LK_OK) return 0;
    for (size_t i = 0; i < lk_safetensors_count(file); i++) {
        const lk_safetensor *t = lk_safetensors_at(file, i);
        float *out = malloc((t->count + 1) * sizeof *out);
        if (!out) continue;
        lk_safetensor_to_f32(t, out);
        if (lk_safetensors_find(file, t->name) != t) abort();
        free(out);
    }
    lk_safetensors_free(file);
    return 0;
}
