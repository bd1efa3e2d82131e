/* Labels in levels, heads, branches and samplers of a training. */
#include "train_fixture.h"

#include "embed/head.h"
#include "embed/whiten.h"
#include "train/data.h"
#include "train/hierarchy.h"
#include "train/network.h"

#include <sys/stat.h>

/* ---- labels in levels ---- */

/* The drawings with a CSV of another heading; line fills in what follows the path. */
static const char *levels_csv(const char *folder, const char *name, const char *heading,
                              void (*line)(FILE *out, int class))
{
    static char csv[1024];
    make_data(folder, "");
    snprintf(csv, sizeof csv, "%s/%s", folder, name);
    FILE *out = fopen(csv, "w");
    fprintf(out, "path,%s\n", heading);
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < TRAINING; i++) {
            fprintf(out, "%d-%d.png,", c, i);
            line(out, c);
        }
    fclose(out);
    return csv;
}

static const char *kind_of(int class)
{
    return class < 3 ? "flat" : "steep";
}
static void one_column(FILE *out, int class)
{
    fprintf(out, "bars/%s/bar%d\n", kind_of(class), class);
}
static void two_columns(FILE *out, int class)
{
    fprintf(out, "%s,%d\n", kind_of(class), class);
}
/* The last two classes end at the second level. */
static void unfinished(FILE *out, int class)
{
    fprintf(out, class < 4 ? "bars/%s/bar%d\n" : "bars/%s\n", kind_of(class), class);
}

/* Similarity of the first training pictures of two classes, found by their file names. */
static double similarity(const lk_train_data *data, int a, int b, int other)
{
    const lk_train_part *parts[] = {&data->training, &data->validation};
    int32_t classes[2 * LK_LEVELS_MOST];
    size_t levels = data->levels;
    assert_true(levels <= LK_LEVELS_MOST);
    for (int k = 0; k < 2; k++) {
        char name[64];
        bool found = false;
        snprintf(name, sizeof name, "/%d-%d.png", k ? b : a, k ? other : 0);
        for (int p = 0; p < 2; p++)
            for (size_t i = 0; i < parts[p]->count; i++)
                if (strstr(data->paths[parts[p]->pictures[i]], name)) {
                    memcpy(classes + (size_t)k * levels, parts[p]->levels + i * levels, levels * sizeof *classes);
                    found = true;
                }
        assert_true(found);
    }
    const lk_labels labels = {.kind = LK_LABELS_HIERARCHY, .classes = classes, .levels = levels};
    return lk_label_similarity(&labels, 0, &labels, 1);
}

static lk_train_data *open_levels(const char *csv, const char *levels)
{
    lk_train_data *data;
    if (lk_train_data_open(NULL, csv, levels, &data) != LK_OK) fail_msg("%s", lk_error_message());
    return data;
}

static void levels_come_from_one_column_or_several(void **state)
{
    lk_train_data *data = open_levels(levels_csv(*state, "levels.csv", "levels", one_column), NULL);
    lk_train_data_info info = lk_train_data_info_of(data);
    assert_int_equal(info.labels.kind, LK_LABELS_HIERARCHY);
    assert_int_equal(info.labels.levels, 3);
    assert_int_equal(info.held_out, 2); /* of the finest level */
    assert_int_equal(info.classes, CLASSES - 2);
    assert_true(similarity(data, 0, 0, 1) == 1);
    assert_true(fabs(similarity(data, 0, 2, 1) - 2.0 / 3) < 1e-12);
    assert_true(fabs(similarity(data, 0, 3, 1) - 1.0 / 3) < 1e-12);
    lk_train_data_free(data);

    data = open_levels(levels_csv(*state, "columns.csv", "level1,level2", two_columns), NULL);
    assert_int_equal(lk_train_data_info_of(data).labels.levels, 2);
    assert_true(similarity(data, 0, 2, 1) == 0.5 && similarity(data, 2, 3, 1) == 0 && similarity(data, 4, 4, 1) == 1);
    lk_train_data_free(data);

    const char *csv = levels_csv(*state, "named.csv", "shape,angle", two_columns);
    data = open_levels(csv, "shape,angle");
    assert_true(similarity(data, 0, 2, 1) == 0.5);
    lk_train_data_free(data);
    data = open_levels(csv, "angle"); /* one level is no hierarchy */
    assert_int_equal(lk_train_data_info_of(data).labels.kind, LK_LABELS_SINGLE);
    lk_train_data_free(data);
    assert_int_equal(lk_train_data_open(NULL, csv, "shape,size", &data), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "size"));
    assert_int_equal(lk_train_data_open(NULL, csv, "folders", &data), LK_INVALID);
}

