/* Augmentation: determinism, geometry, and what happens to ink and ground. */
#include "unit.h"

#include "base/random.h"
#include "image/augment.h"

#include <math.h>

/* A picture whose every pixel says where it is. */
static lk_image positions(uint32_t width, uint32_t height)
{
    lk_image image = {.width = width, .height = height, .channels = 3, .pixels = malloc((size_t)width * height * 3)};
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++) {
            uint8_t *p = image.pixels + ((size_t)y * width + x) * 3;
            p[0] = (uint8_t)(10 + 5 * x), p[1] = (uint8_t)(10 + 5 * y), p[2] = (uint8_t)(x * y);
        }
    return image;
}

/* A filled square of `ink` in the middle of a ground. */
static lk_image square(uint32_t channels, const uint8_t *ground, const uint8_t *ink)
{
    lk_image image = {.width = 32, .height = 32, .channels = channels, .pixels = calloc((size_t)32 * 32, channels)};
    for (uint32_t i = 0; i < 32 * 32; i++) {
        bool inside = i % 32 >= 8 && i % 32 < 24 && i / 32 >= 8 && i / 32 < 24;
        uint8_t *p = image.pixels + i * channels;
        memcpy(p, inside ? ink : ground, 3);
        if (channels == 4) p[3] = inside ? 255 : 0;
    }
    return image;
}

static const uint8_t *at(const lk_image *image, uint32_t x, uint32_t y)
{
    return image->pixels + ((size_t)y * image->width + x) * image->channels;
}

static lk_image apply(const lk_augment_plan *plan, const lk_image *image)
{
    lk_image out;
    if (lk_augment_apply(plan, image, &out)) fail_msg("%s", lk_error_message());
    return out;
}

/* Options that leave the picture as it is. */
static lk_augment_options nothing(uint32_t width, uint32_t height)
{
    return (lk_augment_options){
        .width = width, .height = height, .area_low = 1, .area_high = 1, .ratio_low = 1, .ratio_high = 1};
}

static lk_augment_plan draw(const lk_augment_options *options, uint32_t width, uint32_t height, uint64_t seed)
{
    lk_augment_plan plan;
    if (lk_augment_draw(options, width, height, seed, 0, 0, &plan)) fail_msg("%s", lk_error_message());
    return plan;
}

static void through(const lk_augment_plan *plan, double x, double y, double *out)
{
    const double *m = plan->matrix;
    double w = m[6] * x + m[7] * y + m[8];
    out[0] = (m[0] * x + m[1] * y + m[2]) / w;
    out[1] = (m[3] * x + m[4] * y + m[5]) / w;
}

static void without_options_the_picture_stays_as_it_is(void **state)
{
    (void)state;
    lk_image image = positions(40, 30);
    lk_augment_options options = nothing(40, 30);
    for (int k = 0; k < 2; k++) {
        lk_augment_plan plan = k ? draw(&options, 40, 30, 9) : lk_augment_plain(40, 30, 40, 30);
        lk_image out = apply(&plan, &image);
        for (size_t i = 0; i < (size_t)40 * 30 * 3; i++)
            assert_true(abs(out.pixels[i] - image.pixels[i]) <= (k ? 1 : 0));
        lk_image_free(&out);
    }
    lk_image_free(&image);
}

static void flipping_mirrors_left_and_right(void **state)
{
    (void)state;
    lk_image image = positions(40, 30);
    lk_augment_options options = nothing(40, 30);
    options.flip = 1;
    lk_augment_plan plan = draw(&options, 40, 30, 1);
    lk_image out = apply(&plan, &image);
    for (uint32_t y = 0; y < 30; y++)
        for (uint32_t x = 0; x < 40; x++)
            for (int k = 0; k < 3; k++) assert_true(abs(at(&out, x, y)[k] - at(&image, 39 - x, y)[k]) <= 1);
    lk_image_free(&out);
    lk_image_free(&image);
}

static void crops_have_the_drawn_area_and_lie_within_the_picture(void **state)
{
    (void)state;
    lk_augment_options options = nothing(20, 10);
    options.area_low = 0.2, options.area_high = 0.5, options.ratio_low = 0.8, options.ratio_high = 1.25;
    double smallest = 1, largest = 0;
    for (uint64_t seed = 0; seed < 300; seed++) {
        lk_augment_plan plan = draw(&options, 200, 100, seed);
        double a[2], b[2];
        through(&plan, 0, 0, a);
        through(&plan, 20, 10, b);
        double area = (b[0] - a[0]) * (b[1] - a[1]) / 20000, ratio = (b[0] - a[0]) / (b[1] - a[1]) / 2;
        assert_true(a[0] > -1e-9 && a[1] > -1e-9 && b[0] < 200 + 1e-9 && b[1] < 100 + 1e-9);
        assert_true(area > 0.2 - 1e-9 && area < 0.5 + 1e-9 && ratio > 0.8 - 1e-9 && ratio < 1.25 + 1e-9);
        smallest = fmin(smallest, area), largest = fmax(largest, area);
    }
    assert_true(smallest < 0.22 && largest > 0.48);
}

