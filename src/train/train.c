/* The training loop: advice, batches, steps, validation, checkpoints. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_EPOCHS = 30, DEFAULT_BATCH = 64, DEFAULT_DIM = 128, CONFUSABLE = 16, MOST_BATCH = 4096 };
static const uint64_t DEFAULT_MEMORY = 1ull << 30;

typedef struct run {
    lk_context *context;
    const lk_train_data *data;
    lk_train_options options; /* defaults filled in */
    lk_advice advice;
    const char *directory;
    lk_network net;
    lk_pictures *pictures;
    lk_validation validation;
    lk_sampler *sampler;
    lk_schedule schedule;
    lk_train_state state;
    lk_train_epoch *history; /* [epochs] */
    char fingerprint[33];
    size_t drawn;     /* pictures per batch from the sampler: half of it with two views */
    size_t batches;   /* per epoch */
    uint32_t *rows;   /* [batches][drawn] of the epoch */
    uint32_t *placed; /* [batch] rows of one batch, both views */
    float *input[2];
    int32_t *classes, *sets;
    uint32_t *set_at;
    double started;
    lk_train_report *report;
} run;

lk_train_options lk_train_defaults(void)
{
    return (lk_train_options){
        .head = {.pool = LK_HEAD_GEM, .dim = DEFAULT_DIM, .neck = true},
        .optimiser = {.kind = LK_ADAMW, .momentum = 0.9, .weight_decay = 0.01, .clip_norm = 5},
        .schedule = LK_RATE_COSINE,
    };
}

/* ---- options ---- */

static lk_status check_options(const lk_train_options *o)
{
    if (o->epochs > 100000 || o->batch > MOST_BATCH || o->batch == 1 || o->size > 1024 || (o->size && o->size < 16))
        return lk_fail(LK_INVALID,
                       "epochs up to 100000, batches of 2 to %d and pictures of 16 to 1024 pixels are possible",
                       MOST_BATCH);
    if (o->head.dim > 8192 || o->accumulate > 1024 || o->layer_decay < 0 || o->layer_decay > 1 || o->loss_rate < 0)
        return lk_fail(LK_INVALID, "the head's width, accumulation, or a rate's factor makes no sense");
    if (o->head.p < 0 || !isfinite(o->head.p) || !(o->optimiser.rate >= 0) || o->warmup > 1)
        return lk_fail(LK_INVALID, "the exponent, the rate or the warm-up makes no sense");
    return LK_OK;
}

static double default_rate(lk_optimiser_kind kind)
{
    return kind == LK_SGD ? 0.05 : kind == LK_LAMB ? 4e-3 : 1e-3;
}

static bool has_proxies(lk_loss_kind kind)
{
    return kind == LK_LOSS_PROXY_NCA || kind == LK_LOSS_PROXY_ANCHOR;
}

/* Loss, miner, sampler: the advice, with what was given in its place. */
static lk_status choose(run *r)
{
    lk_train_options *o = &r->options;
    lk_status s = lk_advise(&r->data->info.labels, o->batch, &r->advice);
    if (s != LK_OK) return s;
    lk_advice *a = &r->advice;
    snprintf(r->report->reason, sizeof r->report->reason, "%s", a->reason);
    if (o->loss_given) {
        bool unlabelled = a->two_views;
        a->loss = o->loss;
        a->miner = LK_MINER_ALL;
        if (unlabelled && r->data->info.labels.labelled) a->two_views = false;
        snprintf(r->report->reason, sizeof r->report->reason, "The loss %s was asked for.", lk_loss_name(a->loss.kind));
        /* Pairs within a batch need classes that come several at a time. */
        bool pairs = a->loss.kind < LK_LOSS_NORMALISED_SOFTMAX || a->loss.kind > LK_LOSS_PROXY_ANCHOR;
        if (pairs && !r->data->multi && !a->two_views) a->sampler = LK_SAMPLER_PK;
    }
    if (!o->miner_given) o->miner = lk_miner_defaults(a->miner);
    if (o->sampler_given) a->sampler = o->sampler;
    if (o->per_class) a->per_class = o->per_class;
    if (a->loss.classes == 0) a->loss.classes = (uint32_t)r->data->training.class_count;
    if (a->two_views) a->loss.classes = (uint32_t)r->data->training.count;
    if (o->loss_rate == 0) o->loss_rate = has_proxies(a->loss.kind) ? 10 : 1;
    return LK_OK;
}

