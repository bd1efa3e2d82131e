/* 3x3 convolutions with fewer multiplications: Winograd's F(4x4, 3x3) in f32, a quarter of them, and F(2x2, 3x3) in
 * bf16, four ninths (Lavin & Gray, 2016).
 *
 * The picture is cut into tiles of 4x4 (2x2) results. A tile's inputs d and the weights g are transformed, multiplied
 * as 36 (16) independent products over the channels, and transformed back: y = A^T [ sum over channels of (G g G^T) *
 * (B^T d B) ] A. The larger tiles cost two or three bits, which bf16 does not have. */
#include "base/memory.h"
#include "nn/executor.h"

#include <string.h>

enum { PANEL = 64, CHANNELS = 64 };

/* How a type is done: rows and columns of results in a tile, points, tiles multiplied at a time (the weights are read
 * once for them). */
typedef struct way {
    int64_t side;
    size_t points, tiles, bytes; /* of a number */
} way;

static way way_of(lk_type type)
{
    return type == LK_TYPE_BF16 ? (way){2, 16, 48, 2} : (way){4, 36, 24, 4};
}

bool lk_winograd_fits(const lk_executor *e, const lk_conv *c, const lk_view *x, const lk_view *y)
{
    if (x->rank != 4 || x->type != y->type) return false;
    bool shape = c->groups == 1 && c->kernel[0] == 3 && c->kernel[1] == 3 && c->stride[0] == 1 && c->stride[1] == 1 &&
                 c->dilation[0] == 1 && c->dilation[1] == 1 && c->pad[0] <= 1 && c->pad[1] <= 1 &&
                 c->out % PANEL == 0 && x->dims[1] % 32 == 0 && x->dims[1] >= 32;
    /* A picture of few tiles would read more weights than it saves work. */
    shape = shape && x->dims[2] >= 12 && x->dims[3] >= 12;
    if (x->type == LK_TYPE_BF16) return shape && e->team.kernels->product_bf16;
    bool wide = lk_cpu_detect() & (LK_CPU_AVX512 | LK_CPU_AVX2);
    return shape && wide && x->type == LK_TYPE_F32 && e->options.precision == LK_PRECISION_F32;
}

size_t lk_winograd_bytes(lk_type type, size_t in, size_t out)
{
    return way_of(type).points * in * out * way_of(type).bytes;
}

