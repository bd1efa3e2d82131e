/* likeness train: an embedding model from pictures and their labels. */
#include "base/error.h"
#include "cli/cli.h"
#include "cli/train_keys.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_train = {
    "train", "FOLDER|LABELS.csv [--into MODEL_DIR] [options]",
    "Train an embedding model on class folders, or on a CSV (path, label, labels or levels, split)", run};

/* Options as they are typed. */
typedef struct typed {
    cli_common common;
    const char *into, *backbone, *pool, *loss, *miner, *sampler, *optimiser, *schedule, *frame, *augment, *precision;
    const char *levels, *pairs, *dropblock, *auxiliary, *whiten;
    lk_processes *processes;
    const char *rate, *decay, *clip, *ema, *warmup, *margin, *scale, *loss_rate, *layer_decay, *freeze, *temperature;
    uint64_t dim, size, epochs, batch, batches, per_class, accumulate, seed, patience, checkpoint, minutes, memory, xbm,
        least;
    bool no_neck, resume, overwrite, half, json, validates, headed;
} typed;

static lk_status read_head(const typed *in, lk_train_options *o)
{
    double drop = 0;
    lk_status s = LK_OK;
    if (in->pool) LK_TRY(cli_read_pool(in->pool, &o->head));
    LK_TRY(cli_read_number("--dropblock", in->dropblock, 0, 0.9, &drop));
    if (in->auxiliary) LK_TRY(cli_read_auxiliary(in->auxiliary, &o->auxiliary));
    if (in->whiten) LK_TRY(cli_read_whiten(in->whiten, &o->whiten, &o->whiten_dim));
    o->head.drop_block = (float)drop;
    o->head.dim = (size_t)in->dim;
    o->head.neck = !in->no_neck;
done:
    return s;
}

static lk_status read_loss(const typed *in, lk_train_options *o)
{
    static const char *const samplers[] = {"plain", "pk", "balanced", "hard-class"};
    int sampler = 0;
    lk_status s = LK_OK;
    if (!in->loss && (in->margin || in->scale || in->temperature || in->xbm))
        return lk_fail(LK_INVALID, "--margin, --scale, --temperature and --memory-bank belong to a --loss");
    if (in->loss && strcmp(in->loss, "auto") != 0) {
        LK_TRY(cli_read_loss(in->loss, &o->loss));
        o->loss_given = true;
        LK_TRY(cli_read_number("--margin", in->margin, 0, 100, &o->loss.margin));
        LK_TRY(cli_read_number("--scale", in->scale, 1e-3, 1e4, &o->loss.scale));
        LK_TRY(cli_read_number("--temperature", in->temperature, 1e-3, 100, &o->loss.temperature));
        if (in->xbm) o->loss.memory = (size_t)in->xbm;
    }
    if (in->miner) LK_TRY(cli_read_miner(in->miner, &o->miner));
    o->miner_given = in->miner != NULL;
    if (in->pairs) LK_TRY(cli_read_pairs(in->pairs, &o->pairs));
    o->pairs_given = in->pairs != NULL;
    LK_TRY(cli_read_word("--sampler", in->sampler, samplers, 4, &sampler));
    o->sampler_given = in->sampler != NULL;
    o->sampler = (lk_sampler_kind)sampler;
done:
    return s;
}