static void picture_without_the_finest_level_shares_it_with_none(void **state)
{
    lk_train_data *data = open_levels(levels_csv(*state, "levels.csv", "levels", unfinished), NULL);
    assert_int_equal(lk_train_data_info_of(data).labels.levels, 3);
    assert_true(fabs(similarity(data, 4, 5, 1) - 2.0 / 3) < 1e-12);
    assert_true(fabs(similarity(data, 4, 4, 1) - 2.0 / 3) < 1e-12);
    assert_true(fabs(similarity(data, 3, 4, 1) - 2.0 / 3) < 1e-12);
    lk_train_data_free(data);
}

static void folders_can_be_levels(void **state)
{
    static const char *const folders[] = {"a/x", "a/y", "b/x"};
    lk_random random;
    lk_random_seed(&random, 1);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 4; i++) {
            char name[64];
            snprintf(name, sizeof name, "tree/%s", folders[c]);
            assert_int_equal(lk_make_dirs(in(*state, name)), LK_OK);
            snprintf(name, sizeof name, "tree/%s/%d-%d.png", folders[c], c, i);
            write_picture(in(*state, name), c, &random);
        }
    lk_train_data *data = open_levels(in(*state, "tree"), "folders");
    assert_int_equal(lk_train_data_info_of(data).labels.levels, 2);
    assert_true(similarity(data, 0, 1, 1) == 0.5);
    assert_true(similarity(data, 0, 2, 1) == 0); /* x of a and x of b are different classes */
    lk_train_data_free(data);
    data = open_levels(in(*state, "tree"), NULL);
    assert_int_equal(lk_train_data_info_of(data).labels.kind, LK_LABELS_SINGLE);
    lk_train_data_free(data);
}

/* Mean cosine between pictures of different classes, of one kind or of two. */
static void cosines(const char *folder, const char *model, double *within, double *across)
{
    enum { N = CLASSES * VALIDATION, DIM = 16 };
    lk_embedder *embedder;
    float vectors[N][DIM];
    size_t counts[2] = {0};
    double sums[2] = {0};
    assert_int_equal(lk_embedder_open(model, &embedder), LK_OK);
    for (int i = 0; i < N; i++) {
        char name[64];
        lk_image image;
        lk_image_options options = lk_embedder_image_options(embedder);
        snprintf(name, sizeof name, "%d-%d.png", i / VALIDATION, TRAINING + i % VALIDATION);
        assert_int_equal(lk_image_load(in(folder, name), &options, &image), LK_OK);
        assert_int_equal(lk_embedder_embed(embedder, &image, 1, vectors[i]), LK_OK);
        lk_image_free(&image);
    }
    lk_embedder_free(embedder);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++) {
            int a = i / VALIDATION, b = j / VALIDATION, far = kind_of(a) != kind_of(b);
            double cosine = 0;
            if (a == b) continue;
            for (int k = 0; k < DIM; k++) cosine += (double)(vectors[i][k] * vectors[j][k]);
            sums[far] += cosine;
            counts[far]++;
        }
    *within = sums[0] / (double)counts[0];
    *across = sums[1] / (double)counts[1];
}

/* Directions 0, 30, 60 degrees are one kind and 90, 120, 150 the other: as a circle both kinds touch twice, so that
 * only the labels can draw each kind together. */
static void kinds_are_drawn_together_by_their_levels(void **state)
{
    const char *csv = levels_csv(*state, "columns.csv", "level1,level2", two_columns);
    lk_train_options o = small_options(*state);
    lk_train_report report;
    double within, across;
    o.loss_given = false;
    o.epochs = 12;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_non_null(strstr(report.reason, "hierarchy of 2 levels"));
    cosines(*state, in(*state, "model"), &within, &across);
    print_message("cosine of different classes: %.2f within a kind, %.2f across\n", within, across);
    assert_true(within > across + 0.1);
}

