/* PNG and JPEG decoded without libvips: beside libvips' own pixels, shrunk, and with damage. */
#include "image/convert.h"
#include "image/jpeg.h"
#include "image/png.h"
#include "image/raster.h"
#include "image/vips.h"
#include "late/late.h"
#include "late/table.h"
#include <likeness/image.h>

#include "unit.h"

#include <dlfcn.h>
#include <math.h>
#include <sys/mman.h>

#define FIXTURES UNIT_SOURCE "/tests/fixtures/image/"

typedef struct bytes {
    uint8_t *at;
    size_t size;
} bytes;

static void append(bytes *b, const void *more, size_t size)
{
    b->at = realloc(b->at, b->size + size + 1);
    assert_non_null(b->at);
    if (size) memcpy(b->at + b->size, more, size);
    b->size += size;
}

static bytes read_fixture(const char *name)
{
    char path[512], part[4096];
    bytes b = {0};
    snprintf(path, sizeof path, FIXTURES "%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) append(&b, part, n);
    fclose(f);
    return b;
}

static bool is_plain(bytes b)
{
    lk_plain plain;
    return lk_png_plain(b.at, b.size, &plain) || lk_jpeg_plain(b.at, b.size, &plain);
}

static uint32_t random_below(uint32_t n)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

/* ---- what libvips makes of it ---- */

static uint32_t shrunk(uint32_t side, double shrink)
{
    double size = round(side / shrink);
    return size < 1 ? 1 : (uint32_t)size;
}

static lk_status through_libvips(bytes b, const lk_image_options *options, lk_image *out)
{
    lk_raster_source in = {.bytes = b.at, .size = b.size, .name = "libvips"};
    in.format = lk_picture_sniff(b.at, b.size, &in.format_name);
    lk_raster raster;
    *out = (lk_image){0};
    assert_int_equal(lk_vips_start(), LK_OK);
    lk_status s = lk_raster_open(&in, &raster);
    if (s != LK_OK) return s;
    uint32_t longer = raster.width > raster.height ? raster.width : raster.height;
    double shrink = options->max_side && longer > options->max_side ? (double)longer / options->max_side : 1;
    assert_int_equal(lk_raster_preshrink(&in, shrink, &raster), LK_OK);
    lk_conversion to = {.name = "libvips",
                        .format_name = in.format_name,
                        .colour = options->colour,
                        .background = options->background,
                        .width = shrunk(raster.width, shrink),
                        .height = shrunk(raster.height, shrink),
                        .orientation = raster.orientation};
    s = lk_convert(g_object_ref(raster.image), &to, out);
    lk_raster_close(&raster);
    return s;
}

static void assert_same_as_libvips(bytes b, const lk_image_options *options, const char *what)
{
    lk_image ours, theirs;
    if (lk_image_load_memory(b.at, b.size, what, options, &ours) != LK_OK) fail_msg("%s", lk_error_message());
    if (through_libvips(b, options, &theirs) != LK_OK) fail_msg("%s", lk_error_message());
    if (ours.width != theirs.width || ours.height != theirs.height || ours.channels != theirs.channels)
        fail_msg("%s: %ux%ux%u", what, ours.width, ours.height, ours.channels);
    for (size_t i = 0; i < (size_t)ours.width * ours.height * ours.channels; i++)
        if (ours.pixels[i] != theirs.pixels[i])
            fail_msg("%s: byte %zu is %d, not %d", what, i, ours.pixels[i], theirs.pixels[i]);
    lk_image_free(&ours);
    lk_image_free(&theirs);
}

static void assert_same_in_every_colour(bytes b, const char *what)
{
    lk_image_options options = lk_image_default_options();
    memcpy(options.background, (uint8_t[3]){10, 200, 30}, 3);
    for (int colour = LK_COLOUR_RGB; colour <= LK_COLOUR_RGBA; colour++) {
        options.colour = (lk_image_colour)colour;
        assert_same_as_libvips(b, &options, what);
    }
}

/* ---- PNG, written by hand: no library writes them all ---- */

static uint32_t crc(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffff;
    for (; n; n--, p++) {
        c ^= *p;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
    }
    return ~c;
}

static void append_32(bytes *b, uint32_t n)
{
    append(b, (uint8_t[4]){(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}, 4);
}

static void append_chunk(bytes *b, const char *type, const void *data, size_t size)
{
    append_32(b, (uint32_t)size);
    size_t from = b->size;
    append(b, type, 4);
    append(b, data, size);
    append_32(b, crc(b->at + from, size + 4));
}

typedef struct png {
    uint32_t width, height;
    uint8_t bits, type;
    bool interlaced, transparent;
} png;

/* Random filters and bytes: every picture there can be. */
static bytes random_rows(const png *p)
{
    static const uint8_t channels[] = {1, 0, 3, 1, 2, 0, 4};
    static const uint8_t adam7[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                        {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}}; /* left, top, steps */
    bytes raw = {0};
    for (int pass = 0; pass < (p->interlaced ? 7 : 1); pass++) {
        const uint8_t *a = adam7[pass];
        uint32_t width = p->interlaced ? (p->width + a[2] - 1 - a[0]) / a[2] : p->width;
        uint32_t height = p->interlaced ? (p->height + a[3] - 1 - a[1]) / a[3] : p->height;
        for (uint32_t y = 0; width && y < height; y++) {
            append(&raw, (uint8_t[1]){(uint8_t)random_below(5)}, 1);
            for (uint32_t x = 0; x < (width * channels[p->type] * p->bits + 7) / 8; x++)
                append(&raw, (uint8_t[1]){(uint8_t)random_below(256)}, 1);
        }
    }
    return raw;
}

/* extra: a chunk before the palette, of `size` bytes; NULL for none. */
static bytes make_png(const png *p, const char *extra, const void *data, size_t size)
{
    bytes b = {0}, raw = random_rows(p), stream = {0};
    append(&b, "\x89PNG\r\n\x1a\n", 8);
    uint8_t head[13] = {0};
    for (int i = 0; i < 4; i++) {
        head[i] = (uint8_t)(p->width >> (24 - 8 * i));
        head[4 + i] = (uint8_t)(p->height >> (24 - 8 * i));
    }
    head[8] = p->bits;
    head[9] = p->type;
    head[12] = p->interlaced;
    append_chunk(&b, "IHDR", head, sizeof head);
    if (extra) append_chunk(&b, extra, data, size);
    uint8_t palette[256 * 3];
    for (size_t i = 0; i < sizeof palette; i++) palette[i] = (uint8_t)random_below(256);
    if (p->type == 3) append_chunk(&b, "PLTE", palette, 3u << p->bits);
    /* A colour of the picture's depth, or the alpha of most of the palette. */
    uint8_t clear[6] = {0, 1, 0, p->bits < 2 ? 1 : 2, 0, 3};
    if (p->transparent)
        append_chunk(&b, "tRNS", p->type == 3 ? palette : clear, p->type == 3 ? (1u << p->bits) - 1 : p->type ? 6 : 2);
    append(&stream, "\x78\x01", 2);
    for (size_t at = 0; at < raw.size; at += 65535) { /* deflate's blocks that are stored as they are */
        size_t n = raw.size - at < 65535 ? raw.size - at : 65535;
        append(&stream,
               (uint8_t[5]){at + n == raw.size, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8)}, 5);
        append(&stream, raw.at + at, n);
    }
    uint32_t low = 1, high = 0;
    for (size_t i = 0; i < raw.size; i++) {
        low = (low + raw.at[i]) % 65521;
        high = (high + low) % 65521;
    }
    append_32(&stream, high << 16 | low);
    append_chunk(&b, "IDAT", stream.at, stream.size / 2); /* may come in pieces */
    append_chunk(&b, "IDAT", stream.at + stream.size / 2, stream.size - stream.size / 2);
    append_chunk(&b, "IEND", NULL, 0);
    free(raw.at);
    free(stream.at);
    return b;
}

static const struct {
    uint8_t type, bits;
} kinds[] = {{0, 1}, {0, 2}, {0, 4}, {0, 8}, {2, 8}, {3, 1}, {3, 2}, {3, 4}, {3, 8}, {4, 8}, {6, 8}};

static void every_kind_of_png_gives_the_bytes_of_libvips(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {3, 5}, {9, 7}, {33, 18}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (size_t i = 0; i < 16; i++) {
            char what[64];
            png p = {sizes[i / 4][0], sizes[i / 4][1], kinds[k].bits, kinds[k].type, i % 2, i / 2 % 2};
            if (p.transparent && p.type >= 4) continue; /* has alpha of its own */
            bytes b = make_png(&p, NULL, NULL, 0);
            snprintf(what, sizeof what, "type %d, %d bits, %ux%u%s%s", p.type, p.bits, p.width, p.height,
                     p.interlaced ? ", interlaced" : "", p.transparent ? ", a clear colour" : "");
            if (!is_plain(b)) fail_msg("%s: is not plain", what);
            assert_same_in_every_colour(b, what);
            free(b.at);
        }
    }
}