static lk_status read_optimiser(const typed *in, lk_train_options *o)
{
    static const char *const optimisers[] = {"sgd", "adamw", "lamb"};
    static const char *const schedules[] = {"constant", "cosine", "step", "onecycle"};
    static const char *const precisions[] = {"f32", "bf16"};
    int kind = LK_ADAMW, schedule = LK_RATE_COSINE, precision = 0;
    lk_status s = LK_OK;
    LK_TRY(cli_read_word("--optimiser", in->optimiser, optimisers, 3, &kind));
    LK_TRY(cli_read_word("--schedule", in->schedule, schedules, 4, &schedule));
    LK_TRY(cli_read_word("--precision", in->precision, precisions, 2, &precision));
    o->optimiser.kind = (lk_optimiser_kind)kind;
    o->schedule = (lk_schedule_kind)schedule;
    o->bf16 = precision == 1;
    if (kind == LK_SGD) o->optimiser.weight_decay = 1e-4;
    o->optimiser.nesterov = kind == LK_SGD;
    LK_TRY(cli_read_number("--rate", in->rate, 0, 1e30, &o->optimiser.rate));
    LK_TRY(cli_read_number("--decay", in->decay, 0, 10, &o->optimiser.weight_decay));
    LK_TRY(cli_read_number("--clip", in->clip, 0, 1e6, &o->optimiser.clip_norm));
    LK_TRY(cli_read_number("--ema", in->ema, 0, 0.99999, &o->optimiser.ema));
    LK_TRY(cli_read_number("--warmup", in->warmup, 0, 1, &o->warmup));
    if (in->warmup && o->warmup == 0) o->warmup = -1;
    LK_TRY(cli_read_number("--loss-rate", in->loss_rate, 1e-6, 1e6, &o->loss_rate));
    LK_TRY(cli_read_number("--layer-decay", in->layer_decay, 1e-3, 1, &o->layer_decay));
done:
    return s;
}

static lk_status read_options(const typed *in, lk_train_options *o)
{
    static const char *const frames[] = {"auto", "squash", "border", "trim"};
    static const char *const augments[] = {"auto", "photo", "logo", "none"};
    int frame = 0, augment = 0;
    lk_status s;
    *o = lk_train_defaults();
    LK_TRY(read_head(in, o));
    LK_TRY(read_loss(in, o));
    LK_TRY(read_optimiser(in, o));
    LK_TRY(cli_read_word("--frame", in->frame, frames, 4, &frame));
    LK_TRY(cli_read_word("--augment", in->augment, augments, 4, &augment));
    o->frame = (lk_frame)frame;
    o->augment = (lk_augment_kind)augment;
    o->backbone = in->backbone;
    o->freeze = in->freeze;
    o->size = (uint32_t)in->size;
    o->epochs = (uint32_t)in->epochs;
    o->batch = (size_t)in->batch;
    o->batches = (size_t)in->batches;
    o->per_class = (size_t)in->per_class;
    o->accumulate = (uint32_t)in->accumulate;
    o->seed = in->seed;
    o->patience = (uint32_t)in->patience;
    o->checkpoint_every = (uint32_t)in->checkpoint;
    o->seconds = 60.0 * (double)in->minutes;
    o->memory = in->memory << 20;
    o->resume = in->resume;
    o->overwrite = in->overwrite;
    if (o->resume && o->overwrite) s = lk_fail(LK_INVALID, "--resume goes on and --overwrite starts anew: give one");
    o->processes = in->processes;
    o->half = in->half;
done:
    return s;
}

static void print_epoch(void *user, const lk_train_epoch *e)
{
    typed *in = user;
    if (in->common.quiet || in->json) return;
    if (!in->headed) printf("epoch       loss      rate  images/s     mAP     hit@1     hit@10  nDCG@10\n");
    printf("%5u  %9.4f  %8.2e  %8.1f  ", e->epoch, e->loss, e->rate, e->images_per_second);
    if (in->validates)
        printf("%6.4f  %8.4f  %9.4f  %7.4f%s\n", e->map, e->hit1, e->hit10, e->ndcg10, e->best ? "  best" : "");
    else
        printf("%6s  %8s  %9s  %7s\n", "-", "-", "-", "-");
    in->headed = true;
    fflush(stdout);
}

static int finish(const typed *in, const lk_train_report *r, lk_status s)
{
    if (s == LK_CANCELLED && !in->common.quiet) fprintf(stderr, "likeness: train: %s\n", lk_error_message());
    if (s != LK_OK && s != LK_CANCELLED) return cli_fail("train");
    if (in->json)
        return cli_print_json(json_pack("{s:i, s:i, s:f, s:I, s:I, s:b, s:s, s:s}", "epochs", (int)r->epochs,
                                        "best_epoch", (int)r->best_epoch, "mAP", r->best_map, "steps",
                                        (json_int_t)r->steps, "unreadable", (json_int_t)r->unreadable, "stopped_early",
                                        (int)r->stopped_early, "model", in->into, "reason", r->reason));
    char map[32] = "";
    if (in->validates) snprintf(map, sizeof map, ", mAP %.4f", r->best_map);
    if (!in->common.quiet && r->best_epoch)
        printf("%s: the model of epoch %u%s%s; %s/report.html shows curves%s\n", in->into, r->best_epoch, map,
               r->stopped_early ? " (no better one for long enough)" : "", in->into,
               in->validates ? " and confusions" : "");
    if (s == LK_CANCELLED) return EXIT_FAILED;
    return r->unreadable ? EXIT_SKIPPED : EXIT_DONE;
}

