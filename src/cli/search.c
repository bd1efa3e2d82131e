/* likeness search: the pictures most like one. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "cli/decoder.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_search_command = {
    "search", "COLLECTION.lk QUERY...|--text WORDS [-k N] [--json] [--html FILE] [options]",
    "Find the pictures most like a picture file, a picture of the collection (its path or "
    "id:NUMBER), or like what a text says",
    run};

/* What the pictures named on the command line become: files decoded, pictures of the collection by their id. */
typedef struct query {
    lk_image image, detail; /* detail: for geometric re-ranking */
    int64_t id;
    char *shown; /* the file */
} query;

static void free_query(query *q)
{
    lk_image_free(&q->image);
    lk_image_free(&q->detail);
    free(q->shown);
}

/* "id:7", a path of the collection, or any picture file. A part of a picture of the collection is a picture of its own.
 * prepare: it will be embedded by itself. */
static lk_status read_query(lk_searcher *searcher, decoder *beside, const char *text, const uint32_t *crop,
                            bool geometric, bool prepare, query *out, int64_t *exclude)
{
    lk_record record = {0};
    char *absolute = NULL, *end;
    lk_status s = LK_OK;
    if (strncmp(text, "id:", 3) == 0) {
        long long id = strtoll(text + 3, &end, 10);
        if (*end || end == text + 3 || id <= 0) return lk_fail(LK_INVALID, "%s: an id is a number above 0", text);
        LK_TRY(lk_searcher_record(searcher, id, &record));
    } else {
        LK_TRY(lk_path_absolute(text, &absolute));
        s = lk_searcher_find(searcher, absolute, &record);
        if (s != LK_OK && s != LK_NOT_FOUND) goto done;
        if (s == LK_OK && record.state != LK_PICTURE_INDEXED) lk_record_free(&record);
    }
    out->shown = strdup(record.id ? record.path : text);
    if (!out->shown) {
        s = lk_fail_memory("query");
        goto done;
    }
    if (record.id && !crop) {
        out->id = record.id;
        s = LK_OK;
        goto done;
    }
    if (record.id) *exclude = record.id;
    lk_image_options decoding = lk_query_image_options(searcher, NULL), finely = lk_query_image_options(NULL, NULL);
    LK_TRY(decoder_ask(beside, out->shown, crop, &decoding));
    if (prepare) lk_embedder_prepare(lk_searcher_embedder(searcher)); /* meanwhile; embedding reports what fails */
    LK_TRY(decoder_take(beside, &out->image));
    if (geometric) LK_TRY(decoder_ask(beside, out->shown, crop, &finely));
    if (geometric) LK_TRY(decoder_take(beside, &out->detail));
done:
    lk_record_free(&record);
    free(absolute);
    return s;
}

/* Searches with n pictures as one query. */
static lk_status search_with(lk_searcher *searcher, const query *queries, size_t n, const lk_search_options *options,
                             lk_results *out)
{
    lk_image *images = lk_alloc(n, sizeof *images), *details = lk_alloc(n, sizeof *details);
    int64_t *ids = lk_alloc(n, sizeof *ids);
    lk_query all = {.images = images, .ids = ids};
    if (options->rerank == LK_RERANK_GEOMETRIC) all.details = details;
    lk_status s = images && details && ids ? LK_OK : lk_fail_memory("query");
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        if (queries[i].id) {
            ids[all.n_ids++] = queries[i].id;
        } else {
            details[all.n_images] = queries[i].detail; /* borrowed */
            images[all.n_images++] = queries[i].image;
        }
    }
    if (s == LK_OK) s = lk_search(searcher, &all, options, out);
    free(images);
    free(details);
    free(ids);
    return s;
}

/* "3,7" or "id:3,id:7" */
static lk_status read_ids(const char *option, const char *text, int64_t **ids, size_t *count)
{
    size_t most = 1;
    for (const char *c = text; c && *c; c++) most += *c == ',';
    *ids = text ? lk_alloc(most, sizeof **ids) : NULL;
    *count = 0;
    if (!text) return LK_OK;
    if (!*ids) return lk_fail_memory("options");
    for (const char *at = text;; at++) {
        char *end;
        if (strncmp(at, "id:", 3) == 0) at += 3;
        long long id = strtoll(at, &end, 10);
        if (end == at || id <= 0 || (*end && *end != ','))
            return lk_fail(LK_INVALID, "%s %s: ids with commas between are wanted", option, text);
        (*ids)[(*count)++] = id;
        if (!*end) return LK_OK;
        at = end;
    }
}

