#include "models/registry.h"

#include <string.h>

#define TIMM_TV "timm, torchvision"

static const lk_resnet_variant r18 = {true, false, {2, 2, 2, 2}, 1, 64}, r34 = {true, false, {3, 4, 6, 3}, 1, 64},
                               r50 = {false, false, {3, 4, 6, 3}, 1, 64}, r101 = {false, false, {3, 4, 23, 3}, 1, 64},
                               r152 = {false, false, {3, 8, 36, 3}, 1, 64}, x50 = {false, false, {3, 4, 6, 3}, 32, 4},
                               x101 = {false, false, {3, 4, 23, 3}, 32, 8}, w50 = {false, false, {3, 4, 6, 3}, 1, 128},
                               w101 = {false, false, {3, 4, 23, 3}, 1, 128}, s18 = {true, true, {2, 2, 2, 2}, 1, 64},
                               s34 = {true, true, {3, 4, 6, 3}, 1, 64}, s50 = {false, true, {3, 4, 6, 3}, 1, 64},
                               s101 = {false, true, {3, 4, 23, 3}, 1, 64}, s152 = {false, true, {3, 8, 36, 3}, 1, 64},
                               sx50 = {false, true, {3, 4, 6, 3}, 32, 4};

static const lk_efficientnet_variant b0 = {LK_EFFICIENTNET, 1.0f, 1.0f, false},
                                     b1 = {LK_EFFICIENTNET, 1.0f, 1.1f, false},
                                     b2 = {LK_EFFICIENTNET, 1.1f, 1.2f, false},
                                     b3 = {LK_EFFICIENTNET, 1.2f, 1.4f, false},
                                     b4 = {LK_EFFICIENTNET, 1.4f, 1.8f, false},
                                     b5 = {LK_EFFICIENTNET, 1.6f, 2.2f, false},
                                     b6 = {LK_EFFICIENTNET, 1.8f, 2.6f, false},
                                     b7 = {LK_EFFICIENTNET, 2.0f, 3.1f, false},
                                     t0 = {LK_EFFICIENTNET, 1.0f, 1.0f, true}, t1 = {LK_EFFICIENTNET, 1.0f, 1.1f, true},
                                     t2 = {LK_EFFICIENTNET, 1.1f, 1.2f, true}, t3 = {LK_EFFICIENTNET, 1.2f, 1.4f, true},
                                     t4 = {LK_EFFICIENTNET, 1.4f, 1.8f, true}, t5 = {LK_EFFICIENTNET, 1.6f, 2.2f, true},
                                     t6 = {LK_EFFICIENTNET, 1.8f, 2.6f, true}, t7 = {LK_EFFICIENTNET, 2.0f, 3.1f, true},
                                     v2s = {LK_EFFICIENTNET_V2_S, 1, 1, false},
                                     tv2s = {LK_EFFICIENTNET_V2_S, 1, 1, true},
                                     m3s = {LK_MOBILENET_V3_SMALL, 1, 1, false},
                                     m3l = {LK_MOBILENET_V3_LARGE, 1, 1, false},
                                     tm3s = {LK_MOBILENET_V3_SMALL, 1, 1, true},
                                     tm3l = {LK_MOBILENET_V3_LARGE, 1, 1, true};

static const lk_convnext_variant cnt = {{3, 3, 9, 3}, {96, 192, 384, 768}}, cns = {{3, 3, 27, 3}, {96, 192, 384, 768}},
                                 cnb = {{3, 3, 27, 3}, {128, 256, 512, 1024}},
                                 cnl = {{3, 3, 27, 3}, {192, 384, 768, 1536}};

#define VIT(name, patch, width, depth, heads, image)                                                                   \
    static const lk_vit_variant name = {patch, width, depth, heads, image, false, 0}
