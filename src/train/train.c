/* The training loop: advice, batches, steps, validation, checkpoints. */
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "metric/kinds.h"
#include "train/files.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_EPOCHS = 30,
    DEFAULT_BATCH = 64,
    DEFAULT_DIM = 128,
    CONFUSABLE = 16,
    MOST_BATCH = 4096,
    LEAST_BATCHES = 10
};
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
    bool graded;      /* labels go to the loss with their degrees: sets, or levels */
    size_t drawn;     /* pictures per batch from the sampler: half of it with two views */
    size_t own;       /* pictures per batch of this process */
    size_t batches;   /* per epoch */
    uint32_t *rows;   /* [batches][drawn] of the epoch */
    uint32_t *placed; /* [batch] rows of one batch, both views */
    float *input[2];
    int32_t *classes, *sets, *finest; /* finest: for the classifier beside CGD */
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
    if ((unsigned)o->head.pool >= LK_HEAD_POOLS || o->head.levels > 8 || !(o->head.drop_block >= 0) ||
        o->head.drop_block >= 1)
        return lk_fail(LK_INVALID, "the pooling, the levels of R-MAC or the dropped share makes no sense");
    if (o->whiten_dim > 8192 || (unsigned)o->whiten > LK_WHITEN_LEARNT || (o->whiten_dim && !o->whiten))
        return lk_fail(LK_INVALID, "the whitening makes no sense");
    if (!(o->auxiliary.weight >= 0 && o->auxiliary.temperature >= 0 && o->auxiliary.smoothing < 1))
        return lk_fail(LK_INVALID, "the weight, temperature or smoothing of the classifier makes no sense");
    if (o->auxiliary.weight > 0 && o->head.pool != LK_HEAD_CGD)
        return lk_fail(LK_INVALID, "the classifier beside the descriptors belongs to the pooling cgd");
    return LK_OK;
}

