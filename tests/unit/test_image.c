/* Decoding: every format beside Pillow, orientation, colours, shrinking, and what must be refused. */
#include "../fixtures/image.h"
#include "image/svg.h"
#include "image/vips.h"
#include "late/late.h"
#include <likeness/image.h>

#include "unit.h"

#include <fcntl.h>
#include <math.h>

#define FIXTURES UNIT_SOURCE "/tests/fixtures/image/"

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *bytes = malloc(1 << 20);
    *size = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

static uint8_t *read_fixture(const char *name, size_t *size)
{
    char path[512];
    snprintf(path, sizeof path, FIXTURES "%s", name);
    return read_file(path, size);
}

static lk_image load_fixture(const char *name, const lk_image_options *options)
{
    char path[512];
    lk_image image;
    snprintf(path, sizeof path, FIXTURES "%s", name);
    if (lk_image_load(path, options, &image) != LK_OK) fail_msg("%s", lk_error_message());
    return image;
}

static lk_status load_text(const char *text, const lk_image_options *options, lk_image *out)
{
    return lk_image_load_memory(text, strlen(text), "drawing", options, out);
}

static int largest_difference(const uint8_t *a, const uint8_t *b, size_t n)
{
    int most = 0;
    for (size_t i = 0; i < n; i++) most = abs(a[i] - b[i]) > most ? abs(a[i] - b[i]) : most;
    return most;
}

/* ---- formats and colours ---- */

static void every_format_gives_the_pixels_that_pillow_gives(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decoded_pictures / sizeof *decoded_pictures; i++) {
        uint32_t width = decoded_pictures[i].width, height = decoded_pictures[i].height;
        lk_image image = load_fixture(decoded_pictures[i].name, NULL);
        if (image.width != width || image.height != height || image.channels != 3 || image.source_width != width ||
            image.source_height != height)
            fail_msg("%s: %ux%ux%u", decoded_pictures[i].name, image.width, image.height, image.channels);
        int off = largest_difference(image.pixels, decoded_pictures[i].rgb, (size_t)width * height * 3);
        if (off > decoded_pictures[i].tolerance) fail_msg("%s: off by %d", decoded_pictures[i].name, off);
        lk_image_free(&image);
    }
}

static void memory_and_file_give_the_same_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decoded_pictures / sizeof *decoded_pictures; i++) {
        size_t size;
        uint8_t *bytes = read_fixture(decoded_pictures[i].name, &size);
        lk_image a = load_fixture(decoded_pictures[i].name, NULL), b;
        assert_int_equal(lk_image_load_memory(bytes, size, "upload", NULL, &b), LK_OK);
        assert_int_equal(a.width, b.width);
        assert_int_equal(a.height, b.height);
        assert_memory_equal(a.pixels, b.pixels, (size_t)a.width * a.height * a.channels);
        lk_image_free(&a);
        lk_image_free(&b);
        free(bytes);
    }
}

/* A picture of broad stripes through libvips' writer of HEIF; kind: VIPS_FOREIGN_HEIF_COMPRESSION_*. */
static uint8_t *make_heif(int kind, size_t *size)
{
    enum { SIDE = 64 };
    uint8_t pixels[SIDE * SIDE * 3];
    for (size_t i = 0; i < SIDE * SIDE; i++)
        for (size_t c = 0; c < 3; c++) pixels[i * 3 + c] = (uint8_t)(i % SIDE < 32 ? 200 - 50 * c : 40 + 60 * c);
    assert_int_equal(lk_vips_start(), LK_OK);
    VipsImage *image = vips_image_new_from_memory(pixels, sizeof pixels, SIDE, SIDE, 3, VIPS_FORMAT_UCHAR), *named;
    assert_int_equal(vips_copy(image, &named, "interpretation", VIPS_INTERPRETATION_sRGB, NULL), 0);
    void *buffer = NULL;
    /* Nothing of ours writes HEIF, so this function has no stub. */
    int (*save)(VipsImage *, void **, size_t *, ...) = lk_late_symbol("libvips", "vips_heifsave_buffer");
    if (save(named, &buffer, size, "compression", kind, "Q", 90, NULL) != 0) fail_msg("%s", vips_error_buffer_copy());
    g_object_unref(named);
    g_object_unref(image);
    return buffer;
}