VIT(ti16, 16, 192, 12, 3, 224);
VIT(ti16l, 16, 192, 12, 3, 384);
VIT(s16, 16, 384, 12, 6, 224);
VIT(s16l, 16, 384, 12, 6, 384);
VIT(s32, 32, 384, 12, 6, 224);
VIT(s32l, 32, 384, 12, 6, 384);
VIT(vb16, 16, 768, 12, 12, 224);
VIT(vb16l, 16, 768, 12, 12, 384);
VIT(vb32, 32, 768, 12, 12, 224);
VIT(vb32l, 32, 768, 12, 12, 384);
VIT(vb8, 8, 768, 12, 12, 224);
VIT(vl16, 16, 1024, 24, 16, 224);
VIT(vl16l, 16, 1024, 24, 16, 384);
VIT(vl32l, 32, 1024, 24, 16, 384);
static const lk_vit_variant ds = {14, 384, 12, 6, 518, true, 0}, db = {14, 768, 12, 12, 518, true, 0},
                            dl = {14, 1024, 24, 16, 518, true, 0}, dsr = {14, 384, 12, 6, 518, true, 4},
                            dbr = {14, 768, 12, 12, 518, true, 4}, dlr = {14, 1024, 24, 16, 518, true, 4};

static const lk_hf_vit hf_vit = LK_HF_VIT, hf_dino = LK_HF_DINOV2, hf_registers = LK_HF_DINOV2_REGISTERS;
static const lk_contrastive clip = LK_CLIP, siglip = LK_SIGLIP;

#define ROW(name, family, source, build, variant)                                                                      \
    {                                                                                                                  \
        {name, family, source, false}, false, build, NULL, &variant, NULL                                              \
    }
#define RESNET(name, variant) ROW(name, "ResNet", TIMM_TV, lk_build_resnet, variant)
#define SERESNET(name, variant) ROW(name, "SE-ResNet", "timm", lk_build_resnet, variant)
#define EFFICIENT(name, family, variant) ROW(name, family, "timm", lk_build_efficientnet, variant)
#define CONVNEXT(name, variant) ROW(name, "ConvNeXt", "timm", lk_build_convnext, variant)
#define VISION(name, family, variant) ROW(name, family, "timm", lk_build_vit, variant)
#define HF(name, family, text, vision, words, variant, wrapper)                                                        \
    {                                                                                                                  \
        {name, family, "transformers", text}, true, vision, words, &variant, wrapper                                   \
    }

