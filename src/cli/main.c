/* The program: finds the subcommand and hands over. */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_command *const commands[] = {
    &cli_index,  &cli_search_command, &cli_eval,   &cli_serve,      &cli_info,    &cli_embed,  &cli_match,
    &cli_dedup,  &cli_export,         &cli_import, &cli_neighbours, &cli_augment, &cli_remove, &cli_compact,
    &cli_verify, &cli_convert,        &cli_bench,  &cli_model,      &cli_train};
enum { COMMANDS = sizeof commands / sizeof *commands };

static int print_help(FILE *stream)
{
    fputs("Likeness finds similar images.\n\n"
          "    likeness index photos/ --into photos.lk     make a folder searchable\n"
          "    likeness search photos.lk query.jpg         find the pictures most like one\n"
          "    likeness serve photos.lk                    the same in a browser\n\n",
          stream);
    for (int i = 0; i < COMMANDS; i++) fprintf(stream, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n`likeness COMMAND --help` tells the options of each.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage, 3 done with some inputs skipped, 127 a library is missing.\n",
          stream);
    return 0;
}

/* While a network trains, threads that decode and threads that multiply take turns on the same processors. OpenMP's
 * threads wait by spinning unless its runtime is told otherwise before it starts, which then takes most of the time: so
 * this program starts once more with that said. */
static void wait_without_spinning(char **argv)
{
    if (getenv("OMP_WAIT_POLICY")) return;
    setenv("OMP_WAIT_POLICY", "passive", 1);
    execv("/proc/self/exe", argv); /* where that is not possible it goes on, slower */
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* `likeness search ... | head` ends by an error of write, not by a signal */
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "train") == 0) wait_without_spinning(argv);
    if (strcmp(name, "--version") == 0) {
        printf("likeness %s\n", lk_version());
        return cli_finish(EXIT_DONE);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(argc > 1 ? stdout : stderr);
        return argc > 1 ? cli_finish(EXIT_DONE) : EXIT_USAGE;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0) return cli_finish(commands[i]->run(argc - 2, argv + 2));
    fprintf(stderr, "likeness: %s: no such command; `likeness help` lists them\n", name);
    return EXIT_USAGE;
}