static void chunks_that_change_no_pixel_are_skipped(void **state)
{
    (void)state;
    static const struct {
        const char *type, *data;
        size_t size;
    } chunks[] = {
        {"gAMA", "\0\0\x27\x10", 4}, /* 0.1: libvips ignores it as well */
        {"sRGB", "\0", 1},
        {"cHRM", "\0\0\x7a\x26\0\0\x80\x84\0\0\xfa\0\0\0\x75\x30\0\0\x3a\x98\0\0\x3a\x98\0\0\x17\x70\0\0\x3a\x98", 32},
        {"bKGD", "\0\1\0\2\0\3", 6},
        {"sBIT", "\5\5\5", 3},
        {"zTXt", "Comment\0\0damaged", 16},
        {"pHYs", "\0\0\1\0\0\0\2\0\1", 9},
        {"acTL", "\0\0\0\1\0\0\0\0", 8}};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        bytes b = make_png(&(png){9, 7, 8, 2, false, false}, chunks[i].type, chunks[i].data, chunks[i].size);
        assert_true(is_plain(b));
        assert_same_in_every_colour(b, chunks[i].type);
        free(b.at);
    }
}

static void profiles_deep_colours_and_exif_are_left_to_libvips(void **state)
{
    (void)state;
    for (uint8_t type = 0; type <= 6; type++) {
        if (type == 1 || type == 3 || type == 5) continue;
        bytes b = make_png(&(png){9, 7, 16, type, false, type < 4}, NULL, NULL, 0);
        assert_false(is_plain(b));
        assert_same_in_every_colour(b, "16 bits");
        free(b.at);
    }
    bytes b = make_png(&(png){9, 7, 8, 2, false, false}, "eXIf", "II*\0\x08\0\0\0\0\0\0\0\0\0", 14);
    assert_false(is_plain(b));
    assert_same_in_every_colour(b, "eXIf");
    free(b.at);
    static const char *const names[] = {"icc.png", "cmyk.jpg", "rgb16.png", "grey16.png", "orient6.jpg", "orient8.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        b = read_fixture(names[i]);
        assert_false(is_plain(b));
        assert_same_in_every_colour(b, names[i]);
        free(b.at);
    }
}

