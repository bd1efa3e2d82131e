#include "models/preprocess.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIDE = 4096 };

static bool flag(const json_t *config, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static bool read_side(const json_t *value, uint32_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > MAX_SIDE) return false;
    *out = (uint32_t)json_integer_value(value);
    return true;
}

/* {"height":h,"width":w}, {"shortest_edge":n} or n. *shorter says which of both meanings. */
static lk_status read_size(const json_t *config, const char *key, const char *name, bool number_is_shorter,
                           uint32_t out[2], bool *shorter)
{
    const json_t *value = json_object_get(config, key);
    *shorter = false;
    if (json_is_object(value) && json_object_get(value, "shortest_edge") && !json_object_get(value, "longest_edge")) {
        *shorter = true;
        value = json_object_get(value, "shortest_edge");
    } else if (json_is_object(value)) {
        if (read_side(json_object_get(value, "height"), &out[0]) && read_side(json_object_get(value, "width"), &out[1]))
            return LK_OK;
        return lk_fail(
            LK_UNSUPPORTED,
            "%s: preprocessor_config.json: \"%s\" is neither height and width nor a shortest edge of 1 to %d", name,
            key, MAX_SIDE);
    } else {
        *shorter = number_is_shorter;
    }
    if (!read_side(value, &out[0]))
        return lk_fail(LK_CORRUPT, "%s: preprocessor_config.json: \"%s\" is not a size of 1 to %d", name, key,
                       MAX_SIDE);
    out[1] = out[0];
    return LK_OK;
}

static lk_status read_triple(const json_t *value, const char *name, const char *key, float out[3])
{
    for (size_t i = 0; i < 3; i++) {
        const json_t *item = json_array_get(value, i);
        out[i] = (float)json_number_value(item);
        if (json_array_size(value) != 3 || !json_is_number(item) || !isfinite(out[i]))
            return lk_fail(LK_CORRUPT, "%s: \"%s\" is not three numbers", name, key);
    }
    return LK_OK;
}

static lk_status check_std(const lk_preprocess *out, const char *name)
{
    for (int i = 0; i < 3; i++)
        if (!(out->std[i] > 0))
            return lk_fail(LK_CORRUPT, "%s: the standard deviation of its pixels is not above 0", name);
    return LK_OK;
}

/* Pillow's numbers. */
static lk_status read_resample(const json_t *config, const char *name, lk_filter *out)
{
    static const int filters[] = {LK_FILTER_NEAREST, LK_FILTER_LANCZOS, LK_FILTER_BILINEAR, LK_FILTER_BICUBIC,
                                  LK_FILTER_BOX};
    const json_t *value = json_object_get(config, "resample");
    json_int_t number = value ? json_integer_value(value) : 2;
    if ((value && !json_is_integer(value)) || number < 0 || number > 4)
        return lk_fail(LK_UNSUPPORTED,
                       "%s: preprocessor_config.json: its \"resample\" is not one of nearest (0) to box (4)", name);
    *out = (lk_filter)filters[number];
    return LK_OK;
}

/* ConvNextImageProcessor: crop_pct counts below 384 pixels, above everything is squashed. */
static lk_status read_convnext(const json_t *config, const char *name, lk_preprocess *out)
{
    double share = json_number_value(json_object_get(config, "crop_pct"));
    bool shorter;
    lk_status s = read_size(config, "size", name, true, out->size, &shorter);
    if (s != LK_OK) return s;
    if (!(share > 0.1 && share <= 1)) share = 224.0 / 256;
    out->fit = out->size[0] < 384 ? LK_FIT_SHORTER : LK_FIT_SQUASH;
    out->resize[0] = out->resize[1] = out->size[0] < 384 ? (uint32_t)(out->size[0] / share) : out->size[0];
    return LK_OK;
}

