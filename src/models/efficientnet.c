/* EfficientNet (Tan & Le, 2019), EfficientNetV2-S (Tan & Le, 2021) and MobileNetV3 (Howard et al., 2019): stages of
 * mobile blocks from a table, with timm's names. */
#include "models/build.h"

#include <math.h>
#include <stdio.h>

typedef enum kind {
    PLAIN,
    SEPARABLE,
    INVERTED,
    FUSED
} kind; /* conv; depthwise + 1x1; 1x1 + depthwise + 1x1; 3x3 + 1x1 */

/* `repeats` blocks; the first has the stride. */
typedef struct stage {
    int index; /* blocks.<index>: several rows may belong to one stage */
    kind kind;
    int repeats, kernel, stride;
    float expand;
    int channels;
    bool squeeze, relu, skip;
} stage;

static const stage efficientnet[] = {
    {0, SEPARABLE, 1, 3, 1, 1, 16, true, false, false}, {1, INVERTED, 2, 3, 2, 6, 24, true, false, false},
    {2, INVERTED, 2, 5, 2, 6, 40, true, false, false},  {3, INVERTED, 3, 3, 2, 6, 80, true, false, false},
    {4, INVERTED, 3, 5, 1, 6, 112, true, false, false}, {5, INVERTED, 4, 5, 2, 6, 192, true, false, false},
    {6, INVERTED, 1, 3, 1, 6, 320, true, false, false}, {-1}};

static const stage efficientnet_v2_s[] = {{0, PLAIN, 2, 3, 1, 1, 24, false, false, true},
                                          {1, FUSED, 4, 3, 2, 4, 48, false, false, false},
                                          {2, FUSED, 4, 3, 2, 4, 64, false, false, false},
                                          {3, INVERTED, 6, 3, 2, 4, 128, true, false, false},
                                          {4, INVERTED, 9, 3, 1, 6, 160, true, false, false},
                                          {5, INVERTED, 15, 3, 2, 6, 256, true, false, false},
                                          {-1}};

static const stage mobilenet_v3_large[] = {{0, SEPARABLE, 1, 3, 1, 1, 16, false, true, false},
                                           {1, INVERTED, 1, 3, 2, 4, 24, false, true, false},
                                           {1, INVERTED, 1, 3, 1, 3, 24, false, true, false},
                                           {2, INVERTED, 3, 5, 2, 3, 40, true, true, false},
                                           {3, INVERTED, 1, 3, 2, 6, 80, false, false, false},
                                           {3, INVERTED, 1, 3, 1, 2.5f, 80, false, false, false},
                                           {3, INVERTED, 2, 3, 1, 2.3f, 80, false, false, false},
                                           {4, INVERTED, 2, 3, 1, 6, 112, true, false, false},
                                           {5, INVERTED, 3, 5, 2, 6, 160, true, false, false},
                                           {6, PLAIN, 1, 1, 1, 1, 960, false, false, false},
                                           {-1}};

static const stage mobilenet_v3_small[] = {{0, SEPARABLE, 1, 3, 2, 1, 16, true, true, false},
                                           {1, INVERTED, 1, 3, 2, 4.5f, 24, false, true, false},
                                           {1, INVERTED, 1, 3, 1, 3.67f, 24, false, true, false},
                                           {2, INVERTED, 1, 5, 2, 4, 40, true, false, false},
                                           {2, INVERTED, 2, 5, 1, 6, 40, true, false, false},
                                           {3, INVERTED, 2, 5, 1, 3, 48, true, false, false},
                                           {4, INVERTED, 3, 5, 2, 6, 96, true, false, false},
                                           {5, PLAIN, 1, 1, 1, 1, 576, false, false, false},
                                           {-1}};

typedef struct net {
    lk_builder *b;
    bool tf, mobile;
    lk_activation activation;
    float width;
} net;

/* The multiple of 8 nearest to x, but no less than 0.9 of it. */
static int64_t round_channels(double x)
{
    int64_t rounded = (int64_t)(x + 4) / 8 * 8;
    if (rounded < 8) rounded = 8;
    return (double)rounded < 0.9 * x ? rounded + 8 : rounded;
}

static lk_node conv(net *n, const char *name, lk_node x, int64_t out, int64_t kernel, int64_t stride, int64_t groups)
{
    int64_t pad = (kernel - 1) / 2;
    lk_conv c = {.out = out,
                 .kernel = {kernel, kernel},
                 .stride = {stride, stride},
                 .pad = {pad, pad, pad, pad},
                 .groups = groups,
                 .no_bias = true};
    if (n->tf) lk_graph_same_padding(n->b->graph, x, &c);
    return lk_graph_conv(n->b->graph, name, x, &c);
}

static lk_node norm(net *n, const char *name, lk_node x)
{
    return lk_graph_batch_norm(n->b->graph, name, x, n->tf ? 1e-3f : 1e-5f, 0.1f);
}

/* share: of the channels that the gate's middle has. */
static lk_node squeeze(net *n, const char *at, lk_node x, int64_t channels, double share, lk_activation activation)
{
    lk_graph *g = n->b->graph;
    double wanted = (double)channels * share;
    int64_t narrow = n->mobile ? round_channels(wanted) : (int64_t)nearbyint(wanted);
    lk_node gate = lk_graph_global_avg_pool(g, NULL, x);
    gate = lk_graph_linear(g, lk_name(n->b, "%sse.conv_reduce", at), gate, narrow, false);
    gate = lk_graph_activation(g, NULL, gate, n->mobile ? LK_RELU : activation);
    gate = lk_graph_linear(g, lk_name(n->b, "%sse.conv_expand", at), gate, channels, false);
    gate = lk_graph_activation(g, NULL, gate, n->mobile ? LK_HARD_SIGMOID : LK_SIGMOID);
    return lk_graph_multiply(g, NULL, x, gate);
}

