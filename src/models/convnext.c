/* ConvNeXt (Liu et al., 2022), with the names of timm and of transformers. */
#include "models/build.h"

#include <stdio.h>

/* Names of the parts; %d stage, then block. */
typedef struct convnext_names {
    const char *stem, *stem_norm, *down_norm, *down, *block;
    const char *depthwise, *norm, *fc1, *fc2, *gamma, *final_norm;
} convnext_names;

static const convnext_names timm = {"stem.0",
                                    "stem.1",
                                    "stages.%d.downsample.0",
                                    "stages.%d.downsample.1",
                                    "stages.%d.blocks.%d",
                                    "conv_dw",
                                    "norm",
                                    "mlp.fc1",
                                    "mlp.fc2",
                                    "gamma",
                                    "head.norm"};
static const convnext_names hf = {"embeddings.patch_embeddings",
                                  "embeddings.layernorm",
                                  "encoder.stages.%d.downsampling_layer.0",
                                  "encoder.stages.%d.downsampling_layer.1",
                                  "encoder.stages.%d.layers.%d",
                                  "dwconv",
                                  "layernorm",
                                  "pwconv1",
                                  "pwconv2",
                                  "layer_scale_parameter",
                                  "layernorm"};

static const float EPS = 1e-6f;

static lk_node conv(lk_builder *b, const char *name, lk_node x, int64_t out, int64_t kernel, int64_t stride,
                    int64_t pad, int64_t groups)
{
    return lk_graph_conv(b->graph, name, x,
                         &(lk_conv){.out = out,
                                    .kernel = {kernel, kernel},
                                    .stride = {stride, stride},
                                    .pad = {pad, pad, pad, pad},
                                    .groups = groups,
                                    .deviation = 0.02f});
}

/* The two linear layers work on the channels of each position: as 1x1 convolutions nothing has to be transposed. */
static lk_node block(lk_builder *b, const convnext_names *n, const char *name, lk_node x, int64_t width)
{
    lk_graph *g = b->graph;
    lk_node y = conv(b, lk_name(b, "%s.%s", name, n->depthwise), x, width, 7, 1, 3, width);
    y = lk_graph_layer_norm(g, lk_name(b, "%s.%s", name, n->norm), y, EPS);
    y = conv(b, lk_name(b, "%s.%s", name, n->fc1), y, 4 * width, 1, 1, 0, 1);
    y = lk_graph_activation(g, NULL, y, LK_GELU);
    y = conv(b, lk_name(b, "%s.%s", name, n->fc2), y, width, 1, 1, 0, 1);
    y = lk_graph_scale(g, NULL, y, lk_name(b, "%s.%s", name, n->gamma));
    return lk_graph_add(g, lk_name(b, "%s", name), y, x);
}

static void build(lk_builder *b, const convnext_names *n, const int64_t depths[4], const int64_t widths[4],
                  float final_eps)
{
    char name[96], norm[96];
    lk_graph *g = b->graph;
    lk_node x = conv(b, lk_name(b, "%s", n->stem), lk_build_picture(b), widths[0], 4, 4, 0, 1);
    x = lk_graph_layer_norm(g, lk_name(b, "%s", n->stem_norm), x, EPS);
    for (int i = 0; i < 4; i++) {
        if (i > 0) {
            snprintf(norm, sizeof norm, n->down_norm, i);
            snprintf(name, sizeof name, n->down, i);
            x = lk_graph_layer_norm(g, lk_name(b, "%s", norm), x, EPS);
            x = conv(b, lk_name(b, "%s", name), x, widths[i], 2, 2, 0, 1);
        }
        for (int j = 0; j < (int)depths[i]; j++) {
            snprintf(name, sizeof name, n->block, i, j);
            x = block(b, n, name, x, widths[i]);
        }
    }
    b->features = x;
    x = lk_graph_global_avg_pool(g, NULL, x);
    b->embedding = lk_graph_layer_norm(g, lk_name(b, "%s", n->final_norm), x, final_eps);
}

void lk_build_convnext(lk_builder *b, const void *variant)
{
    lk_convnext_variant v = *(const lk_convnext_variant *)variant;
    const json_t *args = json_object_get(b->config, "model_args");
    lk_build_ints(b, args, "depths", v.depths, 4, 200);
    lk_build_ints(b, args, "dims", v.widths, 4, 8192);
    build(b, &timm, v.depths, v.widths, EPS);
}

void lk_build_convnext_hf(lk_builder *b, const void *variant)
{
    lk_convnext_variant v = *(const lk_convnext_variant *)variant;
    lk_build_ints(b, b->config, "depths", v.depths, 4, 200);
    lk_build_ints(b, b->config, "hidden_sizes", v.widths, 4, 8192);
    build(b, &hf, v.depths, v.widths, lk_build_float(b, b->config, "layer_norm_eps", 1e-12));
}
