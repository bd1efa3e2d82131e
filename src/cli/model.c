/* likeness model: what a model's directory holds, whether it works, and which architectures there are. */
#include "base/error.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_model = {"model", "info DIR | verify DIR | list",
                               "Show what a model's directory holds, try it, or list the architectures that are known",
                               run};

static const char *const pools[] = {"model", "avg", "max", "gem", "cls"};
static const char *const precisions[] = {"f32", "bf16", "int8"};

lk_status cli_model_options(const char *pool, const char *precision, lk_neural_options *out)
{
    *out = (lk_neural_options){0};
    int found = pool ? -1 : LK_POOL_MODEL, exact = precision ? -1 : LK_PRECISION_F32;
    for (int i = 0; pool && i < 5; i++)
        if (strncmp(pool, pools[i], strlen(pools[i])) == 0 &&
            (pool[strlen(pools[i])] == 0 || pool[strlen(pools[i])] == ':'))
            found = i;
    for (int i = 0; precision && i < 3; i++)
        if (strcmp(precision, precisions[i]) == 0) exact = i;
    if (found < 0)
        return lk_fail(LK_INVALID, "--pool %s: model (its own head), avg, max, gem (or gem:EXPONENT) or cls is wanted",
                       pool);
    if (exact < 0) return lk_fail(LK_INVALID, "--precision %s: f32, bf16 or int8 is wanted", precision);
    const char *colon = pool ? strchr(pool, ':') : NULL;
    int end = 0;
    if (colon && (found != LK_POOL_GEM || sscanf(colon + 1, "%f%n", &out->gem_p, &end) != 1 || colon[1 + end] ||
                  !(out->gem_p > 0 && out->gem_p < 1000)))
        return lk_fail(LK_INVALID, "--pool %s: gem alone takes an exponent, above 0", pool);
    out->pool = (lk_pooling)found;
    out->precision = (lk_precision)exact;
    return LK_OK;
}

/* Bytes of a compiled model for one picture at a time. */
static lk_status measure(lk_model *model, lk_executor_stats *out)
{
    lk_executor *executor;
    lk_graph_output(lk_model_graph(model), lk_model_embedding(model));
    lk_status s = lk_graph_compile(lk_model_graph(model), &(lk_compile_options){.batch = 1}, &executor);
    if (s != LK_OK) return s;
    *out = lk_executor_stats_of(executor);
    lk_executor_free(executor);
    return LK_OK;
}

static int show(const char *directory, bool json)
{
    lk_model *model;
    lk_executor_stats stats = {0};
    lk_status s = lk_model_open(directory, LK_MODEL_VISION, &model);
    if (s == LK_OK) s = measure(model, &stats);
    if (s != LK_OK) {
        lk_model_free(model);
        return cli_fail("model");
    }
    lk_model_info i = lk_model_info_of(model);
    int status = EXIT_DONE;
    if (json) {
        status = cli_print_json(json_pack(
            "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:I, s:I}", "architecture", i.architecture,
            "family", i.family, "parameters", (json_int_t)i.parameters, "height", (json_int_t)i.height, "width",
            (json_int_t)i.width, "dim", (json_int_t)i.dim, "channels", (json_int_t)i.channels, "places",
            (json_int_t)i.places, "text", (int)i.text, "tokenizer", (int)i.tokenizer, "file_bytes",
            (json_int_t)i.weight_bytes, "weight_bytes", (json_int_t)stats.weight_bytes, "activation_bytes",
            (json_int_t)stats.activation_bytes, "scratch_bytes", (json_int_t)stats.scratch_bytes));
    } else {
        const double mib = 1 << 20;
        printf("architecture  %s (%s)\n", i.architecture, i.family);
        printf("parameters    %.1f million, %.1f MiB in the file\n", (double)i.parameters / 1e6,
               (double)i.weight_bytes / mib);
        printf("input         RGB, %" PRId64 "x%" PRId64 " pixels\n", i.width, i.height);
        printf("embedding     %" PRId64 " dimensions (its own head); %" PRId64 " with --pool avg, max or gem\n", i.dim,
               i.channels);
        printf("features      %" PRId64 " channels at %" PRId64 " places%s\n", i.channels, i.places,
               i.leading ? ", and a class token" : "");
        printf("texts         %s\n", i.tokenizer ? "yes: likeness search --text"
                                     : i.text
                                         ? "no: the files of the tokenizer are missing (tokenizer.json, or vocab.json "
                                           "and merges.txt; spiece.model)"
                                         : "no");
        printf("memory        %.1f MiB of weights, %.1f MiB for one picture at a time (f32)\n",
               (double)stats.weight_bytes / mib, (double)(stats.activation_bytes + stats.scratch_bytes) / mib);
    }
    lk_model_free(model);
    return status;
}