static void heic_and_avif_are_read(void **state)
{
    (void)state;
    const int kinds[] = {VIPS_FOREIGN_HEIF_COMPRESSION_HEVC, VIPS_FOREIGN_HEIF_COMPRESSION_AV1};
    for (int k = 0; k < 2; k++) {
        size_t size;
        uint8_t *bytes = make_heif(kinds[k], &size);
        lk_image image;
        assert_int_equal(lk_image_load_memory(bytes, size, "heif", NULL, &image), LK_OK);
        assert_int_equal(image.width, 64);
        assert_int_equal(image.height, 64);
        for (uint32_t x = 4; x < 64; x += 55)
            for (size_t c = 0; c < 3; c++)
                assert_in_range(image.pixels[(32 * 64 + x) * 3 + c] + 8, x < 32 ? 200 - 50 * c : 40 + 60 * c,
                                (x < 32 ? 200 - 50 * c : 40 + 60 * c) + 16);
        lk_image_free(&image);
        g_free(bytes);
    }
}

static void cmyk_becomes_srgb(void **state)
{
    (void)state;
    lk_image image = load_fixture("cmyk.jpg", NULL), rgb = load_fixture("rgb.jpg", NULL);
    assert_int_equal(image.channels, 3);
    /* Inks are duller than light and profiles differ: the colours are recognisably those of the original. */
    double off = 0;
    size_t n = (size_t)rgb.width * rgb.height * 3;
    for (size_t i = 0; i < n; i++) off += abs(image.pixels[i] - rgb.pixels[i]);
    assert_true(off / (double)n < 40);
    lk_image_free(&image);
    lk_image_free(&rgb);
}

static void alpha_shows_the_background_that_was_asked_for(void **state)
{
    (void)state;
    const char *names[] = {"rgba.png", "rgba.webp"};
    for (int f = 0; f < 2; f++) {
        lk_image_options options = lk_image_default_options();
        const uint8_t green[3] = {10, 200, 30};
        memcpy(options.background, green, 3);
        lk_image image = load_fixture(names[f], &options), opaque = load_fixture("rgb.png", NULL);
        for (size_t y = 0; y < 16; y++) {
            for (size_t x = 0; x < 24; x++) {
                double alpha = x < 8 ? 0 : x < 16 ? 128 / 255.0 : 1;
                for (size_t c = 0; c < 3; c++) {
                    double wanted = alpha * opaque.pixels[(y * 24 + x) * 3 + c] + (1 - alpha) * green[c];
                    assert_true(fabs(wanted - image.pixels[(y * 24 + x) * 3 + c]) <= 1);
                }
            }
        }
        lk_image_free(&image);
        options.colour = LK_COLOUR_RGBA; /* straight alpha: the colour as it is stored */
        image = load_fixture(names[f], &options);
        assert_int_equal(image.channels, 4);
        for (size_t i = 0; i < 24 * 16; i++) {
            size_t x = i % 24;
            assert_int_equal(image.pixels[i * 4 + 3], x < 8 ? 0 : x < 16 ? 128 : 255);
            if (x >= 8) assert_memory_equal(image.pixels + i * 4, opaque.pixels + i * 3, 3);
        }
        lk_image_free(&image);
        lk_image_free(&opaque);
    }
}

static void pictures_without_alpha_are_opaque_in_rgba(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    options.colour = LK_COLOUR_RGBA;
    const char *names[] = {"rgb.png", "grey.png", "rgb.bmp", "rgb.jpg", "grey16.png"};
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        lk_image image = load_fixture(names[f], &options);
        assert_int_equal(image.channels, 4);
        for (size_t i = 0; i < 24 * 16; i++) assert_int_equal(image.pixels[i * 4 + 3], 255);
        lk_image_free(&image);
    }
}

static void grey_is_one_channel_from_every_format(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    options.colour = LK_COLOUR_GREY;
    for (size_t i = 0; i < sizeof decoded_pictures / sizeof *decoded_pictures; i++) {
        const uint8_t *rgb = decoded_pictures[i].rgb;
        lk_image image = load_fixture(decoded_pictures[i].name, &options);
        assert_int_equal(image.channels, 1);
        for (size_t p = 0; p < (size_t)image.width * image.height; p++) {
            /* libvips weighs linear light; a grey pixel is itself, any other lies between its darkest and lightest. */
            int low = rgb[p * 3], high = low;
            for (int c = 1; c < 3; c++) {
                low = rgb[p * 3 + c] < low ? rgb[p * 3 + c] : low;
                high = rgb[p * 3 + c] > high ? rgb[p * 3 + c] : high;
            }
            int off = decoded_pictures[i].tolerance + 2;
            if (image.pixels[p] < low - off || image.pixels[p] > high + off)
                fail_msg("%s: pixel %zu is %d, not in [%d, %d]", decoded_pictures[i].name, p, image.pixels[p], low,
                         high);
        }
        lk_image_free(&image);
    }
}

/* ---- shrinking ---- */

