/* What the tests of training share: small drawings, bars of six directions in any colours, so that colour, which an
 * untrained network goes by, says nothing. */
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include "unit.h"

#include "base/file.h"
#include "base/random.h"

#include <likeness/eval.h>
#include <likeness/likeness.h>
#include <math.h>

enum { SIDE = 48, CLASSES = 6, TRAINING = 8, VALIDATION = 4 };

__attribute__((unused)) static void draw(lk_image *image, int direction, lk_random *random)
{
    int ground[3], ink[3];
    double angle = M_PI * direction / CLASSES, width = 4 + 3 * lk_random_unit(random);
    double x0 = SIDE / 2.0 + 6 * (lk_random_unit(random) - 0.5), y0 = SIDE / 2.0 + 6 * (lk_random_unit(random) - 0.5);
    for (int k = 0; k < 3; k++) {
        ground[k] = (int)lk_random_below(random, 256);
        ink[k] = (ground[k] + 100 + (int)lk_random_below(random, 56)) % 256;
    }
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            double across = fabs((x - x0) * sin(angle) - (y - y0) * cos(angle));
            for (int k = 0; k < 3; k++)
                image->pixels[(y * SIDE + x) * 3 + k] = (uint8_t)(across < width / 2 ? ink[k] : ground[k]);
        }
}

__attribute__((unused)) static void write_picture(const char *path, int direction, lk_random *random)
{
    uint8_t pixels[SIDE * SIDE * 3], *bytes;
    size_t size;
    lk_image image = {.pixels = pixels, .width = SIDE, .height = SIDE, .channels = 3};
    draw(&image, direction, random);
    assert_int_equal(lk_image_encode(&image, LK_FORMAT_PNG, 100, &bytes, &size), LK_OK);
    assert_int_equal(lk_file_write_atomic(path, bytes, size), LK_OK);
    free(bytes);
}

__attribute__((unused)) static const char *in(const char *folder, const char *name)
{
    static char paths[8][1024];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, 1024, "%s/%s", folder, name);
    return path;
}

/* Pictures and labels.csv; extra: lines put at its end. */
__attribute__((unused)) static const char *make_data(const char *folder, const char *extra)
{
    lk_random random;
    lk_random_seed(&random, 7);
    static char csv[1024];
    snprintf(csv, sizeof csv, "%s/labels.csv", folder);
    FILE *out = fopen(csv, "w");
    assert_non_null(out);
    fputs("path,label,split\n", out);
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < TRAINING + VALIDATION; i++) {
            char name[64];
            snprintf(name, sizeof name, "%d-%d.png", c, i);
            write_picture(in(folder, name), c, &random);
            fprintf(out, "%s,bar%d,%s\n", name, c, i < TRAINING ? "train" : "validation");
        }
    fputs(extra, out);
    fclose(out);
    out = fopen(in(folder, "backbone.json"), "w");
    fputs("{\"architecture\":\"resnet18\",\"model_args\":{\"layers\":[1,1,1,1],\"channels\":[8,8,16,16],"
          "\"stem_width\":8}}",
          out);
    fclose(out);
    return csv;
}

__attribute__((unused)) static lk_train_options small_options(const char *folder)
{
    lk_train_options o = lk_train_defaults();
    static char backbone[512];
    snprintf(backbone, sizeof backbone, "%s/backbone.json", folder);
    o.backbone = backbone;
    o.head.dim = 16;
    o.size = SIDE;
    o.batch = 24;
    o.batches = 8;
    o.epochs = 6;
    o.optimiser.rate = 3e-3;
    o.augment = LK_AUGMENT_NONE;
    o.loss_given = true;
    o.loss = lk_loss_defaults(LK_LOSS_SUPCON);
    o.seed = 3;
    o.overwrite = true;
    return o;
}

__attribute__((unused)) static lk_status train(const char *csv, const lk_train_options *options, const char *into,
                                               const lk_context_options *how, lk_train_report *report)
{
    lk_context *context;
    lk_train_data *data = NULL;
    const lk_context_options one = {.threads = 1};
    assert_int_equal(lk_context_new(how ? how : &one, &context), LK_OK);
    lk_status s = lk_train_data_open(context, csv, NULL, &data);
    if (s == LK_OK) s = lk_train(context, data, options, into, NULL, NULL, report);
    if (s != LK_OK) print_message("%s\n", lk_error_message());
    lk_train_data_free(data);
    lk_context_free(context);
    return s;
}

__attribute__((unused)) static void assert_same_file(const char *a, const char *b)
{
    uint8_t *x, *y;
    size_t n, m;
    assert_int_equal(lk_file_read(a, 0, &x, &n), LK_OK);
    assert_int_equal(lk_file_read(b, 0, &y, &m), LK_OK);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

/* mAP of the validation pictures by the vectors of an embedder. */
__attribute__((unused)) static double map_of(const char *folder, const char *model)
{
    enum { N = CLASSES * VALIDATION };
    lk_embedder *embedder;
    assert_int_equal(lk_embedder_open(model, &embedder), LK_OK);
    size_t dim = lk_embedder_dim(embedder);
    float *vectors = malloc(N * dim * sizeof *vectors), scores[N];
    uint64_t ids[N], ranks[N];
    double sum = 0, row[LK_EVAL_MAX_COLUMNS];
    const uint32_t ks[] = {1};
    for (int i = 0; i < N; i++) {
        char name[64];
        lk_image image;
        lk_image_options options = lk_embedder_image_options(embedder);
        snprintf(name, sizeof name, "%d-%d.png", i / VALIDATION, TRAINING + i % VALIDATION);
        assert_int_equal(lk_image_load(in(folder, name), &options, &image), LK_OK);
        assert_int_equal(lk_embedder_embed(embedder, &image, 1, vectors + (size_t)i * dim), LK_OK);
        lk_image_free(&image);
        ids[i] = (uint64_t)i;
    }
    for (int q = 0; q < N; q++) {
        size_t relevant[N], found = 0;
        for (int i = 0; i < N; i++) {
            scores[i] = 0;
            for (size_t k = 0; k < dim; k++) scores[i] += vectors[(size_t)q * dim + k] * vectors[(size_t)i * dim + k];
            if (i != q && i / VALIDATION == q / VALIDATION) relevant[found++] = (size_t)i;
        }
        assert_int_equal(lk_eval_ranks(scores, ids, N, 1, (size_t)q, NULL, relevant, found, ranks, NULL), LK_OK);
        assert_int_equal(lk_eval_query(ranks, NULL, found, found, NULL, ks, 1, row), LK_OK);
        sum += row[LK_EVAL_MAP];
    }
    free(vectors);
    lk_embedder_free(embedder);
    return sum / N;
}

#endif
