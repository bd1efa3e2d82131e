/* The embedder that runs networks: vectors do not depend on batches, threads or saving; NaN is reported. */
#include "unit.h"

#include "models_fixture.h"

#include "base/error.h"
#include "base/threads.h"
#include "embed/neural_pool.h"

#include <likeness/embed.h>
#include <likeness/model.h>

static json_t *load_cases(void)
{
    json_t *cases = json_load_file(UNIT_FIXTURES "/models/cases.json", 0, NULL);
    assert_non_null(cases);
    return cases;
}

static void make_model(const char *name, const char *folder, const fixture_change *change)
{
    json_t *cases = load_cases(), *item = fixture_case(cases, name);
    assert_non_null(item);
    fixture_model(item, folder, change);
    json_decref(cases);
}

/* Blotches whose place and colour depend on the seed. */
static lk_image make_picture(uint64_t seed)
{
    lk_image image = {.width = 90 + (uint32_t)seed % 7, .height = 80, .channels = 3};
    image.pixels = malloc((size_t)image.width * image.height * 3);
    for (size_t i = 0; i < (size_t)image.width * image.height * 3; i++) {
        size_t x = i / 3 % image.width / 16, y = i / 3 / image.width / 16;
        image.pixels[i] = (uint8_t)(127 + 120 * formula_unit(seed * 977 + i % 3, y * 8 + x));
    }
    return image;
}

enum { PICTURES = 21 };

static lk_image *make_pictures(void)
{
    lk_image *images = calloc(PICTURES, sizeof *images);
    for (size_t i = 0; i < PICTURES; i++) images[i] = make_picture(i);
    return images;
}

static void free_pictures(lk_image *images)
{
    for (size_t i = 0; i < PICTURES; i++) lk_image_free(&images[i]);
    free(images);
}

static void assert_unit(const float *row, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (double)row[i] * (double)row[i];
    assert_true(fabs(sum - 1) < 1e-5);
}

typedef struct shares {
    lk_embedder *embedder;
    const lk_image *images;
    float *out;
} shares;

static lk_status embed_share(void *arg, size_t begin, size_t end, int worker)
{
    shares *s = arg;
    (void)worker;
    return lk_embedder_embed(s->embedder, s->images + begin, end - begin,
                             s->out + begin * lk_embedder_dim(s->embedder));
}

static void check_shares(const char *folder, size_t first, size_t grain, int threads, const lk_image *images,
                         const float *wanted)
{
    lk_embedder *e;
    lk_pool *pool;
    assert_int_equal(lk_embedder_open(folder, &e), LK_OK);
    size_t dim = lk_embedder_dim(e);
    float *out = calloc(PICTURES * dim, sizeof *out);
    assert_int_equal(lk_pool_new(threads, &pool), LK_OK);
    assert_int_equal(lk_embedder_embed(e, images, first, out), LK_OK); /* decides how large a batch is compiled */
    assert_int_equal(lk_parallel_for(pool, PICTURES, grain, embed_share, &(shares){e, images, out}), LK_OK);
    assert_memory_equal(out, wanted, PICTURES * dim * sizeof *out);
    lk_pool_free(pool);
    lk_embedder_free(e);
    free(out);
}

static void bytes_do_not_depend_on_batches_or_threads(void **state)
{
    static const char *const names[] = {"ResNet, bottlenecks", "MobileNetV3 small", "ViT", "ConvNeXt"};
    lk_image *images = make_pictures();
    for (int m = 0; m < 4; m++) {
        lk_embedder *e;
        make_model(names[m], *state, NULL);
        assert_int_equal(lk_embedder_open(*state, &e), LK_OK);
        size_t dim = lk_embedder_dim(e);
        float *wanted = calloc(PICTURES * dim, sizeof *wanted);
        assert_int_equal(lk_embedder_embed(e, images, PICTURES, wanted), LK_OK);
        for (size_t i = 0; i < PICTURES; i++) assert_unit(wanted + i * dim, dim);
        assert_memory_not_equal(wanted, wanted + dim, dim * sizeof *wanted);
        lk_embedder_free(e);
        check_shares(*state, 1, 1, 1, images, wanted);
        check_shares(*state, 1, 1, 3, images, wanted);
        check_shares(*state, 5, 5, 3, images, wanted);
        check_shares(*state, 8, 8, 2, images, wanted);
        free(wanted);
    }
    free_pictures(images);
}

static lk_embedder *open_with(const char *folder, lk_pooling pool, float p, lk_precision precision)
{
    lk_embedder *e;
    if (lk_neural_open(folder, &(lk_neural_options){.pool = pool, .gem_p = p, .precision = precision}, &e) != LK_OK)
        fail_msg("%s", lk_error_message());
    return e;
}

