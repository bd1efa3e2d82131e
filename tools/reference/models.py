#!/usr/bin/env python3
"""Compares every architecture with timm, torchvision and transformers.

    models.py [NAME...] [--precision f32|bf16|int8] [--keep]

Random weights (seeded; batch-norm statistics measured on the random input, so that values stay sensible at any depth) are
saved as the libraries save them into build/reference/models/NAME; build/check/tests/reference/dump_model (or $DUMP_MODEL)
computes final embedding and two maps in between; the largest difference relative to the largest value is printed.
Tolerances: f32 1e-4 of everything, bf16 cosine 0.999 and int8 cosine 0.99 of the embedding.

Needs timm 1.0.31, torchvision 0.29.2, transformers 5.24.0, torch 2.15.0, safetensors 0.8.0.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy
import timm
import torch
import torchvision
import transformers
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from timm.models import save_for_hf

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build/reference/models"
TOLERANCE = {"f32": 1e-4, "bf16": 0.999, "int8": 0.99}

# name -> (how, settings, input side, modules whose output is compared -> our node)
TIMM = {
    **{n: ({}, 224, ["layer2", "layer3"]) for n in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "seresnet18", "seresnet50")},
    **{n: ({}, s, ["blocks.2", "blocks.4"]) for n, s in (
        ("efficientnet_b0", 224), ("efficientnet_b1", 240), ("efficientnet_b2", 256), ("efficientnet_b3", 288), ("efficientnet_b4", 320),
        ("efficientnet_b5", 224), ("efficientnet_b6", 224), ("efficientnet_b7", 224), ("tf_efficientnet_b0", 224), ("tf_efficientnet_b3", 301),
        ("tf_efficientnet_b7", 225), ("efficientnetv2_s", 288), ("tf_efficientnetv2_s", 300), ("mobilenetv3_large_100", 224), ("mobilenetv3_small_100", 224),
        ("tf_mobilenetv3_large_100", 224))},
    **{n: ({}, 224, ["stages.1", "stages.2"]) for n in ("convnext_tiny", "convnext_small", "convnext_base")},
    **{n: ({}, 224, ["blocks.3", "blocks.8"]) for n in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224", "vit_base_patch32_224")},
    "vit_small_patch16_224+avg": (dict(global_pool="avg"), 224, ["blocks.3", "blocks.8"]),
    "vit_tiny_patch16_224+notoken": (dict(global_pool="avg", class_token=False), 224, ["blocks.3", "blocks.8"]),
    "vit_tiny_patch16_224+320": (dict(), 320, ["blocks.3", "blocks.8"]),
    **{n: ({}, 224, ["blocks.3", "blocks.8"]) for n in ("vit_small_patch14_dinov2", "vit_base_patch14_dinov2", "vit_large_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_base_patch14_reg4_dinov2", "vit_large_patch14_reg4_dinov2")},
}
CLIP_LARGE = dict(projection_dim=768, text_config=dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12),
                  vision_config=dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24, patch_size=14))
DINO = {"small": dict(hidden_size=384, num_attention_heads=6), "base": dict(), "large": dict(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24)}
HF = {
    "hf_vit_base": ("ViTModel", dict(), 224, "encoder.layer"),
    "hf_vit_tiny_classifier": ("ViTForImageClassification", dict(hidden_size=192, num_attention_heads=3, intermediate_size=768), 224, "encoder.layer"),
    **{f"hf_dinov2_{k}": ("Dinov2Model", dict(image_size=518, patch_size=14, **v), 224, "encoder.layer") for k, v in DINO.items()},
    **{f"hf_dinov2_{k}_registers": ("Dinov2WithRegistersModel", dict(image_size=518, patch_size=14, **v), 224, "encoder.layer") for k, v in DINO.items()},
    "hf_convnext_tiny": ("ConvNextModel", dict(), 224, "encoder.stages"),
    "hf_clip_b32": ("CLIPModel", dict(), 224, "vision_model.encoder.layers"),
    "hf_clip_b16": ("CLIPModel", dict(vision_config=dict(patch_size=16)), 224, "vision_model.encoder.layers"),
    "hf_clip_l14": ("CLIPModel", CLIP_LARGE, 224, "vision_model.encoder.layers"),
    "hf_clip_b32_laion": ("CLIPModel", dict(vision_config=dict(hidden_act="gelu"), text_config=dict(hidden_act="gelu", eos_token_id=2)), 224, "vision_model.encoder.layers"),
    "hf_siglip_b16": ("SiglipModel", dict(), 224, "vision_model.encoder.layers"),
}
TV = {"tv_resnet50": ("resnet50", 224, ["layer2", "layer3"]), "tv_resnext50_32x4d": ("resnext50_32x4d", 224, ["layer2", "layer3"])}
PREPROCESSOR = dict(do_resize=True, do_center_crop=True, do_rescale=True, do_normalize=True, resample=3, rescale_factor=1 / 255,
                    image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28])


def randomise(model, x):
    """Seeded weights: spread by fan-in, norms near 1, statistics of batch norms from a pass in training mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim >= 2 and "embed" not in name and "token" not in name and "probe" not in name:
                p.copy_(torch.randn(p.shape, generator=generator) * (1.5 / p[0].numel()) ** 0.5)
            elif p.ndim >= 2:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
            elif name.endswith("bias"):
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
            elif p.ndim == 1 and "gamma" in name or "layer_scale" in name or "lambda" in name:
                p.copy_(0.5 + 0.1 * torch.randn(p.shape, generator=generator))
            elif p.ndim == 1 and p.numel() > 1:
                p.copy_(1 + 0.1 * torch.randn(p.shape, generator=generator))
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        if norms:
            for m in norms:
                m.momentum = 1.0
            model.train()
            for m in model.modules():
                if isinstance(m, torch.nn.Dropout) or "Drop" in type(m).__name__:
                    m.eval()
            model(x)
            for m in norms:  # no two channels with exactly the statistics of this input
                m.running_mean += 0.05 * m.running_var.sqrt()
                m.running_var *= 1.1
    return model.eval()


