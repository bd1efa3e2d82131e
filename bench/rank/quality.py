#!/usr/bin/env python3
"""What each method of docs/ranking.md does to the ranking: mAP before and after, under the full-library protocol (every query
ranks all other pictures).

    bench/rank/quality.py --build BUILD --digits
    bench/rank/quality.py --build BUILD --idx IMAGES.gz LABELS.gz --sample 1000
    bench/rank/quality.py --build BUILD --collection C.lk [--queries COLUMN=VALUE] [--methods a,b]

--digits takes scikit-learn's 1797 handwritten digits as vectors of 64 grey values: ten classes of some 180 pictures, the
setting in which re-ranking by neighbours was invented; --idx takes pictures as MNIST's files hold them, likewise as grey values. Otherwise the vectors and the column `label` of a collection are
taken. Queries without another picture of their label are left out. A method is a name with parameters: alpha:10:2 joins ten
neighbours by their similarity squared, kreciprocal:20:6:0.3 gives k1, k2 and lambda.

Prints for each method mAP, the share of queries whose first result is right, the mean difference of AP to no re-ranking
with its 95% bootstrap interval, and milliseconds of processor time a query (search not counted).
"""
import argparse
import gzip
import os
import pathlib
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import library


def average_precision(order, relevant):
    """order: positions of the gallery, the query left out; relevant: a mask over positions."""
    ranks = numpy.flatnonzero(relevant[order]) + 1
    return (numpy.arange(1, len(ranks) + 1) / ranks).mean()


