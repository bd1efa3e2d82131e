/* Clustering, components, local descriptors, their gathering, and the classical embedder made of them. */
#include "../fixtures/embed.h"
#include "base/file.h"
#include "base/random.h"
#include "embed/aggregate.h"
#include "embed/pca.h"
#include "embed/sift.h"
#include "index/kmeans.h"
#include <likeness/embed.h>

#include "shapes.h"
#include "unit.h"

#include <vl/sift.h>

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

static lk_context *with_threads(int threads)
{
    lk_context *context;
    lk_context_options options = {.threads = threads};
    OK(lk_context_new(&options, &context));
    return context;
}

static void near_all(const float *a, const float *b, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - b[i]) <= tolerance)) fail_msg("%zu: %.9g, not %.9g", i, (double)a[i], (double)b[i]);
}

static double length(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* ---- k-means ---- */

enum { POINTS = 5000, WIDTH = 7, CLUSTERS = 13 };

static float *make_points(uint64_t seed)
{
    float *x = malloc(POINTS * WIDTH * sizeof *x);
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < POINTS; i++)
        for (size_t j = 0; j < WIDTH; j++)
            x[i * WIDTH + j] = (float)(lk_random_normal(&random) + 2.0 * (double)((i * (j + 3)) % CLUSTERS));
    return x;
}

/* One iteration of Lloyd, as in a textbook. Returns the mean squared distance before the centroids move. */
static double lloyd(const float *x, double *centroids)
{
    double sums[CLUSTERS][WIDTH] = {{0}}, total = 0;
    size_t counts[CLUSTERS] = {0};
    for (size_t i = 0; i < POINTS; i++) {
        double best = INFINITY;
        size_t nearest = 0;
        for (size_t c = 0; c < CLUSTERS; c++) {
            double d = 0;
            for (size_t j = 0; j < WIDTH; j++) d += pow(x[i * WIDTH + j] - centroids[c * WIDTH + j], 2);
            if (d < best) {
                best = d;
                nearest = c;
            }
        }
        total += best;
        counts[nearest]++;
        for (size_t j = 0; j < WIDTH; j++) sums[nearest][j] += x[i * WIDTH + j];
    }
    for (size_t c = 0; c < CLUSTERS; c++)
        for (size_t j = 0; counts[c] && j < WIDTH; j++) centroids[c * WIDTH + j] = sums[c][j] / (double)counts[c];
    return total / POINTS;
}

static void each_iteration_is_that_of_a_plain_lloyd(void **state)
{
    (void)state;
    float *x = make_points(1), found[CLUSTERS * WIDTH];
    double plain[CLUSTERS * WIDTH], inertia, last = INFINITY;
    for (unsigned iterations = 1; iterations <= 8; iterations++) {
        lk_kmeans_options options = {.iterations = iterations, .seed = 4};
        OK(lk_kmeans(NULL, x, POINTS, WIDTH, CLUSTERS, &options, found, NULL, &inertia));
        if (iterations > 1)
            for (size_t i = 0; i < CLUSTERS * WIDTH; i++) assert_true(fabs(found[i] - plain[i]) < 1e-4);
        for (size_t i = 0; i < CLUSTERS * WIDTH; i++) plain[i] = found[i];
        assert_true(fabs(lloyd(x, plain) - inertia) < 1e-3 * inertia);
        assert_true(inertia <= last * (1 + 1e-6));
        last = inertia;
    }
    free(x);
}

static void clusters_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    float *x = make_points(2), first[CLUSTERS * WIDTH], found[CLUSTERS * WIDTH];
    uint32_t *first_assignment = malloc(POINTS * sizeof(uint32_t)), *assignment = malloc(POINTS * sizeof(uint32_t));
    for (int threads = 1; threads <= 4; threads++) {
        lk_context *context = with_threads(threads);
        lk_kmeans_options options = {.iterations = 6, .seed = 9};
        OK(lk_kmeans(context, x, POINTS, WIDTH, CLUSTERS, &options, threads == 1 ? first : found,
                     threads == 1 ? first_assignment : assignment, NULL));
        if (threads > 1) {
            assert_memory_equal(first, found, sizeof found);
            assert_memory_equal(first_assignment, assignment, POINTS * sizeof(uint32_t));
        }
        lk_context_free(context);
    }
    lk_kmeans_options other = {.iterations = 6, .seed = 10};
    OK(lk_kmeans(NULL, x, POINTS, WIDTH, CLUSTERS, &other, found, NULL, NULL));
    assert_memory_not_equal(first, found, sizeof found); /* and the seed counts */
    free(x);
    free(first_assignment);
    free(assignment);
}