typedef struct block {
    const stage *stage;
    int64_t in, out, stride;
} block;

/* Depthwise or full convolutions and their norms, in the order of timm's modules: bn1, bn2, bn3. */
static lk_node mobile_block(net *n, const char *name, lk_node x, const block *k)
{
    char at[80];
    lk_builder *b = n->b;
    lk_graph *g = b->graph;
    const stage *s = k->stage;
    lk_activation activation = s->relu ? LK_RELU : n->activation;
    int64_t wide = k->in;
    lk_node y = x;
    snprintf(at, sizeof at, "%s.", name);
    if (s->kind == INVERTED || s->kind == FUSED) {
        double exact = (double)k->in * (double)s->expand;
        wide = round_channels(exact);
        y = s->kind == INVERTED ? conv(n, lk_name(b, "%sconv_pw", at), y, wide, 1, 1, 1)
                                : conv(n, lk_name(b, "%sconv_exp", at), y, wide, s->kernel, k->stride, 1);
        y = lk_graph_activation(g, NULL, norm(n, lk_name(b, "%sbn1", at), y), activation);
    }
    if (s->kind == INVERTED || s->kind == SEPARABLE) {
        y = conv(n, lk_name(b, "%sconv_dw", at), y, wide, s->kernel, k->stride, wide);
        y = norm(n, lk_name(b, s->kind == INVERTED ? "%sbn2" : "%sbn1", at), y);
        y = lk_graph_activation(g, NULL, y, activation);
    }
    /* The gate's middle is a quarter of the block's input, in MobileNetV3 of its wide layer. */
    if (s->squeeze) y = squeeze(n, at, y, wide, n->mobile ? 0.25 : 0.25 / (double)s->expand, activation);
    if (s->kind == PLAIN) {
        y = conv(n, lk_name(b, "%sconv", at), y, k->out, s->kernel, k->stride, 1);
        y = lk_graph_activation(g, s->skip ? NULL : lk_name(b, "%s", name), norm(n, lk_name(b, "%sbn1", at), y),
                                activation);
    } else {
        y = conv(n, lk_name(b, s->kind == SEPARABLE ? "%sconv_pw" : "%sconv_pwl", at), y, k->out, 1, 1, 1);
        y = norm(n, lk_name(b, s->kind == INVERTED ? "%sbn3" : "%sbn2", at), y);
    }
    bool skip = k->in == k->out && k->stride == 1 && (s->kind != PLAIN || s->skip);
    return skip ? lk_graph_add(g, lk_name(b, "%s", name), y, x) : y;
}

static lk_node build_stages(net *n, const stage *stages, lk_node x, int64_t in, double depth)
{
    char name[64];
    int previous = -1, number = 0;
    for (const stage *s = stages; s->index >= 0; s++) {
        if (s->index != previous) number = 0;
        previous = s->index;
        int repeats = (int)ceil(s->repeats * depth);
        for (int j = 0; j < repeats; j++, number++) {
            block k = {.stage = s,
                       .in = in,
                       .out = round_channels(s->channels * (double)n->width),
                       .stride = j == 0 ? s->stride : 1};
            snprintf(name, sizeof name, "blocks.%d.%d", s->index, number);
            x = mobile_block(n, name, x, &k);
            in = k.out;
        }
    }
    return x;
}

void lk_build_efficientnet(lk_builder *b, const void *variant)
{
    static const stage *const tables[] = {efficientnet, efficientnet_v2_s, mobilenet_v3_small, mobilenet_v3_large};
    static const int stems[] = {32, 24, 16, 16}, heads[] = {1280, 1280, 1024, 1280};
    const lk_efficientnet_variant *v = variant;
    net n = {.b = b,
             .tf = v->tf,
             .mobile = v->kind == LK_MOBILENET_V3_SMALL || v->kind == LK_MOBILENET_V3_LARGE,
             .activation = LK_SILU,
             .width = v->width};
    if (n.mobile) n.activation = LK_HARD_SWISH;
    lk_graph *g = b->graph;
    int64_t stem = round_channels(stems[v->kind] * (double)v->width), head = heads[v->kind];
    lk_node x = conv(&n, lk_name(b, "conv_stem"), lk_build_picture(b), stem, 3, 2, 1);
    x = lk_graph_activation(g, NULL, norm(&n, lk_name(b, "bn1"), x), n.activation);
    x = build_stages(&n, tables[v->kind], x, stem, (double)v->depth);
    if (n.mobile) { /* the last layer comes after the pooling */
        b->features = x;
        x = lk_graph_linear(g, lk_name(b, "conv_head"), lk_graph_global_avg_pool(g, NULL, x), head, false);
        b->embedding = lk_graph_activation(g, NULL, x, n.activation);
        return;
    }
    x = conv(&n, lk_name(b, "conv_head"), x, round_channels(head * (double)v->width), 1, 1, 1);
    b->features = lk_graph_activation(g, NULL, norm(&n, lk_name(b, "bn2"), x), n.activation);
    b->embedding = lk_graph_global_avg_pool(g, NULL, b->features);
}
