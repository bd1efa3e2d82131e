/* Pictures to search with, or with a part of. */
#include "base/error.h"
#include "base/file.h"
#include "embed/local.h"
#include <likeness/engine.h>

#include <stdlib.h>

lk_image_options lk_query_image_options(const lk_searcher *searcher, const lk_image_options *limits)
{
    lk_image_options decoding = lk_image_default_options();
    if (searcher)
        decoding = lk_embedder_image_options(lk_searcher_embedder(searcher));
    else
        decoding.max_side = LK_LOCAL_SIDE;
    if (limits) {
        decoding.max_bytes = limits->max_bytes;
        decoding.max_pixels = limits->max_pixels;
    }
    return decoding;
}

static lk_status load(const void *bytes, size_t size, const char *name, const uint32_t crop[4],
                      lk_image_options decoding, lk_image *out)
{
    lk_image_options full = lk_image_default_options();
    lk_image whole = {0}, part = {0};
    uint8_t *encoded = NULL;
    size_t encoded_size;
    *out = (lk_image){0};
    full.max_bytes = decoding.max_bytes;
    full.max_pixels = decoding.max_pixels;
    if (!crop) return lk_image_load_memory(bytes, size, name, &decoding, out);
    lk_status s;
    LK_TRY(lk_image_load_memory(bytes, size, name, &full, &whole));
    LK_TRY(lk_fail_in(lk_image_crop(&whole, crop[0], crop[1], crop[2], crop[3], &part), "%s", name));
    /* Through PNG, because decoding is what brings a picture to the size and colour of the embedder. */
    LK_TRY(lk_image_encode(&part, LK_FORMAT_PNG, 100, &encoded, &encoded_size));
    decoding.max_bytes = encoded_size;
    s = lk_image_load_memory(encoded, encoded_size, name, &decoding, out);
done:
    free(encoded);
    lk_image_free(&whole);
    lk_image_free(&part);
    return s;
}

lk_status lk_query_image_memory(lk_searcher *searcher, const void *bytes, size_t size, const char *name,
                                const uint32_t crop[4], const lk_image_options *limits, lk_image *out)
{
    return load(bytes, size, name, crop, lk_query_image_options(searcher, limits), out);
}

lk_status lk_query_image_file(const char *path, const uint32_t crop[4], const lk_image_options *options, lk_image *out)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    *out = (lk_image){0};
    lk_status s = lk_file_read(path, options->max_bytes, &bytes, &size);
    if (s == LK_OK) s = load(bytes, size, path, crop, *options, out);
    free(bytes);
    return s;
}

lk_status lk_query_image_load(lk_searcher *searcher, const char *path, const uint32_t crop[4],
                              const lk_image_options *limits, lk_image *out)
{
    lk_image_options decoding = lk_query_image_options(searcher, limits);
    return lk_query_image_file(path, crop, &decoding, out);
}
