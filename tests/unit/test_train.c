/* Training on small drawings: bars of six directions in any colours, so that colour, which an untrained network goes
 * by, says nothing. */
#include "unit.h"

#include "base/file.h"
#include "base/random.h"

#include <likeness/eval.h>
#include <likeness/likeness.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { SIDE = 48, CLASSES = 6, TRAINING = 8, VALIDATION = 4 };

static void draw(lk_image *image, int direction, lk_random *random)
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

static void write_picture(const char *path, int direction, lk_random *random)
{
    uint8_t pixels[SIDE * SIDE * 3], *bytes;
    size_t size;
    lk_image image = {.pixels = pixels, .width = SIDE, .height = SIDE, .channels = 3};
    draw(&image, direction, random);
    assert_int_equal(lk_image_encode(&image, LK_FORMAT_PNG, 100, &bytes, &size), LK_OK);
    assert_int_equal(lk_file_write_atomic(path, bytes, size), LK_OK);
    free(bytes);
}

static const char *in(const char *folder, const char *name)
{
    static char paths[8][1024];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, 1024, "%s/%s", folder, name);
    return path;
}

/* Pictures and labels.csv; extra: lines put at its end. */
static const char *make_data(const char *folder, const char *extra)
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

static lk_train_options small_options(const char *folder)
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
    return o;
}

static lk_status train(const char *csv, const lk_train_options *options, const char *into,
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

static void assert_same_file(const char *a, const char *b)
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

/* ---- a run that is killed: in a process of its own, which this program starts from itself ---- */

static void die_at(void *user, const char *job, uint64_t done, uint64_t total)
{
    (void)job, (void)total;
    if (done == *(const uint64_t *)user) kill(getpid(), SIGKILL);
}

static lk_train_options resumed_options(const char *folder)
{
    lk_train_options o = small_options(folder);
    o.epochs = 3;
    o.augment = LK_AUGMENT_PHOTO;
    o.optimiser.ema = 0.9;
    o.loss = lk_loss_defaults(LK_LOSS_CONTRASTIVE);
    o.loss.memory = 64; /* a loss that remembers: that must come back too */
    o.checkpoint_every = 3;
    o.resume = true;
    return o;
}

static int train_until_killed(const char *folder, const char *step)
{
    uint64_t at = strtoull(step, NULL, 10);
    const lk_context_options how = {.threads = 1, .progress = die_at, .progress_user = &at};
    const lk_train_options o = resumed_options(folder);
    char csv[1024], into[1024];
    snprintf(csv, sizeof csv, "%s/labels.csv", folder);
    snprintf(into, sizeof into, "%s/killed", folder);
    return train(csv, &o, into, &how, NULL) == LK_OK ? 0 : 1;
}

static void killed_and_resumed_run_gives_the_same_bytes(void **state)
{
    const char *csv = make_data(*state, "");
    static char name[] = "test_train", mode[] = "until-killed",
                steps[][4] = {"5", "13", "16"}; /* within an epoch, in the next one, at its end */
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            char *const arguments[] = {name, mode, *state, steps[i], NULL};
            execv("/proc/self/exe", arguments);
            _exit(2);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    const lk_train_options o = resumed_options(*state);
    char killed[512], whole[512];
    snprintf(killed, sizeof killed, "%s/killed", (char *)*state);
    snprintf(whole, sizeof whole, "%s/whole", (char *)*state);
    lk_train_report a, b;
    assert_int_equal(train(csv, &o, killed, NULL, &a), LK_OK);
    assert_int_equal(train(csv, &o, whole, NULL, &b), LK_OK);
    assert_int_equal(a.steps, b.steps);
    assert_same_file(in(killed, "model.safetensors"), in(whole, "model.safetensors"));
    assert_same_file(in(killed, "checkpoint/last.safetensors"), in(whole, "checkpoint/last.safetensors"));
}

/* ---- learning ---- */

static void learns_what_an_untrained_network_does_not_see(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state), idle = o;
    lk_train_report before, after;
    o.epochs = 15;
    idle.epochs = 1;
    idle.optimiser.rate = 1e-12;
    assert_int_equal(train(csv, &idle, in(*state, "idle"), NULL, &before), LK_OK);
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &after), LK_OK);
    assert_int_equal(after.epochs, 15);
    print_message("mAP %.3f untrained, %.3f trained\n", before.best_map, after.best_map);
    assert_true(after.best_map > before.best_map + 0.2);
}