def hooks(model, names):
    seen = {}
    for name in names:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, (o[0] if isinstance(o, tuple) else o).detach()))
    return seen


def node_of(model, name):
    """Ours are named after blocks; a stage is named by its last block."""
    module = model.get_submodule(name)
    inner = module.blocks if hasattr(module, "blocks") else getattr(module, "layers", module)
    if isinstance(inner, (torch.nn.Sequential, torch.nn.ModuleList)) and len(inner):
        path = name + ("" if inner is module else ".blocks" if hasattr(module, "blocks") else ".layers")
        return f"{path}.{len(inner) - 1}"
    return name


def write_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config))


def make_timm(name, folder, x):
    settings, side, maps = TIMM[name]
    architecture = name.split("+")[0]
    torch.manual_seed(1)
    extra = dict(img_size=side) if "dinov2" in architecture or "+320" in name else {}
    model = timm.create_model(architecture, pretrained=False, **settings)
    randomise(model, x if not extra else torch.nn.functional.interpolate(x, model.patch_embed.img_size[0]))
    save_for_hf(model, folder, safe_serialization=True, model_config=dict(model_args=settings) if settings else None)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"].update(input_size=[3, side, side])
    write_config(folder, config)
    if extra:  # what timm does when a published file is opened at another size
        larger = timm.create_model(architecture, pretrained=False, **settings, **extra)
        larger.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(model.state_dict(), larger))
        model = larger.eval()
    seen = hooks(model, maps)
    features = model.forward_features(x)
    want = {"embedding": model.forward_head(features, pre_logits=True), "features": features}
    return want, {node_of(model, m): seen[m] for m in maps}


