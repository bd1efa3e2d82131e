#include "nn/executor.h"

#include <string.h>

typedef struct dnn_job {
    lk_executor *e;
    lk_step *step;
    _Atomic int status;
} dnn_job;

static void run_primitives(void *arg, size_t begin, size_t end)
{
    dnn_job *job = arg;
    for (size_t i = begin; i < end; i++) {
        dnnl_primitive_t primitive = job->step->dnn[i].primitive;
        const lk_dnn_op *op = &job->step->dnn[i];
        dnnl_status_t s = dnnl_primitive_execute(primitive, job->e->dnn.stream, op->count, op->args);
        if (s != dnnl_success) job->status = (int)s;
        if (op->swish.numbers)
            job->e->team.kernels->swish(op->swish.type, op->swish.unit, op->swish.data, op->swish.numbers);
    }
}

static lk_status run_dnn(lk_executor *e, lk_step *step)
{
    dnn_job job = {.e = e, .step = step, .status = dnnl_success};
    lk_team_for(&e->team, (size_t)step->dnn_count, 1u << 20, run_primitives, &job);
    return lk_dnn_check((dnnl_status_t)job.status, step->node->name);
}

static lk_status run_step(lk_executor *e, lk_step *step)
{
    switch (step->kind) {
    case LK_STEP_DNN: return run_dnn(e, step);
    case LK_STEP_OPERATOR: return step->operator->forward(&step->call);
    case LK_STEP_WINOGRAD: lk_winograd_run(e, step); return LK_OK;
    case LK_STEP_PRODUCT: lk_product_run(e, step); return LK_OK;
    case LK_STEP_CONV: lk_conv_run(e, step); return LK_OK;
    case LK_STEP_COPY:
        lk_copy_strided(&e->team, &step->copy, &step->views[0], 0, &e->values[step->output].view, 0, false);
        return LK_OK;
    }
    return LK_OK;
}

lk_status lk_executor_run_step(lk_executor *e, size_t index)
{
    int before = lk_team_enter(1);
    lk_status s = run_step(e, &e->steps[index]);
    lk_team_enter(before);
    return s;
}

void lk_executor_fill(lk_executor *e, int64_t batch, const void *const *inputs)
{
    const lk_graph *graph = e->graph;
    for (size_t i = 0; i < graph->input_count; i++) {
        const lk_view *view = &e->values[e->value_of[graph->inputs[i]]].view;
        size_t row = lk_view_bytes(view) / (size_t)view->dims[0];
        memcpy(view->data, inputs[i], row * (size_t)batch);
        /* the rest of the batch is not looked at, but must be valid ids and ordinary numbers */
        memset((char *)view->data + row * (size_t)batch, 0, row * (size_t)(e->options.batch - batch));
    }
}

typedef struct run_job {
    lk_executor *e;
    int64_t batch;
    lk_status status;
} run_job;

static void run_steps(void *arg)
{
    run_job *job = arg;
    int before = lk_team_enter(1);
    for (size_t i = 0; job->status == LK_OK && i < job->e->step_count; i++) {
        job->status = run_step(job->e, &job->e->steps[i]);
        if (job->status == LK_OK) lk_spot_step(job->e, &job->e->steps[i], job->batch);
    }
    lk_team_enter(before);
}

lk_status lk_executor_run_one(lk_executor *e, int64_t batch, const void *const *inputs, float *const *outputs)
{
    const lk_graph *graph = e->graph;
    lk_status s = LK_OK;
    lk_executor_fill(e, batch, inputs);
    lk_spot_inputs(e, batch);
    run_job job = {e, batch, LK_OK};
    lk_team_gather(&e->team, run_steps, &job);
    s = job.status;
    e->ran = s == LK_OK ? batch : 0;
    for (size_t i = 0; s == LK_OK && outputs && i < graph->output_count; i++) {
        if (!outputs[i]) continue;
        s = lk_executor_read_one(e, graph->outputs[i], outputs[i]);
        lk_spot_output(e, batch, lk_shape_row(&lk_at(graph, graph->outputs[i])->shape), outputs[i]);
    }
    return s;
}

lk_status lk_executor_read_one(const lk_executor *e, lk_node node, float *out)
{
    lk_view from = e->values[e->value_of[node]].view, to = from;
    if (lk_shape_batched(&lk_at(e->graph, node)->shape)) from.dims[0] = to.dims[0] = e->ran;
    to.type = LK_TYPE_F32;
    to.scale = 1;
    to.block = 0;
    to.data = out;
    lk_strided how = {.rank = from.rank};
    lk_view_strides(&from, how.from);
    lk_view_strides(&to, how.to);
    memcpy(how.dims, from.dims, sizeof from.dims);
    lk_copy_strided(&e->team, &how, &from, 0, &to, 0, false);
    return LK_OK;
}