static void every_loss_takes_levels_in_its_way(void **state)
{
    const char *csv = levels_csv(*state, "levels.csv", "levels", one_column);
    for (int k = 0; k < LK_LOSS_KINDS; k++) {
        lk_train_options o = small_options(*state);
        o.loss = lk_loss_defaults((lk_loss_kind)k);
        o.epochs = 1;
        o.batches = 2;
        if (train(csv, &o, in(*state, "model"), NULL, NULL) != LK_OK)
            fail_msg("%s: %s", lk_loss_name((lk_loss_kind)k), lk_error_message());
    }
    lk_train_options o = small_options(*state);
    o.loss = lk_loss_defaults(LK_LOSS_CONTRASTIVE);
    o.loss.memory = 64;
    o.epochs = 1;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
    o = small_options(*state);
    o.epochs = 1;
    o.pairs_given = true;
    o.pairs = (lk_pair_rule){.positive = 0.6, .negative = 0.3};
    for (int k = 0; k < LK_MINER_KINDS; k++) {
        o.miner_given = true;
        o.miner = lk_miner_defaults((lk_miner_kind)k);
        if (train(csv, &o, in(*state, "model"), NULL, NULL) != LK_OK)
            fail_msg("%s: %s", lk_miner_name((lk_miner_kind)k), lk_error_message());
    }
}

static void several_labels_and_class_weights_do_not_go_together(void **state)
{
    make_data(*state, "");
    FILE *out = fopen(in(*state, "several.csv"), "w");
    fputs("path,labels\n", out);
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < TRAINING; i++) fprintf(out, "%d-%d.png,bar%d;%s\n", c, i, c, kind_of(c));
    fclose(out);
    lk_train_options o = small_options(*state);
    o.loss = lk_loss_defaults(LK_LOSS_ARCFACE);
    assert_int_equal(train(in(*state, "several.csv"), &o, in(*state, "model"), NULL, NULL), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "several labels"));
}

/* ---- samplers ---- */

static void every_sampler_trains(void **state)
{
    static const lk_sampler_kind kinds[] = {LK_SAMPLER_PLAIN, LK_SAMPLER_PK, LK_SAMPLER_BALANCED,
                                            LK_SAMPLER_HARD_CLASS};
    const char *csv = make_data(*state, "");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        lk_train_options o = small_options(*state);
        lk_train_report report;
        o.sampler_given = true;
        o.sampler = kinds[k];
        o.per_class = 6; /* four of the six classes a batch: confusable ones matter */
        o.epochs = 3;
        assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
        assert_int_equal(report.steps, 24);
    }
}

/* ---- heads ---- */

static void vit_backbone(const char *folder)
{
    FILE *out = fopen(in(folder, "vit.json"), "w");
    fputs(
        "{\"architecture\":\"vit_tiny_patch16_224\",\"model_args\":{\"img_size\":[48,48],\"embed_dim\":32,\"depth\":1,"
        "\"num_heads\":2}}",
        out);
    fclose(out);
}

static void every_head_embeds_in_use_as_in_validation(void **state)
{
    static const struct {
        lk_head_options head;
        bool tokens;
        size_t dim;
    } heads[] = {
        {{.pool = LK_HEAD_CGD, .dim = 16}, false, 16},
        {{.pool = LK_HEAD_CGD, .dim = 15, .neck = true, .descriptors = {true, false, true}}, false, 15},
        {{.pool = LK_HEAD_GEM, .p_per_channel = true, .dim = 16}, false, 16},
        {{.pool = LK_HEAD_RMAC, .levels = 2}, false, 16},
        {{.pool = LK_HEAD_RMAC, .levels = 2, .whiten_regions = true}, false, 16},
        {{.pool = LK_HEAD_GEM, .dim = 16, .neck = true, .drop_block = 0.4f}, false, 16},
        {{.pool = LK_HEAD_CLS, .dim = 16, .neck = true}, true, 16},
        {{.pool = LK_HEAD_GEM, .dim = 0}, true, 32},
        {{.pool = LK_HEAD_CGD, .dim = 16, .drop_block = 0.4f}, true, 16},
    };
    const char *csv = make_data(*state, "");
    vit_backbone(*state);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        lk_train_options o = small_options(*state);
        lk_train_report report;
        lk_embedder *embedder;
        char backbone[512];
        snprintf(backbone, sizeof backbone, "%s/vit.json", (char *)*state);
        if (heads[i].tokens) o.backbone = backbone;
        o.head = heads[i].head;
        o.epochs = 2;
        if (train(csv, &o, in(*state, "model"), NULL, &report) != LK_OK) fail_msg("%s", lk_error_message());
        assert_int_equal(lk_embedder_open(in(*state, "model"), &embedder), LK_OK);
        assert_int_equal(lk_embedder_dim(embedder), heads[i].dim);
        lk_embedder_free(embedder);
        double map = map_of(*state, in(*state, "model"));
        print_message("head %zu: mAP %.3f in use, %.3f in validation\n", i, map, report.best_map);
        assert_true(fabs(map - report.best_map) < 0.02);
        o.backbone = in(*state, "model"); /* and it is a start for another training */
        o.optimiser.rate = 1e-12;
        if (!heads[i].tokens) o.freeze = "conv1,bn1,layer1,layer2,layer3,layer4"; /* running statistics stay too */
        o.epochs = 1;
        assert_int_equal(train(csv, &o, in(*state, "again"), NULL, &report), LK_OK);
        if (!o.head.neck) assert_true(fabs(map - report.best_map) < 0.02);
    }
}

