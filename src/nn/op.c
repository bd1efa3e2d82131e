#include "nn/op.h"

#include <string.h>

lk_grid lk_grid_of(const lk_view *view)
{
    lk_grid g = {(size_t)view->dims[0], 1, 1, 1};
    if (view->rank == 4 && view->block) {
        g.block = (size_t)view->block;
        g.blocks = ((size_t)view->dims[1] + g.block - 1) / g.block;
        g.positions = (size_t)(view->dims[2] * view->dims[3]);
        return g;
    }
    for (int i = 1; i < view->rank - 1; i++) g.positions *= (size_t)view->dims[i];
    if (view->rank > 1) g.block = (size_t)view->dims[view->rank - 1];
    return g;
}

size_t lk_view_elements(const lk_view *view)
{
    lk_grid g = lk_grid_of(view);
    return g.batch * lk_grid_row(g);
}

size_t lk_view_bytes(const lk_view *view)
{
    return lk_view_elements(view) * lk_type_bytes(view->type);
}

bool lk_view_strides(const lk_view *view, int64_t strides[LK_MAX_DIMS])
{
    int64_t n = 1;
    for (int i = view->rank - 1; i >= 0; i--) {
        strides[i] = n;
        n *= view->dims[i];
    }
    if (view->rank != 4 || view->block <= 1) return true;
    if (view->block != view->dims[1]) return false;
    int64_t c = view->dims[1];
    strides[1] = 1;
    strides[3] = c;
    strides[2] = c * view->dims[3];
    strides[0] = strides[2] * view->dims[2];
    return true;
}

typedef struct strided_job {
    const lk_team *team;
    lk_strided how;
    lk_view src, dst;
    size_t src_at, dst_at;
    bool add;
} strided_job;

/* n elements of 1, 2 or 4 bytes, strides in elements. */
static void move(const char *from, int64_t step_from, char *to, int64_t step_to, size_t n, size_t bytes)
{
    if (bytes == 4)
        for (size_t i = 0; i < n; i++)
            ((uint32_t *)to)[(int64_t)i * step_to] = ((const uint32_t *)from)[(int64_t)i * step_from];
    else if (bytes == 2)
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)to)[(int64_t)i * step_to] = ((const uint16_t *)from)[(int64_t)i * step_from];
    else
        for (size_t i = 0; i < n; i++) to[(int64_t)i * step_to] = from[(int64_t)i * step_from];
}

/* One run along the innermost dimension. */
static void copy_run(const strided_job *job, size_t from, size_t to, size_t n, int64_t step_from, int64_t step_to)
{
    const lk_nn_kernels *k = job->team->kernels;
    if (job->add) {
        const float *src = (const float *)job->src.data + from;
        float *dst = (float *)job->dst.data + to;
        if (step_from == 1 && step_to == 1)
            k->add(dst, src, n, dst);
        else
            for (size_t i = 0; i < n; i++) dst[(int64_t)i * step_to] += src[(int64_t)i * step_from];
        return;
    }
    size_t bytes = lk_type_bytes(job->src.type);
    bool alike = job->src.type == job->dst.type && job->src.scale == job->dst.scale;
    if (step_from == 1 && step_to == 1) {
        if (alike) {
            memcpy(lk_view_at(&job->dst, to), lk_view_at(&job->src, from), n * bytes);
            return;
        }
        float buffer[LK_RUN];
        for (size_t i = 0; i < n; i += LK_RUN) {
            size_t m = n - i < LK_RUN ? n - i : LK_RUN;
            k->load(job->src.type, job->src.scale, lk_view_at(&job->src, from + i), m, buffer);
            k->store(job->dst.type, job->dst.scale, buffer, m, lk_view_at(&job->dst, to + i));
        }
        return;
    }
    /* Through buffers: gather, convert, scatter. */
    char gathered[LK_RUN * 4], converted[LK_RUN * 4];
    float values[LK_RUN];
    for (size_t i = 0; i < n; i += LK_RUN) {
        size_t m = n - i < LK_RUN ? n - i : LK_RUN;
        const char *source = lk_view_at(&job->src, from + (size_t)((int64_t)i * step_from));
        char *target = lk_view_at(&job->dst, to + (size_t)((int64_t)i * step_to));
        if (step_from != 1) {
            move(source, step_from, gathered, 1, m, bytes);
            source = gathered;
        }
        if (!alike) {
            k->load(job->src.type, job->src.scale, source, m, values);
            k->store(job->dst.type, job->dst.scale, values, m, step_to == 1 ? target : converted);
            source = converted;
        }
        if (alike || step_to != 1) move(source, 1, target, step_to, m, lk_type_bytes(job->dst.type));
    }
}

static void copy_piece(void *arg, size_t begin, size_t end)
{
    const strided_job *job = arg;
    const lk_strided *how = &job->how;
    int last = how->rank - 1;
    for (size_t run = begin; run < end; run++) {
        size_t rest = run, from = job->src_at, to = job->dst_at;
        for (int d = last - 1; d >= 0; d--) {
            size_t i = rest % (size_t)how->dims[d];
            rest /= (size_t)how->dims[d];
            from += i * (size_t)how->from[d];
            to += i * (size_t)how->to[d];
        }
        copy_run(job, from, to, (size_t)how->dims[last], how->from[last], how->to[last]);
    }
}

/* Three planes become three channels last: a picture on its way in. */
static bool is_picture(const strided_job *job)
{
    const lk_strided *h = &job->how;
    int last = h->rank - 1;
    return !job->add && last > 0 && h->dims[last] == 3 && h->to[last] == 1 && h->to[last - 1] == 3 &&
           h->from[last - 1] == 1 && job->src.type == LK_TYPE_F32;
}

