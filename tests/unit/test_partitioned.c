/* The partitioned index: exact when it looks everywhere, good when it does not, the same for any number of threads, and
 * never outside of a damaged file. */
#include "base/file.h"
#include "base/random.h"
#include "index/kmeans.h"
#include "index/partitioned/partitioned.h"
#include <likeness/partitioned.h>

#include "unit.h"

#include <math.h>

enum { N = 3000, DIM = 19, QUERIES = 20, K = 10 };

static float vectors[N * DIM], queries[QUERIES * DIM];
static uint64_t ids[N];

/* Clusters of unequal size and spread, lengths that differ; queries of the same kind. */
static int make_vectors(void **state)
{
    (void)state;
    lk_random random;
    float centres[40 * DIM];
    lk_random_seed(&random, 11);
    for (int i = 0; i < 40 * DIM; i++) centres[i] = 3 * (float)lk_random_normal(&random);
    for (int i = 0; i < N + QUERIES; i++) {
        float *row = i < N ? vectors + i * DIM : queries + (i - N) * DIM;
        uint64_t cluster = lk_random_below(&random, 1 + lk_random_below(&random, 40));
        for (int c = 0; c < DIM; c++) row[c] = centres[cluster * DIM + (uint64_t)c] + (float)lk_random_normal(&random);
    }
    for (int i = 0; i < N; i++) ids[i] = (uint64_t)i * 7 + 3;
    return 0;
}

static lk_partitioned *build(lk_context *context, lk_metric metric, lk_partitioned_options options)
{
    lk_partitioned *index;
    assert_int_equal(lk_partitioned_build_memory(context, N, DIM, vectors, ids, metric, &options, &index), LK_OK);
    return index;
}

static lk_flat *exact(lk_metric metric)
{
    lk_flat *flat;
    assert_int_equal(lk_flat_new(DIM, metric, LK_F32, &flat), LK_OK);
    assert_int_equal(lk_flat_add(flat, N, ids, vectors), LK_OK);
    return flat;
}

static double recall(const lk_partitioned *index, const lk_flat *flat, lk_partitioned_effort effort,
                     lk_id_filter filter, void *user)
{
    lk_hit found[QUERIES * K], truth[QUERIES * K];
    size_t counts[QUERIES], expected[QUERIES], same = 0, all = 0;
    assert_int_equal(lk_partitioned_search(index, NULL, effort, QUERIES, queries, K, filter, user, found, counts),
                     LK_OK);
    assert_int_equal(lk_flat_search(flat, NULL, QUERIES, queries, K, filter, user, truth, expected), LK_OK);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(counts[q], expected[q]);
        all += expected[q];
        for (size_t i = 0; i < counts[q]; i++)
            for (size_t j = 0; j < expected[q]; j++) same += found[q * K + i].id == truth[q * K + j].id;
    }
    return (double)same / (double)all;
}

static void looking_everywhere_finds_what_the_exact_index_finds(void **state)
{
    (void)state;
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_flat *flat = exact((lk_metric)metric);
        lk_partitioned *index = build(NULL, (lk_metric)metric, (lk_partitioned_options){.refine = LK_REFINE_F32});
        lk_hit found[QUERIES * K], truth[QUERIES * K];
        size_t counts[QUERIES], expected[QUERIES];
        lk_partitioned_effort all = {.probes = SIZE_MAX, .refined = SIZE_MAX};
        assert_int_equal(lk_partitioned_search(index, NULL, all, QUERIES, queries, K, NULL, NULL, found, counts),
                         LK_OK);
        assert_int_equal(lk_flat_search(flat, NULL, QUERIES, queries, K, NULL, NULL, truth, expected), LK_OK);
        for (size_t i = 0; i < QUERIES * K; i++) {
            assert_int_equal(found[i].id, truth[i].id);
            assert_true(fabsf(found[i].score - truth[i].score) <= 2e-6f * fabsf(truth[i].score) + 1e-6f);
        }
        lk_partitioned_free(index);
        lk_flat_free(flat);
    }
}

static void little_effort_finds_most_and_more_finds_more(void **state)
{
    (void)state;
    static const struct {
        lk_refine refine;
        double least;
    } kinds[] = {{LK_REFINE_I8, 0.92}, {LK_REFINE_F16, 0.99}, {LK_REFINE_F32, 0.99}, {LK_REFINE_NONE, 0.55}};
    for (int metric = LK_COSINE; metric <= LK_L2; metric++) {
        lk_flat *flat = exact((lk_metric)metric);
        for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
            lk_partitioned *index =
                build(NULL, (lk_metric)metric, (lk_partitioned_options){.refine = kinds[kind].refine});
            double little = recall(index, flat, (lk_partitioned_effort){1, 20}, NULL, NULL);
            double much = recall(index, flat, (lk_partitioned_effort){40, 80}, NULL, NULL);
            assert_true(much >= kinds[kind].least);
            assert_true(much > little);
            lk_partitioned_free(index);
        }
        lk_flat_free(flat);
    }
}

