/* 3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin & Gray, 2016).
 *
 * The picture is cut into tiles of 4x4 results. A tile's 6x6 inputs d and the weights g are transformed, multiplied as
 * 36 independent products over the channels, and transformed back: y = A^T [ sum over channels of (G g G^T) * (B^T d B)
 * ] A In f32 alone: the transforms cost two or three bits, which bf16 does not have. */
#include "base/memory.h"
#include "nn/executor.h"

#include <string.h>

enum { POINTS = 36, TILES = 24 }; /* tiles multiplied at a time: the weights are read once for them */

bool lk_winograd_fits(const lk_executor *e, const lk_conv *c, const lk_view *x)
{
    if (x->type != LK_TYPE_F32 || x->rank != 4 || e->options.precision != LK_PRECISION_F32) return false;
    if (!(lk_cpu_detect() & (LK_CPU_AVX512 | LK_CPU_AVX2))) return false;
    bool shape = c->groups == 1 && c->kernel[0] == 3 && c->kernel[1] == 3 && c->stride[0] == 1 && c->stride[1] == 1 &&
                 c->dilation[0] == 1 && c->dilation[1] == 1 && c->pad[0] <= 1 && c->pad[1] <= 1;
    /* Fewer than 3x3 tiles a picture would read more weights than they save work. */
    return shape && x->dims[1] % 16 == 0 && x->dims[1] >= 32 && c->out % 64 == 0 && x->dims[2] >= 12 &&
           x->dims[3] >= 12;
}

void lk_winograd_weights(const float *weights, size_t in, size_t out, float *packed)
{
    static const double g[6][3] = {{1 / 4.0, 0, 0},
                                   {-1 / 6.0, -1 / 6.0, -1 / 6.0},
                                   {-1 / 6.0, 1 / 6.0, -1 / 6.0},
                                   {1 / 24.0, 1 / 12.0, 1 / 6.0},
                                   {1 / 24.0, -1 / 12.0, 1 / 6.0},
                                   {0, 0, 1}};
    for (size_t o = 0; o < out; o++) {
        for (size_t i = 0; i < in; i++) {
            const float *w = weights + (o * in + i) * 9;
            double t[6][3];
            for (int r = 0; r < 6; r++)
                for (int k = 0; k < 3; k++)
                    t[r][k] = g[r][0] * (double)w[k] + g[r][1] * (double)w[3 + k] + g[r][2] * (double)w[6 + k];
            for (int r = 0; r < 6; r++)
                for (int k = 0; k < 6; k++)
                    packed[((size_t)(6 * r + k) * (out / 64) + o / 64) * in * 64 + i * 64 + o % 64] =
                        (float)(g[k][0] * t[r][0] + g[k][1] * t[r][1] + g[k][2] * t[r][2]);
        }
    }
}

typedef struct winograd_job {
    lk_executor *e;
    lk_step *step;
    const lk_conv *conv;
    lk_view x, y;
    size_t in, out, across, down, first, tiles; /* tiles of a row and of a column; of this block */
    float *inputs, *products, *zeros;
} winograd_job;

size_t lk_winograd_scratch(const lk_step *step)
{
    size_t in = (size_t)step->views[0].dims[1], out = (size_t)step->call.y.dims[1];
    return (POINTS * TILES * (in + out) + in) * sizeof(float);
}

static void tile_place(const winograd_job *j, size_t tile, size_t *n, int64_t *ty, int64_t *tx)
{
    size_t per = j->across * j->down, at = (j->first + tile) % per;
    *n = (j->first + tile) / per;
    *ty = (int64_t)(at / j->across) * 4;
    *tx = (int64_t)(at % j->across) * 4;
}