static void a_crop_shows_the_pixels_that_lie_there(void **state)
{
    (void)state;
    lk_image image = positions(40, 40);
    lk_augment_plan plan = lk_augment_plain(40, 40, 12, 12);
    double matrix[9] = {1, 0, 7, 0, 1, 5, 0, 0, 1};
    memcpy(plan.matrix, matrix, sizeof matrix);
    lk_image out = apply(&plan, &image);
    for (uint32_t y = 0; y < 12; y++)
        for (uint32_t x = 0; x < 12; x++) assert_memory_equal(at(&out, x, y), at(&image, x + 7, y + 5), 3);
    lk_image_free(&out);
    lk_image_free(&image);
}

static void rotation_turns_about_the_middle_and_keeps_distances(void **state)
{
    (void)state;
    lk_augment_options options = nothing(64, 64);
    options.rotation = 30;
    double widest = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        lk_augment_plan plan = draw(&options, 64, 64, seed);
        double middle[2], right[2];
        through(&plan, 32, 32, middle);
        through(&plan, 52, 32, right);
        assert_true(fabs(middle[0] - 32) < 1e-9 && fabs(middle[1] - 32) < 1e-9);
        assert_true(fabs(hypot(right[0] - 32, right[1] - 32) - 20) < 1e-9);
        double angle = atan2(right[1] - 32, right[0] - 32) * 180 / M_PI;
        assert_true(fabs(angle) <= 30 + 1e-9);
        widest = fmax(widest, fabs(angle));
    }
    assert_true(widest > 27);
}

static void perspective_moves_corners_no_farther_than_asked_and_keeps_lines(void **state)
{
    (void)state;
    lk_augment_options options = nothing(50, 50);
    options.perspective = 0.1;
    for (uint64_t seed = 0; seed < 100; seed++) {
        lk_augment_plan plan = draw(&options, 100, 100, seed);
        for (int k = 0; k < 4; k++) {
            double corner[2], x = k == 1 || k == 2 ? 1 : 0, y = k >= 2;
            through(&plan, 50 * x, 50 * y, corner);
            assert_true(fabs(corner[0] - 100 * x) <= 10 + 1e-9 && fabs(corner[1] - 100 * y) <= 10 + 1e-9);
        }
        double a[2], b[2], c[2];
        through(&plan, 3, 40, a);
        through(&plan, 20, 25, b);
        through(&plan, 37, 10, c); /* on the line through the two */
        double cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        assert_true(fabs(cross) < 1e-6);
    }
}

static void shrinking_averages_what_falls_on_a_pixel(void **state)
{
    (void)state;
    lk_image image = {.width = 40, .height = 40, .channels = 3, .pixels = calloc(40 * 40, 3)};
    for (uint32_t i = 0; i < 1600; i++)
        memset(image.pixels + 3 * i, (i % 40 + i / 40) % 2 ? 200 : 100, 3); /* chessboard */
    lk_augment_plan plan = lk_augment_plain(40, 40, 10, 10);
    lk_image out = apply(&plan, &image);
    for (size_t i = 0; i < 300; i++) assert_int_equal(out.pixels[i], 150);
    lk_image_free(&out);
    lk_image_free(&image);
}

static void plans_depend_on_seed_epoch_and_picture_alone(void **state)
{
    (void)state;
    lk_augment_options options = lk_augment_logo_defaults(48, 48);
    lk_image image = positions(40, 40);
    uint64_t triples[4][3] = {{1, 2, 3}, {2, 2, 3}, {1, 3, 3}, {1, 2, 4}};
    lk_image first = {0};
    for (int k = 0; k < 4; k++) {
        lk_augment_plan plan, again;
        assert_int_equal(lk_augment_draw(&options, 40, 40, triples[k][0], triples[k][1], triples[k][2], &plan), LK_OK);
        assert_int_equal(lk_augment_draw(&options, 40, 40, triples[k][0], triples[k][1], triples[k][2], &again), LK_OK);
        lk_image a = apply(&plan, &image), b = apply(&again, &image);
        assert_memory_equal(a.pixels, b.pixels, 48 * 48 * 3);
        if (k) assert_memory_not_equal(a.pixels, first.pixels, 48 * 48 * 3);
        lk_image_free(&b);
        if (k)
            lk_image_free(&a);
        else
            first = a;
    }
    lk_image_free(&first);
    lk_image_free(&image);
}

