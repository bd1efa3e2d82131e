/* likeness verify and likeness compact: looking after a collection. */
#include "base/error.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>

static int run_verify(int argc, char **argv);
static int run_compact(int argc, char **argv);
const cli_command cli_verify = {"verify", "COLLECTION.lk [--repair] [--json]",
                                "Check every byte of a collection, and mend it", run_verify};
const cli_command cli_compact = {"compact", "COLLECTION.lk", "Drop the vectors of changed and removed pictures",
                                 run_compact};

static void print_problem(void *user, const char *problem)
{
    if (user) {
        json_array_append_new(user, json_string(problem));
        return;
    }
    cli_put_plain(stdout, problem, SIZE_MAX);
    putchar('\n');
}

/* What is wrong, or what was done: to people line by line, as JSON in lists. */
static int run_verify(int argc, char **argv)
{
    bool json = false, repair = false;
    const cli_option options[] = {{.name = "--repair",
                                   .help = "first mend what can be mended without guessing, and say what was done",
                                   .flag = &repair},
                                  {.name = "--json", .help = "print JSON", .flag = &json}};
    int count, status = cli_parse(&cli_verify, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_verify, "one collection is wanted");
    lk_collection *collection = NULL;
    lk_collection_stats stats = {0};
    uint64_t problems = 0, repairs = 0;
    json_t *list = json ? json_array() : NULL, *done_list = json ? json_array() : NULL;
    lk_status s;
    if (repair) LK_TRY(lk_repair(argv[0], print_problem, done_list, &repairs));
    LK_TRY(lk_verify(argv[0], print_problem, list, &problems));
    if (problems == 0) {
        LK_TRY(lk_collection_open(argv[0], LK_READ, &collection));
        LK_TRY(lk_collection_stats_of(collection, &stats));
    }
    if (json)
        cli_print_json(
            json_pack("{s:I, s:O, s:O}", "problems", (json_int_t)problems, "list", list, "repairs", done_list));
    else if (problems == 0)
        printf("%s is whole: %" PRIu64 " picture%s, %" PRIu64 " segment%s\n", argv[0], stats.indexed + stats.skipped,
               cli_s(stats.indexed + stats.skipped), stats.segments, cli_s(stats.segments));
    else if (repair)
        fprintf(stderr, "likeness: verify: %s: %" PRIu64 " problem%s cannot be repaired; restore a backup\n", argv[0],
                problems, cli_s(problems));
    else
        fprintf(stderr,
                "likeness: verify: %s: %" PRIu64
                " problem%s; --repair mends what can be mended, else restore a backup\n",
                argv[0], problems, cli_s(problems));
done:
    json_decref(list);
    json_decref(done_list);
    lk_collection_close(collection);
    if (s != LK_OK) return cli_fail("verify");
    return problems ? EXIT_FAILED : EXIT_DONE;
}

static int run_compact(int argc, char **argv)
{
    cli_common common = {0};
    const cli_option options[] = {CLI_COMMON_OPTIONS(common)};
    int count, status = cli_parse(&cli_compact, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_compact, "one collection is wanted");
    lk_collection *collection = NULL;
    lk_collection_stats before, after;
    lk_index_info index;
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_status s;
    LK_TRY(lk_collection_open(argv[0], LK_WRITE, &collection));
    LK_TRY(lk_collection_stats_of(collection, &before));
    if (lk_collection_index_info(collection, &index) != LK_OK) index = (lk_index_info){.kind = NULL}; /* damaged */
    LK_TRY(lk_collection_compact(collection));
    if (index.vectors) { /* it named rows that have moved: without it every search would read all vectors from now on */
        lk_index_options again = {.kind = index.kind};
        LK_TRY(lk_collection_build_index(context, collection, &again));
    }
    LK_TRY(lk_collection_stats_of(collection, &after));
    if (!common.quiet)
        printf("%" PRIu64 " dead vector%s dropped; %.1f MiB of vectors are now %.1f MiB\n", before.dead_vectors,
               cli_s(before.dead_vectors), (double)before.vector_bytes / 1048576, (double)after.vector_bytes / 1048576);
done:
    if (s != LK_OK) status = cli_fail("compact");
    lk_collection_close(collection);
    cli_context_free(context);
    return status;
}
