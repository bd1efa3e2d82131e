#!/usr/bin/env python3
"""Makes tests/fixtures/losses_wide.h: losses with class weights at a width where our products are f32, for
tests/unit/test_losses_wide.c. Values and gradients of PyTorch Metric Learning 2.9 in f64; inputs follow from the formula below
on both sides. Needs the packages of tools/reference/requirements.txt.
"""
import os

import torch
from pytorch_metric_learning import losses

N, DIM, CLASSES, CENTERS = 48, 256, 12, 3
EMBEDDINGS_KEPT, WEIGHTS_KEPT = (0, 1, 2, 47), (0, 5)


def draw(seed, count):
    """Numbers in [-1, 1) with 12 bits, exact in f32."""
    out = []
    for _ in range(count):
        seed = (seed * 1664525 + 1013904223) % 2**32
        out.append((seed >> 20) / 2048 - 1)
    return torch.tensor(out, dtype=torch.float64)


def main():
    torch.set_default_dtype(torch.float64)
    y = torch.arange(N) // (N // CLASSES)
    weights = draw(1, CLASSES * CENTERS * DIM).reshape(CLASSES * CENTERS, DIM)
    noise = draw(2, N * DIM).reshape(N, DIM)
    share = torch.tensor([2.0 ** -(i % 5) for i in range(N)])[:, None]  # from far to near its class
    x = weights[y * CENTERS] + noise * share
    x[1] = weights[y[1] * CENTERS] + noise[1] / 1024
    probe_x, probe_w = draw(3, N * DIM).reshape(N, DIM), draw(4, CLASSES * CENTERS * DIM).reshape(CLASSES * CENTERS, DIM)
    sizes = {"num_classes": CLASSES, "embedding_size": DIM}
    cases = [("ARCFACE", losses.ArcFaceLoss(**sizes), 1), ("COSFACE", losses.CosFaceLoss(**sizes), 1),
             ("NORMALISED_SOFTMAX", losses.NormalizedSoftmaxLoss(**sizes), 1),
             ("SPHEREFACE", losses.SphereFaceLoss(**sizes), 1),
             ("SUBCENTER_ARCFACE", losses.SubCenterArcFaceLoss(**sizes, sub_centers=CENTERS), CENTERS),
             ("PROXY_ANCHOR", losses.ProxyAnchorLoss(**sizes), 1), ("PROXY_NCA", losses.ProxyNCALoss(**sizes), 1)]
    out = ["/* Made by tools/reference/losses_wide.py: do not edit. */\n#include <likeness/metric.h>\n\n",
           f"enum {{ WIDE_N = {N}, WIDE_DIM = {DIM}, WIDE_CLASSES = {CLASSES}, WIDE_CENTERS = {CENTERS} }};\n",
           f"static const int wide_rows[] = {{{', '.join(map(str, EMBEDDINGS_KEPT))}}}, "
           f"wide_weights[] = {{{', '.join(map(str, WEIGHTS_KEPT))}}};\n"]
    rows = []
    for name, loss, centers in cases:
        w = weights if centers > 1 else weights[::CENTERS].clone()
        parameter = loss.proxies if hasattr(loss, "proxies") else loss.W
        with torch.no_grad():
            parameter.copy_(w if parameter.shape == w.shape else w.T)
        e = x.clone().requires_grad_(True)
        value = loss(e, y)
        value.backward()
        gw = parameter.grad if parameter.shape == w.shape else parameter.grad.T
        probe = probe_w if centers > 1 else probe_w[::CENTERS]
        kept = torch.cat([e.grad[list(EMBEDDINGS_KEPT)].flatten(), gw[list(WEIGHTS_KEPT)].flatten()])
        out.append(f"static const float wide_{name.lower()}[] = {{{', '.join(f'{v:.8g}' for v in kept.tolist())}}};\n")
        along = ((e.grad * probe_x).sum().item(), (gw * probe).sum().item())
        most = (e.grad.abs().max().item(), gw.abs().max().item())
        rows.append(f"    {{LK_LOSS_{name}, {value.item()!r}, {{{along[0]!r}, {along[1]!r}}}, {{{most[0]!r}, {most[1]!r}}}, "
                    f"wide_{name.lower()}}},\n")
    out.append("/* along: products of the gradients (embeddings, weights) with probes; most: their largest components. */\n"
               "static const struct { lk_loss_kind kind; double value, along[2], most[2]; const float *kept; } wide_cases[] = {\n" +
               "".join(rows) + "};\n")
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "losses_wide.h"), "w") as file:
        file.write("".join(out))


if __name__ == "__main__":
    main()
