/* Convolutions by the kernels of product.c: the rows of x are windows. In a picture whose channels lie last, a line of
 * a window is one run of numbers, so a window is as many runs as the kernel is high, and its product with the weights
 * (kernel line, kernel column, channel) is a sum over the runs, each at the same distance from the window's first.
 * Nothing is gathered; pictures with a border are copied with zeros around, a few lines at a time.
 *
 * Nothing is compiled for this, which oneDNN does for every shape: a search by one picture spent a third of its time
 * there. */
#include "nn/executor.h"

#include <string.h>

enum { PANEL = 64, ROWS = 204, DEPTH = 768 };

bool lk_conv_fits(const lk_conv *c, const lk_view *x, const lk_view *y)
{
    /* Where this is about as fast as oneDNN or faster: with more positions that one wins by a tenth, and with more
     * weights too. With AVX-512 those are taken all the same, because there oneDNN's sums depend on how threads share
     * small maps. */
    enum { POINTWISE = 256, POSITIONS = 1024, WEIGHTS = 1 << 20 };
    bool pointwise = c->kernel[0] * c->kernel[1] == 1 && c->stride[0] * c->stride[1] == 1;
    return (lk_cpu_detect() & (LK_CPU_AVX512 | LK_CPU_AVX2)) && x->type == LK_TYPE_F32 && y->type == LK_TYPE_F32 &&
           c->pad[0] < c->kernel[0] && c->pad[2] < c->kernel[0] && c->pad[1] < c->kernel[1] &&
           c->pad[3] < c->kernel[1] && c->groups == 1 && c->dilation[0] == 1 && c->dilation[1] == 1 &&
           c->out % 16 == 0 && y->dims[3] <= ROWS && y->dims[2] * y->dims[3] <= (pointwise ? POINTWISE : POSITIONS) &&
           ((lk_cpu_detect() & LK_CPU_AVX512) || x->dims[1] * c->kernel[0] * c->kernel[1] * c->out <= WEIGHTS);
}

size_t lk_conv_bytes(const lk_conv *c, size_t in)
{
    return lk_product_bytes(LK_TYPE_F32, (size_t)(c->kernel[0] * c->kernel[1]) * in, (size_t)c->out);
}

/* Weights [out][in][kh][kw] to [out/64][kh][kw][in][64], the last panel narrower. */
void lk_conv_weights(const lk_conv *c, const float *weights, const float *factor, size_t in, float *packed)
{
    size_t taps = (size_t)(c->kernel[0] * c->kernel[1]), k = taps * in, out = (size_t)c->out;
    for (size_t at = 0; at < out; at += PANEL) {
        size_t width = out - at < PANEL ? out - at : PANEL;
        float *panel = packed + at * k;
        for (size_t i = 0; i < in; i++)
            for (size_t t = 0; t < taps; t++)
                for (size_t o = 0; o < width; o++)
                    panel[(t * in + i) * width + o] =
                        weights[(at + o) * k + i * taps + t] * (factor ? factor[at + o] : 1);
    }
}

/* Work on some lines of the result; a block is as many as fit into ROWS. */
typedef struct conv_job {
    lk_executor *e;
    lk_step *step;
    const lk_conv *conv;
    size_t in, h, w, out, oh, ow, lines, blocks, slots;
    size_t line;   /* numbers between two lines of the picture, or of its copy */
    bool bordered; /* windows reach beyond the picture: it is copied */
    bool by_blocks;
} conv_job;

static void sizes(conv_job *j, const lk_view *x, const lk_view *y)
{
    const lk_conv *c = &j->step->node->u.conv;
    j->conv = c;
    j->in = (size_t)x->dims[1];
    j->h = (size_t)x->dims[2];
    j->w = (size_t)x->dims[3];
    j->out = (size_t)y->dims[1];
    j->oh = (size_t)y->dims[2];
    j->ow = (size_t)y->dims[3];
    j->bordered = c->pad[0] || c->pad[1] || c->pad[2] || c->pad[3];
    j->line = (j->w + (size_t)(j->bordered ? c->pad[1] + c->pad[3] : 0)) * j->in;
    j->lines = (size_t)y->dims[0] * j->oh;
    size_t each = ROWS / j->ow;
    j->blocks = (j->lines + each - 1) / each;
}

/* Lines of the copy that a block needs at most. */
static size_t copied_lines(const conv_job *j)
{
    size_t batch = j->lines / j->oh, each = ROWS / j->ow;
    if (each > j->lines) each = j->lines;
    size_t pictures = each / j->oh + 2 < batch ? each / j->oh + 2 : batch;
    return j->bordered ? each * (size_t)j->conv->stride[0] + pictures * (size_t)j->conv->kernel[0] : 0;
}

static size_t slot_floats(const conv_job *j)
{
    size_t pointers = ROWS * sizeof(float *) / sizeof(float);
    return (pointers + ROWS * PANEL + copied_lines(j) * j->line + 31) / 32 * 32;
}

size_t lk_conv_scratch(const lk_executor *e, lk_step *step)
{
    conv_job j = {.step = step};
    sizes(&j, &step->views[0], &step->call.y);
    return slot_floats(&j) * sizeof(float) * (size_t)e->team.threads;
}