/* What asks for one class a picture. */
static lk_status check_labels(const run *r)
{
    const lk_train_options *o = &r->options;
    const lk_label_summary *l = &r->data->info.labels;
    bool single = r->data->labelled && !r->data->multi;
    if (o->auxiliary.weight > 0 && !single)
        return lk_fail(LK_INVALID, "the classifier beside the descriptors wants one label a picture");
    if (o->whiten == LK_WHITEN_LEARNT && (!single || l->singletons == l->classes))
        return lk_fail(LK_INVALID, "a learnt whitening wants classes of two pictures: without them take pca");
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

/* How pairs between alike and unlike are taken, and whether the loss can take them at all. */
static lk_status choose_pairs(run *r)
{
    const lk_train_options *o = &r->options;
    lk_advice *a = &r->advice;
    const lk_loss_traits *traits = lk_loss_traits_of(a->loss.kind);
    bool one_class = traits->weights || a->loss.beta_per_class || a->loss.memory > 0 || a->loss.kind == LK_LOSS_N_PAIRS;
    if (r->data->multi && one_class)
        return lk_fail(LK_INVALID,
                       "the loss %s%s takes one class per picture, and pictures carry several labels: take "
                       "multi-similarity, contrastive or supcon",
                       traits->name, a->loss.memory ? " with a memory" : "");
    /* of a hierarchy such losses see the finest level */
    r->graded = !a->two_views && (r->data->multi || (r->data->levels && !one_class));
    if (o->pairs_given)
        a->loss.rule = o->pairs;
    else if (r->graded && a->loss.rule.positive == 0 && a->loss.rule.negative == 0)
        a->loss.rule.soft = traits->weighted;
    if (o->pairs_given && !o->miner_given) r->options.miner.rule = o->pairs;
    r->options.miner.rule.soft = false;
    return LK_OK;
}

/* A loss with class weights learns each from the pictures of its own class alone. */
static void warn_of_few(run *r)
{
    const lk_label_summary *l = &r->data->info.labels;
    size_t said = strlen(r->report->reason);
    if (!lk_loss_traits_of(r->advice.loss.kind)->weights || !l->labelled || !lk_few_per_class(l)) return;
    snprintf(r->report->reason + said, sizeof r->report->reason - said,
             " It learns a weight vector for each of %zu classes, which have %.1f pictures on average (%zu have one): "
             "too few to learn them from in a few epochs. Losses of pairs (supcon, multi-similarity, n-tuple) learn "
             "from such classes; else leave small ones out (--least-per-class 4) and lower the scale and the margin "
             "(--loss arcface:scale=16,margin=0.2).",
             l->classes, (double)l->pictures / (double)l->classes, l->singletons);
}

/* Loss, miner, sampler: the advice, with what was given in its place. */
static lk_status choose(run *r)
{
    lk_train_options *o = &r->options;
    lk_status s = lk_advise(&r->data->info.labels, o->batch, &r->advice);
    if (s != LK_OK) return s;
    lk_advice *a = &r->advice;
    if (o->loss_given && !lk_loss_traits_of(o->loss.kind))
        return lk_fail(LK_INVALID, "no kind of loss has number %d", o->loss.kind);
    snprintf(r->report->reason, sizeof r->report->reason, "%s", a->reason);
    if (o->loss_given) {
        bool unlabelled = a->two_views;
        a->loss = o->loss;
        a->miner = LK_MINER_ALL;
        if (unlabelled && r->data->info.labels.labelled) a->two_views = false;
        snprintf(r->report->reason, sizeof r->report->reason, "The loss %s was asked for.", lk_loss_name(a->loss.kind));
        warn_of_few(r);
        /* Pairs within a batch need classes that come several at a time. */
        bool pairs = a->loss.kind < LK_LOSS_NORMALISED_SOFTMAX || a->loss.kind > LK_LOSS_PROXY_ANCHOR;
        if (pairs && !r->data->multi && !a->two_views) a->sampler = LK_SAMPLER_PK;
    }
    if (!o->miner_given) o->miner = lk_miner_defaults(a->loss.memory ? LK_MINER_ALL : a->miner);
    if (o->sampler_given) a->sampler = o->sampler;
    if (o->per_class) a->per_class = o->per_class;
    if (a->loss.classes == 0) a->loss.classes = (uint32_t)r->data->training.class_count;
    if (a->two_views) a->loss.classes = (uint32_t)r->data->training.count;
    if (o->loss_rate == 0) o->loss_rate = has_proxies(a->loss.kind) ? 10 : 1;
    return choose_pairs(r);
}

/* A batch that the data can fill, in equal parts for all processes. */
static lk_status fit_batch(run *r)
{
    lk_train_options *o = &r->options;
    lk_advice *a = &r->advice;
    size_t count = r->data->training.count, classes = r->data->training.class_count;
    size_t processes = (size_t)lk_processes_count(o->processes), asked = o->batch * processes, step = 1, most;
    if (a->two_views) {
        step = 2;
        most = asked / 2 < count ? asked / 2 : count;
    } else if (a->sampler == LK_SAMPLER_PK || a->sampler == LK_SAMPLER_HARD_CLASS) {
        if (a->per_class > asked / 2) a->per_class = asked / 2;
        step = a->per_class;
        most = asked / step < classes ? asked / step : classes;
        if (most < 2) return lk_fail(LK_INVALID, "%zu classes: at least two are needed in a batch", classes);
    } else {
        most = asked < count ? asked : count;
    }
    while (most > 1 && most * step % processes) most--;
    o->batch = most * step;
    if (o->batch % processes || o->batch < 2 || (step > 2 && most < 2))
        return lk_fail(LK_INVALID, "%zu pictures of %zu classes fill no batch for %zu processes", count, classes,
                       processes);
    r->drawn = a->two_views ? most : o->batch;
    r->own = o->batch / processes;
    if (o->batch != asked) lk_log(r->context, LK_LOG_INFO, "batches of %zu: what the data has", o->batch);
    return LK_OK;
}

/* As many as the sampler looks at, fewer where there are fewer classes. */
static size_t confusable_count(const run *r)
{
    size_t classes = r->data->training.class_count;
    return classes < CONFUSABLE ? classes : CONFUSABLE;
}

static lk_status make_sampler(run *r, const uint32_t *confusable)
{
    const lk_train_part *part = &r->data->training;
    /* Of few pictures an epoch takes several passes: the running statistics of norms need the steps. */
    size_t batches = r->options.batches;
    if (!batches && part->count / r->drawn < LEAST_BATCHES) batches = LEAST_BATCHES;
    const lk_sampler_options options = {.kind = r->advice.two_views ? LK_SAMPLER_PLAIN : r->advice.sampler,
                                        .batch = r->drawn,
                                        .per_class = r->advice.per_class,
                                        .batches = batches,
                                        .confusable = confusable,
                                        .confusable_count = confusable ? confusable_count(r) : 0,
                                        .seed = r->options.seed};
    lk_sampler_free(r->sampler);
    r->sampler = NULL;
    return lk_sampler_new(&options, part->classes, part->count, &r->sampler);
}

static void print_loss(FILE *out, const lk_loss_options *l, const lk_miner_options *m)
{
    fprintf(out, "%d %d %d %d %a %a %d ", (int)l->kind, (int)l->distance.kind, (int)l->distance.raw, (int)l->reducer,
            l->rule.positive, l->rule.negative, (int)l->rule.soft);
    fprintf(out, "%a %a %a %a %a %a %a %a %a ", l->margin, l->positive_margin, l->negative_margin, l->scale,
            l->temperature, l->alpha, l->beta, l->base, l->nu);
    fprintf(out, "%d %d %u %u %d %d %u %zu %d ", (int)l->form, (int)l->swap, l->bins, l->subcenters, (int)l->learn_beta,
            (int)l->beta_per_class, l->classes, l->memory, (int)l->memory_miner);
    fprintf(out, "%d %d %d %a %a %a %d %d ", (int)m->kind, (int)m->distance.kind, (int)m->distance.raw,
            m->rule.positive, m->rule.negative, m->margin, (int)m->positive, (int)m->negative);
    fprintf(out, "%a %a %a %a %a %a ", m->epsilon, m->positive_margin, m->negative_margin, m->angle, m->cutoff,
            m->nonzero_cutoff);
}

/* What must not change between a run and its resumption, nor between processes. Epochs may be added. */
static lk_status fingerprint(run *r)
{
    const lk_train_options *o = &r->options;
    const lk_head_options *h = &o->head;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return lk_fail_memory("options");
    fprintf(out, "%s %d %a %d %d %u %d%d%d %zu %d %a ", o->backbone ? o->backbone : "", (int)h->pool, (double)h->p,
            (int)h->fixed_p, (int)h->p_per_channel, h->levels, h->descriptors[0], h->descriptors[1], h->descriptors[2],
            h->dim, (int)h->neck, (double)h->drop_block);
    fprintf(out, "%d %a %a %a ", (int)h->whiten_regions, o->auxiliary.weight, o->auxiliary.temperature,
            o->auxiliary.smoothing);
    print_loss(out, &r->advice.loss, &o->miner);
    fprintf(out, "%d %zu %u %d %d %zu %zu %u %d ", (int)r->advice.sampler, r->advice.per_class,
            lk_network_side(&r->net), (int)o->frame, (int)o->augment, o->batch, o->batches, o->accumulate,
            (int)o->bf16);
    fprintf(out, "%d %a %a %d %a %a %a %a ", (int)o->optimiser.kind, o->optimiser.rate, o->optimiser.momentum,
            (int)o->optimiser.nesterov, o->optimiser.beta1, o->optimiser.beta2, o->optimiser.eps,
            o->optimiser.weight_decay);
    fprintf(out, "%a %a %a %a %a %s ", o->optimiser.clip_norm, o->optimiser.clip_value, o->optimiser.ema, o->loss_rate,
            o->layer_decay, o->freeze ? o->freeze : "");
    fprintf(out, "%d %a %a %a %llu\n", (int)o->schedule, o->warmup, o->step_epochs, o->gamma,
            (unsigned long long)o->seed);
    for (size_t i = 0; i < r->data->count; i++) fprintf(out, "%s\t%s\n", r->data->paths[i], r->data->names[i]);
    const lk_train_part *parts[] = {&r->data->training, &r->data->validation};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < parts[k]->count; i++) fprintf(out, "%u ", parts[k]->pictures[i]);
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
    size_t side = lk_network_side(&r->net), batch = r->options.batch, levels = r->data->levels;
    const lk_train_part *part = &r->data->training;
    size_t most = 0;
    for (size_t i = 0; part->set_at && i < part->count; i++)
        if (part->set_at[i + 1] - part->set_at[i] > most) most = part->set_at[i + 1] - part->set_at[i];
    r->batches = lk_sampler_batches(r->sampler);
    r->rows = lk_alloc(r->batches * r->drawn, sizeof *r->rows);
    r->placed = lk_alloc(batch, sizeof *r->placed);
    r->classes = lk_alloc(batch, (levels ? levels : 1) * sizeof *r->classes);
    r->finest = r->options.auxiliary.weight > 0 ? lk_alloc(batch, sizeof *r->finest) : NULL;
    r->set_at = lk_alloc(batch + 1, sizeof *r->set_at);
    r->sets = lk_alloc(batch * most + 1, sizeof *r->sets);
    r->history = lk_alloc_zero(r->options.epochs, sizeof *r->history);
    for (int i = 0; i < 2; i++) r->input[i] = lk_alloc_aligned(r->own * 3 * side * side, sizeof(float));
    bool ok = r->rows && r->placed && r->classes && r->set_at && r->sets && r->history && r->input[0] && r->input[1];
    ok = ok && (r->finest || !(r->options.auxiliary.weight > 0));
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
    if (o->auxiliary.temperature == 0) o->auxiliary.temperature = 0.5;
    o->auxiliary.smoothing = o->auxiliary.smoothing < 0    ? 0
                             : o->auxiliary.smoothing == 0 ? 0.1
                                                           : o->auxiliary.smoothing;
    if (o->optimiser.rate == 0) o->optimiser.rate = default_rate(o->optimiser.kind);
}