static void ids_tell_pooling_precision_and_weights_apart(void **state)
{
    enum { KINDS = 7 };
    char ids[KINDS + 1][33];
    make_model("ResNet, basic blocks", *state, NULL);
    lk_embedder *all[KINDS] = {
        open_with(*state, LK_POOL_MODEL, 0, LK_PRECISION_F32), open_with(*state, LK_POOL_AVG, 0, LK_PRECISION_F32),
        open_with(*state, LK_POOL_MAX, 0, LK_PRECISION_F32),   open_with(*state, LK_POOL_GEM, 0, LK_PRECISION_F32),
        open_with(*state, LK_POOL_GEM, 2, LK_PRECISION_F32),   open_with(*state, LK_POOL_MODEL, 0, LK_PRECISION_BF16),
        open_with(*state, LK_POOL_MODEL, 0, LK_PRECISION_INT8)};
    for (int i = 0; i < KINDS; i++) {
        strcpy(ids[i], lk_embedder_id(all[i]));
        assert_int_equal(lk_neural_same(all[0], all[i]), i == 0);
    }
    for (int i = 0; i < KINDS; i++) lk_embedder_free(all[i]);
    lk_embedder *e = open_with(*state, LK_POOL_GEM, 3, LK_PRECISION_F32); /* the default, said aloud */
    assert_string_equal(lk_embedder_id(e), ids[3]);
    lk_embedder_free(e);
    make_model("ResNet, basic blocks", *state, &(fixture_change){.extra = "fc.other"});
    e = open_with(*state, LK_POOL_MODEL, 0, LK_PRECISION_F32);
    strcpy(ids[KINDS], lk_embedder_id(e));
    lk_embedder_free(e);
    for (int i = 0; i <= KINDS; i++)
        for (int j = 0; j < i; j++) assert_string_not_equal(ids[i], ids[j]);
}

static void a_saved_embedder_gives_the_same_vectors(void **state)
{
    char model[300], saved[300];
    lk_image *images = make_pictures();
    snprintf(model, sizeof model, "%s/model", (char *)*state);
    snprintf(saved, sizeof saved, "%s/saved", (char *)*state);
    assert_int_equal(mkdir(model, 0777), 0);
    make_model("ResNet, bottlenecks", model, NULL);
    const lk_precision precisions[] = {LK_PRECISION_F32, LK_PRECISION_BF16, LK_PRECISION_INT8};
    for (int i = 0; i < 3; i++) {
        lk_embedder *e = open_with(model, LK_POOL_GEM, 2.5f, precisions[i]), *again;
        float out[64], same[64];
        assert_int_equal(lk_embedder_dim(e), 64);
        if (precisions[i] == LK_PRECISION_INT8) {
            assert_true(lk_neural_needs_calibration(e));
            assert_int_equal(lk_embedder_embed(e, images, 1, out), LK_INVALID);
            assert_int_equal(lk_embedder_save(e, saved), LK_INVALID);
            assert_int_equal(lk_neural_calibrate(e, images, 8), LK_OK);
            assert_int_equal(lk_neural_calibrate(e, images, 8), LK_INVALID);
        }
        lk_status s = lk_embedder_embed(e, images, 1, out);
        if (s == LK_UNSUPPORTED) { /* a processor without bf16 */
            lk_embedder_free(e);
            continue;
        }
        if (s != LK_OK) fail_msg("%s", lk_error_message());
        assert_int_equal(lk_embedder_save(e, saved), LK_OK);
        if (lk_embedder_open(saved, &again) != LK_OK) fail_msg("%s", lk_error_message());
        assert_string_equal(lk_embedder_id(again), lk_embedder_id(e));
        assert_string_equal(lk_embedder_name(again), lk_embedder_name(e));
        assert_int_equal(lk_embedder_embed(again, images, 1, same), LK_OK);
        assert_memory_equal(same, out, sizeof out);
        lk_embedder_free(e);
        lk_embedder_free(again);
    }
    free_pictures(images);
}

