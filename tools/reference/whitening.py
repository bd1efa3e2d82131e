#!/usr/bin/env python3
"""Makes tests/fixtures/whitening.h for tests/unit/test_whitening.c: PCA and learnt whitening by the formulas of
cnnimageretrieval-pytorch (pcawhitenlearn, whitenlearn, whitenapply), written in numpy at f64, and softmax cross-entropy with
smoothed labels by PyTorch. Signs of components: the largest entry is positive.
"""
import os

import numpy
import torch
import torch.nn.functional as F

ROWS, DIM, KEPT, LOGITS, CLASSES = 40, 6, 4, 5, 7


def draw(seed, count):
    """Numbers in [-1, 1) with 12 bits, exact in f32."""
    out = []
    for _ in range(count):
        seed = (seed * 1664525 + 1013904223) % 2**32
        out.append((seed >> 20) / 2048 - 1)
    return numpy.array(out)


def signed(components):
    largest = components[numpy.arange(len(components)), abs(components).argmax(1)]
    return components * numpy.sign(largest)[:, None]


def descending(matrix):
    values, vectors = numpy.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1], vectors[:, ::-1]


def pca(x):
    mean = x.mean(1, keepdims=True)
    centred = x - mean
    values, vectors = descending(centred @ centred.T / x.shape[1])
    return mean, signed(numpy.diag(values ** -0.5) @ vectors.T)


def learnt(x, queries, positives):
    mean = x[:, queries].mean(1, keepdims=True)
    difference = x[:, queries] - x[:, positives]
    first = numpy.linalg.inv(numpy.linalg.cholesky(difference @ difference.T / difference.shape[1]))
    turned = first @ (x - mean)
    _, vectors = descending(turned @ turned.T)
    return mean, signed(vectors.T @ first)


def apply(x, mean, components):
    y = components[:KEPT] @ (x - mean)
    return y / (numpy.linalg.norm(y, axis=0, keepdims=True) + 1e-6)


def main():
    x = draw(1, ROWS * DIM).reshape(ROWS, DIM) * numpy.array([1, .5, .25, 1, .125, 2])
    x[1::2] = x[::2] + draw(2, ROWS // 2 * DIM).reshape(-1, DIM) / numpy.array([8, 16, 8, 4, 32, 8])  # neighbours belong together
    x = (x / numpy.linalg.norm(x, axis=1, keepdims=True)).astype("f4").astype("f8")
    queries, positives = numpy.arange(0, ROWS, 2), numpy.arange(1, ROWS, 2)
    parts = []

    def put(name, values):
        numbers = ", ".join(f"{float(v):.9g}" + ("" if "." in f"{float(v):.9g}" or "e" in f"{float(v):.9g}" else ".0") + "f"
                            for v in numpy.asarray(values).flatten())
        parts.append(f"static const float {name}[] = {{{numbers}}};\n")

    put("rows", x)
    for name, (mean, components) in (("pca", pca(x.T)), ("learnt", learnt(x.T, queries, positives))):
        put(f"{name}_mean", mean)
        put(f"{name}_components", components)
        put(f"{name}_out", apply(x.T, mean, components).T)
    logits = torch.tensor(draw(3, LOGITS * CLASSES).reshape(LOGITS, CLASSES) * 6, requires_grad=True)
    labels = torch.tensor([0, 3, 6, 6, 2])
    put("logits", logits.detach().numpy())
    parts.append(f"static const int32_t classes_of[] = {{{', '.join(map(str, labels.tolist()))}}};\n")
    for name, temperature, smoothing in (("plain", 1, 0), ("smoothed", 0.5, 0.1)):
        value = F.cross_entropy(logits / temperature, labels, label_smoothing=smoothing)
        parts.append(f"static const double {name}_value = {value.item()!r};\n")
        put(f"{name}_grad", torch.autograd.grad(value, logits)[0].numpy())
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "whitening.h"), "w") as file:
        file.write(f"/* Made by tools/reference/whitening.py: do not edit. */\n#include <stdint.h>\n\nenum {{ ROWS = {ROWS}, DIM = {DIM}, "
                   f"KEPT = {KEPT}, LOGITS = {LOGITS}, CLASSES = {CLASSES} }};\n" + "".join(parts))


if __name__ == "__main__":
    main()
