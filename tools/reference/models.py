#!/usr/bin/env python3
"""Compares every architecture with timm, torchvision, transformers and open_clip, at the size that people use.

    models.py [NAME...] [--fresh] [--keep] [--table]

Random weights (seeded; batch-norm statistics measured on the random input, so that values stay sensible at any depth) are
saved as the libraries save them into build/reference/models/NAME; build/check/tests/reference/dump_model (or $DUMP_MODEL)
computes the final embedding and two maps in between, in f32, bf16 and int8. Printed: the largest difference of each relative
to its largest value (f32), the cosine of the embedding (bf16, int8; the smaller of two pictures; in brackets that of the
difference of the two pictures' vectors, which nothing constant flatters), and the cosine of the reference's embeddings of the
two pictures, which says that its vectors are not all alike.
Tolerances: f32 1e-4 of everything, bf16 0.999, int8 0.99. A reference is refused whose vectors are nearly the same in every
dimension, or whose two vectors differ by less than a thousand times the error of ours (deep random networks see little
difference between pictures).

Results are kept in build/reference/models.json; what was compared with the same program is not compared again (--fresh: it
is). --table prints them for docs/models.md.
"""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy
import open_clip
import timm
import torch
import torchvision
import transformers
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from timm.models import save_for_hf

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build/reference/models"
RESULTS = ROOT / "build/reference/models.json"
PROGRAM = pathlib.Path(os.environ.get("DUMP_MODEL", ROOT / "build/check/tests/reference/dump_model"))
TOLERANCE = {"bf16": 0.999, "int8": 0.99}
F32_TOLERANCE, APART, SPREAD = 1e-4, 1000, 0.05