static void the_same_input_gives_the_same_bytes_for_any_number_of_threads(void **state)
{
    lk_partitioned *one = build(NULL, LK_L2, (lk_partitioned_options){.seed = 5}), *other;
    lk_context_options options = {.threads = 3};
    lk_context *context;
    char path[512];
    assert_int_equal(lk_context_new(&options, &context), LK_OK);
    other = build(context, LK_L2, (lk_partitioned_options){.seed = 5});
    assert_int_equal(one->size, other->size);
    assert_memory_equal(one->image, other->image, one->size);
    lk_partitioned_free(other);
    snprintf(path, sizeof path, "%s/x.part", (char *)*state);
    assert_int_equal(lk_partitioned_save(one, path), LK_OK);
    assert_int_equal(lk_partitioned_open(path, &other), LK_OK);
    assert_memory_equal(one->image, other->image, one->size);
    assert_int_equal(lk_partitioned_verify(other), LK_OK);
    lk_partitioned_free(other);
    lk_partitioned_free(one);
    lk_context_free(context);
}

static lk_status read_row(void *user, uint64_t first, size_t n, float *out)
{
    size_t *most = user;
    if (n > *most) *most = n;
    memcpy(out, vectors + first * DIM, n * DIM * sizeof *out);
    return LK_OK;
}

static void an_index_built_in_a_file_is_the_one_built_in_memory(void **state)
{
    char path[512];
    size_t most = 0;
    lk_partitioned_options options = {.seed = 5};
    lk_partitioned *memory = build(NULL, LK_L2, options), *file;
    lk_rows rows = {.read = read_row, .user = &most, .n = N, .dim = DIM, .ids = ids};
    snprintf(path, sizeof path, "%s/x.part", (char *)*state);
    assert_int_equal(lk_partitioned_build(NULL, &rows, LK_L2, &options, path, &file), LK_OK);
    assert_int_equal(file->size, memory->size);
    assert_memory_equal(file->image, memory->image, file->size);
    assert_int_equal(unit_count_files(*state), 1);
    lk_partitioned_free(file);
    assert_int_equal(lk_partitioned_open(path, &file), LK_OK);
    assert_int_equal(lk_partitioned_verify(file), LK_OK);
    lk_partitioned_free(file);
    lk_partitioned_free(memory);
}

static void a_ceiling_shrinks_the_sample_or_refuses(void **state)
{
    char path[512];
    size_t most = 0;
    lk_rows rows = {.read = read_row, .user = &most, .n = N, .dim = DIM};
    lk_partitioned_options options = {.memory = 50000};
    lk_partitioned *index;
    snprintf(path, sizeof path, "%s/x.part", (char *)*state);
    assert_int_equal(lk_partitioned_build(NULL, &rows, LK_L2, &options, path, &index), LK_LIMIT);
    assert_non_null(strstr(lk_error_message(), "MiB"));
    assert_int_equal(unit_count_files(*state), 0);
    options.memory = 2 << 20;
    assert_int_equal(lk_partitioned_build(NULL, &rows, LK_L2, &options, path, &index), LK_OK);
    lk_partitioned_free(index);
}

static int one_in(void *user, uint64_t id)
{
    return id / 7 % *(uint64_t *)user == 0;
}

static void a_filter_lets_only_its_ids_through_and_enough_of_them(void **state)
{
    (void)state;
    lk_flat *flat = exact(LK_L2);
    lk_partitioned *index = build(NULL, LK_L2, (lk_partitioned_options){.seed = 1});
    static const uint64_t shares[] = {2, 10, 100, 1000};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        uint64_t share = shares[i];
        lk_hit hits[QUERIES * K];
        size_t counts[QUERIES];
        lk_partitioned_effort effort = {.probes = 20, .refined = 60};
        assert_true(recall(index, flat, effort, one_in, &share) > 0.9);
        assert_int_equal(lk_partitioned_search(index, NULL, effort, QUERIES, queries, K, one_in, &share, hits, counts),
                         LK_OK);
        for (size_t q = 0; q < QUERIES; q++)
            for (size_t h = 0; h < counts[q]; h++) assert_true(one_in(&share, hits[q * K + h].id));
    }
    lk_partitioned_free(index);
    lk_flat_free(flat);
}

