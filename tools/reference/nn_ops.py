#!/usr/bin/env python3
"""Makes tests/fixtures/nn/products.safetensors, blocks.safetensors and others.safetensors: every operator forward and backward as PyTorch computes it, in float64.

Tensors of a case: CASE/x0, x1 (inputs), CASE/p/NAME (parameters), CASE/y, CASE/gy (the gradient given), CASE/gx0, gx1 and
CASE/gp/NAME (gradients), CASE/after/NAME (running statistics after a training step). Needs torch 2.15.0, safetensors 0.8.0.
"""
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
out = {}
generator = torch.Generator().manual_seed(4)


def randn(*shape, scale=1.0):
    # Few significant bits, so that f32 holds the inputs exactly.
    return (torch.randn(*shape, generator=generator) * scale * 256).round() / 256


def case(name, function, inputs, parameters=None, after=()):
    """inputs: tensors (float: with gradient; integer: without); parameters: name -> tensor; buffers have a leading !."""
    parameters = parameters or {}
    for i, x in enumerate(inputs):
        out[f"{name}/x{i}"] = x.clone()
    for key, value in parameters.items():
        out[f"{name}/p/{key.lstrip('!')}"] = value.clone()
    xs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    ps = {k.lstrip("!"): v.clone().requires_grad_(not k.startswith("!")) for k, v in parameters.items()}
    y = function(xs, ps)
    gy = randn(*y.shape)
    y.backward(gy)
    out[f"{name}/y"], out[f"{name}/gy"] = y.detach(), gy
    for i, x in enumerate(xs):
        if x.grad is not None:
            out[f"{name}/gx{i}"] = x.grad
    for key, value in ps.items():
        if value.grad is not None:
            out[f"{name}/gp/{key}"] = value.grad
    for key in after:
        out[f"{name}/after/{key}"] = ps[key].detach()


