/* Pictures to search with, or with a part of. */
#include "engine/query.h"
#include "base/error.h"
#include "base/file.h"
#include "embed/local.h"
#include "image/format.h"
#include "image/svg.h"

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

/* Cuts a rectangle out of the full picture, as a PNG, because decoding is what brings a picture to the size and colour
 * of the embedder. pixels may be NULL: of the full picture as it was decoded. */
static lk_status cut(const void *bytes, size_t size, const char *name, const uint32_t crop[4],
                     const lk_image_options *limits, uint8_t **out, size_t *out_size, uint64_t *pixels)
{
    lk_image_options full = lk_image_default_options();
    lk_image whole = {0}, part = {0};
    *out = NULL;
    full.max_bytes = limits->max_bytes;
    full.max_pixels = limits->max_pixels;
    lk_status s;
    LK_TRY(lk_image_load_memory(bytes, size, name, &full, &whole));
    if (pixels) *pixels = (uint64_t)whole.width * whole.height;
    LK_TRY(lk_fail_in(lk_image_crop(&whole, crop[0], crop[1], crop[2], crop[3], &part), "%s", name));
    s = lk_image_encode(&part, LK_FORMAT_PNG, 100, out, out_size);
done:
    lk_image_free(&whole);
    lk_image_free(&part);
    return s;
}

static lk_status load(const void *bytes, size_t size, const char *name, const uint32_t crop[4],
                      lk_image_options decoding, lk_image *out)
{
    uint8_t *part;
    size_t part_size;
    *out = (lk_image){0};
    if (!crop) return lk_image_load_memory(bytes, size, name, &decoding, out);
    lk_status s = cut(bytes, size, name, crop, &decoding, &part, &part_size, NULL);
    decoding.max_bytes = part_size;
    if (s == LK_OK) s = lk_image_load_memory(part, part_size, name, &decoding, out);
    free(part);
    return s;
}

bool lk_posted_is_drawing(const void *bytes, size_t size)
{
    const char *format_name;
    return lk_picture_sniff(bytes, size, &format_name) == LK_PICTURE_SVG;
}

lk_status lk_posted_load(lk_searcher *searcher, const lk_posted *p, const lk_image_options *limits, lk_image *image,
                         lk_image *detail, uint64_t *pixels)
{
    const void *bytes = p->bytes;
    size_t size = p->size;
    uint8_t *part = NULL;
    lk_image_options decoding = lk_query_image_options(searcher, limits), finer = lk_query_image_options(NULL, limits);
    *image = (lk_image){0};
    if (detail) *detail = (lk_image){0};
    *pixels = 0;
    lk_status s;
    if (p->crop) {
        LK_TRY(cut(bytes, size, p->name, p->crop, limits, &part, &size, pixels));
        bytes = part;
        decoding.max_bytes = finer.max_bytes = size;
    }
    LK_TRY(lk_image_load_memory(bytes, size, p->name, &decoding, image));
    if (detail) LK_TRY(lk_image_load_memory(bytes, size, p->name, &finer, detail));
    if (!p->crop)
        *pixels =
            p->drawing ? (uint64_t)image->width * image->height : (uint64_t)image->source_width * image->source_height;
    if (p->drawing && lk_svg_check_embedded(p->bytes, p->size, p->name, 1) != LK_OK) *pixels = limits->max_pixels;
done:
    free(part);
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
