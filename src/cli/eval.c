/* likeness eval: how good a ranking is, how sure that is, and which of several is better. */
#include "base/error.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);
const cli_command cli_eval = {"eval", "COLLECTION.lk | --vectors V.npy --labels L.csv | --run R.trec --qrels Q.trec",
                              "Measure a ranking: each picture a query among all others, judged by labels or a list",
                              run};

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

/* ---- JSON ---- */

static const char *const setups[] = {"easy", "medium", "hard"};

static json_t *revisited_json(const lk_judged *run)
{
    json_t *out = json_object();
    for (size_t setup = 0; setup < 3; setup++) {
        json_t *one = json_object();
        json_object_set_new(one, "mAP", json_real(lk_judged_revisited(run, setup, 0)));
        for (size_t c = 0; c < run->n_ks; c++) {
            char name[32];
            snprintf(name, sizeof name, "mP@%" PRIu32, run->ks[c]);
            json_object_set_new(one, name, json_real(lk_judged_revisited(run, setup, 1 + c)));
        }
        json_object_set_new(out, setups[setup], one);
    }
    return out;
}

/* Metrics by name. */
static json_t *run_json(const lk_judged *run)
{
    json_t *out = json_pack("{s:I, s:I}", "queries", (json_int_t)run->queries, "queries_without_relevant",
                            (json_int_t)run->without);
    json_t *intervals = json_object();
    char name[32];
    if (run->gallery) {
        json_object_set_new(out, "gallery", json_integer((json_int_t)run->gallery));
        if (run->depth) json_object_set_new(out, "depth", json_integer((json_int_t)run->depth));
    } else {
        json_object_set_new(out, "queries_not_answered", json_integer((json_int_t)run->missing));
        json_object_set_new(out, "queries_not_judged", json_integer((json_int_t)run->unknown));
    }
    for (size_t c = 0; c < run->columns; c++) {
        lk_eval_column_name(c, run->ks, run->n_ks, name);
        json_object_set_new(out, name, json_real(run->means[c].mean));
        json_object_set_new(intervals, name, json_pack("[f,f]", run->means[c].low, run->means[c].high));
    }
    if (run->revisited) json_object_set_new(out, "revisited", revisited_json(run));
    json_object_set_new(out, "intervals", intervals);
    return out;
}

static json_t *comparisons_json(const lk_evaluation *e)
{
    json_t *out = json_array();
    const lk_judged *first = &e->runs[0];
    for (size_t i = 0; i + 1 < e->n_runs; i++) {
        json_t *metrics = json_object();
        for (size_t c = 0; c < first->columns; c++) {
            const lk_comparison *one = &e->comparisons[i * first->columns + c];
            char name[32];
            lk_eval_column_name(c, first->ks, first->n_ks, name);
            json_object_set_new(metrics, name,
                                json_pack("{s:f, s:[f,f], s:f, s:f, s:I, s:I, s:I}", "difference", one->difference.mean,
                                          "interval", one->difference.low, one->difference.high, "p_bootstrap",
                                          one->p_bootstrap, "p_randomisation", one->p_randomisation, "better",
                                          (json_int_t)one->better, "worse", (json_int_t)one->worse, "equal",
                                          (json_int_t)one->equal));
        }
        json_array_append_new(
            out, json_pack("{s:s, s:s, s:o}", "run", e->runs[i + 1].name, "against", first->name, "metrics", metrics));
    }
    return out;
}

static json_t *evaluation_json(const lk_evaluation *e)
{
    json_t *out;
    if (e->n_runs == 1) {
        out = run_json(&e->runs[0]);
    } else {
        json_t *runs = json_array();
        for (size_t i = 0; i < e->n_runs; i++) {
            json_t *one = json_pack("{s:s}", "run", e->runs[i].name), *metrics = run_json(&e->runs[i]);
            json_object_update(one, metrics);
            json_decref(metrics);
            json_array_append_new(runs, one);
        }
        out = json_pack("{s:o, s:o}", "runs", runs, "comparisons", comparisons_json(e));
    }
    json_object_set_new(out, "confidence", json_real(e->level));
    json_object_set_new(out, "seconds", json_real(e->seconds));
    return out;
}