def make_torchvision(name, folder, x):
    architecture, side, maps = TV[name]
    model = randomise(getattr(torchvision.models, architecture)(weights=None), x)
    save_torch(model.state_dict(), str(folder / "model.safetensors"))
    write_config(folder, {"architecture": architecture, "pretrained_cfg": {"input_size": [3, side, side], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear", "crop_pct": 0.875}})
    seen = hooks(model, [*maps, "layer4"])
    model.fc = torch.nn.Identity()
    return {"embedding": model(x), "features": seen["layer4"]}, {node_of(model, m): seen[m] for m in maps}


def make_hf(name, folder, x):
    kind, settings, side, layers = HF[name]
    cls = getattr(transformers, kind)
    torch.manual_seed(1)
    config = cls.config_class(**settings)
    config._attn_implementation = "eager"
    model = randomise(cls(config), x)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(PREPROCESSOR, size={"shortest_edge": side}, crop_size={"height": side, "width": side})))
    text = None
    if kind in ("CLIPModel", "SiglipModel"):
        ids = torch.randint(1, 2000, (3, config.text_config.max_position_embeddings), generator=torch.Generator().manual_seed(3))
        if kind == "CLIPModel":
            for row, end in enumerate((5, 40, 76)):
                ids[row, end:] = 49407
        out = model.text_model(input_ids=ids)
        projected = model.text_projection(out.pooler_output) if kind == "CLIPModel" else out.pooler_output
        text = (ids, {"embedding": projected, "features": out.last_hidden_state})
    base = model
    for wrapper in ("vit", "dinov2", "convnext"):
        base = getattr(base, wrapper, base)
    prefix = "" if base is model else [n for n, m in model.named_modules() if m is base][0] + "."
    names = [n for n, m in base.named_modules() if n.rsplit(".", 1)[-1] in ("1", "2") and type(m).__name__.endswith(("Layer", "EncoderLayer", "Stage", "ViTBlock"))]
    if kind == "ConvNextModel":
        names = ["encoder.stages.1", "encoder.stages.2"]
    names = [n for n in names if "text" not in n][:2]
    seen = hooks(base, names)
    # The modules of transformers 5 are called otherwise than the tensors it saves: blocks are told by their number.
    node = {n: f"{prefix}{layers}.{n.rsplit('.', 1)[-1]}" if kind != "ConvNextModel" else node_of(base, n) for n in names}
    if kind == "CLIPModel":
        out = model.vision_model(pixel_values=x)
        want = {"embedding": model.visual_projection(out.pooler_output), "features": out.last_hidden_state}
    elif kind == "SiglipModel":
        out = model.vision_model(pixel_values=x)
        want = {"embedding": out.pooler_output, "features": out.last_hidden_state}
    else:
        out = base(pixel_values=x)
        want = {"embedding": out.pooler_output if kind == "ConvNextModel" else out.last_hidden_state[:, 0], "features": out.last_hidden_state}
    return want, {node[n]: seen[n] for n in names}, text


def dump(folder, part, precision, nodes):
    program = os.environ.get("DUMP_MODEL", str(ROOT / "build/check/tests/reference/dump_model"))
    done = subprocess.run([program, str(folder), part, precision, str(folder / f"in_{part}.safetensors"), str(folder / "out.safetensors"), *nodes], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"dump_model: exit status {done.returncode}")
    return load_file(str(folder / "out.safetensors"))


def relative(got, want):
    want = want.detach().numpy().astype("float64")
    got = got.astype("float64")
    if got.shape != want.shape and got.size == want.size:
        got = got.reshape(want.shape)
    if got.shape != want.shape:
        raise RuntimeError(f"shape {got.shape}, not {want.shape}")
    return float(numpy.abs(got - want).max() / numpy.abs(want).max())


def cosine(got, want):
    a, b = got.astype("float64").reshape(len(got), -1), want.detach().numpy().astype("float64").reshape(len(got), -1)
    return float(((a * b).sum(1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)).min())


def judge(label, folder, part, precision, want, maps):
    got = dump(folder, part, precision, list(maps))
    if precision != "f32":
        value = cosine(got["embedding"], want["embedding"])
        good = value >= TOLERANCE[precision]
        print(f"{'ok  ' if good else 'FAIL'} {label:40} {precision}: cosine {value:.5f}", flush=True)
        return good
    errors = {k: relative(got[k], v) for k, v in {**want, **maps}.items()}
    good = all(e <= TOLERANCE["f32"] for e in errors.values())
    print(f"{'ok  ' if good else 'FAIL'} {label:40} " + "  ".join(f"{k} {e:.1e}" for k, e in errors.items()), flush=True)
    return good


def check(name, precision):
    side = (TIMM.get(name) or HF.get(name) or TV[name])[{True: 1, False: 2}[name in TIMM or name in TV]]
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.set_num_threads(2)
    # Smooth pictures with some noise: what networks meet, unlike white noise.
    g = torch.Generator().manual_seed(2)
    coarse = torch.randn(10, 3, 9, 9, generator=g)
    x = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic") + 0.2 * torch.randn(10, 3, side, side, generator=g)
    few = x[:2].contiguous()
    with torch.no_grad():
        if name in TIMM:
            (want, maps), text = make_timm(name, folder, few), None
        elif name in TV:
            (want, maps), text = make_torchvision(name, folder, few), None
        else:
            want, maps, text = make_hf(name, folder, few)
    save_file({"x": few.numpy(), "calibration": x[2:].contiguous().numpy()}, str(folder / "in_vision.safetensors"))
    good = judge(name, folder, "vision", precision, want, maps)
    if text:
        save_file({"ids": text[0].numpy()}, str(folder / "in_text.safetensors"))
        if precision != "int8":
            good &= judge(name + " (text)", folder, "text", precision, text[1], {})
    if "--keep" not in sys.argv:
        shutil.rmtree(folder)
    return good


def main():
    arguments = sys.argv[1:]
    precision = arguments[arguments.index("--precision") + 1] if "--precision" in arguments else "f32"
    names = [a for i, a in enumerate(arguments) if not a.startswith("--") and (i == 0 or arguments[i - 1] != "--precision")]
    failed = []
    for name in names or [*TIMM, *TV, *HF]:
        try:
            good = check(name, precision)
        except Exception as error:  # the others are still worth knowing
            print(f"FAIL {name:40} {error}", flush=True)
            good = False
        if not good:
            failed.append(name)
    print(f"{len(failed)} failed: {' '.join(failed)}" if failed else "all agree")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
