/* likeness export, import: collections as plain files. */
#include "base/error.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <likeness/vectors.h>
#include <stdio.h>

static int run_export(int argc, char **argv);
static int run_import(int argc, char **argv);
const cli_command cli_export = {"export", "COLLECTION.lk --vectors FILE --csv FILE",
                                "Write the vectors of a collection, and what it knows of its pictures, as plain files",
                                run_export};
const cli_command cli_import = {"import", "--vectors FILE --csv FILE --like COLLECTION.lk --into DIR",
                                "Make a collection of vectors and a table of pictures, with the model of another",
                                run_import};

static lk_status write_vectors(void *user, size_t n, size_t dim, const float *vectors)
{
    lk_vector_writer *writer;
    lk_status s = lk_vector_writer_open(user, LK_VECTORS_BASE, n, dim, LK_COMPONENT_F32, &writer);
    if (s != LK_OK) return s;
    s = lk_vector_writer_write(writer, n, vectors);
    if (s == LK_OK) return lk_vector_writer_finish(writer);
    lk_vector_writer_abandon(writer);
    return s;
}

static int run_export(int argc, char **argv)
{
    cli_common common = {0};
    const char *vectors = NULL, *csv = NULL;
    const cli_option options[] = {
        {.name = "--vectors",
         .value = "FILE",
         .help = "to write: float32 as .npy, .fvecs, .fbin or HDF5, by the end of the name",
         .text = &vectors},
        {.name = "--csv",
         .value = "FILE",
         .help = "to write: id,path,size,mtime_ns,hash,width,height,labels in the same order",
         .text = &csv},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_export, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1 || !vectors || !csv) return cli_usage(&cli_export, "a collection, --vectors and --csv are wanted");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_searcher *searcher = NULL;
    lk_status s = lk_searcher_open(context, argv[0], &searcher);
    if (s == LK_OK) s = lk_export_collection(searcher, csv, write_vectors, (void *)vectors);
    if (s != LK_OK)
        status = cli_fail("export");
    else if (!common.quiet)
        printf("%zu vectors\n", lk_searcher_count(searcher));
    lk_searcher_free(searcher);
    cli_context_free(context);
    return status;
}

static lk_status read_rows(void *user, uint64_t first, size_t n, float *out)
{
    return lk_vector_reader_read(user, first, n, out);
}

static int run_import(int argc, char **argv)
{
    cli_common common = {0};
    const char *vectors = NULL, *csv = NULL, *like = NULL, *into = NULL;
    const cli_option options[] = {
        {.name = "--vectors", .value = "FILE", .help = "a row for each picture", .text = &vectors},
        {.name = "--csv",
         .value = "FILE",
         .help = "path, and what else `export` writes if it is known; in the order of the rows",
         .text = &csv},
        {.name = "--like", .value = "DIR", .help = "a collection whose model made the vectors", .text = &like},
        {.name = "--into", .value = "DIR", .help = "the collection to create", .text = &into},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_import, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 0 || !vectors || !csv || !like || !into)
        return cli_usage(&cli_import, "--vectors, --csv, --like and --into are wanted");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_searcher *searcher = NULL;
    lk_vector_reader *reader = NULL;
    lk_status s = lk_searcher_open(context, like, &searcher);
    if (s == LK_OK) s = lk_vector_reader_open(vectors, LK_VECTORS_BASE, &reader);
    if (s == LK_OK) {
        lk_rows rows = {
            .read = read_rows, .user = reader, .n = lk_vector_reader_rows(reader), .dim = lk_vector_reader_dim(reader)};
        s = lk_import_collection(searcher, csv, &rows, into);
        if (s == LK_OK && !common.quiet) printf("%" PRIu64 " vectors\n", rows.n);
    }
    if (s != LK_OK) status = cli_fail("import");
    lk_vector_reader_free(reader);
    lk_searcher_free(searcher);
    cli_context_free(context);
    return status;
}
