/* likeness embed: pictures to a file of vectors. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"

#include <likeness/vectors.h>
#include <stdio.h>
#include <stdlib.h>

static int run(int argc, char **argv);
const cli_command cli_embed = {
    "embed", "--model DIR|COLLECTION.lk [--pool P] [--precision F] --out V.npy LIST|-",
    "Write the vectors of the pictures of a list (one path a line) as float32 [N,D] in its order", run};

static const lk_source *source_at(void *user, size_t i)
{
    return (const lk_source *)user + i;
}

/* A model directory, or a collection whose model is meant. */
static lk_status open_model(const char *path, const char *pool, const char *precision, lk_source *sources, size_t count,
                            lk_embedder **out)
{
    lk_neural_options options;
    lk_status s = cli_model_options(pool, precision, &options);
    if (s != LK_OK) return s;
    if (pool || precision) return cli_open_network(path, &options, source_at, sources, count, out);
    char *manifest = lk_path_join(path, "MANIFEST"), *inside = lk_path_join(path, "model");
    if (!manifest || !inside) {
        free(manifest);
        free(inside);
        return lk_fail_memory("model");
    }
    s = lk_embedder_open(lk_path_exists(manifest) ? inside : path, out);
    free(manifest);
    free(inside);
    return s;
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    const char *model = NULL, *out = NULL, *pool = NULL, *precision = NULL;
    const cli_option options[] = {
        {.name = "--model", .value = "DIR", .help = "a model, or a collection whose model is taken", .text = &model},
        {.name = "--pool",
         .value = "P",
         .help = "of a network: model (its own head, default), avg, max, gem[:P] or cls",
         .text = &pool},
        {.name = "--precision", .value = "F", .help = "of a network: f32 (default), bf16 or int8", .text = &precision},
        {.name = "--out", .value = "FILE", .help = "the file to write: .npy, .fvecs, .fbin or .hdf5", .text = &out},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_embed, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (!model || !out || count != 1) return cli_usage(&cli_embed, "a model, an output file and a list are wanted");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_embedder *embedder = NULL;
    cli_lines lines = {0};
    lk_source *sources = NULL;
    lk_vector_writer *writer = NULL;
    float *vectors = NULL;
    uint8_t *ok = NULL;
    size_t bad = 0;
    lk_status s;
    LK_TRY(cli_read_lines(argv[0], &lines));
    sources = lk_alloc_zero(lines.count, sizeof *sources);
    if (!sources) {
        s = lk_fail_memory("list");
        goto done;
    }
    for (size_t i = 0; i < lines.count; i++) sources[i].path = lines.items[i];
    LK_TRY(open_model(model, pool, precision, sources, lines.count, &embedder));
    size_t dim = lk_embedder_dim(embedder);
    LK_TRY(lk_vector_writer_open(out, LK_VECTORS_BASE, lines.count, dim, LK_COMPONENT_F32, &writer));
    vectors = lk_alloc_zero(lines.count * dim, sizeof *vectors);
    ok = lk_alloc_zero(lines.count, 1);
    if (!vectors || !ok) {
        s = lk_fail_memory("vectors");
        goto done;
    }
    LK_TRY(lk_embed_sources(context, embedder, sources, lines.count, vectors, ok));
    LK_TRY(lk_vector_writer_write(writer, lines.count, vectors));
    s = lk_vector_writer_finish(writer);
    writer = NULL;
    LK_TRY(s);
    for (size_t i = 0; i < lines.count; i++) bad += !ok[i];
    if (!common.quiet)
        printf("%zu vectors of %zu dimensions written to %s; %zu pictures could not be used (rows of zeros)\n",
               lines.count, dim, out, bad);
    status = bad ? EXIT_SKIPPED : EXIT_DONE;
done:
    if (s != LK_OK) status = cli_fail("embed");
    lk_vector_writer_abandon(writer);
    cli_free_lines(&lines);
    free(sources);
    free(vectors);
    free(ok);
    lk_embedder_free(embedder);
    cli_context_free(context);
    return status;
}
