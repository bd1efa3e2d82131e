#include "nn/fold.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void lk_folded_free(lk_folded *f)
{
    free(f->factor);
    free(f->own);
    free(f->bias);
    *f = (lk_folded){0};
}

bool lk_folded_own(lk_folded *f)
{
    if (f->own) return true;
    f->own = lk_alloc(f->out * f->k, sizeof *f->own);
    if (!f->own) return false;
    for (size_t o = 0; o < f->out; o++)
        for (size_t j = 0; j < f->k; j++)
            f->own[o * f->k + j] = f->weight[o * f->k + j] * (f->factor ? f->factor[o] : 1);
    f->weight = f->own;
    free(f->factor);
    f->factor = NULL;
    return true;
}

lk_status lk_folded_apply(lk_folded *f)
{
    return !f->factor || lk_folded_own(f) ? LK_OK : lk_fail_memory("weights");
}

lk_status lk_fold(const lk_executor *e, lk_node anchor, lk_folded *f)
{
    const lk_graph *graph = e->graph;
    const lk_fused *group = &e->fused[anchor];
    const lk_node_data *node = lk_at(graph, anchor);
    const lk_parameter_data *weight = &graph->parameters[node->parameters[0]];
    f->weight = weight->values;
    f->out = (size_t)weight->shape.dims[0];
    f->k = weight->elements / f->out;
    bool biased = node->parameters[1] >= 0;
    for (int i = 0; i < 2; i++)
        biased = biased || (group->fold[i] >= 0 && lk_at(graph, group->fold[i])->op == LK_OP_BATCH_NORM);
    if (biased) {
        f->bias = lk_alloc_zero(f->out, sizeof *f->bias);
        if (!f->bias) return lk_fail_memory("weights");
        if (node->parameters[1] >= 0)
            memcpy(f->bias, graph->parameters[node->parameters[1]].values, f->out * sizeof *f->bias);
    }
    for (int i = 0; i < 2 && group->fold[i] >= 0; i++) {
        const lk_node_data *by = lk_at(graph, group->fold[i]);
        const float *p[LK_MAX_PARAMETERS] = {NULL};
        for (int j = 0; j < LK_MAX_PARAMETERS; j++)
            if (by->parameters[j] >= 0) p[j] = graph->parameters[by->parameters[j]].values;
        if (!f->factor) {
            f->factor = lk_alloc(f->out, sizeof *f->factor);
            if (!f->factor) return lk_fail_memory("weights");
            for (size_t o = 0; o < f->out; o++) f->factor[o] = 1;
        }
        for (size_t o = 0; o < f->out; o++) {
            float factor = p[0][o];
            if (by->op == LK_OP_BATCH_NORM) {
                factor /= sqrtf(p[3][o] + by->eps);
                f->bias[o] = (f->bias[o] - p[2][o]) * factor + p[1][o];
            } else if (f->bias) {
                f->bias[o] *= factor;
            }
            f->factor[o] *= factor;
        }
    }
    return LK_OK;
}

void lk_folded_codes(const lk_folded *f, int8_t *codes, float *scales)
{
    for (size_t o = 0; o < f->out; o++) {
        const float *row = f->weight + o * f->k;
        float top = 0;
        for (size_t j = 0; j < f->k; j++) top = fabsf(row[j]) > top ? fabsf(row[j]) : top;
        scales[o] = top > 0 ? top / 127 : 1;
        for (size_t j = 0; j < f->k; j++) codes[o * f->k + j] = (int8_t)lrintf(row[j] / scales[o]);
    }
}

bool lk_fold_swish(lk_folded *f, float factor)
{
    float by = -1.44269504f * factor;
    if (!lk_folded_own(f)) return false;
    for (size_t i = 0; i < f->out * f->k; i++) f->own[i] *= by;
    for (size_t o = 0; f->bias && o < f->out; o++) f->bias[o] *= by;
    return true;
}
