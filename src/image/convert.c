#include "image/convert.h"

#include "base/error.h"
#include "base/memory.h"
#include "image/vips.h"

#include <stdlib.h>
#include <string.h>

#define STRIP_ROWS 64 /* computed at a time */

/* sRGB from the embedded profile, 8 bits. The intent is the one that browsers and Pillow take. */
static bool colour_managed(VipsImage **image)
{
    VipsImage *next;
    bool cmyk = vips_image_get_interpretation(*image) == VIPS_INTERPRETATION_CMYK;
    return lk_vips_step(image,
                        vips_icc_transform(*image, &next, "srgb", "embedded", TRUE, "input_profile",
                                           cmyk ? "cmyk" : NULL, "intent", VIPS_INTENT_PERCEPTUAL, "depth", 8, NULL),
                        &next);
}

/* Grey or RGB in 8 bits. *profile says whether the colours are still those of the embedded profile; not so from CMYK,
 * which becomes sRGB at once, because arithmetic on inks is not arithmetic on light. */
static bool plain_bytes(VipsImage **image, bool *profile)
{
    VipsImage *next;
    VipsInterpretation is = vips_image_guess_interpretation(*image);
    *profile = vips_image_get_typeof(*image, VIPS_META_ICC_NAME) != 0;
    if (is == VIPS_INTERPRETATION_CMYK) {
        *profile = false;
        if (colour_managed(image)) return true;
        vips_error_clear();
    }
    VipsInterpretation wanted = vips_image_get_bands(*image) < 3 ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB;
    if (is == wanted && vips_image_get_format(*image) == VIPS_FORMAT_UCHAR) return true;
    return lk_vips_step(image, vips_colourspace(*image, &next, wanted, NULL), &next) &&
           lk_vips_step(image, vips_cast(*image, &next, VIPS_FORMAT_UCHAR, NULL), &next);
}

/* A profile that does not fit the picture (RGB for a grey one, or damaged) is not worth losing the picture: without it
 * the colours are taken for sRGB, as every viewer does. */
static void apply_profile(VipsImage **image, bool *profile)
{
    if (*profile && !colour_managed(image)) vips_error_clear();
    *profile = false;
}

static bool flatten(VipsImage **image, const uint8_t background[3])
{
    VipsImage *next;
    if (vips_image_get_bands(*image) == 2 &&
        !lk_vips_step(image, vips_colourspace(*image, &next, VIPS_INTERPRETATION_sRGB, NULL), &next))
        return false;
    double colour[3] = {background[0], background[1], background[2]};
    VipsArrayDouble *array = vips_array_double_new(colour, 3);
    int failed = vips_flatten(*image, &next, "background", array, NULL);
    vips_area_unref(VIPS_AREA(array));
    return lk_vips_step(image, failed, &next);
}

/* Lanczos-3. Straight alpha must be multiplied in first, or invisible colours would bleed into visible ones. */
static bool resize(VipsImage **image, uint32_t width, uint32_t height)
{
    int is_width = vips_image_get_width(*image), is_height = vips_image_get_height(*image);
    if ((uint32_t)is_width == width && (uint32_t)is_height == height) return true;
    VipsImage *next;
    bool alpha = vips_image_hasalpha(*image);
    if (alpha && !lk_vips_step(image, vips_premultiply(*image, &next, NULL), &next)) return false;
    if (!lk_vips_step(image,
                      vips_resize(*image, &next, (double)width / is_width, "vscale", (double)height / is_height, NULL),
                      &next))
        return false;
    return !alpha || (lk_vips_step(image, vips_unpremultiply(*image, &next, NULL), &next) &&
                      lk_vips_step(image, vips_rint(*image, &next, NULL), &next) &&
                      lk_vips_step(image, vips_cast(*image, &next, VIPS_FORMAT_UCHAR, NULL), &next));
}

/* The chain of operations; none of them runs before pixels are asked for. */
static bool build(VipsImage **image, const lk_conversion *to)
{
    VipsImage *next;
    bool profile;
    if (!plain_bytes(image, &profile)) return false;
    bool alpha = vips_image_hasalpha(*image), keep_alpha = to->colour == LK_COLOUR_RGBA;
    if (alpha && !keep_alpha) {
        apply_profile(image, &profile); /* first, because the background is sRGB */
        if (!flatten(image, to->background)) return false;
    }
    if (!resize(image, to->width, to->height)) return false;
    apply_profile(image, &profile); /* after shrinking there is less to convert */
    bool grey = to->colour == LK_COLOUR_GREY;
    VipsInterpretation wanted = grey ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB;
    if (vips_image_get_interpretation(*image) != wanted &&
        !lk_vips_step(image, vips_colourspace(*image, &next, wanted, NULL), &next))
        return false;
    if (keep_alpha && !vips_image_hasalpha(*image) && !lk_vips_step(image, vips_addalpha(*image, &next, NULL), &next))
        return false;
    int channels = grey ? 1 : keep_alpha ? 4 : 3;
    if (vips_image_get_bands(*image) != channels &&
        !lk_vips_step(image, vips_extract_band(*image, &next, 0, "n", channels, NULL), &next))
        return false;
    return lk_vips_step(image, vips_cast(*image, &next, VIPS_FORMAT_UCHAR, NULL), &next);
}

