#!/usr/bin/env python3
"""Trains the same recipe with `likeness train` and with PyTorch + PyTorch Metric Learning, on the same pictures.

    bench/train/run.py --build BUILD [--python PYTHON] [--epochs N] [--size PX] [--rounds N] [--bf16] [--json FILE]

Pictures: drawings of three random strokes in random colours, 80 classes of 12, of which 20 are never trained on. Recipe: the
network of models/logo/backbone.json, GeM, projection to 64, batch-norm neck, SupCon, batches of 16 classes x 4 pictures, AdamW
1e-3 with cosine, no augmentation; f32, or with --bf16 mixed (autocast on the peer's side). The peer gets its pictures as tensors in memory, ready to use (ours decodes them in its
first epoch), the same number of threads, channels-last. The two take turns; images/s are medians over the epochs after the first
(without validation), mAP is of the last epoch on the held-out classes. PYTHON has the packages below; without
--python a venv beside BUILD is made for them when they are missing.
"""
import argparse
import csv
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["torch==2.15.0", "pytorch-metric-learning==2.9.0", "numpy==2.4.6", "pillow==13.0.0"]
CLASSES, HELD, EACH, BATCH, PER_CLASS, DIM = 80, 20, 12, 64, 4, 64


def python_with_packages(build):
    if all(importlib.util.find_spec(name) for name in ("torch", "pytorch_metric_learning", "PIL")):
        return sys.executable
    venv = pathlib.Path(build).resolve().parent / "venv-train"
    python = venv / "bin" / "python"
    if not (venv / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (venv / "installed").touch()
    return str(python)


def draw(folder, size):
    import numpy
    from PIL import Image, ImageDraw
    random = numpy.random.default_rng(5)
    with open(folder / "labels.csv", "w") as out:
        out.write("path,label,split\n")
        for c in range(CLASSES):
            strokes = random.uniform(0.15, 0.85, (3, 4))
            for i in range(EACH):
                ground, ink = (tuple(int(v) for v in random.integers(a, a + 100, 3)) for a in ((0, 150) if random.random() < .5 else (150, 0)))
                image = Image.new("RGB", (size, size), ground)
                pen = ImageDraw.Draw(image)
                for x0, y0, x1, y1 in strokes + random.normal(0, 0.03, strokes.shape):
                    pen.line([x0 * size, y0 * size, x1 * size, y1 * size], fill=ink, width=int(random.integers(2, 6)))
                image.save(folder / f"{c}-{i}.png")
                out.write(f"{c}-{i}.png,c{c},{'train' if c < CLASSES - HELD else 'validation'}\n")


def ours(arguments, folder, into):
    command = [str(pathlib.Path(arguments.build) / "src/cli/likeness"), "train", str(folder / "labels.csv"), "--into", into, "--backbone",
               str(ROOT / "models/logo/backbone.json"), "--size", str(arguments.size), "--loss", "supcon", "--dim", str(DIM), "--batch",
               str(BATCH), "--per-class", str(PER_CLASS), "--sampler", "pk", "--epochs", str(arguments.epochs), "--augment", "none",
               "--frame", "squash", "--clip", "0", "--decay", "0.01", "--threads", str(arguments.threads), "--seed", str(arguments.seed), "-q",
               *(["--precision", "bf16"] if arguments.bf16 else [])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(into, "history.csv")) as file:
        rows = list(csv.DictReader(file))
    return [float(r["images_per_second"]) for r in rows], float(rows[-1]["mAP"])


def peer(arguments, folder):
    import math
    import time

    import numpy
    import torch
    from PIL import Image
    from pytorch_metric_learning.losses import SupConLoss
    from pytorch_metric_learning.samplers import MPerClassSampler
    from torch import nn

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)

    class Block(nn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
            self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
            self.down = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b)) if a != b or stride != 1 else nn.Identity()

        def forward(self, x):
            return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.down(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
            self.blocks = nn.Sequential(Block(64, 32, 1), Block(32, 64, 2), Block(64, 128, 2), Block(128, 256, 2))
            for m in self.modules():
                if isinstance(m, nn.Conv2d):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out")
            self.p = nn.Parameter(torch.tensor(3.0))
            self.projection, self.neck = nn.Linear(256, DIM), nn.BatchNorm1d(DIM)
            self.neck.bias.requires_grad_(False)

        def forward(self, x):
            x = self.blocks(self.stem(x)).clamp(min=1e-6)
            return self.neck(self.projection(x.pow(self.p).mean((2, 3)).pow(1 / self.p)))

    rows = list(csv.DictReader(open(folder / "labels.csv")))
    mean, std = numpy.array([0.485, 0.456, 0.406], "f4"), numpy.array([0.229, 0.224, 0.225], "f4")
    pictures = numpy.stack([(numpy.asarray(Image.open(folder / r["path"]), "f4") / 255 - mean) / std for r in rows])
    pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([int(r["label"][1:]) for r in rows])
    train = torch.tensor([i for i, r in enumerate(rows) if r["split"] == "train"])
    test = torch.tensor([i for i, r in enumerate(rows) if r["split"] != "train"])
    net = Net().to(memory_format=torch.channels_last)
    groups = [{"params": [p for p in net.parameters() if p.dim() > 1 and p.requires_grad], "weight_decay": 0.01},
              {"params": [p for p in net.parameters() if p.dim() <= 1 and p.requires_grad], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-3)
    steps_each = max(1, round(len(train) / BATCH)) if arguments.steps == 0 else arguments.steps
    total = steps_each * arguments.epochs
    warm = int(0.05 * total)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: (i + 1) / (warm + 1) if i < warm else
                                                 (1 + math.cos(math.pi * (i - warm) / (total - warm))) / 2)
    loss_of, speeds = SupConLoss(), []
    for _ in range(arguments.epochs):
        net.train()
        order = list(MPerClassSampler(labels[train], PER_CLASS, BATCH, steps_each * BATCH))
        begun = time.perf_counter()
        for k in range(steps_each):
            at = train[torch.tensor(order[k * BATCH:(k + 1) * BATCH])]
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                embedding = net(pictures[at].contiguous(memory_format=torch.channels_last))
            loss_of(embedding.float(), labels[at]).backward()
            optimiser.step()
            schedule.step()
        speeds.append(steps_each * BATCH / (time.perf_counter() - begun))
    net.eval()
    with torch.no_grad():
        v = nn.functional.normalize(net(pictures[test]))
    s, same = v @ v.T, labels[test][:, None] == labels[test][None]
    s.fill_diagonal_(-2)
    order = s.argsort(1, descending=True)[:, :-1]
    hit = same.gather(1, order).double()
    ap = (hit * hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1)).sum(1) / hit.sum(1)
    return speeds, float(ap.mean())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--python")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="products in bf16 on both sides")
    parser.add_argument("--json")
    parser.add_argument("--peer")
    parser.add_argument("--draw")
    arguments = parser.parse_args()
    if arguments.draw:
        return draw(pathlib.Path(arguments.draw), arguments.size)
    if arguments.peer:
        return print(json.dumps(peer(arguments, pathlib.Path(arguments.peer))))
    me = [arguments.python or python_with_packages(arguments.build), __file__, "--build", arguments.build, "--size", str(arguments.size), "--epochs", str(arguments.epochs),
          "--threads", str(arguments.threads), *(["--bf16"] if arguments.bf16 else [])]
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([*me, "--draw", name], check=True)
        for r in range(arguments.rounds):
            arguments.seed = r + 1
            mine, my_map = ours(arguments, folder, str(folder / f"model{r}"))
            out = subprocess.run([*me, "--seed", str(r + 1), "--peer", name], check=True, stdout=subprocess.PIPE, text=True).stdout
            theirs, their_map = json.loads(out.splitlines()[-1])
            a, b = statistics.median(mine[1:]), statistics.median(theirs[1:])
            results.append({"ours": a, "torch": b, "ratio": a / b, "ours_map": my_map, "torch_map": their_map})
            print(f"seed {r + 1}: likeness {a:.0f} images/s, mAP {my_map:.4f}; PyTorch {b:.0f} images/s, mAP {their_map:.4f}; "
                  f"ratio {a / b:.2f}", flush=True)
    summary = {k: statistics.median(x[k] for x in results) for k in results[0]}
    print(f"median: likeness {summary['ours']:.0f}, PyTorch {summary['torch']:.0f} images/s, ratio {summary['ratio']:.2f}; "
          f"mAP {summary['ours_map']:.4f} and {summary['torch_map']:.4f}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"rounds": results, "median": summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()
