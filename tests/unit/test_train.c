/* Training: what is learnt, killed runs, data, failures. */
#include "train_fixture.h"

#include "base/cpu.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- a run that is killed: in a process of its own, which this program starts from itself ---- */

static void die_at(void *user, const char *job, uint64_t done, uint64_t total)
{
    (void)job, (void)total;
    if (done == *(const uint64_t *)user) kill(getpid(), SIGKILL);
}

/* With everything that a run remembers: a loss with a memory, a moving average, batches that add up, and products of
 * bf16 where the processor has them. */
static lk_train_options resumed_options(const char *folder)
{
    lk_train_options o = small_options(folder);
    o.epochs = 3;
    o.batches = 9;
    o.accumulate = 2;
    o.augment = LK_AUGMENT_PHOTO;
    o.optimiser.ema = 0.9;
    o.bf16 = lk_cpu_detect() & LK_CPU_AVX512_BF16;
    o.loss = lk_loss_defaults(LK_LOSS_CONTRASTIVE);
    o.loss.memory = 64;
    o.head.drop_block = 0.3f;
    o.checkpoint_every = 1;
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
    static char name[] = "test_train", mode[] = "until-killed";
    /* Anywhere: another place each time the test runs, said when it fails. */
    uint64_t seed = (uint64_t)getpid(), done = 0;
    lk_random random;
    lk_random_seed(&random, seed);
    print_message("killed at batches drawn with seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < 3 && done < 24; i++) {
        char step[32];
        done += 2 + lk_random_below(&random, 8);
        snprintf(step, sizeof step, "%llu", (unsigned long long)done);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            char *const arguments[] = {name, mode, *state, step, NULL};
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
    assert_non_null(strstr(lk_error_message(), "last.safetensors"));
    assert_false(lk_path_exists(in(*state, "model/model.safetensors")));
    assert_false(lk_path_exists(in(*state, "model/config.json")));
}

/* From the end of the first epoch on no file can grow beyond what fits into a sector or two. */
static void fill_disk(void *user, const lk_train_epoch *epoch)
{
    const struct rlimit small = {.rlim_cur = 4096, .rlim_max = ((struct rlimit *)user)->rlim_max};
    if (epoch->epoch == 1) setrlimit(RLIMIT_FSIZE, &small);
}

static void full_disk_leaves_the_last_checkpoint_to_go_on_from(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    lk_context *context;
    lk_train_data *data;
    struct rlimit old;
    o.epochs = 3;
    o.checkpoint_every = 2; /* the first thing that is written after the first epoch */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 1}, &context), LK_OK);
    assert_int_equal(lk_train_data_open(context, csv, NULL, &data), LK_OK);
    lk_status s = lk_train(context, data, &o, in(*state, "full"), fill_disk, &old, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(s, LK_IO);
    assert_non_null(strstr(lk_error_message(), "last.safetensors"));
    assert_non_null(strstr(lk_error_message(), "--resume goes on"));
    o.resume = true;
    lk_train_data_free(data);
    lk_context_free(context);
    char full[512], whole[512];
    snprintf(full, sizeof full, "%s/full", (char *)*state);
    snprintf(whole, sizeof whole, "%s/whole", (char *)*state);
    lk_train_report report;
    assert_int_equal(train(csv, &o, full, NULL, &report), LK_OK);
    assert_int_equal(report.epochs, 3);
    assert_int_equal(train(csv, &o, whole, NULL, NULL), LK_OK);
    assert_same_file(in(full, "checkpoint/last.safetensors"), in(whole, "checkpoint/last.safetensors"));
}

/* The second epoch is cancelled: at once, or while it validates. */
static void stop_in_validation(void *user, const char *job, uint64_t done, uint64_t total)
{
    (void)job, (void)total;
    if (done == 16) lk_context_cancel(*(lk_context **)user);
}

