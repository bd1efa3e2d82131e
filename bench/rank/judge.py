"""Queries of a collection with their ranking among all other pictures, and what a method does to the average precision.

A ranking is never sorted as a whole: the rank of a relevant picture is counted from the scores, and a re-ranker moves what is
in its shortlist alone."""
import numpy


def unit(x):
    return (x / numpy.maximum(numpy.linalg.norm(x, axis=-1, keepdims=True), 1e-12)).astype(numpy.float32)


class Judge:
    """vectors [n][dim]; labels [n], None for a picture without; queries: positions of pictures."""

    def __init__(self, vectors, labels, queries, shortlist=200):
        self.x = unit(vectors)
        _, self.labels = numpy.unique([f"label {label}" if label is not None else f"picture {i}" for i, label in enumerate(labels)],
                                      return_inverse=True)
        counts = numpy.bincount(self.labels)
        self.queries = numpy.array([q for q in queries if counts[self.labels[q]] > 1])
        order = numpy.argsort(self.labels, kind="stable")
        starts = numpy.searchsorted(self.labels[order], self.labels[self.queries])
        self.relevant = [numpy.setdiff1d(order[s:s + counts[self.labels[q]]], [q]) for s, q in zip(starts, self.queries)]
        self.shortlist = shortlist
        self.near, self.base_ranks = [], []
        for at, scores in self.blocks(self.x[self.queries]):
            head = numpy.argpartition(-scores, shortlist + 1)[:shortlist + 1]
            head = head[numpy.lexsort((head, -scores[head]))][:shortlist]
            self.near.append(head)
            self.base_ranks.append(self.ranks(at, scores))
        self.similar = [self.x[near] @ self.x[q] for near, q in zip(self.near, self.queries)]
        self.base = numpy.array([self.average_precision(r) for r in self.base_ranks])

    def blocks(self, vectors, database=None, size=256):
        """Each query's scores over all pictures, itself at the end."""
        database = self.x if database is None else database
        for first in range(0, len(vectors), size):
            block = vectors[first:first + size] @ database.T
            for i, scores in enumerate(block):
                scores[self.queries[first + i]] = -numpy.inf
                yield first + i, scores

    def ranks(self, at, scores):
        """Of the relevant pictures, rising; equal scores by position."""
        out = [1 + int((scores > scores[r]).sum() + (scores[:r] == scores[r]).sum()) for r in self.relevant[at]]
        return numpy.sort(out)

    @staticmethod
    def average_precision(ranks):
        return (numpy.arange(1, len(ranks) + 1) / ranks).mean()

    def of_vectors(self, vectors, database=None):
        """AP of every query when these vectors are searched with, perhaps in another database."""
        return numpy.array([self.average_precision(self.ranks(at, scores)) for at, scores in self.blocks(vectors, database)])

    def of_values(self, ranker):
        """AP when ranker(at, near, similar) gives every picture of the shortlist a value, lower is better."""
        out = []
        for at, near in enumerate(self.near):
            values = ranker(at, near, self.similar[at])
            place = {int(p): i + 1 for i, p in enumerate(near[numpy.argsort(values, kind="stable")])}
            beyond = self.base_ranks[at][self.base_ranks[at] > len(near)]
            inside = [place[int(r)] for r in self.relevant[at] if int(r) in place]
            out.append(self.average_precision(numpy.sort(numpy.concatenate([inside, beyond]))))
        return numpy.array(out)

    def distances(self, at):
        return numpy.maximum.accumulate(numpy.maximum(2 - 2 * self.similar[at], 0))
