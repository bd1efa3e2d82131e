/* Operators that go element by element: activations, sums, products, scales, dropout. */
#include "base/random.h"
#include "nn/op.h"

#include <string.h>

/* Activation: y = f(x); gx += gy f'(x). ------------------------------------------------------------------------ */

static void activation_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    float v[LK_RUN];
    for (size_t i = begin; i < end; i += LK_RUN) {
        size_t n = end - i < LK_RUN ? end - i : LK_RUN;
        lk_get(c, c->x, i, n, v);
        c->team->kernels->activate(c->node->u.activation, v, n);
        lk_set(c, &c->y, i, n, v);
    }
}

static lk_status activation_forward(lk_call *c)
{
    lk_team_for(c->team, lk_view_elements(&c->y), 10, activation_piece, c);
    return LK_OK;
}

static void activation_gradient_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    for (size_t i = begin; i < end; i += LK_RUN) {
        size_t n = end - i < LK_RUN ? end - i : LK_RUN;
        if (c->write[0]) memset(c->gx[0] + i, 0, n * sizeof(float));
        c->team->kernels->activate_gradient(c->node->u.activation, (const float *)c->x->data + i, c->gy + i, n,
                                            c->gx[0] + i);
    }
}

static lk_status activation_backward(lk_call *c)
{
    if (c->gx[0]) lk_team_for(c->team, lk_view_elements(&c->y), 10, activation_gradient_piece, c);
    return LK_OK;
}

const lk_operator lk_operator_activation = {activation_forward, activation_backward, NULL, NULL};

/* Sums and products with broadcasting. The common forms go in whole runs, the rest by strides. ------------------ */

typedef enum form {
    FORM_SAME,    /* b as a */
    FORM_BATCH,   /* b has one row for all */
    FORM_GATE,    /* b has a number per row and channel: [N, C] or [N, C, 1, 1] beside [N, C, H, W], [N, 1, C] beside
                     tokens */
    FORM_CHANNEL, /* b has a number per channel */
    FORM_STRIDED
} form;

static form form_of(const lk_view *a, const lk_view *b, const lk_view *y)
{
    lk_grid ga = lk_grid_of(a), gb = lk_grid_of(b), gy = lk_grid_of(y);
    if (memcmp(&ga, &gy, sizeof ga) != 0) return FORM_STRIDED;
    bool one = gb.batch == 1 && ga.batch != 1;
    size_t channels = ga.blocks * ga.block, elements = gb.blocks * gb.positions * gb.block;
    bool alike = gb.blocks == ga.blocks && gb.block == ga.block && gb.positions == ga.positions;
    if (alike && a->rank == b->rank) return one ? FORM_BATCH : gb.batch == ga.batch ? FORM_SAME : FORM_STRIDED;
    if (a->rank == 4 && !a->block) return FORM_STRIDED;
    /* numbers per channel must lie one after another, and be of the last dimension (of dimension 1 in pictures) */
    bool last = a->rank == 4 ? (b->rank == 2 || (b->rank == 4 && b->dims[2] == 1 && b->dims[3] == 1) ||
                                (b->rank == 3 && b->dims[1] == 1 && b->dims[2] == 1))
                             : b->dims[b->rank - 1] == a->dims[a->rank - 1];
    if (!last || elements * (b->rank == 3 && a->rank == 4 ? gb.batch : 1) != channels) {
        /* a parameter [C] has its channels where the batch would be */
        return b->rank == 1 && a->rank != 4 && (size_t)b->dims[0] == channels ? FORM_CHANNEL : FORM_STRIDED;
    }
    if (b->rank == 3 && a->rank == 4) return FORM_CHANNEL; /* parameter [C, 1, 1] */
    if (gb.batch == 1) return FORM_CHANNEL;
    return gb.batch == ga.batch && (a->rank == 4 || b->rank == a->rank) ? FORM_GATE : FORM_STRIDED;
}

typedef struct binary_job {
    lk_call *call;
    const lk_view *a, *b; /* b is the one that is repeated */
    form form;
    bool multiply;
    lk_grid grid;
} binary_job;

static void combine(const binary_job *job, float *a, const float *b, size_t n)
{
    const lk_nn_kernels *k = job->call->team->kernels;
    if (job->multiply)
        k->multiply(a, b, n, a);
    else
        k->add(a, b, n, a);
}

/* Positions of a run: so many runs that threads have about as many positions each. */
static size_t run_of(size_t positions)
{
    enum { MOST = 64, RUNS = 8 };
    size_t n = positions / RUNS;
    return n > MOST ? MOST : n ? n : 1;
}

