#!/usr/bin/env python3
"""Makes tests/fixtures/pooling.h for tests/unit/test_pooling.c: pooling heads and their gradients, by PyTorch in f64.

R-MAC follows the published rule (Tolias et al., 2016) in the form that cnnimageretrieval-pytorch gave it.
"""
import math
import os

import torch
import torch.nn.functional as F

BATCH, CHANNELS, OUT = 2, 5, 4
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(5)
parts = []


def draw(*shape):
    return torch.round(torch.randn(*shape, generator=generator) * 64) / 64


def put(name, x):
    number = lambda v: (f"{v:.8g}" if "." in f"{v:.8g}" or "e" in f"{v:.8g}" else f"{v:.8g}.0") + "f"
    parts.append(f"static const float {name}[] = {{{','.join(number(float(v)) for v in x.detach().flatten())}}};\n")


def record(name, out, inputs):
    """Output, the gradient that is sent back, and what arrives at each named input."""
    back = draw(*out.shape)
    grads = torch.autograd.grad(out, list(inputs.values()), back)
    put(f"{name}_out", out)
    put(f"{name}_back", back)
    for key, grad in zip(inputs, grads):
        put(f"{name}_grad_{key}", grad)


def leaf(x):
    return x.clone().requires_grad_(True)


def gem(x, p, dims):
    return x.clamp(min=1e-6).pow(p).mean(dims, keepdim=True).pow(1 / p).flatten(1)


def regions(height, width, levels):
    short, long = min(height, width), max(height, width)
    overlaps = [abs((short ** 2 - short * (long - short) / (steps - 1)) / short ** 2 - 0.4) for steps in range(2, 8)]
    more = 0 if height == width else overlaps.index(min(overlaps)) + 1
    out = [(0, 0, height, width)]
    for level in range(1, levels + 1):
        side = 2 * short // (level + 1)
        if not side:
            continue
        half = math.floor(side / 2 - 1)

        def starts(length, count):
            stride = 0 if count == 1 else (length - side) / (count - 1)
            return [math.floor(half + k * stride) - half for k in range(count)]
        out += [(i, j, side, side) for i in starts(height, level + (more if height > width else 0))
                for j in starts(width, level + (more if width > height else 0))]
    return out


def unit(v):
    return v / (v.norm(dim=1, keepdim=True) + 1e-6)


def rmac(x, levels, weight=None, bias=None):
    total = 0
    for top, left, height, width in regions(x.shape[2], x.shape[3], levels):
        v = unit(x[:, :, top:top + height, left:left + width].amax((2, 3)))
        total = total + (v if weight is None else unit(v @ weight.t() + bias))
    return total


def main():
    x = draw(BATCH, CHANNELS, 5, 7)
    put("map", x)
    put("tokens", x.flatten(2).transpose(1, 2))
    for name, pool in (("average", lambda v: v.mean((2, 3))), ("maximum", lambda v: F.adaptive_max_pool2d(v, 1).flatten(1))):
        v = leaf(x)
        record(name, pool(v), {"x": v})
    for name, exponents in (("gem1", [1.0]), ("gem3", [3.0]), ("gem", [2.7]), ("gemc", [1.0, 2.5, 3.0, 4.0, 6.5])):
        v, p = leaf(x), leaf(torch.tensor(exponents))
        put(f"{name}_p", p)
        record(name, gem(v.flatten(2), p.view(1, -1, 1), 2), {"x": v, "p": p})
    v, p = leaf(x.flatten(2).transpose(1, 2)), leaf(torch.tensor([3.0]))
    record("patch", gem(v, p, 1), {"x": v, "p": p})
    for name, (height, width) in {"wide": (5, 7), "square": (6, 6), "tall": (12, 4), "thin": (1, 9)}.items():
        m = draw(BATCH, CHANNELS, height, width)
        m = m + torch.arange(m.numel()).view_as(m) * 2.0 ** -17  # no equal maxima
        put(f"{name}_map", m)
        v, weight, bias = leaf(m), leaf(draw(OUT, CHANNELS)), leaf(draw(OUT))
        record(name, rmac(v, 3), {"x": v})
        put(f"{name}_weight", weight)
        put(f"{name}_bias", bias)
        record(f"{name}_white", rmac(v, 3, weight, bias), {"x": v, "weight": weight, "bias": bias})
        parts.append(f"static const unsigned {name}_regions[][4] = {{{', '.join('{%d, %d, %d, %d}' % r for r in regions(height, width, 3))}}};\n")
    v = leaf(x)
    weights = [leaf(draw(n, CHANNELS)) for n in (3, 4, 2)]
    pooled = [v.mean((2, 3)), F.adaptive_max_pool2d(v, 1).flatten(1), gem(v, torch.tensor(3.0), (2, 3))]
    for i, w in enumerate(weights):
        put(f"cgd_weight{i}", w)
    record("cgd", F.normalize(torch.cat([F.normalize(a @ w.t()) for a, w in zip(pooled, weights)], 1)),
           {"x": v, **{f"w{i}": w for i, w in enumerate(weights)}})
    rows, weight, bias = leaf(draw(6, CHANNELS)), leaf(draw(OUT, CHANNELS)), leaf(draw(OUT))
    put("rows", rows), put("projection_weight", weight), put("projection_bias", bias)
    record("projection", F.linear(rows, weight, bias), {"x": rows, "weight": weight, "bias": bias})
    scale, shift, mean, variance = leaf(draw(CHANNELS)), leaf(draw(CHANNELS)), draw(CHANNELS), draw(CHANNELS) ** 2
    for name, values in (("scale", scale), ("shift", shift), ("before_mean", mean), ("before_variance", variance)):
        put(f"neck_{name}", values)
    record("neck", F.batch_norm(rows, mean, variance, scale, shift, True, 0.1, 1e-5),
           {"x": rows, "scale": scale, "shift": shift})
    put("neck_after_mean", mean), put("neck_after_variance", variance)
    put("neck_used", F.batch_norm(rows, mean, variance, scale, shift, False, 0.1, 1e-5))
    record("normalise", F.normalize(rows), {"x": rows})
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "pooling.h"), "w") as out:
        out.write(f"/* Made by tools/reference/pooling.py: do not edit. */\nenum {{ BATCH = {BATCH}, CHANNELS = {CHANNELS}, "
                  f"HEIGHT = 5, WIDTH = 7, OUT = {OUT}, ROWS = 6 }};\n" + "".join(parts))


if __name__ == "__main__":
    main()
