/* Drawing the plan of an augmentation. */
#include "image/augment.h"

#include "base/error.h"
#include "base/random.h"

#include <math.h>
#include <string.h>

lk_augment_options lk_augment_photo_defaults(uint32_t width, uint32_t height)
{
    return (lk_augment_options){.width = width,
                                .height = height,
                                .area_low = 0.3,
                                .area_high = 1,
                                .ratio_low = 0.75,
                                .ratio_high = 4.0 / 3,
                                .flip = 0.5,
                                .rotation = 10,
                                .perspective = 0.05,
                                .brightness = 0.3,
                                .contrast = 0.3,
                                .saturation = 0.3,
                                .hue = 0.03,
                                .blur = 0.1,
                                .blur_low = 0.3,
                                .blur_high = 1.5,
                                .erase = 0.2,
                                .erase_low = 0.02,
                                .erase_high = 0.2};
}

lk_augment_options lk_augment_logo_defaults(uint32_t width, uint32_t height)
{
    return (lk_augment_options){.width = width,
                                .height = height,
                                .area_low = 0.6,
                                .area_high = 1.4,
                                .ratio_low = 0.85,
                                .ratio_high = 1.18,
                                .rotation = 12,
                                .perspective = 0.08,
                                .brightness = 0.2,
                                .contrast = 0.2,
                                .saturation = 0.3,
                                .hue = 0.05,
                                .blur = 0.2,
                                .blur_low = 0.3,
                                .blur_high = 1.2,
                                .erase = 0.15,
                                .erase_low = 0.02,
                                .erase_high = 0.12,
                                .ground = 0.5,
                                .monochrome = 0.35,
                                .outline = 0.1,
                                .invert = 0.15};
}

/* ---- Homographies ---------------------------------------------------------------------------------------------------
 */

/* out = a . b; out may be either. */
static void multiply(const double *a, const double *b, double *out)
{
    double product[9];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            product[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
    memcpy(out, product, sizeof product);
}

/* The unit square's corners (0,0) (1,0) (1,1) (0,1) to the quadrilateral q (Heckbert, 1989, section 2.2.3). */
static void square_to_quadrilateral(const double q[4][2], double *m)
{
    double sx = q[0][0] - q[1][0] + q[2][0] - q[3][0], sy = q[0][1] - q[1][1] + q[2][1] - q[3][1];
    double ax = q[1][0] - q[2][0], ay = q[1][1] - q[2][1], bx = q[3][0] - q[2][0], by = q[3][1] - q[2][1];
    double det = ax * by - bx * ay, g = (sx * by - bx * sy) / det, h = (ax * sy - sx * ay) / det;
    double result[9] = {q[1][0] - q[0][0] + g * q[1][0],
                        q[3][0] - q[0][0] + h * q[3][0],
                        q[0][0],
                        q[1][1] - q[0][1] + g * q[1][1],
                        q[3][1] - q[0][1] + h * q[3][1],
                        q[0][1],
                        g,
                        h,
                        1};
    memcpy(m, result, sizeof result);
}

static double uniform(lk_random *random, double low, double high)
{
    return low + (high - low) * lk_random_unit(random);
}

static bool chance(lk_random *random, double probability)
{
    return lk_random_unit(random) < probability;
}

/* Crop rectangle: area and proportions drawn, then moved within the picture; what is larger than the picture is laid
 * around it. left, top, width, height. */
static void draw_crop(const lk_augment_options *o, double width, double height, lk_random *random, double *rect)
{
    double area = width * height * uniform(random, o->area_low, o->area_high);
    double ratio = exp(uniform(random, log(o->ratio_low), log(o->ratio_high))) * o->width / o->height;
    rect[2] = sqrt(area * ratio);
    rect[3] = sqrt(area / ratio);
    rect[0] = (width - rect[2]) * lk_random_unit(random);
    rect[1] = (height - rect[3]) * lk_random_unit(random);
}

static void draw_geometry(const lk_augment_options *o, double width, double height, lk_random *random, double *m)
{
    double rect[4], corners[4][2] = {{0, 0}, {1, 0}, {1, 1}, {0, 1}}, warp[9];
    draw_crop(o, width, height, random, rect);
    bool flip = chance(random, o->flip);
    double angle = uniform(random, -o->rotation, o->rotation) * M_PI / 180, c = cos(angle), s = sin(angle);
    for (int k = 0; k < 8; k++) corners[k / 2][k % 2] += uniform(random, -o->perspective, o->perspective);
    square_to_quadrilateral((const double(*)[2])corners, warp);
    double unit[9] = {(flip ? -1.0 : 1.0) / o->width, 0, flip, 0, 1.0 / o->height, 0, 0, 0, 1};
    double place[9] = {rect[2], 0, rect[0], 0, rect[3], rect[1], 0, 0, 1};
    double x = rect[0] + rect[2] / 2, y = rect[1] + rect[3] / 2; /* turn about the crop's centre */
    double turn[9] = {c, -s, x - c * x + s * y, s, c, y - s * x - c * y, 0, 0, 1};
    multiply(warp, unit, m);
    multiply(place, m, m);
    multiply(turn, m, m);
}

static double luma(const uint8_t *c)
{
    return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
}

static void draw_colour(lk_random *random, uint8_t *colour)
{
    for (int k = 0; k < 3; k++) colour[k] = (uint8_t)lk_random_below(random, 256);
}

/* Ground and ink at least 80 levels of luma apart, so that the drawing stays readable. */
static void draw_colours(lk_random *random, uint8_t *ground, uint8_t *ink)
{
    draw_colour(random, ground);
    do draw_colour(random, ink);
    while (fabs(luma(ground) - luma(ink)) < 80);
}

static void draw_erasure(const lk_augment_options *o, lk_random *random, lk_augment_plan *plan)
{
    bool erase = chance(random, o->erase);
    double area = uniform(random, o->erase_low, o->erase_high) * o->width * o->height;
    double ratio = exp(uniform(random, log(0.3), log(3.3)));
    double width = fmin(fmax(round(sqrt(area * ratio)), 1), o->width);
    double height = fmin(fmax(round(sqrt(area / ratio)), 1), o->height);
    uint32_t left = (uint32_t)lk_random_below(random, o->width - (uint32_t)width + 1);
    uint32_t top = (uint32_t)lk_random_below(random, o->height - (uint32_t)height + 1);
    draw_colour(random, plan->eraser);
    if (!erase) return;
    plan->erased[0] = left, plan->erased[1] = top;
    plan->erased[2] = (uint32_t)width, plan->erased[3] = (uint32_t)height;
}

static lk_status check(const lk_augment_options *o, uint32_t width, uint32_t height)
{
    if (!width || !height || !o->width || !o->height || o->width > 1 << 14 || o->height > 1 << 14)
        return lk_fail(LK_INVALID, "a picture of %u x %u cannot become %u x %u", width, height, o->width, o->height);
    const struct {
        const char *name;
        double low, high, least, most;
    } ranges[] = {
        {"crop area", o->area_low, o->area_high, 1e-4, 16},
        {"crop ratio", o->ratio_low, o->ratio_high, 0.01, 100},
        {"flip", o->flip, o->flip, 0, 1},
        {"rotation", o->rotation, o->rotation, 0, 180},
        {"perspective", o->perspective, o->perspective, 0, 0.24},
        {"brightness", o->brightness, o->brightness, 0, 1},
        {"contrast", o->contrast, o->contrast, 0, 1},
        {"saturation", o->saturation, o->saturation, 0, 1},
        {"hue", o->hue, o->hue, 0, 0.5},
        {"blur", o->blur, o->blur, 0, 1},
        {"blur sigma", o->blur_low, o->blur_high, 0, 32},
        {"erase", o->erase, o->erase, 0, 1},
        {"erased area", o->erase_low, o->erase_high, 0, 1},
        {"ground", o->ground, o->ground, 0, 1},
        {"monochrome", o->monochrome, o->monochrome, 0, 1},
        {"outline", o->outline, o->outline, 0, 1},
        {"invert", o->invert, o->invert, 0, 1},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].low >= ranges[i].least && ranges[i].low <= ranges[i].high && ranges[i].high <= ranges[i].most))
            return lk_fail(LK_INVALID, "augmentation: %s must lie within %g and %g", ranges[i].name, ranges[i].least,
                           ranges[i].most);
    return LK_OK;
}