static void cancelled_run_goes_on_where_it_was(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    lk_context *context;
    lk_train_data *data;
    o.epochs = 3; /* of 8 batches */
    o.resume = true;
    const lk_context_options how = {.threads = 1, .progress = stop_in_validation, .progress_user = &context};
    assert_int_equal(lk_context_new(&how, &context), LK_OK);
    assert_int_equal(lk_train_data_open(context, csv, NULL, &data), LK_OK);
    assert_int_equal(lk_train(context, data, &o, in(*state, "stopped"), NULL, NULL, NULL), LK_CANCELLED);
    assert_non_null(strstr(lk_error_message(), "--resume"));
    lk_train_data_free(data);
    lk_context_free(context);
    char stopped[512], whole[512];
    snprintf(stopped, sizeof stopped, "%s/stopped", (char *)*state);
    snprintf(whole, sizeof whole, "%s/whole", (char *)*state);
    assert_int_equal(train(csv, &o, stopped, NULL, NULL), LK_OK);
    assert_int_equal(train(csv, &o, whole, NULL, NULL), LK_OK);
    assert_same_file(in(stopped, "checkpoint/last.safetensors"), in(whole, "checkpoint/last.safetensors"));
}

static void classes_of_one_picture_alone_are_learnt_from_two_views(void **state)
{
    make_data(*state, "");
    FILE *out = fopen(in(*state, "single.csv"), "w");
    fputs("path,label\n", out);
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < TRAINING; i++) fprintf(out, "%d-%d.png,own%d-%d\n", c, i, c, i);
    fclose(out);
    lk_train_options o = small_options(*state);
    lk_train_report report;
    o.loss_given = false;
    o.epochs = 1;
    o.augment = LK_AUGMENT_PHOTO;
    assert_int_equal(train(in(*state, "single.csv"), &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_non_null(strstr(report.reason, "two augmented views"));
}

static void other_options_cannot_resume(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    o.epochs = 1;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_OK);
    o.optimiser.rate *= 2;
    o.overwrite = false;
    o.resume = true;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_CONFLICT);
    assert_non_null(strstr(lk_error_message(), "other options"));
}

static void finished_run_can_be_given_more_epochs_but_not_fewer(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    lk_train_report report;
    o.overwrite = false;
    o.resume = true;
    o.epochs = 2;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
    uint64_t steps = report.steps;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_int_equal(report.steps, steps); /* nothing was left to do */
    o.epochs = 3;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_int_equal(report.epochs, 3);
    assert_int_equal(report.steps, steps / 2 * 3);
    o.epochs = 2;
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, NULL), LK_CONFLICT);
    assert_non_null(strstr(lk_error_message(), "3 epochs already"));
}

/* Neither a finished model nor what a stopped run left is replaced by a run that was not told to. */
static void model_that_is_there_is_not_replaced_unasked(void **state)
{
    const char *csv = make_data(*state, "");
    lk_train_options o = small_options(*state);
    char model[512], checkpoint[600];
    snprintf(model, sizeof model, "%s/model", (char *)*state);
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint/last.safetensors", model);
    o.overwrite = false;
    o.epochs = 1;
    assert_int_equal(train(csv, &o, model, NULL, NULL), LK_OK);
    assert_int_equal(train(csv, &o, model, NULL, NULL), LK_CONFLICT);
    assert_non_null(strstr(lk_error_message(), model));
    assert_non_null(strstr(lk_error_message(), "--resume"));
    assert_non_null(strstr(lk_error_message(), "--overwrite"));
    o.resume = true;
    assert_int_equal(remove(checkpoint), 0); /* a model from elsewhere has none */
    assert_int_equal(train(csv, &o, model, NULL, NULL), LK_CONFLICT);
    assert_non_null(strstr(lk_error_message(), "no checkpoint"));
    o.resume = false;
    o.overwrite = true;
    assert_int_equal(train(csv, &o, model, NULL, NULL), LK_OK);
    o.overwrite = false;
    assert_int_equal(remove(in(model, "model.safetensors")), 0);
    assert_int_equal(remove(in(model, "config.json")), 0);
    assert_int_equal(train(csv, &o, model, NULL, NULL), LK_CONFLICT);
    assert_non_null(strstr(lk_error_message(), "stopped in its first epoch"));
}

/* Classes with so many pictures each, without a split: what is held out. */
static lk_train_data_info held_out_of(const char *folder, const char *sizes)
{
    FILE *out = fopen(in(folder, "sizes.csv"), "w");
    fputs("path,label\n", out);
    for (int c = 0; sizes[c]; c++)
        for (int i = 0; i < sizes[c] - '0'; i++) fprintf(out, "%d-%d.png,bar%d\n", c, i, c);
    fclose(out);
    lk_train_data *data;
    if (lk_train_data_open(NULL, in(folder, "sizes.csv"), NULL, &data) != LK_OK) fail_msg("%s", lk_error_message());
    lk_train_data_info info = lk_train_data_info_of(data);
    lk_train_data_free(data);
    return info;
}

