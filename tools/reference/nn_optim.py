#!/usr/bin/env python3
"""Makes tests/fixtures/nn/optim.safetensors: 50 steps of optimisers and schedules as PyTorch and timm take them.

The loss is sum(a * (w - b)^2) / 2 over two tensors, the second without weight decay and with a tenth of the rate, so that
gradients follow from the weights. NAME/w0, NAME/w1: weights after 1, 10 and 50 steps, row by row. Needs torch 2.15.0,
timm 1.0.31, safetensors 0.8.0.
"""
import os

import torch
from safetensors.torch import save_file
from timm.optim import Lamb

torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(9)
shapes = (37, 12)
start = [(torch.randn(n, generator=generator) * 64).round() / 64 for n in shapes]
curve = [(torch.rand(n, generator=generator) * 2 * 64).round() / 64 for n in shapes]
goal = [(torch.randn(n, generator=generator) * 64).round() / 64 for n in shapes]
out = {}
for i in range(2):
    out[f"start{i}"], out[f"curve{i}"], out[f"goal{i}"] = start[i], curve[i], goal[i]


def run(name, make, rate, decay, clip=0.0, ema=0.0):
    ws = [w.clone().requires_grad_() for w in start]
    optimiser = make([{"params": [ws[0]], "lr": rate, "weight_decay": decay}, {"params": [ws[1]], "lr": rate / 10, "weight_decay": 0.0}])
    average, kept = [w.detach().clone() for w in ws], [[], []]
    for step in range(1, 51):
        optimiser.zero_grad()
        sum((a * (w - b) ** 2).sum() / 2 for w, a, b in zip(ws, curve, goal)).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(ws, clip)
        optimiser.step()
        for i in range(2):
            average[i] = ema * average[i] + (1 - ema) * ws[i].detach()
            if step in (1, 10, 50):
                kept[i].append(ws[i].detach().clone())
    for i in range(2):
        out[f"{name}/w{i}"] = torch.stack(kept[i])
        if ema:
            out[f"{name}/ema{i}"] = average[i]


run("sgd", lambda g: torch.optim.SGD(g), 0.05, 0.0)
run("sgd_momentum", lambda g: torch.optim.SGD(g, momentum=0.9), 0.05, 0.02, ema=0.9)
run("sgd_nesterov", lambda g: torch.optim.SGD(g, momentum=0.9, nesterov=True), 0.05, 0.02, clip=1.0)
run("adamw", lambda g: torch.optim.AdamW(g, betas=(0.9, 0.98), eps=1e-7), 0.01, 0.1)
run("lamb", lambda g: Lamb(g, betas=(0.9, 0.999), eps=1e-6, max_grad_norm=None, always_adapt=True), 0.02, 0.05)

one = torch.nn.Parameter(torch.zeros(1))


def rates(name, make, base, steps):
    optimiser = torch.optim.SGD([one], lr=base)
    schedule, values = make(optimiser), []
    for _ in range(steps):
        values.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    out[f"schedule/{name}"] = torch.tensor(values)


S = torch.optim.lr_scheduler
rates("cosine", lambda o: S.CosineAnnealingLR(o, 40, 0.01), 0.5, 40)
rates("step", lambda o: S.StepLR(o, 7, 0.3), 0.5, 40)
rates("one_cycle", lambda o: S.OneCycleLR(o, 0.5, total_steps=40), 0.5, 40)
rates("one_cycle_long_rise", lambda o: S.OneCycleLR(o, 0.5, total_steps=33, pct_start=0.6, div_factor=10, final_div_factor=100), 0.5, 33)

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "fixtures", "nn", "optim.safetensors")
save_file({k: v.contiguous() for k, v in out.items()}, path)
os.chmod(path, 0o644)
