/* k-reciprocal re-ranking against the algorithm in float64 (tools/reference/k_reciprocal.py), and its two forms against
 * each other. Distances are at most 1; they may differ by 1e-5. */
#include "unit.h"

#include "../fixtures/k_reciprocal.h"
#include "base/random.h"
#include <likeness/rank.h>

#include <math.h>

#define TOLERANCE 1e-5f

typedef struct rows {
    float *values;
    size_t width, count;
    int seen[512];
} rows;

static lk_status keep_row(void *user, size_t query, const float *distances)
{
    rows *r = user;
    memcpy(r->values + query * r->width, distances, r->width * sizeof *distances);
    r->seen[query]++;
    return LK_OK;
}

static lk_status refuse_row(void *user, size_t query, const float *distances)
{
    (void)user, (void)distances;
    return query == 3 ? LK_LIMIT : LK_OK;
}

static float *full(lk_context *context, const lk_kreciprocal_options *options, size_t n, size_t queries, size_t dim,
                   const float *vectors)
{
    rows r = {.width = queries < n ? n - queries : n};
    r.values = calloc(queries * r.width, sizeof *r.values);
    assert_int_equal(lk_kreciprocal_full(context, options, n, queries, dim, vectors, keep_row, &r), LK_OK);
    for (size_t q = 0; q < queries; q++) assert_int_equal(r.seen[q], 1);
    return r.values;
}

static float *case_vectors(size_t c)
{
    size_t cells = fixture_cases[c].n * fixture_cases[c].dim;
    float *out = malloc(cells * sizeof *out);
    for (size_t i = 0; i < cells; i++)
        out[i] = fixture_cases[c].vectors ? fixture_cases[c].vectors[i] : (float)fixture_cases[c].pixels[i];
    return out;
}

static void full_form_agrees_with_the_paper_in_float64(void **state)
{
    (void)state;
    lk_context *context;
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 3}, &context), LK_OK);
    for (size_t c = 0; c < sizeof fixture_cases / sizeof *fixture_cases; c++) {
        size_t n = fixture_cases[c].n, queries = fixture_cases[c].queries;
        lk_kreciprocal_options options = {fixture_cases[c].k1, fixture_cases[c].k2, fixture_cases[c].lambda};
        float *vectors = case_vectors(c), *out = full(context, &options, n, queries, fixture_cases[c].dim, vectors);
        for (size_t i = 0; i < queries * (n - queries); i++)
            assert_float_equal(out[i], fixture_cases[c].out[i], TOLERANCE);
        free(out);
        free(vectors);
    }
    lk_context_free(context);
}

static void full_form_does_not_depend_on_threads(void **state)
{
    (void)state;
    lk_context *context;
    assert_int_equal(lk_context_new(&(lk_context_options){.threads = 4}, &context), LK_OK);
    float *one = full(NULL, NULL, 300, 300, 8, fixture_random),
          *many = full(context, NULL, 300, 300, 8, fixture_random);
    assert_memory_equal(one, many, 300 * 300 * sizeof *one);
    for (size_t i = 0; i < 300; i++) assert_float_equal(one[i * 300 + i], 0, 1e-6f); /* each is nearest to itself */
    free(one);
    free(many);
    lk_context_free(context);
}

static void failure_of_the_receiver_ends_the_full_form(void **state)
{
    (void)state;
    assert_int_equal(lk_kreciprocal_full(NULL, NULL, 300, 10, 8, fixture_random, refuse_row, NULL), LK_LIMIT);
}

/* ---- the local form ---- */

typedef struct world {
    lk_knn *knn;
    size_t dim, asked;
    const float *vectors, *query;
    uint64_t missing; /* an id that the source does not know */
} world;

static const float *vector_of(const world *w, uint64_t id)
{
    return id == LK_RANK_QUERY ? w->query : w->vectors + (id - 1000) * w->dim;
}

static lk_status world_neighbours(void *user, uint64_t id, size_t k, lk_hit *out, size_t *count, float *farthest)
{
    world *w = user;
    w->asked++;
    if (id == w->missing) return LK_NOT_FOUND;
    return lk_knn_neighbours(w->knn, id, k, out, count, farthest);
}

static lk_status world_distance(void *user, uint64_t a, uint64_t b, float *out)
{
    world *w = user;
    const float *x = vector_of(w, a), *y = vector_of(w, b);
    double sum = 0;
    for (size_t d = 0; d < w->dim; d++) sum += ((double)x[d] - y[d]) * ((double)x[d] - y[d]);
    *out = (float)sum;
    return LK_OK;
}