def conv(name, cin, cout, kernel, stride=1, pad=0, dilation=1, groups=1, bias=True, size=(7, 9), asymmetric=None):
    def run(xs, ps):
        x = F.pad(xs[0], asymmetric) if asymmetric else xs[0]
        return F.conv2d(x, ps["c.weight"], ps.get("c.bias"), stride, 0 if asymmetric else pad, dilation, groups)
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    ps = {"c.weight": randn(cout, cin // groups, *kernel, scale=0.4)}
    if bias:
        ps["c.bias"] = randn(cout)
    case(name, run, [randn(2, cin, *size)], ps)


conv("conv", 5, 6, 3, pad=1)
conv("conv_strided", 3, 8, (3, 5), stride=2, pad=1, bias=False)
conv("conv_dilated", 4, 4, 3, pad=2, dilation=2)
conv("conv_grouped", 8, 12, 3, pad=1, groups=4)
conv("conv_depthwise", 16, 16, 3, stride=2, pad=1, groups=16)
conv("conv_depthwise5", 16, 16, 5, pad=2, groups=16, bias=False)
conv("conv_same", 4, 6, 3, stride=2, asymmetric=(0, 1, 0, 1), size=(8, 6))  # TensorFlow's padding of even sizes
conv("conv_pointwise", 16, 32, 1)
conv("conv_patches", 3, 8, 4, stride=4, size=(8, 12))

bn = lambda: {"b.weight": randn(6), "b.bias": randn(6), "!b.running_mean": randn(6, scale=0.3), "!b.running_var": randn(6).abs() + 0.5}
bnf = lambda train: lambda xs, ps: F.batch_norm(xs[0], ps["b.running_mean"], ps["b.running_var"], ps["b.weight"], ps["b.bias"], train, 0.1, 1e-5)
case("batch_norm_eval", bnf(False), [randn(3, 6, 4, 5)], bn())
case("batch_norm_train", bnf(True), [randn(3, 6, 4, 5)], bn(), after=("b.running_mean", "b.running_var"))
case("batch_norm_rows", bnf(True), [randn(7, 6)], bn(), after=("b.running_mean", "b.running_var"))
ln = lambda c: {"l.weight": randn(c), "l.bias": randn(c)}
case("layer_norm", lambda xs, ps: F.layer_norm(xs[0], (24,), ps["l.weight"], ps["l.bias"], 1e-6), [randn(2, 5, 24)], ln(24))
case("layer_norm_pictures", lambda xs, ps: F.layer_norm(xs[0].permute(0, 2, 3, 1), (12,), ps["l.weight"], ps["l.bias"], 1e-6).permute(0, 3, 1, 2),
     [randn(2, 12, 3, 4)], ln(12))

case("linear", lambda xs, ps: F.linear(xs[0], ps["f.weight"], ps["f.bias"]), [randn(2, 5, 12)], {"f.weight": randn(7, 12), "f.bias": randn(7)})
case("linear_no_bias", lambda xs, ps: F.linear(xs[0], ps["f.weight"]), [randn(3, 12)], {"f.weight": randn(7, 12)})
case("matmul", lambda xs, ps: xs[0] @ xs[1], [randn(2, 3, 5, 4), randn(2, 3, 4, 6)])
case("matmul_transposed", lambda xs, ps: xs[0] @ xs[1].transpose(-1, -2), [randn(2, 5, 4), randn(2, 6, 4)])
case("matmul_shared", lambda xs, ps: xs[0] @ ps["w"], [randn(2, 5, 4)], {"w": randn(4, 6)})
case("softmax", lambda xs, ps: F.softmax(xs[0], -1), [randn(2, 4, 19, scale=3)])


def attention(q, k, v, heads, causal=False, scale=None):
    split = lambda x: x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)
    q, k, v = split(q), split(k), split(v)
    scores = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


case("attention", lambda xs, ps: attention(*xs, 4), [randn(2, 5, 32), randn(2, 7, 32), randn(2, 7, 32)])
case("attention_causal", lambda xs, ps: attention(*xs, 2, True, 0.4), [randn(2, 6, 16), randn(2, 6, 16), randn(2, 6, 16)])
case("attention_long", lambda xs, ps: attention(*xs, 2), [randn(1, 7, 32), randn(1, 70, 32), randn(1, 70, 32)])
case("attention_causal_wide", lambda xs, ps: attention(*xs[0].chunk(3, -1), 2, True), [randn(2, 9, 3 * 64)])
case("attention_qkv", lambda xs, ps: attention(*xs[0].chunk(3, -1), 3), [randn(2, 9, 3 * 24)])
case("attention_pool", lambda xs, ps: attention(ps["q"].expand(2, -1, -1), xs[0], xs[1], 2), [randn(2, 6, 16), randn(2, 6, 16)], {"q": randn(1, 1, 16)})

x = torch.cat([randn(2, 40, scale=2.5), torch.tensor([[-8.0, -3.5, -0.01, 0.015, 3.5, 6.5, 9.0, 20.0]] * 2)], 1)
for name, function in {"relu": F.relu, "relu6": F.relu6, "gelu": F.gelu, "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
                       "quick_gelu": lambda v: v * torch.sigmoid(1.702 * v), "silu": F.silu, "sigmoid": torch.sigmoid,
                       "hard_swish": F.hardswish, "hard_sigmoid": F.hardsigmoid, "tanh": torch.tanh}.items():
    case(f"act_{name}", lambda xs, ps, function=function: function(xs[0]), [x])

case("max_pool", lambda xs, ps: F.max_pool2d(xs[0], 3, 2, 1), [randn(2, 5, 7, 8)])
case("max_pool_ceil", lambda xs, ps: F.max_pool2d(xs[0], 2, 2, 0, ceil_mode=True), [randn(2, 5, 7, 5)])
case("avg_pool", lambda xs, ps: F.avg_pool2d(xs[0], 3, 2, 1, count_include_pad=True), [randn(2, 5, 7, 8)])
case("avg_pool_no_pad", lambda xs, ps: F.avg_pool2d(xs[0], 3, 2, 1, ceil_mode=True, count_include_pad=False), [randn(2, 5, 6, 8)])
case("avg_pool_ceil", lambda xs, ps: F.avg_pool2d(xs[0], 3, 2, 1, ceil_mode=True, count_include_pad=True), [randn(2, 5, 6, 8)])
case("adaptive_pool", lambda xs, ps: F.adaptive_avg_pool2d(xs[0], (3, 4)), [randn(2, 5, 7, 9)])
case("global_avg", lambda xs, ps: xs[0].mean((2, 3)), [randn(2, 20, 4, 5)])
case("global_max", lambda xs, ps: F.adaptive_max_pool2d(xs[0], 1).flatten(1), [randn(2, 20, 4, 5)])
case("mean_tokens", lambda xs, ps: xs[0].mean(1), [randn(2, 6, 20)])

case("add", lambda xs, ps: xs[0] + xs[1], [randn(2, 5, 3, 4), randn(2, 5, 3, 4)])
case("multiply", lambda xs, ps: xs[0] * xs[1], [randn(2, 5, 6), randn(2, 5, 6)])
case("multiply_gate", lambda xs, ps: xs[0] * xs[1][:, :, None, None], [randn(2, 5, 3, 4), randn(2, 5)])
case("multiply_gate_first", lambda xs, ps: xs[0][:, :, None, None] * xs[1], [randn(2, 5), randn(2, 5, 3, 4)])
case("multiply_map", lambda xs, ps: xs[0] * xs[1], [randn(2, 5, 3, 4), randn(2, 1, 3, 4)])
case("add_positions", lambda xs, ps: xs[0] + ps["pos"], [randn(2, 5, 6)], {"pos": randn(1, 5, 6)})
case("add_channels", lambda xs, ps: xs[0] + ps["bias"][:, None, None], [randn(2, 5, 3, 4)], {"bias": randn(5)})
case("add_last", lambda xs, ps: xs[0] + ps["bias"], [randn(2, 4, 6)], {"bias": randn(6)})
case("scale", lambda xs, ps: xs[0] * ps["gamma"], [randn(2, 5, 6)], {"gamma": randn(6)})
case("scale_pictures", lambda xs, ps: xs[0] * ps["gamma"][:, None, None], [randn(2, 5, 3, 4)], {"gamma": randn(5)})
case("scale_by", lambda xs, ps: xs[0] * 0.37, [randn(2, 5, 6)])

case("concat", lambda xs, ps: torch.cat(xs, 1), [randn(2, 3, 2, 4), randn(2, 5, 2, 4)])
case("concat_token", lambda xs, ps: torch.cat([ps["cls"].expand(2, -1, -1), xs[0]], 1), [randn(2, 4, 6)], {"cls": randn(1, 1, 6)})
case("slice", lambda xs, ps: xs[0][:, 1:4], [randn(2, 5, 6)])
case("slice_pictures", lambda xs, ps: xs[0][:, 2:5, :, :], [randn(2, 6, 3, 4)])
case("reshape", lambda xs, ps: xs[0].reshape(2, 4, 5, 3), [randn(2, 20, 3)])
case("flatten", lambda xs, ps: xs[0].flatten(1), [randn(2, 5, 3, 4)])
case("transpose", lambda xs, ps: xs[0].transpose(1, 2), [randn(2, 5, 6)])
case("transpose_pictures", lambda xs, ps: xs[0].permute(0, 2, 3, 1), [randn(2, 5, 3, 4)])
case("tokens", lambda xs, ps: xs[0].flatten(2).transpose(1, 2), [randn(2, 5, 3, 4)])
case("l2_normalise", lambda xs, ps: F.normalize(xs[0], dim=-1, eps=1e-12), [randn(4, 30)])


def resize(pos, prefix, old, new, antialias):
    grid = pos[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=antialias, align_corners=False)
    return torch.cat([pos[:, :prefix], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


for name, old, new, antialias in (("positions_up", (3, 4), (5, 6), False), ("positions_up_antialias", (3, 4), (5, 6), True),
                                  ("positions_down", (7, 6), (3, 4), False), ("positions_down_antialias", (7, 6), (3, 4), True)):
    tokens = 1 + new[0] * new[1]
    case(name, lambda xs, ps, old=old, new=new, antialias=antialias: xs[0] + resize(ps["pos"], 1, old, new, antialias),
         [randn(2, tokens, 4)], {"pos": randn(1, 1 + old[0] * old[1], 4)})

ids = torch.tensor([[3, 9, 1, 9], [0, 2, 2, 5]], dtype=torch.int32)
case("embedding", lambda xs, ps: F.embedding(xs[0].long(), ps["e.weight"]), [ids], {"e.weight": randn(10, 6)})
case("pick_largest", lambda xs, ps: xs[0][torch.arange(2), xs[1].long().argmax(-1)], [randn(2, 4, 6), ids])
case("pick_token", lambda xs, ps: xs[0][torch.arange(2), (xs[1] == 2).int().argmax(-1)], [randn(2, 4, 6), ids])

# A block of each family, so that fused groups are compared too.
res = {"c1.weight": randn(16, 16, 3, 3, scale=0.1), "b1.weight": randn(16), "b1.bias": randn(16), "!b1.running_mean": randn(16, scale=0.2),
       "!b1.running_var": randn(16).abs() + 0.5, "c2.weight": randn(16, 16, 3, 3, scale=0.1), "b2.weight": randn(16), "b2.bias": randn(16),
       "!b2.running_mean": randn(16, scale=0.2), "!b2.running_var": randn(16).abs() + 0.5}


def block(xs, ps):
    def norm(v, b):
        return F.batch_norm(v, ps[b + ".running_mean"], ps[b + ".running_var"], ps[b + ".weight"], ps[b + ".bias"], False, 0.1, 1e-5)
    first = F.relu(xs[0])
    y = F.relu(norm(F.conv2d(first, ps["c1.weight"], padding=1), "b1"))
    return F.relu(norm(F.conv2d(y, ps["c2.weight"], padding=1), "b2") + first)


case("block_residual", block, [randn(2, 16, 5, 6)], res)
vit = {"n1.weight": randn(24), "n1.bias": randn(24), "qkv.weight": randn(72, 24, scale=0.2), "qkv.bias": randn(72), "proj.weight": randn(24, 24, scale=0.2),
       "proj.bias": randn(24), "gamma": randn(24), "n2.weight": randn(24), "n2.bias": randn(24), "fc1.weight": randn(48, 24, scale=0.2), "fc1.bias": randn(48),
       "fc2.weight": randn(24, 48, scale=0.2), "fc2.bias": randn(24)}


def transformer(xs, ps):
    x = xs[0]
    y = F.layer_norm(x, (24,), ps["n1.weight"], ps["n1.bias"], 1e-6)
    y = attention(*F.linear(y, ps["qkv.weight"], ps["qkv.bias"]).chunk(3, -1), 3)
    x = x + ps["gamma"] * F.linear(y, ps["proj.weight"], ps["proj.bias"])
    y = F.gelu(F.linear(F.layer_norm(x, (24,), ps["n2.weight"], ps["n2.bias"], 1e-6), ps["fc1.weight"], ps["fc1.bias"]))
    return x + F.linear(y, ps["fc2.weight"], ps["fc2.bias"])


case("block_transformer", transformer, [randn(2, 7, 24)], vit)

root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "fixtures", "nn")
os.makedirs(root, exist_ok=True)
kinds = {"products": ("conv", "linear", "matmul"), "blocks": ("attention", "block")}
for file in ("products", "blocks", "others"):
    named = kinds.get(file) or tuple(k for kind in kinds.values() for k in kind)
    tensors = {k: (v if v.dtype == torch.int32 else v.float()).contiguous() for k, v in out.items() if k.startswith(named) == (file in kinds)}
    path = os.path.join(root, file + ".safetensors")
    save_file(tensors, path)
    os.chmod(path, 0o644)