/* A batch that the data can fill. */
static lk_status fit_batch(run *r)
{
    lk_train_options *o = &r->options;
    lk_advice *a = &r->advice;
    size_t asked = o->batch, count = r->data->training.count, classes = r->data->training.class_count;
    if (a->two_views) {
        o->batch = o->batch / 2 < count ? o->batch / 2 * 2 : 2 * count;
        r->drawn = o->batch / 2;
    } else if (a->sampler == LK_SAMPLER_PK || a->sampler == LK_SAMPLER_HARD_CLASS) {
        if (a->per_class > o->batch / 2) a->per_class = o->batch / 2;
        size_t most = o->batch / a->per_class;
        if (most > classes) most = classes;
        if (most < 2) return lk_fail(LK_INVALID, "%zu classes: at least two are needed in a batch", classes);
        o->batch = r->drawn = most * a->per_class;
    } else {
        if (o->batch > count) o->batch = count;
        r->drawn = o->batch;
    }
    if (o->batch != asked) lk_log(r->context, LK_LOG_INFO, "batches of %zu: what the data has", o->batch);
    return LK_OK;
}

static lk_status make_sampler(run *r, const uint32_t *confusable)
{
    const lk_train_part *part = &r->data->training;
    const lk_sampler_options options = {.kind = r->advice.two_views ? LK_SAMPLER_PLAIN : r->advice.sampler,
                                        .batch = r->drawn,
                                        .per_class = r->advice.per_class,
                                        .batches = r->options.batches,
                                        .confusable = confusable,
                                        .confusable_count = confusable ? CONFUSABLE : 0,
                                        .seed = r->options.seed};
    lk_sampler_free(r->sampler);
    r->sampler = NULL;
    return lk_sampler_new(&options, part->classes, part->count, &r->sampler);
}

/* What must not change between a run and its resumption. */
static lk_status fingerprint(run *r)
{
    const lk_train_options *o = &r->options;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return lk_fail_memory("options");
    fprintf(out, "%s %d %a %d %zu %d ", o->backbone ? o->backbone : "", (int)o->head.pool, (double)o->head.p,
            (int)o->head.fixed_p, o->head.dim, (int)o->head.neck);
    fprintf(out, "%d %a %a %u %d %d %zu ", (int)r->advice.loss.kind, r->advice.loss.margin, r->advice.loss.scale,
            r->advice.loss.classes, (int)o->miner.kind, (int)r->advice.sampler, r->advice.per_class);
    fprintf(out, "%u %d %d %u %zu %zu %u %d ", lk_network_side(&r->net), (int)o->frame, (int)o->augment, o->epochs,
            o->batch, o->batches, o->accumulate, (int)o->bf16);
    fprintf(out, "%d %a %a %a %a %a %a %s ", (int)o->optimiser.kind, o->optimiser.rate, o->optimiser.weight_decay,
            o->optimiser.clip_norm, o->optimiser.ema, o->loss_rate, o->layer_decay, o->freeze ? o->freeze : "");
    fprintf(out, "%d %a %a %a %llu\n", (int)o->schedule, o->warmup, o->step_epochs, o->gamma,
            (unsigned long long)o->seed);
    for (size_t i = 0; i < r->data->count; i++) fprintf(out, "%s\t%s\n", r->data->paths[i], r->data->names[i]);
    lk_status s = fclose(out) == 0 ? LK_OK : lk_fail_memory("options");
    if (s == LK_OK) lk_hash_hex(lk_hash(text, size), r->fingerprint);
    free(text);
    return s;
}

/* ---- opening ---- */

