/* Pictures of every format, as an upload would bring them. Whatever comes out must have the shape it claims. */
#include "fuzz.h"

#include <likeness/image.h>

static void load(const uint8_t *bytes, size_t size, const lk_image_options *options)
{
    lk_image image;
    if (lk_image_load_memory(bytes, size, "fuzz", options, &image) != LK_OK) {
        if (image.pixels) abort();
        return;
    }
    volatile uint8_t touched = 0;
    size_t n = (size_t)image.width * image.height * image.channels;
    if (n == 0 || image.source_width == 0 || image.source_height == 0) abort();
    if (options->max_side && (image.width > options->max_side || image.height > options->max_side)) abort();
    for (size_t i = 0; i < n; i++) touched ^= image.pixels[i];
    (void)touched;
    lk_image_free(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    lk_image_options options = lk_image_default_options();
    options.max_pixels = 1 << 18;
    options.max_side = 48;
    options.colour = LK_COLOUR_GREY;
    load(bytes, size, &options);
    options.max_side = 0;
    options.colour = LK_COLOUR_RGBA;
    load(bytes, size, &options);
    return 0;
}