static void assignment_is_the_nearest_centroid_and_ties_go_to_the_smaller(void **state)
{
    (void)state;
    const float centroids[] = {0, 0, 4, 0, 0, 4, 4, 0}, x[] = {1, 0, 2, 0, 0, 3, 5, 1};
    float norms[4], distances[4], *scratch = malloc(lk_kmeans_scratch(4) * sizeof(float));
    uint32_t assignment[4];
    assert_non_null(scratch);
    lk_kmeans_half_norms(centroids, 4, 2, norms);
    lk_kmeans_assign(x, 4, 2, centroids, norms, 4, scratch, assignment, distances);
    free(scratch);
    const uint32_t wanted[] = {0, 0, 2, 1};
    const float squares[] = {1, 4, 1, 2};
    assert_memory_equal(assignment, wanted, sizeof wanted);
    near_all(distances, squares, 4, 1e-5);
}

static void fewer_points_than_clusters_are_refused(void **state)
{
    (void)state;
    float x[6] = {0}, centroids[8];
    lk_kmeans_options options = {0};
    assert_int_equal(lk_kmeans(NULL, x, 3, 2, 4, &options, centroids, NULL, NULL), LK_INVALID);
    assert_int_equal(lk_kmeans(NULL, x, 3, 2, 0, &options, centroids, NULL, NULL), LK_INVALID);
}

static void as_many_clusters_as_points_are_the_points(void **state)
{
    (void)state;
    const float x[] = {5, 1, 3, 9, 7};
    float centroids[5];
    double inertia;
    int met = 0;
    lk_kmeans_options options = {.seed = 3};
    OK(lk_kmeans(NULL, x, 5, 1, 5, &options, centroids, NULL, &inertia));
    assert_true(inertia < 1e-9);
    for (int i = 0; i < 5; i++)
        for (int c = 0; c < 5; c++) met += centroids[c] == x[i];
    assert_int_equal(met, 5);
}

static void clusters_without_points_are_filled(void **state)
{
    (void)state;
    /* Three places and five clusters: two must be empty at every assignment, because ties go to the smaller number. */
    float x[60], centroids[10];
    double inertia;
    for (int i = 0; i < 30; i++) {
        x[i * 2] = (float)(i % 3);
        x[i * 2 + 1] = (float)(i % 3 == 1);
    }
    for (uint64_t seed = 0; seed < 20; seed++) {
        lk_kmeans_options options = {.seed = seed};
        OK(lk_kmeans(NULL, x, 30, 2, 5, &options, centroids, NULL, &inertia));
        assert_true(inertia < 1e-9);
        int at_first = 0;
        for (int c = 0; c < 5; c++) { /* each is one of the three places */
            float at = centroids[c * 2];
            assert_true((at == 0 || at == 1 || at == 2) && centroids[c * 2 + 1] == (float)(at == 1));
            at_first += at == x[0];
        }
        /* All points lie equally far from their centroids, not at all: the two empty ones take the first of them. */
        assert_int_equal(at_first, 3);
    }
}

static void clustering_can_be_cancelled(void **state)
{
    (void)state;
    float *x = make_points(1), centroids[CLUSTERS * WIDTH];
    lk_context *context = with_threads(2);
    lk_kmeans_options options = {0};
    lk_context_cancel(context);
    assert_int_equal(lk_kmeans(context, x, POINTS, WIDTH, CLUSTERS, &options, centroids, NULL, NULL), LK_CANCELLED);
    lk_context_free(context);
    free(x);
}

/* ---- principal components ---- */

static void fit_fixture(const float *sample, size_t n, size_t in, size_t out, double ridge, const float *mean,
                        const float *components)
{
    float *x = malloc(n * in * sizeof *x);
    lk_pca pca;
    memcpy(x, sample, n * in * sizeof *x);
    OK(lk_pca_fit(NULL, x, n, in, out, ridge, &pca));
    assert_int_equal(pca.in, in);
    assert_int_equal(pca.out, out);
    near_all(pca.mean, mean, in, 1e-5);
    near_all(pca.components, components, out * in, 2e-4);
    lk_pca_free(&pca);
    free(x);
}

