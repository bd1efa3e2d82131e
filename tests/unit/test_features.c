/* Local features for geometric verification: their compact form, matching, oriented pairs, and the store that keeps
 * them in a collection. */
#include "base/random.h"
#include "embed/local.h"
#include "rank/match.h"
#include "store/features.h"
#include <likeness/likeness.h>

#include "shapes.h"
#include "unit.h"

#include <sqlite3.h>
#include <sys/stat.h>

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

static char *at(void **state, const char *name)
{
    static char paths[16][512];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", (char *)*state, name);
    return path;
}

/* ---- the compact form ---- */

static void features_are_the_same_after_packing(void **state)
{
    (void)state;
    lk_image image = draw(thicket, 120, 90, 2);
    lk_local a, b;
    uint8_t *bytes;
    size_t size;
    OK(lk_local_describe(&image, &a));
    assert_true(a.count > 20);
    assert_int_equal(a.width, 120);
    assert_int_equal(a.height, 90);
    OK(lk_local_pack(&a, &bytes, &size));
    assert_true(size <= 70 * (size_t)a.count + 6);
    OK(lk_local_unpack(bytes, size, &b));
    assert_int_equal(b.count, a.count);
    assert_memory_equal(a.points, b.points, a.count * sizeof *a.points);
    assert_memory_equal(a.codes, b.codes, (size_t)a.count * LK_LOCAL_CODE);
    for (uint32_t i = 0; i < a.count; i++) {
        assert_true(a.points[i].x >= 0 && a.points[i].x <= 120 && a.points[i].y >= 0 && a.points[i].y <= 90);
        assert_true(a.points[i].scale > 0.2f && a.points[i].scale < 60);
    }
    lk_local_free(&b);
    for (size_t cut = 0; cut < size; cut += 7) assert_int_equal(lk_local_unpack(bytes, cut, &b), LK_CORRUPT);
    assert_int_equal(lk_local_unpack(bytes, size + 70, &b), LK_CORRUPT); /* reads nothing behind its end */
    free(bytes);
    lk_local_free(&a);
    lk_image_free(&image);
}

static void an_empty_picture_has_no_features(void **state)
{
    (void)state;
    lk_image image = {calloc(64 * 64, 1), 64, 64, 1, 64, 64};
    lk_local a, b;
    uint8_t *bytes;
    size_t size;
    OK(lk_local_describe(&image, &a));
    assert_int_equal(a.count, 0);
    OK(lk_local_pack(&a, &bytes, &size));
    OK(lk_local_unpack(bytes, size, &b));
    assert_int_equal(b.count, 0);
    free(bytes);
    lk_local_free(&a);
    lk_local_free(&b);
    lk_image_free(&image);
}

/* ---- matching ---- */

enum { MANY = 120 };

/* A descriptor as SIFT's are: sparse, not negative, of unit length. */
static void make_descriptor(lk_random *random, float *out)
{
    double sum = 0;
    for (int d = 0; d < 128; d++) {
        double v = lk_random_normal(random);
        out[d] = v > 0.3 ? (float)(v - 0.3) : 0;
        sum += (double)out[d] * out[d];
    }
    for (int d = 0; d < 128; d++) out[d] /= (float)sqrt(sum);
}

static void encode(const float *d, uint8_t *code)
{
    for (int b = 0; b < LK_MATCH_CODE; b++) {
        unsigned low = (unsigned)fminf(d[2 * b] * 50 + 0.5f, 15), high = (unsigned)fminf(d[2 * b + 1] * 50 + 0.5f, 15);
        code[b] = (uint8_t)(low | high << 4);
    }
}

