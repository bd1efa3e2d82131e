/* What the subcommands share: options, the context with progress and log, messages, exit statuses. */
#ifndef LK_CLI_CLI_H
#define LK_CLI_CLI_H

#include <jansson.h>
#include <likeness/likeness.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_SKIPPED = 3 };

/* Values of an option that may be given several times, in order; the strings are those of argv. */
typedef struct cli_list {
    const char **items;
    size_t count, capacity;
} cli_list;

/* One option of a command. Exactly one of the pointers says where its value goes. */
typedef struct cli_option {
    const char *name;  /* "--into" */
    char letter;       /* 'k', or 0 */
    const char *value; /* what the value is called in the help; NULL for a flag */
    const char *help;
    const char **text;
    bool *flag;
    uint64_t *number;
    uint64_t least, most; /* of a number */
    cli_list *list;
} cli_option;

typedef struct cli_command {
    const char *name, *arguments, *summary;
    int (*run)(int argc, char **argv);
} cli_command;

/* Options that every long command has. */
typedef struct cli_common {
    bool quiet;
    uint64_t threads;
    const char *log; /* file that receives the log too */
} cli_common;
#define CLI_COMMON_OPTIONS(common)                                                                                     \
    {.name = "--threads",                                                                                              \
     .value = "N",                                                                                                     \
     .help = "threads to use (default: one per processor)",                                                            \
     .number = &(common).threads,                                                                                      \
     .least = 1,                                                                                                       \
     .most = 1024},                                                                                                    \
        {.name = "--log", .value = "FILE", .help = "append the log to this file too", .text = &(common).log},          \
    {                                                                                                                  \
        .name = "--quiet", .letter = 'q', .help = "no progress, and only errors on the terminal",                      \
        .flag = &(common).quiet                                                                                        \
    }

/* Reads options; argv is reordered so that what is no option comes first: *count of them from argv[0]. Returns
 * EXIT_DONE, or EXIT_USAGE after saying what is wrong, or -1 when help was asked for and given. */
int cli_parse(const cli_command *command, const cli_option *options, size_t n, int argc, char **argv, int *count);

/* "likeness: index: <why>" on stderr. Returns EXIT_USAGE or EXIT_FAILED. */
int cli_usage(const cli_command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_fail(const char *what);
/* The same with a text of the command's own instead of the library's message. */
int cli_fail_text(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "s" unless there is one of them. */
const char *cli_s(uint64_t count);
/* Writes text with what a terminal would obey (line ends, escapes: names of files may hold anything) as question marks;
 * at most `most` characters of it. Returns how many were written. */
size_t cli_put_plain(FILE *stream, const char *text, size_t most);

/* A context whose log and progress go to stderr (and --log), and that SIGINT and SIGTERM cancel. NULL after a message.
 */
lk_context *cli_context(const cli_common *common);
void cli_context_free(lk_context *context);

/* Prints JSON to stdout and drops it. EXIT_DONE, or EXIT_FAILED when stdout cannot be written. */
int cli_print_json(json_t *value);
/* Flushes stdout; EXIT_FAILED with a message when what was printed did not arrive (a full disk, a closed pipe). */
int cli_finish(int status);

/* Reads one path per line from a file or, for "-", stdin into a list (in order, repeats kept). */
typedef struct cli_lines {
    char **items;
    size_t count, capacity;
} cli_lines;
lk_status cli_read_lines(const char *path, cli_lines *out);
void cli_free_lines(cli_lines *lines);

/* A metric's score in words: "cosine", "inner product", "squared distance". */
const char *cli_score_name(lk_metric metric);

/* --pool and --precision of a model's directory; NULL = not given. LK_INVALID. */
lk_status cli_model_options(const char *pool, const char *precision, lk_neural_options *out);
/* Opens a model's directory for a list of pictures; for int8 a few of them, evenly spread, are decoded and measured
 * first. */
lk_status cli_open_network(const char *directory, const lk_neural_options *options,
                           const lk_source *(*at)(void *user, size_t i), void *user, size_t count, lk_embedder **out);

/* Writes a self-contained page of queries and their results. */
typedef struct cli_page_row {
    const char *query; /* file */
    const lk_results *results;
} cli_page_row;
lk_status cli_write_page(const char *path, const char *title, const cli_page_row *rows, size_t count);
/* A page of what two pictures share; png: the drawing. */
lk_status cli_write_match_page(const char *path, const char *a, const char *b, const lk_picture_match *match,
                               const char *kind, const uint8_t *png, size_t size);

extern const cli_command cli_index, cli_search_command, cli_match, cli_dedup, cli_export, cli_import, cli_neighbours,
    cli_augment, cli_info, cli_remove, cli_verify, cli_compact, cli_embed, cli_eval, cli_serve, cli_convert, cli_bench,
    cli_model, cli_train;

#endif