/* ---- JPEG ---- */

/* Waves and some noise, as photographs have them; contrast up to 1. */
static VipsImage *make_picture(uint32_t width, uint32_t height, uint32_t channels, double contrast, uint8_t **pixels)
{
    *pixels = malloc((size_t)width * height * channels);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            for (uint32_t c = 0; c < channels; c++) {
                double wave = 0.5 * sin(x / (3.0 + 4 * c)) * cos(y / (11.0 - 3 * c)) + 0.4 * sin((x + 2.0 * y) / 50);
                double v = 127 + contrast * (125 * wave + random_below(21) - 10);
                (*pixels)[((size_t)y * width + x) * channels + c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
        }
    }
    assert_int_equal(lk_vips_start(), LK_OK);
    VipsImage *image = vips_image_new_from_memory(*pixels, (size_t)width * height * channels, (int)width, (int)height,
                                                  (int)channels, VIPS_FORMAT_UCHAR);
    VipsImage *named;
    assert_int_equal(vips_copy(image, &named, "interpretation",
                               channels < 3 ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB, NULL),
                     0);
    g_object_unref(image);
    return named;
}

static bytes make_jpeg(uint32_t width, uint32_t height, uint32_t channels, bool progressive, bool halved)
{
    uint8_t *pixels;
    VipsImage *image = make_picture(width, height, channels, 1, &pixels);
    void *buffer = NULL;
    bytes b = {0};
    size_t size;
    /* Not what our own writer calls, so there may be no stub. */
    int (*save)(VipsImage *, void **, size_t *, ...) = lk_late_symbol("libvips", "vips_jpegsave_buffer");
    assert_int_equal(save(image, &buffer, &size, "Q", 80, "interlace", progressive, "strip", TRUE, "subsample_mode",
                          halved ? VIPS_FOREIGN_SUBSAMPLE_ON : VIPS_FOREIGN_SUBSAMPLE_OFF, NULL),
                     0);
    append(&b, buffer, size);
    g_free(buffer);
    g_object_unref(image);
    free(pixels);
    return b;
}

