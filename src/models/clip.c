/* CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023): a picture tower and a text tower into one space, with the
 * names of transformers' CLIPModel and SiglipModel. */
#include "models/build.h"

#include <string.h>

enum { MAX_WIDTH = 8192, MAX_DEPTH = 100, MAX_SIDE = 4096 };

typedef struct tower {
    const json_t *config;
    bool siglip;
    int64_t width, depth, heads, mlp;
    float eps;
    lk_activation activation;
} tower;

static tower read_tower(lk_builder *b, const char *part, bool siglip)
{
    bool text = strcmp(part, "text_config") == 0;
    const json_t *c = json_object_get(b->config, part);
    int64_t width = text && !siglip ? 512 : 768;
    tower t = {.config = c,
               .siglip = siglip,
               .width = lk_build_int(b, c, "hidden_size", width, 1, MAX_WIDTH),
               .depth = lk_build_int(b, c, "num_hidden_layers", 12, 1, MAX_DEPTH),
               .heads = lk_build_int(b, c, "num_attention_heads", width / 64, 1, 256),
               .mlp = lk_build_int(b, c, "intermediate_size", 4 * width, 1, 8 * MAX_WIDTH),
               .eps = lk_build_float(b, c, "layer_norm_eps", siglip ? 1e-6 : 1e-5),
               .activation = lk_build_activation(b, c, "hidden_act", siglip ? LK_GELU_TANH : LK_QUICK_GELU)};
    return t;
}

static lk_node encoder(lk_builder *b, const tower *t, const char *blocks, lk_node x, bool causal)
{
    const lk_transformer layers = {.blocks = blocks,
                                   .norm1 = "layer_norm1",
                                   .q = "self_attn.q_proj",
                                   .k = "self_attn.k_proj",
                                   .v = "self_attn.v_proj",
                                   .proj = "self_attn.out_proj",
                                   .norm2 = "layer_norm2",
                                   .fc1 = "mlp.fc1",
                                   .fc2 = "mlp.fc2",
                                   .depth = t->depth,
                                   .heads = t->heads,
                                   .width = t->width,
                                   .mlp = t->mlp,
                                   .eps = t->eps,
                                   .activation = t->activation,
                                   .causal = causal};
    return lk_build_transformer(b, x, &layers);
}

/* A third of the rows of a stored tensor: "<name>#0/3". */
static lk_node third(lk_builder *b, const char *at, int which, lk_node x, int64_t width)
{
    lk_node weight =
        lk_graph_parameter(b->graph, lk_name(b, "%s.in_proj_weight#%d/3", at, which), 2, (int64_t[]){width, width});
    lk_node bias = lk_graph_parameter(b->graph, lk_name(b, "%s.in_proj_bias#%d/3", at, which), 1, (int64_t[]){width});
    return lk_graph_linear_with(b->graph, NULL, x, weight, bias);
}

/* SigLIP's head: one learnt query attends to all tokens, then a block of its own. */
static lk_node attention_pool(lk_builder *b, const tower *t, lk_node x)
{
    lk_graph *g = b->graph;
    const char *at = "vision_model.head.attention";
    lk_node probe = lk_graph_parameter(g, lk_name(b, "vision_model.head.probe"), 3, (int64_t[]){1, 1, t->width});
    /* Once for each picture of the batch: in front of its tokens, and taken off again. */
    probe = lk_graph_slice(g, NULL, lk_graph_concat(g, NULL, (lk_node[]){probe, x}, 2, 1), 1, 0, 1);
    lk_node q = third(b, at, 0, probe, t->width), k = third(b, at, 1, x, t->width), v = third(b, at, 2, x, t->width);
    x = lk_graph_attention(g, NULL, q, k, v, &(lk_attention){.heads = t->heads});
    x = lk_graph_linear(g, lk_name(b, "%s.out_proj", at), x, t->width, false);
    lk_node y = lk_graph_layer_norm(g, lk_name(b, "vision_model.head.layernorm"), x, t->eps);
    y = lk_graph_linear(g, lk_name(b, "vision_model.head.mlp.fc1"), y, t->mlp, false);
    y = lk_graph_activation(g, NULL, y, t->activation);
    y = lk_graph_linear(g, lk_name(b, "vision_model.head.mlp.fc2"), y, t->width, false);
    return lk_graph_reshape(g, NULL, lk_graph_add(g, NULL, x, y), 2, (int64_t[]){LK_BATCH, t->width});
}