static void set_frame(run *r)
{
    lk_train_options *o = &r->options;
    lk_preprocess *how = lk_model_preparation(r->net.model);
    if (o->augment == LK_AUGMENT_AUTO) o->augment = r->data->drawings ? LK_AUGMENT_LOGO : LK_AUGMENT_PHOTO;
    if (o->frame == LK_FRAME_AUTO) o->frame = r->data->drawings ? LK_FRAME_TRIM : LK_FRAME_SQUASH;
    how->fit = o->frame == LK_FRAME_TRIM ? LK_FIT_TRIM : o->frame == LK_FRAME_BORDER ? LK_FIT_INSIDE : LK_FIT_SQUASH;
    for (int i = 0; i < 2; i++) how->resize[i] = how->fit == LK_FIT_SQUASH ? how->size[i] : (how->size[i] * 7 + 4) / 8;
    for (int c = 0; c < 3; c++) how->fill[c] = (uint8_t)nearbyintf(fminf(fmaxf(255 * how->mean[c], 0), 255));
}

static lk_status open_pictures(run *r)
{
    lk_train_options *o = &r->options;
    uint32_t side = lk_network_side(&r->net);
    lk_pictures_options how = {.prepare = *lk_model_preparation(r->net.model),
                               .memory = o->memory ? o->memory : DEFAULT_MEMORY,
                               .seed = o->seed};
    if (o->augment == LK_AUGMENT_PHOTO) how.augment = lk_augment_photo_defaults(side, side);
    if (o->augment == LK_AUGMENT_LOGO) how.augment = lk_augment_logo_defaults(side, side);
    return lk_pictures_new(r->context, r->data, &how, &r->pictures);
}

static lk_status make_room(run *r)
{
    size_t side = lk_network_side(&r->net), batch = r->options.batch;
    const lk_train_part *part = &r->data->training;
    size_t most = 0;
    for (size_t i = 0; part->set_at && i < part->count; i++)
        if (part->set_at[i + 1] - part->set_at[i] > most) most = part->set_at[i + 1] - part->set_at[i];
    r->batches = lk_sampler_batches(r->sampler);
    r->rows = lk_alloc(r->batches * r->drawn, sizeof *r->rows);
    r->placed = lk_alloc(batch, sizeof *r->placed);
    r->classes = lk_alloc(batch, sizeof *r->classes);
    r->set_at = lk_alloc(batch + 1, sizeof *r->set_at);
    r->sets = lk_alloc(batch * most + 1, sizeof *r->sets);
    r->history = lk_alloc_zero(r->options.epochs, sizeof *r->history);
    for (int i = 0; i < 2; i++) r->input[i] = lk_alloc_aligned(batch * 3 * side * side, sizeof(float));
    bool ok = r->rows && r->placed && r->classes && r->set_at && r->sets && r->history && r->input[0] && r->input[1];
    return ok ? LK_OK : lk_fail_memory("batches");
}

static void make_schedule(run *r)
{
    const lk_train_options *o = &r->options;
    uint64_t per_epoch = (r->batches + o->accumulate - 1) / o->accumulate, steps = per_epoch * o->epochs;
    double warmup = o->warmup < 0 ? 0 : o->warmup == 0 ? 0.05 : o->warmup, every = o->step_epochs;
    if (every <= 0) every = fmax(1, o->epochs / 3.0);
    r->schedule = (lk_schedule){.kind = o->schedule,
                                .rate = o->optimiser.rate,
                                .steps = steps,
                                .warmup = (uint64_t)(warmup * (double)steps),
                                .step = (uint64_t)fmax(1, every * (double)per_epoch),
                                .gamma = o->gamma > 0 ? o->gamma : 0.1};
}

static void fill_defaults(lk_train_options *o)
{
    if (o->epochs == 0) o->epochs = DEFAULT_EPOCHS;
    if (o->batch == 0) o->batch = DEFAULT_BATCH;
    if (o->accumulate == 0) o->accumulate = 1;
    if (o->layer_decay == 0) o->layer_decay = 1;
    if (o->optimiser.rate == 0) o->optimiser.rate = default_rate(o->optimiser.kind);
}

