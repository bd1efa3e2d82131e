/* Decoding, in the order that keeps it safe: the size in bytes, what the bytes are, what the header announces, and only
 * then pixels, by the decoder of exactly that format. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "image/bmp.h"
#include "image/convert.h"
#include "image/jpeg.h"
#include "image/png.h"
#include "image/raster.h"
#include "image/shrink.h"
#include "image/svg.h"
#include "image/vips.h"
#include <likeness/image.h>

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

lk_image_options lk_image_default_options(void)
{
    return (lk_image_options){.colour = LK_COLOUR_RGB,
                              .background = {255, 255, 255},
                              .max_bytes = (uint64_t)64 << 20,
                              .max_pixels = 100000000};
}

/* Whether a picture can do without libvips. Its idea of the luma of colours is left to it. */
static bool is_plain(const void *bytes, size_t size, lk_picture_format format, lk_image_colour colour, lk_plain *out)
{
    bool plain = format == LK_PICTURE_PNG    ? lk_png_plain(bytes, size, out)
                 : format == LK_PICTURE_JPEG ? lk_jpeg_plain(bytes, size, out)
                                             : false;
    return plain && (colour != LK_COLOUR_GREY || out->channels == 1);
}

lk_status lk_image_prepare(const char *path)
{
    enum { ENOUGH = 1 << 18 }; /* a photograph has segments of up to 64 KiB, one with a thumbnail */
    struct stat about;
    const char *name;
    lk_plain plain;
    lk_picture_format format = LK_PICTURE_UNKNOWN;
    /* Only of a file whose reading takes nothing away: not of pipes. */
    int file = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    bool regular = file >= 0 && fstat(file, &about) == 0 && S_ISREG(about.st_mode);
    char *head = lk_alloc(ENOUGH, 1);
    ssize_t n = regular && head ? pread(file, head, ENOUGH, 0) : 0;
    if (n > 0) format = lk_picture_sniff(head, (size_t)n, &name);
    bool without = format == LK_PICTURE_SVG || (n > 0 && is_plain(head, (size_t)n, format, LK_COLOUR_RGB, &plain));
    free(head);
    if (file >= 0) close(file);
    lk_status s = without ? LK_OK : lk_vips_start();
    if (s == LK_OK && (!path || (without && format == LK_PICTURE_SVG))) s = lk_svg_start();
    if (s == LK_OK && (!path || (without && format == LK_PICTURE_PNG))) s = lk_png_start();
    if (s == LK_OK && (!path || (without && format == LK_PICTURE_JPEG))) s = lk_jpeg_start();
    return s;
}

void lk_image_free(lk_image *image)
{
    if (!image) return;
    free(image->pixels);
    *image = (lk_image){0};
}

static lk_status check_pixels(const char *name, uint32_t width, uint32_t height, uint64_t limit)
{
    if (limit == 0 || (uint64_t)width * height <= limit) return LK_OK;
    return lk_fail(LK_LIMIT, "%s: %ux%u pixels is over the limit of %g megapixels", name, width, height,
                   (double)limit / 1e6);
}

/* How many times smaller a picture has to become; 1 when it fits. */
static double shrink_to(uint32_t width, uint32_t height, uint32_t max_side)
{
    uint32_t longer = width > height ? width : height;
    return max_side && longer > max_side ? (double)longer / max_side : 1;
}

static uint32_t shrunk(uint32_t side, double shrink)
{
    double size = round(side / shrink);
    return size < 1 ? 1 : (uint32_t)size;
}

/* Pixels that are in memory already; takes them over. */
static lk_status convert_pixels(uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels, lk_conversion *to,
                                lk_image *out)
{
    uint32_t wanted = to->colour == LK_COLOUR_RGBA ? 4 : 3;
    if (width == to->width && height == to->height && to->colour != LK_COLOUR_GREY && channels >= wanted) {
        /* Without libvips, whose libraries take longer to load than a drawing to render. */
        if (channels > wanted) lk_flatten(pixels, pixels, (size_t)width * height, to->background);
        *out = (lk_image){.pixels = pixels, .width = width, .height = height, .channels = wanted};
        return LK_OK;
    }
    lk_status s = lk_vips_start();
    if (s != LK_OK) {
        free(pixels);
        return s;
    }
    VipsImage *image = vips_image_new_from_memory(pixels, (size_t)width * height * channels, (int)width, (int)height,
                                                  (int)channels, VIPS_FORMAT_UCHAR);
    VipsImage *named;
    if (!image) {
        s = lk_vips_fail(to->name, "converted", to->format_name);
    } else if (!lk_vips_step(&image, vips_copy(image, &named, "interpretation", VIPS_INTERPRETATION_sRGB, NULL),
                             &named)) {
        s = lk_vips_fail(to->name, "converted", to->format_name);
        g_object_unref(image);
    } else {
        s = lk_convert(image, to, out);
    }
    free(pixels);
    return s;
}

static lk_status load_svg(const lk_raster_source *in, const lk_image_options *options, lk_conversion *to, lk_image *out)
{
    lk_drawing drawing;
    lk_status s = lk_svg_render(in->bytes, in->size, in->name, options->max_side, options->max_pixels, &drawing);
    if (s != LK_OK) return s;
    to->width = drawing.width;
    to->height = drawing.height;
    s = convert_pixels(drawing.rgba, drawing.width, drawing.height, 4, to, out);
    out->source_width = drawing.source_width;
    out->source_height = drawing.source_height;
    return s;
}