lk_status lk_augment_draw(const lk_augment_options *o, uint32_t source_width, uint32_t source_height, uint64_t seed,
                          uint64_t epoch, uint64_t picture, lk_augment_plan *out)
{
    lk_status s = check(o, source_width, source_height);
    if (s) return s;
    lk_random random; /* each number gets a multiplier of its own; seeding spreads the sum over the whole state */
    lk_random_seed(&random, seed * 0x9e3779b97f4a7c15u + epoch * 0xc2b2ae3d27d4eb4fu + picture * 0x165667b19e3779f9u);
    *out = (lk_augment_plan){.width = o->width, .height = o->height};
    draw_geometry(o, source_width, source_height, &random, out->matrix);
    out->brightness = (float)uniform(&random, 1 - o->brightness, 1 + o->brightness);
    out->contrast = (float)uniform(&random, 1 - o->contrast, 1 + o->contrast);
    out->saturation = (float)uniform(&random, 1 - o->saturation, 1 + o->saturation);
    out->hue = (float)uniform(&random, -o->hue, o->hue);
    bool blur = chance(&random, o->blur);
    double sigma = uniform(&random, o->blur_low, o->blur_high);
    out->sigma = blur ? (float)sigma : 0;
    out->new_ground = chance(&random, o->ground);
    out->monochrome = chance(&random, o->monochrome);
    out->outline = chance(&random, o->outline);
    out->invert = chance(&random, o->invert);
    draw_erasure(o, &random, out);
    draw_colours(&random, out->ground, out->ink);
    return LK_OK;
}

lk_augment_plan lk_augment_plain(uint32_t source_width, uint32_t source_height, uint32_t width, uint32_t height)
{
    return (lk_augment_plan){
        .width = width,
        .height = height,
        .brightness = 1,
        .contrast = 1,
        .saturation = 1,
        .matrix = {(double)source_width / width, 0, 0, 0, (double)source_height / height, 0, 0, 0, 1}};
}