/* A smooth picture, large enough that loaders shrink on their own. */
static lk_image make_smooth(uint32_t width, uint32_t height)
{
    lk_image image = {.width = width, .height = height, .channels = 3};
    image.pixels = malloc((size_t)width * height * 3);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            uint8_t *p = image.pixels + ((size_t)y * width + x) * 3;
            p[0] = (uint8_t)(x * 255 / (width - 1));
            p[1] = (uint8_t)(y * 255 / (height - 1));
            p[2] = (uint8_t)(128 + 100 * sin(x * 6.28 / width));
        }
    }
    return image;
}

static void shrinking_gives_the_size_asked_for_and_the_same_picture(void **state)
{
    (void)state;
    const uint32_t sides[] = {399, 250, 100, 60, 31, 17, 1};
    lk_image big = make_smooth(400, 300);
    for (int format = LK_FORMAT_JPEG; format <= LK_FORMAT_WEBP; format++) {
        uint8_t *bytes;
        size_t size;
        assert_int_equal(lk_image_encode(&big, (lk_image_format)format, 95, &bytes, &size), LK_OK);
        for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
            lk_image_options options = lk_image_default_options();
            lk_image image;
            options.max_side = sides[i];
            assert_int_equal(lk_image_load_memory(bytes, size, "big", &options, &image), LK_OK);
            uint32_t height = (uint32_t)round(300 * (double)sides[i] / 400);
            assert_int_equal(image.width, sides[i]);
            assert_int_equal(image.height, height ? height : 1);
            assert_int_equal(image.source_width, 400);
            assert_int_equal(image.source_height, 300);
            double off = 0;
            for (uint32_t y = 0; y < image.height; y++) {
                for (uint32_t x = 0; x < image.width; x++) {
                    size_t from =
                        (size_t)((y + 0.5) * 300 / image.height) * 400 + (size_t)((x + 0.5) * 400 / image.width);
                    for (size_t c = 0; c < 3; c++)
                        off += abs(image.pixels[((size_t)y * image.width + x) * 3 + c] - big.pixels[from * 3 + c]);
                }
            }
            off /= (double)image.width * image.height * 3;
            if (off > 6) fail_msg("format %d, side %u: off by %.1f on average", format, sides[i], off);
            lk_image_free(&image);
        }
        free(bytes);
    }
    lk_image_free(&big);
}

static void small_pictures_are_not_enlarged_and_drawings_are(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    options.max_side = 100;
    lk_image image = load_fixture("rgb.png", &options);
    assert_int_equal(image.width, 24);
    lk_image_free(&image);
    assert_int_equal(load_text("<svg xmlns='http://www.w3.org/2000/svg' width='10' height='5'/>", &options, &image),
                     LK_OK);
    assert_int_equal(image.width, 100);
    assert_int_equal(image.height, 50);
    assert_int_equal(image.source_width, 10);
    lk_image_free(&image);
}

static void turned_pictures_shrink_by_their_upright_side(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    options.max_side = 12;
    for (int orientation = 1; orientation <= 8; orientation++) {
        char name[32];
        snprintf(name, sizeof name, "orient%d.jpg", orientation);
        lk_image image = load_fixture(name, &options);
        assert_int_equal(image.width, orientation < 5 ? 12 : 8);
        assert_int_equal(image.height, orientation < 5 ? 8 : 12);
        assert_int_equal(image.source_width, orientation < 5 ? 24 : 16);
        lk_image_free(&image);
    }
}

/* ---- refusals ---- */

static void text_named_as_a_picture_is_refused_by_its_bytes(void **state)
{
    char path[256];
    snprintf(path, sizeof path, "%s/picture.jpg", (char *)*state);
    FILE *f = fopen(path, "w");
    fputs("This is a letter, not a photograph.\n", f);
    fclose(f);
    lk_image image;
    assert_int_equal(lk_image_load(path, NULL, &image), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "picture.jpg"));
    assert_non_null(strstr(lk_error_message(), "is not a picture"));
    assert_null(image.pixels);
}

static void a_picture_with_the_wrong_ending_is_read_all_the_same(void **state)
{
    char path[256];
    size_t size;
    uint8_t *bytes = read_fixture("rgb.png", &size);
    snprintf(path, sizeof path, "%s/really-png.txt", (char *)*state);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
    lk_image image;
    assert_int_equal(lk_image_load(path, NULL, &image), LK_OK);
    lk_image_free(&image);
    free(bytes);
}

static void missing_empty_and_special_files_are_told_apart(void **state)
{
    char path[256];
    lk_image image;
    snprintf(path, sizeof path, "%s/none.png", (char *)*state);
    assert_int_equal(lk_image_load(path, NULL, &image), LK_NOT_FOUND);
    fclose(fopen(path, "w"));
    assert_int_equal(lk_image_load(path, NULL, &image), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "empty"));
    assert_int_equal(lk_image_load(*state, NULL, &image), LK_INVALID);
    assert_int_equal(lk_image_load_memory(NULL, 0, NULL, NULL, &image), LK_CORRUPT);
}

