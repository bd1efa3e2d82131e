#include "image/svg.h"

#include "base/error.h"
#include "base/memory.h"
#include "image/vips.h"
#include "late/late.h"

#include <librsvg/rsvg.h>
#include <libxml/parser.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#define CAIRO_MOST 32767 /* pixels along a side that cairo can draw on */

static void start(void)
{
    static const char *const domains[] = {"librsvg", "GdkPixbuf", "Pango"};
    for (size_t i = 0; i < sizeof domains / sizeof *domains; i++) lk_silence(domains[i]);
    xmlInitParser(); /* for svg_embedded.c: not safe from two threads at once */
    rsvg_handle_get_type();
}

lk_status lk_svg_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *missing = lk_late_try("librsvg");
    if (missing) return lk_fail(LK_UNSUPPORTED, "%s", missing);
    pthread_once(&once, start);
    return LK_OK;
}

/* Width and height in pixels. What is drawn outside (0, 0, width, height) is cut off. */
static bool intrinsic_size(RsvgHandle *drawing, double *width, double *height)
{
    RsvgRectangle box = {0};
    RsvgLength w, h;
    gboolean has_width, has_height, has_box;
    if (!rsvg_handle_get_intrinsic_size_in_pixels(drawing, width, height)) { /* missing, or in percent of nothing */
        rsvg_handle_get_intrinsic_dimensions(drawing, &has_width, &w, &has_height, &h, &has_box, &box);
        if (!has_box && !rsvg_handle_get_geometry_for_element(drawing, NULL, &box, NULL, NULL)) return false;
        *width = has_box ? box.width : box.x + box.width;
        *height = has_box ? box.height : box.y + box.height;
    }
    return isfinite(*width) && isfinite(*height) && *width > 0 && *height > 0;
}

static uint32_t round_up_to_one(double x)
{
    return x < 1 ? 1 : x > UINT32_MAX ? UINT32_MAX : (uint32_t)(x + 0.5);
}

/* cairo's premultiplied native-endian ARGB to straight RGBA, in place. */
static void to_rgba(uint8_t *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t *p = pixels + i * 4;
        uint32_t argb = *(uint32_t *)(void *)p, alpha = argb >> 24;
        uint32_t red = argb >> 16 & 255, green = argb >> 8 & 255, blue = argb & 255;
        if (alpha != 255 && alpha != 0) { /* a colour above its alpha cannot be, but costs nothing to survive */
            red = red >= alpha ? 255 : (red * 255 + alpha / 2) / alpha;
            green = green >= alpha ? 255 : (green * 255 + alpha / 2) / alpha;
            blue = blue >= alpha ? 255 : (blue * 255 + alpha / 2) / alpha;
        }
        p[0] = (uint8_t)red;
        p[1] = (uint8_t)green;
        p[2] = (uint8_t)blue;
        p[3] = (uint8_t)alpha;
    }
}

/* Draws into pixels [height][width], already zero. */
static lk_status draw(RsvgHandle *drawing, const char *name, double width, double height, lk_drawing *out)
{
    lk_status s = LK_OK;
    GError *error = NULL;
    cairo_surface_t *surface = cairo_image_surface_create_for_data(out->rgba, CAIRO_FORMAT_ARGB32, (int)out->width,
                                                                   (int)out->height, (int)out->width * 4);
    cairo_t *cairo = cairo_create(surface);
    /* Scaling cairo instead of the viewport: a drawing that has no viewBox does not follow the viewport. */
    cairo_scale(cairo, out->width / width, out->height / height);
    RsvgRectangle viewport = {.width = width, .height = height};
    if (!rsvg_handle_render_document(drawing, cairo, &viewport, &error) || cairo_status(cairo) != CAIRO_STATUS_SUCCESS)
        s = lk_fail(LK_CORRUPT, "%s: cannot be rendered as SVG: %s", name,
                    error ? error->message : cairo_status_to_string(cairo_status(cairo)));
    g_clear_error(&error);
    cairo_destroy(cairo);
    cairo_surface_flush(surface);
    cairo_surface_destroy(surface);
    return s;
}

lk_status lk_svg_render(const uint8_t *bytes, size_t size, const char *name, uint32_t max_side, uint64_t max_pixels,
                        lk_drawing *out)
{
    *out = (lk_drawing){0};
    lk_status s = lk_svg_start();
    if (s == LK_OK) s = lk_svg_check_embedded(bytes, size, name, max_pixels);
    if (s != LK_OK) return s;
    GError *error = NULL;
    /* Given bytes and no base address, librsvg refuses every reference to the outside. */
    RsvgHandle *drawing = rsvg_handle_new_from_data(bytes, size, &error);
    if (!drawing) {
        s = lk_fail(LK_CORRUPT, "%s: cannot be decoded as SVG: %s", name,
                    error ? error->message : "the bytes are damaged");
        goto done;
    }
    rsvg_handle_set_dpi(drawing, 96);
    double width, height;
    if (!intrinsic_size(drawing, &width, &height)) {
        s = lk_fail(LK_CORRUPT, "%s: cannot be decoded as SVG: it has no size and draws nothing", name);
        goto done;
    }
    out->source_width = round_up_to_one(width);
    out->source_height = round_up_to_one(height);
    double scale = max_side ? max_side / fmax(width, height) : 1;
    out->width = round_up_to_one(width * scale);
    out->height = round_up_to_one(height * scale);
    const char *remedy = max_side ? "ask for a smaller side" : "ask for a side to render it at";
    if (out->width > CAIRO_MOST || out->height > CAIRO_MOST) {
        s = lk_fail(LK_LIMIT, "%s: %ux%u is over the limit of %d pixels a side for drawings (%s)", name, out->width,
                    out->height, CAIRO_MOST, remedy);
        goto done;
    }
    if (max_pixels && (uint64_t)out->width * out->height > max_pixels) {
        s = lk_fail(LK_LIMIT, "%s: a drawing of %ux%u pixels is over the limit of %g megapixels (%s)", name, out->width,
                    out->height, (double)max_pixels / 1e6, remedy);
        goto done;
    }
    out->rgba = lk_alloc_zero((size_t)out->width * out->height, 4);
    if (!out->rgba) {
        s = lk_fail_memory(name);
        goto done;
    }
    LK_TRY(draw(drawing, name, width, height, out));
    to_rgba(out->rgba, (size_t)out->width * out->height);
done:
    g_clear_error(&error);
    if (drawing) g_object_unref(drawing);
    if (s != LK_OK) {
        free(out->rgba);
        *out = (lk_drawing){0};
    }
    return s;
}
