/* Files of an evaluation: TREC runs and judgements, .npy arrays. The first byte says which. */
#include "formats/npy_array.h"
#include <likeness/eval.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two runs of one text: it is its own judgement too, as far as the columns go. */
static void judge(const char *path)
{
    static const uint32_t ks[] = {1, 10};
    lk_trec run, qrels;
    lk_judged judged;
    if (lk_trec_read_run(path, &run) != LK_OK) return;
    qrels = run; /* the same rows: their grades are 0, so nothing is relevant */
    for (size_t i = 0; i < qrels.count; i++) qrels.rows[i].grade = i % 3;
    if (lk_trec_judge(&qrels, &run, "fuzz", ks, 2, &judged) == LK_OK) lk_judged_free(&judged);
    lk_trec_free(&run);
}

static void read_array(const char *path)
{
    lk_npy npy;
    if (lk_npy_open(path, &npy) != LK_OK) return;
    if (npy.rows && npy.columns) {
        float *row = malloc(npy.columns * sizeof *row);
        if (row) lk_npy_floats(&npy, npy.rows - 1, 1, row);
        if (npy.kind != 'f') (void)lk_npy_integer(&npy, npy.rows * npy.columns - 1);
        free(row);
    }
    lk_npy_close(&npy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    int file = memfd_create("fuzz", 0);
    char path[64];
    lk_trec qrels;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (file < 0 || write(file, data + 1, size - 1) != (ssize_t)(size - 1)) abort();
    if (data[0] % 3 == 0)
        judge(path);
    else if (data[0] % 3 == 1)
        read_array(path);
    else if (lk_trec_read_qrels(path, &qrels) == LK_OK)
        lk_trec_free(&qrels);
    close(file);
    return 0;
}