class Set:
    def __init__(self, vectors, labels, queries):
        self.x = (vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(numpy.float32)
        values, self.labels = numpy.unique(labels, return_inverse=True)
        counts = numpy.bincount(self.labels)
        self.queries = numpy.array([q for q in queries if counts[self.labels[q]] > 1])

    def order(self, q, scores):
        """Best first without the query; equal scores by position."""
        out = numpy.argsort(-scores, kind="stable")
        return out[out != q]

    def measure(self, ranker):
        aps, hits, work = [], [], 0.0
        for q in self.queries:
            base = self.order(q, self.x @ self.x[q])
            started = time.thread_time()
            order = ranker(q, base)
            work += time.thread_time() - started
            relevant = self.labels == self.labels[q]
            relevant[q] = False
            aps.append(average_precision(order, relevant))
            hits.append(relevant[order[0]])
        return numpy.array(aps), numpy.mean(hits), 1000 * work / len(self.queries)


def build_methods(data, lib, shortlist, table_k, cache):
    x, n = data.x, len(data.x)
    lazily = {}

    def once(name, make):
        if name not in lazily:
            lazily[name] = make()
        return lazily[name]

    table = lambda: once("table", lambda: lib.knn(x, table_k, cache))
    index = lambda: once("index", lambda: lib.flat(x))

    def expanded(kind, k, alpha=3.0):
        def ranker(q, base):
            return data.order(q, x @ lib.expand(kind, x[q], x[base[:k]], alpha))
        return ranker

    def augmented(k, alpha=3.0):
        def ranker(q, base):
            y = once(f"dba {k} {alpha}", lambda: lib.augment("alpha", x, k, alpha))
            return data.order(q, y @ y[q])
        return ranker

    def head(base, length=None):
        length = min(length or shortlist, len(base))
        return base[:length], base[length:]

    def distances(q, near):
        return numpy.maximum.accumulate(numpy.maximum(2 - 2 * (x[near] @ x[q]), 0))

    def kreciprocal(k1=20, k2=6, weight=0.3):
        def ranker(q, base):
            near, rest = head(base)
            found = lib.local(lib.shortlist(near, distances(q, near), 0, q), lib.source(table(), index(), x[q]), k1, k2, weight)
            return numpy.concatenate([near[numpy.argsort(found, kind="stable")], rest])
        return ranker

    def kreciprocal_alone(k1=20, k2=6, weight=0.3):
        """Without a table: the shortlist is the collection."""
        def ranker(q, base):
            near, rest = head(base)
            own = lib.knn(x[near], max(k1 + 1, k2))
            d = distances(q, near)
            found = lib.local(lib.shortlist(numpy.arange(len(near)), d, d[-1]), lib.source(own), k1, k2, weight)
            lib.knn_free(own)
            return numpy.concatenate([near[numpy.argsort(found, kind="stable")], rest])
        return ranker

    def kreciprocal_full(k1=20, k2=6, weight=0.3):
        def ranker(q, base):
            rows = once(f"full {k1} {k2} {weight}", lambda: lib.full(x, n, k1, k2, weight))
            return data.order(q, -rows[q])
        return ranker

    def diffusion(k=50, kq=10, alpha=0.99, gamma=3.0):
        def ranker(q, base):
            near, rest = head(base)
            found = lib.diffusion(lib.shortlist(near, distances(q, near)), lib.source(table()), k, kq, gamma, alpha)
            return numpy.concatenate([near[numpy.argsort(-found, kind="stable")], rest])
        return ranker

    def superglobal(k=9, beta=0.15):
        def ranker(q, base):
            near, rest = head(base)
            return numpy.concatenate([near[numpy.argsort(-lib.superglobal(x[q], x[near], k, beta), kind="stable")], rest])
        return ranker

    def both(k, alpha, k1, k2, weight):
        """Expansion, then k-reciprocal with the expanded query."""
        def ranker(q, base):
            vector = lib.expand("alpha", x[q], x[base[:k]], alpha)
            near, rest = head(data.order(q, x @ vector))
            d = numpy.maximum.accumulate(numpy.maximum(2 - 2 * (x[near] @ vector), 0))
            found = lib.local(lib.shortlist(near, d), lib.source(table(), index(), vector), k1, k2, weight)
            return numpy.concatenate([near[numpy.argsort(found, kind="stable")], rest])
        return ranker

    return dict(none=lambda: (lambda q, base: base), aqe=lambda k=3: expanded("aqe", k), rank=lambda k=3: expanded("rank", k),
                alpha=lambda k=3, a=3.0: expanded("alpha", k, a), dba=lambda k=3, a=3.0: augmented(k, a),
                kreciprocal=kreciprocal, alone=kreciprocal_alone, full=kreciprocal_full, diffusion=diffusion,
                superglobal=superglobal, both=both)


def report(data, lib, shortlist, table_k, cache, specifications, rng):
    methods = build_methods(data, lib, shortlist, table_k, cache)
    print(f"{len(data.queries)} queries, {len(data.x)} pictures, shortlist {shortlist}")
    print("| method | mAP | first right | difference of AP (95%) | ms a query |\n|---|---|---|---|---|")
    base = None
    for text in specifications:
        name, *arguments = text.split(":")
        aps, first, cost = data.measure(methods[name](*[int(a) if a.isdigit() else float(a) for a in arguments]))
        base = aps if base is None else base
        means = (aps - base)[rng.integers(0, len(aps), (2000, len(aps)))].mean(1)
        low, high = numpy.percentile(means, [2.5, 97.5])
        print(f"| {text} | {aps.mean():.4f} | {first:.4f} | {(aps - base).mean():+.4f} ({low:+.4f}, {high:+.4f}) | {cost:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--idx", nargs=2, metavar=("IMAGES.gz", "LABELS.gz"), help="pictures in the format of MNIST: t10k-images-idx3-ubyte.gz, ...")
    parser.add_argument("--collection")
    parser.add_argument("--queries", help="COLUMN=VALUE of the labels")
    parser.add_argument("--sample", type=int, default=0, help="so many of the queries, evenly spread (default: all)")
    parser.add_argument("--shortlist", type=int, default=200)
    parser.add_argument("--table", type=int, default=50, help="neighbours in the table")
    parser.add_argument("--cache", help="file that keeps the table for the next run over the same vectors")
    parser.add_argument("--methods", default="none,aqe:3,rank:3,alpha:3,dba:3,kreciprocal,alone,full,diffusion,superglobal")
    options = parser.parse_args()
    lib = library.Library(options.build)
    if options.digits:
        from sklearn.datasets import load_digits
        digits = load_digits()
        data = Set(digits.data, digits.target, range(len(digits.data)))
    elif options.idx:
        images, labels = (gzip.open(path).read() for path in options.idx)
        labels = numpy.frombuffer(labels, numpy.uint8, offset=8)
        data = Set(numpy.frombuffer(images, numpy.uint8, offset=16).reshape(len(labels), -1).astype(numpy.float32), labels, range(len(labels)))
    else:
        vectors, rows = lib.collection(options.collection)
        column, _, value = (options.queries or "=").partition("=")
        wanted = [i for i, r in enumerate(rows) if "label" in r and (not column or str(r.get(column)) == value)]
        data = Set(vectors, [r.get("label", f"none {i}") for i, r in enumerate(rows)], wanted)
    if options.sample and options.sample < len(data.queries):
        data.queries = data.queries[numpy.linspace(0, len(data.queries) - 1, options.sample).astype(int)]
    report(data, lib, options.shortlist, options.table, options.cache, options.methods.split(","), numpy.random.default_rng(5))


if __name__ == "__main__":
    main()
