/* likeness convert: one file of vectors into another format. */
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/cli.h"

#include <likeness/vectors.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_convert = {
    "convert", "IN OUT [--type f32|f16|f64|i8|u8|i32] [--rows N]",
    "Copy vectors between .npy, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin, .ibin and HDF5 (FILE.hdf5:DATASET)",
    run};

/* What a file of this name holds when --type does not say: what its format is for, else what comes in. */
static int choose_type(const char *out, const char *type, lk_component from, lk_component *chosen)
{
    static const struct {
        const char *suffix;
        lk_component component;
    } fixed[] = {{".fvecs", LK_COMPONENT_F32}, {".fbin", LK_COMPONENT_F32}, {".bvecs", LK_COMPONENT_U8},
                 {".u8bin", LK_COMPONENT_U8},  {".i8bin", LK_COMPONENT_I8}, {".ivecs", LK_COMPONENT_I32},
                 {".ibin", LK_COMPONENT_I32}};
    size_t n = strlen(out);
    *chosen = from;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        size_t length = strlen(fixed[i].suffix);
        if (n > length && strcasecmp(out + n - length, fixed[i].suffix) == 0) *chosen = fixed[i].component;
    }
    if (!type) return EXIT_DONE;
    for (int c = LK_COMPONENT_F32; c <= LK_COMPONENT_I32; c++) {
        if (strcmp(type, lk_component_name((lk_component)c)) != 0) continue;
        *chosen = (lk_component)c;
        return EXIT_DONE;
    }
    return cli_usage(&cli_convert, "--type %s: f32, f16, f64, i8, u8 or i32 is wanted", type);
}

static lk_status copy(lk_context *context, lk_vector_reader *reader, lk_vector_writer *writer, uint64_t rows,
                      bool whole)
{
    size_t dim = lk_vector_reader_dim(reader), block = ((size_t)4 << 20) / (4 * dim) + 1;
    void *buffer = lk_alloc(block * dim, 4);
    lk_status s = buffer ? LK_OK : lk_fail_memory("rows");
    for (uint64_t first = 0; s == LK_OK && first < rows; first += block) {
        size_t n = rows - first < block ? (size_t)(rows - first) : block;
        if (lk_context_cancelled(context))
            s = lk_fail(LK_CANCELLED, "stopped after %llu rows; nothing was written", (unsigned long long)first);
        if (s == LK_OK)
            s = whole ? lk_vector_reader_read_i32(reader, first, n, buffer)
                      : lk_vector_reader_read(reader, first, n, buffer);
        if (s == LK_OK)
            s = whole ? lk_vector_writer_write_i32(writer, n, buffer) : lk_vector_writer_write(writer, n, buffer);
        lk_report_progress(context, "converting", first + n, rows);
    }
    free(buffer);
    return s;
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    const char *type = NULL;
    uint64_t most = UINT64_MAX;
    const cli_option options[] = {
        {.name = "--type",
         .value = "TYPE",
         .help = "components of OUT (default: as in IN, or what its format holds)",
         .text = &type},
        {.name = "--rows",
         .value = "N",
         .help = "the first N rows only",
         .number = &most,
         .least = 1,
         .most = UINT64_MAX},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_convert, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 2) return cli_usage(&cli_convert, "two files are wanted: what to read and what to write");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_vector_reader *reader = NULL;
    lk_vector_writer *writer = NULL;
    lk_component component;
    lk_status s;
    LK_TRY(lk_vector_reader_open(argv[0], LK_VECTORS_BASE, &reader));
    status = choose_type(argv[1], type, lk_vector_reader_component(reader), &component);
    if (status != EXIT_DONE) goto done;
    uint64_t rows = lk_vector_reader_rows(reader);
    if (rows > most) rows = most;
    LK_TRY(lk_vector_writer_open(argv[1], LK_VECTORS_BASE, rows, lk_vector_reader_dim(reader), component, &writer));
    LK_TRY(copy(context, reader, writer, rows,
                component == LK_COMPONENT_I32 && lk_vector_reader_component(reader) == LK_COMPONENT_I32));
    s = lk_vector_writer_finish(writer);
    writer = NULL;
done:
    lk_vector_writer_abandon(writer);
    lk_vector_reader_free(reader);
    cli_context_free(context);
    return s == LK_OK ? status : cli_fail("convert");
}