static const uint8_t white[3] = {255, 255, 255}, black[3] = {0, 0, 0}, red[3] = {200, 30, 30}, blue[3] = {20, 40, 180};

static void a_new_ground_leaves_the_ink(void **state)
{
    (void)state;
    for (uint32_t channels = 3; channels <= 4; channels++) {
        lk_image image = square(channels, white, red);
        lk_augment_plan plan = lk_augment_plain(32, 32, 32, 32);
        plan.new_ground = true;
        memcpy(plan.ground, blue, 3);
        lk_image out = apply(&plan, &image);
        assert_memory_equal(at(&out, 2, 2), blue, 3);
        assert_memory_equal(at(&out, 16, 16), red, 3);
        lk_image_free(&out);
        lk_image_free(&image);
    }
}

static void monochrome_ink_leaves_the_ground(void **state)
{
    (void)state;
    for (uint32_t channels = 3; channels <= 4; channels++) {
        lk_image image = square(channels, white, red);
        lk_augment_plan plan = lk_augment_plain(32, 32, 32, 32);
        plan.monochrome = true;
        memcpy(plan.ink, blue, 3);
        lk_image out = apply(&plan, &image);
        assert_memory_equal(at(&out, 2, 2), white, 3);
        assert_memory_equal(at(&out, 16, 16), blue, 3);
        lk_image_free(&out);
        lk_image_free(&image);
    }
}

static void an_outline_is_ink_at_the_edges_alone(void **state)
{
    (void)state;
    lk_image image = square(4, white, red);
    lk_augment_plan plan = lk_augment_plain(32, 32, 32, 32);
    plan.outline = true;
    memcpy(plan.ink, black, 3);
    lk_image out = apply(&plan, &image);
    assert_memory_equal(at(&out, 2, 2), white, 3);
    assert_memory_equal(at(&out, 16, 16), white, 3);
    assert_memory_equal(at(&out, 8, 16), black, 3);
    assert_memory_equal(at(&out, 16, 23), black, 3);
    lk_image_free(&out);
    lk_image_free(&image);
}

static void the_negative_of_a_drawing_is_inverted(void **state)
{
    (void)state;
    lk_image image = square(3, white, red);
    lk_augment_plan plan = lk_augment_plain(32, 32, 32, 32);
    plan.invert = true;
    lk_image out = apply(&plan, &image);
    static const uint8_t expected[3] = {55, 225, 225};
    assert_memory_equal(at(&out, 2, 2), black, 3);
    assert_memory_equal(at(&out, 16, 16), expected, 3);
    lk_image_free(&out);
    lk_image_free(&image);
}

static void photographs_keep_ink_and_ground(void **state)
{
    (void)state;
    lk_image image = positions(40, 40);
    lk_augment_plan plan = lk_augment_plain(40, 40, 40, 40);
    plan.new_ground = plan.monochrome = plan.outline = true;
    lk_image out = apply(&plan, &image);
    assert_memory_equal(out.pixels, image.pixels, 40 * 40 * 3);
    lk_image_free(&out);
    lk_image_free(&image);
}

static void outside_a_drawing_is_ground(void **state)
{
    (void)state;
    for (uint32_t channels = 3; channels <= 4; channels++) {
        lk_image image = square(channels, white, red);
        lk_augment_plan plan = lk_augment_plain(64, 64, 32, 32); /* the picture fills the upper left quarter */
        lk_image out = apply(&plan, &image);
        assert_memory_equal(at(&out, 30, 30), white, 3);
        assert_memory_equal(at(&out, 8, 8), red, 3);
        lk_image_free(&out);
        lk_image_free(&image);
    }
}

static void drawn_colours_stay_readable(void **state)
{
    (void)state;
    lk_augment_options options = lk_augment_logo_defaults(8, 8);
    for (uint64_t seed = 0; seed < 500; seed++) {
        lk_augment_plan p = draw(&options, 8, 8, seed);
        double ground = 0.2126 * p.ground[0] + 0.7152 * p.ground[1] + 0.0722 * p.ground[2];
        double ink = 0.2126 * p.ink[0] + 0.7152 * p.ink[1] + 0.0722 * p.ink[2];
        assert_true(fabs(ground - ink) >= 80);
    }
}

static void an_erased_rectangle_has_the_asked_area(void **state)
{
    (void)state;
    lk_augment_options options = nothing(40, 30);
    options.erase = 1, options.erase_low = options.erase_high = 0.1;
    lk_image image = positions(40, 30);
    for (uint64_t seed = 0; seed < 100; seed++) {
        lk_augment_plan plan = draw(&options, 40, 30, seed);
        double area = (double)plan.erased[2] * plan.erased[3];
        assert_true(plan.erased[0] + plan.erased[2] <= 40 && plan.erased[1] + plan.erased[3] <= 30);
        assert_true(fabs(area - 120) < 20);
        lk_image out = apply(&plan, &image);
        assert_memory_equal(at(&out, plan.erased[0], plan.erased[1]), plan.eraser, 3);
        lk_image_free(&out);
    }
    lk_image_free(&image);
}

