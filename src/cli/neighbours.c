/* likeness neighbours: the table that re-ranking asks. */
#include "cli/cli.h"

#include <stdio.h>

static int run(int argc, char **argv);
const cli_command cli_neighbours = {
    "neighbours", "COLLECTION.lk [-k N]",
    "Find the neighbours of every picture, for `search --rerank kreciprocal` and `diffusion`", run};

static int run(int argc, char **argv)
{
    cli_common common = {0};
    uint64_t k = 50;
    const cli_option options[] = {
        {.name = "--count",
         .letter = 'k',
         .value = "N",
         .help = "neighbours a picture (default 50)",
         .number = &k,
         .least = 1,
         .most = 1000},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_neighbours, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_neighbours, "one collection is wanted");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_searcher *searcher = NULL;
    lk_status s = lk_searcher_open(context, argv[0], &searcher);
    if (s == LK_OK) s = lk_searcher_build_neighbours(searcher, k);
    if (s != LK_OK)
        status = cli_fail("neighbours");
    else if (!common.quiet)
        printf("%zu pictures, the nearest %zu of each\n", lk_searcher_count(searcher),
               k < lk_searcher_count(searcher) ? (size_t)k : lk_searcher_count(searcher));
    lk_searcher_free(searcher);
    cli_context_free(context);
    return status;
}
