/* From a decoded picture to what a network sees: resize, crop, scale, normalise, as the files beside its weights say.
 */
#ifndef LK_MODELS_PREPROCESS_H
#define LK_MODELS_PREPROCESS_H

#include "models/resize.h"

#include <jansson.h>
#include <likeness/image.h>
#include <stdbool.h>

typedef enum lk_fit {
    LK_FIT_NONE,    /* the picture's own size */
    LK_FIT_SHORTER, /* the shorter side becomes resize[0] (of a square), the proportions stay */
    LK_FIT_COVER,   /* the smallest of these proportions that covers resize */
    LK_FIT_INSIDE,  /* the largest of these proportions that fits into resize */
    LK_FIT_SQUASH,  /* exactly resize */
    LK_FIT_TRIM     /* as INSIDE, after an even border was cut off; what is missing is filled with its colour */
} lk_fit;

typedef struct lk_preprocess {
    lk_fit fit;
    uint32_t resize[2]; /* height, width */
    lk_filter filter;
    uint32_t size[2];      /* height, width of the result: the middle is cut out, what is missing is filled */
    bool crop_rounds_down; /* an odd margin: transformers rounds down, torchvision to even */
    uint8_t fill[3];
    float scale; /* of a byte, before mean and std */
    float mean[3], std[3];
} lk_preprocess;

/* From transformers' preprocessor_config.json (NULL when there is none) or timm's config.json ("pretrained_cfg");
 * `name` stands for the folder in messages. LK_NOT_FOUND when neither says anything, LK_CORRUPT, LK_UNSUPPORTED. */
lk_status lk_preprocess_parse(const json_t *config, const json_t *preprocessor, const char *name, lk_preprocess *out);

/* image RGB -> out [3][size[0]][size[1]]. Several threads may call it at once. LK_INVALID (not RGB), LK_NO_MEMORY. */
lk_status lk_preprocess_run(const lk_preprocess *how, const lk_image *image, float *out);

#endif