static void every_kind_of_jpeg_gives_the_bytes_of_libvips(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 1}, {16, 16}, {61, 45}, {200, 33}};
    for (size_t i = 0; i < 4 * 8; i++) {
        uint32_t channels = i % 2 ? 1 : 3;
        bytes b = make_jpeg(sizes[i / 8][0], sizes[i / 8][1], channels, i / 2 % 2, i / 4 % 2);
        char what[64];
        snprintf(what, sizeof what, "%ux%u, %u channels%s%s", sizes[i / 8][0], sizes[i / 8][1], channels,
                 i / 2 % 2 ? ", progressive" : "", i / 4 % 2 ? ", 4:2:0" : "");
        assert_true(is_plain(b));
        assert_same_in_every_colour(b, what);
        free(b.at);
    }
    static const char *const names[] = {"rgb.jpg", "grey.jpg", "progressive.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bytes b = read_fixture(names[i]);
        assert_true(is_plain(b));
        assert_same_in_every_colour(b, names[i]);
        free(b.at);
    }
}

/* With a segment behind the first marker. */
static bytes with_segment(bytes from, uint8_t marker, const void *data, size_t size)
{
    bytes b = {0};
    append(&b, from.at, 2);
    append(&b, (uint8_t[4]){0xff, marker, (uint8_t)((size + 2) >> 8), (uint8_t)(size + 2)}, 4);
    append(&b, data, size);
    append(&b, from.at + 2, from.size - 2);
    return b;
}

static void exif_that_turns_nothing_is_plain(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t size;
        bool plain;
    } exifs[] = {
        /* Upright; of either byte order; beside another tag; and a directory of nothing. */
        {"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\1\0\0\0\0\0\0\0", 32, true},
        {"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\1\0\0\0\0\0\0", 32, true},
        {"Exif\0\0II*\0\x08\0\0\0\2\0\0\1\3\0\1\0\0\0\1\0\0\0\x12\1\3\0\1\0\0\0\1\0\0\0\0\0\0\0", 44, true},
        {"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", 20, true},
        {"http://ns.adobe.com/xap/1.0/\0<x/>", 33, true},
        /* Turned; of either order. */
        {"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0", 32, false},
        {"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0", 32, false},
        /* No such direction, more than one, another type, or a directory that is not all there. */
        {"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0\0\0\0\0", 32, false},
        {"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\2\0\0\0\1\0\0\0\0\0\0\0", 32, false},
        {"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\4\0\1\0\0\0\1\0\0\0\0\0\0\0", 32, false},
        {"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\1\3\0\1\0\0\0\1\0\0\0\0\0\0\0", 32, false},
        {"Exif\0\0II*\0\xff\xff\xff\xff\1\0\x12\1\3\0\1\0\0\0\1\0\0\0\0\0\0\0", 32, false},
        {"Exif\0\0II*\0\x0e\0\0\0", 14, false},
        {"Exif\0\0XX*\0\x08\0\0\0\0\0\0\0\0\0", 20, false},
        {"Exif", 4, false},
    };
    bytes from = read_fixture("rgb.jpg");
    for (size_t i = 0; i < sizeof exifs / sizeof *exifs; i++) {
        char what[32];
        snprintf(what, sizeof what, "Exif %zu", i);
        bytes b = with_segment(from, 0xe1, exifs[i].data, exifs[i].size);
        if (is_plain(b) != exifs[i].plain) fail_msg("%s: plain is %d", what, !exifs[i].plain);
        assert_same_in_every_colour(b, what);
        free(b.at);
    }
    bytes b = with_segment(from, 0xe2, "ICC_PROFILE\0\1\1not one", 21);
    assert_false(is_plain(b));
    assert_same_in_every_colour(b, "ICC");
    free(b.at);
    b = with_segment(from, 0xe2, "MPF\0II*\0", 8);
    assert_true(is_plain(b));
    assert_same_in_every_colour(b, "MPF");
    free(b.at);
    free(from.at);
}