static void codes_match_as_the_descriptors_they_stand_for(void **state)
{
    (void)state;
    static float a[MANY * 128], b[MANY * 128];
    static uint8_t codes_a[MANY * LK_MATCH_CODE], codes_b[MANY * LK_MATCH_CODE];
    lk_match plain[MANY], coded[MANY];
    size_t n_plain, n_coded, both = 0;
    lk_random random;
    lk_random_seed(&random, 3);
    for (int i = 0; i < MANY; i++) { /* two thirds are in both, moved a little; the rest are strangers */
        make_descriptor(&random, b + i * 128);
        make_descriptor(&random, a + i * 128);
        for (int d = 0; d < 128 && i % 3; d++) a[i * 128 + d] = b[i * 128 + d] * 0.85f + a[i * 128 + d] * 0.3f;
        double sum = 0;
        for (int d = 0; d < 128; d++) sum += (double)a[i * 128 + d] * a[i * 128 + d];
        for (int d = 0; d < 128; d++) a[i * 128 + d] /= (float)sqrt(sum);
        encode(a + i * 128, codes_a + i * LK_MATCH_CODE);
        encode(b + i * 128, codes_b + i * LK_MATCH_CODE);
    }
    OK(lk_match_descriptors(128, MANY, a, MANY, b, 0.8f, 1, plain, &n_plain));
    OK(lk_match_codes(MANY, codes_a, MANY, codes_b, 0.8f, coded, &n_coded));
    assert_true(n_plain >= MANY * 6 / 10);
    for (size_t i = 0, j = 0; i < n_plain && j < n_coded; i++) { /* both are in order of a */
        while (j < n_coded && coded[j].a < plain[i].a) j++;
        if (j < n_coded && coded[j].a == plain[i].a && coded[j].b == plain[i].b) {
            assert_float_equal(coded[j].distance, plain[i].distance, 0.05f);
            both++;
        }
    }
    assert_true(both * 100 >= n_plain * 95 && both * 100 >= n_coded * 95);
    OK(lk_match_codes(MANY, codes_a, 1, codes_b, 0.8f, coded, &n_coded));
    assert_int_equal(n_coded, 0); /* no second, no ratio */
    OK(lk_match_codes(0, codes_a, MANY, codes_b, 0.8f, coded, &n_coded));
    assert_int_equal(n_coded, 0);
}

/* ---- oriented pairs ---- */

/* n features through x -> scale R(turn) x + (dx, dy), places with noise of half a pixel, sizes and directions with some
 * too; the last `wrong` of them go anywhere. */
static void make_pairs(lk_feature *from, lk_feature *to, size_t n, size_t wrong, double scale, double turn,
                       uint64_t seed)
{
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < n; i++) {
        double x = lk_random_unit(&random) * 300, y = lk_random_unit(&random) * 200,
               s = 1 + 4 * lk_random_unit(&random), angle = 6.28 * lk_random_unit(&random);
        from[i] = (lk_feature){(float)x, (float)y, (float)s, (float)angle};
        double u = scale * (cos(turn) * x - sin(turn) * y) + 40 + 0.5 * lk_random_normal(&random),
               v = scale * (sin(turn) * x + cos(turn) * y) - 20 + 0.5 * lk_random_normal(&random);
        to[i] = (lk_feature){(float)u, (float)v, (float)(s * scale * exp(0.1 * lk_random_normal(&random))),
                             (float)(angle + turn + 0.1 * lk_random_normal(&random))};
        if (i + wrong >= n) {
            to[i].x = (float)(lk_random_unit(&random) * 300);
            to[i].y = (float)(lk_random_unit(&random) * 200);
            to[i].angle = (float)(6.28 * lk_random_unit(&random));
        }
    }
}

static void oriented_pairs_that_agree_are_found_among_many_that_do_not(void **state)
{
    (void)state;
    lk_feature from[100], to[100];
    uint8_t inlier[100];
    for (uint64_t seed = 1; seed <= 40; seed++) {
        double scale = 0.4 + 0.05 * (double)seed, turn = 0.3 * (double)seed;
        make_pairs(from, to, 100, 70, scale, turn, seed);
        lk_verified found;
        OK(lk_verify_features(5, 100, from, to, &found, inlier));
        size_t right = 0, all = 0;
        for (size_t i = 0; i < 100; i++) {
            right += inlier[i] && i < 30;
            all += inlier[i];
        }
        assert_int_equal(all, found.inliers);
        assert_true(right >= 28 && all <= right + 4);
        assert_true(fabs(found.transform[0] - scale * cos(turn)) < 0.05 * scale + 0.02);
        assert_true(fabs(found.transform[3] - scale * sin(turn)) < 0.05 * scale + 0.02);
        lk_verified again;
        OK(lk_verify_features(5, 100, from, to, &again, NULL));
        assert_memory_equal(&again, &found, sizeof found);
    }
}

