#!/usr/bin/env python3
"""Makes tests/fixtures/preprocess: pictures as timm's evaluation transforms and transformers' image processors prepare them.

    preprocess.py            writes the fixture: small pictures
    preprocess.py --full DIR the same for pictures of photographs' size

Needs timm 1.0.31, transformers 5.24.0, torchvision 0.29.2, pillow 13.0.0. tests/unit/test_preprocess.c makes the same
pictures by the same formula and compares; with LIKENESS_PREPROCESS_CASES=DIR it reads DIR instead.
"""
import json
import pathlib
import sys

import numpy
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

IMAGENET = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
HALF = dict(mean=[0.5] * 3, std=[0.5] * 3)


def picture(width, height):
    """Slopes, waves that grow finer, noise and hard edges: integers only, so that C makes the same."""
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width), numpy.arange(3), indexing="ij")
    slope = (x * 3 + y * 2 + c * 40) % 256
    wave = (x * x * (c + 1) // 16 + y * y // 8) % 256
    noise = ((x * 1103515245 + y * 12345 + c * 777) % 65521 * 31) % 256
    edge = numpy.where(((x // 5 + y // 7) % 2) == 0, 255, 0)
    which = (x * 4 // width + y * 3 // height) % 4
    return numpy.choose(which, [slope, wave, noise, edge]).astype("uint8")


def timm_case(size, sizes, **extra):
    cfg = {"input_size": [3, *size], "interpolation": "bicubic", **IMAGENET, **extra}
    return {"config": {"architecture": "any", "pretrained_cfg": cfg}, "preprocessor": None, "sizes": sizes}


def hf_case(processor, sizes, **extra):
    made = getattr(transformers, processor)(**extra)
    config = json.loads(made.to_json_string())
    config.pop("data_format", None)
    return {"config": {"model_type": "any"}, "preprocessor": {"image_processor_type": processor, **config}, "sizes": sizes}


def cases(full):
    s = [(1152, 864), (640, 1000), (300, 200)] if full else [(97, 61), (40, 150), (23, 31)]
    n = 224 if full else 32
    square, clip = [n, n], dict(size={"shortest_edge": n}, crop_size={"height": n, "width": n})
    return [
        timm_case(square, s, crop_pct=0.875), timm_case(square, s, crop_pct=0.95, interpolation="bilinear"),
        timm_case(square, s, crop_pct=1.0, crop_mode="squash", **HALF), timm_case(square, s, crop_pct=0.9, crop_mode="border", interpolation="bilinear"),
        timm_case([n, n // 2 + 5], s, crop_pct=0.9), timm_case(square, s, crop_pct=1.0, interpolation="lanczos"),
        timm_case([n + 1, n + 1], s, crop_pct=0.77), timm_case(square, s, crop_pct=0.9, interpolation="nearest"),
        hf_case("CLIPImageProcessor", s, **clip), hf_case("SiglipImageProcessor", s, size={"height": n, "width": n}),
        hf_case("ViTImageProcessor", s, size={"height": n, "width": n}, resample=2),
        hf_case("BitImageProcessor", s, size={"shortest_edge": n * 8 // 7}, crop_size={"height": n, "width": n}, resample=3),
        hf_case("ConvNextImageProcessor", s, size={"shortest_edge": n}, crop_pct=0.875, resample=3),
        hf_case("CLIPImageProcessor", s, size={"shortest_edge": n // 2}, crop_size={"height": n, "width": n}),
    ]


def prepare(case, image):
    if case["preprocessor"] is None:
        config = resolve_data_config({}, pretrained_cfg=case["config"]["pretrained_cfg"])
        return create_transform(**config, is_training=False)(image)
    kind = getattr(transformers, case["preprocessor"]["image_processor_type"])
    return kind(**{k: v for k, v in case["preprocessor"].items() if k != "image_processor_type"})(image, return_tensors="pt")["pixel_values"][0]


def main():
    full = len(sys.argv) == 3 and sys.argv[1] == "--full"
    out = pathlib.Path(sys.argv[2]) if full else pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/preprocess"
    out.mkdir(parents=True, exist_ok=True)
    tensors, listed = {}, cases(full)
    for i, case in enumerate(listed):
        for width, height in case["sizes"]:
            made = prepare(case, Image.fromarray(picture(width, height)))
            mean, std = ((case["preprocessor"]["image_mean"], case["preprocessor"]["image_std"]) if case["preprocessor"] else
                         (case["config"]["pretrained_cfg"]["mean"], case["config"]["pretrained_cfg"]["std"]))
            undone = (made.double() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]) * 255
            assert (undone - undone.round()).abs().max() < 1e-3
            tensors[f"{i}.{width}x{height}"] = undone.round().clamp(0, 255).to(torch.uint8)
            tensors[f"{i}.{width}x{height}.first"] = made[:, 0, :4].contiguous()
    (out / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in listed) + "\n]\n")
    save_file(tensors, str(out / "expected.safetensors"))
    print(f"{len(tensors) // 2} pictures in {out}")


main()