/* The transform of one 3x3 kernel: [points]. */
static void transform_kernel(size_t side, const float *w, float *points)
{
    static const double four[6][3] = {{1 / 4.0, 0, 0},
                                      {-1 / 6.0, -1 / 6.0, -1 / 6.0},
                                      {-1 / 6.0, 1 / 6.0, -1 / 6.0},
                                      {1 / 24.0, 1 / 12.0, 1 / 6.0},
                                      {1 / 24.0, -1 / 12.0, 1 / 6.0},
                                      {0, 0, 1}};
    static const double two[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
    const double(*g)[3] = side == 2 ? two : four;
    size_t n = side + 2;
    double t[6][3];
    for (size_t r = 0; r < n; r++)
        for (size_t k = 0; k < 3; k++)
            t[r][k] = g[r][0] * (double)w[k] + g[r][1] * (double)w[3 + k] + g[r][2] * (double)w[6 + k];
    for (size_t r = 0; r < n; r++)
        for (size_t k = 0; k < n; k++)
            points[n * r + k] = (float)(g[k][0] * t[r][0] + g[k][1] * t[r][1] + g[k][2] * t[r][2]);
}

void lk_winograd_weights(const lk_nn_kernels *kernels, lk_type type, const float *weights, size_t in, size_t out,
                         void *packed)
{
    way w = way_of(type);
    float points[36];
    uint16_t halves[36];
    for (size_t o = 0; o < out; o++) {
        for (size_t i = 0; i < in; i++) {
            transform_kernel((size_t)w.side, weights + (o * in + i) * 9, points);
            if (type == LK_TYPE_BF16) kernels->store(type, 1, points, w.points, halves);
            for (size_t p = 0; p < w.points; p++) {
                size_t panel = (p * (out / PANEL) + o / PANEL) * in * PANEL;
                if (type == LK_TYPE_BF16)
                    ((uint16_t *)packed)[panel + (i / 2 * PANEL + o % PANEL) * 2 + i % 2] = halves[p];
                else
                    ((float *)packed)[panel + i * PANEL + o % PANEL] = points[p];
            }
        }
    }
}

/* Work of one thread on one block of tiles. */
typedef struct winograd_job {
    lk_executor *e;
    lk_step *step;
    way way;
    size_t in, out, across, down, all, blocks, slots; /* tiles of a row, of a column, of everything */
    size_t first, tiles;                              /* of this block */
    size_t in_step, out_step;                         /* numbers between the points */
    char *inputs, *zeros;
    float *products;
} winograd_job;

/* Points lie a little more than the tiles apart: else they would all fall into the same few lines of the cache. */
static void sizes(winograd_job *j, const lk_view *x, const lk_view *y)
{
    j->way = way_of(x->type);
    j->in = (size_t)x->dims[1];
    j->out = (size_t)y->dims[1];
    j->across = (size_t)((y->dims[3] + j->way.side - 1) / j->way.side);
    j->down = (size_t)((y->dims[2] + j->way.side - 1) / j->way.side);
    j->all = (size_t)y->dims[0] * j->across * j->down;
    j->in_step = j->way.tiles * j->in + 64;
    j->out_step = j->way.tiles * j->out + 32;
}

static size_t slot_bytes(const winograd_job *j)
{
    size_t numbers = j->way.points * j->in_step + j->in;
    return (numbers * j->way.bytes + j->way.points * j->out_step * sizeof(float) + 127) / 128 * 128;
}

size_t lk_winograd_scratch(const lk_executor *e, const lk_step *step)
{
    winograd_job j;
    sizes(&j, &step->views[0], &step->call.y);
    return slot_bytes(&j) * (size_t)e->team.threads;
}

static void tile_place(const winograd_job *j, size_t tile, size_t *n, int64_t *ty, int64_t *tx)
{
    size_t per = j->across * j->down, at = (j->first + tile) % per;
    *n = (j->first + tile) / per;
    *ty = (int64_t)(at / j->across) * j->way.side;
    *tx = (int64_t)(at % j->across) * j->way.side;
}

static void transform_in(void *arg, size_t begin, size_t end)
{
    const winograd_job *j = arg;
    const lk_view *v = &j->step->views[0];
    const lk_conv *conv = &j->step->node->u.conv;
    const lk_nn_kernels *k = j->e->team.kernels;
    int64_t h = v->dims[2], w = v->dims[3];
    int span = (int)j->way.side + 2;
    size_t line = j->in * j->way.bytes; /* of a position */
    for (size_t tile = begin; tile < end; tile++) {
        size_t n;
        int64_t ty, tx;
        const void *taps[36];
        tile_place(j, tile, &n, &ty, &tx);
        ty -= conv->pad[0];
        tx -= conv->pad[1];
        const char *picture = (const char *)v->data + n * (size_t)(h * w) * line;
        for (int r = 0; r < span; r++) {
            bool row = ty + r >= 0 && ty + r < h;
            const char *at = picture + ((ty + r) * w + tx) * (int64_t)line;
            for (int i = 0; i < span; i++, at += line)
                taps[r * span + i] = row && tx + i >= 0 && tx + i < w ? at : j->zeros;
        }
        void *to = j->inputs + tile * j->in * j->way.bytes;
        if (j->way.side == 2)
            k->winograd2_in((const uint16_t *const *)taps, j->in, to, j->in_step);
        else
            k->winograd_in((const float *const *)taps, j->in, to, j->in_step);
    }
}

/* Items are (point, 64 outputs). */
static void multiply(void *arg, size_t begin, size_t end)
{
    const winograd_job *j = arg;
    const lk_nn_kernels *k = j->e->team.kernels;
    size_t panels = j->out / PANEL;
    for (size_t item = begin; item < end; item++) {
        size_t point = item / panels, panel = item % panels;
        const void *a = j->inputs + point * j->in_step * j->way.bytes;
        const void *b = (const char *)j->step->winograd.weights + item * j->in * PANEL * j->way.bytes;
        float *y = j->products + point * j->out_step + panel * PANEL;
        if (j->way.side == 2)
            k->product_bf16(a, j->in, j->tiles, b, j->in, 4, false, y, j->out);
        else
            k->product(a, j->in, j->tiles, b, j->in, 4, false, y, j->out);
    }
}

/* What follows the convolution, on some channels of one position; `at` is where they are in the result, and in what is
 * added (which may be the result's own memory, so it is read before the result is written). */
static void finish(const winograd_job *j, float *row, size_t at)
{
    const lk_nn_kernels *k = j->e->team.kernels;
    const lk_winograd *g = &j->step->winograd;
    const lk_view *y = &j->step->call.y;
    float other[CHANNELS];
    for (int i = 0; i < g->post_count; i++) {
        if (g->posts[i].kind == LK_POST_ACTIVATION) {
            k->activate(g->posts[i].activation, row, CHANNELS);
            continue;
        }
        const lk_view *v = &j->step->views[g->posts[i].value];
        k->load(v->type, v->scale, lk_view_at(v, at), CHANNELS, other);
        k->add(row, other, CHANNELS, row);
    }
    k->store(y->type, y->scale, row, CHANNELS, lk_view_at(y, at));
}

static void transform_out(void *arg, size_t begin, size_t end)
{
    const winograd_job *j = arg;
    const lk_winograd *g = &j->step->winograd;
    const lk_nn_kernels *k = j->e->team.kernels;
    const lk_view *v = &j->step->call.y;
    int64_t h = v->dims[2], w = v->dims[3], side = j->way.side;
    bool relu = g->post_count == 1 && g->posts[0].kind == LK_POST_ACTIVATION && g->posts[0].activation == LK_RELU;
    bool direct = side == 2 && (relu || g->post_count == 0);
    float rows[16][CHANNELS];
    for (size_t tile = begin; tile < end; tile++) {
        size_t n, at[16];
        int64_t ty, tx;
        bool inside[16];
        void *out[16];
        tile_place(j, tile, &n, &ty, &tx);
        for (int64_t r = 0, i = 0; r < side; r++) {
            for (int64_t q = 0; q < side; q++, i++) {
                inside[i] = ty + r < h && tx + q < w;
                at[i] = ((n * (size_t)h + (size_t)(ty + r)) * (size_t)w + (size_t)(tx + q)) * j->out;
                out[i] = !inside[i] ? NULL : direct ? (char *)v->data + at[i] * j->way.bytes : (char *)rows[i];
            }
        }
        const float *from = j->products + tile * j->out;
        if (direct) {
            k->winograd2_out(from, j->out_step, j->out, g->bias, relu, v->type, out);
            continue;
        }
        for (size_t c = 0; c < j->out; c += CHANNELS) {
            if (side == 2)
                k->winograd2_out(from + c, j->out_step, CHANNELS, g->bias + c, false, LK_TYPE_F32, out);
            else
                k->winograd_out(from + c, j->out_step, CHANNELS, g->bias + c, (float *const *)out);
            for (int i = 0; i < side * side; i++)
                if (inside[i]) finish(j, rows[i], at[i] + c);
        }
    }
}

static void use_slot(winograd_job *j, size_t slot)
{
    char *scratch = j->e->scratch + slot * slot_bytes(j);
    j->products = (float *)scratch;
    j->inputs = scratch + j->way.points * j->out_step * sizeof(float);
    j->zeros = j->inputs + j->way.points * j->in_step * j->way.bytes;
    memset(j->zeros, 0, j->in * j->way.bytes);
}

static void use_block(winograd_job *j, size_t block)
{
    j->first = j->all * block / j->blocks;
    j->tiles = j->all * (block + 1) / j->blocks - j->first;
}

/* Every slot has scratch of its own and does its share of the blocks. */
static void run_slots(void *arg, size_t begin, size_t end)
{
    for (size_t slot = begin; slot < end; slot++) {
        winograd_job j = *(const winograd_job *)arg;
        use_slot(&j, slot);
        for (size_t block = j.blocks * slot / j.slots; block < j.blocks * (slot + 1) / j.slots; block++) {
            use_block(&j, block);
            transform_in(&j, 0, j.tiles);
            multiply(&j, 0, j.way.points * (j.out / PANEL));
            transform_out(&j, 0, j.tiles);
        }
    }
}

void lk_winograd_run(lk_executor *e, lk_step *step)
{
    winograd_job j = {.e = e, .step = step};
    sizes(&j, &step->views[0], &step->call.y);
    j.slots = (size_t)e->team.threads < j.all ? (size_t)e->team.threads : j.all;
    j.blocks = (j.all + j.way.tiles - 1) / j.way.tiles;
    if (j.slots == 1 || j.blocks >= 4 * j.slots) {
        j.blocks = (j.blocks + j.slots - 1) / j.slots * j.slots;
        lk_team_for(&e->team, j.slots, 1u << 20, run_slots, &j);
        return;
    }
    /* Few tiles and many weights: the threads share every block, so that each reads its part of the weights alone. */
    use_slot(&j, 0);
    for (size_t block = 0; block < j.blocks; block++) {
        use_block(&j, block);
        lk_team_for(&e->team, j.tiles, j.way.points * j.in * 4, transform_in, &j);
        lk_team_for(&e->team, j.way.points * (j.out / PANEL), PANEL * j.in * j.tiles, multiply, &j);
        lk_team_for(&e->team, j.tiles, j.way.points * j.out * 4, transform_out, &j);
    }
}