static void blur_keeps_the_mean_and_softens_edges(void **state)
{
    (void)state;
    lk_image image = square(3, white, black);
    lk_augment_plan plan = lk_augment_plain(32, 32, 32, 32);
    plan.sigma = 1.5f;
    lk_image out = apply(&plan, &image);
    double before = 0, after = 0;
    for (size_t i = 0; i < (size_t)32 * 32 * 3; i++) before += image.pixels[i], after += out.pixels[i];
    assert_true(fabs(before - after) / before < 0.005);
    assert_true(at(&out, 8, 16)[0] > 60 && at(&out, 8, 16)[0] < 120 && at(&out, 7, 16)[0] > 130 &&
                at(&out, 7, 16)[0] < 195);
    assert_true(at(&out, 16, 16)[0] < 3);
    lk_image_free(&out);
    lk_image_free(&image);
}

static void colour_changes_are_those_asked_for(void **state)
{
    (void)state;
    lk_image image = square(3, white, red);
    lk_augment_plan plan = lk_augment_plain(32, 32, 32, 32);
    plan.saturation = 0;
    lk_image out = apply(&plan, &image);
    const uint8_t *p = at(&out, 16, 16);
    assert_true(p[0] == p[1] && p[1] == p[2] && abs(p[0] - 81) <= 1); /* 0.299 * 200 + 0.701 * 30 */
    lk_image_free(&out);
    plan = lk_augment_plain(32, 32, 32, 32);
    plan.brightness = 0.5f;
    out = apply(&plan, &image);
    assert_true(at(&out, 16, 16)[0] == 100 && at(&out, 2, 2)[1] == 128);
    lk_image_free(&out);
    plan = lk_augment_plain(32, 32, 32, 32);
    plan.hue = 0.5f; /* each channel on the other side of the luma */
    out = apply(&plan, &image);
    p = at(&out, 16, 16);
    assert_true(p[0] == 0 && abs(p[1] - 132) <= 2 && abs(p[2] - 132) <= 2); /* 2 * 81 - 200 is below 0; 2 * 81 - 30 */
    lk_image_free(&out);
    lk_image_free(&image);
}

static void senseless_options_are_refused(void **state)
{
    (void)state;
    lk_augment_plan plan;
    lk_augment_options options = nothing(8, 8);
    options.flip = 1.5;
    assert_int_equal(lk_augment_draw(&options, 8, 8, 0, 0, 0, &plan), LK_INVALID);
    options = nothing(0, 8);
    assert_int_equal(lk_augment_draw(&options, 8, 8, 0, 0, 0, &plan), LK_INVALID);
    options = nothing(8, 8);
    options.area_low = NAN;
    assert_int_equal(lk_augment_draw(&options, 8, 8, 0, 0, 0, &plan), LK_INVALID);
    uint8_t grey[4] = {0};
    lk_image out, image = {.width = 2, .height = 2, .channels = 1, .pixels = grey};
    plan = lk_augment_plain(2, 2, 2, 2);
    assert_int_equal(lk_augment_apply(&plan, &image, &out), LK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_options_the_picture_stays_as_it_is),
        cmocka_unit_test(flipping_mirrors_left_and_right),
        cmocka_unit_test(crops_have_the_drawn_area_and_lie_within_the_picture),
        cmocka_unit_test(a_crop_shows_the_pixels_that_lie_there),
        cmocka_unit_test(rotation_turns_about_the_middle_and_keeps_distances),
        cmocka_unit_test(perspective_moves_corners_no_farther_than_asked_and_keeps_lines),
        cmocka_unit_test(shrinking_averages_what_falls_on_a_pixel),
        cmocka_unit_test(plans_depend_on_seed_epoch_and_picture_alone),
        cmocka_unit_test(a_new_ground_leaves_the_ink),
        cmocka_unit_test(monochrome_ink_leaves_the_ground),
        cmocka_unit_test(an_outline_is_ink_at_the_edges_alone),
        cmocka_unit_test(the_negative_of_a_drawing_is_inverted),
        cmocka_unit_test(photographs_keep_ink_and_ground),
        cmocka_unit_test(outside_a_drawing_is_ground),
        cmocka_unit_test(drawn_colours_stay_readable),
        cmocka_unit_test(an_erased_rectangle_has_the_asked_area),
        cmocka_unit_test(blur_keeps_the_mean_and_softens_edges),
        cmocka_unit_test(colour_changes_are_those_asked_for),
        cmocka_unit_test(senseless_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
