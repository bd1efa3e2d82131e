#!/usr/bin/env python3
"""Makes tests/fixtures/k_reciprocal.h: k-reciprocal re-ranking in float64, for tests/unit/test_kreciprocal.c.

Written from Zhong, Zheng, Cao & Li, "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017), with
what their published program does where the paper is silent:
  - the distance is the squared Euclidean one, and row i is divided by the largest distance in it, in the weights and in
    the final sum alike;
  - the sets hold the item itself: k means the k + 1 first of the ranking, and the k2 rows that are averaged begin with the
    item's own;
  - k1 / 2 is rounded half to even; a candidate's set joins when more than 2/3 of it is there already;
  - the weights of a row are divided by their sum before they are averaged.
One thing the program leaves to chance is fixed here: equally near items go by their position.
Needs numpy and scikit-learn (its digits are the real data: 8 x 8 pictures of handwriting, as vectors of 64 small numbers).
"""
import os

import numpy


def squared_distances(vectors):
    x = vectors.astype(numpy.float64)
    return numpy.stack([((x - row) ** 2).sum(1) for row in x])


def k_reciprocal(distances, queries, k1, k2, weight):
    """distances [n][n] squared, the queries first; returns [queries][n - queries]."""
    n = len(distances)
    scaled = distances / distances.max(1, keepdims=True)
    ranking = numpy.argsort(distances, axis=1, kind="stable")

    def reciprocal(i, k):
        near = ranking[i, :k + 1]
        return [j for j in near if i in ranking[j, :k + 1]]

    encoded = numpy.zeros((n, n))
    half = int(numpy.around(k1 / 2))
    for i in range(n):
        first = reciprocal(i, k1)
        members = set(first)
        for j in first:
            second = reciprocal(j, half)
            if len(set(second) & set(first)) * 3 > 2 * len(second):
                members |= set(second)
        members = sorted(members)
        weights = numpy.exp(-scaled[i, members])
        encoded[i, members] = weights / weights.sum()
    averaged = numpy.stack([encoded[ranking[i, :k2]].mean(0) for i in range(n)])
    result = numpy.empty((queries, n - queries))
    for q in range(queries):
        shared = numpy.minimum(averaged[q], averaged[queries:]).sum(1)
        jaccard = 1 - shared / (2 - shared)
        result[q] = (1 - weight) * jaccard + weight * scaled[q, queries:]
    return result


def table(name, kind, array, form):
    rows = ["    " + ",".join(form(x) for x in row) + "," for row in array]
    return f"static const {kind} {name}[{array.shape[0]} * {array.shape[1]}] = {{\n" + "\n".join(rows) + "\n};\n"


def main():
    from sklearn.datasets import load_digits
    rng = numpy.random.default_rng(17)
    # Loose clusters, so that sets of neighbours overlap in part; few significant bits keep the file small.
    centres = rng.standard_normal((30, 8)) * 1.2
    random = numpy.round((centres[rng.integers(0, 30, 300)] + rng.standard_normal((300, 8))) * 256) / 256
    digits = load_digits().data[rng.permutation(1797)[:300]]
    number = lambda x: f"{x:.9g}"
    short = lambda x: f"{x:.7f}"[1:] if x < 1 else f"{x:.7f}"
    parts = ["/* Made by tools/reference/k_reciprocal.py: do not edit. */\n#include <stdint.h>\n",
             table("fixture_random", "float", random, number), table("fixture_digits", "uint8_t", digits.astype(int), str)]
    cases = []
    for name, vectors, queries, k1, k2, weight in (("random", random, 30, 20, 6, 0.3), ("digits", digits, 25, 20, 6, 0.3),
                                                   ("odd", random, 10, 7, 1, 0.0), ("wide", digits, 10, 5, 9, 0.5)):
        out = k_reciprocal(squared_distances(vectors), queries, k1, k2, weight)
        parts.append(table(f"fixture_{name}_out", "float", out, short))
        data = "fixture_random, NULL, 8" if vectors is random else "NULL, fixture_digits, 64"
        cases.append(f'    {{"{name}", {data}, 300, {queries}, {k1}, {k2}, {weight}f, fixture_{name}_out}},')
    parts.append("static const struct {\n    const char *name;\n    const float *vectors;\n    const uint8_t *pixels;\n"
                 "    size_t dim, n, queries;\n    uint32_t k1, k2;\n    float lambda;\n    const float *out;\n} fixture_cases[] = {\n"
                 + "\n".join(cases) + "\n};\n")
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "k_reciprocal.h"), "w") as out:
        out.write("\n".join(parts))


if __name__ == "__main__":
    main()