static void transform_in(void *arg, size_t begin, size_t end)
{
    const winograd_job *j = arg;
    int64_t h = j->x.dims[2], w = j->x.dims[3];
    for (size_t tile = begin; tile < end; tile++) {
        size_t n;
        int64_t ty, tx;
        const float *taps[POINTS];
        tile_place(j, tile, &n, &ty, &tx);
        ty -= j->conv->pad[0];
        tx -= j->conv->pad[1];
        for (int k = 0; k < POINTS; k++) {
            int64_t y = ty + k / 6, x = tx + k % 6;
            bool inside = y >= 0 && y < h && x >= 0 && x < w;
            taps[k] = inside ? (const float *)j->x.data + ((n * (size_t)h + (size_t)y) * (size_t)w + (size_t)x) * j->in
                             : j->zeros;
        }
        j->e->team.kernels->winograd_in(taps, j->in, j->inputs + tile * j->in, TILES * j->in);
    }
}

/* Items are (point, 64 outputs). */
static void multiply(void *arg, size_t begin, size_t end)
{
    const winograd_job *j = arg;
    size_t panels = j->out / 64;
    for (size_t item = begin; item < end; item++) {
        size_t point = item / panels, panel = item % panels;
        j->e->team.kernels->product64(j->inputs + point * TILES * j->in, j->in, j->tiles,
                                      j->step->winograd.weights + item * j->in * 64, j->in,
                                      j->products + point * TILES * j->out + panel * 64, j->out);
    }
}

enum { CHANNELS = 64 };

/* What follows the convolution, on some channels of one position; `at` is where they are in the result, and in what is
 * added (which may be the result's own memory, so it is read before the result is written). */
static void finish(const winograd_job *j, float *row, size_t at)
{
    const lk_nn_kernels *k = j->e->team.kernels;
    const lk_winograd *g = &j->step->winograd;
    for (int i = 0; i < g->post_count; i++) {
        if (g->posts[i].kind == LK_POST_ACTIVATION)
            k->activate(g->posts[i].activation, row, CHANNELS);
        else
            k->add(row, (const float *)j->step->views[g->posts[i].value].data + at, CHANNELS, row);
    }
    memcpy((float *)j->y.data + at, row, CHANNELS * sizeof *row);
}

static void transform_out(void *arg, size_t begin, size_t end)
{
    const winograd_job *j = arg;
    int64_t h = j->y.dims[2], w = j->y.dims[3];
    float rows[16][CHANNELS];
    for (size_t tile = begin; tile < end; tile++) {
        size_t n, at[16];
        int64_t ty, tx;
        float *out[16];
        tile_place(j, tile, &n, &ty, &tx);
        for (int k = 0; k < 16; k++) {
            int64_t y = ty + k / 4, x = tx + k % 4;
            out[k] = y < h && x < w ? rows[k] : NULL;
            at[k] = ((n * (size_t)h + (size_t)y) * (size_t)w + (size_t)x) * j->out;
        }
        for (size_t c = 0; c < j->out; c += CHANNELS) {
            j->e->team.kernels->winograd_out(j->products + tile * j->out + c, TILES * j->out, CHANNELS,
                                             j->step->winograd.bias + c, out);
            for (int k = 0; k < 16; k++)
                if (out[k]) finish(j, rows[k], at[k] + c);
        }
    }
}

void lk_winograd_run(lk_executor *e, lk_step *step)
{
    winograd_job j = {.e = e, .step = step, .conv = &step->node->u.conv, .x = step->views[0], .y = step->call.y};
    j.in = (size_t)j.x.dims[1];
    j.out = (size_t)j.y.dims[1];
    j.across = ((size_t)j.y.dims[3] + 3) / 4;
    j.down = ((size_t)j.y.dims[2] + 3) / 4;
    j.inputs = (float *)e->scratch;
    j.products = j.inputs + POINTS * TILES * j.in;
    j.zeros = j.products + POINTS * TILES * j.out;
    memset(j.zeros, 0, j.in * sizeof *j.zeros);
    size_t all = (size_t)j.y.dims[0] * j.across * j.down;
    for (j.first = 0; j.first < all; j.first += TILES) {
        j.tiles = all - j.first < TILES ? all - j.first : TILES;
        lk_team_for(&e->team, j.tiles, POINTS * j.in * 4, transform_in, &j);
        lk_team_for(&e->team, POINTS * j.out / 64, 64 * j.in * j.tiles, multiply, &j);
        lk_team_for(&e->team, j.tiles, POINTS * j.out * 4, transform_out, &j);
    }
}
