/* Blocks and positions of every transformer. */
#include "models/build.h"

#include <math.h>
#include <stdio.h>

/* x + scale1 * proj(attention(norm1(x))) */
static lk_node attend(lk_builder *b, lk_node x, const lk_transformer *t, const char *at)
{
    const lk_attention how = {.heads = t->heads, .causal = t->causal};
    lk_graph *g = b->graph;
    lk_node y = lk_graph_layer_norm(g, lk_name(b, "%s%s", at, t->norm1), x, t->eps);
    if (t->qkv) {
        y = lk_graph_linear(g, lk_name(b, "%s%s", at, t->qkv), y, 3 * t->width, t->no_qkv_bias);
        y = lk_graph_attention_qkv(g, lk_name(b, "%sattention_of", at), y, &how);
    } else {
        lk_node q = lk_graph_linear(g, lk_name(b, "%s%s", at, t->q), y, t->width, t->no_qkv_bias);
        lk_node k = lk_graph_linear(g, lk_name(b, "%s%s", at, t->k), y, t->width, t->no_qkv_bias);
        lk_node v = lk_graph_linear(g, lk_name(b, "%s%s", at, t->v), y, t->width, t->no_qkv_bias);
        y = lk_graph_attention(g, lk_name(b, "%sattention_of", at), q, k, v, &how);
    }
    y = lk_graph_linear(g, lk_name(b, "%s%s", at, t->proj), y, t->width, false);
    if (t->scale1) y = lk_graph_scale(g, NULL, y, lk_name(b, "%s%s", at, t->scale1));
    return lk_graph_add(g, lk_name(b, "%sattended", at), x, y);
}

/* x + scale2 * fc2(activation(fc1(norm2(x)))); the node is named after the block. */
static lk_node think(lk_builder *b, lk_node x, const lk_transformer *t, const char *at, const char *name)
{
    lk_graph *g = b->graph;
    lk_node y = lk_graph_layer_norm(g, lk_name(b, "%s%s", at, t->norm2), x, t->eps);
    y = lk_graph_linear(g, lk_name(b, "%s%s", at, t->fc1), y, t->mlp, false);
    y = lk_graph_activation(g, NULL, y, t->activation);
    y = lk_graph_linear(g, lk_name(b, "%s%s", at, t->fc2), y, t->width, false);
    if (t->scale2) y = lk_graph_scale(g, NULL, y, lk_name(b, "%s%s", at, t->scale2));
    return lk_graph_add(g, name, x, y);
}

lk_node lk_build_transformer(lk_builder *b, lk_node x, const lk_transformer *t)
{
    char at[96];
    if (t->width % t->heads != 0)
        return lk_build_fail(b, LK_CORRUPT, "a width of %lld does not divide into %lld heads", (long long)t->width,
                             (long long)t->heads);
    for (int64_t i = 0; i < t->depth; i++) {
        snprintf(at, sizeof at, "%s%lld.", t->blocks, (long long)i);
        x = attend(b, x, t, at);
        x = think(b, x, t, at, lk_name(b, "%s%lld", t->blocks, (long long)i));
    }
    return x;
}

lk_node lk_build_positions(lk_builder *b, lk_node x, const char *name, int64_t leading, const int64_t from[2],
                           const int64_t to[2], int64_t width, bool antialias)
{
    lk_positions how = {.prefix = leading, .from = {from[0], from[1]}, .to = {to[0], to[1]}, .antialias = antialias};
    lk_shape stored = lk_build_stored(b, name);
    if (stored.rank >= 2) { /* [1, tokens, width] or [tokens, width] */
        int64_t tokens = stored.dims[stored.rank - 2] - leading, side = tokens > 0 ? (int64_t)sqrt((double)tokens) : 0;
        if (tokens != how.from[0] * how.from[1] && side > 0 && side * side == tokens) how.from[0] = how.from[1] = side;
    }
    lk_node p = lk_graph_parameter(b->graph, name, 3, (int64_t[]){1, leading + how.from[0] * how.from[1], width});
    if (how.from[0] != to[0] || how.from[1] != to[1]) p = lk_graph_interpolate_positions(b->graph, NULL, p, &how);
    return lk_graph_add(b->graph, NULL, x, p);
}