static void truncated_pictures_of_every_format_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof decoded_pictures / sizeof *decoded_pictures; i++) {
        size_t size;
        uint8_t *bytes = read_fixture(decoded_pictures[i].name, &size);
        for (size_t keep = 1; keep < size; keep += size / 40 + 1) {
            uint8_t *part = malloc(keep); /* exactly as long as said, so that ASan sees a read beyond it */
            memcpy(part, bytes, keep);
            lk_image image;
            lk_status s = lk_image_load_memory(part, keep, "part", NULL, &image);
            if (keep <= size / 2 && s == LK_OK)
                fail_msg("%s: %zu of %zu bytes pass", decoded_pictures[i].name, keep, size);
            if (s != LK_OK) assert_null(image.pixels);
            lk_image_free(&image);
            free(part);
        }
        free(bytes);
    }
}

static void formats_left_out_on_purpose_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *name;
    } files[] = {{"%PDF-1.7\n", 9, "PDF"},
                 {"8BPS\0\1", 6, "Photoshop"},
                 {"\x1f\x8b\x08\0\0\0", 6, "gzip"},
                 {"\0\0\1\0\1\0", 6, "icon"},
                 {"\0\0\0\x18"
                  "ftypisom",
                  12, "video"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        lk_image image;
        assert_int_equal(lk_image_load_memory(files[i].bytes, files[i].size, "f", NULL, &image), LK_UNSUPPORTED);
        assert_non_null(strstr(lk_error_message(), files[i].name));
    }
}

static void limits_hold_before_anything_is_decoded(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    lk_image image;
    size_t size;
    uint8_t *bytes = read_fixture("rgb16.png", &size);
    options.max_bytes = size - 1;
    assert_int_equal(lk_image_load_memory(bytes, size, "f", &options, &image), LK_LIMIT);
    assert_int_equal(lk_image_load(FIXTURES "rgb16.png", &options, &image), LK_LIMIT);
    options.max_bytes = size;
    assert_int_equal(lk_image_load_memory(bytes, size, "f", &options, &image), LK_OK);
    lk_image_free(&image);
    free(bytes);
    /* One pixel too many, in every format; and exactly enough. */
    for (size_t i = 0; i < sizeof decoded_pictures / sizeof *decoded_pictures; i++) {
        bytes = read_fixture(decoded_pictures[i].name, &size);
        options.max_pixels = 24 * 16 - 1;
        options.max_side = 4; /* shrinking on load is no way round */
        assert_int_equal(lk_image_load_memory(bytes, size, "f", &options, &image), LK_LIMIT);
        options.max_pixels = 24 * 16;
        assert_int_equal(lk_image_load_memory(bytes, size, "f", &options, &image), LK_OK);
        lk_image_free(&image);
        free(bytes);
    }
}

static void a_header_that_announces_a_giant_is_refused_by_the_limit(void **state)
{
    (void)state;
    lk_image image;
    size_t size;
    /* The pixels are not there: were they looked for, the status would be LK_CORRUPT. */
    uint8_t *bmp = read_fixture("rgb.bmp", &size);
    memcpy(bmp + 18, (uint8_t[8]){0x30, 0x75, 0, 0, 0x30, 0x75, 0, 0}, 8); /* 30000 x 30000 */
    assert_int_equal(lk_image_load_memory(bmp, size, "f", NULL, &image), LK_LIMIT);
    assert_non_null(strstr(lk_error_message(), "30000x30000"));
    free(bmp);
    uint8_t *gif = read_fixture("palette.gif", &size);
    uint8_t *frame = memmem(gif, size, ",\0\0\0\0\x18\0\x10\0", 9); /* libvips goes by the frames, not by the screen */
    assert_non_null(frame);
    memcpy(gif + 6, (uint8_t[4]){0x30, 0x75, 0x30, 0x75}, 4);
    memcpy(frame + 5, (uint8_t[4]){0x30, 0x75, 0x30, 0x75}, 4);
    assert_int_equal(lk_image_load_memory(gif, size, "f", NULL, &image), LK_LIMIT);
    free(gif);
}