# name -> (settings, modules whose output is compared); pictures are of the architecture's own size.
EFFICIENTNETS = [f"{tf}efficientnet_b{i}" for tf in ("", "tf_") for i in range(8)]
TIMM = {
    **{n: ({}, ["layer2", "layer3"]) for n in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "seresnet18", "seresnet34", "seresnet50")},
    **{n: ({}, ["blocks.2", "blocks.4"]) for n in (*EFFICIENTNETS, "efficientnetv2_s", "tf_efficientnetv2_s", "mobilenetv3_small_100", "mobilenetv3_large_100", "tf_mobilenetv3_small_100", "tf_mobilenetv3_large_100")},
    **{n: ({}, ["stages.1", "stages.2"]) for n in ("convnext_tiny", "convnext_small", "convnext_base")},
    **{n: ({}, ["blocks.3", "blocks.8"]) for n in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224", "vit_base_patch32_224")},
    **{n + "+avg": (dict(global_pool="avg"), ["blocks.3", "blocks.8"]) for n in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")},
    "vit_tiny_patch16_224+notoken": (dict(global_pool="avg", class_token=False), ["blocks.3", "blocks.8"]),
    "vit_tiny_patch16_224+320": ({}, ["blocks.3", "blocks.8"]),
    "vit_small_patch14_dinov2+224": ({}, ["blocks.3", "blocks.8"]),
    **{n: ({}, ["blocks.3", "blocks.8"]) for n in ("vit_small_patch14_dinov2", "vit_base_patch14_dinov2", "vit_large_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_base_patch14_reg4_dinov2", "vit_large_patch14_reg4_dinov2")},
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
TV = {f"tv_{n}": (n, ["layer2", "layer3"]) for n in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")}
OPEN_CLIP = {"open_clip_b32": "ViT-B-32", "open_clip_b16": "ViT-B-16"}
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
    settings, maps = TIMM[name]
    architecture, _, other = name.partition("+")
    torch.manual_seed(1)
    side = x.shape[-1]
    extra = dict(img_size=side) if other.isdigit() else {}
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
    architecture, maps = TV[name]
    side = x.shape[-1]
    model = randomise(getattr(torchvision.models, architecture)(weights=None), x)
    save_torch(model.state_dict(), str(folder / "model.safetensors"))
    write_config(folder, {"architecture": architecture, "pretrained_cfg": {"input_size": [3, side, side], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear", "crop_pct": 0.875}})
    seen = hooks(model, [*maps, "layer4"])
    model.fc = torch.nn.Identity()
    return {"embedding": model(x), "features": seen["layer4"]}, {node_of(model, m): seen[m] for m in maps}


def write_preprocessor(folder, side):
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(PREPROCESSOR, size={"shortest_edge": side}, crop_size={"height": side, "width": side})))


def clip_ids(length):
    """Three texts of different lengths, the rest filled with the end of text."""
    ids = torch.randint(1, 2000, (3, length), generator=torch.Generator().manual_seed(3))
    for row, end in enumerate((5, 40, 76)):
        ids[row, end:] = 49407
    return ids


def make_hf(name, folder, x):
    kind, settings, side, layers = HF[name]
    cls = getattr(transformers, kind)
    torch.manual_seed(1)
    config = cls.config_class(**settings)
    config._attn_implementation = "eager"
    model = randomise(cls(config), x)
    model.save_pretrained(folder)
    write_preprocessor(folder, side)
    text = None
    if kind in ("CLIPModel", "SiglipModel"):
        length = config.text_config.max_position_embeddings
        ids = clip_ids(length) if kind == "CLIPModel" else torch.randint(1, 2000, (3, length), generator=torch.Generator().manual_seed(3))
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


def open_clip_block(state, ours, theirs):
    """A block's tensors under transformers' names: what PyTorch keeps as one matrix for q, k and v is three there."""
    out = {}
    for kind in ("weight", "bias"):
        for part, name in zip(state[f"{theirs}.attn.in_proj_{kind}"].chunk(3), ("q_proj", "k_proj", "v_proj")):
            out[f"{ours}.self_attn.{name}.{kind}"] = part
        for mine, name in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
            out[f"{ours}.{mine}.{kind}"] = state[f"{theirs}.{name}.{kind}"]
    return out


def make_open_clip(name, folder, x):
    """A model of open_clip, saved as transformers' CLIPModel as its authors publish them beside their own format."""
    torch.manual_seed(1)
    model = randomise(open_clip.create_model(OPEN_CLIP[name]), x)
    state, patch = model.state_dict(), model.visual.conv1.kernel_size[0]
    out = {"logit_scale": state["logit_scale"], "visual_projection.weight": state["visual.proj"].T, "text_projection.weight": state["text_projection"].T,
           "vision_model.embeddings.class_embedding": state["visual.class_embedding"], "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
           "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
           "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"], "text_model.embeddings.position_embedding.weight": state["positional_embedding"]}
    for kind in ("weight", "bias"):
        for mine, theirs in (("vision_model.pre_layrnorm", "visual.ln_pre"), ("vision_model.post_layernorm", "visual.ln_post"), ("text_model.final_layer_norm", "ln_final")):
            out[f"{mine}.{kind}"] = state[f"{theirs}.{kind}"]
    for i in range(12):
        out.update(open_clip_block(state, f"vision_model.encoder.layers.{i}", f"visual.transformer.resblocks.{i}"))
        out.update(open_clip_block(state, f"text_model.encoder.layers.{i}", f"transformer.resblocks.{i}"))
    config = transformers.CLIPConfig(vision_config=dict(hidden_act="gelu", patch_size=patch), text_config=dict(hidden_act="gelu"))
    transformers.CLIPModel(config).load_state_dict(out)  # every name and shape is theirs
    config.save_pretrained(folder)
    save_torch({k: v.contiguous() for k, v in out.items()}, str(folder / "model.safetensors"))
    write_preprocessor(folder, x.shape[-1])
    ids = clip_ids(77)
    maps = {f"vision_model.encoder.layers.{i}": f"visual.transformer.resblocks.{i}" for i in (3, 8)}
    seen = hooks(model, [*maps.values(), "visual.transformer", "ln_final"])
    embedding, words = model.encode_image(x), model.encode_text(ids)
    return {"embedding": embedding, "features": seen["visual.transformer"]}, {k: seen[v] for k, v in maps.items()}, (ids, {"embedding": words, "features": seen["ln_final"]})


def dump(folder, part, precision, nodes):
    done = subprocess.run([str(PROGRAM), str(folder), part, precision, str(folder / f"in_{part}.safetensors"), str(folder / "out.safetensors"), *nodes], capture_output=True, text=True)
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


def cosine(a, b):
    a, b = (numpy.asarray(v, "float64").reshape(len(v), -1) for v in (a, b))
    return float(((a * b).sum(1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)).min())


def compare(folder, part, want, maps):
    """A row of results: errors by what was compared, cosines by precision."""
    reference = want["embedding"].detach().numpy()
    got = dump(folder, part, "f32", list(maps))
    row = {"f32": {k: relative(got[k], v) for k, v in {**want, **maps}.items()}, "alike": cosine(reference[:1], reference[1:2]),
           "spread": float((reference.std(1) / numpy.sqrt((reference**2).mean(1))).min())}
    for precision in ("bf16", "int8") if part == "vision" else ("bf16",):
        vectors = dump(folder, part, precision, [])["embedding"].reshape(reference.shape)
        row[precision] = [cosine(vectors, reference), cosine(vectors[:1] - vectors[1:2], reference[:1] - reference[1:2])]
    return row


def problems(row):
    out = [f"{k} differs by {e:.1e}" for k, e in row["f32"].items() if not e <= F32_TOLERANCE]
    out += [f"{k}: cosine {row[k][0]:.5f}" for k, least in TOLERANCE.items() if k in row and not row[k][0] >= least]
    apart = max(2 - 2 * row["alike"], 0) ** 0.5
    out += [f"the reference's vectors are all alike ({row['alike']:.6f})"] if not apart >= APART * row["f32"]["embedding"] else []
    return out + ([f"the reference's vectors are constant ({row['spread']:.3f})"] if not row["spread"] >= SPREAD else [])


def show(name, row):
    wrong = problems(row)
    errors = " ".join(f"{e:.1e}" for e in row["f32"].values())
    cosines = " ".join(f"{k} {row[k][0]:.5f} ({row[k][1]:.3f})" for k in ("bf16", "int8") if k in row)
    print(f"{'FAIL' if wrong else 'ok  '} {name:36} {row['size']}  f32 {errors}  {cosines}  two pictures {row['alike']:.5f}  {'; '.join(wrong)}", flush=True)
    return not wrong


def side_of(name):
    architecture, _, other = name.partition("+")
    if name in TIMM:
        return int(other) if other.isdigit() else timm.get_pretrained_cfg(architecture).input_size[-1]
    return HF[name][2] if name in HF else 224


def pictures(count, side):
    """Each of a colour of its own: smooth ones, noisy ones, and some of both."""
    g = torch.Generator().manual_seed(2)
    out = torch.empty(count, 3, side, side)
    for i in range(count):
        forms, noise = ((1.2, 0.02), (0.1, 1.0), (0.6, 0.3))[i % 3]
        out[i] = torch.randn(3, 1, 1, generator=g) + noise * torch.randn(3, side, side, generator=g)
        for grid in (3, 9):
            out[i] += forms * torch.nn.functional.interpolate(torch.randn(1, 3, grid, grid, generator=g), (side, side), mode="bicubic")[0]
    return out


def check(name):
    side = side_of(name)
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    x = pictures(10 if side <= 320 else 6, side)
    few, text = x[:2].contiguous(), None
    with torch.no_grad():
        if name in TIMM:
            want, maps = make_timm(name, folder, few)
        elif name in TV:
            want, maps = make_torchvision(name, folder, few)
        elif name in OPEN_CLIP:
            want, maps, text = make_open_clip(name, folder, few)
        else:
            want, maps, text = make_hf(name, folder, few)
    save_file({"x": few.numpy(), "calibration": x[2:].contiguous().numpy()}, str(folder / "in_vision.safetensors"))
    rows = {name: {"size": side, **compare(folder, "vision", want, maps)}}
    if text:
        save_file({"ids": text[0].numpy()}, str(folder / "in_text.safetensors"))
        rows[name + " (text)"] = {"size": text[0].shape[1], **compare(folder, "text", text[1], {})}
    if "--keep" not in sys.argv:
        shutil.rmtree(folder)
    return rows


def table(results):
    print("| model | size | embedding | last features | two maps between | bf16 | int8 | two pictures |\n|---|---|---|---|---|---|---|---|")
    both = lambda row, k: f"{row[k][0]:.5f} ({row[k][1]:.3f})" if k in row else ""
    for name in results:
        row = results[name]
        e = list(row["f32"].values())
        cells = [f"{row['size']}", *(f"{v:.0e}" for v in e[:2]), " ".join(f"{v:.0e}" for v in e[2:]), both(row, "bf16"), both(row, "int8"), f"{row['alike']:.5f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main():
    everything = [*TIMM, *TV, *HF, *OPEN_CLIP]
    names = [a for a in sys.argv[1:] if not a.startswith("--")] or everything
    read = lambda: json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = read()
    if "--table" in sys.argv:
        return table({k: v for n in everything for k, v in kept.items() if k in (n, n + " (text)")})
    program = hashlib.sha256(PROGRAM.read_bytes()).hexdigest()
    failed = []
    for name in names:
        rows = {k: v for k, v in kept.items() if k in (name, name + " (text)") and v["program"] == program}
        try:
            if not rows or "--fresh" in sys.argv:
                rows = check(name)
                # Read again: several of us can run, each with names of its own.
                kept = read() | {k: {**v, "program": program} for k, v in rows.items()}
                RESULTS.write_text(json.dumps(kept, indent=1))
            good = all([show(k, v) for k, v in rows.items()])
        except Exception as error:  # the others are still worth knowing
            print(f"FAIL {name:36} {error}", flush=True)
            good = False
        if not good:
            failed.append(name)
    print(f"{len(failed)} failed: {' '.join(failed)}" if failed else "all agree")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