static void heads_that_do_not_fit_are_refused(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    char backbone[512];
    vit_backbone(*state);
    o.head.pool = LK_HEAD_CLS;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_UNSUPPORTED);
    o.head.pool = LK_HEAD_RMAC;
    snprintf(backbone, sizeof backbone, "%s/vit.json", (char *)*state);
    o.backbone = backbone;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_UNSUPPORTED);
    o.head = (lk_head_options){.pool = LK_HEAD_CGD, .dim = 2};
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_INVALID);
    o.head = (lk_head_options){.pool = LK_HEAD_GEM, .drop_block = 1};
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_INVALID);
}

static void fixed_exponent_stays(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    uint8_t *text;
    size_t size;
    o.epochs = 1;
    o.head.p = 20;
    o.head.fixed_p = true;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
    assert_int_equal(lk_file_read(in(*state, "model/config.json"), 0, &text, &size), LK_OK);
    assert_non_null(strstr((char *)text, "\"p\": 20.0"));
    free(text);
}

/* The branch is trained by a strip that is missing, and is not part of the model. */
static void dropped_blocks_change_what_is_learnt_but_not_the_model(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    struct stat with, without;
    o.epochs = 1;
    assert_int_equal(train(csv, &o, in(*state, "plain"), NULL, NULL), LK_OK);
    o.head.drop_block = 0.4f;
    assert_int_equal(train(csv, &o, in(*state, "dropped"), NULL, NULL), LK_OK);
    assert_int_equal(stat(in(*state, "plain/model.safetensors"), &without), 0);
    assert_int_equal(stat(in(*state, "dropped/model.safetensors"), &with), 0);
    assert_int_equal(with.st_size, without.st_size);
    uint8_t *a, *b;
    size_t n, m;
    assert_int_equal(lk_file_read(in(*state, "plain/model.safetensors"), 0, &a, &n), LK_OK);
    assert_int_equal(lk_file_read(in(*state, "dropped/model.safetensors"), 0, &b, &m), LK_OK);
    assert_true(n == m && memcmp(a, b, n) != 0);
    free(a);
    free(b);
}

/* ---- gradients of pooling, tokens included, by finite differences ---- */

enum { PICTURES = 2, CHANNELS = 5, PLACES = 6, LEADING = 2, MOST = PICTURES * CHANNELS * (PLACES + LEADING) };

static double value_of(const lk_head_pooling *how, const lk_head_map *map, const float *x, const float *slopes)
{
    float out[PICTURES * 16];
    double sum = 0;
    size_t width = lk_head_pool_width(how, map);
    assert_int_equal(lk_head_pool_forward(how, map, PICTURES, x, out), LK_OK);
    for (size_t i = 0; i < PICTURES * width; i++) sum += (double)out[i] * (double)slopes[i];
    return sum;
}

/* Central differences of each value against its gradient. */
static void check(const lk_head_pooling *how, const lk_head_map *map, const float *x, const float *slopes,
                  float *values, const float *gradient, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float kept = values[i], step = 1e-3f;
        values[i] = kept + step;
        double above = value_of(how, map, x, slopes), high = (double)values[i];
        values[i] = kept - step;
        double below = value_of(how, map, x, slopes), low = (double)values[i];
        values[i] = kept;
        double slope = (above - below) / (high - low);
        if (fabs(slope - (double)gradient[i]) > 3e-3 * fmax(1, fabs(slope)))
            fail_msg("%s, value %zu: gradient %.5f, but the slope is %.5f", lk_head_pool_names[how->pool], i,
                     (double)gradient[i], slope);
    }
}