static void maps_that_mirror_or_pairs_too_few_are_none(void **state)
{
    (void)state;
    lk_feature from[40], to[40];
    lk_verified found;
    make_pairs(from, to, 40, 0, 1, 0.2, 5);
    for (size_t i = 0; i < 40; i++) to[i].x = 300 - to[i].x;
    OK(lk_verify_features(3, 40, from, to, &found, NULL));
    assert_true(found.inliers < 8);
    make_pairs(from, to, 40, 0, 1, 0.2, 5);
    OK(lk_verify_features(3, 3, from, to, &found, NULL));
    assert_int_equal(found.inliers, 0);
    OK(lk_verify_features(3, 0, NULL, NULL, &found, NULL));
    OK(lk_verify_features(3, 40, from, from, &found, NULL));
    assert_int_equal(found.inliers, 40);
    assert_int_equal(lk_verify_features(0, 40, from, to, &found, NULL), LK_INVALID);
    assert_int_equal(lk_verify_features(NAN, 40, from, to, &found, NULL), LK_INVALID);
}

static void features_in_one_place_determine_nothing(void **state)
{
    (void)state;
    lk_feature from[20], to[20];
    lk_verified found;
    for (int i = 0; i < 20; i++) from[i] = to[i] = (lk_feature){7, 9, 2, 1};
    OK(lk_verify_features(3, 20, from, to, &found, NULL));
    assert_int_equal(found.inliers, 0);
    for (int i = 0; i < 20; i++) from[i] = (lk_feature){7, 9, 0, NAN}; /* no size, no direction */
    OK(lk_verify_features(3, 20, from, to, &found, NULL));
    assert_int_equal(found.inliers, 0);
}

/* ---- the store ---- */

static lk_features *open_store(void **state, uint32_t version)
{
    lk_features *f;
    OK(lk_features_open(*state, version, &f));
    return f;
}

static void put(lk_features *f, int64_t id, uint64_t hash, const char *text)
{
    lk_features_row row = {id, {hash, 1}, (const uint8_t *)text, strlen(text)};
    OK(lk_features_put(f, &row, 1));
}

/* NULL when it is not there. */
static const char *get(lk_features *f, int64_t id, uint64_t hash)
{
    static char text[64];
    const uint64_t both[2] = {hash, 1};
    uint8_t *bytes;
    size_t size;
    if (lk_features_get(f, id, both, &bytes, &size) != LK_OK) return NULL;
    assert_true(size < sizeof text);
    memcpy(text, bytes, size);
    text[size] = 0;
    free(bytes);
    return text;
}

static void what_was_put_is_there_for_these_bytes_of_the_picture_alone(void **state)
{
    lk_features *f = open_store(state, 1), *other = open_store(state, 1);
    const uint64_t hash[2] = {5, 1};
    assert_null(get(f, 7, 5));
    put(f, 7, 5, "old");
    assert_string_equal(get(other, 7, 5), "old");
    assert_true(lk_features_has(other, 7, hash));
    assert_null(get(f, 7, 6));
    assert_null(get(f, 8, 5));
    put(other, 7, 6, "new"); /* the picture has changed */
    assert_string_equal(get(f, 7, 6), "new");
    assert_null(get(f, 7, 5));
    lk_features_close(f);
    lk_features_close(other);
    f = open_store(state, 1);
    assert_string_equal(get(f, 7, 6), "new");
    lk_features_close(f);
}

static void features_of_another_version_are_forgotten_or_left_alone(void **state)
{
    lk_features *f = open_store(state, 1);
    put(f, 1, 1, "one");
    lk_features_close(f);
    f = open_store(state, 2);
    assert_null(get(f, 1, 1));
    put(f, 1, 1, "two");
    lk_features_close(f);
    assert_int_equal(lk_features_open(*state, 1, &f), LK_UNSUPPORTED);
    f = open_store(state, 2);
    assert_string_equal(get(f, 1, 1), "two");
    lk_features_close(f);
}