/* Recall among those that pass is that among all at the same effort, which visits a fraction of the cells. */
static void a_filter_keeps_the_recall_at_every_share(void **state)
{
    (void)state;
    enum { MANY = 30000, WIDE = 24, ASKED = 100 };
    static const uint64_t shares[] = {1, 2, 10, 100, 1000}; /* one in so many passes */
    lk_random random;
    lk_flat *flat;
    lk_partitioned *index;
    lk_random_seed(&random, 12);
    float *many = test_malloc((MANY + ASKED) * WIDE * sizeof *many), *asked = many + MANY * WIDE, centres[60 * WIDE];
    uint64_t *numbers = test_malloc(MANY * sizeof *numbers);
    for (int i = 0; i < 60 * WIDE; i++) centres[i] = (float)lk_random_normal(&random);
    for (int i = 0; i < MANY + ASKED; i++) {
        uint64_t cluster = lk_random_below(&random, 60);
        for (int c = 0; c < WIDE; c++)
            many[i * WIDE + c] = centres[cluster * WIDE + (uint64_t)c] + (float)lk_random_normal(&random) * 0.6f;
    }
    for (size_t i = 0; i < MANY; i++) numbers[i] = i * 7;
    assert_int_equal(lk_flat_new(WIDE, LK_L2, LK_F32, &flat), LK_OK);
    assert_int_equal(lk_flat_add(flat, MANY, numbers, many), LK_OK);
    lk_partitioned_options options = {.refine = LK_REFINE_F16};
    assert_int_equal(lk_partitioned_build_memory(NULL, MANY, WIDE, many, numbers, LK_L2, &options, &index), LK_OK);
    lk_partitioned_effort effort = {.probes = 4};
    assert_true(effort.probes * 20 < lk_partitioned_partitions(index));
    double all = 0;
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        uint64_t share = shares[i];
        static lk_hit found[ASKED * K], truth[ASKED * K];
        size_t counts[ASKED], expected[ASKED], same = 0, wanted = 0;
        assert_int_equal(lk_partitioned_search(index, NULL, effort, ASKED, asked, K, share > 1 ? one_in : NULL, &share,
                                               found, counts),
                         LK_OK);
        assert_int_equal(
            lk_flat_search(flat, NULL, ASKED, asked, K, share > 1 ? one_in : NULL, &share, truth, expected), LK_OK);
        for (size_t q = 0; q < ASKED; q++) {
            wanted += expected[q];
            for (size_t a = 0; a < counts[q]; a++)
                for (size_t b = 0; b < expected[q]; b++) same += found[q * K + a].id == truth[q * K + b].id;
        }
        double recall = (double)same / (double)wanted;
        print_message("one in %d: recall %.3f\n", (int)share, recall);
        if (share == 1)
            all = recall;
        else
            assert_true(recall >= all - 0.01);
        assert_true(share > 1 || (recall > 0.7 && recall < 0.97)); /* not where every effort is enough */
    }
    lk_partitioned_free(index);
    lk_flat_free(flat);
    test_free(many);
    test_free(numbers);
}

static void a_batch_on_many_threads_finds_what_single_queries_find(void **state)
{
    (void)state;
    lk_context_options options = {.threads = 3};
    lk_context *context;
    lk_hit batch[QUERIES * K], single[K];
    size_t counts[QUERIES], count;
    lk_partitioned_effort effort = {0};
    assert_int_equal(lk_context_new(&options, &context), LK_OK);
    lk_partitioned *index = build(context, LK_COSINE, (lk_partitioned_options){0});
    assert_int_equal(lk_partitioned_search(index, context, effort, QUERIES, queries, K, NULL, NULL, batch, counts),
                     LK_OK);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(
            lk_partitioned_search(index, NULL, effort, 1, queries + q * DIM, K, NULL, NULL, single, &count), LK_OK);
        assert_int_equal(count, counts[q]);
        for (size_t i = 0; i < count; i++)
            assert_true(single[i].id == batch[q * K + i].id && single[i].score == batch[q * K + i].score);
    }
    lk_partitioned_free(index);
    lk_context_free(context);
}

