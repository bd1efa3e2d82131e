/* Models: a classical.bin behind a right checksum. One that is accepted must give a unit vector. */
#include "fuzz.h"

#include <likeness/embed.h>
#include <math.h>

static void write_file(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char config[] = "{\"kind\": \"classical\"}";
    static char folder[] = "/tmp/likeness-fuzz-XXXXXX";
    static int made;
    if (!made) {
        if (!mkdtemp(folder)) abort();
        write_file(folder, "config.json", config, sizeof config - 1);
        made = 1;
    }
    uint8_t *blob;
    size_t n = fuzz_blob("LKCLASS", bytes, size, &blob);
    write_file(folder, "classical.bin", blob, n);
    free(blob);
    lk_embedder *embedder;
    if (lk_embedder_open(folder, &embedder) != LK_OK) return 0;
    uint8_t pixels[32 * 32];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)((i * i) >> 3);
    lk_image image = {.pixels = pixels, .width = 32, .height = 32, .channels = 1};
    size_t dim = lk_embedder_dim(embedder);
    float *out = malloc(dim * sizeof *out);
    if (!out) abort();
    if (lk_embedder_embed(embedder, &image, 1, out) == LK_OK) {
        double sum = 0;
        for (size_t i = 0; i < dim; i++) sum += (double)out[i] * out[i];
        if (!(fabs(sum - 1) < 1e-3)) abort();
    }
    free(out);
    lk_embedder_free(embedder);
    return 0;
}
