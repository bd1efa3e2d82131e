/* likeness index: create or update a collection. */
#include "base/error.h"
#include "base/file.h"
#include "base/workplace.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int run(int argc, char **argv);
const cli_command cli_index = {
    "index", "PICTURES... --into COLLECTION.lk [options]",
    "Create or update a collection from folders, files, globs, a CSV (path,label,...) or a list on "
    "stdin (-)",
    run};

typedef struct index_options {
    cli_common common;
    const char *into, *kind, *dtype, *csv, *model, *pool, *precision, *index, *recall;
    lk_neural_options network;
    uint64_t words, dim, sample, seed, commit_every, max_bytes, max_pixels, memory, features;
    bool retry, rebuild, json, folders;
} index_options;

static bool is_csv(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && strcasecmp(dot, ".csv") == 0;
}

static const char *const dtypes[] = {"f32", "f16", "i8"};

static lk_status gather(const index_options *o, int argc, char **argv, lk_source_list *list)
{
    lk_status s = LK_OK;
    if (o->csv) LK_TRY(lk_sources_add_csv(list, o->csv));
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "-") == 0) {
            cli_lines lines;
            LK_TRY(cli_read_lines("-", &lines));
            for (size_t j = 0; s == LK_OK && j < lines.count; j++) s = lk_sources_add_path(list, lines.items[j], NULL);
            cli_free_lines(&lines);
        } else if (is_csv(argv[i])) {
            s = lk_sources_add_csv(list, argv[i]);
        } else {
            s = lk_sources_add(list, argv[i]);
        }
        if (s != LK_OK) break;
    }
    if (s == LK_OK && o->folders) s = lk_sources_label_by_folder(list);
    if (s == LK_OK && lk_sources_count(list) == 0) s = lk_fail(LK_NOT_FOUND, "no pictures were found there");
done:
    return s;
}

static lk_status load_sample(void *user, size_t index, const lk_image_options *options, lk_image *out)
{
    return lk_image_load(lk_sources_at(user, index)->path, options, out);
}

static const lk_source *source_at(void *user, size_t i)
{
    return lk_sources_at(user, i);
}

/* A network from its directory, or a classical embedder learnt from the pictures. */
static lk_status make_embedder(lk_context *context, const index_options *o, lk_source_list *list,
                               lk_embedder **embedder)
{
    const lk_classical_options learning = {.kind = o->kind && strcmp(o->kind, "bovw") == 0 ? LK_CLASSICAL_BOVW
                                                                                           : LK_CLASSICAL_VLAD,
                                           .words = (uint32_t)o->words,
                                           .dim = (uint32_t)o->dim,
                                           .sample_images = (uint32_t)o->sample,
                                           .seed = o->seed};
    size_t count = lk_sources_count(list);
    if (o->model) return cli_open_network(o->model, &o->network, source_at, list, count, embedder);
    return lk_classical_train(context, &learning, count, load_sample, list, embedder);
}

/* A collection that exists must be of the --model and the --dtype that are named. */
static lk_status check_same(const index_options *o, const lk_collection *collection, const lk_embedder *embedder)
{
    lk_embedder *given;
    const char *dtype = dtypes[lk_collection_config_of(collection).dtype];
    if (o->dtype && strcmp(o->dtype, dtype) != 0)
        return lk_fail(LK_CONFLICT, "%s stores its vectors as %s: --dtype %s wants a new collection", o->into, dtype,
                       o->dtype);
    if (!o->model) return LK_OK;
    lk_status s = lk_neural_open(o->model, &o->network, &given);
    if (s != LK_OK) return s;
    if (!lk_neural_same(given, embedder))
        s = lk_fail(LK_CONFLICT, "%s holds vectors of the model %s (%s); they cannot be mixed with those of %s (%s)",
                    o->into, lk_embedder_name(embedder), lk_embedder_id(embedder), lk_embedder_name(given),
                    lk_embedder_id(given));
    lk_embedder_free(given);
    return s;
}