/* Lines [top, top + count) of a picture, zeros around it. */
static void copy_lines(const conv_job *j, const float *picture, int64_t top, size_t count, float *to)
{
    size_t left = (size_t)j->conv->pad[1] * j->in, run = j->w * j->in;
    for (size_t i = 0; i < count; i++, to += j->line) {
        int64_t y = top + (int64_t)i;
        if (y < 0 || y >= (int64_t)j->h) {
            memset(to, 0, j->line * sizeof *to);
            continue;
        }
        memset(to, 0, left * sizeof *to);
        memcpy(to + left, picture + (size_t)y * run, run * sizeof *to);
        memset(to + left + run, 0, (j->line - left - run) * sizeof *to);
    }
}

/* Where the windows of the result's lines [begin, end) begin; copied: room for copied_lines. */
static void find_windows(const conv_job *j, size_t begin, size_t end, float *copied, const float **at)
{
    const lk_conv *c = j->conv;
    size_t stride = (size_t)c->stride[0], across = (size_t)c->stride[1] * j->in;
    for (size_t line = begin, some; line < end; line += some) {
        size_t n = line / j->oh, first = line % j->oh;
        some = end - line < j->oh - first ? end - line : j->oh - first;
        const float *from = (const float *)j->step->views[0].data + n * j->h * j->w * j->in;
        if (j->bordered) {
            size_t count = (some - 1) * stride + (size_t)c->kernel[0];
            copy_lines(j, from, (int64_t)(first * stride) - c->pad[0], count, copied);
            from = copied;
            copied += count * j->line;
        } else {
            from += first * stride * j->line;
        }
        for (size_t y = 0; y < some; y++)
            for (size_t x = 0; x < j->ow; x++) *at++ = from + y * stride * j->line + x * across;
    }
}

/* What is multiplied at a time, from number i of a window on: whole lines of it, or a part of one. */
static lk_runs part_of(const conv_job *j, size_t i)
{
    size_t run = (size_t)j->conv->kernel[1] * j->in, y = i / run, within = i % run;
    size_t left = (size_t)j->conv->kernel[0] - y, lines = run < DEPTH ? DEPTH / run : 1;
    return (lk_runs){.offset = y * j->line + within,
                     .count = lines < left ? lines : left,
                     .distance = j->line,
                     .n = run - within < DEPTH ? run - within : DEPTH};
}

static void run_blocks(const conv_job *j, size_t slot, size_t first, size_t last, size_t from, size_t to)
{
    const lk_nn_kernels *kernels = j->e->team.kernels;
    float *scratch = (float *)j->e->scratch + slot * slot_floats(j);
    const float **at = (const float **)(void *)scratch;
    float *tile = scratch + ROWS * sizeof(float *) / sizeof(float), *copied = tile + ROWS * PANEL;
    size_t k = j->step->product.k;
    for (size_t block = first; block < last; block++) {
        size_t begin = j->lines * block / j->blocks, end = j->lines * (block + 1) / j->blocks;
        size_t rows = (end - begin) * j->ow, n;
        find_windows(j, begin, end, copied, at);
        for (size_t panel = from; panel < to; panel++) {
            size_t width = j->out - panel * PANEL < PANEL ? j->out - panel * PANEL : PANEL;
            const float *w = (const float *)j->step->product.weights + panel * PANEL * k;
            for (size_t i = 0; i < k; i += n, w += n * width) {
                lk_runs a = part_of(j, i);
                a.rows = at;
                n = a.count * a.n;
                kernels->product_runs(&a, rows, w, (int)(width / 16), i > 0, tile, PANEL);
            }
            lk_product_finish(j->e, j->step, begin * j->ow, rows, panel * PANEL, tile);
        }
    }
}

static void run_slots(void *arg, size_t begin, size_t end)
{
    const conv_job *j = arg;
    size_t panels = (j->out + PANEL - 1) / PANEL;
    for (size_t slot = begin; slot < end; slot++) {
        if (j->by_blocks)
            run_blocks(j, slot, j->blocks * slot / j->slots, j->blocks * (slot + 1) / j->slots, 0, panels);
        else
            run_blocks(j, slot, 0, j->blocks, panels * slot / j->slots, panels * (slot + 1) / j->slots);
    }
}

void lk_conv_run(lk_executor *e, lk_step *step)
{
    enum { ALONE = 400000 }; /* multiplications that are done before another thread has begun */
    conv_job j = {.e = e, .step = step};
    sizes(&j, &step->views[0], &step->call.y);
    size_t panels = (j.out + PANEL - 1) / PANEL, threads = (size_t)e->team.threads;
    /* Few windows and many weights: each thread reads its part of the weights alone. */
    j.by_blocks = j.blocks >= 4 * threads || panels < threads;
    size_t work = j.lines * j.ow * step->product.k * j.out, most = j.by_blocks ? j.blocks : panels;
    j.slots = work < ALONE ? 1 : most < threads ? most : threads;
    lk_team_for(&e->team, j.slots, 1u << 20, run_slots, &j);
}
