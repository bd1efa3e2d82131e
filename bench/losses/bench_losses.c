/* Holds one batch and times losses on it: what bench/losses/run.py talks to.
 *
 *     bench_losses EMBEDDINGS LABELS N DIM CLASSES
 *
 * EMBEDDINGS: f32 [N][DIM]; LABELS: i32 [N]. Each line of input, "LOSS" or "LOSS MINER", is answered by the seconds
 * that one evaluation with gradient took (with mining) and the value. */
#include "base/file.h"

#include <likeness/metric.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what)
{
    fprintf(stderr, "bench_losses: %s: %s\n", what, lk_error_message());
    return 1;
}

static int answer(const char *name, const char *miner, const float *x, size_t n, size_t dim, uint32_t classes,
                  const lk_labels *labels)
{
    lk_loss_kind kind;
    if (lk_loss_kind_of(name, &kind)) return failed(name);
    lk_loss_options options = lk_loss_defaults(kind);
    lk_miner_options mining = {0};
    if (miner) {
        lk_miner_kind which;
        if (lk_miner_kind_of(miner, &which)) return failed(miner);
        mining = lk_miner_defaults(which);
    }
    options.classes = classes;
    lk_loss *loss;
    if (lk_loss_new(&options, dim, 1, &loss)) return failed(name);
    size_t count;
    lk_loss_parameters(loss, &count);
    float *grad = malloc(n * dim * sizeof *grad), *grad_parameters = malloc((count + 1) * sizeof *grad);
    double value = 0, start = lk_now();
    lk_tuples tuples = {0};
    lk_status s = miner ? lk_mine(&mining, x, n, dim, labels, 1, &tuples) : LK_OK;
    if (!s)
        s = lk_loss_forward_backward(loss, x, n, dim, labels, miner ? &tuples : NULL, &value, grad,
                                     count ? grad_parameters : NULL);
    double seconds = lk_now() - start;
    lk_tuples_free(&tuples);
    free(grad);
    free(grad_parameters);
    lk_loss_free(loss);
    if (s) return failed(name);
    printf("%.9f %.12g\n", seconds, value);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    uint8_t *x, *y;
    size_t bytes;
    char line[128];
    if (argc != 6 || lk_file_read(argv[1], 0, &x, &bytes)) return failed("embeddings");
    size_t n = strtoull(argv[3], NULL, 10), dim = strtoull(argv[4], NULL, 10);
    if (bytes != n * dim * sizeof(float) || lk_file_read(argv[2], 0, &y, &bytes) || bytes != n * sizeof(int32_t))
        return failed("sizes");
    lk_labels labels = {.kind = LK_LABELS_SINGLE, .classes = (const int32_t *)(const void *)y};
    while (fgets(line, sizeof line, stdin)) {
        char *loss = strtok(line, " \n"), *miner = strtok(NULL, " \n");
        if (!loss) continue;
        if (answer(loss, miner, (const float *)(const void *)x, n, dim, (uint32_t)strtoul(argv[5], NULL, 10), &labels))
            return 1;
    }
    free(x);
    free(y);
    return 0;
}