static lk_node picture_tokens(lk_builder *b, const tower *t)
{
    lk_graph *g = b->graph;
    int64_t patch = lk_build_int(b, t->config, "patch_size", t->siglip ? 16 : 32, 1, 256);
    int64_t image = lk_build_int(b, t->config, "image_size", 224, 1, MAX_SIDE);
    const int64_t from[2] = {image / patch, image / patch}, to[2] = {b->size[0] / patch, b->size[1] / patch};
    if (!t->siglip && (b->size[0] % patch != 0 || b->size[1] % patch != 0))
        return lk_build_fail(b, LK_INVALID, "pictures of %lldx%lld do not divide into patches of %lld",
                             (long long)b->size[1], (long long)b->size[0], (long long)patch);
    lk_node x = lk_graph_conv(
        g, lk_name(b, "vision_model.embeddings.patch_embedding"), lk_build_picture(b),
        &(lk_conv){.out = t->width, .kernel = {patch, patch}, .stride = {patch, patch}, .no_bias = !t->siglip});
    x = lk_graph_tokens(g, NULL, x);
    if (!t->siglip) {
        lk_node token = lk_graph_parameter(g, lk_name(b, "vision_model.embeddings.class_embedding"), 3,
                                           (int64_t[]){1, 1, t->width});
        x = lk_graph_concat(g, NULL, (lk_node[]){token, x}, 2, 1);
    }
    b->leading = t->siglip ? 0 : 1;
    return lk_build_positions(b, x, lk_name(b, "vision_model.embeddings.position_embedding.weight"), b->leading, from,
                              to, t->width, false);
}

void lk_build_clip_vision(lk_builder *b, const void *variant)
{
    bool siglip = *(const lk_contrastive *)variant == LK_SIGLIP;
    tower t = read_tower(b, "vision_config", siglip);
    lk_graph *g = b->graph;
    lk_node x = picture_tokens(b, &t);
    if (!siglip) x = lk_graph_layer_norm(g, lk_name(b, "vision_model.pre_layrnorm"), x, t.eps);
    x = encoder(b, &t, "vision_model.encoder.layers.", x, false);
    if (siglip) {
        b->features = lk_graph_layer_norm(g, lk_name(b, "vision_model.post_layernorm"), x, t.eps);
        b->embedding = attention_pool(b, &t, b->features);
        return;
    }
    b->features = x;
    x = lk_graph_reshape(g, NULL, lk_graph_slice(g, NULL, x, 1, 0, 1), 2, (int64_t[]){LK_BATCH, t.width});
    x = lk_graph_layer_norm(g, lk_name(b, "vision_model.post_layernorm"), x, t.eps);
    b->embedding = lk_graph_linear(g, lk_name(b, "visual_projection"), x,
                                   lk_build_int(b, b->config, "projection_dim", 512, 1, MAX_WIDTH), true);
}

void lk_build_clip_text(lk_builder *b, const void *variant)
{
    bool siglip = *(const lk_contrastive *)variant == LK_SIGLIP;
    tower t = read_tower(b, "text_config", siglip);
    lk_graph *g = b->graph;
    b->length = lk_build_int(b, t.config, "max_position_embeddings", siglip ? 64 : 77, 2, 4096);
    int64_t words = lk_build_int(b, t.config, "vocab_size", siglip ? 32000 : 49408, 2, 1 << 22);
    b->input = lk_graph_input(g, "input_ids", LK_TYPE_I32, 2, (int64_t[]){LK_BATCH, b->length});
    lk_node x = lk_graph_embedding(g, lk_name(b, "text_model.embeddings.token_embedding"), b->input, words, t.width);
    lk_node p = lk_graph_parameter(g, lk_name(b, "text_model.embeddings.position_embedding.weight"), 3,
                                   (int64_t[]){1, b->length, t.width});
    x = encoder(b, &t, "text_model.encoder.layers.", lk_graph_add(g, NULL, x, p), !siglip);
    x = lk_graph_layer_norm(g, lk_name(b, "text_model.final_layer_norm"), x, t.eps);
    b->features = x;
    if (siglip) { /* the last place, whatever stands there */
        x = lk_graph_reshape(g, NULL, lk_graph_slice(g, NULL, x, 1, b->length - 1, b->length), 2,
                             (int64_t[]){LK_BATCH, t.width});
        int64_t out = lk_build_int(b, t.config, "projection_size", t.width, 1, MAX_WIDTH);
        b->embedding = lk_graph_linear(g, lk_name(b, "text_model.head"), x, out, false);
        return;
    }
    /* Early configs say 2 where they mean the end of text, which is the largest id. */
    int64_t end = lk_build_int(b, t.config, "eos_token_id", 49407, 0, 1 << 22);
    x = lk_graph_pick_token(g, NULL, x, b->input, end == 2 ? -1 : (int32_t)end);
    b->embedding = lk_graph_linear(g, lk_name(b, "text_projection"), x,
                                   lk_build_int(b, b->config, "projection_dim", 512, 1, MAX_WIDTH), true);
}
