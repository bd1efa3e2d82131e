/* likeness bench: measures parts of Likeness alone. bench/ in the source tree measures them beside their peers. */
#include "cli/bench.h"

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
