/* Random changes of a picture for training, in two steps: a plan is drawn from (seed, epoch, picture), then applied.
 * The same three numbers and options give the same bytes, on any thread and in any order.
 *
 * Beyond what photographs need, logos are treated as ink on a ground: a picture with transparency, or one whose border
 * has one colour around most of it, can change its ground and its ink. Other pictures skip those changes. */
#ifndef LK_IMAGE_AUGMENT_H
#define LK_IMAGE_AUGMENT_H

#include <likeness/image.h>

/* Probabilities are in [0, 1]; 0 switches a change off. */
typedef struct lk_augment_options {
    uint32_t width, height;                  /* of the result, pixels */
    double area_low, area_high;              /* crop: share of the picture's area */
    double ratio_low, ratio_high;            /* crop: width / height relative to the result's */
    double flip;                             /* probability of a left-right flip */
    double rotation;                         /* at most so many degrees either way */
    double perspective;                      /* each corner moves by at most this share of the side */
    double brightness, contrast, saturation; /* factor is drawn from 1 - x .. 1 + x */
    double hue;                              /* turn of hue by at most this share of the circle, 0 .. 0.5 */
    double blur;                             /* probability */
    double blur_low, blur_high;              /* standard deviation in pixels of the result */
    double erase;                            /* probability of a rectangle of random colour */
    double erase_low, erase_high;            /* share of the area */
    double ground;                           /* probability of another ground colour */
    double monochrome;                       /* probability that all ink gets one colour */
    double outline;                          /* probability that only the outline of the ink is left */
    double invert;                           /* probability of the negative */
} lk_augment_options;

/* Sensible for logos (no flip: letters) and for photographs. */
lk_augment_options lk_augment_logo_defaults(uint32_t width, uint32_t height);
lk_augment_options lk_augment_photo_defaults(uint32_t width, uint32_t height);

/* What will be done. */
typedef struct lk_augment_plan {
    uint32_t width, height;
    double matrix[9]; /* rows first; takes a point (x, y, 1) of the result to one of the source, both in pixels with
                         whole numbers at the pixels' edges */
    float brightness, contrast, saturation, hue;
    float sigma;        /* of the blur; 0 = none */
    uint32_t erased[4]; /* left, top, width, height; width 0 = none */
    uint8_t eraser[3];
    bool new_ground, monochrome, outline, invert;
    uint8_t ground[3], ink[3]; /* well apart */
} lk_augment_plan;

/* Draws a plan for a picture of the given size. LK_INVALID when an option makes no sense; the message names it. */
lk_status lk_augment_draw(const lk_augment_options *options, uint32_t source_width, uint32_t source_height,
                          uint64_t seed, uint64_t epoch, uint64_t picture, lk_augment_plan *out);
/* The plan that only resizes: for validation. */
lk_augment_plan lk_augment_plain(uint32_t source_width, uint32_t source_height, uint32_t width, uint32_t height);

/* Applies it to an RGB or RGBA picture; *out is RGB and freed with lk_image_free. Transparency without a new ground
 * shows white. LK_INVALID (grey, empty), LK_NO_MEMORY. */
lk_status lk_augment_apply(const lk_augment_plan *plan, const lk_image *image, lk_image *out);

#endif
