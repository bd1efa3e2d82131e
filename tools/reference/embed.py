#!/usr/bin/env python3
"""Makes tests/fixtures/embed.h: principal components, VLAD and words by their formulas in float64, for
tests/unit/test_embed.c. Needs numpy 2.4.6."""
import os

import numpy

rng = numpy.random.default_rng(5)
lines = ["/* Made by tools/reference/embed.py with numpy " + numpy.__version__ + ": do not edit. */\n#include <stdint.h>\n"]


def floats(name, array):
    number = lambda x: (f"{x:.9g}" if "." in f"{x:.9g}" or "e" in f"{x:.9g}" else f"{x:.9g}.0") + "f"
    lines.append(f"static const float {name}[] = {{" + ", ".join(number(x) for x in numpy.asarray(array, 'float32').ravel()) + "};")


def pca(name, n, width, keep, ridge):
    x = (rng.standard_normal((n, width)) @ rng.standard_normal((width, width)) + 3).astype("float32")
    mean = x.astype(float).mean(0)
    values, vectors = numpy.linalg.eigh(numpy.cov(x.astype(float).T))
    order = numpy.argsort(values)[::-1][:keep]
    values, vectors = values[order], vectors[:, order].T
    rows = vectors / numpy.sqrt(values + ridge * values.mean())[:, None]
    rows *= numpy.sign(rows[numpy.arange(keep), numpy.abs(rows).argmax(1)])[:, None]
    lines.append(f"enum {{ {name.upper()}_N = {n}, {name.upper()}_IN = {width}, {name.upper()}_OUT = {keep} }};")
    floats(f"{name}_x", x)
    floats(f"{name}_mean", mean)
    floats(f"{name}_components", rows)


def main():
    pca("tall", 40, 6, 4, 0.0)  # more samples than components: the covariance's side
    pca("wide", 7, 12, 5, 0.5)  # fewer: the Gram matrix's side, and a ridge
    n, words, dim = 12, 4, 5  # the last word has no descriptor
    descriptors, centres = rng.standard_normal((n, dim)).astype("float32"), rng.standard_normal((words, dim)).astype("float32")
    near = ((descriptors[:, None, :].astype(float) - centres[None]) ** 2).sum(2)
    near[:, words - 1] = numpy.inf
    assigned = near.argmin(1)
    vlad = numpy.zeros((words, dim))
    for d, w in zip(descriptors.astype(float), assigned):
        vlad[w] += d - centres[w]
    lengths = numpy.linalg.norm(vlad, axis=1, keepdims=True)
    vlad = numpy.divide(vlad, lengths, where=lengths > 0, out=numpy.zeros_like(vlad))
    vlad = numpy.sign(vlad) * numpy.sqrt(numpy.abs(vlad))
    vlad /= numpy.linalg.norm(vlad)
    with_word, documents = numpy.array([3, 10, 7, 0]), 10
    idf = numpy.where(with_word > 0, numpy.log(documents / numpy.maximum(with_word, 1)), 0)
    frequencies = numpy.bincount(assigned, minlength=words) / n
    weighted = frequencies * idf
    weighted /= numpy.linalg.norm(weighted)
    lines.append(f"enum {{ GATHERED_N = {n}, GATHERED_WORDS = {words}, GATHERED_DIM = {dim}, GATHERED_DOCUMENTS = {documents} }};")
    for name, array in (("assigned", assigned), ("with_word", with_word)):
        lines.append(f"static const uint32_t gathered_{name}[] = {{{', '.join(map(str, array))}}};")
    for name, array in (("descriptors", descriptors), ("centres", centres), ("vlad", vlad), ("idf", idf), ("frequencies", frequencies),
                        ("weighted", weighted)):
        floats(f"gathered_{name}", array)
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "embed.h"), "w") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