static void pooling_gradients_match_finite_differences(void **state)
{
    (void)state;
    lk_random random;
    lk_random_seed(&random, 3);
    for (int k = 0; k <= LK_HEAD_POOLS; k++) /* the last one is R-MAC once more, whitened */
        for (int tokens = 0; tokens < 2; tokens++) {
            int pool = k < LK_HEAD_POOLS ? k : LK_HEAD_RMAC;
            bool whitens = k == LK_HEAD_POOLS;
            float x[MOST], gx[MOST], slopes[PICTURES * 16], out[PICTURES * 16], p[CHANNELS], gp[CHANNELS];
            float weights[7 * CHANNELS], gw[7 * CHANNELS];
            const lk_head_map map = {.channels = CHANNELS,
                                     .places = PLACES,
                                     .leading = tokens ? LEADING : 0,
                                     .tokens = tokens,
                                     .height = tokens ? 1 : 2,
                                     .width = tokens ? PLACES : 3};
            lk_head_pooling how = {.pool = (lk_head_pool)pool, .p = p, .p_count = CHANNELS, .levels = 2};
            size_t n = PICTURES * CHANNELS * (PLACES + map.leading);
            for (size_t i = 0; i < n; i++) x[i] = (float)(0.2 + lk_random_unit(&random));
            for (size_t i = 0; whitens && i < n; i++) /* no two of a map so near that a step changes their order */
                x[i] = (float)(0.2 + 0.15 * (double)((i % PLACES * 5 + i / PLACES) % PLACES));
            for (size_t i = 0; i < PICTURES * 16; i++) slopes[i] = (float)lk_random_normal(&random);
            for (size_t i = 0; i < CHANNELS; i++) p[i] = (float)(2 + lk_random_unit(&random));
            for (size_t i = 0; i < 7 * CHANNELS; i++) weights[i] = (float)lk_random_normal(&random);
            if (pool == LK_HEAD_CGD) {
                how.branch_count = 2;
                how.branches[0] = (lk_cgd_branch){.kind = LK_CGD_AVERAGE, .weight = weights, .out = 4};
                how.branches[1] =
                    (lk_cgd_branch){.kind = LK_CGD_GEM, .p = 3, .weight = weights + 4 * CHANNELS, .out = 3};
            }
            if (whitens) how.whitening = (lk_whitening){weights, weights + CHANNELS * CHANNELS, CHANNELS};
            if (lk_head_pool_check(&how, &map) != LK_OK) continue;
            assert_int_equal(lk_head_pool_forward(&how, &map, PICTURES, x, out), LK_OK);
            memset(gx, 0x7f, sizeof gx); /* written, not added to */
            assert_int_equal(lk_head_pool_backward(&how, &map, PICTURES, x, out, slopes, gx,
                                                   pool == LK_HEAD_GEM ? gp : NULL,
                                                   (float *const[]){gw, gw + (whitens ? CHANNELS : 4) * CHANNELS}),
                             LK_OK);
            check(&how, &map, x, slopes, x, gx, n);
            if (pool == LK_HEAD_GEM) check(&how, &map, x, slopes, p, gp, CHANNELS);
            if (pool == LK_HEAD_CGD) check(&how, &map, x, slopes, weights, gw, 7 * CHANNELS);
            if (whitens) check(&how, &map, x, slopes, weights, gw, CHANNELS * (CHANNELS + 1));
        }
}

/* ---- the classifier beside CGD ---- */

static double value_beside(lk_network *net, const lk_net_lesson *lesson)
{
    double value = 0;
    assert_int_equal(lk_auxiliary_backward(net, lesson, &value), LK_OK);
    return value;
}

static void compare_slopes(lk_network *net, const lk_net_lesson *lesson, const char *what, float *values,
                           const float *gradient, size_t n)
{
    for (size_t i = 0; i < n; i += 1 + n / 40) {
        const float kept = values[i], step = 0.01f * (fabsf(kept) + 0.1f);
        values[i] = kept + step;
        double above = value_beside(net, lesson), high = (double)values[i];
        values[i] = kept - step;
        double below = value_beside(net, lesson), slope = (above - below) / (high - (double)values[i]);
        values[i] = kept;
        if (fabs(slope - (double)gradient[i]) > 1e-4 + 0.02 * fabs(slope))
            fail_msg("%s %zu: gradient %.6f, but the slope is %.6f", what, i, (double)gradient[i], slope);
    }
}