static void beyond_the_limit_the_oldest_go(void **state)
{
    lk_features *f = open_store(state, 1);
    uint8_t bytes[8192];
    uint64_t kept = 0, oldest = 0;
    OK(lk_features_set_limit(f, 400000));
    memset(bytes, 9, sizeof bytes);
    for (uint64_t i = 1; i <= 200; i++) {
        lk_features_row row = {(int64_t)i, {i, 1}, bytes, sizeof bytes};
        OK(lk_features_put(f, &row, 1));
        assert_true(lk_features_size(f) <= 400000);
    }
    for (uint64_t i = 1; i <= 200; i++) {
        const uint64_t hash[2] = {i, 1};
        if (!lk_features_has(f, (int64_t)i, hash)) continue;
        if (!oldest) oldest = i;
        kept++;
    }
    assert_in_range(kept, 20, 48);
    assert_int_equal(oldest, 200 - kept + 1); /* the youngest of all, without a gap */
    lk_features_close(f);
    f = open_store(state, 1);
    assert_int_equal(lk_features_limit(f), 400000);
    lk_features_close(f);
}

static void count_problem(void *user, const char *problem)
{
    (void)problem;
    ++*(int *)user;
}

static int problems_of(void **state)
{
    int told = 0;
    uint64_t problems = 0;
    OK(lk_features_verify(*state, count_problem, &told, &problems));
    assert_int_equal(told, problems);
    return told;
}

