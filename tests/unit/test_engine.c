/* Searching, duplicates and evaluating. */
#include "base/file.h"

#include "engine_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

/* ---- searching ---- */

static void put(lk_collection *c, int number, const float *vector)
{
    char path[32];
    snprintf(path, sizeof path, "/none/%05d.png", number);
    lk_record record = {.path = path};
    OK(lk_collection_put(c, &record, vector, NULL));
}

/* A collection of all pictures, their shape as label and `set` 0, 1, 2 as a number. */
static lk_collection *labelled(void **state, const lk_embedder *embedder)
{
    char csv[4096] = "path,label,set\n";
    write_pictures(state);
    for (int i = 0; i < PICTURES; i++)
        snprintf(csv + strlen(csv), sizeof csv - strlen(csv), "p/%c%d.png,shape %c,%d\n", 'a' + i % SHAPES, i / SHAPES,
                 'a' + i % SHAPES, i / SHAPES);
    write_text(at(state, "l.csv"), csv);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    expect(ingest(state, c, embedder, 1, "l.csv", NULL), PICTURES, 0, 0, 0, 0);
    return c;
}

static void a_search_finds_the_picture_itself_first_unless_it_is_the_query(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results results;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    assert_int_equal(lk_searcher_count(searcher), PICTURES);
    int64_t id = id_of(state, c, "p/c1.png");
    lk_image_options decoding = lk_embedder_image_options(lk_searcher_embedder(searcher));
    lk_image image;
    OK(lk_image_load(at(state, "p/c1.png"), &decoding, &image));
    OK(lk_search_image(searcher, &image, NULL, &results));
    assert_int_equal(results.count, 10);
    assert_int_equal(results.items[0].id, id);
    assert_true(fabs(results.items[0].score - 1) < 1e-5);
    assert_string_equal(results.items[0].label, "shape c");
    assert_string_equal(results.items[0].path, at(state, "p/c1.png"));
    for (size_t i = 1; i < results.count; i++) assert_true(results.items[i].score <= results.items[i - 1].score);
    lk_results_free(&results);
    lk_search_options options = {.k = 1000};
    OK(lk_search_id(searcher, id, &options, &results));
    assert_int_equal(results.count, PICTURES - 1);
    for (size_t i = 0; i < results.count; i++) assert_int_not_equal(results.items[i].id, id);
    lk_results_free(&results);
    assert_int_equal(lk_search_id(searcher, 999, NULL, &results), LK_NOT_FOUND);
    lk_image_free(&image);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_refreshed_searcher_sees_what_was_committed_since(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results results;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    write_picture(at(state, "p/new.png"), 0, 11);
    expect(ingest(state, c, embedder, 1, "p/new.png", NULL), 1, 0, 0, 0, 0);
    int64_t removed = id_of(state, c, "p/a0.png");
    OK(lk_collection_remove(c, removed));
    OK(lk_collection_commit(c));
    assert_int_equal(lk_searcher_count(searcher), PICTURES);
    lk_search_options options = {.k = 1000};
    OK(lk_search_id(searcher, id_of(state, c, "p/b0.png"), &options, &results));
    for (size_t i = 0; i < results.count; i++) assert_int_not_equal(results.items[i].id, removed); /* gone at once */
    assert_int_equal(results.count, PICTURES - 2);
    lk_results_free(&results);
    OK(lk_searcher_refresh(searcher));
    OK(lk_search_id(searcher, id_of(state, c, "p/new.png"), &options, &results));
    assert_int_equal(results.count, PICTURES - 1);
    lk_results_free(&results);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

/* Takes up what was committed, as fast as it can. */
typedef struct refreshing {
    lk_searcher *searcher;
    atomic_bool stop;
} refreshing;

static void *refresh_on(void *arg)
{
    refreshing *r = arg;
    while (!atomic_load(&r->stop)) lk_searcher_refresh(r->searcher);
    return NULL;
}

static void the_last_of_many_refreshes_at_once_sees_the_last_commit(void **state)
{
    enum { ROUNDS = 150, THREADS = 3 };
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    refreshing r = {0};
    pthread_t threads[THREADS];
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &r.searcher));
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, refresh_on, &r), 0);
    for (int round = 0; round < ROUNDS; round++) {
        put(c, round, (float[8]){1});
        OK(lk_collection_commit(c));
    }
    atomic_store(&r.stop, true);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    OK(lk_searcher_refresh(r.searcher));
    assert_int_equal(lk_searcher_count(r.searcher), ROUNDS);
    lk_searcher_free(r.searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void more_results_than_there_are_pictures_are_all_of_them(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    int64_t id = id_of(state, c, "p/c1.png");
    const lk_search_options many[] = {{.k = SIZE_MAX},
                                      {.k = SIZE_MAX / 4, .diverse = {.apart = 1e-9f}},
                                      {.k = SIZE_MAX - 1, .rerank = LK_RERANK_KRECIPROCAL},
                                      {.k = SIZE_MAX, .range = true, .bound = -1}};
    for (size_t i = 0; i < sizeof many / sizeof *many; i++) {
        lk_results results;
        OK(lk_search_id(searcher, id, &many[i], &results));
        assert_int_equal(results.count, PICTURES - 1);
        lk_results_free(&results);
    }
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static size_t differing(lk_searcher *searcher, size_t among, lk_rerank rerank)
{
    const lk_search_options options = {
        .k = 5, .diverse = {.apart = 0.01f}, .diverse_among = among, .rerank = rerank, .shortlist = rerank ? 110 : 0};
    lk_results results;
    OK(lk_search_vector(searcher, (float[8]){1}, &options, &results));
    size_t count = results.count;
    lk_results_free(&results);
    return count;
}

static void results_that_differ_are_looked_for_among_so_many_and_no_more(void **state)
{
    enum { COPIES = 100, OTHERS = 7 };
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    lk_searcher *searcher;
    for (int i = 0; i < COPIES; i++) put(c, i, (float[8]){1, (float)(1e-5 * i)});
    for (int i = 0; i < OTHERS; i++) {
        float vector[8] = {0.5f};
        vector[i + 1] = 1;
        put(c, COPIES + i, vector);
    }
    OK(lk_collection_commit(c));
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    assert_int_equal(differing(searcher, 0, LK_RERANK_NONE), 5);
    assert_int_equal(differing(searcher, 1000, LK_RERANK_NONE), 5);
    assert_int_equal(differing(searcher, COPIES + 2, LK_RERANK_NONE), 3); /* the list grows to that length exactly */
    assert_int_equal(differing(searcher, COPIES, LK_RERANK_NONE), 1);
    assert_int_equal(differing(searcher, 1, LK_RERANK_NONE), 1);
    assert_int_equal(differing(searcher, COPIES, LK_RERANK_SUPERGLOBAL), 5); /* a shortlist is never cut short */
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void the_length_of_a_query_vector_means_nothing(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results a, b;
    float vector[8];
    int64_t yes = id_of(state, c, "p/d0.png");
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    const lk_search_options options[] = {{.k = 15},
                                         {.k = 15, .expand = LK_EXPAND_AVERAGE, .expand_k = 4},
                                         {.k = 15, .yes = &yes, .n_yes = 1},
                                         {.k = 15, .rerank = LK_RERANK_KRECIPROCAL},
                                         {.k = 15, .rerank = LK_RERANK_DIFFUSION},
                                         {.k = 15, .rerank = LK_RERANK_SUPERGLOBAL}};
    assert_int_equal(lk_embedder_dim(embedder), 8);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        for (int d = 0; d < 8; d++) vector[d] = (float)((d * 5 + 3) % 7 - 2);
        OK(lk_search_vector(searcher, vector, &options[i], &a));
        for (int d = 0; d < 8; d++) vector[d] *= 100;
        OK(lk_search_vector(searcher, vector, &options[i], &b));
        assert_int_equal(a.count, b.count);
        for (size_t r = 0; r < a.count; r++) assert_int_equal(a.items[r].id, b.items[r].id);
        lk_results_free(&a);
        lk_results_free(&b);
    }
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_table_of_neighbours_holds_as_long_as_the_vectors_do(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    OK(lk_searcher_build_neighbours(searcher, 5));
    lk_searcher_free(searcher);
    /* Opening for writing, labels and an index change no vector. */
    lk_collection_close(c);
    OK(lk_collection_open(at(state, "c.lk"), LK_WRITE, &c));
    write_text(at(state, "l.csv"), "path,label\np/a0.png,disc\n");
    expect(ingest(state, c, embedder, 1, "l.csv", NULL), 0, 1, 0, 0, 0);
    OK(lk_collection_build_index(NULL, c, &(lk_index_options){.kind = "graph"}));
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    assert_true(lk_searcher_has_neighbours(searcher));
    OK(lk_collection_remove(c, id_of(state, c, "p/a0.png")));
    OK(lk_collection_commit(c));
    OK(lk_searcher_refresh(searcher));
    assert_false(lk_searcher_has_neighbours(searcher));
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void pages_walk_through_all_pictures_once(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_results page;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    int64_t after = 0;
    size_t seen = 0;
    for (;;) {
        OK(lk_searcher_page(searcher, after, 4, &page));
        if (page.count == 0) break;
        for (size_t i = 0; i < page.count; i++) {
            assert_true(page.items[i].id > after);
            after = page.items[i].id;
            seen++;
        }
        lk_results_free(&page);
    }
    lk_results_free(&page);
    assert_int_equal(seen, PICTURES);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_collection_with_another_model_inside_is_not_searched(void **state)
{
    lk_embedder *embedder = train(1), *other = train(2);
    lk_collection_close(labelled(state, embedder));
    OK(lk_embedder_save(other, at(state, "c.lk/model")));
    lk_searcher *searcher;
    assert_int_equal(lk_searcher_open(NULL, at(state, "c.lk"), &searcher), LK_CONFLICT);
    lk_embedder_free(embedder);
    lk_embedder_free(other);
}

/* ---- duplicates ---- */

/* Two crowds of `each`, all within a hundredth of one another, but every picture nearer to its own crowd than to any of
 * the other; and one that is near to nobody. */
static void put_crowds(lk_collection *c, int each)
{
    for (int i = 0; i < 2 * each; i++) {
        double angle = (i % 2 ? 0.1 : 0) + 1e-5 * i;
        put(c, i, (float[8]){(float)cos(angle), (float)sin(angle), (float)(1e-4 * sin(i * 7.0))});
    }
    put(c, 2 * each, (float[8]){[7] = 1});
}

static void expect_one_group(void **state, bool exact, size_t pictures)
{
    lk_searcher *searcher;
    lk_duplicates found;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    OK(lk_find_duplicates(searcher, 0.01f, exact, NULL, &found));
    assert_int_equal(found.count, 1);
    assert_int_equal(found.groups[0].count, pictures);
    assert_int_equal(found.pictures, pictures);
    lk_duplicates_free(&found);
    lk_searcher_free(searcher);
}

static void crowds_that_touch_are_one_group_however_many_lie_between(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    put_crowds(c, 1100);
    OK(lk_collection_commit(c));
    expect_one_group(state, true, 2200);
    lk_index_options options = {.kind = "graph"};
    OK(lk_collection_build_index(NULL, c, &options));
    expect_one_group(state, false, 2200);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void equal_vectors_are_one_group_and_vectors_of_zeros_are_none(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    for (int i = 0; i < 900; i++) put(c, i, (float[8]){i % 3 == 0, i % 3 == 1}); /* the third has no direction */
    OK(lk_collection_commit(c));
    lk_searcher *searcher;
    lk_duplicates found;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    OK(lk_find_duplicates(searcher, 0, true, NULL, &found));
    assert_int_equal(found.count, 2);
    for (int i = 0; i < 2; i++) assert_int_equal(found.groups[i].count, 300);
    lk_duplicates_free(&found);
    OK(lk_find_duplicates(searcher, 0, true, "path < '/none/00010.png'", &found));
    assert_int_equal(found.count, 2);
    assert_int_equal(found.pictures, 7); /* 0 3 6 9, and 1 4 7 */
    lk_duplicates_free(&found);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

/* ---- copies ---- */

static lk_status read_ones(void *user, uint64_t first, size_t count, float *out)
{
    (void)user, (void)first;
    for (size_t i = 0; i < count * 8; i++) out[i] = 1;
    return LK_OK;
}

/* An import of n vectors for three pictures. */
static lk_status import_of(void **state, lk_searcher *like, uint64_t n)
{
    lk_rows rows = {.n = n, .dim = 8, .read = read_ones};
    write_text(at(state, "t.csv"), "path\n/none/a.png\n/none/b.png\n/none/c.png\n");
    return lk_import_collection(like, at(state, "t.csv"), &rows, at(state, "copy.lk"));
}

static void a_copy_that_fails_leaves_nothing_and_works_the_next_time(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = new_collection(state, "c.lk", embedder);
    put_crowds(c, 2500);
    OK(lk_collection_commit(c));
    lk_searcher *searcher;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    write_text(at(state, "t.csv"), "");
    int before = unit_count_files(*state);
    struct rlimit all, few;
    getrlimit(RLIMIT_FSIZE, &all);
    few = all;
    few.rlim_cur = 300000; /* enough for a model and an empty catalog */
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &few);
    lk_status s = lk_augment_collection(searcher, LK_EXPAND_AVERAGE, 0, 2, at(state, "copy.lk"));
    setrlimit(RLIMIT_FSIZE, &all);
    assert_int_equal(s, LK_IO);
    assert_int_equal(unit_count_files(*state), before);
    assert_int_equal(import_of(state, searcher, 4), LK_INVALID);
    assert_int_equal(import_of(state, searcher, 2), LK_INVALID);
    assert_int_equal(unit_count_files(*state), before);
    OK(lk_augment_collection(searcher, LK_EXPAND_AVERAGE, 0, 2, at(state, "copy.lk")));
    assert_int_equal(unit_count_files(*state), before + 1);
    assert_int_equal(import_of(state, searcher, 3), LK_CONFLICT);
    lk_searcher_free(searcher);
    OK(lk_searcher_open(NULL, at(state, "copy.lk/"), &searcher));
    assert_int_equal(lk_searcher_count(searcher), 5001);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

/* ---- evaluating ---- */

static void near_to(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9)) fail_msg("%.12g, not %.12g", a, b);
}

/* Means over the queries by the textbook: each query's ranking comes from a search, and is walked from the top. */
static void expect_evaluation(lk_searcher *searcher, const lk_evaluate_options *options,
                              int (*is_query)(const lk_result *),
                              int (*is_relevant)(const lk_result *, const lk_result *))
{
    static const uint32_t ks[] = {1, 5, 10, 100};
    lk_evaluation found;
    lk_results all;
    OK(lk_evaluate(NULL, searcher, options, &found));
    OK(lk_searcher_page(searcher, 0, 1000, &all));
    double map = 0, r_precision = 0, mrr = 0, precision[4] = {0}, recall[4] = {0}, hit[4] = {0}, ndcg[4] = {0};
    size_t queries = 0, without = 0;
    for (size_t q = 0; q < all.count; q++) {
        if (!is_query(&all.items[q])) continue;
        size_t relevant = 0, met = 0;
        for (size_t i = 0; i < all.count; i++) relevant += i != q && is_relevant(&all.items[q], &all.items[i]);
        if (relevant == 0) {
            without++;
            continue;
        }
        queries++;
        lk_results ranked;
        lk_search_options wide = {.k = 1000};
        OK(lk_search_id(searcher, all.items[q].id, &wide, &ranked));
        double ap = 0, dcg[4] = {0}, best[4] = {0};
        for (size_t i = 0; i < ranked.count; i++) {
            for (int c = 0; c < 4; c++)
                if (i < ks[c] && i < relevant) best[c] += 1 / log2((double)i + 2);
            if (!is_relevant(&all.items[q], &ranked.items[i])) continue;
            met++;
            ap += (double)met / (double)(i + 1);
            if (met == 1) mrr += 1 / (double)(i + 1);
            r_precision += i < relevant ? 1 / (double)relevant : 0;
            for (int c = 0; c < 4; c++) {
                if (i >= ks[c]) continue;
                precision[c] += 1.0 / ks[c];
                recall[c] += 1 / (double)relevant;
                if (met == 1) hit[c]++;
                dcg[c] += 1 / log2((double)i + 2);
            }
        }
        map += ap / (double)relevant;
        for (int c = 0; c < 4; c++) ndcg[c] += dcg[c] / best[c];
        lk_results_free(&ranked);
    }
    lk_results_free(&all);
    assert_true(queries > 0);
    assert_int_equal(found.n_runs, 1);
    const lk_judged *run = &found.runs[0];
    assert_int_equal(run->queries, queries);
    assert_int_equal(run->without, without);
    assert_int_equal(run->n_ks, 4);
    double n = (double)queries;
    near_to(run->means[LK_EVAL_MAP].mean, map / n);
    near_to(run->means[LK_EVAL_R_PRECISION].mean, r_precision / n);
    near_to(run->means[LK_EVAL_MRR].mean, mrr / n);
    for (size_t c = 0; c < 4; c++) {
        assert_int_equal(run->ks[c], ks[c]);
        near_to(run->means[lk_eval_column(LK_EVAL_PRECISION, c, 4)].mean, precision[c] / n);
        near_to(run->means[lk_eval_column(LK_EVAL_RECALL, c, 4)].mean, recall[c] / n);
        near_to(run->means[lk_eval_column(LK_EVAL_HIT, c, 4)].mean, hit[c] / n);
        near_to(run->means[lk_eval_column(LK_EVAL_NDCG_AT, c, 4)].mean, ndcg[c] / n);
    }
    lk_evaluation_free(&found);
}

static int every(const lk_result *r)
{
    (void)r;
    return 1;
}

static int of_set_one(const lk_result *r)
{
    return strstr(r->labels, "\"set\":1") != NULL;
}

static int same_label(const lk_result *a, const lk_result *b)
{
    return a->label && b->label && strcmp(a->label, b->label) == 0;
}

/* The truth of the CSV below: a0 and b0 want c0; a1 wants a2 and d0. */
static int in_truth(const lk_result *a, const lk_result *b)
{
    static const char *const pairs[][2] = {
        {"/a0.png", "/c0.png"}, {"/b0.png", "/c0.png"}, {"/a1.png", "/a2.png"}, {"/a1.png", "/d0.png"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strstr(a->path, pairs[i][0]) && strstr(b->path, pairs[i][1])) return 1;
    return 0;
}

static void evaluation_equals_a_computation_by_hand(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    write_picture(at(state, "p/lonely.png"), 3, 20); /* without a label: in the gallery, relevant to none */
    ingest(state, c, embedder, 1, "p/lonely.png", NULL);
    write_text(at(state, "p/broken.png"), "x");
    ingest(state, c, embedder, 1, "p/broken.png", NULL);
    lk_searcher *searcher;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    expect_evaluation(searcher, NULL, every, same_label);
    lk_evaluate_options options = {.query_column = "set", .query_value = "1"};
    expect_evaluation(searcher, &options, of_set_one, same_label);
    char truth[256];
    snprintf(
        truth, sizeof truth,
        "query,relevant\np/a0.png,p/c0.png\n%s,p/c0.png\np/a1.png,p/a2.png\nid:%ld,%ld\np/a1.png,p/a2.png\na0.png/../"
        "p/a1.png,p/a1.png\n",
        at(state, "p/b0.png"), (long)id_of(state, c, "p/a1.png"), (long)id_of(state, c, "p/d0.png"));
    write_text(at(state, "truth.csv"), truth);
    options = (lk_evaluate_options){.truth_csv = at(state, "truth.csv")};
    expect_evaluation(searcher, &options, every, in_truth);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

/* Puts a picture first that nobody knows. */
static lk_status name_a_stranger(void *user, const lk_flat *index, uint64_t id, const float *query, lk_hit *hits,
                                 size_t *count)
{
    (void)user, (void)index, (void)id, (void)query;
    if (*count) hits[0].id = 1000000;
    return LK_OK;
}

static void searches_with_options_are_judged_in_small_collections_too(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_evaluation plain, reranked;
    lk_search_options search = {.expand = LK_EXPAND_ALPHA, .expand_alpha = 1e6f}; /* the nearest hardly count */
    lk_evaluate_options options = {.search = &search};
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    OK(lk_evaluate(NULL, searcher, NULL, &plain));
    OK(lk_evaluate(NULL, searcher, &options, &reranked)); /* to a depth of 1000, where there are 15 */
    assert_int_equal(reranked.runs[0].queries, PICTURES);
    assert_true(fabs(reranked.runs[0].means[LK_EVAL_MAP].mean - plain.runs[0].means[LK_EVAL_MAP].mean) < 0.05);
    lk_evaluation_free(&plain);
    lk_evaluation_free(&reranked);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void results_that_are_not_in_the_gallery_are_passed_over(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_evaluation out;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    lk_evaluate_options options = {
        .depth = 5, .reorder = name_a_stranger, .write_run = at(state, "run"), .html = at(state, "report")};
    OK(lk_evaluate(NULL, searcher, &options, &out));
    assert_int_equal(out.runs[0].queries, PICTURES);
    lk_evaluation_free(&out);
    uint8_t *text;
    size_t size;
    OK(lk_file_read(at(state, "run"), 0, &text, &size));
    assert_null(strstr((char *)text, "1000000"));
    free(text);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_truth_that_names_unknown_pictures_is_refused(void **state)
{
    lk_embedder *embedder = train(1);
    lk_collection *c = labelled(state, embedder);
    lk_searcher *searcher;
    lk_evaluation found;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    lk_evaluate_options options = {.truth_csv = at(state, "truth.csv")};
    write_text(options.truth_csv, "query,relevant\np/a0.png,p/b0.png\np/a0.png,p/none.png\n");
    assert_int_equal(lk_evaluate(NULL, searcher, &options, &found), LK_NOT_FOUND);
    assert_non_null(strstr(lk_error_message(), "line 3"));
    assert_non_null(strstr(lk_error_message(), "none.png"));
    write_text(options.truth_csv, "a,b\np/a0.png,p/b0.png\n");
    assert_int_equal(lk_evaluate(NULL, searcher, &options, &found), LK_CORRUPT);
    const uint32_t ks[LK_EVAL_MAX_KS + 1] = {1};
    options = (lk_evaluate_options){.ks = ks, .n_ks = LK_EVAL_MAX_KS + 1};
    assert_int_equal(lk_evaluate(NULL, searcher, &options, &found), LK_INVALID);
    lk_searcher_free(searcher);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, unit_folder, unit_folder_remove)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_search_finds_the_picture_itself_first_unless_it_is_the_query),
        IN_FOLDER(a_refreshed_searcher_sees_what_was_committed_since),
        IN_FOLDER(the_last_of_many_refreshes_at_once_sees_the_last_commit),
        IN_FOLDER(more_results_than_there_are_pictures_are_all_of_them),
        IN_FOLDER(results_that_differ_are_looked_for_among_so_many_and_no_more),
        IN_FOLDER(the_length_of_a_query_vector_means_nothing),
        IN_FOLDER(a_table_of_neighbours_holds_as_long_as_the_vectors_do),
        IN_FOLDER(pages_walk_through_all_pictures_once),
        IN_FOLDER(a_collection_with_another_model_inside_is_not_searched),
        IN_FOLDER(crowds_that_touch_are_one_group_however_many_lie_between),
        IN_FOLDER(equal_vectors_are_one_group_and_vectors_of_zeros_are_none),
        IN_FOLDER(a_copy_that_fails_leaves_nothing_and_works_the_next_time),
        IN_FOLDER(evaluation_equals_a_computation_by_hand),
        IN_FOLDER(searches_with_options_are_judged_in_small_collections_too),
        IN_FOLDER(results_that_are_not_in_the_gallery_are_passed_over),
        IN_FOLDER(a_truth_that_names_unknown_pictures_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
