/* ResNet (He et al., 2016), ResNeXt (Xie et al., 2017) and ResNet with squeeze and excitation (Hu et al., 2018), with
 * the names that timm and torchvision share. Like both, a bottleneck strides in its 3x3 convolution. */
#include "models/build.h"

#include <math.h>
#include <stdio.h>

enum { EXPANSION = 4, SE_SHARE = 16, SE_MULTIPLE = 8 };
static const float EPS = 1e-5f;

/* Convolution without bias, padded to keep the size at stride 1, then batch norm. */
static lk_node conv_norm(lk_builder *b, const char *conv, const char *norm, lk_node x, int64_t out, int64_t kernel,
                         int64_t stride, int64_t groups)
{
    int64_t pad = kernel / 2;
    x = lk_graph_conv(b->graph, conv, x,
                      &(lk_conv){.out = out,
                                 .kernel = {kernel, kernel},
                                 .stride = {stride, stride},
                                 .pad = {pad, pad, pad, pad},
                                 .groups = groups,
                                 .no_bias = true,
                                 /* over all outputs, also with groups */
                                 .deviation = sqrtf(2.0f / (float)(out * kernel * kernel))});
    return lk_graph_batch_norm(b->graph, norm, x, EPS, 0.1f);
}

/* Each channel times a gate that two layers compute from the averages of all. */
static lk_node squeeze(lk_builder *b, const char *at, lk_node x, int64_t channels)
{
    int64_t narrow = (channels / SE_SHARE + SE_MULTIPLE / 2) / SE_MULTIPLE * SE_MULTIPLE;
    if (narrow < SE_MULTIPLE) narrow = SE_MULTIPLE;
    lk_graph *g = b->graph;
    lk_node gate = lk_graph_global_avg_pool(g, NULL, x);
    gate = lk_graph_linear(g, lk_name(b, "%sse.fc1", at), gate, narrow, false);
    gate = lk_graph_activation(g, NULL, gate, LK_RELU);
    gate = lk_graph_linear(g, lk_name(b, "%sse.fc2", at), gate, channels, false);
    gate = lk_graph_activation(g, NULL, gate, LK_SIGMOID);
    return lk_graph_multiply(g, NULL, x, gate);
}

typedef struct block {
    int64_t in, width, out, stride, groups;
    bool basic, squeeze;
} block;

static lk_node residual(lk_builder *b, const char *name, lk_node x, const block *k)
{
    char at[80];
    lk_graph *g = b->graph;
    snprintf(at, sizeof at, "%s.", name);
    lk_node shortcut = x, y;
    if (k->basic) {
        y = conv_norm(b, lk_name(b, "%sconv1", at), lk_name(b, "%sbn1", at), x, k->width, 3, k->stride, 1);
        y = lk_graph_activation(g, NULL, y, LK_RELU);
        y = conv_norm(b, lk_name(b, "%sconv2", at), lk_name(b, "%sbn2", at), y, k->out, 3, 1, 1);
    } else {
        y = conv_norm(b, lk_name(b, "%sconv1", at), lk_name(b, "%sbn1", at), x, k->width, 1, 1, 1);
        y = lk_graph_activation(g, NULL, y, LK_RELU);
        y = conv_norm(b, lk_name(b, "%sconv2", at), lk_name(b, "%sbn2", at), y, k->width, 3, k->stride, k->groups);
        y = lk_graph_activation(g, NULL, y, LK_RELU);
        y = conv_norm(b, lk_name(b, "%sconv3", at), lk_name(b, "%sbn3", at), y, k->out, 1, 1, 1);
    }
    if (k->squeeze) y = squeeze(b, at, y, k->out);
    if (k->stride != 1 || k->in != k->out)
        shortcut = conv_norm(b, lk_name(b, "%sdownsample.0", at), lk_name(b, "%sdownsample.1", at), x, k->out, 1,
                             k->stride, 1);
    y = lk_graph_add(g, NULL, y, shortcut);
    return lk_graph_activation(g, lk_name(b, "%s", name), y, LK_RELU);
}

void lk_build_resnet(lk_builder *b, const void *variant)
{
    const lk_resnet_variant *v = variant;
    const json_t *args = json_object_get(b->config, "model_args");
    int64_t layers[4] = {v->layers[0], v->layers[1], v->layers[2], v->layers[3]}, channels[4] = {64, 128, 256, 512},
            in = 64;
    char name[64];
    lk_build_ints(b, args, "layers", layers, 4, 200);
    lk_build_ints(b, args, "channels", channels, 4, 4096);
    lk_graph *g = b->graph;
    lk_node x = conv_norm(b, lk_name(b, "conv1"), lk_name(b, "bn1"), lk_build_picture(b), in, 7, 2, 1);
    x = lk_graph_activation(g, NULL, x, LK_RELU);
    x = lk_graph_max_pool(g, NULL, x, &(lk_pool2d){.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}});
    for (int i = 0; i < 4; i++) {
        for (int64_t j = 0; j < layers[i]; j++) {
            block k = {.in = in,
                       .width = v->basic ? channels[i] : channels[i] * v->base_width / 64 * v->groups,
                       .out = v->basic ? channels[i] : channels[i] * EXPANSION,
                       .stride = i > 0 && j == 0 ? 2 : 1,
                       .groups = v->groups,
                       .basic = v->basic,
                       .squeeze = v->squeeze};
            snprintf(name, sizeof name, "layer%d.%lld", i + 1, (long long)j);
            x = residual(b, name, x, &k);
            in = k.out;
        }
    }
    b->features = x;
    b->embedding = lk_graph_global_avg_pool(g, NULL, x);
}