static void coarser_arithmetic_stays_close(void **state)
{
    static const char *const names[] = {"ResNet, bottlenecks", "SE-ResNet", "ViT", "ConvNeXt"};
    lk_image *images = make_pictures();
    for (int m = 0; m < 4; m++) {
        make_model(names[m], *state, NULL);
        lk_embedder *exact = open_with(*state, LK_POOL_MODEL, 0, LK_PRECISION_F32);
        size_t dim = lk_embedder_dim(exact);
        float *wanted = calloc(PICTURES * dim, sizeof *wanted), *got = calloc(PICTURES * dim, sizeof *got);
        assert_int_equal(lk_embedder_embed(exact, images, PICTURES, wanted), LK_OK);
        for (int precision = LK_PRECISION_BF16; precision <= LK_PRECISION_INT8; precision++) {
            lk_embedder *e = open_with(*state, LK_POOL_MODEL, 0, (lk_precision)precision);
            if (precision == LK_PRECISION_INT8) assert_int_equal(lk_neural_calibrate(e, images, PICTURES), LK_OK);
            lk_status s = lk_embedder_embed(e, images, PICTURES, got);
            lk_embedder_free(e);
            if (s == LK_UNSUPPORTED) continue;
            if (s != LK_OK) fail_msg("%s", lk_error_message());
            double worst = 1;
            for (size_t i = 0; i < PICTURES; i++) {
                double dot = 0;
                for (size_t d = 0; d < dim; d++) dot += (double)wanted[i * dim + d] * (double)got[i * dim + d];
                worst = dot < worst ? dot : worst;
            }
            printf("%-20s %s: cosine %.5f\n", names[m], precision == LK_PRECISION_BF16 ? "bf16" : "int8", worst);
            assert_true(worst >= (precision == LK_PRECISION_BF16 ? 0.999 : 0.99));
        }
        lk_embedder_free(exact);
        free(wanted);
        free(got);
    }
    free_pictures(images);
}

static void poolings_are_what_they_are_called(void **state)
{
    (void)state;
    /* Two channels at three places, as map and as tokens. */
    const float map[] = {1, 2, 6, -1, 0, 4}, tokens[] = {1, -1, 2, 0, 6, 4};
    float a[2], b[2];
    for (int pool = LK_POOL_AVG; pool <= LK_POOL_GEM; pool++) {
        lk_neural_pool(map, 3, 2, true, (lk_pooling)pool, 3, a);
        lk_neural_pool(tokens, 3, 2, false, (lk_pooling)pool, 3, b);
        assert_memory_equal(a, b, sizeof a);
        double wanted[] = {0, 3, 6, cbrt((1 + 8 + 216) / 3.0)}, other[] = {0, 1, 4, cbrt(64 / 3.0)};
        assert_true(fabs((double)a[0] - wanted[pool]) < 1e-6);
        assert_true(fabs((double)a[1] - other[pool]) < 1e-5);
    }
}

static void a_pooling_that_cannot_be_is_refused(void **state)
{
    lk_embedder *e;
    make_model("ResNet, basic blocks", *state, NULL);
    assert_int_equal(lk_neural_open(*state, &(lk_neural_options){.pool = LK_POOL_CLS}, &e), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "class token"));
    assert_int_equal(lk_neural_open(*state, &(lk_neural_options){.gem_p = -1}, &e), LK_INVALID);
    make_model("ViT without class token", *state, NULL);
    assert_int_equal(lk_neural_open(*state, &(lk_neural_options){.pool = LK_POOL_CLS}, &e), LK_INVALID);
    make_model("ViT", *state, NULL); /* its own head is the class token */
    lk_embedder *own = open_with(*state, LK_POOL_MODEL, 0, LK_PRECISION_F32),
                *token = open_with(*state, LK_POOL_CLS, 0, LK_PRECISION_F32);
    lk_image image = make_picture(1);
    float x[32], y[32];
    assert_int_equal(lk_embedder_embed(own, &image, 1, x), LK_OK);
    assert_int_equal(lk_embedder_embed(token, &image, 1, y), LK_OK);
    for (int i = 0; i < 32; i++) assert_true(fabsf(x[i] - y[i]) < 1e-6f);
    lk_image_free(&image);
    lk_embedder_free(own);
    lk_embedder_free(token);
}

static void vectors_of_nan_or_nothing_are_reported(void **state)
{
    (void)state;
    float nan[3] = {1, NAN, 2}, infinite[2] = {INFINITY, 1}, zero[2] = {0, 0}, good[2] = {3, 4};
    assert_int_equal(lk_neural_normalise(nan, 3), LK_CORRUPT);
    assert_int_equal(lk_neural_normalise(infinite, 2), LK_CORRUPT);
    assert_int_equal(lk_neural_normalise(zero, 2), LK_CORRUPT);
    assert_int_equal(lk_neural_normalise(good, 2), LK_OK);
    assert_true(fabsf(good[0] - 0.6f) < 1e-7f && fabsf(good[1] - 0.8f) < 1e-7f);
}

static void copy_tokenizer(const char *folder)
{
    char command[1200];
    snprintf(command, sizeof command, "cp '%s/tokenizer/tokenizer.json' '%s/'", UNIT_FIXTURES, folder);
    assert_int_equal(system(command), 0);
}