static void classifier_gradients_match_finite_differences(void **state)
{
    static const bool descriptors[2][LK_CGD_KINDS] = {{true, true, false}, {false, false, true}};
    make_data(*state, "");
    for (int k = 0; k < 2; k++) {
        lk_train_options o = small_options(*state);
        lk_network net;
        lk_loss_options loss = lk_loss_defaults(LK_LOSS_SUPCON);
        int32_t classes[6] = {0, 2, 1, 2, 0, 1};
        o.batch = 6;
        o.head = (lk_head_options){.pool = LK_HEAD_CGD, .dim = 8};
        memcpy(o.head.descriptors, descriptors[k], sizeof descriptors[k]);
        o.auxiliary = (lk_auxiliary_options){.weight = 0.7, .temperature = 0.5, .smoothing = 0.1};
        assert_int_equal(lk_network_open(&o, &loss, 3, 1, &net), LK_OK);
        size_t map = 6 * net.map.channels * net.map.places;
        float *gradient = malloc(map * sizeof *gradient);
        /* no two of a map so near that a step changes their order */
        for (size_t i = 0; i < map; i++) net.features[i] = 0.2f + (float)(i * 37 % 101) / 101;
        const lk_net_lesson lesson = {.classes = classes, .share = 1};
        memset(net.g_features, 0, map * sizeof(float));
        value_beside(&net, &lesson);
        memcpy(gradient, net.g_features, map * sizeof *gradient);
        float weights[3 * 16], biases[3];
        assert_int_equal(net.map.channels, 16);
        memcpy(weights, net.auxiliary.weight_gradient, sizeof weights);
        memcpy(biases, net.auxiliary.bias_gradient, sizeof biases);
        compare_slopes(&net, &lesson, "feature", net.features, gradient, map);
        compare_slopes(&net, &lesson, "weight", net.auxiliary.weight, weights, 3 * 16);
        compare_slopes(&net, &lesson, "bias", net.auxiliary.bias, biases, 3);
        free(gradient);
        lk_network_free(&net);
    }
}

static void classifier_teaches_the_network_and_is_not_part_of_the_model(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    struct stat with, without;
    o.epochs = 1;
    o.head = (lk_head_options){.pool = LK_HEAD_CGD, .dim = 16};
    assert_int_equal(train(csv, &o, in(*state, "plain"), NULL, NULL), LK_OK);
    o.auxiliary.weight = 1;
    assert_int_equal(train(csv, &o, in(*state, "beside"), NULL, NULL), LK_OK);
    assert_int_equal(stat(in(*state, "plain/model.safetensors"), &without), 0);
    assert_int_equal(stat(in(*state, "beside/model.safetensors"), &with), 0);
    assert_int_equal(with.st_size, without.st_size);
    uint8_t *a, *b;
    size_t n, m;
    assert_int_equal(lk_file_read(in(*state, "plain/model.safetensors"), 0, &a, &n), LK_OK);
    assert_int_equal(lk_file_read(in(*state, "beside/model.safetensors"), 0, &b, &m), LK_OK);
    assert_true(n == m && memcmp(a, b, n) != 0);
    free(a);
    free(b);
    FILE *out = fopen(in(*state, "single.csv"), "w"); /* learnt from two views of each */
    fputs("path,label\n", out);
    for (int i = 0; i < TRAINING; i++) fprintf(out, "0-%d.png,own%d\n", i, i);
    fclose(out);
    o.loss_given = false;
    assert_int_equal(train(in(*state, "single.csv"), &o, in(*state, "model"), NULL, NULL), LK_OK);
    o.head.pool = LK_HEAD_GEM;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "cgd"));
}

/* ---- whitening at the end ---- */

/* Vectors of all training pictures, class after class. */
static void embed_training(const char *folder, const char *model, size_t dim, float *out)
{
    lk_embedder *embedder;
    assert_int_equal(lk_embedder_open(model, &embedder), LK_OK);
    assert_int_equal(lk_embedder_dim(embedder), dim);
    for (int i = 0; i < CLASSES * TRAINING; i++) {
        char name[64];
        lk_image image;
        lk_image_options options = lk_embedder_image_options(embedder);
        snprintf(name, sizeof name, "%d-%d.png", i / TRAINING, i % TRAINING);
        assert_int_equal(lk_image_load(in(folder, name), &options, &image), LK_OK);
        assert_int_equal(lk_embedder_embed(embedder, &image, 1, out + (size_t)i * dim), LK_OK);
        lk_image_free(&image);
    }
    lk_embedder_free(embedder);
}