/* Whether a saved model runs here: told before there is a collection of it. Opened by itself, for what it compiles for
 * one picture would stay in memory beside what is compiled for many. */
static lk_status try_model(const char *directory)
{
    lk_embedder *embedder;
    lk_status s = lk_embedder_open(directory, &embedder);
    if (s == LK_OK) s = lk_embedder_prepare(embedder);
    lk_embedder_free(embedder);
    return s;
}

/* Makes the embedder of a new collection and creates it. The model is moved in as the collection comes into being, so a
 * run that is killed in between leaves nothing that looks like a collection. */
static lk_status create(lk_context *context, const index_options *o, lk_source_list *list, lk_embedder **embedder,
                        lk_collection **collection)
{
    char *model = NULL, *trimmed = strdup(o->into);
    lk_workplace workplace = {0};
    lk_status s = trimmed ? LK_OK : lk_fail_memory("path");
    if (s != LK_OK) return s;
    for (size_t n = strlen(trimmed); n > 1 && trimmed[n - 1] == '/';) trimmed[--n] = 0;
    LK_TRY(lk_make_dirs_above(trimmed));
    LK_TRY(lk_workplace_open(trimmed, &workplace)); /* before the work, not after: one that cannot be made is no
                                                       surprise to keep */
    if (!(model = lk_path_join(workplace.path, "model"))) {
        s = lk_fail_memory("path");
        goto done;
    }
    LK_TRY(make_embedder(context, o, list, embedder));
    LK_TRY(lk_embedder_save(*embedder, model));
    LK_TRY(try_model(model));
    lk_collection_config config = {.dim = lk_embedder_dim(*embedder),
                                   .metric = LK_COSINE,
                                   .embedder_id = lk_embedder_id(*embedder),
                                   .embedder_name = lk_embedder_name(*embedder),
                                   .model_dir = model};
    for (int i = 0; i < 3; i++)
        if (o->dtype && strcmp(o->dtype, dtypes[i]) == 0) config.dtype = (lk_dtype)i;
    s = lk_collection_create(trimmed, &config, collection);
done:
    lk_workplace_close(&workplace);
    free(model);
    free(trimmed);
    return s;
}

/* --local-features: those of every picture, up to the limit. */
static lk_status describe(lk_context *context, const index_options *o)
{
    lk_searcher *searcher = NULL;
    uint64_t pictures;
    if (!o->features) return LK_OK;
    lk_status s = lk_searcher_open(context, o->into, &searcher);
    if (s == LK_OK) s = lk_searcher_build_local_features(searcher, o->features << 20, &pictures);
    lk_searcher_free(searcher);
    return s;
}

static void report(const index_options *o, const lk_ingest_report *r, const lk_collection_stats *stats)
{
    uint64_t indexed = r->added + r->updated + r->unchanged + r->moved;
    if (o->json) {
        cli_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I}", "indexed", (json_int_t)indexed,
                                 "added", (json_int_t)r->added, "updated", (json_int_t)r->updated, "unchanged",
                                 (json_int_t)r->unchanged, "moved", (json_int_t)r->moved, "skipped",
                                 (json_int_t)r->skipped, "decode_seconds", r->decode_seconds, "embed_seconds",
                                 r->embed_seconds, "seconds", r->wall_seconds, "in_collection",
                                 (json_int_t)stats->indexed));
        return;
    }
    if (o->common.quiet) return;
    printf("%" PRIu64 " picture%s indexed (%" PRIu64 " new, %" PRIu64 " changed, %" PRIu64 " unchanged", indexed,
           cli_s(indexed), r->added, r->updated, r->unchanged);
    if (r->moved) printf(", %" PRIu64 " moved", r->moved);
    printf("), %" PRIu64 " skipped, in %.1f s; %s holds %" PRIu64 "\n", r->skipped, r->wall_seconds, o->into,
           stats->indexed);
    if (r->decode_seconds + r->embed_seconds > 0)
        printf("decoding %.1f s, embedding %.1f s (summed over threads)\n", r->decode_seconds, r->embed_seconds);
    if (r->skipped_before)
        printf("%" PRIu64
               " of the skipped were skipped before and have not changed; --retry-skipped tries them again\n",
               r->skipped_before);
    if (stats->skipped) printf("`likeness info --skipped %s` says why\n", o->into);
}

