/* likeness bench: measures parts of Likeness alone. bench/ in the source tree measures them beside their peers. */
#include "cli/bench.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_bench = {"bench", "ann|codes|kernels|mixed [options]",
                               "Measure an index, also while it changes, codes or kernels", run};

static const struct {
    const char *name;
    const cli_command *command;
} benches[] = {
    {"ann", &cli_bench_ann}, {"codes", &cli_bench_codes}, {"kernels", &cli_bench_kernels}, {"mixed", &cli_bench_mixed}};
enum { BENCHES = sizeof benches / sizeof *benches };

static int run(int argc, char **argv)
{
    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        printf("likeness bench %s\n\n", cli_bench.arguments);
        for (int i = 0; i < BENCHES; i++) printf("  %-8s %s\n", benches[i].name, benches[i].command->summary);
        return EXIT_DONE;
    }
    for (int i = 0; argc > 0 && i < BENCHES; i++)
        if (strcmp(argv[0], benches[i].name) == 0) return benches[i].command->run(argc - 1, argv + 1);
    return cli_usage(&cli_bench, "ann, codes, kernels or mixed is wanted");
}

lk_status cli_bench_read(const char *path, lk_vectors_role role, uint64_t most, size_t more, float **rows, uint64_t *n,
                         size_t *dim)
{
    lk_vector_reader *file;
    lk_status s = lk_vector_reader_open(path, role, &file);
    if (s != LK_OK) return s;
    *n = lk_vector_reader_rows(file);
    *dim = lk_vector_reader_dim(file);
    if (most && *n > most) *n = most;
    *rows = lk_alloc_aligned((size_t)*n + more, *dim * sizeof **rows);
    s = *n == 0 ? lk_fail(LK_INVALID, "%s: holds no vectors", path) : *rows ? LK_OK : lk_fail_memory(path);
    if (s == LK_OK) s = lk_vector_reader_read(file, 0, (size_t)*n, *rows);
    lk_vector_reader_free(file);
    return s;
}

lk_status cli_bench_read_queries(const char *path, uint64_t most, size_t dim, float **rows, size_t *n)
{
    uint64_t count;
    size_t width;
    lk_status s = cli_bench_read(path, LK_VECTORS_QUERIES, most, 0, rows, &count, &width);
    if (s == LK_OK && width != dim)
        s = lk_fail(LK_INVALID, "%s: queries of %zu components for vectors of %zu", path, width, dim);
    if (s == LK_OK) *n = (size_t)count;
    return s;
}

int cli_bench_check(const cli_command *command, int count, char **words, const char *base, const char *queries,
                    const char *metric_name, lk_metric *metric)
{
    static const char *const metrics[] = {"cosine", "ip", "l2"};
    if (count != 0) return cli_usage(command, "%s: what is that for?", words[0]);
    if (!base || !queries) return cli_usage(command, "--base and --queries are wanted");
    for (int i = 0; i < 3; i++)
        if (strcmp(metrics[i], metric_name) == 0) {
            *metric = (lk_metric)i;
            return EXIT_DONE;
        }
    return cli_usage(command, "--metric %s: l2, ip or cosine is wanted", metric_name);
}