static void damage_is_found_and_never_handed_out(void **state)
{
    assert_int_equal(problems_of(state), 0); /* none there */
    lk_features *f = open_store(state, 1);
    put(f, 1, 1, "one");
    put(f, 2, 1, "two");
    lk_features_close(f);
    assert_int_equal(problems_of(state), 0);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(at(state, LK_FEATURES_FILE), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE features SET bytes=x'6f6e66' WHERE id=1", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(problems_of(state), 1);
    f = open_store(state, 1);
    const uint64_t hash[2] = {1, 1};
    uint8_t *bytes;
    size_t size;
    assert_int_equal(lk_features_get(f, 1, hash, &bytes, &size), LK_CORRUPT);
    assert_string_equal(get(f, 2, 1), "two");
    lk_features_close(f);
    FILE *file = fopen(at(state, LK_FEATURES_FILE), "r+b");
    for (int i = 0; i < 8192; i++) fputc('x', file);
    fclose(file);
    assert_true(problems_of(state) > 0);
    assert_int_equal(lk_features_open(*state, 1, &f), LK_CORRUPT);
}

/* ---- in a collection ---- */

static lk_status hand_out(void *user, size_t index, const lk_image_options *options, lk_image *out)
{
    (void)user, (void)options;
    *out = draw(shapes[index % SHAPES], 64, 64, (int)(index / SHAPES));
    return LK_OK;
}

static void write_picture(const char *path, shape_fn shape, int variant)
{
    lk_image image = draw(shape, 160, 160, variant);
    uint8_t *bytes;
    size_t size;
    OK(lk_image_encode(&image, LK_FORMAT_PNG, 1, &bytes, &size));
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
    free(bytes);
    lk_image_free(&image);
}

enum { THICKETS = 6 };

static void ingest(void **state, lk_collection *c, const lk_embedder *embedder)
{
    lk_source_list *list;
    OK(lk_sources_new(&list));
    OK(lk_sources_add(list, at(state, "p")));
    OK(lk_ingest(NULL, c, embedder, list, NULL, NULL));
    lk_sources_free(list);
}

/* c.lk of p/0.png ...: one picture that no other is like but 1.png, which is the same. */
static lk_collection *make_collection(void **state, lk_embedder **embedder)
{
    lk_classical_options options = {.kind = LK_CLASSICAL_VLAD, .words = 3, .dim = 8, .seed = 1};
    lk_collection *c;
    char name[16];
    mkdir(at(state, "p"), 0777);
    for (int i = 0; i < THICKETS; i++) {
        snprintf(name, sizeof name, "p/%d.png", i);
        write_picture(at(state, name), thicket, i < 2 ? 0 : 11 * i);
    }
    OK(lk_classical_train(NULL, &options, 2 * SHAPES, hand_out, NULL, embedder));
    OK(lk_embedder_save(*embedder, at(state, "model")));
    lk_collection_config config = {.dim = lk_embedder_dim(*embedder),
                                   .embedder_id = lk_embedder_id(*embedder),
                                   .embedder_name = lk_embedder_name(*embedder),
                                   .model_dir = at(state, "model")};
    OK(lk_collection_create(at(state, "c.lk"), &config, &c));
    ingest(state, c, *embedder);
    return c;
}

static int64_t id_of(void **state, lk_collection *c, const char *name)
{
    lk_record record;
    OK(lk_collection_find_path(c, at(state, name), &record));
    int64_t id = record.id;
    lk_record_free(&record);
    return id;
}

/* Features of `found` that agree with those of 0.png. */
static float agreeing(void **state, int64_t query, int64_t found)
{
    lk_searcher *searcher;
    lk_results results;
    lk_search_options options = {.k = 100, .rerank = LK_RERANK_GEOMETRIC};
    float value = NAN;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    OK(lk_search_id(searcher, query, &options, &results));
    for (size_t i = 0; i < results.count; i++)
        if (results.items[i].id == found) value = roundf((results.items[i].reranked - results.items[i].score) / 0.02f);
    lk_results_free(&results);
    lk_searcher_free(searcher);
    return value;
}

static void a_search_keeps_the_features_that_it_computed(void **state)
{
    lk_embedder *embedder;
    lk_collection *c = make_collection(state, &embedder);
    int64_t first = id_of(state, c, "p/0.png"), twin = id_of(state, c, "p/1.png"), other = id_of(state, c, "p/2.png");
    float wanted = agreeing(state, first, twin);
    assert_true(wanted > 50);
    assert_true(agreeing(state, first, other) < wanted / 2);
    remove(at(state, "p/0.png"));
    remove(at(state, "p/1.png"));
    assert_true(agreeing(state, first, twin) == wanted); /* nobody has read the files again */
    remove(at(state, "c.lk/" LK_FEATURES_FILE));
    assert_true(agreeing(state, first, twin) == 0); /* without them it is not known */
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_changed_picture_is_compared_as_it_is_now(void **state)
{
    lk_embedder *embedder;
    lk_collection *c = make_collection(state, &embedder);
    int64_t first = id_of(state, c, "p/0.png"), twin = id_of(state, c, "p/1.png");
    float before = agreeing(state, first, twin);
    write_picture(at(state, "p/1.png"), thicket, 99);
    ingest(state, c, embedder);
    assert_int_equal(id_of(state, c, "p/1.png"), twin);
    assert_true(agreeing(state, first, twin) < before / 2);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void features_are_built_at_once_and_go_with_their_pictures(void **state)
{
    lk_embedder *embedder;
    lk_collection *c = make_collection(state, &embedder);
    lk_searcher *searcher;
    uint64_t pictures, problems;
    lk_record record;
    OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
    OK(lk_searcher_build_local_features(searcher, 0, &pictures));
    assert_int_equal(pictures, THICKETS);
    lk_searcher_free(searcher);
    OK(lk_collection_find_path(c, at(state, "p/3.png"), &record));
    lk_features *f;
    OK(lk_features_open(at(state, "c.lk"), LK_LOCAL_VERSION, &f));
    assert_true(lk_features_has(f, record.id, record.hash));
    OK(lk_collection_remove(c, record.id));
    OK(lk_collection_commit(c));
    OK(lk_collection_compact(c));
    assert_false(lk_features_has(f, record.id, record.hash));
    lk_record_free(&record);
    OK(lk_collection_find_path(c, at(state, "p/4.png"), &record));
    assert_true(lk_features_has(f, record.id, record.hash));
    lk_record_free(&record);
    lk_features_close(f);
    OK(lk_collection_verify(c, NULL, NULL, &problems));
    assert_int_equal(problems, 0);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void keep_warning(void *user, lk_log_level level, const char *text)
{
    if (level == LK_LOG_WARN) snprintf(user, 512, "%s", text);
}

static void building_ends_where_the_limit_is_and_says_what_is_left(void **state)
{
    lk_embedder *embedder;
    lk_collection *c = make_collection(state, &embedder);
    char warning[512] = "";
    lk_context_options with = {.log_level = LK_LOG_WARN, .log = keep_warning, .log_user = warning};
    lk_context *context;
    lk_searcher *searcher;
    uint64_t pictures, again;
    OK(lk_context_new(&with, &context));
    OK(lk_searcher_open(context, at(state, "c.lk"), &searcher));
    OK(lk_searcher_build_local_features(searcher, 60000, &pictures));
    lk_features *f;
    OK(lk_features_open(at(state, "c.lk"), LK_LOCAL_VERSION, &f));
    assert_in_range(pictures, 1, THICKETS - 1);
    assert_int_equal(pictures, lk_features_count(f));
    assert_true(lk_features_size(f) <= 60000);
    size_t left, all;
    unsigned long long limit, wanted;
    if (sscanf(warning,
               "local features: those of %zu of %zu pictures are not kept, because %llu MiB are the limit, and are "
               "computed when they are asked for; about %llu MiB would hold all",
               &left, &all, &limit, &wanted) != 4)
        fail_msg("%s", warning);
    assert_int_equal(left, THICKETS - pictures);
    assert_int_equal(all, THICKETS);
    OK(lk_searcher_build_local_features(searcher, 0, &again)); /* nothing goes for what would go next */
    assert_int_equal(again, pictures);
    warning[0] = 0;
    OK(lk_searcher_build_local_features(searcher, wanted << 20, &again));
    assert_int_equal(again, THICKETS);
    assert_string_equal(warning, "");
    OK(lk_searcher_build_local_features(searcher, 60000, &again)); /* a lower limit: the oldest go */
    assert_int_equal(again, lk_features_count(f));
    assert_in_range(again, 1, THICKETS - 1);
    assert_true(lk_features_size(f) <= 60000);
    lk_features_close(f);
    lk_searcher_free(searcher);
    lk_context_free(context);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_store_whose_maker_was_killed_is_none(void **state)
{
    lk_embedder *embedder;
    lk_collection *c = make_collection(state, &embedder);
    lk_searcher *searcher;
    uint64_t pictures, problems;
    sqlite3 *db;
    for (int made = 0; made < 2; made++) { /* an empty file, and a database without tables */
        remove(at(state, "c.lk/" LK_FEATURES_FILE));
        assert_int_equal(sqlite3_open(at(state, "c.lk/" LK_FEATURES_FILE), &db), SQLITE_OK);
        const char *begun = made ? "PRAGMA journal_mode=WAL" : "BEGIN IMMEDIATE";
        assert_int_equal(sqlite3_exec(db, begun, NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
        OK(lk_features_prune(at(state, "c.lk")));
        OK(lk_collection_verify(c, NULL, NULL, &problems));
        assert_int_equal(problems, 0);
        OK(lk_searcher_open(NULL, at(state, "c.lk"), &searcher));
        OK(lk_searcher_build_local_features(searcher, 0, &pictures));
        assert_int_equal(pictures, THICKETS);
        lk_searcher_free(searcher);
    }
    lk_features *f; /* of a later program: nothing of it is touched, and it is not called whole */
    OK(lk_features_open(at(state, "c.lk"), LK_FEATURES_NEWEST + 1, &f));
    lk_features_close(f);
    assert_int_equal(lk_features_prune(at(state, "c.lk")), LK_UNSUPPORTED);
    OK(lk_collection_verify(c, NULL, NULL, &problems));
    assert_int_equal(problems, 1);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

static void a_searcher_without_a_usable_store_searches_all_the_same(void **state)
{
    lk_embedder *embedder;
    lk_collection *c = make_collection(state, &embedder);
    int64_t first = id_of(state, c, "p/0.png"), twin = id_of(state, c, "p/1.png");
    uint64_t problems;
    FILE *file = fopen(at(state, "c.lk/" LK_FEATURES_FILE), "wb");
    for (int i = 0; i < 5000; i++) fputc('x', file);
    fclose(file);
    assert_true(agreeing(state, first, twin) > 50);
    OK(lk_collection_verify(c, NULL, NULL, &problems));
    assert_int_equal(problems, 1);
    lk_collection_close(c);
    lk_embedder_free(embedder);
}

/* ---- parameters as they are typed ---- */

static void parameters_of_rerankers_are_read(void **state)
{
    (void)state;
    lk_search_options o = {0};
    OK(lk_rerank_parse("kreciprocal:8:2:0.5", &o));
    assert_int_equal(o.rerank, LK_RERANK_KRECIPROCAL);
    assert_true(o.kreciprocal.k1 == 8 && o.kreciprocal.k2 == 2 && o.kreciprocal.lambda == 0.5f);
    OK(lk_rerank_parse("kreciprocal:9", &o));
    assert_true(o.kreciprocal.k1 == 9 && o.kreciprocal.k2 == 2);
    OK(lk_rerank_parse("diffusion:20:5:2:0.9", &o));
    assert_true(o.diffusion.k == 20 && o.diffusion.kq == 5 && o.diffusion.gamma == 2 && o.diffusion.alpha == 0.9f);
    OK(lk_rerank_parse("superglobal:4:0.2", &o));
    assert_true(o.superglobal.k == 4 && o.superglobal.beta == 0.2f);
    OK(lk_rerank_parse("geometric:12:0.5", &o));
    assert_true(o.geometric_least == 12 && o.geometric_weight == 0.5f);
    OK(lk_rerank_parse("none", &o));
    assert_int_equal(o.rerank, LK_RERANK_NONE);
    OK(lk_expansion_parse("alpha:5:1.5", &o));
    assert_true(o.expand == LK_EXPAND_ALPHA && o.expand_k == 5 && o.expand_alpha == 1.5f);
    const char *wrong[] = {"",
                           "kreciproca",
                           "kreciprocal:",
                           "kreciprocal:0",
                           "kreciprocal:2.5",
                           "kreciprocal:8:2:0.5:1",
                           "diffusion:x",
                           "geometric:-1",
                           "superglobal:9:nan",
                           "none:1",
                           "kreciprocal 8"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(lk_rerank_parse(wrong[i], &o), LK_INVALID);
    assert_int_equal(lk_expansion_parse("aqe:3:3", &o), LK_INVALID);
    assert_int_equal(lk_expansion_parse("alpha:0", &o), LK_INVALID);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, unit_folder, unit_folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_the_same_after_packing),
        cmocka_unit_test(an_empty_picture_has_no_features),
        cmocka_unit_test(codes_match_as_the_descriptors_they_stand_for),
        cmocka_unit_test(oriented_pairs_that_agree_are_found_among_many_that_do_not),
        cmocka_unit_test(maps_that_mirror_or_pairs_too_few_are_none),
        cmocka_unit_test(features_in_one_place_determine_nothing),
        IN_FOLDER(what_was_put_is_there_for_these_bytes_of_the_picture_alone),
        IN_FOLDER(features_of_another_version_are_forgotten_or_left_alone),
        IN_FOLDER(beyond_the_limit_the_oldest_go),
        IN_FOLDER(damage_is_found_and_never_handed_out),
        IN_FOLDER(a_search_keeps_the_features_that_it_computed),
        IN_FOLDER(a_changed_picture_is_compared_as_it_is_now),
        IN_FOLDER(features_are_built_at_once_and_go_with_their_pictures),
        IN_FOLDER(building_ends_where_the_limit_is_and_says_what_is_left),
        IN_FOLDER(a_store_whose_maker_was_killed_is_none),
        IN_FOLDER(a_searcher_without_a_usable_store_searches_all_the_same),
        cmocka_unit_test(parameters_of_rerankers_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
