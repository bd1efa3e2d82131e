/* likeness augment: a copy of a collection whose vectors are joined by their nearest. */
#include "cli/cli.h"

#include <stdio.h>

static int run(int argc, char **argv);
const cli_command cli_augment = {
    "augment", "COLLECTION.lk --into NEW.lk [--expand KIND] [-k N]",
    "Copy a collection with every vector moved towards its nearest (database-side augmentation)", run};

static int run(int argc, char **argv)
{
    cli_common common = {0};
    uint64_t k = 2;
    const char *into = NULL, *kind_name = "alpha";
    const cli_option options[] = {
        {.name = "--into", .value = "NEW.lk", .help = "the collection to write", .text = &into},
        {.name = "--expand",
         .value = "KIND",
         .help = "weights of the nearest: aqe[:N], rank[:N] or alpha[:N[:ALPHA]] (default)",
         .text = &kind_name},
        {.name = "--count",
         .letter = 'k',
         .value = "N",
         .help = "how many of the nearest (default 2)",
         .number = &k,
         .least = 1,
         .most = 1000},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_augment, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1 || !into) return cli_usage(&cli_augment, "a collection and the one to write (--into) are wanted");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_searcher *searcher = NULL;
    lk_search_options how = {.expand_k = k, .expand_alpha = 10};
    lk_status s = lk_expansion_parse(kind_name, &how);
    if (s == LK_OK) s = lk_searcher_open(context, argv[0], &searcher);
    if (s == LK_OK) s = lk_augment_collection(searcher, how.expand, how.expand_alpha, how.expand_k, into);
    if (s != LK_OK)
        status = cli_fail("augment");
    else if (!common.quiet)
        printf("%zu pictures written to %s, each joined by its nearest %llu\n", lk_searcher_count(searcher), into,
               (unsigned long long)how.expand_k);
    lk_searcher_free(searcher);
    cli_context_free(context);
    return status;
}