static void components_are_those_of_numpy(void **state)
{
    (void)state;
    fit_fixture(tall_x, TALL_N, TALL_IN, TALL_OUT, 0, tall_mean, tall_components);
    fit_fixture(wide_x, WIDE_N, WIDE_IN, WIDE_OUT, 0.5, wide_mean, wide_components);
}

static float *make_correlated(size_t n, size_t in, uint64_t seed)
{
    float *x = malloc(n * in * sizeof *x);
    lk_random random;
    lk_random_seed(&random, seed);
    for (size_t i = 0; i < n; i++) {
        double common = lk_random_normal(&random);
        for (size_t j = 0; j < in; j++)
            x[i * in + j] = (float)(5 + common * (double)j / 20 + lk_random_normal(&random));
    }
    return x;
}

static void whitened_samples_have_unit_covariance(void **state)
{
    (void)state;
    const size_t sizes[][3] = {{300, 11, 11}, {300, 11, 4}, {20, 50, 12}};
    for (size_t s = 0; s < 3; s++) {
        size_t n = sizes[s][0], in = sizes[s][1];
        float *x = make_correlated(n, in, s), *copy = malloc(n * in * sizeof *x);
        memcpy(copy, x, n * in * sizeof *x);
        lk_pca pca;
        OK(lk_pca_fit(NULL, copy, n, in, sizes[s][2], 0, &pca));
        assert_int_equal(pca.out, sizes[s][2]);
        float *y = malloc(n * pca.out * sizeof *y);
        for (size_t i = 0; i < n; i++) lk_pca_apply(&pca, x + i * in, y + i * pca.out);
        for (size_t a = 0; a < pca.out; a++) {
            for (size_t b = 0; b < pca.out; b++) {
                double sum = 0, mean = 0;
                for (size_t i = 0; i < n; i++) sum += (double)y[i * pca.out + a] * y[i * pca.out + b];
                for (size_t i = 0; i < n; i++) mean += y[i * pca.out + a];
                assert_true(fabs(mean / (double)n) < 1e-3);
                assert_true(fabs(sum / (double)(n - 1) - (a == b)) < 2e-3);
            }
        }
        lk_pca_free(&pca);
        free(x);
        free(copy);
        free(y);
    }
}

static void a_large_ridge_only_rotates(void **state)
{
    (void)state;
    float *x = make_correlated(100, 6, 8);
    lk_pca pca;
    OK(lk_pca_fit(NULL, x, 100, 6, 6, 1e7, &pca));
    double first = length(pca.components, 6);
    for (size_t a = 0; a < 6; a++) {
        assert_true(fabs(length(pca.components + a * 6, 6) / first - 1) < 1e-5);
        for (size_t b = 0; b < a; b++) {
            double dot = 0;
            for (size_t j = 0; j < 6; j++) dot += (double)pca.components[a * 6 + j] * pca.components[b * 6 + j];
            assert_true(fabs(dot) < 1e-5 * first * first);
        }
    }
    lk_pca_free(&pca);
    free(x);
}

static void components_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        size_t n = wide ? 150 : 300, in = wide ? 300 : 150;
        float *x = make_correlated(n, in, 3), *copy = malloc(n * in * sizeof *x), *first = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            lk_context *context = with_threads(threads);
            lk_pca pca;
            memcpy(copy, x, n * in * sizeof *x);
            OK(lk_pca_fit(context, copy, n, in, 20, 0.1, &pca));
            assert_int_equal(pca.out, 20);
            if (first)
                assert_memory_equal(first, pca.components, 20 * in * sizeof *first);
            else {
                first = pca.components;
                pca.components = NULL;
            }
            lk_pca_free(&pca);
            lk_context_free(context);
        }
        free(x);
        free(copy);
        free(first);
    }
}

static void no_more_components_are_kept_than_the_sample_determines(void **state)
{
    (void)state;
    float *x = make_correlated(5, 9, 1);
    lk_pca pca;
    OK(lk_pca_fit(NULL, x, 5, 9, 9, 0, &pca));
    assert_int_equal(pca.out, 4);
    lk_pca_free(&pca);
    free(x);
    float same[12] = {1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3};
    assert_int_equal(lk_pca_fit(NULL, same, 4, 3, 2, 0, &pca), LK_INVALID);
    assert_null(pca.components);
    assert_int_equal(lk_pca_fit(NULL, same, 1, 3, 2, 0, &pca), LK_INVALID);
}