typedef struct shortlist {
    lk_shortlist list;
    lk_hit *order;
    uint64_t *ids;
    float *distances;
} shortlist;

static int nearer(const void *a, const void *b)
{
    const lk_hit *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static shortlist rank_all(world *w, size_t n, uint64_t self)
{
    shortlist s = {.order = malloc(n * sizeof *s.order),
                   .ids = malloc(n * sizeof *s.ids),
                   .distances = malloc(n * sizeof *s.distances)};
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (1000 + i == self) continue;
        s.order[count].id = 1000 + i;
        world_distance(w, 1000 + i, LK_RANK_QUERY, &s.order[count++].score);
    }
    qsort(s.order, count, sizeof *s.order, nearer);
    for (size_t i = 0; i < count; i++) {
        s.ids[i] = s.order[i].id;
        s.distances[i] = s.order[i].score;
    }
    s.list = (lk_shortlist){count, s.ids, s.distances, s.distances[count - 1], self};
    return s;
}

static void free_shortlist(shortlist *s)
{
    free(s->order);
    free(s->ids);
    free(s->distances);
}

static world new_world(size_t n, size_t dim, const float *query, const float *vectors, size_t k)
{
    world w = {.dim = dim, .vectors = vectors, .query = query};
    uint64_t *ids = malloc(n * sizeof *ids);
    for (size_t i = 0; i < n; i++) ids[i] = 1000 + i;
    assert_int_equal(lk_knn_new(NULL, n, dim, ids, vectors, k, &w.knn), LK_OK);
    free(ids);
    return w;
}

/* One query at a time: the pool of the full form is then {query} + gallery, as that of the local form. */
static void local_form_is_the_full_form_for_any_shortlist(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2; c++) {
        size_t n = 299, dim = fixture_cases[c].dim;
        float *vectors = case_vectors(c);
        for (size_t q = 0; q < 12; q++) {
            /* The query first, the others behind it. */
            float *pool = malloc(300 * dim * sizeof *pool);
            memcpy(pool, vectors + q * dim, dim * sizeof *pool);
            memcpy(pool + dim, vectors, q * dim * sizeof *pool);
            memcpy(pool + (q + 1) * dim, vectors + (q + 1) * dim, (n - q) * dim * sizeof *pool);
            world w = new_world(n, dim, pool, pool + dim, 21);
            shortlist s = rank_all(&w, n, LK_RANK_QUERY);
            lk_neighbour_source source = {world_neighbours, world_distance, &w};
            float *expected = full(NULL, NULL, 300, 1, dim, pool), out[299];
            const size_t lengths[] = {299, 60, 20};
            for (size_t l = 0; l < 3; l++) { /* from everything to k1, of which the query's own list is made */
                s.list.count = lengths[l];
                assert_int_equal(lk_kreciprocal_rerank(NULL, &s.list, &source, out), LK_OK);
                for (size_t i = 0; i < s.list.count; i++)
                    assert_float_equal(out[i], expected[s.ids[i] - 1000], TOLERANCE);
            }
            free(expected);
            free_shortlist(&s);
            lk_knn_free(w.knn);
            free(pool);
        }
        free(vectors);
    }
}

/* The query is then the item farthest from all others, which their own lists do not know. */
static void query_from_afar_counts_as_the_farthest_item(void **state)
{
    (void)state;
    float pool[300 * 8], out[299];
    memcpy(pool, fixture_random, sizeof pool);
    for (size_t d = 0; d < 8; d++) pool[d] *= 12;
    world w = new_world(299, 8, pool, pool + 8, 21);
    shortlist s = rank_all(&w, 299, LK_RANK_QUERY);
    lk_neighbour_source source = {world_neighbours, world_distance, &w};
    lk_kreciprocal_options options = {20, 6, 0};
    float *expected = full(NULL, &options, 300, 1, 8, pool);
    assert_int_equal(lk_kreciprocal_rerank(&options, &s.list, &source, out), LK_OK);
    for (size_t i = 0; i < s.list.count; i++) assert_float_equal(out[i], expected[s.ids[i] - 1000], 1e-6f);
    free(expected);
    free_shortlist(&s);
    lk_knn_free(w.knn);
}

