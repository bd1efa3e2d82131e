/* CSV files with pictures and labels. */
#include "fuzz.h"

#include <likeness/engine.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lk_source_list *list;
    if (lk_sources_new(&list) != LK_OK) abort();
    if (lk_sources_add_csv(list, fuzz_file(bytes, size)) == LK_OK) {
        size_t n = lk_sources_count(list);
        for (size_t i = 0; i < n; i++) {
            const lk_source *source = lk_sources_at(list, i);
            if (source->path[0] != '/' || !source->labels || source->labels[0] != '{') abort();
            if (i && strcmp(lk_sources_at(list, i - 1)->path, source->path) >= 0) abort();
        }
    }
    lk_sources_free(list);
    return 0;
}