/* ---- tables ---- */

static void print_run(const lk_judged *run, double level, double seconds)
{
    static const char *const lists[] = {"precision", "recall", "hit", "mAP", "map_cut", "nDCG", "nDCG-exp"};
    char name[32];
    printf("%zu queries", run->queries);
    if (run->gallery) printf(" among %" PRIu64 " pictures", run->gallery);
    if (run->without) printf(" (%" PRIu64 " more have nothing to find)", run->without);
    if (run->depth) printf(", the best %" PRIu64 " ranked", run->depth);
    if (run->missing) printf(", %" PRIu64 " not answered by the run: they count with 0", run->missing);
    printf(", %.1f s\n\n  %-12s %7s   %.0f%% interval\n", seconds, "", "mean", level * 100);
    for (size_t c = 0; c < LK_EVAL_SCALARS; c++) {
        lk_eval_column_name(c, run->ks, run->n_ks, name);
        printf("  %-12s %7.4f   %.4f to %.4f\n", name, run->means[c].mean, run->means[c].low, run->means[c].high);
    }
    printf("\n  %12s", "at k =");
    for (size_t c = 0; c < run->n_ks; c++) printf(" %7" PRIu32, run->ks[c]);
    for (int list = 0; list < LK_EVAL_LISTS; list++) {
        printf("\n  %-12s", lists[list]); /* hit: at least one relevant, what metric-learning papers call Recall@K */
        for (size_t c = 0; c < run->n_ks; c++) printf(" %7.4f", run->means[lk_eval_column(list, c, run->n_ks)].mean);
    }
    printf("\n");
    for (size_t setup = 0; run->revisited && setup < 3; setup++) {
        printf("%s  %-12s %7.4f  ", setup ? "" : "\n  revisited protocol    mAP, then mP@k\n", setups[setup],
               lk_judged_revisited(run, setup, 0));
        for (size_t c = 0; c < run->n_ks; c++) printf(" %7.4f", lk_judged_revisited(run, setup, 1 + c));
        printf("\n");
    }
}

static void print_comparison(const lk_evaluation *e)
{
    const lk_judged *first = &e->runs[0];
    char name[32];
    for (size_t i = 1; i < e->n_runs; i++) {
        printf("\n%s compared with %s\n\n  %-14s %8s %8s  %8s   %.0f%% interval       p    better worse equal\n",
               e->runs[i].name, first->name, "", first->name[0] && strlen(first->name) <= 8 ? first->name : "first",
               strlen(e->runs[i].name) <= 8 ? e->runs[i].name : "this", "change", e->level * 100);
        for (size_t c = 0; c < first->columns; c++) {
            const lk_comparison *one = &e->comparisons[(i - 1) * first->columns + c];
            lk_eval_column_name(c, first->ks, first->n_ks, name);
            printf("  %-14s %8.4f %8.4f  %+8.4f  %+.4f to %+.4f  %.4f  %6zu %5zu %5zu\n", name, first->means[c].mean,
                   e->runs[i].means[c].mean, one->difference.mean, one->difference.low, one->difference.high,
                   one->p_randomisation, one->better, one->worse, one->equal);
        }
    }
    printf("\nThe interval is that of the paired bootstrap, p that of the randomisation test.\n");
}

static int print_evaluation(const lk_evaluation *e, bool json, const char *html)
{
    if (json) return cli_print_json(evaluation_json(e));
    for (size_t i = 0; i < e->n_runs; i++) {
        if (e->n_runs > 1) printf("%s%s: ", i ? "\n" : "", e->runs[i].name);
        print_run(&e->runs[i], e->level, e->n_runs > 1 ? e->runs[i].seconds : e->seconds);
    }
    if (e->n_runs > 1) print_comparison(e);
    if (html) printf("\nreport: %s/index.html\n", html);
    return EXIT_DONE;
}

/* ---- what is asked for ---- */

typedef struct request {
    lk_vector_files files;
    lk_evaluate_options how;
    const char *collection;
    char *query, *gallery; /* copies that are cut at "=" */
    char *name;
    const char *rerank, *expand;
    uint64_t shortlist;
    lk_search_options search;
    uint32_t ks[LK_EVAL_MAX_KS];
} request;