static void picture_of_the_collection_as_the_query_is_not_counted_twice(void **state)
{
    (void)state;
    float *expected = full(NULL, NULL, 300, 300, 8, fixture_random), out[299];
    for (size_t q = 0; q < 300; q += 23) {
        world w = new_world(300, 8, fixture_random + q * 8, fixture_random, 21);
        shortlist s = rank_all(&w, 300, 1000 + q);
        lk_neighbour_source source = {world_neighbours, world_distance, &w};
        assert_int_equal(lk_kreciprocal_rerank(NULL, &s.list, &source, out), LK_OK);
        for (size_t i = 0; i < 299; i++) assert_float_equal(out[i], expected[q * 300 + s.ids[i] - 1000], TOLERANCE);
        free_shortlist(&s);
        lk_knn_free(w.knn);
    }
    free(expected);
}

static void local_form_asks_about_the_shortlist_and_its_surroundings_only(void **state)
{
    (void)state;
    enum { N = 20000, DIM = 4, GROUP = 40 };
    float *vectors = malloc(N * DIM * sizeof *vectors);
    lk_random random;
    lk_random_seed(&random, 5);
    uint32_t *near = malloc(N * GROUP * sizeof *near);
    float *distances = malloc(N * GROUP * sizeof *distances);
    /* Groups of 40 that are each other's neighbours. */
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < GROUP; j++) {
            near[i * GROUP + j] = i / GROUP * GROUP + (i % GROUP + j) % GROUP;
            distances[i * GROUP + j] = (float)j * 0.01f;
        }
    world w = {.dim = DIM};
    uint64_t ids[50];
    float to_query[50], out[50];
    assert_int_equal(lk_knn_from_lists(N, NULL, GROUP, near, distances, NULL, &w.knn), LK_OK);
    w.missing = 7;
    for (size_t i = 0; i < 50; i++) {
        ids[i] = i;
        to_query[i] = 0.1f + (float)i * 0.01f;
    }
    lk_shortlist list = {50, ids, to_query, 0, LK_RANK_QUERY};
    lk_neighbour_source source = {world_neighbours, NULL, &w};
    assert_int_equal(lk_kreciprocal_rerank(NULL, &list, &source, out), LK_OK);
    assert_in_range(w.asked, 1, 2 * GROUP); /* the two groups that the shortlist touches, once each */
    for (size_t i = 0; i < 50; i++) assert_true(isfinite(out[i]) && out[i] >= 0);
    lk_knn_free(w.knn);
    free(near);
    free(distances);
    free(vectors);
}

static void shortlists_that_are_none_are_refused(void **state)
{
    (void)state;
    world w = new_world(300, 8, fixture_random, fixture_random, 21);
    lk_neighbour_source source = {world_neighbours, world_distance, &w};
    const uint64_t twice[] = {1000, 1001, 1000}, ids[] = {1000, 1001, 1002};
    const float rising[] = {0.1f, 0.2f, 0.3f}, falling[] = {0.3f, 0.2f, 0.1f};
    float out[3];
    assert_int_equal(lk_kreciprocal_rerank(NULL, &(lk_shortlist){3, twice, rising, 0, LK_RANK_QUERY}, &source, out),
                     LK_INVALID);
    assert_int_equal(lk_kreciprocal_rerank(NULL, &(lk_shortlist){3, ids, falling, 0, LK_RANK_QUERY}, &source, out),
                     LK_INVALID);
    lk_kreciprocal_options none = {0, 6, 0.3f}, more = {20, 6, 1.5f};
    lk_shortlist list = {3, ids, rising, 0, LK_RANK_QUERY};
    assert_int_equal(lk_kreciprocal_rerank(&none, &list, &source, out), LK_INVALID);
    assert_int_equal(lk_kreciprocal_rerank(&more, &list, &source, out), LK_INVALID);
    list.count = 0;
    assert_int_equal(lk_kreciprocal_rerank(NULL, &list, &source, out), LK_OK);
    lk_knn_free(w.knn);
}

/* ---- the table of neighbours ---- */