static bool writes(const run *r)
{
    return lk_processes_rank(r->options.processes) == 0;
}

/* Everything that one process needs. */
static lk_status open_own(run *r)
{
    lk_status s;
    fill_defaults(&r->options);
    LK_TRY(check_labels(r));
    LK_TRY(choose(r));
    LK_TRY(fit_batch(r));
    if (writes(r)) lk_log(r->context, LK_LOG_INFO, "%s", r->report->reason);
    LK_TRY(lk_network_open(&r->options, &r->advice.loss, r->data->training.class_count, lk_context_threads(r->context),
                           &r->net));
    if (r->options.whiten_dim > r->net.dim)
        LK_TRY(lk_fail(LK_INVALID, "a whitening keeps at most the %zu dimensions there are", r->net.dim));
    set_frame(r);
    LK_TRY(lk_network_add_optimiser(&r->net, &r->options));
    LK_TRY(open_pictures(r));
    LK_TRY(lk_validation_open(r->context, r->data, r->pictures, &r->validation));
    if (r->advice.sampler == LK_SAMPLER_HARD_CLASS && !r->advice.two_views) {
        size_t n = r->data->training.class_count * confusable_count(r);
        uint32_t *empty = lk_alloc(n, sizeof *empty); /* nothing is known before the first epoch */
        if (!empty) return lk_fail_memory("classes");
        memset(empty, 0xff, n * sizeof *empty);
        s = make_sampler(r, empty);
        free(empty);
    } else {
        s = make_sampler(r, NULL);
    }
    if (s != LK_OK) goto done;
    LK_TRY(make_room(r));
    make_schedule(r);
    s = fingerprint(r);
done:
    return s;
}

