/* The benchmarks of `likeness bench`, and what they share. */
#ifndef LK_CLI_BENCH_H
#define LK_CLI_BENCH_H

#include "cli/cli.h"

#include <likeness/vectors.h>

extern const cli_command cli_bench_ann, cli_bench_codes, cli_bench_kernels, cli_bench_mixed;

/* Reads the first `most` rows of a file of vectors (0 = all), as f32 with room for `more` after them: rows [*n +
 * more][*dim], freed by the caller, also on failure. LK_INVALID when there is none. */
lk_status cli_bench_read(const char *path, lk_vectors_role role, uint64_t most, size_t more, float **rows, uint64_t *n,
                         size_t *dim);
/* The same of queries, which must be as wide as the base. */
lk_status cli_bench_read_queries(const char *path, uint64_t most, size_t dim, float **rows, size_t *n);
/* EXIT_DONE, or what cli_usage answers: there are no other words, both files are named, and the metric is one. */
int cli_bench_check(const cli_command *command, int count, char **words, const char *base, const char *queries,
                    const char *metric_name, lk_metric *metric);

#endif
