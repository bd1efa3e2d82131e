/* MANIFEST files: raw bytes, and JSON behind a right checksum. */
#include "fuzz.h"
#include "store/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lk_manifest manifest;
    if (lk_manifest_read(fuzz_file(bytes, size), &manifest) == LK_OK) lk_manifest_free(&manifest);
    uint8_t *blob;
    size_t n = fuzz_blob("LKMANIF", bytes, size, &blob);
    if (lk_manifest_read(fuzz_file(blob, n), &manifest) == LK_OK) {
        const lk_collection_config *c = &manifest.config;
        if (c->dim < 1 || c->dim > 65536 || !c->embedder_id || !c->embedder_name) abort();
        lk_manifest_free(&manifest);
    }
    free(blob);
    return 0;
}
