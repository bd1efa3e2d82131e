#!/usr/bin/env python3
"""Makes tests/fixtures/train/steps.safetensors: whole steps of training a small network as timm, PyTorch and PyTorch Metric
Learning take them, in f64.

    tools/reference/train_step.py [--full FOLDER]

The network is timm's resnet18 of a few channels, then GeM with a learnt exponent, a projection, a batch norm without offset, and
SupCon; AdamW without decay on vectors, a rate that warms up and then follows a cosine. start/T, gradient/T (of the first step),
end/T (after the last): the tensors under our names; loss and rate of each step, the embedding of the first. --full: the network,
batch and size of the benchmark of training, into FOLDER. Needs torch 2.15.0, timm 1.0.31, pytorch-metric-learning 2.9.0,
safetensors 0.8.0.
"""
import argparse
import json
import math
import pathlib

import timm
import torch
from pytorch_metric_learning.losses import SupConLoss
from safetensors.torch import save_file
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--full")
full = parser.parse_args().full
torch.set_num_threads(1)  # sums whose last digit does not depend on the machine
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(3)
layers, channels, dim, size, batch, per_class, steps = [1, 1, 1, 1], [4, 4, 8, 8], 8, 36, 8, 2, 3
if full:
    channels, dim, size, batch, per_class, steps = [32, 64, 128, 256], 64, 64, 64, 4, 3
rate, decay, warm = 1e-3, 0.01, 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = timm.create_model("resnet18", layers=layers, channels=channels, num_classes=0, global_pool="")
        self.p = nn.Parameter(torch.tensor([3.0]))
        self.projection, self.neck = nn.Linear(channels[-1], dim), nn.BatchNorm1d(dim)
        self.neck.bias.requires_grad_(False)

    def forward(self, x):
        x = self.backbone(x).clamp(min=1e-6)
        return self.neck(self.projection(x.pow(self.p).mean((2, 3)).pow(1 / self.p)))

    def named(self):
        """Our names and the tensors."""
        state = dict(self.named_parameters()) | dict(self.named_buffers())
        for name, tensor in state.items():
            if "num_batches" in name or name == "neck.bias":
                continue
            if name.startswith("backbone."):
                yield name.removeprefix("backbone."), tensor
            else:
                yield "likeness_head." + name.removeprefix("projection."), tensor


net = Net()
with torch.no_grad():
    for name, tensor in net.named():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(".p"):
            pass
        elif tensor.dim() == 1:
            tensor.normal_(1.0 if "weight" in name else 0.0, 0.1, generator=generator)
        else:
            fan = tensor[0].numel()
            tensor.normal_(0.0, math.sqrt(1 / fan), generator=generator)
        tensor.copy_(tensor.float().double())
pixels = torch.randint(0, 256, (steps, batch, 3, size, size), generator=generator, dtype=torch.uint8)
classes = torch.arange(batch // per_class).repeat_interleave(per_class)
pixels[:, :, :, : size // 2] = pixels[:, :, :, : size // 2] // 4 + (classes * 37 % 192).to(torch.uint8)[None, :, None, None, None]
out = {"start/" + name: tensor.detach().float().clone() for name, tensor in net.named()}

net.train()
groups = [{"params": [p for p in net.parameters() if p.dim() > 1 and p.requires_grad], "weight_decay": decay},
          {"params": [p for p in net.parameters() if p.dim() <= 1 and p.requires_grad], "weight_decay": 0.0}]
optimiser = torch.optim.AdamW(groups, lr=rate)
schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: (i + 1) / (warm + 1) if i < warm else
                                             (1 + math.cos(math.pi * (i - warm) / (steps - warm))) / 2)
loss_of, losses, rates = SupConLoss(), [], []
for k in range(steps):
    optimiser.zero_grad()
    embedding = net(pixels[k] / 127.5 - 1)
    loss = loss_of(embedding, classes)
    loss.backward()
    losses.append(loss.item())
    rates.append(schedule.get_last_lr()[0])
    if k == 0:
        out["embedding"] = embedding.detach().float()
        out |= {"gradient/" + name: tensor.grad.float().clone() for name, tensor in net.named() if tensor.grad is not None}
    optimiser.step()
    schedule.step()
out |= {"end/" + name: tensor.detach().float().clone() for name, tensor in net.named()}
out |= {"pixels": pixels, "classes": classes.to(torch.int32), "loss": torch.tensor(losses), "rate": torch.tensor(rates)}
config = {"architecture": "resnet18", "model_args": {"layers": layers, "channels": channels}}
metadata = {"config": json.dumps(config), "steps": str(steps), "batch": str(batch), "size": str(size), "dim": str(dim),
            "warmup": str(warm), "base_rate": str(rate), "decay": str(decay)}
folder = pathlib.Path(full) if full else pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/train"
folder.mkdir(parents=True, exist_ok=True)
path = folder / "steps.safetensors"
save_file({k: v.contiguous() for k, v in out.items()}, str(path), metadata)
# The library writes the metadata in another order each time.
saved = path.read_bytes()
end = 8 + int.from_bytes(saved[:8], "little")
header = json.loads(saved[8:end]) | {"__metadata__": metadata}
path.write_bytes(saved[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(end - 8) + saved[end:])