static void ids_of_every_width_come_back(void **state)
{
    (void)state;
    for (int bits = 1; bits <= 64; bits += 7) {
        uint64_t wide[5];
        lk_hit hits[5];
        size_t count;
        lk_partitioned *index;
        lk_partitioned_effort all = {SIZE_MAX, SIZE_MAX};
        for (uint64_t i = 0; i < 5; i++) wide[i] = (UINT64_MAX >> (64 - bits)) - i % (bits < 3 ? 2 : 5);
        assert_int_equal(lk_partitioned_build_memory(NULL, 5, DIM, vectors, wide, LK_L2, NULL, &index), LK_OK);
        assert_int_equal(lk_partitioned_search(index, NULL, all, 1, vectors + 3 * DIM, 5, NULL, NULL, hits, &count),
                         LK_OK);
        assert_int_equal(count, 5);
        assert_true(hits[0].id == wide[3] || hits[0].id == wide[1]);
        lk_partitioned_free(index);
    }
}

static void bytes_are_refined_without_loss(void **state)
{
    (void)state;
    static float bytes[N * DIM];
    for (int sign = 0; sign < 2; sign++) {
        lk_hit found[K], truth[K];
        size_t count, expected;
        lk_flat *flat;
        lk_partitioned *index;
        for (int i = 0; i < N * DIM; i++) bytes[i] = (float)(i * 7919 % (i % 1000 ? 100 : 256) - 128 * sign);
        assert_int_equal(lk_flat_new(DIM, LK_L2, LK_F32, &flat), LK_OK);
        assert_int_equal(lk_flat_add(flat, N, ids, bytes), LK_OK);
        assert_int_equal(lk_partitioned_build_memory(NULL, N, DIM, bytes, ids, LK_L2, NULL, &index), LK_OK);
        lk_partitioned_effort all = {SIZE_MAX, SIZE_MAX};
        assert_int_equal(lk_partitioned_search(index, NULL, all, 1, bytes + 5, K, NULL, NULL, found, &count), LK_OK);
        assert_int_equal(lk_flat_search(flat, NULL, 1, bytes + 5, K, NULL, NULL, truth, &expected), LK_OK);
        for (size_t i = 0; i < K; i++) assert_true(found[i].id == truth[i].id && found[i].score == truth[i].score);
        lk_partitioned_free(index);
        lk_flat_free(flat);
    }
}

static void what_cannot_be_indexed_or_searched_is_refused(void **state)
{
    (void)state;
    float bad[3 * DIM];
    lk_partitioned *index;
    lk_hit hit;
    size_t count;
    memcpy(bad, vectors, sizeof bad);
    bad[2 * DIM + 4] = NAN;
    assert_int_equal(lk_partitioned_build_memory(NULL, 3, DIM, bad, NULL, LK_L2, NULL, &index), LK_INVALID);
    assert_non_null(strstr(lk_error_message(), "row 2"));
    assert_int_equal(lk_partitioned_build_memory(NULL, 0, DIM, bad, NULL, LK_L2, NULL, &index), LK_INVALID);
    assert_int_equal(lk_partitioned_build_memory(NULL, 2, DIM, bad, NULL, LK_L2, NULL, &index), LK_OK);
    lk_partitioned_effort effort = {0};
    assert_int_equal(lk_partitioned_search(index, NULL, effort, 1, bad + 2 * DIM, 1, NULL, NULL, &hit, &count),
                     LK_INVALID);
    assert_int_equal(lk_partitioned_search(index, NULL, effort, 1, bad, 0, NULL, NULL, &hit, &count), LK_INVALID);
    lk_partitioned_free(index);
}