/* ---- gathering ---- */

static void vlad_is_that_of_its_formula(void **state)
{
    (void)state;
    float out[GATHERED_WORDS * GATHERED_DIM];
    lk_vlad(gathered_descriptors, gathered_assigned, GATHERED_N, gathered_centres, GATHERED_WORDS, GATHERED_DIM, out);
    near_all(out, gathered_vlad, GATHERED_WORDS * GATHERED_DIM, 1e-6);
}

static void word_frequencies_and_weights_are_those_of_their_formulas(void **state)
{
    (void)state;
    float frequencies[GATHERED_WORDS], idf[GATHERED_WORDS];
    lk_bovw_frequencies(gathered_assigned, GATHERED_N, GATHERED_WORDS, frequencies);
    near_all(frequencies, gathered_frequencies, GATHERED_WORDS, 1e-6);
    lk_bovw_idf(gathered_with_word, GATHERED_DOCUMENTS, GATHERED_WORDS, idf);
    near_all(idf, gathered_idf, GATHERED_WORDS, 1e-6);
    lk_bovw_weight(frequencies, idf, GATHERED_WORDS);
    near_all(frequencies, gathered_weighted, GATHERED_WORDS, 1e-6);
}

static void zero_stays_zero(void **state)
{
    (void)state;
    float zero[LK_SIFT_DIM] = {0}, out[LK_SIFT_DIM * 2] = {1};
    const uint32_t assignment[] = {0};
    lk_l2_normalise(zero, LK_SIFT_DIM);
    lk_root_sift(zero);
    for (int i = 0; i < LK_SIFT_DIM; i++) assert_true(zero[i] == 0);
    lk_vlad(zero, assignment, 1, (const float[LK_SIFT_DIM * 2]){0}, 2, LK_SIFT_DIM,
            out); /* the descriptor is the word */
    for (int i = 0; i < LK_SIFT_DIM * 2; i++) assert_true(out[i] == 0);
}

/* ---- SIFT ---- */

static void keypoints_and_descriptors_are_those_of_vlfeat(void **state)
{
    (void)state;
    lk_image image = draw(thicket, SIDE, 80, 1);
    lk_sift_options options = {.max_keypoints = 100000};
    lk_sift found;
    OK(lk_sift_describe(&image, &options, &found));
    assert_int_equal(found.count, found.keypoints);
    float pixels[SIDE * 80];
    for (size_t i = 0; i < SIDE * 80; i++) pixels[i] = image.pixels[i];
    VlSiftFilt *filter = vl_sift_new(SIDE, 80, -1, 3, 0);
    vl_sift_set_peak_thresh(filter, 2);
    vl_sift_set_edge_thresh(filter, 10);
    size_t expected = 0;
    for (int more = vl_sift_process_first_octave(filter, pixels); more == VL_ERR_OK;
         more = vl_sift_process_next_octave(filter)) {
        vl_sift_detect(filter);
        for (int i = 0; i < vl_sift_get_nkeypoints(filter); i++) {
            const VlSiftKeypoint *k = vl_sift_get_keypoints(filter) + i;
            double angles[4];
            int n = vl_sift_calc_keypoint_orientations(filter, angles, k);
            for (int a = 0; a < n; a++, expected++) {
                float descriptor[LK_SIFT_DIM] = {0}, sum = 0;
                vl_sift_calc_keypoint_descriptor(filter, descriptor, k, angles[a]);
                for (int j = 0; j < LK_SIFT_DIM; j++) sum += descriptor[j];
                for (int j = 0; sum > 0 && j < LK_SIFT_DIM; j++) descriptor[j] = sqrtf(fmaxf(descriptor[j], 0) / sum);
                size_t met = 0;
                for (size_t f = 0; f < found.keypoints; f++) {
                    const lk_sift_place *p = &found.places[f];
                    if (p->x != k->x || p->y != k->y || p->scale != k->sigma || p->angle != (float)angles[a]) continue;
                    near_all(found.descriptors + f * LK_SIFT_DIM, descriptor, LK_SIFT_DIM, 1e-5);
                    met++;
                }
                assert_int_equal(met, 1);
            }
        }
    }
    vl_sift_delete(filter);
    assert_true(expected > 10);
    assert_int_equal(found.keypoints, expected);
    /* A limit keeps the head of the same list. */
    lk_sift few;
    options.max_keypoints = 5;
    OK(lk_sift_describe(&image, &options, &few));
    assert_int_equal(few.count, 5);
    assert_memory_equal(few.descriptors, found.descriptors, 5 * LK_SIFT_DIM * sizeof(float));
    lk_sift_free(&few);
    lk_sift_free(&found);
    lk_image_free(&image);
}

