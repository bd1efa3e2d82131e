/* Options from a table: `--name value`, `--name=value`, `-k value`, `-k5`, flags; `--` ends them. */
#include "base/memory.h"
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_usage(const cli_command *command, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "likeness: %s: ", command->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nusage: likeness %s %s\n", command->name, command->arguments);
    return EXIT_USAGE;
}

static void print_help(const cli_command *command, const cli_option *options, size_t n)
{
    printf("likeness %s %s\n\n%s.\n\n", command->name, command->arguments, command->summary);
    for (size_t i = 0; i < n; i++) {
        char left[64], letter[8] = "";
        if (options[i].letter) snprintf(letter, sizeof letter, "-%c, ", options[i].letter);
        snprintf(left, sizeof left, "%s%s %s", letter, options[i].name, options[i].value ? options[i].value : "");
        printf("  %-22s %s\n", left, options[i].help);
    }
}

/* Levenshtein distance, for "did you mean". Names are short. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= 64) return 64;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; *a; a++, i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = corner + (*a != b[j - 1]);
            corner = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static int unknown(const cli_command *command, const cli_option *options, size_t n, const char *given)
{
    const char *nearest = NULL;
    size_t best = 3;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(given, options[i].name);
        if (d < best) {
            best = d;
            nearest = options[i].name;
        }
    }
    if (nearest) return cli_usage(command, "no option %s; did you mean %s?", given, nearest);
    return cli_usage(command, "no option %s; `likeness %s --help` lists them", given, command->name);
}

static int take(const cli_command *command, const cli_option *option, const char *value)
{
    if (option->text) *option->text = value;
    if (option->list) {
        cli_list *list = option->list;
        if (!lk_grow((void **)&list->items, &list->capacity, list->count + 1, sizeof *list->items))
            return cli_fail_text("options", "out of memory");
        list->items[list->count++] = value;
    }
    if (!option->number) return EXIT_DONE;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (errno || *value < '0' || *value > '9' || *end || number < option->least || number > option->most)
        return cli_usage(command, "%s %s: a whole number from %llu to %llu is wanted", option->name, value,
                         (unsigned long long)option->least, (unsigned long long)option->most);
    *option->number = number;
    return EXIT_DONE;
}

static const cli_option *find(const cli_option *options, size_t n, const char *arg, size_t name)
{
    for (size_t i = 0; i < n; i++) {
        bool by_name = strncmp(options[i].name, arg, name) == 0 && options[i].name[name] == 0;
        if (by_name || (options[i].letter && arg[1] == options[i].letter && name == 2)) return &options[i];
    }
    return NULL;
}

int cli_parse(const cli_command *command, const cli_option *options, size_t n, int argc, char **argv, int *count)
{
    bool ended = false;
    *count = 0;
    for (int i = 0; i < argc; i++) {
        char *arg = argv[i];
        if (ended || arg[0] != '-' || arg[1] == 0) { /* "-" alone is stdin */
            argv[(*count)++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            ended = true;
            continue;
        }
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            print_help(command, options, n);
            return -1;
        }
        char *equals = strchr(arg, '=');
        const cli_option *option = find(options, n, arg, equals ? (size_t)(equals - arg) : strlen(arg));
        const char *attached = NULL; /* -k5 */
        if (!option && arg[1] != '-') {
            option = find(options, n, arg, 2);
            if (option && option->value)
                attached = arg + 2;
            else
                option = NULL;
        }
        if (!option) return unknown(command, options, n, arg);
        if (!option->value) {
            if (equals) return cli_usage(command, "%s takes no value", option->name);
            *option->flag = true;
            continue;
        }
        const char *value = attached ? attached : equals ? equals + 1 : i + 1 < argc ? argv[++i] : NULL;
        if (!value) return cli_usage(command, "%s wants a value: %s", option->name, option->value);
        int status = take(command, option, value);
        if (status != EXIT_DONE) return status;
    }
    return EXIT_DONE;
}