/* COLUMN=VALUE into its two halves, in *copy. */
static int split(const char *option, const char *text, char **copy, const char **column, const char **value)
{
    if (!text) return EXIT_DONE;
    *copy = strdup(text);
    char *equals = *copy ? strchr(*copy, '=') : NULL;
    if (!equals) return cli_usage(&cli_eval, "%s %s: COLUMN=VALUE is wanted", option, text);
    *equals = 0;
    *column = *copy;
    *value = equals + 1;
    return EXIT_DONE;
}

static lk_status evaluate(lk_context *context, request *r, lk_evaluation *e)
{
    if (r->files.vectors) return lk_evaluate_vectors(context, &r->files, &r->how, e);
    if (!r->collection) return lk_evaluate_runs(context, &r->how, e);
    lk_searcher *searcher = NULL;
    lk_status s = lk_searcher_open(context, r->collection, &searcher);
    if (s == LK_OK) s = lk_evaluate(context, searcher, &r->how, e);
    lk_searcher_free(searcher);
    return s;
}

static int perform(const cli_common *common, request *r, bool json)
{
    lk_context *context = cli_context(common);
    lk_evaluation e = {0};
    if (!context) return EXIT_FAILED;
    int status = evaluate(context, r, &e) == LK_OK ? print_evaluation(&e, json, r->how.html) : cli_fail("eval");
    lk_evaluation_free(&e);
    cli_context_free(context);
    return status;
}

/* The last part of a path; a slash at its end does not count. malloc'ed. */
static char *last_part(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    return strndup(path + begin, end - begin);
}

/* --rerank, --expand: judge what a search with them finds. */
static int read_search(request *r)
{
    if (!r->rerank && !r->expand) return EXIT_DONE;
    if (!r->collection) return cli_usage(&cli_eval, "--rerank and --expand go with a collection");
    if ((r->rerank && lk_rerank_parse(r->rerank, &r->search) != LK_OK) ||
        (r->expand && lk_expansion_parse(r->expand, &r->search) != LK_OK))
        return cli_usage(&cli_eval, "%s", lk_error_message());
    char *name = NULL;
    if (asprintf(&name, "%s %s%s%s", r->name, r->expand ? r->expand : "", r->expand && r->rerank ? " " : "",
                 r->rerank ? r->rerank : "") > 0) {
        free(r->name);
        r->how.name = r->name = name;
    }
    r->search.shortlist = r->shortlist;
    r->search.exact = true;
    r->how.search = &r->search;
    return EXIT_DONE;
}

/* Completes a request from what the options said. */
static int check(request *r, int count, char **argv, const char *ks, const char *metric, const char *query,
                 const char *gallery)
{
    static const char *const metrics[] = {"cosine", "ip", "l2"};
    size_t m = 0;
    while (metric && m < 3 && strcmp(metric, metrics[m]) != 0) m++;
    if (m == 3) return cli_usage(&cli_eval, "--metric %s: cosine, ip or l2 is wanted", metric);
    r->files.metric = (lk_metric)m;
    if (count > 1 || (count == 1 && r->files.vectors))
        return cli_usage(&cli_eval, "one collection, or --vectors, or --run alone is wanted");
    if (count == 1)
        r->collection = argv[0];
    else if (!r->files.vectors && (r->how.n_runs == 0 || !r->how.qrels))
        return cli_usage(&cli_eval, "a collection is wanted, or --vectors with --labels, or --run with --qrels");
    if (ks && read_ks(ks, r->ks, &r->how.n_ks) != 0)
        return cli_usage(&cli_eval, "-k %s: up to %d numbers with commas between are wanted", ks, LK_EVAL_MAX_KS);
    if (ks) r->how.ks = r->ks;
    if (r->collection || r->files.vectors)
        r->how.name = r->name = last_part(r->collection ? r->collection : r->files.vectors);
    int status = split("--query", query, &r->query, &r->how.query_column, &r->how.query_value);
    if (status == EXIT_DONE) status = read_search(r);
    return status ? status : split("--gallery", gallery, &r->gallery, &r->how.gallery_column, &r->how.gallery_value);
}

