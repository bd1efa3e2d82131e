/* Context, log, progress, messages. */
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One command runs per process: what its context needs lives here. */
static struct {
    lk_context *context;
    lk_progress *progress;
    FILE *log;
    bool quiet;
} run;

int cli_fail(const char *what)
{
    if (run.progress) lk_progress_clear(run.progress);
    fprintf(stderr, "likeness: %s: ", what);
    cli_put_plain(stderr, lk_error_message(), SIZE_MAX);
    fputc('\n', stderr);
    return EXIT_FAILED;
}

int cli_fail_text(const char *what, const char *format, ...)
{
    va_list args;
    if (run.progress) lk_progress_clear(run.progress);
    fprintf(stderr, "likeness: %s: ", what);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return EXIT_FAILED;
}

const char *cli_s(uint64_t count)
{
    return count == 1 ? "" : "s";
}

size_t cli_put_plain(FILE *stream, const char *text, size_t most)
{
    size_t count = 0;
    for (const char *c = text; *c; c++) {
        unsigned char byte = (unsigned char)*c;
        if ((byte & 0xc0) != 0x80 && count++ == most) return most; /* the others go on with a character of UTF-8 */
        fputc(byte < 0x20 || byte == 0x7f ? '?' : byte, stream);
    }
    return count;
}

static void log_line(void *user, lk_log_level level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    (void)user;
    if (run.log) {
        char when[32];
        time_t now = time(NULL);
        struct tm utc;
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
        fprintf(run.log, "%s %s ", when, names[level]);
        cli_put_plain(run.log, line, SIZE_MAX);
        fputc('\n', run.log);
        fflush(run.log);
    }
    if (run.quiet && level != LK_LOG_ERROR) return;
    if (run.progress) lk_progress_clear(run.progress);
    fputs("likeness: ", stderr);
    cli_put_plain(stderr, line, SIZE_MAX);
    fputc('\n', stderr);
}

static void stop(int signal_number)
{
    (void)signal_number;
    if (run.context) lk_context_cancel(run.context);
}

lk_context *cli_context(const cli_common *common)
{
    run.quiet = common->quiet;
    if (common->log) {
        run.log = fopen(common->log, "ae");
        if (!run.log) {
            cli_fail_text(common->log, "cannot be opened for writing: %s", strerror(errno));
            return NULL;
        }
    }
    if (!common->quiet) run.progress = lk_progress_new(stderr);
    lk_context_options options = {.threads = (int)common->threads,
                                  .log_level = LK_LOG_INFO,
                                  .log = log_line,
                                  .progress = run.progress ? lk_progress_update : NULL,
                                  .progress_user = run.progress};
    if (lk_context_new(&options, &run.context) != LK_OK) {
        cli_fail("start");
        cli_context_free(NULL);
        return NULL;
    }
    /* The second signal ends the program at once: SA_RESETHAND. */
    struct sigaction action = {.sa_handler = stop, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return run.context;
}

void cli_context_free(lk_context *context)
{
    run.context = NULL;
    lk_context_free(context);
    lk_progress_free(run.progress);
    run.progress = NULL;
    if (run.log) fclose(run.log);
    run.log = NULL;
}

int cli_finish(int status)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        if (errno == EPIPE) return status; /* the reader had enough */
        return cli_fail_text("output", "cannot be written: %s", strerror(errno));
    }
    return status;
}

int cli_print_json(json_t *value)
{
    if (!value)
        return cli_fail_text("output",
                             "cannot be made: a name in it is not valid UTF-8, or there is too little memory");
    int failed = json_dumpf(value, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(value);
    return failed ? cli_fail_text("output", "cannot be written: %s", strerror(errno)) : EXIT_DONE;
}

lk_status cli_read_lines(const char *path, cli_lines *out)
{
    *out = (cli_lines){0};
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    lk_status s = LK_OK;
    if (!file) return lk_fail_errno(errno, "%s: cannot be opened", path);
    while (s == LK_OK && (n = getline(&line, &size, file)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
        if (n == 0) continue;
        char *copy = strdup(line);
        if (!copy || !lk_grow((void **)&out->items, &out->capacity, out->count + 1, sizeof *out->items)) {
            free(copy);
            s = lk_fail_memory(path);
        } else {
            out->items[out->count++] = copy;
        }
    }
    if (s == LK_OK && ferror(file)) s = lk_fail_errno(errno, "%s: cannot be read", path);
    free(line);
    if (file != stdin) fclose(file);
    if (s != LK_OK) cli_free_lines(out);
    return s;
}

void cli_free_lines(cli_lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) free(lines->items[i]);
    free(lines->items);
    *lines = (cli_lines){0};
}

const char *cli_score_name(lk_metric metric)
{
    static const char *const names[] = {"cosine", "inner product", "squared distance"};
    return names[metric];
}