static int run(int argc, char **argv)
{
    index_options o = {0};
    const cli_option options[] = {
        {.name = "--into", .value = "DIR", .help = "the collection to create or update", .text = &o.into},
        {.name = "--csv", .value = "FILE", .help = "a CSV whatever its name ends in: path,label,...", .text = &o.csv},
        {.name = "--label-folders",
         .help = "the folder that a picture lies in is its label, unless a CSV gives it labels",
         .flag = &o.folders},
        {.name = "--model",
         .value = "DIR",
         .help = "of a new collection: a network's directory as downloaded (see likeness model list)",
         .text = &o.model},
        {.name = "--pool",
         .value = "P",
         .help = "what of the network: model (its own head, default), avg, max, gem[:P] or cls",
         .text = &o.pool},
        {.name = "--precision",
         .value = "F",
         .help = "how the network calculates: f32 (default), bf16 or int8",
         .text = &o.precision},
        {.name = "--kind",
         .value = "KIND",
         .help = "of a new collection without a network: vlad (default) or bovw",
         .text = &o.kind},
        {.name = "--words",
         .value = "N",
         .help = "of a new collection: visual words (default 64 for vlad, 2048 for bovw)",
         .number = &o.words,
         .least = 1,
         .most = 65536},
        {.name = "--dim",
         .value = "N",
         .help = "of a new collection: width of the vectors (default 256)",
         .number = &o.dim,
         .least = 1,
         .most = 65536},
        {.name = "--sample",
         .value = "N",
         .help = "pictures the vocabulary is learnt from (default 3000)",
         .number = &o.sample,
         .least = 1,
         .most = 1000000},
        {.name = "--seed",
         .value = "N",
         .help = "of the learning and of the index (default 0)",
         .number = &o.seed,
         .most = UINT64_MAX},
        {.name = "--dtype",
         .value = "TYPE",
         .help = "of a new collection: how vectors are stored: f32 (default), f16 or i8",
         .text = &o.dtype},
        {.name = "--retry-skipped", .help = "try again what was skipped before", .flag = &o.retry},
        {.name = "--max-bytes",
         .value = "N",
         .help = "skip larger files (default 64 MiB)",
         .number = &o.max_bytes,
         .least = 1,
         .most = UINT64_MAX},
        {.name = "--max-pixels",
         .value = "N",
         .help = "skip larger pictures (default 100 million)",
         .number = &o.max_pixels,
         .least = 1,
         .most = UINT64_MAX},
        {.name = "--commit-every",
         .value = "N",
         .help = "pictures acknowledged at once (default 256)",
         .number = &o.commit_every,
         .least = 1,
         .most = 1000000},
        {.name = "--index",
         .value = "KIND",
         .help = "flat (exact), graph, partitioned, or auto: by count, width and memory (default: as it is, else auto)",
         .text = &o.index},
        {.name = "--recall",
         .value = "SHARE",
         .help = "of the ten best that the index is to find (default 0.98)",
         .text = &o.recall},
        {.name = "--index-memory",
         .value = "MIB",
         .help = "that searching may take for the index (default: no limit)",
         .number = &o.memory,
         .least = 1,
         .most = UINT64_MAX >> 20},
        {.name = "--local-features",
         .value = "MIB",
         .help = "compute what geometric re-ranking compares now, and keep at most so much of it (else 1024)",
         .number = &o.features,
         .least = 1,
         .most = UINT64_MAX >> 20},
        {.name = "--rebuild", .help = "build the index even if few pictures changed", .flag = &o.rebuild},
        {.name = "--json", .help = "report as JSON", .flag = &o.json},
        CLI_COMMON_OPTIONS(o.common),
    };
    int count, status = cli_parse(&cli_index, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (!o.into) return cli_usage(&cli_index, "where to? name the collection: --into photos.lk");
    if (count == 0 && !o.csv) return cli_usage(&cli_index, "which pictures? name folders, files or a CSV");
    if (o.model && o.kind) return cli_usage(&cli_index, "--model and --kind exclude each other");
    if (!o.model && (o.pool || o.precision))
        return cli_usage(&cli_index, "--pool and --precision go together with --model");
    if (cli_model_options(o.pool, o.precision, &o.network) != LK_OK)
        return cli_usage(&cli_index, "%s", lk_error_message());
    if (o.kind && strcmp(o.kind, "vlad") != 0 && strcmp(o.kind, "bovw") != 0)
        return cli_usage(&cli_index, "--kind %s: vlad or bovw", o.kind);
    if (o.dtype && strcmp(o.dtype, "f32") != 0 && strcmp(o.dtype, "f16") != 0 && strcmp(o.dtype, "i8") != 0)
        return cli_usage(&cli_index, "--dtype %s: f32, f16 or i8", o.dtype);
    static const char *const kinds[] = {"auto", "flat", "graph", "partitioned"};
    bool known = !o.index;
    for (int i = 0; i < 4 && !known; i++) known = strcmp(o.index, kinds[i]) == 0;
    if (!known) return cli_usage(&cli_index, "--index %s: auto, flat, graph or partitioned", o.index);
    lk_index_options index = {.kind = o.index, .memory_limit = o.memory << 20, .always = o.rebuild, .seed = o.seed};
    char *end = NULL;
    if (o.recall) index.recall = strtod(o.recall, &end);
    if (o.recall && (end == o.recall || *end || !(index.recall > 0 && index.recall <= 1)))
        return cli_usage(&cli_index, "--recall %s: a share above 0 and at most 1 is wanted, such as 0.95", o.recall);
    lk_context *context = cli_context(&o.common);
    if (!context) return EXIT_FAILED;
    lk_source_list *list = NULL;
    lk_collection *collection = NULL;
    lk_embedder *embedder = NULL;
    lk_ingest_report r;
    lk_collection_stats stats = {0};
    lk_ingest_options ingest = {
        .commit_every = o.commit_every, .retry_skipped = o.retry, .max_bytes = o.max_bytes, .max_pixels = o.max_pixels};
    lk_status s;
    LK_TRY(lk_sources_new(&list));
    LK_TRY(gather(&o, count, argv, list));
    LK_TRY(lk_image_prepare(NULL)); /* without its libraries no picture could be used, and all would be skipped */
    if (lk_path_exists(o.into)) {
        LK_TRY(lk_collection_open(o.into, LK_WRITE, &collection));
        LK_TRY(lk_fail_in(lk_embedder_open(lk_collection_model_dir(collection), &embedder), "%s: its model", o.into));
        LK_TRY(check_same(&o, collection, embedder));
    } else {
        LK_TRY(create(context, &o, list, &embedder, &collection));
    }
    LK_TRY(lk_ingest(context, collection, embedder, list, &ingest, &r));
    LK_TRY(lk_collection_build_index(context, collection, &index));
    LK_TRY(describe(context, &o));
    LK_TRY(lk_collection_stats_of(collection, &stats));
    report(&o, &r, &stats);
    status = r.skipped ? EXIT_SKIPPED : EXIT_DONE;
done:
    if (s != LK_OK) status = cli_fail("index");
    lk_collection_close(collection);
    lk_embedder_free(embedder);
    lk_sources_free(list);
    cli_context_free(context);
    return status;
}
