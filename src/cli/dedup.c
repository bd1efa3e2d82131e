/* likeness dedup: groups of pictures that are nearly the same. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_dedup = {"dedup", "COLLECTION.lk [--within D] [--json | --csv FILE | --html FILE] [options]",
                               "Find groups of pictures that are nearly the same; nothing is deleted", run};

static json_t *groups_json(const lk_duplicates *d)
{
    json_t *groups = json_array();
    for (size_t g = 0; g < d->count; g++) {
        json_t *group = json_array();
        for (size_t i = 0; i < d->groups[g].count; i++) {
            const lk_result *r = &d->groups[g].items[i];
            json_array_append_new(group, json_pack("{s:I, s:s, s:s?, s:f, s:i, s:i}", "id", (json_int_t)r->id, "path",
                                                   r->path, "label", r->label, "score", (double)r->score, "width",
                                                   (int)r->width, "height", (int)r->height));
        }
        json_array_append_new(groups, group);
    }
    return groups;
}

/* A field between quotes, those inside doubled. */
static lk_status write_field(lk_atomic_file *file, const char *text)
{
    lk_status s = lk_atomic_write(file, "\"", 1);
    for (; s == LK_OK && *text; text++) s = lk_atomic_write(file, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    return s == LK_OK ? lk_atomic_write(file, "\"", 1) : s;
}

static lk_status write_csv(const char *path, const lk_duplicates *d)
{
    static const char head[] = "group,id,score,width,height,path\n";
    lk_atomic_file *file;
    lk_status s = lk_atomic_open(path, &file);
    if (s != LK_OK) return s;
    s = lk_atomic_write(file, head, sizeof head - 1);
    for (size_t g = 0; g < d->count; g++) {
        for (size_t i = 0; s == LK_OK && i < d->groups[g].count; i++) {
            const lk_result *r = &d->groups[g].items[i];
            char numbers[128];
            int n = snprintf(numbers, sizeof numbers, "%zu,%" PRId64 ",%.6f,%" PRIu32 ",%" PRIu32 ",", g + 1, r->id,
                             (double)r->score, r->width, r->height);
            s = lk_atomic_write(file, numbers, (size_t)n);
            if (s == LK_OK) s = write_field(file, r->path);
            if (s == LK_OK) s = lk_atomic_write(file, "\n", 1);
        }
    }
    if (s == LK_OK) return lk_atomic_commit(file);
    lk_atomic_abandon(file);
    return s;
}

/* A row for each group: its first picture, and those that are like it. */
static lk_status write_html(const char *path, const char *collection, const lk_duplicates *d)
{
    cli_page_row *rows = lk_alloc(d->count, sizeof *rows);
    lk_results *others = lk_alloc(d->count, sizeof *others);
    lk_status s = rows && others ? LK_OK : lk_fail_memory("page");
    for (size_t g = 0; s == LK_OK && g < d->count; g++) {
        others[g] = d->groups[g]; /* borrowed */
        others[g].items++;
        others[g].count--;
        rows[g] = (cli_page_row){d->groups[g].items[0].path, &others[g]};
    }
    if (s == LK_OK) s = cli_write_page(path, collection, rows, d->count);
    free(rows);
    free(others);
    return s;
}

static void print_groups(const lk_duplicates *d)
{
    for (size_t g = 0; g < d->count; g++)
        for (size_t i = 0; i < d->groups[g].count; i++) {
            const lk_result *r = &d->groups[g].items[i];
            printf("%s%5zu  %8.4f  %9" PRId64 "  %5" PRIu32 " x %-5" PRIu32 "  ", g && i == 0 ? "\n" : "", g + 1,
                   (double)r->score, r->id, r->width, r->height);
            cli_put_plain(stdout, r->path, SIZE_MAX);
            putchar('\n');
        }
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    const char *within_text = NULL, *where = NULL, *csv = NULL, *html = NULL;
    bool json = false, exact = false;
    const cli_option options[] = {
        {.name = "--within",
         .value = "D",
         .help = "distance up to which two pictures are the same, 1 - cosine (default 0.03)",
         .text = &within_text},
        {.name = "--where", .value = "TEXT", .help = "only pictures such as \"label = coffee\"", .text = &where},
        {.name = "--exact", .help = "compare every picture with every other, whatever the index", .flag = &exact},
        {.name = "--json", .help = "print {\"groups\":[[...], ...]}", .flag = &json},
        {.name = "--csv", .value = "FILE", .help = "write group,id,score,width,height,path", .text = &csv},
        {.name = "--html", .value = "FILE", .help = "write a page with the pictures", .text = &html},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_dedup, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_dedup, "one collection is wanted");
    char *end = NULL;
    double within = within_text ? strtod(within_text, &end) : 0.03;
    if (within_text && (end == within_text || *end || !(within >= 0 && within <= 1e30)))
        return cli_usage(&cli_dedup, "--within %s: a distance of 0 or more is wanted", within_text);
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    lk_searcher *searcher = NULL;
    lk_duplicates found = {0};
    lk_status s = lk_searcher_open(context, argv[0], &searcher);
    if (s == LK_OK) s = lk_find_duplicates(searcher, (float)within, exact, where, &found);
    if (s == LK_OK && csv) s = write_csv(csv, &found);
    if (s == LK_OK && html) s = write_html(html, argv[0], &found);
    if (s != LK_OK)
        status = cli_fail("dedup");
    else if (json)
        status = cli_print_json(
            json_pack("{s:I, s:o}", "pictures", (json_int_t)found.pictures, "groups", groups_json(&found)));
    else if (!csv && !html)
        print_groups(&found);
    if (s == LK_OK && !json && !common.quiet)
        printf("%s%zu groups of %zu pictures that are nearly the same\n", found.count && !csv && !html ? "\n" : "",
               found.count, found.pictures);
    lk_duplicates_free(&found);
    lk_searcher_free(searcher);
    cli_context_free(context);
    return status;
}