static lk_status open_run(run *r)
{
    lk_status s;
    bool there = false;
    fill_defaults(&r->options);
    LK_TRY(choose(r));
    LK_TRY(fit_batch(r));
    lk_log(r->context, LK_LOG_INFO, "%s", r->report->reason);
    LK_TRY(lk_network_open(&r->options, &r->advice.loss, lk_context_threads(r->context), &r->net));
    set_frame(r);
    LK_TRY(lk_network_add_optimiser(&r->net, &r->options));
    LK_TRY(open_pictures(r));
    LK_TRY(lk_validation_open(r->context, r->data, r->pictures, &r->validation));
    uint32_t none[1] = {UINT32_MAX};
    if (r->advice.sampler == LK_SAMPLER_HARD_CLASS) {
        size_t n = r->data->training.class_count * CONFUSABLE;
        uint32_t *empty = lk_alloc(n, sizeof *empty);
        if (!empty) return lk_fail_memory("classes");
        for (size_t i = 0; i < n; i++) empty[i] = none[0];
        s = make_sampler(r, empty);
        free(empty);
    } else {
        s = make_sampler(r, NULL);
    }
    if (s != LK_OK) goto done;
    LK_TRY(make_room(r));
    make_schedule(r);
    LK_TRY(fingerprint(r));
    LK_TRY(lk_make_dirs(r->directory));
    if (r->options.resume) LK_TRY(lk_checkpoint_read(r->directory, &r->net, &r->state, r->fingerprint, &there));
    if (there) LK_TRY(lk_history_read(r->directory, r->history, r->state.epoch));
    if (there)
        lk_log(r->context, LK_LOG_INFO, "going on from epoch %u, batch %llu", r->state.epoch + 1,
               (unsigned long long)r->state.batch);
done:
    return s;
}

static void close_run(run *r)
{
    lk_pictures_free(r->pictures); /* first: it waits for batches under way */
    lk_validation_free(&r->validation);
    lk_sampler_free(r->sampler);
    lk_network_free(&r->net);
    free(r->rows);
    free(r->placed);
    free(r->classes);
    free(r->set_at);
    free(r->sets);
    free(r->history);
    free(r->input[0]);
    free(r->input[1]);
}

/* ---- one batch ---- */

static const uint32_t *rows_of(run *r, size_t batch)
{
    const uint32_t *rows = r->rows + batch * r->drawn;
    if (!r->advice.two_views) return rows;
    memcpy(r->placed, rows, r->drawn * sizeof *rows);
    memcpy(r->placed + r->drawn, rows, r->drawn * sizeof *rows);
    return r->placed;
}

static lk_status begin_batch(run *r, size_t batch)
{
    if (batch >= r->batches) return LK_OK;
    return lk_pictures_begin(r->pictures, rows_of(r, batch), r->options.batch, r->state.epoch, batch * r->options.batch,
                             r->input[batch % 2]);
}

static lk_status not_finite(const run *r, lk_status status, const char *what)
{
    char why[LK_ERROR_SIZE];
    snprintf(why, sizeof why, "%s", what);
    return lk_fail(status,
                   "%s at step %llu (epoch %u): the training has gone astray. Lower --rate (it is %g), or use "
                   "--precision f32, a longer --warmup or --clip 1; what was saved before stays in %s",
                   why, (unsigned long long)r->state.step + 1, r->state.epoch + 1, r->options.optimiser.rate,
                   r->directory);
}

static lk_status train_batch(run *r, size_t batch)
{
    const lk_train_options *o = &r->options;
    lk_labels labels;
    double value = 0;
    lk_status s;
    if (r->advice.two_views) {
        lk_labels_of_views(r->drawn, r->classes);
        labels = (lk_labels){.kind = LK_LABELS_SINGLE, .classes = r->classes};
    } else {
        labels = lk_train_labels_of(r->data, &r->data->training, r->rows + batch * r->drawn, r->drawn, r->classes,
                                    r->set_at, r->sets);
    }
    LK_TRY(lk_network_forward(&r->net, true, r->input[batch % 2]));
    for (size_t i = 0; i < o->batch * r->net.dim; i++)
        if (!isfinite(r->net.embedding[i])) return not_finite(r, LK_CORRUPT, "an embedding is not a number");
    LK_TRY(
        lk_network_backward(&r->net, &labels, &o->miner, r->state.step ^ o->seed, 1.0f / (float)o->accumulate, &value));
    if (!isfinite(value)) return not_finite(r, LK_CORRUPT, "the loss is not a number");
    r->state.loss_sum += value;
    r->state.batch = batch + 1;
    if (r->state.batch % o->accumulate == 0 || r->state.batch == r->batches) {
        s = lk_network_step(&r->net, lk_schedule_rate(&r->schedule, r->state.step));
        if (s == LK_CORRUPT) return not_finite(r, s, lk_error_message());
        r->state.step++;
    }
done:
    return s;
}