static void write_image(const char *path, const lk_partitioned *index, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(index->image, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void a_damaged_cut_or_newer_file_is_refused(void **state)
{
    char path[512];
    lk_partitioned *index = build(NULL, LK_L2, (lk_partitioned_options){0}), *opened;
    lk_partitioned_header *h = index->header;
    snprintf(path, sizeof path, "%s/x.part", (char *)*state);
    static const size_t cuts[] = {0, 1, 8, 100, 4095, 4096, 5000};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        write_image(path, index, cuts[i]);
        assert_int_equal(lk_partitioned_open(path, &opened), LK_CORRUPT);
    }
    write_image(path, index, index->size - 1);
    assert_int_equal(lk_partitioned_open(path, &opened), LK_CORRUPT);
    /* Any byte of the header, and of the sections that opening reads. */
    for (size_t at = 0; at < h->sections[SECTION_CODES].offset; at += at < sizeof *h ? 1 : 97) {
        bool counts = at < sizeof *h;
        for (int i = 0; i < SECTION_CODES; i++)
            counts |= at >= h->sections[i].offset && at < h->sections[i].offset + h->sections[i].size;
        if (!counts) continue;
        index->image[at] ^= 0x10;
        write_image(path, index, index->size);
        lk_status s = lk_partitioned_open(path, &opened);
        assert_true(s == LK_CORRUPT || s == LK_UNSUPPORTED);
        index->image[at] ^= 0x10;
    }
    h->version++;
    write_image(path, index, index->size);
    assert_int_equal(lk_partitioned_open(path, &opened), LK_UNSUPPORTED);
    h->version--;
    index->codes[5] ^= 1; /* not read by opening; verifying finds it */
    write_image(path, index, index->size);
    assert_int_equal(lk_partitioned_open(path, &opened), LK_OK);
    assert_int_equal(lk_partitioned_verify(opened), LK_CORRUPT);
    lk_partitioned_free(opened);
    lk_partitioned_free(index);
}

static void a_file_whose_numbers_lie_is_refused_though_its_checksums_fit(void **state)
{
    char path[512];
    lk_partitioned *opened;
    snprintf(path, sizeof path, "%s/x.part", (char *)*state);
    for (int lie = 0; lie < 10; lie++) {
        lk_partitioned *index = build(NULL, LK_L2, (lk_partitioned_options){0});
        lk_partitioned_header *h = index->header;
        if (lie == 0) h->n *= 2;
        if (lie == 1) h->partitions++;
        if (lie == 2) h->dim = 0;
        if (lie == 3) h->groups = h->dim + 1;
        if (lie == 4) h->id_bytes = 9;
        if (lie == 5) index->lists[3].first = h->n + 1;
        if (lie == 6) index->lists[3].block += 1000000;
        if (lie == 7) index->lists[3].first = 0;
        if (lie == 8) index->lists[3].step = NAN;
        if (lie == 9) index->centroids[5] = INFINITY;
        size_t size = index->size;
        if (lie < 5) { /* the sections' checksums are right as they are */
            lk_hash128 hash = lk_hash(h, offsetof(lk_partitioned_header, hash_low));
            h->hash_low = hash.low;
            h->hash_high = hash.high;
        } else {
            lk_partitioned_seal(index);
        }
        write_image(path, index, size);
        assert_int_equal(lk_partitioned_open(path, &opened), LK_CORRUPT);
        lk_partitioned_free(index);
    }
}

static void kmeans_assigns_every_row_to_its_nearest_centroid(void **state)
{
    (void)state;
    enum { CLUSTERS = 37 };
    float centroids[CLUSTERS * DIM];
    uint32_t *cells = malloc(sizeof *cells * N);
    double inertia, sum = 0;
    for (int seeding = 0; seeding < 2; seeding++) {
        lk_kmeans_options options = {.iterations = 8, .seed = 3, .random_seeds = seeding};
        assert_int_equal(lk_kmeans(NULL, vectors, N, DIM, CLUSTERS, &options, centroids, cells, &inertia), LK_OK);
        sum = 0;
        for (size_t i = 0; i < N; i++) {
            double best = INFINITY, own = 0;
            for (size_t k = 0; k < CLUSTERS; k++) {
                double d = 0;
                for (size_t c = 0; c < DIM; c++) {
                    double x = vectors[i * DIM + c] - centroids[k * DIM + c];
                    d += x * x;
                }
                best = d < best ? d : best;
                if (k == cells[i]) own = d;
            }
            assert_true(own <= best * 1.0001 + 1e-4);
            sum += own;
        }
        assert_true(fabs(sum / N - inertia) < 1e-3 * inertia);
    }
    free(cells);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looking_everywhere_finds_what_the_exact_index_finds),
        cmocka_unit_test(little_effort_finds_most_and_more_finds_more),
        cmocka_unit_test_setup_teardown(the_same_input_gives_the_same_bytes_for_any_number_of_threads, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(an_index_built_in_a_file_is_the_one_built_in_memory, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_ceiling_shrinks_the_sample_or_refuses, unit_folder, unit_folder_remove),
        cmocka_unit_test(a_filter_lets_only_its_ids_through_and_enough_of_them),
        cmocka_unit_test(a_filter_keeps_the_recall_at_every_share),
        cmocka_unit_test(a_batch_on_many_threads_finds_what_single_queries_find),
        cmocka_unit_test(ids_of_every_width_come_back),
        cmocka_unit_test(bytes_are_refined_without_loss),
        cmocka_unit_test(what_cannot_be_indexed_or_searched_is_refused),
        cmocka_unit_test_setup_teardown(a_damaged_cut_or_newer_file_is_refused, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_file_whose_numbers_lie_is_refused_though_its_checksums_fit, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test(kmeans_assigns_every_row_to_its_nearest_centroid),
    };
    return cmocka_run_group_tests(tests, make_vectors, NULL);
}
