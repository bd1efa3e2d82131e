#!/usr/bin/env python3
"""Makes tests/fixtures/published_revisited.h and published_expansion.h by running the code that its authors published, for tests/unit/test_metrics.c and
test_rank.c:

    tools/reference/published.py --revisited CHECKOUT --expansion CHECKOUT

--revisited  filipradenovic/cnnimageretrieval-pytorch (or the same functions in filipradenovic/revisitop, python/evaluate.py):
             compute_map on random rankings of a gallery with easy, hard, junk and other pictures
--expansion  naver/deep-image-retrieval: expand_descriptors of dirtorch/test_dir.py, which is alpha-QE and, with alpha 0, AQE;
             over itself it is database-side augmentation. cnnimageretrieval-pytorch, whose authors proposed alpha-QE,
             contains no code of it.

Nothing of them is in this repository: checkouts are wherever the options say, and only the named functions are run. Without
options nothing is made. Needs numpy.
"""
import argparse
import ast
import os

import numpy

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
KS = (1, 3, 5, 10, 20)
CASES, GALLERY = 30, 40
N, DIM = 60, 8


def functions(path, names, scope):
    """Runs the definitions of the named functions of a file, and nothing else of it."""
    with open(path) as f:
        tree = ast.parse(f.read())
    body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    if len(body) != len(names):
        raise SystemExit(f"{path}: {', '.join(names)} are wanted")
    exec(compile(ast.Module(body, []), path, "exec"), scope)
    return scope


def evaluate_file(checkout):
    for path in ("cirtorch/utils/evaluate.py", "python/evaluate.py"):
        if os.path.exists(os.path.join(checkout, path)):
            return os.path.join(checkout, path)
    raise SystemExit(f"{checkout}: has no evaluate.py")


def revisited(checkout, rng):
    if not hasattr(numpy, "in1d"):
        numpy.in1d = numpy.isin  # its name until numpy 2.4
    compute_map = functions(evaluate_file(checkout), ("compute_ap", "compute_map"), {"np": numpy})["compute_map"]
    lines = []
    for _ in range(CASES):
        kinds = rng.choice(list("ehj......"), GALLERY)
        kinds[rng.integers(0, GALLERY)] = "e"
        of = {c: numpy.flatnonzero(kinds == c) for c in "ehj"}
        order, rows = numpy.arange(GALLERY)[:, None], []
        for good, ignored in (("e", "jh"), ("eh", "j"), ("h", "je")):
            truth = {"ok": numpy.concatenate([of[c] for c in good]), "junk": numpy.concatenate([of[c] for c in ignored])}
            if len(truth["ok"]) == 0:
                rows.append([float("nan")] * (1 + len(KS)))
                continue
            _, aps, _, precisions = compute_map(order, [truth], list(KS))
            rows.append([aps[0], *precisions[0]])
        text = ", ".join("{" + ", ".join("NAN" if v != v else repr(float(v)) for v in r) + "}" for r in rows)
        lines.append('    {"' + "".join(kinds) + '", {' + text + "}},")
    return ["enum { PUBLISHED_CASES = %d, PUBLISHED_GALLERY = %d };" % (CASES, GALLERY),
            "static const struct published_case {\n    char kinds[PUBLISHED_GALLERY + 1]; /* best first */\n"
            "    double values[3][6]; /* easy, medium, hard: AP, then precision at 1, 3, 5, 10, 20 */\n} published_cases[] = {", *lines, "};"]


def table(name, array):
    rows = ["    " + ", ".join(f"{v:.9g}" for v in row) + "," for row in numpy.atleast_2d(array)]
    return f"static const float {name}[{array.size}] = {{\n" + "\n".join(rows) + "\n};"


def expansion(checkout, rng):
    scope = {"np": numpy, "tonumpy": lambda x: x, "matmul": lambda a, b: a @ b.T}
    expand = functions(os.path.join(checkout, "dirtorch", "test_dir.py"), ("expand_descriptors",), scope)["expand_descriptors"]
    centres = rng.standard_normal((6, DIM))
    x = centres[rng.integers(0, 6, N)] + 0.6 * rng.standard_normal((N, DIM))
    x = (x / numpy.linalg.norm(x, axis=1, keepdims=True)).astype(numpy.float32).astype(float)
    query = centres[:1] + 0.3 * rng.standard_normal((1, DIM))
    query = (query / numpy.linalg.norm(query)).astype(numpy.float32).astype(float)
    x = x[numpy.argsort(-(x @ query[0]), kind="stable")]
    out = ["enum { PUBLISHED_N = %d, PUBLISHED_DIM = %d };" % (N, DIM), table("published_vectors", x), table("published_query", query)]
    for name, k, alpha in (("aqe_10", 10, 0), ("alpha_10_3", 10, 3), ("alpha_5_1", 5, 1)):
        out.append(table("published_" + name, expand(query, db=x, alpha=alpha, k=k)))
    out.append(table("published_augment_4_2", expand(x, alpha=2, k=4)))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revisited")
    parser.add_argument("--expansion")
    options = parser.parse_args()
    if not options.revisited or not options.expansion:
        return print("no checkouts given: the fixtures stay as they are")
    rng = numpy.random.default_rng(77)
    for name, lines in (("revisited", revisited(options.revisited, rng)), ("expansion", expansion(options.expansion, rng))):
        with open(os.path.join(ROOT, "tests", "fixtures", f"published_{name}.h"), "w") as out:
            out.write("/* Made by tools/reference/published.py with the published code of others: do not edit. */\n#include <math.h>\n\n" +
                      "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