static void print_data(const lk_train_data_info *i)
{
    printf("%zu pictures", i->training);
    if (i->labels.kind == LK_LABELS_MULTI)
        printf(" with %zu different labels", i->labels.classes);
    else if (i->classes)
        printf(" of %zu classes", i->classes);
    if (i->labels.kind == LK_LABELS_HIERARCHY) printf(" in %zu levels", i->labels.levels);
    printf(" to train on, ");
    if (i->validation)
        printf("%zu", i->validation);
    else
        printf("none");
    if (i->held_out) printf(" of %zu other classes", i->held_out);
    printf(" to validate with");
    if (i->labels.singletons) printf("; %zu classes have one picture only", i->labels.singletons);
    if (i->missing) printf("; %zu are missing", i->missing);
    printf("\n");
    fflush(stdout);
}

static int train(typed *in, const char *path)
{
    lk_train_options options;
    lk_train_data *data = NULL;
    lk_train_report report = {0};
    if (read_options(in, &options) != LK_OK) return cli_usage(&cli_train, "%s", lk_error_message());
    bool first = lk_processes_rank(in->processes) == 0;
    if (!first) in->common.quiet = true;
    lk_context *context = cli_context(&in->common);
    if (!context) return EXIT_FAILED;
    lk_status s = lk_train_data_open(context, path, in->levels, &data);
    if (s == LK_OK && in->least) s = lk_fail_in(lk_train_data_thin(data, (size_t)in->least), "--least-per-class");
    if (s == LK_OK) {
        lk_train_data_info i = lk_train_data_info_of(data);
        in->validates = i.validation > 1;
        if (!in->common.quiet && !in->json) print_data(&i);
        s = lk_train(context, data, &options, in->into, print_epoch, in, &report);
    }
    int status;
    if (first || lk_processes_broken(in->processes))
        status = finish(in, &report, s);
    else
        status = s == LK_OK ? EXIT_DONE : EXIT_FAILED; /* the first one speaks for all */
    if (status == EXIT_DONE && data && lk_train_data_info_of(data).missing) status = EXIT_SKIPPED;
    lk_train_data_free(data);
    cli_context_free(context);
    return status;
}

/* Whether mpirun started this process among others. */
static bool among_others(void)
{
    static const char *const counts[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const char *count = getenv(counts[i]);
        if (count && atoi(count) > 1) return true;
    }
    return false;
}

static int join_and_train(typed *in, const char *path)
{
    if (among_others() && lk_processes_join(&in->processes) != LK_OK) return cli_fail("train");
    int status = cli_finish(train(in, path));
    lk_processes_leave(in->processes);
    return status;
}

#define TEXT(option, what, said, where)                                                                                \
    {                                                                                                                  \
        .name = option, .value = what, .help = said, .text = &in.where                                                 \
    }
#define WHOLE(option, said, where, from, to)                                                                           \
    {                                                                                                                  \
        .name = option, .value = "N", .help = said, .number = &in.where, .least = from, .most = to                     \
    }

