#!/usr/bin/env python3
"""Makes many wide vectors out of real ones, to measure what real ones are too few for.

    tools/vectors/grow.py IN OUT --rows 10000000 [--queries 1000]

IN holds base.npy and query.npy of real vectors of bytes (tools/vectors/sift.py). OUT receives base.u8bin [rows][2 dim],
query.u8bin and truth.ibin (the 100 nearest by squared distance, found exactly). Needs faiss-cpu and numpy.

A vector's first half lies between a real vector and one of its 10 nearest neighbours, at a place drawn from [0, 1/2]; its
second half in the same way between another of these neighbours and one of that one's. So both halves lie close to where
real vectors lie, are as dense where real ones are dense, and depend on one another as the features of one picture do. What
is invented is how: the number of dimensions that vary on their own is higher than for real vectors of that width, so that
searching is harder rather than easier. Queries are made in the same way from vectors of pictures that gave nothing to the
base. The same input gives the same files.
"""
import argparse
import pathlib
import struct

import faiss
import numpy

NEIGHBOURS, BLOCK, BEST = 10, 100000, 100


def neighbours_of(vectors, base):
    index = faiss.index_factory(base.shape[1], "IVF512,Flat")
    index.train(base[:60000])
    index.add(base)
    index.nprobe = 4
    found = index.search(vectors, NEIGHBOURS + 1)[1]
    return numpy.where(found < 0, found[:, :1], found)


def between(rng, a, b):
    return a + rng.uniform(0, 0.5, (len(a), 1)).astype("float32") * (b - a)


def draw(rng, seeds, near, base, base_near, n):
    """n vectors; seeds [*][dim] are real, near their neighbours' numbers in base, base_near those of base itself."""
    i = rng.integers(0, len(seeds), n)
    first, other = near[i, rng.integers(1, NEIGHBOURS + 1, n)], near[i, rng.integers(1, NEIGHBOURS + 1, n)]
    further = base_near[other, rng.integers(1, NEIGHBOURS + 1, n)]
    halves = between(rng, seeds[i], base[first]), between(rng, base[other], base[further])
    return numpy.rint(numpy.concatenate(halves, axis=1)).astype("uint8")


class Truth:
    """The nearest so far of every query, block after block."""

    def __init__(self, queries):
        self.queries = queries.astype("float32")
        self.keys = numpy.full((len(queries), BEST), numpy.inf, "float32")
        self.ids = numpy.zeros((len(queries), BEST), "int32")

    def see(self, block, first):
        x = block.astype("float32")
        keys = (x * x).sum(1)[None] - 2 * self.queries @ x.T
        part = numpy.argpartition(keys, BEST, axis=1)[:, :BEST]
        keys = numpy.concatenate([self.keys, numpy.take_along_axis(keys, part, 1)], axis=1)
        ids = numpy.concatenate([self.ids, part.astype("int32") + first], axis=1)
        best = numpy.argsort(keys, axis=1, kind="stable")[:, :BEST]
        self.keys, self.ids = numpy.take_along_axis(keys, best, 1), numpy.take_along_axis(ids, best, 1)


def write(path, shape, rows):
    with open(path, "wb") as out:
        out.write(struct.pack("<II", *shape))
        for block in rows:
            out.write(numpy.ascontiguousarray(block).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, metavar="IN")
    parser.add_argument("out", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    base, seeds = numpy.load(options.source / "base.npy"), numpy.load(options.source / "query.npy")
    base_near = neighbours_of(base, base)
    near = neighbours_of(seeds, base)
    queries = draw(numpy.random.default_rng(2), seeds, near, base, base_near, options.queries)
    truth, rng = Truth(queries), numpy.random.default_rng(1)

    def blocks():
        for first in range(0, options.rows, BLOCK):
            block = draw(rng, base, base_near, base, base_near, min(BLOCK, options.rows - first))
            truth.see(block, first)
            yield block

    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "query.u8bin", queries.shape, [queries])
    write(options.out / "base.u8bin", (options.rows, 2 * base.shape[1]), blocks())
    write(options.out / "truth.ibin", truth.ids.shape, [truth.ids])


if __name__ == "__main__":
    main()
