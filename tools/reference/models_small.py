#!/usr/bin/env python3
"""Makes tests/fixtures/models/cases.json: small models of every family as timm and transformers compute them.

The weights are not stored: value number i of tensor NAME is a function of both (see `values`), which tests/unit/test_models.c
computes too. Stored are config, names and shapes of all tensors that the library saves (classifiers included), and samples of
the results. Full sizes: models.py.

Needs numpy 2.4.6, timm 1.0.31, torch 2.15.0, transformers 5.24.0.
"""
import json
import pathlib
import tempfile

import numpy
import timm
import torch
import transformers
from models import PREPROCESSOR, hooks, node_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf


def units(seed, count):
    """splitmix64 of seed + i as numbers in [-1, 1) of 24 bits."""
    with numpy.errstate(over="ignore"):
        x = numpy.uint64(seed) + (numpy.arange(count, dtype="uint64") + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x = x ^ (x >> numpy.uint64(31))
    return (x >> numpy.uint64(40)).astype("float32") / numpy.float32(2**23) - numpy.float32(1)


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def values(name, shape):
    """Value i of a tensor: middle + spread * u(i)."""
    count = int(numpy.prod(shape)) if shape else 1
    middle, spread = 0.0, 0.1
    if name.endswith("running_var"):
        middle, spread = 1.0, 0.25
    elif any(k in name for k in ("gamma", "lambda", "layer_scale")):
        middle = 0.5
    elif any(k in name for k in ("embeddings.position", "embeddings.class", "embeddings.token", "pos_embed", "_token", "probe")):
        spread = 0.5
    elif len(shape) >= 2:
        spread = (4.5 / (count / shape[0])) ** 0.5
    elif name.endswith("weight"):
        middle = 1.0
    u = units(fnv(name), count)
    return (numpy.float32(middle) + numpy.float32(spread) * u).reshape(shape)


def fill(state):
    return {k: (torch.from_numpy(values(k, tuple(v.shape))) if v.is_floating_point() else torch.zeros_like(v)) for k, v in state.items()}


def picture(n, side):
    return torch.from_numpy(units(fnv("picture"), n * 3 * side * side).reshape(n, 3, side, side).copy())


def sample(x):
    """Up to 96 values, evenly spread, with the largest magnitude of all."""
    flat = x.detach().flatten().double()
    step = max(1, flat.numel() // 96)
    return {"shape": list(x.shape), "step": step, "most": float(flat.abs().max()), "values": [float(f"{v:.7g}") for v in flat[::step].tolist()]}


def saved(folder):
    with safe_open(folder / "model.safetensors", "pt") as f:
        return [[k, f.get_slice(k).get_shape(), f.get_slice(k).get_dtype()] for k in f.keys()]


def case(name, folder, part, want, **more):
    config = json.loads((folder / "config.json").read_text())
    made = {"name": name, "part": part, "config": config, "tensors": saved(folder), "results": {k: sample(v) for k, v in want.items()}, **more}
    if (folder / "preprocessor_config.json").exists():
        made["preprocessor"] = json.loads((folder / "preprocessor_config.json").read_text())
    return made


def timm_case(name, architecture, side, maps, resized=None, **settings):
    folder = pathlib.Path(tempfile.mkdtemp())
    model = timm.create_model(architecture, num_classes=3, **settings)
    state = fill(model.state_dict())
    model.load_state_dict(state)
    model.eval()
    save_for_hf(model, folder, safe_serialization=True, model_config=dict(model_args=settings))
    config = json.loads((folder / "config.json").read_text())
    config = {k: config[k] for k in ("architecture", "global_pool", "model_args") if k in config}
    config["pretrained_cfg"] = {"input_size": [3, side, side], "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "config.json").write_text(json.dumps(config))
    if resized:
        larger = timm.create_model(architecture, num_classes=3, **{**settings, "img_size": side})
        larger.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, larger))
        model = larger.eval()
    seen = hooks(model, maps)
    x = picture(2, side)
    features = model.forward_features(x)
    want = {"embedding": model.forward_head(features, pre_logits=True), "features": features, **{node_of(model, m): seen[m] for m in maps}}
    return case(name, folder, "vision", want, side=side)


def hf_cases(name, kind, side, layers, **settings):
    folder = pathlib.Path(tempfile.mkdtemp())
    cls = getattr(transformers, kind)
    config = cls.config_class(**settings)
    config._attn_implementation = "eager"
    model = cls(config)
    model.save_pretrained(folder)
    # Through the file, because the names in it are not those of the modules.
    save_file(fill(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    model = cls.from_pretrained(folder, attn_implementation="eager").eval()
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(PREPROCESSOR, size={"shortest_edge": side}, crop_size={"height": side, "width": side})))
    x = picture(2, side)
    base = getattr(model, "vit", model)
    if kind in ("CLIPModel", "SiglipModel"):
        length = config.text_config.max_position_embeddings
        ids = (numpy.abs(units(fnv("ids"), 2 * length)) * 40).astype("int64").reshape(2, length) + 1
        end = 49 if kind == "CLIPModel" else None
        if end:
            config.text_config.eos_token_id = ids[0, 4:] = ids[1, 9:] = end
        ids = torch.from_numpy(ids)
        vision, text = model.vision_model(pixel_values=x), model.text_model(input_ids=ids)
        embedding, words = vision.pooler_output, text.pooler_output
        if end:
            embedding, words = model.visual_projection(embedding), model.text_projection(words)
        return [case(name, folder, "vision", {"embedding": embedding, "features": vision.last_hidden_state}, side=side),
                case(name + " text", folder, "text", {"embedding": words, "features": text.last_hidden_state}, ids=ids.tolist())]
    out = base(pixel_values=x)
    embedding = out.pooler_output if kind == "ConvNextModel" else out.last_hidden_state[:, 0]
    return [case(name, folder, "vision", {"embedding": embedding, "features": out.last_hidden_state}, side=side)]


def main():
    torch.set_grad_enabled(False)
    tiny = dict(embed_dim=32, depth=2, num_heads=2)
    hf = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=64, patch_size=16)
    words = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=50, max_position_embeddings=12)
    end = dict(eos_token_id=49, bos_token_id=48)
    stages = dict(layers=[1, 1, 1, 2])
    cases = [
        timm_case("ResNet, basic blocks", "resnet18", 64, ["layer2", "layer3"], channels=[8, 16, 24, 32], **stages),
        timm_case("ResNet, bottlenecks", "resnet50", 64, ["layer2", "layer3"], channels=[8, 8, 16, 16], **stages),
        timm_case("ResNeXt", "resnext50_32x4d", 64, ["layer2", "layer3"], channels=[16, 16, 32, 32], **stages),
        timm_case("SE-ResNet", "seresnet50", 64, ["layer2", "layer3"], channels=[8, 8, 16, 40], **stages),
        timm_case("EfficientNet", "efficientnet_b0", 64, ["blocks.2", "blocks.4"]),
        timm_case("EfficientNet, TensorFlow's padding", "tf_efficientnet_b0", 75, ["blocks.2", "blocks.4"]),
        timm_case("MobileNetV3 small", "mobilenetv3_small_100", 64, ["blocks.2", "blocks.4"]),
        timm_case("ConvNeXt", "convnext_tiny", 64, ["stages.1", "stages.2"], depths=[1, 1, 2, 1], dims=[8, 16, 24, 32]),
        timm_case("ViT", "vit_tiny_patch16_224", 64, ["blocks.0", "blocks.1"], img_size=64, **tiny),
        timm_case("ViT, averaged", "vit_tiny_patch16_224", 64, ["blocks.0", "blocks.1"], img_size=64, global_pool="avg", **tiny),
        timm_case("ViT without class token", "vit_tiny_patch16_224", 64, ["blocks.0"], img_size=64, global_pool="avg", class_token=False, **tiny),
        timm_case("ViT at another size", "vit_tiny_patch16_224", 112, ["blocks.0", "blocks.1"], resized=True, img_size=64, **tiny),
        timm_case("DINOv2 with registers", "vit_small_patch14_reg4_dinov2", 70, ["blocks.0"], resized=True, img_size=98, **tiny),
        *hf_cases("ViT of transformers, classifier", "ViTForImageClassification", 64, "", **hf),
        *hf_cases("DINOv2 of transformers", "Dinov2Model", 96, "", **hf),
        *hf_cases("DINOv2 of transformers with registers", "Dinov2WithRegistersModel", 96, "", **hf),
        *hf_cases("ConvNeXt of transformers", "ConvNextModel", 64, "", depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 32]),
        *hf_cases("CLIP", "CLIPModel", 64, "", projection_dim=20, vision_config=hf, text_config={**words, **end}),
        *hf_cases("SigLIP", "SiglipModel", 64, "", vision_config=hf, text_config={**words, **end}),
    ]
    out = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/models/cases.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
    print(f"{len(cases)} models, {out.stat().st_size} bytes")


main()