/* All processes must be about to do the same. */
static lk_status compare_processes(const run *r)
{
    char own[64] = "", first[64];
    snprintf(own, sizeof own, "%s %u", r->fingerprint, r->options.epochs);
    memcpy(first, own, sizeof first);
    lk_status s = lk_processes_share(r->options.processes, first, sizeof first);
    if (s == LK_OK && strcmp(first, own) != 0)
        s = lk_fail(LK_CONFLICT, "it has other options or other pictures than the first process");
    return s;
}

static bool holds(const char *directory, const char *name)
{
    char *path = lk_path_join(directory, name);
    bool yes = path && lk_path_exists(path);
    free(path);
    return yes;
}

/* A model is hours of work: it gives way only where that is asked for. */
static lk_status look_before_writing(const run *r)
{
    bool model = holds(r->directory, "model.safetensors") || holds(r->directory, "config.json");
    bool checkpoint = holds(r->directory, "checkpoint/last.safetensors");
    if (r->options.overwrite || (!model && !checkpoint) || (r->options.resume && checkpoint)) return LK_OK;
    if (r->options.resume)
        return lk_fail(
            LK_CONFLICT,
            "%s: holds a model, but no checkpoint to go on from: give --overwrite to train anew in its place, "
            "or another directory (--backbone starts from its weights)",
            r->directory);
    return lk_fail(LK_CONFLICT,
                   "%s: holds %s: give --resume to go on with it, --overwrite to train anew in its place, or another "
                   "directory",
                   r->directory, model ? "a trained model" : "a training that was stopped in its first epoch");
}

