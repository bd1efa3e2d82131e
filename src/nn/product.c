/* y [rows][out] = x [rows][k] W^T by kernels of our own: for few rows (the tokens of one picture) they keep the
 * processor busier than oneDNN's, and threads share the outputs, so that each reads its part of the weights alone. */
#include "nn/executor.h"

enum { PANEL = 64, ROWS = 204 };

/* Numbers of k multiplied at a time: their part of a panel stays in the second-level cache. */
static size_t depth(lk_type type)
{
    return type == LK_TYPE_BF16 ? 1024 : 768;
}

bool lk_product_fits(const lk_executor *e, lk_type type, size_t k, size_t out)
{
    if (!(lk_cpu_detect() & LK_CPU_AVX512) || k % 32 || out % PANEL) return false;
    return type == LK_TYPE_F32 || (type == LK_TYPE_BF16 && e->team.kernels->product64_bf16);
}

void lk_product_weights(const lk_nn_kernels *kernels, lk_type type, const float *weights, size_t k, size_t out,
                        void *packed)
{
    uint16_t halves[LK_RUN];
    for (size_t o = 0; o < out; o++) {
        size_t panel = o / PANEL * k * PANEL;
        const float *row = weights + o * k;
        if (type == LK_TYPE_F32) {
            for (size_t i = 0; i < k; i++) ((float *)packed)[panel + i * PANEL + o % PANEL] = row[i];
            continue;
        }
        uint16_t *to = (uint16_t *)packed + panel + o % PANEL * 2;
        for (size_t i = 0; i < k; i++) {
            if (i % LK_RUN == 0) kernels->store(type, 1, row + i, k - i < LK_RUN ? k - i : LK_RUN, halves);
            to[i / 2 * PANEL * 2 + i % 2] = halves[i % LK_RUN];
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
} product_job;

static void run_panel(const product_job *j, size_t panel, float *tile)
{
    const lk_nn_kernels *kernels = j->e->team.kernels;
    const lk_product *p = &j->step->product;
    const lk_view *x = &j->step->views[0], *y = &j->step->call.y;
    size_t bytes = lk_type_bytes(x->type), blocks = (j->rows + ROWS - 1) / ROWS, at = panel * PANEL;
    const char *weights = (const char *)p->weights + at * j->k * bytes;
    for (size_t b = 0; b < blocks; b++) {
        size_t first = j->rows * b / blocks, rows = j->rows * (b + 1) / blocks - first, n;
        for (size_t i = 0; i < j->k; i += n) {
            const void *a = lk_view_at(x, first * j->k + i), *w = weights + i * PANEL * bytes;
            n = j->k - i < depth(x->type) ? j->k - i : depth(x->type);
            if (x->type == LK_TYPE_BF16)
                kernels->product64_bf16(a, j->k, rows, w, n, i > 0, tile, PANEL);
            else
                kernels->product64(a, j->k, rows, w, n, i > 0, tile, PANEL);
        }
        lk_finish finish = {.bias = p->bias ? p->bias + at : NULL,
                            .before = p->before,
                            .after = p->after,
                            .y = lk_view_at(y, first * j->out + at),
                            .y_type = y->type,
                            .y_scale = y->scale,
                            .y_step = j->out};
        if (p->other) {
            const lk_view *v = &j->step->views[p->other];
            finish.other = lk_view_at(v, first * j->out + at);
            finish.other_type = v->type;
            finish.other_scale = v->scale;
        }
        kernels->finish64(&finish, tile, rows);
    }
}

static void run_slots(void *arg, size_t begin, size_t end)
{
    const product_job *j = arg;
    size_t panels = j->out / PANEL;
    for (size_t slot = begin; slot < end; slot++)
        for (size_t panel = panels * slot / j->slots; panel < panels * (slot + 1) / j->slots; panel++)
            run_panel(j, panel, (float *)j->e->scratch + slot * ROWS * PANEL);
}

void lk_product_run(lk_executor *e, lk_step *step)
{
    product_job j = {.e = e, .step = step, .k = step->product.k, .out = step->product.out};
    j.rows = lk_view_elements(&step->views[0]) / j.k;
    j.slots = j.out / PANEL;
    if (j.slots > (size_t)e->team.threads) j.slots = (size_t)e->team.threads;
    lk_team_for(&e->team, j.slots, 1u << 20, run_slots, &j);
}