/* Positions `first` and `count` - 1 more of one (row, block): count x block numbers. */
static void binary_run(binary_job *job, size_t plane, size_t first, size_t count)
{
    lk_call *c = job->call;
    lk_grid g = job->grid;
    size_t row = plane / g.blocks, block = plane % g.blocks, at = (plane * g.positions + first) * g.block;
    size_t from = (job->form == FORM_GATE ? row * g.blocks : 0) * g.block + block * g.block;
    float v[LK_RUN], w[LK_RUN];
    if (job->form == FORM_SAME || job->form == FORM_BATCH) {
        size_t span = count * g.block;
        from = job->form == FORM_SAME ? at : (block * g.positions + first) * g.block;
        for (size_t i = 0; i < span; i += LK_RUN) {
            size_t n = span - i < LK_RUN ? span - i : LK_RUN;
            lk_get(c, job->a, at + i, n, v);
            lk_get(c, job->b, from + i, n, w);
            combine(job, v, w, n);
            lk_set(c, &c->y, at + i, n, v);
        }
        return;
    }
    for (size_t j = 0; j < g.block; j += LK_RUN) {
        size_t n = g.block - j < LK_RUN ? g.block - j : LK_RUN;
        lk_get(c, job->b, from + j, n, w);
        if (job->multiply && n == g.block && n >= 16) {
            c->team->kernels->gate_rows(job->a->type, job->a->scale, lk_view_at(job->a, at), w, count, n, c->y.type,
                                        c->y.scale, lk_view_at(&c->y, at));
            continue;
        }
        size_t rows = n == g.block ? LK_RUN / n : 1; /* short blocks: several positions in one run */
        if (rows > count) rows = count;
        for (size_t r = 1; r < rows; r++) memcpy(w + r * n, w, n * sizeof *w);
        for (size_t p = 0; p < count; p += rows) {
            size_t m = (count - p < rows ? count - p : rows) * n;
            lk_get(c, job->a, at + p * g.block + j, m, v);
            combine(job, v, w, m);
            lk_set(c, &c->y, at + p * g.block + j, m, v);
        }
    }
}

/* Items are runs of positions of (row, block) pairs. */
static void binary_piece(void *arg, size_t begin, size_t end)
{
    binary_job *job = arg;
    size_t positions = job->grid.positions, run = run_of(positions), runs = (positions + run - 1) / run;
    for (size_t item = begin; item < end; item++) {
        size_t first = item % runs * run, left = positions - first;
        binary_run(job, item / runs, first, left < run ? left : run);
    }
}

/* Strides of x as it is repeated over y's dimensions. */
static void repeated_strides(const lk_view *x, const lk_view *y, int64_t out[LK_MAX_DIMS])
{
    int64_t strides[LK_MAX_DIMS];
    lk_view_strides(x, strides);
    bool gate = x->rank == 2 && y->rank == 4;
    for (int i = 0; i < y->rank; i++) {
        int from = gate ? i : i - (y->rank - x->rank);
        out[i] = from < 0 || from >= x->rank || x->dims[from] == 1 ? 0 : strides[from];
    }
}

static size_t strided_at(const lk_view *y, const int64_t strides[LK_MAX_DIMS], size_t element)
{
    size_t at = 0;
    for (int d = y->rank - 1; d >= 0; d--) {
        at += (element % (size_t)y->dims[d]) * (size_t)strides[d];
        element /= (size_t)y->dims[d];
    }
    return at;
}

static void binary_strided_piece(void *arg, size_t begin, size_t end)
{
    binary_job *job = arg;
    lk_call *c = job->call;
    int64_t sa[LK_MAX_DIMS], sb[LK_MAX_DIMS], sy[LK_MAX_DIMS];
    repeated_strides(job->a, &c->y, sa);
    repeated_strides(job->b, &c->y, sb);
    lk_view_strides(&c->y, sy);
    for (size_t i = begin; i < end; i++) {
        float a, b;
        lk_get(c, job->a, strided_at(&c->y, sa, i), 1, &a);
        lk_get(c, job->b, strided_at(&c->y, sb, i), 1, &b);
        combine(job, &a, &b, 1);
        lk_set(c, &c->y, strided_at(&c->y, sy, i), 1, &a);
    }
}

/* Items are numbers that lie alike: training. */
static void add_alike_piece(void *arg, size_t begin, size_t end)
{
    const lk_call *c = arg;
    const lk_nn_kernels *k = c->team->kernels;
    float *y = c->y.data;
    for (size_t i = begin; i < end; i += LK_RUN) {
        size_t n = end - i < LK_RUN ? end - i : LK_RUN;
        k->add((const float *)c->x[0].data + i, (const float *)c->x[1].data + i, n, y + i);
        if (c->relu) k->activate(LK_RELU, y + i, n);
    }
}

