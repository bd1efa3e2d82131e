/* Batch norm (Ioffe & Szegedy, 2015): y = (x - m) r w + b with r = 1/sqrt(v + eps), per channel; m and v of the batch
 * in training (v without Bessel's correction; the running variance takes it with), the running ones otherwise. Backward
 * with n elements per channel and xh = (x - m) r: gw += sum gy xh, gb += sum gy, gx += w r (gy - sum gy / n - xh sum(gy
 * xh) / n), without the two means when the running statistics were used. In training together with other processes the
 * sums are those of all of them.
 *
 * Training is f32, channels last: a matrix [rows][channels]. Its rows lie in parts, as many whatever the number of
 * threads, so that sums have one order. saved: m, r [C]. */
#include "nn/op.h"

#include <math.h>
#include <string.h>

enum { MOST_PARTS = 32, PART_ROWS = 64 };

typedef struct job {
    lk_call *call;
    size_t channels, rows, parts;
    float *factor, *offset, *linear[3]; /* [C]; y = x factor + offset, gx = gy linear[0] + x linear[1] + linear[2] */
    double *sums, *partial;             /* two sums [C]; [parts][2][C] */
} job;

static job job_of(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    job j = {.call = c, .channels = g.blocks * g.block, .rows = g.batch * g.positions};
    j.parts = j.rows / PART_ROWS < 1 ? 1 : j.rows / PART_ROWS > MOST_PARTS ? MOST_PARTS : j.rows / PART_ROWS;
    j.factor = c->scratch;
    j.offset = j.factor + j.channels;
    for (int i = 0; i < 3; i++) j.linear[i] = j.offset + (size_t)(1 + i) * j.channels;
    j.sums = (double *)(void *)(j.offset + 5 * j.channels);
    j.partial = j.sums + 2 * j.channels;
    return j;
}

static size_t batch_norm_saved(const lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    return 2 * sizeof(float) * g.blocks * g.block;
}

static size_t batch_norm_scratch(const lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    size_t channels = g.blocks * g.block;
    return c->saved ? (6 + 2 * (2 + 2 * MOST_PARTS)) * channels : 2 * channels;
}

static size_t begin_of(const job *j, size_t part)
{
    return j->rows * part / j->parts;
}

/* sums = those of the parts. */
static void add_parts(const job *j)
{
    size_t n = 2 * j->channels;
    memcpy(j->sums, j->partial, n * sizeof *j->sums);
    for (size_t p = 1; p < j->parts; p++)
        for (size_t i = 0; i < n; i++) j->sums[i] += j->partial[p * n + i];
}

/* ---- forward ---- */

static void moments_piece(void *arg, size_t begin, size_t end)
{
    const job *j = arg;
    const float *shift = j->call->saved, *x = j->call->x->data;
    for (size_t p = begin; p < end; p++) {
        size_t first = begin_of(j, p);
        double *sum = j->partial + 2 * p * j->channels;
        j->call->team->kernels->column_moments(x + first * j->channels, begin_of(j, p + 1) - first, j->channels, shift,
                                               sum, sum + j->channels);
    }
}

static lk_status sum_together(const lk_call *c, double *values, size_t n)
{
    return c->together ? c->together->sum(c->together->user, values, n) : LK_OK;
}

/* Sums are of the distances to the mean of the first rows, so that no large mean hides a small variance. */
static lk_status batch_statistics(job *j)
{
    lk_call *c = j->call;
    size_t n = j->channels, few = j->rows < PART_ROWS ? j->rows : PART_ROWS;
    float *mean = c->saved, *rstd = mean + n, *shift = mean;
    double all = (double)j->rows * (c->together ? c->together->processes : 1), rows = (double)j->rows;
    double *sum = j->sums, *square = j->sums + n, *apart = j->partial;
    lk_status s;
    memset(shift, 0, n * sizeof *shift);
    c->team->kernels->column_moments(c->x->data, few, n, shift, sum, square);
    for (size_t i = 0; i < n; i++) shift[i] = (float)(sum[i] / (double)few);
    lk_team_for(c->team, j->parts, 2 * n * j->rows / j->parts, moments_piece, j);
    add_parts(j);
    for (size_t i = 0; i < n; i++) apart[i] = sum[i] + rows * (double)shift[i];
    LK_TRY(sum_together(c, apart, n));
    for (size_t i = 0; i < n; i++) {
        double m = apart[i] / all, d = m - (double)shift[i];
        square[i] += d * (rows * d - 2 * sum[i]);
        mean[i] = (float)m;
    }
    LK_TRY(sum_together(c, square, n));
    for (size_t i = 0; i < n; i++) {
        double squares = square[i] > 0 ? square[i] : 0;
        rstd[i] = (float)(1 / sqrt(squares / all + (double)c->node->eps));
        if (!c->statistics[0]) continue;
        float m = c->node->momentum, *running = c->statistics[0] + i, *variance = c->statistics[1] + i;
        *running += m * (mean[i] - *running);
        *variance += m * ((float)(squares / (all > 1 ? all - 1 : 1)) - *variance);
    }
done:
    return s;
}

