/* Vision transformers (Dosovitskiy et al., 2021; DINOv2: Oquab et al., 2023; registers: Darcet et al., 2023), with the
 * names of timm and of transformers. */
#include "models/build.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 8192, MAX_DEPTH = 100, MAX_SIDE = 4096 };

/* What both namings have to say. */
typedef struct vit {
    int64_t patch, width, registers;
    int64_t image[2]; /* height and width that the positions are for */
    bool class_token;
    bool grid_only; /* positions are for patches alone, added before the leading tokens come */
    bool antialias;
    const char *patches, *class_name, *register_name, *positions, *norm_pre, *norm;
    lk_transformer blocks;
} vit;

static lk_node patches(lk_builder *b, const vit *v)
{
    if (b->size[0] % v->patch != 0 || b->size[1] % v->patch != 0)
        return lk_build_fail(b, LK_INVALID, "pictures of %lldx%lld do not divide into patches of %lld",
                             (long long)b->size[1], (long long)b->size[0], (long long)v->patch);
    /* timm leaves the patches at PyTorch's start of convolutions: uniform within 1 / sqrt(inputs) */
    float deviation = 1 / sqrtf(3.0f * 3.0f * (float)(v->patch * v->patch));
    lk_node x = lk_graph_conv(
        b->graph, lk_name(b, "%s", v->patches), lk_build_picture(b),
        &(lk_conv){
            .out = v->width, .kernel = {v->patch, v->patch}, .stride = {v->patch, v->patch}, .deviation = deviation});
    return lk_graph_tokens(b->graph, NULL, x);
}

static lk_node with_leading(lk_builder *b, const vit *v, lk_node x, bool class_token, bool registers)
{
    lk_node parts[3];
    int count = 0;
    if (class_token)
        parts[count++] = lk_graph_parameter(b->graph, lk_name(b, "%s", v->class_name), 3, (int64_t[]){1, 1, v->width});
    if (registers)
        parts[count++] =
            lk_graph_parameter(b->graph, lk_name(b, "%s", v->register_name), 3, (int64_t[]){1, v->registers, v->width});
    parts[count++] = x;
    return count > 1 ? lk_graph_concat(b->graph, NULL, parts, count, 1) : x;
}

/* Patches, leading tokens and positions in the order of the model, then the blocks. */
static lk_node build(lk_builder *b, const vit *v, bool registers_have_positions)
{
    lk_node x = patches(b, v);
    const int64_t from[2] = {v->image[0] / v->patch, v->image[1] / v->patch},
                  to[2] = {b->size[0] / v->patch, b->size[1] / v->patch};
    const char *positions = lk_name(b, "%s", v->positions);
    b->leading = (v->class_token ? 1 : 0) + v->registers;
    if (v->grid_only) {
        x = lk_build_positions(b, x, positions, 0, from, to, v->width, v->antialias);
        x = with_leading(b, v, x, v->class_token, v->registers > 0);
    } else if (registers_have_positions || v->registers == 0) {
        x = with_leading(b, v, x, v->class_token, v->registers > 0);
        x = lk_build_positions(b, x, positions, b->leading, from, to, v->width, v->antialias);
    } else { /* transformers: the registers come between class token and patches after the positions were added */
        x = with_leading(b, v, x, v->class_token, false);
        x = lk_build_positions(b, x, positions, 1, from, to, v->width, v->antialias);
        lk_node parts[3] = {
            lk_graph_slice(b->graph, NULL, x, 1, 0, 1),
            lk_graph_parameter(b->graph, lk_name(b, "%s", v->register_name), 3, (int64_t[]){1, v->registers, v->width}),
            lk_graph_slice(b->graph, NULL, x, 1, 1, 1 + to[0] * to[1])};
        x = lk_graph_concat(b->graph, NULL, parts, 3, 1);
    }
    if (v->norm_pre) x = lk_graph_layer_norm(b->graph, lk_name(b, "%s", v->norm_pre), x, v->blocks.eps);
    return lk_build_transformer(b, x, &v->blocks);
}

static lk_node first_token(lk_builder *b, lk_node x, int64_t width)
{
    x = lk_graph_slice(b->graph, NULL, x, 1, 0, 1);
    return lk_graph_reshape(b->graph, NULL, x, 2, (int64_t[]){LK_BATCH, width});
}

static void timm_settings(lk_builder *b, const lk_vit_variant *w, const json_t *args, vit *v)
{
    *v = (vit){.patch = lk_build_int(b, args, "patch_size", w->patch, 1, 256),
               .width = lk_build_int(b, args, "embed_dim", w->width, 1, MAX_WIDTH),
               .image = {w->image, w->image},
               .registers = lk_build_int(b, args, "reg_tokens", w->registers, 0, 64),
               .class_token = lk_build_flag(args, "class_token", true),
               .antialias = true,
               .patches = "patch_embed.proj",
               .class_name = "cls_token",
               .register_name = "reg_token",
               .positions = "pos_embed",
               .norm_pre = lk_build_flag(args, "pre_norm", false) ? "norm_pre" : NULL,
               .norm = "norm"};
    if (json_is_array(json_object_get(args, "img_size")))
        lk_build_ints(b, args, "img_size", v->image, 2, MAX_SIDE);
    else
        v->image[0] = v->image[1] = lk_build_int(b, args, "img_size", w->image, 1, MAX_SIDE);
    v->grid_only = !v->class_token || lk_build_flag(args, "no_embed_class", w->registers > 0);
    bool scale = w->layer_scale || json_is_number(json_object_get(args, "init_values"));
    v->blocks = (lk_transformer){.blocks = "blocks.",
                                 .norm1 = "norm1",
                                 .qkv = "attn.qkv",
                                 .proj = "attn.proj",
                                 .scale1 = scale ? "ls1.gamma" : NULL,
                                 .norm2 = "norm2",
                                 .fc1 = "mlp.fc1",
                                 .fc2 = "mlp.fc2",
                                 .scale2 = scale ? "ls2.gamma" : NULL,
                                 .depth = lk_build_int(b, args, "depth", w->depth, 1, MAX_DEPTH),
                                 .heads = lk_build_int(b, args, "num_heads", w->heads, 1, 256),
                                 .width = v->width,
                                 .mlp = (int64_t)((double)v->width * (double)lk_build_float(b, args, "mlp_ratio", 4)),
                                 .eps = 1e-6f,
                                 .activation = LK_GELU,
                                 .no_qkv_bias = !lk_build_flag(args, "qkv_bias", true)};
}

