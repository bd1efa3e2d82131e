/* Values that stop being numbers can vanish: a fused ReLU makes zero of NaN, and the embedding looks like any other. So
 * a few positions of every product's result are looked at, and all of the input; a row with NaN, infinity or what would
 * soon be infinity among them (LK_LARGEST_BITS) gives NaN for its outputs. Weights are checked when they are loaded,
 * hence what is no number comes from sums that overflow, which they do in whole channels. */
#include "nn/executor.h"

#include <math.h>
#include <string.h>

enum { SPOTS = 4 };

static bool fit_f32(const float *x, size_t n)
{
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        top = bits > top ? bits : top;
    }
    return top <= LK_LARGEST_BITS;
}

static bool fit_bf16(const uint16_t *x, size_t n)
{
    uint16_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t bits = x[i] & 0x7fff;
        top = bits > top ? bits : top;
    }
    return top <= LK_LARGEST_BITS >> 16;
}

static bool fit_run(const lk_view *view, size_t at, size_t n)
{
    const void *x = lk_view_at(view, at);
    return view->type == LK_TYPE_F32 ? fit_f32(x, n) : fit_bf16(x, n);
}

void lk_spot_inputs(lk_executor *e, int64_t batch)
{
    const lk_graph *graph = e->graph;
    memset(e->spoilt, 0, (size_t)e->options.batch * sizeof *e->spoilt);
    for (size_t i = 0; i < graph->input_count; i++) {
        const lk_view *view = &e->values[e->value_of[graph->inputs[i]]].view;
        size_t row = lk_view_elements(view) / (size_t)view->dims[0];
        for (int64_t r = 0; view->type == LK_TYPE_F32 && r < batch; r++)
            if (!fit_run(view, (size_t)r * row, row)) e->spoilt[r] = true;
    }
}

void lk_spot_step(lk_executor *e, const lk_step *step, int64_t batch)
{
    const lk_view *view = &e->values[step->output].view;
    bool product = step->kind != LK_STEP_OPERATOR && step->kind != LK_STEP_COPY;
    if (!product || view->dims[0] != e->options.batch || (view->type != LK_TYPE_F32 && view->type != LK_TYPE_BF16))
        return;
    size_t width = (size_t)(view->rank == 4 ? view->dims[1] : view->dims[view->rank - 1]);
    size_t row = lk_view_elements(view) / (size_t)view->dims[0], places = row / width;
    size_t spots = places < SPOTS ? places : SPOTS;
    for (int64_t r = 0; r < batch; r++)
        for (size_t i = 0; i < spots; i++)
            if (!fit_run(view, (size_t)r * row + (2 * i + 1) * places / (2 * spots) * width, width))
                e->spoilt[r] = true;
}

void lk_spot_output(const lk_executor *e, int64_t batch, size_t row, float *output)
{
    for (int64_t r = 0; r < batch; r++)
        for (size_t i = 0; e->spoilt[r] && i < row; i++) output[(size_t)r * row + i] = NAN;
}