/* ---- shrinking ---- */

typedef struct difference {
    int most;
    double mean, above_2; /* above: the share of bytes that are further apart */
} difference;

static difference compare(const lk_image *a, const lk_image *b)
{
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, b->channels);
    difference d = {0};
    size_t n = (size_t)a->width * a->height * a->channels;
    for (size_t i = 0; i < n; i++) {
        int off = abs(a->pixels[i] - b->pixels[i]);
        d.most = off > d.most ? off : d.most;
        d.mean += off / (double)n;
        d.above_2 += (off > 2) / (double)n;
    }
    return d;
}

/* libvips rounds to bytes between its four steps, and its weights along columns have six bits where the processor has
 * vectors; ours have those of a float. Of twelve photographs and drawings at 224, 288, 500 and 1000 pixels the bytes
 * were 0.03 to 0.42 apart on average, 0.8% of them at most by more than 2, and none by more than 8, beside hard edges.
 * This picture is harsher, and of few pixels where it is shrunk the most. */
static void shrunk_pictures_are_those_of_libvips_but_for_its_rounding(void **state)
{
    (void)state;
    static const uint32_t sides[] = {639, 500, 320, 224, 150, 100, 79, 40, 20, 7, 1};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        for (int kind = 0; kind < 5; kind++) { /* JPEG in colour and grey; PNG in colour, grey, with alpha */
            lk_image_options options = lk_image_default_options();
            lk_image ours, theirs;
            options.max_side = sides[i];
            options.colour = kind == 4 ? LK_COLOUR_RGBA : kind == 3 ? LK_COLOUR_GREY : LK_COLOUR_RGB;
            bytes b = {0};
            if (kind < 2) {
                b = make_jpeg(640, 427, kind ? 1 : 3, false, true);
            } else {
                lk_image image = {.width = 640, .height = 427, .channels = kind == 4 ? 4 : kind == 3 ? 1 : 3};
                g_object_unref(make_picture(640, 427, image.channels, 0.8, &image.pixels));
                assert_int_equal(lk_image_encode(&image, LK_FORMAT_PNG, 0, &b.at, &b.size), LK_OK);
                free(image.pixels);
            }
            assert_true(is_plain(b));
            assert_int_equal(lk_image_load_memory(b.at, b.size, "big", &options, &ours), LK_OK);
            assert_int_equal(through_libvips(b, &options, &theirs), LK_OK);
            assert_int_equal(ours.source_width, 640);
            assert_int_equal(ours.source_height, 427);
            difference d = compare(&ours, &theirs);
            /* With alpha libvips does not round, but moves weights to the nearest 64th of a pixel. */
            bool exact = kind == 4;
            if (d.most > (exact ? 1 : 8) || d.mean > (exact ? 0.1 : 1) || d.above_2 > 0.025)
                fail_msg("side %u, kind %d: %d at most, %.3f on average, %.3f%% above 2", sides[i], kind, d.most,
                         d.mean, 100 * d.above_2);
            lk_image_free(&ours);
            lk_image_free(&theirs);
            free(b.at);
        }
    }
}

