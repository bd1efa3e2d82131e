#!/usr/bin/env python3
"""Chooses parameters of expansion and re-ranking on pictures that no figure is reported on.

    bench/rank/tune.py --build BUILD --collections logo=logo.lk,vlad=vlad.lk,... [--queries split=validation] [--digits] [--every N]
                       [--methods expand,dba,kreciprocal,alone,diffusion,superglobal] [--shortlist N]

For every setting of a grid: the mean over the queries of AP among the whole collection, less that of the plain search, in
points (hundredths), for each collection; and the mean of these over the collections, by which the list is sorted. --digits
adds scikit-learn's digits, where a query has some 180 relevant pictures.
"""
import argparse
import itertools
import os
import pathlib
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import judge
import library

LAMBDAS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
GRIDS = {
    "expand": [("aqe", n) for n in (1, 2, 3, 5, 10)] + [("rank", n) for n in (2, 3, 5, 10)] +
              [("alpha", n, a) for n in (1, 2, 3, 5, 10, 20) for a in (1.0, 3.0, 6.0, 10.0)],
    "dba": [("dba", n, a) for n in (1, 2, 3, 5, 10) for a in (1.0, 3.0, 6.0, 10.0)],
    "kreciprocal": [("kreciprocal", k1, k2) for k1, k2 in itertools.product((4, 6, 8, 12, 20), (1, 2, 4, 6)) if k2 <= k1],
    "alone": [("alone", k1, k2) for k1, k2 in itertools.product((4, 6, 8, 12, 20), (1, 2, 4, 6)) if k2 <= k1],
    "diffusion": [("diffusion", k, kq, a, g) for k, kq, a, g in itertools.product((5, 10, 20, 50), (1, 3, 10), (0.2, 0.5, 0.9, 0.99), (3.0,))],
    "superglobal": [("superglobal", k, b) for k, b in itertools.product((1, 2, 3, 5, 9), (0.05, 0.15, 0.3, 1.0))],
}


def open_set(lib, path, column, value, every, shortlist):
    vectors, rows = lib.collection(path)
    wanted = [i for i, r in enumerate(rows) if "label" in r and str(r.get(column)) == value]
    return judge.Judge(vectors, [r.get("label") for r in rows], wanted[::every], shortlist)


def digits(every, shortlist):
    from sklearn.datasets import load_digits
    data = load_digits()
    return judge.Judge(data.data, data.target, range(0, len(data.data), 4 * every), shortlist)


class Methods:
    """AP of every query under a setting."""

    def __init__(self, lib, data, table):
        self.lib, self.data, self.cache, self.index = lib, data, {}, lib.flat(data.x)
        self.table = lib.knn(data.x, table)

    def expanded(self, kind, n, alpha=3.0):
        d = self.data
        return d.of_vectors(numpy.stack([self.lib.expand(kind, d.x[q], d.x[near[:n]], alpha) for q, near in zip(d.queries, d.near)]))

    def aqe(self, n):
        return self.expanded("aqe", n)

    def rank(self, n):
        return self.expanded("rank", n)

    def alpha(self, n, alpha):
        return self.expanded("alpha", n, alpha)

    def dba(self, n, alpha):
        d = self.data
        if "lists" not in self.cache:
            self.cache["lists"] = self.lib.knn_lists(self.table, len(d.x), 11)
        ids, distances = self.cache["lists"]
        y, rows, own = d.x.copy(), numpy.arange(len(d.x)), numpy.zeros(len(d.x), int)
        for column in range(11):  # the item itself is among its neighbours, mostly the first
            other = (ids[:, column] != rows) & (own < n)
            own += other
            weight = numpy.where(other, numpy.maximum(1 - distances[:, column] / 2, 0) ** alpha, 0)
            y += weight[:, None].astype(numpy.float32) * d.x[ids[:, column]]
        y = judge.unit(y)
        return d.of_vectors(y[d.queries], y)

    def weighted(self, jaccard):
        """AP for every lambda. jaccard(at, near, weight) gives what the library makes of the shortlist; with weights 0 and 1
        that is the Jaccard and the scaled original distance."""
        d, out = self.data, {}
        parts = [(jaccard(at, near, 0.0), jaccard(at, near, 1.0)) for at, near in enumerate(d.near)]
        for weight in LAMBDAS:
            out[weight] = d.of_values(lambda at, near, similar: (1 - weight) * parts[at][0] + weight * parts[at][1])
        return out

    def kreciprocal(self, k1, k2):
        d, lib = self.data, self.lib
        return self.weighted(lambda at, near, weight: lib.local(lib.shortlist(near, d.distances(at), 0, int(d.queries[at])),
                                                                lib.source(self.table, self.index, d.x[d.queries[at]]), k1, k2, weight))

    def alone(self, k1, k2):
        d, lib = self.data, self.lib

        def jaccard(at, near, weight):
            own, distances = lib.knn(d.x[near], max(k1 + 1, k2)), d.distances(at)
            found = lib.local(lib.shortlist(numpy.arange(len(near)), distances, distances[-1]), lib.source(own), k1, k2, weight)
            lib.knn_free(own)
            return found
        return self.weighted(jaccard)

    def diffusion(self, k, kq, alpha, gamma):
        d, lib = self.data, self.lib
        return d.of_values(lambda at, near, similar: -lib.diffusion(lib.shortlist(near, d.distances(at)), lib.source(self.table), k, kq, gamma, alpha))

    def superglobal(self, k, beta):
        d = self.data
        return d.of_values(lambda at, near, similar: -self.lib.superglobal(d.x[d.queries[at]], d.x[near], k, beta))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--collections", required=True)
    parser.add_argument("--queries", default="split=validation")
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--methods", default="expand,dba,kreciprocal,alone,diffusion,superglobal")
    parser.add_argument("--shortlist", type=int, default=200)
    parser.add_argument("--show", type=int, default=12, help="so many of the best")
    parser.add_argument("--every", type=int, default=1, help="take each Nth picture")
    options = parser.parse_args()
    lib = library.Library(options.build)
    column, _, value = options.queries.partition("=")
    sets = {}
    for text in options.collections.split(","):
        name, _, path = text.partition("=")
        sets[name] = open_set(lib, path, column, value, options.every, options.shortlist)
    if options.digits:
        sets["digits"] = digits(options.every, options.shortlist)
    print(", ".join(f"{name}: {len(s.queries)} queries, mAP {s.base.mean():.4f}" for name, s in sets.items()), flush=True)
    methods = {name: Methods(lib, s, 51) for name, s in sets.items()}
    for group in options.methods.split(","):
        found = []
        for kind, *arguments in GRIDS[group]:
            aps = {name: getattr(methods[name], kind)(*arguments) for name in sets}
            for weight in LAMBDAS if group in ("kreciprocal", "alone") else [None]:
                gains = {name: 100 * ((aps[name] if weight is None else aps[name][weight]) - s.base).mean() for name, s in sets.items()}
                text = ":".join(map(str, (kind, *arguments, *([] if weight is None else [weight]))))
                found.append((numpy.mean(list(gains.values())), text, gains))
        print(f"\n{group}, shortlist {options.shortlist}: gain of mAP in points")
        for mean, text, gains in sorted(found, key=lambda f: -f[0])[:options.show]:
            print(f"  {text:28} {mean:+.2f}   " + "  ".join(f"{n} {g:+.2f}" for n, g in gains.items()), flush=True)


if __name__ == "__main__":
    main()