/* mAP of the validation pictures by the vectors of an embedder. */
static double map_of(const char *folder, const char *model)
{
    enum { N = CLASSES * VALIDATION };
    lk_embedder *embedder;
    assert_int_equal(lk_embedder_open(model, &embedder), LK_OK);
    size_t dim = lk_embedder_dim(embedder);
    assert_int_equal(dim, 16);
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

static void model_directory_embeds_as_validation_did(void **state)
{
    static const lk_head_pool pools[] = {LK_HEAD_GEM, LK_HEAD_RMAC, LK_HEAD_AVG, LK_HEAD_MAX};
    const char *csv = make_data(*state, "");
    for (size_t i = 0; i < sizeof pools / sizeof *pools; i++) {
        lk_train_options o = small_options(*state);
        lk_train_report report;
        o.epochs = 2;
        o.head.pool = pools[i];
        o.head.neck = i % 2 == 0;
        o.frame = i == 1 ? LK_FRAME_TRIM : i == 2 ? LK_FRAME_BORDER : LK_FRAME_SQUASH;
        assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
        /* The network for use has its norms folded and is rounded differently: ranks of near ties may change. */
        assert_true(fabs(map_of(*state, in(*state, "model")) - report.best_map) < 0.02);
    }
}

static void halved_weights_embed_nearly_the_same(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    lk_train_report report;
    struct stat whole, half;
    o.epochs = 1;
    assert_int_equal(train(csv, &o, in(*state, "whole"), NULL, NULL), LK_OK);
    o.half = true;
    assert_int_equal(train(csv, &o, in(*state, "half"), NULL, &report), LK_OK);
    assert_int_equal(stat(in(*state, "whole/model.safetensors"), &whole), 0);
    assert_int_equal(stat(in(*state, "half/model.safetensors"), &half), 0);
    assert_true(half.st_size < 0.75 * (double)whole.st_size);
    assert_true(fabs(map_of(*state, in(*state, "half")) - report.best_map) < 0.05);
}

/* ---- data ---- */

static void folders_are_classes_and_a_fifth_of_them_validates(void **state)
{
    lk_random random;
    lk_random_seed(&random, 1);
    for (int c = 0; c < 10; c++) {
        char name[64];
        snprintf(name, sizeof name, "pictures/class%d", c);
        assert_int_equal(lk_make_dirs(in(*state, name)), LK_OK);
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "pictures/class%d/%d.png", c, i);
            write_picture(in(*state, name), c % CLASSES, &random);
        }
    }
    lk_train_data *data;
    assert_int_equal(lk_train_data_open(NULL, in(*state, "pictures"), NULL, &data), LK_OK);
    lk_train_data_info info = lk_train_data_info_of(data);
    assert_int_equal(info.classes, 8);
    assert_int_equal(info.held_out, 2);
    assert_int_equal(info.training, 24);
    assert_int_equal(info.validation, 6);
    lk_train_data_free(data);
}

static void missing_pictures_are_counted_and_single_ones_serve_as_negatives(void **state)
{
    const char *csv = make_data(*state, "gone.png,bar1,train\nalso-gone.png,bar2,train\n0-0.png,alone,train\n");
    lk_train_data *data;
    assert_int_equal(lk_train_data_open(NULL, csv, NULL, &data), LK_OK);
    lk_train_data_info info = lk_train_data_info_of(data);
    assert_int_equal(info.missing, 2);
    assert_int_equal(info.classes, CLASSES + 1);
    assert_int_equal(info.labels.singletons, 1);
    lk_train_data_free(data);
    lk_train_options o = small_options(*state);
    o.epochs = 1;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
}

static void broken_pictures_give_way_to_others_of_their_class(void **state)
{
    const char *csv = make_data(*state, "broken.png,bar1,train\n");
    lk_train_report report;
    assert_int_equal(lk_file_write_atomic(in(*state, "broken.png"), "no picture", 10), LK_OK);
    lk_train_options o = small_options(*state);
    o.epochs = 2;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_int_equal(report.unreadable, 1);
}