/* Weights that are not finite must not take the place of good ones. */
static lk_status checkpoint(run *r)
{
    for (size_t i = 0; i < r->net.tensor_count; i++) {
        float sum = 0;
        for (size_t k = 0; k < r->net.tensors[i].n; k++) sum += r->net.tensors[i].values[k] * 0;
        if (sum != 0) return not_finite(r, LK_CORRUPT, "a weight is not a number");
    }
    return lk_checkpoint_write(r->directory, &r->net, &r->state, r->fingerprint);
}

static bool time_is_up(const run *r)
{
    return r->options.seconds > 0 && lk_now() - r->started > r->options.seconds;
}

/* ---- one epoch ---- */

static lk_status train_epoch(run *r, lk_train_epoch *epoch)
{
    double begun = lk_now();
    size_t first = r->state.batch, every = r->options.checkpoint_every;
    lk_status s;
    LK_TRY(lk_sampler_epoch(r->sampler, r->state.epoch, r->rows));
    LK_TRY(begin_batch(r, first));
    for (size_t batch = first; batch < r->batches; batch++) {
        LK_TRY(begin_batch(r, batch + 1));
        LK_TRY(lk_pictures_finish(r->pictures));
        LK_TRY(train_batch(r, batch));
        lk_report_progress(r->context, "training", r->state.epoch * r->batches + batch + 1,
                           r->options.epochs * r->batches);
        /* What the hard-class sampler draws follows from the weights at the epoch's begin: it has no middle to go on
         * from. */
        bool between = r->state.batch % r->options.accumulate == 0 && r->state.batch < r->batches &&
                       r->advice.sampler != LK_SAMPLER_HARD_CLASS;
        bool stop = lk_context_cancelled(r->context) || time_is_up(r);
        if (between && (stop || (every && r->state.batch / r->options.accumulate % every == 0))) LK_TRY(checkpoint(r));
        if (stop && r->state.batch < r->batches && r->state.batch % r->options.accumulate == 0) {
            s = lk_fail(LK_CANCELLED, "stopped in epoch %u; the same command with --resume goes on",
                        r->state.epoch + 1);
            goto done;
        }
    }
    epoch->epoch = r->state.epoch + 1;
    epoch->loss = r->state.loss_sum / (double)r->batches;
    epoch->rate = lk_schedule_rate(&r->schedule, r->state.step ? r->state.step - 1 : 0);
    epoch->seconds = lk_now() - begun;
    epoch->images_per_second = (double)((r->batches - first) * r->options.batch) / epoch->seconds;
done:
    return s;
}

/* Validates, and keeps the model when it is the best. Without validation pictures the last one is. */
static lk_status judge_epoch(run *r, lk_train_epoch *epoch)
{
    float *kept = NULL;
    lk_status s = lk_network_average(&r->net, &kept);
    if (s == LK_OK) s = lk_validate(&r->validation, &r->net, r->input[0], epoch);
    epoch->best = r->validation.n < 2 || r->state.best_epoch == 0 || epoch->map > r->state.best_map;
    if (s == LK_OK && epoch->best) s = lk_train_export(r->directory, &r->net, r->options.half);
    lk_network_restore(&r->net, kept);
    if (s != LK_OK) return s;
    r->state.since_best++;
    if (epoch->best) {
        r->state.best_epoch = epoch->epoch;
        r->state.best_map = epoch->map;
        r->state.since_best = 0;
    }
    return LK_OK;
}