static void every_descriptor_has_unit_length(void **state)
{
    (void)state;
    for (int s = 0; s < SHAPES; s++) {
        lk_image image = draw(shapes[s], SIDE, SIDE, 0);
        lk_sift_options options = {.max_keypoints = 300, .grid_side = 64, .grid_step = 8};
        lk_sift sift;
        OK(lk_sift_describe(&image, &options, &sift));
        assert_true(sift.count > sift.keypoints); /* the grid has found something in each */
        for (size_t i = 0; i < sift.count; i++) {
            assert_true(fabs(length(sift.descriptors + i * LK_SIFT_DIM, LK_SIFT_DIM) - 1) < 1e-5);
            for (size_t j = 0; j < LK_SIFT_DIM; j++) assert_true(sift.descriptors[i * LK_SIFT_DIM + j] >= 0);
        }
        lk_sift_free(&sift);
        lk_image_free(&image);
    }
}

static void margins_do_not_change_the_grid(void **state)
{
    (void)state;
    /* The same cross, drawn large and with a wide margin around it. */
    enum { INNER = 64, OUTER = 128, OFFSET = 20 };
    lk_image tight = draw(cross, INNER, INNER, 0), wide = draw(cross, OUTER, OUTER, 0);
    memset(wide.pixels, 255, OUTER * OUTER);
    for (size_t y = 0; y < INNER; y++)
        memcpy(wide.pixels + (y + OFFSET) * OUTER + OFFSET, tight.pixels + y * INNER, INNER);
    lk_sift_options options = {.grid_side = 64, .grid_step = 8};
    lk_sift a, b;
    OK(lk_sift_describe(&tight, &options, &a));
    OK(lk_sift_describe(&wide, &options, &b));
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.descriptors, b.descriptors, a.count * LK_SIFT_DIM * sizeof(float));
    lk_sift_free(&a);
    lk_sift_free(&b);
    lk_image_free(&tight);
    lk_image_free(&wide);
}

static void pictures_of_any_shape_can_be_described(void **state)
{
    (void)state;
    const uint32_t sizes[][2] = {{1, 1}, {1, 200}, {300, 1}, {2, 2}, {15, 17}, {5000, 1}, {3, 4000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        lk_image image = draw(spots, sizes[i][0], sizes[i][1], 0);
        lk_sift_options options = {.max_keypoints = 300, .grid_side = 112, .grid_step = 8};
        lk_sift sift;
        OK(lk_sift_describe(&image, &options, &sift));
        for (size_t d = 0; d < sift.count; d++)
            assert_true(fabs(length(sift.descriptors + d * LK_SIFT_DIM, LK_SIFT_DIM) - 1) < 1e-5);
        lk_sift_free(&sift);
        lk_image_free(&image);
    }
    lk_image colour = {.pixels = (uint8_t[3]){0}, .width = 1, .height = 1, .channels = 3};
    lk_sift sift;
    assert_int_equal(lk_sift_describe(&colour, &(lk_sift_options){1, 1, 1}, &sift), LK_INVALID);
}

/* ---- the embedder ---- */

static lk_status picture(void *user, size_t index, const lk_image_options *options, lk_image *out)
{
    (void)options;
    size_t bad = user ? *(size_t *)user : SIZE_MAX; /* so many are broken */
    if (user && index < bad) return LK_CORRUPT;
    *out = draw(shapes[index % SHAPES], SIDE, SIDE, (int)(index / SHAPES));
    return LK_OK;
}

static lk_embedder *train(lk_context *context, lk_classical_kind kind, uint64_t seed)
{
    lk_classical_options options = {.kind = kind, .words = kind == LK_CLASSICAL_VLAD ? 4 : 24, .dim = 10, .seed = seed};
    lk_embedder *embedder;
    OK(lk_classical_train(context, &options, PICTURES, picture, NULL, &embedder));
    return embedder;
}

static void embed(const lk_embedder *embedder, const lk_image *image, float *out)
{
    OK(lk_embedder_embed(embedder, image, 1, out));
    for (size_t i = 0; i < lk_embedder_dim(embedder); i++) assert_true(isfinite(out[i]));
    assert_true(fabs(length(out, lk_embedder_dim(embedder)) - 1) < 1e-4);
}

static void training_does_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    for (int kind = LK_CLASSICAL_BOVW; kind <= LK_CLASSICAL_VLAD; kind++) {
        char first[33] = "";
        for (int threads = 1; threads <= 3; threads++) {
            lk_context *context = with_threads(threads);
            lk_embedder *embedder = train(context, (lk_classical_kind)kind, 7);
            if (threads == 1)
                strcpy(first, lk_embedder_id(embedder));
            else
                assert_string_equal(lk_embedder_id(embedder), first);
            lk_embedder_free(embedder);
            lk_context_free(context);
        }
        lk_embedder *other = train(NULL, (lk_classical_kind)kind, 8);
        assert_string_not_equal(lk_embedder_id(other), first);
        lk_embedder_free(other);
    }
}