/* The same sums in floating point, of a picture whose contrast leaves nothing to cut off. */
static void shrinking_is_the_arithmetic_of_libvips_without_rounding(void **state)
{
    (void)state;
    static const uint32_t sides[][2] = {{639, 427}, {400, 300}, {320, 213}, {160, 107}, {159, 106},
                                        {90, 60},   {33, 22},   {640, 200}, {300, 427}, {2, 2}};
    for (uint32_t channels = 1; channels <= 4; channels += channels == 1 ? 2 : 1) {
        uint8_t *pixels;
        VipsImage *image = make_picture(640, 427, channels, 0.6, &pixels), *numbers, *small, *whole, *last;
        if (channels == 4)
            for (size_t i = 3; i < 640 * 427 * 4; i += 4) pixels[i] = 255; /* alpha: in the test above */
        assert_int_equal(vips_cast(image, &numbers, VIPS_FORMAT_FLOAT, NULL), 0);
        for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
            uint32_t width = sides[i][0], height = sides[i][1];
            lk_image ours = {.width = width, .height = height, .channels = channels}, theirs = ours;
            ours.pixels = malloc((size_t)width * height * channels);
            lk_shrink *rows = lk_shrink_new(640, 427, channels, (uint8_t[3]){0}, &ours);
            assert_non_null(rows);
            for (size_t y = 0; y < 427; y++) lk_shrink_row(rows, pixels + y * 640 * channels);
            lk_shrink_row(rows, pixels); /* nobody asked for it */
            lk_shrink_free(rows);
            assert_int_equal(vips_resize(numbers, &small, width / 640.0, "vscale", height / 427.0, NULL), 0);
            assert_int_equal(vips_rint(small, &whole, NULL), 0);
            assert_int_equal(vips_cast(whole, &last, VIPS_FORMAT_UCHAR, NULL), 0);
            size_t size;
            void *(*write)(VipsImage *, size_t *) = lk_late_symbol("libvips", "vips_image_write_to_memory");
            theirs.pixels = write(last, &size);
            assert_int_equal(size, (size_t)width * height * channels);
            difference d = compare(&ours, &theirs);
            if (d.most > 1) fail_msg("%ux%u, %u channels: %d at most", width, height, channels, d.most);
            lk_image_free(&ours);
            g_free(theirs.pixels);
            g_object_unref(small);
            g_object_unref(whole);
            g_object_unref(last);
        }
        g_object_unref(numbers);
        g_object_unref(image);
        free(pixels);
    }
}

static void thin_and_one_coloured_pictures_shrink(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{3000, 1}, {1, 3000}, {3000, 3}, {2999, 17}, {5000, 40}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int format = LK_FORMAT_JPEG; format <= LK_FORMAT_PNG; format++) {
            lk_image image = {.width = sizes[i][0], .height = sizes[i][1], .channels = 3}, small;
            size_t n = (size_t)image.width * image.height * 3, size;
            lk_image_options options = lk_image_default_options();
            uint8_t *encoded;
            options.max_side = 100;
            image.pixels = malloc(n);
            memset(image.pixels, 200, n);
            assert_int_equal(lk_image_encode(&image, (lk_image_format)format, 90, &encoded, &size), LK_OK);
            if (lk_image_load_memory(encoded, size, "thin", &options, &small) != LK_OK)
                fail_msg("%s", lk_error_message());
            assert_int_equal(small.width, image.width == 1 ? 1 : 100);
            assert_int_equal(small.height, image.height == 3000 ? 100 : 1);
            for (size_t p = 0; p < (size_t)small.width * small.height * 3; p++) assert_int_equal(small.pixels[p], 200);
            lk_image_free(&small);
            lk_image_free(&image);
            free(encoded);
        }
    }
}

/* libvips ends the program when it is asked for the pixels of a picture that it has shrunk to nothing. */
static void thin_pictures_that_are_left_to_libvips_shrink(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{1, 300}, {3, 4000}, {4000, 3}, {7, 2000}, {2000, 2}};
    static const uint32_t sides[] = {1, 16, 224};
    int (*webp)(VipsImage *, void **, size_t *, ...) = lk_late_symbol("libvips", "vips_webpsave_buffer");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *pixels;
        VipsImage *image = make_picture(sizes[i][0], sizes[i][1], 3, 1, &pixels);
        void *buffer = NULL;
        bytes files[3] = {make_jpeg(sizes[i][0], sizes[i][1], 3, false, false)};
        assert_int_equal(webp(image, &buffer, &files[1].size, NULL), 0);
        files[1].at = buffer;
        files[2] = with_segment(files[0], 0xe1, "Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0", 32);
        for (size_t n = 0; n < 9 * sizeof sides / sizeof *sides; n++) {
            lk_image_options options = lk_image_default_options();
            lk_image small;
            options.colour = (lk_image_colour)(n % 3);
            options.max_side = sides[n / 9];
            bytes b = files[n / 3 % 3];
            if (lk_image_load_memory(b.at, b.size, "thin", &options, &small) != LK_OK)
                fail_msg("%s", lk_error_message());
            assert_int_equal(small.width > small.height ? small.width : small.height, options.max_side);
            assert_true(small.width > 0 && small.height > 0);
            lk_image_free(&small);
        }
        g_object_unref(image);
        g_free(buffer);
        free(pixels);
        free(files[0].at);
        free(files[2].at);
    }
}

/* ---- damage ---- */

