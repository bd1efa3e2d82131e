/* y [rows][out] = x [rows][k] W^T by kernels of our own: for few rows (the tokens of one picture) they keep the
 * processor busier than oneDNN's, and threads share the outputs, so that each reads its part of the weights alone. For
 * a row per picture (squeeze and excitation) a call of oneDNN's takes longer than the work. */
#include "nn/executor.h"

#include <string.h>

enum { PANEL = 64, ROWS = 204 };

/* Numbers of k multiplied at a time: their part of a panel stays in the second-level cache. */
static size_t depth(lk_type type)
{
    return type == LK_TYPE_BF16 ? 1024 : 768;
}

bool lk_product_fits(const lk_executor *e, lk_type type, size_t k, size_t out, bool single)
{
    /* Without AVX-512 oneDNN's product of matrices sums in an order that depends on how many rows there are: a
     * picture's vector would depend on its neighbours in the batch. */
    if (!(lk_cpu_detect() & LK_CPU_AVX512)) return type == LK_TYPE_F32;
    if (single ? k % 2 : k % 16 || out % 16) return false;
    return type == LK_TYPE_F32 || (type == LK_TYPE_BF16 && e->team.kernels->product_bf16);
}

/* Sixteens in the panel that begins at output `at`. */
static size_t vectors_at(size_t out, size_t at)
{
    return out - at < PANEL ? (out - at + 15) / 16 : PANEL / 16;
}

size_t lk_product_bytes(lk_type type, size_t k, size_t out)
{
    return k * ((out + 15) / 16 * 16) * lk_type_bytes(type);
}

void lk_product_weights(const lk_nn_kernels *kernels, lk_type type, const float *weights, size_t k, size_t out,
                        void *packed)
{
    uint16_t halves[LK_RUN];
    memset(packed, 0, lk_product_bytes(type, k, out));
    for (size_t o = 0; o < out; o++) {
        size_t at = o / PANEL * PANEL, width = 16 * vectors_at(out, at), panel = at * k;
        const float *row = weights + o * k;
        if (type == LK_TYPE_F32) {
            for (size_t i = 0; i < k; i++) ((float *)packed)[panel + i * width + o - at] = row[i];
            continue;
        }
        uint16_t *to = (uint16_t *)packed + panel + (o - at) * 2;
        for (size_t i = 0; i < k; i++) {
            if (i % LK_RUN == 0) kernels->store(type, 1, row + i, k - i < LK_RUN ? k - i : LK_RUN, halves);
            to[i / 2 * width * 2 + i % 2] = halves[i % LK_RUN];
        }
    }
}

size_t lk_product_scratch(const lk_executor *e)
{
    return sizeof(float) * ROWS * PANEL * (size_t)e->team.threads;
}

typedef struct product_job {
    lk_executor *e;
    lk_step *step;
    size_t rows, k, out, slots;
    bool by_rows; /* slots share the rows, not the panels */
} product_job;

void lk_product_finish(const lk_executor *e, const lk_step *step, size_t first, size_t rows, size_t at,
                       const float *sums)
{
    const lk_product *p = &step->product;
    const lk_view *y = &step->call.y;
    size_t bytes = lk_type_bytes(y->type), width = p->out - at < PANEL ? p->out - at : PANEL;
    char row[PANEL * sizeof(float)], beside[PANEL * sizeof(float)] = {0};
    lk_finish f = {.vectors = (int)vectors_at(p->out, at),
                   .bias = p->bias ? p->bias + at : NULL,
                   .before = p->before,
                   .after = p->after,
                   .y = lk_view_at(y, first * p->out + at),
                   .y_type = y->type,
                   .y_scale = y->scale,
                   .y_step = p->out};
    const lk_view *other = p->other ? &step->views[p->other] : NULL;
    if (other) {
        f.other = lk_view_at(other, first * p->out + at);
        f.other_type = other->type;
        f.other_scale = other->scale;
    }
    if (width % 16 == 0) {
        e->team.kernels->finish(&f, sums, rows);
        return;
    }
    for (size_t r = 0; r < rows; r++, sums += PANEL) { /* whole sixteens would reach beyond the row */
        f.y = row;
        if (other) {
            memcpy(beside, lk_view_at(other, (first + r) * p->out + at), width * lk_type_bytes(other->type));
            f.other = beside;
        }
        e->team.kernels->finish(&f, sums, 1);
        memcpy(lk_view_at(y, (first + r) * p->out + at), row, width * bytes);
    }
}

/* Rows from `begin` to before `end` of a panel. */
static void run_panel(const product_job *j, size_t panel, size_t begin, size_t end, float *tile)
{
    const lk_nn_kernels *kernels = j->e->team.kernels;
    const lk_view *x = &j->step->views[0];
    size_t bytes = lk_type_bytes(x->type), blocks = (end - begin + ROWS - 1) / ROWS, at = panel * PANEL;
    size_t vectors = vectors_at(j->out, at);
    const char *weights = (const char *)j->step->product.weights + at * j->k * bytes;
    for (size_t b = 0; b < blocks; b++) {
        size_t first = begin + (end - begin) * b / blocks, rows = begin + (end - begin) * (b + 1) / blocks - first, n;
        for (size_t i = 0; i < j->k; i += n) {
            const void *a = lk_view_at(x, first * j->k + i), *w = weights + i * 16 * vectors * bytes;
            n = j->k - i < depth(x->type) ? j->k - i : depth(x->type);
            if (x->type == LK_TYPE_BF16)
                kernels->product_bf16(a, j->k, rows, w, n, (int)vectors, i > 0, tile, PANEL);
            else
                kernels->product(a, j->k, rows, w, n, (int)vectors, i > 0, tile, PANEL);
        }
        lk_product_finish(j->e, j->step, first, rows, at, tile);
    }
}

static void run_slots(void *arg, size_t begin, size_t end)
{
    const product_job *j = arg;
    size_t panels = (j->out + PANEL - 1) / PANEL;
    for (size_t slot = begin; slot < end; slot++) {
        size_t first = j->by_rows ? 0 : panels * slot / j->slots,
               last = j->by_rows ? panels : panels * (slot + 1) / j->slots;
        size_t from = j->by_rows ? j->rows * slot / j->slots : 0,
               to = j->by_rows ? j->rows * (slot + 1) / j->slots : j->rows;
        for (size_t panel = first; panel < last; panel++)
            run_panel(j, panel, from, to, (float *)j->e->scratch + slot * ROWS * PANEL);
    }
}

void lk_product_run(lk_executor *e, lk_step *step)
{
    enum { ALONE = 400000 }; /* multiplications that are done before another thread has begun */
    product_job j = {.e = e, .step = step, .k = step->product.k, .out = step->product.out};
    size_t panels = (j.out + PANEL - 1) / PANEL, threads = (size_t)e->team.threads;
    j.rows = lk_view_elements(&step->views[0]) / j.k;
    /* a few panels do not share out evenly */
    j.by_rows = j.rows >= 8 * threads && panels < 4 * threads && j.out % (PANEL * threads);
    j.slots = j.rows * j.k * j.out < ALONE ? 1 : j.by_rows ? threads : panels;
    if (j.slots > threads) j.slots = threads;
    lk_team_for(&e->team, j.slots, 1u << 20, run_slots, &j);
}