static lk_status read_crop(const char *text, uint32_t crop[4])
{
    int end = 0;
    if (sscanf(text, "%9" SCNu32 ",%9" SCNu32 ",%9" SCNu32 ",%9" SCNu32 "%n", &crop[0], &crop[1], &crop[2], &crop[3],
               &end) != 4 ||
        text[end])
        return lk_fail(LK_INVALID, "--crop %s: left,top,width,height in pixels are wanted", text);
    return LK_OK;
}

static json_t *results_json(const lk_results *results)
{
    json_t *list = json_array();
    for (size_t i = 0; i < results->count; i++) {
        const lk_result *r = &results->items[i];
        json_t *item = json_pack("{s:I, s:s, s:f, s:s?, s:i, s:i}", "id", (json_int_t)r->id, "path", r->path, "score",
                                 (double)r->score, "label", r->label, "width", (int)r->width, "height", (int)r->height);
        if (results->rerank && isfinite(r->reranked))
            json_object_set_new(item, "reranked", json_real((double)r->reranked));
        json_array_append_new(list, item);
    }
    return list;
}

static size_t characters(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_table(const lk_results *results)
{
    enum { WIDEST_LABEL = 32 };
    size_t widest = strlen("label");
    for (size_t i = 0; i < results->count; i++) {
        size_t n = results->items[i].label ? characters(results->items[i].label) : 0;
        if (n > widest) widest = n < WIDEST_LABEL ? n : WIDEST_LABEL;
    }
    printf("%4s  %8s", "rank", results->metric == LK_L2 ? "distance" : "score");
    if (results->rerank) printf("  %12s", lk_rerank_name(results->rerank));
    printf("  %9s  %-*s  path\n", "id", (int)widest, "label");
    for (size_t i = 0; i < results->count; i++) {
        const lk_result *r = &results->items[i];
        printf("%4zu  %8.4f", i + 1, (double)r->score);
        if (results->rerank && isfinite(r->reranked)) printf("  %12.5g", (double)r->reranked);
        if (results->rerank && !isfinite(r->reranked)) printf("  %12s", "-");
        printf("  %9" PRId64 "  ", r->id);
        size_t shown = cli_put_plain(stdout, r->label ? r->label : "", widest);
        printf("%*s", (int)(widest - shown) + 2, "");
        cli_put_plain(stdout, r->path, SIZE_MAX);
        putchar('\n');
    }
}

/* Options as they are typed. */
typedef struct typed {
    uint64_t k, shortlist, expand_k;
    const char *crop, *text, *where, *html, *rerank, *expand, *yes, *no, *within, *fuse, *diverse, *trade;
    bool json, together, exact;
} typed;

/* What --within, --fuse, --diverse and --trade say. */
static lk_status read_shape(const typed *in, lk_search_options *out)
{
    lk_status s = LK_OK;
    /* What the distance is in the collection's scores is known when that is open; a wrong one is said before. */
    if (in->within) LK_TRY(lk_within_parse("--within", in->within, LK_L2, out));
    if (in->diverse) LK_TRY(lk_apart_parse("--diverse", in->diverse, out));
    if (in->trade) LK_TRY(lk_trade_parse("--trade", in->trade, out));
    if (in->fuse) LK_TRY(lk_fuse_parse("--fuse", in->fuse, out));
done:
    return s;
}

static lk_status read_options(const typed *in, lk_search_options *out, uint32_t crop[4], int64_t **yes, int64_t **no)
{
    lk_status s;
    *out = (lk_search_options){
        .k = in->k, .exact = in->exact, .where = in->where, .shortlist = in->shortlist, .expand_k = in->expand_k};
    if (in->crop) LK_TRY(read_crop(in->crop, crop));
    LK_TRY(read_shape(in, out));
    if (in->rerank) LK_TRY(lk_rerank_parse(in->rerank, out));
    if (in->expand) LK_TRY(lk_expansion_parse(in->expand, out));
    LK_TRY(read_ids("--yes", in->yes, yes, &out->n_yes));
    LK_TRY(read_ids("--no", in->no, no, &out->n_no));
    out->yes = *yes;
    out->no = *no;
done:
    return s;
}

/* Only a query that names a picture by its id surely needs no decoder. */
static bool may_decode(const char *text, bool crop)
{
    return crop || strncmp(text, "id:", 3) != 0;
}

static lk_status search_all(lk_searcher *searcher, decoder *beside, const typed *in, lk_search_options options,
                            const uint32_t crop[4], char **texts, size_t count, query *queries, lk_results *results)
{
    lk_status s = LK_OK;
    if (in->within) LK_TRY(lk_within_parse("--within", in->within, lk_searcher_config(searcher).metric, &options));
    if (in->text) return lk_search_text(searcher, in->text, &options, &results[0]);
    size_t decoded = 0;
    for (size_t i = 0; i < count; i++) decoded += may_decode(texts[i], in->crop);
    for (size_t i = 0; i < count; i++) {
        int64_t exclude = 0;
        LK_TRY(read_query(searcher, beside, texts[i], in->crop ? crop : NULL, options.rerank == LK_RERANK_GEOMETRIC,
                          !in->together || decoded == 1, &queries[i], &exclude));
        if (exclude || !in->together) options.exclude_id = exclude;
        if (!in->together) LK_TRY(search_with(searcher, &queries[i], 1, &options, &results[i]));
    }
    if (in->together) s = search_with(searcher, queries, count, &options, &results[0]);
done:
    return s;
}

/* One query's list by itself; of several, each with what was asked for. */
static int print_json(char **texts, const lk_results *results, size_t rows)
{
    if (rows == 1) return cli_print_json(json_pack("{s:o}", "results", results_json(&results[0])));
    json_t *all = json_array();
    for (size_t i = 0; i < rows; i++) {
        json_t *name = json_string(texts[i]); /* NULL: not UTF-8 */
        json_array_append_new(
            all, json_pack("{s:o, s:o}", "query", name ? name : json_null(), "results", results_json(&results[i])));
    }
    return cli_print_json(json_pack("{s:o}", "queries", all));
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    typed in = {0};
    const cli_option options[] = {
        {.name = "--count",
         .letter = 'k',
         .value = "N",
         .help = "results (default 10; with --within at most so many, default 1000)",
         .number = &in.k,
         .least = 1,
         .most = 100000},
        {.name = "--crop",
         .value = "L,T,W,H",
         .help = "search with this rectangle of the picture, in its pixels",
         .text = &in.crop},
        {.name = "--text",
         .value = "WORDS",
         .help = "search with words: collections of a model such as CLIP",
         .text = &in.text},
        {.name = "--where",
         .value = "TEXT",
         .help = "only pictures such as \"label in (coffee, tea) and year > 2020\"",
         .text = &in.where},
        {.name = "--exact", .help = "read every vector, though there is an approximate index", .flag = &in.exact},
        {.name = "--together", .help = "several pictures show one thing: search with their mean", .flag = &in.together},
        {.name = "--fuse",
         .value = "KIND",
         .help = "several pictures as one query: mean (as --together) or best (each picture is searched for)",
         .text = &in.fuse},
        {.name = "--within",
         .value = "D",
         .help = "all pictures within this distance: 1 - cosine (squared for L2)",
         .text = &in.within},
        {.name = "--diverse",
         .value = "D",
         .help = "leave out results within this distance of a better one",
         .text = &in.diverse},
        {.name = "--trade",
         .value = "SHARE",
         .help = "0 to 1: how much differing from the results before counts against likeness",
         .text = &in.trade},
        {.name = "--yes",
         .value = "ID,ID...",
         .help = "these pictures are right: move the query towards them",
         .text = &in.yes},
        {.name = "--no",
         .value = "ID,ID...",
         .help = "these are wrong: move away from them and leave them out",
         .text = &in.no},
        {.name = "--expand",
         .value = "KIND",
         .help = "search again, joined by the nearest: aqe[:N], rank[:N], alpha[:N[:ALPHA]] or none",
         .text = &in.expand},
        {.name = "--expand-count",
         .value = "N",
         .help = "how many join (default 2)",
         .number = &in.expand_k,
         .least = 1,
         .most = 1000},
        {.name = "--rerank",
         .value = "KIND",
         .help = "kreciprocal[:K1:K2:LAMBDA], diffusion[:K:KQ:GAMMA:ALPHA], superglobal[:K:BETA], "
                 "geometric[:LEAST:WEIGHT] or "
                 "none",
         .text = &in.rerank},
        {.name = "--shortlist",
         .value = "N",
         .help = "how many are re-ranked (default 200, geometric 100)",
         .number = &in.shortlist,
         .least = 1,
         .most = 10000},
        {.name = "--json",
         .help = "print {\"results\":[...]}, of several queries {\"queries\":[...]}",
         .flag = &in.json},
        {.name = "--html", .value = "FILE", .help = "write a page with the pictures", .text = &in.html},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_search_command, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (in.k == 0) in.k = in.within ? 1000 : 10;
    if (in.fuse) in.together = true;
    if (in.text && (count != 1 || in.crop || in.html || in.together))
        return cli_usage(&cli_search_command,
                         "--text goes with a collection alone: no picture, --crop, --together or --html");
    if (!in.text && count < 2)
        return cli_usage(&cli_search_command, "a collection and a query picture (or --text) are wanted");
    if (count > 2 && !in.html && !in.json && !in.together)
        return cli_usage(
            &cli_search_command,
            "several queries go with --together or --fuse (as one), or with --html or --json (each by itself)");
    uint32_t crop[4];
    int64_t *yes = NULL, *no = NULL;
    lk_search_options how;
    bool sensible = read_options(&in, &how, crop, &yes, &no) == LK_OK;
    if (!sensible) cli_usage(&cli_search_command, "%s", lk_error_message());
    size_t n = in.text ? 1 : (size_t)count - 1, rows = in.together ? 1 : n;
    decoder *beside = NULL;
    for (size_t i = 0; sensible && !in.text && !beside && i < n; i++)
        if (may_decode(argv[i + 1], in.crop)) beside = decoder_start(argv[i + 1]); /* before any thread */
    lk_context *context = sensible ? cli_context(&common) : NULL;
    if (!context) {
        decoder_stop(beside);
        free(yes);
        free(no);
        return sensible ? EXIT_FAILED : EXIT_USAGE;
    }
    lk_searcher *searcher = NULL;
    query *queries = lk_alloc_zero(n, sizeof *queries);
    cli_page_row *page = lk_alloc_zero(n, sizeof *page);
    lk_results *results = lk_alloc_zero(n, sizeof *results);
    lk_status s = queries && page && results ? LK_OK : lk_fail_memory("results");
    if (s == LK_OK) s = lk_searcher_open(context, argv[0], &searcher);
    if (s == LK_OK) s = search_all(searcher, beside, &in, how, crop, argv + 1, n, queries, results);
    for (size_t i = 0; s == LK_OK && i < rows; i++) page[i] = (cli_page_row){queries[i].shown, &results[i]};
    if (s == LK_OK && in.html) s = cli_write_page(in.html, argv[0], page, rows);
    if (s != LK_OK)
        status = cli_fail("search");
    else if (in.json)
        status = print_json(argv + 1, results, rows);
    else if (!in.html)
        print_table(&results[0]);
    if (s == LK_OK && rows == 1 && results[0].count == 0 && !common.quiet)
        fprintf(stderr, "likeness: search: %s\n",
                in.within  ? "no picture is that near"
                : in.where ? "no picture satisfies the filter"
                           : "the collection has no other pictures");
    for (size_t i = 0; i < n && queries && results; i++) {
        free_query(&queries[i]);
        lk_results_free(&results[i]);
    }
    free(yes);
    free(no);
    free(queries);
    free(page);
    free(results);
    lk_searcher_free(searcher);
    decoder_stop(beside);
    cli_context_free(context);
    return status;
}