static void pictures_without_labels_are_learnt_from_two_views(void **state)
{
    make_data(*state, "");
    FILE *out = fopen(in(*state, "plain.csv"), "w");
    fputs("path\n", out);
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < TRAINING; i++) fprintf(out, "%d-%d.png\n", c, i);
    fclose(out);
    lk_train_options o = small_options(*state);
    lk_train_report report;
    o.loss_given = false;
    o.epochs = 2;
    o.augment = LK_AUGMENT_PHOTO;
    assert_int_equal(train(in(*state, "plain.csv"), &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_non_null(strstr(report.reason, "two augmented views"));
    assert_true(report.best_map > 0);
}

static void several_labels_are_read_from_one_column(void **state)
{
    make_data(*state, "");
    FILE *out = fopen(in(*state, "several.csv"), "w");
    fputs("path,labels,split\n", out);
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < TRAINING; i++)
            fprintf(out, "%d-%d.png,bar%d; %s,%s\n", c, i, c, c < 3 ? "flat" : "steep", i < 6 ? "train" : "val");
    fclose(out);
    lk_train_options o = small_options(*state);
    lk_train_report report;
    o.loss_given = false;
    o.epochs = 1;
    assert_int_equal(train(in(*state, "several.csv"), &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_non_null(strstr(report.reason, "2.0 labels"));
}

/* ---- failures ---- */

static void diverging_run_stops_and_keeps_the_last_good_model(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    lk_train_report report;
    lk_embedder *embedder;
    char *line = NULL;
    size_t size = 0;
    int lines = 0;
    o.schedule = LK_RATE_STEP;
    o.warmup = -1;
    o.step_epochs = 1;
    o.gamma = 1e33; /* the second epoch */
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_CORRUPT);
    assert_non_null(strstr(lk_error_message(), "--rate"));
    assert_int_equal(report.epochs, 1);
    assert_int_equal(lk_embedder_open(in(*state, "model"), &embedder), LK_OK);
    lk_embedder_free(embedder);
    FILE *history = fopen(in(*state, "model/history.csv"), "r");
    while (getline(&line, &size, history) > 0) lines++;
    fclose(history);
    free(line);
    assert_int_equal(lines, 2);
}

static void full_disk_is_said_and_leaves_no_half_model(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    struct rlimit old, small = {.rlim_cur = 4096};
    o.epochs = 1;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    lk_status s = train(csv, &o, in(*state, "model"), NULL, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(s, LK_IO);
    assert_non_null(strstr(lk_error_message(), "model.safetensors"));
    assert_false(lk_path_exists(in(*state, "model/model.safetensors")));
}

static void other_options_cannot_resume(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    o.epochs = 1;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
    o.epochs = 2;
    o.resume = true;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_CONFLICT);
}

static void nonsense_is_refused(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_data *data;
    lk_train_options o = small_options(*state);
    assert_int_equal(lk_train_data_open(NULL, in(*state, "nowhere"), NULL, &data), LK_NOT_FOUND);
    o.backbone = "no-such-network";
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_UNSUPPORTED);
    o = small_options(*state);
    o.freeze = "no.such.layer";
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_INVALID);
    o = small_options(*state);
    o.optimiser.rate = NAN;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_folder, unit_folder_remove)

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "until-killed") == 0) return train_until_killed(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        TEST(killed_and_resumed_run_gives_the_same_bytes),
        TEST(learns_what_an_untrained_network_does_not_see),
        TEST(model_directory_embeds_as_validation_did),
        TEST(halved_weights_embed_nearly_the_same),
        TEST(folders_are_classes_and_a_fifth_of_them_validates),
        TEST(missing_pictures_are_counted_and_single_ones_serve_as_negatives),
        TEST(broken_pictures_give_way_to_others_of_their_class),
        TEST(pictures_without_labels_are_learnt_from_two_views),
        TEST(several_labels_are_read_from_one_column),
        TEST(diverging_run_stops_and_keeps_the_last_good_model),
        TEST(full_disk_is_said_and_leaves_no_half_model),
        TEST(other_options_cannot_resume),
        TEST(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