static void validation_has_two_classes_or_there_is_none(void **state)
{
    make_data(*state, "");
    static const struct {
        const char *sizes;
        size_t validation, held_out;
    } cases[] = {
        {"22222", 4, 2}, /* a fifth of five classes would be one */
        {"66", 4, 0},    /* two pictures of each */
        {"64", 4, 0},    /* six and three would leave one class */
        {"93", 0, 0},    {"811111", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lk_train_data_info info = held_out_of(*state, cases[i].sizes);
        if (info.validation != cases[i].validation || info.held_out != cases[i].held_out)
            fail_msg("%s: %zu pictures validate, of %zu other classes", cases[i].sizes, info.validation, info.held_out);
    }
}

static void small_classes_are_left_out_on_request(void **state)
{
    const char *csv = make_data(*state, "0-8.png,pair,train\n0-9.png,pair,train\n0-10.png,alone,train\n");
    lk_train_data *data;
    assert_int_equal(lk_train_data_open(NULL, csv, NULL, &data), LK_OK);
    assert_int_equal(lk_train_data_thin(data, 2), LK_OK);
    assert_int_equal(lk_train_data_info_of(data).classes, CLASSES + 1);
    assert_int_equal(lk_train_data_thin(data, 3), LK_OK);
    lk_train_data_info info = lk_train_data_info_of(data);
    assert_int_equal(info.classes, CLASSES);
    assert_int_equal(info.training, CLASSES * TRAINING);
    assert_int_equal(info.left_out, 3);
    assert_int_equal(info.labels.smallest, TRAINING);
    assert_int_equal(lk_train_data_thin(data, TRAINING + 1), LK_INVALID);
    assert_int_equal(lk_train_data_info_of(data).classes, CLASSES);
    lk_train_options o = small_options(*state); /* the classes that are left are numbered anew */
    lk_train_report report;
    lk_context *context;
    o.loss = lk_loss_defaults(LK_LOSS_ARCFACE);
    o.epochs = 1;
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 1}, &context), LK_OK);
    assert_int_equal(lk_train(context, data, &o, in(*state, "model"), NULL, NULL, &report), LK_OK);
    lk_train_data_free(data);
    lk_context_free(context);
    /* eight pictures a class are few for class weights, and it is said; pairs are another matter */
    assert_non_null(strstr(report.reason, "weight vector for each of 6 classes"));
    o.loss = lk_loss_defaults(LK_LOSS_SUPCON);
    assert_int_equal(train(csv, &o, in(*state, "model"), NULL, &report), LK_OK);
    assert_null(strstr(report.reason, "weight vector"));
}

/* Of one class every order is right: the first epoch would stay the best. */
static void validation_that_tells_nothing_is_left_out(void **state)
{
    static const char *const rows[] = {"4-0.png,bar4,val\n4-1.png,bar4,val\n", "4-0.png,bar4,val\n5-0.png,bar5,val\n"};
    make_data(*state, "");
    for (int k = 0; k < 2; k++) {
        FILE *out = fopen(in(*state, "one.csv"), "w");
        fputs("path,label,split\n", out);
        for (int c = 0; c < 4; c++)
            for (int i = 0; i < TRAINING; i++) fprintf(out, "%d-%d.png,bar%d,train\n", c, i, c);
        fputs(rows[k], out);
        fclose(out);
        lk_train_options o = small_options(*state);
        lk_train_report report;
        o.epochs = 2;
        assert_int_equal(train(in(*state, "one.csv"), &o, in(*state, "model"), NULL, &report), LK_OK);
        assert_int_equal(report.best_epoch, 2);
        assert_true(report.best_map == 0);
    }
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
        TEST(full_disk_leaves_the_last_checkpoint_to_go_on_from),
        TEST(cancelled_run_goes_on_where_it_was),
        TEST(classes_of_one_picture_alone_are_learnt_from_two_views),
        TEST(other_options_cannot_resume),
        TEST(finished_run_can_be_given_more_epochs_but_not_fewer),
        TEST(model_that_is_there_is_not_replaced_unasked),
        TEST(validation_has_two_classes_or_there_is_none),
        TEST(validation_that_tells_nothing_is_left_out),
        TEST(small_classes_are_left_out_on_request),
        TEST(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