static int run(int argc, char **argv)
{
    typed in = {.into = "model", .dim = 128};
    const cli_option options[] = {
        TEXT("--into", "DIR", "the model's directory (default: model)", into),
        TEXT("--backbone", "NAME", "an architecture, a config.json, or a model to start from (resnet18)", backbone),
        TEXT("--levels", "COLUMNS", "labels of a hierarchy: columns, coarsest first; or folders", levels),
        TEXT("--pool", "P", "gem (gem:3 fixed, gem-channels), avg, max, rmac[:LEVELS[,whiten]], cgd[:avg+max+gem], cls",
             pool),
        WHOLE("--dim", "width of the embedding; 0 = what is pooled (default 128)", dim, 0, 8192),
        {.name = "--no-neck", .help = "no batch normalisation behind the projection", .flag = &in.no_neck},
        TEXT("--dropblock", "X", "train a second branch that misses this share of the height (0.33)", dropblock),
        TEXT("--auxiliary", "X", "weight of a classifier beside cgd: 1, 1:temperature=0.5,smoothing=0.1", auxiliary),
        TEXT("--whiten", "KIND", "whiten the embedding at the end: pca, learnt (from pairs), pca:64", whiten),
        TEXT("--loss", "NAME", "arcface, triplet:margin=0.2, NAME:KEY=X,... (default: what the labels advise)", loss),
        TEXT("--pairs", "RULE", "partly alike: soft, X (alike from there), X,Y (unlike up to Y)", pairs),
        TEXT("--margin", "X", "of the loss", margin),
        TEXT("--scale", "X", "of the loss", scale),
        TEXT("--temperature", "X", "of the loss", temperature),
        WHOLE("--memory-bank", "cross-batch memory of so many embeddings", xbm, 0, 10000000),
        TEXT("--miner", "NAME", "batch-hard, semi-hard:margin=0.1, NAME:KEY=X,... (default: advised)", miner),
        TEXT("--sampler", "NAME", "plain, pk, balanced or hard-class (default: advised)", sampler),
        WHOLE("--least-per-class", "leave out classes of fewer pictures to train on", least, 1, 1000000),
        WHOLE("--per-class", "pictures of a class in a batch", per_class, 1, 1024),
        WHOLE("--size", "side of the pictures, pixels (default 128)", size, 16, 1024),
        TEXT("--frame", "F", "trim, border or squash (default: trim for drawings, else squash)", frame),
        TEXT("--augment", "A", "logo, photo or none (default: logo for drawings, else photo)", augment),
        WHOLE("--epochs", "(default 30)", epochs, 1, 100000),
        WHOLE("--batch", "pictures a batch (default 64)", batch, 2, 4096),
        WHOLE("--batches", "batches an epoch (default: about every picture once, 10 at least)", batches, 1, 1000000000),
        WHOLE("--accumulate", "batches per step (default 1)", accumulate, 1, 1024),
        TEXT("--precision", "F", "f32 (default) or bf16", precision),
        TEXT("--optimiser", "NAME", "adamw (default), sgd or lamb", optimiser),
        TEXT("--rate", "X", "highest learning rate (default 1e-3; sgd 0.05, lamb 4e-3)", rate),
        TEXT("--decay", "X", "weight decay (default 0.01; sgd 1e-4)", decay),
        TEXT("--clip", "X", "largest norm of the gradients (default 5; 0 = off)", clip),
        TEXT("--ema", "X", "decay of a moving average of the weights (default 0 = none)", ema),
        TEXT("--schedule", "NAME", "cosine (default), step, onecycle or constant", schedule),
        TEXT("--warmup", "X", "share of the steps that rise (default 0.05)", warmup),
        TEXT("--loss-rate", "X", "rate of class weights or proxies over the network's", loss_rate),
        TEXT("--layer-decay", "X", "rate of each block over that of the next (default 1)", layer_decay),
        TEXT("--freeze", "NAMES", "beginnings of parameters' names that stay as they are: conv1,bn1,layer1", freeze),
        WHOLE("--patience", "stop after so many epochs without a better one", patience, 1, 100000),
        WHOLE("--checkpoint-every", "steps between checkpoints within an epoch", checkpoint, 1, 1000000000),
        WHOLE("--minutes", "stop after so many; --resume goes on", minutes, 1, 1000000),
        WHOLE("--memory", "MiB of decoded pictures kept (default 1024)", memory, 1, 1 << 30),
        WHOLE("--seed", "of all chance", seed, 0, UINT64_MAX),
        {.name = "--resume", .help = "go on from the last checkpoint in the directory", .flag = &in.resume},
        {.name = "--overwrite", .help = "train anew where a model is already", .flag = &in.overwrite},
        {.name = "--half", .help = "write the weights as f16", .flag = &in.half},
        {.name = "--json", .help = "print the result as JSON", .flag = &in.json},
        CLI_COMMON_OPTIONS(in.common),
    };
    int count, status = cli_parse(&cli_train, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_train, "a folder of class folders, or a CSV, is wanted");
    return join_and_train(&in, argv[0]);
}