static void damaged_bitmaps_are_refused(void **state)
{
    (void)state;
    size_t size;
    lk_image image;
    static const struct {
        size_t at;
        uint8_t value;
        lk_status status;
    } damages[] = {{14, 39, LK_CORRUPT},     /* a header that does not exist: not taken for a BMP */
                   {18, 0, LK_CORRUPT},      /* no width */
                   {22, 255, LK_CORRUPT},    /* more rows than there are */
                   {28, 16, LK_UNSUPPORTED}, /* 16 bits */
                   {30, 1, LK_UNSUPPORTED},  /* run-length coding */
                   {11, 255, LK_CORRUPT}};   /* pixels beyond the end */
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        uint8_t *bmp = read_fixture("rgb.bmp", &size);
        bmp[damages[i].at] = damages[i].value;
        assert_int_equal(lk_image_load_memory(bmp, size, "f", NULL, &image), damages[i].status);
        free(bmp);
    }
}

static void bitmaps_may_be_stored_from_the_top(void **state)
{
    (void)state;
    size_t size;
    lk_image up, down;
    uint8_t *bmp = read_fixture("rgb.bmp", &size);
    assert_int_equal(lk_image_load_memory(bmp, size, "f", NULL, &up), LK_OK);
    memcpy(bmp + 22, (uint8_t[4]){0xf0, 0xff, 0xff, 0xff}, 4); /* height -16 */
    assert_int_equal(lk_image_load_memory(bmp, size, "f", NULL, &down), LK_OK);
    for (size_t y = 0; y < 16; y++) assert_memory_equal(up.pixels + y * 72, down.pixels + (15 - y) * 72, 72);
    lk_image_free(&up);
    lk_image_free(&down);
    free(bmp);
}

static void options_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    lk_image image;
    lk_image_options options = lk_image_default_options();
    options.colour = (lk_image_colour)7;
    assert_int_equal(lk_image_load(FIXTURES "rgb.png", &options, &image), LK_INVALID);
    options = lk_image_default_options();
    options.max_side = 4000000000u;
    assert_int_equal(lk_image_load(FIXTURES "rgb.png", &options, &image), LK_INVALID);
}

/* ---- drawings ---- */

#define SVG "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' "

static int is_colour(const lk_image *image, uint32_t x, uint32_t y, int r, int g, int b)
{
    const uint8_t *p = image->pixels + ((size_t)y * image->width + x) * image->channels;
    return abs(p[0] - r) <= 1 && abs(p[1] - g) <= 1 && abs(p[2] - b) <= 1;
}

static void drawings_are_scaled_whatever_they_say_of_their_size(void **state)
{
    (void)state;
    /* Each is a square whose left half is red, its right half empty. */
    static const char *const sizes[] = {"width='20' height='20' viewBox='0 0 20 20'", "viewBox='0 0 20 20'",
                                        "width='20' height='20'", "width='100%' height='100%' viewBox='0 0 20 20'",
                                        "width='20mm' height='20mm' viewBox='0 0 20 20'"};
    lk_image_options options = lk_image_default_options();
    options.max_side = 40;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char text[512];
        lk_image image;
        snprintf(text, sizeof text, SVG "%s><path fill='red' d='M0 0h10v20H0z'/></svg>", sizes[i]);
        assert_int_equal(load_text(text, &options, &image), LK_OK);
        assert_int_equal(image.width, 40);
        assert_int_equal(image.height, 40);
        assert_true(is_colour(&image, 5, 5, 255, 0, 0) && is_colour(&image, 15, 35, 255, 0, 0));
        assert_true(is_colour(&image, 25, 5, 255, 255, 255) && is_colour(&image, 35, 35, 255, 255, 255));
        lk_image_free(&image);
    }
}

static void a_drawing_without_size_takes_that_of_what_it_draws(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    lk_image image;
    options.max_side = 40;
    assert_int_equal(load_text(SVG "><rect width='30' height='15' fill='blue'/></svg>", &options, &image), LK_OK);
    assert_int_equal(image.width, 40);
    assert_int_equal(image.height, 20);
    assert_true(is_colour(&image, 38, 18, 0, 0, 255));
    lk_image_free(&image);
    assert_int_equal(load_text(SVG "/>", &options, &image), LK_CORRUPT); /* draws nothing */
    assert_int_equal(load_text(SVG "width='0' height='0'/>", &options, &image), LK_CORRUPT);
}

static void half_transparent_drawings_keep_their_colour(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    lk_image image;
    options.colour = LK_COLOUR_RGBA;
    assert_int_equal(
        load_text(SVG "width='4' height='4'><rect width='4' height='4' fill='#c86432' fill-opacity='.5'/></svg>",
                  &options, &image),
        LK_OK);
    assert_in_range(image.pixels[3], 127, 128);
    assert_true(is_colour(&image, 2, 2, 0xc8, 0x64, 0x32));
    lk_image_free(&image);
}

static void damaged_drawings_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {SVG "width='4' height='4'><rect", SVG "width='4' height='4'><g></svg>",
                                        "<svg></svg>", "<html><svg/></html>", "<svg"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        lk_image image;
        assert_int_equal(load_text(texts[i], NULL, &image), LK_CORRUPT);
    }
}