/* Sends standard error to a file in memory, and says how much was written there. */
static int hide_errors(int *kept)
{
    int file = memfd_create("stderr", MFD_CLOEXEC);
    fflush(stderr);
    *kept = dup(2);
    dup2(file, 2);
    return file;
}

static off_t show_errors(int file, int kept)
{
    fflush(stderr);
    off_t size = lseek(file, 0, SEEK_END);
    dup2(kept, 2);
    close(kept);
    close(file);
    return size;
}

static void a_picture_cut_anywhere_is_whole_or_refused_as_by_libvips(void **state)
{
    (void)state;
    bytes files[] = {make_png(&(png){9, 7, 8, 2, false, false}, NULL, NULL, 0),
                     make_png(&(png){9, 7, 8, 6, true, false}, NULL, NULL, 0),
                     make_png(&(png){17, 9, 2, 3, false, true}, "tEXt", "a\0b", 3),
                     make_jpeg(24, 16, 3, false, true),
                     make_jpeg(24, 16, 3, true, true),
                     read_fixture("grey.jpg")};
    lk_image_options options = lk_image_default_options();
    int kept, file = hide_errors(&kept);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        lk_image whole, part, theirs;
        assert_int_equal(lk_image_load_memory(files[f].at, files[f].size, "whole", &options, &whole), LK_OK);
        size_t n = (size_t)whole.width * whole.height * 3;
        for (size_t keep = 1; keep < files[f].size; keep++) {
            bytes b = {malloc(keep), keep}; /* exactly as long as said, so that ASan sees a read beyond it */
            memcpy(b.at, files[f].at, keep);
            lk_status s = lk_image_load_memory(b.at, keep, "part.img", &options, &part);
            if (s == LK_OK) {
                assert_memory_equal(part.pixels, whole.pixels, n);
            } else {
                assert_int_equal(s, LK_CORRUPT);
                assert_null(part.pixels);
                assert_non_null(strstr(lk_error_message(), "part.img: "));
            }
            if (keep > 12 && (s == LK_OK) != (through_libvips(b, &options, &theirs) == LK_OK))
                fail_msg("file %zu, %zu of %zu bytes: %s", f, keep, files[f].size,
                         s == LK_OK ? "passes" : lk_error_message());
            if (keep > 12) lk_image_free(&theirs);
            lk_image_free(&part);
            free(b.at);
        }
        lk_image_free(&whole);
        free(files[f].at);
    }
    assert_int_equal(show_errors(file, kept), 0);
}

static void damaged_bytes_never_hurt(void **state)
{
    (void)state;
    bytes files[] = {make_png(&(png){9, 7, 8, 3, true, true}, NULL, NULL, 0), make_jpeg(24, 16, 3, false, true),
                     make_jpeg(24, 16, 3, true, false)};
    lk_image_options options = lk_image_default_options();
    options.max_pixels = 1 << 16;
    int kept, file = hide_errors(&kept);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        for (int i = 0; i < 3000; i++) {
            lk_image image;
            bytes b = {0};
            append(&b, files[f].at, files[f].size);
            for (uint32_t k = 1 + random_below(3); k; k--)
                b.at[random_below((uint32_t)b.size)] ^= (uint8_t)(1 + random_below(255));
            options.max_side = i % 2 ? 5 : 0;
            lk_status s = lk_image_load_memory(b.at, b.size, "damaged", &options, &image);
            assert_true(s == LK_OK || (s != LK_NO_MEMORY && !image.pixels));
            lk_image_free(&image);
            free(b.at);
        }
        free(files[f].at);
    }
    assert_int_equal(show_errors(file, kept), 0);
}

static void a_header_that_announces_a_giant_is_refused_by_the_limit(void **state)
{
    (void)state;
    lk_image image;
    bytes b = make_png(&(png){9, 7, 8, 2, false, false}, NULL, NULL, 0);
    memcpy(b.at + 16, (uint8_t[8]){0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30}, 8); /* 30000 x 30000, checksum wrong */
    assert_true(is_plain(b));
    assert_int_equal(lk_image_load_memory(b.at, b.size, "f", NULL, &image), LK_LIMIT);
    assert_non_null(strstr(lk_error_message(), "30000x30000"));
    free(b.at);
    b = make_jpeg(24, 16, 3, true, true);
    uint8_t *frame = memmem(b.at, b.size, "\xff\xc2", 2);
    assert_non_null(frame);
    memcpy(frame + 5, (uint8_t[4]){0xea, 0x60, 0xea, 0x60}, 4);
    assert_true(is_plain(b));
    assert_int_equal(lk_image_load_memory(b.at, b.size, "f", NULL, &image), LK_LIMIT);
    assert_non_null(strstr(lk_error_message(), "60000x60000"));
    free(b.at);
}