static lk_status read_transformers(const json_t *config, const char *name, lk_preprocess *out)
{
    const char *type = json_string_value(json_object_get(config, "image_processor_type"));
    if (!type) type = json_string_value(json_object_get(config, "feature_extractor_type"));
    bool shorter = false, crop = flag(config, "do_center_crop", false);
    lk_status s = read_resample(config, name, &out->filter);
    if (s != LK_OK) return s;
    out->crop_rounds_down = true;
    if (type && strncmp(type, "ConvNext", 8) == 0) {
        s = read_convnext(config, name, out);
    } else {
        if (flag(config, "do_resize", true)) {
            s = read_size(config, "size", name, crop, out->resize, &shorter);
            out->fit = shorter ? LK_FIT_SHORTER : LK_FIT_SQUASH;
        }
        if (s == LK_OK && crop) s = read_size(config, "crop_size", name, false, out->size, &shorter);
        if (s == LK_OK && !crop) {
            if (out->fit != LK_FIT_SQUASH)
                return lk_fail(
                    LK_UNSUPPORTED,
                    "%s: preprocessor_config.json gives pictures of different sizes: neither a crop nor a fixed size",
                    name);
            memcpy(out->size, out->resize, sizeof out->size);
        }
    }
    if (s != LK_OK) return s;
    const json_t *factor = json_object_get(config, "rescale_factor");
    out->scale = flag(config, "do_rescale", true) ? (factor ? (float)json_number_value(factor) : 1.0f / 255) : 1;
    if (!isfinite(out->scale) || out->scale <= 0)
        return lk_fail(LK_CORRUPT, "%s: preprocessor_config.json: its rescale_factor is not above 0", name);
    if (!flag(config, "do_normalize", true)) return LK_OK;
    s = read_triple(json_object_get(config, "image_mean"), name, "image_mean", out->mean);
    return s == LK_OK ? read_triple(json_object_get(config, "image_std"), name, "image_std", out->std) : s;
}

static lk_status read_timm_size(const json_t *config, const char *name, lk_preprocess *out)
{
    const json_t *input = json_object_get(config, "input_size"), *share = json_object_get(config, "crop_pct");
    const char *mode = json_string_value(json_object_get(config, "crop_mode"));
    double pct = share ? json_number_value(share) : 0.875;
    if (json_array_size(input) != 3 || json_integer_value(json_array_get(input, 0)) != 3 ||
        !read_side(json_array_get(input, 1), &out->size[0]) || !read_side(json_array_get(input, 2), &out->size[1]))
        return lk_fail(LK_CORRUPT, "%s: config.json: its input_size is not [3, height, width] up to %d", name,
                       MAX_SIDE);
    if (!(pct > 0.1 && pct <= 4)) return lk_fail(LK_CORRUPT, "%s: config.json: its crop_pct is not a share", name);
    for (int i = 0; i < 2; i++) out->resize[i] = (uint32_t)floor(out->size[i] / pct);
    if (!out->resize[0] || !out->resize[1])
        return lk_fail(LK_CORRUPT, "%s: config.json: its crop_pct is too large", name);
    if (!mode || strcmp(mode, "center") == 0)
        out->fit = out->resize[0] == out->resize[1] ? LK_FIT_SHORTER : LK_FIT_COVER;
    else if (strcmp(mode, "squash") == 0)
        out->fit = LK_FIT_SQUASH;
    else if (strcmp(mode, "trim") == 0)
        out->fit = LK_FIT_TRIM;
    else if (strcmp(mode, "border") == 0)
        out->fit = LK_FIT_INSIDE;
    else
        return lk_fail(LK_UNSUPPORTED, "%s: config.json: the crop_mode %.*s is not known", name, lk_utf8_fit(mode, 32),
                       mode);
    return LK_OK;
}

static lk_status read_timm(const json_t *config, const char *name, lk_preprocess *out)
{
    static const char *const names[] = {"nearest", "box", "bilinear", "bicubic", "lanczos"};
    const char *filter = json_string_value(json_object_get(config, "interpolation"));
    lk_status s = read_timm_size(config, name, out);
    if (s != LK_OK) return s;
    int found = filter ? -1 : LK_FILTER_BICUBIC;
    for (int i = 0; filter && i < 5; i++)
        if (strcmp(names[i], filter) == 0) found = i;
    if (found < 0)
        return lk_fail(LK_UNSUPPORTED, "%s: config.json: the interpolation %.*s is not known", name,
                       lk_utf8_fit(filter, 32), filter);
    out->filter = (lk_filter)found;
    out->scale = 1.0f / 255;
    s = read_triple(json_object_get(config, "mean"), name, "mean", out->mean);
    if (s == LK_OK) s = read_triple(json_object_get(config, "std"), name, "std", out->std);
    for (int i = 0; s == LK_OK && out->fit == LK_FIT_INSIDE && i < 3; i++)
        out->fill[i] = (uint8_t)nearbyint(fmin(fmax(255 * (double)out->mean[i], 0), 255));
    return s;
}