static lk_status binary_forward(lk_call *c, bool multiply)
{
    binary_job job = {.call = c, .a = &c->x[0], .b = &c->x[1], .multiply = multiply, .grid = lk_grid_of(&c->y)};
    job.form = form_of(job.a, job.b, &c->y);
    if (job.form == FORM_STRIDED) { /* both operations commute */
        job.form = form_of(job.b, job.a, &c->y);
        if (job.form != FORM_STRIDED) {
            job.a = &c->x[1];
            job.b = &c->x[0];
        }
    }
    size_t run = run_of(job.grid.positions);
    if (job.form == FORM_STRIDED)
        lk_team_for(c->team, lk_view_elements(&c->y), 20, binary_strided_piece, &job);
    else
        lk_team_for(c->team, job.grid.batch * job.grid.blocks * ((job.grid.positions + run - 1) / run),
                    run * job.grid.block, binary_piece, &job);
    return LK_OK;
}

bool lk_add_alike(const lk_call *c)
{
    bool floats = c->x[0].type == LK_TYPE_F32 && c->x[1].type == LK_TYPE_F32 && c->y.type == LK_TYPE_F32;
    return floats && form_of(&c->x[0], &c->x[1], &c->y) == FORM_SAME;
}

static lk_status add_forward(lk_call *c)
{
    if (lk_add_alike(c)) {
        lk_team_for(c->team, lk_view_elements(&c->y), 2, add_alike_piece, c);
        return LK_OK;
    }
    return binary_forward(c, false);
}

static lk_status multiply_forward(lk_call *c)
{
    return binary_forward(c, true);
}

/* Gradient of input i: the sum over its repetitions of gy (times the other input). Same shapes go in parallel; repeated
 * inputs are summed in one fixed order. */
typedef struct binary_gradient {
    lk_call *call;
    int input;
    bool multiply;
} binary_gradient;

static void binary_gradient_piece(void *arg, size_t begin, size_t end)
{
    binary_gradient *job = arg;
    lk_call *c = job->call;
    float *gx = c->gx[job->input] + begin;
    if (job->multiply)
        c->team->kernels->multiply_add(c->gy + begin, (const float *)c->x[!job->input].data + begin, end - begin, gx);
    else
        c->team->kernels->add(gx, c->gy + begin, end - begin, gx);
}

static lk_status binary_backward(lk_call *c, bool multiply)
{
    for (int i = 0; i < 2; i++) {
        if (!c->gx[i]) continue;
        const lk_view *x = &c->x[i], *other = &c->x[!i];
        size_t n = lk_view_elements(&c->y);
        if (form_of(x, other, &c->y) == FORM_SAME) {
            binary_gradient job = {c, i, multiply};
            lk_team_for(c->team, n, 2, binary_gradient_piece, &job);
            continue;
        }
        int64_t sx[LK_MAX_DIMS], so[LK_MAX_DIMS], sy[LK_MAX_DIMS];
        repeated_strides(x, &c->y, sx);
        repeated_strides(other, &c->y, so);
        lk_view_strides(&c->y, sy);
        const lk_view *y = &c->y;
        int last = y->rank == 4 && y->block > 1 ? 1 : y->rank - 1; /* the dimension that lies without gaps */
        int64_t inner = y->dims[last];
        lk_view outer = *y;
        outer.dims[last] = 1;
        for (size_t o = 0; o < n / (size_t)inner; o++) {
            const float *gy = c->gy + strided_at(&outer, sy, o);
            const float *by = (const float *)other->data + strided_at(&outer, so, o);
            float *gx = c->gx[i] + strided_at(&outer, sx, o);
            for (int64_t j = 0; j < inner; j++)
                gx[j * sx[last]] += gy[j * sy[last]] * (multiply ? by[j * so[last]] : 1);
        }
    }
    return LK_OK;
}

/* The gradient of a ReLU behind is made in its place; an input may share it. */
static void add_gradient_piece(void *arg, size_t begin, size_t end)
{
    const lk_call *c = arg;
    const lk_nn_kernels *k = c->team->kernels;
    for (size_t i = begin; i < end; i += LK_RUN) {
        size_t n = end - i < LK_RUN ? end - i : LK_RUN;
        float *gy = (float *)c->gy + i;
        if (c->relu) k->gate((const float *)c->y.data + i, n, gy);
        for (int in = 0; in < 2; in++) {
            float *gx = c->gx[in] && c->gx[in] != c->gy ? c->gx[in] + i : NULL;
            if (gx && c->write[in])
                memcpy(gx, gy, n * sizeof *gx);
            else if (gx)
                k->add(gx, gy, n, gx);
        }
    }
}