static int run(int argc, char **argv)
{
    cli_common common = {0};
    request r = {0};
    cli_list runs = {0};
    const char *query = NULL, *gallery = NULL, *ks = NULL, *metric = NULL;
    uint64_t depth = 0, resamples = 0, seed = 0;
    bool json = false;
    const cli_option options[] = {
        {.name = "--truth",
         .value = "FILE",
         .help = "CSV of query,relevant[,grade][,difficulty]: ids or paths (default: equal labels)",
         .text = &r.how.truth_csv},
        {.name = "--query", .value = "COL=VALUE", .help = "only pictures with this value are queries", .text = &query},
        {.name = "--gallery",
         .value = "COL=VALUE",
         .help = "only pictures with this value can be found",
         .text = &gallery},
        {.name = "--cutoffs", .letter = 'k', .value = "LIST", .help = "cut-offs (default 1,5,10,100)", .text = &ks},
        {.name = "--depth",
         .value = "N",
         .help = "rank only the best N: faster, what lies deeper counts as not found",
         .number = &depth,
         .least = 1,
         .most = 1000000},
        {.name = "--rerank",
         .value = "KIND",
         .help = "judge re-ranked searches: kreciprocal, diffusion, superglobal, geometric",
         .text = &r.rerank},
        {.name = "--expand", .value = "KIND", .help = "judge expanded searches: aqe, rank, alpha", .text = &r.expand},
        {.name = "--shortlist",
         .value = "N",
         .help = "how many are re-ranked",
         .number = &r.shortlist,
         .least = 1,
         .most = 10000},
        {.name = "--html", .value = "DIR", .help = "write a report to look at: DIR/index.html", .text = &r.how.html},
        {.name = "--json", .help = "print the metrics by name", .flag = &json},
        {.name = "--csv", .value = "FILE", .help = "write every query's metrics", .text = &r.how.csv},
        {.name = "--run",
         .value = "FILE",
         .help = "TREC run of another system, to judge or to compare; may be repeated",
         .list = &runs},
        {.name = "--qrels", .value = "FILE", .help = "TREC judgements as the truth", .text = &r.how.qrels},
        {.name = "--write-run",
         .value = "FILE",
         .help = "write the ranking as a TREC run (the best 1000, or --depth)",
         .text = &r.how.write_run},
        {.name = "--write-qrels",
         .value = "FILE",
         .help = "write the truth as TREC judgements",
         .text = &r.how.write_qrels},
        {.name = "--vectors",
         .value = "FILE",
         .help = "evaluate the rows of a .npy instead of a collection",
         .text = &r.files.vectors},
        {.name = "--labels",
         .value = "FILE",
         .help = "their labels: .npy of integers, or CSV with the column label",
         .text = &r.files.labels},
        {.name = "--queries",
         .value = "FILE",
         .help = "query vectors that are not in the gallery (.npy)",
         .text = &r.files.queries},
        {.name = "--query-labels", .value = "FILE", .help = "their labels", .text = &r.files.query_labels},
        {.name = "--metric",
         .value = "NAME",
         .help = "of --vectors: cosine, ip or l2 (default cosine)",
         .text = &metric},
        {.name = "--resamples",
         .value = "N",
         .help = "of intervals and tests (default 2000)",
         .number = &resamples,
         .least = 100,
         .most = 1000000},
        {.name = "--seed", .value = "N", .help = "of the resampling (default 0)", .number = &seed, .most = UINT64_MAX},
        CLI_COMMON_OPTIONS(common),
    };
    int count, status = cli_parse(&cli_eval, options, sizeof options / sizeof *options, argc, argv, &count);
    if (status) {
        free(runs.items);
        return status < 0 ? EXIT_DONE : status;
    }
    r.how.runs = runs.items;
    r.how.n_runs = runs.count;
    r.how.depth = depth;
    r.how.resamples = (uint32_t)resamples;
    r.how.seed = seed;
    status = check(&r, count, argv, ks, metric, query, gallery);
    if (status == EXIT_DONE) status = perform(&common, &r, json);
    free(runs.items);
    free(r.query);
    free(r.gallery);
    free(r.name);
    return status;
}
