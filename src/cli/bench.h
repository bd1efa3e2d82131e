/* The benchmarks of `likeness bench`. */
#ifndef LK_CLI_BENCH_H
#define LK_CLI_BENCH_H

#include "cli/cli.h"

extern const cli_command cli_bench_ann, cli_bench_codes, cli_bench_kernels, cli_bench_mixed;

#endif