static void texts_land_in_the_space_of_pictures(void **state)
{
    json_t *cases = load_cases(), *clip = json_deep_copy(fixture_case(cases, "CLIP")),
           *tensors = json_object_get(clip, "tensors"), *row;
    lk_embedder *e;
    size_t i;
    float out[4][20], alone[20];
    const char *const texts[] = {"a photo of a cat", "🦁 red lion", "", "a photo of a cat"};
    make_model("ResNet, basic blocks", *state, NULL);
    assert_int_equal(lk_embedder_open(*state, &e), LK_OK);
    assert_false(lk_embedder_has_text(e));
    assert_int_equal(lk_embedder_embed_text(e, texts, 1, out[0]), LK_UNSUPPORTED);
    lk_embedder_free(e);
    /* The vocabulary of the tokenizer's fixture. */
    json_array_foreach(tensors, i, row) if (strstr(json_string_value(json_array_get(row, 0)), "token_embedding"))
        json_array_set_new(json_array_get(row, 1), 0, json_integer(1245));
    json_object_set_new(json_object_get(json_object_get(clip, "config"), "text_config"), "vocab_size",
                        json_integer(1245));
    json_object_set_new(json_object_get(json_object_get(clip, "config"), "text_config"), "eos_token_id",
                        json_integer(1244));
    fixture_model(clip, *state, NULL);
    assert_int_equal(lk_embedder_open(*state, &e), LK_OK);
    assert_false(lk_embedder_has_text(e)); /* without a tokenizer */
    lk_embedder_free(e);
    copy_tokenizer(*state);
    assert_int_equal(lk_embedder_open(*state, &e), LK_OK);
    assert_true(lk_embedder_has_text(e));
    assert_int_equal(lk_embedder_dim(e), 20);
    if (lk_embedder_embed_text(e, texts, 4, out[0]) != LK_OK) fail_msg("%s", lk_error_message());
    for (int t = 0; t < 4; t++) assert_unit(out[t], 20);
    assert_memory_equal(out[0], out[3], sizeof out[0]);
    assert_memory_not_equal(out[0], out[1], sizeof out[0]);
    assert_int_equal(lk_embedder_embed_text(e, texts + 1, 1, alone), LK_OK);
    assert_memory_equal(alone, out[1], sizeof alone);
    assert_int_equal(lk_embedder_embed_text(e, (const char *const[]){"\xff"}, 1, alone), LK_INVALID);
    lk_embedder_free(e);
    json_decref(clip);
    json_decref(cases);
}

static void damaged_directories_of_our_own_are_refused(void **state)
{
    static const char *const bad[] = {
        "{\"kind\":\"neural\"}",
        "{\"kind\":\"neural\",\"version\":2,\"pool\":\"avg\",\"precision\":\"f32\"}",
        "{\"kind\":\"neural\",\"version\":1,\"pool\":\"sum\",\"precision\":\"f32\"}",
        "{\"kind\":\"neural\",\"version\":1,\"pool\":\"avg\",\"precision\":\"int8\"}",
        "{\"kind\":\"neural\",\"version\":1,\"pool\":\"avg\",\"precision\":\"int8\",\"ranges\":[1,\"x\"]}",
        "{\"kind\":\"neural\",\"version\":1,\"pool\":\"avg\",\"precision\":\"int8\",\"ranges\":[1]}"};
    const lk_status status[] = {LK_CORRUPT, LK_UNSUPPORTED, LK_CORRUPT, LK_CORRUPT, LK_CORRUPT, LK_OK};
    char path[300];
    lk_embedder *e;
    snprintf(path, sizeof path, "%s/network", (char *)*state);
    assert_int_equal(mkdir(path, 0777), 0);
    make_model("ResNet, basic blocks", path, NULL);
    snprintf(path, sizeof path, "%s/config.json", (char *)*state);
    for (int i = 0; i < 6; i++) {
        FILE *f = fopen(path, "w");
        fputs(bad[i], f);
        fclose(f);
        lk_status s = lk_embedder_open(*state, &e);
        if (s != status[i]) fail_msg("%s: status %d, \"%s\"", bad[i], s, lk_error_message());
        if (s == LK_OK) { /* the wrong number of ranges shows when the graph is compiled */
            lk_image image = make_picture(1);
            float *out = malloc(lk_embedder_dim(e) * sizeof *out);
            assert_int_not_equal(lk_embedder_embed(e, &image, 1, out), LK_OK);
            free(out);
            lk_image_free(&image);
            lk_embedder_free(e);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_do_not_depend_on_batches_or_threads, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(ids_tell_pooling_precision_and_weights_apart, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_saved_embedder_gives_the_same_vectors, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(coarser_arithmetic_stays_close, unit_folder, unit_folder_remove),
        cmocka_unit_test(poolings_are_what_they_are_called),
        cmocka_unit_test_setup_teardown(a_pooling_that_cannot_be_is_refused, unit_folder, unit_folder_remove),
        cmocka_unit_test(vectors_of_nan_or_nothing_are_reported),
        cmocka_unit_test_setup_teardown(texts_land_in_the_space_of_pictures, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(damaged_directories_of_our_own_are_refused, unit_folder, unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