static lk_status open_run(run *r)
{
    lk_processes *all = r->options.processes;
    bool there = false;
    lk_status s;
    LK_TRY(lk_processes_agree(all, writes(r) ? look_before_writing(r) : LK_OK));
    LK_TRY(lk_processes_agree(all, open_own(r)));
    LK_TRY(lk_processes_agree(all, compare_processes(r)));
    if (writes(r)) s = lk_make_dirs(r->directory);
    if (s == LK_OK && writes(r) && r->options.resume)
        s = lk_checkpoint_read(r->directory, &r->net, &r->state, r->fingerprint, &there);
    if (s == LK_OK && there && r->state.epoch > r->options.epochs)
        s = lk_fail(LK_CONFLICT, "%s: has had %u epochs already: give --epochs %u to leave it so, or more to go on",
                    r->directory, r->state.epoch, r->state.epoch);
    if (s == LK_OK && there) s = lk_history_read(r->directory, r->history, r->state.epoch);
    LK_TRY(lk_processes_agree(all, s));
    LK_TRY(lk_processes_share(all, &r->state, sizeof r->state));
    LK_TRY(lk_network_share(&r->net));
    if (there && r->state.epoch == r->options.epochs)
        lk_log(r->context, LK_LOG_INFO, "all %u epochs are done; a larger --epochs goes on", r->state.epoch);
    else if (there)
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
    free(r->finest);
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
    size_t first = (size_t)lk_processes_rank(r->options.processes) * r->own;
    if (batch >= r->batches) return LK_OK;
    return lk_pictures_begin(r->pictures, rows_of(r, batch) + first, r->own, r->state.epoch,
                             batch * r->options.batch + first, r->input[batch % 2]);
}

static lk_status not_finite(const run *r, const char *what)
{
    char why[LK_ERROR_SIZE];
    snprintf(why, sizeof why, "%s", what);
    lk_fail(LK_CORRUPT,
            "%s at step %llu (epoch %u): the training has gone astray. Lower --rate (it is %g), or use --precision "
            "f32, a longer --warmup or --clip 1; what was saved before stays in %s",
            why, (unsigned long long)r->state.step + 1, r->state.epoch + 1, r->options.optimiser.rate, r->directory);
    return lk_processes_same(r->options.processes, LK_CORRUPT);
}

/* Labels of a batch, as the loss takes them. */
static lk_labels labels_of(run *r, size_t batch)
{
    if (!r->advice.two_views)
        return lk_train_labels_of(r->data, &r->data->training, r->rows + batch * r->drawn, r->drawn, !r->graded,
                                  r->classes, r->set_at, r->sets);
    lk_labels_of_views(r->drawn, r->classes);
    return (lk_labels){.kind = LK_LABELS_SINGLE, .classes = r->classes};
}

/* Classes of a batch for the classifier beside CGD; NULL without it. */
static const int32_t *finest_of(run *r, size_t batch)
{
    if (!r->finest) return NULL;
    for (size_t i = 0; i < r->options.batch; i++)
        r->finest[i] = r->data->training.classes[r->rows[batch * r->drawn + i % r->drawn]]; /* both views */
    return r->finest;
}

/* What a batch weighs in its step: the last step of an epoch may have fewer batches than the others. */
static float share_of(const run *r, size_t batch)
{
    size_t most = r->options.accumulate, first = batch / most * most;
    return 1.0f / (float)(r->batches - first < most ? r->batches - first : most);
}