/* Where a stored pixel (x, y) stands when the picture is upright: at first + x * right + y * down, counted in pixels.
 */
typedef struct layout {
    uint32_t width, height; /* upright */
    size_t first;
    ptrdiff_t right, down;
} layout;

/* Orientations as in the EXIF standard (tag 0x0112): 5 to 8 swap rows and columns. */
static layout upright(uint32_t width, uint32_t height, int orientation)
{
    ptrdiff_t w = width, h = height;
    switch (orientation) {
    case 2: return (layout){width, height, (size_t)(w - 1), -1, w};
    case 3: return (layout){width, height, (size_t)(w * h - 1), -1, -w};
    case 4: return (layout){width, height, (size_t)(w * (h - 1)), 1, -w};
    case 5: return (layout){height, width, 0, h, 1};
    case 6: return (layout){height, width, (size_t)(h - 1), h, -1};
    case 7: return (layout){height, width, (size_t)(w * h - 1), -h, -1};
    case 8: return (layout){height, width, (size_t)(h * (w - 1)), -h, 1};
    default: return (layout){width, height, 0, 1, w};
    }
}

static void place_row(const uint8_t *row, uint32_t width, size_t channels, ptrdiff_t right, uint8_t *to)
{
    if (right == 1) {
        memcpy(to, row, width * channels);
        return;
    }
    for (uint32_t x = 0; x < width; x++, row += channels) {
        uint8_t *pixel = to + (ptrdiff_t)x * right * (ptrdiff_t)channels;
        for (size_t c = 0; c < channels; c++) pixel[c] = row[c];
    }
}

/* Runs the chain in this thread, strip by strip, straight into out->pixels. vips_image_write_to_memory would hand each
 * picture to a thread of libvips' own and wait for it, and hold the pixels twice. */
static lk_status collect(VipsImage *image, const lk_conversion *to, lk_image *out)
{
    uint32_t width = (uint32_t)vips_image_get_width(image), height = (uint32_t)vips_image_get_height(image);
    size_t channels = (size_t)vips_image_get_bands(image);
    if (vips_image_get_width(image) < 1 || vips_image_get_height(image) < 1)
        return lk_fail(LK_CORRUPT, "%s: cannot be decoded as %s: it has no pixels", to->name, to->format_name);
    layout place = upright(width, height, to->orientation);
    lk_status s = LK_OK;
    VipsRegion *strip = vips_region_new(image);
    uint8_t *pixels = lk_alloc((size_t)width * height, channels);
    if (!pixels || !strip) {
        s = lk_fail_memory(to->name);
        goto done;
    }
    for (uint32_t top = 0; top < height; top += STRIP_ROWS) {
        uint32_t rows = height - top < STRIP_ROWS ? height - top : STRIP_ROWS;
        if (vips_region_prepare(strip, &(VipsRect){0, (int)top, (int)width, (int)rows}) != 0) {
            s = lk_vips_fail(to->name, "decoded", to->format_name);
            goto done;
        }
        for (uint32_t y = top; y < top + rows; y++)
            place_row(VIPS_REGION_ADDR(strip, 0, (int)y), width, channels, place.right,
                      pixels + ((ptrdiff_t)place.first + (ptrdiff_t)y * place.down) * (ptrdiff_t)channels);
    }
    *out = (lk_image){.pixels = pixels, .width = place.width, .height = place.height, .channels = (uint32_t)channels};
    pixels = NULL;
done:
    free(pixels);
    if (strip) g_object_unref(strip);
    return s;
}

lk_status lk_convert(VipsImage *image, const lk_conversion *to, lk_image *out)
{
    lk_status s;
    if (!build(&image, to)) {
        s = lk_vips_fail(to->name, "converted", to->format_name);
        if (s == LK_CORRUPT) /* nothing was decoded yet: it is the colours that make no sense */
            s = lk_fail(LK_UNSUPPORTED, "%s: its colours (%d channels) cannot be converted to sRGB", to->name,
                        vips_image_get_bands(image));
    } else {
        s = collect(image, to, out);
    }
    g_object_unref(image);
    return s;
}
