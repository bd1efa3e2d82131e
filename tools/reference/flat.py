#!/usr/bin/env python3
"""Makes tests/fixtures/flat.h: neighbours that faiss finds exactly, for tests/unit/test_flat.c.

Needs faiss-cpu 1.15.1 and numpy 2.4.6. Cosine is the inner product of vectors normalised first.
"""
import os

import faiss
import numpy

ROWS, DIM, QUERIES, K = 61, 13, 5, 7


def table(name, kind, form, array):
    rows = ["    " + ", ".join(form(x) for x in row) + "," for row in array]
    return f"static const {kind} {name}[{array.shape[0]} * {array.shape[1]}] = {{\n" + "\n".join(rows) + "\n};\n"


def main():
    rng = numpy.random.default_rng(7)
    # Few significant bits keep the file small; lengths differ, so that the three metrics disagree.
    vectors = (numpy.round(rng.standard_normal((ROWS, DIM)) * 64) / 64 * rng.choice([0.5, 1, 2], (ROWS, 1))).astype("float32")
    queries = (numpy.round(rng.standard_normal((QUERIES, DIM)) * 64) / 64).astype("float32")

    def unit(x):
        return x / numpy.linalg.norm(x, axis=1, keepdims=True)

    cases = {"cosine": (faiss.IndexFlatIP(DIM), unit(vectors), unit(queries)),
             "ip": (faiss.IndexFlatIP(DIM), vectors, queries),
             "l2": (faiss.IndexFlatL2(DIM), vectors, queries)}
    number = lambda x: f"{x:.9g}f" if "." in f"{x:.9g}" or "e" in f"{x:.9g}" else f"{x:.9g}.0f"
    parts = [f"/* Made by tools/reference/flat.py with faiss {faiss.__version__}: do not edit. */\n#include <stdint.h>\n\n"
             f"enum {{ FIXTURE_ROWS = {ROWS}, FIXTURE_DIM = {DIM}, FIXTURE_QUERIES = {QUERIES}, FIXTURE_K = {K} }};\n",
             table("fixture_vectors", "float", number, vectors), table("fixture_queries", "float", number, queries)]
    for name, (index, data, asked) in cases.items():
        index.add(data)
        scores, ids = index.search(asked, K)
        parts += [table(f"fixture_{name}_ids", "uint64_t", str, ids), table(f"fixture_{name}_scores", "float", number, scores)]
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    os.makedirs(os.path.join(root, "tests", "fixtures"), exist_ok=True)
    with open(os.path.join(root, "tests", "fixtures", "flat.h"), "w") as out:
        out.write("\n".join(parts))


if __name__ == "__main__":
    main()