static lk_status train_batch(run *r, size_t batch)
{
    const lk_train_options *o = &r->options;
    const lk_labels labels = labels_of(r, batch);
    const lk_net_lesson lesson = {.labels = &labels,
                                  .classes = finest_of(r, batch),
                                  .miner = &o->miner,
                                  .seed = o->seed ^ (r->state.epoch * r->batches + batch + 1) * 0x9e3779b97f4a7c15u,
                                  .share = share_of(r, batch)};
    double value = 0;
    lk_status s;
    LK_TRY(lk_network_forward(&r->net, true, lesson.seed, r->input[batch % 2]));
    for (size_t i = 0; i < o->batch * r->net.dim; i++)
        if (!isfinite(r->net.main.embedding[i])) return not_finite(r, "an embedding is not a number");
    LK_TRY(lk_network_backward(&r->net, &lesson, &value));
    if (!isfinite(value)) return not_finite(r, "the loss is not a number");
    r->state.loss_sum += value;
    r->state.batch = batch + 1;
    if (r->state.batch % o->accumulate == 0 || r->state.batch == r->batches) {
        s = lk_network_step(&r->net, lk_schedule_rate(&r->schedule, r->state.step));
        if (s == LK_CORRUPT) return not_finite(r, lk_error_message());
        r->state.step += s == LK_OK;
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
        if (sum != 0) return not_finite(r, "a weight is not a number");
    }
    lk_status s = LK_OK;
    if (writes(r)) s = lk_checkpoint_write(r->directory, &r->net, &r->state, r->fingerprint);
    return lk_processes_agree(r->options.processes, s);
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
        LK_TRY(lk_processes_agree(r->options.processes, lk_pictures_finish(r->pictures)));
        LK_TRY(train_batch(r, batch));
        lk_report_progress(r->context, "training", r->state.epoch * r->batches + batch + 1,
                           r->options.epochs * r->batches);
        /* What the hard-class sampler draws follows from the weights at the epoch's begin: it has no middle to go on
         * from. */
        bool between = r->state.batch % r->options.accumulate == 0 && r->state.batch < r->batches &&
                       r->advice.sampler != LK_SAMPLER_HARD_CLASS;
        bool stop = lk_processes_any(r->options.processes, lk_context_cancelled(r->context) || time_is_up(r), &s);
        if (s != LK_OK) goto done;
        if (between && (stop || (every && r->state.batch / r->options.accumulate % every == 0))) LK_TRY(checkpoint(r));
        if (stop && r->state.batch < r->batches && r->state.batch % r->options.accumulate == 0) {
            s = lk_fail(LK_CANCELLED, "stopped in epoch %u; the same command with --resume goes on",
                        r->state.epoch + 1);
            lk_processes_same(r->options.processes, s);
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
    lk_processes *all = r->options.processes;
    float *kept = NULL;
    lk_status s = lk_processes_agree(all, lk_network_average(&r->net, &kept));
    if (s == LK_OK) s = lk_validate(&r->validation, &r->net, r->input[0], epoch);
    /* Machines that are not alike round differently: one judges for all. */
    if (s == LK_OK) s = lk_processes_share(all, epoch, sizeof *epoch);
    epoch->best = r->validation.n < 2 || r->state.best_epoch == 0 || epoch->map > r->state.best_map;
    if (s == LK_OK) {
        if (epoch->best && writes(r)) s = lk_train_export(r->directory, &r->net, r->options.half);
        s = lk_processes_agree(all, s);
    }
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

/* Vectors of this process' share of the training pictures, in their rows of vectors; the other rows stay 0. */
static lk_status embed_training(run *r, uint32_t *rows, float *vectors)
{
    size_t count = r->data->training.count, dim = r->net.dim, own = r->own;
    size_t processes = (size_t)lk_processes_count(r->options.processes);
    lk_status s = LK_OK;
    for (size_t at = own * (size_t)lk_processes_rank(r->options.processes); s == LK_OK && at < count;
         at += own * processes) {
        size_t n = count - at < own ? count - at : own;
        for (size_t i = 0; i < own; i++) rows[i] = (uint32_t)(at + (i < n ? i : 0));
        s = lk_pictures_begin(r->pictures, rows, own, r->state.epoch, at, r->input[0]);
        if (s == LK_OK) s = lk_pictures_finish(r->pictures);
        if (s == LK_OK) s = lk_network_forward(&r->net, false, 0, r->input[0]);
        if (s == LK_OK) memcpy(vectors + at * dim, r->net.main.embedding, n * dim * sizeof *vectors);
    }
    return s;
}

/* Classes that the model takes for one another, for the sampler of the next epoch. */
static lk_status find_confusable(run *r)
{
    const lk_train_part *part = &r->data->training;
    size_t classes = part->class_count, dim = r->net.dim, width = confusable_count(r);
    if (r->advice.sampler != LK_SAMPLER_HARD_CLASS || r->advice.two_views) return LK_OK;
    float *vectors = lk_alloc_zero(part->count * dim, sizeof *vectors);
    uint32_t *confusable = lk_alloc(classes * width, sizeof *confusable), *rows = lk_alloc(r->own, sizeof *rows);
    lk_status s = vectors && confusable && rows ? embed_training(r, rows, vectors) : lk_fail_memory("classes");
    s = lk_processes_agree(r->options.processes, s);
    if (s == LK_OK) s = lk_processes_sum(r->options.processes, vectors, part->count * dim);
    if (s == LK_OK)
        s = lk_confusable_classes(vectors, part->count, dim, part->classes, (uint32_t)classes, width, confusable);
    if (s == LK_OK) s = lk_processes_share(r->options.processes, confusable, classes * width * sizeof *confusable);
    if (s == LK_OK) s = make_sampler(r, confusable);
    free(vectors);
    free(confusable);
    free(rows);
    return s;
}

static lk_status write_history(const run *r)
{
    lk_status s = lk_history_write(r->directory, r->history, r->state.epoch);
    if (s != LK_OK) return s;
    return lk_train_report_write(r->directory, &r->net, r->data, r->history, r->state.epoch, &r->validation,
                                 r->report->reason);
}

static lk_status finish_epoch(run *r, lk_train_epoch *epoch, lk_train_epoch_fn fn, void *user)
{
    lk_status s;
    /* From the first model on there is a checkpoint beside it, wherever the run is killed. */
    if (r->state.best_epoch == 0) LK_TRY(checkpoint(r));
    s = judge_epoch(r, epoch);
    /* A resumed run has no batch of this epoch left to do and validates at once. */
    if (s == LK_CANCELLED && checkpoint(r) == LK_OK)
        s = lk_fail(LK_CANCELLED, "stopped while validating epoch %u; the same command with --resume goes on",
                    r->state.epoch + 1);
    if (s != LK_OK) goto done;
    r->state.epoch++;
    r->state.batch = 0;
    r->state.loss_sum = 0;
    r->history[r->state.epoch - 1] = *epoch;
    LK_TRY(lk_processes_agree(r->options.processes, writes(r) ? write_history(r) : LK_OK));
    LK_TRY(checkpoint(r));
    if (fn && writes(r)) fn(user, epoch);
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
        bool stop = lk_processes_any(r->options.processes, lk_context_cancelled(r->context) || time_is_up(r), &s);
        if (s != LK_OK) goto done;
        if (stop && r->state.epoch < r->options.epochs) {
            s = lk_fail(LK_CANCELLED, "stopped after epoch %u; the same command with --resume goes on", r->state.epoch);
            lk_processes_same(r->options.processes, s);
            goto done;
        }
    }
done:
    return s;
}

/* What was written before the disk was full, or a file lost, is not lost. */
static lk_status say_what_is_left(const run *r, lk_status s)
{
    char why[LK_ERROR_SIZE];
    if (s != LK_IO || r->options.resume || !holds(r->directory, "checkpoint/last.safetensors")) return s;
    snprintf(why, sizeof why, "%s", lk_error_message());
    return lk_fail(s, "%s; --resume goes on from the last checkpoint", why);
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
    lk_status s = lk_processes_same(r.options.processes, check_options(&r.options));
    if (s == LK_OK) s = open_run(&r);
    if (s == LK_OK) s = all_epochs(&r, epoch, user);
    if (s == LK_OK && r.options.whiten) {
        if (writes(&r)) s = lk_train_whiten(context, data, &r.options, directory);
        s = lk_processes_agree(r.options.processes, s);
    }
    s = say_what_is_left(&r, s);
    if (r.pictures) r.report->unreadable = lk_pictures_unreadable(r.pictures);
    r.report->epochs = r.state.epoch;
    r.report->best_epoch = r.state.best_epoch;
    r.report->best_map = r.state.best_map;
    r.report->steps = r.state.step;
    close_run(&r);
    return lk_processes_note(r.options.processes, s);
}