/* A grey block, then of each coefficient in turn all bits but the last, then the last bit: `scans` scans in all. */
static bytes make_scans(int scans)
{
    bytes b = {0};
    uint8_t steps[64];
    memset(steps, 1, sizeof steps);
    append(&b, "\xff\xd8\xff\xdb\0\x43\0", 7);
    append(&b, steps, 64);
    append(&b, "\xff\xc2\0\x0b\x08\0\x08\0\x08\1\1\x11\0", 13);
    for (int class = 0; class < 2; class ++) { /* one code, of one bit: "no more" */
        append(&b, "\xff\xc4\0\x14", 4);
        append(&b, (uint8_t[18]){(uint8_t)(class << 4), 1}, 18);
    }
    for (int i = 0; i < scans; i++) {
        uint8_t coefficient = (uint8_t)(i ? (i - 1) % 63 + 1 : 0), bits = i == 0 ? 0 : i < 64 ? 0x01 : 0x10;
        append(&b, "\xff\xda\0\x08\1\1\0", 7);
        append(&b, (uint8_t[4]){coefficient, coefficient, bits, 0x7f}, 4);
    }
    append(&b, "\xff\xd9", 2);
    return b;
}

static void scans_without_end_are_refused(void **state)
{
    (void)state;
    lk_image image;
    bytes b = make_scans(100);
    assert_true(is_plain(b));
    assert_same_in_every_colour(b, "100 scans");
    free(b.at);
    b = make_scans(127);
    assert_int_equal(lk_image_load_memory(b.at, b.size, "many.jpg", NULL, &image), LK_LIMIT);
    assert_string_equal(lk_error_message(), "many.jpg: cannot be decoded as JPEG: it has more than 100 scans");
    free(b.at);
}

/* ---- what it is for ---- */

/* The first test of all: the others load libvips. */
static void plain_pictures_are_decoded_without_libvips(void **state)
{
    (void)state;
    static const char *const names[] = {"rgb.png", "rgba.png",        "palette.png", "la.png",
                                        "rgb.jpg", "progressive.jpg", "orient1.jpg"};
    lk_image_options options = lk_image_default_options();
    lk_image image;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, FIXTURES "%s", names[i]);
        options.max_side = i % 2 ? 12 : 0;
        assert_int_equal(lk_image_prepare(path), LK_OK);
        assert_int_equal(lk_image_load(path, &options, &image), LK_OK);
        lk_image_free(&image);
        for (unsigned l = 0; l < lk_late_library_count; l++) { /* none where all are linked */
            const char *library = lk_late_libraries[l].soname;
            if (strstr(library, "libvips.") && dlopen(library, RTLD_LAZY | RTLD_NOLOAD))
                fail_msg("%s: needs %s", names[i], library);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_pictures_are_decoded_without_libvips),
        cmocka_unit_test(every_kind_of_png_gives_the_bytes_of_libvips),
        cmocka_unit_test(chunks_that_change_no_pixel_are_skipped),
        cmocka_unit_test(profiles_deep_colours_and_exif_are_left_to_libvips),
        cmocka_unit_test(every_kind_of_jpeg_gives_the_bytes_of_libvips),
        cmocka_unit_test(exif_that_turns_nothing_is_plain),
        cmocka_unit_test(shrunk_pictures_are_those_of_libvips_but_for_its_rounding),
        cmocka_unit_test(shrinking_is_the_arithmetic_of_libvips_without_rounding),
        cmocka_unit_test(thin_and_one_coloured_pictures_shrink),
        cmocka_unit_test(thin_pictures_that_are_left_to_libvips_shrink),
        cmocka_unit_test(a_picture_cut_anywhere_is_whole_or_refused_as_by_libvips),
        cmocka_unit_test(damaged_bytes_never_hurt),
        cmocka_unit_test(a_header_that_announces_a_giant_is_refused_by_the_limit),
        cmocka_unit_test(scans_without_end_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
