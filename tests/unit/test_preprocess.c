/* Against timm's transforms and transformers' image processors (tools/reference/preprocess.py). Their 8-bit pixels
 * after resizing may differ from ours by rounding, and where a filter overshoots: Pillow 13 resizes some pictures rows
 * first, older ones and torchvision columns first, as we do, and the clipping in between differs. At most 1/255 on
 * average is allowed; what is seen is 0.6 for a tall picture that Pillow resizes rows first, and below 0.05 elsewhere.
 * Scaling, mean and std must agree to 1e-5 wherever the pixels do. */
#include "unit.h"

#include "models/preprocess.h"
#include "nn/safetensors.h"

#include <math.h>

static const char *folder(void)
{
    const char *other = getenv("LIKENESS_PREPROCESS_CASES");
    return other ? other : LK_FIXTURES "/preprocess";
}

/* picture() of the script. */
static lk_image make_picture(uint32_t width, uint32_t height)
{
    lk_image image = {.pixels = malloc((size_t)width * height * 3), .width = width, .height = height, .channels = 3};
    uint8_t *p = image.pixels;
    for (uint64_t y = 0; y < height; y++)
        for (uint64_t x = 0; x < width; x++)
            for (uint64_t c = 0; c < 3; c++) {
                uint64_t kinds[4] = {(x * 3 + y * 2 + c * 40) % 256, (x * x * (c + 1) / 16 + y * y / 8) % 256,
                                     (x * 1103515245 + y * 12345 + c * 777) % 65521 * 31 % 256,
                                     (x / 5 + y / 7) % 2 ? 0 : 255};
                *p++ = (uint8_t)kinds[(x * 4 / width + y * 3 / height) % 4];
            }
    return image;
}

static void compare(const lk_preprocess *how, const lk_safetensors *expected, const char *name, uint32_t width,
                    uint32_t height, double *worst_mean, int *worst)
{
    const lk_safetensor *wanted = lk_safetensors_find(expected, name);
    assert_non_null(wanted);
    assert_int_equal(wanted->rank, 3);
    assert_int_equal(wanted->shape[1], how->size[0]);
    assert_int_equal(wanted->shape[2], how->size[1]);
    lk_image image = make_picture(width, height);
    float *out = malloc(wanted->count * sizeof *out);
    assert_int_equal(lk_preprocess_run(how, &image, out), LK_OK);
    double sum = 0;
    int most = 0;
    const uint8_t *bytes = wanted->data;
    size_t plane = wanted->count / 3;
    for (size_t i = 0; i < wanted->count; i++) {
        size_t c = i / plane;
        double byte = ((double)out[i] * (double)how->std[c] + (double)how->mean[c]) / (double)how->scale;
        int off = abs((int)lround(byte) - bytes[i]);
        assert_true(fabs(byte - round(byte)) < 1e-2);
        sum += off;
        if (off > most) most = off;
    }
    char first_name[96];
    float first[12];
    snprintf(first_name, sizeof first_name, "%s.first", name);
    lk_safetensor_to_f32(lk_safetensors_find(expected, first_name), first);
    for (size_t c = 0; c < 3; c++)
        for (size_t x = 0; x < 4; x++) {
            float got = out[c * plane + x], byte = 1 / 255.0f / how->std[c];
            if (fabsf(got - first[c * 4 + x]) < 0.5f * byte) assert_true(fabsf(got - first[c * 4 + x]) < 1e-5f);
        }
    if (getenv("LIKENESS_PREPROCESS_CASES"))
        printf("%s: %.4f on average, %d at most\n", name, sum / (double)wanted->count, most);
    if (sum / (double)wanted->count > *worst_mean) *worst_mean = sum / (double)wanted->count;
    if (most > *worst) *worst = most;
    if (sum / (double)wanted->count > 1)
        fail_msg("%s: pixels differ by %.3f on average and %d at most", name, sum / (double)wanted->count, most);
    free(out);
    lk_image_free(&image);
}

static void pixels_agree_with_timm_and_transformers(void **state)
{
    (void)state;
    char path[512], name[64];
    size_t i, j;
    json_t *item, *size;
    lk_safetensors *expected;
    double worst_mean = 0;
    int worst = 0;
    snprintf(path, sizeof path, "%s/cases.json", folder());
    json_t *cases = json_load_file(path, 0, NULL);
    snprintf(path, sizeof path, "%s/expected.safetensors", folder());
    assert_int_equal(lk_safetensors_open(path, &expected), LK_OK);
    assert_true(json_array_size(cases) >= 14);
    json_array_foreach(cases, i, item)
    {
        lk_preprocess how;
        const json_t *preprocessor = json_object_get(item, "preprocessor");
        assert_int_equal(lk_preprocess_parse(json_object_get(item, "config"),
                                             json_is_null(preprocessor) ? NULL : preprocessor, "m", &how),
                         LK_OK);
        json_array_foreach(json_object_get(item, "sizes"), j, size)
        {
            uint32_t width = (uint32_t)json_integer_value(json_array_get(size, 0)),
                     height = (uint32_t)json_integer_value(json_array_get(size, 1));
            snprintf(name, sizeof name, "%zu.%ux%u", i, width, height);
            compare(&how, expected, name, width, height, &worst_mean, &worst);
        }
    }
    printf("pixels differ by %.4f/255 on average in the worst case, by %d at most\n", worst_mean, worst);
    json_decref(cases);
    lk_safetensors_free(expected);
}