/* Classes that the model takes for one another, for the sampler of the next epoch. */
static lk_status find_confusable(run *r)
{
    const lk_train_part *part = &r->data->training;
    size_t classes = part->class_count, dim = r->net.dim, batch = r->options.batch;
    if (r->advice.sampler != LK_SAMPLER_HARD_CLASS || r->advice.two_views) return LK_OK;
    float *vectors = lk_alloc(part->count * dim, sizeof *vectors);
    uint32_t *confusable = lk_alloc(classes * CONFUSABLE, sizeof *confusable), *rows = lk_alloc(batch, sizeof *rows);
    lk_status s = vectors && confusable && rows ? LK_OK : lk_fail_memory("classes");
    for (size_t at = 0; s == LK_OK && at < part->count; at += batch) {
        size_t n = part->count - at < batch ? part->count - at : batch;
        for (size_t i = 0; i < batch; i++) rows[i] = (uint32_t)(at + (i < n ? i : 0));
        s = lk_pictures_begin(r->pictures, rows, batch, r->state.epoch, at, r->input[0]);
        if (s == LK_OK) s = lk_pictures_finish(r->pictures);
        if (s == LK_OK) s = lk_network_forward(&r->net, false, r->input[0]);
        if (s == LK_OK) memcpy(vectors + at * dim, r->net.embedding, n * dim * sizeof *vectors);
    }
    if (s == LK_OK)
        s = lk_confusable_classes(vectors, part->count, dim, part->classes, (uint32_t)classes, CONFUSABLE, confusable);
    if (s == LK_OK) s = make_sampler(r, confusable);
    free(vectors);
    free(confusable);
    free(rows);
    return s;
}

static lk_status finish_epoch(run *r, lk_train_epoch *epoch, lk_train_epoch_fn fn, void *user)
{
    lk_status s;
    LK_TRY(judge_epoch(r, epoch));
    r->state.epoch++;
    r->state.batch = 0;
    r->state.loss_sum = 0;
    r->history[r->state.epoch - 1] = *epoch;
    LK_TRY(lk_history_write(r->directory, r->history, r->state.epoch));
    LK_TRY(lk_train_report_write(r->directory, &r->net, r->data, r->history, r->state.epoch, &r->validation,
                                 r->report->reason));
    LK_TRY(checkpoint(r));
    if (fn) fn(user, epoch);
done:
    return s;
}

static lk_status all_epochs(run *r, lk_train_epoch_fn fn, void *user)
{
    lk_status s = LK_OK;
    while (r->state.epoch < r->options.epochs) {
        lk_train_epoch epoch = {0};
        if (r->options.patience && r->state.since_best >= r->options.patience && r->state.batch == 0) {
            r->report->stopped_early = true;
            break;
        }
        if (r->state.epoch) LK_TRY(find_confusable(r));
        LK_TRY(train_epoch(r, &epoch));
        LK_TRY(finish_epoch(r, &epoch, fn, user));
        if ((lk_context_cancelled(r->context) || time_is_up(r)) && r->state.epoch < r->options.epochs)
            LK_TRY(lk_fail(LK_CANCELLED, "stopped after epoch %u; the same command with --resume goes on",
                           r->state.epoch));
    }
done:
    return s;
}

lk_status lk_train(lk_context *context, const lk_train_data *data, const lk_train_options *options,
                   const char *directory, lk_train_epoch_fn epoch, void *user, lk_train_report *report)
{
    lk_train_report unwanted;
    run r = {.context = context,
             .data = data,
             .options = options ? *options : lk_train_defaults(),
             .directory = directory,
             .started = lk_now(),
             .report = report ? report : &unwanted};
    *r.report = (lk_train_report){0};
    lk_status s = check_options(&r.options);
    if (s == LK_OK) s = open_run(&r);
    if (s == LK_OK) s = all_epochs(&r, epoch, user);
    if (r.pictures) r.report->unreadable = lk_pictures_unreadable(r.pictures);
    r.report->epochs = r.state.epoch;
    r.report->best_epoch = r.state.best_epoch;
    r.report->best_map = r.state.best_map;
    r.report->steps = r.state.step;
    close_run(&r);
    return s;
}
