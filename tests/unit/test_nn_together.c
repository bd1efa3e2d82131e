/* Training in parts that share the statistics of batch norms: two threads stand for two processes. */
#include "unit.h"

#include "base/random.h"

#include <likeness/nn.h>
#include <math.h>
#include <pthread.h>

enum { WHOLE = 6, PART = 3, SIDE = 7, CHANNELS = 70, OUT = 5, PIXELS = 3 * SIDE * SIDE };

/* Adds up what both threads bring. */
typedef struct meeting {
    pthread_barrier_t barrier;
    double *brought[2];
    bool broken;
} meeting;

typedef struct member {
    meeting *at;
    int number;
} member;

static lk_status sum(void *user, double *values, size_t n)
{
    member *m = user;
    double *sums = malloc(n * sizeof *sums);
    m->at->brought[m->number] = values;
    pthread_barrier_wait(&m->at->barrier);
    for (size_t i = 0; i < n; i++) sums[i] = m->at->brought[0][i] + m->at->brought[1][i];
    pthread_barrier_wait(&m->at->barrier);
    memcpy(values, sums, n * sizeof *values);
    free(sums);
    return m->at->broken ? LK_IO : LK_OK;
}

static lk_graph *network(void)
{
    lk_graph *g;
    assert_int_equal(lk_graph_new(&g), LK_OK);
    lk_node x = lk_graph_input(g, "x", LK_TYPE_F32, 4, (int64_t[]){LK_BATCH, 3, SIDE, SIDE});
    x = lk_graph_conv(g, "conv", x, &(lk_conv){.out = CHANNELS, .kernel = {3, 3}, .pad = {1, 1, 1, 1}});
    x = lk_graph_activation(g, "relu", lk_graph_batch_norm(g, "bn", x, 1e-5f, 0.1f), LK_RELU);
    x = lk_graph_global_avg_pool(g, "pool", x);
    x = lk_graph_linear(g, "fc", x, OUT, false);
    lk_graph_output(g, lk_graph_batch_norm(g, "bn2", x, 1e-5f, 0.1f));
    assert_int_equal(lk_graph_check(g), LK_OK);
    assert_int_equal(lk_graph_initialise(g, 4), LK_OK);
    return g;
}

typedef struct job {
    lk_graph *graph;
    lk_training *training;
    lk_training_options options;
    lk_together together;
    const float *x, *g;
    float y[WHOLE * OUT], gx[WHOLE * PIXELS];
    lk_status status;
} job;

static void *step(void *arg)
{
    job *j = arg;
    j->status = lk_graph_compile_training(j->graph, &j->options, &j->training);
    if (j->status == LK_OK)
        j->status = lk_training_forward(j->training, true, (const void *const[]){j->x}, (float *const[]){j->y});
    if (j->status == LK_OK)
        j->status = lk_training_backward(j->training, (const float *const[]){j->g}, (float *const[]){j->gx});
    return NULL;
}

static void in_two(job *jobs, meeting *at, const float *x, const float *g, bool share)
{
    static member members[2];
    pthread_t threads[2];
    assert_int_equal(pthread_barrier_init(&at->barrier, NULL, 2), 0);
    for (int i = 0; i < 2; i++) {
        members[i] = (member){at, i};
        jobs[i] = (job){.graph = network(), .x = x + i * PART * PIXELS, .g = g + i * PART * OUT};
        jobs[i].together = (lk_together){2, sum, &members[i]};
        jobs[i].options = (lk_training_options){.batch = PART, .threads = 1};
        if (share) jobs[i].options.together = &jobs[i].together;
        assert_int_equal(pthread_create(&threads[i], NULL, step, &jobs[i]), 0);
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&at->barrier);
}

static void end(job *jobs, int count)
{
    for (int i = 0; i < count; i++) {
        lk_training_free(jobs[i].training);
        lk_graph_free(jobs[i].graph);
    }
}

static double off(const float *a, const float *b, size_t n)
{
    double worst = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        most = fmax(most, fabs((double)b[i]));
    }
    return worst / fmax(most, 1e-12);
}

static void draw(float *x, float *g)
{
    lk_random random;
    lk_random_seed(&random, 9);
    for (int i = 0; i < WHOLE * PIXELS; i++) x[i] = (float)(lk_random_normal(&random) + i / PIXELS);
    for (int i = 0; i < WHOLE * OUT; i++) g[i] = (float)lk_random_normal(&random);
}

/* 1e-5: products and sums over rows are f32 and in another order. */
static void halves_that_share_statistics_train_as_the_whole(void **state)
{
    (void)state;
    static float x[WHOLE * PIXELS], g[WHOLE * OUT], y[WHOLE * OUT], gx[WHOLE * PIXELS];
    static job parts[2];
    meeting at = {0};
    draw(x, g);
    static job whole;
    whole = (job){.graph = network(), .x = x, .g = g, .options = {.batch = WHOLE, .threads = 1}};
    step(&whole);
    assert_int_equal(whole.status, LK_OK);
    for (int share = 0; share < 2; share++) {
        in_two(parts, &at, x, g, share);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(parts[i].status, LK_OK);
            memcpy(y + i * PART * OUT, parts[i].y, PART * OUT * sizeof *y);
            memcpy(gx + i * PART * PIXELS, parts[i].gx, PART * PIXELS * sizeof *gx);
        }
        double values = off(y, whole.y, WHOLE * OUT), inputs = off(gx, whole.gx, WHOLE * PIXELS), weights = 0;
        for (size_t k = 0; k < lk_graph_parameter_count(whole.graph); k++) {
            lk_parameter p = lk_graph_parameter_at(whole.graph, k);
            float sums[CHANNELS * 27];
            assert_true(p.elements <= sizeof sums / sizeof *sums);
            if (p.buffer) { /* running statistics: equal in both */
                for (int i = 0; share && i < 2; i++)
                    assert_true(off(lk_graph_values(parts[i].graph, k), lk_graph_values(whole.graph, k), p.elements) <
                                1e-5);
                continue;
            }
            /* The bias before a batch norm has no gradient but rounding. */
            if (strcmp(p.name, "conv.bias") == 0 || strcmp(p.name, "fc.bias") == 0) continue;
            for (size_t i = 0; i < p.elements; i++)
                sums[i] = lk_training_gradient(parts[0].training, k)[i] + lk_training_gradient(parts[1].training, k)[i];
            weights = fmax(weights, off(sums, lk_training_gradient(whole.training, k), p.elements));
        }
        print_message("%s: values off by %.1e, gradients of inputs by %.1e, of weights by %.1e\n",
                      share ? "shared" : "each by itself", values, inputs, weights);
        if (share)
            assert_true(values < 1e-5 && inputs < 1e-5 && weights < 1e-5);
        else
            assert_true(values > 1e-2 && inputs > 1e-2 && weights > 1e-2);
        end(parts, 2);
    }
    end(&whole, 1);
}

static void failed_sum_ends_the_step(void **state)
{
    (void)state;
    static float x[WHOLE * PIXELS], g[WHOLE * OUT];
    static job parts[2];
    meeting at = {.broken = true};
    draw(x, g);
    in_two(parts, &at, x, g, true);
    assert_true(parts[0].status == LK_IO && parts[1].status == LK_IO);
    end(parts, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_that_share_statistics_train_as_the_whole),
        cmocka_unit_test(failed_sum_ends_the_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