/* Every file and tensor that embedding needs, tried on a picture of two colours and, where there is a tokenizer, a
 * text.
 */
static lk_status try_model(const char *directory, lk_embedder **embedder)
{
    enum { SIDE = 64 };
    uint8_t pixels[SIDE * SIDE * 3];
    const lk_image image = {.width = SIDE, .height = SIDE, .channels = 3, .pixels = pixels};
    for (int i = 0; i < SIDE * SIDE * 3; i++) pixels[i] = (uint8_t)(i % 3 == 0 ? i / SIDE : i % SIDE * 3);
    lk_status s = lk_neural_open(directory, NULL, embedder);
    float *vector = s == LK_OK ? malloc(lk_embedder_dim(*embedder) * sizeof *vector) : NULL;
    if (s == LK_OK && !vector) s = lk_fail_memory(directory);
    if (s == LK_OK) s = lk_fail_in(lk_embedder_embed(*embedder, &image, 1, vector), "%s", directory);
    if (s == LK_OK && lk_embedder_has_text(*embedder))
        s = lk_embedder_embed_text(*embedder, (const char *const[]){"a photo of a cat"}, 1, vector);
    free(vector);
    return s;
}

static int verify(const char *directory, bool json)
{
    lk_embedder *embedder = NULL;
    int status = EXIT_DONE;
    if (try_model(directory, &embedder) != LK_OK) {
        lk_embedder_free(embedder);
        return cli_fail("model");
    }
    bool text = lk_embedder_has_text(embedder);
    if (json)
        status = cli_print_json(json_pack("{s:s, s:s, s:b}", "name", lk_embedder_name(embedder), "id",
                                          lk_embedder_id(embedder), "text", (int)text));
    else
        printf("%s: whole: every tensor %sis in its place and finite; a picture%s\n", lk_embedder_name(embedder),
               text ? "" : "that pictures need ",
               text ? " and a text gave vectors" : " gave a vector; texts cannot be embedded");
    lk_embedder_free(embedder);
    return status;
}

static int list(bool json)
{
    json_t *all = json_array();
    const lk_architecture *a;
    for (size_t i = 0; (a = lk_architecture_at(i)); i++) {
        if (json)
            json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:b}", "name", a->name, "family", a->family, "source",
                                                 a->source, "text", (int)a->text));
        else
            printf("%-32s %-16s %s%s\n", a->name, a->family, a->source, a->text ? ", with texts" : "");
    }
    if (json) return cli_print_json(all);
    json_decref(all);
    return EXIT_DONE;
}

static int run(int argc, char **argv)
{
    bool json = false;
    const cli_option options[] = {{.name = "--json", .help = "print JSON", .flag = &json}};
    int count, status = cli_parse(&cli_model, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count == 1 && strcmp(argv[0], "list") == 0) return list(json);
    if (count == 2 && strcmp(argv[0], "info") == 0) return show(argv[1], json);
    if (count == 2 && strcmp(argv[0], "verify") == 0) return verify(argv[1], json);
    return cli_usage(&cli_model, "info or verify with a directory, or list, is wanted");
}

/* ---- for other commands ---- */

lk_status cli_open_network(const char *directory, const lk_neural_options *options,
                           const lk_source *(*at)(void *user, size_t i), void *user, size_t count, lk_embedder **out)
{
    enum { SAMPLES = 32 };
    lk_image images[SAMPLES];
    size_t n = 0, wanted = count < SAMPLES ? count : SAMPLES;
    lk_status s = lk_neural_open(directory, options, out);
    if (s != LK_OK || !lk_neural_needs_calibration(*out)) return s;
    lk_image_options decoding = lk_embedder_image_options(*out);
    for (size_t i = 0; i < wanted; i++)
        if (lk_image_load(at(user, i * count / wanted)->path, &decoding, &images[n]) == LK_OK) n++;
    s = n ? lk_neural_calibrate(*out, images, n)
          : lk_fail(LK_NOT_FOUND, "none of the pictures could be read to measure the ranges for int8");
    for (size_t i = 0; i < n; i++) lk_image_free(&images[i]);
    if (s != LK_OK) {
        lk_embedder_free(*out);
        *out = NULL;
    }
    return s;
}
