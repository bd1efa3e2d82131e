/* likeness eval: how good the ranking is. */
#include "base/error.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_eval = {
    "eval", "COLLECTION.lk [--truth T.csv] [--query COLUMN=VALUE] [-k 1,5,10,100] [--json]",
    "Measure the ranking: every picture a query among all others, labels or a CSV as the truth", run};

static int read_ks(const char *text, uint32_t ks[LK_EVAL_MAX_KS], size_t *count)
{
    for (*count = 0; *count < LK_EVAL_MAX_KS;) {
        char *end;
        unsigned long k = strtoul(text, &end, 10);
        if (end == text || k == 0 || k > UINT32_MAX) return -1;
        ks[(*count)++] = (uint32_t)k;
        if (*end == 0) return 0;
        if (*end != ',') return -1;
        text = end + 1;
    }
    return -1;
}

/* Metrics by name, in the order in which they are shown. */
static json_t *metrics_json(const lk_evaluation *e)
{
    const struct {
        const char *name;
        const double *values;
    } lists[] = {
        {"precision", e->mean.precision}, {"recall", e->mean.recall}, {"hit", e->mean.hit}, {"nDCG", e->mean.ndcg}};
    json_t *out =
        json_pack("{s:I, s:I, s:I, s:f, s:f, s:f}", "queries", (json_int_t)e->queries, "queries_without_relevant",
                  (json_int_t)e->queries_without, "gallery", (json_int_t)e->gallery, "mAP", e->mean.average_precision,
                  "R-precision", e->mean.r_precision, "MRR", e->mean.reciprocal_rank);
    for (size_t m = 0; m < sizeof lists / sizeof *lists; m++) {
        for (size_t c = 0; c < e->n_ks; c++) {
            char name[48];
            snprintf(name, sizeof name, "%s@%" PRIu32, lists[m].name, e->ks[c]);
            json_object_set_new(out, name, json_real(lists[m].values[c]));
        }
    }
    json_object_set_new(out, "seconds", json_real(e->seconds));
    return out;
}

static void print_table(const lk_evaluation *e)
{
    printf("%" PRIu64 " queries among %" PRIu64 " pictures (%" PRIu64 " more have nothing to find), %.1f s\n\n",
           e->queries, e->gallery, e->queries_without, e->seconds);
    printf("  %-12s %.4f\n  %-12s %.4f\n  %-12s %.4f\n\n  %12s", "mAP", e->mean.average_precision, "R-precision",
           e->mean.r_precision, "MRR", e->mean.reciprocal_rank, "at k =");
    const struct {
        const char *name;
        const double *values;
    } lists[] = {{"precision", e->mean.precision},
                 {"recall", e->mean.recall},
                 {"hit", e->mean.hit}, /* at least one relevant: what metric-learning papers call Recall@K */
                 {"nDCG", e->mean.ndcg}};
    for (size_t c = 0; c < e->n_ks; c++) printf(" %7" PRIu32, e->ks[c]);
    for (size_t m = 0; m < sizeof lists / sizeof *lists; m++) {
        printf("\n  %-12s", lists[m].name);
        for (size_t c = 0; c < e->n_ks; c++) printf(" %7.4f", lists[m].values[c]);
    }
    printf("\n");
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    const char *truth = NULL, *query = NULL, *ks_text = NULL;
    bool json = false;
    const cli_option options[] = {
        {.name = "--truth",
         .value = "FILE",
         .help = "CSV of query,relevant: ids or paths, one pair a row (default: equal labels)",
         .text = &truth},
        {.name = "--query",
         .value = "COL=VALUE",
         .help = "only pictures with this value are queries; all stay in the gallery",
         .text = &query},
        {.name = "--cutoffs",
         .letter = 'k',
         .value = "LIST",
         .help = "cut-offs (default 1,5,10,100)",
         .text = &ks_text},
        {.name = "--json", .help = "print the metrics by name", .flag = &json},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_eval, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) return status < 0 ? EXIT_DONE : status;
    if (count != 1) return cli_usage(&cli_eval, "one collection is wanted");
    uint32_t ks[LK_EVAL_MAX_KS];
    lk_evaluate_options how = {.truth_csv = truth};
    if (ks_text) {
        if (read_ks(ks_text, ks, &how.n_ks) != 0)
            return cli_usage(&cli_eval, "-k %s: up to %d numbers with commas between are wanted", ks_text,
                             LK_EVAL_MAX_KS);
        how.ks = ks;
    }
    char *column = query ? strdup(query) : NULL, *equals = column ? strchr(column, '=') : NULL;
    if (query && !equals) {
        free(column);
        return cli_usage(&cli_eval, "--query %s: COLUMN=VALUE is wanted", query);
    }
    if (equals) {
        *equals = 0;
        how.query_column = column;
        how.query_value = equals + 1;
    }
    lk_context *context = cli_context(&common);
    lk_searcher *searcher = NULL;
    lk_evaluation e;
    if (!context) {
        free(column);
        return EXIT_FAILED;
    }
    lk_status s = lk_searcher_open(context, argv[0], &searcher);
    if (s == LK_OK) s = lk_evaluate(context, searcher, &how, &e);
    if (s != LK_OK)
        status = cli_fail("eval");
    else if (json)
        status = cli_print_json(metrics_json(&e));
    else
        print_table(&e);
    lk_searcher_free(searcher);
    cli_context_free(context);
    free(column);
    return status;
}