/* Items are positions of any layout and type: inference. */
static void convert_piece(void *arg, size_t begin, size_t end)
{
    const job *j = arg;
    lk_call *c = j->call;
    lk_grid g = lk_grid_of(&c->y);
    float v[LK_RUN];
    for (size_t item = begin; item < end; item++) {
        size_t channel = item / g.positions % g.blocks * g.block;
        for (size_t k = 0; k < g.block; k += LK_RUN) {
            size_t n = g.block - k < LK_RUN ? g.block - k : LK_RUN;
            lk_get(c, c->x, item * g.block + k, n, v);
            c->team->kernels->affine(v, j->factor + channel + k, j->offset + channel + k, 1, n, false, v);
            lk_set(c, &c->y, item * g.block + k, n, v);
        }
    }
}

static void affine_piece(void *arg, size_t begin, size_t end)
{
    const job *j = arg;
    const lk_call *c = j->call;
    size_t at = begin * j->channels;
    c->team->kernels->affine((const float *)c->x->data + at, j->factor, j->offset, end - begin, j->channels, c->relu,
                             (float *)c->y.data + at);
}

/* factor and offset from the statistics in use. */
static void set_affine(const job *j, const float *mean, const float *rstd)
{
    const lk_call *c = j->call;
    for (size_t i = 0; i < j->channels; i++) {
        j->factor[i] = rstd[i] * c->p[0][i];
        j->offset[i] = c->p[1][i] - mean[i] * j->factor[i];
    }
}

static lk_status batch_norm_forward(lk_call *c)
{
    job j = job_of(c);
    lk_grid g = lk_grid_of(&c->y);
    float *mean = c->saved ? c->saved : j.offset, *rstd = c->saved ? mean + j.channels : j.factor;
    if (c->train) {
        if (j.rows * (c->together ? (size_t)c->together->processes : 1) == 1)
            return lk_fail(LK_INVALID, "%s: one value per channel has no variance to train with", c->node->name);
        lk_status s = batch_statistics(&j);
        if (s != LK_OK) return s;
    } else {
        for (size_t i = 0; i < j.channels; i++) {
            mean[i] = c->p[2][i];
            rstd[i] = 1 / sqrtf(c->p[3][i] + c->node->eps);
        }
    }
    set_affine(&j, mean, rstd);
    if (c->saved)
        lk_team_for(c->team, j.rows, 2 * j.channels, affine_piece, &j);
    else
        lk_team_for(c->team, j.rows * g.blocks, g.block, convert_piece, &j);
    return LK_OK;
}

/* ---- backward ---- */

static void products_piece(void *arg, size_t begin, size_t end)
{
    const job *j = arg;
    const lk_call *c = j->call;
    const float *mean = c->saved, *x = c->x->data;
    for (size_t p = begin; p < end; p++) {
        size_t first = begin_of(j, p), at = first * j->channels;
        double *sum = j->partial + 2 * p * j->channels;
        c->team->kernels->column_products(x + at, c->gy + at, begin_of(j, p + 1) - first, j->channels, mean,
                                          mean + j->channels, c->relu ? j->factor : NULL, sum, sum + j->channels);
    }
}

static void update_piece(void *arg, size_t begin, size_t end)
{
    const job *j = arg;
    const lk_call *c = j->call;
    size_t at = begin * j->channels;
    c->team->kernels->column_update((const float *)c->x->data + at, c->gy + at, end - begin, j->channels, j->linear[0],
                                    j->linear[1], j->linear[2], c->relu ? j->factor : NULL, c->write[0], c->gx[0] + at);
}

/* gx += w r (gy - s - xh p) is a gy + b x + c with a = w r, b = -w r^2 p, c = -a s - b m. */
static void set_linear(const job *j)
{
    const lk_call *c = j->call;
    const float *mean = c->saved, *rstd = mean + j->channels;
    double all = (double)j->rows * (c->together ? c->together->processes : 1), share = c->train ? 1 / all : 0;
    for (size_t i = 0; i < j->channels; i++) {
        double scale = (double)c->p[0][i] * (double)rstd[i];
        double slope = -scale * (double)rstd[i] * j->sums[j->channels + i] * share;
        j->linear[0][i] = (float)scale;
        j->linear[1][i] = (float)slope;
        j->linear[2][i] = (float)(-scale * j->sums[i] * share - slope * (double)mean[i]);
    }
}

static lk_status batch_norm_backward(lk_call *c)
{
    job j = job_of(c);
    const float *mean = c->saved;
    lk_status s = LK_OK;
    set_affine(&j, mean, mean + j.channels);
    lk_team_for(c->team, j.parts, 4 * j.channels * j.rows / j.parts, products_piece, &j);
    add_parts(&j);
    for (size_t i = 0; i < j.channels; i++) { /* of these rows alone: whoever trains together adds gradients up */
        if (c->gp[0]) c->gp[0][i] += (float)j.sums[j.channels + i];
        if (c->gp[1]) c->gp[1][i] += (float)j.sums[i];
    }
    if (c->train) s = sum_together(c, j.sums, 2 * j.channels);
    if (s != LK_OK || !c->gx[0]) return s;
    set_linear(&j);
    lk_team_for(c->team, j.rows, 4 * j.channels, update_piece, &j);
    return LK_OK;
}

const lk_operator lk_operator_batch_norm = {batch_norm_forward, batch_norm_backward, batch_norm_saved,
                                            batch_norm_scratch};