static void every_picture_has_a_unit_vector(void **state)
{
    (void)state;
    for (int kind = LK_CLASSICAL_BOVW; kind <= LK_CLASSICAL_VLAD; kind++) {
        lk_embedder *embedder = train(NULL, (lk_classical_kind)kind, 1);
        size_t dim = lk_embedder_dim(embedder);
        float *out = malloc(dim * sizeof *out);
        for (int s = 0; s < SHAPES; s++) {
            lk_image image = draw(shapes[s], SIDE, SIDE, 0);
            embed(embedder, &image, out);
            lk_image_free(&image);
        }
        /* Plain ones: no keypoint anywhere, or no gradient at all. */
        const uint32_t sizes[][2] = {{1, 1}, {256, 256}, {1, 256}, {40, 30}};
        for (size_t i = 0; i < 4; i++) {
            lk_image image = draw(disc, sizes[i][0], sizes[i][1], 0);
            embed(embedder, &image, out);
            memset(image.pixels, 77, (size_t)image.width * image.height);
            embed(embedder, &image, out);
            lk_image_free(&image);
        }
        free(out);
        lk_embedder_free(embedder);
    }
}

static void a_variant_is_nearer_than_another_shape(void **state)
{
    (void)state;
    lk_embedder *embedder = train(NULL, LK_CLASSICAL_VLAD, 1);
    size_t dim = lk_embedder_dim(embedder);
    float *a = malloc(dim * sizeof *a), *b = malloc(dim * sizeof *b), *c = malloc(dim * sizeof *c);
    lk_image images[] = {draw(disc, SIDE, SIDE, 0), draw(disc, SIDE, SIDE, 1), draw(spots, SIDE, SIDE, 0)};
    embed(embedder, &images[0], a);
    embed(embedder, &images[1], b);
    embed(embedder, &images[2], c);
    double same = 0, other = 0;
    for (size_t i = 0; i < dim; i++) {
        same += (double)a[i] * b[i];
        other += (double)a[i] * c[i];
    }
    assert_true(same > other + 0.1);
    for (int i = 0; i < 3; i++) lk_image_free(&images[i]);
    free(a);
    free(b);
    free(c);
    lk_embedder_free(embedder);
}

static void vectors_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    lk_embedder *embedder = train(NULL, LK_CLASSICAL_BOVW, 1);
    size_t dim = lk_embedder_dim(embedder);
    float *together = malloc(SHAPES * dim * sizeof *together), *alone = malloc(dim * sizeof *alone);
    lk_image images[SHAPES];
    for (int s = 0; s < SHAPES; s++) images[s] = draw(shapes[s], SIDE, SIDE, 2);
    OK(lk_embedder_embed(embedder, images, SHAPES, together));
    for (int s = SHAPES - 1; s >= 0; s--) {
        OK(lk_embedder_embed(embedder, &images[s], 1, alone));
        assert_memory_equal(alone, together + (size_t)s * dim, dim * sizeof *alone);
        lk_image_free(&images[s]);
    }
    lk_image colour = {.pixels = (uint8_t[3]){0}, .width = 1, .height = 1, .channels = 3};
    assert_int_equal(lk_embedder_embed(embedder, &colour, 1, alone), LK_INVALID);
    free(together);
    free(alone);
    lk_embedder_free(embedder);
}

