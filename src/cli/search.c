/* likeness search: the pictures most like one. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_search_command = {
    "search", "COLLECTION.lk QUERY...|--text WORDS [-k N] [--json | --html FILE] [options]",
    "Find the pictures most like a picture file, a picture of the collection (its path or "
    "id:NUMBER), or like what a text says",
    run};

/* Decodes the query as the embedder wants it, cut to a rectangle of the full picture if asked. */
static lk_status load_query(lk_searcher *searcher, const char *path, const char *crop, lk_image *out)
{
    lk_image_options decoding = lk_embedder_image_options(lk_searcher_embedder(searcher));
    if (!crop) return lk_image_load(path, &decoding, out);
    unsigned left, top, width, height;
    int end = 0;
    if (sscanf(crop, "%u,%u,%u,%u%n", &left, &top, &width, &height, &end) != 4 || crop[end])
        return lk_fail(LK_INVALID, "--crop %s: left,top,width,height in pixels are wanted", crop);
    lk_image whole = {0}, part = {0};
    uint8_t *bytes = NULL;
    size_t size;
    lk_status s;
    LK_TRY(lk_image_load(path, NULL, &whole));
    LK_TRY(lk_fail_in(lk_image_crop(&whole, left, top, width, height, &part), "--crop %s", crop));
    /* Through PNG, because decoding is what brings a picture to the size and colour of the embedder. */
    LK_TRY(lk_image_encode(&part, LK_FORMAT_PNG, 100, &bytes, &size));
    s = lk_image_load_memory(bytes, size, path, &decoding, out);
done:
    free(bytes);
    lk_image_free(&whole);
    lk_image_free(&part);
    return s;
}

lk_status cli_search(lk_searcher *searcher, const char *query, const char *crop, size_t k, lk_results *out,
                     char **shown)
{
    lk_search_options options = {.k = k};
    lk_record record = {0};
    lk_image image = {0};
    char *absolute = NULL, *end;
    *shown = NULL;
    *out = (lk_results){0};
    lk_status s = LK_OK;
    if (strncmp(query, "id:", 3) == 0) {
        long long id = strtoll(query + 3, &end, 10);
        if (*end || end == query + 3 || id <= 0) return lk_fail(LK_INVALID, "%s: an id is a number above 0", query);
        LK_TRY(lk_searcher_record(searcher, id, &record));
    } else {
        LK_TRY(lk_path_absolute(query, &absolute));
        s = lk_searcher_find(searcher, absolute, &record);
        if (s != LK_OK && s != LK_NOT_FOUND) goto done;
        if (s == LK_OK && record.state != LK_PICTURE_INDEXED) lk_record_free(&record);
    }
    *shown = strdup(record.id ? record.path : query);
    if (!*shown) {
        s = lk_fail_memory("query");
        goto done;
    }
    if (record.id && !crop) {
        s = lk_search_id(searcher, record.id, &options, out);
    } else {
        options.exclude_id = record.id;
        LK_TRY(load_query(searcher, *shown, crop, &image));
        s = lk_search_image(searcher, &image, &options, out);
    }
done:
    lk_record_free(&record);
    lk_image_free(&image);
    free(absolute);
    if (s != LK_OK) {
        free(*shown);
        *shown = NULL;
    }
    return s;
}

static json_t *results_json(const lk_results *results)
{
    json_t *list = json_array();
    for (size_t i = 0; i < results->count; i++) {
        const lk_result *r = &results->items[i];
        json_array_append_new(list, json_pack("{s:I, s:s, s:f, s:s?, s:i, s:i}", "id", (json_int_t)r->id, "path",
                                              r->path, "score", (double)r->score, "label", r->label, "width",
                                              (int)r->width, "height", (int)r->height));
    }
    return list;
}

static void print_table(const lk_results *results)
{
    int widest = 5;
    for (size_t i = 0; i < results->count; i++) {
        int n = results->items[i].label ? (int)strlen(results->items[i].label) : 0;
        if (n > widest) widest = n < 32 ? n : 32;
    }
    printf("%4s  %8s  %9s  %-*s  path\n", "rank", results->metric == LK_L2 ? "distance" : "score", "id", widest,
           "label");
    for (size_t i = 0; i < results->count; i++) {
        const lk_result *r = &results->items[i];
        printf("%4zu  %8.4f  %9" PRId64 "  %-*.32s  %s\n", i + 1, (double)r->score, r->id, widest,
               r->label ? r->label : "", r->path);
    }
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    uint64_t k = 10;
    const char *crop = NULL, *html = NULL, *text = NULL;
    bool json = false;
    const cli_option options[] = {
        {.name = "--count",
         .letter = 'k',
         .value = "N",
         .help = "results (default 10)",
         .number = &k,
         .least = 1,
         .most = 100000},
        {.name = "--crop",
         .value = "L,T,W,H",
         .help = "search with this rectangle of the picture, in its pixels",
         .text = &crop},
        {.name = "--text",
         .value = "WORDS",
         .help = "search with words: collections of a model such as CLIP",
         .text = &text},
        {.name = "--json", .help = "print {\"results\":[...]}", .flag = &json},
        {.name = "--html", .value = "FILE", .help = "write a page with the pictures", .text = &html},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_search_command, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (text && (count != 1 || crop || html))
        return cli_usage(&cli_search_command, "--text goes with a collection alone: no picture, --crop or --html");
    if (!text && count < 2)
        return cli_usage(&cli_search_command, "a collection and a query picture (or --text) are wanted");
    if (count > 2 && !html) return cli_usage(&cli_search_command, "several queries go together with --html only");
    lk_context *context = cli_context(&common);
    if (!context) return EXIT_FAILED;
    size_t queries = text ? 1 : (size_t)count - 1;
    lk_searcher *searcher = NULL;
    cli_page_row *rows = lk_alloc_zero(queries, sizeof *rows);
    lk_results *results = lk_alloc_zero(queries, sizeof *results);
    lk_status s = rows && results ? LK_OK : lk_fail_memory("results");
    if (s == LK_OK) s = lk_searcher_open(context, argv[0], &searcher);
    for (size_t i = 0; s == LK_OK && i < queries; i++) {
        char *shown = NULL;
        s = text ? lk_search_text(searcher, text, &(lk_search_options){.k = k}, &results[i])
                 : cli_search(searcher, argv[i + 1], crop, k, &results[i], &shown);
        rows[i] = (cli_page_row){shown, &results[i]};
    }
    if (s == LK_OK && html) s = cli_write_page(html, argv[0], rows, queries);
    if (s != LK_OK)
        status = cli_fail("search");
    else if (json)
        status = cli_print_json(json_pack("{s:o}", "results", results_json(&results[0])));
    else if (!html)
        print_table(&results[0]);
    for (size_t i = 0; i < queries && rows && results; i++) {
        free((char *)rows[i].query);
        lk_results_free(&results[i]);
    }
    free(rows);
    free(results);
    lk_searcher_free(searcher);
    cli_context_free(context);
    return status;
}
