#include "nn/fuse.h"
#include "base/memory.h"

#include <stdlib.h>

typedef struct uses {
    int *count;      /* how many nodes read it; outputs and kept nodes count too often to be taken */
    lk_node *reader; /* the last that does */
} uses;

static bool is_anchor(lk_op op)
{
    return op == LK_OP_CONV || op == LK_OP_LINEAR;
}

/* The only reader of a node, or LK_NO_NODE. */
static lk_node follower(const uses *u, lk_node node)
{
    return u->count[node] == 1 ? u->reader[node] : LK_NO_NODE;
}

static lk_node source(const lk_fused *fused, lk_node node)
{
    while (fused[node].same_as >= 0) node = fused[node].same_as;
    return node;
}

static bool same_shape(const lk_shape *a, const lk_shape *b)
{
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i]) return false;
    return true;
}

/* Takes node `at` (which follows `from`) into the group of `anchor` when it may; returns whether. */
static bool take(const lk_graph *graph, lk_fused *fused, lk_node anchor, lk_node from, lk_node at)
{
    const lk_node_data *node = lk_at(graph, at);
    lk_fused *group = &fused[anchor];
    if (fused[at].anchor >= 0) return false;
    bool folds = node->op == LK_OP_BATCH_NORM || node->op == LK_OP_SCALE;
    if (folds && group->chain_count == 0 && group->fold[1] < 0) {
        group->fold[group->fold[0] >= 0] = at;
        return true;
    }
    if (group->chain_count == LK_MAX_CHAIN) return false;
    if (node->op == LK_OP_ACTIVATION) {
        group->other[group->chain_count] = LK_NO_NODE;
        group->chain[group->chain_count++] = at;
        return true;
    }
    if (node->op != LK_OP_ADD) return false;
    for (int i = 0; i < group->chain_count; i++)
        if (group->other[i] >= 0) return false; /* one sum per group */
    lk_node a = source(fused, node->inputs[0]), b = source(fused, node->inputs[1]);
    lk_node other = a == from ? b : a;
    if (a == b || !same_shape(&lk_at(graph, other)->shape, &lk_at(graph, anchor)->shape)) return false;
    group->other[group->chain_count] = other;
    group->chain[group->chain_count++] = at;
    return true;
}

static void grow_group(const lk_graph *graph, lk_fused *fused, const uses *u, lk_node anchor)
{
    lk_node value = anchor; /* the last node that made a value; dropped-out ones are passed over */
    for (lk_node at = follower(u, anchor); at >= 0; at = follower(u, at)) {
        if (fused[at].same_as >= 0) continue;
        if (!take(graph, fused, anchor, value, at)) return;
        fused[at].anchor = anchor;
        fused[anchor].last = value = at;
    }
}

void lk_fuse(const lk_graph *graph, const lk_node *keep, int keep_count, bool fuse, lk_fused *fused)
{
    size_t n = graph->node_count;
    uses u = {lk_alloc_zero(n, sizeof *u.count), lk_alloc(n, sizeof *u.reader)};
    for (size_t i = 0; i < n; i++) {
        const lk_node_data *node = &graph->nodes[i];
        bool passes = node->op == LK_OP_DROPOUT || node->op == LK_OP_DROP_PATH;
        fused[i] = (lk_fused){.same_as = passes ? node->inputs[0] : LK_NO_NODE,
                              .anchor = LK_NO_NODE,
                              .last = (lk_node)i,
                              .fold = {LK_NO_NODE, LK_NO_NODE}};
        for (int k = 0; u.count && u.reader && k < node->input_count; k++) {
            u.count[node->inputs[k]]++;
            u.reader[node->inputs[k]] = (lk_node)i;
        }
    }
    if (fuse && u.count && u.reader) { /* without memory nothing is fused, which is right too */
        for (size_t i = 0; i < graph->output_count; i++) u.count[graph->outputs[i]] += 2;
        for (int i = 0; i < keep_count; i++) u.count[keep[i]] += 2;
        for (size_t i = 0; i < n; i++)
            if (is_anchor(graph->nodes[i].op)) grow_group(graph, fused, &u, (lk_node)i);
    }
    for (size_t i = 0; i < n; i++)
        if (is_anchor(graph->nodes[i].op)) fused[i].anchor = (lk_node)i;
    free(u.count);
    free(u.reader);
}
