/* Memory planning: values are intervals of steps with a size. The largest is placed first, each at the lowest offset
 * that no value living at the same time occupies (greedy by size; Pisarchyk & Lee, 2020). */
#include "base/memory.h"
#include "nn/executor.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

static int by_size(const void *a, const void *b, void *values)
{
    const lk_value *all = values, *x = &all[*(const int *)a], *y = &all[*(const int *)b];
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return *(const int *)a - *(const int *)b;
}

static int by_offset(const void *a, const void *b, void *values)
{
    const lk_value *all = values, *x = &all[*(const int *)a], *y = &all[*(const int *)b];
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool meet(const lk_value *a, const lk_value *b)
{
    return a->first <= b->last && b->first <= a->last;
}

lk_status lk_plan_memory(lk_executor *e)
{
    size_t n = e->value_count, count = 0, placed = 0;
    int *order = lk_alloc(n + 1, sizeof *order), *near = lk_alloc(n + 1, sizeof *near);
    if (!order || !near) {
        free(order);
        free(near);
        return lk_fail_memory("memory plan");
    }
    /* What shares memory lives as long as the longest of its users. Sharing goes to earlier numbers only. */
    for (size_t i = n; i-- > 0;) {
        lk_value *v = &e->values[i];
        if (v->same_as < 0) continue;
        lk_value *root = &e->values[v->same_as];
        if (v->last > root->last) root->last = v->last;
        root->pinned = root->pinned || v->pinned;
        if (v->bytes > root->bytes) root->bytes = v->bytes;
    }
    for (size_t i = 0; i < n; i++) {
        lk_value *v = &e->values[i];
        v->bytes = (v->bytes + ALIGN - 1) / ALIGN * ALIGN;
        if (v->constant) continue;
        e->unplanned_bytes += v->bytes;
        if (v->same_as >= 0) continue;
        if (v->pinned) v->last = (int)e->step_count;
        if (e->options.no_reuse) {
            v->first = -1;
            v->last = (int)e->step_count;
        }
        order[count++] = (int)i;
    }
    qsort_r(order, count, sizeof *order, by_size, e->values);
    for (; placed < count; placed++) {
        lk_value *v = &e->values[order[placed]];
        size_t neighbours = 0, offset = 0;
        for (size_t i = 0; i < placed; i++)
            if (meet(v, &e->values[order[i]])) near[neighbours++] = order[i];
        qsort_r(near, neighbours, sizeof *near, by_offset, e->values);
        for (size_t i = 0; i < neighbours; i++) {
            const lk_value *other = &e->values[near[i]];
            if (offset + v->bytes <= other->offset) break;
            if (other->offset + other->bytes > offset) offset = other->offset + other->bytes;
        }
        v->offset = offset;
        if (offset + v->bytes > e->memory_bytes) e->memory_bytes = offset + v->bytes;
    }
    for (size_t i = 0; i < n; i++)
        if (e->values[i].same_as >= 0) e->values[i].offset = e->values[e->values[i].same_as].offset;
    free(order);
    free(near);
    return LK_OK;
}