static void a_saved_embedder_gives_the_same_id_and_bytes(void **state)
{
    for (int kind = LK_CLASSICAL_BOVW; kind <= LK_CLASSICAL_VLAD; kind++) {
        lk_embedder *embedder = train(NULL, (lk_classical_kind)kind, 1), *opened;
        char folder[256];
        snprintf(folder, sizeof folder, "%s/a/model%d", (char *)*state, kind);
        OK(lk_embedder_save(embedder, folder));
        OK(lk_embedder_open(folder, &opened));
        assert_string_equal(lk_embedder_id(opened), lk_embedder_id(embedder));
        assert_string_equal(lk_embedder_name(opened), lk_embedder_name(embedder));
        assert_int_equal(lk_embedder_dim(opened), lk_embedder_dim(embedder));
        lk_image_options a = lk_embedder_image_options(embedder), b = lk_embedder_image_options(opened);
        assert_int_equal(a.max_side, b.max_side);
        assert_int_equal(a.colour, b.colour);
        size_t dim = lk_embedder_dim(embedder);
        float *x = malloc(dim * sizeof *x), *y = malloc(dim * sizeof *y);
        lk_image image = draw(waves, SIDE, SIDE, 3);
        embed(embedder, &image, x);
        embed(opened, &image, y);
        assert_memory_equal(x, y, dim * sizeof *x);
        lk_image_free(&image);
        free(x);
        free(y);
        lk_embedder_free(opened);
        lk_embedder_free(embedder);
    }
}

static void write_file(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
}

static void a_damaged_model_is_refused(void **state)
{
    lk_embedder *embedder = train(NULL, LK_CLASSICAL_VLAD, 1), *opened;
    char *folder = *state, path[512];
    OK(lk_embedder_save(embedder, folder));
    lk_embedder_free(embedder);
    snprintf(path, sizeof path, "%s/classical.bin", folder);
    uint8_t *bytes;
    size_t size;
    OK(lk_file_read(path, 0, &bytes, &size));
    for (size_t at = 0; at < size; at += size / 150 + 1) {
        bytes[at] ^= 0x20;
        write_file(folder, "classical.bin", bytes, size);
        lk_status s = lk_embedder_open(folder, &opened);
        if (s != LK_CORRUPT && s != LK_UNSUPPORTED) fail_msg("byte %zu: status %d", at, (int)s);
        bytes[at] ^= 0x20;
        write_file(folder, "classical.bin", bytes, at);
        assert_int_equal(lk_embedder_open(folder, &opened), LK_CORRUPT);
        assert_non_null(strstr(lk_error_message(), "classical.bin"));
    }
    /* A right checksum over settings or weights that make no sense. The header of a blob is 48 bytes. */
    uint8_t *payload = bytes + 48;
    size -= 48;
    const struct {
        size_t at;
        uint32_t value;
    } damages[] = {{0, 2},
                   {4, 0},
                   {4, 1 << 20},
                   {8, 0},
                   {8, 1 << 17},
                   {12, 5},
                   {16, 0},
                   {16, 1000000},
                   {20, 1u << 30},
                   {24, 1u << 30},
                   {24, 4096},
                   {24, 1024 + 64},
                   {28, 0},
                   {28, 0xcd000008},
                   {36, 0x7fc00000 /* NaN */},
                   {size - 4, 0x7f800000 /* infinity */}};
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        uint32_t kept;
        memcpy(&kept, payload + damages[i].at, 4);
        memcpy(payload + damages[i].at, &damages[i].value, 4);
        OK(lk_blob_write(path, "LKCLASS", 1, payload, size));
        if (lk_embedder_open(folder, &opened) != LK_CORRUPT) fail_msg("damage %zu passes", i);
        memcpy(payload + damages[i].at, &kept, 4);
    }
    OK(lk_blob_write(path, "LKCLASS", 1, payload, size));
    OK(lk_embedder_open(folder, &opened));
    lk_embedder_free(opened);
    OK(lk_blob_write(path, "LKCLASS", 2, payload, size));
    assert_int_equal(lk_embedder_open(folder, &opened), LK_UNSUPPORTED);
    unlink(path);
    assert_int_equal(lk_embedder_open(folder, &opened), LK_NOT_FOUND);
    free(bytes);
}

