/* likeness info: what a collection is. */
#include "base/error.h"
#include "base/file.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>

static int run(int argc, char **argv);
const cli_command cli_info = {"info", "COLLECTION.lk [--skipped] [--json]", "Tell what a collection holds", run};

static const char *const dtypes[] = {"f32", "f16", "int8"};

/* user: a JSON array, or NULL for lines. */
static lk_status list_skipped(void *user, const lk_record *record)
{
    if (record->state != LK_PICTURE_SKIPPED) return LK_OK;
    if (user) {
        json_array_append_new(user, json_pack("{s:I, s:s, s:s?}", "id", (json_int_t)record->id, "path", record->path,
                                              "reason",
                                              record->error && lk_utf8_valid(record->error) ? record->error : NULL));
    } else {
        cli_put_plain(stdout, record->error ? record->error : record->path, SIZE_MAX);
        putchar('\n');
    }
    return LK_OK;
}

static lk_status print_skipped(lk_collection *collection, bool json)
{
    json_t *list = json ? json_array() : NULL;
    lk_status s = lk_collection_each(collection, 0, list_skipped, list);
    if (s == LK_OK && json) cli_print_json(json_pack("{s:O}", "skipped", list));
    json_decref(list);
    return s;
}

static int run(int argc, char **argv)
{
    bool json = false, skipped = false;
    const cli_option options[] = {{.name = "--skipped", .help = "list the skipped pictures and why", .flag = &skipped},
                                  {.name = "--json", .help = "print JSON", .flag = &json}};
    int count, status = cli_parse(&cli_info, options, 2, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_info, "one collection is wanted");
    lk_collection *collection = NULL;
    lk_collection_stats stats;
    lk_status s;
    LK_TRY(lk_collection_open(argv[0], LK_READ, &collection));
    if (skipped) {
        s = print_skipped(collection, json);
        goto done;
    }
    LK_TRY(lk_collection_stats_of(collection, &stats));
    lk_index_info index;
    s = lk_collection_index_info(collection, &index);
    bool unusable = s == LK_CORRUPT || s == LK_UNSUPPORTED || s == LK_NOT_FOUND; /* searches are exact then */
    if (unusable) {
        index = (lk_index_info){.kind = "unusable"};
        snprintf(index.why, sizeof index.why, "%s", lk_error_message());
        index.why[lk_utf8_fit(index.why, sizeof index.why - 1)] = 0;
        s = LK_OK;
    }
    if (s != LK_OK) goto done;
    lk_collection_config config = lk_collection_config_of(collection);
    if (json) {
        status = cli_print_json(
            json_pack("{s:s, s:I, s:I, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:{s:s, s:s, s:I, s:I, s:I, s:f}}",
                      "path", lk_collection_path(collection), "indexed", (json_int_t)stats.indexed, "skipped",
                      (json_int_t)stats.skipped, "dim", (json_int_t)config.dim, "dtype", dtypes[config.dtype], "metric",
                      cli_score_name(config.metric), "model", config.embedder_name, "model_id", config.embedder_id,
                      "segments", (json_int_t)stats.segments, "vector_bytes", (json_int_t)stats.vector_bytes,
                      "catalog_bytes", (json_int_t)stats.catalog_bytes, "dead_vectors", (json_int_t)stats.dead_vectors,
                      "index", "kind", index.kind, "why", index.why, "vectors", (json_int_t)index.vectors, "bytes",
                      (json_int_t)index.bytes, "effort", (json_int_t)index.effort, "recall", index.recall));
    } else {
        printf("%s\n  pictures   %" PRIu64 " searchable, %" PRIu64
               " skipped%s\n  model      %s (%s)\n  vectors    %zu x %s, %s, %.1f MiB "
               "in %" PRIu64 " segment%s\n  catalog    %.1f MiB\n",
               lk_collection_path(collection), stats.indexed, stats.skipped,
               stats.skipped ? " (--skipped lists them)" : "", config.embedder_name, config.embedder_id, config.dim,
               dtypes[config.dtype], cli_score_name(config.metric), (double)stats.vector_bytes / 1048576,
               stats.segments, cli_s(stats.segments), (double)stats.catalog_bytes / 1048576);
        if (index.vectors)
            printf("  index      %s (%s) of %" PRIu64 " vectors, %.1f MiB; finds %.1f%% of the ten best\n", index.kind,
                   index.description, index.vectors, (double)index.bytes / 1048576, index.recall * 100);
        else
            printf("  index      %s: every search is exact\n", index.kind);
        if (*index.why) printf("             %s%s\n", unusable ? "" : "chosen because ", index.why);
        if (stats.dead_vectors)
            printf("  dead       %" PRIu64 " vectors of changed or removed pictures; `likeness compact` drops them\n",
                   stats.dead_vectors);
    }
done:
    lk_collection_close(collection);
    return s == LK_OK ? status : cli_fail("info");
}