static const lk_registry_row rows[] = {
    RESNET("resnet18", r18),
    RESNET("resnet34", r34),
    RESNET("resnet50", r50),
    RESNET("resnet101", r101),
    RESNET("resnet152", r152),
    ROW("resnext50_32x4d", "ResNeXt", TIMM_TV, lk_build_resnet, x50),
    ROW("resnext101_32x8d", "ResNeXt", TIMM_TV, lk_build_resnet, x101),
    RESNET("wide_resnet50_2", w50),
    RESNET("wide_resnet101_2", w101),
    SERESNET("seresnet18", s18),
    SERESNET("seresnet34", s34),
    SERESNET("seresnet50", s50),
    SERESNET("seresnet101", s101),
    SERESNET("seresnet152", s152),
    SERESNET("seresnext50_32x4d", sx50),
    EFFICIENT("efficientnet_b0", "EfficientNet", b0),
    EFFICIENT("efficientnet_b1", "EfficientNet", b1),
    EFFICIENT("efficientnet_b2", "EfficientNet", b2),
    EFFICIENT("efficientnet_b3", "EfficientNet", b3),
    EFFICIENT("efficientnet_b4", "EfficientNet", b4),
    EFFICIENT("efficientnet_b5", "EfficientNet", b5),
    EFFICIENT("efficientnet_b6", "EfficientNet", b6),
    EFFICIENT("efficientnet_b7", "EfficientNet", b7),
    EFFICIENT("tf_efficientnet_b0", "EfficientNet", t0),
    EFFICIENT("tf_efficientnet_b1", "EfficientNet", t1),
    EFFICIENT("tf_efficientnet_b2", "EfficientNet", t2),
    EFFICIENT("tf_efficientnet_b3", "EfficientNet", t3),
    EFFICIENT("tf_efficientnet_b4", "EfficientNet", t4),
    EFFICIENT("tf_efficientnet_b5", "EfficientNet", t5),
    EFFICIENT("tf_efficientnet_b6", "EfficientNet", t6),
    EFFICIENT("tf_efficientnet_b7", "EfficientNet", t7),
    EFFICIENT("efficientnetv2_s", "EfficientNetV2", v2s),
    EFFICIENT("tf_efficientnetv2_s", "EfficientNetV2", tv2s),
    EFFICIENT("mobilenetv3_large_100", "MobileNetV3", m3l),
    EFFICIENT("mobilenetv3_small_100", "MobileNetV3", m3s),
    EFFICIENT("tf_mobilenetv3_large_100", "MobileNetV3", tm3l),
    EFFICIENT("tf_mobilenetv3_small_100", "MobileNetV3", tm3s),
    CONVNEXT("convnext_tiny", cnt),
    CONVNEXT("convnext_small", cns),
    CONVNEXT("convnext_base", cnb),
    CONVNEXT("convnext_large", cnl),
    HF("convnext", "ConvNeXt", false, lk_build_convnext_hf, NULL, cnt, "convnext."),
    VISION("vit_tiny_patch16_224", "ViT", ti16),
    VISION("vit_tiny_patch16_384", "ViT", ti16l),
    VISION("vit_small_patch16_224", "ViT", s16),
    VISION("vit_small_patch16_384", "ViT", s16l),
    VISION("vit_small_patch32_224", "ViT", s32),
    VISION("vit_small_patch32_384", "ViT", s32l),
    VISION("vit_base_patch16_224", "ViT", vb16),
    VISION("vit_base_patch16_384", "ViT", vb16l),
    VISION("vit_base_patch32_224", "ViT", vb32),
    VISION("vit_base_patch32_384", "ViT", vb32l),
    VISION("vit_base_patch8_224", "ViT", vb8),
    VISION("vit_large_patch16_224", "ViT", vl16),
    VISION("vit_large_patch16_384", "ViT", vl16l),
    VISION("vit_large_patch32_384", "ViT", vl32l),
    VISION("vit_small_patch14_dinov2", "DINOv2", ds),
    VISION("vit_base_patch14_dinov2", "DINOv2", db),
    VISION("vit_large_patch14_dinov2", "DINOv2", dl),
    VISION("vit_small_patch14_reg4_dinov2", "DINOv2", dsr),
    VISION("vit_base_patch14_reg4_dinov2", "DINOv2", dbr),
    VISION("vit_large_patch14_reg4_dinov2", "DINOv2", dlr),
    HF("vit", "ViT", false, lk_build_vit_hf, NULL, hf_vit, "vit."),
    HF("dinov2", "DINOv2", false, lk_build_vit_hf, NULL, hf_dino, "dinov2."),
    HF("dinov2_with_registers", "DINOv2", false, lk_build_vit_hf, NULL, hf_registers, "dinov2_with_registers."),
    HF("clip", "CLIP", true, lk_build_clip_vision, lk_build_clip_text, clip, NULL),
    HF("siglip", "SigLIP", true, lk_build_clip_vision, lk_build_clip_text, siglip, NULL),
};
enum { ROWS = sizeof rows / sizeof *rows };

const char *lk_registry_name(const json_t *config)
{
    const char *timm = json_string_value(json_object_get(config, "architecture"));
    return timm ? timm : json_string_value(json_object_get(config, "model_type"));
}

const lk_registry_row *lk_registry_find(const json_t *config)
{
    const char *name = lk_registry_name(config);
    bool transformers = !json_is_string(json_object_get(config, "architecture"));
    for (int i = 0; name && i < ROWS; i++) {
        size_t n = strlen(rows[i].about.name);
        /* timm: "resnet50.a1_in1k" names the weights behind the dot. */
        if (rows[i].transformers == transformers && strncmp(rows[i].about.name, name, n) == 0 &&
            (name[n] == 0 || (!transformers && name[n] == '.')))
            return &rows[i];
    }
    return NULL;
}

const lk_architecture *lk_architecture_at(size_t i)
{
    return i < ROWS ? &rows[i].about : NULL;
}