static void whitened_model_embeds_as_the_formula_says(void **state)
{
    enum { N = CLASSES * TRAINING, DIM = 16, KEPT = 6 };
    const char *csv = make_data(*state, "");
    static float plain[N * DIM], spent[N * DIM], got[N * KEPT];
    lk_pair pairs[4 * N];
    size_t count = 0;
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = i + 1; j < N && j <= i + 4 && j / TRAINING == i / TRAINING; j++)
            pairs[count++] = (lk_pair){i, j};
    for (int kind = LK_WHITEN_PCA; kind <= LK_WHITEN_LEARNT; kind++) {
        lk_train_options o = small_options(*state);
        lk_context *context;
        lk_pca w;
        o.epochs = 2;
        o.head.pool = LK_HEAD_RMAC;
        assert_int_equal(train(csv, &o, in(*state, "plain"), NULL, NULL), LK_OK);
        o.whiten = (lk_whiten_kind)kind;
        o.whiten_dim = KEPT;
        assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
        o.overwrite = false;
        o.resume = true; /* whitened once, and not once more */
        assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
        embed_training(*state, in(*state, "plain"), DIM, plain);
        embed_training(*state, in(*state, "model"), KEPT, got);
        assert_int_equal(lk_context_new(&(lk_context_options){.threads = 1}, &context), LK_OK);
        memcpy(spent, plain, sizeof spent);
        if (kind == LK_WHITEN_PCA)
            assert_int_equal(lk_pca_fit(context, spent, N, DIM, KEPT, 0, &w), LK_OK);
        else
            assert_int_equal(lk_whiten_pairs(plain, N, DIM, pairs, count, KEPT, &w), LK_OK);
        for (int i = 0; i < N; i++) {
            float y[KEPT], cosine = 0;
            lk_pca_apply(&w, plain + i * DIM, y);
            assert_int_equal(lk_normalise_forward(1, KEPT, y, 1e-12f, y), LK_OK);
            for (int k = 0; k < KEPT; k++) cosine += y[k] * got[i * KEPT + k];
            if (!(cosine > 0.9999f)) fail_msg("picture %d: cosine %.6f to the formula's vector", i, (double)cosine);
        }
        lk_pca_free(&w);
        lk_context_free(context);
        o.whiten_dim = 0; /* fewer were kept: all are another wish */
        assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
        lk_embedder *embedder;
        assert_int_equal(lk_embedder_open(in(*state, "model"), &embedder), LK_OK);
        assert_true(lk_embedder_dim(embedder) > KEPT);
        lk_embedder_free(embedder);
    }
}

static void whitening_that_cannot_be_learnt_is_refused_before_training(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    o.whiten = LK_WHITEN_PCA;
    o.whiten_dim = 17;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_INVALID);
    FILE *out = fopen(in(*state, "plain.csv"), "w");
    fputs("path\n", out);
    for (int i = 0; i < TRAINING; i++) fprintf(out, "0-%d.png\n", i);
    fclose(out);
    o = small_options(*state);
    o.loss_given = false;
    o.whiten = LK_WHITEN_LEARNT;
    assert_int_equal(train(in(*state, "plain.csv"), &o, in(*state, "model"), NULL, NULL), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "pca"));
    assert_false(lk_path_exists(in(*state, "model/config.json")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_folder, unit_folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(levels_come_from_one_column_or_several),
        TEST(picture_without_the_finest_level_shares_it_with_none),
        TEST(folders_can_be_levels),
        TEST(kinds_are_drawn_together_by_their_levels),
        TEST(every_loss_takes_levels_in_its_way),
        TEST(several_labels_and_class_weights_do_not_go_together),
        TEST(every_sampler_trains),
        TEST(every_head_embeds_in_use_as_in_validation),
        TEST(heads_that_do_not_fit_are_refused),
        TEST(fixed_exponent_stays),
        TEST(dropped_blocks_change_what_is_learnt_but_not_the_model),
        cmocka_unit_test(pooling_gradients_match_finite_differences),
        TEST(classifier_gradients_match_finite_differences),
        TEST(classifier_teaches_the_network_and_is_not_part_of_the_model),
        TEST(whitened_model_embeds_as_the_formula_says),
        TEST(whitening_that_cannot_be_learnt_is_refused_before_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