static void a_drawing_never_reads_other_files(void **state)
{
    char path[256], text[1024];
    size_t size;
    uint8_t *bytes = read_fixture("rgb.png", &size);
    snprintf(path, sizeof path, "%s/secret.png", (char *)*state);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
    free(bytes);
    static const char *const forms[] = {
        SVG "width='24' height='16'><image width='24' height='16' xlink:href='%s/secret.png'/></svg>",
        SVG "width='24' height='16'><image width='24' height='16' href='file://%s/secret.png'/></svg>",
        SVG "width='24' height='16'><image width='24' height='16' href='secret.png'/><!--%s--></svg>",
        SVG "width='24' height='16'><filter id='f'><feImage xlink:href='file://%s/secret.png'/></filter>"
            "<rect width='24' height='16' fill='none' filter='url(#f)'/></svg>",
        "<!DOCTYPE svg [<!ENTITY e SYSTEM 'file://%s/text'>]>" SVG
        "width='24' height='16'><text y='9'>&e;</text></svg>",
    };
    char note[256];
    snprintf(note, sizeof note, "%s/text", (char *)*state);
    f = fopen(note, "w");
    fputs("XXXXXXXXXXXX", f);
    fclose(f);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        snprintf(path, sizeof path, "%s/drawing.svg", (char *)*state);
        snprintf(text, sizeof text, forms[i], (char *)*state);
        f = fopen(path, "w");
        fputs(text, f);
        fclose(f);
        lk_image image;
        lk_status s = lk_image_load(path, NULL, &image);
        if (s != LK_OK) continue; /* refused: that too reads nothing */
        for (size_t p = 0; p < (size_t)image.width * image.height * 3; p++) assert_int_equal(image.pixels[p], 255);
        lk_image_free(&image);
    }
}

static void entities_that_multiply_are_stopped(void **state)
{
    (void)state;
    char text[4096];
    int n = snprintf(text, sizeof text, "<!DOCTYPE svg [<!ENTITY a0 '<path d=\"M0 0h1\"/>'>");
    for (int i = 1; i < 12; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "<!ENTITY a%d '", i);
        for (int j = 0; j < 10; j++) n += snprintf(text + n, sizeof text - (size_t)n, "&a%d;", i - 1);
        n += snprintf(text + n, sizeof text - (size_t)n, "'>");
    }
    snprintf(text + n, sizeof text - (size_t)n, "]>" SVG "width='4' height='4'>&a11;</svg>");
    lk_image image;
    assert_int_equal(load_text(text, NULL, &image), LK_CORRUPT);
}

static void entities_are_few_and_short(void **state)
{
    (void)state;
    enum { ROOM = 1 << 16 };
    char *text = malloc(ROOM);
    lk_image image;
    for (int many = 0; many < 2; many++) { /* a thousand of nothing, or one of everything */
        int n = snprintf(text, ROOM, "<!DOCTYPE svg [");
        for (int i = 0; many && i < 1000; i++) n += snprintf(text + n, ROOM - (size_t)n, "<!ENTITY e%d ''>", i);
        if (!many) n += snprintf(text + n, ROOM - (size_t)n, "<!ENTITY e '%020000d'>", 0);
        snprintf(text + n, ROOM - (size_t)n, "]>" SVG "width='4' height='4'/>");
        assert_int_equal(load_text(text, NULL, &image), LK_LIMIT);
        assert_non_null(strstr(lk_error_message(), "entities"));
    }
    int n = snprintf(text, ROOM, "<!DOCTYPE svg [");
    for (int i = 0; i < 30; i++)
        n += snprintf(text + n, ROOM - (size_t)n, "<!ENTITY ns%d 'http://ns.example.org/some/longer/name/%d/'>", i, i);
    snprintf(text + n, ROOM - (size_t)n, "]>" SVG "xmlns:x='&ns3;' width='4' height='4'/>");
    assert_int_equal(load_text(text, NULL, &image), LK_OK); /* as drawing programs write them */
    lk_image_free(&image);
    free(text);
}