static lk_status add_backward(lk_call *c)
{
    if (!lk_add_alike(c)) return binary_backward(c, false);
    lk_team_for(c->team, lk_view_elements(&c->y), 4, add_gradient_piece, c);
    return LK_OK;
}

static lk_status multiply_backward(lk_call *c)
{
    return binary_backward(c, true);
}

const lk_operator lk_operator_add = {add_forward, add_backward, NULL, NULL};
const lk_operator lk_operator_multiply = {multiply_forward, multiply_backward, NULL, NULL};

/* y = x * p[c]; gx += gy p, gp += sum of gy x. ------------------------------------------------------------------ */

static void scale_piece(void *arg, size_t begin, size_t end)
{
    lk_call *c = arg;
    lk_grid g = lk_grid_of(&c->y);
    float v[LK_RUN];
    for (size_t item = begin; item < end; item++) {
        const float *p = c->p[0] + item / g.positions % g.blocks * g.block;
        for (size_t j = 0; j < g.block; j += LK_RUN) {
            size_t n = g.block - j < LK_RUN ? g.block - j : LK_RUN;
            lk_get(c, c->x, item * g.block + j, n, v);
            c->team->kernels->multiply(v, p + j, n, v);
            lk_set(c, &c->y, item * g.block + j, n, v);
        }
    }
}

static lk_status scale_forward(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    lk_team_for(c->team, g.batch * g.blocks * g.positions, g.block, scale_piece, c);
    return LK_OK;
}

static lk_status scale_backward(lk_call *c)
{
    lk_grid g = lk_grid_of(&c->y);
    const lk_nn_kernels *k = c->team->kernels;
    for (size_t item = 0; item < g.batch * g.blocks * g.positions; item++) {
        size_t channel = item / g.positions % g.blocks * g.block, at = item * g.block;
        if (c->gx[0]) k->multiply_add(c->gy + at, c->p[0] + channel, g.block, c->gx[0] + at);
        if (c->gp[0]) k->multiply_add(c->gy + at, (const float *)c->x->data + at, g.block, c->gp[0] + channel);
    }
    return LK_OK;
}

const lk_operator lk_operator_scale = {scale_forward, scale_backward, NULL, NULL};

/* y = a x. ------------------------------------------------------------------------------------------------------- */

static lk_status scale_by_forward(lk_call *c)
{
    float v[LK_RUN];
    size_t count = lk_view_elements(&c->y);
    for (size_t i = 0; i < count; i += LK_RUN) {
        size_t n = count - i < LK_RUN ? count - i : LK_RUN;
        lk_get(c, c->x, i, n, v);
        c->team->kernels->scale(c->node->factor, v, n, v);
        lk_set(c, &c->y, i, n, v);
    }
    return LK_OK;
}

static lk_status scale_by_backward(lk_call *c)
{
    if (c->gx[0]) c->team->kernels->axpy(c->node->factor, c->gy, lk_view_elements(&c->y), c->gx[0]);
    return LK_OK;
}

const lk_operator lk_operator_scale_by = {scale_by_forward, scale_by_backward, NULL, NULL};

/* Dropout: what is kept is drawn again in backward from the same seed, so no mask is stored. ---------------------- */

static float keep_or_drop(uint64_t seed, uint64_t i, float p)
{
    /* splitmix64 of (seed, i): independent of the order of asking */
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (float)(z >> 40) * 0x1p-24f < p ? 0 : 1 / (1 - p);
}

/* Items are elements, or whole rows of the batch for drop_path. */
static void drop_each(lk_call *c, bool backward)
{
    size_t n = lk_view_elements(&c->y), row = c->node->op == LK_OP_DROP_PATH ? n / (size_t)c->y.dims[0] : 1;
    const float *from = backward ? c->gy : c->x->data;
    float *to = backward ? c->gx[0] : c->y.data;
    if (!to) return;
    for (size_t i = 0; i < n; i += row) {
        float factor = c->train ? keep_or_drop(c->seed, i / row, c->node->factor) : 1;
        for (size_t j = i; j < i + row; j++) to[j] = (backward ? to[j] : 0) + factor * from[j];
    }
}

static lk_status drop_forward(lk_call *c)
{
    drop_each(c, false);
    return LK_OK;
}

static lk_status drop_backward(lk_call *c)
{
    drop_each(c, true);
    return LK_OK;
}

const lk_operator lk_operator_dropout = {drop_forward, drop_backward, NULL, NULL};
const lk_operator lk_operator_drop_path = {drop_forward, drop_backward, NULL, NULL};