static void table_has_the_nearest_in_exact_order(void **state)
{
    (void)state;
    enum { N = 2300, DIM = 19, K = 9 }; /* more than one tile of columns */
    float *x = malloc(N * DIM * sizeof *x);
    lk_random random;
    lk_random_seed(&random, 3);
    for (size_t i = 0; i < N * DIM; i++) x[i] = (float)lk_random_below(&random, 7); /* many ties */
    world w = new_world(N, DIM, x, x, K);
    lk_hit *all = malloc(N * sizeof *all), found[K];
    for (size_t i = 0; i < N; i += 97) {
        size_t count;
        float farthest;
        w.query = x + i * DIM;
        for (size_t j = 0; j < N; j++) {
            all[j].id = 1000 + j;
            world_distance(&w, 1000 + j, LK_RANK_QUERY, &all[j].score);
        }
        qsort(all, N, sizeof *all, nearer);
        assert_int_equal(lk_knn_neighbours(w.knn, 1000 + i, K, found, &count, &farthest), LK_OK);
        assert_int_equal(count, K);
        for (size_t j = 0; j < K; j++) assert_float_equal(found[j].score, all[j].score, 0);
        assert_float_equal(farthest, all[N - 1].score, 0);
        assert_int_equal(found[0].id, all[0].id);
    }
    lk_knn_free(w.knn);
    free(all);
    free(x);
}

static void table_comes_back_from_disk_and_damage_is_seen(void **state)
{
    char path[256];
    snprintf(path, sizeof path, "%s/knn", (char *)*state);
    world w = new_world(300, 8, fixture_random, fixture_random, 21);
    lk_knn *back;
    uint64_t version;
    assert_int_equal(lk_knn_save(w.knn, path, 42), LK_OK);
    assert_int_equal(lk_knn_open(path, &back, &version), LK_OK);
    assert_int_equal(version, 42);
    assert_int_equal(lk_knn_count(back), 300);
    assert_int_equal(lk_knn_width(back), 21);
    for (uint64_t id = 1000; id < 1300; id++) {
        lk_hit a[21], b[21];
        size_t m, n;
        float f, g;
        assert_int_equal(lk_knn_neighbours(w.knn, id, 21, a, &m, &f), LK_OK);
        assert_int_equal(lk_knn_neighbours(back, id, 21, b, &n, &g), LK_OK);
        assert_int_equal(m, n);
        assert_true(f == g);
        for (size_t i = 0; i < n; i++) assert_true(a[i].id == b[i].id && a[i].score == b[i].score);
    }
    lk_hit none[21];
    size_t count;
    float farthest;
    assert_int_equal(lk_knn_neighbours(back, 5, 21, none, &count, &farthest), LK_NOT_FOUND);
    lk_knn_free(back);
    FILE *file = fopen(path, "r+b");
    fseek(file, -3, SEEK_END);
    fputc(0xff, file);
    fclose(file);
    assert_int_equal(lk_knn_open(path, &back, &version), LK_CORRUPT);
    lk_knn_free(w.knn);
}

static void tables_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    const float x[] = {0, 1, 1, 0, NAN, 0};
    const uint64_t same[] = {4, 4};
    const uint32_t outside[] = {0, 2, 1, 0};
    const float distances[] = {0, 1, 0, 1};
    lk_knn *knn;
    assert_int_equal(lk_knn_new(NULL, 3, 2, NULL, x, 2, &knn), LK_INVALID);
    assert_int_equal(lk_knn_new(NULL, 0, 2, NULL, x, 2, &knn), LK_INVALID);
    assert_int_equal(lk_knn_new(NULL, 2, 2, NULL, x, 0, &knn), LK_INVALID);
    assert_int_equal(lk_knn_new(NULL, 2, 2, same, x, 2, &knn), LK_CONFLICT);
    assert_int_equal(lk_knn_from_lists(2, NULL, 2, outside, distances, NULL, &knn), LK_INVALID);
    assert_int_equal(lk_knn_new(NULL, 2, 2, NULL, x, 50, &knn), LK_OK); /* as many as there are */
    assert_int_equal(lk_knn_width(knn), 2);
    lk_knn_free(knn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_form_agrees_with_the_paper_in_float64),
        cmocka_unit_test(full_form_does_not_depend_on_threads),
        cmocka_unit_test(failure_of_the_receiver_ends_the_full_form),
        cmocka_unit_test(local_form_is_the_full_form_for_any_shortlist),
        cmocka_unit_test(query_from_afar_counts_as_the_farthest_item),
        cmocka_unit_test(picture_of_the_collection_as_the_query_is_not_counted_twice),
        cmocka_unit_test(local_form_asks_about_the_shortlist_and_its_surroundings_only),
        cmocka_unit_test(shortlists_that_are_none_are_refused),
        cmocka_unit_test(table_has_the_nearest_in_exact_order),
        cmocka_unit_test_setup_teardown(table_comes_back_from_disk_and_damage_is_seen, unit_folder, unit_folder_remove),
        cmocka_unit_test(tables_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