/* A PNG that announces side x side pixels and has none of them, as a data URL. */
static void giant_png_url(char *out, size_t room, uint32_t side)
{
    uint8_t png[57] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
    for (int i = 0; i < 4; i++) png[16 + i] = png[20 + i] = (uint8_t)(side >> (24 - 8 * i));
    png[24] = 8;
    uint32_t crc = 0xffffffff;
    for (int i = 12; i < 29; i++) {
        crc ^= png[i];
        for (int b = 0; b < 8; b++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    for (int i = 0; i < 4; i++) png[29 + i] = (uint8_t)(~crc >> (24 - 8 * i));
    /* An empty IDAT and IEND with their checksums. */
    memcpy(png + 33, "\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82", 24);
    char *base64 = g_base64_encode(png, sizeof png);
    snprintf(out, room, "data:image/png;base64,%s", base64);
    g_free(base64);
}

static void pictures_embedded_in_drawings_count_against_the_limit(void **state)
{
    (void)state;
    char url[256], text[2048];
    giant_png_url(url, sizeof url, 20000);
    static const char *const forms[] = {
        SVG "width='4' height='4'><image width='4' height='4' href='%s'/></svg>",
        SVG "width='4' height='4'><image width='4' height='4' xlink:href=' \n %s'/></svg>",
        SVG "width='4' height='4'><filter id='f'><feImage href='%s'/></filter><path filter='url(#f)'/></svg>",
        "<!DOCTYPE svg [<!ENTITY u '%s'>]>" SVG "width='4' height='4'><image width='4' height='4' href='&u;'/></svg>",
        "<!DOCTYPE svg [<!ENTITY i \"<image width='4' height='4' href='%s'/>\">]>" SVG "width='4' height='4'>&i;</svg>",
        "<!DOCTYPE svg [<!ATTLIST image href CDATA '%s'>]>" SVG "width='4' height='4'><image width='4'/></svg>",
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        lk_image image;
        snprintf(text, sizeof text, forms[i], url);
        lk_status s = load_text(text, NULL, &image);
        if (s != LK_LIMIT) fail_msg("form %zu: status %d, %s", i, (int)s, lk_error_message());
    }
    /* Many small ones add up: 120 of a megapixel. */
    giant_png_url(url, sizeof url, 1000);
    char *many = malloc(1 << 16);
    int n = snprintf(many, 1 << 16, SVG "width='4' height='4'>");
    for (int i = 0; i < 120; i++)
        n += snprintf(many + n, (1 << 16) - (size_t)n, "<image width='4' height='4' href='%s'/>", url);
    snprintf(many + n, (1 << 16) - (size_t)n, "</svg>");
    lk_image image;
    assert_int_equal(load_text(many, NULL, &image), LK_LIMIT);
    free(many);
}

static void drawings_within_drawings_and_inclusions_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        SVG "width='4' height='4'><image width='4' height='4' href='data:image/svg+xml,%3Csvg "
            "xmlns=%22http://www.w3.org/2000/svg%22 width=%2299999%22 height=%2299999%22/%3E'/></svg>",
        SVG "xmlns:xi='http://www.w3.org/2001/XInclude' width='4' height='4'><xi:include href='/etc/passwd' "
            "parse='text'/></svg>"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        lk_image image;
        assert_int_equal(load_text(texts[i], NULL, &image), LK_UNSUPPORTED);
    }
}

static void a_small_embedded_picture_is_drawn(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = read_fixture("rgb.png", &size);
    char *base64 = g_base64_encode(bytes, size), text[1024];
    snprintf(text, sizeof text,
             SVG "width='24' height='16'><image width='24' height='16' href='data:image/png;base64,%s'/></svg>",
             base64);
    lk_image image, plain = load_fixture("rgb.png", NULL);
    assert_int_equal(load_text(text, NULL, &image), LK_OK);
    assert_true(largest_difference(image.pixels, plain.pixels, 24 * 16 * 3) <= 1);
    lk_image_free(&image);
    lk_image_free(&plain);
    g_free(base64);
    free(bytes);
}

static void drawings_larger_than_the_limit_are_refused(void **state)
{
    (void)state;
    lk_image image;
    lk_image_options options = lk_image_default_options();
    assert_int_equal(load_text(SVG "width='20000' height='20000'/>", &options, &image), LK_LIMIT);
    assert_int_equal(load_text(SVG "width='1e9' height='1'/>", &options, &image), LK_LIMIT);
    options.max_side = 50; /* rendered small, the same drawing is harmless */
    assert_int_equal(load_text(SVG "width='20000' height='20000'/>", &options, &image), LK_OK);
    lk_image_free(&image);
}

/* ---- cutting out and encoding ---- */

static void a_crop_is_the_rectangle_that_was_named(void **state)
{
    (void)state;
    lk_image image = load_fixture("rgb.jpg", NULL), part;
    assert_int_equal(lk_image_crop(&image, 3, 2, 5, 4, &part), LK_OK);
    assert_int_equal(part.width, 5);
    assert_int_equal(part.height, 4);
    for (size_t y = 0; y < 4; y++) assert_memory_equal(part.pixels + y * 15, image.pixels + ((y + 2) * 24 + 3) * 3, 15);
    lk_image_free(&part);
    assert_int_equal(lk_image_crop(&image, 0, 0, 24, 16, &part), LK_OK);
    assert_memory_equal(part.pixels, image.pixels, 24 * 16 * 3);
    lk_image_free(&part);
    static const uint32_t wrong[][4] = {{0, 0, 25, 1}, {24, 0, 1, 1},         {0, 16, 1, 1},
                                        {1, 1, 0, 5},  {5, 5, 0xffffffff, 2}, {0xffffffff, 0, 2, 2}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(lk_image_crop(&image, wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3], &part), LK_INVALID);
        assert_null(part.pixels);
    }
    lk_image_free(&image);
}

