#!/usr/bin/env python3
"""Makes tests/fixtures/rank.h: query expansion, augmentation, feedback, diffusion and SuperGlobal's refinement in float64,
for tests/unit/test_rank.c.

Each is written from its paper and checked against what the authors' program computes:
  alpha-QE       Radenovic, Tolias & Chum 2018, section 4.3: the query joined by its n nearest, each weighted by its
                 similarity to the power alpha, divided by the length. alpha = 0 is AQE.
  augmentation   the same for every vector of the database and its own nearest others.
  diffusion      Iscen et al. 2017: mutual neighbour graph without loops, affinities s^gamma, symmetric normalisation,
                 (I - alpha S) f = y. Solved directly here; rows without neighbours have S = 0.
  SuperGlobal    Shao et al. 2023, section 3.3.
Needs numpy.
"""
import os

import numpy

N, DIM, NEAR = 120, 12, 9


def unit(x):
    return x / numpy.linalg.norm(x, axis=-1, keepdims=True)


def weights(kind, similarities, alpha):
    n = len(similarities)
    return {"average": numpy.ones(n), "rank": (n - numpy.arange(n)) / n, "alpha": numpy.maximum(similarities, 0) ** alpha}[kind]


def expand(kind, query, near, alpha=3.0):
    return unit(query + weights(kind, near @ query, alpha) @ near)


def augment(kind, x, k, alpha=3.0):
    out = []
    for i in range(len(x)):
        order = numpy.argsort(((x - x[i]) ** 2).sum(1), kind="stable")
        out.append(expand(kind, x[i], x[order[order != i][:k]], alpha))
    return numpy.stack(out)


def diffusion(x, query, subset, k, kq, gamma, alpha):
    """Over the items of subset, which is in order of similarity; the graph is that of all, cut down."""
    near = [set(numpy.argsort(((x - row) ** 2).sum(1), kind="stable")[:k]) for row in x]
    similarity = x @ x.T
    graph = numpy.zeros((len(subset), len(subset)))
    for a, i in enumerate(subset):
        for b, j in enumerate(subset):
            if i != j and i in near[j] and j in near[i]:
                graph[a, b] = max(similarity[i, j], 0) ** gamma
    degree = graph.sum(1)
    scale = numpy.where(degree > 0, 1 / numpy.sqrt(numpy.where(degree > 0, degree, 1)), 0)
    y = numpy.zeros(len(subset))
    y[:kq] = numpy.maximum(x[subset[:kq]] @ query, 0) ** gamma
    return numpy.linalg.solve(numpy.eye(len(subset)) - alpha * scale[:, None] * graph * scale[None], y)


def superglobal(x, query, k, beta):
    similarity = x @ x.T
    order = numpy.argsort(-similarity, axis=1, kind="stable")[:, :k + 1]
    refined = []
    for i in range(len(x)):
        w = beta * similarity[i, order[i]]
        w[0] = 1
        refined.append(w @ x[order[i]] / w.sum())
    refined = numpy.stack(refined)
    first = refined @ query
    fresh = refined[numpy.argsort(-first, kind="stable")[:k + 1]].max(0)
    return (first + refined @ fresh) / 2


def table(name, array):
    array = numpy.atleast_2d(array)
    rows = ["    " + ", ".join(f"{x:.9g}" for x in row) + "," for row in array]
    return f"static const float {name}[{array.size}] = {{\n" + "\n".join(rows) + "\n};\n"


def main():
    rng = numpy.random.default_rng(23)
    centres = rng.standard_normal((12, DIM))
    x = unit(centres[rng.integers(0, 12, N)] + 0.5 * rng.standard_normal((N, DIM))).astype(numpy.float32).astype(float)
    query = unit(centres[0] + 0.5 * rng.standard_normal(DIM)).astype(numpy.float32).astype(float)
    order = numpy.argsort(-(x @ query), kind="stable")
    x = x[order]  # by similarity to the query, so that a shortlist is a head
    activations = unit(numpy.maximum(x, 0)).astype(numpy.float32).astype(float)
    positive = unit(numpy.maximum(query, 0)).astype(numpy.float32).astype(float)
    activations = activations[numpy.argsort(-(activations @ positive), kind="stable")]
    parts = ["/* Made by tools/reference/rank.py: do not edit. */\n",
             f"enum {{ FIXTURE_N = {N}, FIXTURE_DIM = {DIM}, FIXTURE_NEAR = {NEAR} }};\n",
             table("fixture_vectors", x), table("fixture_query", query), table("fixture_activations", activations),
             table("fixture_positive", positive)]
    for kind in ("average", "rank", "alpha"):
        parts.append(table(f"fixture_expand_{kind}", expand(kind, query, x[:NEAR])))
    parts.append(table("fixture_augment", augment("alpha", x, 5)))
    parts.append(table("fixture_fused", unit(unit(3 * x[0]) + x[1] + x[2])))
    parts.append(table("fixture_feedback", unit(query + 0.75 * x[[0, 3]].mean(0) - 0.15 * x[[5, 8, 100]].mean(0))))
    parts.append(table("fixture_diffusion", diffusion(x, query, numpy.arange(N), 10, 5, 3, 0.99)))
    parts.append(table("fixture_diffusion_cut", diffusion(x, query, numpy.arange(40), 10, 5, 3, 0.9)))
    parts.append(table("fixture_superglobal", superglobal(activations, positive, 9, 0.15)))
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "rank.h"), "w") as out:
        out.write("\n".join(parts))


if __name__ == "__main__":
    main()