static void a_folder_that_is_no_model_is_told(void **state)
{
    lk_embedder *opened;
    assert_int_equal(lk_embedder_open(*state, &opened), LK_NOT_FOUND);
    assert_non_null(strstr(lk_error_message(), "is not a model"));
    write_file(*state, "config.json", "{", 1);
    assert_int_equal(lk_embedder_open(*state, &opened), LK_CORRUPT);
    write_file(*state, "config.json", "{\"kind\": \"oracle\"}", 18);
    assert_int_equal(lk_embedder_open(*state, &opened), LK_UNSUPPORTED);
    assert_non_null(strstr(lk_error_message(), "oracle"));
    write_file(*state, "config.json", "{}", 2);
    assert_int_equal(lk_embedder_open(*state, &opened), LK_UNSUPPORTED);
    write_file(*state, "config.json", "[1]", 3);
    assert_int_equal(lk_embedder_open(*state, &opened), LK_CORRUPT);
    assert_null(opened);
}

static void training_goes_on_without_broken_pictures_and_stops_without_any(void **state)
{
    (void)state;
    lk_embedder *embedder;
    lk_classical_options options = {.kind = LK_CLASSICAL_VLAD, .words = 4, .dim = 10};
    size_t bad = 10;
    OK(lk_classical_train(NULL, &options, PICTURES, picture, &bad, &embedder));
    lk_embedder_free(embedder);
    bad = PICTURES;
    assert_int_equal(lk_classical_train(NULL, &options, PICTURES, picture, &bad, &embedder), LK_NOT_FOUND);
    assert_int_equal(lk_classical_train(NULL, &options, 0, picture, NULL, &embedder), LK_NOT_FOUND);
    options.dim = 100000;
    options.words = 70000;
    assert_int_equal(lk_classical_train(NULL, &options, PICTURES, picture, NULL, &embedder), LK_INVALID);
    lk_context *context = with_threads(2);
    lk_context_cancel(context);
    assert_int_equal(lk_classical_train(context, NULL, PICTURES, picture, NULL, &embedder), LK_CANCELLED);
    lk_context_free(context);
    assert_null(embedder);
}

static void one_picture_is_enough_to_begin_with(void **state)
{
    (void)state;
    for (int kind = LK_CLASSICAL_BOVW; kind <= LK_CLASSICAL_VLAD; kind++) {
        lk_classical_options options = {.kind = (lk_classical_kind)kind};
        lk_embedder *embedder;
        OK(lk_classical_train(NULL, &options, 1, picture, NULL, &embedder));
        float *out = malloc(lk_embedder_dim(embedder) * sizeof *out);
        lk_image image = draw(cross, SIDE, SIDE, 0);
        embed(embedder, &image, out);
        lk_image_free(&image);
        free(out);
        lk_embedder_free(embedder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_iteration_is_that_of_a_plain_lloyd),
        cmocka_unit_test(clusters_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(assignment_is_the_nearest_centroid_and_ties_go_to_the_smaller),
        cmocka_unit_test(fewer_points_than_clusters_are_refused),
        cmocka_unit_test(as_many_clusters_as_points_are_the_points),
        cmocka_unit_test(clusters_without_points_are_filled),
        cmocka_unit_test(clustering_can_be_cancelled),
        cmocka_unit_test(components_are_those_of_numpy),
        cmocka_unit_test(whitened_samples_have_unit_covariance),
        cmocka_unit_test(a_large_ridge_only_rotates),
        cmocka_unit_test(components_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(no_more_components_are_kept_than_the_sample_determines),
        cmocka_unit_test(vlad_is_that_of_its_formula),
        cmocka_unit_test(word_frequencies_and_weights_are_those_of_their_formulas),
        cmocka_unit_test(zero_stays_zero),
        cmocka_unit_test(keypoints_and_descriptors_are_those_of_vlfeat),
        cmocka_unit_test(every_descriptor_has_unit_length),
        cmocka_unit_test(margins_do_not_change_the_grid),
        cmocka_unit_test(pictures_of_any_shape_can_be_described),
        cmocka_unit_test(training_does_not_depend_on_the_number_of_threads),
        cmocka_unit_test(every_picture_has_a_unit_vector),
        cmocka_unit_test(a_variant_is_nearer_than_another_shape),
        cmocka_unit_test(vectors_do_not_depend_on_the_batch),
        cmocka_unit_test_setup_teardown(a_saved_embedder_gives_the_same_id_and_bytes, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_damaged_model_is_refused, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_folder_that_is_no_model_is_told, unit_folder, unit_folder_remove),
        cmocka_unit_test(training_goes_on_without_broken_pictures_and_stops_without_any),
        cmocka_unit_test(one_picture_is_enough_to_begin_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