static void encoded_pictures_come_back(void **state)
{
    (void)state;
    lk_image_options options = lk_image_default_options();
    for (int colour = LK_COLOUR_RGB; colour <= LK_COLOUR_RGBA; colour++) {
        options.colour = (lk_image_colour)colour;
        lk_image image = load_fixture("rgb.jpg", &options), back;
        for (int format = LK_FORMAT_JPEG; format <= LK_FORMAT_WEBP; format++) {
            uint8_t *bytes;
            size_t size;
            assert_int_equal(lk_image_encode(&image, (lk_image_format)format, 95, &bytes, &size), LK_OK);
            assert_int_equal(lk_image_load_memory(bytes, size, "back", &options, &back), LK_OK);
            assert_int_equal(back.channels, image.channels);
            int off = largest_difference(back.pixels, image.pixels, (size_t)24 * 16 * image.channels);
            assert_true(off <= (format == LK_FORMAT_PNG ? 0 : 24)); /* chroma is halved in lossy ones */
            lk_image_free(&back);
            free(bytes);
        }
        lk_image_free(&image);
    }
    uint8_t *bytes;
    size_t size;
    lk_image empty = {0}, image = load_fixture("rgb.png", NULL);
    assert_int_equal(lk_image_encode(&empty, LK_FORMAT_PNG, 90, &bytes, &size), LK_INVALID);
    assert_int_equal(lk_image_encode(&image, LK_FORMAT_JPEG, 0, &bytes, &size), LK_INVALID);
    assert_int_equal(lk_image_encode(&image, (lk_image_format)9, 90, &bytes, &size), LK_INVALID);
    lk_image_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_gives_the_pixels_that_pillow_gives),
        cmocka_unit_test(memory_and_file_give_the_same_bytes),
        cmocka_unit_test(heic_and_avif_are_read),
        cmocka_unit_test(cmyk_becomes_srgb),
        cmocka_unit_test(alpha_shows_the_background_that_was_asked_for),
        cmocka_unit_test(pictures_without_alpha_are_opaque_in_rgba),
        cmocka_unit_test(grey_is_one_channel_from_every_format),
        cmocka_unit_test(shrinking_gives_the_size_asked_for_and_the_same_picture),
        cmocka_unit_test(small_pictures_are_not_enlarged_and_drawings_are),
        cmocka_unit_test(turned_pictures_shrink_by_their_upright_side),
        cmocka_unit_test_setup_teardown(text_named_as_a_picture_is_refused_by_its_bytes, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_picture_with_the_wrong_ending_is_read_all_the_same, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(missing_empty_and_special_files_are_told_apart, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test(truncated_pictures_of_every_format_are_refused),
        cmocka_unit_test(formats_left_out_on_purpose_are_named),
        cmocka_unit_test(limits_hold_before_anything_is_decoded),
        cmocka_unit_test(a_header_that_announces_a_giant_is_refused_by_the_limit),
        cmocka_unit_test(damaged_bitmaps_are_refused),
        cmocka_unit_test(bitmaps_may_be_stored_from_the_top),
        cmocka_unit_test(options_that_make_no_sense_are_refused),
        cmocka_unit_test(drawings_are_scaled_whatever_they_say_of_their_size),
        cmocka_unit_test(a_drawing_without_size_takes_that_of_what_it_draws),
        cmocka_unit_test(half_transparent_drawings_keep_their_colour),
        cmocka_unit_test(damaged_drawings_are_refused),
        cmocka_unit_test_setup_teardown(a_drawing_never_reads_other_files, unit_folder, unit_folder_remove),
        cmocka_unit_test(entities_that_multiply_are_stopped),
        cmocka_unit_test(entities_are_few_and_short),
        cmocka_unit_test(pictures_embedded_in_drawings_count_against_the_limit),
        cmocka_unit_test(drawings_within_drawings_and_inclusions_are_refused),
        cmocka_unit_test(a_small_embedded_picture_is_drawn),
        cmocka_unit_test(drawings_larger_than_the_limit_are_refused),
        cmocka_unit_test(a_crop_is_the_rectangle_that_was_named),
        cmocka_unit_test(encoded_pictures_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