static void refuses(const char *config, const char *preprocessor, lk_status status, const char *why)
{
    json_t *c = json_loads(config, 0, NULL), *p = preprocessor ? json_loads(preprocessor, 0, NULL) : NULL;
    lk_preprocess how;
    lk_status s = lk_preprocess_parse(c, p, "folder", &how);
    if (s != status || !strstr(lk_error_message(), why) || !strstr(lk_error_message(), "folder"))
        fail_msg("%s %s: status %d, \"%s\"", config, preprocessor ? preprocessor : "", s, lk_error_message());
    json_decref(c);
    json_decref(p);
}

static void senseless_settings_are_refused(void **state)
{
    (void)state;
    refuses("{}", NULL, LK_NOT_FOUND, "preprocessor_config.json");
    refuses("{\"pretrained_cfg\":{}}", NULL, LK_CORRUPT, "input_size");
    refuses("{\"pretrained_cfg\":{\"input_size\":[3,0,4]}}", NULL, LK_CORRUPT, "input_size");
    refuses("{\"pretrained_cfg\":{\"input_size\":[1,4,4]}}", NULL, LK_CORRUPT, "input_size");
    refuses("{\"pretrained_cfg\":{\"input_size\":[3,4,4],\"crop_pct\":-1}}", NULL, LK_CORRUPT, "crop_pct");
    refuses("{\"pretrained_cfg\":{\"input_size\":[3,4,4],\"crop_mode\":\"x\"}}", NULL, LK_UNSUPPORTED, "crop_mode");
    refuses("{\"pretrained_cfg\":{\"input_size\":[3,4,4],\"interpolation\":\"x\"}}", NULL, LK_UNSUPPORTED,
            "interpolation");
    refuses("{\"pretrained_cfg\":{\"input_size\":[3,4,4],\"mean\":[0,0,0],\"std\":[1,0,1]}}", NULL, LK_CORRUPT,
            "deviation");
    refuses("{}", "{}", LK_CORRUPT, "size");
    refuses("{}", "{\"size\":{\"shortest_edge\":4},\"do_center_crop\":false}", LK_UNSUPPORTED, "different sizes");
    refuses("{}", "{\"size\":{\"longest_edge\":4}}", LK_UNSUPPORTED, "size");
    refuses("{}", "{\"size\":99999999}", LK_CORRUPT, "size");
    refuses("{}", "{\"size\":4,\"resample\":5}", LK_UNSUPPORTED, "resample");
    refuses("{}", "{\"size\":4,\"image_mean\":[1]}", LK_CORRUPT, "image_mean");
    refuses("{}", "{\"size\":4,\"rescale_factor\":0}", LK_CORRUPT, "rescale_factor");
}

static void extreme_pictures_are_prepared(void **state)
{
    (void)state;
    json_t *config =
        json_loads("{\"pretrained_cfg\":{\"input_size\":[3,8,8],\"mean\":[0,0,0],\"std\":[1,1,1]}}", 0, NULL);
    lk_preprocess how;
    float out[3 * 8 * 8];
    assert_int_equal(lk_preprocess_parse(config, NULL, "m", &how), LK_OK);
    const uint32_t sizes[][2] = {{1, 1}, {1, 5000}, {5000, 1}, {2, 3}};
    for (int i = 0; i < 4; i++) {
        lk_image image = make_picture(sizes[i][0], sizes[i][1]);
        memset(image.pixels, 51, (size_t)image.width * image.height * 3);
        for (int fit = LK_FIT_SHORTER; fit <= LK_FIT_SQUASH; fit++) {
            how.fit = (lk_fit)fit;
            how.fill[0] = how.fill[1] = how.fill[2] = 51;
            assert_int_equal(lk_preprocess_run(&how, &image, out), LK_OK);
            for (int j = 0; j < 3 * 8 * 8; j++) assert_true(fabsf(out[j] - 0.2f) < 1e-6f); /* constant stays constant */
        }
        image.channels = 4;
        assert_int_equal(lk_preprocess_run(&how, &image, out), LK_INVALID);
        lk_image_free(&image);
    }
    json_decref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_agree_with_timm_and_transformers),
        cmocka_unit_test(senseless_settings_are_refused),
        cmocka_unit_test(extreme_pictures_are_prepared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
