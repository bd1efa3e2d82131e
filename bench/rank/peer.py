"""The peer: k-reciprocal re-ranking as the authors' program does it, in numpy with dense matrices: float32 as there, or
float64 to see what its rounding does.

Typed anew from the paper (Zhong et al., CVPR 2017) step by step as that program goes: the whole distance matrix squared and
divided by its column maxima, a full argsort of every row, one row of the encoding at a time, dense averaging over k2
rows, an inverted index by columns. Distances come from a matrix product, which is kinder to it than the pairwise loops of
its example.
"""
import numpy


def distance_matrix(x):
    square = (x * x).sum(1)
    out = square[:, None] + square[None] - 2 * (x @ x.T)
    return numpy.sqrt(numpy.maximum(out, 0, out=out), out=out)


def rerank(distances, queries, k1=20, k2=6, weight=0.3):
    """distances [n][n] Euclidean, the queries first; returns [queries][n - queries]."""
    scaled = numpy.power(distances, 2).astype(numpy.float32)
    scaled = numpy.transpose(1.0 * scaled / numpy.max(scaled, axis=0))
    return encode(scaled, queries, k1, k2, weight)


def rerank_in_float64(distances, queries, k1=20, k2=6, weight=0.3):
    """The same in float64; distances are overwritten, to spare memory."""
    distances *= distances
    distances /= numpy.max(distances, axis=0)
    return encode(distances.T, queries, k1, k2, weight)


def encode(scaled, queries, k1, k2, weight):
    n = scaled.shape[0]
    encoded = numpy.zeros_like(scaled)
    ranking = numpy.argsort(scaled).astype(numpy.int32)
    wide, narrow = k1 + 1, int(numpy.around(k1 / 2.0)) + 1
    for i in range(n):
        forward = ranking[i, :wide]
        mutual = forward[numpy.where(ranking[forward, :wide] == i)[0]]
        members = mutual
        for candidate in mutual:
            near = ranking[candidate, :narrow]
            theirs = near[numpy.where(ranking[near, :narrow] == candidate)[0]]
            if len(numpy.intersect1d(theirs, mutual)) > 2.0 / 3 * len(theirs):
                members = numpy.append(members, theirs)
        members = numpy.unique(members)
        weights = numpy.exp(-scaled[i, members])
        encoded[i, members] = weights / numpy.sum(weights)
    scaled = scaled[:queries]
    if k2 != 1:
        averaged = numpy.zeros_like(encoded)
        for i in range(n):
            averaged[i] = numpy.mean(encoded[ranking[i, :k2]], axis=0)
        encoded = averaged
        del averaged
    del ranking
    holders = [numpy.where(encoded[:, i] != 0)[0] for i in range(n)]
    jaccard = numpy.zeros_like(scaled)
    for i in range(queries):
        shared = numpy.zeros((1, n), scaled.dtype)
        for column in numpy.where(encoded[i] != 0)[0]:
            rows = holders[column]
            shared[0, rows] += numpy.minimum(encoded[i, column], encoded[rows, column])
        jaccard[i] = 1 - shared / (2.0 - shared)
    return (jaccard * (1 - weight) + scaled * weight)[:, queries:]
