#!/usr/bin/env python3
"""Counts what assigning each vector to two cells would save a partitioned index.

    tools/vectors/spill.py DIR [--cells N]

DIR holds base.npy and query.npy. Cells are those of k-means, about 2 sqrt(n). Three ways: each vector in its nearest cell;
in its two nearest (spilling); in its nearest and the one that SOAR names (Sun et al., 2023: that with the least
|r'|^2 + lambda (r . r')^2 / |r|^2, r and r' being what is left of the vector without either centroid). For each the cells
and the vectors that must be looked at until the share of the true ten best in them reaches a recall, a vector that lies in
two visited cells counted twice, because it is scanned twice. Codes play no part. Needs faiss-cpu and numpy.
"""
import argparse
import pathlib

import faiss
import numpy

K, NEAR, RECALLS = 10, 16, (0.90, 0.95, 0.99)


def second_cells(base, first, centroids, index, weight, block=5000):
    """Of each vector's NEAR nearest cells the one with the least loss."""
    out = numpy.empty(len(base), "int64")
    for at in range(0, len(base), block):
        x, own = base[at:at + block], first[at:at + block]
        cells = index.search(x, NEAR)[1]
        left = x - centroids[own]
        other = x[:, None] - centroids[cells]
        along = numpy.einsum("nd,nkd->nk", left, other) ** 2 / numpy.maximum((left ** 2).sum(1), 1e-9)[:, None]
        loss = (other ** 2).sum(2) + weight * along
        loss[cells == own[:, None]] = numpy.inf
        out[at:at + block] = cells[numpy.arange(len(x)), loss.argmin(1)]
    return out


def sweep(name, lists_of, sizes, ranked, truth):
    """lists_of [n][1 or 2]: cells of each vector; ranked: cells of each query, nearest first."""
    place = numpy.empty_like(ranked)
    numpy.put_along_axis(place, ranked, numpy.arange(ranked.shape[1])[None].repeat(len(ranked), 0), 1)
    needed = numpy.take_along_axis(place, lists_of[truth].reshape(len(truth), -1), 1).reshape(*truth.shape, -1).min(2)
    scanned = sizes[ranked].cumsum(1).mean(0)
    for recall in RECALLS:
        cells = int(numpy.quantile(needed.ravel(), recall, method="higher")) + 1
        print(f"| {name} | {recall:.2f} | {cells} | {scanned[cells - 1]:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--cells", type=int)
    options = parser.parse_args()
    base = numpy.load(options.dir / "base.npy").astype("float32")
    query = numpy.load(options.dir / "query.npy").astype("float32")
    cells = options.cells or int(2 * len(base) ** 0.5)
    kmeans = faiss.Kmeans(base.shape[1], cells, niter=10, seed=1, max_points_per_centroid=64)
    kmeans.train(base)
    index = faiss.IndexFlatL2(base.shape[1])
    index.add(kmeans.centroids)
    flat = faiss.IndexFlatL2(base.shape[1])
    flat.add(base)
    truth = flat.search(query, K)[1]
    ranked = index.search(query, cells)[1]
    nearest = index.search(base, 2)[1]
    print("| assignment | recall of the ten best | cells visited | vectors scanned |\n|---|---|---|---|")
    ways = {"nearest cell": nearest[:, :1], "two nearest": nearest}
    ways["SOAR, lambda 1"] = numpy.stack(
        [nearest[:, 0], second_cells(base, nearest[:, 0], kmeans.centroids, index, 1.0)], 1)
    for name, lists_of in ways.items():
        sweep(name, lists_of, numpy.bincount(lists_of.ravel(), minlength=cells), ranked, truth)


if __name__ == "__main__":
    main()