static lk_status load_bmp(const lk_raster_source *in, const lk_image_options *options, lk_conversion *to, lk_image *out)
{
    uint32_t width, height, channels;
    uint8_t *pixels;
    lk_status s;
    LK_TRY(lk_bmp_size(in->bytes, in->size, in->name, &width, &height));
    LK_TRY(check_pixels(in->name, width, height, options->max_pixels));
    LK_TRY(lk_bmp_decode(in->bytes, in->size, in->name, &pixels, &channels));
    double shrink = shrink_to(width, height, options->max_side);
    to->width = shrunk(width, shrink);
    to->height = shrunk(height, shrink);
    s = convert_pixels(pixels, width, height, channels, to, out);
    out->source_width = width;
    out->source_height = height;
done:
    return s;
}

static lk_status load_plain(const lk_raster_source *in, const lk_image_options *options, const lk_plain *header,
                            lk_image *out)
{
    lk_status s;
    lk_shrink *rows = NULL;
    bool jpeg = in->format == LK_PICTURE_JPEG;
    LK_TRY(check_pixels(in->name, header->width, header->height, options->max_pixels));
    double shrink = shrink_to(header->width, header->height, options->max_side);
    uint32_t shorter = header->width < header->height ? header->width : header->height;
    /* A pixel that a JPEG's width or height leaves beyond its last whole block of them is not shown. */
    uint32_t denominator = jpeg ? lk_jpeg_shrink(shrink, shorter) : 1;
    uint32_t width = header->width / denominator, height = header->height / denominator;
    *out = (lk_image){.width = shrunk(header->width, shrink),
                      .height = shrunk(header->height, shrink),
                      .channels = options->colour == LK_COLOUR_GREY   ? 1
                                  : options->colour == LK_COLOUR_RGBA ? 4
                                                                      : 3,
                      .source_width = header->width,
                      .source_height = header->height};
    out->pixels = lk_alloc((size_t)out->width * out->height, out->channels);
    if (out->pixels) rows = lk_shrink_new(width, height, header->channels, options->background, out);
    if (!rows) {
        s = lk_fail_memory(in->name);
        goto done;
    }
    lk_plain_source source = {in->bytes, in->size, in->name};
    s = jpeg ? lk_jpeg_decode(&source, header, denominator, rows) : lk_png_decode(&source, header, rows);
done:
    lk_shrink_free(rows);
    if (s != LK_OK) lk_image_free(out);
    return s;
}

static lk_status load_raster(const lk_raster_source *in, const lk_image_options *options, lk_conversion *to,
                             lk_image *out)
{
    lk_raster raster;
    lk_status s = lk_vips_start();
    if (s == LK_OK) s = lk_raster_open(in, &raster);
    if (s != LK_OK) return s;
    LK_TRY(check_pixels(in->name, raster.width, raster.height, options->max_pixels));
    double shrink = shrink_to(raster.width, raster.height, options->max_side);
    LK_TRY(lk_raster_preshrink(in, shrink, &raster));
    to->width = shrunk(raster.width, shrink);
    to->height = shrunk(raster.height, shrink);
    to->orientation = raster.orientation;
    s = lk_convert(g_object_ref(raster.image), to, out);
    bool turned = raster.orientation >= 5;
    out->source_width = turned ? raster.height : raster.width;
    out->source_height = turned ? raster.width : raster.height;
done:
    lk_raster_close(&raster);
    return s;
}

lk_status lk_image_load_memory(const void *bytes, size_t size, const char *name, const lk_image_options *options,
                               lk_image *out)
{
    *out = (lk_image){0};
    lk_image_options defaults = lk_image_default_options();
    if (!options) options = &defaults;
    if (!name) name = "picture";
    if (options->max_side > VIPS_MAX_COORD || options->colour > LK_COLOUR_RGBA)
        return lk_fail(LK_INVALID, "%s: pictures cannot be decoded to a side of %u or colour %d", name,
                       options->max_side, (int)options->colour);
    if (!bytes || size == 0) return lk_fail(LK_CORRUPT, "%s: is empty", name);
    if (options->max_bytes && size > options->max_bytes)
        return lk_fail(LK_LIMIT, "%s: %zu bytes is over the limit of %llu", name, size,
                       (unsigned long long)options->max_bytes);
    lk_status s;
    lk_plain plain;
    lk_raster_source in = {.bytes = bytes, .size = size, .name = name};
    in.format = lk_picture_sniff(bytes, size, &in.format_name);
    lk_conversion to = {.name = name,
                        .format_name = in.format_name,
                        .colour = options->colour,
                        .background = options->background,
                        .orientation = 1};
    switch (in.format) {
    case LK_PICTURE_UNKNOWN:
        s = lk_fail(LK_CORRUPT, "%s: is not a picture (JPEG, PNG, WebP, GIF, TIFF, BMP, SVG, AVIF and HEIF are read)",
                    name);
        break;
    case LK_PICTURE_FORBIDDEN:
        s = lk_fail(LK_UNSUPPORTED, "%s: a %s file is not read (convert it to PNG or JPEG)", name, in.format_name);
        break;
    case LK_PICTURE_SVG: s = load_svg(&in, options, &to, out); break;
    case LK_PICTURE_BMP: s = load_bmp(&in, options, &to, out); break;
    default:
        s = is_plain(bytes, size, in.format, options->colour, &plain) ? load_plain(&in, options, &plain, out)
                                                                      : load_raster(&in, options, &to, out);
        break;
    }
    if (s != LK_OK) *out = (lk_image){0};
    return s;
}

lk_status lk_image_load(const char *path, const lk_image_options *options, lk_image *out)
{
    *out = (lk_image){0};
    lk_image_options defaults = lk_image_default_options();
    if (!options) options = &defaults;
    uint8_t *bytes;
    size_t size;
    lk_status s = lk_file_read(path, options->max_bytes, &bytes, &size);
    if (s != LK_OK) return s;
    s = lk_image_load_memory(bytes, size, path, options, out);
    free(bytes);
    return s;
}