void lk_build_vit(lk_builder *b, const void *variant)
{
    const json_t *args = json_object_get(b->config, "model_args");
    vit v;
    timm_settings(b, variant, args, &v);
    const char *pool = json_string_value(json_object_get(args, "global_pool"));
    if (!pool) pool = json_string_value(json_object_get(b->config, "global_pool"));
    bool average = pool && strcmp(pool, "avg") == 0;
    if (pool && !average && strcmp(pool, "token") != 0) {
        lk_build_fail(b, LK_UNSUPPORTED, "the global_pool %.*s is not known", lk_utf8_fit(pool, 32), pool);
        return;
    }
    if (!average && !v.class_token) {
        lk_build_fail(b, LK_CORRUPT, "there is neither a class token nor a global_pool of \"avg\"");
        return;
    }
    lk_graph *g = b->graph;
    lk_node x = build(b, &v, true);
    /* The norm comes before the pooling, or after it when the pooling is an average, unless the config says otherwise.
     */
    bool fc_norm = lk_build_flag(args, "fc_norm", average), final_norm = lk_build_flag(args, "final_norm", true);
    if (final_norm && !fc_norm) x = lk_graph_layer_norm(g, lk_name(b, "norm"), x, v.blocks.eps);
    b->features = x;
    if (average) {
        lk_shape shape = lk_graph_shape(g, x);
        if (b->leading) x = lk_graph_slice(g, NULL, x, 1, b->leading, shape.dims[1]);
        x = lk_graph_mean_tokens(g, NULL, x);
    } else {
        x = first_token(b, x, v.width);
    }
    if (fc_norm) x = lk_graph_layer_norm(g, lk_name(b, "fc_norm"), x, v.blocks.eps);
    b->embedding = x;
}

static void hf_names(vit *v, lk_hf_vit kind)
{
    v->patches = "embeddings.patch_embeddings.projection";
    v->class_name = "embeddings.cls_token";
    v->register_name = "embeddings.register_tokens";
    v->positions = "embeddings.position_embeddings";
    v->norm = "layernorm";
    lk_transformer *t = &v->blocks;
    t->blocks = "encoder.layer.";
    t->q = "attention.attention.query";
    t->k = "attention.attention.key";
    t->v = "attention.attention.value";
    t->proj = "attention.output.dense";
    bool plain = kind == LK_HF_VIT;
    t->norm1 = plain ? "layernorm_before" : "norm1";
    t->norm2 = plain ? "layernorm_after" : "norm2";
    t->fc1 = plain ? "intermediate.dense" : "mlp.fc1";
    t->fc2 = plain ? "output.dense" : "mlp.fc2";
    t->scale1 = plain ? NULL : "layer_scale1.lambda1";
    t->scale2 = plain ? NULL : "layer_scale2.lambda1";
}

void lk_build_vit_hf(lk_builder *b, const void *variant)
{
    lk_hf_vit kind = *(const lk_hf_vit *)variant;
    const json_t *c = b->config;
    vit v = {.patch = lk_build_int(b, c, "patch_size", 16, 1, 256),
             .width = lk_build_int(b, c, "hidden_size", 768, 1, MAX_WIDTH),
             .registers = kind == LK_HF_DINOV2_REGISTERS ? lk_build_int(b, c, "num_register_tokens", 4, 0, 64) : 0,
             .class_token = true,
             .antialias = kind == LK_HF_DINOV2_REGISTERS};
    int64_t ratio = lk_build_int(b, c, "mlp_ratio", 4, 1, 64);
    v.image[0] = v.image[1] = lk_build_int(b, c, "image_size", 224, 1, MAX_SIDE);
    v.blocks = (lk_transformer){
        .depth = lk_build_int(b, c, "num_hidden_layers", 12, 1, MAX_DEPTH),
        .heads = lk_build_int(b, c, "num_attention_heads", 12, 1, 256),
        .width = v.width,
        .mlp = kind == LK_HF_VIT ? lk_build_int(b, c, "intermediate_size", 3072, 1, 8 * MAX_WIDTH) : ratio * v.width,
        .eps = lk_build_float(b, c, "layer_norm_eps", kind == LK_HF_VIT ? 1e-12 : 1e-6),
        .activation = lk_build_activation(b, c, "hidden_act", LK_GELU),
        .no_qkv_bias = !lk_build_flag(c, "qkv_bias", true)};
    hf_names(&v, kind);
    if (lk_build_flag(c, "use_swiglu_ffn", false)) {
        lk_build_fail(b, LK_UNSUPPORTED, "the gated feed-forward layers of DINOv2's giant are not known");
        return;
    }
    lk_node x = build(b, &v, false);
    b->features = lk_graph_layer_norm(b->graph, lk_name(b, "%s", v.norm), x, v.blocks.eps);
    b->embedding = first_token(b, b->features, v.width);
}