lk_status lk_preprocess_parse(const json_t *config, const json_t *preprocessor, const char *name, lk_preprocess *out)
{
    *out = (lk_preprocess){.scale = 1, .std = {1, 1, 1}};
    const json_t *timm = json_object_get(config, "pretrained_cfg");
    lk_status s;
    if (preprocessor)
        s = read_transformers(preprocessor, name, out);
    else if (timm)
        s = read_timm(timm, name, out);
    else
        return lk_fail(LK_NOT_FOUND,
                       "%s: says nowhere how pictures are prepared: preprocessor_config.json, or pretrained_cfg in "
                       "config.json, is missing",
                       name);
    return s == LK_OK ? check_std(out, name) : s;
}

/* Height and width after resizing. */
static void fit_size(const lk_preprocess *how, const lk_image *image, uint32_t out[2])
{
    uint32_t from[2] = {image->height, image->width};
    memcpy(out, from, sizeof from);
    double ratio[2] = {(double)from[0] / how->resize[0], (double)from[1] / how->resize[1]};
    switch (how->fit) {
    case LK_FIT_NONE: break;
    case LK_FIT_SQUASH: memcpy(out, how->resize, sizeof from); break;
    case LK_FIT_SHORTER: {
        int longer = from[1] > from[0];
        out[1 - longer] = how->resize[0];
        out[longer] = (uint32_t)((double)((uint64_t)how->resize[0] * from[longer]) / from[1 - longer]);
        break;
    }
    case LK_FIT_TRIM:
    case LK_FIT_COVER:
    case LK_FIT_INSIDE: {
        double r = how->fit == LK_FIT_COVER ? fmin(ratio[0], ratio[1]) : fmax(ratio[0], ratio[1]);
        for (int i = 0; i < 2; i++) out[i] = (uint32_t)nearbyint(from[i] / r);
        break;
    }
    }
    for (int i = 0; i < 2; i++)
        if (out[i] == 0) out[i] = 1;
}

/* Along one side: where the cut begins in a picture of `from`, how much of it there is, and where it lands in `to`. */
static void place(const lk_preprocess *how, uint32_t from, uint32_t to, uint32_t *begin, uint32_t *count, uint32_t *at)
{
    *begin = *at = 0;
    *count = from < to ? from : to;
    if (from < to)
        *at = (to - from) / 2;
    else
        *begin = how->crop_rounds_down ? (from - to) / 2 : (uint32_t)nearbyint((from - to) / 2.0);
}

static lk_status trimmed(const lk_preprocess *how, const lk_image *image, float *out)
{
    uint32_t box[4];
    lk_image part;
    lk_preprocess inside = *how;
    lk_image_content(image, box, inside.fill);
    inside.fit = LK_FIT_INSIDE;
    lk_status s = lk_image_crop(image, box[0], box[1], box[2], box[3], &part);
    if (s == LK_OK) s = lk_preprocess_run(&inside, &part, out);
    lk_image_free(&part);
    return s;
}

lk_status lk_preprocess_run(const lk_preprocess *how, const lk_image *image, float *out)
{
    if (image->channels != 3)
        return lk_fail(LK_INVALID, "a picture of %u channels was handed to a network that wants RGB", image->channels);
    if (how->fit == LK_FIT_TRIM) return trimmed(how, image, out);
    uint32_t resized[2], begin[2], count[2], at[2];
    fit_size(how, image, resized);
    for (int i = 0; i < 2; i++) place(how, resized[i], how->size[i], &begin[i], &count[i], &at[i]);
    uint8_t *part = lk_alloc((size_t)count[0] * count[1], 3);
    if (!part) return lk_fail_memory("picture");
    const lk_resize_window window = {resized[1], resized[0], begin[1], begin[0], count[1], count[0]};
    lk_status s = lk_resize_rgb(image->pixels, image->width, image->height, how->filter, &window, part);
    size_t plane = (size_t)how->size[0] * how->size[1];
    for (int c = 0; s == LK_OK && c < 3; c++) {
        float table[256]; /* of a byte: there are few, and this way each is rounded once */
        for (int v = 0; v < 256; v++) table[v] = ((float)v * how->scale - how->mean[c]) / how->std[c];
        float *to = out + c * plane;
        if (count[0] < how->size[0] || count[1] < how->size[1])
            for (size_t i = 0; i < plane; i++) to[i] = table[how->fill[c]];
        for (uint32_t y = 0; y < count[0]; y++) {
            const uint8_t *row = part + (size_t)y * count[1] * 3 + c;
            float *line = to + (size_t)(at[0] + y) * how->size[1] + at[1];
            for (uint32_t x = 0; x < count[1]; x++) line[x] = table[row[3 * x]];
        }
    }
    free(part);
    return s;
}
