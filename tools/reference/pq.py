#!/usr/bin/env python3
"""Makes tests/fixtures/pq.h: codes that faiss gives vectors by a product quantiser, and the distances it computes from
them, for tests/unit/test_partitioned.c.

Needs faiss-cpu 1.15.1 and numpy 2.4.6. Codewords are learnt by faiss from other vectors of the same kind.
"""
import pathlib

import faiss
import numpy

ROWS, DIM, GROUPS, QUERIES = 50, 24, 8, 3


def table(name, kind, form, array):
    rows = ["    " + ", ".join(form(x) for x in row) + "," for row in array]
    return f"static const {kind} {name}[{array.shape[0]} * {array.shape[1]}] = {{\n" + "\n".join(rows) + "\n};\n"


def main():
    rng = numpy.random.default_rng(5)
    mix = rng.standard_normal((DIM, DIM)) / 4 + numpy.eye(DIM)

    def draw(n):  # few significant bits keep the file small
        return (numpy.round(rng.standard_normal((n, DIM)) @ mix * 64) / 64).astype("float32")

    pq = faiss.ProductQuantizer(DIM, GROUPS, 4)
    pq.train(draw(1000))
    centroids = numpy.round(faiss.vector_to_array(pq.centroids) * 256) / 256
    faiss.copy_array_to_vector(centroids.astype("float32"), pq.centroids)
    vectors, queries = draw(ROWS), draw(QUERIES)
    packed = pq.compute_codes(vectors)
    codes = numpy.stack([packed & 15, packed >> 4], axis=2).reshape(ROWS, GROUPS)
    decoded = pq.decode(packed)
    distances = ((queries[:, None] - decoded[None]) ** 2).sum(2)
    number = lambda x: f"{x:.9g}f" if "." in f"{x:.9g}" or "e" in f"{x:.9g}" else f"{x:.9g}.0f"
    parts = [f"/* Made by tools/reference/pq.py with faiss {faiss.__version__}: do not edit. */\n#include <stdint.h>\n\n"
             f"enum {{ PQ_ROWS = {ROWS}, PQ_DIM = {DIM}, PQ_GROUPS = {GROUPS}, PQ_QUERIES = {QUERIES} }};\n",
             "/* [group][codeword][component] */\n" + table("pq_centroids", "float", number, centroids.reshape(GROUPS * 16, -1)),
             table("pq_vectors", "float", number, vectors), table("pq_codes", "uint8_t", str, codes),
             table("pq_queries", "float", number, queries), table("pq_distances", "float", number, distances)]
    (pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "pq.h").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