enum { POSITIONS = 512 };

/* Items are runs of positions, from inside of the dimension before the last. */
static void picture_piece(void *arg, size_t begin, size_t end)
{
    const strided_job *job = arg;
    const lk_strided *h = &job->how;
    const lk_nn_kernels *k = job->team->kernels;
    int last = h->rank - 1;
    size_t positions = (size_t)h->dims[last - 1], runs = (positions + POSITIONS - 1) / POSITIONS;
    float planes[3][POSITIONS];
    for (size_t item = begin; item < end; item++) {
        size_t first = item % runs * POSITIONS, rest = item / runs;
        size_t n = positions - first < POSITIONS ? positions - first : POSITIONS;
        size_t from = job->src_at + first, to = job->dst_at + 3 * first;
        for (int d = last - 2; d >= 0; d--) {
            size_t i = rest % (size_t)h->dims[d];
            rest /= (size_t)h->dims[d];
            from += i * (size_t)h->from[d];
            to += i * (size_t)h->to[d];
        }
        for (size_t c = 0; c < 3; c++)
            k->store(job->dst.type, job->dst.scale, (const float *)job->src.data + from + c * (size_t)h->from[last], n,
                     planes[c]);
        k->interleave(job->dst.type, (const void *[]){planes[0], planes[1], planes[2]}, n, lk_view_at(&job->dst, to));
    }
}

/* Inner dimensions that lie without gaps on both sides become one. */
static void join(lk_strided *h)
{
    while (h->rank > 1) {
        int a = h->rank - 2, b = h->rank - 1;
        if (h->from[a] != h->from[b] * h->dims[b] || h->to[a] != h->to[b] * h->dims[b]) return;
        h->dims[a] *= h->dims[b];
        h->from[a] = h->from[b];
        h->to[a] = h->to[b];
        h->rank--;
    }
}

static void swap_dims(lk_strided *h, int a, int b)
{
    int64_t dim = h->dims[a], from = h->from[a], to = h->to[a];
    h->dims[a] = h->dims[b];
    h->from[a] = h->from[b];
    h->to[a] = h->to[b];
    h->dims[b] = dim;
    h->from[b] = from;
    h->to[b] = to;
}

void lk_copy_strided(const lk_team *team, const lk_strided *how, const lk_view *src, size_t src_at, const lk_view *dst,
                     size_t dst_at, bool add)
{
    strided_job job = {team, *how, *src, *dst, src_at, dst_at, add};
    lk_strided *h = &job.how;
    join(h);
    int last = h->rank - 1;
    if (is_picture(&job)) {
        size_t items = ((size_t)h->dims[last - 1] + POSITIONS - 1) / POSITIONS;
        for (int i = 0; i < last - 1; i++) items *= (size_t)h->dims[i];
        /* a picture of usual size is done before it would have travelled to another thread's cache */
        lk_team_for(team, items, POSITIONS / 16, picture_piece, &job);
        return;
    }
    /* Few channels last: run along the rows instead, channel by channel. */
    if (h->rank > 1 && h->dims[last] < 16 && h->dims[last - 1] > h->dims[last]) {
        swap_dims(h, last, last - 1);
        if (h->rank > 2) swap_dims(h, last - 1, last - 2); /* and put the channels outside of what joins the rows */
        join(h);
    }
    size_t runs = 1;
    for (int i = 0; i < h->rank - 1; i++) runs *= (size_t)h->dims[i];
    lk_team_for(team, runs, (size_t)h->dims[h->rank - 1], copy_piece, &job);
}

static const lk_operator nothing;
static const lk_operator *const operators[LK_OP_COUNT] = {
    [LK_OP_BATCH_NORM] = &lk_operator_batch_norm,
    [LK_OP_LAYER_NORM] = &lk_operator_layer_norm,
    [LK_OP_SOFTMAX] = &lk_operator_softmax,
    [LK_OP_ATTENTION] = &lk_operator_attention,
    [LK_OP_ACTIVATION] = &lk_operator_activation,
    [LK_OP_MAX_POOL] = &lk_operator_max_pool,
    [LK_OP_AVG_POOL] = &lk_operator_avg_pool,
    [LK_OP_ADAPTIVE_POOL] = &lk_operator_adaptive_pool,
    [LK_OP_GLOBAL_AVG] = &lk_operator_global_avg,
    [LK_OP_GLOBAL_MAX] = &lk_operator_global_max,
    [LK_OP_MEAN_TOKENS] = &lk_operator_global_avg,
    [LK_OP_ADD] = &lk_operator_add,
    [LK_OP_MULTIPLY] = &lk_operator_multiply,
    [LK_OP_SCALE] = &lk_operator_scale,
    [LK_OP_SCALE_BY] = &lk_operator_scale_by,
    [LK_OP_CONCAT] = &lk_operator_concat,
    [LK_OP_SLICE] = &lk_operator_slice,
    [LK_OP_RESHAPE] = &lk_operator_copy,
    [LK_OP_TRANSPOSE] = &lk_operator_transpose,
    [LK_OP_TOKENS] = &lk_operator_copy,
    [LK_OP_DROPOUT] = &lk_operator_dropout,
    [LK_OP_DROP_PATH] = &lk_operator_drop_path,
    [LK_OP_L2_NORMALISE] = &lk_operator_l2_normalise,
    [LK_OP_POSITIONS] = &lk_operator_positions,
    [LK_OP_EMBEDDING] = &lk_operator_embedding,
    [LK_OP_PICK_TOKEN] = &lk_operator_pick_token,
};

const lk_operator *lk_operator_of(lk_op op)
{
    return operators[op] ? operators[op] : &nothing;
}
